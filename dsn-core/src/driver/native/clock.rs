//! The system's clocks.

use crate::time::{Mono, Wall};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Monotonic time counts from the making of the first clock, plus one second: zero stays "never".
#[derive(Clone, Copy, Debug)]
pub struct NativeClock {
    origin: Instant,
}

impl NativeClock {
    /// A clock that starts now. Clones agree.
    #[expect(clippy::disallowed_methods, reason = "the driver is where the clock is read")]
    pub fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// Nanoseconds since the start, plus one second.
    pub fn now(&self) -> Mono {
        Mono::from_nanos(1_000_000_000 + self.origin.elapsed().as_nanos() as u64)
    }

    /// The wall clock.
    #[expect(clippy::disallowed_methods, reason = "the driver is where the clock is read")]
    pub fn wall(&self) -> Wall {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Wall::from_unix_nanos(since.as_nanos() as u64)
    }
}
