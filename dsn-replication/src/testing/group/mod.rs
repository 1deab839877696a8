//! A group of cores with real logs, messages that are lost, reordered between pairs and doubled, servers that are
//! killed and restarted, and a meta server that fences by ballot: no clock, no network, no threads. Thousands of
//! steps a second, drawn from a seed, or one at a time, as a test wants them.
//!
//! After every step: what any two members apply at a decree is the same; whatever a client was told is done is in the
//! state of every primary that may serve reads; and the invariants of each core hold. What does not hold ends the run
//! with a panic.
//!
//! [`server`] is one server, [`network`] what they tell each other, [`config`] the meta server, [`faults`] what goes
//! wrong.

mod config;
mod faults;
mod network;
mod server;

pub(crate) use network::Message;
pub(crate) use server::{Server, open};

use crate::ids::{Ballot, Decree};
use crate::learn::stream::read_decided;
use crate::log::{
    Durability, LogBatch, LogOptions, Pending, Record, Redeemed, ReplaySink, ReplicaStart,
    SharedLog, SyncScope,
};
use crate::mutation::{ClientRequest, CodeTable, Mutation, Ticket};
use crate::replica::{
    Ack, Change, CoreOptions, Effect, Effects, GivenUp, GroupOptions, LearnAnswer, Node, Position,
    Prepare, Recovery, Replica, Role,
};
use crate::state_machine::{Access, StorageCode};
use crate::testing::mem_disk::{Crash, MemDisk};
use bytes::Bytes;
use dsn_core::rng::Rng;
use dsn_core::time::Mono;
use dsn_rpc::gpid::Gpid;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

dsn_core::task_codes! {
    pub(crate) CODES;
    RPC_TEST_GROUP: Rpc, Low, "THREAD_POOL_REPLICATION";
}

pub(crate) const GPID: Gpid = Gpid::new(1, 0);
pub(crate) const SERVERS: usize = 4;
pub(crate) const WANTED: usize = 3;

pub(crate) fn codes() -> Arc<CodeTable> {
    let access = Access::Write { batchable: true, idempotent: true };
    let codes: Vec<_> = CODES.iter().map(|code| StorageCode { code, access }).collect();
    Arc::new(CodeTable::new(&codes))
}

pub(crate) fn node(index: usize) -> Node {
    SocketAddr::new(IpAddr::from([10, 0, 0, 1]), index as u16)
}

pub(crate) fn index(node: Node) -> usize {
    usize::from(node.port())
}

/// What a mutation does: its time stamp and the numbers its clients wrote.
pub(crate) type Content = (u64, Vec<u64>);

pub(crate) fn content(mutation: &Mutation) -> Content {
    let number = |request: &ClientRequest| {
        u64::from_be_bytes(request.body[..8].try_into().expect("eight bytes"))
    };
    (mutation.timestamp_us, mutation.requests.iter().map(number).collect())
}

#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) ballot: Ballot,
    pub(crate) primary: Option<usize>,
    pub(crate) secondaries: Vec<usize>,
}

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) durability: Durability,
    pub(crate) servers: Vec<Server>,
    pub(crate) links: BTreeMap<(usize, usize), VecDeque<Message>>,
    pub(crate) config: Config,
    /// Changes that were asked for and not answered yet.
    pub(crate) asked: Vec<(usize, Change)>,
    pub(crate) decided: BTreeMap<i64, Content>,
    pub(crate) acked: BTreeSet<u64>,
    pub(crate) next_write: u64,
    pub(crate) now: Mono,
    pub(crate) killed: usize,
    pub(crate) elections: usize,
    /// Primaries that found out that they had lost something.
    pub(crate) left: usize,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let durability =
            if seed.is_multiple_of(2) { Durability::Os } else { Durability::GroupSync };
        let servers = (0..SERVERS)
            .map(|_| open(&MemDisk::new(), durability, Vec::new(), 0, (0, Ballot::ZERO)))
            .collect();
        let mut world = Self {
            rng: Rng::new(seed),
            durability,
            servers,
            links: BTreeMap::new(),
            config: Config { ballot: Ballot(1), primary: Some(0), secondaries: Vec::new() },
            asked: Vec::new(),
            decided: BTreeMap::new(),
            acked: BTreeSet::new(),
            next_write: 0,
            now: Mono::from_nanos(1_000_000_000),
            killed: 0,
            elections: 0,
            left: 0,
        };
        world.lead(0);
        world
    }

    /// One turn of a server: an event, the log, what follows.
    pub(crate) fn turn(
        &mut self,
        at: usize,
        event: impl FnOnce(&mut Replica, &mut LogBatch, &mut Effects, Mono) -> GivenUp,
    ) {
        let now = self.now;
        let server = &mut self.servers[at];
        let (mut batch, mut effects) = (LogBatch::new(), Effects::new());
        let given_up = event(&mut server.core, &mut batch, &mut effects, now);
        for ticket in given_up.refused.into_iter().chain(given_up.unknown) {
            server.writes.remove(&ticket);
        }
        server.core.number(now.nanos() / 1000, 0, &mut batch);
        server.core.send_prepares(now, &mut effects);
        if !batch.is_empty() {
            if server.log.claim_spare() {
                server.log.make_spare(1).expect("a spare");
            }
            let pending = server.log.append(&mut batch).expect("the log takes it");
            server.waiting.push(pending);
        }
        self.route(at, effects);
        if self.durability == Durability::Os {
            self.redeem(at);
        }
        self.apply(at);
        self.check(at);
    }

    pub(crate) fn redeem(&mut self, at: usize) {
        let now = self.now;
        let server = &mut self.servers[at];
        let mut effects = Effects::new();
        for pending in std::mem::take(&mut server.waiting) {
            match server.log.redeem(pending).expect("the log works") {
                Redeemed::Now(tokens) => {
                    for token in tokens {
                        server.core.on_logged(token).expect("continues the log");
                    }
                }
                Redeemed::Later(pending) => server.waiting.push(pending),
            }
        }
        server.core.due_ack(&mut effects);
        server.core.send_prepares(now, &mut effects);
        self.route(at, effects);
    }

    pub(crate) fn sync(&mut self, at: usize) {
        let server = &mut self.servers[at];
        if let Some(job) = server.log.begin_sync(SyncScope::All, Mono::ZERO) {
            let outcome = server.log.run_sync(job);
            server.log.end_sync(outcome).expect("the log works");
        }
        self.redeem(at);
        self.apply(at);
        self.check(at);
    }

    pub(crate) fn apply(&mut self, at: usize) {
        while let Some(run) = self.servers[at].core.next_run() {
            let server = &mut self.servers[at];
            let serves = server.lease && server.core.role().is_primary();
            for mutation in &run.mutations {
                assert_eq!(mutation.decree.0, server.history.len() as i64 + 1, "in order");
                let content = content(mutation);
                let first = self.decided.entry(mutation.decree.0).or_insert(content.clone());
                assert_eq!(*first, content, "server {at} applies another {:?}", mutation.decree);
                server.history.push(content);
            }
            for ticket in run.tickets.iter().flatten() {
                let write = server.writes.remove(ticket);
                if let Some(write) = write.filter(|_| serves) {
                    self.acked.insert(write);
                }
            }
            server.core.on_applied(run.last()).expect("as asked");
        }
    }

    pub(crate) fn check(&self, at: usize) {
        let server = &self.servers[at];
        server.core.check_invariants().unwrap_or_else(|error| panic!("server {at}: {error}"));
        let Role::Primary(lead) = server.core.role() else { return };
        for member in self.servers.iter().filter(|other| other.up) {
            let core = &member.core;
            if matches!(core.role(), Role::Secondary(_)) && core.ballot() == server.core.ballot() {
                let (has, committed) = (core.prepared(), server.core.committed());
                assert!(has >= committed, "a member has {has}, and {committed} is committed");
            }
        }
        if server.up && server.lease && server.core.applied() >= lead.takeover() {
            let seen: BTreeSet<u64> = server.history.iter().flat_map(|c| c.1.clone()).collect();
            let missing = self.acked.difference(&seen).next();
            assert_eq!(missing, None, "server {at} serves reads without an acknowledged write");
        }
    }
}

/// What a run did.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    /// Writes acknowledged.
    pub acked: usize,
    /// Servers killed.
    pub killed: usize,
    /// Secondaries that became primary.
    pub elections: usize,
}

/// A run of so many steps, and what must hold after it.
///
/// # Panics
/// When something does not hold.
#[must_use]
pub fn run(seed: u64, steps: usize) -> Counts {
    let world = run_world(seed, steps);
    Counts { acked: world.acked.len(), killed: world.killed, elections: world.elections }
}

fn run_world(seed: u64, steps: usize) -> World {
    let mut world = World::new(seed);
    for _ in 0..steps {
        world.step();
    }
    world.heal();
    let primary = world.config.primary.expect("a primary");
    let written: Vec<u64> =
        world.servers[primary].history.iter().flat_map(|content| content.1.clone()).collect();
    let unique: BTreeSet<u64> = written.iter().copied().collect();
    assert_eq!(unique.len(), written.len(), "a write stands twice");
    assert_eq!(world.acked.difference(&unique).next(), None, "an acknowledged write is lost");
    for at in &world.config.secondaries {
        assert_eq!(world.servers[*at].history, world.servers[primary].history);
    }
    world
}
