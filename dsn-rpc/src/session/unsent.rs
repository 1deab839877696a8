//! Calls made before their connection stands.
//!
//! Each is kept as a whole frame with its deadline, so that it can be taken out again: a call that has ended, by its
//! timeout or because it was taken back, is never sent. What is left when the connection stands tells the peer the
//! time that is left, not the time there was. How many there may be is checked by whoever adds them.

use std::collections::VecDeque;

use bytes::BytesMut;
use dsn_core::time::Mono;

/// One frame.
#[derive(Debug)]
pub(crate) struct Unsent {
    /// The number of the call, or of the one-way message, within its session.
    pub(crate) number: u64,
    /// No use to send it after this.
    pub(crate) deadline: Mono,
    pub(crate) frame: BytesMut,
}

/// Frames in the order of their numbers.
#[derive(Debug, Default)]
pub(crate) struct UnsentQueue {
    frames: VecDeque<Unsent>,
    bytes: usize,
}

impl UnsentQueue {
    /// Bytes of all frames.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Frames.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Adds a frame at its place: mostly the last, unless an injected delay has held it back.
    pub(crate) fn add(&mut self, unsent: Unsent) {
        self.bytes += unsent.frame.len();
        let at = self.frames.partition_point(|other| other.number < unsent.number);
        self.frames.insert(at, unsent);
    }

    /// Takes out the frame of a call that has ended; returns its bytes, 0 when it is not here.
    pub(crate) fn remove(&mut self, number: u64) -> usize {
        let at = self.frames.binary_search_by_key(&number, |unsent| unsent.number);
        let removed = at.ok().and_then(|at| self.frames.remove(at));
        let bytes = removed.map_or(0, |unsent| unsent.frame.len());
        self.bytes -= bytes;
        bytes
    }

    /// Takes everything.
    pub(crate) fn take(&mut self) -> VecDeque<Unsent> {
        self.bytes = 0;
        std::mem::take(&mut self.frames)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(number: u64, bytes: usize) -> Unsent {
        Unsent { number, deadline: Mono::from_nanos(number), frame: BytesMut::zeroed(bytes) }
    }

    #[test]
    fn what_is_removed_is_neither_sent_nor_counted() {
        let mut queue = UnsentQueue::default();
        for number in [3, 9, 4, 7] {
            queue.add(frame(number, number as usize));
        }
        assert_eq!(queue.bytes(), 23);
        assert_eq!((queue.remove(4), queue.remove(4), queue.remove(5)), (4, 0, 0));
        assert_eq!(queue.bytes(), 19);
        let left: Vec<u64> = queue.take().iter().map(|unsent| unsent.number).collect();
        assert_eq!(left, [3, 7, 9]);
        assert_eq!((queue.bytes(), queue.remove(7)), (0, 0));
    }
}
