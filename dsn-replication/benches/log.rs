//! One mutation log for all partitions of a data directory, against a log for each partition.
//!
//! Run with `cargo bench -p dsn-replication --bench log [-- <folder>]`; the logs go below the folder (default: the
//! system's temporary one) and are removed. Each case is a worker that takes turns: a turn brings some writes of 150
//! bytes to random partitions, a partition's writes of a turn share a mutation, as in the server. `os` appends;
//! `group_sync` syncs what the turn has written before the next begins, several logs by several threads at once, as a
//! pool would. Per write: what it took, system calls that write, fdatasyncs, and the CPU time of the process.

#![expect(clippy::disallowed_methods, reason = "a bench lives outside the runtime")]

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dsn_core::disk::{DirEntry, Disk, File, OpenMode, Space, SyncMode};
use dsn_core::driver::native::OsDisk;
use dsn_core::rng::Rng;
use dsn_replication::ids::{Ballot, Decree};
use dsn_replication::log::{
    Durability, LogBatch, LogOptions, Record, ReplaySink, SharedLog, SyncScope,
};
use dsn_replication::mutation::{ClientRequest, Mutation};
use dsn_rpc::gpid::Gpid;

dsn_core::task_codes! {
    CODES;
    RPC_BENCH_PUT: Rpc, Low, "THREAD_POOL_REPLICATION";
}

const BODY_BYTES: usize = 150;
/// Threads that sync logs.
const SYNC_THREADS: usize = 4;
const OS_TIME: Duration = Duration::from_millis(800);
const SYNC_TIME: Duration = Duration::from_millis(2500);
/// What the clock of `/proc` counts in.
const TICKS_PER_SECOND: f64 = 100.0;

/// What reached the disk.
#[derive(Debug, Default)]
struct Counts {
    writes: AtomicU64,
    syncs: AtomicU64,
}

/// The system's disk, counted.
#[derive(Clone, Debug)]
struct Counted {
    disk: OsDisk,
    counts: Arc<Counts>,
}

#[derive(Debug)]
struct CountedFile {
    file: Arc<dyn File>,
    counts: Arc<Counts>,
}

impl File for CountedFile {
    fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        self.file.read_at(offset, len)
    }

    fn write_at(&self, offset: u64, bufs: &[Bytes]) -> io::Result<()> {
        self.counts.writes.fetch_add(1, Ordering::Relaxed);
        self.file.write_at(offset, bufs)
    }

    fn sync(&self, mode: SyncMode) -> io::Result<()> {
        self.counts.syncs.fetch_add(1, Ordering::Relaxed);
        self.file.sync(mode)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}

impl Disk for Counted {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let file = self.disk.open(path, mode)?;
        Ok(Arc::new(CountedFile { file, counts: self.counts.clone() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.disk.unlink(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk.list(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }

    fn exists(&self, path: &Path) -> bool {
        self.disk.exists(path)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.hard_link(from, to)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.disk.space(path)
    }

    fn boot_id(&self) -> io::Result<String> {
        self.disk.boot_id()
    }
}

struct Deaf;

impl ReplaySink for Deaf {
    fn record(&mut self, _: Record) {}
    fn ballot(&mut self, _: Gpid, _: Ballot) {}
    fn truncate(&mut self, _: Gpid, _: Decree) {}
    fn lost(&mut self, _: Gpid, _: Decree, _: u64) {}
    fn gap(&mut self, _: std::ops::Range<u64>) {}
    fn summary(&mut self, _: Gpid, _: Decree, _: u64) {}
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// One log for all.
    Shared,
    /// One for each.
    PerReplica,
}

struct Case {
    layout: Layout,
    partitions: usize,
    durability: Durability,
    writes_per_turn: usize,
}

struct Logs {
    logs: Vec<Arc<SharedLog>>,
    decrees: Vec<i64>,
    batches: Vec<LogBatch>,
    body: Bytes,
}

impl Logs {
    fn open(case: &Case, disk: &Arc<dyn Disk>, dir: &Path) -> Self {
        let options = LogOptions { durability: case.durability, ..LogOptions::default() };
        let count = if case.layout == Layout::Shared { 1 } else { case.partitions };
        let open = |n: usize| {
            let dir = dir.join(format!("log{n}"));
            let opened = SharedLog::open(disk, &dir, &options, (n as u64, 1), &[], &mut Deaf);
            opened.expect("a log").log
        };
        Self {
            logs: (0..count).map(open).collect(),
            decrees: vec![0; case.partitions],
            batches: (0..count).map(|_| LogBatch::new()).collect(),
            body: Bytes::from(vec![b'x'; BODY_BYTES]),
        }
    }

    /// One turn: the records of its mutations are appended and, if need be, synced.
    fn turn(&mut self, writes: &[usize], sync: bool) {
        for (partition, count) in writes.iter().enumerate().filter(|(_, count)| **count > 0) {
            self.decrees[partition] += 1;
            let decree = Decree(self.decrees[partition]);
            let request = || ClientRequest { code: &RPC_BENCH_PUT, body: self.body.clone() };
            let mutation = Mutation {
                gpid: Gpid::new(1, partition as i32),
                ballot: Ballot(1),
                decree,
                last_committed: decree.prev(),
                timestamp_us: decree.0 as u64,
                stamp: 0,
                requests: (0..*count).map(|_| request()).collect(),
            };
            let log = if self.logs.len() == 1 { 0 } else { partition };
            self.batches[log].mutation(&mutation);
        }
        let mut dirty = Vec::new();
        for (log, batch) in self.logs.iter().zip(&mut self.batches) {
            if batch.is_empty() {
                continue;
            }
            let _ = log.append(batch).expect("appended");
            if log.claim_spare() {
                log.make_spare(1).expect("a file");
            }
            dirty.push(log.clone());
        }
        if sync {
            sync_all(&dirty);
        }
    }
}

fn sync_all(logs: &[Arc<SharedLog>]) {
    let sync = |log: &Arc<SharedLog>| log.sync_now(SyncScope::All).expect("synced");
    if let [one] = logs {
        return sync(one);
    }
    let share = logs.len().div_ceil(SYNC_THREADS);
    std::thread::scope(|scope| {
        for part in logs.chunks(share) {
            scope.spawn(move || part.iter().for_each(sync));
        }
    });
}

/// CPU seconds of this process, in user and kernel mode.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("/proc");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|text| text.parse().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}

fn measure(case: &Case, dir: &Path) {
    let counts = Arc::new(Counts::default());
    let disk: Arc<dyn Disk> = Arc::new(Counted { disk: OsDisk, counts: counts.clone() });
    let mut logs = Logs::open(case, &disk, dir);
    let mut rng = Rng::new(7);
    let sync = case.durability == Durability::GroupSync;
    let limit = if sync { SYNC_TIME } else { OS_TIME };
    let read = || (counts.writes.load(Ordering::Relaxed), counts.syncs.load(Ordering::Relaxed));
    let (before, cpu, begun) = (read(), cpu_seconds(), Instant::now());
    let mut writes = 0;
    while begun.elapsed() < limit {
        let mut turn = vec![0; case.partitions];
        (0..case.writes_per_turn).for_each(|_| turn[rng.index(case.partitions)] += 1);
        logs.turn(&turn, sync);
        writes += case.writes_per_turn as u64;
    }
    let (seconds, after) = (begun.elapsed().as_secs_f64(), read());
    let cpu = cpu_seconds() - cpu;
    let per_thousand = |count: u64| count as f64 * 1000.0 / writes as f64;
    println!(
        "{:<11} {:>10} {:<10} {:>11} {:>10.0} {:>13.1} {:>13.1} {:>13.2}",
        format!("{:?}", case.layout),
        case.partitions,
        format!("{:?}", case.durability),
        case.writes_per_turn,
        writes as f64 / seconds,
        per_thousand(after.0 - before.0),
        per_thousand(after.1 - before.1),
        cpu * 1e6 / writes as f64,
    );
}

fn main() {
    dsn_core::code::register(CODES);
    let given = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let base = given.map_or_else(std::env::temp_dir, PathBuf::from);
    println!(
        "{:<11} {:>10} {:<10} {:>11} {:>10} {:>13} {:>13} {:>13}",
        "layout",
        "partitions",
        "durability",
        "writes/turn",
        "writes/s",
        "calls/1000 w",
        "syncs/1000 w",
        "CPU us/write",
    );
    for durability in [Durability::Os, Durability::GroupSync] {
        for partitions in [8, 200] {
            for writes_per_turn in [1, 16, 256] {
                for layout in [Layout::Shared, Layout::PerReplica] {
                    let case = Case { layout, partitions, durability, writes_per_turn };
                    let dir = base.join(format!("dsn-log-bench-{}", std::process::id()));
                    measure(&case, &dir);
                    OsDisk.remove_dir_all(&dir).expect("the folder can be removed");
                }
            }
        }
    }
}
