//! A meta server, one replica server over [`crate::texts`] and an operator, in the simulator.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dsn_core::app::{AppError, AppHost, ServiceApp};
use dsn_core::code::{Code, register};
use dsn_core::exec::{Addr, Ctx, Resident, WorkerId};
use dsn_core::metrics::{Filters, ValueSnapshot};
use dsn_core::sim::{NodeId, NodeSpec, Sim, SimOptions};
use dsn_core::time::Mono;
use dsn_replication::codes as rpc;
use dsn_replication::failure_detector::Timing;
use dsn_replication::log::LogOptions;
use dsn_replication::meta::envs::EnvRules;
use dsn_replication::meta::{MetaApp, MetaAppOptions};
use dsn_replication::meta_link::MetaLinkOptions;
use dsn_replication::options::{MetaServerOptions, ReplicationOptions};
use dsn_replication::replica::CoreOptions;
use dsn_replication::stub::copies::CopyOptions;
use dsn_replication::stub::garbage::GarbageOptions;
use dsn_replication::stub::space::SpaceOptions;
use dsn_replication::stub::{LPC_STUB_EVENT, ReplicaStub, StubOptions};
use dsn_replication::wire::admin::{
    AppEnvOperation, CreateAppOptions, CreateAppRequest, CreateAppResponse, UpdateAppEnvRequest,
    UpdateAppEnvResponse,
};
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::gpid::Gpid;
use dsn_rpc::thrift::{Decode, Encode};
use dsn_rpc::{CallError, CallOptions, Rpc, RpcOptions, ServiceTable, call};

use crate::texts::{self, RPC_TEXTS_GET, RPC_TEXTS_SET, TextsFactory};

dsn_core::task_codes! {
    CODES;
    LPC_ASK: Compute, Common, "THREAD_POOL_DEFAULT";
}

pub const TABLE: &str = "texts";
pub const PARTITIONS: i32 = 3;
pub const DATA_DIR: &str = "/data";
pub const SECOND: Duration = Duration::from_secs(1);

fn at(host: u8, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::from([10, 0, 0, host]), port)
}

pub fn meta() -> SocketAddr {
    at(1, 34601)
}

pub fn server() -> SocketAddr {
    at(10, 34801)
}

pub fn partition(index: i32) -> Gpid {
    Gpid::new(1, index)
}

/// What differs between the worlds of these tests.
#[derive(Clone, Debug)]
pub struct Setting {
    pub log: LogOptions,
    pub core: CoreOptions,
    pub data_dirs: Vec<String>,
    pub checkpoint_interval: Duration,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            log: LogOptions::default(),
            core: CoreOptions::default(),
            data_dirs: vec![DATA_DIR.to_owned()],
            checkpoint_interval: Duration::from_secs(300),
        }
    }
}

struct ServerApp(Setting);

impl ServiceApp for ServerApp {
    fn start(&mut self, ctx: &mut Ctx<'_>, _: Addr<AppHost>) -> Result<(), AppError> {
        let timing = Timing::new(&ReplicationOptions::default()).unwrap();
        let options = StubOptions {
            data_dirs: self.0.data_dirs.iter().map(Into::into).collect(),
            log: self.0.log.clone(),
            core: self.0.core.clone(),
            deny_clients: false,
            max_write_bytes: 1 << 20,
            min_members: 0,
            checkpoint_interval: self.0.checkpoint_interval,
            checkpoint_max_interval: Duration::from_secs(600),
            heartbeat: Some(Duration::from_secs(100)),
            garbage: GarbageOptions::default(),
            space: SpaceOptions::default(),
            copy: CopyOptions::default(),
            link: MetaLinkOptions {
                metas: vec![meta().into()],
                me: server(),
                timing,
                sync_interval: Duration::from_secs(30),
            },
        };
        let mut table = ServiceTable::new();
        let stub = ReplicaStub::new(ctx, Arc::new(TextsFactory), options, &mut table);
        let rpc = Rpc::start(ctx, RpcOptions::default(), table);
        let opened = move |ctx: &mut Ctx<'_>, outcome: Result<(), String>| {
            outcome.expect("the disks");
            rpc.listen(ctx, server()).expect("the port");
            ctx.post(stub, &LPC_STUB_EVENT, ReplicaStub::join);
        };
        let _ = ctx.with(stub, move |stub, ctx| stub.open(ctx, Box::new(opened)));
        Ok(())
    }
}

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

/// Of a write, once there is one.
pub type Outcome = Arc<Mutex<Option<Result<i64, CallError>>>>;

pub struct World {
    pub sim: Sim,
    pub server: NodeId,
    operator: NodeId,
    operator_addr: Arc<Mutex<Option<Addr<Operator>>>>,
}

fn meta_options() -> MetaAppOptions {
    let options = MetaServerOptions {
        min_live_node_count_for_unfreeze: 1,
        node_live_percentage_threshold_for_update: 0,
        ..MetaServerOptions::default()
    };
    MetaAppOptions {
        listen: meta(),
        data_dir: DATA_DIR.into(),
        replication: ReplicationOptions::default(),
        meta: options,
        rpc: RpcOptions::default(),
        envs: EnvRules::new(),
        extend: Box::new(|_| {}),
    }
}

impl World {
    /// A cluster with one table, every partition of which is served.
    pub fn new(seed: u64, setting: &Setting) -> Self {
        println!("seed {seed}");
        for codes in [
            rpc::CODES,
            CODES,
            texts::CODES,
            dsn_replication::host::CODES,
            dsn_replication::reads::CODES,
            dsn_replication::stub::CODES,
            dsn_replication::worker_log::CODES,
        ] {
            register(codes);
        }
        let mut sim = Sim::new(seed, SimOptions::default());
        sim.add_node(NodeSpec::new("meta", [10, 0, 0, 1].into(), 1, || {
            Box::new(MetaApp::new(meta_options()))
        }));
        let setting = setting.clone();
        let server = sim.add_node(NodeSpec::new("server", [10, 0, 0, 10].into(), 2, move || {
            Box::new(ServerApp(setting.clone()))
        }));
        let operator_addr = Arc::<Mutex<_>>::default();
        let cell = operator_addr.clone();
        let operator =
            sim.add_node(NodeSpec::new("operator", [10, 0, 0, 9].into(), 1, move || {
                Box::new(OperatorApp(cell.clone()))
            }));
        for id in sim.node_ids() {
            sim.start(id).unwrap();
        }
        let mut world = Self { sim, server, operator, operator_addr };
        world.create();
        for index in 0..PARTITIONS {
            world.wait_served(index);
        }
        world
    }

    /// One call; `None` when nobody answered.
    pub fn ask<A: Decode + Send + 'static>(
        &mut self,
        to: SocketAddr,
        code: Code,
        query: &impl Encode,
        options: CallOptions,
    ) -> Result<A, CallError> {
        let answer: Arc<Mutex<Option<Result<A, CallError>>>> = Arc::default();
        let (me, slot) = (self.operator_addr.lock().unwrap().unwrap(), answer.clone());
        self.sim
            .enter(self.operator, WorkerId(0), &LPC_ASK, |ctx| {
                call(ctx, to, code, query, options, me, move |_: &mut Operator, _, outcome| {
                    *slot.lock().unwrap() = Some(outcome);
                });
            })
            .unwrap();
        self.sim.run_until(Duration::from_secs(60), |_| answer.lock().unwrap().is_some());
        answer.lock().unwrap().take().expect("exactly one outcome")
    }

    /// Starts a write whose outcome nobody looks at.
    pub fn fire(&mut self, index: i32, text: &str) {
        drop(self.send(index, text, SECOND));
    }

    /// Starts a write; its outcome will be there within the time.
    pub fn send(&mut self, index: i32, text: &str, within: Duration) -> Outcome {
        let outcome = Outcome::default();
        let (me, slot) = (self.operator_addr.lock().unwrap().unwrap(), outcome.clone());
        let options = CallOptions::within(within).on(partition(index));
        let query = text.to_owned();
        self.sim
            .enter(self.operator, WorkerId(0), &LPC_ASK, |ctx| {
                let done = move |_: &mut Operator, _: &mut Ctx<'_>, outcome| {
                    *slot.lock().unwrap() = Some(outcome);
                };
                call(ctx, server(), &RPC_TEXTS_SET, &query, options, me, done);
            })
            .unwrap();
        outcome
    }

    fn create(&mut self) {
        let request = CreateAppRequest {
            app_name: TABLE.to_owned(),
            options: CreateAppOptions {
                partition_count: PARTITIONS,
                replica_count: 1,
                success_if_exist: true,
                app_type: "texts".to_owned(),
                is_stateful: true,
                ..CreateAppOptions::default()
            },
        };
        for _ in 0..100 {
            let options = CallOptions::within(3 * SECOND);
            let code = &rpc::RPC_CM_CREATE_APP;
            let answer: Result<CreateAppResponse, _> = self.ask(meta(), code, &request, options);
            if answer.is_ok_and(|answer| answer.err == ErrorCode::Ok) {
                return;
            }
            self.sim.run_for(SECOND / 4);
        }
        panic!("the table is not made");
    }

    /// Sets envs of the table.
    pub fn set_envs(&mut self, envs: &[(&str, &str)]) {
        let request = UpdateAppEnvRequest {
            app_name: TABLE.to_owned(),
            op: AppEnvOperation::Set,
            keys: Some(envs.iter().map(|(key, _)| (*key).to_owned()).collect()),
            values: Some(envs.iter().map(|(_, value)| (*value).to_owned()).collect()),
            clear_prefix: None,
        };
        let options = CallOptions::within(3 * SECOND);
        let code = &rpc::RPC_CM_UPDATE_APP_ENV;
        let answer: UpdateAppEnvResponse = self.ask(meta(), code, &request, options).unwrap();
        assert_eq!(answer.err, ErrorCode::Ok, "{}", answer.hint_message);
    }

    pub fn try_set(&mut self, index: i32, text: &str, timeout: Duration) -> Result<i64, CallError> {
        let options = CallOptions::within(timeout).on(partition(index));
        self.ask(server(), &RPC_TEXTS_SET, &text.to_owned(), options)
    }

    pub fn try_get(&mut self, index: i32, name: &str) -> Result<String, CallError> {
        let options = CallOptions::within(5 * SECOND).on(partition(index));
        self.ask(server(), &RPC_TEXTS_GET, &name.to_owned(), options)
    }

    pub fn set(&mut self, index: i32, text: &str) -> i64 {
        self.try_set(index, text, 5 * SECOND).unwrap()
    }

    pub fn get(&mut self, index: i32, name: &str) -> String {
        self.try_get(index, name).unwrap()
    }

    /// Waits until a partition answers.
    pub fn wait_served(&mut self, index: i32) {
        let served = self.is_served_within(index, 60 * SECOND);
        assert!(served, "partition {index}: {}", self.command("replica.query-unserved"));
    }

    pub fn is_served_within(&mut self, index: i32, limit: Duration) -> bool {
        let until = self.sim.now() + limit;
        while self.sim.now() < until {
            if self.try_get(index, "nothing").is_ok() {
                return true;
            }
            self.sim.run_for(SECOND / 4);
        }
        false
    }

    /// The server's process ends and starts again.
    pub fn restart(&mut self) {
        self.sim.kill(self.server);
        self.sim.start(self.server).unwrap();
    }

    /// The power fails at the server, and comes back.
    pub fn lose_power(&mut self) {
        self.sim.power_off(self.server);
        self.sim.start(self.server).unwrap();
    }

    /// A metric of the server.
    pub fn metric(&self, name: &str) -> u64 {
        let node = self.sim.node(self.server).expect("up");
        let entities = node.metrics().snapshot(Mono::from_nanos(1), &Filters::default());
        let mut metrics = entities.iter().flat_map(|entity| &entity.metrics);
        let found = metrics.find(|metric| metric.definition.name == name);
        match found.map(|metric| &metric.value) {
            Some(ValueSnapshot::Gauge(value)) => *value as u64,
            other => panic!("{name}: {other:?}"),
        }
    }

    /// A command at the server.
    pub fn command(&self, line: &str) -> String {
        self.sim.node(self.server).expect("up").commands().run_now(line)
    }
}

/// The error of a call that was answered with one.
pub fn refused<T: std::fmt::Debug>(outcome: Result<T, CallError>) -> ErrorCode {
    match outcome {
        Err(CallError::Remote { error, .. }) => error,
        other => panic!("{other:?}"),
    }
}
