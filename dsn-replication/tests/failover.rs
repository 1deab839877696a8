//! How soon another server takes over, and when it must not: the rule of `docs/failure-detection.md` in the simulator.

#[path = "../examples/counter/counter.rs"]
mod counter;

use counter::{ADD, Add, Counter, GET};
use dsn_core::sim::NodeId;
use dsn_replication::client::{ClientError, Target};
use dsn_replication::testing::cluster::{ClusterSpec, SimCluster};
use dsn_replication::wire::config::PartitionConfiguration;
use std::time::Duration;

const TABLE: &str = "counters";
const KEY: &[u8] = b"visits";
/// `fd_lease_seconds` and `fd_grace_seconds` when nothing else is configured.
const LEASE: Duration = Duration::from_secs(20);
const GRACE: Duration = Duration::from_secs(22);
/// Between two looks of the failure detector.
const CHECK: Duration = Duration::from_secs(2);

/// Three servers with one partition on all of them, written to once.
fn cluster(seed: u64, config: &str) -> SimCluster {
    let config = config.to_owned();
    let spec = ClusterSpec { seed, servers: 3, copies: 3, config, ..ClusterSpec::default() };
    let mut cluster = SimCluster::start::<Counter>(&spec);
    cluster.create_table(TABLE, 1);
    while group(&mut cluster).secondaries.len() < 2 {
        cluster.run_for(Duration::from_millis(100));
    }
    assert_eq!(add(&mut cluster), Ok(1));
    cluster
}

fn add(cluster: &mut SimCluster) -> Result<i64, String> {
    let add = Add { name: "visits".to_owned(), ..Add::default() };
    cluster.call(TABLE, &ADD, KEY, &add).map_err(|error| error.to_string())
}

fn count(cluster: &mut SimCluster) -> Result<i64, String> {
    cluster.call(TABLE, &GET, KEY, &"visits".to_owned()).map_err(|error| error.to_string())
}

fn group(cluster: &mut SimCluster) -> PartitionConfiguration {
    let config = cluster.config(TABLE).expect("the meta server answers");
    config.partitions.iter().next().expect("one partition")
}

/// The server that is primary, from 0.
fn primary(cluster: &mut SimCluster) -> usize {
    let primary = group(cluster).primary;
    let octets = primary.ip().octets();
    usize::from(octets[3]) - 10
}

/// Runs until the group has another primary than `before`; how long that took.
fn until_replaced(cluster: &mut SimCluster, before: usize, limit: Duration) -> Duration {
    let begun = cluster.sim().now();
    loop {
        let group = group(cluster);
        if group.primary.is_valid() && primary(cluster) != before {
            return cluster.sim().now() - begun;
        }
        let passed = cluster.sim().now() - begun;
        assert!(passed <= limit, "not replaced within {limit:?}: {group:?}");
        cluster.run_for(Duration::from_millis(5));
    }
}

/// Whether the group is as it was for all of `time`.
fn assert_unchanged(cluster: &mut SimCluster, before: &PartitionConfiguration, time: Duration) {
    let begun = cluster.sim().now();
    while cluster.sim().now() - begun < time {
        cluster.run_for(Duration::from_millis(200));
        let now = group(cluster);
        assert_eq!((now.ballot, now.primary), (before.ballot, before.primary), "changed too early");
    }
}

#[test]
fn a_killed_primary_is_replaced_at_once() {
    let mut worst = Duration::ZERO;
    for seed in 0..30 {
        let mut cluster = cluster(seed, "");
        let victim = primary(&mut cluster);
        let begun = cluster.sim().now();
        cluster.kill_server(victim);
        // A write that was under way would have an unknown end: the client does not send it again.
        assert_eq!(count(&mut cluster), Ok(1), "seed {seed}");
        assert_eq!(add(&mut cluster), Ok(2), "seed {seed}");
        worst = worst.max(cluster.sim().now() - begun);
        assert_ne!(primary(&mut cluster), victim);
        cluster.start_server(victim);
        assert_eq!(add(&mut cluster), Ok(3), "seed {seed}");
        cluster.finish();
    }
    println!("worst outage of 30 in virtual time: {worst:?}");
    assert!(worst < Duration::from_secs(1), "{worst:?}");
}

#[test]
fn a_primary_that_stops_in_order_is_replaced_at_once() {
    let mut cluster = cluster(1, "");
    let victim = primary(&mut cluster);
    cluster.stop_server(victim);
    let replaced = until_replaced(&mut cluster, victim, Duration::from_secs(1));
    assert!(replaced < Duration::from_secs(1), "{replaced:?}");
    assert_eq!(add(&mut cluster), Ok(2));
    cluster.finish();
}

/// Neither a reset nor silence, alone, is a death: the process may live and serve under its lease.
fn assert_waits_for_the_grace(seed: u64, disturb: impl Fn(&mut SimCluster, NodeId, usize)) {
    let mut cluster = cluster(seed, "");
    let before = group(&mut cluster);
    let victim = primary(&mut cluster);
    let server = cluster.server(victim);
    disturb(&mut cluster, server, victim);
    // The last beacon may have come a beacon interval before.
    assert_unchanged(&mut cluster, &before, GRACE - Duration::from_secs(4));
    until_replaced(&mut cluster, victim, CHECK + Duration::from_secs(6));
    cluster.sim().heal_network();
    cluster.sim().resume(server);
    assert_eq!(add(&mut cluster), Ok(2));
    assert_eq!(count(&mut cluster), Ok(2));
    cluster.finish();
}

#[test]
fn a_primary_that_is_cut_off_keeps_its_lease() {
    assert_waits_for_the_grace(2, |cluster, server, _| {
        let meta = cluster.meta();
        cluster.sim().partition(&[meta], &[server]);
        cluster.sim().reset_connections(meta, server, 100);
    });
}

#[test]
fn a_stopped_primary_keeps_its_lease() {
    assert_waits_for_the_grace(3, |cluster, server, _| {
        cluster.sim().pause(server);
        let meta = cluster.meta();
        cluster.sim().reset_connections(meta, server, 100);
    });
}

#[test]
fn a_host_without_power_is_waited_for() {
    let mut cluster = cluster(4, "");
    let before = group(&mut cluster);
    let victim = primary(&mut cluster);
    cluster.power_off_server(victim);
    assert_unchanged(&mut cluster, &before, LEASE - Duration::from_secs(4));
    until_replaced(&mut cluster, victim, Duration::from_secs(12));
    cluster.start_server(victim);
    cluster.finish();
}

#[test]
fn connections_that_are_reset_change_nothing() {
    let mut cluster = cluster(5, "");
    let before = group(&mut cluster);
    let (meta, server) = (cluster.meta(), cluster.server(primary_of(&before)));
    for _ in 0..20 {
        cluster.sim().reset_connections(meta, server, 100);
        assert_unchanged(&mut cluster, &before, Duration::from_secs(4));
    }
    assert_eq!(add(&mut cluster), Ok(2));
    cluster.finish();
}

fn primary_of(group: &PartitionConfiguration) -> usize {
    usize::from(group.primary.ip().octets()[3]) - 10
}

#[test]
fn the_grace_decides_where_the_rule_is_turned_off() {
    let mut cluster = cluster(6, "[meta_server]\nfast_failover_enabled = false");
    let before = group(&mut cluster);
    let victim = primary(&mut cluster);
    cluster.kill_server(victim);
    assert_unchanged(&mut cluster, &before, LEASE - Duration::from_secs(4));
    until_replaced(&mut cluster, victim, Duration::from_secs(12));
    cluster.start_server(victim);
    cluster.finish();
}

#[test]
fn a_primary_without_living_secondaries_stays_while_it_may_come_back() {
    let mut cluster = cluster(7, "");
    let victim = primary(&mut cluster);
    for server in 0..3 {
        cluster.kill_server(server);
    }
    cluster.run_for(Duration::from_secs(5));
    cluster.start_server(victim);
    assert_eq!(count(&mut cluster), Ok(1), "it has everything, and needs nobody to be read from");
    assert_eq!(primary(&mut cluster), victim);
    cluster.start_server((victim + 1) % 3);
    cluster.start_server((victim + 2) % 3);
    let again = (0..100).any(|_| {
        cluster.run_for(Duration::from_millis(100));
        add(&mut cluster) == Ok(2)
    });
    assert!(again, "with a second member it takes writes again");
    cluster.finish();
}

#[test]
fn a_stopped_secondary_holds_writes_up_for_half_a_second() {
    for (seed, members) in [(8, 3), (9, 2)] {
        let mut cluster = cluster(seed, "");
        for n in 2..40 {
            assert_eq!(add(&mut cluster), Ok(n));
        }
        let victim = group(&mut cluster).secondaries[0].ip().octets()[3] - 10;
        if members == 2 {
            // The other one goes first, in order.
            let other = group(&mut cluster).secondaries[1].ip().octets()[3] - 10;
            cluster.stop_server(usize::from(other));
            cluster.run_for(Duration::from_secs(1));
            for n in 40..80 {
                assert_eq!(add(&mut cluster), Ok(n));
            }
        }
        let server = cluster.server(usize::from(victim));
        cluster.sim().pause(server);
        let begun = cluster.sim().now();
        let outcome = add(&mut cluster);
        let waited = cluster.sim().now() - begun;
        println!("a group of {members}: {outcome:?} after {waited:?}");
        if members == 3 {
            assert!(outcome == Ok(40) && waited < Duration::from_millis(700), "{waited:?}");
        } else {
            // Without the only other member there are too few for writes: it is given the whole time.
            assert!(waited >= Duration::from_secs(3), "{waited:?}");
        }
        cluster.sim().resume(server);
    }
}

/// Of the last two members one stops while a write is under way: the other one does it, and says nothing.
#[test]
fn what_one_member_has_alone_is_not_acknowledged() {
    const WRITES: usize = 100;
    /// Mutations that a primary has under way, here of one write each.
    const WINDOW: i64 = 20;
    let mut cluster = cluster(11, "[replication]\nbatch_write_disabled = true");
    let secondaries = group(&mut cluster).secondaries;
    let server = |at: usize| usize::from(secondaries[at].ip().octets()[3] - 10);
    cluster.stop_server(server(1));
    cluster.run_for(Duration::from_secs(1));
    assert_eq!(add(&mut cluster), Ok(2), "two are enough");
    cluster.kill_server(server(0));
    let write = Add { name: "visits".to_owned(), ..Add::default() };
    let answers: Vec<_> =
        (0..WRITES).map(|_| cluster.send(TABLE, ADD.request(Target::key(KEY), &write))).collect();
    let failed: Vec<_> = answers.iter().filter_map(|answer| cluster.wait(answer).err()).collect();
    assert_eq!(failed.len(), WRITES, "none is acknowledged");
    let silent = |error: &&ClientError| error.to_string().contains("no answer");
    let silent = failed.iter().filter(silent).count() as i64;
    let counted = count(&mut cluster).expect("reads go on");
    let done = counted - 2;
    assert!((1..=WINDOW).contains(&done), "what was under way is done, no more: {done}");
    assert_eq!(
        silent, done,
        "a client that is told anything about an increment repeats it: {failed:?}"
    );
    cluster.start_server(server(0));
    let again = (0..100).any(|_| {
        cluster.run_for(Duration::from_millis(100));
        add(&mut cluster).is_ok()
    });
    assert!(again, "with a second member it takes writes again");
    cluster.finish();
}

#[test]
fn a_primary_that_died_together_with_the_meta_server_is_found_dead() {
    let mut cluster = cluster(10, "");
    let (victim, meta) = (primary(&mut cluster), cluster.meta());
    cluster.kill_server(victim);
    cluster.sim().kill(meta);
    cluster.sim().start(meta).expect("the meta server starts");
    let replaced = until_replaced(&mut cluster, victim, Duration::from_secs(14));
    // Three intervals of silence, and a look.
    assert!(replaced > Duration::from_secs(8), "{replaced:?}");
    assert_eq!(add(&mut cluster), Ok(2));
    cluster.start_server(victim);
    cluster.finish();
}
