//! Distributions as integer quantile tables: no logarithms, so every platform draws the same numbers.

use crate::rng::Rng;
use std::time::Duration;

const MILLION: u64 = 1_000_000;

/// A distribution of durations, in nanoseconds: straight lines between quantiles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dist {
    /// `(millionths, nanoseconds)`, both rising; the first at 0 and the last at one million.
    points: Vec<(u64, u64)>,
    /// By the upper bits of a value: the last point at or below the first of them.
    hints: [u8; HINTS],
}

/// Bits that a hint leaves out, and hints for all values below a million.
const HINT_SHIFT: u32 = 14;
const HINTS: usize = (MILLION >> HINT_SHIFT) as usize + 1;

impl Dist {
    /// Always the same.
    pub fn fixed(value: Duration) -> Self {
        Self::uniform(value, value)
    }

    /// Every value of the range is as likely as any other.
    pub fn uniform(low: Duration, high: Duration) -> Self {
        let (low, high) = (nanos(low), nanos(high));
        Self::through(vec![(0, low), (MILLION, high.max(low))])
    }

    /// Most values near `median`, a tail as services have it: 99 in 100 below five times the median, one in a
    /// thousand above twenty times, at most a hundred times.
    pub fn heavy(median: Duration) -> Self {
        let m = nanos(median);
        Self::through(vec![
            (0, m / 2),
            (500_000, m),
            (900_000, m.saturating_mul(2)),
            (990_000, m.saturating_mul(5)),
            (999_000, m.saturating_mul(20)),
            (MILLION, m.saturating_mul(100)),
        ])
    }

    fn through(points: Vec<(u64, u64)>) -> Self {
        let mut hints = [0; HINTS];
        for (number, hint) in (0..).zip(&mut hints) {
            let first: u64 = number << HINT_SHIFT;
            let passed = points.iter().take_while(|point| point.0 <= first).count();
            *hint = (passed - 1) as u8;
        }
        Self { points, hints }
    }

    /// One value.
    pub fn draw(&self, rng: &mut Rng) -> u64 {
        let at = rng.below(MILLION);
        let mut passed = usize::from(self.hints[(at >> HINT_SHIFT) as usize]);
        while at >= self.points[passed + 1].0 {
            passed += 1;
        }
        let (left, right) = (self.points[passed], self.points[passed + 1]);
        let span = right.1 - left.1;
        let (into, over) = (at - left.0, right.0 - left.0);
        let part = match span.checked_mul(into) {
            Some(product) => product / over,
            None => (u128::from(span) * u128::from(into) / u128::from(over)) as u64,
        };
        left.1 + part
    }

    /// The same shape, `percent` per cent as long.
    #[must_use]
    pub fn scaled(&self, percent: u64) -> Self {
        let scale = |n: u64| (u128::from(n) * u128::from(percent) / 100) as u64;
        Self::through(self.points.iter().map(|&(at, value)| (at, scale(value))).collect())
    }

    /// The longest possible value.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.points.last().map_or(0, |point| point.1))
    }
}

fn nanos(duration: Duration) -> u64 {
    crate::time::nanos_of(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_follow_the_table() {
        let dist = Dist::heavy(Duration::from_micros(100));
        let mut rng = Rng::new(1);
        let mut drawn: Vec<u64> = (0..100_000).map(|_| dist.draw(&mut rng)).collect();
        drawn.sort_unstable();
        let near = |value: u64, expected: u64| value.abs_diff(expected) < expected / 10;
        assert!(near(drawn[50_000], 100_000), "{}", drawn[50_000]);
        assert!(near(drawn[99_000], 500_000), "{}", drawn[99_000]);
        assert!(drawn[99_999] <= dist.max().as_nanos() as u64);
        assert_eq!(Dist::fixed(Duration::from_nanos(7)).draw(&mut rng), 7);
        assert_eq!(dist.scaled(200).max(), dist.max() * 2);
    }
}
