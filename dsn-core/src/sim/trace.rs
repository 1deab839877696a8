//! How two runs are compared: a rolling hash over everything that happened, and the steps themselves on request.

use crate::hash::TraceHash;
use std::fmt;

/// One step of a run, kept when [`SimOptions::step_log`](super::SimOptions::step_log) is on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Virtual time, in ns.
    pub at: u64,
    /// What happened.
    pub what: &'static str,
    /// Node or connection, by number.
    pub who: u64,
    /// Worker, pool, or amount.
    pub detail: u64,
    /// What the step itself computed: a worker's trace hash after a turn.
    pub hash: u64,
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, what, who, detail, hash } = self;
        write!(f, "{at:>14} ns {what} {who}/{detail} {hash:016x}")
    }
}

/// The rolling hash and the log.
#[derive(Debug, Default)]
pub(super) struct Trace {
    hash: TraceHash,
    log: Option<Vec<Step>>,
    steps: u64,
}

impl Trace {
    pub(super) fn new(log: bool) -> Self {
        Self { log: log.then(Vec::new), ..Self::default() }
    }

    pub(super) fn push(&mut self, step: Step) {
        self.steps += 1;
        self.hash.push(step.at ^ (step.who << 40) ^ (step.detail << 20));
        self.hash.push(step.hash);
        if let Some(log) = &mut self.log {
            log.push(step);
        }
    }

    pub(super) fn value(&self) -> u64 {
        self.hash.value()
    }

    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    pub(super) fn log(&self) -> &[Step] {
        self.log.as_deref().unwrap_or_default()
    }
}

/// Where two runs part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Number of the first differing step.
    pub index: usize,
    /// That step in the first run, unless it had ended.
    pub left: Option<Step>,
    /// That step in the second run, unless it had ended.
    pub right: Option<Step>,
    /// What both did before, oldest first.
    pub before: Vec<Step>,
}

/// Steps shown before a difference.
const CONTEXT: usize = 8;

/// The first step at which two logs differ.
pub fn first_difference(left: &[Step], right: &[Step]) -> Option<Difference> {
    let common = left.iter().zip(right).take_while(|(a, b)| a == b).count();
    if common == left.len() && common == right.len() {
        return None;
    }
    Some(Difference {
        index: common,
        left: left.get(common).copied(),
        right: right.get(common).copied(),
        before: left[common.saturating_sub(CONTEXT)..common].to_vec(),
    })
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.before {
            writeln!(f, "  both  {step:?}")?;
        }
        match self.left {
            Some(step) => writeln!(f, "{:>5} < {step:?}", self.index)?,
            None => writeln!(f, "{:>5} < the first run has ended", self.index)?,
        }
        match self.right {
            Some(step) => writeln!(f, "{:>5} > {step:?}", self.index),
            None => writeln!(f, "{:>5} > the second run has ended", self.index),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_found() {
        let step = |at| Step { at, what: "turn", who: 0, detail: 0, hash: 0 };
        let left: Vec<Step> = (0..20).map(step).collect();
        assert_eq!(first_difference(&left, &left), None);
        let mut right = left.clone();
        right[12].hash = 1;
        let found = first_difference(&left, &right).unwrap();
        assert_eq!((found.index, found.before.len()), (12, 8));
        assert_eq!(first_difference(&left[..5], &left).unwrap().left, None);
        assert!(found.to_string().contains("12 >"));
    }
}
