//! A cluster in the simulator, for tests of apps: a meta server, replica servers and a client, the same code as
//! natively, in virtual time.
//!
//! ```ignore
//! let mut cluster = SimCluster::start::<Counter>(&ClusterSpec::default());
//! cluster.create_table("counters", 4);
//! assert_eq!(cluster.call("counters", &ADD, b"visits", &add), Ok(1));
//! cluster.kill_server(0);
//! cluster.start_server(0);
//! assert_eq!(cluster.call("counters", &GET, b"visits", &get), Ok(1));
//! cluster.finish();
//! ```
//!
//! Whatever does not go as it must ends the test with a panic that names the seed. The simulation itself, for faults of
//! all kinds, is [`SimCluster::sim`].

use crate::app::ReplicatedApp;
use crate::client::{
    Callback, ClientCore, ClientError, ClientOptions, Kind, Request, Target, partition_index,
};
use crate::codes::{RPC_CM_CREATE_APP, RPC_CM_QUERY_PARTITION_CONFIG_BY_INDEX};
use crate::meta::envs::EnvRules;
use crate::meta::{MetaApp, MetaAppOptions};
use crate::method::Method;
use crate::options::{MetaServerOptions, NfsOptions, ReplicationOptions};
use crate::replica_app::{MakeFactory, ReplicaApp, ReplicaAppOptions};
use crate::server;
use crate::wire::admin::{CreateAppOptions, CreateAppRequest, CreateAppResponse};
use crate::wire::config::{QueryCfgRequest, QueryCfgResponse};
use dsn_core::app::{AppError, AppHost, ServiceApp};
use dsn_core::boot::{AppInstance, node_parts};
use dsn_core::code::register;
use dsn_core::config::{Config, ConfigSchema, Loader};
use dsn_core::exec::{Addr, Ctx, WorkerId};
use dsn_core::sim::{NodeId, NodeSpec, Outcome, Sim, SimOptions};
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::thrift::{Decode, Encode};
use dsn_rpc::{Rpc, RpcOptions, ServiceTable};
use parking_lot::Mutex;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

dsn_core::task_codes! {
    /// Codes of the test's client.
    pub CODES;
    /// The test wants something.
    pub LPC_TEST_CLIENT: Compute, Common, "THREAD_POOL_DEFAULT";
}

/// How long a request of a test may take, in virtual time: longer than any recovery.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a table may take until all its partitions are served, in virtual time.
const TABLE_TIMEOUT: Duration = Duration::from_secs(300);
/// How long an orderly end may take, in virtual time.
const STOP_TIMEOUT: Duration = Duration::from_secs(300);
/// Pause between two looks at a table that is being made.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Most replica servers.
const SERVERS_MAX: usize = 64;

const META_PORT: u16 = 34601;
const SERVER_PORT: u16 = 34801;
/// The last number of the first replica server's address; the others follow.
const SERVER_HOST: u8 = 10;

/// What suits a test; a [`ClusterSpec::config`] may say otherwise.
const DEFAULTS: &str = r#"
[runtime]
workers = 2
[meta_server]
min_live_node_count_for_unfreeze = 1
node_live_percentage_threshold_for_update = 0
[replication]
mutation_2pc_min_replica_count = 0
"#;

/// What a simulated cluster is made of.
#[derive(Clone, Debug)]
pub struct ClusterSpec {
    /// Everything that happens follows from it.
    pub seed: u64,
    /// Replica servers, at most 64.
    pub servers: usize,
    /// Copies of each partition of the tables that the test makes.
    pub copies: i32,
    /// Data directories of each replica server: `/data`, `/data2` and so on.
    pub data_dirs: usize,
    /// Configuration of all servers, as in a TOML file.
    pub config: String,
    /// The simulation.
    pub sim: SimOptions,
}

impl Default for ClusterSpec {
    fn default() -> Self {
        let (config, sim) = (String::new(), SimOptions::default());
        Self { seed: 1, servers: 1, copies: 1, data_dirs: 1, config, sim }
    }
}

/// The outcome of a request, once there is one.
pub struct Answer<T>(Arc<Mutex<Option<Result<T, ClientError>>>>);

impl<T> fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Answer").field(&self.is_there()).finish()
    }
}

impl<T> Answer<T> {
    /// Whether there is one.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.0.lock().is_some()
    }

    /// Takes it.
    #[must_use]
    pub fn take(&self) -> Option<Result<T, ClientError>> {
        self.0.lock().take()
    }
}

type Slot = Arc<Mutex<Option<Addr<ClientCore>>>>;

/// See the module's header.
pub struct SimCluster {
    sim: Sim,
    meta: NodeId,
    servers: Vec<NodeId>,
    client: NodeId,
    core: Slot,
    app_type: &'static str,
    copies: i32,
}

impl fmt::Debug for SimCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sim.fmt(f)
    }
}

struct ClientApp(Slot);

impl ServiceApp for ClientApp {
    fn start(&mut self, ctx: &mut Ctx<'_>, _: Addr<AppHost>) -> Result<(), AppError> {
        Rpc::start(ctx, RpcOptions::default(), ServiceTable::new());
        let options =
            ClientOptions { timeout: CALL_TIMEOUT, ..ClientOptions::new([at(1, META_PORT)]) };
        *self.0.lock() = Some(ctx.spawn_here(|_, me| ClientCore::new(me, options)));
        Ok(())
    }
}

fn at(host: u8, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::from([10, 0, 0, host]), port)
}

/// A node that takes stages, codes and sections from `config`, like one that is started by the program.
fn node(
    name: String,
    role: &str,
    host: u8,
    config: &Config,
    data_dirs: Vec<PathBuf>,
    app: impl Fn() -> Box<dyn ServiceApp> + 'static,
) -> NodeSpec {
    let instance = AppInstance {
        name: role.to_owned(),
        index: 1,
        ports: Vec::new(),
        data_dirs,
        arguments: String::new(),
        config: config.clone(),
    };
    let own = name.clone();
    NodeSpec {
        name,
        ip: IpAddr::from([10, 0, 0, host]),
        parts: Rc::new(move |disk, seed| {
            let mut parts = node_parts(&instance, disk, seed)?;
            parts.name = own.clone();
            Ok(parts)
        }),
        app: Rc::new(move || Ok(app())),
    }
}

fn meta_server(config: &Config) -> Box<dyn ServiceApp> {
    Box::new(MetaApp::new(MetaAppOptions {
        listen: at(1, META_PORT),
        data_dir: "/data".into(),
        replication: section::<ReplicationOptions>(config),
        meta: section::<MetaServerOptions>(config),
        rpc: section::<RpcOptions>(config),
        envs: EnvRules::new(),
        extend: Box::new(|_| {}),
    }))
}

fn replica_server(
    config: &Config,
    host: u8,
    data_dirs: Vec<PathBuf>,
    make: MakeFactory,
) -> Box<dyn ServiceApp> {
    let options = ReplicaAppOptions {
        listen: at(host, SERVER_PORT),
        metas: vec![at(1, META_PORT).into()],
        data_dirs,
        replication: section::<ReplicationOptions>(config),
        copy: section::<NfsOptions>(config),
        rpc: section::<RpcOptions>(config),
    };
    Box::new(ReplicaApp::new(options, make))
}

fn section<T: dsn_core::config::Section>(config: &Config) -> T {
    config.section().unwrap_or_else(|error| panic!("{error}"))
}

impl SimCluster {
    /// Starts all servers and the client.
    ///
    /// # Panics
    /// When the configuration is wrong or a server refuses to start.
    #[must_use]
    pub fn start<A: ReplicatedApp>(spec: &ClusterSpec) -> Self {
        register(&crate::app::codes_of::<A>());
        let schema = server::schema().merge(&A::sections());
        Self::start_with(spec, schema, A::APP_TYPE, server::machines_of::<A>)
    }

    /// The same for state machines of any kind, whose codes are registered.
    ///
    /// # Panics
    /// When the configuration is wrong or a server refuses to start.
    #[must_use]
    pub fn start_with(
        spec: &ClusterSpec,
        schema: ConfigSchema,
        app_type: &'static str,
        make: fn() -> MakeFactory,
    ) -> Self {
        for codes in server::codes() {
            register(codes);
        }
        register(crate::client::CODES);
        register(CODES);
        let loader = Loader::new(schema).text("defaults of the test kit", DEFAULTS);
        let loaded = loader.text("configuration of the test", &spec.config).load();
        let config = loaded.unwrap_or_else(|error| panic!("{error}"));
        let mut sim = Sim::new(spec.seed, spec.sim.clone());
        let own = config.clone();
        let meta =
            node("meta".to_owned(), "meta", 1, &config, Vec::new(), move || meta_server(&own));
        let meta = sim.add_node(meta);
        let more = (2..=spec.data_dirs).map(|n| format!("/data{n}").into());
        let dirs: Vec<PathBuf> = std::iter::once("/data".into()).chain(more).collect();
        assert!(spec.servers <= SERVERS_MAX, "at most {SERVERS_MAX} servers");
        let servers = (0..spec.servers).map(|index| {
            let (own, host, paths) = (config.clone(), SERVER_HOST + index as u8, dirs.clone());
            let app = move || replica_server(&own, host, paths.clone(), make());
            let name = format!("replica{index}");
            sim.add_node(node(name, "replica", host, &config, dirs.clone(), app))
        });
        let servers = servers.collect();
        let core = Slot::default();
        let slot = core.clone();
        let client = node("client".to_owned(), "client", 99, &config, Vec::new(), move || {
            Box::new(ClientApp(slot.clone()))
        });
        let client = sim.add_node(client);
        let copies = spec.copies;
        let mut cluster = Self { sim, meta, servers, client, core, app_type, copies };
        for id in cluster.sim.node_ids() {
            cluster.start_node(id);
        }
        cluster
    }

    /// The simulation, for faults and times of all kinds.
    pub fn sim(&mut self) -> &mut Sim {
        &mut self.sim
    }

    /// The meta server.
    #[must_use]
    pub fn meta(&self) -> NodeId {
        self.meta
    }

    /// A replica server, from 0.
    #[must_use]
    pub fn server(&self, index: usize) -> NodeId {
        self.servers[index]
    }

    /// The client, for messages of all kinds.
    #[must_use]
    pub fn client(&self) -> NodeId {
        self.client
    }

    fn start_node(&mut self, id: NodeId) {
        if let Err(error) = self.sim.start(id) {
            self.fail(&format!("{} does not start: {error}", self.sim.name(id)));
        }
    }

    /// Ends the process of a replica server, as `kill -9` does.
    pub fn kill_server(&mut self, index: usize) {
        self.sim.kill(self.servers[index]);
    }

    /// Cuts the power of a replica server: what was not synced is lost, or half lost.
    pub fn power_off_server(&mut self, index: usize) {
        self.sim.power_off(self.servers[index]);
    }

    /// Stops a replica server in an orderly way and waits until it has ended.
    ///
    /// # Panics
    /// When it does not end.
    pub fn stop_server(&mut self, index: usize) {
        let id = self.servers[index];
        self.sim.stop(id);
        self.run_until("the server ends", STOP_TIMEOUT, |sim| !sim.is_up(id));
    }

    /// Starts a replica server on what its disk holds.
    ///
    /// # Panics
    /// When it refuses.
    pub fn start_server(&mut self, index: usize) {
        self.start_node(self.servers[index]);
    }

    /// Lets virtual time pass.
    ///
    /// # Panics
    /// When a checker or the simulation finds something wrong.
    pub fn run_for(&mut self, time: Duration) {
        if self.sim.run_for(time) == Outcome::Violated {
            self.fail("a violation");
        }
    }

    /// Lets virtual time pass until `done`, at most `limit`.
    ///
    /// # Panics
    /// When the time is over, or when a checker or the simulation finds something wrong.
    pub fn run_until(
        &mut self,
        what: &str,
        limit: Duration,
        mut done: impl FnMut(&mut Sim) -> bool,
    ) {
        let outcome = self.sim.run_until(limit, &mut done);
        if outcome != Outcome::Reached {
            self.fail(&format!("{what}: {outcome:?} after {limit:?}"));
        }
    }

    fn fail(&self, what: &str) -> ! {
        let (seed, now) = (self.sim.seed(), self.sim.now());
        panic!("seed {seed}, at {now:?}: {what}; {:?}", self.sim.violation());
    }

    /// Does `f` on the client's worker; it is given where the outcome goes.
    fn ask<T: Send + 'static>(
        &mut self,
        f: impl FnOnce(&mut ClientCore, &mut Ctx<'_>, Callback<T>),
    ) -> Answer<T> {
        let answer = Answer(Arc::default());
        let slot = answer.0.clone();
        let core = (*self.core.lock()).expect("the client has started");
        let done: Callback<T> = Box::new(move |_, outcome| *slot.lock() = Some(outcome));
        let asked = self.sim.enter(self.client, WorkerId(0), &LPC_TEST_CLIENT, |ctx| {
            ctx.with(core, |core, ctx| f(core, ctx, done)).is_ok()
        });
        assert_eq!(asked, Some(true), "the client runs");
        answer
    }

    /// Runs until a request has its outcome.
    ///
    /// # Errors
    /// The request's own.
    pub fn wait<T>(&mut self, answer: &Answer<T>) -> Result<T, ClientError> {
        self.run_until("a request ends", CALL_TIMEOUT * 2, |_| answer.is_there());
        answer.take().expect("it is there")
    }

    /// Makes a table and waits until all its partitions are served.
    ///
    /// # Panics
    /// When that takes too long.
    pub fn create_table(&mut self, name: &str, partitions: i32) {
        let request = CreateAppRequest {
            app_name: name.to_owned(),
            options: CreateAppOptions {
                partition_count: partitions,
                replica_count: self.copies,
                success_if_exist: true,
                app_type: self.app_type.to_owned(),
                is_stateful: true,
                ..CreateAppOptions::default()
            },
        };
        let begun = self.sim.now();
        loop {
            let answer = self.ask(|core, ctx, done| {
                core.ask_meta(ctx, &RPC_CM_CREATE_APP, &request, Kind::Read, None, done);
            });
            let made: Result<CreateAppResponse, ClientError> = self.wait(&answer);
            if made.as_ref().is_ok_and(|made| made.err == ErrorCode::Ok) {
                break;
            }
            self.pause(begun, &format!("table {name} is not made: {made:?}"));
        }
        while !self.is_served(name) {
            self.pause(begun, &format!("table {name} is not served"));
        }
    }

    fn pause(&mut self, begun: Duration, obstacle: &str) {
        if self.sim.now().saturating_sub(begun) > TABLE_TIMEOUT {
            self.fail(obstacle);
        }
        self.run_for(LOOK_INTERVAL);
    }

    /// Whether every partition of a table has a primary, as the meta server knows it.
    pub fn is_served(&mut self, table: &str) -> bool {
        self.config(table).is_ok_and(|config| {
            config.err == ErrorCode::Ok
                && config.partitions.len() == config.partition_count.max(0) as usize
                && config.partitions.iter().all(|partition| partition.primary.is_valid())
        })
    }

    /// Where the partitions of a table are.
    ///
    /// # Errors
    /// Those of the client.
    pub fn config(&mut self, table: &str) -> Result<QueryCfgResponse, ClientError> {
        let request = QueryCfgRequest { app_name: table.to_owned(), ..Default::default() };
        let code = &RPC_CM_QUERY_PARTITION_CONFIG_BY_INDEX;
        let answer = self.ask(|core, ctx, done| {
            core.ask_meta(ctx, code, &request, Kind::Read, None, done);
        });
        self.wait(&answer)
    }

    /// The server that leads the partition of `key`, from 0.
    ///
    /// # Panics
    /// When none does.
    pub fn leader(&mut self, table: &str, key: &[u8]) -> usize {
        let config = self.config(table).expect("the meta server answers");
        let Target::Key { hash, .. } = Target::key(key) else { unreachable!("a key") };
        let index = partition_index(hash, config.partition_count);
        let group = config.partitions.iter().find(|group| group.pid.partition_index == index);
        let host = group.map_or(0, |group| group.primary.ip().octets()[3]);
        let leader = usize::from(host).checked_sub(SERVER_HOST.into());
        leader.unwrap_or_else(|| panic!("seed {}: nobody leads partition {index}", self.sim.seed()))
    }

    /// Calls a method at the partition of `key` and runs until it has its outcome.
    ///
    /// # Errors
    /// Those of the client.
    pub fn call<K, Q: Encode, A: Decode + Send + 'static>(
        &mut self,
        table: &str,
        method: &Method<K, Q, A>,
        key: &[u8],
        argument: &Q,
    ) -> Result<A, ClientError> {
        let answer = self.send(table, method.request(Target::key(key), argument));
        self.wait(&answer)
    }

    /// Sends a request, whose outcome comes while the simulation runs.
    pub fn send<T: Send + 'static>(&mut self, table: &str, request: Request<T>) -> Answer<T> {
        let table: Arc<str> = table.into();
        self.ask(|core, ctx, done| core.submit(ctx, table, request, None, done))
    }

    /// Ends the cluster in an orderly way and looks for what was left behind.
    ///
    /// # Panics
    /// When something was, or something was wrong before.
    pub fn finish(mut self) {
        let seed = self.sim.seed();
        if let Err(violation) = self.sim.finish(STOP_TIMEOUT) {
            panic!("seed {seed}: {violation:?}");
        }
    }
}
