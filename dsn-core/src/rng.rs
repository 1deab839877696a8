//! Random numbers that can be replayed.
//!
//! One small generator (xoshiro256++ of Blackman and Vigna, seeded through SplitMix64), and one rule:
//! randomness is drawn from a *named stream*. [`Rng::stream`] derives a generator from the run's seed,
//! the node, the purpose and an ordinal. Streams do not influence each other, so removing one fault
//! from a plan or one node from a scenario moves no decision elsewhere; a failing run can be shrunk.
//!
//! Results are equal on every platform: integers throughout, and floating point only where IEEE 754
//! fixes the result (no logarithms or powers). Not for secrets.

use std::time::Duration;

use crate::hash::{fnv1a64, mix64};
use crate::time::nanos_of;

/// A deterministic generator; see the module's introduction for the rule on how to obtain one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// A generator whose whole output follows from `seed`.
    pub fn new(seed: u64) -> Self {
        let mut counter = seed;
        let mut next = || {
            counter = counter.wrapping_add(0x9e37_79b9_7f4a_7c15);
            mix64(counter)
        };
        let mut state = [0; 4];
        state.iter_mut().for_each(|word| *word = next());
        // Four zero words would repeat for ever; SplitMix64 is a bijection of its counter, so at most
        // one of the four can be zero.
        Self { state }
    }

    /// The stream named `(seed, node, purpose, ordinal)`: for instance the `3`rd connection's
    /// `"latency"` on node `"replica2"`.
    pub fn stream(seed: u64, node: &str, purpose: &str, ordinal: u64) -> Self {
        let mut name = mix64(seed ^ 0x5851_f42d_4c95_7f2d);
        for part in [fnv1a64(node.as_bytes()), fnv1a64(purpose.as_bytes()), ordinal] {
            name = mix64(name.rotate_left(17) ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        }
        Self::new(name)
    }

    /// A generator of its own for a part of the work; advances this one by a single draw.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self::new(self.next_u64())
    }

    /// A uniformly distributed 64-bit number.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let shifted = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= shifted;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A uniformly distributed number in `0..n`.
    ///
    /// # Panics
    /// If `n` is zero: there is no such number.
    #[inline]
    pub fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "Rng::below(0)");
        // Lemire's method: the high half of a 128-bit product, rejecting the few low halves that would
        // favour some results.
        let mut product = u128::from(self.next_u64()) * u128::from(n);
        if (product as u64) < n {
            let threshold = n.wrapping_neg() % n;
            while (product as u64) < threshold {
                product = u128::from(self.next_u64()) * u128::from(n);
            }
        }
        (product >> 64) as u64
    }

    /// A uniformly distributed index into something of length `len`.
    ///
    /// # Panics
    /// If `len` is zero.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// A uniformly distributed number in `low..=high`; `low` when the range is empty.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        match high.checked_sub(low) {
            None => low,
            Some(u64::MAX) => self.next_u64(),
            Some(span) => low + self.below(span + 1),
        }
    }

    /// True `numerator` times in `denominator`; always when the fraction is one or more, never when
    /// the denominator is zero.
    #[inline]
    pub fn ratio(&mut self, numerator: u64, denominator: u64) -> bool {
        denominator > 0 && self.below(denominator) < numerator
    }

    /// True with probability `p`; values outside `0.0..=1.0` mean never or always, not-a-number never.
    /// Draws exactly one number whatever `p` is, so changing a probability shifts no later decision.
    pub fn chance(&mut self, p: f64) -> bool {
        self.unit_f64() < p
    }

    /// A uniformly distributed number in `0.0..1.0` with 53 random bits.
    pub fn unit_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// A uniformly distributed duration in `low..=high`; `low` when the range is empty.
    pub fn duration(&mut self, low: Duration, high: Duration) -> Duration {
        Duration::from_nanos(self.range(nanos_of(low), nanos_of(high)))
    }

    /// `base` plus or minus up to `percent` per cent of it: keeps periodic work of many nodes apart.
    pub fn jitter(&mut self, base: Duration, percent: u32) -> Duration {
        let nanos = nanos_of(base);
        let spread = (u128::from(nanos) * u128::from(percent.min(100)) / 100) as u64;
        Duration::from_nanos(self.range(nanos - spread, nanos.saturating_add(spread)))
    }

    /// One element, each with the same probability; `None` of an empty slice.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        if items.is_empty() { None } else { items.get(self.index(items.len())) }
    }

    /// Puts the elements into a uniformly distributed order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }

    /// Overwrites `bytes` with random ones.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_outputs_never_change() {
        // Committed scenarios name seeds: a change here would silently turn them into other runs.
        let mut rng = Rng::new(1);
        let drawn = [rng.next_u64(), rng.next_u64(), rng.next_u64()];
        assert_eq!(drawn, [0xcfc5_d07f_6f03_c29b, 0xbf42_4132_963f_e08d, 0x19a3_7d57_57aa_f520]);
    }

    #[test]
    fn streams_differ_in_each_part_of_their_name() {
        let first = |mut rng: Rng| rng.next_u64();
        let base = first(Rng::stream(1, "n", "p", 0));
        assert_eq!(base, first(Rng::stream(1, "n", "p", 0)));
        for other in [
            Rng::stream(2, "n", "p", 0),
            Rng::stream(1, "m", "p", 0),
            Rng::stream(1, "n", "q", 0),
            Rng::stream(1, "n", "p", 1),
            Rng::stream(1, "p", "n", 0),
        ] {
            assert_ne!(base, first(other));
        }
    }

    #[test]
    fn bounded_draws_stay_in_bounds_and_reach_them() {
        let mut rng = Rng::new(7);
        let mut seen = [0u32; 6];
        for _ in 0..6_000 {
            seen[rng.below(6) as usize] += 1;
        }
        assert!(seen.iter().all(|&count| (850..1150).contains(&count)), "{seen:?}");
        let drawn: Vec<u64> = (0..200).map(|_| rng.range(3, 5)).collect();
        assert!(
            drawn.iter().all(|n| (3..=5).contains(n)) && drawn.contains(&3) && drawn.contains(&5)
        );
        assert_eq!(rng.range(9, 2), 9);
        rng.range(0, u64::MAX);
    }

    #[test]
    fn chances_are_what_they_say() {
        let mut rng = Rng::new(3);
        let count = |rng: &mut Rng, p: f64| (0..10_000).filter(|_| rng.chance(p)).count();
        assert_eq!(count(&mut rng, 0.0), 0);
        assert_eq!(count(&mut rng, 1.0), 10_000);
        assert_eq!(count(&mut rng, f64::NAN), 0);
        assert!((2_300..2_700).contains(&count(&mut rng, 0.25)));
        assert!((0..100).all(|_| rng.ratio(5, 5) && !rng.ratio(0, 5) && !rng.ratio(1, 0)));
    }

    #[test]
    fn shuffle_keeps_and_moves_the_elements() {
        let mut items: Vec<u32> = (0..50).collect();
        Rng::new(11).shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
        assert_eq!(Rng::new(1).pick::<u8>(&[]), None);
    }

    #[test]
    fn durations_and_jitter_stay_near() {
        let mut rng = Rng::new(5);
        let second = Duration::from_secs(1);
        for _ in 0..100 {
            let d = rng.jitter(second, 20);
            assert!((800..=1200).contains(&d.as_millis()), "{d:?}");
            assert!(rng.duration(second, second * 2) >= second);
        }
        let mut bytes = [0u8; 13];
        rng.fill(&mut bytes);
        assert!(bytes[8..].iter().any(|&b| b != 0));
    }
}
