//! Servers known by name: where they are now.
//!
//! A lookup may block for seconds, so it runs on a blocking stage, at most one at a time for each name of a worker.
//! What it found is kept until a connection to that address fails: then the name is looked up again before the next
//! use, for the server may have moved. When the second lookup fails, or finds nothing else, the old address stands.
//! Addresses in text need no lookup. Only IPv4 addresses are used: the protocol's addresses hold no others.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use dsn_core::exec::{Addr, Ctx, Resident};
use dsn_core::hash::DetHashMap;
use dsn_core::time::Mono;

use crate::call::deliver;
use crate::exchange::Exchange;
use crate::host_port::HostPort;
use crate::rpc_loop::{LPC_RPC_RESOLVE, LPC_RPC_RESOLVE_TIMEOUT, RpcLoop};

/// Names that one worker knows at most; beyond, further ones are refused.
pub const NAMES_MAX: usize = 1024;
/// Who may wait for one name at a time; beyond, further ones are refused.
pub const WAITING_MAX: usize = 4096;
/// Least time between two lookups of a name that was found before.
pub const LOOKUP_PAUSE: Duration = Duration::from_secs(1);

/// Why a server was not found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot find the server {name}: {problem}")]
pub struct NameError {
    /// Its name.
    pub name: HostPort,
    /// What went wrong.
    pub problem: NameProblem,
}

/// What went wrong with a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameProblem {
    /// Whoever is asked for names says so.
    #[error("{0}")]
    Lookup(io::ErrorKind),
    /// It has no address of the kind that is used.
    #[error("it has no IPv4 address")]
    NoAddress,
    /// Not found in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// Too many names, or too many wait for this one.
    #[error("too many lookups")]
    TooMany,
    /// The RPC layer does not run on this worker.
    #[error("the RPC layer is not running")]
    NotStarted,
}

type Found = Box<dyn FnOnce(&mut Ctx<'_>, Result<SocketAddr, NameError>) + Send>;

struct Waiter {
    id: u64,
    found: Found,
}

/// What is known of one name.
#[derive(Default)]
struct Entry {
    ip: Option<Ipv4Addr>,
    /// A connection to that address has failed since it was found.
    doubtful: bool,
    looked_up: Mono,
    looking: bool,
    waiting: Vec<Waiter>,
}

impl Entry {
    fn usable(&self, now: Mono) -> Option<Ipv4Addr> {
        let recent = self.looked_up + LOOKUP_PAUSE > now;
        self.ip.filter(|_| !self.doubtful || (recent && !self.looking))
    }
}

/// The names of one worker.
#[derive(Default)]
pub(crate) struct Names {
    entries: DetHashMap<String, Entry>,
    next_waiter: u64,
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.entries.keys()).finish()
    }
}

impl Names {
    /// A connection to `addr` has failed.
    pub(crate) fn doubt(&mut self, addr: SocketAddr) {
        for entry in self.entries.values_mut() {
            entry.doubtful |= entry.ip.is_some_and(|ip| IpAddr::V4(ip) == addr.ip());
        }
    }

    /// The waiters of a name whose lookup has ended, and what they are to be told.
    fn finish(
        &mut self,
        host: &str,
        now: Mono,
        outcome: Result<Vec<IpAddr>, io::ErrorKind>,
    ) -> (Vec<Waiter>, Result<Ipv4Addr, NameProblem>) {
        let entry = self.entries.entry_ref(host).or_default();
        (entry.looking, entry.looked_up) = (false, now);
        let waiting = std::mem::take(&mut entry.waiting);
        let found = match outcome {
            Ok(found) => choose(&found, entry.ip).ok_or(NameProblem::NoAddress),
            Err(kind) => Err(NameProblem::Lookup(kind)),
        };
        match found {
            Ok(ip) => (entry.ip, entry.doubtful) = (Some(ip), false),
            Err(_) if entry.ip.is_none() => drop(self.entries.remove(host)),
            Err(_) => {}
        }
        let known = self.entries.get(host).and_then(|entry| entry.ip);
        (waiting, found.or_else(|problem| known.ok_or(problem)))
    }
}

/// The first address; after a failure the one behind the address that failed, in turn.
fn choose(found: &[IpAddr], failed: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
    let all: Vec<Ipv4Addr> = found
        .iter()
        .filter_map(|ip| match ip {
            IpAddr::V4(ip) => Some(*ip),
            IpAddr::V6(_) => None,
        })
        .collect();
    let behind = failed.and_then(|failed| all.iter().position(|ip| *ip == failed));
    let at = behind.map_or(0, |at| at + 1);
    all.get(at % all.len().max(1)).copied()
}

/// Where `name` is, if that needs no lookup. Otherwise [`find`] it.
#[must_use]
pub fn known(ctx: &mut Ctx<'_>, name: &HostPort) -> Option<SocketAddr> {
    let ip = match name.host().parse::<Ipv4Addr>() {
        Ok(ip) => ip,
        Err(_) => {
            let now = ctx.now();
            Exchange::of(ctx)?.names.entries.get(name.host())?.usable(now)?
        }
    };
    Some(SocketAddr::from((ip, name.port())))
}

/// Looks `name` up and gives its address to `back`, exactly once and in a later event, within `timeout`.
pub fn find<T: Resident>(
    ctx: &mut Ctx<'_>,
    name: &HostPort,
    timeout: Duration,
    back: Addr<T>,
    f: impl FnOnce(&mut T, &mut Ctx<'_>, Result<SocketAddr, NameError>) + Send + 'static,
) {
    let code = &LPC_RPC_RESOLVE_TIMEOUT;
    let (port, named) = (name.port(), name.clone());
    let found: Found = Box::new(move |ctx, outcome| {
        deliver(ctx, back, code, move |resident, ctx| f(resident, ctx, outcome));
    });
    if let Some(addr) = known(ctx, name) {
        return later(ctx, found, Ok(addr));
    }
    let refuse = move |problem| Err(NameError { name: named, problem });
    let Some(exchange) = Exchange::of(ctx) else {
        return later(ctx, found, refuse(NameProblem::NotStarted));
    };
    let (me, names) = (exchange.me, &mut exchange.names);
    let room = names.entries.len() < NAMES_MAX || names.entries.contains_key(name.host());
    let waiting = names.entries.get(name.host()).map_or(0, |entry| entry.waiting.len());
    if !room || waiting >= WAITING_MAX {
        return later(ctx, found, refuse(NameProblem::TooMany));
    }
    names.next_waiter += 1;
    let id = names.next_waiter;
    let named = name.clone();
    let found: Found = Box::new(move |ctx, outcome| {
        let outcome = outcome.map(|addr| SocketAddr::new(addr.ip(), port));
        found(ctx, outcome.map_err(|error| NameError { name: named, ..error }));
    });
    let entry = names.entries.entry_ref(name.host()).or_default();
    entry.waiting.push(Waiter { id, found });
    let start = !std::mem::replace(&mut entry.looking, true);
    if start {
        look_up(ctx, me, name.host().to_owned());
    }
    let host = name.host().to_owned();
    ctx.after(me, code, timeout, move |_, ctx| give_up(ctx, &host, id, timeout));
}

fn later(ctx: &mut Ctx<'_>, found: Found, outcome: Result<SocketAddr, NameError>) {
    let worker = ctx.worker();
    ctx.run_on(worker, &LPC_RPC_RESOLVE_TIMEOUT, move |ctx| found(ctx, outcome));
}

fn look_up(ctx: &mut Ctx<'_>, me: Addr<RpcLoop>, host: String) {
    let asked = host.clone();
    ctx.offload(
        &LPC_RPC_RESOLVE,
        move |blocking| blocking.resolve(&asked).map_err(|error| error.kind()),
        me,
        move |_, outcome, ctx| looked_up(ctx, host, outcome),
    );
}

fn looked_up(ctx: &mut Ctx<'_>, host: String, outcome: Result<Vec<IpAddr>, io::ErrorKind>) {
    let now = ctx.now();
    let Some(exchange) = Exchange::of(ctx) else { return };
    let (waiting, found) = exchange.names.finish(&host, now, outcome);
    match found {
        Ok(ip) => tracing::debug!(host, %ip, "a server was found by its name"),
        Err(problem) => tracing::warn!(host, %problem, "a server's name was not found"),
    }
    let outcome = found.map(|ip| SocketAddr::from((ip, 0)));
    let outcome = outcome.map_err(|problem| NameError { name: HostPort::new(host, 0), problem });
    for waiter in waiting {
        (waiter.found)(ctx, outcome.clone());
    }
}

fn give_up(ctx: &mut Ctx<'_>, host: &str, id: u64, timeout: Duration) {
    let Some(exchange) = Exchange::of(ctx) else { return };
    let Some(entry) = exchange.names.entries.get_mut(host) else { return };
    let Some(at) = entry.waiting.iter().position(|waiter| waiter.id == id) else { return };
    let waiter = entry.waiting.remove(at);
    // Where it was before is better than nothing.
    let outcome = match entry.ip {
        Some(ip) => Ok(SocketAddr::from((ip, 0))),
        None => {
            Err(NameError { name: HostPort::new(host, 0), problem: NameProblem::Timeout(timeout) })
        }
    };
    (waiter.found)(ctx, outcome);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn addresses_are_tried_in_turn() {
        let v6: IpAddr = "::1".parse().unwrap();
        let found = [v6, ip(1), ip(2)];
        let v4 = |last| Ipv4Addr::new(10, 0, 0, last);
        assert_eq!(choose(&found, None), Some(v4(1)));
        assert_eq!(choose(&found, Some(v4(1))), Some(v4(2)));
        assert_eq!(choose(&found, Some(v4(2))), Some(v4(1)));
        assert_eq!(choose(&found, Some(v4(9))), Some(v4(1)));
        assert_eq!(choose(&[v6], None), None);
        assert_eq!(choose(&[], Some(v4(1))), None);
    }

    #[test]
    fn a_name_is_doubted_after_a_failure_and_looked_up_no_more_than_once_a_pause() {
        let mut names = Names::default();
        let at = |seconds: u64| Mono::from_nanos(seconds * 1_000_000_000);
        let (_, found) = names.finish("a", at(10), Ok(vec![ip(1)]));
        assert_eq!(found, Ok(Ipv4Addr::new(10, 0, 0, 1)));
        let usable = |names: &Names, seconds| names.entries["a"].usable(at(seconds)).is_some();
        assert!(usable(&names, 100));
        names.doubt(SocketAddr::new(ip(2), 1));
        assert!(usable(&names, 100), "somebody else failed");
        names.doubt(SocketAddr::new(ip(1), 1));
        assert!(!usable(&names, 100));
        let (_, found) = names.finish("a", at(100), Err(io::ErrorKind::NotFound));
        assert_eq!(found, Ok(Ipv4Addr::new(10, 0, 0, 1)), "the old address stands");
        let recent = at(100) + LOOKUP_PAUSE / 2;
        assert!(names.entries["a"].usable(recent).is_some());
        assert!(!usable(&names, 102));
        let (_, found) = names.finish("a", at(102), Ok(vec![ip(3)]));
        assert_eq!(found, Ok(Ipv4Addr::new(10, 0, 0, 3)));
        assert!(usable(&names, 200));
        let (_, found) = names.finish("b", at(1), Err(io::ErrorKind::NotFound));
        assert_eq!(found, Err(NameProblem::Lookup(io::ErrorKind::NotFound)));
        assert!(!names.entries.contains_key("b"), "a name that never was is not kept");
    }
}
