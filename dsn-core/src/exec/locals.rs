//! Values of which each worker has one, found by their type.

use std::any::{Any, TypeId};
use std::fmt;
use std::hash::{Hash, Hasher};

/// Hints of a worker. It has a dozen types: two of them rarely share one.
const HINTS: usize = 1024;

/// The values of one worker.
pub(crate) struct Locals {
    values: Vec<(TypeId, Box<dyn Any>)>,
    /// By hash of the type: where it was found last.
    hints: [u8; HINTS],
}

impl Default for Locals {
    fn default() -> Self {
        Self { values: Vec::new(), hints: [0; HINTS] }
    }
}

impl fmt::Debug for Locals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locals").field("len", &self.values.len()).finish_non_exhaustive()
    }
}

impl Locals {
    /// The value of type `T`, made by `Default` on first use.
    #[inline]
    pub(crate) fn get<T: Default + 'static>(&mut self) -> &mut T {
        let id = TypeId::of::<T>();
        let hint = &mut self.hints[hash(&id) as usize % HINTS];
        let mut index = usize::from(*hint);
        if self.values.get(index).is_none_or(|(key, _)| *key != id) {
            index = place::<T>(&mut self.values, id);
            *hint = u8::try_from(index).unwrap_or(0);
        }
        match self.values[index].1.downcast_mut::<T>() {
            Some(value) => value,
            None => unreachable!("keyed by type"),
        }
    }
}

/// Looks through all.
#[cold]
fn place<T: Default + 'static>(values: &mut Vec<(TypeId, Box<dyn Any>)>, id: TypeId) -> usize {
    values.iter().position(|(key, _)| *key == id).unwrap_or_else(|| {
        values.push((id, Box::new(T::default())));
        values.len() - 1
    })
}

/// A type's id is a hash already.
#[inline]
fn hash(id: &TypeId) -> u64 {
    struct Taken(u64);
    impl Hasher for Taken {
        #[inline]
        fn finish(&self) -> u64 {
            self.0
        }
        fn write(&mut self, bytes: &[u8]) {
            self.0 = bytes.iter().fold(self.0, |sum, byte| sum.rotate_left(8) ^ u64::from(*byte));
        }
        #[inline]
        fn write_u64(&mut self, value: u64) {
            self.0 = value;
        }
    }
    let mut taken = Taken(0);
    id.hash(&mut taken);
    taken.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_has_one_value() {
        #[derive(Default)]
        struct Numbered<const N: usize>(usize);
        let mut locals = Locals::default();
        macro_rules! each {
            ($do:ident: $($n:literal)*) => {$({
                let found = &mut locals.get::<Numbered<$n>>().0;
                $do(found, $n);
            })*};
        }
        let set = |found: &mut usize, n| {
            assert_eq!(*found, 0, "the first use makes it");
            *found = n;
        };
        let check = |found: &mut usize, n| assert_eq!(*found, n);
        each!(set: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20);
        each!(check: 20 3 7 3 1 2 4 5 6 8 9 10 11 12 13 14 15 16 17 18 19);
    }
}
