//! How fast checkpoints may be copied from or to a disk. Pure: time is an argument, and nobody sleeps.

use dsn_core::time::{Mono, NANOS_PER_SECOND};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// A bucket of tokens, one for each byte, that never holds more than what is asked for at once: whoever books gets
/// a moment that keeps the rate, however much was booked before.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Bytes per second; 0 for no limit.
    bytes_per_second: u64,
    /// When everything booked so far is through.
    free_at: Mono,
}

/// One that several copies share.
pub type SharedRate = Arc<Mutex<Rate>>;

impl Rate {
    /// So many MiB per second; 0 for no limit.
    #[must_use]
    pub fn mib(per_second: u32) -> Self {
        Self { bytes_per_second: u64::from(per_second) << 20, free_at: Mono::ZERO }
    }

    /// Books `bytes` and tells after which pause they may go; nothing when that would be longer than `most`.
    pub fn book(&mut self, bytes: u64, now: Mono, most: Duration) -> Option<Duration> {
        if self.bytes_per_second == 0 {
            return Some(Duration::ZERO);
        }
        let begin = self.free_at.max(now);
        let pause = begin.saturating_since(now);
        if pause > most {
            return None;
        }
        let nanos = u128::from(bytes) * u128::from(NANOS_PER_SECOND);
        let nanos = nanos / u128::from(self.bytes_per_second);
        self.free_at = begin + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Mono {
        Mono::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn what_is_booked_keeps_the_rate_whoever_books() {
        const MOST: Duration = Duration::from_secs(2);
        let mut rate = Rate::mib(1);
        let book = |rate: &mut Rate, now| rate.book(1 << 20, at(now), MOST);
        assert_eq!(book(&mut rate, 5_000), Some(Duration::ZERO), "an idle disk begins at once");
        assert_eq!(book(&mut rate, 5_000), Some(Duration::from_secs(1)));
        assert_eq!(book(&mut rate, 5_500), Some(Duration::from_millis(1_500)));
        assert_eq!(book(&mut rate, 5_500), None, "too far ahead, and not booked");
        assert_eq!(book(&mut rate, 6_000), Some(Duration::from_secs(2)));
        assert_eq!(book(&mut rate, 60_000), Some(Duration::ZERO), "nothing is saved up");
        let mut open = Rate::mib(0);
        assert!((0..100).all(|_| book(&mut open, 0) == Some(Duration::ZERO)));
    }
}
