//! The mailbox's protocol under a model checker: every interleaving of producers and a consumer that parks.
//!
//! Compiled only with `--cfg dsn_model`, in a target directory of its own; `run.sh test` does so. The protocol is the
//! runtime's own file. Its queue is replaced by one that promises less than the real one: what is pushed is published
//! with release and acquire alone, so that the fences of the protocol have to do their part.
#![cfg(dsn_model)]

mod sync {
    pub(super) use loom::sync::atomic::{AtomicU8, Ordering, fence};
}

#[path = "../src/exec/park.rs"]
mod park;

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use park::{Inbox, Queue};

/// Messages that a model may send in all.
const SLOTS: usize = 4;

/// A queue of at most [`SLOTS`] messages, none of them 0.
struct Weak {
    slots: [AtomicUsize; SLOTS],
    tail: AtomicUsize,
    head: AtomicUsize,
}

impl Weak {
    fn new() -> Self {
        let zero = || AtomicUsize::new(0);
        Self { slots: std::array::from_fn(|_| zero()), tail: zero(), head: zero() }
    }
}

impl Queue for Weak {
    type Item = usize;

    fn push(&self, item: usize) {
        let slot = self.tail.fetch_add(1, Ordering::AcqRel);
        self.slots[slot].store(item, Ordering::Release);
    }

    fn pop(&self) -> Option<usize> {
        let head = self.head.load(Ordering::Relaxed);
        if head == self.tail.load(Ordering::Acquire) {
            return None;
        }
        let item = loop {
            match self.slots[head].load(Ordering::Acquire) {
                0 => thread::yield_now(),
                item => break item,
            }
        };
        self.head.store(head + 1, Ordering::Relaxed);
        Some(item)
    }

    fn is_empty(&self) -> bool {
        self.head.load(Ordering::Relaxed) == self.tail.load(Ordering::Acquire)
    }
}

/// What wakes a poll: sticky, as an eventfd is.
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    fn new() -> Self {
        Self { rung: Mutex::new(false), changed: Condvar::new() }
    }

    fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.changed.notify_one();
    }

    fn wait(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.changed.wait(rung).unwrap();
        }
        *rung = false;
    }
}

/// The consumer's turns until it has `count` messages, as `Worker::turn` has them: it parks whenever it may.
fn consume(
    inbox: &Inbox<Weak>,
    bell: &Bell,
    count: usize,
    park: fn(&Inbox<Weak>) -> bool,
) -> Vec<usize> {
    let mut taken = Vec::new();
    while taken.len() < count {
        if park(inbox) {
            bell.wait();
        }
        inbox.unpark();
        while let Some(item) = inbox.pop() {
            taken.push(item);
        }
    }
    taken
}

/// `producers` threads send `each` messages: producer p sends 10 p + 1, 10 p + 2 and so on.
fn model(producers: usize, each: usize, park: fn(&Inbox<Weak>) -> bool) {
    let mut builder = loom::model::Builder::new();
    // Enough for every known kind of lost wake-up; all interleavings of three threads would take hours.
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let inbox = Arc::new(Inbox::new(Weak::new()));
        let bell = Arc::new(Bell::new());
        let threads: Vec<_> = (1..=producers)
            .map(|producer| {
                let (inbox, bell) = (inbox.clone(), bell.clone());
                thread::spawn(move || {
                    for n in 1..=each {
                        if inbox.push(10 * producer + n) {
                            bell.ring();
                        }
                    }
                })
            })
            .collect();
        let taken = consume(&inbox, &bell, producers * each, park);
        for thread in threads {
            thread.join().unwrap();
        }
        assert!(inbox.is_empty(), "every message once");
        for producer in 1..=producers {
            let own: Vec<usize> = taken.iter().copied().filter(|n| n / 10 == producer).collect();
            let sent: Vec<usize> = (1..=each).map(|n| 10 * producer + n).collect();
            assert_eq!(own, sent, "none lost, and in the order of their sender");
        }
    });
}

#[test]
fn no_message_of_one_sender_is_lost_and_no_wake_up() {
    model(1, 2, Inbox::prepare_park);
}

#[test]
fn no_message_of_two_senders_is_lost_and_no_wake_up() {
    model(2, 1, Inbox::prepare_park);
}

/// The checker has teeth: a consumer that parks without announcing it sleeps for ever.
#[test]
#[should_panic(expected = "deadlock")]
fn parking_without_a_word_is_caught() {
    model(1, 1, Inbox::is_empty);
}
