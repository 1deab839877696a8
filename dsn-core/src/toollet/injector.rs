//! The fault injector: drops, delays and fails messages by code, with given odds.

use super::Verdict;
use crate::code::Code;
use crate::time::nanos_of;
use parking_lot::RwLock;
use std::time::Duration;

/// What may befall messages of one code. Odds are in millionths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultRule {
    /// Code name, or `*`.
    pub code: String,
    /// Odds of a drop.
    pub drop_ppm: u32,
    /// Odds of a failure.
    pub fail_ppm: u32,
    /// Odds of a delay.
    pub delay_ppm: u32,
    /// Shortest and longest delay.
    pub delay: (Duration, Duration),
}

/// The rules of one node.
#[derive(Debug, Default)]
pub struct Injector {
    rules: RwLock<Vec<FaultRule>>,
}

impl Injector {
    /// Replaces the rules.
    pub fn set(&self, rules: Vec<FaultRule>) {
        *self.rules.write() = rules;
    }

    /// Decides with a random number; the first rule that fits the code counts.
    pub fn roll(&self, code: Code, roll: u64) -> Verdict {
        let rules = self.rules.read();
        let Some(rule) = rules.iter().find(|r| r.code == "*" || r.code == code.name()) else {
            return Verdict::Proceed;
        };
        // Low and high part of a number are as good as two numbers.
        let (rest, roll) = (roll / 1_000_000, (roll % 1_000_000) as u32);
        if roll < rule.drop_ppm {
            Verdict::Drop
        } else if roll < rule.drop_ppm + rule.fail_ppm {
            Verdict::Fail
        } else if roll < rule.drop_ppm + rule.fail_ppm + rule.delay_ppm {
            let (shortest, longest) = (nanos_of(rule.delay.0), nanos_of(rule.delay.1));
            let more = rest % longest.saturating_sub(shortest).saturating_add(1);
            Verdict::Delay(Duration::from_nanos(shortest.saturating_add(more)))
        } else {
            Verdict::Proceed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    crate::task_codes! {
        CODES;
        LPC_FAULTY: Compute, Common, "THREAD_POOL_DEFAULT";
        LPC_SOUND: Compute, Common, "THREAD_POOL_DEFAULT";
    }

    #[test]
    fn odds_and_delays_are_as_configured() {
        let (shortest, longest) = (Duration::from_millis(1), Duration::from_millis(3));
        let injector = Injector::default();
        injector.set(vec![FaultRule {
            code: CODES[0].name().into(),
            drop_ppm: 100_000,
            fail_ppm: 200_000,
            delay_ppm: 300_000,
            delay: (shortest, longest),
        }]);
        let mut rng = Rng::new(5);
        let (mut dropped, mut failed, mut delays) = (0, 0, Vec::new());
        for _ in 0..10_000 {
            assert_eq!(injector.roll(&LPC_SOUND, rng.next_u64()), Verdict::Proceed);
            match injector.roll(&LPC_FAULTY, rng.next_u64()) {
                Verdict::Drop => dropped += 1,
                Verdict::Fail => failed += 1,
                Verdict::Delay(delay) => delays.push(delay),
                Verdict::Proceed => {}
            }
        }
        assert!((900..1_100).contains(&dropped) && (1_850..2_150).contains(&failed));
        assert!((2_850..3_150).contains(&delays.len()), "{}", delays.len());
        assert!(delays.iter().all(|delay| (shortest..=longest).contains(delay)));
        let near = Duration::from_micros(50);
        assert!(delays.iter().any(|delay| *delay < shortest + near));
        assert!(delays.iter().any(|delay| *delay > longest - near));
    }
}
