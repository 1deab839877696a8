//! The storage engine seam: what the storage app needs from an ordered key-value engine.
//!
//! Two implementations: [`rocks`] for servers, [`mem`] for the simulator. Both promise the same, and a
//! differential test holds them to it.
//!
//! Required of an engine:
//! * *One batch, one decree, one step.* [`StorageEngine::write`] applies a batch and the decree it
//!   belongs to atomically. There is no log of its own: what was not flushed is lost by a crash, and
//!   the decree that [`StorageEngine::last_flushed`] reports is exactly the one the durable data has.
//! * *Writes come from one thread at a time*; reads, flushes and checkpoints from any.
//! * *Nothing blocks unasked.* A read with [`ReadTier::CacheOnly`] and a write with [`Stall::Refuse`]
//!   answer [`EngineError::WouldBlock`], with no effect, where they would touch a file or wait.
//! * *An iterator is a snapshot* taken when it was made, owns what it needs and may outlive many
//!   writes; scans keep theirs for minutes.
//!
//! Keys are ordered bytewise. The two column families of the disk format are the data family, which
//! all methods here mean, and the meta family behind [`StorageEngine::meta`].

pub mod batch;
pub mod checkpoints;
pub mod mem;
pub mod meta;
pub mod place;
pub mod prefix;
pub mod record_cache;
pub mod retention;
pub mod rocks;

use std::path::Path;

pub use batch::{Batch, Pending, Record};
pub use retention::Retention;

use pegasus_client::schema::rrdb::status;
use pegasus_client::schema::value::DataVersion;

/// How far a point read may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadTier {
    /// Wherever the record is; may read files.
    All,
    /// Memory only; [`EngineError::WouldBlock`] when that cannot tell.
    CacheOnly,
}

/// What a write does when the engine is too busy to take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stall {
    /// Waits until it can be taken.
    Wait,
    /// [`EngineError::WouldBlock`], nothing written.
    Refuse,
}

/// Which way an iterator walks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Ascending, from the first key at or after the start.
    Forward,
    /// Descending, from the last key at or before the start.
    Reverse,
}

/// Which keys an iterator shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Only keys with the hash key of the start (see [`prefix::prefix_of`]): it ends at the first
    /// other one, and filters may be used. [`Direction::Forward`] only.
    SameHashKey,
    /// Every key.
    All,
}

/// Why an engine could not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// It would have to read a file or wait, and the caller asked not to. Nothing happened.
    #[error("would block")]
    WouldBlock,
    /// The stored data is damaged; the replica must be re-learned.
    #[error("corruption: {0}")]
    Corruption(String),
    /// The disk refused.
    #[error("I/O error: {0}")]
    Io(String),
    /// An argument or option the engine does not take.
    #[error("invalid argument: {0}")]
    InvalidArgument(String),
    /// Already in use, or being closed.
    #[error("busy: {0}")]
    Busy(String),
    /// Anything else, with the engine's own words.
    #[error("engine error: {0}")]
    Other(String),
}

impl EngineError {
    /// The number clients get in `response.error`, as RocksDB numbers its status codes.
    pub fn code(&self) -> i32 {
        match self {
            Self::WouldBlock => status::INCOMPLETE,
            Self::Corruption(_) => status::CORRUPTION,
            Self::Io(_) => status::IO_ERROR,
            Self::InvalidArgument(_) => status::INVALID_ARGUMENT,
            Self::Busy(_) => status::BUSY,
            Self::Other(_) => status::ABORTED,
        }
    }

    /// Wraps an error of the file system, naming what was being done to which path.
    pub fn io(doing: &str, path: &Path, error: &std::io::Error) -> Self {
        Self::Io(format!("{doing} {}: {error}", path.display()))
    }
}

/// A walk over the records of one snapshot. Positioned at its first record when made.
pub trait EngineIter: Send {
    /// Key and stored value at the current position, `None` when the walk is over (by its end or by
    /// an error; [`Self::status`] tells).
    fn entry(&self) -> Option<(&[u8], &[u8])>;

    /// One step in the iterator's direction. Does nothing once the walk is over.
    fn advance(&mut self);

    /// Why the walk is over: `Ok` when there was nothing more.
    fn status(&self) -> Result<(), EngineError>;
}

/// Gauges of an engine, for metrics. What an engine does not know is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Table files on disk.
    pub sst_files: u64,
    /// Their bytes.
    pub sst_bytes: u64,
    /// Records, overwritten ones counted until compaction.
    pub estimated_keys: u64,
    /// Bytes held by memtables.
    pub memtable_bytes: u64,
    /// Bytes of indexes and filters held outside the block cache.
    pub index_and_filter_bytes: u64,
    /// Bytes in the block cache (shared by all engines of the process).
    pub block_cache_bytes: u64,
    /// Bytes pinned in the block cache.
    pub block_cache_pinned_bytes: u64,
    /// Whether writes are being slowed down now.
    pub writes_delayed: bool,
    /// Whether writes are being stopped now.
    pub writes_stopped: bool,
    /// Flushes running now.
    pub running_flushes: u64,
    /// Compactions running now.
    pub running_compactions: u64,
    /// Bytes that compaction still has to rewrite.
    pub pending_compaction_bytes: u64,
}

/// An ordered key-value engine. See the module's head for the contract.
pub trait StorageEngine: Send + Sync + 'static {
    /// Looks `key` up and calls `visit` with its stored value. `Ok(false)`, without a call, when there
    /// is none.
    fn get(
        &self,
        key: &[u8],
        tier: ReadTier,
        visit: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, EngineError>;

    /// An iterator over a snapshot of now, from `start`.
    fn iter(&self, start: &[u8], direction: Direction, scope: Scope) -> Box<dyn EngineIter>;

    /// Applies `batch` and makes `decree` the last committed one, in one step. An empty batch is
    /// allowed: only the decree moves. The batch is left as it was.
    fn write(&self, batch: &mut Batch, decree: i64, stall: Stall) -> Result<(), EngineError>;

    /// Makes everything written so far durable. Without `wait` it is only started, and
    /// [`Self::last_flushed`] tells when it is done.
    fn flush(&self, wait: bool) -> Result<(), EngineError>;

    /// The decree of the last write.
    fn last_committed(&self) -> i64;

    /// The decree that the durable data has; never above [`Self::last_committed`].
    fn last_flushed(&self) -> Result<i64, EngineError>;

    /// The version of the value schema of this database.
    fn data_version(&self) -> DataVersion;

    /// A value of the meta family, as it is now in memory.
    fn meta(&self, key: &str) -> Result<Option<String>, EngineError>;

    /// Sets a value of the meta family other than the decree, not durable before the next flush.
    fn set_meta(&self, key: &str, value: &str) -> Result<(), EngineError>;

    /// Makes a self-contained copy of the durable data in `dir`, which must not exist, and returns the
    /// decree it has. With `flush` everything written so far is made durable first. Safe while writes
    /// go on. `dir` may be left behind, half made, after an error.
    fn copy_to(&self, dir: &Path, flush: bool) -> Result<i64, EngineError>;

    /// What compaction does to old records; shared with the write path, which tells it the time.
    fn retention(&self) -> &Retention;

    /// Rewrites everything, dropping what [`Self::retention`] says. Blocks until done.
    fn compact(&self) -> Result<(), EngineError>;

    /// Changes options of the running engine, by RocksDB's names.
    fn set_options(&self, options: &[(&str, &str)]) -> Result<(), EngineError>;

    /// Gauges for metrics. Takes locks; not for the hot path.
    fn stats(&self) -> EngineStats;

    /// Stops background work, to make dropping the engine quick. Nothing is flushed. Afterwards only
    /// dropping is allowed.
    fn stop(&self);
}
