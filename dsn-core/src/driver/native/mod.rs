//! The operating system as a driver: mio for sockets, threads for blocking pools, `std::fs` for files.
//!
//! The only place of the workspace (with log rotation) that may touch clocks, sockets, names, files and threads.

mod clock;
mod disk;
mod names;
mod pool;

pub use clock::NativeClock;
pub use disk::OsDisk;
pub use pool::Pools;

use super::{Accepted, Driver, IoEvent, Park, Sock, Wake};
use crate::exec::BlockingJob;
use crate::time::{Mono, Wall};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Readiness events taken in one poll.
const EVENTS_MAX: usize = 1024;
/// Connections waiting to be accepted.
const BACKLOG: i32 = 4096;
const WAKE_TOKEN: Token = Token(usize::MAX);

/// A peer that vanished without a word is noticed after about two minutes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

enum Socket {
    Listener(TcpListener),
    Stream {
        stream: TcpStream,
        /// The poll has reported the end of what the peer sends; it will not do so again.
        ended: bool,
    },
}

struct MioWake(Waker);

impl Wake for MioWake {
    fn wake(&self) {
        if let Err(error) = self.0.wake() {
            tracing::error!(%error, "waking a worker failed");
        }
    }
}

/// One worker's driver.
pub struct NativeDriver {
    poll: Poll,
    events: Events,
    sockets: slab::Slab<Socket>,
    clock: NativeClock,
    pools: Arc<Pools>,
    /// Sockets whose end of stream is still to be read though their last read was short.
    again: Vec<Sock>,
}

impl std::fmt::Debug for NativeDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NativeDriver").field("sockets", &self.sockets.len()).finish_non_exhaustive()
    }
}

impl NativeDriver {
    /// A driver and what wakes it.
    ///
    /// # Errors
    /// When the system has no descriptors left.
    pub fn new(pools: Arc<Pools>, clock: NativeClock) -> io::Result<(Self, Arc<dyn Wake>)> {
        let poll = Poll::new()?;
        let waker = Arc::new(MioWake(Waker::new(poll.registry(), WAKE_TOKEN)?));
        let driver = Self {
            poll,
            events: Events::with_capacity(EVENTS_MAX),
            sockets: slab::Slab::new(),
            clock,
            pools,
            again: Vec::new(),
        };
        Ok((driver, waker))
    }

    fn insert_stream(&mut self, mut stream: TcpStream) -> io::Result<Sock> {
        let _ = stream.set_nodelay(true);
        let keepalive = socket2::TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL);
        let _ = socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive);
        let entry = self.sockets.vacant_entry();
        let key = entry.key();
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(key), interest)?;
        entry.insert(Socket::Stream { stream, ended: false });
        Ok(Sock(key as u32))
    }

    fn stream(&mut self, sock: Sock) -> io::Result<&mut TcpStream> {
        match self.sockets.get_mut(sock.0 as usize) {
            Some(Socket::Stream { stream, .. }) => Ok(stream),
            _ => Err(io::Error::from(io::ErrorKind::NotConnected)),
        }
    }
}

impl Driver for NativeDriver {
    fn now(&self) -> Mono {
        self.clock.now()
    }

    fn wall(&self) -> Wall {
        self.clock.wall()
    }

    fn poll(&mut self, park: Park, events: &mut Vec<IoEvent>) -> io::Result<()> {
        let timeout = match park {
            _ if !self.again.is_empty() => Some(Duration::ZERO),
            Park::No => Some(Duration::ZERO),
            Park::Forever => None,
            // One tick more, so that the timer that is waited for has really passed.
            Park::Until(at) => {
                Some(at.saturating_since(self.clock.now()) + Duration::from_micros(50))
            }
        };
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        for sock in self.again.drain(..) {
            events.push(IoEvent { sock, readable: true, writable: false });
        }
        for event in self.events.iter() {
            if event.token() == WAKE_TOKEN {
                continue;
            }
            if event.is_read_closed()
                && let Some(Socket::Stream { ended, .. }) = self.sockets.get_mut(event.token().0)
            {
                *ended = true;
            }
            events.push(IoEvent {
                sock: Sock(event.token().0 as u32),
                readable: event.is_readable() || event.is_read_closed() || event.is_error(),
                writable: event.is_writable() || event.is_write_closed() || event.is_error(),
            });
        }
        Ok(())
    }

    fn listen(&mut self, addr: SocketAddr) -> io::Result<Sock> {
        let domain = socket2::Domain::for_address(addr);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        let mut listener = TcpListener::from_std(socket.into());
        let entry = self.sockets.vacant_entry();
        let key = entry.key();
        self.poll.registry().register(&mut listener, Token(key), Interest::READABLE)?;
        entry.insert(Socket::Listener(listener));
        Ok(Sock(key as u32))
    }

    fn local_addr(&self, sock: Sock) -> io::Result<SocketAddr> {
        match self.sockets.get(sock.0 as usize) {
            Some(Socket::Listener(listener)) => listener.local_addr(),
            Some(Socket::Stream { stream, .. }) => stream.local_addr(),
            None => Err(io::Error::from(io::ErrorKind::NotConnected)),
        }
    }

    fn accept(&mut self, listener: Sock) -> io::Result<Accepted> {
        match self.sockets.get(listener.0 as usize) {
            Some(Socket::Listener(listener)) => {
                let (stream, peer) = listener.accept()?;
                Ok(Accepted { raw: Box::new(stream), peer })
            }
            _ => Err(io::Error::from(io::ErrorKind::NotConnected)),
        }
    }

    fn adopt(&mut self, accepted: Accepted) -> io::Result<Sock> {
        match accepted.raw.downcast::<TcpStream>() {
            Ok(stream) => self.insert_stream(*stream),
            Err(_) => Err(io::Error::from(io::ErrorKind::InvalidInput)),
        }
    }

    fn connect(&mut self, addr: SocketAddr) -> io::Result<Sock> {
        self.insert_stream(TcpStream::connect(addr)?)
    }

    fn connect_result(&mut self, sock: Sock) -> io::Result<()> {
        let stream = self.stream(sock)?;
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        match stream.peer_addr() {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                Err(io::Error::from(io::ErrorKind::WouldBlock))
            }
            Err(error) => Err(error),
        }
    }

    fn read(&mut self, sock: Sock, buf: &mut [u8]) -> io::Result<usize> {
        let Some(Socket::Stream { stream, ended }) = self.sockets.get_mut(sock.0 as usize) else {
            return Err(io::Error::from(io::ErrorKind::NotConnected));
        };
        loop {
            match stream.read(buf) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A short read means "drained" to the caller, who will wait for another event. When data and end
                // came in one event there would be none.
                Ok(n) if *ended && n > 0 && n < buf.len() => {
                    self.again.push(sock);
                    return Ok(n);
                }
                other => return other,
            }
        }
    }

    fn writev(&mut self, sock: Sock, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let stream = self.stream(sock)?;
        loop {
            let written = match bufs {
                [one] => stream.write(one),
                many => stream.write_vectored(many),
            };
            match written {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn finish_writing(&mut self, sock: Sock) -> io::Result<()> {
        self.stream(sock)?.shutdown(Shutdown::Write)
    }

    fn close(&mut self, sock: Sock) {
        let Some(socket) = self.sockets.try_remove(sock.0 as usize) else { return };
        let registry = self.poll.registry();
        let outcome = match socket {
            Socket::Listener(mut listener) => registry.deregister(&mut listener),
            Socket::Stream { mut stream, .. } => registry.deregister(&mut stream),
        };
        if let Err(error) = outcome {
            tracing::warn!(%error, "deregistering a socket failed");
        }
    }

    fn offload(&mut self, job: BlockingJob) {
        self.pools.submit(job);
    }
}
