//! The protocol core of one replica, without clock, disk, network or threads.
//!
//! Handlers take what happened and leave what is to be done: records for the log in a [`LogBatch`], runs of mutations
//! to apply, tickets to answer. The host ([`crate::host`]) does it. A write goes through one file per step:
//! [`admission`] (may it run?), [`write`] (queue, number, log), [`commit`] (logged, committed, applied), with [`state`]
//! as the only place where the role changes and [`invariants`] walked after each step in tests and simulations.
//! [`recovery`] is the way back from the log.
//!
//! ```text
//! applied <= committed <= logged <= prepared        (decrees; the last three within the window)
//! ```
//! A group of one commits what its own log holds.

pub mod admission;
pub mod commit;
pub mod invariants;
pub mod recovery;
pub mod state;
pub mod write;

use crate::ids::{Ballot, Decree};
use crate::mutation::{Mutation, Ticket, WriteQueue};
use dsn_rpc::gpid::Gpid;
use std::collections::VecDeque;

pub use admission::WriteRules;
pub use commit::Run;
pub use recovery::{Recovered, Recovery, Untrusted};
pub use state::{LocalError, Role};

/// What a core must know from the start.
#[derive(Clone, Debug)]
pub struct CoreOptions {
    /// Mutations that may be numbered and not yet applied; later writes gather in the queue.
    pub window: usize,
    /// Bytes of writes that may wait for the window.
    pub queue_bytes: usize,
    /// Whether requests may share mutations.
    pub batching: bool,
}

impl Default for CoreOptions {
    fn default() -> Self {
        Self { window: 20, queue_bytes: 64 << 20, batching: true }
    }
}

/// A numbered mutation that is not applied yet.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) mutation: Mutation,
    /// Who waits for its requests.
    pub(crate) tickets: Vec<Ticket>,
}

/// One replica of one partition. See the module's header.
#[derive(Debug)]
pub struct Replica {
    pub(crate) gpid: Gpid,
    pub(crate) role: Role,
    pub(crate) ballot: Ballot,
    pub(crate) options: CoreOptions,
    pub(crate) queue: WriteQueue,
    /// Mutations that the log brought, which may be more than the window.
    pub(crate) inherited: usize,
    /// Mutations after `applying`, or after `applied` when nothing is being applied, without holes.
    pub(crate) window: VecDeque<Entry>,
    /// The highest decree numbered.
    pub(crate) prepared: Decree,
    /// The highest decree of the log, without holes.
    pub(crate) logged: Decree,
    /// Decided.
    pub(crate) committed: Decree,
    /// End of the run that is being applied, and its length.
    pub(crate) applying: Option<Decree>,
    pub(crate) applied: Decree,
    /// Of the last mutation; the next one's is higher.
    pub(crate) timestamp_us: u64,
}

impl Replica {
    /// A replica whose state machine has everything up to `applied`, and what its log has beyond.
    #[must_use]
    pub fn new(gpid: Gpid, applied: Decree, recovered: Recovered, options: CoreOptions) -> Self {
        let queue = WriteQueue::new(options.queue_bytes, options.batching);
        let Recovered { ballot, timestamp_us, undecided, .. } = recovered;
        let logged = undecided.last().map_or(applied, |mutation| mutation.decree);
        let entry = |mutation| Entry { mutation, tickets: Vec::new() };
        Self {
            gpid,
            role: Role::Inactive,
            ballot,
            options,
            queue,
            inherited: undecided.len(),
            window: undecided.into_iter().map(entry).collect(),
            prepared: logged,
            logged,
            committed: applied,
            applying: None,
            applied,
            timestamp_us,
        }
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

    /// The highest decree numbered.
    #[must_use]
    pub fn prepared(&self) -> Decree {
        self.prepared
    }

    /// Whether nothing is under way or waiting.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.window.is_empty() && self.applying.is_none()
    }
}
