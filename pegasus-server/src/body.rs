//! Requests that are a bare byte string: a key, mostly.

use bytes::Bytes;
use dsn_rpc::thrift::{Reader, WireError};

/// The byte string that `body` wraps, borrowed.
///
/// # Errors
/// Any [`WireError`] of a value that is not one byte string and nothing else.
#[inline]
pub fn wrapped_bytes(body: &Bytes) -> Result<&[u8], WireError> {
    let mut r = Reader::new(body);
    if r.field()?.is_none() {
        return Err(WireError::MissingValue);
    }
    let bytes = r.bytes()?;
    if r.field()?.is_some() {
        return Err(WireError::Trailing(r.rest().len()));
    }
    r.finish()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use dsn_rpc::thrift::{ARGUMENT_ID, encode_wrapped};

    #[test]
    fn only_one_whole_string_is_accepted() {
        let mut out = BytesMut::new();
        encode_wrapped(&Bytes::from_static(b"key"), ARGUMENT_ID, &mut out);
        let whole = out.freeze();
        assert_eq!(wrapped_bytes(&whole), Ok(&b"key"[..]));
        for end in 0..whole.len() {
            assert!(wrapped_bytes(&whole.slice(..end)).is_err(), "cut at {end}");
        }
        assert!(wrapped_bytes(&Bytes::from([&whole[..], b"x"].concat())).is_err());
    }
}
