//! Calls made while their connection does not come up: each ends at its own deadline, and what has ended is not sent
//! when the connection stands after all.

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
use dsn_rpc::frame::Protocol;
use dsn_rpc::{CallOptions, Rpc, RpcOptions, ServiceTable};

const SERVER: [u8; 4] = [10, 0, 0, 1];
const CLIENT: [u8; 4] = [10, 0, 0, 2];
const PORT: u16 = 100;

/// What the handler was told: text and timeout of each request.
type Seen = Arc<Mutex<Vec<(String, Option<Duration>)>>>;
/// Outcomes by number: `Ok` or the error's text, and when they came.
type Outcomes = Arc<Mutex<Vec<(u32, Result<String, String>, Duration)>>>;

struct Server(Seen);
impl ServiceApp for Server {
    fn start(&mut self, ctx: &mut Ctx<'_>, _: Addr<AppHost>) -> Result<(), AppError> {
        let mut table = ServiceTable::new();
        let seen = self.0.clone();
        table.on(&RPC_TEST_ECHO, move |ctx, request, replier| {
            seen.lock().unwrap().push((text(&request.body), request.timeout));
            replier.reply_encoded(ctx, &request.body);
        });
        let seen = self.0.clone();
        table.on(&RPC_TEST_FORGET, move |ctx, request, replier| {
            seen.lock().unwrap().push((text(&request.body), request.timeout));
            replier.forget(ctx);
        });
        let rpc = Rpc::start(ctx, RpcOptions::default(), table);
        rpc.listen(ctx, SocketAddr::new(SERVER.into(), PORT))?;
        Ok(())
    }
}

struct Client;
impl ServiceApp for Client {
    fn start(&mut self, ctx: &mut Ctx<'_>, _: Addr<AppHost>) -> Result<(), AppError> {
        let options =
            RpcOptions { connect_timeout: Duration::from_secs(60), ..RpcOptions::default() };
        Rpc::start(ctx, options, ServiceTable::new());
        Ok(())
    }
}

struct World {
    sim: Sim,
    server: NodeId,
    client: NodeId,
    seen: Seen,
    outcomes: Outcomes,
}

impl World {
    fn new(seed: u64) -> Self {
        dsn_core::code::register(CODES);
        dsn_core::code::register(dsn_rpc::CODES);
        println!("seed {seed}");
        let mut sim = Sim::new(seed, SimOptions::default());
        let seen = Seen::default();
        let told = seen.clone();
        let server = sim.add_node(NodeSpec::new("server", SERVER.into(), 1, move || {
            Box::new(Server(told.clone()))
        }));
        let client = sim.add_node(NodeSpec::new("client", CLIENT.into(), 1, || Box::new(Client)));
        for node in [server, client] {
            sim.start(node).unwrap();
        }
        Self { sim, server, client, seen, outcomes: Outcomes::default() }
    }

    /// Makes a call with the number as its text; `cancelled` takes it back at once.
    fn call(&mut self, number: u32, protocol: Protocol, timeout: Duration, cancelled: bool) {
        let outcomes = self.outcomes.clone();
        self.sim.enter(self.client, WorkerId(0), &LPC_TEST, move |ctx| {
            let (me, began) = (ctx.spawn_here(|_, _| Caller), ctx.now());
            let options =
                CallOptions { protocol, timeout: Some(timeout), ..CallOptions::default() };
            let body = Bytes::from(number.to_string());
            let to = SocketAddr::new(SERVER.into(), PORT);
            let id = dsn_rpc::call_with(
                ctx,
                to,
                &RPC_TEST_ECHO,
                |w| w.wrapped(1, &body),
                options,
                me,
                move |_, ctx, outcome| {
                    let outcome = outcome.map(|body| text(&body)).map_err(|e| e.to_string());
                    let took = ctx.now().saturating_since(began);
                    outcomes.lock().unwrap().push((number, outcome, took));
                },
            );
            assert!(!cancelled || dsn_rpc::cancel(ctx, id));
        });
    }

    fn oneway(&mut self, number: u32, protocol: Protocol, timeout: Duration) {
        self.sim.enter(self.client, WorkerId(0), &LPC_TEST, move |ctx| {
            let options =
                CallOptions { protocol, timeout: Some(timeout), ..CallOptions::default() };
            let to = SocketAddr::new(SERVER.into(), PORT);
            let body = Bytes::from(number.to_string());
            dsn_rpc::send_oneway(ctx, to, &RPC_TEST_FORGET, &body, options);
        });
    }

    fn run(&mut self, millis: u64) {
        let outcome = self.sim.run_for(Duration::from_millis(millis));
        assert_eq!(outcome, Outcome::TimedOut, "{:?}", self.sim.violation());
    }
}

#[test]
fn what_has_ended_before_the_connection_stands_is_not_sent() {
    for (seed, protocol) in [(1, Protocol::Thft), (2, Protocol::Rdsn)] {
        let mut world = World::new(seed);
        let cut = world.sim.partition(&[world.server], &[world.client]);
        let (short, long) = (Duration::from_millis(100), Duration::from_secs(20));
        world.call(1, protocol, short, false);
        world.call(2, protocol, long, false);
        world.call(3, protocol, long, true);
        world.call(4, protocol, short, false);
        world.oneway(5, protocol, short);
        world.oneway(6, protocol, long);
        world.call(7, protocol, long, false);
        world.run(1000);
        {
            let outcomes = world.outcomes.lock().unwrap();
            let ended: Vec<u32> = outcomes.iter().map(|(number, ..)| *number).collect();
            assert_eq!(ended, [1, 4], "those whose time was short: {outcomes:?}");
            for (_, outcome, took) in &*outcomes {
                assert!(outcome.as_ref().is_err_and(|error| error.contains("no answer")));
                assert!(*took < Duration::from_millis(200), "{took:?}");
            }
        }
        assert!(world.seen.lock().unwrap().is_empty(), "no connection stands yet");
        world.sim.mend(cut);
        world.run(5000);
        let seen = world.seen.lock().unwrap();
        let texts: Vec<&str> = seen.iter().map(|(text, _)| text.as_str()).collect();
        assert_eq!(texts, ["2", "6", "7"], "each once, in order, and nothing that has ended");
        for (text, timeout) in &*seen {
            let timeout = timeout.unwrap();
            let left = Duration::from_secs(14)..=Duration::from_secs(19);
            assert!(left.contains(&timeout), "{text} says that {timeout:?} are left");
        }
        let outcomes = world.outcomes.lock().unwrap();
        let good = outcomes.iter().filter(|(number, outcome, _)| {
            outcome.as_ref().is_ok_and(|text| *text == number.to_string())
        });
        assert_eq!((good.count(), outcomes.len()), (2, 4), "{outcomes:?}");
    }
}
