//! What the runtime itself costs: an event, a turn, a timer, a hop between workers that are parked or busy.
//!
//! `cargo bench --package dsn-core --bench runtime`. Each figure is the median of several rounds; CPU is that of the
//! whole process, so that what a hop costs on both sides is in it.
#![expect(clippy::unwrap_used, reason = "a bench that cannot run fails")]

use crossbeam::channel::{Receiver, Sender, bounded};
use dsn_core::app::{AppError, AppHost, NativeNode, ServiceApp};
use dsn_core::driver::native::{NativeClock, OsDisk};
use dsn_core::exec::{Addr, Ctx, Resident, Wheel, WorkerConfig, WorkerId};
use dsn_core::node::{Node, NodeParts};
use dsn_core::stage::{Layout, StagePlan};
use dsn_core::time::Mono;
use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

dsn_core::task_codes! {
    /// Codes of the bench.
    CODES;
    LPC_BENCH: Compute, Common, "THREAD_POOL_DEFAULT";
}

const ROUNDS: usize = 7;
/// Longer than any round takes.
const LIMIT: Duration = Duration::from_secs(60);

/// One median row: wall and CPU time of one operation, in ns.
struct Row {
    name: &'static str,
    wall: f64,
    cpu: f64,
}

/// CPU time of the process so far, in ns.
fn cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Medians over rounds of `count` operations each.
fn measure(name: &'static str, count: u64, mut round: impl FnMut()) -> Row {
    let clock = NativeClock::start();
    let mut samples: Vec<(f64, f64)> = Vec::new();
    for _ in 0..ROUNDS {
        let (begun, cpu) = (clock.now(), cpu_ns());
        round();
        let (wall, cpu) = (clock.now().saturating_since(begun), cpu_ns() - cpu);
        samples.push((wall.as_nanos() as f64 / count as f64, cpu as f64 / count as f64));
    }
    let median = |pick: fn(&(f64, f64)) -> f64| {
        let mut values: Vec<f64> = samples.iter().map(pick).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Row { name, wall: median(|sample| sample.0), cpu: median(|sample| sample.1) }
}

struct Nothing;
impl ServiceApp for Nothing {
    fn start(&mut self, _: &mut Ctx<'_>, _: Addr<AppHost>) -> Result<(), AppError> {
        Ok(())
    }
}

fn node(workers: usize, config: WorkerConfig) -> NativeNode {
    dsn_core::code::register(CODES);
    let plan = StagePlan::with_layout(workers, Layout::Fused);
    let parts = NodeParts {
        name: "bench".into(),
        role: "bench".into(),
        config: None,
        plan,
        worker: config,
        codes: Vec::new(),
        disk: Arc::new(OsDisk),
        seed: 1,
    };
    let pools = [("pool".to_owned(), 1)];
    let make = Box::new(|| -> Box<dyn ServiceApp> { Box::new(Nothing) });
    NativeNode::start(Node::new(parts).unwrap(), &pools, NativeClock::start(), make).unwrap()
}

/// Counts down by posting to itself.
struct Chain {
    left: u64,
    done: Sender<()>,
}
impl Resident for Chain {}

fn link(chain: &mut Chain, ctx: &mut Ctx<'_>, me: Addr<Chain>) {
    chain.left -= 1;
    if chain.left == 0 {
        chain.done.send(()).unwrap();
    } else {
        ctx.post(me, &LPC_BENCH, move |chain, ctx| link(chain, ctx, me));
    }
}

/// A chain of `count` events on one worker.
fn chain(node: &NativeNode, count: u64) {
    let (done, finished) = bounded(1);
    let start = move |ctx: &mut Ctx<'_>| {
        let chain = ctx.spawn_here(|_, _| Chain { left: count, done });
        ctx.post(chain, &LPC_BENCH, move |it, ctx| link(it, ctx, chain));
    };
    node.handle().run(WorkerId(0), &LPC_BENCH, start).unwrap();
    finished.recv_timeout(LIMIT).unwrap();
}

fn events_and_turns(rows: &mut Vec<Row>) {
    const COUNT: u64 = 300_000;
    let many = node(1, WorkerConfig::default());
    rows.push(measure("an event, its post included, in a turn of many", COUNT, || {
        chain(&many, COUNT)
    }));
    assert!(many.shutdown(LIMIT));
    let one = node(1, WorkerConfig { turn_tasks: 1, ..WorkerConfig::default() });
    rows.push(measure("a turn of one such event (with its poll)", COUNT, || chain(&one, COUNT)));
    assert!(one.shutdown(LIMIT));
}

/// Hits a ball back.
struct Player {
    done: Sender<()>,
}
impl Resident for Player {}

fn hit(player: &mut Player, ctx: &mut Ctx<'_>, left: u64, me: Addr<Player>, other: Addr<Player>) {
    if left == 0 {
        player.done.send(()).unwrap();
    } else {
        ctx.post(other, &LPC_BENCH, move |it, ctx| hit(it, ctx, left - 1, other, me));
    }
}

fn players(node: &NativeNode) -> (Addr<Player>, Addr<Player>, Receiver<()>) {
    let (done, finished) = bounded(1);
    let spawn = |worker| {
        let (tell, told) = bounded(1);
        let done = done.clone();
        let run = move |ctx: &mut Ctx<'_>| {
            tell.send(ctx.spawn_here(|_, _| Player { done })).unwrap();
        };
        node.handle().run(WorkerId(worker), &LPC_BENCH, run).unwrap();
        told.recv_timeout(LIMIT).unwrap()
    };
    (spawn(0), spawn(1), finished)
}

/// `count` hops to and fro between two workers, one event in flight.
fn ping_pong(node: &NativeNode, court: &(Addr<Player>, Addr<Player>, Receiver<()>), count: u64) {
    let (one, two, finished) = (court.0, court.1, &court.2);
    let serve = move |it: &mut Player, ctx: &mut Ctx<'_>| hit(it, ctx, count, one, two);
    node.handle().post(one, &LPC_BENCH, serve).unwrap();
    finished.recv_timeout(LIMIT).unwrap();
}

/// Keeps its worker from parking.
struct Busy;
impl Resident for Busy {}

fn spin(ctx: &mut Ctx<'_>, me: Addr<Busy>) {
    ctx.post(me, &LPC_BENCH, move |_, ctx| spin(ctx, me));
}

/// Takes `batches` batches of `size` events from another worker.
fn batches(node: &NativeNode, batches: u64, size: u64) {
    let (done, finished) = bounded(1);
    let handle = node.handle();
    let start = move |ctx: &mut Ctx<'_>| {
        let place = dsn_core::exec::Place::Worker(WorkerId(1));
        let sink = ctx.spawn(place, &LPC_BENCH, move |_, _| Chain { left: batches * size, done });
        let source = ctx.spawn_here(|_, _| Busy);
        send_batch(ctx, source, sink, batches, size);
    };
    handle.run(WorkerId(0), &LPC_BENCH, start).unwrap();
    finished.recv_timeout(LIMIT).unwrap();
}

fn send_batch(ctx: &mut Ctx<'_>, me: Addr<Busy>, sink: Addr<Chain>, left: u64, size: u64) {
    for _ in 0..size {
        ctx.post(sink, &LPC_BENCH, |sink, _| {
            sink.left -= 1;
            if sink.left == 0 {
                sink.done.send(()).unwrap();
            }
        });
    }
    if left > 1 {
        ctx.defer(dsn_core::exec::Phase::Send, me, &LPC_BENCH, move |_, ctx| {
            ctx.post(me, &LPC_BENCH, move |_, ctx| send_batch(ctx, me, sink, left - 1, size));
        });
    }
}

fn hops(rows: &mut Vec<Row>) {
    let parked = node(2, WorkerConfig::default());
    let court = players(&parked);
    rows.push(measure("a hop between parked workers", 20_000, || {
        ping_pong(&parked, &court, 20_000)
    }));
    rows.push(measure("an event of a batch of 128 to another worker", 256_000, || {
        batches(&parked, 2_000, 128);
    }));
    assert!(parked.shutdown(LIMIT));

    // One event a turn: a turn as short as turns get, so that the hop itself is seen.
    let busy = node(2, WorkerConfig { turn_tasks: 1, ..WorkerConfig::default() });
    for worker in [0, 1] {
        let start = |ctx: &mut Ctx<'_>| {
            let me = ctx.spawn_here(|_, _| Busy);
            spin(ctx, me);
        };
        busy.handle().run(WorkerId(worker), &LPC_BENCH, start).unwrap();
    }
    let court = players(&busy);
    rows.push(measure("a hop between busy workers (CPU: both spin)", 20_000, || {
        ping_pong(&busy, &court, 20_000);
    }));
    assert!(busy.shutdown(LIMIT));
}

fn timers(rows: &mut Vec<Row>) {
    const COUNT: u64 = 500_000;
    let wheel_round = |armed: u64| {
        let mut wheel = Wheel::new(Mono::ZERO);
        for n in 0..armed {
            wheel.insert(Mono::from_nanos(n * 7_919 % 10_000 * 1_000_000), n);
        }
        move || {
            for n in 0..COUNT {
                let at = Mono::from_nanos((5_000 + n % 10_000) * 1_000_000);
                let id = wheel.insert(at, n);
                black_box(wheel.cancel(id));
            }
        }
    };
    rows.push(measure("a timer armed and disarmed, alone", COUNT, wheel_round(0)));
    rows.push(measure("the same among 100,000 others", COUNT, wheel_round(100_000)));
    let node = node(1, WorkerConfig::default());
    rows.push(measure("a timer of a resident, armed and disarmed", 200_000, || {
        let (done, finished) = bounded(1);
        let run = move |ctx: &mut Ctx<'_>| {
            let me = ctx.spawn_here(|_, _| Busy);
            for _ in 0..200_000 {
                let id = ctx.after(me, &LPC_BENCH, Duration::from_secs(5), |_, _| ());
                black_box(ctx.cancel(id));
            }
            ctx.close(me);
            done.send(()).unwrap();
        };
        node.handle().run(WorkerId(0), &LPC_BENCH, run).unwrap();
        finished.recv_timeout(LIMIT).unwrap();
    }));
    assert!(node.shutdown(LIMIT));
}

fn main() {
    let mut rows = Vec::new();
    timers(&mut rows);
    events_and_turns(&mut rows);
    hops(&mut rows);
    println!("| what | wall, ns | CPU, ns |\n|---|---|---|");
    for Row { name, wall, cpu } in rows {
        println!("| {name} | {wall:.0} | {cpu:.0} |");
    }
}
