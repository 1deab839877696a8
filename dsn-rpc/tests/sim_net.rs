//! The same services under the simulator: whatever the network and the server do, a call has exactly one outcome, in
//! time, and the right one; two runs of a seed are the same.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use common::*;
use dsn_core::app::{AppError, AppHost, ServiceApp};
use dsn_core::code::Code;
use dsn_core::exec::{Addr, Ctx, Place, Resident, WorkerId};
use dsn_core::rng::Rng;
use dsn_core::sim::{NodeId, NodeSpec, Outcome, Sim, SimOptions};
use dsn_core::time::Mono;
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::frame::Protocol;
use dsn_rpc::{CallError, CallOptions, Lane, Rpc, RpcOptions, ServiceTable};

const SERVER: [u8; 4] = [10, 0, 0, 1];
const PORT: u16 = 100;

/// How late an outcome may come: ticks, and stalls of the simulated CPU.
const SLACK: Duration = Duration::from_millis(300);

/// What became of one call.
struct Entry {
    code: Code,
    latest: Mono,
    cancelled: bool,
    outcomes: u32,
    succeeded: bool,
}

#[derive(Default)]
struct Ledger {
    entries: Vec<Entry>,
    wrong: Vec<String>,
    /// Answers, timeouts, lost connections, refusals.
    kinds: [usize; 4],
}

type Shared = Arc<Mutex<Ledger>>;

struct Server;
impl ServiceApp for Server {
    fn start(&mut self, ctx: &mut Ctx<'_>, _: Addr<AppHost>) -> Result<(), AppError> {
        let table = services(ctx);
        let rpc = Rpc::start(ctx, RpcOptions::default(), table);
        rpc.listen(ctx, SocketAddr::new(SERVER.into(), PORT))?;
        Ok(())
    }
}

/// Makes calls of all kinds.
struct Load {
    me: Addr<Self>,
    rng: Rng,
    ledger: Shared,
    until: Mono,
    cancellable: Vec<(dsn_rpc::CallId, usize)>,
}
impl Resident for Load {}

impl Load {
    fn tick(&mut self, ctx: &mut Ctx<'_>) {
        if ctx.now() > self.until {
            return;
        }
        for _ in 0..self.rng.below(4) {
            self.one(ctx);
        }
        if self.rng.chance(0.1)
            && let Some((id, number)) = self.cancellable.pop()
            && dsn_rpc::cancel(ctx, id)
        {
            self.ledger.lock().unwrap().entries[number].cancelled = true;
        }
    }

    fn one(&mut self, ctx: &mut Ctx<'_>) {
        let codes: [Code; 8] = [
            &RPC_TEST_ECHO,
            &RPC_TEST_ECHO,
            &RPC_TEST_ECHO,
            &RPC_TEST_FAR,
            &RPC_TEST_HOLD,
            &RPC_TEST_RELEASE,
            &RPC_TEST_DROP,
            &RPC_TEST_FORGET,
        ];
        let code = codes[self.rng.index(codes.len())];
        let timeout = Duration::from_millis(self.rng.range(1, 3000));
        let options = CallOptions {
            timeout: Some(timeout),
            protocol: if self.rng.chance(0.5) { Protocol::Thft } else { Protocol::Rdsn },
            lane: if self.rng.chance(0.2) { Lane::Bulk } else { Lane::Main },
            ..CallOptions::default()
        };
        let mut ledger = self.ledger.lock().unwrap();
        let number = ledger.entries.len();
        ledger.entries.push(Entry {
            code,
            latest: ctx.now() + timeout + SLACK,
            cancelled: false,
            outcomes: 0,
            succeeded: false,
        });
        drop(ledger);
        let large = self.rng.chance(0.02);
        let size = if large { 300_000 } else { self.rng.index(600) };
        let body = Bytes::from(format!("{number} {}", "x".repeat(size)));
        let (ledger, sent) = (self.ledger.clone(), body.clone());
        let id = dsn_rpc::call(
            ctx,
            SocketAddr::new(SERVER.into(), PORT),
            code,
            &body,
            options,
            self.me,
            move |_, ctx, outcome: Result<Bytes, CallError>| {
                judge(&mut ledger.lock().unwrap(), ctx.now(), number, &sent, outcome);
            },
        );
        if self.cancellable.len() < 20 {
            self.cancellable.push((id, number));
        }
    }
}

fn judge(
    ledger: &mut Ledger,
    now: Mono,
    number: usize,
    sent: &Bytes,
    outcome: Result<Bytes, CallError>,
) {
    let entry = &mut ledger.entries[number];
    entry.outcomes += 1;
    let mut wrong = None;
    if now > entry.latest {
        wrong = Some(format!("{:?} late", now.saturating_since(entry.latest)));
    }
    match outcome {
        Ok(body) => {
            entry.succeeded = true;
            ledger.kinds[0] += 1;
            if body != *sent {
                wrong = Some("another call's answer".to_owned());
            }
            if entry.code == &RPC_TEST_DROP || entry.code == &RPC_TEST_FORGET {
                wrong = Some("nobody answers that".to_owned());
            }
        }
        Err(CallError::Timeout { .. }) => ledger.kinds[1] += 1,
        Err(CallError::Network { .. }) => ledger.kinds[2] += 1,
        Err(CallError::Remote { error: ErrorCode::InvalidState | ErrorCode::Busy, .. }) => {
            ledger.kinds[3] += 1;
        }
        Err(other) => wrong = Some(format!("{other}")),
    }
    if let Some(wrong) = wrong {
        let code = entry.code;
        ledger.wrong.push(format!("call {number} ({code}): {wrong}"));
    }
}

struct Client {
    ledger: Shared,
    seed: u64,
    until: Duration,
}
impl ServiceApp for Client {
    fn start(&mut self, ctx: &mut Ctx<'_>, _: Addr<AppHost>) -> Result<(), AppError> {
        Rpc::start(ctx, RpcOptions::default(), ServiceTable::new());
        let until = ctx.now() + self.until;
        for worker in 0..2u16 {
            let ledger = self.ledger.clone();
            let rng = Rng::stream(self.seed, ctx.node().name(), "load", u64::from(worker));
            ctx.spawn(Place::Worker(WorkerId(worker)), &LPC_TEST, move |ctx, me| {
                ctx.every(me, &LPC_TEST, Duration::from_millis(5), Load::tick);
                Load { me, rng, ledger, until, cancellable: Vec::new() }
            });
        }
        Ok(())
    }
}

/// Faults drawn from the seed, all over by `end`.
fn plan_faults(sim: &mut Sim, server: NodeId, clients: [NodeId; 2], end: Duration) {
    let mut rng = sim.stream("plan", "faults", 0);
    for _ in 0..12 {
        let at = rng.duration(Duration::from_millis(100), end - Duration::from_secs(3));
        let lasts = rng.duration(Duration::from_millis(10), Duration::from_millis(2500));
        let client = clients[rng.index(2)];
        match rng.below(7) {
            0 => sim.at(at, move |sim| {
                sim.reset_connections(server, client, 60);
            }),
            1 => sim.at(at, move |sim| {
                let cut = sim.partition(&[server], &[client]);
                sim.after(lasts, move |sim| sim.mend(cut));
            }),
            2 => sim.at(at, move |sim| {
                let cut = sim.partition_one_way(&[server], &[client]);
                sim.after(lasts, move |sim| sim.mend(cut));
            }),
            3 => sim.at(at, move |sim| {
                sim.pause(server);
                sim.after(lasts, move |sim| sim.resume(server));
            }),
            4 => sim.at(at, move |sim| {
                sim.kill(server);
                sim.restart_after(server, lasts);
            }),
            5 => sim.at(at, move |sim| {
                sim.power_off(server);
                sim.restart_after(server, lasts);
            }),
            _ => sim.at(at, move |sim| {
                sim.silence_connections(server, client, 60);
            }),
        }
    }
}

/// One run; its trace hash.
fn run(seed: u64) -> u64 {
    dsn_core::code::register(CODES);
    dsn_core::code::register(dsn_rpc::CODES);
    let mut sim = Sim::new(seed, SimOptions::default());
    let ledger = Shared::default();
    let server = sim.add_node(NodeSpec::new("server", SERVER.into(), 2, || Box::new(Server)));
    let (faulty, quiet) = (Duration::from_secs(20), Duration::from_secs(40));
    let clients = [2u8, 3].map(|n| {
        let ledger = ledger.clone();
        let name = format!("client{n}");
        sim.add_node(NodeSpec::new(&name, [10, 0, 0, n].into(), 2, move || {
            Box::new(Client { ledger: ledger.clone(), seed, until: quiet })
        }))
    });
    for node in [server, clients[0], clients[1]] {
        sim.start(node).unwrap();
    }
    plan_faults(&mut sim, server, clients, faulty);
    sim.at(faulty, |sim| sim.heal_network());
    // Silenced connections need calls that time out to be noticed.
    sim.run_for(quiet - Duration::from_secs(5));
    let before = ledger.lock().unwrap().entries.len();
    assert_eq!(sim.run_for(Duration::from_secs(15)), Outcome::TimedOut, "{:?}", sim.violation());
    let ledger = ledger.lock().unwrap();
    assert!(ledger.wrong.is_empty(), "seed {seed}: {:#?}", ledger.wrong);
    for (number, entry) in ledger.entries.iter().enumerate() {
        let expected = u32::from(!entry.cancelled);
        assert_eq!(entry.outcomes, expected, "seed {seed}: call {number} of {}", entry.code);
    }
    println!("{} calls, {:?}", ledger.entries.len(), ledger.kinds);
    assert!(ledger.kinds.iter().all(|&count| count > 20), "every kind of outcome was seen");
    let late = &ledger.entries[before..];
    let echoes = late.iter().filter(|e| e.code == &RPC_TEST_ECHO && !e.cancelled);
    let (all, good) =
        echoes.fold((0, 0), |(all, good), e| (all + 1, good + u32::from(e.succeeded)));
    assert!(all > 300 && good * 10 > all * 9, "seed {seed}: {good} of {all} after healing");
    drop(ledger);
    sim.finish(Duration::from_secs(5)).unwrap();
    sim.trace_hash()
}

#[test]
fn every_call_has_one_outcome_whatever_happens() {
    let seeds = std::env::var("SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    for seed in 1..=seeds {
        println!("seed {seed}");
        assert_eq!(run(seed), run(seed), "seed {seed}: two runs differ");
    }
}
