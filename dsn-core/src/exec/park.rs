//! The protocol between one consumer that parks and many producers that must not let it sleep.
//!
//! Producers wake the consumer only when it is parked. The consumer announces that it is about to park and then looks
//! at the queue once more: either the producer sees the announcement, or the consumer sees what was pushed (Dekker's
//! argument; it rests on the two fences). Whoever takes the announcement back owes the one wake-up.
//!
//! `tests/loom_mailbox.rs` compiles this file with the atomics of a model checker and tries every interleaving.

use super::sync::{AtomicU8, Ordering, fence};

const RUNNING: u8 = 0;
const PARKED: u8 = 1;

/// An unbounded queue of many producers and one consumer that keeps each producer's order.
pub(crate) trait Queue {
    type Item;

    fn push(&self, item: Self::Item);
    fn pop(&self) -> Option<Self::Item>;
    /// May say no while an item is still being pushed, but not yes when one has been.
    fn is_empty(&self) -> bool;
}

/// A queue whose consumer parks.
pub(crate) struct Inbox<Q> {
    queue: Q,
    state: AtomicU8,
}

impl<Q: Queue> Inbox<Q> {
    pub(crate) fn new(queue: Q) -> Self {
        Self { queue, state: AtomicU8::new(RUNNING) }
    }

    /// Producer. `true`: this producer must wake the consumer now.
    #[must_use]
    pub(crate) fn push(&self, item: Q::Item) -> bool {
        self.queue.push(item);
        fence(Ordering::SeqCst);
        self.state.load(Ordering::Relaxed) == PARKED
            && self
                .state
                .compare_exchange(PARKED, RUNNING, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// Consumer.
    pub(crate) fn pop(&self) -> Option<Q::Item> {
        self.queue.pop()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Consumer: announces that it will park. `true`: it may, whatever comes from here on wakes it.
    pub(crate) fn prepare_park(&self) -> bool {
        self.state.store(PARKED, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.queue.is_empty() {
            return true;
        }
        self.unpark();
        false
    }

    /// Consumer: it runs again.
    pub(crate) fn unpark(&self) {
        self.state.store(RUNNING, Ordering::Relaxed);
    }
}
