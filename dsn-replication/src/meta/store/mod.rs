//! Where the meta server keeps what must survive: a small tree of versioned values.
//!
//! Keys are paths (`/apps/2/0`), values are opaque. A change names the version it replaces (compare and swap) and
//! carries the epoch of the leader that makes it, so that neither a forgotten second writer nor a leader that was
//! paused and replaced can overwrite newer state: fencing is by version and epoch, not by hope.
//!
//! Implementations block and are used from a blocking stage only, by one owner at a time (`&mut self`): the owner
//! hands the store to a job and gets it back with the outcome. [`local`] is the embedded one. A store on ZooKeeper maps
//! keys to znodes, versions to znode versions and the epoch to the version of one more znode that every
//! transaction checks.
//!
//! After any error the owner must stop acting on what it holds in memory: whether the failed change is stored is
//! unknown until the store is opened again.

#[cfg(test)]
pub(crate) mod crash_disk;
pub mod local;
pub mod log;
#[cfg(test)]
mod tests;

use std::fmt;

use bytes::Bytes;

/// Longest key in bytes.
pub const MAX_KEY_LEN: usize = 1024;

/// Largest value in bytes; what ZooKeeper takes, less some room.
pub const MAX_VALUE_LEN: usize = 1_000_000;

/// Most changes in one transaction; keeps one below the megabyte that ZooKeeper takes.
pub const MAX_CHANGES: usize = 1_000;

/// How often a key has been set since it was made: 0 after creation.
pub type Version = u64;

/// Numbers the leaderships of a store; grows by at least one with each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// What a change expects to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// No such key.
    Absent,
    /// The key at this version.
    At(Version),
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: String,
    /// What must be there before.
    pub expect: Expect,
    /// The new value; `None` removes the key.
    pub value: Option<Bytes>,
}

impl Change {
    /// Makes a key; its version is then 0.
    pub fn create(key: impl Into<String>, value: Bytes) -> Self {
        Self { key: key.into(), expect: Expect::Absent, value: Some(value) }
    }

    /// Replaces the value of a key that has this version; it then has the next one.
    pub fn set(key: impl Into<String>, version: Version, value: Bytes) -> Self {
        Self { key: key.into(), expect: Expect::At(version), value: Some(value) }
    }

    /// Removes a key that has this version.
    pub fn remove(key: impl Into<String>, version: Version) -> Self {
        Self { key: key.into(), expect: Expect::At(version), value: None }
    }
}

/// Changes that are made together or not at all; at most [`MAX_CHANGES`].
pub type Transaction = Vec<Change>;

/// A stored value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its version.
    pub version: Version,
    /// Its bytes.
    pub value: Bytes,
}

/// Why a store could not do something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// A change did not find what it expected. It and what followed it in the same commit were not made.
    #[error("meta store: {key} is not as expected: wanted {expected:?}, found version {found:?}")]
    Conflict {
        /// The key.
        key: String,
        /// What the change wanted to find.
        expected: Expect,
        /// The version found, if there is such a key.
        found: Option<Version>,
    },
    /// Somebody else leads now.
    #[error("meta store: epoch {held:?} has ended, the store is at {current:?}")]
    Fenced {
        /// The epoch of the change.
        held: Epoch,
        /// The epoch of the store.
        current: Epoch,
    },
    /// A key, value or transaction beyond the limits.
    #[error("meta store: {0}")]
    Limit(String),
    /// What is stored cannot be read.
    #[error("meta store: {file} is damaged at byte {offset}: {what}")]
    Damaged {
        /// The file.
        file: String,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// The disk or the connection failed; the outcome of the operation is unknown.
    #[error("meta store: {0}")]
    Failed(String),
}

/// A store of versioned values; see the module's header.
pub trait MetaStore: Send + fmt::Debug {
    /// Becomes the leader: opens the store, ends every earlier epoch and begins a new one. What is read afterwards
    /// includes everything that was ever acknowledged.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`StoreError::Failed`].
    fn acquire(&mut self) -> Result<Epoch, StoreError>;

    /// The value of a key.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    fn get(&mut self, key: &str) -> Result<Option<Stored>, StoreError>;

    /// The keys one level below `key` with their values, ordered by name. Names are without the path.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    fn children(&mut self, key: &str) -> Result<Vec<(String, Stored)>, StoreError>;

    /// Makes the transactions one after the other, each whole; returns when all of them are durable.
    ///
    /// # Errors
    /// [`StoreError::Conflict`], [`StoreError::Fenced`], [`StoreError::Limit`] (all before anything of the transaction
    /// at fault was made), [`StoreError::Failed`].
    fn commit(&mut self, epoch: Epoch, transactions: &[Transaction]) -> Result<(), StoreError>;
}

/// Refuses what is beyond the limits.
fn check_limits(transaction: &Transaction) -> Result<(), StoreError> {
    if transaction.len() > MAX_CHANGES {
        return Err(StoreError::Limit(format!(
            "{} changes in a transaction, at most {MAX_CHANGES} are allowed",
            transaction.len()
        )));
    }
    for change in transaction {
        if change.key.len() > MAX_KEY_LEN || !change.key.starts_with('/') {
            return Err(StoreError::Limit(format!("bad key {:?}", change.key)));
        }
        let len = change.value.as_ref().map_or(0, Bytes::len);
        if len > MAX_VALUE_LEN {
            return Err(StoreError::Limit(format!(
                "{}: a value of {len} bytes, at most {MAX_VALUE_LEN} are allowed",
                change.key
            )));
        }
    }
    Ok(())
}
