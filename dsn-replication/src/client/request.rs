//! A request as a value: where it goes, its bytes, and how to read its answer.

use bytes::{Bytes, BytesMut};
use dsn_core::code::Code;
use dsn_core::hash::{fnv1a64, mix64};
use dsn_rpc::thrift::{ARGUMENT_ID, Decode, Encode, decode_wrapped, encode_wrapped};

use super::error::Reason;

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To the partition of a key.
    Key {
        /// Decides the partition, and is checked by the server after the partitions have been split.
        hash: u64,
        /// For error messages.
        key: Bytes,
    },
    /// To a partition by index.
    Partition(i32),
}

impl Target {
    /// The partition of a key by the hash of this framework. An app whose clients hash in another way makes
    /// [`Target::Key`] itself. What has been written once is found by the same hash only: it must not change.
    #[must_use]
    pub fn key(key: &[u8]) -> Self {
        Self::Key { hash: mix64(fnv1a64(key)), key: Bytes::copy_from_slice(key) }
    }
}

/// The partition that holds `hash` in a table of `partition_count` partitions.
///
/// # Panics
/// When `partition_count` is not above zero.
#[inline]
#[must_use]
pub const fn partition_index(hash: u64, partition_count: i32) -> i32 {
    assert!(partition_count > 0);
    (hash % partition_count as u64) as i32
}

/// How a request may be repeated, and how long one attempt may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Doing it twice could be seen: tried again only when the last attempt certainly did nothing.
    Write,
    /// Answered at once or not at all: another server is looked for before the request's time is over.
    Read,
    /// May take long: an attempt has all the time that the request has.
    RangeRead,
}

pub(super) type Parse<T> = Box<dyn FnOnce(&Bytes) -> Result<T, Reason> + Send>;

/// One request, ready to be sent.
pub struct Request<T> {
    pub(super) target: Target,
    pub(super) code: Code,
    /// The wrapped argument.
    pub(super) body: Bytes,
    pub(super) kind: Kind,
    pub(super) parse: Parse<T>,
}

impl<T> std::fmt::Debug for Request<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").field("code", &self.code).field("target", &self.target).finish()
    }
}

impl<T> Request<T> {
    /// A request with `argument`; `parse` makes what the caller wants of the answer.
    pub fn new<Q: Encode, A: Decode>(
        target: Target,
        code: Code,
        argument: &Q,
        kind: Kind,
        parse: impl FnOnce(A) -> Result<T, Reason> + Send + 'static,
    ) -> Self {
        let mut body = BytesMut::with_capacity(128);
        encode_wrapped(argument, ARGUMENT_ID, &mut body);
        let parse: Parse<T> =
            Box::new(move |answer| parse(decode_wrapped(answer).map_err(Reason::Decode)?));
        Self { target, code, body: body.freeze(), kind, parse }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_where_they_are() {
        let index = |key: &[u8], count| match Target::key(key) {
            Target::Key { hash, .. } => partition_index(hash, count),
            Target::Partition(_) => unreachable!("made of a key"),
        };
        // What stored data depends on.
        assert_eq!([index(b"", 8), index(b"visits", 8), index(b"visits", 64)], [3, 0, 40]);
        let mut hit = [0; 8];
        for n in 0..8000 {
            hit[index(format!("key{n}").as_bytes(), 8) as usize] += 1;
        }
        assert!(hit.iter().all(|hits| (900..1100).contains(hits)), "{hit:?}");
    }
}
