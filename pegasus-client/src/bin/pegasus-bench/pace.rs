//! Open loop: when operations are due, whatever the server does.
//!
//! Operation `i` is due at `start + i / rate`. That time, not the time when a connection was free
//! to take it, is where its latency begins; otherwise a stalled server would be asked less while it
//! stalls and look fast. Operations that are due and not yet sent are the backlog; when it is full
//! the oldest are given up and counted as missed.

use crate::args::OpenLoop;
use dsn_core::time::{Mono, NANOS_PER_SECOND};

/// The schedule of one phase.
#[derive(Debug)]
pub struct Pace {
    start: u64,
    nanos_each: f64,
    backlog_limit: u64,
    /// Operations sent or given up.
    taken: u64,
    missed: u64,
    backlog_most: u64,
}

impl Pace {
    /// A schedule whose first operation is due at `start`.
    pub fn new(open_loop: OpenLoop, start: Mono) -> Self {
        Self {
            start: start.nanos(),
            nanos_each: NANOS_PER_SECOND as f64 / open_loop.rate,
            backlog_limit: open_loop.backlog,
            taken: 0,
            missed: 0,
            backlog_most: 0,
        }
    }

    fn due_at(&self, index: u64) -> u64 {
        self.start + (index as f64 * self.nanos_each) as u64
    }

    /// How many operations are due before or at `now`.
    fn due(&self, now: u64) -> u64 {
        match now.checked_sub(self.start) {
            None => 0,
            Some(passed) => {
                // One step of correction each way for the rounding of the quotient.
                let mut count = (passed as f64 / self.nanos_each) as u64 + 1;
                if self.due_at(count) <= now {
                    count += 1;
                }
                while count > 0 && self.due_at(count - 1) > now {
                    count -= 1;
                }
                count
            }
        }
    }

    /// Gives up what does not fit into the backlog. `free` is how many could be sent at once.
    pub fn trim(&mut self, now: Mono, free: u64) {
        let waiting = self.due(now.nanos()).saturating_sub(self.taken);
        let excess = waiting.saturating_sub(self.backlog_limit.saturating_add(free));
        self.taken += excess;
        self.missed += excess;
        self.backlog_most = self.backlog_most.max((waiting - excess).saturating_sub(free));
    }

    /// Takes the next operation that is due; returns when it was due.
    pub fn take(&mut self, now: Mono) -> Option<Mono> {
        let at = self.due_at(self.taken);
        (at <= now.nanos()).then(|| {
            self.taken += 1;
            Mono::from_nanos(at)
        })
    }

    /// When the next operation is due.
    pub fn next_at(&self) -> Mono {
        Mono::from_nanos(self.due_at(self.taken))
    }

    /// Operations given up, and the largest backlog.
    pub fn losses(&self) -> (u64, u64) {
        (self.missed, self.backlog_most)
    }

    /// Operations that were due before `now` and were not sent.
    pub fn unsent(&self, now: Mono) -> u64 {
        self.due(now.nanos()).saturating_sub(self.taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Mono {
        Mono::from_nanos(n * 1_000_000)
    }

    #[test]
    fn operations_are_due_at_their_times() {
        let mut pace = Pace::new(OpenLoop { rate: 1000.0, backlog: 10 }, ms(5));
        assert_eq!(pace.take(ms(4)), None);
        assert_eq!(pace.take(ms(5)), Some(ms(5)));
        assert_eq!(pace.take(ms(5)), None);
        assert_eq!(pace.next_at(), ms(6));
        // Late by three: the intended times come back, not the time of asking.
        assert_eq!(pace.take(ms(9)), Some(ms(6)));
        assert_eq!(pace.take(ms(9)), Some(ms(7)));
        assert_eq!(pace.unsent(ms(9)), 2);
    }

    #[test]
    fn a_full_backlog_gives_up_the_oldest_and_counts_them() {
        let mut pace = Pace::new(OpenLoop { rate: 1000.0, backlog: 10 }, ms(0));
        pace.trim(ms(99), 5);
        assert_eq!(pace.losses(), (85, 10));
        assert_eq!(pace.take(ms(99)), Some(ms(85)));
        for _ in 0..14 {
            assert!(pace.take(ms(99)).is_some());
        }
        assert_eq!(pace.take(ms(99)), None);
        pace.trim(ms(99), 0);
        assert_eq!(pace.losses().0, 85);
    }

    #[test]
    fn odd_rates_do_not_drift() {
        let mut pace = Pace::new(OpenLoop { rate: 333_333.3, backlog: u64::MAX }, ms(0));
        let mut sent = 0;
        for at in 1..=3000 {
            while pace.take(ms(at)).is_some() {
                sent += 1;
            }
            assert_eq!(pace.unsent(ms(at)), 0);
        }
        assert_eq!(sent, 1_000_000);
    }
}
