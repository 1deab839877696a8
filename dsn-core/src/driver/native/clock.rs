//! The system's clocks.

use crate::time::{Mono, NANOS_PER_SECOND, Wall};
use rustix::time::{ClockId, clock_gettime};
use std::time::{SystemTime, UNIX_EPOCH};

/// Monotonic time counts from the making of the first clock, plus one second: zero stays "never".
///
/// It is the system's boot-time clock, which goes on while the machine sleeps: `CLOCK_MONOTONIC` stands still then,
/// and a lease that is measured with it would outlive its end by as long as the machine slept.
#[derive(Clone, Copy, Debug)]
pub struct NativeClock {
    origin: u64,
}

fn boot_nanos() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec as u64 * NANOS_PER_SECOND + time.tv_nsec as u64
}

impl NativeClock {
    /// A clock that starts now. Clones agree.
    pub fn start() -> Self {
        Self { origin: boot_nanos() }
    }

    /// Nanoseconds since the start, plus one second.
    pub fn now(&self) -> Mono {
        Mono::from_nanos(NANOS_PER_SECOND + boot_nanos().saturating_sub(self.origin))
    }

    /// The wall clock.
    #[expect(clippy::disallowed_methods, reason = "the driver is where the clock is read")]
    pub fn wall(&self) -> Wall {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Wall::from_unix_nanos(since.as_nanos() as u64)
    }
}
