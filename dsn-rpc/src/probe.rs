//! Whether anybody listens at an address, and when the other end of a connection has gone: what can be known of a
//! process without asking it.
//!
//! A probe opens a connection of its own and closes it. Only an explicit refusal by the other host says that nobody
//! listens; silence, and every other failure, says nothing.

use std::fmt;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use dsn_core::driver::{IoEvent, Sock};
use dsn_core::exec::{Addr, Ctx, Resident};

use crate::call::deliver;
use crate::exchange::Exchange;
use crate::rpc_loop::{LPC_RPC_PROBE, LPC_RPC_WATCH};
use crate::session::{SessionId, Watcher};

/// What a probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probed {
    /// The host answered that nobody listens on the port.
    Refused,
    /// Somebody listens.
    Listening,
    /// Nothing can be said: no answer in time, no way to the host, no descriptor left.
    Unknown(ErrorKind),
}

type Done = Box<dyn FnOnce(&mut Ctx<'_>, Probed) + Send>;

/// One probe under way.
struct Probe {
    me: Addr<Self>,
    sock: Option<Sock>,
    done: Option<Done>,
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe").field("sock", &self.sock).finish_non_exhaustive()
    }
}

/// Looks whether anybody listens at `to`; `f` gets the outcome at `back`, after at most `within`.
pub fn probe<T: Resident>(
    ctx: &mut Ctx<'_>,
    to: SocketAddr,
    within: Duration,
    back: Addr<T>,
    f: impl FnOnce(&mut T, &mut Ctx<'_>, Probed) + Send + 'static,
) {
    let done: Done = Box::new(move |ctx, probed| {
        ctx.post(back, &LPC_RPC_PROBE, move |resident, ctx| f(resident, ctx, probed));
    });
    match ctx.connect(to) {
        Err(error) => done(ctx, found(error.kind())),
        Ok(sock) => {
            let probe = ctx.spawn_here(|_, me| Probe { me, sock: Some(sock), done: Some(done) });
            ctx.attach(sock, probe, 0);
            ctx.after(probe, &LPC_RPC_PROBE, within, |probe, ctx| {
                probe.finish(ctx, Probed::Unknown(ErrorKind::TimedOut));
            });
        }
    }
}

fn found(error: ErrorKind) -> Probed {
    match error {
        ErrorKind::ConnectionRefused => Probed::Refused,
        other => Probed::Unknown(other),
    }
}

impl Probe {
    fn finish(&mut self, ctx: &mut Ctx<'_>, probed: Probed) {
        if let Some(done) = self.done.take() {
            done(ctx, probed);
        }
        ctx.close(self.me);
    }
}

impl Resident for Probe {
    fn on_io(&mut self, ctx: &mut Ctx<'_>, event: IoEvent, _: u64) {
        if !event.writable && !event.readable {
            return;
        }
        match ctx.connect_result(event.sock) {
            Ok(()) => self.finish(ctx, Probed::Listening),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => self.finish(ctx, found(error.kind())),
        }
    }

    fn on_close(&mut self, ctx: &mut Ctx<'_>) {
        if let Some(sock) = self.sock.take() {
            ctx.close_socket(sock);
        }
    }
}

/// Calls `f` at `back` when a connection has ended, whoever ended it and why; at once when it has ended already. A
/// connection has one watcher: a later one takes the place of the earlier.
pub fn when_ended<T: Resident>(
    ctx: &mut Ctx<'_>,
    session: SessionId,
    back: Addr<T>,
    f: impl FnOnce(&mut T, &mut Ctx<'_>) + Send + 'static,
) {
    ctx.run_on(session.worker, &LPC_RPC_WATCH, move |ctx| {
        let watcher: Watcher =
            Box::new(move |ctx: &mut Ctx<'_>| deliver(ctx, back, &LPC_RPC_WATCH, f));
        match Exchange::of(ctx).and_then(|exchange| exchange.session(session)) {
            Some(session) => session.watcher = Some(watcher),
            None => watcher(ctx),
        }
    });
}
