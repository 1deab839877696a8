//! Seeing the process of a replica server end, long before its grace is over: the rule of `docs/failure-detection.md`.
//!
//! A server's beacons come over one connection. When that ends, or none has come for a while, the server's host is
//! asked whether anybody still listens where the server listened. A refusal means that the process is gone, for it
//! listens as long as it may hold a lease; an accepted connection, silence or any other failure means nothing, and
//! the grace decides.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dsn_core::exec::Ctx;
use dsn_core::planted;
use dsn_core::time::Mono;
use dsn_rpc::address::RpcAddress;
use dsn_rpc::{Probed, Replier, Request, SessionId, probe, when_ended};

use super::{LPC_META_CHECK, MetaServer};
use crate::failure_detector::master::Run;
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

/// So many beacon intervals without a beacon make a server worth a look.
const SILENT_INTERVALS: u32 = 3;

/// The connections that are watched: by server, that of its newest beacon. One entry for each server ever heard of.
#[derive(Debug, Default)]
pub(super) struct Ends {
    watched: BTreeMap<RpcAddress, SessionId>,
    /// Servers that are being looked at.
    looking: BTreeSet<RpcAddress>,
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
        let (node, session) = (beacon.from_node, replier.session());
        if !self.options.meta.fast_failover_enabled
            || node.socket_addr().is_none_or(|addr| request.peer.ip() != *addr.ip())
            || self.ends.watched.insert(node, session) == Some(session)
        {
            return;
        }
        when_ended(ctx, session, self.me, move |server: &mut Self, ctx| {
            if server.ends.watched.get(&node) == Some(&session) {
                server.ends.watched.remove(&node);
                server.begin_to_look(ctx, node);
            }
        });
    }

    /// Looks at servers of which nothing was heard for a while; call every check interval.
    pub(super) fn look_at_silent(&mut self, ctx: &mut Ctx<'_>) {
        if !self.options.meta.fast_failover_enabled {
            return;
        }
        let silent = self.options.timing.beacon * SILENT_INTERVALS;
        let since = |run: Run, now: Mono| now.saturating_since(run.heard) > silent;
        let nodes: Vec<RpcAddress> = match self.cluster() {
            Some(cluster) => {
                let now = ctx.clock();
                let runs = cluster.alive().map(|node| (node, cluster.run_of(node)));
                let silent = runs.filter(|(_, run)| run.is_some_and(|run| since(run, now)));
                silent.map(|(node, _)| node).collect()
            }
            None => Vec::new(),
        };
        for node in nodes {
            self.begin_to_look(ctx, node);
        }
    }

    fn begin_to_look(&mut self, ctx: &mut Ctx<'_>, node: RpcAddress) {
        let run = self.cluster().and_then(|cluster| cluster.run_of(node));
        if let Some(run) = run
            && self.ends.looking.insert(node)
        {
            self.look(ctx, node, run, 0);
        }
    }

    /// Looks whether the process of a run is still there, unless a beacon has come since.
    fn look(&mut self, ctx: &mut Ctx<'_>, node: RpcAddress, run: Run, round: usize) {
        let same = self.cluster().and_then(|cluster| cluster.run_of(node)) == Some(run);
        let (Some(addr), true) = (node.socket_addr(), same && round < PAUSES.len()) else {
            self.ends.looking.remove(&node);
            return self.trust(ctx, node, true);
        };
        self.trust(ctx, node, round > 1);
        ctx.after(self.me, &LPC_META_CHECK, PAUSES[round], move |server, ctx| {
            let found = move |server: &mut Self, ctx: &mut Ctx<'_>, found| match found {
                Probed::Refused => server.ended(ctx, node, run),
                Probed::Listening if planted::has("ended_without_refusal") => {
                    server.ended(ctx, node, run);
                }
                Probed::Listening | Probed::Unknown(_) => server.look(ctx, node, run, round + 1),
            };
            probe(ctx, addr.into(), PROBE_TIMEOUT, server.me, found);
        });
    }

    fn ended(&mut self, ctx: &mut Ctx<'_>, node: RpcAddress, run: Run) {
        self.ends.looking.remove(&node);
        self.with_cluster(ctx, |cluster, ctx| {
            cluster.doubt(node, false);
            cluster.on_process_end(node, run, ctx.clock());
        });
    }

    fn trust(&mut self, ctx: &mut Ctx<'_>, node: RpcAddress, trusted: bool) {
        self.with_cluster(ctx, |cluster, _| cluster.doubt(node, !trusted));
    }
}
