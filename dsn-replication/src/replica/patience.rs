//! How long a member may take to answer before the others go on without it.
//!
//! The limit of the configuration is for members of which nothing is known. Of a member that has answered for a while
//! it is known how long it takes: the smoothed time and its deviation, as TCP does for its resends (RFC 6298). One that
//! takes many times as long as that is stopped, cut off or dead, and need not be waited for as long as a slow one.

use dsn_core::time::Mono;
use std::time::Duration;

/// Answers after which the times count.
const SAMPLES_MIN: u32 = 16;
/// How many times as long as expected an answer may take.
const FACTOR: u32 = 8;

/// What is known of a member's answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patience {
    smoothed: Duration,
    deviation: Duration,
    samples: u32,
    /// The message that is being timed, and when it left.
    timed: Option<(u64, Mono)>,
}

impl Patience {
    /// Message `seq` leaves.
    pub fn sent(&mut self, seq: u64, now: Mono) {
        if self.timed.is_none() {
            self.timed = Some((seq, now));
        }
    }

    /// Everything up to message `seq` was answered.
    pub fn answered(&mut self, seq: u64, now: Mono) {
        let Some((_, sent)) = self.timed.take_if(|(timed, _)| *timed <= seq) else { return };
        let took = now.saturating_since(sent);
        if self.samples == 0 {
            (self.smoothed, self.deviation) = (took, took / 2);
        } else {
            self.deviation = (3 * self.deviation + self.smoothed.abs_diff(took)) / 4;
            self.smoothed = (7 * self.smoothed + took) / 8;
        }
        self.samples = self.samples.saturating_add(1);
    }

    /// How long to wait: between `least` and `most`, `most` while too little is known.
    pub fn limit(&self, least: Duration, most: Duration) -> Duration {
        if self.samples < SAMPLES_MIN {
            return most;
        }
        let expected = self.smoothed + 4 * self.deviation;
        expected.saturating_mul(FACTOR).max(least).min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: Duration = Duration::from_millis(500);
    const MOST: Duration = Duration::from_secs(3);

    fn at(millis: u64) -> Mono {
        Mono::from_nanos(millis * 1_000_000)
    }

    fn after(answers: impl IntoIterator<Item = u64>) -> Duration {
        let (mut patience, mut now) = (Patience::default(), 0);
        for (seq, took) in answers.into_iter().enumerate() {
            patience.sent(seq as u64, at(now));
            patience.sent(1_000, at(now + 1));
            patience.answered(seq as u64, at(now + took));
            now += took + 10;
        }
        patience.limit(LEAST, MOST)
    }

    #[test]
    fn it_follows_what_is_known_between_the_limits() {
        assert_eq!(after([1; 15]), MOST, "too little is known");
        assert_eq!(after([1; 16]), LEAST);
        let steady = after([100; 40]);
        assert!(
            steady > Duration::from_millis(790) && steady < Duration::from_millis(900),
            "{steady:?}"
        );
        assert_eq!(after((0..60).map(|n| if n % 2 == 0 { 5 } else { 400 })), MOST, "restless");
        assert_eq!(after([2_000; 40]), MOST);
    }

    #[test]
    fn one_message_is_timed_at_a_time_and_only_by_its_own_answer() {
        let mut patience = Patience::default();
        patience.sent(5, at(0));
        patience.answered(4, at(100));
        assert_eq!(patience.samples, 0);
        patience.sent(6, at(200));
        patience.answered(6, at(300));
        assert_eq!((patience.samples, patience.smoothed), (1, Duration::from_millis(300)));
    }
}
