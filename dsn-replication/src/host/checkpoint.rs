//! Checkpoints of a replica, after which the log need not keep what they cover.

use super::{LPC_REPLICA_CHECKPOINT, ReplicaHost};
use crate::ids::Decree;
use crate::replica::LocalError;
use crate::state_machine::{AppError, CheckpointKind};
use crate::stub::layout::raise_ballot;
use dsn_core::exec::Ctx;
use std::time::Duration;

impl ReplicaHost {
    /// Makes a checkpoint of what has reached the state machine's files, and of everything when it has been long.
    pub fn checkpoint_in_turn(&mut self, ctx: &mut Ctx<'_>) {
        let now = ctx.clock();
        let half = self.flush_interval / 2;
        let due = match self.flush_due {
            Some(due) => due,
            None => *self.flush_due.insert(now + half + ctx.rng().duration(Duration::ZERO, half)),
        };
        let late = due.is_past(now);
        self.checkpoint(ctx, if late { CheckpointKind::Flush } else { CheckpointKind::NoFlush });
    }

    /// Makes a checkpoint; the log learns what it need not keep. While one is being made, only a wish for a flush is
    /// remembered: it comes next, however quickly others without one follow each other.
    pub fn checkpoint(&mut self, ctx: &mut Ctx<'_>, kind: CheckpointKind) {
        if std::mem::replace(&mut self.checkpointing, true) {
            self.flush_wanted |= kind == CheckpointKind::Flush;
            return;
        }
        let machine = self.machine.clone();
        let (dir, ballot) = (self.dir.clone(), self.core.ballot());
        let unsaved = ballot > self.saved_ballot;
        ctx.offload(
            &LPC_REPLICA_CHECKPOINT,
            move |job| {
                if unsaved {
                    // Of what the checkpoint lets go, the ballot must not be lost.
                    let saved = raise_ballot(&**job.disk(), &dir, ballot);
                    saved.map_err(|error| AppError::Disk(format!("its ballot: {error}")))?;
                }
                Ok((ballot, machine.checkpoint(job, kind)))
            },
            self.me,
            |host, outcome: Result<_, AppError>, ctx| {
                let outcome = outcome.and_then(|(ballot, outcome)| {
                    host.saved_ballot = ballot;
                    host.log.set_ballot(host.gpid(), ballot);
                    outcome
                });
                host.checkpointed(ctx, outcome);
            },
        );
    }

    fn checkpointed(&mut self, ctx: &mut Ctx<'_>, outcome: Result<Decree, AppError>) {
        self.checkpointing = false;
        match outcome {
            Ok(durable) => {
                self.log.set_durable(self.gpid(), durable);
                if self.flush_due.is_some_and(|due| due.is_past(ctx.clock())) {
                    self.flush_due = None;
                }
            }
            Err(AppError::WrongTiming | AppError::TryAgain) => {}
            Err(error @ (AppError::Corrupt(_) | AppError::Disk(_))) => {
                return self.fail(ctx, LocalError::from(&error));
            }
            Err(error) => tracing::warn!(gpid = %self.gpid(), %error, "checkpoint failed"),
        }
        if std::mem::take(&mut self.flush_wanted) {
            self.checkpoint(ctx, CheckpointKind::Flush);
        }
    }
}
