//! A whole cluster in the simulator: meta server, replica servers and clients, the same code as natively, under faults
//! drawn from a seed, with what its clients saw checked. See `docs/simulation.md`.
//!
//! A run: the cluster starts and makes its table; for some virtual time clients work while faults strike; everything
//! heals; every key must then be served, and what was read must be explained by some order of all calls. With one
//! copy of everything, a partition whose stored bytes were damaged may be refused instead; it must never be served.

pub mod cuts;
pub mod groups;
pub mod history;
pub mod members;
pub mod plan;
pub mod planted;
pub mod shape;
pub mod spy;
pub mod workload;

pub use plan::{draw, draw_group};

use dsn_core::sim::{NodeSpec, Outcome, Report, Scenario, Shrunk, Sim, shrink};
use history::{History, KEYS, hash_key};
use members::{Members, Primaries};
use pegasus_client::schema::partition_hash;
use shape::{
    HEAL_LIMIT, START_LIMIT, STOP_LIMIT, Servers, Shape, add_servers, client_ip, knob, quarantined,
    register_codes,
};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use workload::{ClientApp, Habits};

/// What a run showed.
#[derive(Clone, Debug)]
pub struct RunReport {
    /// The simulator's own.
    pub report: Report,
    /// Calls answered.
    pub acked: u64,
    /// Pairs and leases looked at.
    pub checked: u64,
    /// Mutations that were applied on more than one server, or again, and images that two servers had: all equal.
    pub compared: u64,
    /// See there.
    pub images: u64,
    /// Pairs of a partition and a server that led it.
    pub leaders: usize,
    /// Ballots under which anybody led, of all partitions.
    pub ballots: usize,
    /// How often calls of clients failed with each error.
    pub errors: BTreeMap<String, u64>,
    /// The longest time without any answer, from the first fault to the last.
    pub silence: Duration,
    /// Faults of the plan.
    pub faults: usize,
    /// Partitions that were put aside because their stored bytes were damaged.
    pub quarantined: usize,
}

struct World {
    sim: Sim,
    history: Arc<History>,
    servers: Servers,
    shape: Shape,
    primaries: Rc<RefCell<Primaries>>,
}

fn build(scenario: &Scenario, step_log: bool, steps_max: u64) -> World {
    register_codes();
    dsn_core::code::register(workload::CODES);
    let mut options = scenario.options();
    (options.step_log, options.max_steps) = (step_log, steps_max);
    let mut sim = Sim::new(scenario.seed, options);
    let shape = Shape::of(scenario);
    let history = Arc::new(History::new(usize::from(shape.clients) * shape.sessions));
    let servers = add_servers(&mut sim, scenario);
    let damaged = plan::damages(scenario);
    let members = Members::new(&servers, servers.contents.clone(), damaged);
    let primaries = members.primaries();
    sim.add_checker(Box::new(members));
    let habits = Habits {
        think: Duration::from_millis(knob(scenario, "workload.think_ms")),
        padding: knob(scenario, "workload.value_bytes") as usize,
        leases: !plan::steps_clocks(scenario),
        reads_percent: knob(scenario, "workload.reads_percent"),
        makes_tables: knob(scenario, "workload.tables") == 1,
        table: (shape.partitions, shape.copies),
    };
    for (name, number) in shape.client_names().into_iter().zip(0..) {
        let (history, habits) = (history.clone(), habits.clone());
        let (sessions, metas) = (shape.sessions, shape.meta_addresses());
        sim.add_node(NodeSpec::new(&name, client_ip(number), 1, move || {
            Box::new(ClientApp {
                number: number.into(),
                sessions,
                metas: metas.clone(),
                history: history.clone(),
                habits: habits.clone(),
            })
        }));
    }
    World { sim, history, servers, shape, primaries }
}

/// Most steps of a run; those of seeds take some hundred thousand.
pub const STEPS_MAX: u64 = 50_000_000;

/// How many times as many steps as the run that failed a smaller one may take while that is being shrunk.
pub const SHRINK_STEPS_FACTOR: u64 = 4;

/// Runs a scenario once.
pub fn run(scenario: &Scenario, step_log: bool) -> RunReport {
    run_within(scenario, step_log, STEPS_MAX)
}

/// Runs a scenario once, in at most so many steps; more are called a livelock.
pub fn run_within(scenario: &Scenario, step_log: bool, steps_max: u64) -> RunReport {
    let mut world = build(scenario, step_log, steps_max);
    let silence = drive(scenario, &mut world);
    let World { mut sim, history, servers, primaries, .. } = world;
    // A wrong answer weighs more than that something took too long.
    if sim.violation().is_none_or(|violation| violation.by == "liveness")
        && let Some((by, text)) = history.judge()
    {
        sim.accuse(by, text);
    }
    let mut images = 0;
    if sim.violation().is_none() && sim.finish(STOP_LIMIT).is_ok() {
        match members::compare_images(&sim, &servers, plan::damages(scenario)) {
            Ok(compared) => images = compared,
            Err(text) => sim.violate("divergence", text),
        }
        if let Err(text) = members::compare_places(&sim, &servers) {
            sim.violate("divergence", text);
        }
    }
    RunReport {
        images,
        compared: servers.contents.compared(),
        quarantined: quarantined(&sim, &servers).len(),
        report: sim.report(),
        leaders: primaries.borrow().leaders(),
        ballots: primaries.borrow().ballots(),
        errors: history.errors(),
        silence,
        acked: history.acked(),
        checked: history.checked(),
        faults: scenario.faults.len(),
    }
}

/// The smallest scenario found, in at most `runs` runs, at which the judge `by` objects as well, to a cluster of the
/// same shape. The scenario fails after `steps`; what takes [`SHRINK_STEPS_FACTOR`] times as many is another failure.
pub fn shrink_failure(scenario: &Scenario, by: &str, steps: u64, runs: usize) -> Shrunk {
    let shape = Shape::of(scenario);
    let most = steps.saturating_mul(SHRINK_STEPS_FACTOR).min(STEPS_MAX);
    let mut fails = |smaller: &Scenario| {
        let violation = || run_within(smaller, false, most).report.violation;
        Shape::of(smaller) == shape && violation().is_some_and(|violation| violation.by == by)
    };
    shrink(scenario, runs, &mut fails)
}

/// The run but for its end. Returns the longest time without an answer while faults struck.
fn drive(scenario: &Scenario, world: &mut World) -> Duration {
    let World { sim, history, servers, shape, .. } = world;
    let mut silence = Duration::ZERO;
    for id in sim.node_ids() {
        if let Err(error) = sim.start(id) {
            let name = sim.name(id).to_owned();
            sim.violate("start", format!("{name}: {error}"));
            return silence;
        }
    }
    let ready = |_: &mut Sim| history.ready.load(Ordering::Relaxed);
    if sim.run_until(START_LIMIT, ready) != Outcome::Reached {
        sim.violate("liveness", "the table was not made".to_owned());
        return silence;
    }
    // The plan counts from here.
    let (begun, partitions) = (sim.now(), shape.partitions);
    for timed in &scenario.faults {
        let (fault, servers) = (timed.fault.clone(), servers.clone());
        sim.at(begun + Duration::from_millis(timed.at_ms), move |sim| {
            if !plan::spares(sim, &servers, partitions, &fault) {
                sim.inject(&fault);
            }
        });
    }
    let (mut acked, mut since) = (history.acked(), begun);
    sim.run_until(scenario.duration(), |sim| {
        silence = silence.max(sim.now() - since);
        if history.acked() != acked {
            (acked, since) = (history.acked(), sim.now());
        }
        false
    });
    sim.heal();
    history.stopping.store(true, Ordering::Relaxed);
    // A replica whose log failed serves again when its server is started again, as an operator would.
    for id in servers.all() {
        if sim.is_up(id) {
            sim.kill(id);
        }
        sim.restart_after(id, Duration::from_secs(1));
    }
    if sim.violation().is_some() {
        return silence;
    }
    let damaged = plan::damages(scenario);
    let mut looked = sim.now();
    let mut excused: Vec<usize> = Vec::new();
    let done = |sim: &mut Sim| {
        if damaged && sim.now() >= looked + Duration::from_secs(1) {
            looked = sim.now();
            excused = keys_of(&quarantined(sim, servers), shape);
        }
        history.all_read(&excused)
    };
    if sim.run_until(HEAL_LIMIT, done) != Outcome::Reached {
        let unread = history.unread(&excused);
        sim.violate(
            "liveness",
            format!("keys {unread:?} are not served {HEAL_LIMIT:?} after healing"),
        );
    } else if shape.copies > 1 {
        become_whole(sim, servers, shape);
    }
    silence
}

/// Every group gets all its members back, and they the last that was committed; but for groups of which a copy was
/// damaged and put aside, for it may have been the last.
fn become_whole(sim: &mut Sim, servers: &Servers, shape: &Shape) {
    let left = |sim: &Sim| {
        let mut left = members::incomplete(sim, servers, shape);
        if !left.is_empty() {
            let aside = quarantined(sim, servers);
            left.retain(|index| !aside.iter().any(|q| q.app_id == 1 && q.partition == *index));
        }
        left
    };
    let mut looked = Duration::ZERO;
    let whole = |sim: &mut Sim| {
        let due = sim.now() >= looked + LOOK_INTERVAL;
        if due {
            looked = sim.now();
        }
        due && left(sim).is_empty()
    };
    if sim.run_until(HEAL_LIMIT, whole) != Outcome::Reached {
        let left: Vec<String> =
            left(sim).iter().map(|index| members::describe(sim, servers, *index)).collect();
        let left = left.join(" | ");
        sim.violate("liveness", format!("not whole {HEAL_LIMIT:?} after healing: {left}"));
    }
}

/// Virtual time between two looks at whether groups are whole.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Keys with a history that live in partitions of the workload's table, which is the first that was made.
fn keys_of(quarantined: &[shape::Quarantined], shape: &Shape) -> Vec<usize> {
    let partition = |key: &usize| {
        let hash = partition_hash::of_record(&hash_key(*key), b"s");
        partition_hash::partition_index(hash, shape.partitions)
    };
    (0..KEYS).filter(|key| quarantined.iter().any(|q| q.partition == partition(key))).collect()
}
