//! Disks that hang: no sync ends, and none fails.

#[path = "../examples/counter/counter.rs"]
mod counter;

use counter::{ADD, Add, Counter};
use dsn_core::sim::DiskFault;
use dsn_replication::client::Target;
use dsn_replication::testing::cluster::{Answer, ClusterSpec, SimCluster};
use dsn_replication::wire::config::PartitionConfiguration;
use std::time::Duration;

const TABLE: &str = "counters";
const PARTITIONS: i32 = 4;
/// `log_sync_timeout_seconds` when nothing else is configured.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long a disk hangs here.
const HUNG: Duration = Duration::from_secs(120);
/// How long it may take, when the disk works again, until everything is as before: opening, learning.
const AGAIN: Duration = Duration::from_secs(600);
/// Until the others have heard of it, and a client has tried again.
const CHANGE: Duration = Duration::from_secs(5);

fn cluster(seed: u64, data_dirs: usize) -> SimCluster {
    let config = "[replication]\nlog_durability = \"group_sync\"\n".to_owned();
    let servers = ClusterSpec { seed, servers: 3, copies: 3, ..ClusterSpec::default() };
    let mut cluster = SimCluster::start::<Counter>(&ClusterSpec { config, data_dirs, ..servers });
    cluster.create_table(TABLE, PARTITIONS);
    wait_for_members(&mut cluster, 3, Duration::from_secs(120));
    for partition in 0..PARTITIONS {
        assert_eq!(add(&mut cluster, partition), Ok(1), "seed {seed}");
    }
    cluster
}

fn send(cluster: &mut SimCluster, partition: i32) -> Answer<i64> {
    let add = Add { name: "visits".to_owned(), ..Add::default() };
    cluster.send(TABLE, ADD.request(Target::Partition(partition), &add))
}

fn add(cluster: &mut SimCluster, partition: i32) -> Result<i64, String> {
    let answer = send(cluster, partition);
    cluster.wait(&answer).map_err(|error| error.to_string())
}

/// Adds, and once more if the server that leads leaves meanwhile: nobody knows what becomes of the first then. Returns
/// how often, and the sum.
fn add_though_it_leaves(cluster: &mut SimCluster, partition: i32) -> (usize, i64) {
    let led = groups(cluster)[partition as usize].primary;
    let first = send(cluster, partition);
    loop {
        let leader = groups(cluster)[partition as usize].primary;
        if first.is_there() || (leader.is_valid() && leader != led) {
            break;
        }
        cluster.run_for(Duration::from_millis(10));
    }
    match first.take() {
        Some(Ok(sum)) => (1, sum),
        _ => (2, add(cluster, partition).expect("another server leads")),
    }
}

fn groups(cluster: &mut SimCluster) -> Vec<PartitionConfiguration> {
    let config = cluster.config(TABLE).expect("the meta server answers");
    config.partitions.iter().collect()
}

/// The server that is primary of a partition, from 0.
fn primary(cluster: &mut SimCluster, partition: i32) -> usize {
    let primary = groups(cluster)[partition as usize].primary;
    usize::from(primary.ip().octets()[3]) - 10
}

/// Runs until every group has a primary and so many members.
fn wait_for_members(cluster: &mut SimCluster, members: usize, limit: Duration) {
    let begun = cluster.sim().now();
    loop {
        let groups = groups(cluster);
        let has = |group: &PartitionConfiguration| {
            group.primary.is_valid() && 1 + group.secondaries.len() >= members
        };
        if groups.len() == PARTITIONS as usize && groups.iter().all(has) {
            return;
        }
        assert!(cluster.sim().now() - begun < limit, "after {limit:?}: {groups:?}");
        cluster.run_for(Duration::from_millis(100));
    }
}

/// Lets the disk of a server hang, or a part of it.
fn hang(cluster: &mut SimCluster, server: usize, path: &str) {
    let node = cluster.server(server);
    let fault = DiskFault::HungSync { limit: HUNG, path: path.to_owned() };
    cluster.sim().disk(node).add_fault(fault);
}

#[test]
fn a_primary_whose_disk_hangs_leaves_within_the_time_for_a_sync() {
    for seed in 1..6 {
        let mut cluster = cluster(seed, 1);
        let hung = primary(&mut cluster, 0);
        hang(&mut cluster, hung, "");
        let begun = cluster.sim().now();
        let (sent, second) = add_though_it_leaves(&mut cluster, 0);
        assert_eq!(sent, 2, "seed {seed}: nobody knows what becomes of the first");
        let took = cluster.sim().now() - begun;
        println!("seed {seed}: written after {took:?}");
        assert!(took < TIMEOUT + CHANGE, "seed {seed}: {took:?}");
        assert!((2..=3).contains(&second), "seed {seed}: once each: {second}");
        assert_ne!(primary(&mut cluster, 0), hung, "seed {seed}");
        for partition in 1..PARTITIONS {
            // One that the same server leads without having been written to may still find out.
            let begun = cluster.sim().now();
            add_though_it_leaves(&mut cluster, partition);
            assert!(cluster.sim().now() - begun < TIMEOUT + CHANGE, "seed {seed}");
        }
        cluster.run_for(HUNG);
        wait_for_members(&mut cluster, 3, AGAIN);
        assert_eq!(add(&mut cluster, 0), Ok(second + 1), "seed {seed}");
        cluster.finish();
    }
}

#[test]
fn a_member_whose_disk_hangs_is_left_out() {
    let mut cluster = cluster(7, 1);
    let hung = (primary(&mut cluster, 0) + 1) % 3;
    hang(&mut cluster, hung, "");
    let begun = cluster.sim().now();
    let led: Vec<i32> = (0..PARTITIONS).filter(|p| primary(&mut cluster, *p) != hung).collect();
    for partition in led {
        assert_eq!(add(&mut cluster, partition), Ok(2));
    }
    let took = cluster.sim().now() - begun;
    println!("written after {took:?}");
    assert!(took < TIMEOUT + CHANGE, "{took:?}");
    cluster.run_for(HUNG);
    wait_for_members(&mut cluster, 3, AGAIN);
    cluster.finish();
}

#[test]
fn a_disk_that_hangs_holds_up_no_other_one() {
    let mut cluster = cluster(8, 2);
    // Two of four replicas are on it.
    hang(&mut cluster, 0, "/data2/");
    let mut answers: Vec<_> =
        (0..PARTITIONS).map(|partition| send(&mut cluster, partition)).collect();
    cluster.run_for(Duration::from_secs(1));
    answers.retain(|answer| answer.is_there());
    assert!(answers.len() >= 2, "{} answers", answers.len());
    for answer in answers {
        assert_eq!(answer.take().expect("it is there").map_err(|e| e.to_string()), Ok(2));
    }
    cluster.run_for(TIMEOUT + CHANGE);
    for partition in 0..PARTITIONS {
        assert!(add(&mut cluster, partition).expect("the others go on") >= 2);
    }
    wait_for_members(&mut cluster, 3, AGAIN);
    cluster.finish();
}
