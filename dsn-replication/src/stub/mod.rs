//! The stub: all replicas of a server. Opens what the disks hold, does what the meta server proposes, keeps house.
//!
//! A resident on worker 0. Replicas themselves are residents of the replication stage's workers; the stub only knows
//! where they are. Nothing here is on the path of a read or a write.

pub mod layout;
pub mod open;
pub mod repair;

use crate::codes::RPC_CONFIG_PROPOSAL;
use crate::failure_detector::lease::Lease;
use crate::gate::ReadGate;
use crate::host::{
    HostMetrics, HostParts, LPC_REPLICA_CHECKPOINT, LPC_REPLICA_EVENT, OnFailed, ReplicaHost,
    register_writes,
};
use crate::ids::Ballot;
use crate::log::{LogOptions, SyncScope};
use crate::meta_link::{MetaLink, MetaLinkOptions, ReplicaServer};
use crate::placement::{Placed, Placement};
use crate::reads;
use crate::replica::{CoreOptions, LocalError, WriteRules};
use crate::state_machine::{CheckpointKind, StateMachineFactory};
use crate::wire::config::{
    AppInfo, ConfigType, ConfigurationUpdateRequest, ConfigurationUpdateResponse, PartitionStatus,
    ReplicaInfo,
};
use crate::worker_log::{WorkerLogs, sync_from_here};
use dsn_core::exec::{Addr, Ctx, Place, Resident};
use dsn_core::node::StageId;
use dsn_rpc::address::RpcAddress;
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::gpid::Gpid;
use dsn_rpc::{Replier, Request, ServiceTable};
use open::{Opened, OpenedDir, create_new, open_dir};
use repair::{DataDir, StubMetrics, UnservedMap};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

dsn_core::task_codes! {
    /// Codes of this file.
    pub CODES;
    /// Everything on the disks is opened.
    pub LPC_STUB_OPEN: Blocking, High, "THREAD_POOL_REPLICATION_LONG";
    /// One replica is opened or closed.
    pub LPC_OPEN_REPLICA: Blocking, Common, "THREAD_POOL_REPLICATION_LONG";
    /// The stub's housekeeping.
    pub LPC_STUB_TICK: Compute, Common, "THREAD_POOL_DEFAULT";
    /// Something concerns the stub.
    pub LPC_STUB_EVENT: Compute, High, "THREAD_POOL_DEFAULT";
}

/// What a stub is made of.
pub struct StubOptions {
    /// Data directories; a replica goes to the one with the fewest.
    pub data_dirs: Vec<PathBuf>,
    /// How logs behave.
    pub log: LogOptions,
    /// Limits of the cores.
    pub core: CoreOptions,
    /// Largest write, in bytes; 0 for no limit.
    pub max_write_bytes: usize,
    /// Fewest members for a write, capped by the table's own number; 0 derives it from that.
    pub min_members: u32,
    /// Between two checkpoints of a replica.
    pub checkpoint_interval: Duration,
    /// After this time at the latest a replica writes out what it has in memory for a checkpoint.
    pub checkpoint_max_interval: Duration,
    /// A partition that nobody writes to gets an empty write after this time; `None` for never.
    pub heartbeat: Option<Duration>,
    /// The meta servers, and how to speak to them.
    pub link: MetaLinkOptions,
}

/// Called once everything on the disks is open, or cannot be.
pub type OnOpened = Box<dyn FnOnce(&mut Ctx<'_>, Result<(), String>) + Send>;

/// What the link and the hosts see of the stub.
struct Board {
    placement: Placement<ReplicaHost>,
    stub: OnceLock<Addr<ReplicaStub>>,
    app_type: String,
    unserved: UnservedMap,
}

impl Board {
    fn with(
        &self,
        ctx: &mut Ctx<'_>,
        f: impl FnOnce(&mut ReplicaStub, &mut Ctx<'_>) + Send + 'static,
    ) {
        if let Some(stub) = self.stub.get() {
            ctx.post(*stub, &LPC_STUB_EVENT, f);
        }
    }
}

impl ReplicaServer for Board {
    fn stored(&self) -> Vec<ReplicaInfo> {
        let info = |(gpid, placed): (Gpid, Placed<ReplicaHost>)| {
            let machine = placed.gate.machine();
            let committed = machine.last_applied().0;
            ReplicaInfo {
                pid: gpid,
                ballot: placed.gate.ballot().0,
                status: placed.gate.status(),
                last_committed_decree: committed,
                last_prepared_decree: committed,
                last_durable_decree: machine.last_durable().0,
                app_type: self.app_type.clone(),
                ..ReplicaInfo::default()
            }
        };
        self.placement.all().into_iter().map(info).collect()
    }

    fn on_config(&self, ctx: &mut Ctx<'_>, config: ConfigurationUpdateRequest) {
        self.with(ctx, move |stub, ctx| stub.on_config(ctx, &config));
    }

    fn on_gc(&self, ctx: &mut Ctx<'_>, gpid: Gpid) {
        self.with(ctx, move |stub, ctx| stub.drop_replica(ctx, gpid));
    }

    fn on_disconnected(&self, ctx: &mut Ctx<'_>) {
        for (_, placed) in self.placement.all() {
            ctx.post(placed.host, &LPC_REPLICA_EVENT, |host, ctx| {
                host.become_inactive(ctx, Ballot::ZERO);
            });
        }
    }
}

struct Held {
    host: Addr<ReplicaHost>,
    info: AppInfo,
    dir: PathBuf,
    data_dir: usize,
}

/// See the module's header.
pub struct ReplicaStub {
    me: Addr<Self>,
    factory: Arc<dyn StateMachineFactory>,
    options: StubOptions,
    lease: Lease,
    worker_logs: Arc<WorkerLogs>,
    board: Arc<Board>,
    stage: StageId,
    link: Option<Addr<MetaLink>>,
    dirs: Vec<DataDir>,
    held: BTreeMap<Gpid, Held>,
    /// Being made, opened or closed, and in which data directory.
    opening: BTreeMap<Gpid, usize>,
    proposed: BTreeSet<Gpid>,
    metrics: StubMetrics,
}

impl fmt::Debug for ReplicaStub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicaStub").field("replicas", &self.held.len()).finish_non_exhaustive()
    }
}

impl Resident for ReplicaStub {}

impl ReplicaStub {
    /// Registers reads, writes and proposals on `table` and makes the stub; [`ReplicaStub::open`] comes when the RPC
    /// layer runs.
    pub fn new(
        ctx: &mut Ctx<'_>,
        factory: Arc<dyn StateMachineFactory>,
        options: StubOptions,
        table: &mut ServiceTable,
    ) -> Addr<Self> {
        let placement = Placement::default();
        reads::register(table, factory.codes(), &placement);
        register_writes(table, factory.codes(), &placement);
        let stage = ctx.node().find_stage(dsn_core::stage::REPLICATION).unwrap_or(StageId(0));
        let app_type = factory.app_type().to_owned();
        let unserved = UnservedMap::default();
        repair::register(ctx, table, &unserved);
        let metrics = StubMetrics::new(ctx.node().metrics(), "server", []);
        let board = Arc::new(Board { placement, stub: OnceLock::new(), app_type, unserved });
        let stub = ctx.spawn_here(|_, me| Self {
            me,
            factory,
            options,
            lease: Lease::new(),
            worker_logs: Arc::default(),
            board: board.clone(),
            stage,
            link: None,
            dirs: Vec::new(),
            held: BTreeMap::new(),
            opening: BTreeMap::new(),
            proposed: BTreeSet::new(),
            metrics,
        });
        let _ = board.stub.set(stub);
        table.on_resident(&RPC_CONFIG_PROPOSAL, stub, Self::on_proposal);
        stub
    }

    /// Opens everything on the disks, then speaks to the meta server. A data directory that cannot be used is left
    /// out and tried again later; without any the server cannot run.
    pub fn open(&mut self, ctx: &mut Ctx<'_>, done: OnOpened) {
        let factory = self.factory.clone();
        let (paths, log) = (self.options.data_dirs.clone(), self.options.log.clone());
        ctx.offload(
            &LPC_STUB_OPEN,
            move |job| {
                let open = |path| open_dir(job, &*factory, path, &log);
                paths.iter().map(|path| open(path)).collect()
            },
            self.me,
            move |stub, opened, ctx| stub.opened(ctx, opened, done),
        );
    }

    fn opened(
        &mut self,
        ctx: &mut Ctx<'_>,
        opened: Vec<Result<OpenedDir, String>>,
        done: OnOpened,
    ) {
        let now = ctx.clock();
        let paths = self.options.data_dirs.iter();
        self.dirs = paths.map(|path| DataDir::new(path.clone(), now)).collect();
        let mut problems = Vec::new();
        for (index, outcome) in opened.into_iter().enumerate() {
            problems.extend(self.dir_opened(ctx, index, outcome).err());
        }
        if self.dirs.iter().all(|dir| dir.log.is_none()) {
            let problems = problems.join("; ");
            return done(ctx, Err(format!("no data directory can be used: {problems}")));
        }
        tracing::info!(replicas = self.held.len(), "opened what the disks hold");
        let server: Arc<dyn ReplicaServer> = self.board.clone();
        self.link =
            Some(MetaLink::start(ctx, self.options.link.clone(), self.lease.clone(), server));
        ctx.every(self.me, &LPC_STUB_TICK, self.options.checkpoint_interval, Self::tick);
        ctx.every(self.me, &LPC_STUB_TICK, self.options.log.sync_interval, Self::sync_logs);
        ctx.every(self.me, &LPC_STUB_TICK, repair::PAUSE_FIRST, Self::repair);
        if let Some(heartbeat) = self.options.heartbeat {
            ctx.every(self.me, &LPC_STUB_TICK, heartbeat, Self::beat);
        }
        done(ctx, Ok(()));
    }

    /// Gives an opened replica its host and makes it known.
    fn hold(&mut self, ctx: &mut Ctx<'_>, opened: Opened, data_dir: usize) {
        let Opened { gpid, info, dir, machine, recovered } = opened;
        let Some(log) = self.dirs[data_dir].log.clone() else { return };
        let gate = Arc::new(ReadGate::new(gpid, machine.clone(), self.lease.clone()));
        let (table, partition) = (gpid.app_id.to_string(), gpid.partition_index.to_string());
        let labels = [("table_id", table.as_str()), ("partition_id", partition.as_str())];
        let metrics =
            HostMetrics::new(ctx.node().metrics(), &format!("replica@{table}.{partition}"), labels);
        gate.set_metrics(metrics.clone());
        let board = self.board.clone();
        let on_failed: OnFailed = Arc::new(move |ctx, gpid, error: &LocalError| {
            let error = error.clone();
            board.with(ctx, move |stub, ctx| stub.replica_failed(ctx, gpid, &error));
        });
        let parts = HostParts {
            gpid,
            machine,
            gate: gate.clone(),
            log,
            worker_logs: self.worker_logs.clone(),
            lease: self.lease.clone(),
            recovered,
            core: self.options.core.clone(),
            flush_interval: self.options.checkpoint_max_interval,
            rules: self.rules(&info),
            info: info.clone(),
            metrics,
            on_failed,
        };
        let place = Place::Stage(self.stage);
        let host = ctx.spawn(place, &LPC_REPLICA_EVENT, move |_, me| ReplicaHost::new(me, parts));
        gate.on_broken(Box::new(move |ctx, error| {
            ctx.post(host, &LPC_REPLICA_EVENT, move |host, ctx| {
                let reason = format!("a read failed with {error}");
                host.fail(
                    ctx,
                    match error {
                        ErrorCode::RdbCorruption => LocalError::Corrupt(reason),
                        _ => LocalError::Disk(reason),
                    },
                );
            });
        }));
        self.board.placement.insert(gpid, Placed { host, gate });
        self.held.insert(gpid, Held { host, info, dir, data_dir });
    }

    fn rules(&self, info: &AppInfo) -> WriteRules {
        let most = u32::try_from(info.max_replica_count).unwrap_or(1).max(1);
        let wanted = match self.options.min_members {
            0 if most <= 2 => 1,
            0 => most / 2 + 1,
            wanted => wanted,
        };
        WriteRules {
            max_bytes: self.options.max_write_bytes,
            min_members: wanted.min(most),
            ..WriteRules::default()
        }
    }

    /// The meta server asks this server to act.
    fn on_proposal(&mut self, ctx: &mut Ctx<'_>, request: Request, replier: Replier) {
        replier.forget(ctx);
        match request.decode::<ConfigurationUpdateRequest>() {
            Ok(proposal) => self.propose(ctx, proposal),
            Err(error) => tracing::warn!(peer = %request.peer, %error, "unreadable proposal"),
        }
    }

    fn propose(&mut self, ctx: &mut Ctx<'_>, proposal: ConfigurationUpdateRequest) {
        let gpid = proposal.config.pid;
        match proposal.config_type {
            ConfigType::AssignPrimary | ConfigType::UpgradeToPrimary => {}
            ConfigType::DropPartition => {
                return self.retire(ctx, gpid, Ballot(proposal.config.ballot));
            }
            other => {
                tracing::warn!(%gpid, %other, "a proposal that a group of one has no use for");
                return;
            }
        }
        if self.opening.contains_key(&gpid) || self.board.unserved.lock().contains_key(&gpid) {
            return;
        }
        if !self.held.contains_key(&gpid) {
            return self.create(ctx, proposal);
        }
        let current = self.board.placement.get(ctx, gpid);
        if current.is_some_and(|placed| {
            placed.gate.status() == PartitionStatus::Error
                || placed.gate.ballot().0 > proposal.config.ballot
        }) {
            return;
        }
        // Envs are not kept on the disk: whoever leads must have heard them.
        self.configure(ctx, gpid, &proposal.info);
        self.lead(ctx, proposal);
    }

    /// Tells a replica what its table says now.
    fn configure(&mut self, ctx: &mut Ctx<'_>, gpid: Gpid, info: &AppInfo) {
        let rules = self.rules(info);
        let Some(held) = self.held.get_mut(&gpid) else { return };
        held.info = info.clone();
        let info = info.clone();
        ctx.post(held.host, &LPC_REPLICA_EVENT, |host, ctx| host.configure(ctx, info, rules));
    }

    /// Makes an empty replica, then goes on with the proposal.
    fn create(&mut self, ctx: &mut Ctx<'_>, proposal: ConfigurationUpdateRequest) {
        let gpid = proposal.config.pid;
        // A group that ever had a primary may have data, whatever the meta server has heard of it.
        let (decree, ballot) = (proposal.config.last_committed_decree, proposal.config.ballot);
        if decree > 0 || ballot > 0 || proposal.config_type != ConfigType::AssignPrimary {
            tracing::error!(%gpid, "asked to lead a partition that has data, of which this server has none");
            return;
        }
        let count = |index: usize| {
            let held = self.held.values().filter(|held| held.data_dir == index).count();
            held + self.opening.values().filter(|dir| **dir == index).count()
        };
        let usable = (0..self.dirs.len()).filter(|index| self.dirs[*index].usable().is_some());
        let Some(index) = usable.min_by_key(|index| count(*index)) else { return };
        let path = self.dirs[index].path.clone();
        let Some(log) = self.dirs[index].log.clone() else { return };
        let factory = self.factory.clone();
        self.opening.insert(gpid, index);
        ctx.offload(
            &LPC_OPEN_REPLICA,
            move |job| {
                let what = (gpid, &proposal.info, proposal.config.ballot);
                let opened = create_new(job, &*factory, &path, &log, what);
                (opened, proposal)
            },
            self.me,
            move |stub, (opened, proposal), ctx| {
                stub.opening.remove(&gpid);
                match opened {
                    Ok(opened) => {
                        stub.hold(ctx, opened, index);
                        stub.lead(ctx, proposal);
                    }
                    Err(reason) => tracing::error!(%gpid, reason, "a new replica cannot be made"),
                }
            },
        );
    }

    /// Asks the meta server to make this replica primary, and makes it that when the answer says so.
    fn lead(&mut self, ctx: &mut Ctx<'_>, mut request: ConfigurationUpdateRequest) {
        let gpid = request.config.pid;
        let SocketAddr::V4(me) = self.options.link.me else { return };
        if !self.proposed.insert(gpid) {
            return;
        }
        request.config.ballot += 1;
        request.config.primary = RpcAddress::from(me);
        request.node = RpcAddress::from(me);
        let (board, link) = (self.board.clone(), self.link);
        let Some(link) = link else { return };
        ctx.post(link, &LPC_STUB_EVENT, move |link, ctx| {
            let done = move |ctx: &mut Ctx<'_>, outcome| {
                board.with(ctx, move |stub, ctx| stub.reported(ctx, gpid, outcome));
            };
            link.update(ctx, request, Box::new(done));
        });
    }

    fn reported(
        &mut self,
        ctx: &mut Ctx<'_>,
        gpid: Gpid,
        outcome: Result<ConfigurationUpdateResponse, ErrorCode>,
    ) {
        self.proposed.remove(&gpid);
        let Some(held) = self.held.get(&gpid) else { return };
        match outcome {
            Ok(answer) => {
                let ballot = Ballot(answer.config.ballot);
                let me = self.options.link.me;
                if answer.config.primary.socket_addr().map(SocketAddr::from) != Some(me) {
                    return;
                }
                ctx.post(held.host, &LPC_REPLICA_EVENT, move |host, ctx| {
                    match host.become_primary(ctx, ballot) {
                        Ok(()) => tracing::info!(gpid = %host.gpid(), ballot = ballot.0, "primary"),
                        Err(error) => tracing::warn!(gpid = %host.gpid(), %error, "not primary"),
                    }
                });
            }
            Err(error) => tracing::warn!(%gpid, %error, "the meta server refused a report"),
        }
    }

    /// A group as the meta server has it.
    fn on_config(&mut self, ctx: &mut Ctx<'_>, config: &ConfigurationUpdateRequest) {
        let gpid = config.config.pid;
        let ballot = Ballot(config.config.ballot);
        let me = self.options.link.me;
        self.configure(ctx, gpid, &config.info);
        let Some(held) = self.held.get(&gpid) else { return };
        let leads = config.config.primary.socket_addr().map(SocketAddr::from) == Some(me);
        ctx.post(held.host, &LPC_REPLICA_EVENT, move |host, ctx| {
            if !leads && ballot > host.core().ballot() {
                host.become_inactive(ctx, ballot);
            }
        });
    }

    /// The table was dropped: the replica serves nobody any more. It stays until the meta server says that the table
    /// can no longer be recalled.
    fn retire(&mut self, ctx: &mut Ctx<'_>, gpid: Gpid, ballot: Ballot) {
        let Some(held) = self.held.get(&gpid) else { return };
        tracing::info!(%gpid, "the table was dropped, the replica is kept for a while");
        ctx.post(held.host, &LPC_REPLICA_EVENT, move |host, ctx| {
            if ballot > host.core().ballot() {
                host.become_inactive(ctx, ballot);
            }
        });
        // So that a recall finds it at once.
        self.sync_now(ctx);
    }

    /// Closes a replica and puts its directory aside, for the time that operators may want it back.
    fn drop_replica(&mut self, ctx: &mut Ctx<'_>, gpid: Gpid) {
        let Some((held, machine)) = self.let_go(ctx, gpid) else { return };
        tracing::info!(%gpid, "replica no longer wanted");
        let log = self.dirs[held.data_dir].log.clone();
        self.opening.insert(gpid, held.data_dir);
        ctx.offload(
            &LPC_OPEN_REPLICA,
            move |job| {
                machine.close(job);
                if let Some(log) = log {
                    log.forget(gpid);
                }
                let now_us = job.wall().unix_micros();
                layout::put_aside(&**job.disk(), &held.dir, now_us, "gar")
            },
            self.me,
            move |stub, outcome, _| {
                stub.opening.remove(&gpid);
                if let Err(error) = outcome {
                    tracing::error!(%gpid, %error, "a dropped replica's directory stays");
                }
            },
        );
    }

    fn sync_now(&mut self, ctx: &mut Ctx<'_>) {
        if let Some(link) = self.link {
            ctx.post(link, &LPC_STUB_EVENT, |link, ctx| link.sync_now(ctx));
        }
    }

    /// Checkpoints, then the logs give back what no replica needs.
    fn tick(&mut self, ctx: &mut Ctx<'_>) {
        for held in self.held.values() {
            ctx.post(held.host, &LPC_REPLICA_EVENT, ReplicaHost::checkpoint_in_turn);
        }
        for log in self.dirs.iter().filter_map(|dir| dir.usable().cloned()) {
            ctx.offload(
                &LPC_REPLICA_CHECKPOINT,
                move |job| log.collect(job.wall().unix_micros()),
                self.me,
                |stub, outcome, ctx| match outcome {
                    Ok(collected) => stub.flush_laggards(ctx, &collected.laggards),
                    Err(error) => tracing::warn!(%error, "log files cannot be given back"),
                },
            );
        }
    }

    fn beat(&mut self, ctx: &mut Ctx<'_>) {
        for held in self.held.values() {
            ctx.post(held.host, &LPC_REPLICA_EVENT, ReplicaHost::heartbeat);
        }
    }

    fn flush_laggards(&mut self, ctx: &mut Ctx<'_>, laggards: &[Gpid]) {
        for held in laggards.iter().filter_map(|gpid| self.held.get(gpid)) {
            ctx.post(held.host, &LPC_REPLICA_EVENT, |host, ctx| {
                host.checkpoint(ctx, CheckpointKind::Flush);
            });
        }
    }

    fn sync_logs(&mut self, ctx: &mut Ctx<'_>) {
        use crate::log::Durability;
        let scope = match self.options.log.durability {
            Durability::IntervalSync => SyncScope::All,
            Durability::Os | Durability::GroupSync => SyncScope::Sealed,
        };
        for log in self.dirs.iter().filter_map(DataDir::usable) {
            sync_from_here(ctx, &self.worker_logs, log, scope);
        }
    }

    /// Closes everything in order: no more writes, state machines write out what they have in memory.
    pub fn close_all(&mut self, ctx: &mut Ctx<'_>, done: Box<dyn FnOnce(&mut Ctx<'_>) + Send>) {
        let mut machines = Vec::new();
        for (gpid, placed) in self.board.placement.all() {
            self.board.placement.remove(gpid);
            ctx.close(placed.host);
            machines.push(placed.gate.machine().clone());
        }
        self.held.clear();
        if let Some(link) = self.link.take() {
            ctx.close(link);
        }
        ctx.offload(
            &LPC_OPEN_REPLICA,
            move |job| machines.iter().for_each(|machine| machine.close(job)),
            self.me,
            move |_, (), ctx| done(ctx),
        );
    }
}
