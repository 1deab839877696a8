//! Looking around now and then: connections that are idle, slow, stuck or silent are closed.
//!
//! A walk over all sessions of the worker every [`PERIOD`] costs less than a timer per connection that every
//! request would have to move. Times are therefore kept to about a period.

use std::time::Duration;

use dsn_core::exec::Ctx;
use dsn_core::time::Mono;

use crate::call::NetworkError;
use crate::exchange::{self, Exchange};
use crate::options::Limits;
use crate::rpc_loop::RpcLoop;
use crate::session::{Session, SessionId, Side, State};

/// Longest time between two walks.
const PERIOD: Duration = Duration::from_secs(1);
/// Shortest.
const PERIOD_MIN: Duration = Duration::from_millis(5);
/// Every further so many bytes of a frame give it the frame timeout once more.
const FRAME_GRANT: usize = 512 * 1024;
/// A called peer counts as silent after so many timeouts in a row ...
const SILENT_TIMEOUTS: u32 = 3;
/// ... if nothing has arrived from it for this long.
const SILENT_TIME: Duration = Duration::from_secs(10);

/// Time between two walks: short enough for the shortest of the timeouts.
pub(crate) fn period(limits: &Limits) -> Duration {
    let idle = if limits.idle.is_zero() { PERIOD } else { limits.idle };
    let shortest = limits.frame.min(limits.send).min(idle);
    (shortest / 4).clamp(PERIOD_MIN, PERIOD)
}

/// What a walk found wrong with a session.
enum Finding {
    Slow,
    Stuck,
    Idle,
    Silent,
}

fn find(session: &Session, limits: &Limits, now: Mono) -> Option<Finding> {
    if session.state != State::Open {
        return None;
    }
    let past = |since: Mono, limit: Duration| now.saturating_since(since) > limit;
    if let Some(since) = session.partial_since {
        let grants = 1 + (session.input.len() / FRAME_GRANT) as u32;
        if past(since, limits.frame.saturating_mul(grants)) {
            return Some(Finding::Slow);
        }
    }
    if session.blocked && past(session.blocked_since, limits.send) {
        return Some(Finding::Stuck);
    }
    let silent = session.silent_timeouts >= SILENT_TIMEOUTS && past(session.read_at, SILENT_TIME);
    if silent && session.side != Side::Accepted {
        return Some(Finding::Silent);
    }
    if !limits.idle.is_zero() && session.is_quiet() && past(session.read_at, limits.idle) {
        return Some(Finding::Idle);
    }
    None
}

impl RpcLoop {
    /// One walk over all sessions.
    pub(crate) fn look_around(&mut self, ctx: &mut Ctx<'_>) {
        self.answer_lost(ctx);
        let now = ctx.now();
        let shared = self.shared().clone();
        let Some(exchange) = Exchange::of(ctx) else { return };
        let (mut memory, mut partial, mut count) = (0, 0, 0);
        let mut found: Vec<(SessionId, Finding)> = Vec::new();
        let mut paused = Vec::new();
        for (id, session) in exchange.sessions() {
            count += 1;
            memory += session.memory();
            partial += session.input.len();
            if session.paused {
                paused.push(id);
            }
            if let Some(finding) = find(session, &shared.limits, now) {
                found.push((id, finding));
            }
        }
        exchange.partial = partial;
        exchange.peers.retain(|_, peer| !peer.is_forgettable(now));
        // Those that wait for the node's budget are told by nobody else.
        for id in paused {
            exchange.relieve(id);
        }
        self.counters().sessions.set(count);
        self.counters().buffer_bytes.set(memory as u64);
        for (id, finding) in found {
            let (counter, why) = match finding {
                Finding::Slow => (&self.counters().too_slow, NetworkError::Garbage),
                Finding::Stuck => (&self.counters().too_slow, NetworkError::Stuck),
                Finding::Idle => (&self.counters().idle_closed, NetworkError::Closed),
                Finding::Silent => (&self.counters().too_slow, NetworkError::Silent),
            };
            counter.one();
            self.close(ctx, id, &why);
        }
        exchange::ask(ctx);
    }
}
