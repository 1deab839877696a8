//! What the members of a group tell each other, and what a core asks its host to do.
//!
//! There are two messages. A [`Prepare`] goes from the primary to a member or a learner: mutations that follow each
//! other, and how far everything is decided. With no mutations it is the primary's sign of life. An [`Ack`] comes
//! back and is cumulative: everything up to its decree is logged under its ballot. Either may be lost; the primary
//! sends again whatever is not acknowledged in time. Both carry ballot and attempt, and a message of another ballot or
//! attempt changes nothing.

use super::Change;
use crate::ids::{Ballot, Decree};
use bytes::Bytes;
use dsn_rpc::gpid::Gpid;
use std::net::SocketAddr;

/// A server, by the address it listens on.
pub type Node = SocketAddr;

/// A mutation as it travels: its body as [`encode_body`](crate::mutation::encode_body) makes it. Decree and ballot
/// follow from where it stands.
pub type Body = Bytes;

/// From the primary to one member or learner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepare {
    /// The partition.
    pub gpid: Gpid,
    /// The primary's ballot.
    pub ballot: Ballot,
    /// 0 for a member, else the attempt of a learner.
    pub attempt: i64,
    /// Grows with each message of a primary to a member under one ballot.
    pub seq: u64,
    /// The highest decree that the primary held when it took over: what a member has beyond is void.
    pub takeover: Decree,
    /// Everything up to here is decided.
    pub committed: Decree,
    /// Decree of the first of the mutations; where the next would follow when there are none.
    pub first: Decree,
    /// Consecutive mutations.
    pub bodies: Vec<Body>,
}

impl Prepare {
    /// Up to where a replica has everything that had it up to `has`, with these mutations.
    pub(super) fn reach(&self, has: Decree) -> Decree {
        let last = Decree(self.first.prev().0 + self.bodies.len() as i64);
        if self.first <= has.next() { has.max(last) } else { has }
    }
}

/// How a [`Prepare`] was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Taken; [`Ack::logged`] says how far.
    Taken,
    /// It does not follow what the member has: [`Ack::logged`] says where to go on.
    Gap,
    /// The member knows a higher ballot: [`Ack::ballot`].
    Outdated,
    /// The member cannot follow: it is broken, or another attempt is under way.
    Refused,
    /// There is no such replica on the server.
    Absent,
    /// More is decided ([`Ack::logged`]) than the primary held when it took over: the primary has lost something.
    Ahead,
}

/// From a member or learner to the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The partition.
    pub gpid: Gpid,
    /// The member's ballot.
    pub ballot: Ballot,
    /// As in the [`Prepare`].
    pub attempt: i64,
    /// Of the newest [`Prepare`] that was looked at.
    pub seq: u64,
    /// How it was taken.
    pub verdict: Verdict,
    /// Everything up to here is logged under this ballot, or decided.
    pub logged: Decree,
    /// Everything up to here is applied.
    pub applied: Decree,
    /// The member's disk has no room for writes of clients.
    pub disk_is_full: bool,
}

/// What a core asks its host to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send to a member.
    Prepare(Node, Prepare),
    /// Send to the primary.
    Ack(Node, Ack),
    /// Ask the meta server to make a change of the group durable; the outcome comes back to
    /// [`Replica::on_changed`](super::Replica::on_changed) or [`Replica::on_refused`](super::Replica::on_refused).
    Change(Change),
    /// Tell a server to begin learning, as attempt so and so.
    Invite(Node, i64),
    /// Read mutations from the log for a learner, as this attempt, after this decree, if the mutation there has this
    /// fingerprint; they come back to [`Replica::on_log_read`](super::Replica::on_log_read).
    ReadLog(Node, i64, Decree, Option<u64>),
    /// A higher ballot is about: ask the meta server what the group is.
    Sync,
    /// A member knows this decree to be decided, and this primary took over without it: it has lost the end of its log
    /// and must not lead ([`LocalError::Behind`](super::LocalError::Behind)).
    Behind(Decree),
}

/// Effects in the making.
pub type Effects = Vec<Effect>;
