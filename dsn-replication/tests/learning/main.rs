//! Learners of a checkpoint: what the log keeps for them, how many copy at a time, how fast, and who is to learn.

#[path = "../../examples/log_store/log_store.rs"]
mod log_store;
mod outdated;
mod pins;
mod unsynced;

use bytes::Bytes;
use dsn_core::disk::Disk;
use dsn_core::sim::{DiskFault, DiskOp, NodeId};
use dsn_replication::client::{ClientError, Target};
use dsn_replication::testing::cluster::{ClusterSpec, SimCluster};
use log_store::{APPEND, LogStore};
use std::path::Path;
use std::time::Duration;

/// Lost members are replaced at once; the log keeps nothing that nobody needs.
const CONFIG: &str = "[meta_server]\nreplica_assign_delay_ms_for_dropouts = 0\n[replication]\n\
    checkpoint_interval_seconds = 1\nlog_private_file_size_mb = 1\nlog_private_reserve_max_time_seconds = 0\n\
    log_private_reserve_max_size_mb = 0\nlog_shared_file_count_limit = 2\n";

const TABLE: &str = "logs";

/// How many times as slow a disk is that takes more than half a minute for 4 MiB.
const SLOW: u64 = 11_000;

struct World {
    cluster: SimCluster,
    partitions: i32,
}

impl World {
    fn new(seed: u64, partitions: i32, more: &str) -> Self {
        Self::with(seed, partitions, more, true)
    }

    /// The fourth server is not started yet.
    fn without_the_last(seed: u64, partitions: i32, more: &str) -> Self {
        Self::with(seed, partitions, more, false)
    }

    fn with(seed: u64, partitions: i32, more: &str, last: bool) -> Self {
        Self::of((4, 1), seed, partitions, more, last)
    }

    /// So many servers with so many data directories each.
    fn of(
        (servers, data_dirs): (usize, usize),
        seed: u64,
        partitions: i32,
        more: &str,
        last: bool,
    ) -> Self {
        let config = format!("{CONFIG}{more}");
        let spec =
            ClusterSpec { seed, servers, copies: 3, data_dirs, config, ..ClusterSpec::default() };
        let mut cluster = SimCluster::start::<LogStore>(&spec);
        if !last {
            cluster.kill_server(3);
        }
        cluster.create_table(TABLE, partitions);
        let mut world = Self { cluster, partitions };
        world.run_until_whole(Duration::from_secs(30));
        world
    }

    /// Appends so many MiB to each partition.
    fn append(&mut self, mib: usize) {
        let entry = Bytes::from(vec![b'x'; 256 << 10]);
        for _ in 0..4 * mib {
            for partition in 0..self.partitions {
                let request = APPEND.request(Target::Partition(partition), &entry);
                let answer = self.cluster.send(TABLE, request);
                self.cluster.wait(&answer).expect("the append is acknowledged");
            }
        }
    }

    /// Appends a little to the first partition.
    fn append_one(&mut self) -> Result<(), ClientError> {
        let request = APPEND.request(Target::Partition(0), &Bytes::from_static(b"x"));
        let answer = self.cluster.send(TABLE, request);
        self.cluster.wait(&answer).map(drop)
    }

    /// Members of each group.
    fn groups(&mut self) -> Vec<(usize, Vec<usize>)> {
        let index = |ip: std::net::Ipv4Addr| usize::from(ip.octets()[3]) - 10;
        let config = self.cluster.config(TABLE).expect("the meta server answers");
        let group = |group: dsn_replication::wire::config::PartitionConfiguration| {
            let secondaries = group.secondaries.iter().map(|node| index(node.ip()));
            // Nobody's number, while there is no primary.
            let primary = if group.primary.is_valid() { index(group.primary.ip()) } else { 99 };
            (primary, secondaries.collect())
        };
        config.partitions.iter().map(group).collect()
    }

    fn run_until_whole(&mut self, limit: Duration) -> Duration {
        let begun = self.cluster.sim().now();
        while self.groups().iter().any(|(_, secondaries)| secondaries.len() < 2) {
            let passed = self.cluster.sim().now() - begun;
            assert!(passed < limit, "not whole after {passed:?}: {:?}", self.groups());
            self.cluster.run_for(Duration::from_millis(100));
        }
        self.cluster.sim().now() - begun
    }

    /// A server that is secondary of everything it has: `None` when there is none.
    fn secondary(&mut self) -> usize {
        let groups = self.groups();
        let found = (0..4)
            .find(|n| groups.iter().all(|(primary, others)| primary != n && others.contains(n)));
        found.unwrap_or_else(|| panic!("no server is secondary of all: {groups:?}"))
    }

    /// Kills a server, and waits until its groups know.
    fn lose(&mut self, server: usize) {
        self.cluster.kill_server(server);
        let knows = |groups: Vec<(usize, Vec<usize>)>| {
            groups.iter().all(|(primary, others)| *primary != server && !others.contains(&server))
        };
        for _ in 0..1000 {
            if knows(self.groups()) {
                return;
            }
            self.cluster.run_for(Duration::from_millis(5));
        }
        panic!("a dead server is still a member: {:?}", self.groups());
    }

    fn log_files(&mut self, server: usize) -> usize {
        let id: NodeId = self.cluster.server(server);
        let dir = Path::new("/data/replica/log");
        self.cluster.sim().disk(id).list(dir).expect("the log's directory").len()
    }
}

#[test]
fn the_log_keeps_nothing_for_learners_that_have_learned() {
    let mut world = World::new(1, 1, "");
    world.append(4);
    world.cluster.run_for(Duration::from_secs(5));
    let (primary, _) = world.groups()[0];
    assert!(world.log_files(primary) <= 4, "a newcomer needs a checkpoint");
    let lost = world.secondary();
    world.lose(lost);
    world.run_until_whole(Duration::from_secs(60));
    world.append(8);
    world.cluster.run_for(Duration::from_secs(20));
    let files = world.log_files(primary);
    assert!(files <= 4, "{files} files of 1 MiB are kept for nobody");
    world.cluster.start_server(lost);
    world.cluster.finish();
}

/// Four partitions of 3 MiB are copied to one server at 1 MiB per second; when each of them was whole again.
fn copied(concurrent: usize) -> Vec<Duration> {
    let more = format!(
        "learn_app_max_concurrent_count = {concurrent}\n[nfs]\nmax_copy_rate_megabytes_per_disk = 1\n"
    );
    let mut world = World::without_the_last(3, 4, &more);
    world.append(3);
    // All have told the meta server what they have: those that lose their primary get one of two each.
    world.cluster.run_for(Duration::from_secs(35));
    world.lose(0);
    // All of them find a place at the same moment.
    world.cluster.start_server(3);
    let begun = world.cluster.sim().now();
    let mut whole = Vec::new();
    while whole.len() < 4 {
        world.cluster.run_for(Duration::from_millis(100));
        let passed = world.cluster.sim().now() - begun;
        assert!(passed < Duration::from_secs(60), "{whole:?}: {:?}", world.groups());
        let count = world.groups().iter().filter(|(_, others)| others.len() == 2).count();
        whole.resize(count.max(whole.len()), passed);
    }
    world.cluster.start_server(0);
    world.cluster.finish();
    whole
}

#[test]
fn learners_of_checkpoints_take_turns_and_keep_to_the_rate() {
    let seconds = Duration::from_secs;
    let (turns, together) = (copied(1), copied(4));
    println!("one at a time {turns:?}, all at once {together:?}");
    for whole in [&turns, &together] {
        assert!(whole[3] >= seconds(11) && whole[3] < seconds(20), "12 MiB at 1 MiB/s: {whole:?}");
    }
    assert!(turns[0] < seconds(6) && turns[2] < seconds(12), "one after the other: {turns:?}");
    assert!(together[0] > seconds(8), "the disk is shared: {together:?}");
}

/// To describe a checkpoint, all of it is read. That may take longer than the learner waits for an answer: it asks
/// again and is told to wait, and what was begun is not begun anew.
#[test]
fn a_checkpoint_that_takes_long_to_describe_is_learned_at_the_first_attempt() {
    let mut world = World::without_the_last(5, 1, "");
    world.append(4);
    world.cluster.run_for(Duration::from_secs(5));
    world.lose(0);
    let survivors = [1, 2].map(|server| world.cluster.server(server));
    let slow = DiskFault::Slow { factor: SLOW, path: String::new() };
    let disks = survivors.map(|id| world.cluster.sim().disk(id));
    let faults = disks.each_ref().map(|disk| disk.add_fault(slow.clone()));
    world.cluster.start_server(3);
    world.cluster.run_for(Duration::from_secs(3));
    disks.iter().zip(faults).for_each(|(disk, fault)| disk.remove_fault(fault));
    let took = world.run_until_whole(Duration::from_secs(70));
    println!("whole after {took:?}");
    assert!(took > Duration::from_secs(30), "the question was answered in time: {took:?}");
    assert!(took < Duration::from_secs(58), "it was given up after a minute: {took:?}");
    world.cluster.start_server(0);
    world.cluster.finish();
}

/// The disk of a server takes nothing any more, the server lives: others lead and learn in its place.
fn whole_without(broken: usize, world: &mut World) {
    let node = world.cluster.server(broken);
    let fault = DiskFault::Fail { op: DiskOp::Write, one_in: 1, path: "/".to_owned() };
    world.cluster.sim().disk(node).add_fault(fault);
    let _ = world.append_one();
    // Whom nobody writes to is asked every ten seconds.
    world.cluster.run_for(Duration::from_secs(15));
    for (primary, others) in world.groups() {
        assert!(primary != broken && !others.contains(&broken), "{primary} {others:?}");
    }
    let took = world.run_until_whole(Duration::from_secs(120));
    println!("whole again after {took:?}");
    for (primary, others) in world.groups() {
        assert!(primary != broken && !others.contains(&broken), "{primary} {others:?}");
    }
    world.append(1);
}

#[test]
fn a_member_whose_disk_is_broken_is_replaced() {
    let mut world = World::new(5, 2, "");
    world.append(1);
    let broken = world.secondary();
    whole_without(broken, &mut world);
    world.cluster.finish();
}

#[test]
fn a_primary_whose_disk_is_broken_is_replaced() {
    let mut world = World::new(3, 2, "");
    world.append(1);
    let (broken, _) = world.groups()[0];
    whole_without(broken, &mut world);
    world.cluster.finish();
}

/// Directories of replicas on a disk of a server, by what became of them.
fn dirs(world: &mut World, server: usize, data: &str) -> (usize, usize) {
    let id = world.cluster.server(server);
    let base = format!("{data}/replica/reps");
    let found = world.cluster.sim().disk(id).list(Path::new(&base)).expect("it is there");
    let aside = found.iter().filter(|entry| entry.name.ends_with(".gar")).count();
    (found.len() - aside, aside)
}

/// One of two disks of a server breaks, and there is no other server: what was on it is learned anew, onto the other.
/// When the disk works again, after a restart or without one, the replicas that fell behind are not taken for those
/// in use.
#[test]
fn what_was_on_a_broken_disk_is_learned_anew_onto_another() {
    for restart in [false, true] {
        let mut world = World::of((3, 2), 4, 4, "", true);
        world.append(1);
        assert_eq!((dirs(&mut world, 1, "/data"), dirs(&mut world, 1, "/data2")), ((2, 0), (2, 0)));
        let node = world.cluster.server(1);
        let faults = [DiskOp::Read, DiskOp::Write].map(|op| {
            let fault = DiskFault::Fail { op, one_in: 1, path: "/data2/".to_owned() };
            world.cluster.sim().disk(node).add_fault(fault)
        });
        for partition in 0..4 {
            let request = APPEND.request(Target::Partition(partition), &Bytes::from_static(b"x"));
            let answer = world.cluster.send(TABLE, request);
            world.cluster.wait(&answer).expect("two of three, or all on the good disk");
        }
        world.cluster.run_for(Duration::from_secs(15));
        let groups = world.groups();
        let gone = groups.iter().filter(|(_, others)| others.len() < 2).count();
        assert_eq!(gone, 2, "{groups:?}");
        let took = world.run_until_whole(Duration::from_secs(240));
        println!("whole again after {took:?}");
        assert_eq!(dirs(&mut world, 1, "/data"), (4, 0));
        world.append(1);
        if restart {
            world.cluster.kill_server(1);
        }
        for fault in faults {
            world.cluster.sim().disk(node).remove_fault(fault);
        }
        if restart {
            world.cluster.start_server(1);
        }
        world.cluster.run_for(Duration::from_secs(100));
        world.run_until_whole(Duration::from_secs(60));
        assert_eq!((dirs(&mut world, 1, "/data"), dirs(&mut world, 1, "/data2")), ((4, 0), (0, 2)));
        world.append(1);
        world.cluster.finish();
    }
}

/// The directory of the first partition's replica on a server, and the data directory it is in.
fn place(world: &mut World, server: usize) -> Option<(&'static str, String)> {
    let id = world.cluster.server(server);
    ["/data", "/data2"].into_iter().find_map(|data| {
        let base = format!("{data}/replica/reps");
        let found = world.cluster.sim().disk(id).names(Path::new(&base));
        let name =
            found.into_iter().find(|name| name.starts_with("1.0.") && !name.ends_with(".gar"))?;
        Some((data, format!("{base}/{name}")))
    })
}

/// One replica, and nothing else of its data directory, cannot be read or written any more: after a while it is learned
/// anew, in another data directory where there is one, though no other server could take its place.
#[test]
fn a_replica_that_its_disk_refuses_for_good_is_learned_anew() {
    for data_dirs in [1, 2] {
        let mut world = World::of((3, data_dirs), 6, 2, "", true);
        world.append(1);
        let broken = (0..3).find(|n| world.groups()[0].0 != *n).expect("a secondary");
        let (data, dir) = place(&mut world, broken).expect("it has one");
        let node = world.cluster.server(broken);
        let faults = [DiskOp::Read, DiskOp::Write].map(|op| {
            let fault = DiskFault::Fail { op, one_in: 1, path: format!("{dir}/") };
            world.cluster.sim().disk(node).add_fault(fault)
        });
        world.append(1);
        world.cluster.run_for(Duration::from_secs(20));
        let members = |world: &mut World| {
            let counts: Vec<usize> =
                world.groups().iter().map(|(_, others)| others.len()).collect();
            counts
        };
        assert_eq!(members(&mut world), [1, 2], "the other partition is well");
        assert_eq!(dirs(&mut world, broken, data).1, 0, "it may come back");
        // What is wrong is in the old files, not in those that come.
        for _ in 0..600 {
            if dirs(&mut world, broken, data).1 > 0 {
                break;
            }
            world.cluster.run_for(Duration::from_millis(100));
        }
        assert!(dirs(&mut world, broken, data).1 > 0, "it is put aside");
        for fault in faults {
            world.cluster.sim().disk(node).remove_fault(fault);
        }
        let took = world.run_until_whole(Duration::from_secs(120));
        println!("whole again after {took:?}");
        let (now, _) = place(&mut world, broken).expect("it has another");
        assert_eq!(now != data, data_dirs > 1, "{now}");
        world.append(1);
        world.cluster.kill_server(broken);
        world.cluster.run_for(Duration::from_secs(1));
        world.cluster.start_server(broken);
        world.run_until_whole(Duration::from_secs(60));
        world.cluster.finish();
    }
}

/// A machine loses its power. Its group finds out before the meta server does, which wants it back until then: somebody
/// else takes its place as soon as it is known to be dead.
#[test]
fn a_dead_learner_gives_way_to_another() {
    let mut world = World::of((4, 1), 4, 1, "", true);
    world.append_one().expect("the append is acknowledged");
    let lost = world.secondary();
    world.cluster.power_off_server(lost);
    world.append_one().expect("the append is acknowledged");
    assert!(!world.groups()[0].1.contains(&lost), "it was asked for");
    let took = world.run_until_whole(Duration::from_secs(90));
    println!("whole after {took:?}");
    assert!(took < Duration::from_secs(25), "it was waited for: {took:?}");
    world.cluster.start_server(lost);
    world.cluster.finish();
}
