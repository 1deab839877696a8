//! A UTF-8 text that shares memory with the frame it came in.
//!
//! For texts on hot paths: a clone is a reference count, a static text costs nothing. A text that
//! outlives its request should be copied with `as_str().to_owned()`, for it keeps the whole frame
//! alive.

use std::fmt;

use bytes::Bytes;

use super::{Decode, Encode, Reader, WireError, Writer, ttype};

/// Shared UTF-8 text; a thrift string on the wire.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(Bytes);

impl Text {
    /// A text that costs no allocation.
    #[must_use]
    pub const fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// `bytes` must be UTF-8.
    pub(super) fn from_checked(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The text's bytes.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether there is no text.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(Bytes::from(text.into_bytes()))
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl Encode for Text {
    const TTYPE: u8 = ttype::STRING;

    #[inline]
    fn write(&self, w: &mut Writer<'_>) {
        w.bytes(&self.0);
    }

    #[inline]
    fn write_as_field(&self, id: i16, w: &mut Writer<'_>) {
        w.bytes_field(ttype::STRING, id, &self.0);
    }
}

impl Decode for Text {
    const MIN_SIZE: usize = 4;

    #[inline]
    fn read(r: &mut Reader<'_>) -> Result<Self, WireError> {
        r.text()
    }
}
