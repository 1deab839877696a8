//! Prepares and acknowledgements between servers: one message to a server per turn of a worker, of all its partitions.
//!
//! Hosts leave what they have to say with their worker's [`Outbox`]; at the end of the turn it goes out, one frame for
//! each server and direction, or more when mutations are large. Messages travel one way and may be lost: who sent a
//! prepare sends it again.

use crate::codes::{RPC_PREPARE, RPC_PREPARE_ACK};
use crate::host::{LPC_REPLICA_EVENT, ReplicaHost};
use crate::ids::{Ballot, Decree};
use crate::placement::Placement;
use crate::replica::{Ack, Node, Prepare, Verdict};
use crate::wire::config::DiskStatus;
use crate::wire::replica::{
    PrepareAckItem, PrepareAckMsg, PrepareItem, PrepareMsg, PrepareVerdict,
};
use bytes::Bytes;
use dsn_core::exec::{Addr, Ctx, Phase, Resident};
use dsn_rpc::address::RpcAddress;
use dsn_rpc::gpid::Gpid;
use dsn_rpc::{CallOptions, Replier, Request, ServiceTable, detach, send_oneway};
use std::collections::BTreeMap;
use std::net::SocketAddr;

dsn_core::task_codes! {
    /// Codes of this file.
    pub CODES;
    /// What a worker's replicas have to say leaves.
    pub LPC_GROUP_FLUSH: Compute, High, "THREAD_POOL_REPLICATION";
}

/// Bytes of mutations after which a frame takes no more prepares. One prepare has a limit of its own
/// ([`GroupOptions::message_bytes`](crate::replica::GroupOptions::message_bytes)); together, those of many partitions
/// must not come near the largest frame that a server reads.
const FRAME_BYTES: usize = 1 << 20;

/// What waits for one server.
#[derive(Debug, Default)]
struct Waiting {
    /// Each with the bytes of its mutations.
    prepares: Vec<(PrepareItem, usize)>,
    acks: Vec<PrepareAckItem>,
}

/// What a worker's replicas have to say to other servers.
#[derive(Debug)]
struct Outbox {
    me: RpcAddress,
    waiting: BTreeMap<Node, Waiting>,
}

impl Resident for Outbox {
    fn on_lost(&mut self, ctx: &mut Ctx<'_>, text: &str) {
        ctx.node().fail(text);
    }
}

/// The worker's own, made on first use.
#[derive(Default)]
struct Local {
    outbox: Option<Addr<Outbox>>,
    deferred: bool,
}

/// The address of a server on the wire; none for IPv6, which the protocol does not know.
pub(crate) fn wire(node: Node) -> RpcAddress {
    match node {
        SocketAddr::V4(node) => RpcAddress::from(node),
        SocketAddr::V6(_) => RpcAddress::INVALID,
    }
}

/// The server behind an address of the wire.
pub(crate) fn node(address: RpcAddress) -> Option<Node> {
    address.socket_addr().map(SocketAddr::from)
}

fn with_outbox(ctx: &mut Ctx<'_>, me: Node, f: impl FnOnce(&mut Outbox)) {
    // One that a panic has taken with it is replaced.
    let known = ctx.local::<Local>().outbox;
    let outbox = match known.filter(|outbox| ctx.is_here(*outbox)) {
        Some(outbox) => outbox,
        None => {
            let me = wire(me);
            let outbox = ctx.spawn_here(|_, _| Outbox { me, waiting: BTreeMap::new() });
            ctx.local::<Local>().outbox = Some(outbox);
            outbox
        }
    };
    let _ = ctx.with(outbox, |outbox, _| f(outbox));
    if !std::mem::replace(&mut ctx.local::<Local>().deferred, true) {
        ctx.defer(Phase::Log, outbox, &LPC_GROUP_FLUSH, Outbox::flush);
    }
}

/// Sends a prepare with the end of the turn. `me` is where this server listens.
pub fn send_prepare(ctx: &mut Ctx<'_>, me: Node, to: Node, prepare: Prepare) {
    let bytes = prepare.bodies.iter().map(Bytes::len).sum();
    let item = PrepareItem {
        pid: prepare.gpid,
        ballot: prepare.ballot.0,
        learner_signature: prepare.attempt,
        seq: prepare.seq as i64,
        takeover: prepare.takeover.0,
        last_committed_decree: prepare.committed.0,
        first_decree: prepare.first.0,
        mutations: prepare.bodies.into(),
    };
    with_outbox(ctx, me, |outbox| {
        outbox.waiting.entry(to).or_default().prepares.push((item, bytes))
    });
}

/// Sends an acknowledgement with the end of the turn.
pub fn send_ack(ctx: &mut Ctx<'_>, me: Node, to: Node, ack: &Ack) {
    let item = PrepareAckItem {
        pid: ack.gpid,
        ballot: ack.ballot.0,
        learner_signature: ack.attempt,
        seq: ack.seq as i64,
        verdict: match ack.verdict {
            Verdict::Taken => PrepareVerdict::Taken,
            Verdict::Gap => PrepareVerdict::Gap,
            Verdict::Outdated => PrepareVerdict::Outdated,
            Verdict::Refused => PrepareVerdict::Refused,
            Verdict::Absent => PrepareVerdict::Absent,
            Verdict::Ahead => PrepareVerdict::Ahead,
        },
        logged_decree: ack.logged.0,
        applied_decree: ack.applied.0,
        disk_status: match ack.disk_is_full {
            true => DiskStatus::SpaceInsufficient,
            false => DiskStatus::Normal,
        },
    };
    with_outbox(ctx, me, |outbox| outbox.waiting.entry(to).or_default().acks.push(item));
}

impl Outbox {
    fn flush(&mut self, ctx: &mut Ctx<'_>) {
        ctx.local::<Local>().deferred = false;
        let from = self.me;
        for (to, waiting) in std::mem::take(&mut self.waiting) {
            let options = CallOptions::default();
            if !waiting.acks.is_empty() {
                let message = PrepareAckMsg { from, items: waiting.acks.into() };
                send_oneway(ctx, to, &RPC_PREPARE_ACK, &message, options);
            }
            for items in frames(waiting.prepares) {
                let message = PrepareMsg { from, items: items.into() };
                send_oneway(ctx, to, &RPC_PREPARE, &message, options);
            }
        }
    }
}

/// Items of one frame each, in order: a frame that has [`FRAME_BYTES`] takes no more.
fn frames<T>(items: Vec<(T, usize)>) -> Vec<Vec<T>> {
    let mut frames: Vec<Vec<T>> = Vec::new();
    let mut room = 0;
    for (item, bytes) in items {
        match frames.last_mut().filter(|_| room > 0) {
            Some(frame) => frame.push(item),
            None => {
                frames.push(vec![item]);
                room = FRAME_BYTES;
            }
        }
        room = room.saturating_sub(bytes);
    }
    frames
}

/// Registers both messages at a server that listens on `me`.
pub fn register(table: &mut ServiceTable, placement: &Placement<ReplicaHost>, me: Node) {
    let hosts = placement.clone();
    table.on(&RPC_PREPARE, move |ctx, request, replier| {
        on_prepares(ctx, &hosts, me, &request, replier);
    });
    let hosts = placement.clone();
    table.on(&RPC_PREPARE_ACK, move |ctx, request, replier| {
        on_acks(ctx, &hosts, &request, replier);
    });
}

fn on_prepares(
    ctx: &mut Ctx<'_>,
    hosts: &Placement<ReplicaHost>,
    me: Node,
    request: &Request,
    replier: Replier,
) {
    replier.forget(ctx);
    let message = match request.decode::<PrepareMsg>() {
        Ok(message) => message,
        Err(error) => {
            tracing::warn!(peer = %request.peer, %error, "unreadable prepares");
            return;
        }
    };
    let Some(from) = node(message.from) else { return };
    for item in &message.items {
        let prepare = read_prepare(&item);
        match hosts.get(ctx, item.pid) {
            Some(placed) => at(ctx, placed.host, move |host, ctx| {
                host.on_prepare(ctx, from, prepare);
            }),
            None => send_ack(ctx, me, from, &absent(&prepare)),
        }
    }
}

fn read_prepare(item: &PrepareItem) -> Prepare {
    Prepare {
        gpid: item.pid,
        ballot: Ballot(item.ballot),
        attempt: item.learner_signature,
        seq: item.seq as u64,
        takeover: Decree(item.takeover),
        committed: Decree(item.last_committed_decree),
        first: Decree(item.first_decree),
        // They stay until they are applied: small ones must not hold the buffer they arrived in.
        bodies: item.mutations.iter().map(|body| detach(&body)).collect(),
    }
}

/// The answer of a server that has no such replica.
fn absent(prepare: &Prepare) -> Ack {
    let Prepare { gpid, ballot, attempt, seq, .. } = *prepare;
    let (logged, applied) = (Decree::NONE, Decree::NONE);
    let verdict = Verdict::Absent;
    Ack { gpid, ballot, attempt, seq, verdict, logged, applied, disk_is_full: false }
}

fn on_acks(ctx: &mut Ctx<'_>, hosts: &Placement<ReplicaHost>, request: &Request, replier: Replier) {
    replier.forget(ctx);
    let message = match request.decode::<PrepareAckMsg>() {
        Ok(message) => message,
        Err(error) => {
            tracing::warn!(peer = %request.peer, %error, "unreadable acknowledgements");
            return;
        }
    };
    let Some(from) = node(message.from) else { return };
    for item in &message.items {
        let Some(ack) = read_ack(&item) else { continue };
        if let Some(placed) = hosts.get(ctx, item.pid) {
            at(ctx, placed.host, move |host, ctx| host.on_ack(ctx, from, &ack));
        }
    }
}

fn read_ack(item: &PrepareAckItem) -> Option<Ack> {
    let verdict = match item.verdict {
        PrepareVerdict::Taken => Verdict::Taken,
        PrepareVerdict::Gap => Verdict::Gap,
        PrepareVerdict::Outdated => Verdict::Outdated,
        PrepareVerdict::Refused => Verdict::Refused,
        PrepareVerdict::Absent => Verdict::Absent,
        PrepareVerdict::Ahead => Verdict::Ahead,
        PrepareVerdict::Other(_) => return None,
    };
    Some(Ack {
        gpid: item.pid,
        ballot: Ballot(item.ballot),
        attempt: item.learner_signature,
        seq: item.seq as u64,
        verdict,
        logged: Decree(item.logged_decree),
        applied: Decree(item.applied_decree),
        disk_is_full: item.disk_status == DiskStatus::SpaceInsufficient,
    })
}

/// Runs `f` on a host: here and now if it is on this worker, else as an event of it. A panic costs that replica, not
/// the others of the message.
fn at(
    ctx: &mut Ctx<'_>,
    host: Addr<ReplicaHost>,
    f: impl FnOnce(&mut ReplicaHost, &mut Ctx<'_>) + Send + 'static,
) {
    if let Some(Err(f)) = ctx.contain(|ctx| ctx.with(host, f)) {
        ctx.post(host, &LPC_REPLICA_EVENT, f);
    }
}

/// The partition of a host, for messages about it.
pub(crate) fn options_for(gpid: Gpid) -> CallOptions {
    CallOptions::default().on(gpid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_ends_when_it_is_full_and_the_order_stays() {
        let sizes = [0, FRAME_BYTES - 1, 1, 5, 3 * FRAME_BYTES, 0, FRAME_BYTES];
        let items: Vec<(usize, usize)> = sizes.into_iter().enumerate().collect();
        assert_eq!(frames(items), [vec![0, 1, 2], vec![3, 4], vec![5, 6]]);
        assert_eq!(frames::<usize>(Vec::new()), Vec::<Vec<usize>>::new());
        let many: Vec<(usize, usize)> = (0..200).map(|at| (at, FRAME_BYTES)).collect();
        assert_eq!(frames(many).len(), 200, "64 MiB is what a server reads at most");
    }
}
