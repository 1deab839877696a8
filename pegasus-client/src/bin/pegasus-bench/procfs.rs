//! CPU time, context switches and memory of processes, read from `/proc`.
//!
//! CPU time is the sum of the threads' run times (`schedstat`, nanoseconds). When a thread has
//! ended in between, or the system keeps no such account, it is `utime + stime` of the process, in
//! hundredths of a second.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

/// Ticks per second of the times in `/proc/PID/stat`: fixed in the kernel's interface to programs.
const TICKS_PER_SECOND: u64 = 100;

/// One look at a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Process.
    pub pid: u32,
    /// Its short name.
    pub name: String,
    /// Run time of each thread, nanoseconds; empty when the system does not tell.
    threads: BTreeMap<u32, u64>,
    ticks: u64,
    voluntary: u64,
    involuntary: u64,
    rss: u64,
}

/// What a process used between two looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Process.
    pub pid: u32,
    /// Its short name.
    pub name: String,
    /// CPU time.
    pub cpu: Duration,
    /// Whether the CPU time is exact; otherwise in steps of 10 ms.
    pub exact: bool,
    /// Context switches because it waited.
    pub voluntary: u64,
    /// Context switches because its time was over.
    pub involuntary: u64,
    /// Resident memory at the end, bytes.
    pub rss: u64,
    /// Threads at the end.
    pub threads: usize,
}

#[expect(clippy::disallowed_methods, reason = "/proc belongs to no node and is not on a disk")]
fn read(path: &str) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&std::fs::read(path)?).into_owned())
}

fn numbers_in(dir: &str) -> io::Result<Vec<u32>> {
    let names =
        std::fs::read_dir(dir)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut numbers: Vec<u32> = names.filter_map(|name| name.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Threads of a process.
///
/// # Errors
/// When there is no such process.
pub fn threads(pid: u32) -> io::Result<Vec<u32>> {
    numbers_in(&format!("/proc/{pid}/task"))
}

/// Looks at a process.
///
/// # Errors
/// When there is no such process.
pub fn sample(pid: u32) -> io::Result<Sample> {
    let stat = read(&format!("/proc/{pid}/stat"))?;
    let (name, ticks) = parse_stat(&stat)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/PID/stat"))?;
    let mut sample =
        Sample { pid, name, threads: BTreeMap::new(), ticks, voluntary: 0, involuntary: 0, rss: 0 };
    for tid in threads(pid)? {
        // Threads may end while we look.
        let Ok(status) = read(&format!("/proc/{pid}/task/{tid}/status")) else { continue };
        sample.voluntary += field(&status, "voluntary_ctxt_switches:");
        sample.involuntary += field(&status, "nonvoluntary_ctxt_switches:");
        sample.rss = sample.rss.max(field(&status, "VmRSS:") * 1024);
        let times = read(&format!("/proc/{pid}/task/{tid}/schedstat")).unwrap_or_default();
        if let Some(run) = times.split_whitespace().next().and_then(|word| word.parse().ok()) {
            sample.threads.insert(tid, run);
        }
    }
    Ok(sample)
}

/// Looks at several processes; those that are gone are left out.
pub fn sample_all(pids: &[u32]) -> Vec<Sample> {
    pids.iter().filter_map(|&pid| sample(pid).ok()).collect()
}

fn parse_stat(stat: &str) -> Option<(String, u64)> {
    let (head, tail) = stat.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let fields: Vec<&str> = tail.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some((name.to_owned(), ticks))
}

fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

impl Sample {
    /// What the process used from this look to a later one.
    pub fn until(&self, later: &Self) -> Usage {
        let ended = self.threads.keys().any(|tid| !later.threads.contains_key(tid));
        let exact = !ended && !later.threads.is_empty();
        let cpu = if exact {
            let run = |(tid, at): (&u32, &u64)| {
                at.saturating_sub(self.threads.get(tid).copied().unwrap_or(0))
            };
            Duration::from_nanos(later.threads.iter().map(run).sum())
        } else {
            let ticks = later.ticks.saturating_sub(self.ticks);
            Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
        };
        Usage {
            pid: later.pid,
            name: later.name.clone(),
            cpu,
            exact,
            voluntary: later.voluntary.saturating_sub(self.voluntary),
            involuntary: later.involuntary.saturating_sub(self.involuntary),
            rss: later.rss,
            threads: later.threads.len().max(1),
        }
    }
}

/// What each process of `before` used until `after`.
pub fn usages(before: &[Sample], after: &[Sample]) -> Vec<Usage> {
    let later = |sample: &Sample| after.iter().find(|other| other.pid == sample.pid);
    before.iter().filter_map(|sample| Some(sample.until(later(sample)?))).collect()
}

/// Processes of that name: the short name, or the file name of the program.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn find(name: &str) -> io::Result<Vec<u32>> {
    let own = std::process::id();
    let is_it = |pid: &u32| {
        let short = read(&format!("/proc/{pid}/comm")).unwrap_or_default();
        let line = read(&format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let program = line.split('\0').next().unwrap_or_default();
        *pid != own && (short.trim_end() == name || program.rsplit('/').next() == Some(name))
    };
    Ok(numbers_in("/proc")?.into_iter().filter(is_it).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_hold_anything() {
        let stat = "12 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 30 12 0 0 20 0 1 0 0 0";
        assert_eq!(parse_stat(stat), Some(("a) b (c".into(), 42)));
        assert_eq!(parse_stat("nonsense"), None);
    }

    #[test]
    fn a_busy_process_uses_cpu_time() {
        let pid = std::process::id();
        let before = sample(pid).unwrap();
        let mut after = sample(pid).unwrap();
        let mut sum = 0u64;
        while before.until(&after).cpu < Duration::from_millis(20) {
            sum = (0..1_000_000u64).fold(sum, |sum, n| sum.wrapping_mul(31).wrapping_add(n));
            after = sample(pid).unwrap();
        }
        let usage = before.until(&after);
        assert!(usage.rss > 100_000 && usage.threads >= 1, "{usage:?} {sum}");
        assert!(sample(u32::MAX).is_err());
    }

    #[test]
    fn ended_threads_make_the_coarse_account_count() {
        let look = |threads: &[(u32, u64)], ticks| Sample {
            pid: 1,
            name: "x".into(),
            threads: threads.iter().copied().collect(),
            ticks,
            voluntary: 5,
            involuntary: 0,
            rss: 0,
        };
        let usage = look(&[(1, 100), (2, 50)], 7).until(&look(&[(1, 300), (2, 60), (3, 9)], 9));
        assert_eq!((usage.cpu.as_nanos(), usage.exact), (219, true));
        let usage = look(&[(1, 100), (2, 50)], 7).until(&look(&[(1, 300)], 9));
        assert_eq!((usage.cpu.as_millis(), usage.exact), (20, false));
    }
}
