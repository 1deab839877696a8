//! The stub: all replicas of a server. Opens what the disks hold, does what the meta server proposes, keeps house.
//!
//! A resident on worker 0. Replicas themselves are residents of the replication stage's workers; the stub only knows
//! where they are. Nothing here is on the path of a read or a write.
//!
//! This file has the stub itself, [`proposals`] what the meta server wants and is told, [`learning`] both ends of
//! learning, [`copies`] how much is copied at a time, [`housekeeping`] what happens now and then, [`garbage`] what
//! becomes of directories that were put aside, [`space`] whether a disk has room; [`open`] reads the disks,
//! [`create`] makes replicas, [`closing`] closes what was open, [`layout`] knows their directories.

mod closing;
pub mod copies;
mod create;
pub mod garbage;
mod housekeeping;
pub mod layout;
pub mod learning;
pub mod open;
mod proposals;
pub mod repair;
pub mod space;

use crate::codes::{RPC_CONFIG_PROPOSAL, RPC_LEARN, RPC_LEARN_ADD_LEARNER, RPC_NFS_COPY};
use crate::failure_detector::lease::Lease;
use crate::gate::ReadGate;
use crate::group_link;
use crate::host::{
    HostMetrics, HostParts, HostServer, LPC_REPLICA_EVENT, ReplicaHost, register_writes,
};
use crate::ids::Ballot;
use crate::learn::learner::Learner;
use crate::learn::source::Source;
use crate::log::LogOptions;
use crate::meta_link::{MetaLink, MetaLinkOptions, ReplicaServer};
use crate::mutation::CodeTable;
use crate::options::min_members;
use crate::placement::{Placed, Placement};
use crate::reads;
use crate::replica::{Change, CoreOptions, LocalError, WriteRules};
use crate::state_machine::StateMachineFactory;
use crate::wire::config::{AppInfo, ConfigurationUpdateRequest, PartitionStatus, ReplicaInfo};
use crate::worker_log::WorkerLogs;
use copies::{Copies, CopyOptions};
use dsn_core::exec::{Addr, BlockingCtx, Ctx, Place, Resident};
use dsn_core::node::StageId;
use dsn_core::stage::{PLOG, lane};
use dsn_core::time::Mono;
use dsn_rpc::ServiceTable;
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::gpid::Gpid;
use garbage::GarbageOptions;
use open::{Opened, OpenedDir, close, open_dir};
use repair::{DataDir, Pause, StubMetrics, UnservedMap};
use space::SpaceOptions;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

dsn_core::task_codes! {
    /// Codes of this file.
    pub CODES;
    /// Everything on the disks is opened.
    pub LPC_STUB_OPEN: Blocking, High, "THREAD_POOL_REPLICATION_LONG";
    /// One replica is opened or closed.
    pub LPC_OPEN_REPLICA: Blocking, Common, "THREAD_POOL_REPLICATION_LONG";
    /// How much room is left on the disks.
    pub LPC_DISK_STAT: Blocking, Common, "THREAD_POOL_REPLICATION_LONG";
    /// The stub's housekeeping.
    pub LPC_STUB_TICK: Compute, Common, "THREAD_POOL_DEFAULT";
    /// Something concerns the stub.
    pub LPC_STUB_EVENT: Compute, High, "THREAD_POOL_DEFAULT";
}

/// What a stub is made of.
pub struct StubOptions {
    /// Data directories; a replica goes to the one with room that has the fewest of its table.
    pub data_dirs: Vec<PathBuf>,
    /// How logs behave.
    pub log: LogOptions,
    /// Limits of the cores.
    pub core: CoreOptions,
    /// Whether clients get no answer until an operator lets them in.
    pub deny_clients: bool,
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
    /// How long what was put aside stays.
    pub garbage: GarbageOptions,
    /// When a disk counts as full.
    pub space: SpaceOptions,
    /// How much is copied at a time.
    pub copy: CopyOptions,
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
    /// Data directories that cannot be used at present.
    shut_dirs: AtomicUsize,
    /// Replicas that have yet to hear that the lease is lost.
    unaware: Arc<AtomicUsize>,
}

/// A replica has yet to take notice; until this is dropped, which happens to what a closed resident is sent as well.
struct Unaware(Arc<AtomicUsize>);

impl Unaware {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count.clone())
    }
}

impl Drop for Unaware {
    fn drop(&mut self) {
        // Whoever sees the count sees the closed gate.
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
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
                last_prepared_decree: placed.gate.prepared().0,
                last_durable_decree: machine.last_durable().0,
                app_type: self.app_type.clone(),
                tail_uncertain: placed.gate.is_uncertain().then_some(true),
                ..ReplicaInfo::default()
            }
        };
        self.placement.all().into_iter().map(info).collect()
    }

    fn refused(&self) -> Vec<Gpid> {
        repair::refused(&self.unserved)
    }

    fn is_incomplete(&self) -> bool {
        self.shut_dirs.load(Ordering::Relaxed) > 0
    }

    fn on_config(&self, ctx: &mut Ctx<'_>, config: ConfigurationUpdateRequest) {
        self.with(ctx, move |stub, ctx| stub.on_config(ctx, &config));
    }

    fn on_gc(&self, ctx: &mut Ctx<'_>, gpid: Gpid) {
        self.with(ctx, move |stub, ctx| stub.drop_replica(ctx, gpid));
    }

    fn on_disconnected(&self, ctx: &mut Ctx<'_>) {
        for (_, placed) in self.placement.all() {
            let unaware = Unaware::new(&self.unaware);
            ctx.post(placed.host, &LPC_REPLICA_EVENT, move |host, ctx| {
                host.become_inactive(ctx, Ballot::ZERO);
                drop(unaware);
            });
        }
    }

    fn is_settled(&self) -> bool {
        self.unaware.load(Ordering::Acquire) == 0
    }
}

impl HostServer for Board {
    fn failed(&self, ctx: &mut Ctx<'_>, gpid: Gpid, error: &LocalError) {
        let error = error.clone();
        self.with(ctx, move |stub, ctx| stub.replica_failed(ctx, gpid, &error));
    }

    fn change(&self, ctx: &mut Ctx<'_>, gpid: Gpid, info: &AppInfo, change: Change) {
        let info = info.clone();
        self.with(ctx, move |stub, ctx| stub.request_change(ctx, gpid, info, change));
    }

    fn sync(&self, ctx: &mut Ctx<'_>) {
        self.with(ctx, ReplicaStub::sync_now);
    }
}

/// A replica that is open.
struct Held {
    host: Addr<ReplicaHost>,
    info: AppInfo,
    dir: PathBuf,
    data_dir: usize,
    /// What it was opened after, if its disk had refused it, and when it was.
    refused: Option<(Pause, Mono)>,
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
    /// Partitions of which the meta server is asked whether nobody has led them yet, by the number of the question.
    new_groups: BTreeMap<Gpid, u64>,
    questions: u64,
    /// Whatever is opened from now on is closed at once.
    closing: bool,
    metrics: StubMetrics,
    codes: Arc<CodeTable>,
    /// Attempts at learning that wait for their primary's word that they are meant, by what is learned.
    invitations: BTreeMap<Gpid, i64>,
    /// Attempts at learning that ask or copy, by what is learned.
    learners: BTreeMap<Gpid, (i64, Addr<Learner>)>,
    /// Checkpoints that learners copy from here.
    source: Source,
    copies: Copies,
}

impl fmt::Debug for ReplicaStub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicaStub").field("replicas", &self.held.len()).finish_non_exhaustive()
    }
}

impl Resident for ReplicaStub {
    fn on_lost(&mut self, ctx: &mut Ctx<'_>, text: &str) {
        ctx.node().fail(text);
    }
}

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
        placement.deny_clients(options.deny_clients);
        placement.add_command(ctx.node().commands());
        reads::register(table, factory.codes(), &placement);
        register_writes(table, factory.codes(), &placement);
        let stage = ctx.node().find_stage(dsn_core::stage::REPLICATION).unwrap_or(StageId(0));
        let app_type = factory.app_type().to_owned();
        let unserved = UnservedMap::default();
        repair::register(ctx, table, &unserved);
        let metrics = StubMetrics::new(ctx.node().metrics(), "server", []);
        let codes = Arc::new(CodeTable::new(factory.codes()));
        group_link::register(table, &placement, options.link.me);
        let lease = Lease::new();
        let ending = lease.clone();
        // Whoever finds the port closed takes the lease for over: it must be.
        ctx.node().before_stop(Box::new(move || ending.end()));
        let copies = Copies::new(&options.copy, options.data_dirs.len());
        let board = Arc::new(Board {
            placement,
            stub: OnceLock::new(),
            app_type,
            unserved,
            shut_dirs: AtomicUsize::new(options.data_dirs.len()),
            unaware: Arc::default(),
        });
        let stub = ctx.spawn_here(|_, me| Self {
            me,
            factory,
            options,
            lease,
            worker_logs: Arc::default(),
            board: board.clone(),
            stage,
            link: None,
            dirs: Vec::new(),
            held: BTreeMap::new(),
            opening: BTreeMap::new(),
            proposed: BTreeSet::new(),
            new_groups: BTreeMap::new(),
            questions: 0,
            closing: false,
            metrics,
            codes,
            invitations: BTreeMap::new(),
            learners: BTreeMap::new(),
            source: Source::default(),
            copies,
        });
        let _ = board.stub.set(stub);
        table.on_resident(&RPC_CONFIG_PROPOSAL, stub, Self::on_proposal);
        table.on_resident(&RPC_LEARN_ADD_LEARNER, stub, Self::on_invitation);
        table.on_resident(&RPC_LEARN, stub, Self::on_learn);
        table.on_resident(&RPC_NFS_COPY, stub, Self::on_copy);
        stub
    }

    /// Its replicas.
    pub fn placement(&self) -> &Placement<ReplicaHost> {
        &self.board.placement
    }

    /// Opens everything on the disks; [`ReplicaStub::join`] comes when the port is open. A data directory that cannot
    /// be used is left out and tried again later; without any the server cannot run.
    pub fn open(&mut self, ctx: &mut Ctx<'_>, done: OnOpened) {
        let factory = self.factory.clone();
        let paths = self.options.data_dirs.clone();
        let logs: Vec<LogOptions> =
            (0..paths.len()).map(|index| self.log_options(ctx, index)).collect();
        ctx.offload(
            &LPC_STUB_OPEN,
            move |job| {
                let each = paths.iter().zip(&logs);
                each.map(|(path, log)| open_dir(job, &*factory, path, log)).collect()
            },
            self.me,
            move |stub, opened, ctx| stub.opened(ctx, opened, done),
        );
    }

    /// How the log of a data directory behaves. Its syncs have a lane of their own.
    fn log_options(&self, ctx: &Ctx<'_>, index: usize) -> LogOptions {
        let stage = ctx.node().find_stage(&lane(PLOG, index));
        LogOptions { stage, ..self.options.log.clone() }
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
        if self.closing {
            return;
        }
        tracing::info!(replicas = self.held.len(), "opened what the disks hold");
        ctx.every(self.me, &LPC_STUB_TICK, self.options.checkpoint_interval, Self::tick);
        ctx.every(self.me, &LPC_STUB_TICK, self.options.log.sync_interval, Self::sync_logs);
        ctx.every(self.me, &LPC_STUB_TICK, repair::PAUSE_FIRST, Self::repair);
        self.watch_space(ctx);
        if let Some(heartbeat) = self.options.heartbeat {
            ctx.every(self.me, &LPC_STUB_TICK, heartbeat, Self::beat);
        }
        done(ctx, Ok(()));
    }

    /// Speaks to the meta servers from now on. The port must be open: that it is closed means that the lease is over
    /// (`docs/failure-detection.md`).
    pub fn join(&mut self, ctx: &mut Ctx<'_>) {
        if self.closing || self.link.is_some() {
            return;
        }
        let server: Arc<dyn ReplicaServer> = self.board.clone();
        let (options, lease) = (self.options.link.clone(), self.lease.clone());
        self.link = Some(MetaLink::start(ctx, options, lease, server));
    }

    /// Gives an opened replica its host and makes it known.
    fn hold(&mut self, ctx: &mut Ctx<'_>, opened: Opened, data_dir: usize) {
        if self.closing {
            let machine = opened.machine;
            let close = move |job: &BlockingCtx<'_>| close(job, &*machine);
            return ctx.offload(&LPC_OPEN_REPLICA, close, self.me, |_, (), _| {});
        }
        let dir = &self.dirs[data_dir];
        let (Some(log), Some(tails)) = (dir.log.clone(), dir.tails.clone()) else {
            return self.opened_too_late(ctx, opened.machine, data_dir);
        };
        let Some(opened) = self.keep_better(ctx, opened, data_dir) else { return };
        let Opened { gpid, info, dir, machine, mut recovered } = opened;
        recovered.uncertain = tails.is_uncertain(gpid);
        let gate = Arc::new(ReadGate::new(gpid, machine.clone(), self.lease.clone()));
        // The meta server must hear of what only the log has, and under which ballot: it may have been acknowledged.
        gate.publish(PartitionStatus::Inactive, recovered.ballot, false);
        gate.note_prepared(recovered.prepared());
        gate.note_uncertain(recovered.uncertain);
        let (table, partition) = (gpid.app_id.to_string(), gpid.partition_index.to_string());
        let labels = [("table_id", table.as_str()), ("partition_id", partition.as_str())];
        let metrics =
            HostMetrics::new(ctx.node().metrics(), &format!("replica@{table}.{partition}"), labels);
        gate.set_metrics(metrics.clone());
        let parts = HostParts {
            gpid,
            dir: dir.clone(),
            machine,
            gate: gate.clone(),
            log,
            tails,
            worker_logs: self.worker_logs.clone(),
            lease: self.lease.clone(),
            recovered,
            core: self.options.core.clone(),
            flush_interval: self.options.checkpoint_max_interval,
            rules: self.rules(&info, data_dir),
            info: info.clone(),
            metrics,
            codes: self.codes.clone(),
            node: self.options.link.me,
            server: self.board.clone(),
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
        self.superseded(gpid);
        self.new_groups.remove(&gpid);
        self.board.placement.insert(gpid, Placed { host, gate });
        self.held.insert(gpid, Held { host, info, dir, data_dir, refused: None });
    }

    fn rules(&self, info: &AppInfo, data_dir: usize) -> WriteRules {
        WriteRules {
            max_bytes: self.options.max_write_bytes,
            min_members: min_members(self.options.min_members, info.max_replica_count),
            disk_is_full: self.options.space.reject_writes && self.dirs[data_dir].is_full(),
        }
    }
}
