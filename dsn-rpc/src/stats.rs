//! Counters of the RPC layer, one set per worker, each written by its worker only.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one thread changes and any thread reads.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        // One writer: no read-modify-write instruction is needed.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn one(&self) {
        self.add(1);
    }

    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($( $(#[$meta:meta])* $name:ident, )*) => {
        /// The counters of one worker.
        #[derive(Debug, Default)]
        pub(crate) struct Counters { $( pub(crate) $name: Count, )* }

        /// What the RPC layer of a node has done and holds, all workers together.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Stats { $( $(#[$meta])* pub $name: u64, )* }

        impl Stats {
            pub(crate) fn gather<'a>(workers: impl Iterator<Item = &'a Counters>) -> Self {
                let mut sum = Self::default();
                for counters in workers { $( sum.$name += counters.$name.get(); )* }
                sum
            }

            /// Names and values, in the order of declaration.
            pub fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$( (stringify!($name), self.$name), )*]
            }
        }
    };
}

counters! {
    /// Connections accepted so far.
    accepted,
    /// Connections turned away because there were too many.
    turned_away,
    /// Times that accepting paused because descriptors or memory had run out.
    accept_pauses,
    /// Connections opened so far.
    connected,
    /// Connections that could not be established.
    connect_failures,
    /// Connections closed so far, whatever the reason.
    closed,
    /// Connections closed because of what their peer sent.
    bad_input,
    /// Connections closed because their peer was too slow.
    too_slow,
    /// Connections closed because nothing happened on them.
    idle_closed,
    /// Connections now (a gauge, a second old at most).
    sessions,
    /// Memory that connections hold in buffers now, in bytes (a gauge, a second old at most).
    buffer_bytes,
    /// Bytes read.
    bytes_in,
    /// Bytes written.
    bytes_out,
    /// Reads of sockets.
    reads,
    /// Writes to sockets.
    writes,
    /// Requests received.
    requests,
    /// Requests answered.
    replies,
    /// Requests refused because of load.
    busy,
    /// Requests of a name that has no handler.
    unknown,
    /// Requests dropped because their deadline had passed.
    expired,
    /// Requests whose handler dropped the replier.
    unanswered,
    /// Answers for connections that were gone.
    undeliverable,
    /// Times that a connection was not read because of its limits.
    pauses,
    /// Calls made.
    calls,
    /// Calls that timed out.
    call_timeouts,
    /// Calls that failed with their connection.
    call_failures,
    /// Answers to calls that had ended already.
    late_replies,
    /// HTTP requests received.
    http_requests,
}
