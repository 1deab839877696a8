//! What can go wrong with a disk that stays powered.

use crate::rng::Rng;
use crate::time::nanos_of;
use std::io;
use std::time::Duration;

/// "Input/output error".
const EIO: i32 = 5;

/// A kind of operation that a fault may hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskOp {
    /// Reading bytes.
    Read,
    /// Writing bytes; some of them may have been written.
    Write,
    /// Syncing a file; what was to become durable never will.
    Sync,
}

/// A lasting fault of a disk. The path of a directory that is synced ends in `/.`, so that it can be told from what is
/// below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// One operation in `one_in` fails with an input/output error, on files whose path contains `path`.
    Fail {
        /// Which operations.
        op: DiskOp,
        /// 1 for always.
        one_in: u64,
        /// Part of the path; empty for all files.
        path: String,
    },
    /// Syncs report success and do nothing, on files whose path contains `path`. Real disks do this; no software
    /// without copies elsewhere survives it.
    Lie {
        /// Part of the path; empty for all files.
        path: String,
    },
    /// Everything takes `factor` times as long, on files whose path contains `path`.
    Slow {
        /// 1 for no change.
        factor: u64,
        /// Part of the path; empty for all files.
        path: String,
    },
    /// No operation ends before the fault does, or before this much time has passed, on files whose path contains
    /// `path`.
    Stuck {
        /// Longest time.
        limit: Duration,
        /// Part of the path; empty for all files.
        path: String,
    },
    /// No space is left for files whose path contains `path`.
    Full {
        /// Part of the path; empty for all files.
        path: String,
    },
    /// No sync ends before this much time has passed, on files whose path contains `path`; everything else goes on.
    HungSync {
        /// Longest time.
        limit: Duration,
        /// Part of the path; empty for all files.
        path: String,
    },
}

/// Names one lasting fault of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskFaultId(u64);

#[derive(Clone, Debug)]
struct Active {
    id: DiskFaultId,
    since: u64,
    fault: DiskFault,
    /// Each fault has a stream of its own: taking one away shifts no other's decisions.
    rng: Rng,
}

/// The faults of one disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    active: Vec<Active>,
    next: u64,
}

impl Faults {
    pub(super) fn add(&mut self, fault: DiskFault, now: u64, seed: u64, name: &str) -> DiskFaultId {
        self.next += 1;
        let id = DiskFaultId(self.next);
        let rng = Rng::stream(seed ^ now, name, "disk fault", 0);
        self.active.push(Active { id, since: now, fault, rng });
        id
    }

    pub(super) fn remove(&mut self, id: DiskFaultId) {
        self.active.retain(|active| active.id != id);
    }

    pub(super) fn clear(&mut self) {
        self.active.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.active.is_empty()
    }

    /// Whether this operation fails.
    pub(super) fn fails(&mut self, op: DiskOp, path: &str) -> io::Result<()> {
        for active in &mut self.active {
            if let DiskFault::Fail { op: wanted, one_in, path: part } = &active.fault
                && *wanted == op
                && path.contains(part.as_str())
                && active.rng.ratio(1, *one_in)
            {
                return Err(io::Error::from_raw_os_error(EIO));
            }
        }
        Ok(())
    }

    pub(super) fn lies(&self, path: &str) -> bool {
        self.active.iter().any(
            |active| matches!(&active.fault, DiskFault::Lie { path: part } if path.contains(part.as_str())),
        )
    }

    pub(super) fn full(&self, path: &str) -> bool {
        self.active.iter().any(
            |active| matches!(&active.fault, DiskFault::Full { path: part } if path.contains(part.as_str())),
        )
    }

    /// How long a sync takes at least.
    pub(super) fn hangs(&self, path: &str, now: u64) -> u64 {
        let left = |active: &Active| match &active.fault {
            DiskFault::HungSync { limit, path: part } if path.contains(part.as_str()) => {
                (active.since + nanos_of(*limit)).saturating_sub(now)
            }
            _ => 0,
        };
        self.active.iter().map(left).max().unwrap_or(0)
    }

    /// How long an operation takes that would normally take `cost` ns.
    pub(super) fn slowed(&self, mut cost: u64, path: &str, now: u64) -> u64 {
        let mut stuck = 0;
        for active in &self.active {
            match &active.fault {
                DiskFault::Slow { factor, path: part } if path.contains(part.as_str()) => {
                    cost = cost.saturating_mul(*factor);
                }
                DiskFault::Stuck { limit, path: part } if path.contains(part.as_str()) => {
                    stuck = stuck.max((active.since + nanos_of(*limit)).saturating_sub(now));
                }
                _ => {}
            }
        }
        // Waiting for a disk that does not answer takes no longer because it is slow as well.
        cost.max(stuck)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stuck_disk_answers_when_it_is_free_again_however_slow_it_is() {
        let (stuck, slow) = (
            DiskFault::Stuck { limit: Duration::from_secs(7), path: String::new() },
            DiskFault::Slow { factor: 50, path: String::new() },
        );
        let second = nanos_of(Duration::from_secs(1));
        for order in [[stuck.clone(), slow.clone()], [slow.clone(), stuck.clone()]] {
            let mut faults = Faults::default();
            for fault in order {
                faults.add(fault, second, 1, "disk");
            }
            assert_eq!(faults.slowed(1_000, "/data", 2 * second), 6 * second);
            assert_eq!(faults.slowed(second, "/data", 2 * second), 50 * second);
        }
    }
}
