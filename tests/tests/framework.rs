//! The two example apps of dsn-replication natively: their own programs and configurations, real processes, `kill -9`.
#![expect(clippy::disallowed_methods, reason = "a native test lives outside the runtime")]

#[path = "../../dsn-replication/examples/counter/counter.rs"]
mod counter;
#[path = "../../dsn-replication/examples/log_store/log_store.rs"]
mod log_store;

use bytes::Bytes;
use cluster_tests::onebox::{Onebox, OneboxOptions};
use counter::{ADD, Add, Counter, GET};
use dsn_replication::app::ReplicatedApp;
use dsn_replication::client::{Client, Pending, Table, TableSpec};
use log_store::{APPEND, LogStore, READ, ReadFrom};
use std::time::Duration;

const SERVERS: usize = 3;
const KILLS: u64 = 12;
const WRITES_PER_ROUND: i64 = 200;

/// A cluster of the app's own program with one table; its checkpoints come quickly.
fn cluster<A: ReplicatedApp>(program: &'static str, config: &'static str) -> (Onebox, Table) {
    // A machine that tests run on may well have a disk that is rather full.
    let sets = ["checkpoint_interval_seconds=1", "disk_min_available_space_ratio=1"];
    let sets = sets.map(|set| format!("replication.{set}")).to_vec();
    let options =
        OneboxOptions { replicas: SERVERS, program, config, sets, ..OneboxOptions::default() };
    let onebox = Onebox::start(A::APP_TYPE, &options);
    let client = Client::new(&[onebox.meta().to_string()]).expect("a client");
    let spec = TableSpec {
        name: "t".to_owned(),
        partitions: 4,
        replicas: options.replicas as i32,
        envs: Default::default(),
        if_not_exists: true,
    };
    let made = client.admin(A::APP_TYPE).create_and_wait(&spec, Duration::from_secs(60), |_| {});
    made.unwrap_or_else(|error| panic!("{error}\n{}", onebox.stderr(1)));
    let table = client.table("t").with_timeout(Duration::from_secs(20));
    (onebox, table)
}

/// Kills one replica server after the other, each in the middle of a round of writes. Gives the answers of acknowledged
/// writes, with the number that each had, and how many were sent.
fn write_and_kill(
    onebox: &mut Onebox,
    write: impl Fn(i64) -> Pending<i64> + Sync,
) -> (Vec<(i64, i64)>, i64) {
    let (mut acked, mut sent) = (Vec::new(), 0);
    for round in 0..KILLS {
        let numbers = sent..sent + WRITES_PER_ROUND;
        sent = numbers.end;
        let answers = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let flying: Vec<(i64, Pending<i64>)> = numbers.map(|n| (n, write(n))).collect();
                let ended = flying.into_iter().map(|(n, pending)| (n, pending.wait()));
                ended.filter_map(|(n, answer)| Some((n, answer.ok()?))).collect::<Vec<_>>()
            });
            // Somewhere in the middle of the round, differently each time.
            std::thread::sleep(Duration::from_millis(1 + round * 7 % 40));
            let victim = 1 + round as usize % SERVERS;
            onebox.kill(victim);
            onebox.start_instance(victim);
            writer.join().expect("the writer")
        });
        acked.extend(answers);
    }
    (acked, sent)
}

#[test]
fn killed_counters_keep_what_was_acknowledged() {
    let (mut onebox, table) =
        cluster::<Counter>("examples/counter", "dsn-replication/examples/counter/counter.toml");
    let add = Add { name: "visits".to_owned(), by: 1 };
    let (acked, sent) =
        write_and_kill(&mut onebox, |_| table.call(&ADD, add.name.as_bytes(), &add));
    let value = table.call(&GET, add.name.as_bytes(), &add.name).wait().expect("a read");
    println!("{value} of {sent} additions, {} acknowledged", acked.len());
    assert!((acked.len() as i64..=sent).contains(&value), "{value} of {sent}");
    assert!(acked.len() as i64 >= WRITES_PER_ROUND, "{} acknowledged", acked.len());
    assert!(onebox.stop(1), "an orderly end");
    onebox.start_instance(1);
    assert_eq!(table.call(&GET, add.name.as_bytes(), &add.name).wait(), Ok(value));
}

#[test]
fn killed_logs_keep_what_was_acknowledged() {
    let (mut onebox, table) = cluster::<LogStore>(
        "examples/log_store",
        "dsn-replication/examples/log_store/log_store.toml",
    );
    let entry = |n: i64| Bytes::from(format!("entry {n}"));
    let (acked, sent) = write_and_kill(&mut onebox, |n| table.call(&APPEND, b"a", &entry(n)));
    println!("{} of {sent} entries acknowledged", acked.len());
    assert!(acked.len() as i64 >= WRITES_PER_ROUND, "{} acknowledged", acked.len());
    let mut log = Vec::new();
    loop {
        let wanted = ReadFrom { offset: log.len() as i64, max_count: 300 };
        let found = table.call(&READ, b"a", &wanted).wait().expect("a read");
        if found.entries.is_empty() {
            break;
        }
        log.extend(found.entries.iter());
    }
    for (n, offset) in acked {
        assert_eq!(log[offset as usize], entry(n), "the entry at {offset}");
    }
    assert!(log.len() as i64 <= sent, "{} of {sent}", log.len());
}
