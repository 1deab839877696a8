//! What the members of all groups may be at any moment, and what they must be at the end.
//!
//! While faults strike, every now and then and whenever a replica changes its role, its ballot or whether it may be
//! read: one primary per ballot; at most one server that may serve a partition's reads, by its own gate and clock; each
//! core's own invariants; no ballot reported but the core's; and no member behind what its primary calls committed.
//! After healing: every group has all its members, and members of equal decree have equal images on their disks, byte
//! for byte.

use super::groups;
use super::shape::{Servers, Shape};
use super::spy::Contents;
use dsn_core::disk::read_file;
use dsn_core::hash::mix64;
use dsn_core::sim::{Checker, NodeId, Sim};
use dsn_replication::host::ReplicaHost;
use dsn_replication::ids::{Ballot, Decree};
use dsn_replication::placement::Watch;
use dsn_replication::replica::Role;
use dsn_replication::wire::config::PartitionStatus;
use dsn_rpc::gpid::Gpid;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

/// Virtual time between two looks.
const INTERVAL: Duration = Duration::from_millis(20);

type Watches = Vec<(NodeId, Watch<ReplicaHost>)>;

/// Looks at all members every now and then.
pub struct Members {
    watches: Watches,
    contents: Contents,
    /// Members that lack what was committed are to be expected where stored bytes are damaged.
    damaged: bool,
    next: Duration,
    /// What the replicas of each server had published at its last turn, all in one number.
    published: Vec<u64>,
    /// Who was primary of a partition under a ballot.
    primaries: Rc<RefCell<Primaries>>,
    /// What a look finds, kept for the next one's sake.
    seen: Vec<Seen>,
}

/// Who was primary of a partition under a ballot.
#[derive(Debug, Default)]
pub struct Primaries {
    seen: BTreeMap<(i32, i32, Ballot), NodeId>,
}

impl Primaries {
    /// Pairs of a partition and a server that led it.
    pub fn leaders(&self) -> usize {
        let pairs = self.seen.iter().map(|((app, index, _), node)| (*app, *index, *node));
        pairs.collect::<BTreeSet<_>>().len()
    }

    /// Ballots under which anybody led, of all partitions.
    pub fn ballots(&self) -> usize {
        self.seen.len()
    }
}

/// One replica at one moment.
struct Seen {
    gpid: Gpid,
    node: NodeId,
    ballot: Ballot,
    committed: Decree,
    prepared: Decree,
    /// For a primary: the ports and addresses of its members do not matter, only whether this node is one.
    primary: bool,
    secondary: bool,
    serves: bool,
}

impl Members {
    /// Watches the replica servers.
    pub fn new(servers: &Servers, contents: Contents, damaged: bool) -> Self {
        let watches = watches(servers);
        let published = vec![0; watches.len()];
        let (next, primaries, seen) = (Duration::ZERO, Rc::default(), Vec::new());
        Self { watches, contents, damaged, next, published, primaries, seen }
    }

    /// Who led, as far as was seen.
    pub fn primaries(&self) -> Rc<RefCell<Primaries>> {
        self.primaries.clone()
    }

    /// Whether a replica of the server that had its turn has published something new.
    fn has_changed(&mut self, sim: &Sim) -> bool {
        let Some(node) = sim.last_turn() else { return false };
        let Some(at) = self.watches.iter().position(|(id, _)| *id == node) else { return false };
        let mut published = 0u64;
        self.watches[at].1.for_each(|gpid, placed| {
            let word = placed.gate.published() ^ mix64(gpid.partition_index as u64);
            published = published.wrapping_add(mix64(word));
        });
        std::mem::replace(&mut self.published[at], published) != published
    }

    fn look(&mut self, sim: &Sim) -> Result<(), String> {
        let mut all = std::mem::take(&mut self.seen);
        all.clear();
        for (node, watch) in &self.watches {
            if !sim.is_up(*node) {
                continue;
            }
            let mut broken = None;
            let now = sim.mono(*node);
            watch.for_each(|gpid, placed| {
                let looked = sim.peek(*node, placed.host, |host| {
                    let core = host.core();
                    if let Err(error) = core.check_invariants() {
                        broken = Some(error);
                    }
                    // What the meta server is told, and by which it chooses when all members are gone.
                    if placed.gate.ballot() != core.ballot() {
                        let (told, has) = (placed.gate.ballot(), core.ballot());
                        broken = Some(format!("{gpid}: reports ballot {told} and has {has}"));
                    }
                    Seen {
                        gpid,
                        node: *node,
                        ballot: core.ballot(),
                        committed: core.committed(),
                        prepared: core.prepared(),
                        primary: core.role().is_primary(),
                        secondary: matches!(core.role(), Role::Secondary(_)),
                        serves: placed.gate.serves(now),
                    }
                });
                all.extend(looked);
            });
            if let Some(error) = broken {
                return Err(format!("{}: {error}", sim.name(*node)));
            }
        }
        all.sort_by_key(|seen| (seen.gpid.app_id, seen.gpid.partition_index));
        for members in all.chunk_by(|one, next| one.gpid == next.gpid) {
            self.judge(sim, members[0].gpid, members)?;
        }
        self.seen = all;
        Ok(())
    }

    fn judge(&mut self, sim: &Sim, gpid: Gpid, members: &[Seen]) -> Result<(), String> {
        let mut serving = members.iter().filter(|seen| seen.serves);
        if let (Some(one), Some(other)) = (serving.next(), serving.next()) {
            let (one_name, other_name) = (sim.name(one.node), sim.name(other.node));
            return Err(format!(
                "{gpid}: {one_name} under ballot {} and {other_name} under ballot {} may both serve reads",
                one.ballot, other.ballot
            ));
        }
        for primary in members.iter().filter(|seen| seen.primary) {
            let key = (gpid.app_id, gpid.partition_index, primary.ballot);
            let first = *self.primaries.borrow_mut().seen.entry(key).or_insert(primary.node);
            if first != primary.node {
                return Err(format!(
                    "{gpid}: {} and {} were primary under ballot {}",
                    sim.name(first),
                    sim.name(primary.node),
                    primary.ballot
                ));
            }
            let same = |seen: &&Seen| seen.secondary && seen.ballot == primary.ballot;
            for member in members.iter().filter(same) {
                let behind = member.prepared < primary.committed && !self.damaged;
                if behind || member.committed > primary.prepared {
                    return Err(format!(
                        "{gpid}, ballot {}: {} has committed {} and prepared {}, {} {} and {}",
                        primary.ballot,
                        sim.name(primary.node),
                        primary.committed,
                        primary.prepared,
                        sim.name(member.node),
                        member.committed,
                        member.prepared
                    ));
                }
            }
        }
        Ok(())
    }
}

impl Checker for Members {
    fn name(&self) -> &'static str {
        "members"
    }

    fn after_step(&mut self, sim: &Sim) -> Result<(), String> {
        self.contents.settle(|server| sim.is_up(self.watches[server].0))?;
        let now = sim.now();
        if !self.has_changed(sim) && now < self.next {
            return Ok(());
        }
        self.next = now + INTERVAL;
        self.look(sim)
    }
}

fn watches(servers: &Servers) -> Watches {
    servers.replicas.iter().copied().zip(servers.watches.iter().cloned()).collect()
}

/// Partitions of the first table whose group is not complete: one primary that serves, and as many secondaries under
/// its ballot as are wanted, which have applied what it has.
pub fn incomplete(sim: &Sim, servers: &Servers, shape: &Shape) -> Vec<i32> {
    let mut groups: BTreeMap<i32, Vec<(PartitionStatus, Ballot, Decree)>> = BTreeMap::new();
    for (node, watch) in watches(servers) {
        watch.for_each(|gpid, placed| {
            if gpid.app_id == 1 && sim.is_up(node) {
                let (status, ballot) = (placed.gate.status(), placed.gate.ballot());
                let seen = (status, ballot, placed.gate.machine().last_applied());
                groups.entry(gpid.partition_index).or_default().push(seen);
            }
        });
    }
    let whole = |members: &Vec<(PartitionStatus, Ballot, Decree)>| {
        let primary = members.iter().find(|(status, ..)| *status == PartitionStatus::Primary);
        let Some((_, ballot, applied)) = primary else { return false };
        let member = (PartitionStatus::Secondary, *ballot, *applied);
        members.iter().filter(|seen| **seen == member).count() + 1 == shape.copies as usize
    };
    (0..shape.partitions).filter(|index| !groups.get(index).is_some_and(whole)).collect()
}

/// The replicas of a partition of the first table on servers that run.
fn replicas(sim: &Sim, servers: &Servers, index: i32) -> Vec<(Ballot, PartitionStatus, NodeId)> {
    let mut found = Vec::new();
    for (node, watch) in watches(servers) {
        watch.for_each(|gpid, placed| {
            if (gpid.app_id, gpid.partition_index) == (1, index) && sim.is_up(node) {
                found.push((placed.gate.ballot(), placed.gate.status(), node));
            }
        });
    }
    found
}

/// Who leads a partition of the first table: who does so under the highest ballot.
pub fn primary(sim: &Sim, servers: &Servers, index: i32) -> Option<NodeId> {
    let mut all = replicas(sim, servers, index);
    all.retain(|(_, status, _)| *status == PartitionStatus::Primary);
    all.into_iter().max_by_key(|(ballot, ..)| *ballot).map(|(_, _, node)| node)
}

/// How many servers, that run, lead a partition of the first table or follow under the same ballot.
pub fn followed(sim: &Sim, servers: &Servers, index: i32) -> usize {
    let all = replicas(sim, servers, index);
    let leads = |(_, status, _): &&(_, PartitionStatus, _)| *status == PartitionStatus::Primary;
    let Some(highest) = all.iter().filter(leads).map(|(ballot, ..)| *ballot).max() else {
        return 0;
    };
    all.iter().filter(|(ballot, status, _)| *ballot == highest && is_of_member(*status)).count()
}

/// Whether it is that of a member.
fn is_of_member(status: PartitionStatus) -> bool {
    matches!(status, PartitionStatus::Primary | PartitionStatus::Secondary)
}

/// Whether a server, of this number, is a member of the first partition of the first table.
pub fn is_member(servers: &Servers, server: usize) -> bool {
    let mut is_one = false;
    servers.watches[server].for_each(|gpid, placed| {
        is_one |=
            (gpid.app_id, gpid.partition_index) == (1, 0) && is_of_member(placed.gate.status());
    });
    is_one
}

/// Whether what a server, of this number, has may be all there is of a group: it leads one that has no other member, or
/// has asked for a change after which that may be so; or nobody else who runs is a member, for it may be about to lead,
/// or to lead again when its disk gives back what it has. Who takes itself for a member may have been put out and not
/// have heard: the meta server knows, and when it does not run it may be so.
pub fn has_all_there_is(sim: &Sim, servers: &Servers, partitions: i32, server: usize) -> bool {
    let (node, mut alone) = (servers.replicas[server], false);
    servers.watches[server].for_each(|_, placed| {
        let core = |host: &ReplicaHost| match host.core().role() {
            Role::Primary(lead) => lead.members() == 1 || lead.members() == 2 && lead.is_changing(),
            _ => false,
        };
        alone |= sim.peek(node, placed.host, core).unwrap_or_default();
    });
    let has_member_elsewhere = |index: i32| {
        let members = groups::members_of(sim, servers, index).unwrap_or_default();
        let elsewhere = replicas(sim, servers, index);
        elsewhere.iter().any(|(_, status, other)| {
            *other != node && is_of_member(*status) && members.contains(other)
        })
    };
    alone || !(0..partitions).all(has_member_elsewhere)
}

/// The members of a partition of the first table, for people.
pub fn describe(sim: &Sim, servers: &Servers, index: i32) -> String {
    let mut members = Vec::new();
    for (node, watch) in watches(servers) {
        watch.for_each(|gpid, placed| {
            if (gpid.app_id, gpid.partition_index) != (1, index) || !sim.is_up(node) {
                return;
            }
            let applied = placed.gate.machine().last_applied();
            let core = sim.peek(node, placed.host, |host| {
                let core = host.core();
                let (ballot, committed, prepared) =
                    (core.ballot(), core.committed(), core.prepared());
                format!("ballot {ballot}, prepared {prepared}, committed {committed}")
            });
            let (name, status) = (sim.name(node), placed.gate.status());
            let core = core.unwrap_or_default();
            members.push(format!("{name}: {status:?}, {core}, applied {applied}"));
        });
    }
    members.sort();
    format!("partition {index}: {}", members.join("; "))
}

/// After an orderly stop: replicas of equal decree have equal images; where stored bytes are `damaged`, those that are
/// whole. Returns how many were compared.
///
/// # Errors
/// Who differs.
pub fn compare_images(sim: &Sim, servers: &Servers, damaged: bool) -> Result<u64, String> {
    let mut images: BTreeMap<(String, [u8; 8]), (NodeId, bytes::Bytes)> = BTreeMap::new();
    let mut compared = 0;
    let bases: Vec<String> = servers.replica_dirs().collect();
    for id in &servers.replicas {
        let disk = sim.disk(*id);
        for (path, _) in disk.files() {
            let replica = bases.iter().find_map(|base| path.strip_prefix(base.as_str()));
            let Some(replica) = replica.and_then(|path| path.strip_prefix('/')) else { continue };
            let Some(replica) = replica.strip_suffix(".pegasus/data/rdb/IMAGE") else { continue };
            let Ok(image) = read_file(&disk, Path::new(&path)) else { continue };
            let Some(decree) = image.get(DECREE_AT..DECREE_AT + 8) else { continue };
            // A bit that has flipped since and that nobody has read yet.
            let is_whole = image.starts_with(MAGIC)
                && image[CRC_AT..DECREE_AT] == crc32c::crc32c(&image[DECREE_AT..]).to_be_bytes();
            if damaged && !is_whole {
                continue;
            }
            let decree: [u8; 8] = decree.try_into().expect("eight bytes");
            let number = i64::from_be_bytes(decree);
            let key = (replica.to_owned(), decree);
            if let Some((other, first)) = images.get(&key) {
                if *first != image {
                    let (one, two) = (sim.name(*other), sim.name(*id));
                    return Err(format!("{replica} differs at decree {number} on {one} and {two}"));
                }
                compared += 1;
            } else {
                images.insert(key, (*id, image));
            }
        }
    }
    Ok(compared)
}

/// After an orderly stop: no server has a replica of a partition in two of its data directories.
///
/// # Errors
/// Which it has twice.
pub fn compare_places(sim: &Sim, servers: &Servers) -> Result<(), String> {
    for id in &servers.replicas {
        let disk = sim.disk(*id);
        let mut places: BTreeMap<String, String> = BTreeMap::new();
        for dir in servers.replica_dirs() {
            let names = disk.names(Path::new(&dir));
            for name in names.into_iter().filter(|name| name.ends_with(".pegasus")) {
                if let Some(other) = places.insert(name.clone(), dir.clone()) {
                    let server = sim.name(*id);
                    return Err(format!("{server} has {name} in {other} and in {dir}"));
                }
            }
        }
    }
    Ok(())
}

/// How an image of the in-memory engine begins.
const MAGIC: &[u8] = b"PGSMEM\x00\x02";
/// Where it has its decree: after magic and checksum.
const DECREE_AT: usize = 12;
/// Where it has the checksum of what follows that.
const CRC_AT: usize = 8;
