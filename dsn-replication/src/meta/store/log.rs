//! Frames of the local store's files, and the image they add up to.
//!
//! ```text
//! frame     u32le magic, u32le length of body, u64le number, u32le crc32c(length, number, body), body
//! body      entries of one commit: u8 kind (0 remove, 1 set, 2 epoch), then
//!           set: u64le version, u32le length, key, u32le length, value
//!           remove: u32le length, key          epoch: u64le
//! snapshot  frame 0 whose body sets every key and the epoch
//! log       frames 1, 2, 3, ... ; one per commit, each synced before it is acknowledged
//! ```
//!
//! Because a commit is one frame and the next is written only after it was synced, a power loss can tear the last
//! frame alone. A bad frame with a good one of a higher number behind it is therefore damage, not a torn tail.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};

use super::{Change, Epoch, Expect, StoreError, Stored};

const MAGIC: u32 = 0x4d45_5441;

/// Bytes before the body of a frame.
pub const HEADER_LEN: usize = 20;

const REMOVE: u8 = 0;
const SET: u8 = 1;
const EPOCH: u8 = 2;

/// Everything stored: keys in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// The present epoch.
    pub epoch: Epoch,
    /// Keys and values.
    pub entries: BTreeMap<String, Stored>,
}

impl Image {
    /// Makes one change and appends it to `body`.
    ///
    /// # Errors
    /// [`StoreError::Conflict`]; nothing is changed then.
    pub fn apply(&mut self, change: &Change, body: &mut BytesMut) -> Result<(), StoreError> {
        let found = self.entries.get(&change.key).map(|stored| stored.version);
        let version = match (change.expect, found) {
            (Expect::Absent, None) => 0,
            (Expect::At(version), Some(found)) if version == found => version + 1,
            (expected, found) => {
                return Err(StoreError::Conflict { key: change.key.clone(), expected, found });
            }
        };
        match &change.value {
            Some(value) => {
                put_set(body, &change.key, version, value);
                let stored = Stored { version, value: value.clone() };
                self.entries.insert(change.key.clone(), stored);
            }
            None => {
                body.put_u8(REMOVE);
                put_bytes(body, change.key.as_bytes());
                self.entries.remove(&change.key);
            }
        }
        Ok(())
    }

    /// The body of a snapshot.
    pub fn body(&self) -> BytesMut {
        let mut body = BytesMut::new();
        body.put_u8(EPOCH);
        body.put_u64_le(self.epoch.0);
        for (key, stored) in &self.entries {
            put_set(&mut body, key, stored.version, &stored.value);
        }
        body
    }

    /// Makes the changes of a frame that was read; `None` when the body is malformed.
    pub fn replay(&mut self, mut body: Bytes) -> Option<()> {
        while !body.is_empty() {
            match take_u8(&mut body)? {
                SET => {
                    let version = take_u64(&mut body)?;
                    let key = take_key(&mut body)?;
                    let value = take_bytes(&mut body)?;
                    self.entries.insert(key, Stored { version, value });
                }
                REMOVE => {
                    self.entries.remove(&take_key(&mut body)?)?;
                }
                EPOCH => self.epoch = Epoch(take_u64(&mut body)?),
                _ => return None,
            }
        }
        Some(())
    }
}

fn put_set(body: &mut BytesMut, key: &str, version: u64, value: &[u8]) {
    body.put_u8(SET);
    body.put_u64_le(version);
    put_bytes(body, key.as_bytes());
    put_bytes(body, value);
}

fn put_bytes(body: &mut BytesMut, bytes: &[u8]) {
    body.put_u32_le(bytes.len() as u32);
    body.put_slice(bytes);
}

fn take_u8(body: &mut Bytes) -> Option<u8> {
    take(body, 1).map(|bytes| bytes[0])
}

fn take_u64(body: &mut Bytes) -> Option<u64> {
    take(body, 8)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

fn take_bytes(body: &mut Bytes) -> Option<Bytes> {
    let len = take(body, 4)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))?;
    take(body, len as usize)
}

fn take_key(body: &mut Bytes) -> Option<String> {
    String::from_utf8(take_bytes(body)?.to_vec()).ok()
}

fn take(body: &mut Bytes, len: usize) -> Option<Bytes> {
    (body.len() >= len).then(|| body.split_to(len))
}

/// A frame around `body`.
pub fn frame(number: u64, body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER_LEN + body.len());
    out.put_u32_le(MAGIC);
    out.put_u32_le(body.len() as u32);
    out.put_u64_le(number);
    out.put_u32_le(checksum(body.len() as u32, number, body));
    out.put_slice(body);
    out.freeze()
}

fn checksum(len: u32, number: u64, body: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&len.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &number.to_le_bytes()), body)
}

/// The frame at the beginning of `bytes`: its number and body, and the bytes it takes.
pub fn parse(bytes: &Bytes) -> Option<(u64, Bytes, usize)> {
    let mut rest = bytes.clone();
    let word =
        |rest: &mut Bytes| take(rest, 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    if word(&mut rest)? != MAGIC {
        return None;
    }
    let len = word(&mut rest)?;
    let number = take_u64(&mut rest)?;
    let crc = word(&mut rest)?;
    let body = take(&mut rest, len as usize)?;
    (crc == checksum(len, number, &body)).then_some((number, body, HEADER_LEN + len as usize))
}

/// Whether a whole frame numbered `least` or higher begins anywhere in `bytes`.
pub fn any_frame(bytes: &Bytes, least: u64) -> bool {
    let magic = MAGIC.to_le_bytes();
    (0..bytes.len().saturating_sub(HEADER_LEN - 1))
        .filter(|at| bytes[*at..*at + 4] == magic)
        .any(|at| parse(&bytes.slice(at..)).is_some_and(|(number, ..)| number >= least))
}
