//! The client library against a cluster in memory that misbehaves by appointment.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod fake;

use bytes::Bytes;
use dsn_replication::codes::{RPC_CM_CREATE_APP, RPC_CM_QUERY_PARTITION_CONFIG_BY_INDEX as QUERY};
use dsn_rpc::error_code::ErrorCode;
use fake::{Fault, Server, World, client};
use pegasus_client::schema::codes::{
    RPC_RRDB_RRDB_CLEAR_SCANNER as CLEAR_SCANNER, RPC_RRDB_RRDB_GET as GET,
    RPC_RRDB_RRDB_GET_SCANNER as GET_SCANNER, RPC_RRDB_RRDB_INCR as INCR, RPC_RRDB_RRDB_PUT as PUT,
    RPC_RRDB_RRDB_SCAN as SCAN,
};
use pegasus_client::schema::partition_hash;
use pegasus_client::{
    MultiGet, PegasusClient, Reason, ScanOptions, Scanner, Table, TableSpec, Ttl,
};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

const TABLE: &str = "temp";
const SHORT: Duration = Duration::from_millis(400);

/// One meta server, two replica servers, a table of four partitions.
struct Cluster {
    world: World,
    meta: Server,
    a: Server,
    b: Server,
    table: Table,
}

fn cluster() -> Cluster {
    let world = World::default();
    let (meta, a, b) = (Server::meta(&world), Server::replica(&world), Server::replica(&world));
    world.add_table(TABLE, 7, 4, &[&a, &b]);
    let table = client(&[&meta]).table(TABLE);
    Cluster { world, meta, a, b, table }
}

impl Cluster {
    /// Hash keys of partitions 0 (on server `a`) and 1 (on server `b`).
    fn keys() -> (Bytes, Bytes) {
        let key_of = |index| {
            let mut keys = (0..).map(|n: u32| format!("key{n}"));
            let is_there = |key: &String| {
                partition_hash::partition_index(partition_hash::crc64(key.as_bytes()), 4) == index
            };
            Bytes::from(keys.find(is_there).unwrap())
        };
        (key_of(0), key_of(1))
    }
}

#[test]
fn records_are_written_read_and_counted_by_all_servers() {
    let c = cluster();
    for n in 0..50u32 {
        let key = n.to_string();
        c.table.set(key.as_bytes(), b"s", key.clone()).unwrap();
    }
    for n in 0..50u32 {
        let key = n.to_string();
        assert_eq!(c.table.get(key.as_bytes(), b"s").unwrap().unwrap(), key);
    }
    assert_eq!(c.table.get(b"0", b"other").unwrap(), None);
    assert!(c.world.seen(&c.a, &PUT) > 0 && c.world.seen(&c.b, &PUT) > 0);
    assert_eq!(c.world.seen(&c.a, &PUT) + c.world.seen(&c.b, &PUT), 50, "nothing is sent twice");
    assert_eq!(c.world.seen(&c.meta, &QUERY), 1, "the route is asked for once");
}

#[test]
fn a_stale_route_is_refreshed_and_the_operation_goes_on() {
    let c = cluster();
    let (key, _) = Cluster::keys();
    for error in [ErrorCode::InvalidState, ErrorCode::ObjectNotFound, ErrorCode::InactiveState] {
        let asked = c.world.seen(&c.meta, &QUERY);
        c.table.set(&key, b"s", "1").unwrap();
        c.world.appoint(&c.a, &PUT, Fault::Refuse(error));
        c.table.set(&key, b"s", "2").unwrap();
        assert_eq!(c.table.get(&key, b"s").unwrap().unwrap(), "2");
        assert_eq!(c.world.unmet(), 0);
        let first = usize::from(asked == 0);
        assert_eq!(c.world.seen(&c.meta, &QUERY), asked + first + 1, "{error}");
    }
}

#[test]
fn a_moved_primary_is_found() {
    let c = cluster();
    let (key, _) = Cluster::keys();
    c.table.set(&key, b"s", "1").unwrap();
    c.world.move_table(TABLE, Some(c.b.addr));
    assert_eq!(c.table.incr(&key, b"n", 5).unwrap(), 5);
    assert_eq!((c.world.seen(&c.a, &INCR), c.world.seen(&c.b, &INCR)), (1, 1));
    // A table made again under its name has another id.
    c.world.edit(|state| state.tables.get_mut(TABLE).unwrap().app_id = 9);
    assert_eq!(c.table.get(&key, b"s").unwrap(), None);
}

#[test]
fn a_partition_without_primary_is_waited_for() {
    let c = cluster();
    let (key, _) = Cluster::keys();
    c.world.move_table(TABLE, None);
    let waiting = c.table.start_set(&key, b"s", "1", Ttl::Forever);
    // It has asked at least twice when the primary appears.
    let waiting = until(waiting, || c.world.seen(&c.meta, &QUERY) >= 2);
    c.world.move_table(TABLE, Some(c.b.addr));
    waiting.wait().unwrap();
    c.world.move_table(TABLE, None);
    let error = c.table.with_timeout(SHORT).set(&key, b"s", "2").unwrap_err();
    assert!(matches!(error.reason, Reason::Unavailable { .. }), "{error}");
    assert!(!error.is_ambiguous() && error.to_string().contains("no primary"), "{error}");
}

/// Waits until `done` says so, while the operation goes on.
fn until<T>(
    mut pending: pegasus_client::Pending<T>,
    done: impl Fn() -> bool,
) -> pegasus_client::Pending<T> {
    for _ in 0..10_000 {
        if done() {
            return pending;
        }
        pending = match pending.wait_timeout(Duration::from_millis(2)) {
            Ok(_) => panic!("the operation has ended already"),
            Err(pending) => pending,
        };
    }
    panic!("it does not come to that");
}

#[test]
fn a_write_without_answer_is_ambiguous_and_not_repeated() {
    let c = cluster();
    let (key, _) = Cluster::keys();
    let table = c.table.with_timeout(SHORT);
    table.set(&key, b"n", "1").unwrap();
    c.world.appoint(&c.a, &INCR, Fault::DoneSilently);
    let error = table.incr(&key, b"n", 1).unwrap_err();
    assert_eq!(error.reason, Reason::Timeout(SHORT));
    assert!(error.is_ambiguous());
    let text = error.to_string();
    let server = c.a.addr.to_string();
    for part in [TABLE, std::str::from_utf8(&key).unwrap(), "7.0", &server] {
        assert!(text.contains(part), "{text} does not name {part}");
    }
    assert_eq!(c.world.seen(&c.a, &INCR), 1);
    assert_eq!(c.table.get(&key, b"n").unwrap().unwrap(), "2", "it has been done once");

    c.world.appoint(&c.a, &INCR, Fault::Refuse(ErrorCode::NotEnoughMember));
    let error = table.incr(&key, b"n", 1).unwrap_err();
    assert_eq!(error.reason, Reason::Refused(ErrorCode::NotEnoughMember));
    assert!(error.is_ambiguous(), "a member may have it in its log");
    assert_eq!(c.world.seen(&c.a, &INCR), 2);
}

#[test]
fn a_client_that_is_told_to_repeats_writes_without_answer() {
    let c = cluster();
    let (key, _) = Cluster::keys();
    let mut options = c.table.client().options();
    options.retry_ambiguous_writes = true;
    let table = PegasusClient::with_options(options).unwrap().table(TABLE);
    c.world.appoint(&c.a, &INCR, Fault::DoneSilently);
    c.world.appoint(&c.a, &INCR, Fault::Refuse(ErrorCode::NotEnoughMember));
    assert_eq!(table.incr(&key, b"n", 1).unwrap(), 2, "it is counted twice");
    assert_eq!(c.world.seen(&c.a, &INCR), 3);
}

#[test]
fn a_write_on_a_lost_connection_is_ambiguous() {
    let c = cluster();
    let (key, _) = Cluster::keys();
    c.table.set(&key, b"s", "1").unwrap();
    c.world.appoint(&c.a, &INCR, Fault::Silence);
    let waiting = c.table.start(pegasus_client::ops::incr(&key, b"n", 1, 0));
    let waiting = until(waiting, || c.world.seen(&c.a, &INCR) == 1);
    c.a.stop();
    let error = waiting.wait().unwrap_err();
    assert!(matches!(error.reason, Reason::Ambiguous(_)) && error.is_ambiguous(), "{error}");
}

#[test]
fn a_read_without_answer_is_repeated() {
    let c = cluster();
    let (key, _) = Cluster::keys();
    c.table.set(&key, b"s", "1").unwrap();
    c.world.appoint(&c.a, &GET, Fault::Silence);
    assert_eq!(c.table.get(&key, b"s").unwrap().unwrap(), "1");
    assert_eq!(c.world.seen(&c.a, &GET), 2);
    // And on a connection that ends.
    c.world.appoint(&c.a, &GET, Fault::Silence);
    let waiting = c.table.start_get(&key, b"s");
    let waiting = until(waiting, || c.world.seen(&c.a, &GET) == 3);
    let addr = c.a.stop();
    c.world.move_table(TABLE, Some(c.b.addr));
    assert_eq!(waiting.wait().unwrap().unwrap(), "1");
    assert_ne!(addr, c.b.addr);
}

/// Who takes longer to answer than an attempt lasts would never be heard.
#[test]
fn each_attempt_of_a_read_waits_longer_than_the_one_before() {
    let c = cluster();
    (0..8).for_each(|_| c.world.appoint(&c.a, &GET, Fault::Silence));
    (0..8).for_each(|_| c.world.appoint(&c.b, &GET, Fault::Silence));
    let table = c.table.with_timeout(Duration::from_secs(2));
    let error = table.get(b"h", b"s").unwrap_err();
    assert!(matches!(error.reason, Reason::Unavailable { .. } | Reason::Timeout(_)), "{error}");
    let asked = [&c.a, &c.b].map(|server| c.world.seen(server, &GET));
    assert_eq!(asked.iter().sum::<usize>(), 3, "0.3, 0.6 and the rest of 2 s");
}

#[test]
fn an_unknown_table_is_an_error_at_once() {
    let c = cluster();
    let table = c.table.client().table("nobody");
    for error in [
        table.set(b"h", b"s", "1").unwrap_err(),
        table.get(b"h", b"s").unwrap_err(),
        table.partition_count().unwrap_err(),
    ] {
        assert_eq!(error.reason, Reason::NoSuchTable);
        assert_eq!(error.place.table, "nobody");
        assert!(!error.is_ambiguous());
    }
    c.world.add_table("nobody", 8, 1, &[&c.a]);
    table.set(b"h", b"s", "1").unwrap();
}

#[test]
fn an_overloaded_server_is_asked_again() {
    let c = cluster();
    let (key, _) = Cluster::keys();
    for error in [ErrorCode::Busy, ErrorCode::CapacityExceeded, ErrorCode::Splitting] {
        let (asked, seen) = (c.world.seen(&c.meta, &QUERY).max(1), c.world.seen(&c.a, &INCR));
        c.world.appoint(&c.a, &INCR, Fault::Refuse(error));
        c.world.appoint(&c.a, &INCR, Fault::Refuse(error));
        c.table.incr(&key, b"n", 1).unwrap();
        assert_eq!(c.world.seen(&c.a, &INCR), seen + 3);
        assert_eq!(c.world.seen(&c.meta, &QUERY), asked, "the route is as good as before");
    }
    for _ in 0..100 {
        c.world.appoint(&c.a, &INCR, Fault::Refuse(ErrorCode::Busy));
    }
    let error = c.table.with_timeout(SHORT).incr(&key, b"n", 1).unwrap_err();
    assert!(matches!(error.reason, Reason::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("ERR_BUSY") && !error.is_ambiguous(), "{error}");
}

#[test]
fn a_refused_connection_is_tried_until_somebody_listens() {
    let c = cluster();
    let (key, other) = Cluster::keys();
    c.table.set(&other, b"s", "b").unwrap();
    let addr = c.a.stop();
    let waiting = c.table.start_set(&key, b"s", "1", Ttl::Forever);
    let waiting = until(waiting, || c.world.seen(&c.meta, &QUERY) >= 3);
    assert_eq!(c.table.get(&other, b"s").unwrap().unwrap(), "b", "the other server serves");
    let _a = Server::replica_at(addr, &c.world);
    waiting.wait().unwrap();
    assert_eq!(c.table.get(&key, b"s").unwrap().unwrap(), "1");
}

#[test]
fn one_broken_partition_without_meta_server_does_not_stop_the_others() {
    let c = cluster();
    let (key, other) = Cluster::keys();
    c.table.set(&key, b"s", "a").unwrap();
    c.table.set(&other, b"s", "b").unwrap();
    let (_, meta) = (c.a.stop(), c.meta.stop());
    let waiting = c.table.start_get(&key, b"s");
    for _ in 0..20 {
        assert_eq!(c.table.get(&other, b"s").unwrap().unwrap(), "b");
    }
    c.world.move_table(TABLE, Some(c.b.addr));
    let _meta = Server::meta_at(meta, &c.world);
    assert_eq!(waiting.wait().unwrap().unwrap(), "a");
}

#[test]
fn nobody_at_all_is_an_error_at_the_deadline() {
    let world = World::default();
    let meta = Server::meta(&world);
    let table = client(&[&meta]).table(TABLE).with_timeout(SHORT);
    let addr = meta.stop();
    let error = table.set(b"h", b"s", "1").unwrap_err();
    assert!(matches!(error.reason, Reason::Unavailable { after: SHORT, .. }), "{error}");
    assert!(error.to_string().contains(&addr.to_string()) && !error.is_ambiguous(), "{error}");
    let error = table.partition_count().unwrap_err();
    assert!(matches!(error.reason, Reason::Unavailable { .. }), "{error}");
}

#[test]
fn a_silent_meta_server_does_not_keep_an_operation_beyond_its_deadline() {
    let c = cluster();
    let mut options = c.table.client().options();
    options.meta_timeout = Duration::from_secs(3600);
    let table = PegasusClient::with_options(options).unwrap().table(TABLE);
    c.world.appoint(&c.meta, &QUERY, Fault::Silence);
    let error = table.with_timeout(Duration::from_millis(50)).get(b"h", b"s").unwrap_err();
    assert!(matches!(error.reason, Reason::Unavailable { .. }), "{error}");
    assert_eq!(c.world.seen(&c.meta, &QUERY), 1, "the question is still unanswered");
}

#[test]
fn meta_servers_that_do_not_lead_name_the_leader() {
    let world = World::default();
    let (follower, leader) = (Server::meta(&world), Server::meta(&world));
    let a = Server::replica(&world);
    world.add_table(TABLE, 7, 1, &[&a]);
    world.edit(|state| state.leader = Some(leader.addr));
    // The client knows the follower alone.
    let client = client(&[&follower]);
    client.table(TABLE).set(b"h", b"s", "1").unwrap();
    let members = client.admin().members(TABLE).unwrap();
    assert_eq!((members.partitions, members.served, members.whole), (1, 1, 1));
    assert_eq!(world.seen(&follower, &QUERY), 1, "the leader is remembered");

    // Questions whose answer names nobody go round.
    let client = fake::client(&[&follower, &leader]);
    let spec = TableSpec {
        name: "other".to_owned(),
        partitions: 1,
        replicas: 0,
        envs: BTreeMap::new(),
        if_not_exists: false,
    };
    assert_eq!(client.admin().create_table(&spec).unwrap(), 2);
    assert_eq!(world.seen(&follower, &RPC_CM_CREATE_APP), 1);
    let error = client.admin().create_table(&spec).unwrap_err();
    assert_eq!(error.reason, Reason::Refused(ErrorCode::AppExist));
    assert!(error.to_string().contains("other"), "{error}");
}

fn fill(c: &Cluster, hash_keys: usize, sort_keys: usize) -> Vec<(Bytes, Bytes, Bytes)> {
    let mut all = Vec::new();
    for h in 0..hash_keys {
        for s in 0..sort_keys {
            let (hash_key, sort_key) = (format!("h{h:03}"), format!("s{s:03}"));
            let value = format!("{h}/{s}");
            c.table.set(hash_key.as_bytes(), sort_key.as_bytes(), value.clone()).unwrap();
            all.push((hash_key.into(), sort_key.into(), value.into()));
        }
    }
    all
}

fn small() -> ScanOptions {
    ScanOptions { batch_size: 3, ..ScanOptions::default() }
}

#[test]
fn a_scan_survives_lost_places_and_empty_batches() {
    let c = cluster();
    let all = fill(&c, 1, 20);
    let (hash_key, server) = (all[0].0.clone(), server_of(&c, &all[0].0));
    c.world.appoint(server, &GET_SCANNER, Fault::EmptyBatch);
    for fault in [Fault::LoseContext, Fault::EmptyBatch, Fault::EmptyBatch, Fault::LoseContext] {
        c.world.appoint(server, &SCAN, fault);
    }
    let opened = c.world.seen(server, &GET_SCANNER);
    let scanner = c.table.scan(&hash_key, b"", b"", &small()).unwrap();
    let found: Vec<_> = scanner.map(Result::unwrap).collect();
    assert_eq!(found, all);
    assert_eq!(c.world.unmet(), 0);
    assert_eq!(c.world.seen(server, &GET_SCANNER), opened + 3, "once, and after each lost place");
    // The range: inclusive start, exclusive stop.
    let part = c.table.scan(&hash_key, b"s005", b"s009", &small()).unwrap();
    assert_eq!(part.map(Result::unwrap).collect::<Vec<_>>(), all[5..9]);
}

fn server_of<'a>(c: &'a Cluster, hash_key: &[u8]) -> &'a Server {
    let index = partition_hash::partition_index(partition_hash::crc64(hash_key), 4);
    if index % 2 == 0 { &c.a } else { &c.b }
}

#[test]
fn a_scan_that_never_gets_on_ends_with_an_error() {
    let c = cluster();
    let all = fill(&c, 1, 10);
    let server = server_of(&c, &all[0].0);
    for _ in 0..100 {
        c.world.appoint(server, &GET_SCANNER, Fault::OutOfTime);
    }
    let mut scanner = c.table.scan(&all[0].0, b"", b"", &small()).unwrap();
    let error = scanner.next().unwrap().unwrap_err();
    assert!(
        error.to_string().contains("incomplete") && error.to_string().contains(TABLE),
        "{error}"
    );
    assert!(scanner.next().is_none(), "an error is the end");
    assert!(c.world.unmet() > 80, "it has given up soon");
}

#[test]
fn whole_tables_are_scanned_in_parts() {
    let c = cluster();
    let all = fill(&c, 12, 5);
    c.world.appoint(&c.a, &SCAN, Fault::LoseContext);
    c.world.appoint(&c.b, &SCAN, Fault::EmptyBatch);
    for splits in [1, 3, 100] {
        let scanners = c.table.unordered_scanners(splits, &small()).unwrap();
        assert_eq!(scanners.len(), splits.min(4));
        let mut found: Vec<_> = scanners.into_iter().flatten().map(Result::unwrap).collect();
        found.sort();
        assert_eq!(found, all);
    }
}

#[test]
fn negative_contexts_are_contexts() {
    let c = cluster();
    let all = fill(&c, 1, 20);
    c.world.edit(|state| state.next_context = i64::MIN);
    let scanner = c.table.scan(&all[0].0, b"", b"", &small()).unwrap();
    assert_eq!(scanner.map(Result::unwrap).collect::<Vec<_>>(), all);
    assert!(c.world.edit(|state| state.next_context) < -10);
}

#[test]
fn scans_need_no_thread_to_wait() {
    let c = cluster();
    let all = fill(&c, 12, 5);
    c.world.appoint(&c.a, &SCAN, Fault::LoseContext);
    c.world.appoint(&c.b, &SCAN, Fault::EmptyBatch);
    let (mut found, mut batches) = (Vec::new(), 0);
    for scanner in c.table.unordered_scanners(2, &small()).unwrap() {
        let mut next = Some(scanner);
        while let Some(scanner) = next.take() {
            let (records, rest) = run(scanner.start_batch()).unwrap();
            assert_eq!(records.is_empty(), rest.is_none(), "records until the end");
            found.extend(records);
            (next, batches) = (rest, batches + 1);
        }
    }
    found.sort();
    assert_eq!(found, all);
    assert!(batches > 12, "in {batches} batches");
    // A callback gets the scanner on the client's own thread and may go on there.
    let (tell, told) = channel();
    fn go_on(scanner: Scanner, mut so_far: usize, tell: Sender<usize>) {
        scanner.start_batch().then(move |outcome| match outcome.unwrap() {
            (records, Some(scanner)) => {
                so_far += records.len();
                go_on(scanner, so_far, tell);
            }
            (_, None) => tell.send(so_far).unwrap(),
        });
    }
    let mut all_parts = c.table.unordered_scanners(1, &small()).unwrap();
    go_on(all_parts.remove(0), 0, tell);
    assert_eq!(told.recv(), Ok(all.len()));
    // An error ends the scan.
    for _ in 0..100 {
        c.world.appoint(&c.a, &GET_SCANNER, Fault::OutOfTime);
        c.world.appoint(&c.b, &GET_SCANNER, Fault::OutOfTime);
    }
    let scanner = c.table.scan(&all[0].0, b"", b"", &small()).unwrap();
    assert!(run(scanner.start_batch()).is_err());
}

#[test]
fn a_scan_goes_on_when_its_partition_moves() {
    let c = cluster();
    let all = fill(&c, 1, 20);
    let mut scanner = c.table.scan(&all[0].0, b"", b"", &small()).unwrap();
    let mut found: Vec<_> = scanner.by_ref().take(7).map(Result::unwrap).collect();
    // Another server knows nothing of this one's places.
    c.world.edit(|state| state.scans.clear());
    let other = if server_of(&c, &all[0].0).addr == c.a.addr { c.b.addr } else { c.a.addr };
    c.world.move_table(TABLE, Some(other));
    found.extend(scanner.map(Result::unwrap));
    assert_eq!(found, all);
}

#[test]
fn an_unfinished_scan_is_let_go() {
    let c = cluster();
    let all = fill(&c, 1, 20);
    let mut scanner = c.table.scan(&all[0].0, b"", b"", &small()).unwrap();
    scanner.next().unwrap().unwrap();
    assert_eq!(c.world.edit(|state| state.scans.len()), 1);
    drop(scanner);
    // What is sent later on the same connection arrives later.
    c.table.get(&all[0].0, b"s").unwrap();
    assert_eq!(c.world.seen(server_of(&c, &all[0].0), &CLEAR_SCANNER), 1);
    assert_eq!(c.world.edit(|state| state.scans.len()), 0);
}

#[test]
fn batch_get_asks_every_partition_once() {
    let c = cluster();
    let all = fill(&c, 30, 2);
    let mut keys: Vec<_> = all.iter().map(|(h, s, _)| (h.clone(), s.clone())).collect();
    keys.push((Bytes::from_static(b"h000"), Bytes::from_static(b"absent")));
    let mut found = c.table.batch_get(&keys).unwrap();
    found.sort();
    assert_eq!(found, all);
    assert!(c.table.batch_get(&[]).unwrap().is_empty());
}

#[test]
fn errors_of_answers_and_arguments_say_where() {
    let c = cluster();
    let (key, _) = Cluster::keys();
    c.table.set(&key, b"n", "no number").unwrap();
    let error = c.table.incr(&key, b"n", 1).unwrap_err();
    assert_eq!(error.reason, Reason::Status { code: 4, name: "invalid argument" });
    assert!(!error.is_ambiguous());
    let text = error.to_string();
    for part in ["invalid argument", TABLE, "7.0", &c.a.addr.to_string()] {
        assert!(text.contains(part), "{text} does not name {part}");
    }
    let error = c.table.set(&[0; 65535], b"", "").unwrap_err();
    assert!(matches!(error.reason, Reason::Invalid(_)) && error.place.table == TABLE, "{error}");
    let error = c.table.multi_get(b"", &MultiGet::default()).unwrap_err();
    assert!(matches!(error.reason, Reason::Invalid(_)) && error.place.table == TABLE, "{error}");
    let error = c.table.scan(b"", b"", b"", &small()).unwrap_err();
    assert!(matches!(error.reason, Reason::Invalid(_)) && error.place.table == TABLE, "{error}");
}

/// Wakes a thread.
struct Alarm(std::thread::Thread);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn run<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Alarm(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn callbacks_and_futures_get_their_outcomes() {
    let c = cluster();
    assert_eq!(run(c.table.start_set(b"h", b"s", "1", Ttl::Forever)), Ok(()));
    assert_eq!(run(c.table.start_get(b"h", b"s")).unwrap().unwrap(), "1");
    let (tell, told) = channel();
    for n in 0..500u32 {
        let tell = tell.clone();
        let key = n.to_string();
        c.table.start_set(key.as_bytes(), b"s", key.clone(), Ttl::Forever).then(move |outcome| {
            tell.send((n, outcome)).unwrap();
        });
    }
    drop(tell);
    let mut done: Vec<u32> = told.iter().map(|(n, outcome)| outcome.map(|()| n).unwrap()).collect();
    done.sort();
    assert_eq!(done, (0..500).collect::<Vec<_>>());
    assert_eq!(c.world.seen(&c.meta, &QUERY), 1);
}

#[test]
fn what_is_under_way_when_the_client_ends_is_told_so() {
    let c = cluster();
    let (key, _) = Cluster::keys();
    c.table.set(&key, b"s", "1").unwrap();
    c.world.appoint(&c.a, &PUT, Fault::Silence);
    let waiting = c.table.start_set(&key, b"s", "2", Ttl::Forever);
    let waiting = until(waiting, || c.world.seen(&c.a, &PUT) == 2);
    drop(c.table);
    let error = waiting.wait().unwrap_err();
    assert!(error.reason == Reason::Closed && error.is_ambiguous(), "{error}");
}

#[test]
fn a_closure_may_end_its_client() {
    let c = cluster();
    let (tell, told) = channel();
    let table = c.table;
    let reading = table.start_get(b"h", b"s");
    reading.then(move |outcome| {
        drop(table);
        tell.send(outcome).unwrap();
    });
    assert_eq!(told.recv().unwrap(), Ok(None));
}

fn spec(replicas: i32) -> TableSpec {
    TableSpec {
        name: "made".to_owned(),
        partitions: 8,
        replicas,
        envs: BTreeMap::new(),
        if_not_exists: true,
    }
}

#[test]
fn create_waits_for_servers_and_for_primaries() {
    let world = World::default();
    let meta = Server::meta(&world);
    let client = client(&[&meta]);
    let meta = meta.stop();
    let a: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let mut said = Vec::new();
    let mut started = None;
    let created = client.admin().with_timeout(SHORT).create_and_wait(
        &spec(1),
        Duration::from_secs(30),
        |text| {
            said.push(text.to_owned());
            if started.is_none() {
                started = Some(Server::meta_at(meta, &world));
            } else if text.contains("replica servers are alive") {
                world.edit(|state| state.nodes.push(a));
            } else if text.contains("0 of 8") {
                world.move_table("made", Some(a));
            }
        },
    );
    assert_eq!(created.unwrap(), 1, "{said:?}");
    let server = meta.to_string();
    for part in [&server, "0 replica servers", "is made", "0 of 8 partitions"] {
        assert!(said.iter().any(|text| text.contains(part)), "{part} is missing in {said:?}");
    }
    // Again: it is there, and ready.
    assert_eq!(client.admin().create_and_wait(&spec(1), SHORT, |_| {}).unwrap(), 1);
}

#[test]
fn a_table_with_the_wanted_counts_is_settled_for() {
    let c = cluster();
    let admin = c.table.client().admin();
    let mut spec = TableSpec { name: TABLE.to_owned(), partitions: 4, ..spec(1) };
    assert_eq!(admin.create_table(&spec).unwrap(), 7);
    c.world.edit(|state| state.tables.get_mut(TABLE).unwrap().has_changed_envs = true);
    assert_eq!(admin.create_table(&spec).unwrap(), 7, "its envs do not matter");
    spec.partitions = 8;
    let error = admin.create_and_wait(&spec, Duration::from_secs(60), |_| {}).unwrap_err();
    assert!(error.to_string().contains("4 partitions of 1 replicas"), "{error}");
    spec.if_not_exists = false;
    let error = admin.create_table(&spec).unwrap_err();
    assert_eq!(error.reason, Reason::Refused(ErrorCode::AppExist));
}

#[test]
fn create_does_not_wait_in_vain() {
    let world = World::default();
    let meta = Server::meta(&world);
    let admin = client(&[&meta]).admin();
    let error = admin.create_and_wait(&spec(3), SHORT, |_| {}).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("0 replica servers are alive, 3 replicas"), "{text}");
    assert!(text.contains("table made"), "{text}");
    world.appoint(&meta, &RPC_CM_CREATE_APP, Fault::Refuse(ErrorCode::AclDeny));
    let error = admin.create_and_wait(&spec(1), Duration::from_secs(60), |_| {}).unwrap_err();
    assert_eq!(error.reason, Reason::Refused(ErrorCode::AclDeny));
}

#[test]
fn commands_go_to_one_server() {
    let world = World::default();
    let meta = Server::meta(&world);
    let admin = client(&[&meta]).admin().with_timeout(SHORT);
    let words = ["a".to_owned(), "b c".to_owned()];
    assert_eq!(admin.command(meta.addr, "echo", words).unwrap(), "echo: a+b c");
    let addr = meta.stop();
    let error = admin.command(addr, "echo", []).unwrap_err();
    assert!(error.to_string().contains(&addr.to_string()) && !error.is_ambiguous(), "{error}");
}
