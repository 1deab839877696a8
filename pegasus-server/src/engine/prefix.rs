//! The part of a raw key that names its hash key: length and hash key, without the sort key.
//!
//! A raw key is `u16 big endian length, hash key, sort key`. Prefix filters and iterators limited to a
//! hash key work on the first two parts. The functions here are total: a key too short for what its
//! length says (which the write path refuses, but which a lookup may bring) is its own prefix.

/// Name under which the disk format knows this prefix.
pub const EXTRACTOR_NAME: &str = "pegasus.HashkeyTransform";

/// Bytes of the length that opens a raw key.
pub const LENGTH_BYTES: usize = 2;

/// Whether `key` has a prefix at all: the empty key of heartbeats, for one, has none.
pub fn in_domain(key: &[u8]) -> bool {
    key.len() >= LENGTH_BYTES
}

/// The prefix of `key`; of a key that has none, the key.
pub fn prefix_of(key: &[u8]) -> &[u8] {
    let &[high, low, ..] = key else { return key };
    let end = LENGTH_BYTES + usize::from(u16::from_be_bytes([high, low]));
    &key[..end.min(key.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_is_length_and_hash_key_for_any_bytes() {
        assert_eq!(prefix_of(b"\x00\x02hksort"), b"\x00\x02hk");
        assert_eq!(prefix_of(b"\x00\x00sort"), b"\x00\x00");
        assert_eq!(prefix_of(b"\x00\x09abc"), b"\x00\x09abc");
        assert_eq!(prefix_of(b"\xff\xff"), b"\xff\xff");
        assert_eq!(prefix_of(b"\x07"), b"\x07");
        assert!(in_domain(b"\x00\x00"));
        assert!(!in_domain(b"\x00"));
        assert!(!in_domain(b""));
    }
}
