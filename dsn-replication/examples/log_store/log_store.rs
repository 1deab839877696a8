//! A replicated log store: each partition of a table is a log of entries, to be appended to, read from any offset, and
//! trimmed at its beginning.
//!
//! What a checkpoint holds is read from its files, so a log may be larger than memory: only what was appended since is
//! kept there. A checkpoint writes that, as segments, and keeps the older segments' files as they are.

use bytes::Bytes;
use dsn_core::command::CommandReply;
use dsn_core::config::ConfigSchema;
use dsn_core::node::Node;
use dsn_replication::app::{Files, Methods, NewFiles, Opening, ReplicatedApp};
use dsn_replication::method::{Scan, Write};
use dsn_replication::state_machine::AppError;
use dsn_rpc::thrift::List;
use std::sync::Arc;

dsn_core::task_codes! {
    /// Codes of the log store.
    pub CODES;
    /// See [`APPEND`].
    pub RPC_LOG_APPEND: Rpc, Low, "THREAD_POOL_REPLICATION";
    /// See [`TRIM`].
    pub RPC_LOG_TRIM: Rpc, Low, "THREAD_POOL_REPLICATION";
    /// See [`READ`].
    pub RPC_LOG_READ: Rpc, Common, "THREAD_POOL_SCAN";
}

dsn_rpc::message! {
    /// What to read.
    pub struct ReadFrom {
        /// The first offset wanted.
        1: offset: i64,
        /// Entries wanted.
        2: max_count: i32 = 100,
    }

    /// What was read.
    pub struct Entries {
        /// Offset of the first entry: later than wanted when the log has been trimmed.
        1: first: i64,
        /// Consecutive entries; none at the end of the log.
        2: entries: List<Bytes>,
    }

    /// A file of a checkpoint.
    pub struct Segment { 1: base: i64, 2: count: i64 }

    /// What a checkpoint consists of.
    pub struct Index { 1: first: i64, 2: next: i64, 3: segments: Vec<Segment> }
}

dsn_core::options! {
    /// The log store.
    pub section LogStoreOptions at "log_store" {
        /// Bytes of entries in a file of a checkpoint, in KiB: what a read of old entries reads at a time.
        segment_kb: u32 = 256, in 1..=65_536;
    }
}

dsn_core::metrics! {
    /// Numbers of one log.
    pub struct LogMetrics on "replica" {
        /// Entries appended here since the start, replayed ones included.
        log_appended: Counter, Entries;
        /// Entries that are kept in memory.
        log_in_memory: Gauge, Entries;
    }
}

/// Appends an entry; answers its offset.
pub const APPEND: Write<Bytes, i64> = Write::new(&RPC_LOG_APPEND);
/// Drops what is before an offset; answers the first offset that is left. Twice is as good as once.
pub const TRIM: Write<i64, i64> = Write::idempotent(&RPC_LOG_TRIM);
/// Reads from an offset on.
pub const READ: Scan<ReadFrom, Entries> = Scan::new(&RPC_LOG_READ);

/// Most bytes of entries in one answer (and the first one, however large).
const READ_BYTES_MAX: usize = 512 << 10;

/// One log, or a picture of it: cloning it costs little.
#[derive(Clone, Debug)]
pub struct LogStore {
    /// First offset that has not been trimmed.
    first: i64,
    /// Old entries, which are in `files`.
    segments: Vec<Segment>,
    files: Option<Arc<Files>>,
    /// Offset of the first entry of `tail`.
    tail_base: i64,
    /// What no checkpoint has yet.
    tail: Arc<Vec<Bytes>>,
    segment_bytes: usize,
    metrics: LogMetrics,
}

fn file_name(segment: &Segment) -> String {
    format!("segment.{}", segment.base)
}

impl LogStore {
    fn new(
        opening: &Opening<'_>,
        index: Index,
        files: Option<Arc<Files>>,
    ) -> Result<Self, AppError> {
        let options: LogStoreOptions = opening.options()?;
        Ok(Self {
            first: index.first,
            segments: index.segments,
            files,
            tail_base: index.next,
            tail: Arc::default(),
            segment_bytes: options.segment_kb as usize * 1024,
            metrics: LogMetrics::of(opening.entity()),
        })
    }

    fn next(&self) -> i64 {
        self.tail_base + self.tail.len() as i64
    }

    fn append(&mut self, entry: Bytes) -> i64 {
        let offset = self.next();
        Arc::make_mut(&mut self.tail).push(entry);
        self.metrics.log_appended.increment();
        self.metrics.log_in_memory.set(self.tail.len() as i64);
        offset
    }

    fn trim(&mut self, before: i64) -> i64 {
        self.first = self.first.max(before.min(self.next()));
        let first = self.first;
        self.segments.retain(|segment| segment.base + segment.count > first);
        self.drop_tail(first);
        first
    }

    /// Drops entries before `offset` from memory.
    fn drop_tail(&mut self, offset: i64) {
        let count = (offset - self.tail_base).clamp(0, self.tail.len() as i64);
        self.tail_base += count;
        Arc::make_mut(&mut self.tail).drain(..count as usize);
        self.metrics.log_in_memory.set(self.tail.len() as i64);
    }

    /// The entries from `offset` on that are in one place: a segment or the tail.
    fn run_at(&self, offset: i64) -> Result<Vec<Bytes>, AppError> {
        let end = |segment: &Segment| segment.base + segment.count;
        match (self.segments.iter().find(|segment| offset < end(segment)), &self.files) {
            (Some(segment), Some(files)) => {
                let entries: Vec<Bytes> = files.decode(&file_name(segment))?;
                Ok(entries.into_iter().skip((offset - segment.base) as usize).collect())
            }
            _ => Ok(self.tail[(offset - self.tail_base) as usize..].to_vec()),
        }
    }

    fn read(&self, wanted: &ReadFrom) -> Result<Entries, AppError> {
        let first = wanted.offset.clamp(self.first, self.next());
        let (mut entries, mut bytes) = (Vec::new(), 0);
        'full: while first + (entries.len() as i64) < self.next() {
            for entry in self.run_at(first + entries.len() as i64)? {
                bytes += entry.len();
                let is_full = entries.len() as i64 >= i64::from(wanted.max_count)
                    || (bytes > READ_BYTES_MAX && !entries.is_empty());
                if is_full {
                    break 'full;
                }
                entries.push(entry);
            }
        }
        Ok(Entries { first, entries: entries.into() })
    }

    /// The tail, cut into the segments that a checkpoint makes of it.
    fn new_segments(&self) -> Vec<(Segment, &[Bytes])> {
        let mut segments = Vec::new();
        let (mut begin, mut bytes) = (0, 0);
        for (index, entry) in self.tail.iter().enumerate() {
            bytes += entry.len();
            if bytes >= self.segment_bytes || index + 1 == self.tail.len() {
                let entries = &self.tail[begin..=index];
                let base = self.tail_base + begin as i64;
                segments.push((Segment { base, count: entries.len() as i64 }, entries));
                (begin, bytes) = (index + 1, 0);
            }
        }
        segments
    }
}

impl ReplicatedApp for LogStore {
    const APP_TYPE: &'static str = "log_store";
    type View = Self;

    fn methods(methods: &mut Methods<Self>) {
        methods.write(&APPEND, |log, entry, _| log.append(entry));
        methods.write(&TRIM, |log, before, _| log.trim(before));
        methods.scan(&READ, |log, wanted, _| log.read(&wanted));
    }

    fn open(opening: &Opening<'_>) -> Result<Self, AppError> {
        Self::new(opening, Index::default(), None)
    }

    fn view(&self) -> Self {
        self.clone()
    }

    fn checkpoint(view: &Self, files: &mut NewFiles) -> Result<(), AppError> {
        let mut index = Index { first: view.first, next: view.next(), segments: Vec::new() };
        for segment in &view.segments {
            if let Some(old) = &view.files {
                files.keep(old, &file_name(segment))?;
                index.segments.push(segment.clone());
            }
        }
        for (segment, entries) in view.new_segments() {
            files.encode(&file_name(&segment), &entries.to_vec())?;
            index.segments.push(segment);
        }
        files.encode("index", &index)
    }

    fn install(opening: &Opening<'_>, files: &Arc<Files>) -> Result<Self, AppError> {
        Self::new(opening, files.decode("index")?, Some(files.clone()))
    }

    fn checkpointed(&mut self, view: &Self, files: &Arc<Files>) {
        self.segments.extend(view.new_segments().into_iter().map(|(segment, _)| segment));
        self.files = Some(files.clone());
        self.drop_tail(view.next());
        // What was trimmed while it was written.
        self.trim(self.first);
    }

    fn at_start(node: &Arc<Node>) {
        let limits = format!("a read gives at most {READ_BYTES_MAX} bytes of entries");
        node.commands().add(
            "log_store.limits",
            "",
            "Shows the limits of the log store.",
            move |_| CommandReply::done(limits.clone()),
        );
    }

    fn sections() -> ConfigSchema {
        ConfigSchema::new().section::<LogStoreOptions>()
    }
}
