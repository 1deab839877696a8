//! The calls of one worker that have no outcome yet.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use dsn_core::code::Code;
use dsn_core::exec::{Ctx, TimerId, Wheel};
use dsn_core::time::Mono;

use super::CallError;
use crate::session::SessionId;

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) peer: SocketAddr,
    /// The wrapped result.
    pub(crate) body: Bytes,
}

pub(crate) type Outcome = Result<Answer, CallError>;

/// What to do with the outcome.
pub(crate) type Done = Box<dyn FnOnce(&mut Ctx<'_>, Outcome) + Send>;

/// A call without outcome.
pub(crate) struct Pending {
    pub(crate) session: SessionId,
    /// Its number within the session.
    pub(crate) number: u64,
    pub(crate) code: Code,
    pub(crate) peer: SocketAddr,
    pub(crate) timeout: Duration,
    pub(crate) done: Done,
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending")
            .field("code", &self.code)
            .field("peer", &self.peer)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    pending: Option<(Pending, TimerId)>,
}

/// Slots with generations, and a wheel for the timeouts: a call costs no timer of the worker.
#[derive(Debug)]
pub(crate) struct CallTable {
    slots: Vec<Slot>,
    free: Vec<u32>,
    wheel: Wheel<(u32, u32)>,
    /// For when the worker's timer is set; it may be late for nothing.
    alarm: Mono,
}

impl CallTable {
    pub(crate) fn new(now: Mono) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), wheel: Wheel::new(now), alarm: Mono::NEVER }
    }

    /// Adds a call that times out at `at`.
    pub(crate) fn insert(&mut self, at: Mono, pending: Pending) -> (u32, u32) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, pending: None });
            (self.slots.len() - 1) as u32
        });
        let entry = &mut self.slots[slot as usize];
        let timer = self.wheel.insert(at, (slot, entry.generation));
        entry.pending = Some((pending, timer));
        (slot, entry.generation)
    }

    /// Takes a call out whatever its generation: for numbers that a session has vouched for.
    pub(crate) fn take_slot(&mut self, slot: u32) -> Option<Pending> {
        let generation = self.slots.get(slot as usize)?.generation;
        self.take(slot, generation)
    }

    /// Takes a call out; `None` when it has ended.
    pub(crate) fn take(&mut self, slot: u32, generation: u32) -> Option<Pending> {
        let entry = self.slots.get_mut(slot as usize)?;
        if entry.generation != generation {
            return None;
        }
        let (pending, timer) = entry.pending.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(slot);
        self.wheel.cancel(timer);
        Some(pending)
    }

    /// Whether the worker's timer must be set for a call that ends at `at`: when.
    pub(crate) fn alarm(&mut self, at: Mono) -> Option<Mono> {
        if at >= self.alarm {
            return None;
        }
        self.alarm = at;
        Some(at)
    }

    /// The worker's timer has fired: takes the calls that are due, and says when it is wanted next.
    pub(crate) fn expire(&mut self, now: Mono, due: &mut Vec<Pending>) -> Option<Mono> {
        let mut keys = Vec::new();
        self.wheel.expire(now, &mut keys);
        for (slot, generation) in keys {
            due.extend(self.take(slot, generation));
        }
        self.alarm = Mono::NEVER;
        let next = self.wheel.next_at()?;
        self.alarm(next)
    }
}
