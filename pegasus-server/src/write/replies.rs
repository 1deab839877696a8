//! The replies of applied requests, one after the other in one buffer.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use dsn_rpc::thrift::{self, Encode, RESULT_ID};

/// Collects replies, or ignores them where nobody waits for any (on secondaries, in replays).
#[derive(Debug)]
pub struct Replies {
    wanted: bool,
    buffer: BytesMut,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
enum Entry {
    Body(Range<usize>),
    Undecodable,
}

/// One reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The wrapped thrift value of the response.
    Body(Bytes),
    /// The request could not be decoded; it has no response of its own kind.
    Undecodable,
}

/// A state of [`Replies`] to go back to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    bytes: usize,
    entries: usize,
}

impl Replies {
    /// Collects every reply.
    pub fn wanted() -> Self {
        Self { wanted: true, buffer: BytesMut::new(), entries: Vec::new() }
    }

    /// Ignores every reply; costs nothing per request.
    pub fn unwanted() -> Self {
        Self { wanted: false, ..Self::wanted() }
    }

    /// Whether replies are collected.
    pub fn are_wanted(&self) -> bool {
        self.wanted
    }

    /// Number of replies collected.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes all replies out, in the order of their requests. They share one buffer.
    pub fn drain(&mut self) -> impl Iterator<Item = Reply> + '_ {
        let all = self.buffer.split().freeze();
        self.entries.drain(..).map(move |entry| match entry {
            Entry::Body(range) => Reply::Body(all.slice(range)),
            Entry::Undecodable => Reply::Undecodable,
        })
    }

    /// Appends a response.
    pub(super) fn push<T: Encode>(&mut self, response: impl FnOnce() -> T) {
        if !self.wanted {
            return;
        }
        let start = self.buffer.len();
        thrift::encode_wrapped(&response(), RESULT_ID, &mut self.buffer);
        self.entries.push(Entry::Body(start..self.buffer.len()));
    }

    pub(super) fn push_undecodable(&mut self) {
        if self.wanted {
            self.entries.push(Entry::Undecodable);
        }
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { bytes: self.buffer.len(), entries: self.entries.len() }
    }

    pub(super) fn back_to(&mut self, mark: Mark) {
        self.buffer.truncate(mark.bytes);
        self.entries.truncate(mark.entries);
    }
}
