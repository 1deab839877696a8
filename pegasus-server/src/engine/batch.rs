//! A batch of puts and deletes that an engine applies as one atomic step.
//!
//! The records are kept in RocksDB's own batch representation, built here in plain Rust: putting a
//! record is an append to one vector, the RocksDB engine hands the whole batch over in a single call
//! however many records it holds, and the in-memory engine walks the same bytes. Layout: 8 bytes
//! sequence number (the engine's business, zero here), `u32` little endian record count, then the
//! records: tag, `varint key length, key`, and for a put `varint value length, value`.
//!
//! A batch can also be read back: [`Batch::lookup`] finds the newest record of a key, so that an
//! operation that reads before it writes sees what earlier operations of the same batch did. The
//! index behind it is built at the first lookup and costs nothing to those who never ask.
//!
//! Limits: lengths are `u32`; the host bounds the run of mutations that makes a batch.

use std::hash::BuildHasher;
use std::ops::Range;

use dsn_core::hash::DetState;
use hashbrown::HashTable;

/// A batch of fewer records is written in the order it was made in: sorting gains nothing.
const SORT_MIN: u32 = 4;
/// Sequence number and count.
const HEADER_BYTES: usize = 12;
const COUNT_AT: usize = 8;
const TAG_DELETE: u8 = 0x0;
const TAG_PUT: u8 = 0x1;
const TAG_CF_PUT: u8 = 0x5;

/// One record of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// `key` gets `value`.
    Put {
        /// Raw key.
        key: &'a [u8],
        /// Stored value, header included.
        value: &'a [u8],
    },
    /// `key` disappears, if it was there.
    Delete {
        /// Raw key.
        key: &'a [u8],
    },
}

/// What a batch says about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending<'a> {
    /// The key's newest record in the batch puts this value.
    Put(&'a [u8]),
    /// The key's newest record in the batch deletes it.
    Deleted,
}

/// Where a record's key and value lie in `rep`.
#[derive(Clone)]
struct Located {
    key: Range<usize>,
    value: Option<Range<usize>>,
}

/// Puts and deletes to be applied together. See the module's head for the representation.
pub struct Batch {
    rep: Vec<u8>,
    count: u32,
    index: HashTable<Located>,
    /// Records before this offset are in `index`.
    indexed_to: usize,
    hasher: DetState,
    sorted: Sorted,
}

/// Memory for sorting a batch, kept from one to the next.
#[derive(Default)]
struct Sorted {
    rep: Vec<u8>,
    /// Key and whole of each record.
    order: Vec<(Range<usize>, Range<usize>)>,
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self {
            rep: vec![0; HEADER_BYTES],
            count: 0,
            index: HashTable::new(),
            indexed_to: HEADER_BYTES,
            hasher: DetState::default(),
            sorted: Sorted::default(),
        }
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Size of the representation in bytes: keys, values and a few bytes per record.
    pub fn size_bytes(&self) -> usize {
        self.rep.len()
    }

    /// Removes every record and keeps the memory for the next use.
    pub fn clear(&mut self) {
        self.rep.truncate(HEADER_BYTES);
        self.count = 0;
        self.index.clear();
        self.indexed_to = HEADER_BYTES;
    }

    /// Appends a put. Key and value are the concatenations of their parts, so that callers need not
    /// build them first.
    pub fn put(&mut self, key: &[&[u8]], value: &[&[u8]]) {
        self.rep.push(TAG_PUT);
        push_parts(&mut self.rep, key);
        push_parts(&mut self.rep, value);
        self.count += 1;
    }

    /// Appends a delete of the key whose parts are given.
    pub fn delete(&mut self, key: &[&[u8]]) {
        self.rep.push(TAG_DELETE);
        push_parts(&mut self.rep, key);
        self.count += 1;
    }

    /// The newest record of `key` in this batch, `None` when the batch does not touch it.
    pub fn lookup(&mut self, key: &[u8]) -> Option<Pending<'_>> {
        self.index_new_records();
        let rep = &self.rep;
        let hash = self.hasher.hash_one(key);
        let found = self.index.find(hash, |at| &rep[at.key.clone()] == key)?;
        Some(match &found.value {
            Some(value) => Pending::Put(&rep[value.clone()]),
            None => Pending::Deleted,
        })
    }

    /// The records, oldest first.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        Walk { rep: &self.rep, at: HEADER_BYTES }.map(|at| {
            let key = &self.rep[at.key];
            match at.value {
                Some(value) => Record::Put { key, value: &self.rep[value] },
                None => Record::Delete { key },
            }
        })
    }

    /// Calls `write` with the representation of this batch plus one more put into column family
    /// `family`; the batch itself is unchanged afterwards. The records are in the order of their keys,
    /// those of one key in the order they were added in: the outcome is the same, and an engine that
    /// keeps its records sorted finds the place of each near that of the one before.
    pub fn with_family_put<T>(
        &mut self,
        family: u32,
        key: &[u8],
        value: &[u8],
        write: impl FnOnce(&[u8]) -> T,
    ) -> T {
        let in_order = self.sort();
        let rep = if in_order { &mut self.rep } else { &mut self.sorted.rep };
        let len = rep.len();
        rep.push(TAG_CF_PUT);
        push_varint(rep, family);
        push_parts(rep, &[key]);
        push_parts(rep, &[value]);
        rep[COUNT_AT..HEADER_BYTES].copy_from_slice(&(self.count + 1).to_le_bytes());
        let result = write(rep);
        rep.truncate(len);
        result
    }

    /// Makes a sorted copy of the representation, unless it is in order as it is; then it says so.
    fn sort(&mut self) -> bool {
        if self.count < SORT_MIN {
            return true;
        }
        let (rep, Sorted { rep: sorted, order }) = (&self.rep, &mut self.sorted);
        order.clear();
        let mut walk = Walk { rep, at: HEADER_BYTES };
        let mut start = walk.at;
        while let Some(record) = walk.next() {
            order.push((record.key, start..walk.at));
            start = walk.at;
        }
        let by_key = |(one, _): &(Range<usize>, _), (other, _): &(Range<usize>, _)| {
            rep[one.clone()].cmp(&rep[other.clone()])
        };
        if order.is_sorted_by(|one, other| by_key(one, other).is_le()) {
            return true;
        }
        // Stable: the newest record of a key stays the last.
        order.sort_by(by_key);
        sorted.clear();
        sorted.reserve(rep.len());
        sorted.extend_from_slice(&rep[..HEADER_BYTES]);
        order.iter().for_each(|(_, record)| sorted.extend_from_slice(&rep[record.clone()]));
        false
    }

    fn index_new_records(&mut self) {
        let Self { rep, index, hasher, indexed_to, .. } = self;
        let hash_of = |key: &Range<usize>| hasher.hash_one(&rep[key.clone()]);
        for at in (Walk { rep, at: *indexed_to }) {
            let hash = hash_of(&at.key);
            match index.find_mut(hash, |old| rep[old.key.clone()] == rep[at.key.clone()]) {
                Some(old) => *old = at,
                None => {
                    index.insert_unique(hash, at, |other| hash_of(&other.key));
                }
            }
        }
        *indexed_to = rep.len();
    }
}

/// Walks the records of a representation that [`Batch`] itself built.
struct Walk<'a> {
    rep: &'a [u8],
    at: usize,
}

impl Walk<'_> {
    fn string(&mut self) -> Range<usize> {
        let len = read_varint(self.rep, &mut self.at) as usize;
        let start = self.at;
        self.at += len;
        start..self.at
    }
}

impl Iterator for Walk<'_> {
    type Item = Located;

    fn next(&mut self) -> Option<Located> {
        let tag = *self.rep.get(self.at)?;
        self.at += 1;
        let key = self.string();
        let value = (tag == TAG_PUT).then(|| self.string());
        Some(Located { key, value })
    }
}

fn push_parts(rep: &mut Vec<u8>, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    rep.reserve(len + 6);
    push_varint(rep, len as u32);
    for part in parts {
        rep.extend_from_slice(part);
    }
}

fn push_varint(rep: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        rep.push(value as u8 | 0x80);
        value >>= 7;
    }
    rep.push(value as u8);
}

fn read_varint(rep: &[u8], at: &mut usize) -> u32 {
    let mut value = 0u32;
    let mut shift = 0;
    loop {
        let byte = rep[*at];
        *at += 1;
        value |= u32::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return value;
        }
        shift += 7;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_in_order_whatever_their_size() {
        let mut batch = Batch::new();
        let long = vec![7u8; 300];
        batch.put(&[b"a", b"b"], &[b"", b"x", &long]);
        batch.delete(&[b"gone"]);
        batch.put(&[b""], &[b""]);
        let joined = [&b"x"[..], &long].concat();
        let got: Vec<_> = batch.records().collect();
        assert_eq!(
            got,
            [
                Record::Put { key: b"ab", value: &joined },
                Record::Delete { key: b"gone" },
                Record::Put { key: b"", value: b"" },
            ]
        );
        assert_eq!(batch.len(), 3);
    }

    #[test]
    fn lookup_sees_the_newest_record_also_when_added_after_a_lookup() {
        let mut batch = Batch::new();
        assert_eq!(batch.lookup(b"k"), None);
        batch.put(&[b"k"], &[b"1"]);
        batch.put(&[b"other"], &[b"o"]);
        assert_eq!(batch.lookup(b"k"), Some(Pending::Put(b"1")));
        batch.put(&[b"k"], &[b"2"]);
        assert_eq!(batch.lookup(b"k"), Some(Pending::Put(b"2")));
        batch.delete(&[b"k"]);
        assert_eq!(batch.lookup(b"k"), Some(Pending::Deleted));
        assert_eq!(batch.lookup(b"other"), Some(Pending::Put(b"o")));
        batch.clear();
        assert_eq!(batch.lookup(b"k"), None);
        assert!(batch.is_empty());
    }

    #[test]
    fn the_family_put_leaves_no_trace_behind() {
        let mut batch = Batch::new();
        batch.put(&[b"k"], &[b"v"]);
        let before = batch.size_bytes();
        let rep = batch.with_family_put(1, b"meta", b"7", <[u8]>::to_vec);
        assert_eq!(&rep[COUNT_AT..HEADER_BYTES], &2u32.to_le_bytes());
        assert_eq!(&rep[before..], b"\x05\x01\x04meta\x017");
        assert_eq!(batch.size_bytes(), before);
        assert_eq!(batch.records().count(), 1);
    }

    #[test]
    fn an_engine_gets_the_records_by_key_and_those_of_a_key_in_order() {
        let mut batch = Batch::new();
        for (key, value) in [(b"b", b"1"), (b"c", b"2"), (b"a", b"3"), (b"b", b"4")] {
            batch.put(&[key], &[value]);
        }
        batch.delete(&[b"a"]);
        let before = batch.records().map(|record| format!("{record:?}")).collect::<Vec<_>>();
        let rep = batch.with_family_put(1, b"m", b"7", <[u8]>::to_vec);
        let records = b"\x01\x01a\x013\0\x01a\x01\x01b\x011\x01\x01b\x014\x01\x01c\x012";
        assert_eq!(rep[HEADER_BYTES..], [&records[..], b"\x05\x01\x01m\x017"].concat());
        assert_eq!(rep[COUNT_AT..HEADER_BYTES], 6u32.to_le_bytes());
        let after = batch.records().map(|record| format!("{record:?}")).collect::<Vec<_>>();
        assert_eq!(before, after, "the batch itself keeps its order");
        let again = batch.with_family_put(1, b"m", b"7", <[u8]>::to_vec);
        assert_eq!(rep, again);
    }

    #[test]
    fn many_keys_are_all_found() {
        let mut batch = Batch::new();
        for round in 0..3u32 {
            for n in 0..500u32 {
                batch.put(&[&n.to_be_bytes()], &[&(n * 10 + round).to_be_bytes()]);
                if n % 7 == 0 {
                    batch.lookup(&n.to_be_bytes());
                }
            }
        }
        for n in 0..500u32 {
            let want = (n * 10 + 2).to_be_bytes();
            assert_eq!(batch.lookup(&n.to_be_bytes()), Some(Pending::Put(&want)));
        }
        assert_eq!(batch.lookup(b"none"), None);
    }
}
