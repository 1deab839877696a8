//! What records look like: keys and values that follow from the record's number alone.
//!
//! A later run, with another seed or another operation, can therefore check what an earlier one has
//! written. A value is a piece of one fixed random text; where it begins depends on the record, so
//! that a value that belongs to another record is noticed.

use crate::args::{Plan, SORT_KEY_LEN};
use dsn_core::hash::mix64;
use dsn_core::rng::Rng;

/// Places where a value may begin.
const STARTS: u64 = 16_384;
/// The text of values is the same in every run.
const TEXT_SEED: u64 = 0x7061_7474_6572_6e73;
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Shape of all records of a run.
#[derive(Debug)]
pub struct Records {
    hash_len: usize,
    sort_keys: u64,
    value_sizes: Vec<usize>,
    text: Vec<u8>,
}

impl Records {
    /// The records of a plan.
    pub fn new(plan: &Plan) -> Self {
        let longest = plan.value_sizes.iter().copied().max().unwrap_or(0);
        let mut rng = Rng::new(TEXT_SEED);
        let text = (0..STARTS as usize + longest).map(|_| ALPHABET[rng.index(64)]).collect();
        let sort_len = if plan.sort_keys > 1 { SORT_KEY_LEN } else { 0 };
        Self {
            hash_len: plan.key_size - sort_len,
            sort_keys: plan.sort_keys,
            value_sizes: plan.value_sizes.clone(),
            text,
        }
    }

    /// Bytes of every hash key.
    pub fn hash_key_len(&self) -> usize {
        self.hash_len
    }

    /// Bytes of every sort key.
    pub fn sort_key_len(&self) -> usize {
        if self.sort_keys > 1 { SORT_KEY_LEN } else { 0 }
    }

    /// Appends the hash key of a record: `k`, then its group's number with leading zeros.
    #[inline]
    pub fn hash_key(&self, record: u64, out: &mut Vec<u8>) {
        number(b'k', record / self.sort_keys, self.hash_len, out);
    }

    /// Appends the sort key of a record: `s` and its place within the group, or nothing.
    #[inline]
    pub fn sort_key(&self, record: u64, out: &mut Vec<u8>) {
        if self.sort_keys > 1 {
            number(b's', record % self.sort_keys, SORT_KEY_LEN, out);
        }
    }

    /// The record of `record`'s group that has this sort key.
    pub fn with_sort_key(&self, record: u64, sort_key: &[u8]) -> Option<u64> {
        let digits = sort_key.strip_prefix(b"s")?;
        let place: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
        let known = digits.len() + 1 == SORT_KEY_LEN && place < self.sort_keys;
        known.then_some(record - record % self.sort_keys + place)
    }

    /// The value of a record.
    #[inline]
    pub fn value(&self, record: u64) -> &[u8] {
        let mixed = mix64(record);
        let start = (mixed % STARTS) as usize;
        let size = match self.value_sizes.as_slice() {
            [one] => *one,
            many => many[(mixed >> 32) as usize % many.len()],
        };
        &self.text[start..start + size]
    }
}

/// Appends `letter` and `value` in decimal, `len` bytes together.
#[inline]
fn number(letter: u8, mut value: u64, len: usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + len, b'0');
    out[start] = letter;
    let mut at = start + len;
    while value > 0 && at > start + 1 {
        at -= 1;
        out[at] = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Counts of what was read.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Records found.
    pub found: u64,
    /// Records that should have been there.
    pub missing: u64,
    /// Records whose value has another length, or with read-back another content, or is not theirs.
    pub wrong: u64,
}

/// Compares what was read with what was written.
#[derive(Debug, Clone, Copy)]
pub struct Checker<'a> {
    /// The records.
    pub records: &'a Records,
    /// Whether contents are compared too.
    pub content: bool,
}

impl Checker<'_> {
    /// One record was asked for, this is the answer.
    #[inline]
    pub fn value(&self, record: u64, value: Option<&[u8]>, tally: &mut Tally) {
        let Some(value) = value else {
            tally.missing += 1;
            return;
        };
        tally.found += 1;
        let wanted = self.records.value(record);
        if value.len() != wanted.len() || (self.content && value != wanted) {
            tally.wrong += 1;
        }
    }

    /// A record of the group of `record` arrived with its sort key.
    pub fn row(&self, record: u64, sort_key: &[u8], value: &[u8], tally: &mut Tally) {
        match self.records.with_sort_key(record, sort_key) {
            Some(record) => self.value(record, Some(value), tally),
            None => tally.wrong += 1,
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::Parser;

    /// Records of a command line.
    pub fn records_of(line: &str) -> Records {
        let words = std::iter::once("pegasus-bench").chain(line.split_whitespace());
        Records::new(&Cli::parse_from(words).run.plan(vec![], false).unwrap())
    }

    fn key(records: &Records, record: u64) -> String {
        let mut out = Vec::new();
        records.hash_key(record, &mut out);
        out.push(b'|');
        records.sort_key(record, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn keys_have_their_size_and_their_number() {
        let flat = records_of("--key-size 8 --keys 10000000");
        assert_eq!(key(&flat, 0), "k0000000|");
        assert_eq!(key(&flat, 9_999_999), "k9999999|");
        let grouped = records_of("--key-size 16 --keys 1000 --sort-keys 10");
        assert_eq!(key(&grouped, 127), "k0000012|s0000007");
        assert_eq!(grouped.with_sort_key(125, b"s0000007"), Some(127));
        for bad in [&b"s0000010"[..], b"x0000001", b"s1", b"", b"s-000001"] {
            assert_eq!(grouped.with_sort_key(125, bad), None);
        }
    }

    #[test]
    fn values_repeat_and_differ() {
        let records = records_of("--value-size 10,300");
        let again = records_of("--value-size 10,300");
        let mut sizes = [0u32; 2];
        for record in 0..1000 {
            assert_eq!(records.value(record), again.value(record));
            sizes[usize::from(records.value(record).len() == 300)] += 1;
        }
        assert!(sizes[0] > 400 && sizes[1] > 400, "{sizes:?}");
        assert_ne!(records.value(1)[..10], records.value(2)[..10]);
    }

    #[test]
    fn the_checker_counts_misses_and_wrong_values() {
        let records = records_of("--value-size 10");
        let mut tally = Tally::default();
        let lengths = Checker { records: &records, content: false };
        lengths.value(1, Some(records.value(1)), &mut tally);
        lengths.value(1, Some(records.value(2)), &mut tally);
        lengths.value(1, Some(b"short"), &mut tally);
        lengths.value(1, None, &mut tally);
        assert_eq!(tally, Tally { found: 3, missing: 1, wrong: 1 });
        let mut tally = Tally::default();
        let contents = Checker { records: &records, content: true };
        contents.value(1, Some(records.value(1)), &mut tally);
        contents.value(1, Some(records.value(2)), &mut tally);
        assert_eq!(tally, Tally { found: 2, missing: 0, wrong: 1 });
    }
}
