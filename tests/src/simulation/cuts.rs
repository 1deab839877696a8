//! Every place where a server can die: a fixed story is told once for each change of a disk, and cut right after it.
//!
//! The story makes tables, writes until the log changes its files, lets checkpoints be made and log files be given
//! back, drops a table, stops a server in an orderly way and starts it again. One run without a cut counts the changes
//! of each disk; then the story is told again for each of them, the server dies there (its process, or the power with
//! it), comes back half a second later, and the story goes on. Each of these stories is told a second time, with
//! another death a few changes later, mostly while the server recovers. In the end everything acknowledged must be
//! there, every table must be what it was said to be, and nothing may have been put aside.

use super::shape::{
    HEAL_LIMIT, STOP_LIMIT, Servers, Shape, add_servers, client_ip, durability, quarantined,
    register_codes,
};
use super::workload::{create_request, text};
use bytes::Bytes;
use dsn_core::app::{AppError, AppHost, ServiceApp};
use dsn_core::exec::{Addr, Ctx, Resident};
use dsn_core::sim::{NodeId, NodeSpec, Outcome, Scenario, Sim, StepKind};
use dsn_replication::codes::{
    RPC_CM_CREATE_APP, RPC_CM_DROP_APP, RPC_CM_QUERY_PARTITION_CONFIG_BY_INDEX,
};
use dsn_replication::options::LogDurability;
use dsn_replication::wire::admin::{
    CreateAppResponse, DropAppOptions, DropAppRequest, DropAppResponse,
};
use dsn_replication::wire::config::{QueryCfgRequest, QueryCfgResponse};
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::{Rpc, RpcOptions, ServiceTable};
use pegasus_client::{ClientCore, ClientError, ClientOptions, Kind, ops};
use pegasus_server::settings::{RESERVE_MIN_COUNT, RESERVE_TIME_SECONDS};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

dsn_core::task_codes! {
    /// Codes of the story.
    pub CODES;
    /// Its next step.
    pub LPC_STORY: Compute, Common, "THREAD_POOL_DEFAULT";
}

const TABLE: &str = "kept";
const GONE: &str = "gone";
const SORT_KEY: &[u8] = b"s";
/// Bytes of a value that fills the log.
const BIG: usize = 200_000;
const RETRY: Duration = Duration::from_millis(200);
/// From a death to the next start.
const DOWN: Duration = Duration::from_millis(500);
/// Seeds of the stories, at least one for each durability, see [`durability`]. What a power loss leaves differs by
/// seed.
const SEEDS: [u64; 3] = [2, 3, 5];

/// One step of the story, made again until it is acknowledged.
#[derive(Clone, Copy, Debug)]
enum Do {
    Make(&'static str),
    Drop(&'static str),
    /// There must be no such table.
    Missing(&'static str),
    Put(&'static str, &'static str, usize),
    Incr(&'static str),
    Wait(u64),
    /// The replica servers are stopped and started.
    Restart,
    /// Everything acknowledged is read.
    Read,
}

fn story() -> Vec<Do> {
    let mut story = vec![Do::Make(TABLE)];
    let small = ["k0", "k1", "k2", "k3"];
    for half in 0..2 {
        for key in small {
            story.extend([Do::Put(TABLE, key, 0), Do::Incr("count")]);
        }
        for _ in 0..3 {
            story.extend([Do::Put(TABLE, "big0", BIG), Do::Put(TABLE, "big1", BIG)]);
            story.extend([Do::Put(TABLE, "k0", 0), Do::Wait(400)]);
        }
        story.extend([Do::Wait(2500), Do::Make(GONE), Do::Put(GONE, "g", 0)]);
        match half {
            0 => story.extend([Do::Drop(GONE), Do::Missing(GONE), Do::Wait(500), Do::Restart]),
            _ => story.push(Do::Wait(1500)),
        }
        story.push(Do::Read);
    }
    story
}

/// What a key must hold.
#[derive(Clone, Copy, Debug)]
enum Held {
    Value(u64, usize),
    /// At least, at most.
    Count(u64, u64),
}

/// What the story shares with its driver.
#[derive(Default)]
struct Told {
    /// Restarts asked for, and made.
    asked: AtomicUsize,
    restarted: AtomicUsize,
    finished: AtomicBool,
    acked: AtomicUsize,
    wrong: Mutex<Option<String>>,
}

struct Teller {
    me: Addr<Self>,
    core: Addr<ClientCore>,
    told: Arc<Told>,
    story: Vec<Do>,
    at: usize,
    values: u64,
    held: BTreeMap<(&'static str, &'static str), Held>,
}

impl Resident for Teller {}

type Answer<T> = Result<T, ClientError>;

impl Teller {
    fn step(&mut self, ctx: &mut Ctx<'_>) {
        let Some(step) = self.story.get(self.at).copied() else {
            self.told.finished.store(true, Ordering::Relaxed);
            return;
        };
        match step {
            Do::Make(table) => self.make(ctx, table),
            Do::Drop(table) => self.drop_table(ctx, table),
            Do::Missing(table) => self.missing(ctx, table),
            Do::Put(table, key, len) => self.put(ctx, (table, key), len),
            Do::Incr(key) => self.incr(ctx, key),
            Do::Wait(ms) => {
                self.at += 1;
                ctx.after(self.me, &LPC_STORY, Duration::from_millis(ms), Self::step);
            }
            Do::Restart => {
                self.told.asked.fetch_add(1, Ordering::Relaxed);
                self.at += 1;
                self.wait_for_restart(ctx);
            }
            Do::Read => self.read(ctx, 0),
        }
    }

    fn wait_for_restart(&mut self, ctx: &mut Ctx<'_>) {
        let asked = self.told.asked.load(Ordering::Relaxed);
        if self.told.restarted.load(Ordering::Relaxed) == asked {
            return self.step(ctx);
        }
        ctx.after(self.me, &LPC_STORY, RETRY, Self::wait_for_restart);
    }

    /// After a call: on with the story, or the same again.
    fn went(&mut self, ctx: &mut Ctx<'_>, done: bool) {
        if done {
            self.at += 1;
            self.told.acked.fetch_add(1, Ordering::Relaxed);
            return self.step(ctx);
        }
        ctx.after(self.me, &LPC_STORY, RETRY, Self::step);
    }

    fn wrong(&self, text: String) {
        self.told.wrong.lock().expect("one thread").get_or_insert(text);
    }

    fn make(&mut self, ctx: &mut Ctx<'_>, table: &'static str) {
        let mut request = create_request(table, if table == TABLE { 2 } else { 1 }, 1);
        // The second checkpoint of a replica removes the first.
        let envs = [(RESERVE_MIN_COUNT, "1"), (RESERVE_TIME_SECONDS, "0")];
        request.options.envs = envs.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let me = self.me;
        let _ = ctx.with(self.core, move |core, ctx| {
            let done = Box::new(move |ctx: &mut Ctx<'_>, answer: Answer<CreateAppResponse>| {
                let made = answer.is_ok_and(|a| a.err == ErrorCode::Ok);
                ctx.post(me, &LPC_STORY, move |this, ctx| this.went(ctx, made));
            });
            core.ask_meta(ctx, &RPC_CM_CREATE_APP, &request, Kind::Read, None, done);
        });
    }

    fn drop_table(&mut self, ctx: &mut Ctx<'_>, table: &'static str) {
        let options = DropAppOptions { success_if_not_exist: true, reserve_seconds: Some(0) };
        let request = DropAppRequest { app_name: table.to_owned(), options };
        self.held.retain(|(of, _), _| *of != table);
        let me = self.me;
        let _ = ctx.with(self.core, move |core, ctx| {
            let done = Box::new(move |ctx: &mut Ctx<'_>, answer: Answer<DropAppResponse>| {
                let dropped = answer.is_ok_and(|a| a.err == ErrorCode::Ok);
                ctx.post(me, &LPC_STORY, move |this, ctx| this.went(ctx, dropped));
            });
            core.ask_meta(ctx, &RPC_CM_DROP_APP, &request, Kind::Read, None, done);
        });
    }

    fn missing(&mut self, ctx: &mut Ctx<'_>, table: &'static str) {
        let request = QueryCfgRequest { app_name: table.to_owned(), partition_indices: Vec::new() };
        let code = &RPC_CM_QUERY_PARTITION_CONFIG_BY_INDEX;
        let me = self.me;
        let _ = ctx.with(self.core, move |core, ctx| {
            let done = Box::new(move |ctx: &mut Ctx<'_>, answer: Answer<QueryCfgResponse>| {
                let told = answer.as_ref().is_ok_and(|answer| answer.err != ErrorCode::Busy);
                let there = answer.is_ok_and(|answer| answer.err == ErrorCode::Ok);
                ctx.post(me, &LPC_STORY, move |this, ctx| {
                    if there {
                        this.wrong(format!("table {table} was dropped, and is there"));
                    }
                    this.went(ctx, told);
                });
            });
            core.ask_meta(ctx, code, &request, Kind::Read, None, done);
        });
    }

    fn put(&mut self, ctx: &mut Ctx<'_>, key: (&'static str, &'static str), padding: usize) {
        self.values += 1;
        let value = self.values;
        let request = ops::put(key.1.as_bytes(), SORT_KEY, text(value, padding), 0).expect("a key");
        let me = self.me;
        let _ = ctx.with(self.core, move |core, ctx| {
            let done = Box::new(move |ctx: &mut Ctx<'_>, answer: Answer<()>| {
                ctx.post(me, &LPC_STORY, move |this, ctx| {
                    if answer.is_ok() {
                        this.held.insert(key, Held::Value(value, padding));
                    }
                    this.went(ctx, answer.is_ok());
                });
            });
            core.submit(ctx, key.0, request, None, done);
        });
    }

    fn incr(&mut self, ctx: &mut Ctx<'_>, key: &'static str) {
        let held = self.held.entry((TABLE, key)).or_insert(Held::Count(0, 0));
        let Held::Count(_, most) = held else { return };
        *most += 1;
        let request = ops::incr(key.as_bytes(), SORT_KEY, 1, 0).expect("a key");
        let me = self.me;
        let _ = ctx.with(self.core, move |core, ctx| {
            let done = Box::new(move |ctx: &mut Ctx<'_>, answer: Answer<i64>| {
                ctx.post(me, &LPC_STORY, move |this, ctx| this.counted(ctx, key, answer));
            });
            core.submit(ctx, TABLE, request, None, done);
        });
    }

    fn counted(&mut self, ctx: &mut Ctx<'_>, key: &'static str, answer: Answer<i64>) {
        let went = answer.is_ok();
        if let Some(Held::Count(least, most)) = self.held.get_mut(&(TABLE, key)) {
            *least += u64::from(went);
            match answer {
                Ok(sum) if (*least..=*most).contains(&(sum as u64)) => *least = sum as u64,
                Ok(sum) => {
                    let text = format!("{key} is {sum} after {least} to {most} increments");
                    self.wrong(text);
                }
                // It may have been carried out, or be carried out yet.
                Err(_) => {}
            }
        }
        self.went(ctx, went);
    }

    /// Reads the keys one after the other, each until it is answered.
    fn read(&mut self, ctx: &mut Ctx<'_>, index: usize) {
        let Some((&key, &held)) = self.held.iter().nth(index) else { return self.went(ctx, true) };
        let request = ops::get(key.1.as_bytes(), SORT_KEY).expect("a key");
        let me = self.me;
        let _ = ctx.with(self.core, move |core, ctx| {
            let done = Box::new(move |ctx: &mut Ctx<'_>, answer: Answer<Option<Bytes>>| {
                ctx.post(me, &LPC_STORY, move |this, ctx| match answer {
                    Ok(value) => {
                        if let Some(wrong) = unlike(held, value.as_deref()) {
                            this.wrong(format!("{}/{}: {wrong}", key.0, key.1));
                        }
                        this.read(ctx, index + 1);
                    }
                    Err(_) => this.read_again(ctx, index),
                });
            });
            core.submit(ctx, key.0, request, None, done);
        });
    }

    fn read_again(&mut self, ctx: &mut Ctx<'_>, index: usize) {
        ctx.after(self.me, &LPC_STORY, RETRY, move |this, ctx| this.read(ctx, index));
    }
}

/// Why a value is not what the key must hold.
fn unlike(held: Held, found: Option<&[u8]>) -> Option<String> {
    let shown =
        found.map(|found| String::from_utf8_lossy(&found[..found.len().min(20)]).into_owned());
    match held {
        Held::Value(value, padding) => {
            let same = found.is_some_and(|found| *found == text(value, padding)[..]);
            (!same).then(|| format!("{shown:?} instead of {value}"))
        }
        Held::Count(least, most) => {
            let count = shown.as_deref().map_or(Some(0), |text| text.parse::<u64>().ok());
            let fits = count.is_some_and(|count| (least..=most).contains(&count));
            (!fits).then(|| format!("{shown:?} instead of {least} to {most}"))
        }
    }
}

struct TellerApp {
    metas: Vec<SocketAddr>,
    told: Arc<Told>,
}

impl ServiceApp for TellerApp {
    fn start(&mut self, ctx: &mut Ctx<'_>, _: Addr<AppHost>) -> Result<(), AppError> {
        Rpc::start(ctx, RpcOptions::default(), ServiceTable::new());
        let mut options = ClientOptions::new(self.metas.clone());
        options.timeout = Duration::from_secs(2);
        let core = ctx.spawn_here(|_, me| ClientCore::new(me, options));
        let told = self.told.clone();
        let me = ctx.spawn_here(|_, me| Teller {
            me,
            core,
            told,
            story: story(),
            at: 0,
            values: 0,
            held: BTreeMap::new(),
        });
        ctx.post(me, &LPC_STORY, Teller::step);
        Ok(())
    }
}

/// Where a server dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The meta server.
    Meta,
    /// The replica server.
    Replica,
}

/// One telling of the story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Seed of the telling; says what acknowledgements rest on.
    pub seed: u64,
    /// Who dies.
    pub victim: Victim,
    /// After which change of its disk.
    pub step: u64,
    /// Whether the power fails with it.
    pub power: bool,
    /// After how many changes of the recovery it dies again, if it does.
    pub again: Option<u64>,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, victim, step, power, again } = self;
        let how = if *power { "power" } else { "kill" };
        write!(f, "seed {seed}, {victim:?}, {how} after change {step}")?;
        again.map_or(Ok(()), |again| write!(f, ", again after {again} more"))
    }
}

fn scenario(seed: u64) -> Scenario {
    let mut scenario = Scenario::quiet(seed, Duration::ZERO);
    let turned = [
        ("cluster.clients", 0),
        ("replication.segment_mb", 1),
        ("replication.segments", 1),
        ("replication.reserve_seconds", 0),
        ("replication.checkpoint_seconds", 1),
        ("meta.lively", 1),
    ];
    scenario.knobs.extend(turned.map(|(name, value)| (name.to_owned(), value)));
    scenario
}

struct Stage {
    sim: Sim,
    servers: Servers,
    told: Arc<Told>,
}

impl Stage {
    fn new(seed: u64) -> Self {
        register_codes();
        dsn_core::code::register(CODES);
        let scenario = scenario(seed);
        let mut sim = Sim::new(seed, scenario.options());
        let servers = add_servers(&mut sim, &scenario);
        let metas = Shape::of(&scenario).meta_addresses();
        let told = Arc::new(Told::default());
        let shared = told.clone();
        sim.add_node(NodeSpec::new("client0", client_ip(0), 1, move || {
            Box::new(TellerApp { metas: metas.clone(), told: shared.clone() })
        }));
        Self { sim, servers, told }
    }

    fn node(&self, victim: Victim) -> NodeId {
        match victim {
            Victim::Meta => self.servers.metas[0],
            Victim::Replica => self.servers.replicas[0],
        }
    }

    /// Tells the story to its end; `cut` is known to the disks already.
    fn tell(&mut self, cut: Option<&Cut>) {
        for id in self.sim.node_ids() {
            if let Err(error) = self.sim.start(id)
                && cut.is_none_or(|cut| self.node(cut.victim) != id)
            {
                let name = self.sim.name(id).to_owned();
                return self.sim.violate("start", format!("{name}: {error}"));
            }
        }
        let mut again =
            cut.and_then(|cut| cut.again.map(|steps| (self.node(cut.victim), steps, cut.power)));
        loop {
            let told = self.told.clone();
            let victim = again.map(|again| again.0);
            let done = move |sim: &mut Sim| {
                let died = victim.is_some_and(|id| !sim.is_up(id));
                let asked = told.asked.load(Ordering::Relaxed);
                died || told.finished.load(Ordering::Relaxed)
                    || asked > told.restarted.load(Ordering::Relaxed)
            };
            let outcome = self.sim.run_until(HEAL_LIMIT, done);
            if outcome == Outcome::Violated {
                return;
            }
            if let Some((id, steps, power)) = again
                && !self.sim.is_up(id)
            {
                self.sim.crash_next_after(id, steps, power, Some(DOWN));
                again = None;
            } else if self.told.finished.load(Ordering::Relaxed) {
                return;
            } else if outcome == Outcome::Reached {
                self.restart_replicas(cut);
            } else {
                let acked = self.told.acked.load(Ordering::Relaxed);
                let text = format!("the story stands still after {acked} acknowledged steps");
                return self.sim.violate("liveness", text);
            }
        }
    }

    /// An orderly stop and a start. A cut that has not come yet comes after it.
    fn restart_replicas(&mut self, cut: Option<&Cut>) {
        for id in self.servers.replicas.clone() {
            self.sim.stop(id);
            let stopped = |sim: &mut Sim| !sim.is_up(id);
            if self.sim.run_until(STOP_LIMIT, stopped) != Outcome::Reached {
                return self.sim.violate("shutdown", "the replica server does not stop".to_owned());
            }
            let waiting = cut.filter(|cut| self.node(cut.victim) == id && self.sim.deaths(id) == 0);
            if let Some(cut) = waiting {
                let left = cut.step.saturating_sub(self.sim.disk(id).steps());
                self.sim.crash_next_after(id, left, cut.power, Some(DOWN));
            }
            self.sim.restart_after(id, Duration::from_millis(100));
        }
        self.told.restarted.fetch_add(1, Ordering::Relaxed);
    }

    fn judge(&mut self) -> Option<String> {
        if let Some(wrong) = self.told.wrong.lock().expect("one thread").take() {
            return Some(format!("durability: {wrong}"));
        }
        let aside = quarantined(&self.sim, &self.servers);
        if !aside.is_empty() {
            return Some(format!("quarantine: put aside though nothing was damaged: {aside:?}"));
        }
        if self.sim.violation().is_none() {
            let _ = self.sim.finish(STOP_LIMIT);
        }
        self.sim.violation().map(ToString::to_string)
    }
}

/// How the story went with a cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telling {
    /// What went wrong: who says so, and what.
    pub wrong: Option<String>,
    /// Whether the server died where it should.
    pub died: bool,
    /// Hash of all that happened.
    pub trace_hash: u64,
}

/// Tells the story once with this cut.
pub fn run(cut: &Cut) -> Telling {
    let mut stage = Stage::new(cut.seed);
    let id = stage.node(cut.victim);
    stage.sim.crash_next_after(id, cut.step, cut.power, Some(DOWN));
    stage.tell(Some(cut));
    let wrong = stage.judge();
    Telling { wrong, died: stage.sim.deaths(id) > 0, trace_hash: stage.sim.trace_hash() }
}

/// The changes of a disk in the story without a cut.
///
/// # Errors
/// When that goes wrong already.
pub fn changes(seed: u64, victim: Victim) -> Result<Vec<(StepKind, String)>, String> {
    let mut stage = Stage::new(seed);
    let id = stage.node(victim);
    stage.sim.disk(id).log_steps();
    stage.tell(None);
    let log = stage.sim.disk(id).step_log();
    stage.judge().map_or(Ok(log), Err)
}

/// Every cut of every story.
///
/// # Errors
/// When a story without a cut goes wrong.
pub fn all() -> Result<Vec<Cut>, String> {
    let mut cuts = Vec::new();
    for seed in SEEDS {
        for victim in [Victim::Meta, Victim::Replica] {
            let steps = changes(seed, victim)?.len() as u64;
            for power in [false, true] {
                // What `os` promises ends with the power.
                if power && victim == Victim::Replica && durability(seed) == LogDurability::Os {
                    continue;
                }
                for step in 1..=steps {
                    let once = Cut { seed, victim, step, power, again: None };
                    cuts.extend([once, Cut { again: Some(1 + step * 7 % 25), ..once }]);
                }
            }
        }
    }
    Ok(cuts)
}
