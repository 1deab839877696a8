//! What a primary knows of the other members of its group, and of learners on their way in.
//!
//! A peer is sent what follows its last acknowledged decree, and again when no progress shows. A member that makes none
//! for [`GroupOptions::evict_after`] is to leave the group: everything waits for it. A learner holds nobody up, and is
//! just forgotten.

use super::patience::Patience;
use super::{Change, Node};
use crate::ids::{Ballot, Decree};
use crate::wire::config::ConfigType;
use dsn_core::planted;
use dsn_core::time::{Mono, nanos_of};
use std::collections::BTreeMap;
use std::time::Duration;

/// Times and sizes of a primary's work with its group.
#[derive(Clone, Debug)]
pub struct GroupOptions {
    /// Without progress for this long, what was sent is sent again.
    pub resend_after: Duration,
    /// A member without progress for this long leaves the group ...
    pub evict_after: Duration,
    /// ... or earlier, down to this, when it is known to be quick and others than the primary stay.
    pub evict_after_min: Duration,
    /// A learner without progress for this long is forgotten.
    pub learner_timeout: Duration,
    /// An idle member hears from its primary this often, or up to a tenth earlier ([`GroupOptions::check_due`]).
    pub check_interval: Duration,
    /// A commit point that no mutation carries is told this soon.
    pub commit_notify: Duration,
    /// Most bytes of mutations in one message.
    pub message_bytes: usize,
}

impl Default for GroupOptions {
    fn default() -> Self {
        Self {
            resend_after: Duration::from_millis(500),
            evict_after: Duration::from_secs(3),
            evict_after_min: Duration::from_millis(500),
            learner_timeout: Duration::from_secs(60),
            check_interval: Duration::from_secs(10),
            commit_notify: Duration::from_millis(100),
            message_bytes: 1 << 20,
        }
    }
}

/// Moments within a check interval at which members may be due.
const CHECK_SLOTS: u64 = 10;

impl GroupOptions {
    /// When an idle member that was last sent something at `sent_at` hears from its primary again. The checks of all
    /// groups come at the same few moments, so that one waking up serves many and what goes to one server leaves
    /// together.
    #[must_use]
    pub fn check_due(&self, sent_at: Mono) -> Mono {
        let slot = (nanos_of(self.check_interval) / CHECK_SLOTS).max(1);
        let latest = (sent_at + self.check_interval).nanos();
        Mono::from_nanos(latest - latest % slot)
    }
}

/// How far a learner is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Asked to begin; has not said yet what it has.
    Invited,
    /// Copies a checkpoint, after which it needs what the log has from here on; [`Decree::NONE`] while that is not
    /// known.
    Copying {
        /// The first decree that is not in the checkpoint.
        from: Decree,
    },
    /// Is sent what it lacks. `reading` while its next mutations are being read from the log.
    Streaming {
        /// Mutations are being read from the log.
        reading: bool,
    },
}

/// What a primary's learners need of its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogNeed {
    /// Nothing.
    Nothing,
    /// Everything from here on.
    From(Decree),
    /// It is being found out: what was kept so far is kept.
    Unknown,
}

/// What a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing is committed without it.
    Member,
    /// Not a member yet.
    Learner {
        /// Which attempt.
        attempt: i64,
        /// How far it is.
        progress: Progress,
        /// The log does not have what it lacks.
        log_lacks: bool,
        /// The meta server is being asked to make it a member, and may have done so: nothing is committed without it.
        gating: bool,
    },
}

/// One of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub(super) kind: Kind,
    /// It has everything up to here in its log under this ballot, or decided.
    pub(super) acked: Decree,
    /// The next decree to send.
    pub(super) next: Decree,
    /// Of the last message, and of the newest that was answered.
    pub(super) seq: u64,
    pub(super) seq_acked: u64,
    /// A [`Gap`](super::Verdict::Gap) in the answer to an earlier message is old news.
    pub(super) rewound: u64,
    /// It was asked where to go on, and is sent nothing else before it answers.
    pub(super) probing: bool,
    /// A learner has said what it has, and that counts once it has answered a later message than this: the question
    /// may have been on its way for so long that whoever asked was killed meanwhile, and has begun again with less.
    pub(super) claimed_at: Option<u64>,
    /// The mutation before the next one to send is this one at the learner, by its fingerprint; the log will tell
    /// whether it is here as well.
    pub(super) unproven: Option<u64>,
    /// The commit point it was told last.
    pub(super) told: Decree,
    /// It says that its disk has no room for writes of clients.
    pub(super) disk_is_full: bool,
    pub(super) sent_at: Mono,
    /// Since when it owes an answer; the last progress.
    pub(super) progress_at: Mono,
    /// How long its answers take.
    pub(super) patience: Patience,
    /// It is to leave.
    pub(super) failed: bool,
}

impl Peer {
    fn new(kind: Kind, committed: Decree) -> Self {
        Self {
            kind,
            acked: Decree::NONE,
            next: committed.next(),
            seq: 0,
            seq_acked: 0,
            rewound: 0,
            probing: false,
            claimed_at: None,
            unproven: None,
            told: Decree::NONE,
            disk_is_full: false,
            sent_at: Mono::ZERO,
            progress_at: Mono::ZERO,
            patience: Patience::default(),
            failed: false,
        }
    }

    /// Whether nothing may be committed without it.
    pub(super) fn gates(&self) -> bool {
        let gating = !planted::has("candidate_not_waited_for");
        match self.kind {
            Kind::Member => !(self.failed && planted::has("evicted_before_the_answer")),
            Kind::Learner { gating: asked, .. } => asked && gating,
        }
    }

    pub(super) fn attempt(&self) -> i64 {
        match self.kind {
            Kind::Member => 0,
            Kind::Learner { attempt, .. } => attempt,
        }
    }

    /// Whether it is sent mutations.
    pub(super) fn streams(&self) -> bool {
        matches!(
            self.kind,
            Kind::Member | Kind::Learner { progress: Progress::Streaming { .. }, .. }
        )
    }

    pub(super) fn owes(&self) -> bool {
        self.seq > 0 && (self.seq_acked < self.seq || self.acked.next() < self.next)
    }

    /// How long it may make no progress while it owes an answer; `spare` when others than the primary stay without it.
    pub(super) fn evict_after(&self, options: &GroupOptions, spare: bool) -> Duration {
        match spare {
            true => self.patience.limit(options.evict_after_min, options.evict_after),
            false => options.evict_after,
        }
    }

    /// Whether what was sent should be sent again.
    pub(super) fn rewind(&mut self) {
        self.next = self.acked.max(Decree::ZERO).next().min(self.next);
        self.rewound = self.seq + 1;
    }
}

/// A change that the meta server is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requested {
    pub(super) change: Change,
}

/// The state of a primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lead {
    /// The highest decree that was found when this replica became primary; reads wait until it is applied.
    pub(super) takeover: Decree,
    pub(super) peers: BTreeMap<Node, Peer>,
    /// At most one at a time.
    pub(super) requested: Option<Requested>,
    /// Operators or the balancer want these done.
    pub(super) wanted: Option<(ConfigType, Option<Node>)>,
    pub(super) next_attempt: i64,
}

impl Lead {
    /// A new primary; `former` is what it was under its last ballot, if it was primary then.
    pub(super) fn new(
        ballot: Ballot,
        prepared: Decree,
        committed: Decree,
        secondaries: &[Node],
        former: Option<Box<Self>>,
    ) -> Self {
        let members = secondaries.iter().map(|node| (*node, Peer::new(Kind::Member, committed)));
        let mut peers: BTreeMap<Node, Peer> = members.collect();
        for (node, peer) in former.into_iter().flat_map(|former| former.peers) {
            if let Kind::Learner { attempt, progress, log_lacks, .. } = peer.kind
                && !peer.failed
            {
                let kind = Kind::Learner { attempt, progress, log_lacks, gating: false };
                peers.entry(node).or_insert(Peer { kind, ..peer });
            }
        }
        let next_attempt = (ballot.0 << 32) + 1;
        Self { takeover: prepared, peers, requested: None, wanted: None, next_attempt }
    }

    /// The other members.
    pub fn secondaries(&self) -> impl Iterator<Item = Node> + '_ {
        let members = self.peers.iter().filter(|(_, peer)| peer.kind == Kind::Member);
        members.map(|(node, _)| *node)
    }

    /// Those on their way in.
    pub fn learners(&self) -> impl Iterator<Item = Node> + '_ {
        let learners = self.peers.iter().filter(|(_, peer)| peer.kind != Kind::Member);
        learners.map(|(node, _)| *node)
    }

    /// Members, this one included.
    #[must_use]
    pub fn members(&self) -> usize {
        1 + self.secondaries().count()
    }

    /// Whether another member has no room for writes of clients.
    pub(super) fn member_disk_is_full(&self) -> bool {
        let full = |peer: &Peer| peer.kind == Kind::Member && !peer.failed && peer.disk_is_full;
        self.peers.values().any(full)
    }

    /// Whether a member may leave and others than the primary stay.
    pub(super) fn can_spare_one(&self) -> bool {
        let there = |peer: &&Peer| peer.kind == Kind::Member && !peer.failed;
        self.peers.values().filter(there).count() > 1
    }

    /// The highest decree that was found when this replica became primary.
    #[must_use]
    pub fn takeover(&self) -> Decree {
        self.takeover
    }

    /// Whether a change of the group is being made durable.
    #[must_use]
    pub fn is_changing(&self) -> bool {
        self.requested.is_some()
    }

    /// What the learners need of the log.
    pub(super) fn log_need(&self) -> LogNeed {
        let mut need = LogNeed::Nothing;
        for peer in self.peers.values().filter(|peer| !peer.failed) {
            let Kind::Learner { progress, .. } = peer.kind else { continue };
            let from = match progress {
                Progress::Invited => continue,
                Progress::Copying { from: Decree::NONE } => return LogNeed::Unknown,
                Progress::Copying { from } => from,
                Progress::Streaming { .. } => peer.acked.next().min(peer.next),
            };
            need = match need {
                LogNeed::From(other) => LogNeed::From(other.min(from)),
                _ => LogNeed::From(from),
            };
        }
        need
    }

    /// A learner that was invited so long ago at least, and has not said what it has.
    pub(super) fn silent_learner(&self, now: Mono, least: Duration) -> Option<Node> {
        let is_silent = |peer: &Peer| {
            matches!(peer.kind, Kind::Learner { progress: Progress::Invited, gating: false, .. })
                && now.saturating_since(peer.progress_at) >= least
        };
        self.peers.iter().find(|(_, peer)| is_silent(peer)).map(|(node, _)| *node)
    }

    /// A peer that is not a member.
    pub(super) fn add_learner(&mut self, node: Node, now: Mono) -> i64 {
        let attempt = self.next_attempt;
        self.next_attempt += 1;
        let progress = Progress::Invited;
        let kind = Kind::Learner { attempt, progress, log_lacks: false, gating: false };
        let mut peer = Peer::new(kind, Decree::NONE);
        (peer.sent_at, peer.progress_at) = (now, now);
        self.peers.insert(node, peer);
        attempt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_of_all_groups_come_at_the_same_few_moments() {
        let options = GroupOptions::default();
        let sent: Vec<Mono> = (0..1000).map(|n| Mono::from_nanos(n * 10_000_019)).collect();
        let mut due: Vec<Mono> = sent.iter().map(|sent| options.check_due(*sent)).collect();
        for (sent, due) in sent.iter().zip(&due) {
            let pause = sent.until(*due);
            assert!(pause > Duration::from_secs(9) && pause <= options.check_interval, "{pause:?}");
        }
        due.dedup();
        assert_eq!(due.len(), 10, "10 s of messages: {due:?}");
    }
}
