//! Servers found by name, under the simulator: a server that moves is found again, a lookup that fails or hangs costs
//! whoever waits its own time and no worker's.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use common::*;
use dsn_core::app::{AppError, AppHost, ServiceApp};
use dsn_core::exec::{Addr, Ctx, Resident, WorkerId};
use dsn_core::sim::{Dist, NodeId, NodeSpec, Outcome, Sim, SimOptions};
use dsn_rpc::host_port::HostPort;
use dsn_rpc::names::{self, NameError, NameProblem};
use dsn_rpc::{CallOptions, Rpc, RpcOptions, ServiceTable};

const PORT: u16 = 100;

struct Server;
impl ServiceApp for Server {
    fn start(&mut self, ctx: &mut Ctx<'_>, _: Addr<AppHost>) -> Result<(), AppError> {
        let table = services(ctx);
        let rpc = Rpc::start(ctx, RpcOptions::default(), table);
        rpc.listen(ctx, SocketAddr::new([0, 0, 0, 0].into(), PORT))?;
        Ok(())
    }
}

struct Client;
impl ServiceApp for Client {
    fn start(&mut self, ctx: &mut Ctx<'_>, _: Addr<AppHost>) -> Result<(), AppError> {
        Rpc::start(ctx, RpcOptions::default(), ServiceTable::new());
        Ok(())
    }
}

/// Calls a server by its name.
struct Asker {
    me: Addr<Self>,
    told: Told,
}
impl Resident for Asker {}

/// What became of each call: who answered, or what went wrong.
type Told = Arc<Mutex<Vec<Result<SocketAddr, String>>>>;

impl Asker {
    fn ask(&mut self, ctx: &mut Ctx<'_>, name: &HostPort) {
        match names::known(ctx, name) {
            Some(addr) => self.call(ctx, addr),
            None => {
                let patience = Duration::from_millis(500);
                names::find(
                    ctx,
                    name,
                    patience,
                    self.me,
                    |asker: &mut Self, ctx, found| match found {
                        Ok(addr) => asker.call(ctx, addr),
                        Err(error) => asker.told.lock().unwrap().push(Err(error.to_string())),
                    },
                );
            }
        }
    }

    fn call(&mut self, ctx: &mut Ctx<'_>, to: SocketAddr) {
        let body = Bytes::from_static(b"x");
        let options = CallOptions::within(Duration::from_millis(300));
        let told = self.told.clone();
        dsn_rpc::call(
            ctx,
            to,
            &RPC_TEST_ECHO,
            &body,
            options,
            self.me,
            move |_, _, outcome: Result<Bytes, _>| {
                let outcome = outcome.map(|_| to).map_err(|error| error.to_string());
                told.lock().unwrap().push(outcome);
            },
        );
    }
}

struct World {
    sim: Sim,
    servers: Vec<NodeId>,
    client: NodeId,
    asker: Addr<Asker>,
    told: Told,
}

impl World {
    fn new(seed: u64, change: impl FnOnce(&mut SimOptions)) -> Self {
        println!("seed {seed}");
        dsn_core::code::register(CODES);
        dsn_core::code::register(dsn_rpc::CODES);
        let mut options = SimOptions::default();
        change(&mut options);
        let mut sim = Sim::new(seed, options);
        let servers: Vec<NodeId> = [1, 2]
            .map(|n| {
                let name = format!("server{n}");
                sim.add_node(NodeSpec::new(&name, address(n), 1, || Box::new(Server)))
            })
            .into();
        let client = sim.add_node(NodeSpec::new("client", address(9), 1, || Box::new(Client)));
        for node in servers.iter().copied().chain([client]) {
            sim.start(node).unwrap();
        }
        let told = Told::default();
        let shared = told.clone();
        let asker = sim.enter(client, WorkerId(0), &LPC_TEST, |ctx| {
            ctx.spawn_here(|_, me| Asker { me, told: shared })
        });
        Self { sim, servers, client, asker: asker.unwrap(), told }
    }

    /// One call by name; its outcome.
    fn ask(&mut self, host: &str) -> Result<SocketAddr, String> {
        let name = HostPort::new(host, PORT);
        self.sim.post(self.client, self.asker, &LPC_TEST, move |asker, ctx| asker.ask(ctx, &name));
        let outcome = self.sim.run_for(Duration::from_secs(2));
        assert_eq!(outcome, Outcome::TimedOut, "{:?}", self.sim.violation());
        let mut told = self.told.lock().unwrap();
        assert_eq!(told.len(), 1, "one outcome: {told:?}");
        told.remove(0)
    }
}

fn address(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

fn server(last: u8) -> SocketAddr {
    SocketAddr::new(address(last), PORT)
}

#[test]
fn a_server_that_moves_is_found_again_by_reconnecting() {
    let mut world = World::new(1, |_| {});
    world.sim.set_name("meta", &[address(1)]);
    assert_eq!(world.ask("meta"), Ok(server(1)));
    world.sim.set_name("meta", &[address(2)]);
    assert_eq!(world.ask("meta"), Ok(server(1)), "a connection that works is kept");
    world.sim.kill(world.servers[0]);
    // The end of the connection has been seen by now; the next call looks again.
    world.sim.run_for(Duration::from_secs(2));
    assert_eq!(world.ask("meta"), Ok(server(2)));
    assert_eq!(world.ask("meta"), Ok(server(2)));
}

#[test]
fn of_several_addresses_the_next_is_tried_after_a_failure() {
    let mut world = World::new(2, |_| {});
    world.sim.set_name("both", &[address(1), address(2)]);
    world.sim.kill(world.servers[0]);
    assert!(world.ask("both").is_err(), "the first is down");
    assert_eq!(world.ask("both"), Ok(server(2)));
}

#[test]
fn what_cannot_be_found_is_an_error_with_the_name() {
    let mut world = World::new(3, |_| {});
    let error = world.ask("nowhere").unwrap_err();
    let problem = NameProblem::Lookup(std::io::ErrorKind::NotFound);
    let expected = NameError { name: HostPort::new("nowhere", PORT), problem };
    assert_eq!(error, expected.to_string());
    world.sim.set_name("nowhere", &["::1".parse().unwrap()]);
    assert!(world.ask("nowhere").unwrap_err().contains("no IPv4 address"));
    world.sim.set_name("nowhere", &[address(2)]);
    assert_eq!(world.ask("nowhere"), Ok(server(2)), "it is there now");
    world.sim.set_name("nowhere", &[]);
    world.sim.kill(world.servers[1]);
    assert_eq!(world.sim.start(world.servers[1]), Ok(()));
    world.sim.run_for(Duration::from_secs(2));
    assert_eq!(world.ask("nowhere"), Ok(server(2)), "without a better one the old address stands");
}

#[test]
fn names_of_nodes_and_addresses_in_text_are_found() {
    let mut world = World::new(4, |_| {});
    assert_eq!(world.ask("server2"), Ok(server(2)));
    assert_eq!(world.ask("10.0.0.1"), Ok(server(1)));
}

#[test]
fn a_lookup_that_hangs_costs_its_own_patience() {
    let mut world = World::new(5, |options| {
        options.net.lookup = Dist::fixed(Duration::from_secs(1));
    });
    world.sim.set_name("slow", &[address(1)]);
    let error = world.ask("slow").unwrap_err();
    assert!(error.contains("slow:100") && error.contains("500ms"), "{error}");
    assert_eq!(world.ask("slow"), Ok(server(1)), "it was found meanwhile");
}
