//! The RPC state of one worker, within reach of every handler that runs there.
//!
//! Handlers run inside the loop that reads the sockets, so what they do (answer, call) must not need that loop.
//! It goes here: answers and calls are encoded at the end of their session's queue at once, sessions with
//! something to send are noted, and [`RpcLoop`] sends at the end of the turn, once per connection. Answers for
//! connections of other workers are gathered and travel as one event per worker.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use dsn_core::exec::{Addr, Ctx, Phase, WorkerId};
use dsn_core::hash::DetHashMap;
use dsn_core::time::Mono;

use crate::call::{CallTable, timeout_ms};
use crate::connector::{Peer, PeerKey};
use crate::frame::set_request_timeout;
use crate::names::Names;
use crate::rpc_loop::{LPC_RPC_FLUSH, LPC_RPC_RESUME, RpcLoop};
use crate::session::{Session, SessionId, Side, Unsent};
use crate::shared::RpcShared;
use crate::stats::Counters;

/// Write buffers kept for reuse by one worker.
const SPARE_BUFFERS: usize = 64;
/// Largest write buffer that is kept.
const SPARE_BUFFER_MAX: usize = 64 * 1024;
/// First size of a write buffer.
const BUFFER_MIN: usize = 4 * 1024;

/// Answers for the connections of another worker.
#[derive(Debug, Default)]
pub(crate) struct ReplyBatch {
    /// Session, bytes of the answer in `data`, bytes of the request.
    pub(crate) entries: Vec<(SessionId, usize, usize)>,
    pub(crate) data: BytesMut,
}

#[derive(Debug, Default)]
struct Slot {
    /// Of the session here, or of the next one.
    generation: u32,
    session: Option<Box<Session>>,
}

/// See the module's header.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) me: Addr<RpcLoop>,
    pub(crate) worker: WorkerId,
    pub(crate) shared: Arc<RpcShared>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Sessions to be flushed.
    dirty: Vec<SessionId>,
    /// Sessions whose input is to be gone on with.
    pub(crate) ready: VecDeque<SessionId>,
    pub(crate) resume_asked: bool,
    flush_asked: bool,
    remote: Vec<ReplyBatch>,
    remote_dirty: bool,
    spare: Vec<BytesMut>,
    pub(crate) calls: CallTable,
    pub(crate) peers: DetHashMap<PeerKey, Peer>,
    pub(crate) names: Names,
    /// Bytes of unanswered requests and unsent frames.
    pub(crate) held: usize,
    /// Bytes of unfinished frames, as of the last look around.
    pub(crate) partial: usize,
}

/// The worker's one exchange, once its loop has started.
#[derive(Debug, Default)]
struct Place(Option<Exchange>);

impl Exchange {
    /// The exchange of this worker; `None` before its RPC loop has started and after it has ended.
    #[inline]
    pub(crate) fn of<'a>(ctx: &'a mut Ctx<'_>) -> Option<&'a mut Self> {
        ctx.local::<Place>().0.as_mut()
    }

    /// Opens this worker's exchange.
    pub(crate) fn install(ctx: &mut Ctx<'_>, me: Addr<RpcLoop>, shared: Arc<RpcShared>) {
        let (worker, now) = (ctx.worker(), ctx.now());
        let workers = ctx.node().worker_count();
        let exchange = Self {
            me,
            worker,
            shared,
            slots: Vec::new(),
            free: Vec::new(),
            dirty: Vec::new(),
            ready: VecDeque::new(),
            resume_asked: false,
            flush_asked: false,
            remote: (0..workers).map(|_| ReplyBatch::default()).collect(),
            remote_dirty: false,
            spare: Vec::new(),
            calls: CallTable::new(now),
            peers: DetHashMap::default(),
            names: Names::default(),
            held: 0,
            partial: 0,
        };
        ctx.local::<Place>().0 = Some(exchange);
    }

    /// Ends it: answers and calls after this go nowhere.
    pub(crate) fn remove(ctx: &mut Ctx<'_>) -> Option<Self> {
        ctx.local::<Place>().0.take()
    }

    /// This worker's counters.
    #[inline]
    pub(crate) fn counters(&self) -> &Counters {
        &self.shared.counters[self.worker.index()]
    }

    /// Adds a session.
    pub(crate) fn insert(&mut self, make: impl FnOnce() -> Session) -> SessionId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        slot.session = Some(Box::new(make()));
        SessionId { worker: self.worker, index, generation: slot.generation }
    }

    /// A session, if it is alive.
    #[inline]
    pub(crate) fn session(&mut self, id: SessionId) -> Option<&mut Session> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        slot.session.as_deref_mut()
    }

    /// Takes a session out for good.
    pub(crate) fn take(&mut self, id: SessionId) -> Option<Box<Session>> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        let session = slot.session.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.index);
        self.held = self.held.saturating_sub(session.in_flight_bytes + session.waiting_bytes());
        Some(session)
    }

    /// All sessions, in order of their slots.
    pub(crate) fn sessions(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        let worker = self.worker;
        self.slots.iter().enumerate().filter_map(move |(index, slot)| {
            let session = slot.session.as_deref()?;
            Some((SessionId { worker, index: index as u32, generation: slot.generation }, session))
        })
    }

    /// Whether more may be taken on at all.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        self.held + self.partial < self.shared.limits.held
    }

    /// Appends a frame to a session's queue; `false` when the session is gone.
    #[inline]
    pub(crate) fn append(&mut self, id: SessionId, write: impl FnOnce(&mut BytesMut)) -> bool {
        let Some(slot) = self.slots.get_mut(id.index as usize) else { return false };
        if slot.generation != id.generation {
            return false;
        }
        let Some(session) = slot.session.as_deref_mut() else { return false };
        if session.queue.is_bare() {
            let buffer = self.spare.pop();
            session.queue.lend(buffer.unwrap_or_else(|| BytesMut::with_capacity(BUFFER_MIN)));
        }
        let before = session.queue.len();
        write(session.queue.tail());
        self.held += session.queue.len() - before;
        if !session.dirty && session.sendable() {
            session.dirty = true;
            self.dirty.push(id);
        }
        true
    }

    /// Appends bytes that exist already.
    pub(crate) fn append_bytes(&mut self, id: SessionId, bytes: Bytes) -> bool {
        let Some(session) = self.session(id) else { return false };
        let before = session.queue.len();
        session.queue.push(bytes);
        let added = session.queue.len() - before;
        self.held += added;
        self.mark(id);
        true
    }

    /// Keeps a frame until the session's connection stands.
    pub(crate) fn keep_unsent(&mut self, id: SessionId, unsent: Unsent) {
        let bytes = unsent.frame.len();
        let Some(session) = self.session(id) else { return };
        session.unsent.add(unsent);
        self.held += bytes;
    }

    /// A call has ended: its place in the session is free, and what was not sent of it never will be.
    pub(crate) fn end_call(&mut self, id: SessionId, number: u64) {
        let Some(session) = self.session(id) else { return };
        session.end_call(number);
        let bytes = session.unsent.remove(number);
        self.held = self.held.saturating_sub(bytes);
    }

    /// The connection stands: what waited for it may leave, unless its time is over.
    pub(crate) fn send_unsent(&mut self, id: SessionId, now: Mono) {
        let Some(session) = self.session(id) else { return };
        let Side::Called(PeerKey { protocol, .. }) = session.side else { return };
        let bytes = session.unsent.bytes();
        let frames = session.unsent.take();
        self.held = self.held.saturating_sub(bytes);
        for Unsent { deadline, mut frame, .. } in frames {
            let left = deadline.saturating_since(now);
            if !left.is_zero() {
                set_request_timeout(protocol, &mut frame, timeout_ms(left));
                self.append_bytes(id, frame.freeze());
            }
        }
    }

    /// Notes that a session is to be flushed.
    pub(crate) fn mark(&mut self, id: SessionId) {
        if let Some(session) = self.session(id)
            && !session.dirty
            && session.sendable()
        {
            session.dirty = true;
            self.dirty.push(id);
        }
    }

    /// A request of `bytes` bytes needs no answer any more.
    #[inline]
    pub(crate) fn release(&mut self, id: SessionId, bytes: usize) {
        let Some(session) = self.session(id) else { return };
        session.release(bytes);
        let (paused, ended) = (session.paused, session.ended && session.in_flight == 0);
        self.held = self.held.saturating_sub(bytes);
        if paused {
            self.relieve(id);
        }
        if ended {
            self.finish(id);
        }
    }

    /// Closes a session once everything has left.
    pub(crate) fn finish(&mut self, id: SessionId) {
        if let Some(session) = self.session(id) {
            session.closing = true;
            self.mark(id);
        }
    }

    /// Lists a paused session again if its limits allow it now.
    pub(crate) fn relieve(&mut self, id: SessionId) {
        let shared = self.shared.clone();
        let Some(session) = self.session(id) else { return };
        if session.paused && !session.listed && session.may_read(&shared.limits) {
            session.paused = false;
            session.listed = true;
            self.ready.push_back(id);
        }
    }

    /// The batch of answers for another worker.
    pub(crate) fn batch(&mut self, worker: WorkerId) -> &mut ReplyBatch {
        self.remote_dirty = true;
        &mut self.remote[worker.index()]
    }

    /// Takes what is to be flushed.
    pub(crate) fn take_dirty(&mut self) -> Vec<SessionId> {
        self.flush_asked = false;
        std::mem::take(&mut self.dirty)
    }

    /// Gives the list of sessions back for its memory.
    pub(crate) fn recycle_dirty(&mut self, mut list: Vec<SessionId>) {
        if self.dirty.is_empty() {
            list.clear();
            self.dirty = list;
        }
    }

    /// Takes the gathered answers, by worker.
    pub(crate) fn take_batches(&mut self) -> Vec<(WorkerId, ReplyBatch)> {
        if !std::mem::take(&mut self.remote_dirty) {
            return Vec::new();
        }
        let full = self.remote.iter_mut().enumerate().filter(|(_, b)| !b.entries.is_empty());
        full.map(|(index, batch)| (WorkerId(index as u16), std::mem::take(batch))).collect()
    }

    /// Takes back a write buffer.
    pub(crate) fn recycle(&mut self, buffer: BytesMut) {
        if self.spare.len() < SPARE_BUFFERS && (1..=SPARE_BUFFER_MAX).contains(&buffer.capacity()) {
            self.spare.push(buffer);
        }
    }
}

/// Makes sure that the end of this turn sends what was appended, and goes on with what was listed.
#[inline]
pub(crate) fn ask(ctx: &mut Ctx<'_>) {
    let Some(exchange) = Exchange::of(ctx) else { return };
    let me = exchange.me;
    if !exchange.flush_asked && (!exchange.dirty.is_empty() || exchange.remote_dirty) {
        exchange.flush_asked = true;
        ctx.defer(Phase::Send, me, &LPC_RPC_FLUSH, RpcLoop::flush);
    }
    let Some(exchange) = Exchange::of(ctx) else { return };
    if !exchange.resume_asked && !exchange.ready.is_empty() {
        exchange.resume_asked = true;
        ctx.post(me, &LPC_RPC_RESUME, RpcLoop::resume);
    }
}
