//! A group of cores with real logs, messages that are lost, reordered between pairs and doubled, servers that are
//! killed and restarted, and a meta server that fences by ballot: no clock, no network, no threads. Thousands of
//! steps a second, drawn from a seed.
//!
//! After every step: what any two members apply at a decree is the same; whatever a client was told is done is in the
//! state of every primary that may serve reads; and the invariants of each core hold.

use super::recovery::Recovery;
use super::*;
use crate::ids::Ballot;
use crate::learn::stream::read_decided;
use crate::log::{
    Durability, LogBatch, LogOptions, Pending, Record, Redeemed, ReplaySink, ReplicaStart,
    SharedLog, SyncScope,
};
use crate::mutation::ClientRequest;
use crate::state_machine::{Access, StorageCode};
use crate::testing::mem_disk::{Crash, MemDisk};
use crate::wire::config::ConfigType;
use dsn_core::rng::Rng;
use dsn_core::time::Mono;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

dsn_core::task_codes! {
    CODES;
    RPC_TEST_GROUP: Rpc, Low, "THREAD_POOL_REPLICATION";
}

const GPID: Gpid = Gpid::new(1, 0);
const SERVERS: usize = 4;
const WANTED: usize = 3;

fn codes() -> Arc<CodeTable> {
    let access = Access::Write { batchable: true, idempotent: true };
    let codes: Vec<_> = CODES.iter().map(|code| StorageCode { code, access }).collect();
    Arc::new(CodeTable::new(&codes))
}

fn node(index: usize) -> Node {
    SocketAddr::new(IpAddr::from([10, 0, 0, 1]), index as u16)
}

fn index(node: Node) -> usize {
    usize::from(node.port())
}

/// What a mutation does: its time stamp and the numbers its clients wrote.
type Content = (u64, Vec<u64>);

fn content(mutation: &Mutation) -> Content {
    let number = |request: &ClientRequest| {
        u64::from_be_bytes(request.body[..8].try_into().expect("eight bytes"))
    };
    (mutation.timestamp_us, mutation.requests.iter().map(number).collect())
}

#[derive(Clone, Debug)]
enum Message {
    Prepare(Prepare),
    Ack(Ack),
    Invite(Ballot, i64),
    Learn(i64, Decree),
    Checkpoint(Ballot, i64, Vec<Content>),
}

struct Server {
    disk: MemDisk,
    log: Arc<SharedLog>,
    core: Replica,
    history: Vec<Content>,
    /// So much of the history survives a crash.
    durable: usize,
    floor: u64,
    init_ballot: Ballot,
    waiting: Vec<Pending>,
    up: bool,
    lease: bool,
    writes: BTreeMap<Ticket, u64>,
}

#[derive(Clone, Debug)]
struct Config {
    ballot: Ballot,
    primary: Option<usize>,
    secondaries: Vec<usize>,
}

struct World {
    rng: Rng,
    durability: Durability,
    servers: Vec<Server>,
    links: BTreeMap<(usize, usize), VecDeque<Message>>,
    config: Config,
    /// Changes that were asked for and not answered yet.
    asked: Vec<(usize, Change)>,
    decided: BTreeMap<i64, Content>,
    acked: BTreeSet<u64>,
    next_write: u64,
    now: Mono,
    killed: usize,
    elections: usize,
}

struct Feed {
    recovery: Recovery,
    applied: Vec<Content>,
}

impl Feed {
    fn drain(&mut self) {
        for mutation in self.recovery.take_run() {
            self.applied.push(content(&mutation));
        }
    }
}

impl ReplaySink for Feed {
    fn record(&mut self, record: Record) {
        self.recovery.record(&record);
        self.drain();
    }
    fn truncate(&mut self, _: Gpid, from: Decree) {
        self.recovery.truncate(from);
    }
    fn ballot(&mut self, _: Gpid, ballot: Ballot) {
        self.recovery.ballot(ballot);
    }
    fn lost(&mut self, _: Gpid, decree: Decree, position: u64) {
        self.recovery.lost(decree, position);
    }
    fn gap(&mut self, position: u64) {
        self.recovery.gap(position);
    }
    fn summary(&mut self, _: Gpid, max: Decree, position: u64) {
        self.recovery.summary(max, position);
    }
}

/// Opens the log and the core of a server whose state machine has `history`.
fn open(
    disk: &MemDisk,
    durability: Durability,
    mut history: Vec<Content>,
    durable: usize,
    (floor, init_ballot): (u64, Ballot),
) -> Server {
    let applied = Decree(history.len() as i64);
    let (on_disk, ballot) = (Decree(durable as i64), init_ballot);
    let start = ReplicaStart { gpid: GPID, applied, durable: on_disk, floor, ballot };
    let mut feed =
        Feed { recovery: Recovery::new(GPID, applied, init_ballot, codes()), applied: Vec::new() };
    let options = LogOptions { segment_bytes: 3000, durability, ..LogOptions::default() };
    let dir = Path::new("/log");
    let opened = SharedLog::open(&disk.shared(), dir, &options, (7, 1), &[start], &mut feed)
        .expect("the log opens");
    feed.drain();
    history.append(&mut feed.applied);
    let recovered = feed.recovery.finish(opened.tail).expect("nothing is lost");
    let applied = Decree(history.len() as i64);
    let mut mended = LogBatch::new();
    recovered.mend(GPID, applied, &mut mended);
    if !mended.is_empty() {
        let _ = opened.log.append(&mut mended).expect("the log is mended");
        let job = opened.log.begin_sync(SyncScope::All).expect("nobody else syncs");
        let outcome = job.run();
        let _ = opened.log.end_sync(job, outcome).expect("the log works");
    }
    let group = GroupOptions { learner_timeout: Duration::from_secs(5), ..Default::default() };
    let options = CoreOptions { window: 5, group, ..CoreOptions::default() };
    Server {
        disk: disk.clone(),
        log: opened.log,
        core: Replica::new(GPID, applied, recovered, codes(), options),
        history,
        durable,
        floor,
        init_ballot,
        waiting: Vec::new(),
        up: true,
        lease: true,
        writes: BTreeMap::new(),
    }
}

impl World {
    fn new(seed: u64) -> Self {
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
        };
        world.lead(0);
        world
    }

    /// One turn of a server: an event, the log, what follows.
    fn turn(
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

    fn redeem(&mut self, at: usize) {
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

    fn sync(&mut self, at: usize) {
        let server = &mut self.servers[at];
        if let Some(job) = server.log.begin_sync(SyncScope::All) {
            let outcome = job.run();
            server.log.end_sync(job, outcome).expect("the log works");
        }
        self.redeem(at);
        self.apply(at);
        self.check(at);
    }

    fn apply(&mut self, at: usize) {
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

    fn check(&self, at: usize) {
        let server = &self.servers[at];
        server.core.check_invariants().unwrap_or_else(|error| panic!("server {at}: {error}"));
        let Role::Primary(lead) = server.core.role() else { return };
        if server.up && server.lease && server.core.applied() >= lead.takeover() {
            let seen: BTreeSet<u64> = server.history.iter().flat_map(|c| c.1.clone()).collect();
            let missing = self.acked.difference(&seen).next();
            assert_eq!(missing, None, "server {at} serves reads without an acknowledged write");
        }
    }

    fn route(&mut self, from: usize, effects: Effects) {
        let ballot = self.servers[from].core.ballot();
        for effect in effects {
            let (to, message) = match effect {
                Effect::Prepare(to, prepare) => (to, Message::Prepare(prepare)),
                Effect::Ack(to, ack) => (to, Message::Ack(ack)),
                Effect::Invite(to, attempt) => (to, Message::Invite(ballot, attempt)),
                Effect::Change(change) => {
                    self.asked.push((from, change));
                    continue;
                }
                Effect::ReadLog(to, attempt, after) => {
                    self.read_log(from, to, attempt, after);
                    continue;
                }
                Effect::Sync => continue,
            };
            self.links.entry((from, index(to))).or_default().push_back(message);
        }
    }

    fn read_log(&mut self, at: usize, to: Node, attempt: i64, after: Decree) {
        let server = &self.servers[at];
        let range = (after, server.core.committed());
        let chunk = read_decided(&server.log, GPID, range, 0, 300).expect("the log is read");
        let (now, mut effects) = (self.now, Effects::new());
        let core = &mut self.servers[at].core;
        core.on_log_read(to, attempt, after, chunk.bodies, now, &mut effects);
        self.route(at, effects);
    }

    fn deliver(&mut self, from: usize, to: usize) {
        let Some(message) = self.links.get_mut(&(from, to)).and_then(VecDeque::pop_front) else {
            return;
        };
        if !self.servers[to].up {
            return;
        }
        let sender = node(from);
        match message {
            Message::Prepare(prepare) => self.turn(to, |core, log, out, _| {
                let given_up = core.on_prepare(sender, &prepare, log, out);
                core.due_ack(out);
                given_up
            }),
            Message::Ack(ack) => self.turn(to, |core, _, out, now| {
                core.on_ack(sender, &ack, now, out);
                GivenUp::default()
            }),
            Message::Invite(ballot, attempt) => {
                let mut position = None;
                self.turn(to, |core, log, _, _| {
                    match core.begin_learning(sender, ballot, attempt, log) {
                        Ok(given_up) => {
                            position = Some(core.committed());
                            given_up
                        }
                        Err(_) => GivenUp::default(),
                    }
                });
                if let Some(position) = position {
                    let message = Message::Learn(attempt, position);
                    self.links.entry((to, from)).or_default().push_back(message);
                }
            }
            Message::Learn(attempt, position) => {
                let lowest = self.servers[to].log.decrees(GPID).map(|(lowest, _)| lowest);
                let mut answer = LearnAnswer::Unknown;
                self.turn(to, |core, _, _, now| {
                    answer = core.on_learn(sender, attempt, position, lowest, now);
                    GivenUp::default()
                });
                if answer == LearnAnswer::Checkpoint {
                    let server = &self.servers[to];
                    let files = server.history.clone();
                    let message = Message::Checkpoint(server.core.ballot(), attempt, files);
                    self.links.entry((to, from)).or_default().push_back(message);
                }
            }
            Message::Checkpoint(ballot, attempt, files) => {
                self.install(to, from, ballot, attempt, files)
            }
        }
    }

    /// A learner takes a checkpoint for its own and goes on.
    fn install(
        &mut self,
        at: usize,
        from: usize,
        ballot: Ballot,
        attempt: i64,
        files: Vec<Content>,
    ) {
        let Role::Learner(follow) = self.servers[at].core.role() else { return };
        if follow.attempt != attempt {
            return;
        }
        let (disk, floor) =
            (self.servers[at].disk.restart(Crash::Kill), self.servers[at].log.end());
        let lease = self.servers[at].lease;
        let durable = files.len();
        self.servers[at] = open(&disk, self.durability, files, durable, (floor, ballot));
        self.servers[at].lease = lease;
        let message = Message::Invite(ballot, attempt);
        self.links.entry((from, at)).or_default().push_back(message);
    }

    /// The meta server answers one of the changes it was asked for, or the answer is lost and it is asked again.
    fn answer(&mut self) {
        if self.asked.is_empty() {
            return;
        }
        let (at, change) = self.asked.remove(self.rng.index(self.asked.len()));
        let members: Vec<usize> = change.secondaries.iter().map(|node| index(*node)).collect();
        let known = self.config.ballot == change.ballot
            && self.config.primary == Some(at)
            && self.config.secondaries == members;
        if !known && self.config.ballot.next() == change.ballot && self.config.primary == Some(at) {
            self.config = Config { ballot: change.ballot, primary: Some(at), secondaries: members };
        } else if !known {
            if self.servers[at].up {
                self.turn(at, |core, log, _, _| core.become_inactive(Ballot::ZERO, log));
            }
            return;
        }
        if self.rng.ratio(1, 4) {
            return self.asked.push((at, change));
        }
        if self.servers[at].up && self.servers[at].lease {
            self.lead(at);
        }
    }

    /// A server hears that it is primary.
    fn lead(&mut self, at: usize) {
        let (ballot, secondaries) = (self.config.ballot, self.config.secondaries.clone());
        let members: Vec<Node> = secondaries.into_iter().map(node).collect();
        self.turn(at, |core, log, out, now| {
            if core.lead(ballot, &members, log).is_ok() {
                core.tick(now, out);
            }
            GivenUp::default()
        });
    }

    /// The meta server looks after the group.
    fn cure(&mut self) {
        let alive = |servers: &[Server], at: usize| servers[at].up && servers[at].lease;
        let Some(primary) = self.config.primary else {
            let mut chosen = self.config.secondaries.clone();
            chosen.retain(|at| alive(&self.servers, *at));
            if let Some(at) = (!chosen.is_empty()).then(|| chosen[self.rng.index(chosen.len())]) {
                self.config.secondaries.retain(|member| *member != at);
                self.config.primary = Some(at);
                self.config.ballot = self.config.ballot.next();
                self.elections += 1;
                if self.rng.ratio(3, 4) {
                    self.lead(at);
                }
            }
            return;
        };
        if !self.servers[primary].lease {
            // The lease is over, whatever the server thinks: without others, its return is waited for.
            if !self.config.secondaries.is_empty() {
                self.config.primary = None;
                self.config.ballot = self.config.ballot.next();
            }
            return;
        }
        if !self.servers[primary].up {
            return;
        }
        if !self.servers[primary].core.role().is_primary() {
            self.config.ballot = self.config.ballot.next();
            return self.lead(primary);
        }
        if self.servers[primary].core.ballot() < self.config.ballot {
            return self.lead(primary);
        }
        let members = 1 + self.config.secondaries.len();
        let outside: Vec<usize> = (0..SERVERS)
            .filter(|at| *at != primary && !self.config.secondaries.contains(at))
            .filter(|at| alive(&self.servers, *at))
            .collect();
        if members < WANTED && !outside.is_empty() {
            let at = outside[self.rng.index(outside.len())];
            self.turn(primary, |core, _, out, now| {
                core.add_learner(node(at), WANTED, now, out);
                GivenUp::default()
            });
        }
    }

    fn write(&mut self) {
        let at = self.rng.index(SERVERS);
        let (up, primary) = (self.servers[at].up, self.servers[at].core.role().is_primary());
        if !up || !primary {
            return;
        }
        let number = self.next_write;
        self.next_write += 1;
        self.servers[at].writes.insert(Ticket(number as u32), number);
        self.turn(at, |core, _, _, _| {
            let body = Bytes::copy_from_slice(&number.to_be_bytes());
            let request = ClientRequest { code: &RPC_TEST_GROUP, body };
            let _ = core.enqueue(request, true, Ticket(number as u32));
            GivenUp::default()
        });
    }

    fn kill(&mut self, at: usize) {
        let server = &mut self.servers[at];
        if !server.up {
            return;
        }
        server.up = false;
        server.waiting.clear();
        self.asked.retain(|(asker, _)| *asker != at);
        self.killed += 1;
        let power = self.durability == Durability::GroupSync && self.rng.ratio(1, 2);
        let crash = if power { Crash::PowerLoss(self.rng.next_u64()) } else { Crash::Kill };
        let server = &mut self.servers[at];
        server.disk = server.disk.restart(crash);
        server.history.truncate(server.durable);
        self.links.retain(|(from, to), _| *from != at && *to != at);
    }

    fn restart(&mut self, at: usize) {
        let server = &self.servers[at];
        if server.up {
            return;
        }
        let (disk, lease) = (server.disk.clone(), server.lease);
        let (floor, ballot) = (server.floor, server.init_ballot);
        let (history, durable) = (server.history.clone(), server.durable);
        self.servers[at] = open(&disk, self.durability, history, durable, (floor, ballot));
        self.servers[at].lease = lease;
    }

    /// The lease ends for the meta server; the server itself notices now or later, and has stopped acknowledging.
    fn expire(&mut self, at: usize) {
        self.servers[at].lease = false;
    }

    fn renew(&mut self, at: usize) {
        if self.servers[at].lease || !self.servers[at].up {
            return;
        }
        // Whoever gets a new lease has noticed that the old one ended.
        self.turn(at, |core, log, _, _| core.become_inactive(Ballot::ZERO, log));
        self.asked.retain(|(asker, _)| *asker != at);
        self.servers[at].lease = true;
    }

    fn tick(&mut self, at: usize) {
        if self.servers[at].up {
            self.turn(at, |core, _, out, now| {
                core.tick(now, out);
                GivenUp::default()
            });
        }
    }

    fn step(&mut self) {
        let (at, other) = (self.rng.index(SERVERS), self.rng.index(SERVERS));
        match self.rng.below(1000) {
            0..150 => self.write(),
            150..700 => self.deliver(at, other),
            700..790 => self.sync(at),
            790..850 => {
                self.now += Duration::from_millis(self.rng.below(400));
                self.tick(at);
            }
            850..900 => self.answer(),
            900..940 => self.cure(),
            940..955 => drop(self.links.remove(&(at, other))),
            955..965 => {
                let link = self.links.entry((at, other)).or_default();
                if let Some(message) = link.front().cloned() {
                    link.push_back(message);
                }
            }
            965..975 => self.servers[at].durable = self.servers[at].history.len(),
            975..981 => self.kill(at),
            981..990 => self.restart(at),
            990..994 => self.expire(at),
            _ => self.renew(at),
        }
    }

    fn heal(&mut self) {
        for at in 0..SERVERS {
            self.restart(at);
            self.renew(at);
        }
        for round in 0..20_000 {
            for from in 0..SERVERS {
                for to in 0..SERVERS {
                    self.deliver(from, to);
                }
            }
            (0..SERVERS).for_each(|at| self.sync(at));
            self.answer();
            if round % 10 == 0 {
                self.cure();
                self.now += Duration::from_millis(100);
                (0..SERVERS).for_each(|at| self.tick(at));
            }
            if self.is_whole() {
                return;
            }
        }
        let Config { ballot, primary, secondaries } = &self.config;
        let roles: Vec<_> =
            self.servers.iter().map(|server| (server.core.role(), server.core.ballot())).collect();
        panic!("not whole again: ballot {ballot}, {primary:?} and {secondaries:?}\n{roles:#?}");
    }

    fn is_whole(&self) -> bool {
        let Some(primary) = self.config.primary else { return false };
        let leader = &self.servers[primary];
        let caught_up = |at: &usize| self.servers[*at].history.len() == leader.history.len();
        leader.core.role().is_primary()
            && leader.core.ballot() == self.config.ballot
            && leader.core.is_idle()
            && 1 + self.config.secondaries.len() == WANTED
            && self.config.secondaries.iter().all(caught_up)
    }
}

fn run(seed: u64, steps: usize) -> World {
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

#[test]
fn acknowledged_writes_survive_and_members_agree() {
    let seeds = std::env::var("GROUP_SEEDS").ok().and_then(|count| count.parse().ok());
    let seeds = 0..seeds.unwrap_or(2000_usize);
    let (mut acked, mut killed, mut elections) = (0, 0, 0);
    for seed in seeds.clone() {
        let outcome = std::panic::catch_unwind(|| {
            let world = run(seed as u64, 4_000);
            (world.acked.len(), world.killed, world.elections)
        });
        let counts = outcome.unwrap_or_else(|_| panic!("seed {seed}"));
        acked += counts.0;
        killed += counts.1;
        elections += counts.2;
    }
    println!("{seeds:?}: {acked} writes acknowledged, {killed} kills, {elections} elections");
    let count = seeds.end;
    assert!(acked > 20 * count && killed > 10 * count && elections > count / 3);
}

#[test]
fn a_learner_far_behind_begins_with_a_checkpoint_or_the_log() {
    let mut world = World::new(2);
    for _ in 0..200 {
        world.servers[0].writes.clear();
        world.write();
    }
    world.heal();
    assert_eq!(world.config.secondaries.len(), WANTED - 1);
}

#[test]
fn a_change_of_the_group_has_the_next_ballot_and_names_who_stays() {
    let mut world = World::new(0);
    world.heal();
    let primary = world.config.primary.expect("a primary");
    let gone = world.config.secondaries[0];
    let ballot = world.config.ballot;
    world.turn(primary, |core, _, out, now| {
        core.wish(ConfigType::Remove, Some(node(gone)), now, out);
        GivenUp::default()
    });
    let (_, change) = world.asked.last().expect("asked for").clone();
    assert_eq!((change.ballot, change.kind), (ballot.next(), ConfigType::Remove));
    assert!(!change.secondaries.contains(&node(gone)));
}
