//! Layout of keys: `u16be(length of hash key) ++ hash key ++ sort key`.
//!
//! Keys are ordered by bytes, so records of one hash key lie together, ordered by sort key; hash
//! keys are ordered by length first. The empty key is none of these: it is what an empty write
//! stores nothing under.

use std::fmt;

use bytes::Bytes;

/// Longest hash key in bytes. The next length is refused by clients and cannot be incremented
/// safely.
pub const MAX_HASH_KEY_LEN: usize = 65534;

/// Bytes before the hash key.
pub const LENGTH_PREFIX: usize = 2;

/// First key of a whole-partition scan, inclusive.
pub const SCAN_START: &[u8] = &[0, 0];

/// End of a whole-partition scan, exclusive.
pub const SCAN_STOP: &[u8] = &[0xff, 0xff];

/// Why bytes are not a key, or cannot become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The hash key is longer than [`MAX_HASH_KEY_LEN`].
    #[error("hash key of {0} bytes, at most {MAX_HASH_KEY_LEN} are allowed")]
    HashKeyTooLong(usize),
    /// The bytes end before the announced hash key does.
    #[error("a key of {0} bytes is shorter than its hash key")]
    Truncated(usize),
}

/// The full key of a record.
///
/// # Errors
/// [`KeyError::HashKeyTooLong`].
pub fn encode_key(hash_key: &[u8], sort_key: &[u8]) -> Result<Bytes, KeyError> {
    let mut out = Vec::with_capacity(LENGTH_PREFIX + hash_key.len() + sort_key.len());
    append_key(hash_key, sort_key, &mut out)?;
    Ok(Bytes::from(out))
}

/// Appends the full key of a record to `out`.
///
/// # Errors
/// [`KeyError::HashKeyTooLong`]; `out` is then unchanged.
#[inline]
pub fn append_key(hash_key: &[u8], sort_key: &[u8], out: &mut Vec<u8>) -> Result<(), KeyError> {
    if hash_key.len() > MAX_HASH_KEY_LEN {
        return Err(KeyError::HashKeyTooLong(hash_key.len()));
    }
    out.extend_from_slice(&(hash_key.len() as u16).to_be_bytes());
    out.extend_from_slice(hash_key);
    out.extend_from_slice(sort_key);
    Ok(())
}

/// Hash key and sort key of a full key.
///
/// # Errors
/// [`KeyError::Truncated`], [`KeyError::HashKeyTooLong`].
#[inline]
pub fn split_key(raw_key: &[u8]) -> Result<(&[u8], &[u8]), KeyError> {
    let Some((length, rest)) = raw_key.split_first_chunk::<LENGTH_PREFIX>() else {
        return Err(KeyError::Truncated(raw_key.len()));
    };
    let length = usize::from(u16::from_be_bytes(*length));
    if length > MAX_HASH_KEY_LEN {
        return Err(KeyError::HashKeyTooLong(length));
    }
    rest.split_at_checked(length).ok_or(KeyError::Truncated(raw_key.len()))
}

/// The least key behind every key of `hash_key`: the exclusive end of a scan over it.
///
/// # Errors
/// [`KeyError::HashKeyTooLong`].
pub fn next_of_hash_key(hash_key: &[u8]) -> Result<Bytes, KeyError> {
    next_of_prefix(hash_key, &[])
}

/// The least key behind every key of `hash_key` whose sort key begins with `sort_prefix`.
///
/// # Errors
/// [`KeyError::HashKeyTooLong`].
pub fn next_of_prefix(hash_key: &[u8], sort_prefix: &[u8]) -> Result<Bytes, KeyError> {
    let mut out = Vec::with_capacity(LENGTH_PREFIX + hash_key.len() + sort_prefix.len());
    append_key(hash_key, sort_prefix, &mut out)?;
    // Ends at the length prefix at the latest, which is not all ones.
    while let Some(last) = out.pop() {
        if last != 0xff {
            out.push(last + 1);
            break;
        }
    }
    Ok(Bytes::from(out))
}

/// Shows key bytes: printable ASCII as it is, the rest as `\xNN`.
#[derive(Clone, Copy)]
pub struct Escaped<'a>(pub &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &byte in self.0 {
            match byte {
                b'\\' => f.write_str("\\\\")?,
                b' '..=b'~' => write!(f, "{}", char::from(byte))?,
                _ => write!(f, "\\x{byte:02x}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_split_where_they_were_joined() {
        for (hash_key, sort_key) in [(&b"hk"[..], &b"sk"[..]), (b"", b"s"), (b"h", b""), (b"", b"")]
        {
            let raw = encode_key(hash_key, sort_key).unwrap();
            assert_eq!(split_key(&raw), Ok((hash_key, sort_key)));
        }
        assert_eq!(encode_key(b"hk_1", b"sk_1").unwrap(), &b"\0\x04hk_1sk_1"[..]);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for raw in [&b""[..], b"\0", b"\0\x01", b"\0\x03ab"] {
            assert_eq!(split_key(raw), Err(KeyError::Truncated(raw.len())));
        }
        assert_eq!(split_key(&[0xff; 70_000]), Err(KeyError::HashKeyTooLong(65535)));
        assert_eq!(encode_key(&[0; 65535], b""), Err(KeyError::HashKeyTooLong(65535)));
        assert!(encode_key(&[0; MAX_HASH_KEY_LEN], b"").is_ok());
    }

    #[test]
    fn the_next_key_is_behind_every_key_of_the_prefix() {
        let cases: [(&[u8], &[u8], &[u8]); 6] = [
            (b"a", b"", b"\0\x01b"),
            (b"a", b"x", b"\0\x01ay"),
            (b"a\xff", b"", b"\0\x02b"),
            (b"a", b"x\xff\xff", b"\0\x01ay"),
            (b"\xff", b"\xff", b"\0\x02"),
            (b"", b"", b"\0\x01"),
        ];
        for (hash_key, prefix, expected) in cases {
            assert_eq!(next_of_prefix(hash_key, prefix).unwrap(), expected);
        }
        assert_eq!(next_of_hash_key(&[0xff; 255]).unwrap(), &[1][..]);
        let longest = next_of_hash_key(&[0xff; MAX_HASH_KEY_LEN]).unwrap();
        assert_eq!(longest, &[0xff, 0xff][..]);
        let inside = encode_key(b"a", &[0xff; 9]).unwrap();
        assert!(inside < next_of_hash_key(b"a").unwrap());
    }

    #[test]
    fn escaped_form() {
        assert_eq!(Escaped(b"a\\\0\xff").to_string(), "a\\\\\\x00\\xff");
    }
}
