//! A meta server and replica servers in the simulator: tables, restarts, lost leases, power loss at any disk step.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod fake;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dsn_core::app::{AppError, AppHost, ServiceApp};
use dsn_core::code::{Code, register};
use dsn_core::exec::{Addr, Ctx, Resident, WorkerId};
use dsn_core::sim::{NodeId, NodeSpec, Outcome, Sim, SimOptions};
use dsn_replication::codes as rpc;
use dsn_replication::meta::envs::EnvRules;
use dsn_replication::meta::{MetaApp, MetaAppOptions};
use dsn_replication::options::{MetaServerOptions, ReplicationOptions};
use dsn_replication::wire::admin::{
    CreateAppOptions, CreateAppRequest, CreateAppResponse, DropAppRequest, DropAppResponse,
};
use dsn_replication::wire::config::{QueryCfgRequest, QueryCfgResponse};
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::host_port::HostPort;
use dsn_rpc::thrift::{Decode, Encode};
use dsn_rpc::{CallError, CallOptions, Rpc, RpcOptions, ServiceTable, call};

use fake::{FakeServer, Shared};

dsn_core::task_codes! {
    CODES;
    LPC_ASK: Compute, Common, "THREAD_POOL_DEFAULT";
}

fn at(host: u8, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::from([10, 0, 0, host]), port)
}

/// Asks the meta server, on behalf of the test.
struct Operator;

impl Resident for Operator {}

struct OperatorApp(Arc<Mutex<Option<Addr<Operator>>>>);

impl ServiceApp for OperatorApp {
    fn start(&mut self, ctx: &mut Ctx<'_>, _: Addr<AppHost>) -> Result<(), AppError> {
        Rpc::start(ctx, RpcOptions::default(), ServiceTable::new());
        *self.0.lock().unwrap() = Some(ctx.spawn_here(|_, _| Operator));
        Ok(())
    }
}

struct World {
    sim: Sim,
    meta: NodeId,
    servers: Vec<NodeId>,
    replicas: Vec<Shared>,
    operator: NodeId,
    operator_addr: Arc<Mutex<Option<Addr<Operator>>>>,
}

fn meta_options() -> MetaAppOptions {
    let meta = MetaServerOptions {
        min_live_node_count_for_unfreeze: 1,
        node_live_percentage_threshold_for_update: 0,
        ..MetaServerOptions::default()
    };
    MetaAppOptions {
        listen: at(1, 34601),
        data_dir: "/data".into(),
        replication: ReplicationOptions::default(),
        meta,
        rpc: RpcOptions::default(),
        envs: EnvRules::new(),
        extend: Box::new(|_| {}),
    }
}

impl World {
    fn new(seed: u64, servers: u8) -> Self {
        println!("seed {seed}");
        register(rpc::CODES);
        register(CODES);
        register(fake::CODES);
        let mut sim = Sim::new(seed, SimOptions::default());
        let meta = sim.add_node(NodeSpec::new("meta", [10, 0, 0, 1].into(), 2, || {
            Box::new(MetaApp::new(meta_options()))
        }));
        let mut world = Self {
            meta,
            servers: Vec::new(),
            replicas: Vec::new(),
            operator_addr: Arc::default(),
            operator: NodeId(0),
            sim,
        };
        for n in 0..servers {
            let replicas = Shared::default();
            world.replicas.push(replicas.clone());
            let spec =
                NodeSpec::new(&format!("replica{n}"), [10, 0, 0, 10 + n].into(), 2, move || {
                    let listen = at(10 + n, 34801);
                    Box::new(FakeServer {
                        listen,
                        meta: HostPort::new("meta", 34601),
                        replicas: replicas.clone(),
                    })
                });
            world.servers.push(world.sim.add_node(spec));
        }
        let operator = world.operator_addr.clone();
        world.operator =
            world.sim.add_node(NodeSpec::new("operator", [10, 0, 0, 99].into(), 1, move || {
                Box::new(OperatorApp(operator.clone()))
            }));
        for id in world.sim.node_ids() {
            world.sim.start(id).unwrap();
        }
        world
    }

    fn ask<Q: Encode, A: Decode + Send + 'static>(
        &mut self,
        code: Code,
        query: &Q,
    ) -> Result<A, CallError> {
        let answer: Arc<Mutex<Option<Result<A, CallError>>>> = Arc::default();
        let (to, slot) = (self.operator_addr.lock().unwrap().unwrap(), answer.clone());
        let options = CallOptions::within(Duration::from_secs(3));
        self.sim
            .enter(self.operator, WorkerId(0), &LPC_ASK, |ctx| {
                call(ctx, at(1, 34601), code, query, options, to, move |_, _, outcome| {
                    *slot.lock().unwrap() = Some(outcome);
                });
            })
            .unwrap();
        let limit = Duration::from_secs(10);
        self.sim.run_until(limit, |_| answer.lock().unwrap().is_some());
        answer.lock().unwrap().take().expect("exactly one outcome")
    }

    fn create(&mut self, name: &str, partitions: i32) -> Result<ErrorCode, CallError> {
        let request = CreateAppRequest {
            app_name: name.to_owned(),
            options: CreateAppOptions {
                partition_count: partitions,
                replica_count: 1,
                success_if_exist: true,
                app_type: "pegasus".to_owned(),
                is_stateful: true,
                ..CreateAppOptions::default()
            },
        };
        let answer: CreateAppResponse = self.ask(&rpc::RPC_CM_CREATE_APP, &request)?;
        Ok(answer.err)
    }

    /// Creates again and again, as an operator's script does.
    fn create_surely(&mut self, name: &str, partitions: i32) {
        for _ in 0..100 {
            if matches!(self.create(name, partitions), Ok(ErrorCode::Ok)) {
                return;
            }
            self.sim.run_for(Duration::from_millis(300));
        }
        panic!("the table is not made");
    }

    fn query(&mut self, name: &str) -> QueryCfgResponse {
        let request = QueryCfgRequest { app_name: name.to_owned(), ..Default::default() };
        for _ in 0..100 {
            let answer: Result<QueryCfgResponse, _> =
                self.ask(&rpc::RPC_CM_QUERY_PARTITION_CONFIG_BY_INDEX, &request);
            match answer {
                Ok(answer) if answer.err != ErrorCode::ServiceNotActive => return answer,
                _ => self.sim.run_for(Duration::from_millis(300)),
            };
        }
        panic!("nobody answers");
    }

    /// Primaries that a server serves.
    fn serving(&self, server: usize) -> usize {
        let replicas = self.replicas[server].lock().unwrap();
        replicas.held.values().filter(|held| held.primary).count()
    }

    fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&[Shared]) -> bool) {
        let replicas = self.replicas.clone();
        let begun = self.sim.now();
        let outcome = self.sim.run_until(limit, |_| done(&replicas));
        assert_eq!(outcome, Outcome::Reached, "since {begun:?}: {:?}", self.replicas);
    }

    fn run_until_serving(&mut self, limit: Duration, wanted: usize) {
        let serving = |replicas: &[Shared]| -> usize {
            let count = |shared: &Shared| {
                let replicas = shared.lock().unwrap();
                replicas.held.values().filter(|held| held.primary).count()
            };
            replicas.iter().map(count).sum()
        };
        self.run_until(limit, |replicas| serving(replicas) == wanted);
    }

    fn ballots(&self, server: usize) -> Vec<i64> {
        self.replicas[server].lock().unwrap().held.values().map(|held| held.ballot).collect()
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_new_table_serves_within_a_second() {
    let mut world = World::new(1, 2);
    world.sim.run_for(SECOND);
    assert_eq!(world.create("temp", 8).unwrap(), ErrorCode::Ok);
    world.run_until_serving(SECOND, 8);
    assert_eq!((world.serving(0), world.serving(1)), (4, 4));
    let config = world.query("temp");
    assert!(config.partitions.iter().all(|p| p.ballot == 1 && p.primary.is_valid()));
    let mut request = DropAppRequest { app_name: "temp".to_owned(), ..Default::default() };
    let answer: DropAppResponse = world.ask(&rpc::RPC_CM_DROP_APP, &request).unwrap();
    assert_eq!(answer.err, ErrorCode::Ok);
    world.run_until_serving(SECOND, 0);
    request.options.success_if_not_exist = true;
    let answer: DropAppResponse = world.ask(&rpc::RPC_CM_DROP_APP, &request).unwrap();
    assert_eq!(answer.err, ErrorCode::Ok);
}

#[test]
fn a_restarted_replica_server_serves_again_within_a_second() {
    let mut world = World::new(2, 1);
    world.sim.run_for(SECOND);
    world.create_surely("temp", 8);
    world.run_until_serving(SECOND, 8);
    for round in 1..=10 {
        world.sim.run_for(Duration::from_millis(700));
        world.sim.kill(world.servers[0]);
        world.sim.run_for(Duration::from_millis(50));
        world.sim.start(world.servers[0]).unwrap();
        assert_eq!(world.serving(0), 0);
        world.run_until_serving(SECOND, 8);
        assert_eq!(world.ballots(0), vec![round + 1; 8], "one new ballot per start");
    }
    assert_eq!(world.replicas[0].lock().unwrap().disconnects, 0);
}

#[test]
fn a_restarted_meta_server_disturbs_nobody() {
    let mut world = World::new(3, 1);
    world.sim.run_for(SECOND);
    world.create_surely("temp", 8);
    world.run_until_serving(SECOND, 8);
    for _ in 0..5 {
        world.sim.power_off(world.meta);
        world.sim.run_for(Duration::from_secs(2));
        world.sim.start(world.meta).unwrap();
        world.sim.run_for(Duration::from_secs(10));
        assert_eq!(world.query("temp").partitions.len(), 8);
        assert_eq!((world.serving(0), world.ballots(0)), (8, vec![1; 8]));
    }
    assert_eq!(world.replicas[0].lock().unwrap().disconnects, 0);
    assert_eq!(world.create("more", 8).unwrap(), ErrorCode::Ok);
    world.run_until_serving(SECOND, 16);
}

#[test]
fn a_lease_ends_before_the_server_is_declared_dead() {
    for (seed, drift) in [(4, 0), (5, 20_000), (6, -20_000)] {
        let mut world = World::new(seed, 1);
        world.sim.drift(world.servers[0], drift);
        world.sim.drift(world.meta, -drift);
        world.sim.run_for(SECOND);
        world.create_surely("temp", 4);
        world.run_until_serving(SECOND, 4);
        world.sim.run_for(Duration::from_secs(5));
        let cut = world.sim.partition(&[world.servers[0]], &[world.meta]);
        world.run_until_serving(Duration::from_secs(22), 0);
        let config = world.query("temp");
        assert!(config.partitions.iter().all(|p| p.primary.is_valid()), "not declared dead yet");
        world.sim.run_for(Duration::from_secs(8));
        let config = world.query("temp");
        assert!(config.partitions.iter().all(|p| !p.primary.is_valid() && p.ballot == 2));
        world.sim.mend(cut);
        world.run_until_serving(Duration::from_secs(10), 4);
        assert_eq!(world.ballots(0), vec![3; 4]);
    }
}

#[test]
fn a_short_cut_costs_nothing() {
    let mut world = World::new(7, 1);
    world.sim.run_for(SECOND);
    world.create_surely("temp", 4);
    world.run_until_serving(SECOND, 4);
    let cut = world.sim.partition(&[world.servers[0]], &[world.meta]);
    world.sim.run_for(Duration::from_secs(10));
    world.sim.mend(cut);
    world.sim.run_for(Duration::from_secs(20));
    assert_eq!((world.serving(0), world.ballots(0)), (4, vec![1; 4]));
}

#[test]
fn power_loss_at_any_disk_step_of_the_meta_server_loses_no_answered_change() {
    for steps in 1..=30 {
        let mut world = World::new(100 + steps, 1);
        world.sim.run_for(SECOND);
        let power = steps % 3 != 0;
        world.sim.crash_after(world.meta, steps, power, Some(Duration::from_millis(200)));
        world.create_surely("one", 4);
        world.create_surely("two", 4);
        let ids = (world.query("one").app_id, world.query("two").app_id);
        assert_ne!(ids.0, ids.1);
        world.run_until_serving(Duration::from_secs(10), 8);
        // Once more, without a crash in between: what was answered is still there.
        world.sim.power_off(world.meta);
        world.sim.start(world.meta).unwrap();
        world.sim.run_for(SECOND);
        assert_eq!((world.query("one").app_id, world.query("two").app_id), ids);
        for name in ["one", "two"] {
            let config = world.query(name);
            assert!(config.partitions.iter().all(|p| p.primary.is_valid()), "{name}");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut world = World::new(seed, 3);
        world.sim.run_for(SECOND);
        world.create_surely("temp", 16);
        world.sim.kill(world.servers[1]);
        world.sim.run_for(Duration::from_secs(3));
        world.sim.start(world.servers[1]).unwrap();
        world.sim.run_for(Duration::from_secs(40));
        world.sim.trace_hash()
    };
    assert_eq!(run(8), run(8));
    assert_ne!(run(8), run(9));
}
