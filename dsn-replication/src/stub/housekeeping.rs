//! What a stub does now and then: checkpoints, giving log files back, syncs; and getting rid of replicas.

use super::repair::{DataDir, put_unwanted_aside};
use super::{LPC_STUB_EVENT, ReplicaStub};
use crate::host::{LPC_REPLICA_CHECKPOINT, LPC_REPLICA_EVENT, ReplicaHost};
use crate::ids::Ballot;
use crate::log::{Durability, SyncScope};
use crate::state_machine::CheckpointKind;
use crate::worker_log::sync_from_here;
use dsn_core::exec::Ctx;
use dsn_rpc::gpid::Gpid;

impl ReplicaStub {
    /// The table was dropped: the replica serves nobody any more. It stays until the meta server says that the table
    /// can no longer be recalled.
    pub(super) fn retire(&mut self, ctx: &mut Ctx<'_>, gpid: Gpid, ballot: Ballot) {
        let Some(held) = self.held(gpid) else { return };
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
    pub(super) fn drop_replica(&mut self, ctx: &mut Ctx<'_>, gpid: Gpid) {
        let Some((held, machine)) = self.let_go(ctx, gpid) else { return };
        tracing::info!(%gpid, "replica no longer wanted");
        let log = self.dirs[held.data_dir].log.clone();
        self.opening.insert(gpid, held.data_dir);
        self.close_machines(
            ctx,
            vec![machine],
            move |job| put_unwanted_aside(job, gpid, log.as_deref(), &held.dir),
            move |stub, _, _| {
                stub.opening.remove(&gpid);
            },
        );
    }

    pub(super) fn sync_now(&mut self, ctx: &mut Ctx<'_>) {
        if let Some(link) = self.link {
            ctx.post(link, &LPC_STUB_EVENT, |link, ctx| link.sync_now(ctx));
        }
    }

    /// Checkpoints, then the logs give back what no replica needs.
    pub(super) fn tick(&mut self, ctx: &mut Ctx<'_>) {
        self.source.expire(ctx.now());
        self.sweep(ctx);
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

    pub(super) fn beat(&mut self, ctx: &mut Ctx<'_>) {
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

    pub(super) fn sync_logs(&mut self, ctx: &mut Ctx<'_>) {
        let scope = match self.options.log.durability {
            Durability::IntervalSync => SyncScope::All,
            Durability::Os | Durability::GroupSync => SyncScope::Sealed,
        };
        for log in self.dirs.iter().filter_map(DataDir::usable) {
            sync_from_here(ctx, &self.worker_logs, log, scope);
        }
    }
}
