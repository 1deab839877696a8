//! The protocol core of one replica, without clock, disk, network or threads.
//!
//! Handlers take what happened and leave what is to be done: records for the log in a [`LogBatch`], runs of mutations
//! to apply, tickets to answer, messages and other [`Effect`]s. The host ([`crate::host`]) does it. A write goes
//! through one file per step: [`admission`] (may it run?), [`write`] (queue, number, log), [`prepare`] (the members
//! take it), [`ack`] (they say so), [`commit`] (logged everywhere: committed, applied). [`state`] is the only place
//! where the role changes, [`group`] what a primary knows of the others, [`reconfigure`] how they come and go,
//! [`message`] what they tell each other; [`invariants`] are walked after each step in tests and simulations.
//! [`recovery`] is the way back from the log.
//!
//! ```text
//! applied <= committed <= logged <= prepared        (decrees; the last three within the window)
//! ```
//! The protocol is PacificA (Lin et al., MSR-TR-2008-25) with write-all groups: a decree is committed when every
//! member has it in its log under the ballot in force. A group of one commits what its own log holds.

pub mod ack;
pub mod admission;
pub mod commit;
pub mod group;
pub mod invariants;
pub mod message;
pub mod patience;
mod prepare;
pub mod reconfigure;
pub mod recovery;
pub mod state;
pub mod write;

#[cfg(test)]
mod faults;
#[cfg(test)]
mod tests;

use crate::ids::{Ballot, Decree};
use crate::mutation::{CodeTable, Mutation, Ticket, WriteQueue};
use bytes::Bytes;
use dsn_rpc::gpid::Gpid;
use std::collections::VecDeque;
use std::sync::Arc;

pub use admission::WriteRules;
pub use commit::Run;
pub use group::{GroupOptions, Lead, LogNeed};
pub use message::{Ack, Effect, Effects, Node, Prepare, Verdict};
pub use reconfigure::{Change, LearnAnswer, Position};
pub use recovery::{Recovered, Recovery, Untrusted};
pub use state::{Follow, GivenUp, LocalError, OldBallot, Role};

/// What a core must know from the start.
#[derive(Clone, Debug)]
pub struct CoreOptions {
    /// Mutations that may be numbered and not yet applied; later writes gather in the queue.
    pub window: usize,
    /// Bytes of writes that may wait for the window.
    pub queue_bytes: usize,
    /// Whether requests may share mutations.
    pub batching: bool,
    /// Times and sizes of the work with other members.
    pub group: GroupOptions,
}

impl Default for CoreOptions {
    fn default() -> Self {
        Self { window: 20, queue_bytes: 64 << 20, batching: true, group: GroupOptions::default() }
    }
}

/// A numbered mutation that is not applied yet.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) mutation: Mutation,
    /// Who waits for its requests.
    pub(crate) tickets: Vec<Ticket>,
    /// It as others are sent it, once that was needed.
    pub(crate) body: Option<Bytes>,
}

/// One replica of one partition. See the module's header.
#[derive(Debug)]
pub struct Replica {
    pub(crate) gpid: Gpid,
    pub(crate) role: Role,
    pub(crate) ballot: Ballot,
    pub(crate) options: CoreOptions,
    pub(crate) codes: Arc<CodeTable>,
    pub(crate) queue: WriteQueue,
    /// Mutations that the log brought, which may be more than the window.
    pub(crate) inherited: usize,
    /// Mutations after `applying`, or after `applied` when nothing is being applied, without holes.
    pub(crate) window: VecDeque<Entry>,
    /// The highest decree of the window.
    pub(crate) prepared: Decree,
    /// Everything up to here is decided, or in the log under the ballot in force.
    pub(crate) logged: Decree,
    /// Decided, and nothing is missing here.
    pub(crate) committed: Decree,
    /// Decided, says the primary, though it may not be here yet.
    pub(crate) decided: Decree,
    /// End of the run that is being applied.
    pub(crate) applying: Option<Decree>,
    /// Bytes of the mutations of that run, and of them and the window together.
    pub(crate) applying_bytes: usize,
    pub(crate) held_bytes: usize,
    pub(crate) applied: Decree,
    /// The last mutation that left the window, by its fingerprint.
    pub(crate) newest_decided: Option<(Decree, u64)>,
    /// Of the last mutation; the next one's is higher.
    pub(crate) timestamp_us: u64,
    /// The end of its log may be missing. It has been no member since it was opened.
    pub(crate) uncertain: bool,
}

impl Replica {
    /// A replica whose state machine has everything up to `applied`, and what its log has beyond. `codes` reads what
    /// others propose.
    #[must_use]
    pub fn new(
        gpid: Gpid,
        applied: Decree,
        recovered: Recovered,
        codes: Arc<CodeTable>,
        options: CoreOptions,
    ) -> Self {
        let queue = WriteQueue::new(options.queue_bytes, options.batching);
        let Recovered { ballot, timestamp_us, undecided, newest_decided, uncertain, .. } =
            recovered;
        let entry = |mutation| Entry { mutation, tickets: Vec::new(), body: None };
        let mut replica = Self {
            gpid,
            role: Role::Inactive,
            ballot,
            options,
            codes,
            queue,
            inherited: undecided.len(),
            prepared: undecided.last().map_or(applied, |mutation| mutation.decree),
            window: undecided.into_iter().map(entry).collect(),
            logged: applied,
            committed: applied,
            decided: applied,
            applying: None,
            applying_bytes: 0,
            held_bytes: 0,
            applied,
            newest_decided,
            timestamp_us,
            uncertain,
        };
        replica.logged = replica.find_taken();
        replica.held_bytes = replica.window.iter().map(Entry::bytes).sum();
        replica
    }

    /// Where a decree stands in the window, or would stand next; `None` for what has left it.
    pub(crate) fn place(&self, decree: Decree) -> Option<usize> {
        let first = self.applying.unwrap_or(self.applied).next();
        (decree >= first).then(|| decree.since(first))
    }

    /// The partition.
    #[must_use]
    pub fn gpid(&self) -> Gpid {
        self.gpid
    }

    /// What it is at present.
    #[must_use]
    pub fn role(&self) -> &Role {
        &self.role
    }

    /// The configuration it belongs to.
    #[must_use]
    pub fn ballot(&self) -> Ballot {
        self.ballot
    }

    /// Everything up to here is in the state machine.
    #[must_use]
    pub fn applied(&self) -> Decree {
        self.applied
    }

    /// Everything up to here is decided.
    #[must_use]
    pub fn committed(&self) -> Decree {
        self.committed
    }

    /// The highest decree that is held, decided or not.
    #[must_use]
    pub fn prepared(&self) -> Decree {
        self.prepared
    }

    /// Whether the end of its log may be missing. Over as soon as it is a member.
    #[must_use]
    pub fn is_uncertain(&self) -> bool {
        self.uncertain
    }

    /// Whether nothing is under way or waiting.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.window.is_empty() && self.applying.is_none()
    }
}
