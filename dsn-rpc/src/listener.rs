//! Accepting connections and handing them to the network workers.
//!
//! The loop that listens accepts; each connection goes to the worker that has the fewest. When descriptors or kernel
//! memory have run out, accepting pauses and tries again with growing pauses: the readiness event will not come a
//! second time for connections that wait already.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use dsn_core::driver::{Accepted, Sock};
use dsn_core::exec::Ctx;

use crate::exchange::Exchange;
use crate::rpc_loop::{LPC_RPC_ACCEPT, LPC_RPC_ADOPT, RpcLoop};
use crate::session::{Session, Side, State};

/// Connections accepted in one go.
const ACCEPT_BATCH: usize = 64;
/// First pause when the system has run out of something.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// Longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A listening socket.
#[derive(Debug)]
pub(crate) struct Listener {
    sock: Sock,
    pause: Duration,
    /// An event that goes on accepting is on its way.
    pending: bool,
}

impl RpcLoop {
    /// Starts listening on this worker.
    pub(crate) fn listen(
        &mut self,
        ctx: &mut Ctx<'_>,
        addr: SocketAddr,
        token: u64,
    ) -> io::Result<SocketAddr> {
        let sock = ctx.listen(addr)?;
        let bound = ctx.local_addr(sock)?;
        ctx.attach(sock, self.me(), token);
        self.listeners.push(Listener { sock, pause: FIRST_PAUSE, pending: false });
        Ok(bound)
    }

    /// Closes the listening sockets of this worker; connections stay.
    pub(crate) fn stop_listening(&mut self, ctx: &mut Ctx<'_>) {
        for listener in self.listeners.drain(..) {
            ctx.close_socket(listener.sock);
        }
    }

    /// Takes waiting connections of the listening socket `sock`.
    pub(crate) fn accept(&mut self, ctx: &mut Ctx<'_>, sock: Sock) {
        let Some(at) = self.listeners.iter().position(|listener| listener.sock == sock) else {
            return;
        };
        self.listeners[at].pending = false;
        for _ in 0..ACCEPT_BATCH {
            match ctx.accept(sock) {
                Ok(accepted) => {
                    self.listeners[at].pause = FIRST_PAUSE;
                    self.place(ctx, accepted);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    let pause = self.listeners[at].pause;
                    tracing::warn!(%error, ?pause, "cannot accept connections, pausing");
                    self.counters().accept_pauses.one();
                    self.listeners[at].pause = (pause * 2).min(LONGEST_PAUSE);
                    self.accept_later(ctx, at, pause);
                    return;
                }
            }
        }
        self.accept_later(ctx, at, Duration::ZERO);
    }

    fn accept_later(&mut self, ctx: &mut Ctx<'_>, at: usize, pause: Duration) {
        let me = self.me();
        let listener = &mut self.listeners[at];
        if std::mem::replace(&mut listener.pending, true) {
            return;
        }
        let sock = listener.sock;
        let go_on = move |rpc: &mut Self, ctx: &mut Ctx<'_>| rpc.accept(ctx, sock);
        if pause.is_zero() {
            ctx.post(me, &LPC_RPC_ACCEPT, go_on);
        } else {
            ctx.after(me, &LPC_RPC_ACCEPT, pause, go_on);
        }
    }

    /// Gives a connection to a worker, or closes it.
    fn place(&mut self, ctx: &mut Ctx<'_>, accepted: Accepted) {
        let shared = self.shared().clone();
        let Some(worker) = shared.admit(accepted.peer.ip()) else {
            self.counters().turned_away.one();
            return;
        };
        self.counters().accepted.one();
        if worker == ctx.worker() {
            self.adopt(ctx, accepted);
        } else if let Some(rpc) = shared.loops.get().map(|loops| loops[worker.index()]) {
            ctx.post(rpc, &LPC_RPC_ADOPT, move |rpc, ctx| rpc.adopt(ctx, accepted));
        }
    }

    /// Makes an accepted connection a session of this worker.
    fn adopt(&mut self, ctx: &mut Ctx<'_>, accepted: Accepted) {
        let (peer, now, worker) = (accepted.peer, ctx.now(), ctx.worker());
        let sock = match ctx.adopt(accepted) {
            Ok(sock) => sock,
            Err(error) => {
                tracing::warn!(%error, %peer, "cannot take over a connection");
                self.shared().leave(peer.ip(), worker);
                return;
            }
        };
        let max_frame = self.shared().limits.max_frame;
        let Some(exchange) = Exchange::of(ctx) else { return };
        let id = exchange.insert(|| {
            let mut session = Session::new(Side::Accepted, State::Open, peer, max_frame, now);
            session.sock = Some(sock);
            session
        });
        let me = exchange.me;
        ctx.attach(sock, me, id.token());
    }
}

/// Whether an error of `accept` concerns the connection that was waiting, not the system.
fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::TimedOut
    )
}
