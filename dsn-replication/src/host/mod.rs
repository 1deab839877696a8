//! The host of a replica: a resident that brings requests to the core and carries out what the core decides.
//!
//! Reading order: this file (what a host is, a client's write), [`apply`] (committed mutations reach the state
//! machine), [`group`] (what the group says and is told), [`checkpoint`].

mod apply;
mod checkpoint;
mod group;
mod waiting;

use crate::failure_detector::lease::Lease;
use crate::gate::{Deny, ReadGate};
use crate::ids::{Ballot, Decree};
use crate::log::{Appended, LogBatch, SharedLog, Tails};
use crate::mutation::ClientRequest;
use crate::mutation::CodeTable;
use crate::placement::Placement;
use crate::replica::{
    Change, CoreOptions, Effects, GivenUp, LocalError, LogNeed, Node, Prepare, Recovered, Replica,
    Role, WriteRules,
};
use crate::state_machine::{Access, Replies, StateMachine, StorageCode};
use crate::table_rules::TableRules;
use crate::throttle::Verdict;
use crate::wire::config::AppInfo;
use crate::worker_log::{WorkerLogs, mark};
use dsn_core::exec::{Addr, Ctx, Resident, TimerId};
use dsn_core::planted;
use dsn_core::time::Mono;
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::gpid::Gpid;
use dsn_rpc::{Replier, Request, ServiceTable};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use waiting::Waiting;

dsn_core::task_codes! {
    /// Codes of this file.
    pub CODES;
    /// Committed mutations are applied on a blocking thread.
    pub LPC_REPLICA_APPLY: Blocking, High, "THREAD_POOL_LOCAL_APP";
    /// A secondary has gathered committed mutations for long enough.
    pub LPC_REPLICA_GATHER: Compute, High, "THREAD_POOL_REPLICATION";
    /// A checkpoint is made.
    pub LPC_REPLICA_CHECKPOINT: Blocking, Common, "THREAD_POOL_REPLICATION_LONG";
    /// New settings are carried out where that may take a while.
    pub LPC_REPLICA_SETTLE: Blocking, Common, "THREAD_POOL_REPLICATION_LONG";
    /// A throttled write goes on.
    pub LPC_REPLICA_THROTTLED: Compute, Low, "THREAD_POOL_REPLICATION";
    /// Something concerns a replica.
    pub LPC_REPLICA_EVENT: Compute, High, "THREAD_POOL_REPLICATION";
    /// A primary looks after its group.
    pub LPC_REPLICA_GROUP_CHECK: Compute, High, "THREAD_POOL_REPLICATION";
    /// It is put down that nothing is missing at the end of a replica's log.
    pub LPC_REPLICA_CERTAIN: Blocking, Low, "THREAD_POOL_REPLICATION_LONG";
    /// Mutations are read from the log for a learner.
    pub LPC_REPLICA_READ_LOG: Blocking, Common, "THREAD_POOL_REPLICATION_LONG";
}

/// Most writes of a replica that wait because they are throttled; further ones are refused as busy.
pub const THROTTLED_MAX: usize = 10_000;

dsn_core::metrics! {
    /// What replication does with the requests of a replica.
    pub struct HostMetrics on "replica" {
        /// Writes made to wait by throttling.
        throttling_delayed_write_requests: Counter, Requests;
        /// Writes refused by throttling.
        throttling_rejected_write_requests: Counter, Requests;
        /// Reads made to wait by throttling.
        throttling_delayed_read_requests: Counter, Requests;
        /// Reads refused by throttling.
        throttling_rejected_read_requests: Counter, Requests;
        /// Reads for secondaries made to wait by throttling.
        throttling_delayed_backup_requests: Counter, Requests;
        /// Reads for secondaries dropped by throttling.
        throttling_rejected_backup_requests: Counter, Requests;
        /// Writes refused because they are too large.
        write_size_exceed_threshold_requests: Counter, Requests;
    }
}

/// What a host needs of its server.
pub trait HostServer: Send + Sync + 'static {
    /// A replica broke.
    fn failed(&self, ctx: &mut Ctx<'_>, gpid: Gpid, error: &LocalError);
    /// The meta server is to make a change of a group durable; the outcome goes to
    /// [`ReplicaHost::on_change_made`] or [`ReplicaHost::on_change_refused`].
    fn change(&self, ctx: &mut Ctx<'_>, gpid: Gpid, info: &AppInfo, change: Change);
    /// The group may be another than this server thinks.
    fn sync(&self, ctx: &mut Ctx<'_>);
}

/// What a host is made of.
pub struct HostParts {
    /// The partition.
    pub gpid: Gpid,
    /// Its directory.
    pub dir: PathBuf,
    /// Its state.
    pub machine: Arc<dyn StateMachine>,
    /// Its gate, already in the placement table or about to be.
    pub gate: Arc<ReadGate>,
    /// The log of its data directory.
    pub log: Arc<SharedLog>,
    /// Whether the end of a replica may be missing from that log.
    pub tails: Arc<Tails>,
    /// The ends of that log.
    pub worker_logs: Arc<WorkerLogs>,
    /// The server's lease.
    pub lease: Lease,
    /// What the log has beyond the state machine, and the highest ballot the replica ever used.
    pub recovered: Recovered,
    /// Limits of the core.
    pub core: CoreOptions,
    /// After this time at the latest the state machine writes out what it has in memory.
    pub flush_interval: Duration,
    /// Rules of the server.
    pub rules: WriteRules,
    /// The table; its rules are in force from the start.
    pub info: AppInfo,
    /// Its metrics.
    pub metrics: HostMetrics,
    /// The requests that mutations may hold.
    pub codes: Arc<CodeTable>,
    /// Where this server listens.
    pub node: Node,
    /// The server.
    pub server: Arc<dyn HostServer>,
}

/// See the module's header.
pub struct ReplicaHost {
    me: Addr<Self>,
    core: Replica,
    dir: PathBuf,
    /// On record in the directory.
    saved_ballot: Ballot,
    machine: Arc<dyn StateMachine>,
    gate: Arc<ReadGate>,
    log: Arc<SharedLog>,
    tails: Arc<Tails>,
    worker_logs: Arc<WorkerLogs>,
    lease: Lease,
    rules: WriteRules,
    table: TableRules,
    info: AppInfo,
    /// The meta server has told what the table wants; the disk does not keep it.
    informed: bool,
    metrics: HostMetrics,
    throttled: usize,
    waiting: Waiting,
    replies: Replies,
    /// Bytes of mutations taken since something was applied last.
    gathered: usize,
    /// The time after which they are applied runs.
    gathering: bool,
    marked: bool,
    checkpointing: bool,
    /// One with a flush is wanted as soon as that has ended.
    flush_wanted: bool,
    flush_interval: Duration,
    /// When a checkpoint that writes out is due; `None` before the first turn.
    flush_due: Option<Mono>,
    /// The last decree when somebody looked whether anybody writes.
    seen: Decree,
    beating: bool,
    node: Node,
    server: Arc<dyn HostServer>,
    /// Records of role changes, for the log of this turn.
    marks: LogBatch,
    /// Prepares that arrived in this turn.
    prepares: Vec<(Node, Prepare)>,
    effects: Effects,
    /// When the group is looked after next.
    check: Option<(Mono, TimerId)>,
    /// Where in the log each learner's next mutation is.
    cursors: BTreeMap<Node, (Decree, u64)>,
    /// What the log was told to keep for learners.
    kept: LogNeed,
    /// Whether readers know that a new primary has caught up.
    told_ready: bool,
}

impl fmt::Debug for ReplicaHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicaHost").field("core", &self.core).finish_non_exhaustive()
    }
}

impl Resident for ReplicaHost {
    fn on_close(&mut self, ctx: &mut Ctx<'_>) {
        self.core.become_inactive(Ballot::ZERO, &mut self.marks);
        self.keep_log();
        self.publish();
        self.waiting.leave_all_in_doubt(ctx);
    }

    /// What is in memory may be half done; what is on the disk is not. The stub opens it again from there.
    fn on_lost(&mut self, ctx: &mut Ctx<'_>, text: &str) {
        self.gate.shut();
        let gpid = self.gate.gpid();
        self.log.set_reader(gpid, None);
        self.waiting.leave_all_in_doubt(ctx);
        self.server.failed(ctx, gpid, &LocalError::Panic(text.to_owned()));
    }
}

/// How a write is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// Whether it may share a mutation with others.
    pub batchable: bool,
    /// Whether it may be done twice.
    pub idempotent: bool,
}

/// Registers the write requests of `codes`.
pub fn register_writes(
    table: &mut ServiceTable,
    codes: &[StorageCode],
    placement: &Placement<ReplicaHost>,
) {
    for storage in codes {
        let Access::Write { batchable, idempotent } = storage.access else { continue };
        let manner = Manner { batchable, idempotent };
        let placement = placement.clone();
        table.on(storage.code, move |ctx, request, replier| {
            if placement.denies_clients() {
                return replier.forget(ctx);
            }
            let Some(placed) = placement.get(ctx, request.gpid) else {
                return replier.error(ctx, ErrorCode::ObjectNotFound);
            };
            dsn_rpc::hand_to(ctx, placed.host, request, replier, move |host, ctx, req, replier| {
                host.on_client_write(ctx, req, replier, manner);
            });
        });
    }
}

impl ReplicaHost {
    /// A host for an inactive replica whose log has been replayed.
    pub fn new(me: Addr<Self>, parts: HostParts) -> Self {
        let applied = parts.machine.last_applied();
        let core = Replica::new(parts.gpid, applied, parts.recovered, parts.codes, parts.core);
        let table = TableRules::new(&parts.info);
        parts.gate.obey(&table);
        Self {
            me,
            core,
            dir: parts.dir,
            saved_ballot: Ballot::ZERO,
            machine: parts.machine,
            gate: parts.gate,
            log: parts.log,
            tails: parts.tails,
            worker_logs: parts.worker_logs,
            lease: parts.lease,
            rules: parts.rules,
            table,
            info: parts.info,
            informed: false,
            metrics: parts.metrics,
            throttled: 0,
            waiting: Waiting::default(),
            replies: Replies::new(true),
            gathered: 0,
            gathering: false,
            marked: false,
            checkpointing: false,
            flush_wanted: false,
            flush_interval: parts.flush_interval,
            flush_due: None,
            seen: Decree::NONE,
            beating: false,
            node: parts.node,
            server: parts.server,
            marks: LogBatch::new(),
            prepares: Vec::new(),
            effects: Effects::new(),
            check: None,
            cursors: BTreeMap::new(),
            kept: LogNeed::Nothing,
            told_ready: false,
        }
    }

    /// The partition.
    pub fn gpid(&self) -> Gpid {
        self.core.gpid()
    }

    /// The log it writes to.
    pub fn log(&self) -> &Arc<SharedLog> {
        &self.log
    }

    /// The core, for looking at.
    pub fn core(&self) -> &Replica {
        &self.core
    }

    /// The state.
    pub fn machine(&self) -> &Arc<dyn StateMachine> {
        &self.machine
    }

    /// A client wants to write.
    pub fn on_client_write(
        &mut self,
        ctx: &mut Ctx<'_>,
        request: Request,
        replier: Replier,
        manner: Manner,
    ) {
        if let Some(replier) = self.admit(ctx, &request, replier) {
            match self.throttle(ctx, &request) {
                Verdict::Pass => self.enqueue(ctx, &request, replier, manner),
                Verdict::Reject(pause) if pause.is_zero() => replier.error(ctx, ErrorCode::Busy),
                verdict => self.write_later(ctx, request, replier, manner, verdict),
            }
        }
    }

    /// Gives the replier back if the write may run; otherwise answers.
    fn admit(&mut self, ctx: &mut Ctx<'_>, request: &Request, replier: Replier) -> Option<Replier> {
        if self.table.deny_writes == Deny::Timeout {
            replier.forget(ctx);
            return None;
        }
        let has_lease = self.lease.holds(ctx.clock());
        let (bytes, hash) = (request.body.len(), request.partition_hash);
        let admitted = self.core.admit_write(&self.rules, &self.table, bytes, hash, has_lease);
        let Err(error) = admitted else { return Some(replier) };
        if error == ErrorCode::InvalidData {
            self.metrics.write_size_exceed_threshold_requests.increment();
            let gpid = self.gpid();
            tracing::warn!(%gpid, code = request.code.name(), bytes, peer = %request.peer, "too large");
        }
        replier.error(ctx, error);
        None
    }

    fn throttle(&mut self, ctx: &mut Ctx<'_>, request: &Request) -> Verdict {
        let table = &mut self.table;
        if !table.writes.is_on() && !table.write_bytes.is_on() {
            return Verdict::Pass;
        }
        let now = ctx.clock();
        let verdict = match table.writes.admit(1, now) {
            Verdict::Pass => table.write_bytes.admit(request.body.len() as u64, now),
            other => other,
        };
        let full = self.throttled >= THROTTLED_MAX && verdict != Verdict::Pass;
        let verdict = if full { Verdict::Reject(Duration::ZERO) } else { verdict };
        match verdict {
            Verdict::Pass => {}
            Verdict::Delay(_) => self.metrics.throttling_delayed_write_requests.increment(),
            Verdict::Reject(_) => self.metrics.throttling_rejected_write_requests.increment(),
        }
        verdict.within(request.timeout)
    }

    fn write_later(
        &mut self,
        ctx: &mut Ctx<'_>,
        mut request: Request,
        replier: Replier,
        manner: Manner,
        verdict: Verdict,
    ) {
        let (pause, refused) = match verdict {
            Verdict::Pass => (Duration::ZERO, false),
            Verdict::Delay(pause) => (pause, false),
            Verdict::Reject(pause) => (pause, true),
        };
        request.body = request.keep_body();
        self.throttled += 1;
        ctx.after(self.me, &LPC_REPLICA_THROTTLED, pause, move |host, ctx| {
            host.throttled -= 1;
            if refused {
                return replier.error(ctx, ErrorCode::Busy);
            }
            if let Some(replier) = host.admit(ctx, &request, replier) {
                host.enqueue(ctx, &request, replier, manner);
            }
        });
    }

    fn enqueue(&mut self, ctx: &mut Ctx<'_>, request: &Request, replier: Replier, manner: Manner) {
        let ticket = self.waiting.insert(replier, manner.idempotent);
        let client = ClientRequest { code: request.code, body: request.keep_body() };
        if self.core.enqueue(client, manner.batchable, ticket).is_err() {
            return self.waiting.refuse(ctx, ticket, ErrorCode::Busy);
        }
        self.mark(ctx);
    }

    fn mark(&mut self, ctx: &mut Ctx<'_>) {
        if !std::mem::replace(&mut self.marked, true) {
            mark(ctx, &self.worker_logs, self.me, &self.log);
        }
    }

    /// The end of the turn: what the group says is taken, what waits is numbered, and both go to the log. What the
    /// others are to know goes out with the turn.
    pub fn stage(&mut self, ctx: &mut Ctx<'_>, batch: &mut LogBatch) {
        self.marked = false;
        batch.join(&mut self.marks);
        self.take_prepares(ctx, batch);
        let (wall, stamp) = (ctx.wall().unix_micros(), self.machine.stamp());
        if std::mem::take(&mut self.beating) && self.core.is_idle() {
            self.core.number_empty(wall, stamp, batch);
            self.seen = self.core.prepared();
        }
        for ticket in self.core.refuse_queued(self.rules.min_members) {
            self.waiting.refuse(ctx, ticket, ErrorCode::NotEnoughMember);
        }
        self.core.number(wall, stamp, batch);
        self.speak(ctx);
    }

    /// The log holds a run of this replica.
    pub fn on_logged(&mut self, ctx: &mut Ctx<'_>, token: Appended) {
        match self.core.on_logged(token) {
            Ok(()) => {
                self.speak(ctx);
                self.apply_committed(ctx);
            }
            Err(error) => self.fail(ctx, error),
        }
    }

    /// The log takes nothing any more.
    pub fn log_failed(&mut self, ctx: &mut Ctx<'_>, reason: String) {
        self.fail(ctx, LocalError::Log(reason));
    }

    /// The replica is broken; everything else on this server goes on.
    pub fn fail(&mut self, ctx: &mut Ctx<'_>, error: LocalError) {
        if matches!(self.core.role(), Role::Failed(_)) {
            return;
        }
        tracing::error!(gpid = %self.gpid(), %error, "replica failed");
        let given_up = self.core.fail(error.clone());
        self.publish();
        self.give_up(ctx, given_up);
        let server = self.server.clone();
        server.failed(ctx, self.gpid(), &error);
    }

    fn give_up(&mut self, ctx: &mut Ctx<'_>, given_up: GivenUp) {
        for ticket in given_up.refused {
            self.waiting.refuse(ctx, ticket, ErrorCode::InvalidState);
        }
        for ticket in given_up.unknown {
            self.waiting.leave_in_doubt(ctx, ticket);
        }
    }

    /// Tells readers. A new primary must have applied what it found before anybody may look.
    fn publish(&mut self) {
        let role = self.core.role();
        let ready = match role {
            Role::Primary(lead) => {
                self.core.applied() >= lead.takeover() || planted::has("read_before_takeover")
            }
            _ => false,
        };
        self.told_ready = ready;
        self.gate.note_prepared(self.core.prepared());
        self.gate.publish(role.status(), self.core.ballot(), ready);
    }

    /// What the table and the server say now.
    pub fn configure(&mut self, ctx: &mut Ctx<'_>, info: AppInfo, rules: WriteRules) {
        self.rules = rules;
        // Envs come with every config sync; a throttle that began anew each time would leak.
        let (old, new) = (&self.info, &info);
        let same = (&new.envs, new.partition_count) == (&old.envs, old.partition_count);
        if same && std::mem::replace(&mut self.informed, true) {
            return;
        }
        self.informed = true;
        self.table = TableRules::new(&info);
        self.gate.obey(&self.table);
        self.machine.reconfigure(&info);
        self.info = info;
        let machine = self.machine.clone();
        ctx.offload(&LPC_REPLICA_SETTLE, move |job| machine.settle(job), self.me, |_, (), _| {});
    }

    /// Whether clients' writes are refused because the disk is full.
    pub fn set_disk_is_full(&mut self, full: bool) {
        self.rules.disk_is_full = full;
    }

    /// Rules in force.
    pub fn rules(&self) -> &WriteRules {
        &self.rules
    }

    /// Nobody has written since the last time: an empty write tells the replicas what time it is.
    pub fn heartbeat(&mut self, ctx: &mut Ctx<'_>) {
        let idle = self.core.prepared() == self.seen && self.core.is_idle();
        self.seen = self.core.prepared();
        if idle && self.core.role().is_primary() && self.lease.holds(ctx.clock()) {
            self.beating = true;
            self.mark(ctx);
        }
    }
}
