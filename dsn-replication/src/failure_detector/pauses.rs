//! Notices that this process did not run: it was stopped, its machine slept or had no time for it.

use dsn_core::time::Mono;
use std::time::Duration;

/// Looks that should come at a steady pace.
#[derive(Debug)]
pub(super) struct Pauses {
    every: Duration,
    last: Mono,
}

impl Pauses {
    /// From `now` on there is a look after each `every`.
    pub fn new(every: Duration, now: Mono) -> Self {
        Self { every, last: now }
    }

    /// A look. When it comes a whole pace late or later: for how long the process did not run. Told to the operator.
    pub fn look(&mut self, now: Mono) -> Option<Duration> {
        let gap = now.saturating_since(std::mem::replace(&mut self.last, now));
        let missed = (gap > self.every * 2).then(|| gap - self.every)?;
        tracing::warn!(?missed, "this process did not run for a while");
        Some(missed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_is_late_tells_for_how_long() {
        let at = |seconds: u64| Mono::from_nanos(seconds * 1_000_000_000);
        let mut pauses = Pauses::new(Duration::from_secs(2), at(10));
        assert_eq!(pauses.look(at(12)), None);
        assert_eq!(pauses.look(at(16)), None, "a little late");
        assert_eq!(pauses.look(at(21)), Some(Duration::from_secs(3)));
        assert_eq!(pauses.look(at(23)), None, "told once");
    }
}
