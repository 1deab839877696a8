//! Peers that vanish without a word: nothing of them stays, at the server or at the caller.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use common::*;
use dsn_core::app::{AppError, AppHost, ServiceApp};
use dsn_core::exec::{Addr, Ctx, WorkerId};
use dsn_core::sim::{NodeId, NodeSpec, Outcome, Sim, SimOptions};
use dsn_rpc::{CallOptions, Lane, Rpc, RpcOptions, ServiceTable, Stats};

const PORT: u16 = 100;

type Shared = Arc<Mutex<Option<Rpc>>>;

/// Serves, and gives its RPC layer to the test.
struct Server(Shared);
impl ServiceApp for Server {
    fn start(&mut self, ctx: &mut Ctx<'_>, _: Addr<AppHost>) -> Result<(), AppError> {
        let table = services(ctx);
        let rpc = Rpc::start(ctx, RpcOptions::default(), table);
        rpc.listen(ctx, SocketAddr::new([10, 0, 0, 1].into(), PORT))?;
        *self.0.lock().unwrap() = Some(rpc);
        Ok(())
    }
}

struct Client(Shared);
impl ServiceApp for Client {
    fn start(&mut self, ctx: &mut Ctx<'_>, _: Addr<AppHost>) -> Result<(), AppError> {
        let rpc = Rpc::start(ctx, RpcOptions::default(), ServiceTable::new());
        *self.0.lock().unwrap() = Some(rpc);
        Ok(())
    }
}

struct World {
    sim: Sim,
    server: NodeId,
    client: NodeId,
    stats: [Shared; 2],
}

impl World {
    fn new(seed: u64) -> Self {
        println!("seed {seed}");
        dsn_core::code::register(CODES);
        dsn_core::code::register(dsn_rpc::CODES);
        let mut sim = Sim::new(seed, SimOptions::default());
        let stats = [Shared::default(), Shared::default()];
        let shared = stats.clone();
        let server = sim.add_node(NodeSpec::new("server", [10, 0, 0, 1].into(), 2, move || {
            Box::new(Server(shared[0].clone()))
        }));
        let shared = stats.clone();
        let client = sim.add_node(NodeSpec::new("client", [10, 0, 0, 2].into(), 2, move || {
            Box::new(Client(shared[1].clone()))
        }));
        for node in [server, client] {
            sim.start(node).unwrap();
        }
        // Until the loop of every worker runs.
        sim.run_for(Duration::from_secs(1));
        Self { sim, server, client, stats }
    }

    /// One call on each worker and lane of the client; the errors.
    fn call_all(&mut self) -> usize {
        let failed = Arc::new(Mutex::new(0));
        for worker in [0, 1] {
            for lane in [Lane::Main, Lane::Control, Lane::Bulk] {
                let failed = failed.clone();
                self.sim.enter(self.client, WorkerId(worker), &LPC_TEST, move |ctx| {
                    let me = ctx.spawn_here(|_, _| Caller);
                    let options = CallOptions {
                        timeout: Some(Duration::from_secs(3)),
                        lane,
                        ..CallOptions::default()
                    };
                    let body = Bytes::from(vec![7; 1000]);
                    let to = SocketAddr::new([10, 0, 0, 1].into(), PORT);
                    dsn_rpc::call(
                        ctx,
                        to,
                        &RPC_TEST_ECHO,
                        &body,
                        options,
                        me,
                        move |_, _, outcome: Result<Bytes, _>| {
                            *failed.lock().unwrap() += usize::from(outcome.is_err());
                        },
                    );
                });
            }
        }
        self.run(Duration::from_secs(10));
        *failed.lock().unwrap()
    }

    fn run(&mut self, time: Duration) {
        let outcome = self.sim.run_for(time);
        assert_eq!(outcome, Outcome::TimedOut, "{:?}", self.sim.violation());
    }

    fn stats(&self, of: usize) -> Stats {
        self.stats[of].lock().unwrap().as_ref().unwrap().stats()
    }
}

#[test]
fn nothing_stays_of_a_caller_whose_power_failed() {
    let mut world = World::new(1);
    assert_eq!(world.call_all(), 0);
    assert_eq!(world.stats(0).sessions, 6);
    world.sim.power_off(world.client);
    world.run(Duration::from_secs(30));
    assert_eq!(world.stats(0).sessions, 6, "nobody has told the server");
    world.run(Duration::from_secs(600));
    let stats = world.stats(0);
    assert_eq!((stats.sessions, stats.buffer_bytes), (0, 0), "{stats:?}");
    assert_eq!(world.sim.connections(world.server), 0);
    world.sim.start(world.client).unwrap();
    world.run(Duration::from_secs(1));
    assert_eq!(world.call_all(), 0);
}

#[test]
fn a_caller_gives_a_silent_server_up_and_finds_it_again() {
    let mut world = World::new(2);
    assert_eq!(world.call_all(), 0);
    world.sim.power_off(world.server);
    for _ in 0..4 {
        assert_eq!(world.call_all(), 6, "each call has its one outcome");
    }
    let stats = world.stats(1);
    assert_eq!(stats.buffer_bytes, 0, "what was not sent is not kept: {stats:?}");
    world.sim.start(world.server).unwrap();
    world.run(Duration::from_secs(5));
    assert_eq!(world.call_all(), 0);
}
