//! One connection: who is at the other end, what has arrived and is not answered, what waits to leave.
//!
//! Sessions live in the [`Exchange`](crate::exchange::Exchange) of the worker that owns their socket. The states:
//!
//! ```text
//! accepted ──────────────────────────► Open ──► (gone)
//! called: Waiting ──► Connecting ────► Open ──► (gone)
//!            ▲ a failure before it: wait for the pause to end
//! ```
//!
//! Push back is by not reading: a session whose peer has too much unanswered, or does not take its answers, leaves
//! its input in the socket until that is better ([`Session::may_read`]).

mod calls;
mod read;
mod unsent;
mod write;

use std::fmt;
use std::net::SocketAddr;

use bytes::BytesMut;
use dsn_core::driver::Sock;
use dsn_core::exec::{Ctx, WorkerId};
use dsn_core::time::Mono;

use crate::connector::PeerKey;
use crate::frame::{Parser, Protocol};
use crate::options::Limits;

use calls::OpenCalls;
pub use read::detach;
pub(crate) use read::{BLOCK, ReadBlock, keep};
pub(crate) use unsent::{Unsent, UnsentQueue};
pub(crate) use write::{IOV_MAX, SHARE_MIN, WriteQueue};

/// Names a session of a node; never names another one later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId {
    /// The worker that owns its socket.
    pub worker: WorkerId,
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl SessionId {
    /// The number given to the driver with the socket.
    pub(crate) fn token(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(crate) fn from_token(worker: WorkerId, token: u64) -> Self {
        Self { worker, index: token as u32, generation: (token >> 32) as u32 }
    }
}

/// What a session is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Calls wait for the pause after a failure to end.
    Waiting,
    /// The connection is being established.
    Connecting,
    /// Frames go to and fro.
    Open,
}

/// Who opened the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// They did.
    Accepted,
    /// We did, to call.
    Called(PeerKey),
}

/// Told once, when a session has ended.
pub(crate) type Watcher = Box<dyn FnOnce(&mut Ctx<'_>) + Send>;

/// One connection.
pub(crate) struct Session {
    pub(crate) state: State,
    pub(crate) side: Side,
    pub(crate) peer: SocketAddr,
    pub(crate) sock: Option<Sock>,

    pub(crate) parser: Parser,
    /// What has arrived of the next frames.
    pub(crate) input: BytesMut,
    /// Bytes that `input` must hold before it is worth parsing.
    pub(crate) need: usize,
    /// When the last bytes arrived.
    pub(crate) read_at: Mono,
    /// When the first byte of an unfinished frame arrived.
    pub(crate) partial_since: Option<Mono>,
    /// The socket may hold more than was read.
    pub(crate) readable: bool,
    /// The peer will send nothing more.
    pub(crate) ended: bool,
    /// On the list of sessions to go on with.
    pub(crate) listed: bool,
    /// Not read on because of a limit; whatever relieves the limit lists it.
    pub(crate) paused: bool,

    /// Calls that wait for the connection to stand.
    pub(crate) unsent: UnsentQueue,
    pub(crate) queue: WriteQueue,
    /// On the list of sessions to be flushed.
    pub(crate) dirty: bool,
    /// The socket takes nothing at the moment.
    pub(crate) blocked: bool,
    /// Since when it has taken nothing.
    pub(crate) blocked_since: Mono,
    /// To be closed when everything has left.
    pub(crate) closing: bool,

    /// Requests that are not answered yet.
    pub(crate) in_flight: u32,
    /// Their bytes.
    pub(crate) in_flight_bytes: usize,

    /// Calls that wait for their answers.
    pub(crate) calls: OpenCalls,
    /// A whole frame has arrived: the peer is what we think it is.
    pub(crate) proven: bool,
    /// Calls that timed out since anything arrived.
    pub(crate) silent_timeouts: u32,
    /// Who wants to know when it has ended.
    pub(crate) watcher: Option<Watcher>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { state, side, peer, .. } = self;
        write!(f, "Session({state:?}, {side:?}, {peer})")
    }
}

impl Session {
    pub(crate) fn new(
        side: Side,
        state: State,
        peer: SocketAddr,
        max_frame: usize,
        now: Mono,
    ) -> Self {
        let parser = match &side {
            Side::Accepted => Parser::server(max_frame),
            Side::Called(key) => Parser::client(key.protocol, max_frame),
        };
        Self {
            state,
            side,
            peer,
            sock: None,
            parser,
            input: BytesMut::new(),
            need: 1,
            read_at: now,
            partial_since: None,
            readable: false,
            ended: false,
            listed: false,
            paused: false,
            unsent: UnsentQueue::default(),
            queue: WriteQueue::default(),
            dirty: false,
            blocked: false,
            blocked_since: now,
            closing: false,
            in_flight: 0,
            in_flight_bytes: 0,
            calls: OpenCalls::new(),
            proven: false,
            silent_timeouts: 0,
            watcher: None,
        }
    }

    /// Whether its limits allow to take another frame. Answers are always taken: not to read them because the peer
    /// does not take our calls would leave both sides waiting for each other. An HTTP connection has one request at
    /// a time, for answers must keep the order of the requests.
    #[inline]
    pub(crate) fn may_read(&self, limits: &Limits) -> bool {
        if self.side != Side::Accepted {
            return !self.closing;
        }
        let requests = match self.parser.protocol() {
            Some(Protocol::Http) => 1,
            _ => limits.in_flight,
        };
        self.in_flight < requests
            && self.in_flight_bytes < limits.in_flight_bytes
            && self.queue.len() < limits.unsent
            && !self.closing
    }

    /// Whether a flush would do anything.
    #[inline]
    pub(crate) fn sendable(&self) -> bool {
        self.state == State::Open && !self.blocked
    }

    /// A request has been answered, or never will be.
    #[inline]
    pub(crate) fn release(&mut self, bytes: usize) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.in_flight_bytes = self.in_flight_bytes.saturating_sub(bytes);
    }

    /// Takes the slot of a call out; `None` when it has ended already or never was. In `THFT` only the low 32 bits
    /// of the number travel.
    #[inline]
    pub(crate) fn end_call(&mut self, number: u64) -> Option<u32> {
        match &self.side {
            Side::Called(key) if key.protocol == Protocol::Thft => {
                self.calls.end_short(number as u32)
            }
            _ => self.calls.end(number),
        }
    }

    /// Whether the peer owes us nothing and we owe it nothing.
    pub(crate) fn is_quiet(&self) -> bool {
        self.in_flight == 0 && self.calls.open() == 0 && self.queue.is_empty()
    }

    /// Bytes that wait to leave.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.unsent.bytes() + self.queue.len()
    }

    /// Memory held for this connection beyond the structure itself, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.input.capacity() + self.unsent.bytes() + self.queue.memory() + self.calls.memory()
    }
}
