//! The two example apps, killed and recovered in the simulator. Their servers run natively in
//! `tests/tests/framework.rs`.

#[path = "../examples/counter/counter.rs"]
mod counter;
#[path = "../examples/log_store/log_store.rs"]
mod log_store;

use bytes::Bytes;
use counter::{ADD, Add, Counter, GET};
use dsn_core::rng::Rng;
use dsn_replication::client::Target;
use dsn_replication::testing::cluster::{ClusterSpec, SimCluster};
use log_store::{APPEND, LogStore, READ, ReadFrom, TRIM};
use std::time::Duration;

#[test]
fn the_page_shows_the_counter_as_it_is() {
    let page = include_str!("../../docs/framework.md");
    let source = include_str!("../examples/counter/counter.rs");
    let code = &source[source.find("dsn_core::task_codes!").unwrap()..];
    assert!(page.contains(code.trim()), "docs/framework.md shows another counter");
    assert!(code.lines().filter(|line| !line.trim().is_empty()).count() <= 60, "about 60 lines");
}

fn add(name: &str) -> Add {
    Add { name: name.to_owned(), ..Add::default() }
}

#[test]
fn a_killed_counter_forgets_nothing() {
    let spec = ClusterSpec { servers: 3, copies: 3, ..ClusterSpec::default() };
    let mut cluster = SimCluster::start::<Counter>(&spec);
    cluster.create_table("counters", 4);
    for n in 1..=10 {
        cluster.run_for(Duration::from_secs(60));
        assert_eq!(cluster.call("counters", &ADD, b"visits", &add("visits")), Ok(n));
        let leader = cluster.leader("counters", b"visits");
        cluster.kill_server(leader);
        assert_eq!(cluster.call("counters", &GET, b"visits", &"visits".to_owned()), Ok(n));
        cluster.start_server(leader);
    }
    cluster.finish();
}

/// Checkpoints every second, and acknowledges what is synced.
const BUSY_DISK: &str =
    "[replication]\ncheckpoint_interval_seconds = 1\nlog_durability = \"group_sync\"";

#[test]
fn a_counter_survives_the_power_cut_at_any_disk_step() {
    let (mut cuts, mut unknown) = (0, 0);
    for steps in 1..=60 {
        let config = BUSY_DISK.to_owned();
        let mut cluster = SimCluster::start::<Counter>(&ClusterSpec {
            seed: steps,
            config,
            ..Default::default()
        });
        cluster.create_table("counters", 2);
        let server = cluster.server(0);
        cluster.sim().crash_after(server, steps, true, Some(Duration::from_millis(300)));
        let (mut sent, mut acked) = (0, 0);
        for _ in 0..12 {
            sent += 1;
            acked += i64::from(cluster.call("counters", &ADD, b"c", &add("c")).is_ok());
            cluster.run_for(Duration::from_millis(250));
        }
        let value = cluster.call("counters", &GET, b"c", &"c".to_owned()).unwrap();
        assert!(
            (acked..=sent).contains(&value),
            "{steps}: {value}, {acked} of {sent} acknowledged"
        );
        let config = cluster.config("counters").unwrap();
        cuts += usize::from(config.partitions.iter().any(|partition| partition.ballot > 1));
        unknown += sent - acked;
        cluster.finish();
    }
    assert!(cuts >= 50 && unknown > 0, "{cuts} cuts, {unknown} writes whose outcome was not known");
}

#[test]
fn counters_live_on_several_servers() {
    let mut cluster =
        SimCluster::start::<Counter>(&ClusterSpec { servers: 3, ..Default::default() });
    cluster.create_table("counters", 8);
    let names: Vec<String> = (0..40).map(|n| format!("counter{n}")).collect();
    for name in names.iter().chain(&names) {
        cluster.call("counters", &ADD, name.as_bytes(), &add(name)).unwrap();
    }
    for server in 0..3 {
        cluster.stop_server(server);
        cluster.start_server(server);
    }
    for name in &names {
        assert_eq!(cluster.call("counters", &GET, name.as_bytes(), name), Ok(2), "{name}");
    }
    cluster.finish();
}

#[test]
fn a_log_is_appended_to_read_and_trimmed() {
    let config = format!("{BUSY_DISK}\n[log_store]\nsegment_kb = 1");
    let mut cluster = SimCluster::start::<LogStore>(&ClusterSpec { config, ..Default::default() });
    cluster.create_table("logs", 1);
    let entry = |n: i64| Bytes::from(format!("{n:0>100}"));
    let (mut first, mut next) = (0, 0);
    let mut rng = Rng::new(7);
    for round in 0..60 {
        for _ in 0..rng.below(40) {
            assert_eq!(cluster.call("logs", &APPEND, b"", &entry(next)), Ok(next));
            next += 1;
        }
        match round % 6 {
            1 => cluster.run_for(Duration::from_millis(1200)),
            3 => {
                first = rng.range(first as u64, next as u64 + 1) as i64;
                assert_eq!(cluster.call("logs", &TRIM, b"", &first), Ok(first));
            }
            5 => {
                cluster.power_off_server(0);
                cluster.start_server(0);
            }
            _ => {}
        }
        let wanted = ReadFrom { offset: rng.below(next as u64 + 10) as i64, max_count: 30 };
        let found = cluster.call("logs", &READ, b"", &wanted).unwrap();
        assert_eq!(found.first, wanted.offset.clamp(first, next), "round {round}");
        let count = (next - found.first).min(30);
        let expected: Vec<Bytes> = (found.first..found.first + count).map(entry).collect();
        assert_eq!(found.entries.to_vec(), expected, "round {round}");
    }
    assert!(next > 500 && first > 100, "{first}..{next}");
    cluster.finish();
}

#[test]
fn a_read_of_a_log_ends_in_bytes_as_well() {
    let mut cluster = SimCluster::start::<LogStore>(&ClusterSpec::default());
    cluster.create_table("logs", 2);
    let large = Bytes::from(vec![b'x'; 200 << 10]);
    let at = |partition| Target::Partition(partition);
    for _ in 0..4 {
        let answer = cluster.send("logs", APPEND.request(at(1), &large));
        cluster.wait(&answer).unwrap();
    }
    let read = |offset| READ.request(at(1), &ReadFrom { offset, ..ReadFrom::default() });
    let answer = cluster.send("logs", read(0));
    assert_eq!(cluster.wait(&answer).unwrap().entries.len(), 2);
    let answer = cluster.send("logs", read(3));
    assert_eq!(cluster.wait(&answer).unwrap().entries.len(), 1);
    let server = cluster.server(0);
    let node = cluster.sim().node(server).unwrap();
    let limits = node.commands().run_now("log_store.limits");
    assert_eq!(limits, "a read gives at most 524288 bytes of entries");
    let answer = cluster.send("logs", READ.request(at(0), &ReadFrom::default()));
    assert!(
        cluster.wait(&answer).unwrap().entries.is_empty(),
        "each partition is a log of its own"
    );
    cluster.finish();
}
