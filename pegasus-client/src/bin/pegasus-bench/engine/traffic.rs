//! Sending operations and receiving answers.

use super::{ERROR_PAUSE, Engine, LPC_BENCH_FLUSH, Phase};
use crate::args::Stop;
use crate::conn::State;
use crate::flights::Flight;
use crate::records::{Checker, Tally};
use crate::wire::{BadReply, Verdict, Wire};
use crate::workload::{Kind, Op};
use dsn_core::driver::IoEvent;
use dsn_core::exec::{Ctx, Phase as TurnPhase};
use dsn_core::time::Mono;

/// Connections of a server that are tried for one with room.
const PROBES: usize = 8;

impl Engine {
    /// A socket changed its readiness.
    pub(super) fn ready(&mut self, ctx: &mut Ctx<'_>, event: IoEvent, index: usize) {
        let Some(conn) = self.conns.get_mut(index) else { return };
        if !conn.has(event.sock) {
            return;
        }
        if let State::Connecting(_) = conn.state {
            if event.writable {
                self.connected(ctx, index);
            }
            return;
        }
        if event.readable && !self.receive(ctx, index) {
            return;
        }
        self.flush(ctx, index);
        if !self.dirty.is_empty() && !self.flush_asked {
            self.flush_asked = true;
            ctx.defer(TurnPhase::Send, self.me, &LPC_BENCH_FLUSH, Self::flush_all);
        }
    }

    /// Reads and judges until the socket is empty. `false` when the connection was lost.
    fn receive(&mut self, ctx: &mut Ctx<'_>, index: usize) -> bool {
        loop {
            let conn = &mut self.conns[index];
            let Some(sock) = conn.open() else { return false };
            let more = match conn.fill(ctx, sock) {
                Ok(None) => return true,
                Ok(Some(more)) => more,
                Err(error) => {
                    self.lose(ctx, index, &error.to_string());
                    return false;
                }
            };
            let now = ctx.clock();
            if let Err(error) = self.judge_all(index, now) {
                self.lose(ctx, index, &error.to_string());
                return false;
            }
            self.fill(now, Some(index));
            self.advance(ctx, now);
            if !more {
                return true;
            }
        }
    }

    /// Judges the complete replies of a connection.
    fn judge_all(&mut self, index: usize, now: Mono) -> Result<(), BadReply> {
        let conn = &mut self.conns[index];
        let (mut at, end) = (conn.start, conn.end);
        let input = std::mem::take(&mut conn.input);
        let outcome = loop {
            let reply = match self.wire.next(&input[at..end]) {
                Ok(Some(reply)) => reply,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            at += reply.len;
            let Some((token, flight)) = self.conns[index].flights.find(reply.token) else {
                if reply.token.is_none() {
                    break Err(BadReply("a reply that nobody asked for"));
                }
                // It was given up and comes late.
                continue;
            };
            let flight = *flight;
            let check = Checker { records: &self.records, content: self.plan.read_back };
            match self.wire.judge(&flight.op, &reply, &check) {
                Ok(verdict) => self.settle(index, token, flight, verdict, now),
                Err(error) => break Err(error),
            }
        };
        let conn = &mut self.conns[index];
        conn.input = input;
        conn.start = at;
        outcome
    }

    #[inline]
    fn settle(
        &mut self,
        index: usize,
        token: u32,
        mut flight: Flight,
        verdict: Verdict,
        now: Mono,
    ) {
        match verdict {
            Verdict::Done(tally) => {
                self.conns[index].flights.remove(token);
                self.in_flight -= 1;
                self.finished(&flight, tally, now);
            }
            Verdict::More(context, tally) => {
                flight.sent = now.nanos();
                flight.tally.found += tally.found;
                flight.tally.wrong += tally.wrong;
                let conn = &mut self.conns[index];
                conn.flights.update(token, flight);
                self.wire.encode_more(&self.records, &flight.op, context, token, &mut conn.out);
            }
            Verdict::Failed(name) => {
                self.conns[index].flights.remove(token);
                self.in_flight -= 1;
                self.routes_wanted |= self.wire.means_moved(&name);
                self.failed(&flight, &name, now);
            }
        }
    }

    #[inline]
    fn finished(&mut self, flight: &Flight, tally: Tally, now: Mono) {
        let kind = flight.op.kind;
        self.meter.total += 1;
        self.last_success = now;
        if self.phase == Phase::Measuring {
            let mut sum = tally;
            if kind == Kind::Scan {
                sum.found += flight.tally.found;
                sum.wrong += flight.tally.wrong;
                sum.missing = u64::from(flight.op.count).saturating_sub(sum.found);
            }
            self.meter.count(kind, &sum);
        }
        if flight.measured {
            self.ended += 1;
            let took = now.nanos().saturating_sub(flight.start).saturating_sub(self.pause);
            self.meter.latency(kind, took);
        }
    }

    /// An operation failed; its slot rests. While loading it is tried again.
    pub(super) fn failed(&mut self, flight: &Flight, name: &str, now: Mono) {
        self.resting.push_back(now + ERROR_PAUSE);
        self.meter.total_errors += 1;
        if flight.measured {
            self.ended += 1;
        }
        match self.phase {
            Phase::Loading => {
                self.retry.push(flight.op);
                self.meter.name_error(name, 1);
            }
            _ => self.meter.error(flight.op.kind, name),
        }
    }

    /// Gives every free slot something to do.
    #[inline]
    pub(super) fn fill(&mut self, now: Mono, hint: Option<usize>) {
        while self.resting.front().is_some_and(|until| *until <= now) {
            self.resting.pop_front();
        }
        if let Some(pace) = &mut self.pace {
            let free = self.slots.saturating_sub(self.in_flight + self.resting.len());
            pace.trim(now, free as u64);
        }
        while self.in_flight + self.resting.len() < self.slots {
            let Some((op, start)) = self.next_op(now) else { return };
            self.issue(op, start, now, hint);
        }
    }

    #[inline]
    fn next_op(&mut self, now: Mono) -> Option<(Op, Mono)> {
        match self.phase {
            Phase::Loading => self.retry.pop().or_else(|| self.filling.next()).map(|op| (op, now)),
            Phase::WarmUp | Phase::Measuring => {
                let measuring = self.phase == Phase::Measuring;
                if let Stop::Operations(wanted) = self.plan.stop
                    && measuring
                    && self.issued >= wanted
                {
                    return None;
                }
                let start = match &mut self.pace {
                    None => now,
                    Some(pace) => pace.take(now)?,
                };
                self.issued += u64::from(measuring);
                if measuring && self.pace.is_some() {
                    self.meter.lag(now.saturating_since(start).as_nanos() as u64);
                }
                Some((self.workload.draw(), start))
            }
            _ => None,
        }
    }

    #[inline]
    fn issue(&mut self, op: Op, start: Mono, now: Mono, hint: Option<usize>) {
        let flight = Flight {
            op,
            start: start.nanos(),
            sent: now.nanos(),
            measured: self.phase == Phase::Measuring,
            tally: Tally::default(),
        };
        let partition = self.wire.partition(&self.records, &op);
        let Some(server) = self.routes.server(partition) else {
            self.routes_wanted = true;
            return self.failed(&flight, "partition without primary", now);
        };
        let Some(index) = self.pick(server, hint) else {
            return self.failed(&flight, "not connected", now);
        };
        let conn = &mut self.conns[index];
        let token = conn.flights.insert(flight);
        self.in_flight += 1;
        self.wire.encode(&self.records, &op, token, &mut conn.out);
        if hint != Some(index) && !conn.dirty {
            conn.dirty = true;
            self.dirty.push(index);
        }
    }

    /// The connection for the next request to a server: the one that has just become free, or the
    /// next in turn.
    #[inline]
    fn pick(&mut self, server: usize, hint: Option<usize>) -> Option<usize> {
        let limit = self.slots / self.conns.len().max(1);
        if let Some(index) = hint {
            let conn = &self.conns[index];
            let fits = conn.addr == self.routes.servers[server] && conn.flights.len() < limit;
            if fits && conn.open().is_some() {
                return Some(index);
            }
        }
        let candidates = &self.by_server[server];
        let mut open = None;
        for _ in 0..candidates.len() {
            let at = self.cursor[server] % candidates.len();
            self.cursor[server] = at + 1;
            let index = candidates[at];
            let conn = &self.conns[index];
            if conn.open().is_none() {
                continue;
            }
            if conn.flights.len() < limit {
                return Some(index);
            }
            let tried = open.map_or(0, |(_, tried)| tried) + 1;
            if tried == PROBES {
                return Some(index);
            }
            open = Some((index, tried));
        }
        open.map(|(index, _)| index)
    }

    fn flush(&mut self, ctx: &mut Ctx<'_>, index: usize) {
        if let Err(error) = self.conns[index].flush(ctx) {
            self.lose(ctx, index, &error.to_string());
        }
    }

    /// Sends what waits on every connection that was given something out of its turn.
    pub(super) fn flush_all(&mut self, ctx: &mut Ctx<'_>) {
        self.flush_asked = false;
        while let Some(index) = self.dirty.pop() {
            self.conns[index].dirty = false;
            self.flush(ctx, index);
        }
    }

    /// Requests that have waited too long: given up one by one where answers have tokens; elsewhere
    /// the connection is of no use any more.
    pub(super) fn give_up_overdue(&mut self, ctx: &mut Ctx<'_>, now: Mono) {
        let limit = now.saturating_sub(self.plan.timeout).nanos();
        for index in 0..self.conns.len() {
            let conn = &mut self.conns[index];
            if conn.flights.len() == 0 {
                continue;
            }
            let overdue = conn.flights.overdue(limit);
            if overdue.is_empty() {
                continue;
            }
            self.routes_wanted = true;
            if let Wire::Redis(_) = self.wire {
                self.lose(ctx, index, "timeout");
                continue;
            }
            for token in overdue {
                if let Some(flight) = self.conns[index].flights.remove(token) {
                    self.in_flight -= 1;
                    self.failed(&flight, "ERR_TIMEOUT", now);
                }
            }
        }
    }
}
