//! Thrift binary encoding, as far as Pegasus uses it.
//!
//! Stock generators cannot express this protocol: `blob`, `gpid`, addresses, error codes and task
//! codes announce themselves as structs and then write raw content without inner fields. So the
//! codec is our own: a [`Reader`] over one received frame, a [`Writer`] that appends to a buffer,
//! two traits ([`Encode`], [`Decode`]) and a macro ([`message!`](crate::message)) that declares a
//! message in one place with its field ids in view.
//!
//! What holds for every decoder, whatever bytes arrive:
//! * no panic, and no read outside the frame;
//! * a length or count is compared with what is left of the frame before anything is reserved for
//!   it;
//! * blobs and texts are slices of the frame, lists of structures stay encoded ([`List`]); what
//!   else must be allocated is at most the bytes that arrived plus [`ALLOWANCE`] (strings cost what
//!   they brought, the memory that vectors and maps need beyond their own bytes is charged against
//!   the allowance);
//! * structures and containers nest at most [`MAX_DEPTH`] deep.
//!
//! Presence rules: a writer writes every plain field, also the empty ones; an `Option` is written
//! when it is set; a reader gives a missing field its default and skips what it does not know by
//! the type that is announced.

mod impls;
pub mod json;
mod list;
mod message;
mod reader;
#[cfg(test)]
mod tests;
mod text;
mod writer;

use bytes::{Bytes, BytesMut};

pub use self::impls::SetOf;
pub use self::list::{List, ListIter};
pub use self::reader::Reader;
pub use self::text::Text;
pub use self::writer::Writer;

/// Raw bytes; on the wire a length and the bytes, announced as a structure. Decoded blobs share the
/// frame's memory.
pub type Blob = Bytes;

/// Deepest nesting of structures, lists, sets and maps that a reader follows.
pub const MAX_DEPTH: u32 = 32;

/// Memory in bytes that decoding one message may need beyond the bytes that arrived.
pub const ALLOWANCE: usize = 64 * 1024;

/// Outer field id that thrift clients give the argument of a call.
pub const ARGUMENT_ID: i16 = 1;

/// Outer field id of every result, and of arguments between servers.
pub const RESULT_ID: i16 = 0;

/// The type bytes of thrift's binary protocol.
pub mod ttype {
    /// End of a structure.
    pub const STOP: u8 = 0;
    /// One byte, 0 or 1.
    pub const BOOL: u8 = 2;
    /// One signed byte.
    pub const BYTE: u8 = 3;
    /// IEEE 754 double, big endian.
    pub const DOUBLE: u8 = 4;
    /// 16-bit signed, big endian.
    pub const I16: u8 = 6;
    /// 32-bit signed, big endian; also enums.
    pub const I32: u8 = 8;
    /// 64-bit signed, big endian.
    pub const I64: u8 = 10;
    /// Length (i32) and bytes.
    pub const STRING: u8 = 11;
    /// Fields up to STOP; also announced by the types with raw content.
    pub const STRUCT: u8 = 12;
    /// Key type, value type, count, pairs.
    pub const MAP: u8 = 13;
    /// Element type, count, elements.
    pub const SET: u8 = 14;
    /// Element type, count, elements.
    pub const LIST: u8 = 15;
}

/// Why bytes could not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes end before the value does.
    #[error("{needed} more bytes announced or needed, {left} are left")]
    Truncated {
        /// Bytes that the next item takes.
        needed: usize,
        /// Bytes that remain.
        left: usize,
    },
    /// A length or count below zero, which is how 2^31 and more read.
    #[error("negative length or count {0}")]
    NegativeLength(i32),
    /// A count of elements that cannot fit into the bytes that are left.
    #[error("{count} elements announced, {left} bytes are left")]
    Count {
        /// Elements announced.
        count: usize,
        /// Bytes that remain.
        left: usize,
    },
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("nested deeper than {MAX_DEPTH} levels")]
    Depth,
    /// Decoding would need more memory than arrived plus [`ALLOWANCE`].
    #[error("needs more than {ALLOWANCE} bytes of memory beyond what arrived")]
    Allowance,
    /// A text that is not UTF-8.
    #[error("text is not UTF-8")]
    Utf8,
    /// A type byte that does not exist.
    #[error("unknown type byte {0:#04x}")]
    UnknownType(u8),
    /// Elements of another type than the field has.
    #[error("element type {found:#04x} where {expected:#04x} belongs")]
    ElementType {
        /// Type byte of the declared element.
        expected: u8,
        /// Type byte that arrived.
        found: u8,
    },
    /// A value outside its range.
    #[error("{what} cannot be {value}")]
    Value {
        /// What was being read.
        what: &'static str,
        /// The offending value.
        value: i64,
    },
    /// A call without its argument, or a reply without its result.
    #[error("the wrapped value is missing")]
    MissingValue,
    /// Bytes after the end of the value.
    #[error("{0} bytes after the end of the value")]
    Trailing(usize),
}

/// A value that can be written.
pub trait Encode {
    /// The type byte that announces the value.
    const TTYPE: u8;
    /// True for host-port pairs and containers of them: optional fields of such types are left out
    /// on connections whose reader cannot skip them, see [`Writer::without_host_ports`].
    const HOST_PORT: bool = false;

    /// Appends the value, without field header.
    fn write(&self, w: &mut Writer<'_>);

    /// Appends field header and value.
    #[inline]
    fn write_as_field(&self, id: i16, w: &mut Writer<'_>) {
        w.field(Self::TTYPE, id);
        self.write(w);
    }
}

/// A value that can be read; its default stands in for a field that is absent.
pub trait Decode: Encode + Default {
    /// Fewest bytes that any value takes on the wire; bounds element counts.
    const MIN_SIZE: usize;

    /// Reads one value, without field header.
    ///
    /// # Errors
    /// Any [`WireError`]; the reader must not be used afterwards.
    fn read(r: &mut Reader<'_>) -> Result<Self, WireError>;

    /// Reads one value into a place that holds the default. The same as [`read`](Self::read), but
    /// large messages are then built where they stay instead of being moved there.
    ///
    /// # Errors
    /// Any [`WireError`]; what the place holds then means nothing.
    #[inline]
    fn read_into(&mut self, r: &mut Reader<'_>) -> Result<(), WireError> {
        *self = Self::read(r)?;
        Ok(())
    }
}

/// What a message field may be: a plain value, always written, or an `Option`, written when set.
pub trait Field: Sized {
    /// The type byte that announces the field.
    const TTYPE: u8;

    /// Reads the content of a field that is present.
    ///
    /// # Errors
    /// Those of the value.
    fn read_field(&mut self, r: &mut Reader<'_>) -> Result<(), WireError>;

    /// Writes header and value, or nothing.
    fn write_field(&self, id: i16, w: &mut Writer<'_>);
}

impl<T: Decode> Field for T {
    const TTYPE: u8 = T::TTYPE;

    #[inline]
    fn read_field(&mut self, r: &mut Reader<'_>) -> Result<(), WireError> {
        self.read_into(r)
    }

    #[inline]
    fn write_field(&self, id: i16, w: &mut Writer<'_>) {
        self.write_as_field(id, w);
    }
}

impl<T: Decode> Field for Option<T> {
    const TTYPE: u8 = T::TTYPE;

    #[inline]
    fn read_field(&mut self, r: &mut Reader<'_>) -> Result<(), WireError> {
        self.insert(T::default()).read_into(r)
    }

    #[inline]
    fn write_field(&self, id: i16, w: &mut Writer<'_>) {
        if let Some(value) = self
            && (!T::HOST_PORT || w.host_ports())
        {
            value.write_as_field(id, w);
        }
    }
}

/// Appends `value` as the only field, numbered `id`, of an outer structure: the form of every
/// argument and result.
pub fn encode_wrapped<T: Encode>(value: &T, id: i16, out: &mut BytesMut) {
    Writer::new(out).wrapped(id, value);
}

/// Reads a wrapped value that fills `body`; the outer id and type are ignored, for writers disagree
/// on them.
///
/// # Errors
/// Any [`WireError`], also [`WireError::Trailing`] when bytes follow the value.
#[inline]
pub fn decode_wrapped<T: Decode>(body: &Bytes) -> Result<T, WireError> {
    let mut r = Reader::new(body);
    let value = r.wrapped()?;
    r.finish()?;
    Ok(value)
}

/// Appends `value` without an outer structure.
pub fn encode<T: Encode>(value: &T, out: &mut BytesMut) {
    value.write(&mut Writer::new(out));
}

/// Reads a value without an outer structure that fills `body`.
///
/// # Errors
/// Any [`WireError`], also [`WireError::Trailing`] when bytes follow the value.
pub fn decode<T: Decode>(body: &Bytes) -> Result<T, WireError> {
    let mut r = Reader::new(body);
    let value = T::read(&mut r)?;
    r.finish()?;
    Ok(value)
}

/// Like [`decode`] for what this program has stored itself and has checked against its sum: vectors and maps may be
/// as large as they are, [`ALLOWANCE`] does not bound them.
///
/// # Errors
/// Those of [`decode`] but [`WireError::Allowance`].
pub fn decode_stored<T: Decode>(content: &Bytes) -> Result<T, WireError> {
    let mut r = Reader::of_stored(content);
    let value = T::read(&mut r)?;
    r.finish()?;
    Ok(value)
}
