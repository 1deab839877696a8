//! One record of the mutation log: a fixed header and a payload.
//!
//! ```text
//!  0 u32 tag            the segment's own, drawn at random
//!  4 u32 length         of the payload
//!  8 i32 app id, i32 partition
//! 16 i64 ballot
//! 24 i64 decree
//! 32 u64 position      of this header in the log
//! 40 u32 unsynced      distance back to where the log was known to be durable (saturating)
//! 44 u8  kind, u8 durability, u16 0
//! 48 i32 app id, i32 partition, i64 decree of the record before this one in the log
//! 64 u32 distance back to the beginning of that record; 0: there is none
//! 68 u32 crc32c of the payload
//! 72 u32 crc32c of bytes 0..72, seeded with the segment's nonce
//! 76 payload
//! ```
//! Little endian. Header and payload have a checksum each: a broken payload still says whose it was and where the next
//! record begins, and for a broken header its successor says so. Tag and nonce are secrets of the segment, so that no
//! value a client stores can be mistaken for a record when reading has to find its feet again.

use crate::ids::{Ballot, Decree};
use bytes::{BufMut, Bytes, BytesMut};
use dsn_core::planted;
use dsn_rpc::gpid::Gpid;

/// Length of a header in bytes.
pub const HEADER: usize = 76;

/// Longest payload. A mutation is a batch of at most one full batch and one request more.
pub const PAYLOAD_MAX: usize = 256 << 20;

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// A mutation; the payload is its body.
    Mutation,
    /// All earlier records of the partition with this decree or a higher one are void. No payload.
    Truncate,
    /// The end of a segment: a summary of its partitions.
    Footer,
}

impl RecordKind {
    const fn from_u8(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::Mutation),
            2 => Some(Self::Truncate),
            3 => Some(Self::Footer),
            _ => None,
        }
    }

    const fn to_u8(self) -> u8 {
        match self {
            Self::Mutation => 1,
            Self::Truncate => 2,
            Self::Footer => 3,
        }
    }
}

/// What an acknowledgement rests on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The log was written to the operating system: survives the end of the process.
    #[default]
    Os,
    /// The log was synced: survives a power loss. Many writes share a sync.
    GroupSync,
    /// Like [`Durability::Os`], and the log is synced periodically.
    IntervalSync,
}

impl Durability {
    const fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::Os),
            1 => Some(Self::GroupSync),
            2 => Some(Self::IntervalSync),
            _ => None,
        }
    }

    const fn to_u8(self) -> u8 {
        match self {
            Self::Os => 0,
            Self::GroupSync => 1,
            Self::IntervalSync => 2,
        }
    }
}

/// Which mutation a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordKey {
    /// The partition.
    pub gpid: Gpid,
    /// Ballot.
    pub ballot: Ballot,
    /// Decree.
    pub decree: Decree,
    /// What it says.
    pub kind: RecordKind,
}

/// The record before a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its partition.
    pub gpid: Gpid,
    /// Its decree.
    pub decree: Decree,
    /// Where it begins.
    pub position: u64,
}

/// The secrets of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// First four bytes of each record.
    pub tag: u32,
    /// Seed of the header checksums.
    pub nonce: u32,
}

/// A header that has passed its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which mutation.
    pub key: RecordKey,
    /// Length of the payload.
    pub len: usize,
    /// Position of the header in the log.
    pub position: u64,
    /// Everything before this position was durable when the record was written.
    pub synced: u64,
    /// What acknowledgements rested on.
    pub durability: Durability,
    /// The record before this one, in the whole log.
    pub before: Option<Link>,
    payload_crc: u32,
}

impl Header {
    /// Whether `payload` is what was written.
    #[must_use]
    pub fn matches(&self, payload: &[u8]) -> bool {
        let whole = payload.len() == self.len;
        whole && (crc32c::crc32c(payload) == self.payload_crc || planted::has("log_crc_skipped"))
    }
}

/// A complete record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which mutation.
    pub key: RecordKey,
    /// Position of its header in the log.
    pub position: u64,
    /// The payload.
    pub payload: Bytes,
}

fn array<const N: usize>(data: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&data[at..at + N]);
    bytes
}

fn u32_at(data: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(data, at))
}

fn i32_at(data: &[u8], at: usize) -> i32 {
    i32::from_le_bytes(array(data, at))
}

fn i64_at(data: &[u8], at: usize) -> i64 {
    i64::from_le_bytes(array(data, at))
}

/// Reads the header that should stand at `position`. `None` for anything else.
#[must_use]
pub fn parse_header(data: &[u8], seal: Seal, position: u64) -> Option<Header> {
    if data.len() < HEADER || u32_at(data, 0) != seal.tag {
        return None;
    }
    if crc32c::crc32c_append(seal.nonce, &data[..72]) != u32_at(data, 72) {
        return None;
    }
    let len = u32_at(data, 4) as usize;
    if len > PAYLOAD_MAX || u64::from_le_bytes(array(data, 32)) != position {
        return None;
    }
    let back = u64::from(u32_at(data, 64));
    let before = (back != 0 && back <= position).then(|| Link {
        gpid: Gpid::new(i32_at(data, 48), i32_at(data, 52)),
        decree: Decree(i64_at(data, 56)),
        position: position - back,
    });
    Some(Header {
        key: RecordKey {
            gpid: Gpid::new(i32_at(data, 8), i32_at(data, 12)),
            ballot: Ballot(i64_at(data, 16)),
            decree: Decree(i64_at(data, 24)),
            kind: RecordKind::from_u8(data[44])?,
        },
        len,
        position,
        synced: position.saturating_sub(u64::from(u32_at(data, 40))),
        durability: Durability::from_u8(data[45])?,
        before,
        payload_crc: u32_at(data, 68),
    })
}

/// What a record learns about its surroundings when it is given its place.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Its position.
    pub position: u64,
    /// Everything before this is durable.
    pub synced: u64,
    /// What acknowledgements rest on.
    pub durability: Durability,
    /// The record before it.
    pub before: Option<Link>,
}

/// Appends a record whose place is not known yet; [`place_record`] completes it.
pub fn encode_record(
    out: &mut BytesMut,
    key: &RecordKey,
    encode: impl FnOnce(&mut BytesMut),
) -> usize {
    let start = out.len();
    out.put_bytes(0, HEADER);
    encode(out);
    let len = out.len() - start - HEADER;
    debug_assert!(len <= PAYLOAD_MAX);
    let crc = crc32c::crc32c(&out[start + HEADER..]);
    let mut head = &mut out[start..start + HEADER];
    head.put_u32_le(0);
    head.put_u32_le(len as u32);
    head.put_i32_le(key.gpid.app_id);
    head.put_i32_le(key.gpid.partition_index);
    head.put_i64_le(key.ballot.0);
    head.put_i64_le(key.decree.0);
    head.put_u64_le(0);
    head.put_u32_le(0);
    head.put_u8(key.kind.to_u8());
    out[start + 68..start + 72].copy_from_slice(&crc.to_le_bytes());
    HEADER + len
}

/// Gives an encoded record its place and seals its header.
pub fn place_record(header: &mut [u8], seal: Seal, place: &Place) {
    let unsynced = place.position.saturating_sub(place.synced);
    header[0..4].copy_from_slice(&seal.tag.to_le_bytes());
    header[32..40].copy_from_slice(&place.position.to_le_bytes());
    let unsynced = u32::try_from(unsynced).unwrap_or(u32::MAX);
    header[40..44].copy_from_slice(&unsynced.to_le_bytes());
    header[45] = place.durability.to_u8();
    if let Some(link) = &place.before {
        header[48..52].copy_from_slice(&link.gpid.app_id.to_le_bytes());
        header[52..56].copy_from_slice(&link.gpid.partition_index.to_le_bytes());
        header[56..64].copy_from_slice(&link.decree.0.to_le_bytes());
        let back = u32::try_from(place.position - link.position).unwrap_or(0);
        header[64..68].copy_from_slice(&back.to_le_bytes());
    }
    let crc = crc32c::crc32c_append(seal.nonce, &header[..72]);
    header[72..76].copy_from_slice(&crc.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use dsn_core::rng::Rng;

    const SEAL: Seal = Seal { tag: 0x1234_5678, nonce: 0x9abc_def0 };

    fn key() -> RecordKey {
        let gpid = Gpid::new(2, 7);
        RecordKey { gpid, ballot: Ballot(3), decree: Decree(99), kind: RecordKind::Mutation }
    }

    fn place() -> Place {
        Place {
            position: 10_000,
            synced: 9_000,
            durability: Durability::GroupSync,
            before: Some(Link { gpid: Gpid::new(1, 0), decree: Decree(4), position: 9_500 }),
        }
    }

    fn record(payload: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        let len = encode_record(&mut out, &key(), |out| out.put_slice(payload));
        assert_eq!(len, out.len());
        place_record(&mut out[..HEADER], SEAL, &place());
        out
    }

    #[test]
    fn a_header_says_everything_again() {
        let bytes = record(b"payload");
        let header = parse_header(&bytes, SEAL, 10_000).unwrap();
        assert_eq!((header.key, header.len, header.position), (key(), 7, 10_000));
        assert_eq!((header.synced, header.durability), (9_000, Durability::GroupSync));
        assert_eq!(header.before, place().before);
        assert!(header.matches(b"payload"));
        assert!(!header.matches(b"Payload") && !header.matches(b"payloa"));
    }

    #[test]
    fn another_place_or_another_segment_is_no_match() {
        let bytes = record(b"payload");
        assert_eq!(parse_header(&bytes, SEAL, 10_001), None);
        assert_eq!(parse_header(&bytes, Seal { tag: 1, ..SEAL }, 10_000), None);
        assert_eq!(parse_header(&bytes, Seal { nonce: 1, ..SEAL }, 10_000), None);
        assert_eq!(parse_header(&bytes[..HEADER - 1], SEAL, 10_000), None);
    }

    #[test]
    fn no_changed_header_is_taken_for_a_header() {
        let seed = 0x7265_636f_7264;
        println!("seed {seed:#x}");
        let mut rng = Rng::new(seed);
        let whole = record(b"payload of a record");
        for round in 0..100_000 {
            let mut bytes = whole.to_vec();
            for _ in 0..1 + rng.below(8) {
                let at = rng.index(bytes.len());
                bytes[at] ^= 1 << rng.below(8);
            }
            bytes.truncate(1 + rng.index(2 * whole.len()));
            match parse_header(&bytes, SEAL, 10_000) {
                Some(header) => {
                    assert_eq!(bytes[..HEADER], whole[..HEADER], "round {round}");
                    let payload = &bytes[HEADER..];
                    assert_eq!(header.matches(payload), bytes == whole[..], "round {round}");
                }
                None => assert!(bytes.len() < HEADER || bytes[..HEADER] != whole[..HEADER]),
            }
        }
    }
}
