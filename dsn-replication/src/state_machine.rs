//! The state machine: what a user of this crate implements.
//!
//! A partition is a deterministic state machine fed with the same mutations, in the same order, on every member of its
//! group. Replication owns order, log and membership; the state machine owns the state and its files below the
//! replica's directory, and never sees a ballot. It needs no log of its own: after a crash it reports how far its own
//! files go ([`StateMachine::last_applied`]) and is fed the rest from the mutation log.
//!
//! Threads: `apply` is called by one thread at a time, in decree order. `read`, `checkpoint` and the getters are called
//! concurrently with it, from any thread.

use crate::ids::Decree;
use crate::mutation::Mutation;
use crate::wire::config::AppInfo;
use bytes::{Bytes, BytesMut};
use dsn_core::code::Code;
use dsn_core::disk::Disk;
use dsn_core::exec::BlockingCtx;
use dsn_core::time::{Mono, Wall};
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::gpid::Gpid;
use std::any::Any;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where `apply` runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplyMode {
    /// On a worker: must not wait. [`ApplyError::WouldBlock`] moves the run to a blocking thread.
    Worker,
    /// On a blocking thread (also during replay): may wait.
    Blocking,
}

/// Where `read` runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadMode {
    /// On a worker: memory and caches only. [`ReadOutcome::WouldBlock`] moves the read to its stage.
    Inline,
    /// On a blocking thread: may touch files.
    Blocking,
}

/// How a read ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// The reply value (wrapped, as the client expects it) was appended to `out`.
    Reply,
    /// Not without files; nothing was appended. Only for [`ReadMode::Inline`].
    WouldBlock,
    /// Done; this request is never answered.
    NoReply,
    /// The request fails with an error of the RPC level. [`ErrorCode::RdbCorruption`] and [`ErrorCode::DiskIoError`]
    /// also put the replica into its error state.
    Error(ErrorCode),
}

/// Why a state machine failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppError {
    /// Not now: another checkpoint is under way.
    #[error("another checkpoint is under way")]
    WrongTiming,
    /// Begun but not finished (a flush, for instance); ask again in a while.
    #[error("not finished yet")]
    TryAgain,
    /// The files contradict themselves; the replica is quarantined.
    #[error("corrupt data: {0}")]
    Corrupt(String),
    /// The disk fails; the replica leaves its group and the directory takes no new ones.
    #[error("disk: {0}")]
    Disk(String),
    /// Anything else; the replica leaves its group.
    #[error("{0}")]
    Failed(String),
}

impl AppError {
    /// The error as others see it.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::WrongTiming => ErrorCode::WrongTiming,
            Self::TryAgain => ErrorCode::TryAgain,
            Self::Corrupt(_) => ErrorCode::RdbCorruption,
            Self::Disk(_) => ErrorCode::DiskIoError,
            Self::Failed(_) => ErrorCode::LocalAppFailure,
        }
    }
}

/// Why a run was not applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// It would have had to wait. Nothing was applied; the host repeats the same run on a blocking thread.
    #[error("applying would block")]
    WouldBlock,
    /// The state can no longer follow the log: the replica leaves its group.
    #[error(transparent)]
    Failed(#[from] AppError),
}

/// How urgent a checkpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointKind {
    /// Only what has reached the state machine's files by itself.
    NoFlush,
    /// Writes out what is only in memory first.
    Flush,
}

/// One file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointFile {
    /// Its name, without directories.
    pub name: String,
    /// Its length in bytes.
    pub len: u64,
}

/// A finished checkpoint. Its files stay, unchanged, as long as `guard` is held.
#[derive(Clone)]
pub struct PinnedCheckpoint {
    /// Everything up to here is in it.
    pub decree: Decree,
    /// Where its files are.
    pub dir: PathBuf,
    /// All of its files.
    pub files: Vec<CheckpointFile>,
    /// Keeps them.
    pub guard: Arc<dyn Any + Send + Sync>,
}

impl fmt::Debug for PinnedCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { decree, dir, files, .. } = self;
        write!(f, "PinnedCheckpoint({decree}, {} files in {})", files.len(), dir.display())
    }
}

impl PinnedCheckpoint {
    /// The files in `dir`, all of them.
    ///
    /// # Errors
    /// Of the file system.
    pub fn of_dir(
        disk: &dyn Disk,
        dir: &Path,
        decree: Decree,
        guard: Arc<dyn Any + Send + Sync>,
    ) -> io::Result<Self> {
        let entries = disk.list(dir)?.into_iter().filter(|entry| !entry.is_dir);
        let files = entries.map(|entry| CheckpointFile { name: entry.name, len: entry.len });
        Ok(Self { decree, dir: dir.to_owned(), files: files.collect(), guard })
    }
}

/// A read request.
#[derive(Clone, Debug)]
pub struct ReadRequest {
    /// What to read.
    pub code: Code,
    /// The partition.
    pub gpid: Gpid,
    /// The request as the client sent it (the wrapped thrift value).
    pub body: Bytes,
    /// The client's hash of the key, for the check after a partition split.
    pub partition_hash: u64,
    /// Whether stale data is good enough (answered by a secondary as well).
    pub is_backup: bool,
}

/// What a read may know of the world.
pub struct ReadEnv<'a> {
    /// The wall clock when the read began.
    pub wall: Wall,
    /// The monotonic clock, for limits by time.
    pub clock: &'a dyn Fn() -> Mono,
    /// When the answer stops to be of use.
    pub deadline: Option<Mono>,
}

impl fmt::Debug for ReadEnv<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadEnv").field("wall", &self.wall).finish_non_exhaustive()
    }
}

/// Everything known when a state machine is opened.
#[derive(Debug)]
pub struct OpenArgs<'a> {
    /// The replica's directory; the state machine's own files go below `data/`.
    pub dir: &'a Path,
    /// The partition.
    pub gpid: Gpid,
    /// The table.
    pub info: &'a AppInfo,
}

/// A deterministic state machine over the mutations of one partition. See the module's header.
pub trait StateMachine: Send + Sync + 'static {
    /// Applies a run of consecutive committed mutations as one atomic batch: after a crash either all of it or nothing
    /// is there, together with the last decree. The first decree is `last_applied() + 1`. For every request, in order,
    /// exactly one answer is pushed to `replies` (none for an empty write).
    ///
    /// The outcome depends on nothing but the state and the run: time is `timestamp_us`, settings are in `stamp`. A
    /// request that makes no sense is answered so and changes nothing; it is no error.
    ///
    /// # Errors
    /// See [`ApplyError`]. `replies` is ignored then.
    fn apply(
        &self,
        run: &[Mutation],
        mode: ApplyMode,
        replies: &mut Replies,
    ) -> Result<(), ApplyError>;

    /// The last decree applied; right after opening, the last one its own files hold.
    fn last_applied(&self) -> Decree;

    /// The last decree that survives the loss of everything but this replica's finished checkpoints. The log keeps
    /// everything above it.
    fn last_durable(&self) -> Decree;

    /// Answers a read from the state of the last applied decree, or a later one.
    fn read(
        &self,
        request: &ReadRequest,
        mode: ReadMode,
        env: &ReadEnv<'_>,
        out: &mut BytesMut,
    ) -> ReadOutcome;

    /// Makes a checkpoint and returns the durable decree after it; nothing to do is success.
    ///
    /// # Errors
    /// [`AppError::WrongTiming`] and [`AppError::TryAgain`] leave everything as it was.
    fn checkpoint(&self, job: &BlockingCtx<'_>, kind: CheckpointKind) -> Result<Decree, AppError>;

    /// The newest finished checkpoint, for a replica on another server that lacks too much to be told it from the log;
    /// makes one if there is none. Placed in [`StateMachineFactory::checkpoint_home`] of a new replica directory, its
    /// files are what [`StateMachineFactory::open`] opens as that state.
    ///
    /// # Errors
    /// [`AppError::TryAgain`] and [`AppError::WrongTiming`] while there is none yet.
    fn pin_checkpoint(&self, job: &BlockingCtx<'_>) -> Result<PinnedCheckpoint, AppError>;

    /// What `apply` must know of the table's settings, as they are now. Put into every mutation that this replica
    /// numbers, so that all members, and replays of the log, go by the same.
    fn stamp(&self) -> u32 {
        0
    }

    /// The table's settings changed (`envs` above all). On a worker: must not wait.
    fn reconfigure(&self, info: &AppInfo) {
        let _ = info;
    }

    /// Carries out what the last [`reconfigure`](Self::reconfigure) left for a thread that may wait.
    fn settle(&self, job: &BlockingCtx<'_>) {
        let _ = job;
    }

    /// Stops background work and writes out what is only in memory. Nothing is called afterwards but the getters, and
    /// nothing is under way, unless it hangs. Also called after a panic: what a write has left half done must not reach
    /// the files.
    fn close(&self, job: &BlockingCtx<'_>);
}

/// Makes state machines of one app type.
pub trait StateMachineFactory: Send + Sync + 'static {
    /// The app type, last part of the names of replica directories and `app_type` of tables.
    fn app_type(&self) -> &str;

    /// Opens the state in `args.dir`, or begins an empty one there.
    ///
    /// # Errors
    /// The replica is not opened; after [`AppError::Corrupt`] its directory is put aside.
    fn open(
        &self,
        job: &BlockingCtx<'_>,
        args: &OpenArgs<'_>,
    ) -> Result<Arc<dyn StateMachine>, AppError>;

    /// Where, below a replica's directory, the files of a received checkpoint belong.
    fn checkpoint_home(&self) -> &Path;

    /// The requests it serves.
    fn codes(&self) -> &[StorageCode];
}

/// Where a read is tried first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadStage {
    /// On the connection's worker; when that would block, in the read stage.
    Inline,
    /// In the read stage (`THREAD_POOL_LOCAL_APP`).
    Read,
    /// In the range read stage (`THREAD_POOL_SCAN`).
    Scan,
}

/// What a request does with the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Looks.
    Read(ReadStage),
    /// Changes it, through the log.
    Write {
        /// Whether several of them may share a mutation.
        batchable: bool,
        /// Whether applying it twice gives the same as once.
        idempotent: bool,
    },
}

/// A request a state machine serves.
#[derive(Clone, Copy, Debug)]
pub struct StorageCode {
    /// Its name.
    pub code: Code,
    /// What it does.
    pub access: Access,
}

/// One request's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Value(Range<usize>),
    Error(ErrorCode),
    Silence,
}

/// One request's answer, as the host sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyView<'a> {
    /// The wrapped reply value.
    Value(&'a [u8]),
    /// An error of the RPC level.
    Error(ErrorCode),
    /// No answer at all.
    Silence,
}

/// The answers of one run, collected in one buffer: one per request, in order.
#[derive(Debug, Default)]
pub struct Replies {
    arena: BytesMut,
    answers: Vec<Answer>,
    wanted: bool,
}

/// A buffer that grew beyond this many bytes for one run is given back.
const ARENA_KEEP: usize = 1 << 20;

impl Replies {
    /// An empty collection. With `wanted` false nobody will look at the values (replay, secondaries).
    #[must_use]
    pub fn new(wanted: bool) -> Self {
        Self { arena: BytesMut::new(), answers: Vec::new(), wanted }
    }

    /// Whether anybody will look at the values; if not, encoding may be spared by [`Replies::silence`].
    #[must_use]
    pub const fn wanted(&self) -> bool {
        self.wanted
    }

    /// Answers the next request with the value that `encode` appends.
    pub fn push(&mut self, encode: impl FnOnce(&mut BytesMut)) {
        if !self.wanted {
            return self.silence();
        }
        let start = self.arena.len();
        encode(&mut self.arena);
        self.answers.push(Answer::Value(start..self.arena.len()));
    }

    /// Answers the next request with an error of the RPC level.
    pub fn error(&mut self, error: ErrorCode) {
        self.answers.push(Answer::Error(error));
    }

    /// Leaves the next request without an answer.
    pub fn silence(&mut self) {
        self.answers.push(Answer::Silence);
    }

    /// Number of requests answered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.answers.len()
    }

    /// Whether nothing was answered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// The answer to the run's request number `index`, counted over all its mutations. `None` past the last.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<ReplyView<'_>> {
        self.answers.get(index).map(|answer| match answer {
            Answer::Value(range) => ReplyView::Value(&self.arena[range.clone()]),
            Answer::Error(error) => ReplyView::Error(*error),
            Answer::Silence => ReplyView::Silence,
        })
    }

    /// Forgets the answers, keeps the memory.
    pub fn clear(&mut self, wanted: bool) {
        self.answers.clear();
        if self.arena.capacity() > ARENA_KEEP {
            self.arena = BytesMut::new();
        }
        self.arena.clear();
        self.wanted = wanted;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_keep_order_and_kind() {
        let mut replies = Replies::new(true);
        replies.push(|out| out.extend_from_slice(b"one"));
        replies.error(ErrorCode::Busy);
        replies.silence();
        replies.push(|out| out.extend_from_slice(b"four"));
        assert_eq!(replies.len(), 4);
        assert_eq!(replies.get(0), Some(ReplyView::Value(b"one")));
        assert_eq!(replies.get(1), Some(ReplyView::Error(ErrorCode::Busy)));
        assert_eq!(replies.get(2), Some(ReplyView::Silence));
        assert_eq!(replies.get(3), Some(ReplyView::Value(b"four")));
        assert_eq!(replies.get(4), None);
        replies.clear(false);
        replies.push(|_| panic!("nobody wants it"));
        assert_eq!(replies.get(0), Some(ReplyView::Silence));
    }
}
