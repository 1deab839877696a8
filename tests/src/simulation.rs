//! A whole cluster in the simulator: meta server, replica server and clients, the same code as natively, under faults
//! drawn from a seed, with its history checked for linearizability per key.
//!
//! A run: the cluster starts and makes its table; for some virtual time clients work while faults strike; everything
//! heals; every key must then be served, and what is read must be explained by some order of all calls. That includes
//! every acknowledged write: one that is lost would have to be explained away.
//!
//! Time stamps of the history are the order in which the single simulation thread did things, which is finer than
//! any clock in it.

use crate::linearizable::{Call, Op, check};
use bytes::Bytes;
use dsn_core::app::{AppError, AppHost, ServiceApp};
use dsn_core::exec::{Addr, Ctx, Resident};
use dsn_core::sim::{
    CORE_KNOBS, FaultClass, Knob, NodeId, NodeSpec, Outcome, PlanSpec, Report, Scenario, Sim,
};
use dsn_replication::client::Request;
use dsn_replication::codes::RPC_CM_CREATE_APP;
use dsn_replication::meta::{MetaApp, MetaAppOptions};
use dsn_replication::options::{LogDurability, MetaServerOptions, ReplicationOptions};
use dsn_replication::replica_app::{ReplicaApp, ReplicaAppOptions};
use dsn_replication::wire::admin::{CreateAppOptions, CreateAppRequest, CreateAppResponse};
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::{Rpc, RpcOptions, ServiceTable};
use pegasus_client::schema::rrdb::CasCheckType;
use pegasus_client::{Check, ClientCore, ClientError, ClientOptions, Kind, ops};
use pegasus_server::options::{EngineKind, StorageOptions};
use pegasus_server::replica_app::storage_apps;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

dsn_core::task_codes! {
    /// Codes of the workload.
    pub CODES;
    /// A client's next step.
    pub LPC_WORKLOAD: Compute, Common, "THREAD_POOL_DEFAULT";
}

const TABLE: &str = "temp";
const CLIENTS: u8 = 3;
const SESSIONS: usize = 2;
const REGISTERS: usize = 6;
const COUNTERS: usize = 2;
/// Virtual time with faults and load.
pub const DURATION: Duration = Duration::from_secs(60);
const START_LIMIT: Duration = Duration::from_secs(120);
const HEAL_LIMIT: Duration = Duration::from_secs(300);
const STOP_LIMIT: Duration = Duration::from_secs(300);

/// Knobs of the cluster.
pub const CLUSTER_KNOBS: &[Knob] = &[
    Knob { name: "replication.staleness", default: 20, extremes: &[1, 2] },
    Knob { name: "replication.batching_off", default: 0, extremes: &[1] },
    Knob { name: "replication.checkpoint_seconds", default: 300, extremes: &[3, 10] },
    Knob { name: "replication.segment_mb", default: 32, extremes: &[1] },
    Knob { name: "workload.think_ms", default: 20, extremes: &[5, 200] },
];

/// What the clients and the run share.
#[derive(Default)]
struct Shared {
    order: AtomicU64,
    /// History of each key.
    keys: Vec<Mutex<Vec<Call>>>,
    ready: AtomicBool,
    stopping: AtomicBool,
    finished: AtomicUsize,
    acked: AtomicU64,
}

impl Shared {
    fn tick(&self) -> u64 {
        self.order.fetch_add(1, Ordering::Relaxed)
    }

    fn begin(&self, key: usize, client: u32, op: Op) -> usize {
        let invoked = self.tick();
        let mut calls = self.keys[key].lock().expect("one thread");
        calls.push(Call { client, op, invoked, returned: None });
        calls.len() - 1
    }

    /// The call was answered, with an answer that completes it.
    fn end(&self, key: usize, call: usize, op: Op) {
        let returned = self.tick();
        let mut calls = self.keys[key].lock().expect("one thread");
        calls[call].op = op;
        calls[call].returned = Some(returned);
        self.acked.fetch_add(1, Ordering::Relaxed);
    }

    /// The call did certainly nothing.
    fn void(&self, key: usize, call: usize) {
        let mut calls = self.keys[key].lock().expect("one thread");
        calls[call].op = Op::Get(None);
    }
}

/// One client process.
struct Workload {
    me: Addr<Self>,
    core: Addr<ClientCore>,
    shared: Arc<Shared>,
    first: bool,
    number: u32,
    values: u64,
    think: Duration,
}

impl Resident for Workload {}

type Outcome1<T> = Result<T, ClientError>;

impl Workload {
    /// Makes the table, again and again until it is there.
    fn make_table(&mut self, ctx: &mut Ctx<'_>) {
        let request = CreateAppRequest {
            app_name: TABLE.to_owned(),
            options: CreateAppOptions {
                partition_count: 4,
                replica_count: 1,
                success_if_exist: true,
                app_type: "pegasus".to_owned(),
                is_stateful: true,
                ..CreateAppOptions::default()
            },
        };
        let (me, shared) = (self.me, self.shared.clone());
        let _ = ctx.with(self.core, move |core, ctx| {
            let done = Box::new(move |ctx: &mut Ctx<'_>, answer: Outcome1<CreateAppResponse>| {
                let made = answer.is_ok_and(|a| a.err == ErrorCode::Ok);
                ctx.post(me, &LPC_WORKLOAD, move |this, ctx| match made {
                    true => shared.ready.store(true, Ordering::Relaxed),
                    false => this.later(ctx, Duration::from_millis(500), Self::make_table),
                });
            });
            core.ask_meta(ctx, &RPC_CM_CREATE_APP, &request, Kind::Read, None, done);
        });
    }

    fn later(&mut self, ctx: &mut Ctx<'_>, delay: Duration, f: fn(&mut Self, &mut Ctx<'_>)) {
        ctx.after(self.me, &LPC_WORKLOAD, delay, f);
    }

    fn step(&mut self, ctx: &mut Ctx<'_>) {
        if !self.shared.ready.load(Ordering::Relaxed) {
            return self.later(ctx, Duration::from_millis(200), Self::step);
        }
        if self.shared.stopping.load(Ordering::Relaxed) {
            return self.last_read(ctx, 0);
        }
        let counter = ctx.rng().ratio(1, 5);
        let key = match counter {
            true => REGISTERS + ctx.rng().index(COUNTERS),
            false => ctx.rng().index(REGISTERS),
        };
        match (counter, ctx.rng().below(10)) {
            (_, 0..=3) => self.get(ctx, key, counter, Self::think_on),
            (true, _) => self.incr(ctx, key),
            (false, 4..=7) => self.put(ctx, key),
            (false, 8) => self.remove(ctx, key),
            (false, _) => self.check_and_set(ctx, key),
        }
    }

    fn think_on(&mut self, ctx: &mut Ctx<'_>) {
        let think = ctx.rng().duration(Duration::ZERO, self.think * 2);
        self.later(ctx, think, Self::step);
    }

    fn value(&mut self) -> u64 {
        self.values += 1;
        u64::from(self.number) << 32 | self.values
    }

    /// Sends a request; `answered` makes the completed operation of its answer.
    fn call<T: Send + 'static>(
        &mut self,
        ctx: &mut Ctx<'_>,
        key: usize,
        op: Op,
        request: Request<T>,
        answered: impl FnOnce(T) -> Op + Send + 'static,
        next: fn(&mut Self, &mut Ctx<'_>),
    ) {
        let call = self.shared.begin(key, self.number, op);
        let (me, shared) = (self.me, self.shared.clone());
        let _ = ctx.with(self.core, move |core, ctx| {
            let done = Box::new(move |ctx: &mut Ctx<'_>, outcome: Outcome1<T>| {
                match outcome {
                    Ok(answer) => shared.end(key, call, answered(answer)),
                    Err(error) if !error.is_ambiguous() => shared.void(key, call),
                    Err(_) => {}
                }
                ctx.post(me, &LPC_WORKLOAD, next);
            });
            core.submit(ctx, TABLE, request, None, done);
        });
    }

    fn get(
        &mut self,
        ctx: &mut Ctx<'_>,
        key: usize,
        counter: bool,
        next: fn(&mut Self, &mut Ctx<'_>),
    ) {
        let request = ops::get(&hash_key(key), b"s").expect("a key");
        let answered = move |value: Option<Bytes>| Op::Get(value.map(|v| number(&v, counter)));
        self.call(ctx, key, Op::Get(None), request, answered, next);
    }

    fn put(&mut self, ctx: &mut Ctx<'_>, key: usize) {
        let value = self.value();
        let bytes = Bytes::from(value.to_string());
        let request = ops::put(&hash_key(key), b"s", bytes, 0).expect("a key");
        self.call(ctx, key, Op::Put(value), request, move |()| Op::Put(value), Self::think_on);
    }

    fn remove(&mut self, ctx: &mut Ctx<'_>, key: usize) {
        let request = ops::remove(&hash_key(key), b"s").expect("a key");
        self.call(ctx, key, Op::Remove, request, |()| Op::Remove, Self::think_on);
    }

    fn incr(&mut self, ctx: &mut Ctx<'_>, key: usize) {
        let request = ops::incr(&hash_key(key), b"s", 1, 0).expect("a key");
        let answered = |sum: i64| Op::Incr(1, Some(sum as u64));
        self.call(ctx, key, Op::Incr(1, None), request, answered, Self::think_on);
    }

    /// Sets a value where there is none.
    fn check_and_set(&mut self, ctx: &mut Ctx<'_>, key: usize) {
        let value = self.value();
        let sort_key = Bytes::from_static(b"s");
        let check = Check {
            sort_key: sort_key.clone(),
            kind: CasCheckType::ValueNotExist,
            operand: Bytes::new(),
        };
        let bytes = Bytes::from(value.to_string());
        let request =
            ops::check_and_set(&hash_key(key), &check, &sort_key, bytes, 0).expect("a key");
        let op = Op::CheckAndSet(value, None, None);
        let answered = move |c: ops::Checked| Op::CheckAndSet(value, None, Some(c.done));
        self.call(ctx, key, op, request, answered, Self::think_on);
    }

    /// After the faults: every key is read until it is answered.
    fn last_read(&mut self, ctx: &mut Ctx<'_>, key: usize) {
        if key == REGISTERS + COUNTERS {
            self.shared.finished.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let request = ops::get(&hash_key(key), b"s").expect("a key");
        let call = self.shared.begin(key, self.number, Op::Get(None));
        let (me, shared) = (self.me, self.shared.clone());
        let _ = ctx.with(self.core, move |core, ctx| {
            let done = Box::new(move |ctx: &mut Ctx<'_>, outcome: Outcome1<Option<Bytes>>| {
                let next = match outcome {
                    Ok(value) => {
                        let counter = key >= REGISTERS;
                        let value = value.map(|value| number(&value, counter));
                        shared.end(key, call, Op::Get(value));
                        key + 1
                    }
                    Err(_) => key,
                };
                ctx.post(me, &LPC_WORKLOAD, move |this, ctx| this.last_read(ctx, next));
            });
            core.submit(ctx, TABLE, request, None, done);
        });
    }
}

fn hash_key(key: usize) -> Vec<u8> {
    format!("key{key}").into_bytes()
}

/// A stored number; something that no client wrote shows as one that none wrote.
fn number(value: &[u8], _counter: bool) -> u64 {
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX)
}

struct ClientApp {
    number: u8,
    shared: Arc<Shared>,
    think: Duration,
}

impl ServiceApp for ClientApp {
    fn start(&mut self, ctx: &mut Ctx<'_>, _: Addr<AppHost>) -> Result<(), AppError> {
        Rpc::start(ctx, RpcOptions::default(), ServiceTable::new());
        let options = ClientOptions::new([at(1, META_PORT)]);
        let core = ctx.spawn_here(|_, me| ClientCore::new(me, options));
        for session in 0..SESSIONS {
            let first = self.number == 0 && session == 0;
            let number = u32::from(self.number) * SESSIONS as u32 + session as u32 + 1;
            let (shared, think) = (self.shared.clone(), self.think);
            let me = ctx.spawn_here(|_, me| Workload {
                me,
                core,
                shared,
                first,
                number,
                values: 0,
                think,
            });
            ctx.post(me, &LPC_WORKLOAD, |this, ctx| {
                if this.first {
                    this.make_table(ctx);
                }
                this.step(ctx);
            });
        }
        Ok(())
    }
}

const META_PORT: u16 = 34601;
const REPLICA_PORT: u16 = 34801;

fn at(host: u8, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::from([10, 0, 0, host]), port)
}

fn replication(scenario: &Scenario) -> ReplicationOptions {
    let knob = |name: &str| {
        let knob = CLUSTER_KNOBS.iter().find(|knob| knob.name == name).expect("a knob");
        scenario.knob(knob)
    };
    ReplicationOptions {
        mutation_2pc_min_replica_count: 0,
        staleness_for_commit: knob("replication.staleness") as u32,
        batch_write_disabled: knob("replication.batching_off") == 1,
        checkpoint_interval_seconds: knob("replication.checkpoint_seconds") as u32,
        log_private_file_size_mb: knob("replication.segment_mb") as u32,
        log_durability: durability(scenario.seed),
        ..ReplicationOptions::default()
    }
}

/// What acknowledgements rest on: a property of the seed, so that shrinking does not change what may be lost.
fn durability(seed: u64) -> LogDurability {
    if seed.is_multiple_of(2) { LogDurability::Os } else { LogDurability::GroupSync }
}

/// The scenario of a seed. What may fail depends on what the acknowledgement of a write promises.
pub fn draw(seed: u64) -> Scenario {
    let every = Duration::from_secs;
    let mut classes = vec![
        (FaultClass::Kill, every(8)),
        (FaultClass::CrashAtStep, every(10)),
        (FaultClass::Pause, every(10)),
        (FaultClass::Partition, every(10)),
        (FaultClass::Clog, every(10)),
        (FaultClass::Reset, every(5)),
        (FaultClass::Silence, every(15)),
        (FaultClass::DiskSlow, every(15)),
        (FaultClass::SlowCpu, every(15)),
        (FaultClass::FdLimit, every(20)),
        (FaultClass::WallStep, every(20)),
    ];
    let knobs: &[&[Knob]] = &[CORE_KNOBS, CLUSTER_KNOBS];
    let plan = |classes: &[(FaultClass, Duration)]| PlanSpec {
        nodes: vec!["meta".to_owned(), "replica".to_owned()],
        peers: (0..CLIENTS).map(|n| format!("client{n}")).collect(),
        damageable: vec!["replica".to_owned()],
        classes: classes.to_vec(),
        paths: Vec::new(),
        from: Duration::from_secs(1),
        to: DURATION,
        max_down: 2,
        longest: Duration::from_secs(15),
    };
    if durability(seed) == LogDurability::GroupSync {
        classes.push((FaultClass::PowerOff, every(8)));
        classes.push((FaultClass::PowerAtStep, every(8)));
        classes.push((FaultClass::SyncFail, every(20)));
    }
    Scenario::draw(seed, DURATION, knobs, &plan(&classes))
}

/// What a run showed.
#[derive(Clone, Debug)]
pub struct RunReport {
    /// The simulator's own.
    pub report: Report,
    /// Calls answered.
    pub acked: u64,
    /// Faults of the plan.
    pub faults: usize,
}

struct World {
    sim: Sim,
    shared: Arc<Shared>,
    servers: Vec<NodeId>,
}

fn build(scenario: &Scenario, step_log: bool) -> World {
    for codes in pegasus_server::program::program().codes {
        dsn_core::code::register(codes);
    }
    dsn_core::code::register(CODES);
    let mut options = scenario.options();
    options.step_log = step_log;
    let mut sim = Sim::new(scenario.seed, options);
    let keys = (0..REGISTERS + COUNTERS).map(|_| Mutex::default()).collect();
    let shared = Arc::new(Shared { keys, ..Shared::default() });
    let repl = replication(scenario);
    let meta_repl = repl.clone();
    let meta = sim.add_node(NodeSpec::new("meta", [10, 0, 0, 1].into(), 1, move || {
        Box::new(MetaApp::new(MetaAppOptions {
            listen: at(1, META_PORT),
            data_dir: "/data".into(),
            replication: meta_repl.clone(),
            meta: MetaServerOptions {
                min_live_node_count_for_unfreeze: 1,
                node_live_percentage_threshold_for_update: 0,
                ..MetaServerOptions::default()
            },
            rpc: RpcOptions::default(),
            envs: pegasus_server::program::env_rules(),
            extend: Box::new(|_| {}),
        }))
    }));
    let replica = sim.add_node(NodeSpec::new("replica", [10, 0, 0, 10].into(), 2, move || {
        let storage =
            StorageOptions { storage_engine: EngineKind::Memory, ..StorageOptions::default() };
        let options = ReplicaAppOptions {
            listen: at(10, REPLICA_PORT),
            metas: vec![at(1, META_PORT).into()],
            data_dirs: vec!["/data".into()],
            replication: repl.clone(),
            rpc: RpcOptions::default(),
        };
        Box::new(ReplicaApp::new(options, storage_apps(storage)))
    }));
    let think = CLUSTER_KNOBS.iter().find(|knob| knob.name == "workload.think_ms");
    let think = Duration::from_millis(think.map_or(20, |knob| scenario.knob(knob)));
    for number in 0..CLIENTS {
        let shared = shared.clone();
        let name = format!("client{number}");
        let ip = [10, 0, 0, 50 + number].into();
        sim.add_node(NodeSpec::new(&name, ip, 1, move || {
            Box::new(ClientApp { number, shared: shared.clone(), think })
        }));
    }
    World { sim, shared, servers: vec![meta, replica] }
}

/// Runs a scenario once.
pub fn run(scenario: &Scenario, step_log: bool) -> RunReport {
    let mut world = build(scenario, step_log);
    drive(scenario, &mut world);
    let World { mut sim, shared, .. } = world;
    if sim.violation().is_none() {
        for (key, calls) in shared.keys.iter().enumerate() {
            let calls = calls.lock().expect("one thread");
            // Reads without an answer say nothing.
            let told: Vec<Call> = calls
                .iter()
                .filter(|call| call.returned.is_some() || !matches!(call.op, Op::Get(_)))
                .cloned()
                .collect();
            if let Err(error) = check(&told) {
                sim.violate("linearizability", format!("key{key}: {error}"));
                break;
            }
        }
    }
    if sim.violation().is_none() {
        let _ = sim.finish(STOP_LIMIT);
    }
    RunReport {
        report: sim.report(),
        acked: shared.acked.load(Ordering::Relaxed),
        faults: scenario.faults.len(),
    }
}

fn drive(scenario: &Scenario, world: &mut World) {
    let World { sim, shared, servers } = world;
    for id in sim.node_ids() {
        if let Err(error) = sim.start(id) {
            let name = sim.name(id).to_owned();
            return sim.violate("start", format!("{name}: {error}"));
        }
    }
    let ready = |_: &mut Sim| shared.ready.load(Ordering::Relaxed);
    if sim.run_until(START_LIMIT, ready) != Outcome::Reached {
        return sim.violate("liveness", "the table was not made".to_owned());
    }
    // The plan counts from here.
    let begun = sim.now();
    for timed in &scenario.faults {
        let fault = timed.fault.clone();
        sim.at(begun + Duration::from_millis(timed.at_ms), move |sim| sim.inject(&fault));
    }
    sim.run_for(scenario.duration());
    sim.heal();
    shared.stopping.store(true, Ordering::Relaxed);
    // A replica whose log failed serves again when its server is started again, as an operator would.
    for id in servers.iter() {
        if sim.is_up(*id) {
            sim.kill(*id);
        }
        sim.restart_after(*id, Duration::from_secs(1));
    }
    let sessions = usize::from(CLIENTS) * SESSIONS;
    let done = |_: &mut Sim| shared.finished.load(Ordering::Relaxed) == sessions;
    if sim.violation().is_none() && sim.run_until(HEAL_LIMIT, done) != Outcome::Reached {
        let finished = shared.finished.load(Ordering::Relaxed);
        sim.violate(
            "liveness",
            format!("{finished} of {sessions} sessions are served {HEAL_LIMIT:?} after healing"),
        );
    }
}
