//! What watches a simulation.

use super::sim::Sim;
use std::fmt;
use std::time::Duration;

/// Something that must never happen, or must have happened at the end.
///
/// Nothing runs while a checker looks, so it may look anywhere: at residents ([`Sim::peek`]), disks, node counters, and
/// at whatever the test shares with its apps.
pub trait Checker {
    /// Names it in violations.
    fn name(&self) -> &'static str;

    /// Asked after every step; keep it cheap.
    ///
    /// # Errors
    /// What is wrong.
    fn after_step(&mut self, sim: &Sim) -> Result<(), String> {
        let _ = sim;
        Ok(())
    }

    /// Asked once, when everything has stopped.
    ///
    /// # Errors
    /// What is wrong.
    fn at_end(&mut self, sim: &Sim) -> Result<(), String> {
        let _ = sim;
        Ok(())
    }
}

/// What went wrong in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The checker, or the simulation's own: `panic`, `leak`, `livelock`, `shutdown`.
    pub by: String,
    /// What it saw.
    pub text: String,
    /// When, in virtual time.
    pub at: Duration,
    /// At which step.
    pub step: u64,
}

impl std::error::Error for Violation {}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:?} (step {}): {}", self.by, self.at, self.step, self.text)
    }
}
