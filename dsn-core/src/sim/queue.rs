//! What will happen: events by virtual time.
//!
//! Events of the same nanosecond are ordered by a random tie from their source's own stream, then by the order in
//! which they were scheduled.

use super::net::EndId;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// One thing that will happen. Events of a node carry its life, so that those of an ended process mean nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A worker has mail, readiness or tasks left.
    Worker { node: u16, worker: u16, life: u32 },
    /// A worker's next timer.
    Timer { node: u16, worker: u16, life: u32 },
    /// A thread of a blocking pool is free and a job waits.
    Job { node: u16, pool: u16, life: u32 },
    /// A job's time is over.
    JobDone { node: u16, slot: u32, life: u32 },
    /// A connect reaches the other host.
    Syn { end: EndId },
    /// Packets reach an end.
    Packet { end: EndId },
    /// A full sender has room again.
    Room { end: EndId },
    /// Is this connection still good?
    Probe { end: EndId },
    /// A scheduled closure or fault.
    Action { index: u32 },
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) at: u64,
    tie: u32,
    seq: u64,
    pub(super) event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.seq == other.seq
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    // Reversed: the heap gives the greatest, which must be the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.tie, other.seq).cmp(&(self.at, self.tie, self.seq))
    }
}

/// The events to come.
#[derive(Debug, Default)]
pub(super) struct Queue {
    heap: BinaryHeap<Entry>,
    seq: u64,
}

impl Queue {
    pub(super) fn push(&mut self, at: u64, tie: u64, event: Event) {
        self.seq += 1;
        self.heap.push(Entry { at, tie: tie as u32, seq: self.seq, event });
    }

    pub(super) fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|entry| entry.at)
    }

    pub(super) fn pop(&mut self) -> Option<Entry> {
        self.heap.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_then_tie_then_order() {
        let mut queue = Queue::default();
        for (at, tie, index) in [(5, 0, 0), (3, 9, 1), (3, 2, 2), (3, 2, 3)] {
            queue.push(at, tie, Event::Action { index });
        }
        let order: Vec<Event> = std::iter::from_fn(|| queue.pop()).map(|e| e.event).collect();
        assert_eq!(order, [2, 3, 1, 0].map(|index| Event::Action { index }));
    }
}
