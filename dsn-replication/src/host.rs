//! The host of a replica: a resident that brings requests to the core and carries out what the core decides.

use crate::failure_detector::lease::Lease;
use crate::gate::Deny;
use crate::gate::ReadGate;
use crate::ids::{Ballot, Decree};
use crate::log::{Appended, LogBatch, SharedLog};
use crate::mutation::{ClientRequest, Ticket};
use crate::placement::Placement;
use crate::replica::state::GivenUp;
use crate::replica::{CoreOptions, LocalError, Recovered, Replica, Role, Run, WriteRules};
use crate::state_machine::{
    Access, AppError, ApplyError, ApplyMode, CheckpointKind, Replies, ReplyView, StateMachine,
    StorageCode,
};
use crate::worker_log::{WorkerLogs, mark};
use dsn_core::exec::{Addr, Ctx, Resident};
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::gpid::Gpid;
use dsn_rpc::{Replier, Request, ServiceTable};
use slab::Slab;
use std::fmt;
use std::sync::Arc;

dsn_core::task_codes! {
    /// Codes of this file.
    pub CODES;
    /// Committed mutations are applied on a blocking thread.
    pub LPC_REPLICA_APPLY: Blocking, High, "THREAD_POOL_LOCAL_APP";
    /// A checkpoint is made.
    pub LPC_REPLICA_CHECKPOINT: Blocking, Common, "THREAD_POOL_REPLICATION_LONG";
    /// Something concerns a replica.
    pub LPC_REPLICA_EVENT: Compute, High, "THREAD_POOL_REPLICATION";
}

/// Called when a replica broke: why.
pub type OnFailed = Arc<dyn Fn(&mut Ctx<'_>, Gpid, &LocalError) + Send + Sync>;

/// What a host is made of.
pub struct HostParts {
    /// The partition.
    pub gpid: Gpid,
    /// Its state.
    pub machine: Arc<dyn StateMachine>,
    /// Its gate, already in the placement table or about to be.
    pub gate: Arc<ReadGate>,
    /// The log of its data directory.
    pub log: Arc<SharedLog>,
    /// The ends of that log.
    pub worker_logs: Arc<WorkerLogs>,
    /// The server's lease.
    pub lease: Lease,
    /// What the log has beyond the state machine, and the highest ballot the replica ever used.
    pub recovered: Recovered,
    /// Limits of the core.
    pub core: CoreOptions,
    /// Rules of admission.
    pub rules: WriteRules,
    /// Whom to tell when it breaks.
    pub on_failed: OnFailed,
}

/// See the module's header.
pub struct ReplicaHost {
    me: Addr<Self>,
    core: Replica,
    machine: Arc<dyn StateMachine>,
    gate: Arc<ReadGate>,
    log: Arc<SharedLog>,
    worker_logs: Arc<WorkerLogs>,
    lease: Lease,
    rules: WriteRules,
    repliers: Slab<Replier>,
    replies: Replies,
    marked: bool,
    checkpointing: bool,
    on_failed: OnFailed,
}

impl fmt::Debug for ReplicaHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicaHost").field("core", &self.core).finish_non_exhaustive()
    }
}

impl Resident for ReplicaHost {
    fn on_close(&mut self, ctx: &mut Ctx<'_>) {
        self.core.become_inactive(Ballot::ZERO);
        self.publish();
        for replier in self.repliers.drain() {
            replier.error(ctx, ErrorCode::NotEnoughMember);
        }
    }
}

/// Registers the write requests of `codes`.
pub fn register_writes(
    table: &mut ServiceTable,
    codes: &[StorageCode],
    placement: &Placement<ReplicaHost>,
) {
    for storage in codes {
        let Access::Write { batchable, .. } = storage.access else { continue };
        let placement = placement.clone();
        table.on(storage.code, move |ctx, request, replier| {
            let Some(placed) = placement.get(ctx, request.gpid) else {
                return replier.error(ctx, ErrorCode::ObjectNotFound);
            };
            dsn_rpc::hand_to(ctx, placed.host, request, replier, move |host, ctx, req, replier| {
                host.on_client_write(ctx, req, replier, batchable);
            });
        });
    }
}

impl ReplicaHost {
    /// A host for an inactive replica whose log has been replayed.
    pub fn new(me: Addr<Self>, parts: HostParts) -> Self {
        let applied = parts.machine.last_applied();
        let core = Replica::new(parts.gpid, applied, parts.recovered, parts.core);
        Self {
            me,
            core,
            machine: parts.machine,
            gate: parts.gate,
            log: parts.log,
            worker_logs: parts.worker_logs,
            lease: parts.lease,
            rules: parts.rules,
            repliers: Slab::new(),
            replies: Replies::new(true),
            marked: false,
            checkpointing: false,
            on_failed: parts.on_failed,
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
        batchable: bool,
    ) {
        if self.rules.deny == Deny::Timeout {
            return replier.forget(ctx);
        }
        let has_lease = self.lease.holds(ctx.clock());
        let bytes = request.body.len();
        if let Err(error) =
            self.core.admit_write(&self.rules, bytes, request.partition_hash, has_lease)
        {
            return replier.error(ctx, error);
        }
        let ticket = Ticket(self.repliers.insert(replier) as u32);
        let client = ClientRequest { code: request.code, body: request.keep_body() };
        if self.core.enqueue(client, batchable, ticket).is_err() {
            return self.answer(ctx, ticket, ErrorCode::CapacityExceeded);
        }
        self.mark(ctx);
    }

    fn mark(&mut self, ctx: &mut Ctx<'_>) {
        if !std::mem::replace(&mut self.marked, true) {
            mark(ctx, &self.worker_logs, self.me, &self.log);
        }
    }

    fn answer(&mut self, ctx: &mut Ctx<'_>, ticket: Ticket, error: ErrorCode) {
        if let Some(replier) = self.repliers.try_remove(ticket.0 as usize) {
            replier.error(ctx, error);
        }
    }

    /// The end of the turn: numbers what waits.
    pub fn stage(&mut self, ctx: &mut Ctx<'_>, batch: &mut LogBatch) {
        self.marked = false;
        self.core.number(ctx.wall().unix_micros(), batch);
    }

    /// The log holds a run of this replica.
    pub fn on_logged(&mut self, ctx: &mut Ctx<'_>, token: Appended) {
        match self.core.on_logged(token) {
            Ok(()) => self.apply_committed(ctx),
            Err(error) => self.fail(ctx, error),
        }
    }

    /// The log takes nothing any more.
    pub fn log_failed(&mut self, ctx: &mut Ctx<'_>, reason: String) {
        self.fail(ctx, LocalError::Log(reason));
    }

    fn apply_committed(&mut self, ctx: &mut Ctx<'_>) {
        while let Some(run) = self.core.next_run() {
            self.replies.clear(true);
            match self.machine.apply(&run.mutations, ApplyMode::Worker, &mut self.replies) {
                Ok(()) => {
                    let replies = std::mem::take(&mut self.replies);
                    self.applied(ctx, &run, &replies);
                    self.replies = replies;
                }
                Err(ApplyError::WouldBlock) => return self.apply_elsewhere(ctx, run),
                Err(ApplyError::Failed(error)) => {
                    return self.apply_failed(ctx, run, &error);
                }
            }
        }
        if self.core.wants_turn() {
            self.mark(ctx);
        }
    }

    /// The same run again, where waiting is allowed. Later commits wait for it.
    fn apply_elsewhere(&mut self, ctx: &mut Ctx<'_>, run: Run) {
        let machine = self.machine.clone();
        ctx.offload(
            &LPC_REPLICA_APPLY,
            move |_| {
                let mut replies = Replies::new(true);
                let outcome = machine.apply(&run.mutations, ApplyMode::Blocking, &mut replies);
                (run, replies, outcome)
            },
            self.me,
            |host, (run, replies, outcome), ctx| match outcome {
                Ok(()) => {
                    host.applied(ctx, &run, &replies);
                    host.apply_committed(ctx);
                }
                Err(ApplyError::Failed(error)) => host.apply_failed(ctx, run, &error),
                Err(ApplyError::WouldBlock) => {
                    let error = AppError::Failed("a blocking apply would block".to_owned());
                    host.apply_failed(ctx, run, &error);
                }
            },
        );
    }

    fn applied(&mut self, ctx: &mut Ctx<'_>, run: &Run, replies: &Replies) {
        if let Err(error) = self.core.on_applied(run.last()) {
            return self.fail(ctx, error);
        }
        // Only who still leads may acknowledge.
        let leads = *self.core.role() == Role::Primary && self.lease.holds(ctx.clock());
        for (index, ticket) in run.tickets.iter().enumerate() {
            let Some(ticket) = ticket else { continue };
            let Some(replier) = self.repliers.try_remove(ticket.0 as usize) else { continue };
            if !leads {
                replier.error(ctx, ErrorCode::NotEnoughMember);
                continue;
            }
            match replies.get(index) {
                Some(ReplyView::Value(value)) => replier.reply_encoded(ctx, value),
                Some(ReplyView::Error(error)) => replier.error(ctx, error),
                Some(ReplyView::Silence) => replier.forget(ctx),
                None => replier.error(ctx, ErrorCode::InvalidState),
            }
        }
    }

    fn apply_failed(&mut self, ctx: &mut Ctx<'_>, run: Run, error: &AppError) {
        for ticket in run.tickets.into_iter().flatten() {
            self.answer(ctx, ticket, ErrorCode::NotEnoughMember);
        }
        self.fail(ctx, LocalError::from(error));
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
        let on_failed = self.on_failed.clone();
        on_failed(ctx, self.gpid(), &error);
    }

    fn give_up(&mut self, ctx: &mut Ctx<'_>, given_up: GivenUp) {
        for ticket in given_up.refused {
            self.answer(ctx, ticket, ErrorCode::InvalidState);
        }
        for ticket in given_up.unknown {
            self.answer(ctx, ticket, ErrorCode::NotEnoughMember);
        }
    }

    /// The meta server has made it primary, and the ballot is on disk: a ballot that could be forgotten must not be
    /// used.
    ///
    /// # Errors
    /// `ERR_INVALID_VERSION` for an old ballot.
    pub fn become_primary(&mut self, ctx: &mut Ctx<'_>, ballot: Ballot) -> Result<(), ErrorCode> {
        self.core.become_primary(ballot).map_err(|_| ErrorCode::InvalidVersion)?;
        self.publish();
        self.apply_committed(ctx);
        Ok(())
    }

    /// The replica leaves its group.
    pub fn become_inactive(&mut self, ctx: &mut Ctx<'_>, ballot: Ballot) {
        let given_up = self.core.become_inactive(ballot);
        self.publish();
        self.give_up(ctx, given_up);
    }

    /// Tells readers.
    fn publish(&self) {
        let ready = self.core.applied() == self.core.committed() || self.core.is_idle();
        let primary = *self.core.role() == Role::Primary;
        // A group of one commits in the event that makes it primary: what it found is applied before any reader
        // can see later writes.
        self.gate.publish(self.core.role().status(), self.core.ballot(), ready || primary);
    }

    /// New rules of admission (table settings, disk state).
    pub fn set_rules(&mut self, rules: WriteRules) {
        self.rules = rules;
    }

    /// Rules in force.
    pub fn rules(&self) -> &WriteRules {
        &self.rules
    }

    /// Makes a checkpoint, unless one is being made; the log learns what it need not keep.
    pub fn checkpoint(&mut self, ctx: &mut Ctx<'_>, kind: CheckpointKind) {
        if std::mem::replace(&mut self.checkpointing, true) {
            return;
        }
        let machine = self.machine.clone();
        ctx.offload(
            &LPC_REPLICA_CHECKPOINT,
            move |job| machine.checkpoint(job, kind),
            self.me,
            |host, outcome, ctx| host.checkpointed(ctx, outcome),
        );
    }

    fn checkpointed(&mut self, ctx: &mut Ctx<'_>, outcome: Result<Decree, AppError>) {
        self.checkpointing = false;
        match outcome {
            Ok(durable) => self.log.set_durable(self.gpid(), durable),
            Err(AppError::WrongTiming | AppError::TryAgain) => {}
            Err(error @ (AppError::Corrupt(_) | AppError::Disk(_))) => {
                self.fail(ctx, LocalError::from(&error));
            }
            Err(error) => tracing::warn!(gpid = %self.gpid(), %error, "checkpoint failed"),
        }
    }
}
