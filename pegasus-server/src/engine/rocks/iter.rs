//! An engine iterator over RocksDB.

use std::sync::Arc;

use rocksdb::{DB, ReadOptions};

use super::error::engine_error;
use super::ffi::OwnedIter;
use crate::engine::{Direction, EngineError, EngineIter, Scope, prefix};

/// See [`EngineIter`].
pub struct RocksIter {
    iter: OwnedIter,
    direction: Direction,
}

impl RocksIter {
    /// Opens an iterator and positions it; see [`crate::engine::StorageEngine::iter`].
    pub fn new(db: Arc<DB>, start: &[u8], direction: Direction, scope: Scope) -> Self {
        let mut options = ReadOptions::default();
        // Filters know whole prefixes only, so whatever does not stay within one must bypass them.
        let within_prefix = scope == Scope::SameHashKey
            && direction == Direction::Forward
            && prefix::in_domain(start);
        options.set_prefix_same_as_start(within_prefix);
        options.set_total_order_seek(!within_prefix);
        options.set_background_purge_on_iterator_cleanup(true);
        let mut iter = OwnedIter::new(db, options);
        match direction {
            Direction::Forward => iter.seek(start),
            Direction::Reverse => iter.seek_for_prev(start),
        }
        Self { iter, direction }
    }
}

impl EngineIter for RocksIter {
    fn entry(&self) -> Option<(&[u8], &[u8])> {
        self.iter.get().item()
    }

    fn advance(&mut self) {
        if !self.iter.get().valid() {
            return;
        }
        match self.direction {
            Direction::Forward => self.iter.next(),
            Direction::Reverse => self.iter.prev(),
        }
    }

    fn status(&self) -> Result<(), EngineError> {
        self.iter.get().status().map_err(engine_error)
    }
}
