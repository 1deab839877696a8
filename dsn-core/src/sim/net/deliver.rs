//! What happens when packets arrive, connects are answered and senders get room.

use super::socket::new_end;
use super::{EndId, Kind, Phase};
use crate::rng::Rng;
use crate::sim::queue::Event;
use crate::sim::world::World;
use crate::time::nanos_of;
use std::io::ErrorKind;

/// First retransmission of a connect that got no answer.
const SYN_RETRY_NS: u64 = 1_000_000_000;

impl World {
    /// Schedules an event of an end with a tie from its stream.
    pub(super) fn schedule_end(&mut self, id: EndId, at: u64, event: Event) {
        if let Some(end) = self.net.get_mut(id) {
            let tie = end.rng.next_u64();
            self.queue.push(at, tie, event);
        }
    }

    /// A one-way delay between an end and its peer's node.
    pub(super) fn draw_latency(&mut self, id: EndId) -> u64 {
        let Some(end) = self.net.get_mut(id) else { return 0 };
        let options = &self.options.net;
        let dist =
            if end.node == end.peer_node { &options.local_latency } else { &options.latency };
        dist.draw(&mut end.rng)
    }

    /// A connect reaches the other host, or what should be one.
    pub(in crate::sim) fn on_syn(&mut self, id: EndId) {
        let Some(end) = self.net.get(id) else { return };
        if end.phase != Phase::Connecting {
            return;
        }
        let (from, to, port) = (end.node, end.peer_node, end.remote.port());
        let up = self.nodes.get(usize::from(to)).is_some_and(|host| host.host_up());
        if !up || !self.open(from, to) {
            return self.retry_syn(id);
        }
        let now = self.now;
        let limit = self.options.net.backlog;
        match self.net.listeners.get_mut(&(to, port)) {
            None => {
                let delay = self.draw_latency(id);
                if let Some(end) = self.net.get_mut(id) {
                    end.last_arrival = now + delay;
                }
                self.send(id, now, Kind::Rst);
            }
            Some(listener) if listener.backlog.len() + listener.pending >= limit => {
                self.retry_syn(id);
            }
            Some(listener) => {
                listener.pending += 1;
                self.make_server_end(id, to, port);
            }
        }
    }

    fn retry_syn(&mut self, id: EndId) {
        let give_up = nanos_of(self.options.net.connect_timeout);
        let now = self.now;
        let Some(end) = self.net.get_mut(id) else { return };
        let delay = SYN_RETRY_NS << end.connect_tries.min(6);
        end.connect_tries += 1;
        if now + delay > end.connect_since + give_up {
            let at = end.connect_since + give_up;
            self.schedule_end(id, at.max(now), Event::Probe { end: id });
        } else {
            self.schedule_end(id, now + delay, Event::Syn { end: id });
        }
    }

    fn make_server_end(&mut self, client: EndId, node: u16, port: u16) {
        let now = self.now;
        let Some(end) = self.net.get_mut(client) else { return };
        if end.peer.is_some() {
            return;
        }
        let rng = Rng::new(end.rng.next_u64());
        let (local, remote, peer_node) = (end.remote, end.local, end.node);
        let server = self.net.insert(|generation| {
            let mut server = new_end(generation, node, local, remote, peer_node, rng);
            server.peer = Some(client);
            server.phase = Phase::Pending(port);
            server
        });
        if let Some(end) = self.net.get_mut(client) {
            end.peer = Some(server);
        }
        self.send(client, now, Kind::SynAck);
        let check = now + nanos_of(self.options.net.keepalive);
        self.schedule_end(server, check, Event::Probe { end: server });
    }

    /// The time of the first packet on its way to `id` has come.
    pub(in crate::sim) fn on_packet(&mut self, id: EndId) {
        let Some(end) = self.net.get_mut(id) else { return };
        end.scheduled = false;
        let (from, to, hole) = (end.peer_node, end.node, end.blackhole_since.is_some());
        if hole || !self.open(from, to) {
            return self.hold(id);
        }
        let now = self.now;
        while let Some(end) = self.net.get_mut(id) {
            match end.inbound.front() {
                Some(packet) if packet.arrival <= now => {}
                Some(packet) => {
                    let at = packet.arrival;
                    end.scheduled = true;
                    let tie = end.rng.next_u64();
                    self.queue.push(at, tie, Event::Packet { end: id });
                    return;
                }
                None => return,
            }
            if let Some(packet) = end.inbound.pop_front() {
                self.arrive(id, packet.kind);
            }
        }
    }

    /// Nothing gets through to `id`: its packets wait, and their sender begins to worry.
    fn hold(&mut self, id: EndId) {
        let now = self.now;
        let Some(end) = self.net.get_mut(id) else { return };
        end.held = true;
        if let Some(sender) = end.peer {
            self.trouble(sender, now);
        }
    }

    /// From now on nothing that `id` sends is acknowledged.
    pub(super) fn trouble(&mut self, id: EndId, now: u64) {
        let timeout = nanos_of(self.options.net.send_timeout);
        if let Some(end) = self.net.get_mut(id)
            && end.trouble_since.is_none()
        {
            end.trouble_since = Some(now);
            self.schedule_end(id, now + timeout, Event::Probe { end: id });
        }
    }

    fn arrive(&mut self, id: EndId, kind: Kind) {
        let now = self.now;
        let Some(end) = self.net.get_mut(id) else { return };
        if end.phase == Phase::Dead {
            if !matches!(kind, Kind::Rst)
                && let Some(peer) = end.peer
            {
                self.send(peer, now, Kind::Rst);
            }
            return;
        }
        match kind {
            Kind::SynAck => {
                end.phase = Phase::Established;
                if let Some(peer) = end.peer {
                    self.send(peer, now, Kind::Established);
                }
                self.edge(id);
            }
            Kind::Established => self.offer_to_listener(id),
            Kind::Data(data) => {
                end.received_len += data.len();
                end.received.push_back(data);
                self.edge(id);
            }
            Kind::Fin => {
                end.fin = true;
                self.edge(id);
            }
            Kind::Rst => {
                let error = match end.phase {
                    Phase::Connecting => ErrorKind::ConnectionRefused,
                    _ => ErrorKind::ConnectionReset,
                };
                self.fail(id, error);
            }
        }
    }

    fn offer_to_listener(&mut self, id: EndId) {
        let now = self.now;
        let Some(end) = self.net.get_mut(id) else { return };
        let Phase::Pending(port) = end.phase else { return };
        let node = end.node;
        end.phase = Phase::Established;
        end.kept = true;
        match self.net.listeners.get_mut(&(node, port)) {
            Some(listener) => {
                listener.pending -= 1;
                listener.backlog.push_back(id);
                let (worker, sock) = (listener.worker, listener.sock);
                self.mark_edge(node, worker, sock);
            }
            None => {
                // The listener has gone meanwhile.
                if let Some(end) = self.net.remove(id)
                    && let Some(peer) = end.peer
                {
                    self.send(peer, now, Kind::Rst);
                }
            }
        }
    }

    /// `count` bytes were read at `id`; its peer learns of it when the way back is open.
    pub(super) fn acknowledge(&mut self, id: EndId, count: usize) {
        let Some(end) = self.net.get(id) else { return };
        let (node, peer_node, hole) = (end.node, end.peer_node, end.blackhole_since.is_some());
        let Some(peer) = end.peer.filter(|peer| self.net.get(*peer).is_some()) else { return };
        let now = self.local();
        if hole || !self.open(node, peer_node) {
            if let Some(end) = self.net.get_mut(id) {
                end.ack_held += count;
            }
            return self.trouble(peer, now);
        }
        let window = self.options.net.window;
        let Some(sender) = self.net.get_mut(peer) else { return };
        sender.unacked = sender.unacked.saturating_sub(count);
        // As a kernel does: not for every byte, but when a third is free.
        if sender.blocked && (window - sender.unacked.min(window)) >= window / 3 {
            sender.blocked = false;
            let delay = self.draw_latency(peer);
            self.schedule_end(peer, now + delay, Event::Room { end: peer });
        }
    }

    /// A sender that was full has room.
    pub(in crate::sim) fn on_room(&mut self, id: EndId) {
        self.edge(id);
    }

    /// What a sender learns whose peer is gone for good.
    pub(super) fn answer_for_gone(&mut self, id: EndId, now: u64) {
        let Some(end) = self.net.get(id) else { return };
        let (node, peer_node) = (end.node, end.peer_node);
        let up = self.nodes.get(usize::from(peer_node)).is_some_and(|host| host.host_up());
        if up && self.open(node, peer_node) && self.open(peer_node, node) {
            // There and back.
            let delay = self.draw_latency(id);
            self.send(id, now + delay, Kind::Rst);
        } else {
            self.trouble(id, now);
        }
    }

    /// Looks whether a connection has been without a peer or a way to it for too long.
    pub(in crate::sim) fn on_probe(&mut self, id: EndId) {
        let now = self.now;
        let (send_timeout, keepalive) =
            (nanos_of(self.options.net.send_timeout), nanos_of(self.options.net.keepalive));
        let Some(end) = self.net.get(id) else { return };
        if end.phase == Phase::Connecting {
            let give_up = nanos_of(self.options.net.connect_timeout);
            if end.peer.is_none() && now >= end.connect_since + give_up {
                self.fail(id, ErrorKind::TimedOut);
            }
            return;
        }
        let (node, peer_node) = (end.node, end.peer_node);
        if end.trouble_since.is_some_and(|since| now >= since + send_timeout) {
            return self.fail(id, ErrorKind::TimedOut);
        }
        let closed_since = self
            .closed_since(node, peer_node)
            .into_iter()
            .chain(self.closed_since(peer_node, node))
            .chain(end.blackhole_since)
            .chain(
                self.nodes
                    .get(usize::from(peer_node))
                    .and_then(|host| (!host.host_up()).then_some(host.down_since)),
            )
            .min();
        let idle = end.unacked == 0 || end.trouble_since.is_none();
        let gone = end.peer.is_none_or(|peer| self.net.get(peer).is_none());
        match closed_since {
            Some(since) if idle && now >= since + keepalive => self.fail(id, ErrorKind::TimedOut),
            Some(since) if idle => {
                self.schedule_end(id, since + keepalive, Event::Probe { end: id });
            }
            None if gone && !end.fin && end.inbound.is_empty() => {
                self.fail(id, ErrorKind::ConnectionReset);
            }
            _ => {}
        }
    }
}
