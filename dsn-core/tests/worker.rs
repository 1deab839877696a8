//! What a worker promises, under a simulated clock: priorities, expiry, admission, the watchdog, the toollets.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use dsn_core::app::{AppError, AppHost, ServiceApp};
use dsn_core::code::{Code, Priority};
use dsn_core::config::{Loader, core_schema};
use dsn_core::disk::{OpenMode, SyncMode};
use dsn_core::driver::{IoEvent, Sock};
use dsn_core::exec::{Addr, Ctx, Handle, Phase, Resident, WorkerId};
use dsn_core::log::Logger;
use dsn_core::metrics::{Filters, Labels, prometheus, watch_runtime};
use dsn_core::node::CodeOverride;
use dsn_core::sim::{Dist, NodeId, NodeSpec, Sim, SimOptions};
use dsn_core::stage::{DEFAULT, Executor, SCAN, Stage, StagePlan};
use dsn_core::time::Mono;
use dsn_core::toollet::FaultRule;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

dsn_core::task_codes! {
    /// Codes of the tests.
    CODES;
    LPC_W_LOW: Compute, Low, "THREAD_POOL_DEFAULT";
    LPC_W_COMMON: Compute, Common, "THREAD_POOL_DEFAULT";
    LPC_W_HIGH: Compute, High, "THREAD_POOL_DEFAULT";
    LPC_W_SLOW: Compute, Common, "THREAD_POOL_DEFAULT";
    LPC_W_OUTER: Compute, Common, "THREAD_POOL_DEFAULT";
    LPC_W_TURN_END: Compute, Common, "THREAD_POOL_DEFAULT";
    LPC_W_JOB: Blocking, Common, "THREAD_POOL_SCAN";
    LPC_W_QUIET: Compute, Common, "THREAD_POOL_DEFAULT";
}

const MS: Duration = Duration::from_millis(1);
/// What a sync of the disk takes here.
const SYNC: Duration = Duration::from_millis(20);
const W0: WorkerId = WorkerId(0);

struct Nothing;

impl ServiceApp for Nothing {
    fn start(&mut self, _: &mut Ctx<'_>, _: Addr<AppHost>) -> Result<(), AppError> {
        Ok(())
    }
}

/// Notes names in the order in which it is told them.
#[derive(Default)]
struct Notes {
    seen: Vec<&'static str>,
}
impl Resident for Notes {}

fn options() -> SimOptions {
    let mut options = SimOptions {
        event_cost: Dist::fixed(Duration::from_micros(1)),
        stall_one_in: 0,
        ..SimOptions::default()
    };
    options.disk.sync = Dist::fixed(SYNC);
    options
}

fn start(
    options: SimOptions,
    codes: Vec<(String, CodeOverride)>,
    plan: fn() -> StagePlan,
) -> (Sim, NodeId) {
    dsn_core::code::register(CODES);
    let mut sim = Sim::new(3, options);
    let ip = [10, 0, 0, 1].into();
    let id = sim.add_node(NodeSpec::with("n", ip, || Box::new(Nothing), codes, None, plan));
    sim.start(id).unwrap();
    (sim, id)
}

fn one_core() -> StagePlan {
    StagePlan::auto(1)
}

fn notes(sim: &mut Sim, id: NodeId) -> Addr<Notes> {
    sim.enter(id, W0, &LPC_W_COMMON, |ctx| ctx.spawn_here(|_, _| Notes::default())).unwrap()
}

fn seen(sim: &Sim, id: NodeId, notes: Addr<Notes>) -> Vec<&'static str> {
    sim.peek(id, notes, |notes| notes.seen.clone()).unwrap()
}

/// A handler that takes [`SYNC`].
fn dawdle(ctx: &mut Ctx<'_>) {
    let file = ctx.disk().open(Path::new("/slow"), OpenMode::ReadWrite).unwrap();
    file.sync(SyncMode::Data).unwrap();
}

fn again(notes: &mut Notes, ctx: &mut Ctx<'_>, me: Addr<Notes>, code: Code) {
    notes.seen.push(code.name());
    if notes.seen.len() < 2_000 {
        ctx.post(me, code, move |notes, ctx| again(notes, ctx, me, code));
    }
}

#[test]
fn low_priority_is_never_starved() {
    let (mut sim, id) = start(options(), Vec::new(), one_core);
    let notes = notes(&mut sim, id);
    sim.enter(id, W0, &LPC_W_COMMON, |ctx| {
        // Chains of high and common priority that never leave their queues empty, and some low ones.
        for _ in 0..3 {
            for code in [&LPC_W_HIGH, &LPC_W_COMMON] {
                ctx.post(notes, code, move |it, ctx| again(it, ctx, notes, code));
            }
        }
        for _ in 0..20 {
            ctx.post(notes, &LPC_W_LOW, |it, _| it.seen.push("LPC_W_LOW"));
        }
    });
    sim.run_for(Duration::from_secs(1));
    let seen = seen(&sim, id, notes);
    let low: Vec<usize> = (0..seen.len()).filter(|n| seen[*n] == "LPC_W_LOW").collect();
    assert_eq!(low.len(), 20);
    // 16 high, 4 common and 1 low in a round.
    assert!(low.windows(2).all(|pair| pair[1] - pair[0] <= 21), "{low:?}");
    assert_eq!(seen[0], "LPC_W_HIGH");
    let high = seen[..210].iter().filter(|name| **name == "LPC_W_HIGH").count();
    assert_eq!(high, 160, "in ten rounds");
}

#[test]
fn configured_priority_decides() {
    let high = CodeOverride { priority: Some(Priority::High), ..CodeOverride::default() };
    let (mut sim, id) = start(options(), vec![("LPC_W_LOW".to_owned(), high)], one_core);
    let notes = notes(&mut sim, id);
    sim.enter(id, W0, &LPC_W_COMMON, |ctx| {
        for (code, name) in [(&LPC_W_COMMON, "common"), (&LPC_W_LOW, "raised")] {
            ctx.post(notes, code, move |it, _| it.seen.push(name));
        }
    });
    sim.run_for(MS);
    assert_eq!(seen(&sim, id, notes), ["raised", "common"]);
}

#[test]
fn an_event_past_its_deadline_is_dropped_unless_its_code_says_no() {
    let keep = CodeOverride { drop_expired: Some(false), ..CodeOverride::default() };
    let (mut sim, id) = start(options(), vec![("LPC_W_LOW".to_owned(), keep)], one_core);
    let notes = notes(&mut sim, id);
    let dropped = Arc::new(());
    let held = dropped.clone();
    sim.enter(id, W0, &LPC_W_COMMON, |ctx| {
        ctx.post(notes, &LPC_W_HIGH, |_, ctx| dawdle(ctx));
        let (early, late) = (ctx.now() + SYNC / 2, ctx.now() + 4 * SYNC);
        ctx.post_until(notes, &LPC_W_COMMON, early, move |it, _| {
            let _held = held;
            it.seen.push("too late");
        });
        ctx.post_until(notes, &LPC_W_COMMON, late, |it, _| it.seen.push("in time"));
        ctx.post_until(notes, &LPC_W_LOW, early, |it, _| it.seen.push("late and wanted"));
    });
    sim.run_for(Duration::from_secs(1));
    assert_eq!(seen(&sim, id, notes), ["in time", "late and wanted"]);
    assert_eq!(sim.node(id).unwrap().expired(), 1);
    assert_eq!(Arc::strong_count(&dropped), 1, "what the event carried is dropped with it");
}

/// One core, and a target of 1 ms for the default stage.
fn impatient() -> StagePlan {
    let mut plan = one_core();
    for stage in &mut plan.stages {
        if stage.name() == DEFAULT {
            *stage = Stage::new(DEFAULT, Executor::Loop(vec![W0]), MS, usize::MAX);
        }
        if stage.name() == SCAN {
            *stage = Stage::new(SCAN, Executor::Shared(0), Duration::ZERO, 10);
        }
    }
    plan
}

#[test]
fn a_standing_queue_refuses_and_a_drained_one_admits() {
    let (mut sim, id) = start(options(), Vec::new(), impatient);
    let notes = notes(&mut sim, id);
    let node = sim.node(id).unwrap().clone();
    let stage = node.stage(node.find_stage(DEFAULT).unwrap());
    let burst = |sim: &mut Sim, count| {
        sim.enter(id, W0, &LPC_W_COMMON, |ctx| {
            for _ in 0..count {
                ctx.post(notes, &LPC_W_COMMON, |_, ctx| dawdle(ctx));
            }
        });
    };
    burst(&mut sim, 3);
    sim.run_for(4 * SYNC);
    assert!(stage.admits(), "a burst of 60 ms is no standing queue");
    burst(&mut sim, 40);
    sim.run_for(30 * SYNC);
    assert!(!stage.admits(), "everything has waited for 600 ms");
    sim.run_for(20 * SYNC);
    for _ in 0..20 {
        burst(&mut sim, 1);
        sim.run_for(2 * SYNC);
    }
    assert!(stage.admits(), "events begin at once again");
}

#[test]
fn a_full_blocking_stage_refuses() {
    let mut options = options();
    options.job_cost = Dist::fixed(10 * MS);
    let (mut sim, id) = start(options, Vec::new(), impatient);
    let notes = notes(&mut sim, id);
    let node = sim.node(id).unwrap().clone();
    let stage = node.stage(node.find_stage(SCAN).unwrap());
    sim.enter(id, W0, &LPC_W_COMMON, |ctx| {
        for _ in 0..10 {
            ctx.offload(&LPC_W_JOB, |_| (), notes, |it, (), _| it.seen.push("done"));
        }
    });
    assert_eq!((stage.waiting(), stage.admits()), (10, false));
    sim.run_for(Duration::from_secs(1));
    assert_eq!((stage.waiting(), stage.admits()), (0, true));
    assert_eq!(seen(&sim, id, notes).len(), 10);
}

/// Lines of the log.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    /// Codes of the slow tasks reported since the last call, with their time in ms.
    fn slow(&self) -> Vec<(String, u64)> {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap());
        let text = String::from_utf8(bytes).unwrap();
        let field = |line: &str, name: &str| {
            let rest = line.split(&format!(" {name}=")).nth(1).unwrap_or_default();
            rest.split(' ').next().unwrap_or_default().trim_matches('"').to_owned()
        };
        let slow = text.lines().filter(|line| line.contains("slow task"));
        slow.map(|line| {
            (field(line, "code"), field(line, "micros").parse::<u64>().unwrap() / 1_000)
        })
        .collect()
    }
}

/// Is slow when its listener has a caller.
struct SlowListener;
impl Resident for SlowListener {
    fn on_io(&mut self, ctx: &mut Ctx<'_>, event: IoEvent, _: u64) {
        if ctx.accept(event.sock).is_ok() {
            dawdle(ctx);
        }
    }
    fn on_close(&mut self, ctx: &mut Ctx<'_>) {
        (0..4).for_each(|n| ctx.close_socket(Sock(n)));
    }
}

#[test]
fn slow_work_is_named_by_its_code_wherever_it_runs() {
    let lines = Lines::default();
    let config = Loader::new(core_schema()).load().unwrap();
    let logger = Logger::to_sink(&config.section().unwrap(), lines.clone()).unwrap();
    tracing::subscriber::with_default(logger.into_subscriber(), || {
        let (mut sim, id) = start(options(), Vec::new(), one_core);
        let notes = notes(&mut sim, id);
        let named = |name: &str| vec![(name.to_owned(), 20)];
        sim.enter(id, W0, &LPC_W_COMMON, |ctx| {
            ctx.post(notes, &LPC_W_SLOW, |_, ctx| dawdle(ctx));
            ctx.post(notes, &LPC_W_COMMON, |_, _| ());
        });
        sim.run_for(4 * SYNC);
        assert_eq!(lines.slow(), named("LPC_W_SLOW"), "a task");

        sim.enter(id, W0, &LPC_W_COMMON, |ctx| {
            ctx.after(notes, &LPC_W_SLOW, MS, |_, ctx| dawdle(ctx));
        });
        sim.run_for(4 * SYNC);
        assert_eq!(lines.slow(), named("LPC_W_SLOW"), "a timer");

        sim.enter(id, W0, &LPC_W_OUTER, |ctx| {
            ctx.event(&LPC_W_SLOW, ctx.now(), None, dawdle);
        });
        assert_eq!(lines.slow(), named("LPC_W_SLOW"), "an event within another, and it alone");

        sim.enter(id, W0, &LPC_W_COMMON, |ctx| {
            ctx.defer(Phase::Log, notes, &LPC_W_TURN_END, |_, ctx| dawdle(ctx));
        });
        assert_eq!(lines.slow(), named("LPC_W_TURN_END"), "the end of a turn");

        let addr = SocketAddr::from(([127, 0, 0, 1], 99));
        sim.enter(id, W0, &LPC_W_COMMON, move |ctx| {
            let listener = ctx.spawn_here(|_, _| SlowListener);
            let sock = ctx.listen(addr).unwrap();
            ctx.attach(sock, listener, 0);
            ctx.connect(addr).unwrap();
        });
        sim.run_for(4 * SYNC);
        assert_eq!(lines.slow(), named("LPC_IO_READY"), "readiness");
        assert_eq!(sim.node(id).unwrap().slow(), 5);
        sim.finish(Duration::from_secs(1)).unwrap();
    });
}

#[test]
fn toollets_switch_on_and_off_at_run_time() {
    let quiet =
        CodeOverride { trace: Some(false), profile: Some(false), ..CodeOverride::default() };
    let (mut sim, id) = start(options(), vec![("LPC_W_QUIET".to_owned(), quiet)], one_core);
    let notes = notes(&mut sim, id);
    let node = sim.node(id).unwrap().clone();
    dsn_core::toollet::install(&node).unwrap();
    let command = |line: &str| node.commands().run_now(line);
    let work = |sim: &mut Sim| {
        sim.enter(id, W0, &LPC_W_COMMON, |ctx| {
            for code in [&LPC_W_LOW, &LPC_W_SLOW, &LPC_W_QUIET] {
                ctx.post(notes, code, move |it, ctx| {
                    it.seen.push(code.name());
                    if code.name() == "LPC_W_SLOW" {
                        dawdle(ctx);
                    }
                });
            }
        });
        sim.run_for(4 * SYNC);
    };
    let row = |text: String, code: &str| -> Vec<String> {
        let line = text.lines().find(|line| line.starts_with(code)).unwrap_or_default().to_owned();
        line.split_whitespace().map(str::to_owned).collect()
    };
    work(&mut sim);
    assert!(row(command("profiler LPC_W"), "LPC_W_LOW").is_empty(), "nothing is on");
    assert_eq!(command("tracer.find LPC_W"), "");

    assert_eq!(command("toollet profiler on"), "tracer: off\nprofiler: on\nfault_injector: off\n");
    command("toollet tracer on");
    work(&mut sim);
    let slow = row(command("profiler LPC_W"), "LPC_W_SLOW");
    assert_eq!(slow[1], "1", "{slow:?}");
    assert!(slow[4].parse::<f64>().unwrap() >= 20_000.0, "longest, in us: {slow:?}");
    assert_eq!(row(command("profiler LPC_W"), "LPC_W_LOW")[1], "1");
    assert!(row(command("profiler LPC_W"), "LPC_W_QUIET").is_empty(), "its section says no");
    let traced = command("tracer.find LPC_W");
    assert!(traced.contains("LPC_W_SLOW") && !traced.contains("LPC_W_QUIET"), "{traced}");

    // What comes from outside of the runtime has waited in no queue that anybody has timed.
    Handle::new(&node).post(notes, &LPC_W_HIGH, |_, _| ()).unwrap();
    sim.run_for(SYNC);
    assert_eq!(row(command("profiler LPC_W_HIGH"), "LPC_W_HIGH")[2], "0.0");

    command("toollet profiler off");
    command("toollet tracer off");
    work(&mut sim);
    assert_eq!(row(command("profiler LPC_W"), "LPC_W_SLOW")[1], "1");
    assert_eq!(command("toollet hammer on"), "there is no toollet hammer");
    drop(node);
    sim.finish(Duration::from_secs(1)).unwrap();
}

#[test]
fn files_have_toollets_too() {
    let (mut sim, id) = start(options(), Vec::new(), one_core);
    let node = sim.node(id).unwrap().clone();
    dsn_core::toollet::install(&node).unwrap();
    let command = |line: &str| node.commands().run_now(line);
    let write = |sim: &mut Sim| {
        sim.enter(id, W0, &LPC_W_COMMON, |ctx| {
            let file = ctx.disk().open(Path::new("/a"), OpenMode::ReadWrite)?;
            file.write_at(0, &["x".into()])?;
            file.sync(SyncMode::Data)
        })
        .unwrap()
    };
    write(&mut sim).unwrap();
    assert!(!command("profiler LPC_DISK").contains("LPC_DISK_WRITE"), "nothing is on");
    command("toollet profiler on");
    command("toollet tracer on");
    write(&mut sim).unwrap();
    write(&mut sim).unwrap();
    let profile = command("profiler LPC_DISK");
    for code in ["LPC_DISK_NAME", "LPC_DISK_WRITE", "LPC_DISK_SYNC"] {
        let row = profile.lines().find(|line| line.starts_with(code)).unwrap_or_default();
        assert_eq!(row.split_whitespace().nth(1), Some("2"), "{code}: {profile}");
    }
    let rule = |code: &str| FaultRule {
        code: code.to_owned(),
        drop_ppm: 0,
        fail_ppm: 1_000_000,
        delay_ppm: 0,
        delay: (Duration::ZERO, Duration::ZERO),
    };
    node.hooks().injector.set(vec![rule("LPC_DISK_SYNC")]);
    write(&mut sim).unwrap();
    command("toollet fault_injector on");
    assert_eq!(write(&mut sim).unwrap_err().to_string(), "injected disk fault");
    let failed = command("tracer.find LPC_DISK_SYNC 1");
    assert!(failed.contains("LPC_DISK_SYNC") && failed.contains("failed"), "{failed}");
    assert!(command("tracer.find LPC_DISK_WRITE 1").contains("done"), "only syncs fail");
    command("toollet fault_injector off");
    write(&mut sim).unwrap();
    drop(node);
    sim.finish(Duration::from_secs(1)).unwrap();
}

#[test]
fn the_runtime_has_metrics() {
    let (mut sim, id) = start(options(), Vec::new(), one_core);
    let notes = notes(&mut sim, id);
    let node = sim.node(id).unwrap().clone();
    watch_runtime(&node);
    sim.enter(id, W0, &LPC_W_COMMON, |ctx| {
        ctx.post(notes, &LPC_W_HIGH, |_, ctx| dawdle(ctx));
        ctx.post_until(notes, &LPC_W_COMMON, ctx.now() + MS, |_, _| ());
        ctx.offload(&LPC_W_JOB, |_| (), notes, |_, (), _| ());
        let gone = ctx.spawn_here(|_, _| Notes::default());
        ctx.post(gone, &LPC_W_COMMON, |_, _| ());
        ctx.close(gone);
    });
    let value = |name: &str, entity: &str| {
        let entities = node.metrics().snapshot(Mono::ZERO, &Filters::default());
        let text = prometheus(&Labels::default(), &entities);
        let mut lines = text.lines().filter(|line| line.starts_with(name) && line.contains(entity));
        let line = lines.next().unwrap_or_else(|| panic!("no {name} of {entity}: {text}"));
        line.split_whitespace().last().unwrap().parse::<f64>().unwrap()
    };
    assert_eq!(value("queue_length", SCAN), 1.0);
    sim.run_for(Duration::from_secs(1));
    assert_eq!(value("queue_length", SCAN), 0.0);
    assert_eq!(value("queue_overloaded", SCAN), 0.0);
    for name in ["runtime_expired_tasks", "runtime_vanished_tasks", "runtime_slow_tasks"] {
        assert_eq!(value(name, ""), 1.0, "{name}");
    }
    assert_eq!(value("runtime_poisoned_residents", ""), 0.0);
    assert_eq!(value("runtime_residents", ""), 2.0, "the app and the notes");
    drop(node);
    sim.finish(Duration::from_secs(1)).unwrap();
}

/// Tells what it is lost to.
struct Witness {
    told: Arc<Mutex<Vec<String>>>,
    /// The node does not work without it.
    vital: bool,
}

impl Resident for Witness {
    fn on_close(&mut self, _: &mut Ctx<'_>) {
        panic!("at the end");
    }

    fn on_lost(&mut self, ctx: &mut Ctx<'_>, text: &str) {
        self.told.lock().unwrap().push(text.to_owned());
        if self.vital {
            ctx.node().fail(text);
        }
        panic!("in the last words");
    }
}

#[test]
fn whoever_is_lost_says_so_once_and_may_end_the_node() {
    let (mut sim, id) =
        start(SimOptions { poison_is_violation: false, ..options() }, Vec::new(), one_core);
    let told = Arc::new(Mutex::new(Vec::new()));
    let witness = |sim: &mut Sim, vital| {
        let told = told.clone();
        let spawn = |ctx: &mut Ctx<'_>| ctx.spawn_here(|_, _| Witness { told, vital });
        sim.enter(id, W0, &LPC_W_COMMON, spawn).unwrap()
    };
    let [event, job, within, closed] = std::array::from_fn(|_| witness(&mut sim, false));
    let caller = notes(&mut sim, id);
    sim.enter(id, W0, &LPC_W_COMMON, |ctx| {
        ctx.post(event, &LPC_W_COMMON, |_, _| panic!("event"));
        ctx.offload(&LPC_W_JOB, |_| panic!("job"), job, |_, (), _| {});
        ctx.post(caller, &LPC_W_COMMON, move |caller, ctx| {
            let outcome = ctx.contain(|ctx| ctx.with(within, |_, _| panic!("within")).is_ok());
            assert_eq!(outcome, None, "it did not come back");
            caller.seen.push("the caller goes on");
        });
        ctx.close(closed);
    });
    assert!(sim.run_for(100 * MS) != dsn_core::sim::Outcome::Violated);
    assert_eq!(seen(&sim, id, caller), ["the caller goes on"]);
    let mut all = std::mem::take(&mut *told.lock().unwrap());
    all.sort();
    assert_eq!(all, ["at the end", "event", "job", "within"]);
    let ended = Arc::new(Mutex::new(false));
    let vital = witness(&mut sim, true);
    let noted = ended.clone();
    sim.enter(id, W0, &LPC_W_COMMON, |ctx| {
        ctx.node().before_stop(Box::new(move || *noted.lock().unwrap() = true));
        ctx.post(vital, &LPC_W_COMMON, |_, _| panic!("vital"));
    });
    assert!(!*ended.lock().unwrap());
    sim.run_for(100 * MS);
    assert!(*ended.lock().unwrap() && !sim.is_up(id), "the node has ended by itself");
}
