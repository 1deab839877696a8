//! One connection: its socket, what waits to be sent, what has arrived and is not complete, what is
//! unanswered.

use crate::flights::Flights;
use crate::wire::MAX_REPLY;
use bytes::{Buf, BytesMut};
use dsn_core::driver::Sock;
use dsn_core::exec::Ctx;
use dsn_core::time::Mono;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::time::Duration;

/// Room for received bytes at first.
pub const INPUT_BYTES: usize = 64 * 1024;
/// Room that is kept after a large reply.
const INPUT_KEPT: usize = 1 << 20;
/// Most room: the longest reply and what was read behind it.
const INPUT_MAX: usize = 2 * MAX_REPLY;
/// Pause before connecting again, at first and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// State of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Closed until this time.
    Closed(Mono),
    /// The system is connecting.
    Connecting(Sock),
    /// Ready.
    Open(Sock),
}

/// A connection to one server.
#[derive(Debug)]
pub struct Conn {
    /// The server.
    pub addr: SocketAddr,
    /// What has become of it.
    pub state: State,
    /// Requests to be sent.
    pub out: BytesMut,
    /// Whether `out` waits for its turn to be flushed.
    pub dirty: bool,
    /// Unanswered requests.
    pub flights: Flights,
    /// Received bytes that are not judged yet are `input[start..end]`.
    pub input: Vec<u8>,
    /// See `input`.
    pub start: usize,
    /// See `input`.
    pub end: usize,
    failures: u32,
}

impl Conn {
    /// A connection that is not open yet.
    pub fn new(addr: SocketAddr, in_order: bool) -> Self {
        Self {
            addr,
            state: State::Closed(Mono::ZERO),
            out: BytesMut::new(),
            dirty: false,
            flights: Flights::new(in_order),
            input: vec![0; INPUT_BYTES],
            start: 0,
            end: 0,
            failures: 0,
        }
    }

    /// The socket, if it is open.
    #[inline]
    pub fn open(&self) -> Option<Sock> {
        match self.state {
            State::Open(sock) => Some(sock),
            _ => None,
        }
    }

    /// Whether the connection has this socket, open or not yet.
    pub fn has(&self, sock: Sock) -> bool {
        self.state == State::Open(sock) || self.state == State::Connecting(sock)
    }

    /// It works.
    pub fn opened(&mut self, sock: Sock) {
        self.state = State::Open(sock);
        self.failures = 0;
    }

    /// Forgets socket and buffers; a later attempt waits longer with every failure.
    pub fn closed(&mut self, ctx: &mut Ctx<'_>) {
        if let State::Connecting(sock) | State::Open(sock) = self.state {
            ctx.close_socket(sock);
        }
        let pause = (BACKOFF.0 * 2u32.saturating_pow(self.failures)).min(BACKOFF.1);
        self.failures = (self.failures + 1).min(16);
        self.state = State::Closed(ctx.now() + pause);
        self.out.clear();
        (self.start, self.end) = (0, 0);
    }

    /// Sends what can be sent.
    ///
    /// # Errors
    /// Those of the socket; the connection is broken.
    pub fn flush(&mut self, ctx: &mut Ctx<'_>) -> io::Result<()> {
        let Some(sock) = self.open() else { return Ok(()) };
        while !self.out.is_empty() {
            match ctx.writev(sock, &[IoSlice::new(&self.out)]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) if sent == self.out.len() => self.out.clear(),
                Ok(sent) => self.out.advance(sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Makes room and reads once. `None`: there is nothing to read. Otherwise whether there may be
    /// more.
    ///
    /// # Errors
    /// Those of the socket, and the end of the stream.
    pub fn fill(&mut self, ctx: &mut Ctx<'_>, sock: Sock) -> io::Result<Option<bool>> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.input.len() > INPUT_KEPT {
                self.input = vec![0; INPUT_BYTES];
            }
        } else if self.end == self.input.len() {
            if self.start > 0 {
                self.input.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            } else if self.input.len() < INPUT_MAX {
                self.input.resize(self.input.len() * 2, 0);
            } else {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a reply without end"));
            }
        }
        let room = self.input.len() - self.end;
        match ctx.read(sock, &mut self.input[self.end..]) {
            Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the server")),
            Ok(read) => {
                self.end += read;
                Ok(Some(read == room))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}
