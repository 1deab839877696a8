//! What is to be sent on one connection.
//!
//! Frames are encoded in place at the end of one growing buffer. Only large bodies that exist already are kept as
//! they are, between two such buffers, and never copied. One `writev` takes a prefix of all of it.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

/// A body at least this long is not copied into the buffer.
pub(crate) const SHARE_MIN: usize = 8 * 1024;

/// Most buffers in one `writev`.
pub(crate) const IOV_MAX: usize = 64;

/// Bytes waiting to be sent, in order.
#[derive(Debug, Default)]
pub(crate) struct WriteQueue {
    sealed: VecDeque<Bytes>,
    sealed_len: usize,
    /// Where frames are encoded; the last of the queue.
    tail: BytesMut,
    /// Bytes of `tail` that have left already.
    sent: usize,
}

impl WriteQueue {
    /// Bytes waiting.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.sealed_len + self.tail.len() - self.sent
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The buffer to append to.
    #[inline]
    pub(crate) fn tail(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    /// Whether the buffer has no memory: one may be given with [`Self::lend`].
    #[inline]
    pub(crate) fn is_bare(&self) -> bool {
        self.tail.capacity() == 0
    }

    /// Gives an empty buffer.
    #[inline]
    pub(crate) fn lend(&mut self, buffer: BytesMut) {
        self.tail = buffer;
    }

    /// Takes the buffer back once everything has left.
    pub(crate) fn take_buffer(&mut self) -> BytesMut {
        debug_assert!(self.is_empty());
        self.sent = 0;
        let mut buffer = std::mem::take(&mut self.tail);
        buffer.clear();
        buffer
    }

    /// Appends bytes that exist already; long ones are not copied.
    pub(crate) fn push(&mut self, bytes: Bytes) {
        if bytes.len() < SHARE_MIN {
            self.tail.extend_from_slice(&bytes);
            return;
        }
        self.seal();
        self.sealed_len += bytes.len();
        self.sealed.push_back(bytes);
    }

    fn seal(&mut self) {
        let mut done = self.tail.split().freeze();
        done.advance(self.sent);
        self.sent = 0;
        if !done.is_empty() {
            self.sealed_len += done.len();
            self.sealed.push_back(done);
        }
    }

    /// Fills `slices` with the front of the queue; returns how many.
    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; IOV_MAX]) -> usize {
        let mut count = 0;
        for (slot, chunk) in slices.iter_mut().zip(&self.sealed) {
            *slot = IoSlice::new(chunk);
            count += 1;
        }
        if count < IOV_MAX && self.tail.len() > self.sent {
            slices[count] = IoSlice::new(&self.tail[self.sent..]);
            count += 1;
        }
        count
    }

    /// The first `n` bytes have left.
    pub(crate) fn advance(&mut self, mut n: usize) {
        while let Some(front) = self.sealed.front_mut() {
            let part = n.min(front.len());
            front.advance(part);
            self.sealed_len -= part;
            n -= part;
            if !front.is_empty() {
                return;
            }
            self.sealed.pop_front();
        }
        self.sent += n;
        debug_assert!(self.sent <= self.tail.len());
        if self.sent == self.tail.len() {
            self.tail.clear();
            self.sent = 0;
        }
    }

    /// Memory held, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.sealed_len + self.tail.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dsn_core::rng::Rng;

    #[test]
    fn order_and_length_hold_however_it_is_cut() {
        for seed in 0..50 {
            println!("seed {seed}");
            let mut rng = Rng::stream(seed, "test", "write queue", 0);
            let (mut queue, mut model) = (WriteQueue::default(), Vec::new());
            let mut sent = Vec::new();
            for _ in 0..400 {
                if rng.chance(0.5) {
                    let long = rng.chance(0.2);
                    let mut bytes = vec![0; rng.index(if long { 3 * SHARE_MIN } else { 300 })];
                    rng.fill(&mut bytes);
                    model.extend_from_slice(&bytes);
                    if rng.chance(0.5) {
                        queue.push(bytes.into());
                    } else {
                        queue.tail().extend_from_slice(&bytes);
                    }
                } else if !queue.is_empty() {
                    let mut slices = [IoSlice::new(&[]); IOV_MAX];
                    let count = queue.slices(&mut slices);
                    let all: Vec<u8> = slices[..count].iter().flat_map(|s| s.to_vec()).collect();
                    assert!(!all.is_empty());
                    let n = 1 + rng.index(all.len());
                    sent.extend_from_slice(&all[..n]);
                    queue.advance(n);
                }
                assert_eq!(queue.len(), model.len() - sent.len());
            }
            assert_eq!(sent, model[..sent.len()]);
        }
    }
}
