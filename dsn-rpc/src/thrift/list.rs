//! A list that stays encoded until it is walked.
//!
//! A structure in memory is several times larger than on the wire, so a frame of a million one-byte
//! structures would turn into a hundred megabytes. A received [`List`] therefore keeps the slice of
//! the frame that holds its elements: they are checked once when the list is read, and built one at
//! a time when it is walked. Lists that we make ourselves are ordinary vectors behind the same
//! type.

use std::fmt;

use bytes::Bytes;

use super::{Decode, Encode, Reader, WireError, Writer, ttype};

/// A list of structures: owned when we made it, encoded when it arrived.
#[derive(Clone)]
pub struct List<T> {
    repr: Repr<T>,
}

#[derive(Clone)]
enum Repr<T> {
    Owned(Vec<T>),
    /// Invariant: `raw` holds exactly `count` elements and each of them reads without error.
    Encoded(ListHead),
}

/// The checked elements of a received list.
#[derive(Clone, Debug)]
pub(super) struct ListHead {
    pub(super) raw: Bytes,
    pub(super) count: usize,
}

impl<T> List<T> {
    /// An empty list.
    #[must_use]
    pub const fn new() -> Self {
        Self { repr: Repr::Owned(Vec::new()) }
    }

    /// Number of elements.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.repr {
            Repr::Owned(items) => items.len(),
            Repr::Encoded(head) => head.count,
        }
    }

    /// Whether there are no elements.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T: Decode + Clone> List<T> {
    /// The elements in order, each built (or cloned) when it is reached.
    #[inline]
    #[must_use]
    pub fn iter(&self) -> ListIter<'_, T> {
        let walk = match &self.repr {
            Repr::Owned(items) => Walk::Owned(items.iter()),
            Repr::Encoded(head) => {
                Walk::Encoded { frame: &head.raw, rest: &head.raw, left: head.count }
            }
        };
        ListIter { walk }
    }

    /// The first element.
    #[must_use]
    pub fn first(&self) -> Option<T> {
        self.iter().next()
    }

    /// All elements built at once; memory is `len()` times the size of `T`, which a sender can make
    /// some seventy times what it sent.
    #[must_use]
    pub fn to_vec(&self) -> Vec<T> {
        self.iter().collect()
    }

    /// Appends an element; a list that arrived is turned into a vector first.
    pub fn push(&mut self, item: T) {
        if matches!(self.repr, Repr::Encoded(_)) {
            self.repr = Repr::Owned(self.to_vec());
        }
        if let Repr::Owned(items) = &mut self.repr {
            items.push(item);
        }
    }
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> From<Vec<T>> for List<T> {
    fn from(items: Vec<T>) -> Self {
        Self { repr: Repr::Owned(items) }
    }
}

impl<T> FromIterator<T> for List<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Self::from(items.into_iter().collect::<Vec<T>>())
    }
}

impl<T: Decode + Clone + PartialEq> PartialEq for List<T> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl<T: Decode + Clone + fmt::Debug> fmt::Debug for List<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a, T: Decode + Clone> IntoIterator for &'a List<T> {
    type Item = T;
    type IntoIter = ListIter<'a, T>;

    fn into_iter(self) -> ListIter<'a, T> {
        self.iter()
    }
}

impl<T: Decode + Clone> Encode for List<T> {
    const TTYPE: u8 = ttype::LIST;
    const HOST_PORT: bool = T::HOST_PORT;

    fn write(&self, w: &mut Writer<'_>) {
        w.list_head(T::TTYPE, self.len());
        match &self.repr {
            Repr::Encoded(head) if w.host_ports() => w.put(&head.raw),
            Repr::Encoded(_) => self.iter().for_each(|item| item.write(w)),
            Repr::Owned(items) => items.iter().for_each(|item| item.write(w)),
        }
    }
}

impl<T: Decode + Clone> Decode for List<T> {
    const MIN_SIZE: usize = 5;

    fn read(r: &mut Reader<'_>) -> Result<Self, WireError> {
        r.check_list::<T>().map(|head| Self { repr: Repr::Encoded(head) })
    }
}

/// Iterator over a [`List`].
#[derive(Clone, Debug)]
pub struct ListIter<'a, T> {
    walk: Walk<'a, T>,
}

#[derive(Clone, Debug)]
enum Walk<'a, T> {
    Owned(std::slice::Iter<'a, T>),
    Encoded { frame: &'a Bytes, rest: &'a [u8], left: usize },
}

impl<T: Decode + Clone> Iterator for ListIter<'_, T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        match &mut self.walk {
            Walk::Owned(items) => items.next().cloned(),
            Walk::Encoded { frame, rest, left } => {
                *left = left.checked_sub(1)?;
                let mut r = Reader::at(frame, rest);
                let item = T::read(&mut r);
                *rest = r.rest();
                match item {
                    Ok(item) => Some(item),
                    Err(e) => unreachable!("a checked list element does not read: {e}"),
                }
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = match &self.walk {
            Walk::Owned(items) => items.len(),
            Walk::Encoded { left, .. } => *left,
        };
        (left, Some(left))
    }
}

impl<T: Decode + Clone> ExactSizeIterator for ListIter<'_, T> {}
