//! Layout of stored values: a header of expiry time and time tag, then the user's bytes.
//!
//! | version | header |
//! |---|---|
//! | 0 | `u32be expire_ts` |
//! | 1 | `u32be expire_ts`, `u64be timetag` |
//!
//! A database has one version for all of its values; new ones are made with version 1. `expire_ts`
//! is in Pegasus time, 0 = never. The time tag orders writes of different clusters.

use bytes::Bytes;

/// Version of the value layout of one database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum DataVersion {
    /// Expiry only; databases of servers before 2020.
    V0,
    /// Expiry and time tag; every new database.
    #[default]
    V1,
}

/// Why stored bytes are not a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Shorter than the header.
    #[error("a stored value of {len} bytes, its header alone takes {header}")]
    Truncated {
        /// Length found.
        len: usize,
        /// Length of the header.
        header: usize,
    },
    /// A version that this server cannot read.
    #[error("data version {0} is not supported, 0 and 1 are")]
    Version(u64),
}

impl DataVersion {
    /// The version of that number.
    ///
    /// # Errors
    /// [`ValueError::Version`].
    pub const fn from_number(number: u64) -> Result<Self, ValueError> {
        match number {
            0 => Ok(Self::V0),
            1 => Ok(Self::V1),
            other => Err(ValueError::Version(other)),
        }
    }

    /// The number that is stored.
    #[must_use]
    pub const fn number(self) -> u64 {
        match self {
            Self::V0 => 0,
            Self::V1 => 1,
        }
    }

    /// Bytes before the user's data.
    #[inline]
    #[must_use]
    pub const fn header_len(self) -> usize {
        match self {
            Self::V0 => 4,
            Self::V1 => 12,
        }
    }

    /// The header of a value.
    #[inline]
    #[must_use]
    pub const fn header(self, expire_ts: u32, timetag: Timetag) -> ValueHeader {
        let mut bytes = [0u8; 12];
        let (expiry, tag) = bytes.split_at_mut(4);
        expiry.copy_from_slice(&expire_ts.to_be_bytes());
        tag.copy_from_slice(&timetag.0.to_be_bytes());
        ValueHeader { bytes, len: self.header_len() }
    }

    /// Appends a whole value to `out`.
    #[inline]
    pub fn append_value(self, expire_ts: u32, timetag: Timetag, data: &[u8], out: &mut Vec<u8>) {
        let header = self.header(expire_ts, timetag);
        out.reserve(header.as_bytes().len() + data.len());
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(data);
    }

    /// A whole value.
    #[must_use]
    pub fn encode_value(self, expire_ts: u32, timetag: Timetag, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.append_value(expire_ts, timetag, data, &mut out);
        out
    }

    /// Expiry time and user's data of a stored value.
    ///
    /// # Errors
    /// [`ValueError::Truncated`].
    #[inline]
    pub fn split_value(self, stored: &[u8]) -> Result<(u32, &[u8]), ValueError> {
        let error = ValueError::Truncated { len: stored.len(), header: self.header_len() };
        let (header, data) = stored.split_at_checked(self.header_len()).ok_or(error)?;
        let (expire_ts, _) = header.split_first_chunk::<4>().ok_or(error)?;
        Ok((u32::from_be_bytes(*expire_ts), data))
    }

    /// The user's data of a stored value, sharing its memory.
    ///
    /// # Errors
    /// [`ValueError::Truncated`].
    #[inline]
    pub fn shared_data(self, stored: &Bytes) -> Result<Bytes, ValueError> {
        self.split_value(stored).map(|(_, data)| stored.slice_ref(data))
    }

    /// The time tag of a stored value, 0 in version 0.
    ///
    /// # Errors
    /// [`ValueError::Truncated`].
    pub fn timetag(self, stored: &[u8]) -> Result<Timetag, ValueError> {
        match (self, stored) {
            (Self::V1, &[_, _, _, _, a, b, c, d, e, f, g, h, ..]) => {
                Ok(Timetag(u64::from_be_bytes([a, b, c, d, e, f, g, h])))
            }
            (Self::V0, &[_, _, _, _, ..]) => Ok(Timetag::default()),
            _ => Err(ValueError::Truncated { len: stored.len(), header: self.header_len() }),
        }
    }

    /// Replaces the expiry time of a stored value in place.
    ///
    /// # Errors
    /// [`ValueError::Truncated`]; the value is then unchanged.
    pub fn set_expire_ts(self, stored: &mut [u8], expire_ts: u32) -> Result<(), ValueError> {
        let error = ValueError::Truncated { len: stored.len(), header: self.header_len() };
        if stored.len() < self.header_len() {
            return Err(error);
        }
        *stored.first_chunk_mut::<4>().ok_or(error)? = expire_ts.to_be_bytes();
        Ok(())
    }
}

/// The bytes before the user's data, ready to be written.
#[derive(Clone, Copy, Debug)]
pub struct ValueHeader {
    bytes: [u8; 12],
    len: usize,
}

impl ValueHeader {
    /// The header's bytes, 4 or 12 of them.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// When and where a value was written: microseconds (56 bits), cluster id (7 bits), deleted (1
/// bit).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timetag(pub u64);

/// Largest cluster id that fits into a time tag.
pub const MAX_CLUSTER_ID: u8 = 127;

impl Timetag {
    /// Joins the parts; `cluster_id` is 0 when none is configured, and at most [`MAX_CLUSTER_ID`].
    #[inline]
    #[must_use]
    pub const fn new(timestamp_us: u64, cluster_id: u8, deleted: bool) -> Self {
        Self(timestamp_us << 8 | ((cluster_id & MAX_CLUSTER_ID) as u64) << 1 | deleted as u64)
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub const fn timestamp_us(self) -> u64 {
        self.0 >> 8
    }

    /// The cluster that wrote, 0 when it had no id.
    #[must_use]
    pub const fn cluster_id(self) -> u8 {
        (self.0 >> 1) as u8 & MAX_CLUSTER_ID
    }

    /// Whether the write was a removal.
    #[must_use]
    pub const fn is_deleted(self) -> bool {
        self.0 & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts() {
        let tag = Timetag::new(0x0102_0304, 5, true);
        assert_eq!(DataVersion::V0.encode_value(7, tag, b"ab"), b"\0\0\0\x07ab");
        assert_eq!(
            DataVersion::V1.encode_value(7, tag, b"ab"),
            b"\0\0\0\x07\0\0\0\x01\x02\x03\x04\x0bab"
        );
    }

    #[test]
    fn both_versions_read_back() {
        let tag = Timetag::new(1_700_000_000_000_000, 127, false);
        for version in [DataVersion::V0, DataVersion::V1] {
            for data in [&b""[..], b"user data"] {
                let stored = Bytes::from(version.encode_value(u32::MAX, tag, data));
                assert_eq!(version.split_value(&stored), Ok((u32::MAX, data)));
                let shared = version.shared_data(&stored).unwrap();
                assert_eq!(shared, data);
                let expected = if version == DataVersion::V1 { tag } else { Timetag(0) };
                assert_eq!(version.timetag(&stored), Ok(expected));
            }
            assert_eq!(DataVersion::from_number(version.number()), Ok(version));
        }
        assert_eq!(DataVersion::from_number(2), Err(ValueError::Version(2)));
    }

    #[test]
    fn short_values_are_errors() {
        for version in [DataVersion::V0, DataVersion::V1] {
            for len in 0..version.header_len() {
                let mut stored = vec![0xff; len];
                assert!(version.split_value(&stored).is_err());
                assert!(version.timetag(&stored).is_err());
                assert!(version.set_expire_ts(&mut stored, 0).is_err());
                assert_eq!(stored, vec![0xff; len]);
            }
        }
    }

    #[test]
    fn expiry_changes_in_place() {
        let mut stored = DataVersion::V1.encode_value(1, Timetag(9), b"x");
        DataVersion::V1.set_expire_ts(&mut stored, 2).unwrap();
        assert_eq!(stored, DataVersion::V1.encode_value(2, Timetag(9), b"x"));
    }

    #[test]
    fn timetag_parts() {
        let tag = Timetag::new(123, 45, true);
        assert_eq!((tag.timestamp_us(), tag.cluster_id(), tag.is_deleted()), (123, 45, true));
        assert!(Timetag::new(2, 0, false) > Timetag::new(1, 127, true));
    }
}
