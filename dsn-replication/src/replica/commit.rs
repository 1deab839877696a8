//! The point of no return: what every member has logged is committed, what is committed is applied, in order of
//! decree.

use super::{LocalError, Replica, Role};
use crate::ids::Decree;
use crate::log::Appended;
use crate::mutation::{Mutation, Ticket, fingerprint};
use dsn_core::planted;

/// Consecutive committed mutations, to be applied as one.
#[derive(Debug)]
pub struct Run {
    /// In order of decree.
    pub mutations: Vec<Mutation>,
    /// Who waits for their requests, in order; missing for requests nobody waits for any more.
    pub tickets: Vec<Option<Ticket>>,
}

impl Run {
    /// Decree of the last mutation.
    #[must_use]
    pub fn last(&self) -> Decree {
        self.mutations.last().map_or(Decree::NONE, |mutation| mutation.decree)
    }
}

impl Replica {
    /// The log holds these decrees. Only the log can say so: see [`Appended`]. A primary commits what the others have
    /// as well; a member owes its primary an acknowledgement, see [`Replica::due_ack`].
    ///
    /// # Errors
    /// [`LocalError::Invariant`] when they do not continue what it held.
    pub fn on_logged(&mut self, token: Appended) -> Result<(), LocalError> {
        if token.ballot() != self.ballot {
            // Logged under a ballot that is over: what of it still stands has been proposed again.
            return Ok(());
        }
        if token.first() > self.logged.next() || token.last() > self.prepared {
            return Err(LocalError::Invariant(format!(
                "logged {:?}..={:?} after {:?}, prepared {:?}",
                token.first(),
                token.last(),
                self.logged,
                self.prepared
            )));
        }
        self.logged = self.logged.max(token.last());
        self.decide_leading();
        self.commit_following();
        if let Role::Secondary(follow) | Role::Learner(follow) = &mut self.role {
            follow.owes = true;
        }
        Ok(())
    }

    /// The next run to apply, unless one is being applied.
    pub fn next_run(&mut self) -> Option<Run> {
        if self.applying.is_some() || self.committed <= self.applied {
            return None;
        }
        let count = self.committed.since(self.applied).min(self.window.len());
        if count == 0 {
            return None;
        }
        let mut run = Run { mutations: Vec::with_capacity(count), tickets: Vec::new() };
        for entry in self.window.drain(..count) {
            self.applying_bytes += entry.bytes();
            let requests = entry.mutation.requests.len();
            let waiting = entry.tickets.len() == requests;
            match waiting {
                true => run.tickets.extend(entry.tickets.into_iter().map(Some)),
                false => run.tickets.extend(std::iter::repeat_n(None, requests)),
            }
            run.mutations.push(entry.mutation);
        }
        self.newest_decided = run.mutations.last().map(|last| (last.decree, fingerprint(last)));
        if planted::has("applied_out_of_order") {
            swap_last(&mut run);
        }
        self.applying = Some(run.last());
        Some(run)
    }

    /// The state machine has everything up to `last`.
    ///
    /// # Errors
    /// [`LocalError::Invariant`] when that was not what it was given.
    pub fn on_applied(&mut self, last: Decree) -> Result<(), LocalError> {
        if self.applying.take() != Some(last) {
            return Err(LocalError::Invariant(format!("applied {last:?} without being asked")));
        }
        self.applied = last;
        self.held_bytes -= std::mem::take(&mut self.applying_bytes);
        Ok(())
    }
}

/// Exchanges what the last two mutations of a run do, for the bug `applied_out_of_order`.
fn swap_last(run: &mut Run) {
    let Some(first) = run.mutations.len().checked_sub(2) else { return };
    let (older, newer) =
        (run.mutations[first].requests.len(), run.mutations[first + 1].requests.len());
    let at = run.tickets.len() - older - newer;
    run.tickets[at..].rotate_left(older);
    let requests = std::mem::take(&mut run.mutations[first].requests);
    run.mutations[first].requests =
        std::mem::replace(&mut run.mutations[first + 1].requests, requests);
}
