//! The name of an RPC, kept in place.
//!
//! A name must outlive the frame it came in, for the answer repeats it; kept as a slice it would
//! hold the whole receive buffer. Names have at most 47 bytes (the header field has 48 with its
//! NUL); longer ones are cut, and then match no RPC that exists.

use std::fmt;
use std::hash::{Hash, Hasher};

use crate::thrift::Text;

/// Most bytes of a name that are kept.
pub const MAX_NAME: usize = 47;

/// What stands behind the name of a call in its answer.
const ACK: &[u8] = b"_ACK";

/// Name of an RPC, such as `RPC_RRDB_RRDB_GET`.
#[derive(Clone, Copy)]
pub struct RpcName {
    len: u8,
    bytes: [u8; MAX_NAME],
}

impl RpcName {
    /// The name of these bytes, cut to [`MAX_NAME`].
    #[inline]
    #[must_use]
    pub fn new(name: &[u8]) -> Self {
        let len = name.len().min(MAX_NAME);
        let mut bytes = [0; MAX_NAME];
        bytes[..len].copy_from_slice(&name[..len]);
        Self { len: len as u8, bytes }
    }

    /// The name's bytes.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// The name as text; empty when it is not UTF-8.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// The name of the answer: `_ACK` appended.
    #[must_use]
    pub fn with_ack(&self) -> Self {
        let mut name = *self;
        let len = usize::from(self.len);
        let ack = &ACK[..ACK.len().min(MAX_NAME - len)];
        name.bytes[len..len + ack.len()].copy_from_slice(ack);
        name.len += ack.len() as u8;
        name
    }

    /// The name of the call that this name answers: `_ACK` removed.
    #[must_use]
    pub fn without_ack(&self) -> Self {
        Self::new(self.as_bytes().strip_suffix(ACK).unwrap_or(self.as_bytes()))
    }
}

impl From<&str> for RpcName {
    fn from(name: &str) -> Self {
        Self::new(name.as_bytes())
    }
}

impl From<&Text> for RpcName {
    fn from(name: &Text) -> Self {
        Self::new(name.as_bytes())
    }
}

impl PartialEq for RpcName {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for RpcName {}

impl PartialEq<str> for RpcName {
    fn eq(&self, other: &str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl PartialEq<&str> for RpcName {
    fn eq(&self, other: &&str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Hash for RpcName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Display for RpcName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().escape_ascii().fmt(f)
    }
}

impl fmt::Debug for RpcName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_cut() {
        let name = RpcName::new(&[b'x'; 60]);
        assert_eq!(name.as_bytes().len(), MAX_NAME);
        assert_eq!(name.with_ack(), name);
        let name = RpcName::new(&[b'x'; 45]);
        assert_eq!(name.with_ack().as_bytes()[45..], *b"_A");
    }

    #[test]
    fn ack_comes_and_goes() {
        let name = RpcName::from("RPC_X");
        assert_eq!(name.with_ack(), "RPC_X_ACK");
        assert_eq!(name.with_ack().without_ack(), name);
        assert_eq!(name.without_ack(), name);
    }
}
