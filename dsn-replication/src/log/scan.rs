//! Reading a segment from its beginning, past whatever is broken.
//!
//! What cannot be read is not judged here: the scanner reports records, headers whose payload is broken, and stretches
//! of junk. What was lost follows from the links between records, see [`super::replay`].

use super::record::{HEADER, Header, Record, Seal, parse_header};
use super::segment::{HEAD, Head};
use bytes::Bytes;
use dsn_core::disk::File;
use dsn_core::planted;
use std::io;
use std::sync::Arc;

/// Bytes read at a time.
const CHUNK: usize = 1 << 20;

/// One step through a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A good record.
    Record(Header, Record),
    /// A good header with a broken payload.
    BrokenPayload(Header),
    /// Bytes that are no record, up to this offset.
    Junk(u64),
}

/// A cursor over the records of one segment file.
#[derive(Debug)]
pub struct Scan {
    file: Arc<dyn File>,
    seal: Seal,
    base: u64,
    at: u64,
    end: u64,
    chunk: Bytes,
    chunk_at: u64,
}

impl Scan {
    /// Begins at the first record. Reads up to file offset `end`.
    #[must_use]
    pub fn new(file: Arc<dyn File>, head: &Head, end: u64) -> Self {
        let (seal, base) = (head.seal, head.base);
        Self { file, seal, base, at: HEAD as u64, end, chunk: Bytes::new(), chunk_at: 0 }
    }

    /// Goes on at the record at `position`.
    pub fn seek(&mut self, position: u64) {
        self.at = position.saturating_sub(self.base).max(HEAD as u64);
    }

    /// File offset of what comes next.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.at
    }

    /// The next step; `None` at the end.
    ///
    /// # Errors
    /// Of reading the file.
    pub fn advance(&mut self) -> io::Result<Option<Item>> {
        let at = self.at;
        if at >= self.end {
            return Ok(None);
        }
        let head = self.view(at, HEADER)?;
        let position = self.base + at;
        let header = parse_header(&head, self.seal, position);
        let next = |header: &Header| at + (HEADER + header.len) as u64;
        let torn_is_good = planted::has("torn_tail_accepted");
        let Some(header) = header.filter(|header| next(header) <= self.end || torn_is_good) else {
            self.at = self.resync(at + 1)?;
            return Ok(Some(Item::Junk(self.at)));
        };
        let payload = self.view(at + HEADER as u64, header.len)?;
        self.at = next(&header);
        if !header.matches(&payload) && !torn_is_good {
            return Ok(Some(Item::BrokenPayload(header)));
        }
        let record = Record { key: header.key, position, payload };
        Ok(Some(Item::Record(header, record)))
    }

    /// Offset of the next good header at or after `from`, or the end.
    fn resync(&mut self, from: u64) -> io::Result<u64> {
        let tag = self.seal.tag.to_le_bytes();
        let mut at = from;
        while at < self.end {
            let view = self.view(at, CHUNK)?;
            for found in memchr::memchr_iter(tag[0], &view) {
                let position = self.base + at + found as u64;
                let rest = &view[found..];
                if rest.starts_with(&tag) && parse_header(rest, self.seal, position).is_some() {
                    return Ok(at + found as u64);
                }
            }
            if at + view.len() as u64 >= self.end || view.len() < HEADER {
                break;
            }
            at += (view.len() - HEADER + 1) as u64;
        }
        Ok(self.end)
    }

    /// `len` bytes at `at`, fewer at the end.
    fn view(&mut self, at: u64, len: usize) -> io::Result<Bytes> {
        let len = usize::try_from(self.end.saturating_sub(at)).unwrap_or(usize::MAX).min(len);
        let skip = at.wrapping_sub(self.chunk_at);
        let covered = at >= self.chunk_at && skip + len as u64 <= self.chunk.len() as u64;
        if !covered {
            let room = usize::try_from(self.end.saturating_sub(at)).unwrap_or(usize::MAX);
            self.chunk = self.file.read_at(at, len.max(CHUNK).min(room))?;
            self.chunk_at = at;
            return Ok(self.chunk.slice(..len.min(self.chunk.len())));
        }
        Ok(self.chunk.slice(skip as usize..skip as usize + len))
    }
}
