//! A cluster in memory: meta servers and replica servers on real sockets, one map, faults by appointment.
//!
//! All servers of a [`World`] share its state. A data request is answered by the primary of its partition only. Before
//! a request is served, the next fault appointed for its RPC at that server is taken from the queue.

#![allow(dead_code, reason = "each test binary uses its part")]

mod data;

use bytes::Bytes;
use dsn_core::app::{AppError, AppFactory, AppHost, NativeNode, ServiceApp};
use dsn_core::driver::native::{NativeClock, OsDisk};
use dsn_core::exec::{Addr, Ctx, WorkerConfig};
use dsn_core::node::{Node, NodeParts};
use dsn_core::stage::{Layout, StagePlan};
use dsn_replication::wire::admin::{
    CreateAppRequest, CreateAppResponse, ListAppsRequest, ListAppsResponse, ListNodesRequest,
    ListNodesResponse, NodeInfo, NodeStatus,
};
use dsn_replication::wire::config::{
    AppInfo, AppStatus, PartitionConfiguration, QueryCfgRequest, QueryCfgResponse,
};
use dsn_rpc::address::RpcAddress;
use dsn_rpc::builtin::Command;
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::gpid::Gpid;
use dsn_rpc::{Replier, Request, Rpc, RpcOptions, ServiceTable};
use parking_lot::Mutex;
use pegasus_client::schema::rrdb::KeyValue;
use pegasus_client::{ClientOptions, PegasusClient};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

/// What happens to a request instead of, or beside, what should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Refused in the header, nothing is done.
    Refuse(ErrorCode),
    /// Done, but never answered.
    DoneSilently,
    /// Not done and never answered.
    Silence,
    /// Of scans: the place is lost.
    LoseContext,
    /// Of scans: no rows this time, go on.
    EmptyBatch,
    /// Of scans: no rows, no place: the server's time limit.
    OutOfTime,
}

/// A table.
#[derive(Clone, Debug)]
pub struct FakeTable {
    pub app_id: i32,
    pub ballot: i64,
    pub primaries: Vec<Option<SocketAddr>>,
    /// Whether somebody has set an env since it was made.
    pub has_changed_envs: bool,
}

/// A scan under way.
pub struct FakeScan {
    pub rows: Vec<KeyValue>,
    pub batch: usize,
}

/// What the cluster's servers share.
#[derive(Default)]
pub struct State {
    pub tables: BTreeMap<String, FakeTable>,
    /// By table and full key.
    pub data: BTreeMap<(i32, Bytes), Bytes>,
    pub scans: BTreeMap<i64, FakeScan>,
    pub next_context: i64,
    /// Live replica servers as the meta server has them.
    pub nodes: Vec<SocketAddr>,
    /// The meta server that leads, when that matters.
    pub leader: Option<SocketAddr>,
    faults: Vec<(SocketAddr, &'static str, Fault)>,
    seen: BTreeMap<(SocketAddr, &'static str), usize>,
}

/// The state, shared.
#[derive(Clone, Default)]
pub struct World(Arc<Mutex<State>>);

impl World {
    pub fn edit<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        f(&mut self.0.lock())
    }

    /// A table whose partitions are on the given servers in turn.
    pub fn add_table(&self, name: &str, app_id: i32, partitions: usize, servers: &[&Server]) {
        let primaries = (0..partitions).map(|i| Some(servers[i % servers.len()].addr)).collect();
        let table = FakeTable { app_id, ballot: 3, primaries, has_changed_envs: false };
        self.edit(|state| state.tables.insert(name.to_owned(), table));
    }

    /// All partitions of a table go to one server.
    pub fn move_table(&self, name: &str, to: Option<SocketAddr>) {
        self.edit(|state| {
            let table = state.tables.get_mut(name).unwrap();
            table.ballot += 1;
            table.primaries.fill(to);
        });
    }

    /// The next request for `code` at `server` that has none appointed yet meets `fault`.
    pub fn appoint(&self, server: &Server, code: dsn_core::code::Code, fault: Fault) {
        self.edit(|state| state.faults.push((server.addr, code.name(), fault)));
    }

    /// Requests for `code` that `server` has seen.
    pub fn seen(&self, server: &Server, code: dsn_core::code::Code) -> usize {
        self.edit(|state| state.seen.get(&(server.addr, code.name())).copied().unwrap_or(0))
    }

    /// Faults that nobody has met.
    pub fn unmet(&self) -> usize {
        self.edit(|state| state.faults.len())
    }
}

impl State {
    /// Notes a request and gives the fault appointed for it.
    pub fn arrive(&mut self, server: SocketAddr, request: &Request) -> Option<Fault> {
        let code = request.code.name();
        *self.seen.entry((server, code)).or_default() += 1;
        let found = self.faults.iter().position(|(at, of, _)| *at == server && *of == code)?;
        Some(self.faults.remove(found).2)
    }
}

/// A server of the world.
pub struct Server {
    pub addr: SocketAddr,
    native: Option<NativeNode>,
}

type Start = Box<dyn FnOnce(&mut Ctx<'_>) + Send>;

struct App(Option<Start>);

impl ServiceApp for App {
    fn start(&mut self, ctx: &mut Ctx<'_>, _: Addr<AppHost>) -> Result<(), AppError> {
        (self.0.take().unwrap())(ctx);
        Ok(())
    }
}

/// A node of one worker with this app on it.
pub fn start_node(app: AppFactory) -> NativeNode {
    let plan = StagePlan::with_layout(1, Layout::Fused);
    let pools = plan.pools.clone();
    let node = Node::new(NodeParts {
        name: "fake".into(),
        role: "fake".into(),
        plan,
        worker: WorkerConfig::default(),
        codes: vec![],
        disk: Arc::new(OsDisk),
        seed: 1,
        config: None,
    })
    .unwrap();
    NativeNode::start(node, &pools, NativeClock::start(), app).unwrap()
}

/// A loopback address that no other test uses: whoever starts a server there again finds its port free.
pub fn own_host() -> SocketAddr {
    static SERVERS: AtomicU32 = AtomicU32::new(0);
    let index = SERVERS.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id() % 250;
    SocketAddr::from(([127, process as u8 + 1, (index / 250) as u8, (index % 250) as u8 + 1], 0))
}

impl Server {
    /// A replica server.
    pub fn replica(world: &World) -> Self {
        Self::at(own_host(), world, data::services)
    }

    /// A replica server at an address that one had before.
    pub fn replica_at(addr: SocketAddr, world: &World) -> Self {
        Self::at(addr, world, data::services)
    }

    /// A meta server.
    pub fn meta(world: &World) -> Self {
        Self::at(own_host(), world, meta_services)
    }

    /// A meta server at an address that one had before.
    pub fn meta_at(addr: SocketAddr, world: &World) -> Self {
        Self::at(addr, world, meta_services)
    }

    fn at(
        addr: SocketAddr,
        world: &World,
        services: fn(&World, Arc<Mutex<SocketAddr>>) -> ServiceTable,
    ) -> Self {
        let (tell, told) = channel();
        let me = Arc::new(Mutex::new(addr));
        let table = services(world, me.clone());
        let start = Box::new(move |ctx: &mut Ctx<'_>| {
            let rpc = Rpc::start(ctx, RpcOptions::default(), table);
            let addr = rpc.listen(ctx, addr).expect("the address is free");
            *me.lock() = addr;
            tell.send(addr).unwrap();
        });
        let native = start_node(Box::new(move || Box::new(App(Some(start)))));
        Self { addr: told.recv().unwrap(), native: Some(native) }
    }

    /// Ends it; its port refuses connections then.
    pub fn stop(mut self) -> SocketAddr {
        self.end();
        self.addr
    }

    fn end(&mut self) {
        if let Some(native) = self.native.take() {
            assert!(native.shutdown(Duration::from_secs(10)), "an orderly end");
        }
    }
}

impl From<(SocketAddr, NativeNode)> for Server {
    fn from((addr, native): (SocketAddr, NativeNode)) -> Self {
        Self { addr, native: Some(native) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// A client of these meta servers with a short patience, so that tests of timeouts do not take long.
pub fn client(metas: &[&Server]) -> PegasusClient {
    let mut options = ClientOptions::new(metas.iter().map(|meta| meta.addr));
    options.timeout = Duration::from_secs(20);
    options.read_attempt = Duration::from_millis(300);
    options.meta_timeout = Duration::from_millis(500);
    PegasusClient::with_options(options).unwrap()
}

type Me = Arc<Mutex<SocketAddr>>;

/// Answers `code` with what `f` makes of the argument, unless a fault forbids.
fn on<Q, A>(
    table: &mut ServiceTable,
    world: &World,
    me: &Me,
    code: dsn_core::code::Code,
    f: impl Fn(&mut State, SocketAddr, Q) -> A + Send + Sync + 'static,
) where
    Q: dsn_rpc::thrift::Decode,
    A: dsn_rpc::thrift::Encode,
{
    let (world, me) = (world.clone(), me.clone());
    table.on(code, move |ctx: &mut Ctx<'_>, request: Request, replier: Replier| {
        let me = *me.lock();
        let (fault, answer) = world.edit(|state| {
            let fault = state.arrive(me, &request);
            let answer = match fault {
                Some(Fault::Refuse(_) | Fault::Silence) => None,
                _ => Some(f(state, me, request.decode().unwrap())),
            };
            (fault, answer)
        });
        match (fault, answer) {
            (Some(Fault::Refuse(error)), _) => replier.error(ctx, error),
            (None, Some(answer)) => replier.reply(ctx, &answer),
            _ => replier.forget(ctx),
        }
    });
}

fn configuration(table: &FakeTable) -> QueryCfgResponse {
    let partitions =
        table.primaries.iter().enumerate().map(|(index, primary)| PartitionConfiguration {
            pid: Gpid { app_id: table.app_id, partition_index: index as i32 },
            ballot: table.ballot,
            max_replica_count: 1,
            primary: primary.map_or(RpcAddress::INVALID, address),
            ..PartitionConfiguration::default()
        });
    QueryCfgResponse {
        err: ErrorCode::Ok,
        app_id: table.app_id,
        partition_count: table.primaries.len() as i32,
        is_stateful: true,
        partitions: partitions.collect(),
    }
}

fn address(addr: SocketAddr) -> RpcAddress {
    match addr {
        SocketAddr::V4(addr) => addr.into(),
        SocketAddr::V6(_) => unreachable!("loopback of version 4"),
    }
}

fn forwarded(leader: SocketAddr) -> QueryCfgResponse {
    let partition =
        PartitionConfiguration { primary: address(leader), ..PartitionConfiguration::default() };
    QueryCfgResponse {
        err: ErrorCode::ForwardToOthers,
        partitions: [partition].into_iter().collect(),
        ..QueryCfgResponse::default()
    }
}

fn meta_services(world: &World, me: Me) -> ServiceTable {
    let mut table = ServiceTable::new();
    let code = &dsn_replication::codes::RPC_CM_QUERY_PARTITION_CONFIG_BY_INDEX;
    on(&mut table, world, &me, code, |state, me, request: QueryCfgRequest| {
        if let Some(leader) = state.leader.filter(|leader| *leader != me) {
            return forwarded(leader);
        }
        match state.tables.get(&request.app_name) {
            Some(table) => configuration(table),
            None => QueryCfgResponse { err: ErrorCode::ObjectNotFound, ..Default::default() },
        }
    });
    let code = &dsn_replication::codes::RPC_CM_CREATE_APP;
    on(&mut table, world, &me, code, |state, me, request: CreateAppRequest| {
        let answer = |err, appid| CreateAppResponse { err, appid };
        if state.leader.is_some_and(|leader| leader != me) {
            return answer(ErrorCode::ForwardToOthers, 0);
        }
        if let Some(table) = state.tables.get(&request.app_name) {
            let is_same = table.primaries.len() == request.options.partition_count as usize
                && table.has_changed_envs == request.options.envs.contains_key("changed");
            return match (request.options.success_if_exist, is_same) {
                (true, true) => answer(ErrorCode::Ok, table.app_id),
                (true, false) => answer(ErrorCode::InvalidParameters, 0),
                (false, _) => answer(ErrorCode::AppExist, 0),
            };
        }
        if state.nodes.len() < request.options.replica_count as usize {
            return answer(ErrorCode::InvalidParameters, 0);
        }
        let app_id = 1 + state.tables.len() as i32;
        let primaries = vec![None; request.options.partition_count as usize];
        let table = FakeTable { app_id, ballot: 1, primaries, has_changed_envs: false };
        state.tables.insert(request.app_name, table);
        answer(ErrorCode::Ok, app_id)
    });
    let code = &dsn_replication::codes::RPC_CM_LIST_APPS;
    on(&mut table, world, &me, code, |state, _, _: ListAppsRequest| {
        let infos = state.tables.iter().map(|(name, table)| AppInfo {
            status: AppStatus::Available,
            app_name: name.clone(),
            app_id: table.app_id,
            partition_count: table.primaries.len() as i32,
            max_replica_count: 1,
            ..AppInfo::default()
        });
        ListAppsResponse { err: ErrorCode::Ok, infos: infos.collect(), hint_message: None }
    });
    let code = &dsn_replication::codes::RPC_CM_LIST_NODES;
    on(&mut table, world, &me, code, |state, _, _: ListNodesRequest| {
        let infos = state.nodes.iter().map(|node| NodeInfo {
            status: NodeStatus::Alive,
            node: address(*node),
            hp_node: None,
        });
        ListNodesResponse { err: ErrorCode::Ok, infos: infos.collect() }
    });
    let code = &dsn_rpc::builtin::RPC_CLI_CLI_CALL;
    on(&mut table, world, &me, code, |_, _, command: Command| {
        format!("{}: {}", command.cmd, command.arguments.join("+"))
    });
    table
}
