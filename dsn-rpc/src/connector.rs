//! Connections to those we call: made when first needed, made again with growing pauses after failures.
//!
//! A worker has its own connection to each peer (per protocol and lane), so that a call needs no other worker.
//! Calls made before the connection stands wait for it, a bounded number of them, until their own time is over; when
//! it fails, all of them fail with it. After a failure the next attempt waits for a pause that doubles up to a limit,
//! with jitter; calls made meanwhile wait for that attempt.

use std::io;
use std::net::SocketAddr;

use dsn_core::exec::Ctx;
use dsn_core::time::Mono;

use crate::call::NetworkError;
use crate::exchange::{self, Exchange};
use crate::frame::Protocol;
use crate::rpc_loop::{LPC_RPC_CONNECT, LPC_RPC_CONNECT_TIMEOUT, RpcLoop};
use crate::session::{Session, SessionId, Side, State};

/// Most bytes that wait for a connection to be established.
const CONNECTING_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most bytes that wait to be sent on an established connection.
const OPEN_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Jitter of pauses, in percent.
const JITTER: u32 = 30;

/// Which of several connections to one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Everyday calls.
    #[default]
    Main,
    /// Small calls that must not wait behind anything: failure detection.
    Control,
    /// File copy and other bulk.
    Bulk,
}

/// What distinguishes connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PeerKey {
    pub(crate) addr: SocketAddr,
    pub(crate) protocol: Protocol,
    pub(crate) lane: Lane,
}

/// What is remembered of a peer.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    session: Option<SessionId>,
    /// Failures in a row.
    failures: u32,
    /// No attempt before this time.
    not_before: Mono,
}

impl Peer {
    /// Whether there is nothing worth remembering.
    pub(crate) fn is_forgettable(&self, now: Mono) -> bool {
        self.session.is_none() && self.not_before <= now
    }
}

/// Most bytes that may wait in a session's queue before calls are refused.
pub(crate) fn unsent_max(open: bool) -> usize {
    if open { OPEN_BYTES_MAX } else { CONNECTING_BYTES_MAX }
}

/// The session to a peer, made now if there is none.
pub(crate) fn session_to(ctx: &mut Ctx<'_>, key: PeerKey) -> Result<SessionId, NetworkError> {
    let now = ctx.now();
    let Some(exchange) = Exchange::of(ctx) else { return Err(NetworkError::NotStarted) };
    let max_frame = exchange.shared.limits.max_frame;
    let peer = exchange.peers.entry(key).or_default();
    if let Some(session) = peer.session {
        return Ok(session);
    }
    let not_before = peer.not_before;
    let id = exchange
        .insert(|| Session::new(Side::Called(key), State::Waiting, key.addr, max_frame, now));
    if let Some(peer) = exchange.peers.get_mut(&key) {
        peer.session = Some(id);
    }
    let me = exchange.me;
    if not_before > now {
        let delay = not_before.saturating_since(now);
        ctx.after(me, &LPC_RPC_CONNECT, delay, move |rpc, ctx| {
            if let Err(error) = connect(ctx, id) {
                rpc.close(ctx, id, &error);
            }
        });
    } else if let Err(error) = connect(ctx, id) {
        // Nobody waits yet. The pause before the next attempt counts all the same.
        if let Some(exchange) = Exchange::of(ctx) {
            exchange.take(id);
        }
        failed(ctx, key, false);
        return Err(error);
    }
    Ok(id)
}

/// Starts connecting a session that waits.
fn connect(ctx: &mut Ctx<'_>, id: SessionId) -> Result<(), NetworkError> {
    let Some(exchange) = Exchange::of(ctx) else { return Ok(()) };
    let (me, timeout) = (exchange.me, exchange.shared.limits.connect);
    let Some(session) = exchange.session(id) else { return Ok(()) };
    if session.state != State::Waiting {
        return Ok(());
    }
    let peer = session.peer;
    let sock = ctx.connect(peer).map_err(|error| NetworkError::Connect(error.kind()))?;
    ctx.attach(sock, me, id.token());
    let Some(exchange) = Exchange::of(ctx) else { return Ok(()) };
    if let Some(session) = exchange.session(id) {
        session.sock = Some(sock);
        session.state = State::Connecting;
    }
    ctx.after(me, &LPC_RPC_CONNECT_TIMEOUT, timeout, move |rpc, ctx| {
        let late = Exchange::of(ctx)
            .and_then(|exchange| exchange.session(id))
            .is_some_and(|session| session.state == State::Connecting);
        if late {
            rpc.close(ctx, id, &NetworkError::ConnectTimeout(timeout));
        }
    });
    Ok(())
}

impl RpcLoop {
    /// A socket that was connecting has something to say.
    pub(crate) fn connecting(&mut self, ctx: &mut Ctx<'_>, id: SessionId) {
        let Some(sock) = Exchange::of(ctx).and_then(|x| x.session(id)).and_then(|s| s.sock) else {
            return;
        };
        let now = ctx.now();
        match ctx.connect_result(sock) {
            Ok(()) => {
                let Some(exchange) = Exchange::of(ctx) else { return };
                exchange.counters().connected.one();
                if let Some(session) = exchange.session(id) {
                    session.state = State::Open;
                    session.readable = true;
                }
                exchange.send_unsent(id, now);
                exchange::ask(ctx);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                self.close(ctx, id, &NetworkError::Connect(error.kind()));
            }
        }
    }
}

/// A peer has answered: failures before it are forgotten.
pub(crate) fn proven(exchange: &mut Exchange, id: SessionId) {
    let Some(session) = exchange.session(id) else { return };
    let Side::Called(key) = session.side else { return };
    if let Some(peer) = exchange.peers.get_mut(&key) {
        peer.failures = 0;
    }
}

/// The session of a peer is gone. After one that had worked the next attempt may come at once.
pub(crate) fn failed(ctx: &mut Ctx<'_>, key: PeerKey, had_worked: bool) {
    let now = ctx.now();
    let Some(exchange) = Exchange::of(ctx) else { return };
    // Whoever has moved is found again by its name.
    exchange.names.doubt(key.addr);
    let (first, longest) = (exchange.shared.limits.pause, exchange.shared.limits.max_pause);
    let Some(peer) = exchange.peers.get_mut(&key) else { return };
    peer.session = None;
    if had_worked {
        peer.failures = 0;
        peer.not_before = now;
        return;
    }
    let doublings = peer.failures.min(16);
    peer.failures += 1;
    let pause = first.saturating_mul(1 << doublings).min(longest);
    let pause = ctx.rng().jitter(pause, JITTER);
    if let Some(peer) = Exchange::of(ctx).and_then(|x| x.peers.get_mut(&key)) {
        peer.not_before = now + pause;
    }
}
