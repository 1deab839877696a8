//! Segment files: head, footer and trailer.
//!
//! A log is a row of files `log.<index>`. Each begins with two copies of a head of 64 bytes:
//! ```text
//!  0 "DSNMLOG1"
//!  8 u32 version = 1, u32 tag
//! 16 u64 index
//! 24 u64 base         position of the file's first byte in the log; u64::MAX in a file that is not in use yet
//! 32 u64 created      microseconds since the Unix epoch
//! 40 u32 nonce
//! 44 zeros
//! 60 u32 crc32c of bytes 0..60
//! ```
//! A full segment ends with a footer record, which lists what it has of each partition, and a trailer:
//! `"DSNLEND1", u64 position of the footer record, u32 0, u32 crc32c seeded with the nonce`. With them, opening a log
//! costs a read per segment instead of reading all of it. Segments without are read through. A file in use may be
//! longer than what has been written to it (under group sync); the rest is zeros.

use super::record::{RecordKey, RecordKind, Seal};
use crate::ids::{Ballot, Decree};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use dsn_core::hash::DetHashMap;
use dsn_rpc::gpid::Gpid;

const HEAD_MAGIC: &[u8; 8] = b"DSNMLOG1";
const TRAILER_MAGIC: &[u8; 8] = b"DSNLEND1";
const VERSION: u32 = 1;
const HEAD_COPY: usize = 64;

/// Length of both copies of the head: where the first record begins.
pub const HEAD: usize = 2 * HEAD_COPY;
/// Length of the trailer.
pub const TRAILER: usize = 24;
/// Base of a file that is not in use yet.
pub const UNUSED: u64 = u64::MAX;

const SPAN: usize = 64;

/// What the head of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Number of the file, from 1.
    pub index: u64,
    /// Position of its first byte in the log, or [`UNUSED`].
    pub base: u64,
    /// Microseconds since the Unix epoch.
    pub created_us: u64,
    /// Secrets of its records.
    pub seal: Seal,
}

impl Head {
    /// Both copies.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEAD);
        for _ in 0..2 {
            let start = out.len();
            out.put_slice(HEAD_MAGIC);
            out.put_u32_le(VERSION);
            out.put_u32_le(self.seal.tag);
            out.put_u64_le(self.index);
            out.put_u64_le(self.base);
            out.put_u64_le(self.created_us);
            out.put_u32_le(self.seal.nonce);
            out.put_bytes(0, 16);
            let crc = crc32c::crc32c(&out[start..]);
            out.put_u32_le(crc);
        }
        out.freeze()
    }

    /// The first good copy.
    #[must_use]
    pub fn decode(data: &[u8]) -> Option<Self> {
        data.chunks_exact(HEAD_COPY).take(2).find_map(Self::decode_copy)
    }

    fn decode_copy(data: &[u8]) -> Option<Self> {
        let (body, mut crc) = data.split_at(HEAD_COPY - 4);
        if crc32c::crc32c(body) != crc.get_u32_le() {
            return None;
        }
        let mut body = body.strip_prefix(HEAD_MAGIC)?;
        if body.get_u32_le() != VERSION {
            return None;
        }
        let tag = body.get_u32_le();
        let (index, base) = (body.get_u64_le(), body.get_u64_le());
        let created_us = body.get_u64_le();
        Some(Self { index, base, created_us, seal: Seal { tag, nonce: body.get_u32_le() } })
    }
}

/// What a segment has of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Lowest decree.
    pub min: Decree,
    /// Highest decree that is not void at the end of the segment.
    pub max: Decree,
    /// Lowest decree from which the segment declares earlier records void, [`Decree::NONE`] when it does not.
    pub void_from: Decree,
    /// Highest ballot.
    pub ballot: Ballot,
    /// Position of its first record.
    pub first: u64,
    /// Position of its last record.
    pub last: u64,
    /// Number of records.
    pub records: u64,
}

/// What a segment has, by partition.
pub type Spans = DetHashMap<Gpid, Span>;

/// Notes one more record.
pub fn note(spans: &mut Spans, key: &RecordKey, position: u64) {
    let RecordKey { gpid, ballot, decree, kind } = *key;
    if kind == RecordKind::Footer {
        return;
    }
    let void = kind == RecordKind::Truncate;
    let span = spans.entry(gpid).or_insert(Span {
        min: decree,
        max: Decree::NONE,
        void_from: Decree::NONE,
        ballot,
        first: position,
        last: position,
        records: 0,
    });
    span.min = span.min.min(decree);
    if void {
        span.max = span.max.min(decree.prev());
        let none = span.void_from == Decree::NONE;
        span.void_from = if none { decree } else { span.void_from.min(decree) };
    } else {
        span.max = span.max.max(decree);
    }
    span.ballot = span.ballot.max(ballot);
    span.last = position;
    span.records += 1;
}

/// The payload of a footer.
pub fn encode_spans(spans: &Spans, out: &mut BytesMut) {
    out.put_u32_le(spans.len() as u32);
    let mut sorted: Vec<_> = spans.iter().collect();
    sorted.sort_unstable_by_key(|(gpid, _)| **gpid);
    for (gpid, span) in sorted {
        out.put_i32_le(gpid.app_id);
        out.put_i32_le(gpid.partition_index);
        out.put_i64_le(span.min.0);
        out.put_i64_le(span.max.0);
        out.put_i64_le(span.void_from.0);
        out.put_i64_le(span.ballot.0);
        out.put_u64_le(span.first);
        out.put_u64_le(span.last);
        out.put_u64_le(span.records);
    }
}

/// Reads the payload of a footer.
#[must_use]
pub fn decode_spans(mut data: &[u8]) -> Option<Spans> {
    let count = data.try_get_u32_le().ok()? as usize;
    if data.len() != count.checked_mul(SPAN)? {
        return None;
    }
    let mut spans = Spans::default();
    for _ in 0..count {
        let gpid = Gpid::new(data.get_i32_le(), data.get_i32_le());
        let (min, max) = (Decree(data.get_i64_le()), Decree(data.get_i64_le()));
        let void_from = Decree(data.get_i64_le());
        let ballot = Ballot(data.get_i64_le());
        let (first, last) = (data.get_u64_le(), data.get_u64_le());
        let records = data.get_u64_le();
        spans.insert(gpid, Span { min, max, void_from, ballot, first, last, records });
    }
    Some(spans)
}

/// The trailer of a segment whose footer record is at `footer`.
pub fn encode_trailer(footer: u64, seal: Seal, out: &mut BytesMut) {
    let start = out.len();
    out.put_slice(TRAILER_MAGIC);
    out.put_u64_le(footer);
    out.put_u32_le(0);
    let crc = crc32c::crc32c_append(seal.nonce, &out[start..]);
    out.put_u32_le(crc);
}

/// The position of the footer record, from the last bytes of a file.
#[must_use]
pub fn decode_trailer(data: &[u8], seal: Seal) -> Option<u64> {
    let (body, mut crc) = data.split_at_checked(TRAILER - 4)?;
    if crc.len() != 4 || crc32c::crc32c_append(seal.nonce, body) != crc.get_u32_le() {
        return None;
    }
    body.strip_prefix(TRAILER_MAGIC)?.try_get_u64_le().ok()
}

/// The name of a segment file.
#[must_use]
pub fn file_name(index: u64) -> String {
    format!("log.{index}")
}

/// The index in the name of a segment file.
#[must_use]
pub fn parse_file_name(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("log.")?;
    let index = digits.parse::<u64>().ok()?;
    (index > 0 && index.to_string() == digits).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEAL: Seal = Seal { tag: 7, nonce: 9 };

    #[test]
    fn a_head_survives_the_loss_of_one_copy() {
        let head = Head { index: 3, base: 1000, created_us: 17, seal: SEAL };
        let bytes = head.encode();
        assert_eq!(bytes.len(), HEAD);
        assert_eq!(Head::decode(&bytes), Some(head));
        for at in 0..HEAD {
            let mut broken = bytes.to_vec();
            broken[at] ^= 1;
            assert_eq!(Head::decode(&broken), Some(head), "byte {at}");
        }
        let mut broken = bytes.to_vec();
        (broken[0], broken[HEAD_COPY]) = (0, 0);
        assert_eq!(Head::decode(&broken), None);
        assert_eq!(Head::decode(&bytes[..HEAD_COPY - 1]), None);
    }

    #[test]
    fn spans_and_trailer_come_back() {
        let key = |index, decree, kind| RecordKey {
            gpid: Gpid::new(1, index),
            ballot: Ballot(decree),
            decree: Decree(decree),
            kind,
        };
        let mut spans = Spans::default();
        for decree in [5, 7, 6] {
            note(&mut spans, &key(2, decree, RecordKind::Mutation), 100 * decree as u64);
        }
        note(&mut spans, &key(0, 1, RecordKind::Mutation), 9);
        note(&mut spans, &key(0, 1, RecordKind::Footer), 10);
        let span = spans[&Gpid::new(1, 2)];
        assert_eq!((span.min, span.max, span.ballot), (Decree(5), Decree(7), Ballot(7)));
        assert_eq!((span.first, span.last, span.records), (500, 600, 3));
        note(&mut spans, &key(2, 6, RecordKind::Truncate), 800);
        let span = spans[&Gpid::new(1, 2)];
        assert_eq!((span.max, span.void_from), (Decree(5), Decree(6)), "6 and 7 are void");
        let mut out = BytesMut::new();
        encode_spans(&spans, &mut out);
        assert_eq!(decode_spans(&out), Some(spans));
        assert_eq!(decode_spans(&out[..out.len() - 1]), None);
        assert_eq!(decode_spans(&[255; 8]), None);
        let mut out = BytesMut::new();
        encode_trailer(4711, SEAL, &mut out);
        assert_eq!(out.len(), TRAILER);
        assert_eq!(decode_trailer(&out, SEAL), Some(4711));
        assert_eq!(decode_trailer(&out, Seal { nonce: 8, ..SEAL }), None);
        assert_eq!(decode_trailer(&out[1..], SEAL), None);
    }

    #[test]
    fn names() {
        assert_eq!(parse_file_name(&file_name(17)), Some(17));
        for name in ["log.", "log.0", "log.01", "log.x", "log.1.2", "1"] {
            assert_eq!(parse_file_name(name), None, "{name}");
        }
    }
}
