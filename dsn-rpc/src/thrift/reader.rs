//! Reading thrift binary from one received frame.
//!
//! The reader borrows the frame and hands out slices that share its memory. All bounds live here:
//! lengths and counts against the bytes that are left, nesting against [`MAX_DEPTH`], memory
//! against [`ALLOWANCE`]. The types on top only compose these steps, so none of them can allocate
//! or recurse without passing a bound.

use bytes::Bytes;

use super::list::ListHead;
use super::{ALLOWANCE, Decode, MAX_DEPTH, Text, WireError, ttype};

/// A position in a frame. After an error it must not be used further.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    frame: &'a Bytes,
    rest: &'a [u8],
    depth_left: u32,
    slack: usize,
    /// Set while a list is only being walked: bounds are checked, nothing is kept or allocated.
    checking: bool,
}

impl<'a> Reader<'a> {
    /// A reader at the start of `frame`.
    #[inline]
    #[must_use]
    pub fn new(frame: &'a Bytes) -> Self {
        Self { frame, rest: frame, depth_left: MAX_DEPTH, slack: ALLOWANCE, checking: false }
    }

    /// A reader of what this program has stored itself, checked against its sum: memory is bounded by nothing but
    /// what is there.
    #[must_use]
    pub(super) fn of_stored(frame: &'a Bytes) -> Self {
        Self { slack: usize::MAX, ..Self::new(frame) }
    }

    /// A reader over `rest`, which is the tail of `frame`.
    #[inline]
    pub(super) fn at(frame: &'a Bytes, rest: &'a [u8]) -> Self {
        Self { frame, rest, depth_left: MAX_DEPTH, slack: ALLOWANCE, checking: false }
    }

    /// The bytes that have not been read yet.
    #[inline]
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The bytes that have not been read yet, sharing the frame's memory.
    #[inline]
    #[must_use]
    pub fn rest_shared(&self) -> Bytes {
        self.frame.slice_ref(self.rest)
    }

    /// Whether everything has been read.
    ///
    /// # Errors
    /// [`WireError::Trailing`] when bytes are left.
    #[inline]
    pub fn finish(&self) -> Result<(), WireError> {
        if self.rest.is_empty() { Ok(()) } else { Err(WireError::Trailing(self.rest.len())) }
    }

    /// The next `n` bytes.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    #[inline]
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], WireError> {
        let Some((head, rest)) = self.rest.split_at_checked(n) else {
            return Err(WireError::Truncated { needed: n, left: self.rest.len() });
        };
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let Some((head, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(WireError::Truncated { needed: N, left: self.rest.len() });
        };
        self.rest = rest;
        Ok(*head)
    }

    /// A 16-bit integer.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    #[inline]
    pub fn i16(&mut self) -> Result<i16, WireError> {
        self.array().map(i16::from_be_bytes)
    }

    /// A 32-bit integer.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    #[inline]
    pub fn i32(&mut self) -> Result<i32, WireError> {
        self.array().map(i32::from_be_bytes)
    }

    /// A 64-bit integer.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    #[inline]
    pub fn i64(&mut self) -> Result<i64, WireError> {
        self.array().map(i64::from_be_bytes)
    }

    /// The next field header: type byte and id, or `None` at the end of the structure.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    #[inline]
    pub fn field(&mut self) -> Result<Option<(u8, i16)>, WireError> {
        match *self.rest {
            [ttype::STOP, ref rest @ ..] => {
                self.rest = rest;
                Ok(None)
            }
            [t, a, b, ref rest @ ..] => {
                self.rest = rest;
                Ok(Some((t, i16::from_be_bytes([a, b]))))
            }
            _ => Err(WireError::Truncated { needed: 3, left: self.rest.len() }),
        }
    }

    /// A length and that many bytes, borrowed from the frame.
    ///
    /// # Errors
    /// [`WireError::NegativeLength`], [`WireError::Truncated`].
    #[inline]
    pub fn bytes(&mut self) -> Result<&'a [u8], WireError> {
        let length = self.i32()?;
        let Ok(length) = usize::try_from(length) else {
            return Err(WireError::NegativeLength(length));
        };
        self.take(length)
    }

    /// A length and that many bytes, sharing the frame's memory.
    ///
    /// # Errors
    /// [`WireError::NegativeLength`], [`WireError::Truncated`].
    #[inline]
    pub fn blob(&mut self) -> Result<Bytes, WireError> {
        let bytes = self.bytes()?;
        Ok(self.share(bytes))
    }

    /// Like [`blob`](Self::blob), into a place.
    ///
    /// # Errors
    /// Those of [`blob`](Self::blob).
    #[inline]
    pub fn blob_into(&mut self, place: &mut Bytes) -> Result<(), WireError> {
        let bytes = self.bytes()?;
        if !(self.checking || bytes.is_empty() && place.is_empty()) {
            *place = self.share(bytes);
        }
        Ok(())
    }

    /// A length and that many bytes of UTF-8, borrowed from the frame.
    ///
    /// # Errors
    /// [`WireError::Utf8`] and those of [`bytes`](Self::bytes).
    #[inline]
    pub fn str(&mut self) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| WireError::Utf8)
    }

    /// A length and that many bytes of UTF-8, sharing the frame's memory.
    ///
    /// # Errors
    /// [`WireError::Utf8`] and those of [`bytes`](Self::bytes).
    #[inline]
    pub fn text(&mut self) -> Result<Text, WireError> {
        let text = self.str()?;
        Ok(Text::from_checked(self.share(text.as_bytes())))
    }

    /// A length and that many bytes of UTF-8, copied.
    ///
    /// # Errors
    /// [`WireError::Utf8`] and those of [`bytes`](Self::bytes).
    #[inline]
    pub fn string(&mut self) -> Result<String, WireError> {
        let text = self.str()?;
        Ok(if self.checking { String::new() } else { text.to_owned() })
    }

    /// The header of a list or set whose elements are announced as `element` and take `min_size`
    /// bytes or more. Returns the count, which fits into what is left of the frame. An empty list
    /// may announce any type.
    ///
    /// # Errors
    /// [`WireError::ElementType`], [`WireError::Count`], [`WireError::NegativeLength`],
    /// [`WireError::Truncated`].
    pub fn list_head(&mut self, element: u8, min_size: usize) -> Result<usize, WireError> {
        let [found] = self.array()?;
        let count = self.count(min_size)?;
        if count > 0 && found != element {
            return Err(WireError::ElementType { expected: element, found });
        }
        Ok(count)
    }

    /// The header of a map, like [`list_head`](Self::list_head).
    ///
    /// # Errors
    /// Those of [`list_head`](Self::list_head).
    pub fn map_head(&mut self, key: u8, value: u8, min_size: usize) -> Result<usize, WireError> {
        let [found_key, found_value] = self.array()?;
        let count = self.count(min_size)?;
        if count > 0 && found_key != key {
            return Err(WireError::ElementType { expected: key, found: found_key });
        }
        if count > 0 && found_value != value {
            return Err(WireError::ElementType { expected: value, found: found_value });
        }
        Ok(count)
    }

    /// A value wrapped into an outer structure of one field, whose id and type are ignored.
    ///
    /// # Errors
    /// [`WireError::MissingValue`] when the outer structure is empty, [`WireError::Trailing`] when
    /// it has a second field, and those of the value.
    #[inline]
    pub fn wrapped<T: Decode>(&mut self) -> Result<T, WireError> {
        if self.field()?.is_none() {
            return Err(WireError::MissingValue);
        }
        let value = T::read(self)?;
        match self.field()? {
            None => Ok(value),
            Some(_) => Err(WireError::Trailing(self.rest.len())),
        }
    }

    /// Goes one level down; every structure and container does, and calls [`leave`](Self::leave) at
    /// its end.
    ///
    /// # Errors
    /// [`WireError::Depth`].
    #[inline]
    pub fn enter(&mut self) -> Result<(), WireError> {
        match self.depth_left.checked_sub(1) {
            Some(left) => {
                self.depth_left = left;
                Ok(())
            }
            None => Err(WireError::Depth),
        }
    }

    /// Goes one level up.
    #[inline]
    pub fn leave(&mut self) {
        self.depth_left += 1;
    }

    /// Skips a value of the announced type.
    ///
    /// # Errors
    /// [`WireError::UnknownType`] and all those of reading.
    pub fn skip(&mut self, t: u8) -> Result<(), WireError> {
        if let Some(size) = fixed_size(t) {
            return self.take(size).map(drop);
        }
        match t {
            ttype::STRING => self.bytes().map(drop),
            ttype::STRUCT => {
                self.enter()?;
                while let Some((t, _)) = self.field()? {
                    self.skip(t)?;
                }
                self.leave();
                Ok(())
            }
            ttype::LIST | ttype::SET => {
                let [element] = self.array()?;
                let count = self.count(1)?;
                self.skip_elements(&[element], count)
            }
            ttype::MAP => {
                let kinds = self.array::<2>()?;
                let count = self.count(2)?;
                self.skip_elements(&kinds, count)
            }
            other => Err(WireError::UnknownType(other)),
        }
    }

    fn skip_elements(&mut self, kinds: &[u8], count: usize) -> Result<(), WireError> {
        if count == 0 {
            return Ok(());
        }
        let fixed: Option<usize> = kinds.iter().map(|&t| fixed_size(t)).sum();
        if let Some(total) = fixed.and_then(|size| size.checked_mul(count)) {
            return self.take(total).map(drop);
        }
        self.enter()?;
        for _ in 0..count {
            for &t in kinds {
                self.skip(t)?;
            }
        }
        self.leave();
        Ok(())
    }

    /// Charges memory that a container needs beyond the bytes its elements brought.
    pub(super) fn charge(&mut self, amount: usize) -> Result<(), WireError> {
        self.slack = self.slack.checked_sub(amount).ok_or(WireError::Allowance)?;
        Ok(())
    }

    /// True while elements are only walked: containers must then not allocate.
    #[inline]
    pub(super) fn checking(&self) -> bool {
        self.checking
    }

    /// Walks `count` elements without keeping any and returns their bytes. A reader with a fresh
    /// allowance and full depth will then read each of them without error, for the very same code
    /// has done so here.
    pub(super) fn check_list<T: Decode>(&mut self) -> Result<ListHead, WireError> {
        let count = self.list_head(T::TTYPE, T::MIN_SIZE)?;
        self.enter()?;
        let start = self.rest;
        let mut walk = Self { checking: true, ..*self };
        for _ in 0..count {
            walk.slack = ALLOWANCE;
            T::read(&mut walk)?;
        }
        self.rest = walk.rest;
        self.leave();
        let raw = self.share(&start[..start.len() - walk.rest.len()]);
        Ok(ListHead { raw, count })
    }

    fn count(&mut self, min_size: usize) -> Result<usize, WireError> {
        let count = self.i32()?;
        let Ok(count) = usize::try_from(count) else {
            return Err(WireError::NegativeLength(count));
        };
        match count.checked_mul(min_size) {
            Some(total) if total <= self.rest.len() => Ok(count),
            _ => Err(WireError::Count { count, left: self.rest.len() }),
        }
    }

    #[inline]
    fn share(&self, bytes: &'a [u8]) -> Bytes {
        if self.checking || bytes.is_empty() { Bytes::new() } else { self.frame.slice_ref(bytes) }
    }
}

const fn fixed_size(t: u8) -> Option<usize> {
    match t {
        ttype::BOOL | ttype::BYTE => Some(1),
        ttype::I16 => Some(2),
        ttype::I32 => Some(4),
        ttype::I64 | ttype::DOUBLE => Some(8),
        _ => None,
    }
}
