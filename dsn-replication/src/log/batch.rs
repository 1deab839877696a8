//! Records on their way to the log: encoded, but without a place yet.

use super::record::{RecordKey, RecordKind, encode_record};
use crate::mutation::{Mutation, encode_body};
use bytes::BytesMut;

/// A buffer that grew beyond this many bytes is given back after its use.
const BUFFER_KEEP: usize = 4 << 20;

/// What a worker collects for one write: the records of a turn, of any number of partitions.
#[derive(Debug, Default)]
pub struct LogBatch {
    pub(super) data: BytesMut,
    /// Key and length of each record, header included.
    pub(super) records: Vec<(RecordKey, usize)>,
}

/// A place in a batch to go back to.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    bytes: usize,
    records: usize,
}

impl LogBatch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it has no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Encoded bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Adds a mutation.
    pub fn mutation(&mut self, mutation: &Mutation) {
        let Mutation { gpid, ballot, decree, .. } = *mutation;
        let key = RecordKey { gpid, ballot, decree, kind: RecordKind::Mutation };
        let len = encode_record(&mut self.data, &key, |out| encode_body(mutation, out));
        self.records.push((key, len));
    }

    /// Adds a mutation whose body is encoded already.
    pub fn body(&mut self, mutation: &Mutation, body: &[u8]) {
        let Mutation { gpid, ballot, decree, .. } = *mutation;
        let key = RecordKey { gpid, ballot, decree, kind: RecordKind::Mutation };
        let len = encode_record(&mut self.data, &key, |out| out.extend_from_slice(body));
        self.records.push((key, len));
    }

    /// Declares all earlier records of `key`'s partition from its decree on void.
    pub fn truncate(&mut self, key: RecordKey) {
        let key = RecordKey { kind: RecordKind::Truncate, ..key };
        let len = encode_record(&mut self.data, &key, |_| {});
        self.records.push((key, len));
    }

    /// Takes over what `other` has, which is empty then.
    pub fn join(&mut self, other: &mut Self) {
        if !other.is_empty() {
            self.data.extend_from_slice(&other.data);
            self.records.append(&mut other.records);
            other.clear();
        }
    }

    /// The current end, for [`LogBatch::roll_back`].
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark { bytes: self.data.len(), records: self.records.len() }
    }

    /// Forgets what was added after `mark`.
    pub fn roll_back(&mut self, mark: Mark) {
        self.data.truncate(mark.bytes);
        self.records.truncate(mark.records);
    }

    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.records.clear();
        if self.data.capacity() > BUFFER_KEEP {
            self.data = BytesMut::new();
        }
        self.data.clear();
    }
}
