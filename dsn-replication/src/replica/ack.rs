//! The primary's side of the group: what it sends, what comes back, who is late.
//!
//! What is sent to whom follows from two numbers of each peer, the last decree acknowledged and the next to send; so a
//! message that was lost, a member that restarted and a learner that catches up are the same case.

use super::group::{Kind, Peer, Progress};
use super::message::{Ack, Effect, Effects, Prepare, Verdict};
use super::state::Role;
use super::{Node, Replica};
use crate::ids::{Ballot, Decree};
use crate::log::LogBatch;
use crate::mutation::encode_body;
use bytes::{Bytes, BytesMut};
use dsn_core::planted;
use dsn_core::time::Mono;
use dsn_rpc::gpid::Gpid;

impl Replica {
    /// A peer has answered.
    pub fn on_ack(&mut self, from: Node, ack: &Ack, now: Mono, out: &mut Effects) {
        let (ballot, gpid, prepared) = (self.ballot, self.gpid, self.prepared);
        let Role::Primary(lead) = &mut self.role else { return };
        let Some(peer) = lead.peers.get_mut(&from) else { return };
        if ack.verdict == Verdict::Outdated {
            if ack.ballot > ballot {
                out.push(Effect::Sync);
            }
            return;
        }
        // Nobody speaks for a ballot or an attempt but the one it was asked under. A server that has no such replica
        // knows no ballot.
        let fits = ack.ballot == ballot
            || matches!(ack.verdict, Verdict::Absent | Verdict::Refused | Verdict::Ahead);
        if ack.attempt != peer.attempt() || !fits || ack.seq > peer.seq {
            return;
        }
        if peer.kind == Kind::Member && ack.verdict == Verdict::Ahead {
            return out.push(Effect::Behind(ack.logged));
        }
        peer.seq_acked = peer.seq_acked.max(ack.seq);
        peer.patience.answered(ack.seq, now);
        peer.disk_is_full = ack.disk_is_full;
        peer.probing = false;
        // What a learner has is what it answers with, not what it, or who it was before a restart, said before.
        let confirms = peer.claimed_at.is_some_and(|claimed_at| ack.seq > claimed_at);
        if confirms && matches!(ack.verdict, Verdict::Taken | Verdict::Gap) {
            peer.acked = peer.acked.min(ack.logged);
        }
        match ack.verdict {
            Verdict::Taken => {
                if confirms {
                    peer.claimed_at = None;
                }
                // Who has everything is not late, though there may be a newer question on its way.
                if ack.logged > peer.acked || ack.logged >= prepared || !peer.owes() {
                    peer.progress_at = now;
                }
                peer.acked = peer.acked.max(ack.logged);
                peer.next = peer.next.max(peer.acked.next());
            }
            Verdict::Gap if ack.seq >= peer.rewound => {
                // What is decided is not in the window any more. A member that lacks it has lost something.
                let lost = peer.kind == Kind::Member && ack.logged < self.committed;
                if lost {
                    tracing::error!(%gpid, peer = %from, has = %ack.logged, committed = %self.committed,
                        "a member lacks what it acknowledged");
                    peer.failed = true;
                } else {
                    // It says what it has taken, of which some may not be in its log yet: no acknowledgement.
                    peer.next = ack.logged.next();
                    peer.rewound = peer.seq + 1;
                }
            }
            Verdict::Gap | Verdict::Outdated | Verdict::Ahead => {}
            Verdict::Refused | Verdict::Absent if ack.seq >= peer.rewound => peer.failed = true,
            Verdict::Refused | Verdict::Absent => {}
        }
        self.decide_leading();
        self.next_change(now, out);
    }

    /// Commits what every member has.
    pub(super) fn decide_leading(&mut self) {
        let Role::Primary(lead) = &self.role else { return };
        let gating = lead.peers.values().filter(|peer| peer.gates()).map(|peer| peer.acked);
        let one_less = usize::from(planted::has("commit_without_a_member"));
        let gating = gating.skip(one_less);
        let everywhere = gating.min().map_or(self.logged, |acked| acked.min(self.logged));
        self.committed = self.committed.max(everywhere);
    }

    /// Sends each peer what it lacks. Call at the end of a turn in which something was numbered or acknowledged.
    pub fn send_prepares(&mut self, now: Mono, out: &mut Effects) {
        let Self { role: Role::Primary(lead), window, committed, prepared, ballot, gpid, .. } =
            self
        else {
            return;
        };
        let bytes_max = self.options.group.message_bytes;
        let first = self.applying.unwrap_or(self.applied).next();
        let frame =
            Frame { gpid: *gpid, ballot: *ballot, takeover: lead.takeover, committed: *committed };
        for (node, peer) in &mut lead.peers {
            if peer.failed || peer.probing || !peer.streams() {
                continue;
            }
            while peer.next <= *prepared {
                if peer.next < first {
                    read_log(peer, *node, out);
                    break;
                }
                let mut bodies = Vec::new();
                let mut bytes = 0;
                let at = peer.next.since(first.prev()) - 1;
                for entry in window.iter_mut().skip(at) {
                    let body = entry.body();
                    bytes += body.len();
                    bodies.push(body);
                    if bytes >= bytes_max {
                        break;
                    }
                }
                frame.send(*node, peer, bodies, now, out);
            }
            if peer.claimed_at == Some(peer.seq) && peer.next > *prepared {
                // There is nothing to send it, and nothing is known that it has.
                frame.send(*node, peer, Vec::new(), now, out);
            }
        }
    }

    /// Mutations from the log for a learner; none when the log does not have them, or another history.
    pub fn on_log_read(
        &mut self,
        node: Node,
        attempt: i64,
        after: Decree,
        bodies: Vec<Bytes>,
        now: Mono,
        out: &mut Effects,
    ) {
        let frame = self.frame();
        let Role::Primary(lead) = &mut self.role else { return };
        let frame = Frame { takeover: lead.takeover, ..frame };
        let Some(peer) = lead.peers.get_mut(&node).filter(|peer| peer.attempt() == attempt) else {
            return;
        };
        let Kind::Learner { progress: Progress::Streaming { reading }, .. } = &mut peer.kind else {
            return;
        };
        *reading = false;
        peer.unproven = None;
        if peer.next != after.next() {
            return;
        }
        if !bodies.is_empty() {
            frame.send(node, peer, bodies, now, out);
        } else if after < frame.committed {
            // The log does not have it, or not like this: the learner must say again what it has, and copy.
            if let Kind::Learner { progress, log_lacks, .. } = &mut peer.kind {
                (*progress, *log_lacks) = (Progress::Invited, true);
            }
        }
    }

    fn frame(&self) -> Frame {
        let Self { gpid, ballot, committed, .. } = *self;
        Frame { gpid, ballot, committed, takeover: Decree::ZERO }
    }

    /// Time has passed: sends again, says that the primary is still there, gives up on those who are late.
    pub fn tick(&mut self, now: Mono, out: &mut Effects) {
        let frame = self.frame();
        let Role::Primary(lead) = &mut self.role else { return };
        let frame = Frame { takeover: lead.takeover, ..frame };
        let options = &self.options.group;
        let mut forgotten = Vec::new();
        let mut spare = lead.can_spare_one();
        for (node, peer) in &mut lead.peers {
            if peer.failed {
                continue;
            }
            let silent = now.saturating_since(peer.progress_at);
            let quiet = now.saturating_since(peer.sent_at);
            if let Kind::Learner { attempt, progress, gating, .. } = peer.kind {
                let waits = peer.owes() || !peer.streams();
                if waits && silent >= options.learner_timeout && !gating {
                    forgotten.push(*node);
                    continue;
                }
                if progress == Progress::Invited {
                    if quiet >= options.resend_after {
                        peer.sent_at = now;
                        out.push(Effect::Invite(*node, attempt));
                    }
                    continue;
                }
                if !peer.streams() {
                    continue;
                }
            }
            let limit = peer.evict_after(options, spare);
            if peer.gates() && peer.owes() && silent >= limit {
                tracing::warn!(gpid = %frame.gpid, peer = %node, ?limit, "a member does not answer in time");
                peer.failed = true;
                spare = false;
                continue;
            }
            if peer.owes() && quiet >= options.resend_after {
                // An empty one: the answer says where to go on.
                peer.rewind();
                peer.probing = true;
                frame.send(*node, peer, Vec::new(), now, out);
            } else if !peer.owes() {
                let behind = peer.told < frame.committed && quiet >= options.commit_notify;
                if behind || options.check_due(peer.sent_at).is_past(now) {
                    frame.send(*node, peer, Vec::new(), now, out);
                }
            }
        }
        for node in forgotten {
            tracing::warn!(gpid = %frame.gpid, learner = %node, "a learner makes no progress and is forgotten");
            lead.peers.remove(&node);
        }
        self.send_prepares(now, out);
        self.next_change(now, out);
    }

    /// When [`Replica::tick`] has something to do; `None` while this is no primary or has nobody to look after.
    #[must_use]
    pub fn next_tick(&self) -> Option<Mono> {
        let Role::Primary(lead) = &self.role else { return None };
        let options = &self.options.group;
        let spare = lead.can_spare_one();
        let due = lead.peers.values().filter(|peer| !peer.failed).map(|peer| {
            if peer.gates() && peer.owes() {
                let resend = peer.sent_at + options.resend_after;
                return resend.min(peer.progress_at + peer.evict_after(options, spare));
            }
            if peer.owes() || !peer.streams() {
                peer.sent_at + options.resend_after
            } else if peer.told < self.committed {
                peer.sent_at + options.commit_notify
            } else {
                options.check_due(peer.sent_at)
            }
        });
        due.min()
    }
}

/// What all messages of a turn share.
#[derive(Clone, Copy)]
struct Frame {
    gpid: Gpid,
    ballot: Ballot,
    takeover: Decree,
    committed: Decree,
}

impl Frame {
    fn send(&self, node: Node, peer: &mut Peer, bodies: Vec<Bytes>, now: Mono, out: &mut Effects) {
        if !peer.owes() {
            peer.progress_at = now;
        }
        peer.sent_at = now;
        peer.seq += 1;
        peer.patience.sent(peer.seq, now);
        peer.told = self.committed;
        let first = peer.next;
        peer.next = first.plus(bodies.len());
        let Self { gpid, ballot, takeover, committed } = *self;
        let (attempt, seq) = (peer.attempt(), peer.seq);
        let prepare = Prepare { gpid, ballot, attempt, seq, takeover, committed, first, bodies };
        out.push(Effect::Prepare(node, prepare));
    }
}

/// Asks for a learner's next mutations, unless that is under way or the last ones are not acknowledged yet.
fn read_log(peer: &mut Peer, node: Node, out: &mut Effects) {
    let next = peer.next;
    let idle = peer.acked.next() >= next;
    if let Kind::Learner { attempt, progress: Progress::Streaming { reading }, .. } = &mut peer.kind
        && idle
        && !std::mem::replace(reading, true)
    {
        out.push(Effect::ReadLog(node, *attempt, next.prev(), peer.unproven));
    }
}

impl super::Entry {
    /// Adds it to the log; what others will be sent as well is encoded once.
    pub(super) fn write(&mut self, alone: bool, log: &mut LogBatch) {
        if alone {
            return log.mutation(&self.mutation);
        }
        let body = self.body();
        log.body(&self.mutation, &body);
    }

    /// Bytes of its requests.
    pub(super) fn bytes(&self) -> usize {
        self.mutation.body_bytes()
    }

    /// The mutation as it travels.
    pub(super) fn body(&mut self) -> Bytes {
        let Self { mutation, body, .. } = self;
        body.get_or_insert_with(|| {
            let mut out = BytesMut::new();
            encode_body(mutation, &mut out);
            out.freeze()
        })
        .clone()
    }
}
