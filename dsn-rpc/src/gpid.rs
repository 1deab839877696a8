//! The identity of one partition of one table.
//!
//! On the wire partition index, then app id, both `i32` big endian, announced as a structure; in
//! the RDSN header app id first and little endian.

use std::fmt;

use crate::thrift::{Decode, Encode, Reader, WireError, Writer, ttype};

/// Multiplier by which Pegasus clients spread partitions over threads.
const THREAD_HASH_FACTOR: i32 = 7919;

/// Global partition id: table and partition. App id 0 means "no partition" in request headers.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gpid {
    /// Table id, above 0 for real tables.
    pub app_id: i32,
    /// Partition, from 0.
    pub partition_index: i32,
}

impl Gpid {
    /// Names a partition.
    #[must_use]
    #[inline]
    pub const fn new(app_id: i32, partition_index: i32) -> Self {
        Self { app_id, partition_index }
    }

    /// The number by which requests of this partition are spread over threads.
    #[must_use]
    pub const fn thread_hash(self) -> i32 {
        self.app_id.wrapping_mul(THREAD_HASH_FACTOR).wrapping_add(self.partition_index)
    }

    /// Reads the `app.partition` form that directory names begin with.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (app_id, partition_index) = text.split_once('.')?;
        Some(Self::new(app_id.parse().ok()?, partition_index.parse().ok()?))
    }
}

impl fmt::Display for Gpid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.app_id, self.partition_index)
    }
}

impl fmt::Debug for Gpid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Encode for Gpid {
    const TTYPE: u8 = ttype::STRUCT;

    #[inline]
    fn write(&self, w: &mut Writer<'_>) {
        let [a, b, c, d] = self.partition_index.to_be_bytes();
        let [e, f, g, h] = self.app_id.to_be_bytes();
        w.put(&[a, b, c, d, e, f, g, h]);
    }
}

impl Decode for Gpid {
    const MIN_SIZE: usize = 8;

    #[inline]
    fn read(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let partition_index = r.i32()?;
        Ok(Self { app_id: r.i32()?, partition_index })
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::thrift::{decode, encode};

    #[test]
    fn partition_index_comes_first() {
        let gpid = Gpid::new(2, 3);
        let mut out = BytesMut::new();
        encode(&gpid, &mut out);
        assert_eq!(out[..], [0, 0, 0, 3, 0, 0, 0, 2]);
        assert_eq!(decode(&out.freeze()), Ok(gpid));
    }

    #[test]
    fn thread_hash_wraps() {
        assert_eq!(Gpid::new(2, 3).thread_hash(), 15841);
        assert_eq!(Gpid::new(i32::MAX, 0).thread_hash(), i32::MAX.wrapping_mul(7919));
    }

    #[test]
    fn text_form() {
        assert_eq!(Gpid::parse("2.3"), Some(Gpid::new(2, 3)));
        assert_eq!(Gpid::new(-1, -1).to_string(), "-1.-1");
        assert_eq!(Gpid::parse("2"), None);
    }
}
