//! What must hold between two events. Walked in tests and simulations.

use super::Replica;
use super::prepare::BACKLOG_MAX;

impl Replica {
    /// Checks everything.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check_invariants(&self) -> Result<(), String> {
        let Self { applied, committed, logged, prepared, .. } = *self;
        if !(applied <= committed && committed <= logged && logged <= prepared) {
            return Err(format!(
                "{}: applied {applied:?} committed {committed:?} logged {logged:?} prepared {prepared:?}",
                self.gpid
            ));
        }
        let mut expected = self.applying.unwrap_or(applied).next();
        for entry in &self.window {
            if entry.mutation.decree != expected {
                return Err(format!(
                    "{}: {:?} in the window where {expected:?} belongs",
                    self.gpid, entry.mutation.decree
                ));
            }
            expected = expected.next();
        }
        if expected.prev() != prepared {
            return Err(format!("{}: the window ends before {prepared:?}", self.gpid));
        }
        let held: usize = self.window.iter().map(super::Entry::bytes).sum();
        if held + self.applying_bytes != self.held_bytes {
            return Err(format!("{}: {held} bytes in the window", self.gpid));
        }
        let most = self.options.window.max(self.inherited).max(BACKLOG_MAX);
        if self.window.len() > most {
            return Err(format!("{}: {} mutations in the window", self.gpid, self.window.len()));
        }
        Ok(())
    }
}
