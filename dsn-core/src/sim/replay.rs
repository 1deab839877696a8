//! Runs and their repetition: determinism is a property, and is tested like one.

use super::checker::Violation;
use super::sim::Sim;
use super::trace::{Difference, Step, first_difference};
use std::fmt;
use std::time::Duration;

/// What is kept of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Hash of everything that happened.
    pub trace_hash: u64,
    /// Events taken.
    pub steps: u64,
    /// Virtual length.
    pub length: Duration,
    /// What went wrong.
    pub violation: Option<Violation>,
    /// The steps, when they were logged.
    pub log: Vec<Step>,
}

impl Sim {
    /// What is worth keeping of this run.
    pub fn report(&self) -> Report {
        Report {
            trace_hash: self.trace_hash(),
            steps: self.steps(),
            length: self.now(),
            violation: self.violation().cloned(),
            log: self.step_log(),
        }
    }
}

/// Two runs of one seed were not the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotDeterministic {
    /// Where they part, unless a repetition with a log showed no difference.
    pub difference: Option<Difference>,
}

impl fmt::Display for NotDeterministic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.difference {
            Some(difference) => write!(f, "two runs of one seed differ:\n{difference}"),
            None => f.write_str("two runs of one seed differ, but not when they are logged"),
        }
    }
}

impl std::error::Error for NotDeterministic {}

/// Runs something twice and compares. `run` is told whether to log its steps
/// ([`SimOptions::step_log`](super::SimOptions::step_log)); it does when the first two runs differ.
///
/// # Errors
/// Where the runs part.
pub fn run_twice(mut run: impl FnMut(bool) -> Report) -> Result<Report, NotDeterministic> {
    let (first, second) = (run(false), run(false));
    if first.trace_hash == second.trace_hash && first.steps == second.steps {
        return Ok(first);
    }
    let (first, second) = (run(true), run(true));
    Err(NotDeterministic { difference: first_difference(&first.log, &second.log) })
}
