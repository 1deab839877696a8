//! The meta server as a resident: requests in, effects out, the store on a blocking stage.
//!
//! The store travels to a blocking job with every transaction that has gathered and comes back with the outcome; one
//! sync serves all of them. Until it has been read for the first time, requests are answered with
//! `ERR_SERVICE_NOT_ACTIVE`. When a write fails, the node stops: what is stored is unknown until it is read again.

mod ends;
mod handlers;
mod http;

use std::time::Duration;

use dsn_core::exec::{Addr, Ctx, Resident};
use dsn_core::stage::{META_SERVER, PLOG};
use dsn_rpc::{CallOptions, Replier, ServiceTable, send_oneway};
use std::collections::BTreeMap;

use super::state::load::{self, LoadError, Loaded};
use super::state::{Answer, Cluster, ClusterOptions, Effect, Ticket};
use super::store::{Epoch, MetaStore, StoreError, Transaction};
use crate::codes::RPC_CONFIG_PROPOSAL;

dsn_core::task_codes! {
    /// Codes of the meta server's own events.
    pub CODES;
    /// Opening and reading the store, or writing to it.
    pub LPC_META_STORE: Blocking, High, PLOG;
    /// Looking at proposals and groups.
    pub LPC_META_TICK: Compute, Common, META_SERVER;
    /// Looking for dead replica servers.
    pub LPC_META_CHECK: Compute, High, META_SERVER;
    /// An HTTP request.
    pub LPC_META_HTTP: Compute, Common, META_SERVER;
}

/// How often proposals and groups are looked at.
pub const TICK: Duration = Duration::from_millis(500);

/// Requests that may wait for the store; beyond, they are refused as busy.
pub const MAX_WAITING: usize = 10_000;

/// What the store is doing.
#[derive(Debug)]
enum Store {
    /// Here, with nothing to do.
    Here(Box<dyn MetaStore>),
    /// With a blocking job.
    Away,
}

/// Whether requests can be served.
#[derive(Debug)]
enum Phase {
    /// The store is being read.
    Loading,
    /// Everything is known.
    Serving(Box<Cluster>),
}

/// The meta server of one node.
#[derive(Debug)]
pub struct MetaServer {
    me: Addr<Self>,
    options: ClusterOptions,
    phase: Phase,
    store: Store,
    epoch: Epoch,
    /// Transactions that the next job takes.
    queue: Vec<Transaction>,
    /// Who waits for an answer.
    waiting: BTreeMap<Ticket, Replier>,
    next_ticket: u64,
    ends: ends::Ends,
}

impl Resident for MetaServer {
    fn on_lost(&mut self, ctx: &mut Ctx<'_>, text: &str) {
        ctx.node().fail(text);
    }
}

type Opened = (Box<dyn MetaStore>, Result<(Epoch, Loaded), StoreError>);
type Written = (Box<dyn MetaStore>, usize, Result<(), StoreError>);

impl MetaServer {
    /// A meta server that begins to read `store`.
    pub fn new(
        ctx: &mut Ctx<'_>,
        me: Addr<Self>,
        options: ClusterOptions,
        store: Box<dyn MetaStore>,
    ) -> Self {
        let open = move |_: &dsn_core::exec::BlockingCtx<'_>| -> Opened {
            let mut store = store;
            let outcome = store.acquire().and_then(|epoch| Ok((epoch, load::read(&mut *store)?)));
            (store, outcome)
        };
        ctx.offload(&LPC_META_STORE, open, me, Self::opened);
        ctx.every(me, &LPC_META_TICK, TICK, |server, ctx| {
            server.with_cluster(ctx, |cluster, ctx| cluster.tick(ctx.now(), ctx.wall()));
        });
        ctx.every(me, &LPC_META_CHECK, options.timing.check, |server, ctx| {
            server.with_cluster(ctx, |cluster, ctx| cluster.check_nodes(ctx.clock()));
            server.look_at_silent(ctx);
        });
        Self {
            me,
            options,
            phase: Phase::Loading,
            store: Store::Away,
            epoch: Epoch::default(),
            queue: Vec::new(),
            waiting: BTreeMap::new(),
            next_ticket: 0,
            ends: ends::Ends::default(),
        }
    }

    /// Registers every RPC and HTTP path of the meta server at `to`.
    pub fn register(table: &mut ServiceTable, to: Addr<Self>) {
        handlers::register(table, to);
        http::register(table, to);
    }

    /// Whether the store has been read.
    pub fn is_serving(&self) -> bool {
        matches!(self.phase, Phase::Serving(_))
    }

    /// What is known; `None` before the store has been read.
    pub fn cluster(&self) -> Option<&Cluster> {
        match &self.phase {
            Phase::Serving(cluster) => Some(cluster),
            Phase::Loading => None,
        }
    }

    fn opened(&mut self, (store, outcome): Opened, ctx: &mut Ctx<'_>) {
        let loaded = outcome.map_err(LoadError::Store).and_then(|(epoch, loaded)| {
            let cluster = Cluster::load(self.options.clone(), loaded, ctx.clock(), ctx.wall())?;
            Ok((epoch, cluster))
        });
        match loaded {
            Ok((epoch, cluster)) => {
                tracing::info!(
                    epoch = epoch.0,
                    tables = cluster.tables().count(),
                    "meta server serves"
                );
                self.epoch = epoch;
                self.store = Store::Here(store);
                self.phase = Phase::Serving(Box::new(cluster));
                self.settle(ctx);
            }
            Err(error) => {
                tracing::error!(%error, "the meta server cannot start");
                ctx.node().stop();
            }
        }
    }

    /// Runs `f` on the cluster, if it is known, and does what follows from it.
    fn with_cluster<R>(
        &mut self,
        ctx: &mut Ctx<'_>,
        f: impl FnOnce(&mut Cluster, &mut Ctx<'_>) -> R,
    ) -> Option<R> {
        let Phase::Serving(cluster) = &mut self.phase else { return None };
        let result = f(cluster, ctx);
        self.settle(ctx);
        Some(result)
    }

    /// Carries out the effects.
    fn settle(&mut self, ctx: &mut Ctx<'_>) {
        let Phase::Serving(cluster) = &mut self.phase else { return };
        for effect in cluster.take_effects() {
            match effect {
                Effect::Write(transaction) => self.queue.push(transaction),
                Effect::Reply(ticket, answer) => {
                    if let Some(replier) = self.waiting.remove(&ticket) {
                        answer_with(ctx, replier, &answer);
                    }
                }
                Effect::Propose(to, request) => {
                    if let Some(to) = to.socket_addr() {
                        let options = CallOptions::default();
                        send_oneway(ctx, to.into(), &RPC_CONFIG_PROPOSAL, &*request, options);
                    }
                }
            }
        }
        self.write(ctx);
    }

    /// Hands everything that has gathered to the store, if it is here.
    fn write(&mut self, ctx: &mut Ctx<'_>) {
        if self.queue.is_empty() || matches!(self.store, Store::Away) {
            return;
        }
        let Store::Here(mut store) = std::mem::replace(&mut self.store, Store::Away) else {
            return;
        };
        let transactions = std::mem::take(&mut self.queue);
        let epoch = self.epoch;
        let commit = move |_: &dsn_core::exec::BlockingCtx<'_>| -> Written {
            let outcome = store.commit(epoch, &transactions);
            (store, transactions.len(), outcome)
        };
        ctx.offload(&LPC_META_STORE, commit, self.me, Self::written);
    }

    fn written(&mut self, (store, count, outcome): Written, ctx: &mut Ctx<'_>) {
        if let Err(error) = outcome {
            tracing::error!(%error, "the meta server cannot go on");
            ctx.node().stop();
            return;
        }
        self.store = Store::Here(store);
        self.with_cluster(ctx, |cluster, ctx| {
            for _ in 0..count {
                cluster.written(ctx.now(), ctx.wall());
            }
        });
    }

    /// A ticket for a request that has to wait; `None` when too many wait.
    fn admit(&mut self, ctx: &mut Ctx<'_>, replier: Replier) -> Option<Ticket> {
        if self.waiting.len() >= MAX_WAITING {
            replier.error(ctx, dsn_rpc::error_code::ErrorCode::Busy);
            return None;
        }
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.waiting.insert(ticket, replier);
        Some(ticket)
    }
}

fn answer_with(ctx: &mut Ctx<'_>, replier: Replier, answer: &Answer) {
    match answer {
        Answer::Create(response) => replier.reply(ctx, response),
        Answer::Drop(response) => replier.reply(ctx, response),
        Answer::Recall(response) => replier.reply(ctx, response),
        Answer::Rename(response) => replier.reply(ctx, response),
        Answer::Env(response) => replier.reply(ctx, response),
        Answer::Update(response) => replier.reply(ctx, response),
    }
}
