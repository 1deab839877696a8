//! Three real replica servers with three copies of everything, killed with `kill -9` one after the other and all at
//! once while clients write: nothing that was acknowledged is lost, and every group is whole again afterwards.
#![expect(
    clippy::disallowed_methods,
    reason = "a test of real processes lives outside the runtime"
)]

use cluster_tests::onebox::{Onebox, OneboxOptions};
use dsn_replication::wire::config::PartitionConfiguration;
use pegasus_client::{PegasusClient, Table};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SERVERS: usize = 3;
/// Writes that meet each of the table's 8 partitions.
const PROBES: u64 = 64;
/// Single servers that are killed, in turn; then all of them at once.
const KILLS: usize = 9;
const WRITERS: u64 = 4;
/// Longer than the grace after which the meta server takes a server for dead.
const HEALED_IN: Duration = Duration::from_secs(90);
/// How long the writers go on before a kill.
const BETWEEN: Duration = Duration::from_millis(700);

/// Writes until it is told to stop; returns what was acknowledged.
fn write(table: &Table, writer: u64, stop: &AtomicBool) -> Vec<u64> {
    let mut acked = Vec::new();
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        let key = format!("key{writer}-{n}");
        if table.set(key.as_bytes(), b"s", format!("value{n}")).is_ok() {
            acked.push(n);
        }
        n += 1;
    }
    acked
}

/// Ballots of all groups; `None` while one of them is not whole.
fn ballots(client: &PegasusClient) -> Option<Vec<i64>> {
    let groups = client.admin().query_config("temp").ok()?.partitions;
    let whole = |group: &PartitionConfiguration| {
        group.primary.is_valid() && group.secondaries.len() == SERVERS - 1
    };
    groups
        .iter()
        .all(|group| whole(&group))
        .then(|| groups.iter().map(|group| group.ballot).collect())
}

/// Waits until every group is whole, and stays so over writes to all partitions, which all members must have logged.
fn wait_until_whole(client: &PegasusClient) {
    let begun = Instant::now();
    let table = client.table("temp").with_timeout(Duration::from_secs(2));
    loop {
        let before = ballots(client);
        let written =
            (0..PROBES).all(|n| table.set(format!("probe{n}").as_bytes(), b"s", "").is_ok());
        if before.is_some() && written && ballots(client) == before {
            println!("whole again after {:?}", begun.elapsed());
            return;
        }
        assert!(begun.elapsed() < HEALED_IN, "{:#?}", client.admin().query_config("temp"));
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn killed_members_lose_no_acknowledged_write_and_come_back() {
    let options = OneboxOptions { replicas: SERVERS, ..OneboxOptions::default() };
    let mut onebox = Onebox::start("group-kill", &options);
    let client = onebox.with_table(SERVERS as i32);
    wait_until_whole(&client);

    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let table = client.table("temp").with_timeout(Duration::from_secs(2));
            let stop = stop.clone();
            std::thread::spawn(move || write(&table, writer, &stop))
        })
        .collect();
    for kill in 0..KILLS {
        std::thread::sleep(BETWEEN);
        let victim = 1 + kill % SERVERS;
        onebox.kill(victim);
        std::thread::sleep(BETWEEN * (kill / SERVERS) as u32);
        onebox.start_instance(victim);
        println!("replica@{victim} was killed");
        wait_until_whole(&client);
    }
    std::thread::sleep(BETWEEN);
    (1..=SERVERS).for_each(|victim| onebox.kill(victim));
    for victim in 1..=SERVERS {
        onebox.start_instance(victim);
    }
    println!("all were killed");
    wait_until_whole(&client);
    stop.store(true, Ordering::Relaxed);

    let mut total = 0;
    let table = client.table("temp");
    for (writer, acked) in writers.into_iter().enumerate() {
        let acked = acked.join().expect("a writer");
        total += acked.len();
        for n in acked {
            let found = table.get(format!("key{writer}-{n}").as_bytes(), b"s").expect("a read");
            assert_eq!(found.as_deref(), Some(format!("value{n}").as_bytes()), "key{writer}-{n}");
        }
    }
    println!("{total} acknowledged writes, none lost");
    assert!(total > 1_000, "only {total} writes were acknowledged");
}
