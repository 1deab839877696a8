//! Calls: a request leaves, and exactly one of answer, timeout and failure comes back to the resident that asked.
//!
//! Nothing is sent twice here; whoever knows that a repetition is harmless repeats. What has an outcome before its
//! connection stands is not sent at all. The outcome is an event of the
//! resident and vanishes with it. It never runs inside the call itself.

mod error;
mod table;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dsn_core::code::Code;
use dsn_core::exec::{Addr, Ctx, Resident, WorkerId};
use dsn_core::time::Mono;
use dsn_core::toollet::Verdict;

use crate::connector::{self, Lane, PeerKey};
use crate::error_code::ErrorCode;
use crate::exchange::{self, Exchange};
use crate::frame::{Context, Protocol, RequestHead, ResponseFrame, RpcName, write_request};
use crate::gpid::Gpid;
use crate::rpc_loop::{LPC_RPC_DELAYED, LPC_RPC_TIMEOUTS, RpcLoop};
use crate::session::{SessionId, State, Unsent};
use crate::thrift::{ARGUMENT_ID, Decode, Encode, RESULT_ID, Writer, decode_wrapped};

pub use error::{CallError, NetworkError};
pub(crate) use table::{CallTable, Done, Outcome, Pending};

/// How a call is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallOptions {
    /// How long to wait for the answer; `None` takes the code's timeout.
    pub timeout: Option<Duration>,
    /// The partition addressed, if any.
    pub gpid: Gpid,
    /// Hash of the hash key, for data calls.
    pub partition_hash: u64,
    /// Spreads calls over threads at an original server; `None` derives it from `gpid`.
    pub thread_hash: Option<i32>,
    /// The header to use.
    pub protocol: Protocol,
    /// Which of the connections to the peer.
    pub lane: Lane,
    /// Whether a secondary may answer (a read that may be stale).
    pub is_backup: bool,
    /// Whether a meta server may pass the call on to its leader (`RDSN` only).
    pub can_forward: bool,
}

impl Default for CallOptions {
    fn default() -> Self {
        Self {
            timeout: None,
            gpid: Gpid::default(),
            partition_hash: 0,
            thread_hash: None,
            protocol: Protocol::Rdsn,
            lane: Lane::Main,
            is_backup: false,
            can_forward: false,
        }
    }
}

impl CallOptions {
    /// The defaults with a timeout.
    #[must_use]
    pub fn within(timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..Self::default() }
    }

    /// Concerning a partition.
    #[must_use]
    pub fn on(mut self, gpid: Gpid) -> Self {
        self.gpid = gpid;
        self
    }
}

/// Names a call, to take it back. Only valid on the worker that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallId {
    worker: WorkerId,
    slot: u32,
    generation: u32,
}

/// A call that never came to be; its failure is on the way.
const NO_ID: u32 = u32::MAX;

/// Calls `code` at `to` with `request`; `f` gets the outcome at `back`.
///
/// # Ordering
/// Calls of one worker to one peer with one protocol and lane leave in order. Answers may come in any order.
///
/// # Errors
/// All outcomes go to `f`, see [`CallError`]; a failure to even send as an event of its own.
pub fn call<T: Resident, Q: Encode, A: Decode + Send + 'static>(
    ctx: &mut Ctx<'_>,
    to: SocketAddr,
    code: Code,
    request: &Q,
    options: CallOptions,
    back: Addr<T>,
    f: impl FnOnce(&mut T, &mut Ctx<'_>, Result<A, CallError>) + Send + 'static,
) -> CallId {
    let id = if options.protocol == Protocol::Thft { ARGUMENT_ID } else { RESULT_ID };
    let done: Done = Box::new(move |ctx, outcome: Outcome| {
        let outcome = outcome.and_then(|answer| {
            decode_wrapped(&answer.body)
                .map_err(|error| CallError::Decode { peer: answer.peer, error })
        });
        deliver(ctx, back, code, move |resident, ctx| f(resident, ctx, outcome));
    });
    start(ctx, to, code, options, |w| w.wrapped(id, request), done)
}

/// Like [`call`] with an encoded argument (a wrapped value); the answer is the wrapped result as it came.
pub fn call_raw<T: Resident>(
    ctx: &mut Ctx<'_>,
    to: SocketAddr,
    code: Code,
    body: &[u8],
    options: CallOptions,
    back: Addr<T>,
    f: impl FnOnce(&mut T, &mut Ctx<'_>, Result<Bytes, CallError>) + Send + 'static,
) -> CallId {
    call_with(ctx, to, code, |w| w.put(body), options, back, f)
}

/// Like [`call_raw`] with an argument that `body` writes straight into the frame.
pub fn call_with<T: Resident>(
    ctx: &mut Ctx<'_>,
    to: SocketAddr,
    code: Code,
    body: impl FnOnce(&mut Writer<'_>),
    options: CallOptions,
    back: Addr<T>,
    f: impl FnOnce(&mut T, &mut Ctx<'_>, Result<Bytes, CallError>) + Send + 'static,
) -> CallId {
    let done: Done = Box::new(move |ctx, outcome: Outcome| {
        let outcome = outcome.map(|answer| answer.body);
        deliver(ctx, back, code, move |resident, ctx| f(resident, ctx, outcome));
    });
    start(ctx, to, code, options, body, done)
}

/// Sends a request that nobody answers. Lost without a trace when the connection fails.
pub fn send_oneway<Q: Encode>(
    ctx: &mut Ctx<'_>,
    to: SocketAddr,
    code: Code,
    request: &Q,
    options: CallOptions,
) {
    let id = if options.protocol == Protocol::Thft { ARGUMENT_ID } else { RESULT_ID };
    send_oneway_with(ctx, to, code, |w| w.wrapped(id, request), options);
}

/// Like [`send_oneway`] with an argument that `body` writes straight into the frame.
pub fn send_oneway_with(
    ctx: &mut Ctx<'_>,
    to: SocketAddr,
    code: Code,
    body: impl FnOnce(&mut Writer<'_>),
    options: CallOptions,
) {
    match place(ctx, to, code, options, true) {
        Ok(placed) => send(ctx, &placed, body),
        Err(error) => tracing::debug!(%error, code = code.name(), "one-way message not sent"),
    }
}

/// Takes a call back: its outcome will not come. `false` when it has ended already.
pub fn cancel(ctx: &mut Ctx<'_>, id: CallId) -> bool {
    if id.worker != ctx.worker() || id.slot == NO_ID {
        return false;
    }
    let Some(exchange) = Exchange::of(ctx) else { return false };
    let Some(pending) = exchange.calls.take(id.slot, id.generation) else { return false };
    exchange.end_call(pending.session, pending.number);
    true
}

/// Runs the outcome on its resident: here and now, or as an event when it is busy or elsewhere. A panic costs that
/// resident, not the connection's.
pub(crate) fn deliver<T: Resident>(
    ctx: &mut Ctx<'_>,
    back: Addr<T>,
    code: Code,
    f: impl FnOnce(&mut T, &mut Ctx<'_>) + Send + 'static,
) {
    if let Some(Err(f)) = ctx.contain(|ctx| ctx.with(back, f)) {
        ctx.post(back, code, f);
    }
}

/// Hands a failure over later: the caller may be on the stack.
fn fail_later(ctx: &mut Ctx<'_>, code: Code, done: Done, error: CallError) -> CallId {
    let worker = ctx.worker();
    ctx.run_on(worker, code, move |ctx| done(ctx, Err(error)));
    CallId { worker, slot: NO_ID, generation: 0 }
}

/// A request with a place in a session.
struct Placed {
    session: SessionId,
    head: RequestHead,
    deadline: Mono,
    verdict: Verdict,
}

fn start(
    ctx: &mut Ctx<'_>,
    to: SocketAddr,
    code: Code,
    options: CallOptions,
    body: impl FnOnce(&mut Writer<'_>),
    done: Done,
) -> CallId {
    let placed = match place(ctx, to, code, options, false) {
        Ok(placed) => placed,
        Err(error) => return fail_later(ctx, code, done, error),
    };
    let timeout = options.timeout.unwrap_or_else(|| ctx.node().spec(code).timeout);
    let at = placed.deadline;
    let worker = ctx.worker();
    let Some(exchange) = Exchange::of(ctx) else {
        let error = CallError::Network { peer: to, error: NetworkError::NotStarted };
        return fail_later(ctx, code, done, error);
    };
    exchange.counters().calls.one();
    let number = placed.head.id;
    let pending = Pending { session: placed.session, number, code, peer: to, timeout, done };
    let (slot, generation) = exchange.calls.insert(at, pending);
    if let Some(session) = exchange.session(placed.session) {
        session.calls.enter(number, slot);
    }
    let me = exchange.me;
    if let Some(delay) = exchange.calls.alarm(at) {
        // The wheel rounds up to its tick, as does this timer.
        let delay = delay.saturating_since(ctx.now());
        ctx.after(me, &LPC_RPC_TIMEOUTS, delay, RpcLoop::expire_calls);
    }
    send(ctx, &placed, body);
    CallId { worker, slot, generation }
}

/// Finds the session and the number for a request.
fn place(
    ctx: &mut Ctx<'_>,
    to: SocketAddr,
    code: Code,
    options: CallOptions,
    is_oneway: bool,
) -> Result<Placed, CallError> {
    let verdict = judge(ctx, code);
    let failed = |error| CallError::Network { peer: to, error };
    if verdict == Verdict::Fail {
        return Err(failed(NetworkError::Injected));
    }
    let key = PeerKey { addr: to, protocol: options.protocol, lane: options.lane };
    let session = connector::session_to(ctx, key).map_err(failed)?;
    let rdsn = options.protocol == Protocol::Rdsn;
    let trace_id = if rdsn { ctx.rng().next_u64() } else { 0 };
    let timeout = options.timeout.unwrap_or_else(|| ctx.node().spec(code).timeout);
    let deadline = ctx.now() + timeout;
    let Some(exchange) = Exchange::of(ctx) else { return Err(failed(NetworkError::NotStarted)) };
    let shared = exchange.shared.clone();
    let Some(state) = exchange.session(session) else {
        return Err(failed(NetworkError::NotStarted));
    };
    let open = state.state == State::Open;
    let full = match open {
        // What nobody answers needs no place.
        true => !is_oneway && state.calls.open() >= shared.limits.calls,
        false => state.unsent.len() >= shared.limits.calls_connecting,
    };
    if full || state.waiting_bytes() >= connector::unsent_max(open) {
        return Err(CallError::Overloaded { peer: to });
    }
    let mut context =
        if options.can_forward { Context::FORWARDABLE_REQUEST } else { Context::REQUEST };
    if options.is_backup {
        context = context.with_backup();
    }
    let head = RequestHead {
        trace_id,
        gpid: options.gpid,
        timeout_ms: timeout_ms(timeout),
        thread_hash: options.thread_hash.unwrap_or_else(|| options.gpid.thread_hash()),
        partition_hash: options.partition_hash,
        context,
        is_oneway,
        from_address: shared.responder(),
        ..RequestHead::new(options.protocol, RpcName::from(code.name()), state.calls.take_number())
    };
    Ok(Placed { session, head, deadline, verdict })
}

/// Asks the fault injector about a message, when it is on.
pub(crate) fn judge(ctx: &mut Ctx<'_>, code: Code) -> Verdict {
    if !ctx.node().hooks().is_on() {
        return Verdict::Proceed;
    }
    let roll = ctx.rng().next_u64();
    ctx.node().hooks().on_message(code, roll)
}

/// A timeout as frames tell it: at least a millisecond, for 0 means that the caller did not say.
pub(crate) fn timeout_ms(timeout: Duration) -> u32 {
    timeout.as_millis().clamp(1, i32::MAX as u128) as u32
}

fn send(ctx: &mut Ctx<'_>, placed: &Placed, body: impl FnOnce(&mut Writer<'_>)) {
    let id = placed.session;
    let Some(exchange) = Exchange::of(ctx) else { return };
    let Some(session) = exchange.session(id) else { return };
    let open = session.state == State::Open;
    match placed.verdict {
        Verdict::Drop | Verdict::Fail => {}
        Verdict::Proceed if open => {
            exchange.append(id, |out| write_request(out, &placed.head, body));
            exchange::ask(ctx);
        }
        Verdict::Proceed => {
            let unsent = unsent(placed, body);
            exchange.keep_unsent(id, unsent);
        }
        Verdict::Delay(delay) => {
            let unsent = unsent(placed, body);
            let me = exchange.me;
            ctx.after(me, &LPC_RPC_DELAYED, delay, move |_, ctx| send_delayed(ctx, id, unsent));
        }
    }
}

fn unsent(placed: &Placed, body: impl FnOnce(&mut Writer<'_>)) -> Unsent {
    let mut frame = BytesMut::new();
    write_request(&mut frame, &placed.head, body);
    Unsent { number: placed.head.id, deadline: placed.deadline, frame }
}

/// A frame that the fault injector has held back; it is not sent when its time is over.
fn send_delayed(ctx: &mut Ctx<'_>, id: SessionId, unsent: Unsent) {
    let now = ctx.now();
    let Some(exchange) = Exchange::of(ctx) else { return };
    let Some(session) = exchange.session(id) else { return };
    let open = session.state == State::Open;
    exchange.keep_unsent(id, unsent);
    if open {
        exchange.send_unsent(id, now);
    }
    exchange::ask(ctx);
}

/// An answer has arrived on a session.
pub(crate) fn answered(ctx: &mut Ctx<'_>, id: SessionId, frame: ResponseFrame) {
    let Some(exchange) = Exchange::of(ctx) else { return };
    let Some(session) = exchange.session(id) else { return };
    session.silent_timeouts = 0;
    let proven = std::mem::replace(&mut session.proven, true);
    let slot = session.end_call(frame.id);
    if !proven {
        connector::proven(exchange, id);
    }
    let Some(pending) = slot.and_then(|slot| exchange.calls.take_slot(slot)) else {
        exchange.counters().late_replies.one();
        return;
    };
    let peer = pending.peer;
    let outcome = if frame.error == ErrorCode::Ok {
        Ok(table::Answer { peer, body: frame.body })
    } else {
        Err(CallError::Remote { peer, error: frame.error, body: frame.body })
    };
    conclude(ctx, pending, outcome);
}

/// Tells the outcome of a call; the call is out of all tables already.
pub(crate) fn conclude(ctx: &mut Ctx<'_>, pending: Pending, outcome: Outcome) {
    let Pending { code, done, .. } = pending;
    let now = ctx.now();
    ctx.event(code, now, None, |ctx| done(ctx, outcome));
}
