//! The clocks of one simulated node: they start anywhere, run a little fast or slow, and the wall clock jumps.
//!
//! The monotonic clock never goes back, whatever is done to it: changing the rate starts a new straight line where
//! the old one is.

use crate::time::{Mono, Wall};

const MILLION: i64 = 1_000_000;

/// Where a node's monotonic clock stands when its process starts, at least; zero stays "never".
pub const MONO_START: u64 = 1_000_000_000;

/// Clocks of one node, as functions of the world's time in ns.
#[derive(Clone, Debug)]
pub struct NodeClock {
    since: u64,
    mono: u64,
    ppm: i64,
    wall: u64,
    wall_shift: i64,
}

impl NodeClock {
    /// Clocks at world time `at`; `wall` is what a right wall clock shows at world time 0.
    pub fn new(at: u64, mono: u64, wall: u64) -> Self {
        Self { since: at, mono, ppm: 0, wall, wall_shift: 0 }
    }

    /// A new process: the monotonic clock starts over.
    pub fn restart(&mut self, at: u64, mono: u64) {
        self.since = at;
        self.mono = mono;
    }

    /// The monotonic clock.
    pub fn mono(&self, at: u64) -> Mono {
        Mono::from_nanos(self.mono + self.run(at.saturating_sub(self.since)))
    }

    /// The wall clock: the world's time shifted, running at the world's rate.
    pub fn wall(&self, at: u64) -> Wall {
        let right = self.wall.saturating_add(at);
        Wall::from_unix_nanos(right.saturating_add_signed(self.wall_shift))
    }

    /// The first world time at which the monotonic clock shows `target`.
    pub fn when(&self, target: Mono) -> u64 {
        let need = target.nanos().saturating_sub(self.mono);
        if self.ppm == 0 {
            return self.since.saturating_add(need);
        }
        let rate = (MILLION + self.ppm) as u128;
        let guess = (u128::from(need) * MILLION as u128 / rate).min(u128::from(u64::MAX / 2));
        let mut delta = (guess as u64).saturating_sub(2);
        while self.run(delta) < need {
            delta += 1;
        }
        self.since.saturating_add(delta)
    }

    /// Runs fast (positive) or slow by `ppm` millionths from world time `at` on; limited to a tenth.
    pub fn drift(&mut self, at: u64, ppm: i64) {
        self.mono = self.mono(at).nanos();
        self.since = at;
        self.ppm = ppm.clamp(-100_000, 100_000);
    }

    /// Steps the wall clock.
    pub fn step_wall(&mut self, by_nanos: i64) {
        self.wall_shift = self.wall_shift.saturating_add(by_nanos);
    }

    fn run(&self, delta: u64) -> u64 {
        if self.ppm == 0 {
            return delta;
        }
        let delta = delta as i64;
        let extra = (delta / MILLION) * self.ppm + (delta % MILLION * self.ppm).div_euclid(MILLION);
        (delta + extra) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn monotonic_under_any_drift_and_invertible() {
        let mut rng = Rng::new(4);
        for _ in 0..200 {
            let mut clock = NodeClock::new(5, MONO_START, 0);
            let (mut at, mut last) = (5, clock.mono(5));
            for _ in 0..50 {
                let spread = 1 << rng.below(40);
                at += rng.below(spread);
                let now = clock.mono(at);
                assert!(now >= last);
                last = now;
                let target = Mono::from_nanos(now.nanos() + rng.below(spread));
                let when = clock.when(target);
                assert!(clock.mono(when) >= target);
                assert!(when <= at || clock.mono(when - 1) < target);
                if rng.ratio(1, 4) {
                    clock.drift(at, rng.range(0, 100_000) as i64 - 50_000);
                    assert!(clock.mono(at) == now);
                }
            }
        }
    }

    #[test]
    fn a_fast_clock_gains_what_it_should() {
        let mut clock = NodeClock::new(0, MONO_START, 0);
        clock.drift(0, 50_000);
        assert_eq!(clock.mono(1_000_000_000).nanos() - MONO_START, 1_050_000_000);
        clock.step_wall(-5);
        assert_eq!(clock.wall(10).unix_nanos(), 5);
    }
}
