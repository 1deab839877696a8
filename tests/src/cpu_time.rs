//! How long the calling thread, or a process, has run.

use std::time::Duration;

/// Time that the kernel has given a core to the calling thread, waiting for one excluded: what a figure "per core" is
/// of, however many others want the cores.
///
/// # Panics
/// Where `/proc/thread-self/schedstat` cannot be read.
#[must_use]
pub fn of_this_thread() -> Duration {
    let text =
        std::fs::read_to_string("/proc/thread-self/schedstat").expect("a kernel that counts");
    let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.expect("nanoseconds on a core"))
}

/// The same of all threads of a process that there are now.
///
/// # Panics
/// When there is no such process.
#[must_use]
pub fn of_process(pid: u32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let nanos = tasks.filter_map(|task| {
        let stat = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        stat.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}
