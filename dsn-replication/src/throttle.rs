//! Throttling of a partition's requests, as the envs of its table say.
//!
//! Counted per second: `20000*delay*100,30000*reject*200` lets what goes beyond 20,000 units wait for 100 ms, and
//! refuses what goes beyond 30,000 after 200 ms. Units are requests or bytes; a table's number is divided by its
//! partitions, rounded up by one. Nobody waits for longer than half of the time its client gives it.
//!
//! By size, reads are admitted while there is anything left of the second's bytes, and pay afterwards
//! ([`ReadBucket`]). All is pure: time is an argument.

use dsn_core::time::{Mono, NANOS_PER_SECOND};
use std::time::Duration;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Pass,
    /// It goes on after a while.
    Delay(Duration),
    /// It is refused, after a while.
    Reject(Duration),
}

impl Verdict {
    /// Shortened to half of what the client gives the request.
    #[must_use]
    pub fn within(self, timeout: Option<Duration>) -> Self {
        let most = timeout.map_or(Duration::MAX, |timeout| timeout / 2);
        match self {
            Self::Pass => Self::Pass,
            Self::Delay(pause) => Self::Delay(pause.min(most)),
            Self::Reject(pause) => Self::Reject(pause.min(most)),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit {
    units: u64,
    pause: Duration,
}

/// Limits per second, and how much of the present second's is used up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Throttle {
    delay: Option<Limit>,
    reject: Option<Limit>,
    second: u64,
    used: u64,
}

/// `n`, `nK` or `nM`, above zero.
fn parse_units(text: &str) -> Option<u64> {
    let (digits, unit) = match text.as_bytes().last()? {
        b'K' => (&text[..text.len() - 1], 1_000),
        b'M' => (&text[..text.len() - 1], 1_000_000),
        _ => (text, 1),
    };
    let units = u64::from(digits.parse::<u32>().ok()?) * unit;
    (units > 0).then_some(units)
}

fn share(units: u64, partitions: i32) -> u64 {
    units / u64::try_from(partitions).unwrap_or(1).max(1) + 1
}

impl Throttle {
    /// Reads an env of a table with `partitions` partitions; an empty one limits nothing.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str, partitions: i32) -> Result<Self, String> {
        let mut throttle = Self::default();
        for part in text.split(',').filter(|_| !text.is_empty()) {
            let fields: Vec<&str> = part.split('*').collect();
            let &[units, kind, pause] = fields.as_slice() else {
                return Err(format!("'{part}' is not units*kind*milliseconds"));
            };
            let Some(number) = parse_units(units) else {
                return Err(format!("'{units}' is not a number above zero, K or M allowed"));
            };
            let Ok(pause) = pause.parse::<u32>() else {
                return Err(format!("'{pause}' is not a number of milliseconds"));
            };
            let limit = Limit {
                units: share(number, partitions),
                pause: Duration::from_millis(u64::from(pause)),
            };
            let place = match kind {
                "delay" => &mut throttle.delay,
                "reject" => &mut throttle.reject,
                _ => return Err(format!("'{kind}' is neither delay nor reject")),
            };
            if place.replace(limit).is_some() {
                return Err(format!("'{kind}' stands there twice"));
            }
        }
        Ok(throttle)
    }

    /// Whether it limits anything.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.delay.is_some() || self.reject.is_some()
    }

    /// A request of `units` comes.
    pub fn admit(&mut self, units: u64, now: Mono) -> Verdict {
        let second = now.nanos() / NANOS_PER_SECOND;
        if second != self.second {
            (self.second, self.used) = (second, 0);
        }
        self.used = self.used.saturating_add(units);
        if let Some(reject) = self.reject.filter(|reject| self.used > reject.units) {
            self.used -= units;
            return Verdict::Reject(reject.pause);
        }
        match self.delay.filter(|delay| self.used > delay.units) {
            Some(delay) => Verdict::Delay(delay.pause),
            None => Verdict::Pass,
        }
    }
}

/// Bytes that reads may answer with per second. Filled steadily, up to one second's worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadBucket {
    rate: u64,
    /// May be below zero, after an answer larger than what was left.
    left: i128,
    filled_at: Mono,
}

impl ReadBucket {
    /// Reads an env: `100M`, or the form of the others, of which only the part that rejects counts. `None` for no
    /// limit.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str, partitions: i32) -> Result<Option<Self>, String> {
        let units = match parse_units(text) {
            Some(units) => Some(units / u64::try_from(partitions).unwrap_or(1).max(1)),
            None => Throttle::parse(text, partitions)?.reject.map(|reject| reject.units),
        };
        let rate = units.map(|units| units.max(1));
        Ok(rate.map(|rate| Self { rate, left: i128::from(rate), filled_at: Mono::ZERO }))
    }

    /// Whether a read may be answered.
    pub fn admit(&mut self, now: Mono) -> bool {
        let nanos = i128::from(now.nanos().saturating_sub(self.filled_at.nanos()));
        let new = i128::from(self.rate) * nanos / i128::from(NANOS_PER_SECOND);
        if new > 0 {
            self.filled_at = now;
            self.left = (self.left + new).min(i128::from(self.rate));
        }
        self.left > 0
    }

    /// A read was answered with `bytes`.
    pub fn pay(&mut self, bytes: u64) {
        self.left -= i128::from(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Mono {
        Mono::from_nanos(millis * 1_000_000)
    }

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn what_goes_beyond_waits_and_what_goes_far_beyond_is_refused() {
        let mut throttle = Throttle::parse("20*delay*100,40*reject*200", 10).unwrap();
        // Two and four per partition, and one more.
        let verdicts: Vec<Verdict> = (0..7).map(|_| throttle.admit(1, at(1500))).collect();
        let (pass, delay) = (Verdict::Pass, Verdict::Delay(ms(100)));
        let reject = Verdict::Reject(ms(200));
        assert_eq!(verdicts, [pass, pass, pass, delay, delay, reject, reject]);
        assert_eq!(throttle.admit(1, at(1999)), reject);
        assert_eq!(throttle.admit(1, at(2000)), pass, "a new second");
        assert_eq!(throttle.admit(100, at(2000)), reject, "which uses nothing up");
        assert_eq!(throttle.admit(2, at(2000)), pass);
    }

    #[test]
    fn either_half_alone_and_units() {
        let mut only_delay = Throttle::parse("1K*delay*5", 1).unwrap();
        assert_eq!(only_delay.admit(1001, at(0)), Verdict::Pass);
        assert_eq!(only_delay.admit(1_000_000, at(0)), Verdict::Delay(ms(5)));
        let mut only_reject = Throttle::parse("2M*reject*0", 2).unwrap();
        assert_eq!(only_reject.admit(1_000_001, at(0)), Verdict::Pass);
        assert_eq!(only_reject.admit(1, at(0)), Verdict::Reject(ms(0)));
        let mut off = Throttle::parse("", 1).unwrap();
        assert!(!off.is_on() && only_delay.is_on() && only_reject.is_on());
        assert_eq!(off.admit(u64::MAX, at(0)), Verdict::Pass);
    }

    #[test]
    fn nobody_waits_longer_than_half_of_its_time() {
        let long = Verdict::Delay(ms(500));
        assert_eq!(long.within(Some(ms(300))), Verdict::Delay(ms(150)));
        assert_eq!(long.within(Some(ms(3000))), long);
        assert_eq!(Verdict::Reject(ms(9)).within(None), Verdict::Reject(ms(9)));
    }

    #[test]
    fn reads_pay_afterwards() {
        let mut bucket = ReadBucket::parse("4K", 4).unwrap().unwrap();
        assert!(bucket.admit(at(0)));
        bucket.pay(1500);
        assert!(!bucket.admit(at(100)), "500 too many, 100 new");
        assert!(!bucket.admit(at(500)));
        assert!(bucket.admit(at(501)));
        bucket.pay(1);
        assert!(bucket.admit(at(60_000)));
        bucket.pay(1000);
        assert!(!bucket.admit(at(60_000)), "a second's worth at most");
        let from_reject = ReadBucket::parse("1000*delay*1,2000*reject*1", 1).unwrap();
        assert_eq!(from_reject.unwrap().rate, 2001);
        assert_eq!(ReadBucket::parse("1000*delay*1", 1).unwrap(), None);
        assert_eq!(ReadBucket::parse("", 1).unwrap(), None);
        assert!(ReadBucket::parse("x", 1).is_err());
    }
}
