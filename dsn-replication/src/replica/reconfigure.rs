//! Changes of the group: who asks for them, one at a time, and what follows from the meta server's answer.
//!
//! A primary goes on committing under its ballot while it waits. That is safe: a member that is to leave is waited for
//! until the meta server has let it go, and one that is to come in is waited for from the moment of asking, so whoever
//! may be in the group by then has everything.

use super::group::{Kind, LogNeed, Progress, Requested};
use super::message::{Effect, Effects};
use super::state::Role;
use super::{Node, Replica};
use crate::ids::{Ballot, Decree};
use crate::mutation::fingerprint;
use crate::wire::config::ConfigType;
use dsn_core::planted;
use dsn_core::time::Mono;

/// A change of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What is done ...
    pub kind: ConfigType,
    /// ... to whom. `None`: to the primary itself.
    pub node: Option<Node>,
    /// The ballot that the group has afterwards.
    pub ballot: Ballot,
    /// The other members afterwards; with [`ConfigType::DowngradeToSecondary`] the primary joins them.
    pub secondaries: Vec<Node>,
    /// The commit point of the moment.
    pub committed: Decree,
}

/// What a learner is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LearnAnswer {
    /// What it lacks is on its way.
    Stream,
    /// It must begin with a checkpoint; with a new one if the log does not go on after the last.
    Checkpoint {
        /// Whether the log was found to lack what follows the checkpoint that the learner had.
        fresh: bool,
    },
    /// It is not a learner of this primary, or of another attempt.
    Unknown,
}

/// What a learner has: everything up to a decree. Two replicas that have the same mutation there have the same history:
/// whoever proposed it had what came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Everything up to here.
    pub decree: Decree,
    /// Which mutation stands there ([`fingerprint`](crate::mutation::fingerprint)), where that is known.
    pub fingerprint: Option<u64>,
}

impl Replica {
    /// What this replica has for certain.
    #[must_use]
    pub fn position(&self) -> Position {
        let decree = self.committed;
        Position { decree, fingerprint: self.fingerprint_of(decree) }
    }

    /// Which mutation stands at a decree that is, or was until lately, in the window.
    fn fingerprint_of(&self, decree: Decree) -> Option<u64> {
        match self.place(decree) {
            Some(index) => self.window.get(index).map(|entry| fingerprint(&entry.mutation)),
            None => self.newest_decided.filter(|(of, _)| *of == decree).map(|(_, which)| which),
        }
    }

    /// The meta server wants another member. Returns whether it is on its way in. Where there are as many as are
    /// wanted, a learner that does not answer gives way: the meta server has most likely given it up. One that may be a
    /// member by now does not.
    pub fn add_learner(&mut self, node: Node, most: usize, now: Mono, out: &mut Effects) -> bool {
        let Role::Primary(lead) = &mut self.role else { return false };
        if let Some(peer) = lead.peers.get(&node) {
            return peer.kind != Kind::Member;
        }
        if lead.peers.len() + 1 >= most {
            let silent = lead.silent_learner(now, self.options.group.resend_after);
            let Some(silent) = silent.filter(|_| lead.peers.len() < most) else { return false };
            tracing::info!(gpid = %self.gpid, learner = %silent, "a learner that does not answer gives way to another");
            lead.peers.remove(&silent);
        }
        let attempt = lead.add_learner(node, now);
        out.push(Effect::Invite(node, attempt));
        true
    }

    /// Whether `node` is on its way in as this attempt, and the meta server has not been asked to make it a member.
    #[must_use]
    pub fn invites(&self, node: Node, attempt: i64) -> bool {
        let Role::Primary(lead) = &self.role else { return false };
        lead.peers.get(&node).is_some_and(|peer| match peer.kind {
            Kind::Learner { attempt: current, gating, .. } => current == attempt && !gating,
            Kind::Member => false,
        })
    }

    /// The meta server wants somebody out, or this primary to step down (`node` is `None`).
    pub fn wish(&mut self, kind: ConfigType, node: Option<Node>, now: Mono, out: &mut Effects) {
        let Role::Primary(lead) = &mut self.role else { return };
        match node {
            Some(node) => match lead.peers.get_mut(&node) {
                Some(peer) if peer.kind == Kind::Member => lead.wanted = Some((kind, Some(node))),
                Some(peer) if !peer.gates() => drop(lead.peers.remove(&node)),
                _ => {}
            },
            None => lead.wanted = Some((kind, None)),
        }
        self.next_change(now, out);
    }

    /// A learner says what it has, decided. `log_from` is the lowest decree that this replica's log can still tell.
    ///
    /// After all members were gone, the one that was chosen may have lost what another one still has: that one has
    /// another history, and must begin with a checkpoint.
    pub fn on_learn(
        &mut self,
        node: Node,
        attempt: i64,
        position: Position,
        log_from: Option<Decree>,
        now: Mono,
    ) -> LearnAnswer {
        let (prepared, committed) = (self.prepared, self.committed);
        let mine = self.fingerprint_of(position.decree);
        let Position { decree: position, fingerprint: theirs } = position;
        let differs = theirs.zip(mine).is_some_and(|(theirs, mine)| theirs != mine);
        let first = self.applying.unwrap_or(self.applied).next();
        let Role::Primary(lead) = &mut self.role else { return LearnAnswer::Unknown };
        let Some(peer) = lead.peers.get_mut(&node) else { return LearnAnswer::Unknown };
        let Kind::Learner { attempt: current, progress, log_lacks, .. } = &mut peer.kind else {
            return LearnAnswer::Unknown;
        };
        if *current != attempt {
            return LearnAnswer::Unknown;
        }
        peer.progress_at = now;
        let next = position.next();
        let told = next >= first || !*log_lacks && log_from.is_some_and(|lowest| lowest <= next);
        // Whoever has more than this primary has another history.
        if position > prepared || differs || !told {
            if position > prepared || differs {
                let gpid = self.gpid;
                tracing::warn!(%gpid, learner = %node, %position, %prepared, "a learner has another history");
            }
            *progress = Progress::Copying { from: Decree::NONE };
            // What follows the checkpoint is in the log.
            return LearnAnswer::Checkpoint { fresh: std::mem::take(log_lacks) };
        }
        if !matches!(progress, Progress::Streaming { .. }) {
            *progress = Progress::Streaming { reading: false };
            *log_lacks = false;
            peer.acked = position;
            peer.next = next;
            peer.claimed_at = Some(peer.seq);
            peer.told = Decree::NONE;
            let log_has_it = log_from.is_some_and(|lowest| lowest <= position);
            peer.unproven = theirs.filter(|_| mine.is_none() && log_has_it);
            tracing::info!(gpid = %self.gpid, learner = %node, from = %next, %committed, "a learner is fed");
        }
        LearnAnswer::Stream
    }

    /// What a learner copies is pinned; it needs what the log has from `from` on.
    pub fn on_learner_pinned(&mut self, node: Node, attempt: i64, from: Decree) {
        let Role::Primary(lead) = &mut self.role else { return };
        let peer = lead.peers.get_mut(&node).filter(|peer| peer.attempt() == attempt);
        if let Some(Kind::Learner { progress, .. }) = peer.map(|peer| &mut peer.kind)
            && matches!(progress, Progress::Copying { .. })
        {
            *progress = Progress::Copying { from };
        }
    }

    /// What those who learn from this replica need of its log.
    #[must_use]
    pub fn log_need(&self) -> LogNeed {
        match &self.role {
            Role::Primary(lead) => lead.log_need(),
            _ => LogNeed::Nothing,
        }
    }

    /// A learner that copies a checkpoint gets on.
    pub fn on_learner_progress(&mut self, node: Node, attempt: i64, now: Mono) {
        let Role::Primary(lead) = &mut self.role else { return };
        if let Some(peer) = lead.peers.get_mut(&node).filter(|peer| peer.attempt() == attempt) {
            peer.progress_at = now;
        }
    }

    /// Asks for the change that is due, if none is under way: first those who hold everybody up leave, then what was
    /// wished, then learners that have caught up come in.
    pub(super) fn next_change(&mut self, now: Mono, out: &mut Effects) {
        let (ballot, committed, prepared) = (self.ballot.next(), self.committed, self.prepared);
        let Role::Primary(lead) = &mut self.role else { return };
        lead.peers.retain(|_, peer| !peer.failed || peer.gates());
        if lead.requested.is_some() {
            return;
        }
        let failed = lead.peers.iter().find(|(_, peer)| peer.failed && peer.kind == Kind::Member);
        let mut due = failed.map(|(node, _)| (ConfigType::DowngradeToInactive, Some(*node)));
        if due.is_none() {
            due = lead.wanted.take().filter(|(_, node)| {
                node.is_none_or(|node| {
                    lead.peers.get(&node).is_some_and(|peer| peer.kind == Kind::Member)
                })
            });
        }
        if due.is_none() {
            // What was found at the takeover may have been decided under an earlier ballot.
            let decided = committed.max(lead.takeover);
            let caught_up = lead.peers.iter_mut().find_map(|(node, peer)| {
                let Kind::Learner { progress: Progress::Streaming { .. }, gating, .. } =
                    &mut peer.kind
                else {
                    return None;
                };
                let caught_up =
                    peer.acked >= decided && peer.next > prepared && peer.claimed_at.is_none();
                let ready = (caught_up || planted::has("learner_promoted_early")) && !peer.failed;
                (ready && !*gating).then(|| {
                    *gating = true;
                    peer.progress_at = now;
                    *node
                })
            });
            due = caught_up.map(|node| (ConfigType::UpgradeToSecondary, Some(node)));
        }
        let Some((kind, node)) = due else { return };
        let mut secondaries: Vec<Node> = lead.secondaries().collect();
        match (kind, node) {
            (ConfigType::UpgradeToSecondary, Some(node)) => secondaries.push(node),
            (_, Some(node)) => secondaries.retain(|member| *member != node),
            (_, None) => {}
        }
        let change = Change { kind, node, ballot, secondaries, committed };
        lead.requested = Some(Requested { change: change.clone() });
        out.push(Effect::Change(change));
    }

    /// A change was refused, and certainly not made: the group is what it was. A primary that cannot be sure of that
    /// must not go on under its ballot ([`Replica::become_inactive`]): the group may have a member by now that nobody
    /// here waits for.
    pub fn on_refused(&mut self, change: &Change, now: Mono, out: &mut Effects) {
        let Role::Primary(lead) = &mut self.role else { return };
        if lead.requested.as_ref().is_none_or(|requested| requested.change != *change) {
            return;
        }
        lead.requested = None;
        if change.kind == ConfigType::UpgradeToSecondary
            && let Some(node) = change.node
        {
            // Refused for good: it is not in the group.
            lead.peers.remove(&node);
        }
        self.decide_leading();
        self.next_change(now, out);
    }
}
