//! A mutation as bytes: the payload of a log record and, behind ids, of a prepare.
//!
//! ```text
//! u8 version = 1, u8 flags, u64 timestamp_us, i64 last_committed, u32 stamp (if flag 1 says so),
//! u8 codes, codes x { u8 length, name },
//! u32 requests, requests x { u8 code, u32 length, body }
//! ```
//! Little endian. Partition, ballot and decree stand outside: in the record's header, or in the message around it.
//! Codes travel by name, so that a log outlives the process that wrote it. Decoding copies nothing and allocates
//! nothing beyond one entry per request that really is there.

use super::{BATCH_REQUESTS, ClientRequest, Mutation};
use crate::ids::{Ballot, Decree};
use crate::state_machine::StorageCode;
use bytes::{Bytes, BytesMut};
use dsn_core::code::Code;
use dsn_core::hash::DetHashMap;
use dsn_rpc::gpid::Gpid;

const VERSION: u8 = 1;
/// Flag: the stamp is not zero, and written.
const STAMPED: u8 = 1;
/// version, reserved, timestamp, last committed decree, number of codes.
const FIXED: usize = 1 + 1 + 8 + 8 + 1;
/// code, length.
const PER_REQUEST: usize = 1 + 4;

/// Most different codes in one mutation.
pub const CODES_MAX: usize = 255;

/// Bytes that are no mutation of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They end too early.
    #[error("a mutation ends in the middle of {0}")]
    Truncated(&'static str),
    /// Bytes follow the last request.
    #[error("{0} bytes follow the last request of a mutation")]
    TrailingBytes(usize),
    /// Written by another version.
    #[error("mutation format {0} is not known here")]
    Version(u8),
    /// A request this state machine does not know.
    #[error("unknown request {0} in a mutation")]
    UnknownCode(String),
    /// More requests than a mutation may have.
    #[error("a mutation of {0} requests")]
    TooManyRequests(u32),
    /// A request refers to a code that is not listed.
    #[error("a request refers to code number {0}, which is not listed")]
    BadCodeIndex(u8),
}

/// The codes a state machine knows, by name.
#[derive(Clone, Debug, Default)]
pub struct CodeTable {
    by_name: DetHashMap<&'static [u8], StorageCode>,
}

impl CodeTable {
    /// A table of `codes`.
    #[must_use]
    pub fn new(codes: &[StorageCode]) -> Self {
        Self { by_name: codes.iter().map(|c| (c.code.name().as_bytes(), *c)).collect() }
    }

    /// The code of a name.
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<StorageCode> {
        self.by_name.get(name).copied()
    }
}

/// Appends a mutation's body to `out`.
pub fn encode_body(mutation: &Mutation, out: &mut BytesMut) {
    out.reserve(FIXED + 64 + mutation.requests.len() * PER_REQUEST + mutation.body_bytes());
    put_head(mutation, out);
    out.put(&mutation.last_committed.0.to_le_bytes());
    put_rest(mutation, out);
}

/// Where an encoded mutation goes.
trait Sink {
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for BytesMut {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// A checksum of it.
struct Sum(u32);

impl Sink for Sum {
    fn put(&mut self, bytes: &[u8]) {
        self.0 = crc32c::crc32c_append(self.0, bytes);
    }
}

/// What stands before the commit point.
fn put_head(mutation: &Mutation, out: &mut impl Sink) {
    out.put(&[VERSION, if mutation.stamp == 0 { 0 } else { STAMPED }]);
    out.put(&mutation.timestamp_us.to_le_bytes());
}

/// What stands behind it.
fn put_rest(mutation: &Mutation, out: &mut impl Sink) {
    if mutation.stamp != 0 {
        out.put(&mutation.stamp.to_le_bytes());
    }
    let Some(first) = mutation.requests.first().map(|request| request.code) else {
        out.put(&[0; 1 + size_of::<u32>()]);
        return;
    };
    // Nearly always one code, or two.
    let mut more: Vec<Code> = Vec::new();
    for request in &mutation.requests {
        if request.code != first && !more.contains(&request.code) {
            more.push(request.code);
        }
    }
    debug_assert!(more.len() < CODES_MAX, "the queue never mixes that many");
    out.put(&[1 + more.len() as u8]);
    for code in std::iter::once(&first).chain(&more) {
        out.put(&[code.name().len() as u8]);
        out.put(code.name().as_bytes());
    }
    out.put(&(mutation.requests.len() as u32).to_le_bytes());
    for request in &mutation.requests {
        let place = more.iter().position(|code| *code == request.code);
        out.put(&[place.map_or(0, |place| 1 + place as u8)]);
        out.put(&(request.body.len() as u32).to_le_bytes());
        out.put(&request.body);
    }
}

/// The commit point in an encoded body; none when it is too short to be one.
#[must_use]
pub fn last_committed(body: &[u8]) -> Decree {
    let bytes = body.get(10..18).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(Decree::NONE, |bytes| Decree(i64::from_le_bytes(bytes)))
}

/// What tells a mutation from any other that could stand at its decree: of time stamp, stamp and requests, which stay
/// what they are when it is proposed again.
#[must_use]
pub fn fingerprint(mutation: &Mutation) -> u64 {
    let mut sum = Sum(0);
    put_head(mutation, &mut sum);
    put_rest(mutation, &mut sum);
    mutation.timestamp_us << 32 | u64::from(sum.0)
}

/// The same of an encoded body; none when it is too short to be one.
#[must_use]
pub fn fingerprint_of_body(body: &[u8]) -> Option<u64> {
    let (head, rest) = (body.get(..10)?, body.get(18..)?);
    let sum = crc32c::crc32c_append(crc32c::crc32c(head), rest);
    let timestamp_us = u64::from_le_bytes(head[2..].try_into().ok()?);
    Some(timestamp_us << 32 | u64::from(sum))
}

struct Input<'a> {
    data: &'a Bytes,
    at: usize,
}

impl Input<'_> {
    fn take(&mut self, len: usize, what: &'static str) -> Result<Bytes, DecodeError> {
        if self.data.len() - self.at < len {
            return Err(DecodeError::Truncated(what));
        }
        self.at += len;
        Ok(self.data.slice(self.at - len..self.at))
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let slice = self.data[self.at..].first_chunk::<N>();
        let array = *slice.ok_or(DecodeError::Truncated(what))?;
        self.at += N;
        Ok(array)
    }

    fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        self.array(what).map(u32::from_le_bytes)
    }
}

/// Reads a mutation whose ids came otherwise.
///
/// # Errors
/// Any [`DecodeError`].
pub fn decode_body(
    gpid: Gpid,
    ballot: Ballot,
    decree: Decree,
    data: &Bytes,
    codes: &CodeTable,
) -> Result<Mutation, DecodeError> {
    let mut input = Input { data, at: 0 };
    let version = input.u8("its version")?;
    if version != VERSION {
        return Err(DecodeError::Version(version));
    }
    let flags = input.u8("its head")?;
    let timestamp_us = u64::from_le_bytes(input.array("its timestamp")?);
    let last_committed = Decree(i64::from_le_bytes(input.array("its commit point")?));
    let stamp = if flags & STAMPED != 0 { input.u32("its stamp")? } else { 0 };
    let code_count = input.u8("its codes")?;
    let mut listed = Vec::with_capacity(usize::from(code_count).min(data.len()));
    for _ in 0..code_count {
        let len = input.u8("a code")?;
        let name = input.take(usize::from(len), "a code")?;
        let known = codes
            .find(&name)
            .ok_or_else(|| DecodeError::UnknownCode(String::from_utf8_lossy(&name).into_owned()))?;
        listed.push(known.code);
    }
    let count = input.u32("its requests")?;
    if count > BATCH_REQUESTS as u32 {
        return Err(DecodeError::TooManyRequests(count));
    }
    let count = count as usize;
    if (data.len() - input.at) / PER_REQUEST < count {
        return Err(DecodeError::Truncated("its requests"));
    }
    let mut requests = Vec::with_capacity(count);
    for _ in 0..count {
        let index = input.u8("a request")?;
        let len = input.u32("a request")? as usize;
        let body = input.take(len, "a request")?;
        let code = listed.get(usize::from(index)).ok_or(DecodeError::BadCodeIndex(index))?;
        requests.push(ClientRequest { code, body });
    }
    match data.len() - input.at {
        0 => Ok(Mutation { gpid, ballot, decree, last_committed, timestamp_us, stamp, requests }),
        rest => Err(DecodeError::TrailingBytes(rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_machine::Access;
    use dsn_core::rng::Rng;

    dsn_core::task_codes! {
        CODES;
        RPC_TEST_ONE: Rpc, Low, "THREAD_POOL_REPLICATION";
        RPC_TEST_TWO: Rpc, Low, "THREAD_POOL_REPLICATION";
    }

    fn table() -> CodeTable {
        let access = Access::Write { batchable: true, idempotent: true };
        let codes: Vec<_> = CODES.iter().map(|code| StorageCode { code, access }).collect();
        CodeTable::new(&codes)
    }

    #[test]
    fn a_fingerprint_stays_when_a_mutation_is_proposed_again() {
        let codes = [CODES[0], CODES[1]];
        let mut of = mutation(&codes);
        for stamp in [0, 7] {
            of.stamp = stamp;
            let which = fingerprint(&of);
            (of.ballot, of.last_committed) = (of.ballot.next(), of.last_committed.next());
            let mut body = BytesMut::new();
            encode_body(&of, &mut body);
            assert_eq!(fingerprint(&of), which);
            assert_eq!(fingerprint_of_body(&body), Some(which));
            let later = Mutation { timestamp_us: of.timestamp_us + 1, ..of.clone() };
            assert_ne!(fingerprint(&later), which);
            let empty = Mutation { requests: Vec::new(), ..of.clone() };
            assert_ne!(fingerprint(&empty), which);
        }
        assert_eq!(fingerprint_of_body(&[1; 17]), None);
    }

    fn mutation(codes: &[Code]) -> Mutation {
        Mutation {
            gpid: Gpid::new(2, 3),
            ballot: Ballot(4),
            decree: Decree(17),
            last_committed: Decree(15),
            timestamp_us: 1_700_000_000_000_001,
            stamp: 0,
            requests: codes
                .iter()
                .enumerate()
                .map(|(n, code)| ClientRequest { code, body: Bytes::from(vec![n as u8; n * 7]) })
                .collect(),
        }
    }

    fn encoded(mutation: &Mutation) -> Bytes {
        let mut out = BytesMut::new();
        encode_body(mutation, &mut out);
        out.freeze()
    }

    fn decode(data: &Bytes) -> Result<Mutation, DecodeError> {
        decode_body(Gpid::new(2, 3), Ballot(4), Decree(17), data, &table())
    }

    #[test]
    fn what_goes_in_comes_out() {
        let (one, two): (Code, Code) = (&RPC_TEST_ONE, &RPC_TEST_TWO);
        for codes in [vec![], vec![one], vec![two, one, two, two], vec![one; 1000]] {
            let before = mutation(&codes);
            let body = encoded(&before);
            assert_eq!(last_committed(&body), before.last_committed);
            assert_eq!(decode(&body), Ok(before.clone()));
            let stamped = Mutation { stamp: 86_400, ..before };
            assert_eq!(decode(&encoded(&stamped)), Ok(stamped));
        }
    }

    /// Bug 24: what is written depends on how a compiler lays out memory.
    #[test]
    fn the_layout_is_fixed() {
        let data = encoded(&mutation(&[&RPC_TEST_ONE, &RPC_TEST_ONE]));
        let mut expected = vec![1, 0];
        expected.extend(1_700_000_000_000_001u64.to_le_bytes());
        expected.extend(15i64.to_le_bytes());
        expected.extend([1, 12]);
        expected.extend(b"RPC_TEST_ONE");
        expected.extend([2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1]);
        assert_eq!(data[..], expected);
    }

    #[test]
    fn every_prefix_and_suffix_is_refused() {
        let data = encoded(&mutation(&[&RPC_TEST_ONE, &RPC_TEST_TWO]));
        for len in 0..data.len() {
            assert!(decode(&data.slice(..len)).is_err(), "prefix of {len}");
        }
        let mut longer = data.to_vec();
        longer.push(0);
        assert_eq!(decode(&Bytes::from(longer)), Err(DecodeError::TrailingBytes(1)));
    }

    #[test]
    fn a_crowd_of_requests_is_refused_before_anything_is_reserved() {
        let most = mutation(&vec![&RPC_TEST_ONE as Code; BATCH_REQUESTS]);
        assert_eq!(decode(&encoded(&most)), Ok(most.clone()));
        let one_more =
            Mutation { requests: [&most.requests[..], &most.requests[..1]].concat(), ..most };
        let count = BATCH_REQUESTS as u32 + 1;
        assert_eq!(decode(&encoded(&one_more)), Err(DecodeError::TooManyRequests(count)));
    }

    #[test]
    fn unknown_names_and_versions_are_refused_by_name() {
        let data = encoded(&mutation(&[&RPC_TEST_ONE]));
        let none = CodeTable::default();
        let outcome = decode_body(Gpid::new(2, 3), Ballot(4), Decree(17), &data, &none);
        assert_eq!(outcome, Err(DecodeError::UnknownCode("RPC_TEST_ONE".into())));
        let mut other = data.to_vec();
        other[0] = 9;
        assert_eq!(decode(&Bytes::from(other)), Err(DecodeError::Version(9)));
    }

    #[test]
    fn mutated_bytes_never_panic() {
        let seed = 0x6d75_7461_7465;
        println!("seed {seed:#x}");
        let mut rng = Rng::new(seed);
        let data = encoded(&mutation(&[&RPC_TEST_ONE, &RPC_TEST_TWO, &RPC_TEST_ONE]));
        let mut accepted = 0;
        for _ in 0..100_000 {
            let mut bytes = data.to_vec();
            for _ in 0..1 + rng.below(4) {
                let at = rng.below(bytes.len() as u64) as usize;
                match rng.below(3) {
                    0 => bytes[at] ^= 1 << rng.below(8),
                    1 => bytes[at] = rng.below(256) as u8,
                    _ => bytes.truncate(at.max(1)),
                }
            }
            if let Ok(mutation) = decode(&Bytes::from(bytes)) {
                assert!(mutation.requests.len() <= data.len());
                accepted += 1;
            }
        }
        assert!(accepted > 100, "some changes only touch values: {accepted}");
    }
}
