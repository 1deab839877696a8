//! Simulated connections, at the level of sockets.
//!
//! A connection is two ends. Packets on their way to an end wait in its `inbound` queue with their times of arrival,
//! which never decrease: bytes of one connection stay in order, as TCP keeps them. What TCP does about loss appears
//! as delay: a packet that meets a cut link is held, and goes on some time after the link is healed.
//!
//! [`socket`] is what a driver calls, [`deliver`] what happens at arrival times, [`link`] what faults do.
//! Not simulated: congestion control, urgent data, simultaneous open.

mod deliver;
mod link;
mod socket;

pub use link::CutId;

use super::world::World;
use crate::rng::Rng;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EndId {
    pub(super) index: u32,
    generation: u32,
}

/// What travels to an end.
#[derive(Debug)]
enum Kind {
    /// The other side has a listener with room.
    SynAck,
    /// The client is there: the connection may be accepted.
    Established,
    Data(Bytes),
    Fin,
    Rst,
}

#[derive(Debug)]
struct Packet {
    arrival: u64,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The client waits for the other side.
    Connecting,
    /// The server's side waits for the client's last word; on a listener of this port.
    Pending(u16),
    Established,
    /// The kernel has forgotten the connection; unread data and the error may still be read.
    Dead,
}

/// See the module's header.
#[derive(Debug)]
struct End {
    generation: u32,
    node: u16,
    /// The worker and socket that own it, once somebody does.
    owner: Option<(u16, u32)>,
    /// It waits in its listener's backlog, or in an [`Accepted`](crate::driver::Accepted).
    kept: bool,
    /// It has left its listener's backlog.
    accepted: bool,
    local: SocketAddr,
    remote: SocketAddr,
    peer: Option<EndId>,
    peer_node: u16,
    phase: Phase,
    received: VecDeque<Bytes>,
    received_len: usize,
    fin: bool,
    /// It has said that it will write no more.
    finished: bool,
    error: Option<io::ErrorKind>,
    /// Bytes sent that the peer has not read, or whose acknowledgement has not come.
    unacked: usize,
    /// A write found no room; the next room is an event.
    blocked: bool,
    /// Bytes read here whose acknowledgement cannot travel.
    ack_held: usize,
    inbound: VecDeque<Packet>,
    scheduled: bool,
    held: bool,
    last_arrival: u64,
    /// Since when nothing of what is sent gets through.
    trouble_since: Option<u64>,
    /// Since when a box on the way drops everything silently.
    blackhole_since: Option<u64>,
    connect_tries: u32,
    connect_since: u64,
    /// Draws what concerns packets towards this end.
    rng: Rng,
}

#[derive(Debug)]
struct Listener {
    worker: u16,
    sock: u32,
    addr: SocketAddr,
    backlog: VecDeque<EndId>,
    /// Ends that wait for the client's last word.
    pending: usize,
}

/// One direction between two nodes.
#[derive(Clone, Debug, Default)]
struct Link {
    /// When the bandwidth is free again.
    free_at: u64,
}

/// All connections of a world.
#[derive(Debug, Default)]
pub(super) struct Net {
    ends: Vec<Option<End>>,
    free: Vec<u32>,
    generation: u32,
    listeners: BTreeMap<(u16, u16), Listener>,
    links: BTreeMap<(u16, u16), Link>,
    cuts: Vec<link::Cut>,
    next_cut: u32,
}

impl Net {
    fn insert(&mut self, make: impl FnOnce(u32) -> End) -> EndId {
        self.generation += 1;
        let generation = self.generation;
        let end = make(generation);
        match self.free.pop() {
            Some(index) => {
                self.ends[index as usize] = Some(end);
                EndId { index, generation }
            }
            None => {
                self.ends.push(Some(end));
                EndId { index: (self.ends.len() - 1) as u32, generation }
            }
        }
    }

    fn get(&self, id: EndId) -> Option<&End> {
        let end = self.ends.get(id.index as usize)?.as_ref()?;
        (end.generation == id.generation).then_some(end)
    }

    fn get_mut(&mut self, id: EndId) -> Option<&mut End> {
        let end = self.ends.get_mut(id.index as usize)?.as_mut()?;
        (end.generation == id.generation).then_some(end)
    }

    fn remove(&mut self, id: EndId) -> Option<End> {
        self.get(id)?;
        let end = self.ends[id.index as usize].take();
        self.free.push(id.index);
        end
    }

    /// All ends for which `wanted` holds.
    fn select(&self, wanted: impl Fn(&End) -> bool) -> Vec<EndId> {
        self.ends
            .iter()
            .enumerate()
            .filter_map(|(index, end)| {
                let end = end.as_ref().filter(|end| wanted(end))?;
                Some(EndId { index: index as u32, generation: end.generation })
            })
            .collect()
    }

    /// Ends that exist on a node.
    pub(super) fn count(&self, node: u16) -> usize {
        self.ends.iter().flatten().filter(|end| end.node == node).count()
    }
}

impl End {
    /// Readiness as a poll reports it.
    fn readable(&self) -> bool {
        self.received_len > 0 || self.fin || self.over()
    }

    fn writable(&self, window: usize) -> bool {
        self.over() || (self.phase == Phase::Established && self.unacked < window)
    }

    fn over(&self) -> bool {
        self.phase == Phase::Dead
    }
}

impl World {
    /// Marks the socket of an end as changed.
    fn edge(&mut self, id: EndId) {
        let Some(end) = self.net.get(id) else { return };
        if let Some((worker, sock)) = end.owner {
            let node = end.node;
            self.mark_edge(node, worker, sock);
        }
    }

    /// Ends a connection on one side, as its kernel would after a reset or a timeout.
    fn fail(&mut self, id: EndId, kind: io::ErrorKind) {
        let Some(end) = self.net.get_mut(id) else { return };
        let pending = match end.phase {
            Phase::Dead => return,
            Phase::Pending(port) => Some((end.node, port)),
            _ => None,
        };
        end.phase = Phase::Dead;
        end.error = Some(kind);
        end.unacked = 0;
        end.inbound.clear();
        end.trouble_since = None;
        let orphan = end.owner.is_none() && !end.kept;
        if let Some(key) = pending
            && let Some(listener) = self.net.listeners.get_mut(&key)
        {
            listener.pending -= 1;
        }
        if orphan {
            self.net.remove(id);
        } else {
            self.edge(id);
        }
    }

    /// Puts a packet on its way to `to`, leaving at `depart`.
    fn send(&mut self, to: EndId, depart: u64, kind: Kind) {
        let Some(end) = self.net.get(to) else { return };
        let (from, into) = (end.peer_node, end.node);
        let bytes = match &kind {
            Kind::Data(data) => data.len() as u64,
            _ => 0,
        };
        let (extra, factor) = self.link_quality(from, into);
        let transmit = bytes * self.options.net.ns_per_kib * factor / 1024;
        let mut depart = depart;
        if from != into && transmit > 0 {
            let link = self.net.links.entry((from, into)).or_default();
            depart = depart.max(link.free_at) + transmit;
            link.free_at = depart;
        }
        let latency =
            if from == into { &self.options.net.local_latency } else { &self.options.net.latency };
        let Some(end) = self.net.get_mut(to) else { return };
        let arrival = depart + latency.draw(&mut end.rng) + extra;
        end.last_arrival = end.last_arrival.max(arrival);
        let arrival = end.last_arrival;
        end.inbound.push_back(Packet { arrival, kind });
        if !end.scheduled && !end.held {
            end.scheduled = true;
            let tie = end.rng.next_u64();
            self.queue.push(arrival, tie, super::queue::Event::Packet { end: to });
        }
    }
}
