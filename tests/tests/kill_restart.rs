//! `kill -9` of the replica server under write load, again and again: no acknowledged write is lost.
#![expect(clippy::disallowed_methods, reason = "a native test lives outside the runtime")]

use cluster_tests::onebox::{Onebox, OneboxOptions};
use cluster_tests::tell;
use pegasus_client::{PegasusClient, Pending, Table};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

const KILLS: usize = 50;
const RECORDS: u64 = 100_000;
/// Writes in flight while loading and between kills.
const IN_FLIGHT: usize = 256;
const WRITES_PER_ROUND: u64 = 400;
/// From the start of the process to the first answered read, with [`RECORDS`] records.
const RESTART_LIMIT: Duration = Duration::from_secs(3);

fn cluster(name: &str) -> (Onebox, PegasusClient, Table) {
    let onebox = Onebox::start(name, &OneboxOptions::single());
    let client = onebox.with_table(1);
    let table = client.table("temp");
    (onebox, client, table)
}

fn value(n: u64) -> String {
    format!("value-{n}")
}

fn start_set(table: &Table, n: u64) -> Pending<()> {
    let key = format!("key{n}");
    table.start_set(key.as_bytes(), b"s", value(n), pegasus_client::Ttl::Forever)
}

/// Writes `from..to`; returns which were acknowledged.
fn write(table: &Table, from: u64, to: u64) -> Vec<u64> {
    let mut acked = Vec::new();
    let mut flying = VecDeque::new();
    let mut take = |(n, pending): (u64, Pending<()>)| {
        if pending.wait().is_ok() {
            acked.push(n);
        }
    };
    for n in from..to {
        flying.push_back((n, start_set(table, n)));
        if flying.len() >= IN_FLIGHT {
            take(flying.pop_front().expect("some"));
        }
    }
    flying.into_iter().for_each(&mut take);
    acked
}

fn check(table: &Table, numbers: impl Iterator<Item = u64>) {
    let mut flying = VecDeque::new();
    let take = |(n, pending): (u64, Pending<_>)| {
        let found: Option<bytes::Bytes> = pending.wait().unwrap_or_else(|e| panic!("key{n}: {e}"));
        assert_eq!(found.as_deref(), Some(value(n).as_bytes()), "key{n} was acknowledged");
    };
    for n in numbers {
        flying.push_back((n, table.start_get(format!("key{n}").as_bytes(), b"s")));
        if flying.len() >= IN_FLIGHT {
            take(flying.pop_front().expect("some"));
        }
    }
    flying.into_iter().for_each(take);
}

#[test]
fn fifty_kills_lose_no_acknowledged_write() {
    let (mut onebox, _client, table) = cluster("kills");
    let mut acked = Vec::new();
    let mut next = 0;
    for round in 0..KILLS {
        let writer = {
            // Ambiguous outcomes end a write; it is not waited for beyond the kill.
            let table = table.with_timeout(Duration::from_secs(5));
            std::thread::spawn(move || write(&table, next, next + WRITES_PER_ROUND))
        };
        // Somewhere in the middle of the round, differently each time.
        std::thread::sleep(Duration::from_millis(1 + (round as u64 * 7) % 40));
        onebox.kill(1);
        onebox.start_instance(1);
        acked.extend(writer.join().expect("writer"));
        next += WRITES_PER_ROUND;
    }
    let total = next;
    assert!(acked.len() as u64 > total / 2, "only {} of {total} were acknowledged", acked.len());
    tell!("{} of {total} writes acknowledged over {KILLS} kills", acked.len());
    check(&table, acked.into_iter());
}

#[test]
fn a_server_with_many_records_is_back_in_time() {
    let (mut onebox, _client, table) = cluster("restart");
    let acked = write(&table, 0, RECORDS);
    assert_eq!(acked.len() as u64, RECORDS);
    onebox.kill(1);
    let begun = Instant::now();
    onebox.start_instance(1);
    let first = table.get(b"key0", b"s").expect("a read");
    let took = begun.elapsed();
    tell!("serving {took:?} after the start, with {RECORDS} records");
    assert_eq!(first.as_deref(), Some(value(0).as_bytes()));
    assert!(took < RESTART_LIMIT, "{took:?}");
    check(&table, (0..RECORDS).step_by(7));
    assert!(onebox.stop(1), "an orderly stop");
    onebox.start_instance(1);
    check(&table, (0..RECORDS).step_by(11));
}
