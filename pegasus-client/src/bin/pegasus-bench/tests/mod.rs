//! Whole runs, against servers whose behaviour is known.

mod fake;
mod pegasus;
mod redis;

use crate::args::{Cli, Plan};
use crate::engine::Outcome;
use crate::records::Tally;
use clap::Parser;

fn plan(line: &str) -> Plan {
    let words = std::iter::once("pegasus-bench").chain(line.split_whitespace());
    Cli::parse_from(words).run.plan(vec![], false).unwrap()
}

fn run(line: &str) -> Outcome {
    crate::run::run(&plan(line)).unwrap()
}

/// Operations, errors and latencies of all kinds, and what was read.
fn totals(outcome: &Outcome) -> (u64, u64, u64, Tally) {
    let mut all = (0, 0, 0, Tally::default());
    for (_, series) in outcome.meter.series() {
        all.0 += series.ops;
        all.1 += series.errors;
        all.2 += series.latency.len();
        all.3.found += series.tally.found;
        all.3.missing += series.tally.missing;
        all.3.wrong += series.tally.wrong;
    }
    all
}

/// Latencies above so many milliseconds.
fn slower_than(outcome: &Outcome, ms: u64) -> u64 {
    let above = |series: &crate::meter::Series| {
        series.latency.count_between(ms * 1_000_000, series.latency.high())
    };
    outcome.meter.series().map(|(_, series)| above(series)).sum()
}
