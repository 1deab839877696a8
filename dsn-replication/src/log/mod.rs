//! The mutation log: one per data directory, shared by its replicas.
//!
//! It is the only log there is; the state machines have none of their own. A worker appends everything a turn produced
//! for all its partitions with one write, in place ([`SharedLog::append`]); what that is worth is the log's
//! [`Durability`], and what may be acknowledged follows from the tokens it gives out ([`Appended`]).
//!
//! Reading order: [`record`] and [`segment`] (bytes), [`token`], [`batch`] (records before they have a place),
//! [`shared`] (append, roll, sync, failure), `files`, [`scan`] and [`replay`] (reading after a restart), [`collect`]
//! (giving segments back), [`read`] (reading while in use), [`tails`] (whether its end may be missing).
//!
//! A failed write or sync is never repeated: what the disk holds then is unknown. The log takes nothing any more, its
//! replicas leave their groups, the server stays up.

pub mod batch;
pub mod collect;
mod files;
pub mod read;
pub mod record;
pub mod replay;
pub mod scan;
pub mod segment;
pub mod shared;
mod sync;
pub mod tails;
pub mod token;

#[cfg(test)]
mod tests;

use dsn_core::node::StageId;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use batch::LogBatch;
pub use record::{Durability, Record, RecordKey, RecordKind};
pub use replay::{Opened, ReplaySink, ReplicaStart};
pub use shared::{Redeemed, SharedLog};
pub use sync::{SyncJob, SyncOutcome, SyncScope};
pub use tails::Tails;
pub use token::{Appended, Pending};

/// How a log behaves.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// A segment that has reached this many bytes is followed by the next as soon as there is one.
    pub segment_bytes: u64,
    /// What acknowledgements rest on.
    pub durability: Durability,
    /// Period of [`Durability::IntervalSync`].
    pub sync_interval: Duration,
    /// Sealed segments that nobody needs for recovery are kept for learners while they are younger than this ...
    pub reserve_age: Duration,
    /// ... and all segments together have no more than this many bytes.
    pub reserve_bytes: u64,
    /// With more segments than this, the replicas that hold the oldest ones are asked for checkpoints.
    pub count_limit: usize,
    /// Most replicas asked at a time.
    pub flush_limit: usize,
    /// A sync that is not done so long after it was asked for counts as failed.
    pub sync_timeout: Duration,
    /// Where its syncs run; `None` for the stage of their code.
    pub stage: Option<StageId>,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 32 << 20,
            durability: Durability::Os,
            sync_interval: Duration::from_millis(1000),
            reserve_age: Duration::from_secs(36_000),
            reserve_bytes: 1000 << 20,
            count_limit: 100,
            flush_limit: 64,
            sync_timeout: Duration::from_secs(30),
            stage: None,
        }
    }
}

/// Why a log does not work.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// A write or sync failed earlier; the log takes nothing until it is opened again.
    #[error("the mutation log in {dir} has failed: {reason}")]
    Failed {
        /// The log's directory.
        dir: PathBuf,
        /// What failed.
        reason: Arc<str>,
    },
    /// The log cannot be opened or read.
    #[error("mutation log {path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: Arc<io::Error>,
    },
    /// Something that a log never does.
    #[error("mutation log {path}: {reason}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl LogError {
    pub(crate) fn io(path: impl Into<PathBuf>, error: io::Error) -> Self {
        Self::Io { path: path.into(), error: Arc::new(error) }
    }
}
