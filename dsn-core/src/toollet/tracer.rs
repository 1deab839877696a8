//! The tracer: a ring of the last events with their times, for `tracer.find`.

use crate::code::Code;
use crate::time::Mono;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::time::Duration;

/// Events remembered per node.
pub const TRACE_RING_MAX: usize = 10_000;

/// One remembered event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceRow {
    /// The code.
    pub code: &'static str,
    /// What happened to it.
    pub what: &'static str,
    /// When.
    pub at: Mono,
    /// How long it had waited.
    pub waited: Duration,
}

/// The ring.
#[derive(Debug, Default)]
pub struct Tracer {
    ring: Mutex<VecDeque<TraceRow>>,
}

impl Tracer {
    pub(crate) fn record(&self, code: Code, what: &'static str, at: Mono, waited: Duration) {
        let mut ring = self.ring.lock();
        if ring.len() == TRACE_RING_MAX {
            ring.pop_front();
        }
        ring.push_back(TraceRow { code: code.name(), what, at, waited });
    }

    /// The last `limit` events whose code contains `pattern`, oldest first.
    pub fn find(&self, pattern: &str, limit: usize) -> Vec<TraceRow> {
        let ring = self.ring.lock();
        let mut rows: Vec<TraceRow> = ring
            .iter()
            .rev()
            .filter(|row| row.code.contains(pattern))
            .take(limit)
            .copied()
            .collect();
        rows.reverse();
        rows
    }
}
