//! One worker's end of the mutation logs: the records of a turn, of all its partitions, leave with one write per log.
//!
//! A replica that has something to log says so once per turn ([`mark`]). At the end of the turn they number their
//! writes into one batch, the batch is appended in place, and what the log acknowledges is committed and applied
//! before the turn ends. Under group sync the acknowledgement comes with the next sync: one is under way at a time
//! per log, on the log stage, and whatever was appended meanwhile joins the next.

use crate::host::ReplicaHost;
use crate::log::{Appended, LogBatch, Pending, Redeemed, SharedLog, SyncScope};
use dsn_core::exec::{Addr, Ctx, Phase, Resident};
use dsn_core::hash::DetHashMap;
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
    /// A log has been synced further.
    pub LPC_LOG_SYNCED: Compute, High, "THREAD_POOL_REPLICATION";
}

/// Most rounds of numbering and logging in one turn; what still waits goes on in the next.
const ROUNDS_MAX: usize = 4;

/// The worker ends of one server, so that each can tell the others of a sync.
#[derive(Debug, Default)]
pub struct WorkerLogs {
    all: Mutex<Vec<Addr<WorkerLog>>>,
}

/// What this worker keeps.
#[derive(Default)]
struct Local {
    me: Option<Addr<WorkerLog>>,
    dirty: Vec<Addr<ReplicaHost>>,
    deferred: bool,
}

/// See the module's header.
#[derive(Debug)]
pub struct WorkerLog {
    me: Addr<Self>,
    others: Arc<WorkerLogs>,
    hosts: DetHashMap<Gpid, Addr<ReplicaHost>>,
    waiting: Vec<(Arc<SharedLog>, Pending)>,
    batch: LogBatch,
}

impl Resident for WorkerLog {}

/// The worker's own, made on first use.
fn local(ctx: &mut Ctx<'_>, others: &Arc<WorkerLogs>) -> Addr<WorkerLog> {
    if let Some(me) = ctx.local::<Local>().me {
        return me;
    }
    let all = others.clone();
    let me = ctx.spawn_here(move |_, me| WorkerLog {
        me,
        others: all,
        hosts: DetHashMap::default(),
        waiting: Vec::new(),
        batch: LogBatch::new(),
    });
    others.all.lock().push(me);
    ctx.local::<Local>().me = Some(me);
    me
}

/// `host` (of this worker) has something to log. Call once per turn and host.
pub fn mark(ctx: &mut Ctx<'_>, others: &Arc<WorkerLogs>, host: Addr<ReplicaHost>) {
    let me = local(ctx, others);
    let local = ctx.local::<Local>();
    local.dirty.push(host);
    if !std::mem::replace(&mut local.deferred, true) {
        ctx.defer(Phase::Log, me, WorkerLog::flush);
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
    fn round(&mut self, ctx: &mut Ctx<'_>, mut dirty: Vec<Addr<ReplicaHost>>) {
        while let Some(first) = dirty.first().copied() {
            let Ok(log) = ctx.with(first, |host, _| host.log().clone()) else {
                dirty.remove(0);
                continue;
            };
            let mut batch = std::mem::take(&mut self.batch);
            let mut staged = Vec::new();
            dirty.retain(|addr| {
                let outcome = ctx.with(*addr, |host, ctx| {
                    if !Arc::ptr_eq(host.log(), &log) {
                        return None;
                    }
                    host.stage(ctx, &mut batch);
                    Some(host.gpid())
                });
                match outcome {
                    Ok(None) => true,
                    Ok(Some(gpid)) => {
                        staged.push((gpid, *addr));
                        false
                    }
                    Err(_) => false,
                }
            });
            for (gpid, addr) in &staged {
                self.hosts.insert(*gpid, *addr);
            }
            if !batch.is_empty() {
                self.append(ctx, &log, &mut batch, &staged);
            }
            self.batch = batch;
        }
    }

    fn append(
        &mut self,
        ctx: &mut Ctx<'_>,
        log: &Arc<SharedLog>,
        batch: &mut LogBatch,
        staged: &[(Gpid, Addr<ReplicaHost>)],
    ) {
        let redeemed = log.append(batch).and_then(|pending| log.redeem(pending));
        match redeemed {
            Ok(Redeemed::Now(tokens)) => self.deliver(ctx, tokens),
            Ok(Redeemed::Later(pending)) => {
                self.waiting.push((log.clone(), pending));
                self.sync(ctx, log, SyncScope::All);
            }
            Err(error) => {
                for (_, addr) in staged {
                    let text = error.to_string();
                    let _ = ctx.with(*addr, move |host, ctx| host.log_failed(ctx, text));
                }
            }
        }
        if log.claim_spare() {
            let log = log.clone();
            let job = move |job: &dsn_core::exec::BlockingCtx<'_>| {
                if let Err(error) = log.make_spare(job.wall().unix_micros()) {
                    tracing::warn!(%error, "the next log file cannot be made, the current one grows");
                }
            };
            ctx.offload(&LPC_LOG_SPARE, job, self.me, |_, (), _| {});
        }
    }

    fn deliver(&mut self, ctx: &mut Ctx<'_>, tokens: Vec<Appended>) {
        for token in tokens {
            let Some(host) = self.hosts.get(&token.gpid()).copied() else { continue };
            // A host that is gone has answered its clients already.
            let _ = ctx.with(host, move |host, ctx| host.on_logged(ctx, token));
        }
    }

    /// Starts a sync, unless one is under way.
    pub fn sync(&mut self, ctx: &mut Ctx<'_>, log: &Arc<SharedLog>, scope: SyncScope) {
        let Some(job) = log.begin_sync(scope) else { return };
        let log = log.clone();
        ctx.offload(
            &LPC_LOG_SYNC,
            move |_| {
                let outcome = job.run();
                (job, outcome)
            },
            self.me,
            move |this, (job, outcome), ctx| {
                let again = log.end_sync(job, outcome);
                if matches!(again, Ok(true)) && !this.waiting.is_empty() {
                    this.sync(ctx, &log, SyncScope::All);
                }
                let others = this.others.all.lock().clone();
                for other in others {
                    if other != this.me {
                        ctx.post(other, &LPC_LOG_SYNCED, |other, ctx| other.synced(ctx));
                    }
                }
                this.synced(ctx);
            },
        );
    }

    /// A log may be durable further than before, or have failed.
    fn synced(&mut self, ctx: &mut Ctx<'_>) {
        for (log, pending) in std::mem::take(&mut self.waiting) {
            let gpids: Vec<Gpid> = pending.gpids().collect();
            match log.redeem(pending) {
                Ok(Redeemed::Now(tokens)) => self.deliver(ctx, tokens),
                Ok(Redeemed::Later(pending)) => {
                    self.waiting.push((log.clone(), pending));
                    self.sync(ctx, &log, SyncScope::All);
                }
                Err(error) => {
                    for gpid in gpids {
                        let Some(host) = self.hosts.get(&gpid).copied() else { continue };
                        let text = error.to_string();
                        let _ = ctx.with(host, move |host, ctx| host.log_failed(ctx, text));
                    }
                }
            }
        }
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
