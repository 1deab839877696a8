//! Syncs of the log in use: one runs, at most one more waits to run, and what a sync covers is decided when it runs.
//!
//! While one runs, the next is queued behind it on the blocking stage and begins as soon as the first has ended,
//! without a worker in between; what is appended until then joins it.

use super::shared::{SharedLog, State};
use super::{Durability, LogError};
use dsn_core::disk::{File, SyncMode};
use dsn_core::planted;
use dsn_core::time::Mono;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

/// What a sync is to cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SyncScope {
    /// The files that are full.
    Sealed,
    /// Everything written so far.
    All,
}

/// A sync on its way to a blocking stage, for [`SharedLog::run_sync`].
#[derive(Debug)]
#[must_use = "the log asks for no other sync before this one runs"]
pub struct SyncJob(());

/// What a sync has come to, for [`SharedLog::end_sync`].
#[derive(Debug)]
#[must_use = "the log waits for SharedLog::end_sync"]
pub struct SyncOutcome {
    number: u64,
    outcome: io::Result<()>,
}

/// A sync that has begun.
#[derive(Debug)]
struct Running {
    number: u64,
    upto: u64,
    /// When it was asked for.
    asked: Mono,
    ended: bool,
}

/// Where the syncs of a log are.
#[derive(Debug)]
pub(super) struct Syncs {
    /// Everything before is durable.
    synced: u64,
    /// One is on its way to the blocking stage, for so much, since then.
    queued: Option<(SyncScope, Mono)>,
    /// In the order in which they began; with a stage of several threads more than one may run.
    running: VecDeque<Running>,
    /// How many have begun.
    begun: u64,
}

impl Syncs {
    pub(super) fn new(synced: u64) -> Self {
        Self { synced, queued: None, running: VecDeque::new(), begun: 0 }
    }

    pub(super) fn synced(&self) -> u64 {
        self.synced
    }

    /// Up to where those that run, or have run, cover the log.
    fn covered(&self) -> u64 {
        self.running.back().map_or(self.synced, |last| last.upto)
    }

    fn begin(&mut self, upto: u64, asked: Mono) -> u64 {
        self.begun += 1;
        self.running.push_back(Running { number: self.begun, upto, asked, ended: false });
        self.begun
    }

    /// Since when the oldest one that has not ended was asked for.
    fn waiting_since(&self) -> Option<Mono> {
        let queued = self.queued.map(|(_, asked)| asked);
        self.running.iter().filter(|of| !of.ended).map(|of| of.asked).chain(queued).min()
    }

    /// One has ended well. What it covers is durable once all that began before it have ended well, too.
    fn end(&mut self, number: u64) {
        if let Some(of) = self.running.iter_mut().find(|of| of.number == number) {
            of.ended = true;
        }
        while self.running.front().is_some_and(|first| first.ended) {
            self.synced = self.running.pop_front().map_or(self.synced, |first| first.upto);
        }
    }
}

impl SharedLog {
    /// A sync, if there is anything to sync that none covers and no other one waits to run. Run it on a blocking stage
    /// ([`SharedLog::run_sync`]); whatever is appended before it runs is covered as well.
    pub fn begin_sync(&self, scope: SyncScope, now: Mono) -> Option<SyncJob> {
        let mut state = self.state.lock();
        if state.failed() || state.syncs.covered() >= upto(&state, scope) {
            return None;
        }
        let queued = state.syncs.queued;
        state.syncs.queued = Some(match queued {
            Some((other, asked)) => (other.max(scope), asked),
            None => (scope, now),
        });
        queued.is_none().then_some(SyncJob(()))
    }

    /// Syncs; blocks.
    pub fn run_sync(&self, _job: SyncJob) -> SyncOutcome {
        let (number, files) = {
            let mut state = self.state.lock();
            let (scope, asked) =
                state.syncs.queued.take().unwrap_or((SyncScope::Sealed, Mono::NEVER));
            cover(&mut state, scope, asked)
        };
        SyncOutcome { number, outcome: sync(&files) }
    }

    /// A sync that has hung for [`LogOptions::sync_timeout`](super::LogOptions::sync_timeout) fails the log, as one
    /// does that returns an error; what it returns in the end changes nothing any more. Returns whether the log has
    /// failed just now.
    pub fn fail_if_hung(&self, now: Mono) -> bool {
        let mut state = self.state.lock();
        let limit = self.options.sync_timeout;
        let hung = state.syncs.waiting_since().is_some_and(|asked| (asked + limit).is_past(now));
        // In the page cache nobody waits for a sync, however busy the disk is.
        if !hung || self.options.durability == Durability::Os || state.failed() {
            return false;
        }
        let error = io::Error::new(io::ErrorKind::TimedOut, format!("not done within {limit:?}"));
        let _ = self.fail(&mut state, "syncing", &error);
        true
    }

    /// Ends a sync. Returns whether another one is due.
    ///
    /// # Errors
    /// [`LogError::Failed`] when the sync failed, or the log had before: what was not durable before never will be.
    pub fn end_sync(&self, sync: SyncOutcome) -> Result<bool, LogError> {
        let mut state = self.state.lock();
        match sync.outcome {
            Err(error) if !planted::has("sync_error_ignored") => {
                Err(self.fail(&mut state, "syncing", &error))
            }
            _ => {
                state.syncs.end(sync.number);
                self.check(&state)?;
                Ok(state.syncs.covered() < state.current.end())
            }
        }
    }

    /// Syncs everything written so far, here and now; blocks. What another one that runs is syncing is synced as well:
    /// whoever asks here waits for nobody else.
    ///
    /// # Errors
    /// As [`SharedLog::end_sync`].
    pub fn sync_now(&self, scope: SyncScope) -> Result<(), LogError> {
        let (number, files) = cover_again(&mut self.state.lock(), scope);
        self.end_sync(SyncOutcome { number, outcome: sync(&files) }).map(drop)
    }

    /// Takes nothing any more, and makes everything durable that it has taken; blocks.
    ///
    /// # Errors
    /// As [`SharedLog::end_sync`], and when another sync is under way: what that one returns would have to be known.
    pub fn close(&self) -> Result<(), LogError> {
        let (number, files) = {
            let mut state = self.state.lock();
            self.check(&state)?;
            state.close();
            cover_again(&mut state, SyncScope::All)
        };
        let outcome = sync(&files);
        let mut state = self.state.lock();
        if let Err(error) = outcome {
            return Err(self.fail(&mut state, "syncing", &error));
        }
        state.syncs.end(number);
        match state.syncs.waiting_since() {
            Some(_) => self.check(&state),
            None => Ok(()),
        }
    }
}

fn upto(state: &State, scope: SyncScope) -> u64 {
    match scope {
        SyncScope::All => state.current.end(),
        SyncScope::Sealed => state.current.head.base,
    }
}

fn sync(files: &[Arc<dyn File>]) -> io::Result<()> {
    files.iter().try_for_each(|file| file.sync(SyncMode::Data))
}

/// Begins a sync of everything that is not known to be durable, whatever else is being synced. Whoever asks waits for
/// it, and nobody looks.
fn cover_again(state: &mut State, scope: SyncScope) -> (u64, Vec<Arc<dyn File>>) {
    let synced = state.syncs.synced();
    let State { sealed, current, .. } = &mut *state;
    for segment in sealed.iter_mut().chain([current]) {
        segment.dirty |= segment.end() > synced;
    }
    cover(state, scope, Mono::NEVER)
}

/// Begins a sync: its number, and the files.
fn cover(state: &mut State, scope: SyncScope, asked: Mono) -> (u64, Vec<Arc<dyn File>>) {
    let upto = upto(state, scope).max(state.syncs.covered());
    let State { sealed, current, syncs, .. } = state;
    let current = (scope == SyncScope::All).then_some(current);
    let mut files = Vec::new();
    for segment in sealed.iter_mut().chain(current) {
        if std::mem::take(&mut segment.dirty) {
            files.push(segment.file.clone());
        }
    }
    (syncs.begin(upto, asked), files)
}
