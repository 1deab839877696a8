//! Seeing the process of a replica server end, long before its grace is over: the rule of `docs/failure-detection.md`.
//!
//! A server's beacons come over one connection. When that ends, its host is asked whether anybody still listens where
//! the server listened. A refusal means that the process is gone, for it listens as long as it may hold a lease; an
//! accepted connection, silence or any other failure means nothing, and the grace decides.

use std::collections::BTreeMap;
use std::time::Duration;

use dsn_core::exec::Ctx;
use dsn_core::planted;
use dsn_rpc::address::RpcAddress;
use dsn_rpc::{Probed, Replier, Request, SessionId, probe, when_ended};

use super::{LPC_META_CHECK, MetaServer};
use crate::wire::replica::BeaconMsg;

/// Pauses before each look: the kernel may still be closing what the process had open.
const PAUSES: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(5),
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
];

/// How long one look may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// The connections that beacons come over. One entry for each server ever heard of.
#[derive(Debug, Default)]
pub(super) struct Ends {
    watched: BTreeMap<RpcAddress, Watched>,
}

/// A run of a server and the connection of its newest beacon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Watched {
    session: SessionId,
    start_time: i64,
}

impl MetaServer {
    /// Watches the connection of a beacon. One that does not come from the host where the server listens is none to
    /// draw conclusions from.
    pub(super) fn watch(
        &mut self,
        ctx: &mut Ctx<'_>,
        beacon: &BeaconMsg,
        request: &Request,
        replier: &Replier,
    ) {
        let node = beacon.from_node;
        let (Some(addr), Some(start_time)) = (node.socket_addr(), beacon.start_time) else {
            return;
        };
        let watched = Watched { session: replier.session(), start_time };
        if !self.options.meta.fast_failover_enabled
            || request.peer.ip() != *addr.ip()
            || self.ends.watched.insert(node, watched) == Some(watched)
        {
            return;
        }
        when_ended(ctx, watched.session, self.me, move |server: &mut Self, ctx| {
            server.look(ctx, node, watched, 0);
        });
    }

    /// Looks whether the process that `watched` belonged to is still there, unless its beacons have found another way.
    fn look(&mut self, ctx: &mut Ctx<'_>, node: RpcAddress, watched: Watched, round: usize) {
        let same = self.ends.watched.get(&node) == Some(&watched);
        let (Some(addr), true) = (node.socket_addr(), same && round < PAUSES.len()) else {
            return self.trust(ctx, node, true);
        };
        self.trust(ctx, node, round > 1);
        ctx.after(self.me, &LPC_META_CHECK, PAUSES[round], move |server, ctx| {
            probe(
                ctx,
                addr.into(),
                PROBE_TIMEOUT,
                server.me,
                move |server: &mut Self, ctx, found| match found {
                    Probed::Refused => server.ended(ctx, node, watched),
                    Probed::Listening if planted::has("ended_without_refusal") => {
                        server.ended(ctx, node, watched);
                    }
                    Probed::Listening | Probed::Unknown(_) => {
                        server.look(ctx, node, watched, round + 1);
                    }
                },
            );
        });
    }

    fn ended(&mut self, ctx: &mut Ctx<'_>, node: RpcAddress, watched: Watched) {
        self.with_cluster(ctx, |cluster, ctx| {
            cluster.doubt(node, false);
            cluster.on_process_end(node, watched.start_time, ctx.clock());
        });
    }

    fn trust(&mut self, ctx: &mut Ctx<'_>, node: RpcAddress, trusted: bool) {
        self.with_cluster(ctx, |cluster, _| cluster.doubt(node, !trusted));
    }
}
