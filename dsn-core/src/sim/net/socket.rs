//! What a driver may do with sockets, with the results that the system would give.

use super::{End, EndId, Kind, Listener, Phase};
use crate::driver::{Accepted, IoEvent, Sock};
use crate::rng::Rng;
use crate::sim::queue::Event;
use crate::sim::world::{SockEntry, SockKind, World};
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// First port handed out for port 0 and for connecting ends.
const EPHEMERAL: u16 = 32_768;
/// "Too many open files".
const EMFILE: i32 = 24;

/// An accepted connection before it has an owner. Dropping it closes the connection.
struct SimAccepted {
    end: EndId,
    node: u16,
    life: u32,
    dropped: Option<Arc<Mutex<Vec<EndId>>>>,
}

impl Drop for SimAccepted {
    fn drop(&mut self) {
        if let Some(dropped) = &self.dropped {
            dropped.lock().push(self.end);
        }
    }
}

impl World {
    fn take_fd(&mut self, node: u16) -> io::Result<()> {
        let host = &mut self.nodes[usize::from(node)];
        if host.fds >= host.fd_limit {
            return Err(io::Error::from_raw_os_error(EMFILE));
        }
        host.fds += 1;
        Ok(())
    }

    fn give_fd(&mut self, node: u16) {
        let host = &mut self.nodes[usize::from(node)];
        host.fds = host.fds.saturating_sub(1);
    }

    fn free_port(&mut self, node: u16) -> u16 {
        let host = &mut self.nodes[usize::from(node)];
        loop {
            let port = host.next_port.max(EPHEMERAL);
            host.next_port = port.checked_add(1).unwrap_or(EPHEMERAL);
            if !self.net.listeners.contains_key(&(node, port)) {
                return port;
            }
        }
    }

    fn insert_sock(&mut self, node: u16, worker: u16, kind: SockKind) -> u32 {
        let socks = &mut self.nodes[usize::from(node)].workers[usize::from(worker)].socks;
        socks.insert(SockEntry { kind, edge: false }) as u32
    }

    fn stream(&self, node: u16, worker: u16, sock: Sock) -> io::Result<EndId> {
        let socks = &self.nodes[usize::from(node)].workers[usize::from(worker)].socks;
        match socks.get(sock.0 as usize) {
            Some(SockEntry { kind: SockKind::Stream(end), .. }) => Ok(*end),
            _ => Err(ErrorKind::NotConnected.into()),
        }
    }

    pub(in crate::sim) fn listen(
        &mut self,
        node: u16,
        worker: u16,
        mut addr: SocketAddr,
    ) -> io::Result<Sock> {
        let ip = addr.ip();
        let own = self.nodes[usize::from(node)].ip;
        if !(ip.is_unspecified() || ip.is_loopback() || ip == own) {
            return Err(ErrorKind::AddrNotAvailable.into());
        }
        if addr.port() == 0 {
            addr.set_port(self.free_port(node));
        }
        let port = addr.port();
        if self.net.listeners.contains_key(&(node, port)) {
            return Err(ErrorKind::AddrInUse.into());
        }
        self.take_fd(node)?;
        let sock = self.insert_sock(node, worker, SockKind::Listener(port));
        let listener = Listener { worker, sock, addr, backlog: VecDeque::new(), pending: 0 };
        self.net.listeners.insert((node, port), listener);
        Ok(Sock(sock))
    }

    pub(in crate::sim) fn local_addr(
        &self,
        node: u16,
        worker: u16,
        sock: Sock,
    ) -> io::Result<SocketAddr> {
        let socks = &self.nodes[usize::from(node)].workers[usize::from(worker)].socks;
        let addr = match socks.get(sock.0 as usize).map(|entry| &entry.kind) {
            Some(SockKind::Listener(port)) => {
                self.net.listeners.get(&(node, *port)).map(|listener| listener.addr)
            }
            Some(SockKind::Stream(end)) => self.net.get(*end).map(|end| end.local),
            None => None,
        };
        addr.ok_or_else(|| ErrorKind::NotConnected.into())
    }

    pub(in crate::sim) fn accept(
        &mut self,
        node: u16,
        worker: u16,
        sock: Sock,
    ) -> io::Result<Accepted> {
        let socks = &self.nodes[usize::from(node)].workers[usize::from(worker)].socks;
        let port = match socks.get(sock.0 as usize).map(|entry| &entry.kind) {
            Some(SockKind::Listener(port)) => *port,
            _ => return Err(ErrorKind::NotConnected.into()),
        };
        let key = (node, port);
        if self.net.listeners.get(&key).is_none_or(|listener| listener.backlog.is_empty()) {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.take_fd(node)?;
        let next = self.net.listeners.get_mut(&key).and_then(|l| l.backlog.pop_front());
        let Some(end) = next else { return Err(ErrorKind::WouldBlock.into()) };
        let peer = match self.net.get_mut(end) {
            Some(found) => {
                found.accepted = true;
                found.remote
            }
            None => return Err(ErrorKind::ConnectionAborted.into()),
        };
        let life = self.nodes[usize::from(node)].life;
        let dropped = Some(self.dropped.clone());
        Ok(Accepted { raw: Box::new(SimAccepted { end, node, life, dropped }), peer })
    }

    pub(in crate::sim) fn adopt(
        &mut self,
        node: u16,
        worker: u16,
        accepted: Accepted,
    ) -> io::Result<Sock> {
        let Ok(mut raw) = accepted.raw.downcast::<SimAccepted>() else {
            return Err(ErrorKind::InvalidInput.into());
        };
        if raw.node != node || raw.life != self.nodes[usize::from(node)].life {
            return Err(ErrorKind::InvalidInput.into());
        }
        raw.dropped = None;
        let sock = self.insert_sock(node, worker, SockKind::Stream(raw.end));
        if let Some(end) = self.net.get_mut(raw.end) {
            end.owner = Some((worker, sock));
            end.kept = false;
        }
        // Registering with a poll reports what is ready already.
        self.mark_edge(node, worker, sock);
        Ok(Sock(sock))
    }

    pub(in crate::sim) fn connect(
        &mut self,
        node: u16,
        worker: u16,
        addr: SocketAddr,
    ) -> io::Result<Sock> {
        self.take_fd(node)?;
        let port = self.free_port(node);
        let host = &mut self.nodes[usize::from(node)];
        host.connects += 1;
        let ordinal = host.connects;
        let name = host.name.clone();
        let ip = if addr.ip().is_loopback() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { host.ip };
        let target = self.host_of(node, addr.ip());
        let rng = Rng::stream(self.seed, &name, "connect", ordinal);
        let local = SocketAddr::new(ip, port);
        // An address that no node has is a host that never answers.
        let peer_node = target.unwrap_or(u16::MAX);
        let now = self.local();
        let id = self.net.insert(|generation| {
            let mut end = new_end(generation, node, local, addr, peer_node, rng);
            end.connect_since = now;
            end
        });
        let sock = self.insert_sock(node, worker, SockKind::Stream(id));
        if let Some(end) = self.net.get_mut(id) {
            end.owner = Some((worker, sock));
        }
        let delay = self.draw_latency(id);
        self.schedule_end(id, now + delay, Event::Syn { end: id });
        Ok(Sock(sock))
    }

    pub(in crate::sim) fn connect_result(
        &mut self,
        node: u16,
        worker: u16,
        sock: Sock,
    ) -> io::Result<()> {
        let id = self.stream(node, worker, sock)?;
        let Some(end) = self.net.get_mut(id) else { return Err(ErrorKind::NotConnected.into()) };
        match end.phase {
            Phase::Connecting | Phase::Pending(_) => Err(ErrorKind::WouldBlock.into()),
            Phase::Established => Ok(()),
            Phase::Dead => Err(end.error.take().unwrap_or(ErrorKind::NotConnected).into()),
        }
    }

    pub(in crate::sim) fn read(
        &mut self,
        node: u16,
        worker: u16,
        sock: Sock,
        buf: &mut [u8],
    ) -> io::Result<usize> {
        let id = self.stream(node, worker, sock)?;
        let Some(end) = self.net.get_mut(id) else { return Err(ErrorKind::NotConnected.into()) };
        let mut filled = 0;
        while filled < buf.len() {
            let Some(front) = end.received.front_mut() else { break };
            let take = front.len().min(buf.len() - filled);
            buf[filled..filled + take].copy_from_slice(&front.split_to(take));
            filled += take;
            if front.is_empty() {
                end.received.pop_front();
            }
        }
        end.received_len -= filled;
        let drained = filled < buf.len();
        let ended = end.fin || end.over();
        if filled == 0 && !buf.is_empty() {
            return match (end.error.take(), ended) {
                (Some(error), _) => Err(error.into()),
                (None, true) => Ok(0),
                (None, false) => Err(ErrorKind::WouldBlock.into()),
            };
        }
        if filled > 0 {
            self.acknowledge(id, filled);
        }
        if drained && ended {
            // The caller takes a short read for "drained" and waits; the end is still to be read.
            self.edge(id);
        }
        Ok(filled)
    }

    pub(in crate::sim) fn writev(
        &mut self,
        node: u16,
        worker: u16,
        sock: Sock,
        bufs: &[IoSlice<'_>],
    ) -> io::Result<usize> {
        let id = self.stream(node, worker, sock)?;
        let window = self.options.net.window;
        let now = self.local();
        let short = self.options.net.short_write_one_in;
        let Some(end) = self.net.get_mut(id) else { return Err(ErrorKind::NotConnected.into()) };
        match end.phase {
            Phase::Connecting | Phase::Pending(_) => {
                end.blocked = true;
                return Err(ErrorKind::WouldBlock.into());
            }
            Phase::Dead => return Err(end.error.take().unwrap_or(ErrorKind::BrokenPipe).into()),
            Phase::Established if end.finished => return Err(ErrorKind::BrokenPipe.into()),
            Phase::Established => {}
        }
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        if total == 0 {
            return Ok(0);
        }
        let mut room = window.saturating_sub(end.unacked).min(total);
        if room > 1 && short > 0 && end.rng.ratio(1, short) {
            room = end.rng.range(1, room as u64 - 1) as usize;
        }
        if room < total {
            end.blocked = true;
        }
        if room == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        end.unacked += room;
        let peer = end.peer;
        let data = gather(bufs, room);
        match peer.filter(|peer| self.net.get(*peer).is_some()) {
            Some(peer) => self.send_data(peer, now, data),
            None => self.answer_for_gone(id, now),
        }
        Ok(room)
    }

    /// Sends data in one piece or, now and then, in several.
    fn send_data(&mut self, peer: EndId, now: u64, mut data: Bytes) {
        let one_in = self.options.net.split_one_in;
        if let Some(end) = self.net.get_mut(peer)
            && one_in > 0
            && end.rng.ratio(1, one_in)
        {
            let mut pieces = Vec::new();
            for _ in 0..end.rng.range(1, 3) {
                if data.len() > 1 {
                    let cut = end.rng.range(1, data.len() as u64 - 1) as usize;
                    pieces.push(data.split_to(cut));
                }
            }
            for piece in pieces {
                self.send(peer, now, Kind::Data(piece));
            }
        }
        self.send(peer, now, Kind::Data(data));
    }

    pub(in crate::sim) fn finish_writing(
        &mut self,
        node: u16,
        worker: u16,
        sock: Sock,
    ) -> io::Result<()> {
        let id = self.stream(node, worker, sock)?;
        let now = self.local();
        let Some(end) = self.net.get_mut(id) else { return Err(ErrorKind::NotConnected.into()) };
        if end.phase != Phase::Established {
            return Err(ErrorKind::NotConnected.into());
        }
        let first = !std::mem::replace(&mut end.finished, true);
        if let Some(peer) = end.peer.filter(|_| first) {
            self.send(peer, now, Kind::Fin);
        }
        Ok(())
    }

    pub(in crate::sim) fn close(&mut self, node: u16, worker: u16, sock: Sock) {
        let socks = &mut self.nodes[usize::from(node)].workers[usize::from(worker)].socks;
        let Some(entry) = socks.try_remove(sock.0 as usize) else { return };
        self.give_fd(node);
        let now = self.local();
        match entry.kind {
            SockKind::Stream(end) => self.close_end(end, now),
            SockKind::Listener(port) => {
                let Some(listener) = self.net.listeners.remove(&(node, port)) else { return };
                for end in listener.backlog {
                    self.close_end(end, now);
                }
            }
        }
    }

    /// Closes what was accepted and then dropped without an owner.
    pub(in crate::sim) fn close_dropped(&mut self) {
        let dropped = std::mem::take(&mut *self.dropped.lock());
        for end in dropped {
            if let Some(found) = self.net.get(end) {
                let node = found.node;
                self.give_fd(node);
                let now = self.local();
                self.close_end(end, now);
            }
        }
    }

    /// The kernel's part of closing: the peer gets the end of the stream, or a reset when something was not read or
    /// the connection was never accepted.
    pub(super) fn close_end(&mut self, id: EndId, now: u64) {
        let Some(end) = self.net.remove(id) else { return };
        if let Phase::Pending(port) = end.phase
            && let Some(listener) = self.net.listeners.get_mut(&(end.node, port))
        {
            listener.pending -= 1;
        }
        let Some(peer) = end.peer.filter(|_| end.phase != Phase::Dead) else { return };
        let waiting = end.kept && !end.accepted;
        let unread = end.received_len > 0 || end.phase != Phase::Established || waiting;
        if !unread && !end.finished {
            self.send(peer, now, Kind::Fin);
        }
        // Data that is still on its way here will find nobody.
        let coming = end.inbound.iter().any(|packet| matches!(packet.kind, Kind::Data(_)));
        if unread || coming {
            let depart = if coming { end.last_arrival.max(now) } else { now };
            self.send(peer, depart, Kind::Rst);
        }
    }

    /// Readiness since the last poll, sockets in order of their change.
    pub(in crate::sim) fn poll(&mut self, node: u16, worker: u16, events: &mut Vec<IoEvent>) {
        let spurious = self.options.net.spurious_one_in;
        let state = &mut self.nodes[usize::from(node)].workers[usize::from(worker)];
        if !state.ready.is_empty()
            && spurious > 0
            && state.rng.ratio(1, spurious)
            && let Some((sock, _)) = state.socks.iter().next()
        {
            events.push(IoEvent { sock: Sock(sock as u32), readable: true, writable: true });
        }
        let mut ready = std::mem::take(&mut state.ready);
        for sock in ready.drain(..) {
            let socks = &mut self.nodes[usize::from(node)].workers[usize::from(worker)].socks;
            let Some(entry) = socks.get_mut(sock as usize).filter(|entry| entry.edge) else {
                continue;
            };
            entry.edge = false;
            let (readable, writable) = match entry.kind {
                SockKind::Listener(_) => (true, false),
                SockKind::Stream(id) => self.net.get(id).map_or((true, true), |end| {
                    (end.readable(), end.writable(self.options.net.window))
                }),
            };
            events.push(IoEvent { sock: Sock(sock), readable, writable });
        }
        self.nodes[usize::from(node)].workers[usize::from(worker)].ready = ready;
    }
}

pub(super) fn new_end(
    generation: u32,
    node: u16,
    local: SocketAddr,
    remote: SocketAddr,
    peer_node: u16,
    rng: Rng,
) -> End {
    End {
        generation,
        node,
        owner: None,
        kept: false,
        accepted: false,
        local,
        remote,
        peer: None,
        peer_node,
        phase: Phase::Connecting,
        received: VecDeque::new(),
        received_len: 0,
        fin: false,
        finished: false,
        error: None,
        unacked: 0,
        blocked: false,
        ack_held: 0,
        inbound: VecDeque::new(),
        scheduled: false,
        held: false,
        last_arrival: 0,
        trouble_since: None,
        blackhole_since: None,
        connect_tries: 0,
        connect_since: 0,
        rng,
    }
}

fn gather(bufs: &[IoSlice<'_>], len: usize) -> Bytes {
    let mut data = BytesMut::with_capacity(len);
    for buf in bufs {
        let take = buf.len().min(len - data.len());
        data.extend_from_slice(&buf[..take]);
    }
    data.freeze()
}
