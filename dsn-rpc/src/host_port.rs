//! A server named by host and port.
//!
//! On the wire: host string, port as `i16`, one byte of kind (0 none, 1 host and port); announced
//! as a structure. Optional fields of this type are left out on connections of older clients, see
//! [`Writer::without_host_ports`].

use std::fmt;
use std::net::SocketAddr;

use crate::thrift::{Decode, Encode, Reader, WireError, Writer, ttype};

const KIND_NONE: u8 = 0;
const KIND_NAMED: u8 = 1;

/// Host name (or address in text) and port; an empty host means no server.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    host: String,
    port: u16,
}

impl HostPort {
    /// A named server; an empty `host` gives the invalid value.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        let host = host.into();
        if host.is_empty() { Self::default() } else { Self { host, port } }
    }

    /// Reads `host:port`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok()?;
        if host.is_empty() { None } else { Some(Self::new(host, port)) }
    }

    /// The host, empty when there is none.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether a server is named.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        !self.host.is_empty()
    }
}

impl From<SocketAddr> for HostPort {
    fn from(addr: SocketAddr) -> Self {
        Self::new(addr.ip().to_string(), addr.port())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_valid() {
            write!(f, "{}:{}", self.host, self.port)
        } else {
            f.write_str("invalid")
        }
    }
}

impl fmt::Debug for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Encode for HostPort {
    const TTYPE: u8 = ttype::STRUCT;
    const HOST_PORT: bool = true;

    fn write(&self, w: &mut Writer<'_>) {
        w.bytes(self.host.as_bytes());
        let [a, b] = self.port.to_be_bytes();
        w.put(&[a, b, if self.is_valid() { KIND_NAMED } else { KIND_NONE }]);
    }
}

impl Decode for HostPort {
    const MIN_SIZE: usize = 7;

    fn read(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let host = r.string()?;
        let [a, b, kind] = r.array()?;
        match kind {
            KIND_NONE => Ok(Self::default()),
            KIND_NAMED => Ok(Self::new(host, u16::from_be_bytes([a, b]))),
            other => Err(WireError::Value { what: "kind of a host_port", value: i64::from(other) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::thrift::{decode, encode};

    #[test]
    fn ports_above_the_signed_range_survive() {
        let named = HostPort::new("node-1", 34801);
        let mut out = BytesMut::new();
        encode(&named, &mut out);
        assert_eq!(out[..], *b"\0\0\0\x06node-1\x87\xf1\x01");
        assert_eq!(decode(&out.freeze()), Ok(named));
    }

    #[test]
    fn the_invalid_value_has_kind_zero() {
        let mut out = BytesMut::new();
        encode(&HostPort::default(), &mut out);
        assert_eq!(out[..], [0; 7]);
        assert_eq!(decode(&out.freeze()), Ok(HostPort::default()));
    }

    #[test]
    fn text_form() {
        assert_eq!(HostPort::parse("a.b:1"), Some(HostPort::new("a.b", 1)));
        assert_eq!(HostPort::parse("a.b:1").map(|h| h.to_string()).as_deref(), Some("a.b:1"));
        for bad in ["", "a", ":1", "a:", "a:65536", "a:-1"] {
            assert_eq!(HostPort::parse(bad), None, "{bad}");
        }
    }
}
