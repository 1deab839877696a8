//! The calls of one connection that wait for their answers, by number.
//!
//! Numbers grow with every message, also with those that nobody answers; only calls are kept. Answers mostly come in
//! the order of the calls, so that the place of a number is where it would be if nothing were missing, or found by
//! bisection. What has ended behind a slow call is taken out in sweeps: there are never many more places than open
//! calls, however many come and go while one is slow.

use std::collections::VecDeque;

/// Marks a place whose call has ended.
const ENDED: u32 = u32::MAX;

/// So many places more than twice the open calls are swept.
const SLACK: usize = 64;

/// See the module's header.
#[derive(Debug)]
pub(crate) struct OpenCalls {
    /// Number and slot of the call table, in the order of the numbers; the first has not ended.
    places: VecDeque<(u64, u32)>,
    open: usize,
    next: u64,
}

impl OpenCalls {
    pub(super) fn new() -> Self {
        Self { places: VecDeque::new(), open: 0, next: 1 }
    }

    /// Calls that have not ended.
    #[inline]
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    /// The number of the next message.
    #[inline]
    pub(crate) fn take_number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    /// The message with this number, the newest, is a call whose place in the call table is `slot`.
    #[inline]
    pub(crate) fn enter(&mut self, number: u64, slot: u32) {
        debug_assert!(self.places.back().is_none_or(|(last, _)| *last < number), "in order");
        self.places.push_back((number, slot));
        self.open += 1;
    }

    /// Takes the slot of a call out; `None` when it has ended already or never was.
    #[inline]
    pub(crate) fn end(&mut self, number: u64) -> Option<u32> {
        let at = self.find(number)?;
        let slot = std::mem::replace(&mut self.places[at].1, ENDED);
        if slot == ENDED {
            return None;
        }
        self.open -= 1;
        while self.places.front().is_some_and(|(_, slot)| *slot == ENDED) {
            self.places.pop_front();
        }
        if self.places.len() > 2 * self.open + SLACK {
            self.places.retain(|(_, slot)| *slot != ENDED);
        }
        Some(slot)
    }

    /// The same by the low 32 bits of the number: the next such number from the oldest open call on.
    #[inline]
    pub(crate) fn end_short(&mut self, low: u32) -> Option<u32> {
        let (first, _) = *self.places.front()?;
        self.end(first + u64::from(low.wrapping_sub(first as u32)))
    }

    fn find(&self, number: u64) -> Option<usize> {
        let (first, _) = *self.places.front()?;
        let near = usize::try_from(number.checked_sub(first)?).ok()?;
        if self.places.get(near).is_some_and(|(there, _)| *there == number) {
            return Some(near);
        }
        self.places.binary_search_by_key(&number, |(number, _)| *number).ok()
    }

    /// Takes everything: the slots of all open calls.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = u32> + use<> {
        self.open = 0;
        let places = std::mem::take(&mut self.places);
        places.into_iter().map(|(_, slot)| slot).filter(|slot| *slot != ENDED)
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        self.places.capacity() * size_of::<(u64, u32)>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(calls: &mut OpenCalls, slot: u32) -> u64 {
        let number = calls.take_number();
        calls.enter(number, slot);
        number
    }

    #[test]
    fn calls_end_once_in_any_order() {
        for short in [false, true] {
            let mut calls = OpenCalls::new();
            let mut numbers = Vec::new();
            for slot in 0..5 {
                numbers.push(enter(&mut calls, slot));
                let oneway = calls.take_number();
                assert_eq!(calls.end(oneway), None, "nobody answers it");
            }
            let mut end = |number: u64| match short {
                true => calls.end_short(number as u32),
                false => calls.end(number),
            };
            assert_eq!(end(numbers[3]), Some(3));
            assert_eq!(end(numbers[3]), None);
            assert_eq!(end(numbers[0]), Some(0));
            assert_eq!(end(numbers[0]), None, "before the oldest");
            assert_eq!(end(numbers[4] + 1), None, "behind the newest");
            for at in [1, 2, 4] {
                assert_eq!(end(numbers[at]), Some(at as u32));
            }
            assert!(calls.places.is_empty() && calls.open() == 0);
            assert_eq!(calls.take_number(), 11);
        }
    }

    #[test]
    fn short_numbers_wrap_at_32_bits() {
        let mut calls = OpenCalls::new();
        calls.next = u64::from(u32::MAX);
        enter(&mut calls, 7);
        assert_eq!(enter(&mut calls, 8), 1 << 32);
        assert_eq!(calls.end_short(0), Some(8));
        assert_eq!(calls.end_short(u32::MAX), Some(7));
    }

    #[test]
    fn nothing_piles_up_behind_a_slow_call() {
        let mut calls = OpenCalls::new();
        let slow = enter(&mut calls, 0);
        let window: VecDeque<u64> = (1..=10).map(|slot| enter(&mut calls, slot)).collect();
        let mut window = window;
        for slot in 11..100_000 {
            calls.take_number();
            window.push_back(enter(&mut calls, slot));
            let oldest = window.pop_front().unwrap();
            assert_eq!(calls.end(oldest), Some(slot - 10));
            assert!(calls.places.len() <= 2 * 11 + SLACK, "{}", calls.places.len());
        }
        assert_eq!(calls.open(), 11);
        assert_eq!(calls.end(slow), Some(0));
        assert_eq!(calls.take().collect::<Vec<_>>(), Vec::from_iter(99_990..100_000));
        assert_eq!(calls.open(), 0);
    }
}
