//! Makes a failing scenario smaller: shorter, with fewer faults and fewer turned knobs.
//!
//! Delta debugging (Zeller & Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002) over the faults,
//! bisection over the length, one by one over the knobs, again and again until nothing helps any more.

use super::fault::TimedFault;
use super::scenario::Scenario;

/// What shrinking did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shrunk {
    /// The smallest scenario found that still fails.
    pub scenario: Scenario,
    /// Runs that it took.
    pub runs: usize,
}

struct Shrinker<'a> {
    best: Scenario,
    runs: usize,
    limit: usize,
    fails: &'a mut dyn FnMut(&Scenario) -> bool,
}

/// Shrinks a scenario for which `fails` is true; `fails` should be true only for the same failure (the same checker).
/// Takes at most `limit` runs.
pub fn shrink(
    scenario: &Scenario,
    limit: usize,
    fails: &mut dyn FnMut(&Scenario) -> bool,
) -> Shrunk {
    let mut shrinker = Shrinker { best: scenario.clone(), runs: 0, limit, fails };
    loop {
        let before = shrinker.best.clone();
        shrinker.cut_time();
        shrinker.drop_faults();
        shrinker.shorten_faults();
        shrinker.reset_knobs();
        if shrinker.best == before || shrinker.runs >= limit {
            return Shrunk { scenario: shrinker.best, runs: shrinker.runs };
        }
    }
}

impl Shrinker<'_> {
    /// Keeps a candidate that still fails.
    fn try_one(&mut self, candidate: Scenario) -> bool {
        if candidate == self.best || self.runs >= self.limit {
            return false;
        }
        self.runs += 1;
        let fails = (self.fails)(&candidate);
        if fails {
            self.best = candidate;
        }
        fails
    }

    fn cut_time(&mut self) {
        // The least length that fails lies between `low` and what is known to fail.
        let mut low = 0;
        while self.best.duration_ms - low > (self.best.duration_ms / 50).max(1) {
            let middle = low + (self.best.duration_ms - low) / 2;
            let mut candidate = self.best.clone();
            candidate.duration_ms = middle;
            candidate.faults.retain(|fault| fault.at_ms < middle);
            if !self.try_one(candidate) {
                low = middle;
            }
            if self.runs >= self.limit {
                return;
            }
        }
    }

    fn drop_faults(&mut self) {
        let mut pieces = 2;
        while !self.best.faults.is_empty() && self.runs < self.limit {
            let size = self.best.faults.len().div_ceil(pieces);
            let mut dropped = false;
            let mut start = 0;
            while start < self.best.faults.len() {
                let end = (start + size).min(self.best.faults.len());
                let mut candidate = self.best.clone();
                candidate.faults.drain(start..end);
                if self.try_one(candidate) {
                    dropped = true;
                } else {
                    start = end;
                }
            }
            if size == 1 && !dropped {
                return;
            }
            if !dropped {
                pieces = (pieces * 2).min(self.best.faults.len().max(1));
            }
        }
    }

    fn shorten_faults(&mut self) {
        for index in 0..self.best.faults.len() {
            while let Some(shorter) = self.best.faults.get(index).and_then(halved) {
                let mut candidate = self.best.clone();
                candidate.faults[index] = shorter;
                if !self.try_one(candidate) {
                    break;
                }
            }
        }
    }

    fn reset_knobs(&mut self) {
        let names: Vec<String> = self.best.knobs.keys().cloned().collect();
        for name in names {
            let mut candidate = self.best.clone();
            candidate.knobs.remove(&name);
            self.try_one(candidate);
        }
    }
}

/// A lasting fault that lasts half as long.
fn halved(timed: &TimedFault) -> Option<TimedFault> {
    let mut shorter = timed.clone();
    let length = shorter.fault.length_mut()?;
    if *length < 2 {
        return None;
    }
    *length /= 2;
    Some(shorter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::scenario::CORE_KNOBS;
    use crate::sim::{Fault, FaultClass, PlanSpec};
    use std::time::Duration;

    #[test]
    fn what_does_not_matter_is_gone() {
        let second = Duration::from_secs(1);
        let plan = PlanSpec {
            nodes: ["a", "b", "c"].map(str::to_owned).to_vec(),
            peers: Vec::new(),
            damageable: Vec::new(),
            classes: FaultClass::ALL.map(|class| (class, second)).to_vec(),
            paths: Vec::new(),
            flips: Vec::new(),
            from: second,
            to: second * 60,
            max_down: 3,
            longest: second * 5,
        };
        let mut shrunk = 0;
        for seed in 0..60 {
            println!("seed {seed}");
            let mut scenario = Scenario::draw(seed, second * 60, &[CORE_KNOBS], &plan);
            scenario.knobs.insert("net.window".into(), 512);
            // Fails when some pause of `a` comes before some wall step, with a small window.
            let fails = |s: &Scenario| {
                let pause = |f: &TimedFault| matches!(&f.fault, Fault::Pause { node, ms } if node == "a" && *ms >= 16);
                let step = |f: &TimedFault| matches!(f.fault, Fault::WallStep { .. });
                let first = s.faults.iter().find(|f| pause(f)).map(|f| f.at_ms);
                let last = s.faults.iter().rev().find(|f| step(f)).map(|f| f.at_ms);
                s.knobs.get("net.window") == Some(&512)
                    && matches!((first, last), (Some(a), Some(b)) if a < b)
            };
            if !fails(&scenario) {
                continue;
            }
            shrunk += 1;
            let small = shrink(&scenario, 1000, &mut |s| fails(s));
            assert!(fails(&small.scenario));
            assert_eq!(small.scenario.faults.len(), 2, "{}", small.scenario);
            assert_eq!(small.scenario.knobs.len(), 1, "{}", small.scenario);
            let last = small.scenario.faults[1].at_ms;
            assert!(small.scenario.duration_ms <= last + last / 20 + 2, "{}", small.scenario);
            assert!(small.runs < 400, "{}", small.runs);
        }
        assert!(shrunk > 5, "{shrunk}");
    }

    #[test]
    fn the_number_of_runs_is_limited() {
        let scenario = Scenario::quiet(1, Duration::from_secs(1000));
        let small = shrink(&scenario, 3, &mut |_| true);
        assert_eq!(small.runs, 3);
    }
}
