//! The right to acknowledge.
//!
//! An acknowledgement of a decree can only be made from an [`Appended`], and only the log makes those, after the record
//! is as durable as the log's [`Durability`](super::Durability) promises. "Acknowledged before it was logged" does not
//! compile.

use super::record::RecordKey;
use crate::ids::{Ballot, Decree};
use dsn_rpc::gpid::Gpid;

/// Proof that a run of decrees of one partition is in the log. Cannot be copied or made outside the log.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "nobody else will acknowledge these decrees"]
pub struct Appended {
    gpid: Gpid,
    ballot: Ballot,
    first: Decree,
    last: Decree,
    position: u64,
}

impl Appended {
    /// The partition.
    #[must_use]
    pub fn gpid(&self) -> Gpid {
        self.gpid
    }

    /// The ballot of the records.
    #[must_use]
    pub fn ballot(&self) -> Ballot {
        self.ballot
    }

    /// The lowest decree.
    #[must_use]
    pub fn first(&self) -> Decree {
        self.first
    }

    /// The highest decree.
    #[must_use]
    pub fn last(&self) -> Decree {
        self.last
    }

    /// Where the first of the records is in the log.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn new(key: &RecordKey, position: u64) -> Self {
        let RecordKey { gpid, ballot, decree, .. } = *key;
        Self { gpid, ballot, first: decree, last: decree, position }
    }

    /// Takes the record in when it continues this run.
    pub(super) fn extend(&mut self, key: &RecordKey) -> bool {
        let continues =
            key.gpid == self.gpid && key.ballot == self.ballot && key.decree == self.last.next();
        if continues {
            self.last = key.decree;
        }
        continues
    }
}

/// Records that were handed to the log and may not be durable enough yet.
#[derive(Debug, Default)]
#[must_use = "its records are never acknowledged"]
pub struct Pending {
    pub(super) end: u64,
    pub(super) runs: Vec<Appended>,
}

impl Pending {
    /// The log must be durable up to this position.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The partitions concerned, without the right to acknowledge.
    pub fn gpids(&self) -> impl Iterator<Item = Gpid> + '_ {
        self.runs.iter().map(Appended::gpid)
    }
}
