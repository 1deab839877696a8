//! Open scans, kept between the batches that their clients fetch.
//!
//! Each is kept under an id that is good for one use: taking it out removes it, and putting it back
//! gives another id. So a repeated request for a batch, whose first answer was lost, finds nothing,
//! and its client opens a new scan, instead of silently missing a batch.
//!
//! Ids are never negative, which clients would not clear. Their upper half is random, so that an id of another
//! replica, or of this one before a restart, is almost certainly unknown. They grow, so the order of ids is the
//! order of age.

use std::collections::BTreeMap;

use dsn_core::time::Mono;
use parking_lot::Mutex;

use crate::limits::{SCAN_CONTEXT_LIFETIME, SCAN_CONTEXTS_MAX};

/// Scans by id. Usable from any thread.
pub struct ScanContexts<S> {
    state: Mutex<State<S>>,
}

struct State<S> {
    next_id: i64,
    /// With the time at which each is dropped. Age, expiry and id have the same order.
    open: BTreeMap<i64, (Mono, S)>,
}

impl<S> ScanContexts<S> {
    /// No scans. Ids begin with the lower 31 bits of `base`.
    pub fn new(base: u32) -> Self {
        let next_id = i64::from(base & 0x7fff_ffff) << 32;
        Self { state: Mutex::new(State { next_id, open: BTreeMap::new() }) }
    }

    /// Keeps a scan and returns its id. Drops those whose time has come, and the oldest one when there
    /// are [`SCAN_CONTEXTS_MAX`] already.
    pub fn put(&self, scan: S, now: Mono) -> i64 {
        let mut state = self.state.lock();
        let mut gone = state.take_expired(now);
        if state.open.len() >= SCAN_CONTEXTS_MAX {
            gone.extend(state.open.pop_first().map(|(_, (_, scan))| scan));
        }
        let id = state.next_id;
        state.next_id = state.next_id.checked_add(1).unwrap_or(0);
        state.open.insert(id, (now + SCAN_CONTEXT_LIFETIME, scan));
        drop(state);
        // Giving up a snapshot may take a while, and needs no lock.
        drop(gone);
        id
    }

    /// Takes the scan out; `None` when there is none of that id, or its time has come.
    pub fn take(&self, id: i64, now: Mono) -> Option<S> {
        let (until, scan) = self.state.lock().open.remove(&id)?;
        (!until.is_past(now)).then_some(scan)
    }

    /// Drops the scans whose time has come.
    pub fn expire(&self, now: Mono) {
        let gone = self.state.lock().take_expired(now);
        drop(gone);
    }

    /// Drops all scans.
    pub fn clear(&self) {
        let gone = std::mem::take(&mut self.state.lock().open);
        drop(gone);
    }

    /// Number of scans.
    pub fn len(&self) -> usize {
        self.state.lock().open.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<S> State<S> {
    fn take_expired(&mut self, now: Mono) -> Vec<S> {
        let mut gone = Vec::new();
        while let Some(oldest) = self.open.first_entry() {
            if !oldest.get().0.is_past(now) {
                break;
            }
            gone.push(oldest.remove().1);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(seconds: u64) -> Mono {
        Mono::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn an_id_is_good_once() {
        let scans = ScanContexts::new(7);
        let id = scans.put("scan", at(0));
        assert_eq!(id, 7 << 32);
        assert_eq!(scans.take(id + 1, at(1)), None);
        assert_eq!(scans.take(id, at(1)), Some("scan"));
        assert_eq!(scans.take(id, at(1)), None);
        assert_eq!(scans.put("scan", at(2)), id + 1);
    }

    #[test]
    fn ids_are_never_negative() {
        assert!(ScanContexts::new(u32::MAX).put((), at(0)) >= 0);
    }

    #[test]
    fn scans_live_five_minutes() {
        let scans = ScanContexts::new(0);
        let (first, second) = (scans.put(1, at(0)), scans.put(2, at(10)));
        assert_eq!(scans.take(first, at(300)), None);
        scans.expire(at(309));
        assert_eq!(scans.len(), 1);
        assert_eq!(scans.take(second, at(309)), Some(2));
        scans.put(3, at(0));
        scans.put(4, at(400));
        assert_eq!(scans.len(), 1);
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let scans = ScanContexts::new(0);
        let ids: Vec<i64> = (0..=SCAN_CONTEXTS_MAX).map(|n| scans.put(n, at(1))).collect();
        assert_eq!(scans.len(), SCAN_CONTEXTS_MAX);
        assert_eq!(scans.take(ids[0], at(1)), None);
        assert_eq!(scans.take(ids[1], at(1)), Some(1));
        scans.clear();
        assert!(scans.is_empty());
    }
}
