//! The profiler: how often events of a code ran, how long they waited and how long they took.

use crate::code::{Code, registered};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Most codes a profiler distinguishes; later ones are not counted.
const CODES_MAX: usize = 1024;

#[derive(Debug, Default)]
struct Cell {
    enqueued: AtomicU64,
    count: AtomicU64,
    queue_ns: AtomicU64,
    exec_ns: AtomicU64,
    exec_max_ns: AtomicU64,
}

/// Per-code counts and times.
#[derive(Debug, Default)]
pub struct Profiler {
    cells: OnceLock<Vec<Cell>>,
}

/// One line of the profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileRow {
    /// The code.
    pub code: &'static str,
    /// Events put into queues.
    pub enqueued: u64,
    /// Events run.
    pub count: u64,
    /// Mean time in queues, in ns.
    pub queue_ns_mean: u64,
    /// Mean run time, in ns.
    pub exec_ns_mean: u64,
    /// Longest run time, in ns.
    pub exec_ns_max: u64,
}

impl Profiler {
    fn cell(&self, code: Code) -> Option<&Cell> {
        self.cells
            .get_or_init(|| (0..CODES_MAX).map(|_| Cell::default()).collect())
            .get(code.index())
    }

    pub(crate) fn enqueued(&self, code: Code) {
        if let Some(cell) = self.cell(code) {
            cell.enqueued.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn begun(&self, code: Code, waited: Duration) {
        if let Some(cell) = self.cell(code) {
            cell.queue_ns.fetch_add(waited.as_nanos() as u64, Ordering::Relaxed);
        }
    }

    pub(crate) fn ended(&self, code: Code, took: Duration) {
        if let Some(cell) = self.cell(code) {
            let took = took.as_nanos() as u64;
            cell.count.fetch_add(1, Ordering::Relaxed);
            cell.exec_ns.fetch_add(took, Ordering::Relaxed);
            cell.exec_max_ns.fetch_max(took, Ordering::Relaxed);
        }
    }

    /// Codes that ran, the most total time first.
    pub fn rows(&self) -> Vec<ProfileRow> {
        let mut rows: Vec<(u64, ProfileRow)> = registered()
            .into_iter()
            .filter_map(|code| {
                let cell = self.cells.get()?.get(code.index())?;
                let count = cell.count.load(Ordering::Relaxed);
                let enqueued = cell.enqueued.load(Ordering::Relaxed);
                let exec = cell.exec_ns.load(Ordering::Relaxed);
                (count + enqueued > 0).then(|| {
                    let mean = |total: u64| total / count.max(1);
                    let row = ProfileRow {
                        code: code.name(),
                        enqueued,
                        count,
                        queue_ns_mean: mean(cell.queue_ns.load(Ordering::Relaxed)),
                        exec_ns_mean: mean(exec),
                        exec_ns_max: cell.exec_max_ns.load(Ordering::Relaxed),
                    };
                    (exec, row)
                })
            })
            .collect();
        rows.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.code.cmp(b.1.code)));
        rows.into_iter().map(|(_, row)| row).collect()
    }
}
