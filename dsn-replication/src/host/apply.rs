//! Committed mutations reach the state machine, and their clients an answer.

use super::{LPC_REPLICA_APPLY, LPC_REPLICA_GATHER, ReplicaHost};
use crate::replica::{LocalError, Role, Run};
use crate::state_machine::{AppError, ApplyError, ApplyMode, Replies, ReplyView};
use dsn_core::exec::Ctx;
use dsn_rpc::error_code::ErrorCode;
use std::time::Duration;

/// A secondary applies what is committed when there is so much of it: mutations ...
const GATHER_MUTATIONS: usize = 512;
/// ... bytes of them ...
const GATHER_BYTES: usize = 1 << 20;
/// ... or after this time. A new primary has no more than that to catch up with.
const GATHER_TIME: Duration = Duration::from_millis(100);

impl ReplicaHost {
    pub(super) fn apply_committed(&mut self, ctx: &mut Ctx<'_>) {
        if !self.gathers(ctx) {
            self.apply_now(ctx);
        }
    }

    /// Whether what is committed may wait for more. Nobody reads from a secondary, and a long run costs an engine
    /// much less than many short ones.
    fn gathers(&mut self, ctx: &mut Ctx<'_>) -> bool {
        let waiting = self.core.committed().since(self.core.applied());
        let few = waiting < GATHER_MUTATIONS && self.gathered < GATHER_BYTES;
        if waiting == 0 || !few || !matches!(self.core.role(), Role::Secondary(_)) {
            return false;
        }
        if !std::mem::replace(&mut self.gathering, true) {
            ctx.after(self.me, &LPC_REPLICA_GATHER, GATHER_TIME, |host, ctx| {
                host.gathering = false;
                host.apply_now(ctx);
            });
        }
        true
    }

    fn apply_now(&mut self, ctx: &mut Ctx<'_>) {
        self.gathered = 0;
        while let Some(run) = self.core.next_run() {
            // Nobody waits for what another replica leads.
            self.replies.clear(self.core.role().is_primary());
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
        if !self.told_ready {
            self.publish();
        }
        // Only who still leads may acknowledge; and only what as many members have as a write needs, for the others may
        // have left while it was under way. Such a write is done, and its client does not learn it.
        let members = match self.core.role() {
            Role::Primary(lead) if self.lease.holds(ctx.clock()) => lead.members(),
            _ => 0,
        };
        let acknowledges = members > 0 && members >= self.rules.min_members as usize;
        for (index, ticket) in run.tickets.iter().enumerate() {
            let Some(ticket) = *ticket else { continue };
            if !acknowledges {
                self.waiting.leave_in_doubt(ctx, ticket);
                continue;
            }
            let Some(replier) = self.waiting.take(ticket) else { continue };
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
            self.waiting.leave_in_doubt(ctx, ticket);
        }
        self.fail(ctx, LocalError::from(error));
    }
}
