//! The loop that every worker of an RPC node has: readiness in, frames to handlers, answers out.
//!
//! It is a resident like any other. Within one readiness event it reads at most [`FRAMES_PER_TURN`] frames or
//! [`BYTES_PER_TURN`] of a connection and then goes on with the others; what is left comes as an event of its own.
//! At the end of the turn each connection with something to send gets one `writev`.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;

use bytes::BytesMut;
use dsn_core::driver::{IoEvent, Sock};
use dsn_core::exec::{Addr, Ctx, Handle, Place, Resident, WorkerId};
use dsn_core::stage;
use dsn_core::time::Mono;

use crate::address::RpcAddress;
use crate::builtin;
use crate::call::{self, CallError, NetworkError};
use crate::connector;
use crate::exchange::{self, Exchange, ReplyBatch};
use crate::frame::{Frame, FrameError, Parsed, Parser};
use crate::http;
use crate::listener::Listener;
use crate::metrics;
use crate::options::{Limits, RpcOptions};
use crate::service::{self, LostAndFound, Replier, Request, ServiceTable};
use crate::session::{BLOCK, IOV_MAX, ReadBlock, SessionId, Side, State, WriteQueue, keep};
use crate::shared::RpcShared;
use crate::stats::{Counters, Stats};

dsn_core::task_codes! {
    /// Codes of the RPC layer itself.
    pub CODES;
    /// Starting a worker's loop.
    pub LPC_RPC_START: Compute, High, "THREAD_POOL_NETWORK";
    /// Going on with input that was left in an earlier turn.
    pub LPC_RPC_RESUME: Compute, Common, "THREAD_POOL_NETWORK";
    /// The end of a turn: what was appended leaves.
    pub LPC_RPC_FLUSH: Compute, High, "THREAD_POOL_NETWORK";
    /// Answers from another worker.
    pub LPC_RPC_REPLIES: Compute, High, "THREAD_POOL_NETWORK";
    /// Repliers that were dropped.
    pub LPC_RPC_UNANSWERED: Compute, Common, "THREAD_POOL_NETWORK";
    /// Calls whose time is up.
    pub LPC_RPC_TIMEOUTS: Compute, High, "THREAD_POOL_NETWORK";
    /// A message that the fault injector held back.
    pub LPC_RPC_DELAYED: Compute, Common, "THREAD_POOL_NETWORK";
    /// Accepting goes on.
    pub LPC_RPC_ACCEPT: Compute, Common, "THREAD_POOL_NETWORK";
    /// A connection accepted elsewhere.
    pub LPC_RPC_ADOPT: Compute, Common, "THREAD_POOL_NETWORK";
    /// The pause before a connection attempt is over.
    pub LPC_RPC_CONNECT: Compute, Common, "THREAD_POOL_NETWORK";
    /// A connection attempt may have taken too long.
    pub LPC_RPC_CONNECT_TIMEOUT: Compute, Common, "THREAD_POOL_NETWORK";
    /// Looking for idle, slow and silent connections.
    pub LPC_RPC_LOOK_AROUND: Compute, Common, "THREAD_POOL_NETWORK";
    /// The answer of an operator command.
    pub LPC_RPC_COMMAND: Compute, Common, "THREAD_POOL_NETWORK";
    /// An HTTP request.
    pub LPC_RPC_HTTP: Rpc, Common, "THREAD_POOL_NETWORK";
    /// Stopping to listen.
    pub LPC_RPC_STOP_LISTENING: Compute, High, "THREAD_POOL_NETWORK";
    /// Looking up a host name.
    pub LPC_RPC_RESOLVE: Blocking, Common, "THREAD_POOL_BLOCK_SERVICE";
    /// A probe of a port has found something.
    pub LPC_RPC_PROBE: Compute, High, "THREAD_POOL_NETWORK";
    /// A connection is to be watched, or one that is watched has ended.
    pub LPC_RPC_WATCH: Compute, High, "THREAD_POOL_NETWORK";
    /// A host name was not found in time.
    pub LPC_RPC_RESOLVE_TIMEOUT: Compute, Common, "THREAD_POOL_NETWORK";
}

/// Most frames of one connection in one go.
pub const FRAMES_PER_TURN: usize = 64;
/// Most bytes read of one connection in one go.
pub const BYTES_PER_TURN: usize = 256 * 1024;
/// Most `writev` calls for one connection in one go.
const WRITES_PER_TURN: usize = 8;
/// The token of listening sockets; sessions' tokens have smaller indices.
const LISTENER: u64 = u64::MAX;

/// The RPC layer of one node. Clones are handles to the same.
#[derive(Clone, Debug)]
pub struct Rpc {
    shared: Arc<RpcShared>,
}

impl Rpc {
    /// Starts a loop on every worker of the node; once per node, before anything serves or calls.
    pub fn start(ctx: &mut Ctx<'_>, options: RpcOptions, mut table: ServiceTable) -> Self {
        let node = ctx.node().clone();
        let workers = node.worker_count();
        builtin::add_services(&mut table);
        table.settle(&node);
        http::add_endpoints(&mut table.routes);
        let network = node
            .find_stage(stage::NETWORK)
            .map(|stage| node.stage(stage).workers().to_vec())
            .filter(|workers| !workers.is_empty())
            .unwrap_or_else(|| vec![WorkerId(0)]);
        let limits = Limits::new(&options, workers);
        let shared = Arc::new(RpcShared::new(limits, table, workers, network, ctx.wall()));
        if let Ok(advertised) = options.advertised_address.parse::<SocketAddrV4>() {
            let _ = shared.address.set(RpcAddress::from(advertised));
        }
        metrics::register(&node, &shared);
        let loops = (0..workers)
            .map(|index| {
                let shared = shared.clone();
                let place = Place::Worker(WorkerId(index as u16));
                ctx.spawn(place, &LPC_RPC_START, move |ctx, me| RpcLoop::new(ctx, me, shared))
            })
            .collect();
        let _ = shared.loops.set(loops);
        Self { shared }
    }

    /// Listens on `addr` (port 0: any free one) and returns the address. The first address a node listens on is the
    /// one it puts into its frames, unless it advertises another one. The listening socket belongs to the worker this
    /// is called on.
    ///
    /// # Errors
    /// The address is taken or not ours, or descriptors have run out.
    pub fn listen(&self, ctx: &mut Ctx<'_>, addr: SocketAddr) -> io::Result<SocketAddr> {
        let not_running = || io::Error::from(io::ErrorKind::NotConnected);
        let loops = self.shared.loops.get().ok_or_else(not_running)?;
        let here = loops[ctx.worker().index()];
        let bound = ctx
            .with(here, |rpc, ctx| rpc.listen(ctx, addr, LISTENER))
            .unwrap_or_else(|_| Err(not_running()))?;
        if let SocketAddr::V4(bound) = bound {
            let _ = self.shared.address.set(RpcAddress::from(bound));
        }
        Ok(bound)
    }

    /// Stops listening; connections go on.
    pub fn stop_listening(&self, ctx: &mut Ctx<'_>) {
        for &rpc in self.shared.loops.get().into_iter().flatten() {
            ctx.post(rpc, &LPC_RPC_STOP_LISTENING, RpcLoop::stop_listening);
        }
    }

    /// The address it puts into its frames: the advertised one, else the first that it listens on.
    #[must_use]
    pub fn address(&self) -> Option<RpcAddress> {
        self.shared.address.get().copied()
    }

    /// What has happened so far and what is held now; may be read from any thread.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats::gather(self.shared.counters.iter())
    }
}

/// One worker's loop.
#[derive(Debug)]
pub(crate) struct RpcLoop {
    me: Addr<Self>,
    worker: WorkerId,
    shared: Arc<RpcShared>,
    lost: Arc<LostAndFound>,
    block: ReadBlock,
    pub(crate) listeners: Vec<Listener>,
}

impl Resident for RpcLoop {
    fn on_io(&mut self, ctx: &mut Ctx<'_>, event: IoEvent, token: u64) {
        if token == LISTENER {
            self.accept(ctx, event.sock);
            return;
        }
        let id = SessionId::from_token(self.worker, token);
        let Some(session) = Exchange::of(ctx).and_then(|exchange| exchange.session(id)) else {
            return;
        };
        if session.state == State::Connecting {
            if event.writable {
                self.connecting(ctx, id);
            }
            return;
        }
        if event.writable && session.blocked {
            session.blocked = false;
            if let Some(exchange) = Exchange::of(ctx) {
                exchange.mark(id);
            }
            exchange::ask(ctx);
        }
        if event.readable {
            let Some(session) = Exchange::of(ctx).and_then(|exchange| exchange.session(id)) else {
                return;
            };
            session.readable = true;
            if !session.listed && !session.paused {
                self.serve(ctx, id);
            }
        }
    }

    fn on_close(&mut self, ctx: &mut Ctx<'_>) {
        self.stop_listening(ctx);
        let Some(exchange) = Exchange::remove(ctx) else { return };
        for (_, session) in exchange.sessions() {
            if let Some(sock) = session.sock {
                ctx.close_socket(sock);
            }
        }
    }

    fn on_lost(&mut self, ctx: &mut Ctx<'_>, text: &str) {
        ctx.node().fail(text);
    }
}

/// Why [`RpcLoop::serve`] stopped.
enum Stop {
    /// Everything that has arrived is done.
    Drained,
    /// Others shall have their turn.
    Budget,
    /// The connection has too much open.
    Paused,
    /// The peer sends no more.
    Ended,
    /// The socket failed.
    Failed(io::ErrorKind),
    /// What arrived makes no sense.
    Bad(FrameError),
}

/// The reading side of a session while it is being served.
struct Reading {
    sock: Sock,
    parser: Parser,
    input: BytesMut,
    need: usize,
    readable: bool,
    read_at: Mono,
    /// Whether a frame was cut.
    progress: bool,
}

impl RpcLoop {
    fn new(ctx: &mut Ctx<'_>, me: Addr<Self>, shared: Arc<RpcShared>) -> Self {
        Exchange::install(ctx, me, shared.clone());
        let lost = LostAndFound::new(Handle::new(ctx.node()), me);
        let period = crate::sweep::period(&shared.limits);
        // The timer starts before the resident is there, and finds it when it fires.
        ctx.every(me, &LPC_RPC_LOOK_AROUND, period, Self::look_around);
        let (worker, block, listeners) = (ctx.worker(), ReadBlock::default(), Vec::new());
        Self { me, worker, shared, lost, block, listeners }
    }

    pub(crate) fn me(&self) -> Addr<Self> {
        self.me
    }

    pub(crate) fn shared(&self) -> &Arc<RpcShared> {
        &self.shared
    }

    pub(crate) fn lost_and_found(&self) -> &Arc<LostAndFound> {
        &self.lost
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.shared.counters[self.worker.index()]
    }

    /// Goes on with the sessions that were left with input.
    pub(crate) fn resume(&mut self, ctx: &mut Ctx<'_>) {
        let Some(exchange) = Exchange::of(ctx) else { return };
        exchange.resume_asked = false;
        for _ in 0..exchange.ready.len() {
            let Some(id) = Exchange::of(ctx).and_then(|exchange| exchange.ready.pop_front()) else {
                break;
            };
            self.serve(ctx, id);
        }
        exchange::ask(ctx);
    }

    /// Reads and handles what has arrived on a session, within the budgets.
    fn serve(&mut self, ctx: &mut Ctx<'_>, id: SessionId) {
        let Some(session) = Exchange::of(ctx).and_then(|exchange| exchange.session(id)) else {
            return;
        };
        session.listed = false;
        session.paused = false;
        let Some(sock) = session.sock.filter(|_| session.state == State::Open && !session.closing)
        else {
            return;
        };
        let mut reading = Reading {
            sock,
            parser: session.parser.clone(),
            input: std::mem::take(&mut session.input),
            need: session.need,
            readable: session.readable,
            read_at: session.read_at,
            progress: false,
        };
        let Some(stop) = self.read_frames(ctx, id, &mut reading) else { return };
        self.put_back(ctx, id, reading, &stop);
        match stop {
            Stop::Drained => {}
            Stop::Budget => {
                let Some(exchange) = Exchange::of(ctx) else { return };
                if let Some(session) = exchange.session(id) {
                    session.listed = true;
                    exchange.ready.push_back(id);
                }
                exchange::ask(ctx);
            }
            Stop::Paused => self.counters().pauses.one(),
            Stop::Ended => self.ended(ctx, id),
            Stop::Failed(kind) => self.close(ctx, id, &NetworkError::Lost(kind)),
            Stop::Bad(error) => self.bad_input(ctx, id, error),
        }
    }

    /// The loop of [`Self::serve`]; `None` when the session is gone.
    fn read_frames(
        &mut self,
        ctx: &mut Ctx<'_>,
        id: SessionId,
        reading: &mut Reading,
    ) -> Option<Stop> {
        let (mut frames, mut bytes) = (FRAMES_PER_TURN, BYTES_PER_TURN);
        loop {
            if reading.input.len() < reading.need {
                if !reading.readable {
                    return Some(Stop::Drained);
                }
                if bytes == 0 {
                    return Some(Stop::Budget);
                }
                let exchange = Exchange::of(ctx)?;
                if reading.need > BLOCK && !exchange.has_room() {
                    return Some(Stop::Paused);
                }
                match self.block.fill(ctx, reading.sock, &mut reading.input, reading.need) {
                    Ok(filled) if filled.bytes == 0 => return Some(Stop::Ended),
                    Ok(filled) => {
                        let counters = &self.shared.counters[self.worker.index()];
                        counters.reads.one();
                        counters.bytes_in.add(filled.bytes as u64);
                        bytes = bytes.saturating_sub(filled.bytes);
                        reading.readable = !filled.drained;
                        reading.read_at = ctx.now();
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        reading.readable = false;
                    }
                    Err(error) => return Some(Stop::Failed(error.kind())),
                }
                continue;
            }
            if frames == 0 {
                return Some(Stop::Budget);
            }
            let session = Exchange::of(ctx)?.session(id)?;
            if !session.may_read(&self.shared.limits) {
                session.paused = true;
                return Some(if session.closing { Stop::Drained } else { Stop::Paused });
            }
            match reading.parser.next(&mut reading.input) {
                Ok(Parsed::Frame(frame)) => {
                    reading.need = 1;
                    reading.progress = true;
                    frames -= 1;
                    self.handle(ctx, id, frame, reading.read_at);
                }
                Ok(Parsed::NeedMore(need)) => {
                    reading.need = need.max(reading.input.len() + 1);
                }
                Err(error) => return Some(Stop::Bad(error)),
            }
        }
    }

    fn put_back(&mut self, ctx: &mut Ctx<'_>, id: SessionId, reading: Reading, stop: &Stop) {
        let now = ctx.now();
        let Some(session) = Exchange::of(ctx).and_then(|exchange| exchange.session(id)) else {
            return;
        };
        let Reading { parser, input, need, readable, read_at, progress, .. } = reading;
        session.parser = parser;
        session.need = need;
        session.readable = readable;
        session.read_at = read_at;
        if input.is_empty() || matches!(stop, Stop::Paused | Stop::Budget) {
            session.partial_since = None;
        } else if progress || session.partial_since.is_none() {
            session.partial_since = Some(now);
        }
        session.paused = matches!(stop, Stop::Paused);
        // Whole frames that go on in a moment may stay in the block, everything else makes room.
        let stays = matches!(stop, Stop::Budget) || (session.paused && input.len() > BLOCK / 8);
        session.input = if stays { input } else { keep(input, need) };
    }

    fn handle(&mut self, ctx: &mut Ctx<'_>, id: SessionId, frame: Frame, read_at: Mono) {
        match frame {
            Frame::Request(request) => {
                service::dispatch(ctx, &self.shared, &self.lost, id, request, read_at);
            }
            Frame::Response(response) => call::answered(ctx, id, response),
            Frame::Http(request) => http::dispatch(ctx, &self.shared, &self.lost, id, request),
        }
    }

    pub(crate) fn dispatch_delayed(
        &mut self,
        ctx: &mut Ctx<'_>,
        request: Request,
        replier: Replier,
    ) {
        service::dispatch_delayed(ctx, &self.shared, request, replier);
    }

    /// The peer sends no more. It may still want the answers to what it sent.
    fn ended(&mut self, ctx: &mut Ctx<'_>, id: SessionId) {
        let Some(exchange) = Exchange::of(ctx) else { return };
        let Some(session) = exchange.session(id) else { return };
        session.ended = true;
        let waits = session.in_flight > 0 || !session.queue.is_empty();
        if session.side != Side::Accepted || !waits {
            self.close(ctx, id, &NetworkError::Closed);
        } else if session.in_flight == 0 {
            exchange.finish(id);
            exchange::ask(ctx);
        }
    }

    fn bad_input(&mut self, ctx: &mut Ctx<'_>, id: SessionId, error: FrameError) {
        self.counters().bad_input.one();
        let Some(exchange) = Exchange::of(ctx) else { return };
        let Some(session) = exchange.session(id) else { return };
        tracing::debug!(peer = %session.peer, %error, "bad input, closing the connection");
        if let FrameError::Http(error) = error {
            http::refuse(exchange, id, error);
            exchange.finish(id);
            exchange::ask(ctx);
            return;
        }
        self.close(ctx, id, &NetworkError::Garbage);
    }

    /// Closes a session; calls that wait for answers on it fail with `why`.
    pub(crate) fn close(&mut self, ctx: &mut Ctx<'_>, id: SessionId, why: &NetworkError) {
        let Some(exchange) = Exchange::of(ctx) else { return };
        let Some(mut session) = exchange.take(id) else { return };
        exchange.counters().closed.one();
        if session.state != State::Open {
            exchange.counters().connect_failures.one();
        }
        if let Some(sock) = session.sock.take() {
            ctx.close_socket(sock);
        }
        if let Some(watcher) = session.watcher.take() {
            watcher(ctx);
        }
        let key = match session.side {
            Side::Accepted => {
                self.shared.leave(session.peer.ip(), self.worker);
                return;
            }
            Side::Called(key) => key,
        };
        tracing::debug!(peer = %session.peer, error = %why, "connection ended");
        // One-way messages are never answered: a connection that lasted for them has worked as well.
        let lasted = session.state == State::Open
            && ctx.now().saturating_since(session.read_at) >= self.shared.limits.pause;
        connector::failed(ctx, key, session.proven || lasted);
        for slot in session.calls.take() {
            let Some(exchange) = Exchange::of(ctx) else { return };
            let Some(pending) = exchange.calls.take_slot(slot) else { continue };
            exchange.counters().call_failures.one();
            let error = CallError::Network { peer: pending.peer, error: why.clone() };
            call::conclude(ctx, pending, Err(error));
        }
    }

    /// End of a turn: every session with something to send sends it, answers for other workers leave in batches.
    pub(crate) fn flush(&mut self, ctx: &mut Ctx<'_>) {
        let Some(exchange) = Exchange::of(ctx) else { return };
        let dirty = exchange.take_dirty();
        let batches = exchange.take_batches();
        for &id in &dirty {
            self.flush_one(ctx, id);
        }
        for (worker, batch) in batches {
            let Some(loops) = self.shared.loops.get() else { continue };
            ctx.post(loops[worker.index()], &LPC_RPC_REPLIES, move |rpc, ctx| {
                rpc.take_replies(ctx, batch);
            });
        }
        if let Some(exchange) = Exchange::of(ctx) {
            exchange.recycle_dirty(dirty);
        }
        exchange::ask(ctx);
    }

    fn flush_one(&mut self, ctx: &mut Ctx<'_>, id: SessionId) {
        let Some(exchange) = Exchange::of(ctx) else { return };
        let Some(session) = exchange.session(id) else { return };
        session.dirty = false;
        if !session.sendable() {
            return;
        }
        let Some(sock) = session.sock else { return };
        let mut queue = std::mem::take(&mut session.queue);
        let before = queue.len();
        let outcome = self.write(ctx, sock, &mut queue);
        let now = ctx.now();
        let Some(exchange) = Exchange::of(ctx) else { return };
        let sent = before - queue.len();
        exchange.held = exchange.held.saturating_sub(sent);
        exchange.counters().bytes_out.add(sent as u64);
        let empty = queue.is_empty();
        if empty {
            let buffer = queue.take_buffer();
            exchange.recycle(buffer);
        }
        let Some(session) = exchange.session(id) else { return };
        session.queue = queue;
        if sent > 0 || !session.blocked {
            session.blocked_since = now;
        }
        match outcome {
            Ok(blocked) => {
                session.blocked = blocked;
                if empty && session.closing {
                    self.close(ctx, id, &NetworkError::Closed);
                } else {
                    let again = !empty && !blocked;
                    if session.paused {
                        exchange.relieve(id);
                    }
                    if again {
                        exchange.mark(id);
                    }
                }
            }
            Err(kind) => self.close(ctx, id, &NetworkError::Lost(kind)),
        }
    }

    /// Writes until the queue is empty, the socket full (`true`) or it has been enough for one turn.
    fn write(
        &mut self,
        ctx: &mut Ctx<'_>,
        sock: Sock,
        queue: &mut WriteQueue,
    ) -> Result<bool, io::ErrorKind> {
        for _ in 0..WRITES_PER_TURN {
            if queue.is_empty() {
                return Ok(false);
            }
            let mut slices = [IoSlice::new(&[]); IOV_MAX];
            let count = queue.slices(&mut slices);
            match ctx.writev(sock, &slices[..count]) {
                // A short write is no promise of an event: only `WouldBlock` is.
                Ok(written) => {
                    self.counters().writes.one();
                    queue.advance(written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error.kind()),
            }
        }
        Ok(false)
    }

    /// Answers that another worker's handlers gave.
    fn take_replies(&mut self, ctx: &mut Ctx<'_>, batch: ReplyBatch) {
        let ReplyBatch { entries, data } = batch;
        let data = data.freeze();
        let mut at = 0;
        let Some(exchange) = Exchange::of(ctx) else { return };
        for (id, length, bytes) in entries {
            if length > 0 {
                let frame = &data[at..at + length];
                at += length;
                let alive = if length < crate::session::SHARE_MIN {
                    exchange.append(id, |out| out.extend_from_slice(frame))
                } else {
                    exchange.append_bytes(id, data.slice(at - length..at))
                };
                if !alive {
                    exchange.counters().undeliverable.one();
                    continue;
                }
                exchange.counters().replies.one();
            }
            exchange.release(id, bytes);
        }
        exchange::ask(ctx);
    }

    /// The timer of the call table has fired.
    pub(crate) fn expire_calls(&mut self, ctx: &mut Ctx<'_>) {
        let now = ctx.now();
        let mut due = Vec::new();
        let Some(exchange) = Exchange::of(ctx) else { return };
        let next = exchange.calls.expire(now, &mut due);
        if let Some(at) = next {
            let delay = at.saturating_since(now);
            ctx.after(self.me, &LPC_RPC_TIMEOUTS, delay, Self::expire_calls);
        }
        for pending in due {
            let Some(exchange) = Exchange::of(ctx) else { return };
            exchange.counters().call_timeouts.one();
            exchange.end_call(pending.session, pending.number);
            if let Some(session) = exchange.session(pending.session)
                && session.state == State::Open
            {
                session.silent_timeouts += 1;
            }
            let error = CallError::Timeout { peer: pending.peer, after: pending.timeout };
            call::conclude(ctx, pending, Err(error));
        }
        exchange::ask(ctx);
    }
}
