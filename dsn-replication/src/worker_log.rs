//! One worker's end of the mutation logs: the records of a turn, of all its partitions, leave with one write per log.
//!
//! A replica that has something to log says so once per turn ([`mark`]). At the end of the turn they number their
//! writes into one batch, the batch is appended in place, and what the log acknowledges is committed and applied
//! before the turn ends. Under group sync the acknowledgement comes with the next sync: per log one is under way, on
//! the log stage, and one waits behind it, which whatever is appended meanwhile joins.

use crate::host::ReplicaHost;
use crate::log::{Appended, LogBatch, LogError, Pending, Redeemed, SharedLog, SyncScope};
use dsn_core::exec::{Addr, BlockingCtx, Ctx, Phase, Resident};
use dsn_rpc::gpid::Gpid;
use parking_lot::Mutex;
use std::sync::Arc;

dsn_core::task_codes! {
    /// Codes of this file.
    pub CODES;
    /// A sync of a mutation log.
    pub LPC_LOG_SYNC: Blocking, High, "THREAD_POOL_PLOG";
    /// The next file of a mutation log is made.
    pub LPC_LOG_SPARE: Blocking, Common, "THREAD_POOL_REPLICATION_LONG";
    /// A replica's part of the end of a turn.
    pub LPC_REPLICA_TURN: Compute, High, "THREAD_POOL_REPLICATION";
    /// A log has been synced further.
    pub LPC_LOG_SYNCED: Compute, High, "THREAD_POOL_REPLICATION";
    /// The end of a turn: its mutations are numbered and written to the logs.
    pub LPC_WRITE_REPLICATION_LOG_SHARED: Compute, High, "THREAD_POOL_REPLICATION";
}

/// Most rounds of numbering and logging in one turn; what still waits goes on in the next.
const ROUNDS_MAX: usize = 4;

/// The worker ends of one server, so that each can tell the others of a sync.
#[derive(Debug, Default)]
pub struct WorkerLogs {
    all: Mutex<Vec<Addr<WorkerLog>>>,
}

impl WorkerLogs {
    /// A log may be durable further than before, or have failed: all but `but` look.
    pub fn look(&self, ctx: &mut Ctx<'_>, but: Option<Addr<WorkerLog>>) {
        for other in self.all.lock().iter().filter(|other| Some(**other) != but) {
            ctx.post(*other, &LPC_LOG_SYNCED, WorkerLog::synced);
        }
    }
}

/// What this worker keeps.
#[derive(Default)]
struct Local {
    me: Option<Addr<WorkerLog>>,
    dirty: Vec<(Addr<ReplicaHost>, Arc<SharedLog>)>,
    deferred: bool,
}

/// Replicas with records in a batch, in the order of their records.
type Staged = Vec<(Gpid, Addr<ReplicaHost>)>;

/// See the module's header.
#[derive(Debug)]
pub struct WorkerLog {
    me: Addr<Self>,
    others: Arc<WorkerLogs>,
    waiting: Vec<(Arc<SharedLog>, Pending, Staged)>,
    batch: LogBatch,
}

impl Resident for WorkerLog {
    fn on_lost(&mut self, ctx: &mut Ctx<'_>, text: &str) {
        ctx.node().fail(text);
    }
}

/// The worker's own, made on first use.
fn local(ctx: &mut Ctx<'_>, others: &Arc<WorkerLogs>) -> Addr<WorkerLog> {
    if let Some(me) = ctx.local::<Local>().me {
        return me;
    }
    let all = others.clone();
    let me = ctx.spawn_here(move |_, me| WorkerLog {
        me,
        others: all,
        waiting: Vec::new(),
        batch: LogBatch::new(),
    });
    others.all.lock().push(me);
    ctx.local::<Local>().me = Some(me);
    me
}

/// `host` (of this worker) has something for `log`. Call once per turn and host.
pub fn mark(
    ctx: &mut Ctx<'_>,
    others: &Arc<WorkerLogs>,
    host: Addr<ReplicaHost>,
    log: &Arc<SharedLog>,
) {
    let me = local(ctx, others);
    let local = ctx.local::<Local>();
    local.dirty.push((host, log.clone()));
    if !std::mem::replace(&mut local.deferred, true) {
        ctx.defer(Phase::Log, me, &LPC_WRITE_REPLICATION_LOG_SHARED, WorkerLog::flush);
    }
}

impl WorkerLog {
    fn flush(&mut self, ctx: &mut Ctx<'_>) {
        ctx.local::<Local>().deferred = false;
        for _ in 0..ROUNDS_MAX {
            let dirty = std::mem::take(&mut ctx.local::<Local>().dirty);
            if dirty.is_empty() {
                break;
            }
            self.round(ctx, dirty);
        }
        let local = ctx.local::<Local>();
        if !local.dirty.is_empty() && !std::mem::replace(&mut local.deferred, true) {
            ctx.post(self.me, &LPC_LOG_SYNCED, Self::flush);
        }
    }

    /// Numbers, logs and, where that suffices, commits what the dirty replicas have.
    fn round(&mut self, ctx: &mut Ctx<'_>, mut dirty: Vec<(Addr<ReplicaHost>, Arc<SharedLog>)>) {
        while let Some((_, log)) = dirty.first() {
            let log = log.clone();
            let mut batch = std::mem::take(&mut self.batch);
            let mut staged = Staged::new();
            dirty.retain(|(addr, of)| {
                let here = Arc::ptr_eq(of, &log);
                if here && let Some(gpid) = stage(ctx, *addr, &mut batch) {
                    staged.push((gpid, *addr));
                }
                !here
            });
            if !batch.is_empty() {
                self.append(ctx, &log, &mut batch, staged);
            }
            self.batch = batch;
        }
    }

    fn append(
        &mut self,
        ctx: &mut Ctx<'_>,
        log: &Arc<SharedLog>,
        batch: &mut LogBatch,
        staged: Staged,
    ) {
        // Nobody overtakes those who wait for a sync.
        let queued = self.waiting.iter().any(|(of, ..)| Arc::ptr_eq(of, log));
        let redeem =
            |pending| if queued { Ok(Redeemed::Later(pending)) } else { log.redeem(pending) };
        match log.append(batch).and_then(redeem) {
            Ok(Redeemed::Now(tokens)) => deliver(ctx, tokens, &staged),
            Ok(Redeemed::Later(pending)) => {
                self.waiting.push((log.clone(), pending, staged));
                self.sync(ctx, log, SyncScope::All);
            }
            Err(error) => fail(ctx, &staged, &error),
        }
        if log.claim_spare() {
            let log = log.clone();
            let job = move |job: &BlockingCtx<'_>| {
                if let Err(error) = log.make_spare(job.wall().unix_micros()) {
                    tracing::warn!(%error, "the next log file cannot be made, the current one grows");
                }
            };
            ctx.offload(&LPC_LOG_SPARE, job, self.me, |_, (), _| {});
        }
    }

    /// Asks for a sync, unless one waits to run.
    pub fn sync(&mut self, ctx: &mut Ctx<'_>, log: &Arc<SharedLog>, scope: SyncScope) {
        let Some(job) = log.begin_sync(scope, ctx.now()) else { return };
        let (log, on_stage) = (log.clone(), log.clone());
        ctx.offload_on(
            log.options().stage,
            &LPC_LOG_SYNC,
            move |_| on_stage.run_sync(job),
            self.me,
            move |this, outcome, ctx| {
                let again = log.end_sync(outcome);
                if matches!(again, Ok(true)) && !this.waiting.is_empty() {
                    this.sync(ctx, &log, SyncScope::All);
                }
                this.others.clone().look(ctx, Some(this.me));
                this.synced(ctx);
            },
        );
    }

    /// A log may be durable further than before, or have failed.
    fn synced(&mut self, ctx: &mut Ctx<'_>) {
        for (log, pending, staged) in std::mem::take(&mut self.waiting) {
            let queued = self.waiting.iter().any(|(of, ..)| Arc::ptr_eq(of, &log));
            let redeemed = if queued { Ok(Redeemed::Later(pending)) } else { log.redeem(pending) };
            match redeemed {
                Ok(Redeemed::Now(tokens)) => deliver(ctx, tokens, &staged),
                Ok(Redeemed::Later(pending)) => {
                    self.waiting.push((log.clone(), pending, staged));
                    self.sync(ctx, &log, SyncScope::All);
                }
                Err(error) => fail(ctx, &staged, &error),
            }
        }
    }
}

/// Runs `f` on a host as an event of its own: a panic costs that replica, not this worker's log.
fn at_host<R>(
    ctx: &mut Ctx<'_>,
    host: Addr<ReplicaHost>,
    f: impl FnOnce(&mut ReplicaHost, &mut Ctx<'_>) -> R,
) -> Option<R> {
    let now = ctx.now();
    // A host that is gone has answered its clients already.
    ctx.event(&LPC_REPLICA_TURN, now, None, |ctx| ctx.with(host, f).ok()).flatten()
}

/// Lets a replica number what waits. What a panic leaves half done is taken out again.
fn stage(ctx: &mut Ctx<'_>, host: Addr<ReplicaHost>, batch: &mut LogBatch) -> Option<Gpid> {
    let mark = batch.mark();
    let staged = at_host(ctx, host, |host, ctx| {
        host.stage(ctx, batch);
        host.gpid()
    });
    if staged.is_none() {
        batch.roll_back(mark);
    }
    staged
}

/// Brings tokens to whom they are for; both are in the order of the batch.
fn deliver(ctx: &mut Ctx<'_>, tokens: Vec<Appended>, staged: &Staged) {
    let mut rest = staged.iter();
    let mut current = rest.next();
    for token in tokens {
        while current.is_some_and(|(gpid, _)| *gpid != token.gpid()) {
            current = rest.next();
        }
        let Some((_, host)) = current else { return };
        at_host(ctx, *host, |host, ctx| host.on_logged(ctx, token));
    }
}

/// The log has failed: nothing of these replicas will be acknowledged.
fn fail(ctx: &mut Ctx<'_>, staged: &Staged, error: &LogError) {
    for (_, host) in staged {
        at_host(ctx, *host, |host, ctx| host.log_failed(ctx, error.to_string()));
    }
}

/// Periodic sync of a log, from any worker of the server.
pub fn sync_from_here(
    ctx: &mut Ctx<'_>,
    others: &Arc<WorkerLogs>,
    log: &Arc<SharedLog>,
    scope: SyncScope,
) {
    let me = local(ctx, others);
    let log = log.clone();
    let _ = ctx.with(me, |this, ctx| this.sync(ctx, &log, scope));
}
