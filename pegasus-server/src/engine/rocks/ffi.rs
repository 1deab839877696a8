//! The only unsafe code of this crate: what RocksDB's C interface offers and its safe wrapper does not.
//!
//! Four things, each a few lines: an iterator that keeps its database open, the number of a column
//! family, a computed replacement value in a compaction filter, and the settings of the heap that RocksDB
//! and this crate share.

#![expect(unsafe_code, reason = "the safe wrapper lacks these; each block states why it is sound")]

use std::sync::Arc;

use librocksdb_sys as sys;
use rocksdb::{AsColumnFamilyRef, CompactionDecision, DB, DBRawIterator, ReadOptions};

/// An iterator that shares ownership of its database.
pub struct OwnedIter {
    // Declared, and so dropped, before `_db`.
    iter: DBRawIterator<'static>,
    _db: Arc<DB>,
}

impl OwnedIter {
    /// A new iterator over the default column family of `db`, not yet positioned.
    pub fn new(db: Arc<DB>, options: ReadOptions) -> Self {
        let iter: DBRawIterator<'_> = db.raw_iterator_opt(options);
        // SAFETY: the iterator borrows the `DB` inside the `Arc`. The same value keeps that `Arc`, so
        // the `DB` neither moves nor is dropped while the iterator lives, and the fields' order drops
        // the iterator first. The 'static lifetime never leaves this value: both accessors below
        // hand the iterator out for the lifetime of the borrow of `self` only.
        let iter =
            unsafe { std::mem::transmute::<DBRawIterator<'_>, DBRawIterator<'static>>(iter) };
        Self { iter, _db: db }
    }

    /// The iterator, for reading.
    pub fn get(&self) -> &DBRawIterator<'_> {
        &self.iter
    }

    /// Positions at the first key at or after `key`.
    pub fn seek(&mut self, key: &[u8]) {
        self.iter.seek(key);
    }

    /// Positions at the last key at or before `key`.
    pub fn seek_for_prev(&mut self, key: &[u8]) {
        self.iter.seek_for_prev(key);
    }

    /// One key on. The iterator must be valid.
    pub fn next(&mut self) {
        self.iter.next();
    }

    /// One key back. The iterator must be valid.
    pub fn prev(&mut self) {
        self.iter.prev();
    }
}

/// Settings of jemalloc, which looks for this name when it starts. Memory comes in huge pages where the system has
/// them: looking for a record's place in memtables touches a page at every step, and of small ones the processor
/// knows too few. Memory that is free for a moment is kept for a minute, so that the next memtable gets whole pages.
// SAFETY: jemalloc declares a `const char *` of this name and reads it as a string; this is a pointer to one that
// ends with a zero and lives as long as the process.
#[used]
#[unsafe(export_name = "malloc_conf")]
pub static HEAP_SETTINGS: &[u8; 32] = b"thp:always,dirty_decay_ms:60000\0";

/// The number under which a write batch addresses a column family.
pub fn family_id(family: &impl AsColumnFamilyRef) -> u32 {
    // SAFETY: the handle is valid as long as the borrow of `family`; the call only reads its id.
    unsafe { sys::rocksdb_column_family_handle_get_id(family.inner()) }
}

/// The decision of a compaction filter to replace a value by `scratch`.
///
/// `scratch` must be a field of the filter that decides, and not change before the filter is asked
/// about its next record.
pub fn change_value(scratch: &[u8]) -> CompactionDecision {
    // SAFETY: RocksDB's C layer copies the replacement into a string of its own as soon as the filter
    // callback returns, before it calls the filter again or destroys it; the buffer, which belongs to
    // the filter, is alive and unchanged until then. The lifetime is made up for a signature that
    // asks for more than the C layer needs.
    CompactionDecision::Change(unsafe { std::mem::transmute::<&[u8], &'static [u8]>(scratch) })
}
