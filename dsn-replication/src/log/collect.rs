//! Giving segments back.
//!
//! A segment is needed while it has a decree of a living replica that no checkpoint of that replica covers, or a ballot
//! that is on record nowhere else. Segments go
//! oldest first and never the current one, so that what stays is always a suffix of the log. A replica that holds old
//! segments back is named, to be checkpointed.

use super::shared::{Needs, Segment, SharedLog, State};
use super::{LogError, segment};
use crate::ids::{Ballot, Decree};
use dsn_core::planted;
use dsn_rpc::gpid::Gpid;
use std::time::Duration;

/// What a log has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogSize {
    /// Segment files in use.
    pub segments: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Outcome of a collection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Files removed.
    pub removed: usize,
    /// Replicas whose checkpoints would free the oldest segments, if there are too many.
    pub laggards: Vec<Gpid>,
}

impl SharedLog {
    /// A replica uses the log: its records after `durable`, and those of ballots above `ballot`, are kept, but none
    /// before position `floor`.
    pub fn register(&self, gpid: Gpid, durable: Decree, floor: u64, ballot: Ballot) {
        let needs = Needs { durable, floor, ballot, reader: None };
        let mut state = self.state.lock();
        // What a former replica has written is not summed up for this one.
        if state.current.spans.get(&gpid).is_some_and(|span| span.last < floor) {
            state.current.spans.remove(&gpid);
        }
        state.replicas.insert(gpid, needs);
    }

    /// A replica has put its ballot on record elsewhere.
    pub fn set_ballot(&self, gpid: Gpid, ballot: Ballot) {
        if let Some(needs) = self.state.lock().replicas.get_mut(&gpid) {
            needs.ballot = needs.ballot.max(ballot);
        }
    }

    /// A replica has a checkpoint up to `durable`.
    pub fn set_durable(&self, gpid: Gpid, durable: Decree) {
        if let Some(needs) = self.state.lock().replicas.get_mut(&gpid) {
            needs.durable = needs.durable.max(durable);
        }
    }

    /// A replica is gone for good; nothing of it is needed.
    pub fn forget(&self, gpid: Gpid) {
        self.state.lock().replicas.remove(&gpid);
    }

    /// Segments and bytes in use.
    #[must_use]
    pub fn size(&self) -> LogSize {
        let state = self.state.lock();
        let bytes = state.sealed.iter().map(|s| s.len).sum::<u64>() + state.current.len;
        LogSize { segments: state.sealed.len() + 1, bytes }
    }

    /// Removes what nobody needs; blocks. Call on a blocking stage, one at a time.
    ///
    /// # Errors
    /// Of the file system; the log works on.
    pub fn collect(&self, now_us: u64) -> Result<Collected, LogError> {
        let mut removed = 0;
        while let Some(segment) = self.pop_unneeded(now_us) {
            tracing::info!(path = %segment.path.display(), "mutation log segment removed");
            self.disk.unlink(&segment.path).map_err(|error| LogError::io(&segment.path, error))?;
            removed += 1;
        }
        if removed > 0 {
            self.disk.sync_dir(&self.dir).map_err(|error| LogError::io(&self.dir, error))?;
        }
        Ok(Collected { removed, laggards: self.laggards() })
    }

    fn pop_unneeded(&self, now_us: u64) -> Option<Segment> {
        let mut state = self.state.lock();
        let oldest = state.sealed.front()?;
        // A file under sync or not yet durable stays: the order of removals on disk must not matter.
        if oldest.dirty
            || oldest.end() > state.syncs.synced()
            || holders(&state, oldest).next().is_some()
        {
            return None;
        }
        let bytes = state.sealed.iter().map(|s| s.len).sum::<u64>() + state.current.len;
        let sealed_us = state.sealed.get(1).unwrap_or(&state.current).head.created_us;
        let age = Duration::from_micros(now_us.saturating_sub(sealed_us));
        if age < self.options.reserve_age && bytes <= self.options.reserve_bytes {
            return None;
        }
        state.sealed.pop_front()
    }

    fn laggards(&self) -> Vec<Gpid> {
        let state = self.state.lock();
        let excess = (state.sealed.len() + 1).saturating_sub(self.options.count_limit);
        let mut found: Vec<Gpid> = Vec::new();
        for segment in state.sealed.iter().take(excess) {
            let mut here: Vec<Gpid> = holders(&state, segment).collect();
            here.sort_unstable();
            for gpid in here {
                if !found.contains(&gpid) {
                    found.push(gpid);
                }
            }
            if found.len() >= self.options.flush_limit {
                break;
            }
        }
        found.truncate(self.options.flush_limit);
        found
    }
}

/// The replicas that need a segment.
fn holders<'a>(state: &'a State, segment: &'a Segment) -> impl Iterator<Item = Gpid> + 'a {
    segment.spans.iter().filter_map(|(gpid, span)| {
        let needs = state.replicas.get(gpid)?;
        is_needed(span, needs).then_some(*gpid)
    })
}

fn is_needed(span: &segment::Span, needs: &Needs) -> bool {
    if planted::has("log_collected_early") {
        return false;
    }
    let read = needs.reader.is_some_and(|from| span.max >= from);
    (span.max > needs.durable || span.ballot > needs.ballot || read) && span.last >= needs.floor
}
