//! All machines of a group lose their power while acknowledgements rest on the page cache alone: whoever may have lost
//! something does not lead while another has it, and nobody is waited for for ever.

#[path = "../examples/counter/counter.rs"]
mod counter;

use counter::{ADD, Add, Counter, GET};
use dsn_replication::testing::cluster::{ClusterSpec, SimCluster};
use dsn_replication::wire::config::PartitionConfiguration;
use std::time::Duration;

const TABLE: &str = "counters";
const KEY: &[u8] = b"visits";
const SERVERS: usize = 3;
const SECOND: Duration = Duration::from_secs(1);
/// `fd_grace_seconds` when nothing else is configured: until then a server whose machine is off counts as alive.
const GRACE: Duration = Duration::from_secs(22);
/// Acknowledged additions before the power fails.
const ADDED: i64 = 5;

/// Three servers with one partition on all of them, everything written back, then some additions that are not.
fn cluster(seed: u64, config: &str) -> SimCluster {
    let config = config.to_owned();
    let spec = ClusterSpec { seed, servers: SERVERS, copies: 3, config, ..ClusterSpec::default() };
    let mut cluster = SimCluster::start::<Counter>(&spec);
    cluster.create_table(TABLE, 1);
    while group(&mut cluster).secondaries.len() < 2 {
        cluster.run_for(SECOND / 10);
    }
    (0..SERVERS).for_each(|server| write_back(&mut cluster, server));
    (0..ADDED).for_each(|_| add(&mut cluster));
    cluster
}

fn write_back(cluster: &mut SimCluster, server: usize) {
    let id = cluster.server(server);
    cluster.sim().disk(id).write_back();
}

fn add(cluster: &mut SimCluster) {
    let add = Add { name: "visits".to_owned(), ..Add::default() };
    cluster.call(TABLE, &ADD, KEY, &add).expect("an answer");
}

fn count(cluster: &mut SimCluster) -> i64 {
    cluster.call(TABLE, &GET, KEY, &"visits".to_owned()).expect("an answer")
}

fn group(cluster: &mut SimCluster) -> PartitionConfiguration {
    let config = cluster.config(TABLE).expect("the meta server answers");
    config.partitions.iter().next().expect("one partition")
}

/// Servers from 0, the primary first.
fn members(cluster: &mut SimCluster) -> Vec<usize> {
    let group = group(cluster);
    let all = [group.primary].into_iter().chain(group.secondaries);
    all.map(|node| usize::from(node.ip().octets()[3]) - 10).collect()
}

fn lose_all_power(cluster: &mut SimCluster) {
    (0..SERVERS).for_each(|server| cluster.power_off_server(server));
}

#[test]
fn what_one_member_has_kept_is_not_lost_though_others_are_back_first() {
    for seed in 0..40 {
        println!("seed {seed}");
        let mut cluster = cluster(seed, "");
        let members = members(&mut cluster);
        let whole = members[1 + seed as usize % 2];
        write_back(&mut cluster, whole);
        lose_all_power(&mut cluster);
        cluster.start_server(members[0]);
        cluster.run_for(SECOND * (seed as u32 % 40));
        if seed % 3 == 0 {
            // It has not forgotten that something may be missing.
            cluster.kill_server(members[0]);
            cluster.start_server(members[0]);
            cluster.run_for(SECOND * 3);
        }
        for server in members.iter().rev().filter(|server| **server != members[0]) {
            cluster.start_server(*server);
            cluster.run_for(SECOND * 2);
        }
        assert_eq!(count(&mut cluster), ADDED, "seed {seed}: one member has them all");
        // A write needs two members; the others learn first.
        let until = cluster.sim().now() + SECOND * 10;
        while group(&mut cluster).secondaries.is_empty() {
            assert!(cluster.sim().now() < until, "seed {seed}: nobody has learned");
            cluster.run_for(SECOND / 10);
        }
        add(&mut cluster);
        cluster.finish();
    }
}

#[test]
fn a_member_that_was_not_started_anew_takes_over_at_once() {
    for seed in 0..20 {
        let mut cluster = cluster(seed, "");
        let members = members(&mut cluster);
        let begun = cluster.sim().now();
        for server in &members[..1 + seed as usize % 2] {
            cluster.power_off_server(*server);
            cluster.start_server(*server);
        }
        assert_eq!(count(&mut cluster), ADDED, "seed {seed}");
        let outage = cluster.sim().now() - begun;
        assert!(outage < SECOND * 30, "seed {seed}: {outage:?}, nobody is waited for");
        cluster.finish();
    }
}

/// How long nobody answers when the primary alone comes back.
fn alone(seed: u64, config: &str, lose: fn(&mut SimCluster, usize)) -> Duration {
    let mut cluster = cluster(seed, config);
    let primary = members(&mut cluster)[0];
    (0..SERVERS).for_each(|server| lose(&mut cluster, server));
    cluster.start_server(primary);
    let begun = cluster.sim().now();
    let there = count(&mut cluster);
    assert!((0..=ADDED).contains(&there), "{there}");
    let outage = cluster.sim().now() - begun;
    (0..SERVERS).filter(|server| *server != primary).for_each(|other| cluster.start_server(other));
    cluster.finish();
    outage
}

#[test]
fn others_are_waited_for_and_not_for_ever() {
    let short = "[meta_server]\nuncertain_log_wait_seconds = 40";
    let power = |cluster: &mut SimCluster, server| cluster.power_off_server(server);
    let outage = alone(1, short, power);
    assert!((SECOND * 40..SECOND * 60 + GRACE).contains(&outage), "{outage:?}");
    let outage = alone(1, "[meta_server]\nuncertain_log_wait_seconds = 0", power);
    assert!(
        outage < SECOND * 20 + GRACE,
        "not longer than until the others are missed: {outage:?}"
    );
}

#[test]
fn nobody_is_waited_for_where_nothing_can_be_missing() {
    let kill = |cluster: &mut SimCluster, server| cluster.kill_server(server);
    let outage = alone(2, "", kill);
    assert!(outage < SECOND * 10, "killed processes lose nothing: {outage:?}");
    let power = |cluster: &mut SimCluster, server| cluster.power_off_server(server);
    let outage = alone(2, "[replication]\nlog_durability = \"group_sync\"", power);
    assert!(outage < SECOND * 10, "what is synced is there: {outage:?}");
}

/// Machines that are shut down for some work on them: the servers are stopped in order before.
#[test]
fn servers_that_were_stopped_in_order_have_lost_nothing() {
    for seed in 0..20 {
        let mut cluster = cluster(seed, "");
        let mut members = members(&mut cluster);
        members.rotate_left(seed as usize % SERVERS);
        let [back, back_too, away] = members[..] else { panic!("{members:?}") };
        let servers: Vec<_> = (0..SERVERS).map(|server| cluster.server(server)).collect();
        servers.iter().for_each(|server| cluster.sim().stop(*server));
        cluster.run_until("the servers end", SECOND * 5, |sim| {
            servers.iter().all(|server| !sim.is_up(*server))
        });
        lose_all_power(&mut cluster);
        let begun = cluster.sim().now();
        // One alone would change nothing: the meta server keeps still while most servers are away.
        cluster.start_server(back);
        cluster.start_server(back_too);
        assert_eq!(count(&mut cluster), ADDED, "seed {seed}");
        let outage = cluster.sim().now() - begun;
        assert!(
            outage < SECOND * 10 + GRACE,
            "seed {seed}: {outage:?}, the third is not waited for"
        );
        cluster.start_server(away);
        cluster.finish();
    }
}
