//! What faults do to connections: cut, clogged and slow links, resets, connections that go silent, hosts that die.
//!
//! Faults are held as a list, so that several on one link work together and each ends when it should.

use super::{EndId, Phase};
use crate::rng::Rng;
use crate::sim::queue::Event;
use crate::sim::world::World;
use crate::time::nanos_of;
use std::io::ErrorKind;
use std::time::Duration;

/// Names one network fault that lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutId(u32);

/// A lasting fault on some links.
#[derive(Clone, Debug)]
pub(super) struct Cut {
    id: CutId,
    since: u64,
    /// Pairs of (from, to).
    links: Vec<(u16, u16)>,
    effect: Effect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// Nothing passes.
    Closed { lossy: bool },
    /// Everything takes longer: extra ns, and times the transmission time.
    Slow { extra: u64, factor: u64 },
}

impl World {
    /// Since when nothing passes from one node to another; `None` when it does.
    pub(super) fn closed_since(&self, from: u16, to: u16) -> Option<u64> {
        self.net
            .cuts
            .iter()
            .filter(|cut| matches!(cut.effect, Effect::Closed { .. }))
            .filter(|cut| cut.links.contains(&(from, to)))
            .map(|cut| cut.since)
            .min()
    }

    /// Whether packets pass.
    pub(super) fn open(&self, from: u16, to: u16) -> bool {
        self.net.cuts.is_empty() || self.closed_since(from, to).is_none()
    }

    /// Extra delay in ns, and how many times longer transmission takes.
    pub(super) fn link_quality(&self, from: u16, to: u16) -> (u64, u64) {
        let mut quality = (0, 1);
        for cut in &self.net.cuts {
            if let Effect::Slow { extra, factor } = cut.effect
                && cut.links.contains(&(from, to))
            {
                quality = (quality.0 + extra, quality.1 * factor);
            }
        }
        quality
    }

    /// Cuts links (packets are lost and sent again after healing).
    pub(in crate::sim) fn cut(&mut self, links: Vec<(u16, u16)>) -> CutId {
        self.add_cut(links, Effect::Closed { lossy: true })
    }

    /// Clogs links: packets wait and pass as soon as the clog ends.
    pub(in crate::sim) fn clog(&mut self, links: Vec<(u16, u16)>) -> CutId {
        self.add_cut(links, Effect::Closed { lossy: false })
    }

    /// Slows links down.
    pub(in crate::sim) fn slow(
        &mut self,
        links: Vec<(u16, u16)>,
        extra: Duration,
        factor: u64,
    ) -> CutId {
        self.add_cut(links, Effect::Slow { extra: nanos_of(extra), factor: factor.max(1) })
    }

    fn add_cut(&mut self, links: Vec<(u16, u16)>, effect: Effect) -> CutId {
        self.net.next_cut += 1;
        let id = CutId(self.net.next_cut);
        let since = self.now;
        if matches!(effect, Effect::Closed { .. }) {
            let touched = self.net.select(|end| {
                links.contains(&(end.node, end.peer_node))
                    || links.contains(&(end.peer_node, end.node))
            });
            self.probe_later(&touched);
        }
        self.net.cuts.push(Cut { id, since, links, effect });
        id
    }

    fn probe_later(&mut self, ends: &[EndId]) {
        let at = self.now + nanos_of(self.options.net.keepalive);
        for &end in ends {
            self.schedule_end(end, at, Event::Probe { end });
        }
    }

    /// Ends one lasting fault; nothing when it has ended before.
    pub(in crate::sim) fn mend(&mut self, id: CutId) {
        let Some(index) = self.net.cuts.iter().position(|cut| cut.id == id) else { return };
        let cut = self.net.cuts.swap_remove(index);
        if let Effect::Closed { lossy } = cut.effect {
            self.resume(lossy);
        }
    }

    /// Ends every lasting fault.
    pub(in crate::sim) fn mend_all(&mut self) {
        self.net.cuts.clear();
        self.resume(true);
    }

    /// Sets everything moving that no longer has a reason to wait.
    pub(in crate::sim) fn resume(&mut self, lossy: bool) {
        let now = self.now;
        let spread = if lossy { nanos_of(self.options.net.retransmit).max(1) } else { 1 };
        for id in self.net.select(|end| end.held || end.ack_held > 0) {
            let Some(end) = self.net.get(id) else { continue };
            let (node, peer_node) = (end.node, end.peer_node);
            if end.blackhole_since.is_some() {
                continue;
            }
            if end.held && self.open(peer_node, node) {
                self.release(id, now, spread);
            }
            if self.open(node, peer_node) {
                let held = self.net.get_mut(id).map_or(0, |end| std::mem::take(&mut end.ack_held));
                if held > 0 {
                    self.acknowledge(id, held);
                }
            }
        }
        for id in self.net.select(|end| end.trouble_since.is_some()) {
            let Some(end) = self.net.get_mut(id) else { continue };
            if end.blackhole_since.is_some() {
                continue;
            }
            end.trouble_since = None;
            let peer = end.peer.filter(|peer| self.net.get(*peer).is_some());
            match peer {
                None => self.answer_for_gone(id, now),
                // Still held elsewhere: the worry goes on.
                Some(peer) if self.net.get(peer).is_some_and(|p| p.held || p.ack_held > 0) => {
                    self.trouble(id, now);
                }
                Some(_) => {}
            }
        }
    }

    /// Packets held for `id` go on, in order, some time from now.
    fn release(&mut self, id: EndId, now: u64, spread: u64) {
        let Some(end) = self.net.get_mut(id) else { return };
        end.held = false;
        let delay = end.rng.below(spread);
        for packet in &mut end.inbound {
            packet.arrival = packet.arrival.max(now + delay);
        }
        end.last_arrival = end.last_arrival.max(now + delay);
        if !end.inbound.is_empty() && !end.scheduled {
            end.scheduled = true;
            self.schedule_end(id, now + delay, Event::Packet { end: id });
        }
    }

    /// Connections between two nodes, one end of each.
    fn between(&self, a: u16, b: u16) -> Vec<EndId> {
        self.net.select(|end| {
            end.phase == Phase::Established
                && (end.node, end.peer_node) == (a, b)
                && (a != b || end.owner.is_some())
        })
    }

    /// Resets connections between two nodes, each with the given odds in per cent. Returns how many.
    pub(in crate::sim) fn reset(&mut self, a: u16, b: u16, percent: u64, rng: &mut Rng) -> usize {
        let mut count = 0;
        for id in self.between(a, b) {
            if rng.ratio(percent, 100) {
                count += 1;
                let peer = self.net.get(id).and_then(|end| end.peer);
                self.fail(id, ErrorKind::ConnectionReset);
                if let Some(peer) = peer {
                    self.fail(peer, ErrorKind::ConnectionReset);
                }
            }
        }
        count
    }

    /// Makes connections between two nodes silent for ever: both ends stay open, nothing passes.
    pub(in crate::sim) fn silence(&mut self, a: u16, b: u16, percent: u64, rng: &mut Rng) -> usize {
        let now = self.now;
        let mut count = 0;
        for id in self.between(a, b) {
            if !rng.ratio(percent, 100) {
                continue;
            }
            count += 1;
            let peer = self.net.get(id).and_then(|end| end.peer);
            for end in [Some(id), peer].into_iter().flatten() {
                if let Some(found) = self.net.get_mut(end) {
                    found.blackhole_since = Some(now);
                }
                self.probe_later(&[end]);
            }
        }
        count
    }

    /// A turn of a process may send at times that it did not live to see: links are not taken by that.
    fn free_links(&mut self, node: u16) {
        let now = self.now;
        let own = self.net.links.iter_mut().filter(|((from, _), _)| *from == node);
        own.for_each(|(_, link)| link.free_at = link.free_at.min(now));
    }

    /// A process has ended: its kernel closes what it had open.
    pub(in crate::sim) fn close_process(&mut self, node: u16) {
        self.free_links(node);
        let now = self.now;
        self.net.listeners.retain(|key, _| key.0 != node);
        for id in self.net.select(|end| end.node == node) {
            self.close_end(id, now);
        }
    }

    /// A host has lost power: its ends vanish without a word.
    pub(in crate::sim) fn vanish_host(&mut self, node: u16) {
        self.free_links(node);
        self.net.listeners.retain(|key, _| key.0 != node);
        for id in self.net.select(|end| end.node == node) {
            self.net.remove(id);
        }
        let now = self.now;
        let peers = self.net.select(|end| end.peer_node == node);
        self.probe_later(&peers);
        for id in peers {
            let Some(end) = self.net.get(id) else { continue };
            // A connect under way whose answer will not come is tried again until it times out.
            if end.phase == Phase::Connecting && end.inbound.is_empty() && end.peer.is_some() {
                if let Some(end) = self.net.get_mut(id) {
                    end.peer = None;
                }
                self.schedule_end(id, now, Event::Syn { end: id });
            }
            if self.net.get(id).is_some_and(|end| end.unacked > 0) {
                self.trouble(id, now);
            }
        }
    }

    /// A host has power again: whoever still talks to its former self is reset.
    pub(in crate::sim) fn host_returned(&mut self) {
        self.resume(true);
    }
}
