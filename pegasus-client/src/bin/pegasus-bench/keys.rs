//! Which record comes next: uniform, zipf or sequential.

use dsn_core::rng::Rng;

/// How records are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Distribution {
    /// Every one with the same probability.
    Uniform,
    /// The record of rank k with a probability proportional to `k^-theta`; ranks are scattered over
    /// the key space.
    Zipf(f64),
    /// 0, 1, 2, ... and from the start again.
    Sequential,
}

/// Draws record numbers from `0..n`.
#[derive(Debug, Clone)]
pub struct Keys {
    n: u64,
    next: u64,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Uniform,
    Zipf(Zipf, Scatter),
    Sequential,
}

impl Keys {
    /// Draws from `0..n`; `n` is taken as 1 when it is 0.
    pub fn new(distribution: Distribution, n: u64) -> Self {
        let n = n.max(1);
        let kind = match distribution {
            Distribution::Uniform => Kind::Uniform,
            Distribution::Zipf(theta) => Kind::Zipf(Zipf::new(n, theta), Scatter::new(n)),
            Distribution::Sequential => Kind::Sequential,
        };
        Self { n, next: 0, kind }
    }

    /// The next record.
    #[inline]
    pub fn draw(&mut self, rng: &mut Rng) -> u64 {
        match &self.kind {
            Kind::Uniform => rng.below(self.n),
            Kind::Zipf(zipf, scatter) => scatter.place(zipf.draw(rng) - 1),
            Kind::Sequential => {
                let at = self.next;
                self.next = if at + 1 == self.n { 0 } else { at + 1 };
                at
            }
        }
    }
}

/// Zipf-distributed ranks `1..=n`, exactly and without a table.
///
/// Rejection from the density `x^-theta`, whose integral is inverted: a number drawn under the
/// integral is rounded to the nearest rank and kept when it lies under that rank's bar. Less than
/// one in ten is rejected. Source: Hörmann and Derflinger, "Rejection-inversion to generate
/// variates from monotone discrete distributions", ACM TOMACS 6(3), 1996.
#[derive(Debug, Clone)]
pub struct Zipf {
    n: f64,
    theta: f64,
    /// Integral up to one half before the first rank's bar, and to the end of the last one's.
    low: f64,
    high: f64,
    /// Distance to the rank within which nothing needs to be rejected.
    sure: f64,
}

impl Zipf {
    /// Ranks up to `n`, skew `theta`.
    pub fn new(n: u64, theta: f64) -> Self {
        let mut zipf = Self { n: n as f64, theta, low: 0.0, high: 0.0, sure: 0.0 };
        zipf.low = zipf.integral(1.5) - 1.0;
        zipf.high = zipf.integral(zipf.n + 0.5);
        zipf.sure = 2.0 - zipf.inverse(zipf.integral(2.5) - zipf.bar(2.0));
        zipf
    }

    fn bar(&self, x: f64) -> f64 {
        x.powf(-self.theta)
    }

    /// Integral of the density from 1 to `x`. The quotient loses all digits near `theta = 1`, where
    /// it tends to the logarithm.
    fn integral(&self, x: f64) -> f64 {
        let power = 1.0 - self.theta;
        let log = x.ln();
        if power.abs() < 1e-8 { log } else { (power * log).exp_m1() / power }
    }

    fn inverse(&self, area: f64) -> f64 {
        let power = 1.0 - self.theta;
        if power.abs() < 1e-8 { area.exp() } else { ((power * area).ln_1p() / power).exp() }
    }

    /// One rank.
    #[inline]
    pub fn draw(&self, rng: &mut Rng) -> u64 {
        loop {
            let area = self.high - rng.unit_f64() * (self.high - self.low);
            let x = self.inverse(area);
            let rank = x.round().clamp(1.0, self.n);
            if rank - x <= self.sure || area >= self.integral(rank + 0.5) - self.bar(rank) {
                return rank as u64;
            }
        }
    }
}

/// A fixed permutation of `0..n`, so that hot records do not stand side by side. The same in every
/// run.
#[derive(Debug, Clone)]
struct Scatter {
    n: u64,
    factor: u64,
}

impl Scatter {
    fn new(n: u64) -> Self {
        // Near the golden section of n, where neighbours land far apart; coprime to n, so it
        // permutes.
        let mut factor = (n as f64 * 0.618_033_988_749_894_9) as u64;
        while factor > 1 && gcd(factor, n) != 1 {
            factor -= 1;
        }
        Self { n, factor: factor.max(1) }
    }

    #[inline]
    fn place(&self, rank: u64) -> u64 {
        (rank * self.factor + self.n / 3) % self.n
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(distribution: Distribution, n: u64, draws: u64, seed: u64) -> Vec<u64> {
        println!("seed {seed}");
        let mut keys = Keys::new(distribution, n);
        let mut rng = Rng::new(seed);
        let mut counts = vec![0; n as usize];
        for _ in 0..draws {
            counts[keys.draw(&mut rng) as usize] += 1;
        }
        counts
    }

    #[test]
    fn uniform_is_flat() {
        let counts = histogram(Distribution::Uniform, 1000, 1_000_000, 7);
        let chi: f64 = counts.iter().map(|&c| (c as f64 - 1000.0).powi(2) / 1000.0).sum();
        // 999 degrees of freedom: mean 999, standard deviation 45.
        assert!((800.0..1200.0).contains(&chi), "chi square {chi}");
    }

    #[test]
    fn sequential_visits_all_in_order() {
        let mut keys = Keys::new(Distribution::Sequential, 3);
        let mut rng = Rng::new(1);
        let drawn: Vec<u64> = (0..7).map(|_| keys.draw(&mut rng)).collect();
        assert_eq!(drawn, [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn zipf_ranks_follow_the_power_law() {
        for (theta, n, seed) in
            [(0.99, 1000u64, 11u64), (0.5, 50, 12), (1.0, 200, 13), (2.0, 9, 14)]
        {
            println!("seed {seed}");
            let zipf = Zipf::new(n, theta);
            let mut rng = Rng::new(seed);
            let draws = 1_000_000u64;
            let mut counts = vec![0u64; n as usize + 1];
            for _ in 0..draws {
                counts[zipf.draw(&mut rng) as usize] += 1;
            }
            assert_eq!(counts[0], 0);
            let zeta: f64 = (1..=n).map(|k| (k as f64).powf(-theta)).sum();
            let chi: f64 = (1..=n)
                .map(|k| {
                    let expected = draws as f64 * (k as f64).powf(-theta) / zeta;
                    (counts[k as usize] as f64 - expected).powi(2) / expected
                })
                .sum();
            let freedom = (n - 1) as f64;
            let limit = freedom + 5.0 * (2.0 * freedom).sqrt();
            assert!(chi < limit, "theta {theta}: chi square {chi}, limit {limit}");
        }
    }

    #[test]
    fn hot_records_are_scattered_and_none_is_lost() {
        for n in [1u64, 2, 3, 10, 1000, 4096, 99_999] {
            let scatter = Scatter::new(n);
            let mut seen = vec![false; n as usize];
            for rank in 0..n {
                let place = scatter.place(rank) as usize;
                assert!(!seen[place], "n {n}: {place} twice");
                seen[place] = true;
            }
            if n >= 1000 {
                let (a, b) = (scatter.place(0), scatter.place(1));
                assert!(a.abs_diff(b) > n / 10, "n {n}: hottest two at {a} and {b}");
            }
        }
        let counts = histogram(Distribution::Zipf(0.99), 100, 200_000, 5);
        let mut sorted = counts.clone();
        sorted.sort_unstable();
        assert!(sorted[99] > 15 * sorted[50], "{sorted:?}");
    }
}
