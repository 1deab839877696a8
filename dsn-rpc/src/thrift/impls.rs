//! The plain types: integers, doubles, texts, blobs, and the eager containers.
//!
//! `Vec`, `SetOf` and `BTreeMap` are built at once and charge the reader's allowance for what they
//! need beyond the bytes of their elements; they suit small fields. Long lists of structures are
//! [`List`](super::List)s.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Decode, Encode, Reader, WireError, Writer, ttype};

macro_rules! integer {
    ($ty:ty, $ttype:expr, $size:literal) => {
        impl Encode for $ty {
            const TTYPE: u8 = $ttype;

            #[inline]
            fn write(&self, w: &mut Writer<'_>) {
                w.put(&self.to_be_bytes());
            }

            #[inline]
            fn write_as_field(&self, id: i16, w: &mut Writer<'_>) {
                let mut all = [0u8; 3 + $size];
                all[0] = $ttype;
                all[1..3].copy_from_slice(&id.to_be_bytes());
                all[3..].copy_from_slice(&self.to_be_bytes());
                w.put(&all);
            }
        }

        impl Decode for $ty {
            const MIN_SIZE: usize = $size;

            #[inline]
            fn read(r: &mut Reader<'_>) -> Result<Self, WireError> {
                r.array().map(<$ty>::from_be_bytes)
            }
        }
    };
}

integer!(i8, ttype::BYTE, 1);
integer!(i16, ttype::I16, 2);
integer!(i32, ttype::I32, 4);
integer!(i64, ttype::I64, 8);
integer!(f64, ttype::DOUBLE, 8);

impl Encode for bool {
    const TTYPE: u8 = ttype::BOOL;

    #[inline]
    fn write(&self, w: &mut Writer<'_>) {
        w.put(&[u8::from(*self)]);
    }

    #[inline]
    fn write_as_field(&self, id: i16, w: &mut Writer<'_>) {
        let [a, b] = id.to_be_bytes();
        w.put(&[ttype::BOOL, a, b, u8::from(*self)]);
    }
}

impl Decode for bool {
    const MIN_SIZE: usize = 1;

    #[inline]
    fn read(r: &mut Reader<'_>) -> Result<Self, WireError> {
        r.array().map(|[byte]| byte != 0)
    }
}

impl Encode for String {
    const TTYPE: u8 = ttype::STRING;

    #[inline]
    fn write(&self, w: &mut Writer<'_>) {
        w.bytes(self.as_bytes());
    }

    #[inline]
    fn write_as_field(&self, id: i16, w: &mut Writer<'_>) {
        w.bytes_field(ttype::STRING, id, self.as_bytes());
    }
}

impl Decode for String {
    const MIN_SIZE: usize = 4;

    #[inline]
    fn read(r: &mut Reader<'_>) -> Result<Self, WireError> {
        r.string()
    }
}

impl Encode for Bytes {
    const TTYPE: u8 = ttype::STRUCT;

    #[inline]
    fn write(&self, w: &mut Writer<'_>) {
        w.bytes(self);
    }

    #[inline]
    fn write_as_field(&self, id: i16, w: &mut Writer<'_>) {
        w.bytes_field(ttype::STRUCT, id, self);
    }
}

impl Decode for Bytes {
    const MIN_SIZE: usize = 4;

    #[inline]
    fn read(r: &mut Reader<'_>) -> Result<Self, WireError> {
        r.blob()
    }

    #[inline]
    fn read_into(&mut self, r: &mut Reader<'_>) -> Result<(), WireError> {
        r.blob_into(self)
    }
}

/// Memory of `count` elements beyond the bytes that they take at least on the wire.
fn excess<T: Decode>(count: usize) -> usize {
    size_of::<T>().saturating_sub(T::MIN_SIZE).saturating_mul(count)
}

impl<T: Decode> Encode for Vec<T> {
    const TTYPE: u8 = ttype::LIST;
    const HOST_PORT: bool = T::HOST_PORT;

    fn write(&self, w: &mut Writer<'_>) {
        w.list_head(T::TTYPE, self.len());
        self.iter().for_each(|item| item.write(w));
    }
}

impl<T: Decode> Decode for Vec<T> {
    const MIN_SIZE: usize = 5;

    fn read(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let count = r.list_head(T::TTYPE, T::MIN_SIZE)?;
        r.charge(excess::<T>(count))?;
        r.enter()?;
        let mut items = Self::with_capacity(if r.checking() { 0 } else { count });
        for _ in 0..count {
            let item = T::read(r)?;
            if !r.checking() {
                items.push(item);
            }
        }
        r.leave();
        Ok(items)
    }
}

/// Memory that the standard library's B-tree takes for a tree of entries of `entry` bytes: nodes of
/// eleven entries, at least five of them filled, and the pointers of inner nodes.
const fn tree_bytes(entry: usize, count: usize) -> usize {
    if count == 0 {
        return 0;
    }
    let node = 11 * entry + 128;
    node.saturating_add((node / 5).saturating_mul(count))
}

/// A thrift set, kept in the order in which it was written; whoever makes one sees to it that
/// nothing is in it twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetOf<T>(pub Vec<T>);

impl<T> Default for SetOf<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Decode> Encode for SetOf<T> {
    const TTYPE: u8 = ttype::SET;
    const HOST_PORT: bool = T::HOST_PORT;

    fn write(&self, w: &mut Writer<'_>) {
        self.0.write(w);
    }
}

impl<T: Decode> Decode for SetOf<T> {
    const MIN_SIZE: usize = 5;

    fn read(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Vec::read(r).map(Self)
    }
}

impl<K: Decode + Ord, V: Decode> Encode for BTreeMap<K, V> {
    const TTYPE: u8 = ttype::MAP;
    const HOST_PORT: bool = K::HOST_PORT || V::HOST_PORT;

    fn write(&self, w: &mut Writer<'_>) {
        w.map_head(K::TTYPE, V::TTYPE, self.len());
        for (key, value) in self {
            key.write(w);
            value.write(w);
        }
    }
}

impl<K: Decode + Ord, V: Decode> Decode for BTreeMap<K, V> {
    const MIN_SIZE: usize = 6;

    fn read(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let count = r.map_head(K::TTYPE, V::TTYPE, K::MIN_SIZE + V::MIN_SIZE)?;
        r.charge(tree_bytes(size_of::<K>() + size_of::<V>(), count))?;
        r.enter()?;
        let mut map = Self::new();
        for _ in 0..count {
            let key = K::read(r)?;
            let value = V::read(r)?;
            if !r.checking() {
                map.insert(key, value);
            }
        }
        r.leave();
        Ok(map)
    }
}
