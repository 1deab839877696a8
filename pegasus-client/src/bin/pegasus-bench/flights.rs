//! The requests of one connection that have no answer yet.
//!
//! Each has a slot and a token, which names the slot and its current user, so that a late answer to
//! a request that was given up does not hit the slot's next user. Servers that answer in order need
//! no token; for them the order of sending is kept.

use crate::records::Tally;
use crate::workload::Op;
use std::collections::VecDeque;

/// A token has 16 bits for the slot and 15 for its user: sequence ids are signed on the wire.
const SLOT_BITS: u32 = 16;
const GENERATIONS: u32 = 1 << 15;

/// A request under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flight {
    /// What was asked.
    pub op: Op,
    /// Where its latency begins, nanoseconds: when it was sent, in the open loop when it was due.
    pub start: u64,
    /// When its last request was sent, nanoseconds.
    pub sent: u64,
    /// Whether its latency counts.
    pub measured: bool,
    /// What earlier requests of a scan have read.
    pub tally: Tally,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    flight: Option<Flight>,
}

/// See the module's header.
#[derive(Debug, Default)]
pub struct Flights {
    slots: Vec<Slot>,
    free: Vec<u32>,
    order: VecDeque<u32>,
    in_order: bool,
    len: usize,
}

impl Flights {
    /// An empty table.
    pub fn new(in_order: bool) -> Self {
        Self { in_order, ..Self::default() }
    }

    /// Requests without answer.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Adds a request; returns its token.
    #[inline]
    pub fn insert(&mut self, flight: Flight) -> u32 {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.slots.push(Slot { generation: 0, flight: None });
                (self.slots.len() - 1) as u32
            }
        };
        let slot = &mut self.slots[index as usize];
        slot.flight = Some(flight);
        self.len += 1;
        let token = slot.generation << SLOT_BITS | index;
        if self.in_order {
            self.order.push_back(token);
        }
        token
    }

    /// The request that a reply answers: the one of its token, or the oldest.
    #[inline]
    pub fn find(&self, token: Option<u32>) -> Option<(u32, &Flight)> {
        let token = match token {
            Some(token) => token,
            None => *self.order.front()?,
        };
        let slot = self.slots.get((token & ((1 << SLOT_BITS) - 1)) as usize)?;
        if slot.generation != token >> SLOT_BITS {
            return None;
        }
        slot.flight.as_ref().map(|flight| (token, flight))
    }

    /// Keeps a request under its token, for another round.
    pub fn update(&mut self, token: u32, flight: Flight) {
        if self.find(Some(token)).is_some() {
            self.slots[(token & ((1 << SLOT_BITS) - 1)) as usize].flight = Some(flight);
        }
    }

    /// Takes a request out. Where order counts it must be the oldest.
    #[inline]
    pub fn remove(&mut self, token: u32) -> Option<Flight> {
        self.find(Some(token))?;
        if self.in_order {
            debug_assert_eq!(self.order.front(), Some(&token));
            self.order.pop_front();
        }
        let index = token & ((1 << SLOT_BITS) - 1);
        let slot = &mut self.slots[index as usize];
        slot.generation = (slot.generation + 1) % GENERATIONS;
        self.free.push(index);
        self.len -= 1;
        slot.flight.take()
    }

    /// Takes everything out.
    pub fn drain(&mut self) -> Vec<Flight> {
        self.order.clear();
        self.len = 0;
        let mut all = Vec::new();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if let Some(flight) = slot.flight.take() {
                slot.generation = (slot.generation + 1) % GENERATIONS;
                self.free.push(index as u32);
                all.push(flight);
            }
        }
        all
    }

    /// Tokens of requests that were sent before `limit`.
    pub fn overdue(&self, limit: u64) -> Vec<u32> {
        let old = |(index, slot): (usize, &Slot)| {
            let flight = slot.flight.as_ref()?;
            (flight.sent < limit).then_some(slot.generation << SLOT_BITS | index as u32)
        };
        self.slots.iter().enumerate().filter_map(old).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Kind;

    fn flight(record: u64, sent: u64) -> Flight {
        let op = Op { kind: Kind::Get, record, count: 1 };
        Flight { op, start: sent, sent, measured: true, tally: Tally::default() }
    }

    #[test]
    fn tokens_find_their_request_in_any_order_and_die_with_it() {
        let mut flights = Flights::new(false);
        let tokens: Vec<u32> = (0..3).map(|n| flights.insert(flight(n, n))).collect();
        assert_eq!(flights.remove(tokens[1]).map(|f| f.op.record), Some(1));
        assert_eq!(flights.remove(tokens[1]), None);
        let again = flights.insert(flight(7, 7));
        assert_ne!(again, tokens[1]);
        assert_eq!(flights.find(Some(tokens[1])), None);
        assert_eq!(flights.find(Some(again)).map(|(_, f)| f.op.record), Some(7));
        assert!(again <= i32::MAX as u32);
        assert_eq!(flights.find(None), None);
        assert_eq!(flights.overdue(2), [tokens[0]]);
        assert_eq!(flights.drain().len(), 3);
        assert_eq!((flights.len(), flights.find(Some(again))), (0, None));
    }

    #[test]
    fn without_tokens_the_oldest_is_answered() {
        let mut flights = Flights::new(true);
        for n in 0..4 {
            flights.insert(flight(n, n));
        }
        for n in 0..4 {
            let (token, oldest) = flights.find(None).unwrap();
            assert_eq!(oldest.op.record, n);
            flights.remove(token);
            flights.insert(flight(n + 4, n));
        }
        assert_eq!(flights.find(None).map(|(_, f)| f.op.record), Some(4));
        assert_eq!(flights.len(), 4);
    }

    #[test]
    fn generations_wrap_within_a_signed_number() {
        let mut flights = Flights::new(false);
        for n in 0..100_000 {
            let token = flights.insert(flight(n, n));
            assert!(token <= i32::MAX as u32);
            assert_eq!(flights.remove(token).map(|f| f.op.record), Some(n));
        }
    }
}
