//! A Redis server that stores nothing.
//!
//! It answers SET and MSET with `OK`, GET and MGET with a value of a fixed size. What a run against
//! it costs is the share of the client, the system's sockets and the reading of requests in every
//! other figure: the control of a comparison. The tests use it as a server whose stalls are known.

use crate::engine::LPC_BENCH_TICK;
use crate::resp::{self, Item, bulk, head};
use crate::wire::BadReply;
use bytes::{Buf, BytesMut};
use crossbeam::channel::Sender;
use dsn_core::app::{AppError, AppHost, ServiceApp};
use dsn_core::driver::{IoEvent, Sock};
use dsn_core::exec::{Addr, Ctx, Resident};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::time::Duration;

/// Most unanswered bytes of one client.
const MAX_INPUT: usize = 64 << 20;
/// Bytes read at a time.
const READ_BYTES: usize = 64 * 1024;
/// Longest command, in words.
const MAX_WORDS: usize = 1 << 20;

/// What the null server does.
#[derive(Debug, Clone)]
pub struct Behaviour {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Bytes of each value.
    pub value_size: usize,
    /// After this many requests it does nothing for this long, once.
    pub stall: Option<(u64, Duration)>,
    /// After this many requests it closes the connection that brought the last one, once.
    pub hang_up: Option<u64>,
}

/// The null server as a service. Tells its address when it listens.
pub struct NullApp {
    behaviour: Behaviour,
    tell: Sender<SocketAddr>,
}

impl NullApp {
    /// A server that is about to listen.
    pub fn new(behaviour: Behaviour, tell: Sender<SocketAddr>) -> Self {
        Self { behaviour, tell }
    }
}

impl ServiceApp for NullApp {
    fn start(&mut self, ctx: &mut Ctx<'_>, _: Addr<AppHost>) -> Result<(), AppError> {
        let listener = ctx.listen(self.behaviour.listen)?;
        let addr = ctx.local_addr(listener)?;
        let behaviour = self.behaviour.clone();
        let server = ctx.spawn_here(|_, me| NullServer {
            me,
            listener,
            value: vec![b'x'; behaviour.value_size],
            stall: behaviour.stall,
            hang_up: behaviour.hang_up,
            stalled: false,
            served: 0,
            clients: Vec::new(),
            piece: vec![0; READ_BYTES],
        });
        ctx.attach(listener, server, LISTENER);
        let _ = self.tell.send(addr);
        Ok(())
    }
}

const LISTENER: u64 = u64::MAX;

struct Client {
    sock: Sock,
    input: BytesMut,
    out: BytesMut,
}

struct NullServer {
    me: Addr<Self>,
    listener: Sock,
    value: Vec<u8>,
    stall: Option<(u64, Duration)>,
    hang_up: Option<u64>,
    stalled: bool,
    served: u64,
    clients: Vec<Option<Client>>,
    piece: Vec<u8>,
}

impl Resident for NullServer {
    fn on_io(&mut self, ctx: &mut Ctx<'_>, event: IoEvent, token: u64) {
        if token == LISTENER {
            self.accept(ctx);
            return;
        }
        let index = token as usize;
        let client = self.clients.get(index).and_then(Option::as_ref);
        if client.is_some_and(|client| client.sock == event.sock) {
            self.serve(ctx, index);
        }
    }
}

impl NullServer {
    fn accept(&mut self, ctx: &mut Ctx<'_>) {
        while let Ok(accepted) = ctx.accept(self.listener) {
            let Ok(sock) = ctx.adopt(accepted) else { continue };
            let free = self.clients.iter().position(Option::is_none);
            let index = free.unwrap_or_else(|| {
                self.clients.push(None);
                self.clients.len() - 1
            });
            ctx.attach(sock, self.me, index as u64);
            self.clients[index] =
                Some(Client { sock, input: BytesMut::new(), out: BytesMut::new() });
        }
    }

    fn serve(&mut self, ctx: &mut Ctx<'_>, index: usize) {
        let Some(mut client) = self.clients.get_mut(index).and_then(Option::take) else { return };
        let sock = client.sock;
        match self.exchange(ctx, &mut client) {
            Ok(()) => self.clients[index] = Some(client),
            Err(_) => ctx.close_socket(sock),
        }
    }

    fn exchange(&mut self, ctx: &mut Ctx<'_>, client: &mut Client) -> io::Result<()> {
        loop {
            match ctx.read(client.sock, &mut self.piece) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    client.input.extend_from_slice(&self.piece[..read]);
                    if client.input.len() > MAX_INPUT {
                        return Err(io::ErrorKind::InvalidData.into());
                    }
                    if read < self.piece.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let bad = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        while !self.stalled {
            match self.answer(&client.input, &mut client.out).map_err(bad)? {
                Some(used) => client.input.advance(used),
                None => break,
            }
            self.served += 1;
            if self.hang_up == Some(self.served) {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            if let Some((after, time)) = self.stall
                && self.served == after
            {
                self.stalled = true;
                let me = self.me;
                ctx.after(me, &LPC_BENCH_TICK, time, |server, ctx| {
                    server.stalled = false;
                    (0..server.clients.len()).for_each(|index| server.serve(ctx, index));
                });
            }
        }
        while !client.out.is_empty() {
            match ctx.writev(client.sock, &[IoSlice::new(&client.out)]) {
                Ok(sent) if sent == client.out.len() => client.out.clear(),
                Ok(sent) => client.out.advance(sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Answers the first command of `input` if it is complete; returns the bytes it takes.
    fn answer(&self, input: &[u8], out: &mut BytesMut) -> Result<Option<usize>, BadReply> {
        let (words, mut used) = match resp::item(input)? {
            None => return Ok(None),
            Some((Item::Array(Some(words)), used)) if (1..=MAX_WORDS).contains(&words) => {
                (words, used)
            }
            Some(_) => return Err(BadReply("not a command")),
        };
        let mut name: &[u8] = &[];
        for word in 0..words {
            match resp::item(&input[used..])? {
                None => return Ok(None),
                Some((Item::Bulk(Some(text)), length)) => {
                    used += length;
                    if word == 0 {
                        name = text;
                    }
                }
                Some(_) => return Err(BadReply("not a command")),
            }
        }
        match name {
            b"GET" => bulk(&self.value, out),
            b"MGET" => {
                head(b'*', words - 1, out);
                (1..words).for_each(|_| bulk(&self.value, out));
            }
            b"SET" | b"MSET" => out.extend_from_slice(b"+OK\r\n"),
            _ => out.extend_from_slice(b"-ERR unknown command\r\n"),
        }
        Ok(Some(used))
    }
}
