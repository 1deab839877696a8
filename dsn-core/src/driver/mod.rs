//! The seam between a worker and the outside world.
//!
//! Required items, all used by [`Worker`](crate::exec::Worker) and by nobody else:
//! two clocks; `poll`, which parks the worker and collects socket readiness; non-blocking sockets with
//! edge-triggered readiness; hand-over of a blocking job to a pool, where host names are looked up too. Files
//! are reached through [`Disk`](crate::disk::Disk), which a node carries. [`native`] implements the seam over the
//! operating system, [`crate::sim`] over a seeded model of one; `tests/driver_conformance/` holds both to the
//! same cases.
//!
//! What users get wrong with readiness: an event is reported once per change (edge). Read until `WouldBlock`,
//! or until a read returned fewer bytes than there was room for; stopping early loses the edge and the
//! connection hangs, unless the rest is remembered and read in a later turn. Spurious events happen.

pub mod native;

use crate::exec::BlockingJob;
use crate::time::{Mono, Wall};
use std::any::Any;
use std::io::{self, IoSlice};
use std::net::SocketAddr;

/// A socket of one worker's driver. Small dense indices, reused after [`Driver::close`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sock(pub u32);

/// An accepted connection on its way to the worker that will own it.
pub struct Accepted {
    /// The driver's own handle.
    pub raw: Box<dyn Any + Send>,
    /// Remote address.
    pub peer: SocketAddr,
}

impl std::fmt::Debug for Accepted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Accepted").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// Readiness of one socket. Edge-triggered; may be spurious.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoEvent {
    /// Which socket.
    pub sock: Sock,
    /// Data, end of stream, an error or a new connection can be read.
    pub readable: bool,
    /// There is room to write, or a connect has finished (one way or the other).
    pub writable: bool,
}

/// Where `poll` may stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Park {
    /// Return at once with what is ready.
    No,
    /// Wait for readiness or a wake.
    Forever,
    /// Wait for readiness, a wake, or this time.
    Until(Mono),
}

/// Wakes a parked worker; called from any thread.
pub trait Wake: Send + Sync {
    /// Makes the worker's current or next `poll` return.
    fn wake(&self);
}

/// Everything one worker may ask of the outside world.
pub trait Driver {
    /// The node's monotonic clock.
    fn now(&self) -> Mono;
    /// The node's wall clock.
    fn wall(&self) -> Wall;
    /// Collects readiness into `events`, waiting as `park` allows.
    fn poll(&mut self, park: Park, events: &mut Vec<IoEvent>) -> io::Result<()>;
    /// Starts listening. Port 0 asks for a free one.
    fn listen(&mut self, addr: SocketAddr) -> io::Result<Sock>;
    /// The address a socket is bound to.
    fn local_addr(&self, sock: Sock) -> io::Result<SocketAddr>;
    /// Takes one waiting connection, or `WouldBlock`.
    fn accept(&mut self, listener: Sock) -> io::Result<Accepted>;
    /// Makes an accepted connection this worker's.
    fn adopt(&mut self, accepted: Accepted) -> io::Result<Sock>;
    /// Starts connecting; writable readiness tells the end, [`Driver::connect_result`] the outcome.
    fn connect(&mut self, addr: SocketAddr) -> io::Result<Sock>;
    /// Outcome of a connect after writable readiness: `Ok`, or the error; `WouldBlock` when still under way.
    fn connect_result(&mut self, sock: Sock) -> io::Result<()>;
    /// Reads into `buf`; 0 is the end of the stream.
    fn read(&mut self, sock: Sock, buf: &mut [u8]) -> io::Result<usize>;
    /// Writes a prefix of the buffers.
    fn writev(&mut self, sock: Sock, bufs: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Says that no more will be written: the peer reads the end of the stream after what is on its way. Reading goes
    /// on.
    fn finish_writing(&mut self, sock: Sock) -> io::Result<()>;
    /// Closes and forgets a socket.
    fn close(&mut self, sock: Sock);
    /// Runs `job` on the named blocking pool; its completion arrives in the worker's mailbox.
    fn offload(&mut self, job: BlockingJob);
}
