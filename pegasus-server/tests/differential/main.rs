//! The in-memory engine against RocksDB, below the same storage app: random operations with every option, random
//! settings, time that goes on, flushes, checkpoints, compactions and restarts in between. Every reply and in the end
//! the whole stored content must be the same, byte for byte.
//!
//! A run is a seed; `PEGASUS_DIFF_SEED=<n>` runs that one. What fails is shrunk: steps are left out for as long as it
//! still fails, and the rest is printed.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "../support/mod.rs"]
mod support;

mod pair;
mod steps;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use pair::{Flavour, Pair};
use steps::{Step, draw};
use support::Scratch;

const STEPS: usize = 10_000;
/// How long shrinking may take.
const SHRINK_LIMIT: Duration = Duration::from_secs(120);

/// Runs steps on a fresh pair; the error is where and how the two differ.
fn run(flavour: &Flavour, steps: &[Step]) -> Result<pair::Tally, String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let scratch = Scratch::new();
        let mut pair = Pair::new(flavour.clone(), scratch.path());
        for (at, step) in steps.iter().enumerate() {
            pair.step(step).map_err(|what| format!("step {at}, {step:?}: {what}"))?;
        }
        pair.finish()?;
        Ok(pair.tally)
    }));
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panicked: {}", text.unwrap_or_default()))
    })
}

/// Leaves out what the failure does not need.
#[expect(clippy::disallowed_methods, reason = "a bound on a test's own work")]
fn shrink(flavour: &Flavour, mut steps: Vec<Step>) -> Vec<Step> {
    let begun = Instant::now();
    let mut chunk = steps.len() / 2;
    while chunk > 0 {
        let mut at = 0;
        while at < steps.len() && begun.elapsed() < SHRINK_LIMIT {
            let end = (at + chunk).min(steps.len());
            let fewer = [&steps[..at], &steps[end..]].concat();
            if run(flavour, &fewer).is_err() {
                steps = fewer;
            } else {
                at = end;
            }
        }
        chunk /= 2;
    }
    steps
}

fn check(flavour: &Flavour, seed: u64) -> pair::Tally {
    println!("seed {seed}, {flavour:?}");
    let steps = draw(seed, STEPS);
    match run(flavour, &steps) {
        Ok(tally) => {
            println!("{tally:?}");
            tally
        }
        Err(what) => {
            // Nothing after the step at fault is needed.
            let number = what.strip_prefix("step ").and_then(|rest| rest.split(',').next());
            let upto =
                number.and_then(|number| number.parse().ok()).map_or(STEPS, |at: usize| at + 1);
            let few = shrink(flavour, steps[..upto.min(STEPS)].to_vec());
            let last = run(flavour, &few).err().unwrap_or_default();
            panic!("seed {seed}, {flavour:?}: {what}\nshrunk to {few:#?}\n{last}");
        }
    }
}

fn seeds(default: &[u64]) -> Vec<u64> {
    let given = std::env::var("PEGASUS_DIFF_SEED").ok();
    given
        .map_or(default.to_vec(), |seed| vec![seed.parse().expect("PEGASUS_DIFF_SEED is a number")])
}

#[test]
fn both_engines_answer_the_same() {
    for seed in seeds(&[1, 2]) {
        let tally = check(&Flavour { tight_limits: false, old_schema: false }, seed);
        assert!(tally.writes > 3000 && tally.reads > 2500, "{tally:?}");
        assert!(
            tally.crashes > 20 && tally.compactions > 20 && tally.checkpoints > 20,
            "{tally:?}"
        );
        assert!(tally.found > 1000 && tally.scans > 300 && tally.inline > 500, "{tally:?}");
    }
}

#[test]
fn both_engines_answer_the_same_at_tight_limits() {
    for seed in seeds(&[3]) {
        let tally = check(&Flavour { tight_limits: true, old_schema: false }, seed);
        assert!(tally.incomplete > 200, "{tally:?}");
    }
}

#[test]
fn both_engines_answer_the_same_on_data_of_old_servers() {
    for seed in seeds(&[4]) {
        check(&Flavour { tight_limits: false, old_schema: true }, seed);
    }
}

#[test]
fn a_failing_run_is_shrunk_to_what_it_needs() {
    // A pair that differs by itself: one side misses a write.
    let flavour = Flavour { tight_limits: false, old_schema: false };
    let mut steps = draw(5, 300);
    steps.insert(150, Step::Planted);
    assert!(run(&flavour, &steps).is_err());
    let few = shrink(&flavour, steps);
    assert!(matches!(few[..], [Step::Planted]), "{few:?}");
}
