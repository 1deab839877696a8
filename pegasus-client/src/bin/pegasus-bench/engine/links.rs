//! Connections: opening, losing, spreading them over the servers that hold the table.

use super::{Engine, LPC_BENCH_LOCATE, Phase, RunError};
use crate::args::Target;
use crate::conn::{Conn, State};
use crate::locate::{LocateError, Locator};
use crate::routes::{Routes, spread};
use crate::wire::Wire;
use dsn_core::exec::Ctx;
use dsn_core::time::Mono;
use std::time::Duration;

/// Shortest time between two questions about placement.
const ROUTES_GAP: Duration = Duration::from_millis(500);

impl Engine {
    /// Opens what is closed, asks for the placement when it is wanted.
    pub(super) fn look_after_links(&mut self, ctx: &mut Ctx<'_>, now: Mono) {
        if self.phase == Phase::Done {
            return;
        }
        for index in 0..self.conns.len() {
            if let State::Closed(until) = self.conns[index].state
                && until <= now
            {
                self.connect(ctx, index);
            }
        }
        let Some(locator) = self.locator else { return };
        if self.routes_wanted && self.routes_next <= now {
            self.routes_wanted = false;
            self.routes_next = now + ROUTES_GAP;
            ctx.post(locator, &LPC_BENCH_LOCATE, Locator::ask);
        }
    }

    fn connect(&mut self, ctx: &mut Ctx<'_>, index: usize) {
        match ctx.connect(self.conns[index].addr) {
            Ok(sock) => {
                ctx.attach(sock, self.me, index as u64);
                self.conns[index].state = State::Connecting(sock);
            }
            Err(error) => self.lose(ctx, index, &error.to_string()),
        }
    }

    /// A connecting socket reports.
    pub(super) fn connected(&mut self, ctx: &mut Ctx<'_>, index: usize) {
        let State::Connecting(sock) = self.conns[index].state else { return };
        match ctx.connect_result(sock) {
            Ok(()) => self.conns[index].opened(sock),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => self.lose(ctx, index, &error.to_string()),
        }
    }

    /// A connection is lost; everything in flight on it has failed.
    pub(super) fn lose(&mut self, ctx: &mut Ctx<'_>, index: usize, why: &str) {
        let now = ctx.clock();
        let conn = &mut self.conns[index];
        self.last_link_error = Some((conn.addr.to_string(), why.to_owned()));
        conn.closed(ctx);
        self.routes_wanted = true;
        for flight in self.conns[index].flights.drain() {
            self.in_flight -= 1;
            self.failed(&flight, "connection lost", now);
        }
    }

    /// Whether every connection is open, and there is one.
    pub(super) fn all_open(&self) -> bool {
        !self.conns.is_empty() && self.conns.iter().all(|conn| conn.open().is_some())
    }

    pub(super) fn why_no_links(&self) -> RunError {
        let last = self.last_link_error.clone();
        match &self.plan.target {
            Target::Pegasus { table, metas } if self.conns.is_empty() => {
                let why = last.map_or_else(
                    || format!("no answer in time from meta servers {metas:?}"),
                    |(_, why)| why,
                );
                RunError::Table { table: table.clone(), why }
            }
            _ => {
                let (addr, why) = last.unwrap_or_else(|| {
                    let waiting = self.conns.iter().find(|conn| conn.open().is_none());
                    let addr = waiting.map_or(String::new(), |conn| conn.addr.to_string());
                    (addr, "no answer in time".into())
                });
                RunError::Unreachable { addr, why }
            }
        }
    }

    /// The meta servers' answer.
    pub fn located(&mut self, ctx: &mut Ctx<'_>, answer: Result<Routes, LocateError>) {
        match answer {
            Ok(routes) => {
                let complete =
                    routes.serving.iter().all(|&serving| routes.server(serving).is_some());
                self.routes_wanted |= !complete;
                if routes.servers.is_empty() {
                    self.last_link_error =
                        Some(("meta server".into(), "no partition has a primary".into()));
                } else if routes != self.routes {
                    self.follow(ctx, routes);
                }
            }
            Err(error) if error.is_final() && self.phase == Phase::Connecting => {
                let Target::Pegasus { table, .. } = &self.plan.target else { return };
                let error = RunError::Table { table: table.clone(), why: error.to_string() };
                self.end(ctx, Err(error));
            }
            Err(error) => {
                self.routes_wanted = true;
                if self.conns.is_empty() {
                    self.last_link_error = Some((error.from(), error.to_string()));
                }
            }
        }
    }

    /// Takes a new placement: connections whose server is gone, or that are needed elsewhere, go to
    /// other servers.
    pub(super) fn follow(&mut self, ctx: &mut Ctx<'_>, routes: Routes) {
        if self.phase == Phase::Done {
            return;
        }
        let wanted = self.plan.connections.max(routes.servers.len());
        let index_of = |conn: &Conn| routes.servers.iter().position(|addr| *addr == conn.addr);
        let mut held: Vec<Option<usize>> = self.conns.iter().map(index_of).collect();
        held.resize(wanted.max(held.len()), None);
        let placed = spread(&held, routes.servers.len());
        self.by_server = vec![Vec::new(); routes.servers.len()];
        self.cursor = vec![0; routes.servers.len()];
        for (index, &server) in placed.iter().enumerate() {
            self.by_server[server].push(index);
            let addr = routes.servers[server];
            if index == self.conns.len() {
                self.conns.push(Conn::new(addr, self.wire.in_order()));
            } else if self.conns[index].addr != addr {
                self.lose(ctx, index, "moved");
                self.conns[index].addr = addr;
                self.conns[index].state = State::Closed(Mono::ZERO);
            }
        }
        if let Wire::Pegasus(thft) = &mut self.wire {
            thft.follow(&routes);
        }
        self.routes = routes;
        let now = ctx.clock();
        self.look_after_links(ctx, now);
    }
}
