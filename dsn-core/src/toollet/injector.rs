//! The fault injector: drops, delays and fails messages by code, with given odds.

use super::Verdict;
use crate::code::Code;
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
    /// How long a delay is.
    pub delay: Duration,
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
        let roll = (roll % 1_000_000) as u32;
        if roll < rule.drop_ppm {
            Verdict::Drop
        } else if roll < rule.drop_ppm + rule.fail_ppm {
            Verdict::Fail
        } else if roll < rule.drop_ppm + rule.fail_ppm + rule.delay_ppm {
            Verdict::Delay(rule.delay)
        } else {
            Verdict::Proceed
        }
    }
}
