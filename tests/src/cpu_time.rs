//! How long the calling thread has run.

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
