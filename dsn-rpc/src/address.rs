//! IPv4 addresses as Pegasus writes them.
//!
//! One 64-bit number holds address, port and kind: `ip << 32 | port << 16 | kind`, where kind 0 is
//! "no address" and 1 is IPv4. On the wire it is a big-endian `i64` that announces itself as a
//! structure; in the RDSN header the same number is stored little endian. Host names travel as
//! [`HostPort`](crate::host_port::HostPort).

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

use crate::thrift::{Decode, Encode, Reader, WireError, Writer, ttype};

const KIND_MASK: u64 = 0b11;
const KIND_NONE: u64 = 0;
const KIND_IPV4: u64 = 1;

/// Address of a server, or no address.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RpcAddress(u64);

impl RpcAddress {
    /// No address.
    pub const INVALID: Self = Self(0);

    /// An IPv4 address.
    #[must_use]
    pub const fn new(ip: Ipv4Addr, port: u16) -> Self {
        Self((ip.to_bits() as u64) << 32 | (port as u64) << 16 | KIND_IPV4)
    }

    /// The number that travels.
    #[must_use]
    pub const fn to_raw(self) -> u64 {
        self.0
    }

    /// The address behind the number that travels.
    ///
    /// # Errors
    /// [`WireError::Value`] for group addresses (kind 2) and kind 3, which never travel.
    pub const fn from_raw(raw: u64) -> Result<Self, WireError> {
        match raw & KIND_MASK {
            KIND_NONE => Ok(Self::INVALID),
            KIND_IPV4 => Ok(Self(raw & !0xfffc)),
            kind => Err(WireError::Value { what: "kind of an address", value: kind as i64 }),
        }
    }

    /// Whether there is an address.
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.0 != 0
    }

    /// The port, 0 without address.
    #[must_use]
    pub const fn port(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// The IP address, `0.0.0.0` without address.
    #[must_use]
    pub const fn ip(self) -> Ipv4Addr {
        Ipv4Addr::from_bits((self.0 >> 32) as u32)
    }

    /// The socket address, if there is one.
    #[must_use]
    pub const fn socket_addr(self) -> Option<SocketAddrV4> {
        if self.is_valid() { Some(SocketAddrV4::new(self.ip(), self.port())) } else { None }
    }
}

impl From<SocketAddrV4> for RpcAddress {
    fn from(address: SocketAddrV4) -> Self {
        Self::new(*address.ip(), address.port())
    }
}

impl fmt::Display for RpcAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.socket_addr() {
            Some(address) => address.fmt(f),
            None => f.write_str("invalid"),
        }
    }
}

impl fmt::Debug for RpcAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Encode for RpcAddress {
    const TTYPE: u8 = ttype::STRUCT;

    #[inline]
    fn write(&self, w: &mut Writer<'_>) {
        w.put(&self.0.to_be_bytes());
    }
}

impl Decode for RpcAddress {
    const MIN_SIZE: usize = 8;

    #[inline]
    fn read(r: &mut Reader<'_>) -> Result<Self, WireError> {
        r.array().map(u64::from_be_bytes).and_then(Self::from_raw)
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};

    use super::*;
    use crate::thrift::{decode, encode};

    #[test]
    fn the_wire_form_is_the_documented_number() {
        let address = RpcAddress::new(Ipv4Addr::LOCALHOST, 34601);
        let mut out = BytesMut::new();
        encode(&address, &mut out);
        assert_eq!(out[..], [0x7f, 0, 0, 1, 0x87, 0x29, 0, 1]);
        assert_eq!(decode::<RpcAddress>(&out.freeze()), Ok(address));
        assert_eq!(address.to_string(), "127.0.0.1:34601");
    }

    #[test]
    fn only_none_and_ipv4_are_read() {
        assert_eq!(decode(&Bytes::from_static(&[0; 8])), Ok(RpcAddress::INVALID));
        for kind in [2, 3] {
            let wire = Bytes::copy_from_slice(&[127, 0, 0, 1, 0x87, 0x29, 0, kind]);
            assert!(matches!(decode::<RpcAddress>(&wire), Err(WireError::Value { .. })));
        }
        assert_eq!(RpcAddress::INVALID.socket_addr(), None);
    }
}
