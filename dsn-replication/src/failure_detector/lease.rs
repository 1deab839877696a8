//! The lease of a replica server: one number that many threads read.
//!
//! Whoever answers a read or acknowledges a write compares it with a clock that was read *then*, so a paused process
//! cannot serve on the strength of an old look.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dsn_core::time::Mono;

/// A time that has always passed, and that no lease ends at otherwise.
const ENDED: u64 = 1;

/// Until when this server may serve. Clones show the same lease.
#[derive(Clone, Debug, Default)]
pub struct Lease {
    until: Arc<AtomicU64>,
}

impl Lease {
    /// A lease that has not begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// A lease that never ends, for servers without a meta server and for tests.
    pub fn endless() -> Self {
        let lease = Self::default();
        lease.extend(Mono::NEVER);
        lease
    }

    /// Whether the server may serve at `now`, which must have been read just before.
    #[inline]
    pub fn holds(&self, now: Mono) -> bool {
        now.nanos() < self.until.load(Ordering::Acquire)
    }

    /// Until when it holds; at most a nanosecond after the clock's zero when it never began, was given up or has ended.
    pub fn until(&self) -> Mono {
        Mono::from_nanos(self.until.load(Ordering::Acquire))
    }

    /// Makes it hold at least until `until`, unless it has ended for good.
    pub(crate) fn extend(&self, until: Mono) {
        self.change(|old| old.max(until.nanos()));
    }

    /// Ends it now; it may begin anew.
    pub(crate) fn give_up(&self) {
        self.change(|_| 0);
    }

    /// Ends it for good: this server serves no more.
    pub(crate) fn end(&self) {
        self.until.store(ENDED, Ordering::Release);
    }

    fn change(&self, to: impl Fn(u64) -> u64) {
        let to = |old| (old != ENDED).then(|| to(old));
        let _ = self.until.fetch_update(Ordering::AcqRel, Ordering::Acquire, to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_extended_and_never_shortened_but_given_up() {
        let lease = Lease::new();
        let reader = lease.clone();
        assert!(!reader.holds(Mono::ZERO));
        lease.extend(Mono::from_nanos(10));
        lease.extend(Mono::from_nanos(5));
        assert!(reader.holds(Mono::from_nanos(9)));
        assert!(!reader.holds(Mono::from_nanos(10)));
        lease.give_up();
        assert!(!reader.holds(Mono::ZERO));
        lease.extend(Mono::from_nanos(20));
        assert!(reader.holds(Mono::from_nanos(19)), "it begins anew");
        lease.end();
        lease.extend(Mono::NEVER);
        lease.give_up();
        lease.extend(Mono::NEVER);
        assert!(!reader.holds(Mono::from_nanos(1)), "it has ended for good");
        assert!(Lease::endless().holds(Mono::from_nanos(u64::MAX - 1)));
    }
}
