//! The group: what its members tell this replica, and what this replica tells them.

use super::{LPC_REPLICA_CERTAIN, LPC_REPLICA_GROUP_CHECK, LPC_REPLICA_READ_LOG, ReplicaHost};
use crate::codes::RPC_LEARN_ADD_LEARNER;
use crate::group_link::{options_for, send_ack, send_prepare, wire};
use crate::ids::{Ballot, Decree};
use crate::learn::stream::{Chunk, read_decided};
use crate::log::LogBatch;
use crate::replica::{
    Ack, Change, Effect, LearnAnswer, LocalError, LogNeed, Node, Position, Prepare, Verdict,
};
use crate::wire::config::{ConfigType, PartitionStatus, ReplicaConfiguration};
use crate::wire::replica::GroupCheckRequest;
use bytes::Bytes;
use dsn_core::exec::Ctx;
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::send_oneway;

/// Most bytes of mutations that are read from the log for a learner at a time.
const READ_BYTES: usize = 1 << 20;

/// What the others say.
impl ReplicaHost {
    /// A primary has sent something. It is taken at the end of the turn, with whatever else came by then.
    pub fn on_prepare(&mut self, ctx: &mut Ctx<'_>, from: Node, prepare: Prepare) {
        self.gathered += prepare.bodies.iter().map(Bytes::len).sum::<usize>();
        self.prepares.push((from, prepare));
        self.mark(ctx);
    }

    pub(super) fn take_prepares(&mut self, ctx: &mut Ctx<'_>, batch: &mut LogBatch) {
        if self.prepares.is_empty() {
            return;
        }
        let status = self.core.role().status();
        let mut prepares = std::mem::take(&mut self.prepares);
        for (from, prepare) in prepares.drain(..) {
            let given_up = self.core.on_prepare(from, &prepare, batch, &mut self.effects);
            self.give_up(ctx, given_up);
        }
        self.prepares = prepares;
        let (now, ballot) = (self.core.role().status(), self.core.ballot());
        if now != status {
            tracing::info!(gpid = %self.gpid(), %ballot, from = %status, to = %now, "role");
        }
        if (now, ballot) != (status, self.gate.ballot()) {
            self.publish();
        }
        self.gate.note_prepared(self.core.prepared());
        self.settle_tail(ctx);
        self.apply_committed(ctx);
    }

    /// A member has everything that its group has: from now on, and after the next start.
    fn settle_tail(&mut self, ctx: &mut Ctx<'_>) {
        if self.core.is_uncertain() || !self.gate.is_uncertain() {
            return;
        }
        self.gate.note_uncertain(false);
        let (tails, gpid) = (self.tails.clone(), self.gpid());
        ctx.offload(
            &LPC_REPLICA_CERTAIN,
            move |_| tails.settle(gpid),
            self.me,
            move |_, outcome, _| match outcome {
                Ok(()) => tracing::info!(%gpid, "nothing is missing at the end of its log any more"),
                Err(error) => {
                    tracing::warn!(%gpid, %error, "its log will count as uncertain after the next start");
                }
            },
        );
    }

    /// A member or learner has answered.
    pub fn on_ack(&mut self, ctx: &mut Ctx<'_>, from: Node, ack: &Ack) {
        self.core.on_ack(from, ack, ctx.now(), &mut self.effects);
        self.speak(ctx);
        self.apply_committed(ctx);
    }
}

/// What the meta server says.
impl ReplicaHost {
    /// The meta server has made this replica primary of a group with these other members.
    ///
    /// # Errors
    /// `ERR_INVALID_VERSION` for a ballot that is not new.
    pub fn lead(
        &mut self,
        ctx: &mut Ctx<'_>,
        ballot: Ballot,
        secondaries: &[Node],
    ) -> Result<(), ErrorCode> {
        let led = self.core.lead(ballot, secondaries, &mut self.marks);
        led.map_err(|_| ErrorCode::InvalidVersion)?;
        self.publish();
        self.settle_tail(ctx);
        self.mark(ctx);
        self.apply_committed(ctx);
        self.look_after(ctx);
        Ok(())
    }

    /// The replica leaves its group, or its server may not serve at present.
    pub fn become_inactive(&mut self, ctx: &mut Ctx<'_>, ballot: Ballot) {
        let given_up = self.core.become_inactive(ballot, &mut self.marks);
        self.keep_log();
        self.publish();
        self.give_up(ctx, given_up);
        self.mark(ctx);
    }

    /// The meta server wants `node` to become a member; `most` members are wanted in all.
    pub fn add_learner(&mut self, ctx: &mut Ctx<'_>, node: Node, most: usize) {
        if !self.core.add_learner(node, most, ctx.now(), &mut self.effects) {
            tracing::info!(gpid = %self.gpid(), %node, "not taken as a learner");
        }
        self.speak(ctx);
    }

    /// The meta server wants a member out, or this primary to step down.
    pub fn wish(&mut self, ctx: &mut Ctx<'_>, kind: ConfigType, node: Option<Node>) {
        self.core.wish(kind, node, ctx.now(), &mut self.effects);
        self.speak(ctx);
    }

    /// A change that this primary asked for is durable: the group is this one now.
    pub fn on_change_made(
        &mut self,
        ctx: &mut Ctx<'_>,
        ballot: Ballot,
        leads: bool,
        secondaries: &[Node],
    ) {
        if ballot <= self.core.ballot() {
            return;
        }
        if !leads {
            return self.become_inactive(ctx, ballot);
        }
        match self.lead(ctx, ballot, secondaries) {
            Ok(()) => {
                tracing::info!(gpid = %self.gpid(), %ballot, members = 1 + secondaries.len(), "primary");
            }
            Err(error) => tracing::warn!(gpid = %self.gpid(), %ballot, %error, "not primary"),
        }
    }

    /// A change that this primary asked for was refused.
    pub fn on_change_refused(&mut self, ctx: &mut Ctx<'_>, change: &Change, error: ErrorCode) {
        if change.ballot != self.core.ballot().next() || !self.core.role().is_primary() {
            return;
        }
        if error != ErrorCode::InvalidState {
            // The change may have been made, and others after it.
            return self.become_inactive(ctx, Ballot::ZERO);
        }
        self.core.on_refused(change, ctx.now(), &mut self.effects);
        self.speak(ctx);
        self.apply_committed(ctx);
    }
}

/// Learning.
impl ReplicaHost {
    /// A learner says what it has.
    pub fn on_learn(
        &mut self,
        ctx: &mut Ctx<'_>,
        node: Node,
        attempt: i64,
        position: Position,
    ) -> LearnAnswer {
        let log_from = self.log.decrees(self.gpid()).map(|(lowest, _)| lowest);
        let answer = self.core.on_learn(node, attempt, position, log_from, ctx.now());
        self.speak(ctx);
        answer
    }

    /// Whether a server is invited to learn as this attempt, and certainly no member of the group: nobody but this
    /// primary can make it one while the lease holds.
    #[must_use]
    pub fn invites(&self, ctx: &Ctx<'_>, node: Node, attempt: i64) -> bool {
        self.core.invites(node, attempt) && self.lease.holds(ctx.clock())
    }

    /// A learner copies.
    pub fn on_learner_progress(&mut self, ctx: &mut Ctx<'_>, node: Node, attempt: i64) {
        self.core.on_learner_progress(node, attempt, ctx.now());
    }

    /// What a learner copies is pinned.
    pub fn on_learner_pinned(&mut self, ctx: &mut Ctx<'_>, node: Node, attempt: i64, from: Decree) {
        self.core.on_learner_pinned(node, attempt, from);
        // The log has kept it since it was pinned, whatever has become of the learner.
        self.kept = LogNeed::Unknown;
        self.speak(ctx);
    }

    /// Tells the log what learners need of it.
    pub(super) fn keep_log(&mut self) {
        let need = self.core.log_need();
        if std::mem::replace(&mut self.kept, need) == need {
            return;
        }
        match need {
            LogNeed::Unknown => {}
            LogNeed::From(from) => self.log.set_reader(self.gpid(), Some(from)),
            LogNeed::Nothing => self.log.set_reader(self.gpid(), None),
        }
    }

    /// This replica is to learn from the primary at `from`.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn begin_learning(
        &mut self,
        ctx: &mut Ctx<'_>,
        from: Node,
        ballot: Ballot,
        attempt: i64,
    ) -> Result<Position, Verdict> {
        let given_up = self.core.begin_learning(from, ballot, attempt, &mut self.marks)?;
        self.give_up(ctx, given_up);
        self.publish();
        self.mark(ctx);
        Ok(self.core.position())
    }

    fn read_log(
        &mut self,
        ctx: &mut Ctx<'_>,
        node: Node,
        attempt: i64,
        after: Decree,
        proof: Option<u64>,
    ) {
        let (log, gpid) = (self.log.clone(), self.gpid());
        let range = (after, self.core.committed());
        // Where the last chunk ended, if this is the next.
        let cursor = self.cursors.remove(&node).filter(|(next, _)| *next == after.next());
        let position = cursor.map_or(0, |(_, position)| position);
        ctx.offload(
            &LPC_REPLICA_READ_LOG,
            move |_| read_decided(&log, gpid, range, proof, position, READ_BYTES),
            self.me,
            move |host, outcome, ctx| {
                let chunk = outcome.unwrap_or_else(|error| {
                    tracing::warn!(gpid = %host.gpid(), %error, "the log cannot be read for a learner");
                    Chunk::default()
                });
                let next = after.next().plus(chunk.bodies.len());
                host.cursors.insert(node, (next, chunk.position));
                let (now, effects) = (ctx.now(), &mut host.effects);
                host.core.on_log_read(node, attempt, after, chunk.bodies, now, effects);
                host.speak(ctx);
            },
        );
    }
}

/// What this replica says.
impl ReplicaHost {
    /// Carries out what the core wants of others, and looks after the group in time.
    pub(super) fn speak(&mut self, ctx: &mut Ctx<'_>) {
        self.core.send_prepares(ctx.now(), &mut self.effects);
        self.core.due_ack(&mut self.effects);
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Prepare(to, prepare) => send_prepare(ctx, self.node, to, prepare),
                Effect::Ack(to, ack) => {
                    let ack = Ack { disk_is_full: self.rules.disk_is_full, ..ack };
                    send_ack(ctx, self.node, to, &ack);
                }
                Effect::Change(change) => {
                    let server = self.server.clone();
                    server.change(ctx, self.gpid(), &self.info, change);
                }
                Effect::Invite(to, attempt) => self.invite(ctx, to, attempt),
                Effect::ReadLog(to, attempt, after, proof) => {
                    self.read_log(ctx, to, attempt, after, proof);
                }
                Effect::Sync => self.server.clone().sync(ctx),
                Effect::Behind(decree) => self.fail(ctx, LocalError::Behind(decree)),
            }
        }
        self.effects = effects;
        self.keep_log();
        self.watch(ctx);
    }

    fn invite(&mut self, ctx: &mut Ctx<'_>, to: Node, attempt: i64) {
        let config = ReplicaConfiguration {
            pid: self.gpid(),
            ballot: self.core.ballot().0,
            primary: wire(self.node),
            status: PartitionStatus::PotentialSecondary,
            learner_signature: attempt,
            ..ReplicaConfiguration::default()
        };
        let request = GroupCheckRequest {
            app: self.info.clone(),
            node: wire(to),
            config,
            last_committed_decree: self.core.committed().0,
            ..GroupCheckRequest::default()
        };
        send_oneway(ctx, to, &RPC_LEARN_ADD_LEARNER, &request, options_for(self.gpid()));
    }

    /// Arms the timer for what is due next, unless it is armed for something sooner.
    fn watch(&mut self, ctx: &mut Ctx<'_>) {
        let Some(due) = self.core.next_tick() else { return };
        if let Some((at, timer)) = self.check {
            if at <= due {
                return;
            }
            ctx.cancel(timer);
        }
        let delay = ctx.now().until(due);
        let timer = ctx.after(self.me, &LPC_REPLICA_GROUP_CHECK, delay, |host, ctx| {
            host.check = None;
            host.look_after(ctx);
        });
        self.check = Some((due, timer));
    }

    fn look_after(&mut self, ctx: &mut Ctx<'_>) {
        self.core.tick(ctx.now(), &mut self.effects);
        self.speak(ctx);
        self.apply_committed(ctx);
    }
}
