//! Closing state machines, some or all of a server.
//!
//! Nothing is asked of a state machine that has been closed. Whoever is going to ask it for something holds on to it:
//! the host on its worker, a read that waits for its turn, a checkpoint that is being made. They are waited for.

use super::open::{close, close_log};
use super::repair::DataDir;
use super::{LPC_OPEN_REPLICA, LPC_STUB_EVENT, ReplicaStub};
use crate::log::Durability;
use crate::state_machine::StateMachine;
use dsn_core::exec::{BlockingCtx, Ctx, WorkerId};
use dsn_core::time::Mono;
use dsn_rpc::gpid::Gpid;
use std::sync::Arc;
use std::time::Duration;

/// How long those who use a replica are waited for before it is closed all the same: a disk may hang.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// The pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(2);

impl ReplicaStub {
    /// Closes state machines that were taken away from their clients and hosts, then does `job` in the same place.
    pub(super) fn close_machines<T: Send + 'static>(
        &mut self,
        ctx: &mut Ctx<'_>,
        machines: Vec<Arc<dyn StateMachine>>,
        job: impl FnOnce(&BlockingCtx<'_>) -> T + Send + 'static,
        then: impl FnOnce(&mut Self, T, &mut Ctx<'_>) + Send + 'static,
    ) {
        let until = ctx.clock() + WAIT_MAX;
        self.close_unused(ctx, machines, until, job, then);
    }

    fn close_unused<T: Send + 'static>(
        &mut self,
        ctx: &mut Ctx<'_>,
        machines: Vec<Arc<dyn StateMachine>>,
        until: Mono,
        job: impl FnOnce(&BlockingCtx<'_>) -> T + Send + 'static,
        then: impl FnOnce(&mut Self, T, &mut Ctx<'_>) + Send + 'static,
    ) {
        let used = machines.iter().filter(|machine| Arc::strong_count(machine) > 1).count();
        if used > 0 && !until.is_past(ctx.clock()) {
            ctx.after(self.me, &LPC_STUB_EVENT, LOOK_PAUSE, move |stub, ctx| {
                stub.close_unused(ctx, machines, until, job, then);
            });
            return;
        }
        if used > 0 {
            tracing::warn!(used, "closes replicas that are still in use");
        }
        ctx.offload(
            &LPC_OPEN_REPLICA,
            move |blocking| {
                machines.into_iter().for_each(|machine| close(blocking, &*machine));
                job(blocking)
            },
            self.me,
            then,
        );
    }

    /// Workers hold on to the table of replicas they saw last, and with it to files that are to be opened again.
    pub(super) fn forget_former_table(&self, ctx: &mut Ctx<'_>, gpid: Gpid) {
        for worker in 0..ctx.node().worker_count() {
            let placement = self.board.placement.clone();
            ctx.run_on(WorkerId(worker as u16), &LPC_STUB_EVENT, move |ctx| {
                drop(placement.get(ctx, gpid));
            });
        }
    }

    /// Closes everything in order: the lease ends, no more reads and writes, state machines write out what they have in
    /// memory, and the logs are synced: after it the machine may be started anew and has lost nothing.
    pub fn close_all(&mut self, ctx: &mut Ctx<'_>, done: Box<dyn FnOnce(&mut Ctx<'_>) + Send>) {
        self.closing = true;
        if let Some(link) = self.link.take() {
            ctx.close(link);
        }
        // Nobody is left who could extend it.
        self.lease.end();
        let (mut machines, mut last) = (Vec::new(), None);
        for (gpid, placed) in self.board.placement.all() {
            self.board.placement.remove(gpid);
            ctx.close(placed.host);
            machines.push(placed.gate.machine().clone());
            last = Some(gpid);
        }
        if let Some(gpid) = last {
            self.forget_former_table(ctx, gpid);
        }
        self.held.clear();
        // By then nobody writes to the logs any more.
        let then = move |stub: &mut Self, (), ctx: &mut Ctx<'_>| stub.close_logs(ctx, done);
        self.close_machines(ctx, machines, |_| {}, then);
    }

    fn close_logs(&mut self, ctx: &mut Ctx<'_>, done: Box<dyn FnOnce(&mut Ctx<'_>) + Send>) {
        let mut logs = Vec::new();
        // With group sync everything that counts is synced, and a sync that runs may be waited for by nobody any more.
        if self.options.log.durability != Durability::GroupSync {
            let opened = |dir: &DataDir| Some((dir.log.clone()?, dir.tails.clone()?));
            logs.extend(self.dirs.iter().filter_map(opened));
        }
        ctx.offload(
            &LPC_OPEN_REPLICA,
            move |_| logs.iter().for_each(|(log, tails)| close_log(log, tails)),
            self.me,
            move |_, (), ctx| done(ctx),
        );
    }
}
