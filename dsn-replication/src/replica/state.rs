//! Roles and their changes: the only place that sets a role or a ballot.
//!
//! ```text
//!             lead                     lead (higher ballot)
//! Inactive ---------------> Primary <-------------------+
//!    ^  ^                      |                        |
//!    |  +---- lost lease, -----+                        |
//!    |        removed                                   |
//!    |                                                  |
//!    +<---- lost lease, removed ---- Secondary <--- first prepare of a primary
//!    +<----------------------------- Learner
//! ```
//! Any of them may become `Failed`, which only opening the replica again ends. A change to a higher ballot writes a
//! mark to the log before anything is acknowledged under it, so that a ballot once used is not forgotten; the mark
//! also voids what the log has beyond the new primary's last decree.

use super::group::Lead;
use super::{Node, Replica};
use crate::ids::{Ballot, Decree};
use crate::log::{LogBatch, RecordKey, RecordKind};
use crate::mutation::Ticket;
use crate::state_machine::AppError;
use crate::wire::config::PartitionStatus;
use dsn_core::planted;

/// Why a replica left its group by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocalError {
    /// Its log takes nothing any more.
    #[error("the mutation log failed: {0}")]
    Log(String),
    /// The disk refuses; nothing is known to be wrong with the data.
    #[error("the disk failed: {0}")]
    Disk(String),
    /// Its files contradict themselves.
    #[error("corrupt data: {0}")]
    Corrupt(String),
    /// Its state machine cannot follow the log for another reason.
    #[error("the state machine failed: {0}")]
    App(String),
    /// It was made primary without something that a member knows to be decided: the end of its log is lost.
    #[error("decree {0} is decided, and the log of this primary ended before it")]
    Behind(Decree),
    /// Something that must hold does not.
    #[error("invariant broken: {0}")]
    Invariant(String),
    /// What it holds in memory may be half done; nothing is known to be wrong with what is on the disk.
    #[error("panic: {0}")]
    Panic(String),
}

impl From<&AppError> for LocalError {
    fn from(error: &AppError) -> Self {
        match error {
            AppError::Corrupt(reason) => Self::Corrupt(reason.clone()),
            AppError::Disk(reason) => Self::Disk(reason.clone()),
            other => Self::App(other.to_string()),
        }
    }
}

/// What a member or learner knows of its primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follow {
    /// Who orders the writes.
    pub primary: Node,
    /// 0 for a member, else which attempt at learning this is.
    pub attempt: i64,
    /// Everything up to here was taken from this primary, or is decided.
    pub taken: Decree,
    /// What stands here under an older ballot is what was decided, up to this decree. Beyond it a learner waits until
    /// its primary sends it: an older version may stand in for one that a power loss has taken.
    pub inherits: Decree,
    /// Of the newest prepare that was looked at.
    pub seq: u64,
    /// The primary is owed an acknowledgement.
    pub owes: bool,
}

/// What a replica is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Holds data, belongs to no group at present.
    Inactive,
    /// Orders the group's writes and serves its reads.
    Primary(Box<Lead>),
    /// Logs what the primary orders, before any client hears of it.
    Secondary(Follow),
    /// On its way to become a secondary; nobody waits for it.
    Learner(Follow),
    /// Broken; only opening it again helps.
    Failed(LocalError),
}

impl Role {
    /// As others see it.
    #[must_use]
    pub fn status(&self) -> PartitionStatus {
        match self {
            Self::Inactive => PartitionStatus::Inactive,
            Self::Primary(_) => PartitionStatus::Primary,
            Self::Secondary(_) => PartitionStatus::Secondary,
            Self::Learner(_) => PartitionStatus::PotentialSecondary,
            Self::Failed(_) => PartitionStatus::Error,
        }
    }

    /// Whether it orders the group's writes.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        matches!(self, Self::Primary(_))
    }
}

/// Writes given up by a change of role.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct GivenUp {
    /// Never numbered: certainly not carried out.
    pub refused: Vec<Ticket>,
    /// Numbered: may be in the log.
    pub unknown: Vec<Ticket>,
}

/// A configuration that is not newer than the one in force, or that a broken replica cannot take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ballot {0} is not newer than the one in force")]
pub struct OldBallot(pub Ballot);

impl Replica {
    /// The meta server has made this replica the primary of a group with these other members, under `ballot`. What is
    /// not known to be decided is proposed again under it, with decree, timestamp and content unchanged. A primary that
    /// goes on under a new ballot keeps its learners.
    ///
    /// # Errors
    /// [`OldBallot`] changes nothing.
    pub fn lead(
        &mut self,
        ballot: Ballot,
        secondaries: &[Node],
        log: &mut LogBatch,
    ) -> Result<(), OldBallot> {
        if ballot <= self.ballot || matches!(self.role, Role::Failed(_)) {
            return Err(OldBallot(ballot));
        }
        if planted::has("reconciliation_forgotten") {
            self.cut(self.committed);
            self.prepared = self.committed;
        }
        let former = match std::mem::replace(&mut self.role, Role::Inactive) {
            Role::Primary(lead) => Some(lead),
            _ => None,
        };
        let lead = Lead::new(ballot, self.prepared, self.committed, secondaries, former);
        self.enter(ballot, self.prepared, log);
        let alone = lead.peers.is_empty();
        self.role = Role::Primary(Box::new(lead));
        self.uncertain = false;
        for entry in &mut self.window {
            if entry.mutation.decree > self.committed {
                entry.mutation.ballot = ballot;
                entry.mutation.last_committed = self.committed;
                entry.mutation.timestamp_us += u64::from(planted::has("timestamp_changed"));
                entry.body = None;
                entry.write(alone, log);
            }
        }
        Ok(())
    }

    /// A primary's first word, or an invitation to learn. What is held beyond `keep` is void.
    pub(super) fn follow(
        &mut self,
        ballot: Ballot,
        keep: Decree,
        mut follow: Follow,
        log: &mut LogBatch,
    ) {
        let keep = match planted::has("tail_not_truncated") {
            true => self.prepared,
            false => keep.max(self.committed),
        };
        self.cut(keep);
        if ballot > self.ballot || keep < self.prepared {
            self.enter(ballot, keep, log);
        }
        self.prepared = self.prepared.min(keep);
        follow.taken = self.find_taken();
        self.role = match follow.attempt {
            0 => Role::Secondary(follow),
            _ => Role::Learner(follow),
        };
        self.uncertain &= matches!(self.role, Role::Learner(_));
    }

    /// The replica belongs to no group any more (a newer configuration, or a lost lease). What is in the window stays:
    /// it is in the log, or on its way there.
    pub fn become_inactive(&mut self, ballot: Ballot, log: &mut LogBatch) -> GivenUp {
        if matches!(self.role, Role::Failed(_)) {
            return GivenUp::default();
        }
        if ballot > self.ballot {
            self.enter(ballot, self.prepared, log);
        }
        self.role = Role::Inactive;
        self.give_up()
    }

    /// The replica is broken.
    pub fn fail(&mut self, error: LocalError) -> GivenUp {
        if !matches!(self.role, Role::Failed(_)) {
            self.role = Role::Failed(error);
        }
        self.give_up()
    }

    /// Takes a ballot into use: marked in the log, with everything after `last` void.
    fn enter(&mut self, ballot: Ballot, last: Decree, log: &mut LogBatch) {
        if ballot > self.ballot {
            // Nothing that was logged under a former ballot counts under this one, unless it is decided.
            (self.ballot, self.logged) = (ballot, self.committed);
        }
        let kind = RecordKind::Truncate;
        log.truncate(RecordKey { gpid: self.gpid, ballot: self.ballot, decree: last.next(), kind });
    }

    /// Forgets the window after `last`.
    fn cut(&mut self, last: Decree) {
        while self.window.back().is_some_and(|entry| entry.mutation.decree > last) {
            let void = self.window.pop_back();
            self.held_bytes -= void.map_or(0, |entry| entry.bytes());
        }
    }

    pub(super) fn give_up(&mut self) -> GivenUp {
        let unknown =
            self.window.iter_mut().flat_map(|entry| std::mem::take(&mut entry.tickets)).collect();
        GivenUp { refused: self.queue.drain(), unknown }
    }
}
