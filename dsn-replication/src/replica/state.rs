//! Roles and their changes: the only place that sets a role or a ballot.

use super::Replica;
use crate::ids::Ballot;
use crate::mutation::Ticket;
use crate::state_machine::AppError;
use crate::wire::config::PartitionStatus;

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
    /// Something that must hold does not.
    #[error("invariant broken: {0}")]
    Invariant(String),
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

/// What a replica is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Holds data, belongs to no group at present.
    Inactive,
    /// Orders the group's writes and serves its reads.
    Primary,
    /// Broken; only opening it again helps.
    Failed(LocalError),
}

impl Role {
    /// As others see it.
    #[must_use]
    pub fn status(&self) -> PartitionStatus {
        match self {
            Self::Inactive => PartitionStatus::Inactive,
            Self::Primary => PartitionStatus::Primary,
            Self::Failed(_) => PartitionStatus::Error,
        }
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

/// A configuration older than the one in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ballot {0} is older than the one in force")]
pub struct OldBallot(pub Ballot);

impl Replica {
    /// The meta server has made this replica the primary of a group of one, under `ballot`. Whatever its log holds is
    /// committed then.
    ///
    /// # Errors
    /// [`OldBallot`] changes nothing.
    pub fn become_primary(&mut self, ballot: Ballot) -> Result<(), OldBallot> {
        if ballot < self.ballot || matches!(self.role, Role::Failed(_)) {
            return Err(OldBallot(ballot));
        }
        self.ballot = ballot;
        self.role = Role::Primary;
        self.committed = self.logged;
        Ok(())
    }

    /// The replica belongs to no group any more (a newer configuration, or a lost lease). What is in the window stays:
    /// it is in the log, or on its way there.
    pub fn become_inactive(&mut self, ballot: Ballot) -> GivenUp {
        if matches!(self.role, Role::Failed(_)) {
            return GivenUp::default();
        }
        self.ballot = self.ballot.max(ballot);
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

    fn give_up(&mut self) -> GivenUp {
        let unknown =
            self.window.iter_mut().flat_map(|entry| std::mem::take(&mut entry.tickets)).collect();
        GivenUp { refused: self.queue.drain(), unknown }
    }
}
