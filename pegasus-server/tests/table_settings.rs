//! What a table's envs change in a running storage app, and what of it a restart remembers.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use dsn_core::disk::{Disk, read_file};
use dsn_core::driver::native::OsDisk;
use dsn_replication::mutation::Mutation;
use dsn_replication::state_machine::{ApplyMode, Replies, StateMachine};
use dsn_replication::wire::config::AppInfo;
use pegasus_client::schema::key::encode_key;
use pegasus_client::schema::rrdb::*;
use pegasus_server::codes::*;
use pegasus_server::engine::meta;
use pegasus_server::scenario::{USAGE_SCENARIO, WRITE_BUFFER_SIZE};
use pegasus_server::settings::{self, SLOW_QUERY_THRESHOLD};
use support::*;

fn table(envs: &[(&str, &str)]) -> AppInfo {
    let envs = envs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    AppInfo { partition_count: 8, envs: envs.collect(), ..AppInfo::default() }
}

fn put(value: &str) -> UpdateRequest {
    UpdateRequest {
        key: encode_key(b"h", b"s").unwrap(),
        value: Bytes::copy_from_slice(value.as_bytes()),
        ..Default::default()
    }
}

/// The options that RocksDB wrote down last.
fn rocks_options(dir: &Path) -> String {
    let entries = OsDisk.list(&dir.join("rdb")).unwrap();
    let number = |name: &str| name.strip_prefix("OPTIONS-")?.parse::<u64>().ok();
    let newest = entries.iter().filter_map(|entry| number(&entry.name)).max().unwrap();
    let content = read_file(&OsDisk, &dir.join(format!("rdb/OPTIONS-{newest:06}"))).unwrap();
    String::from_utf8_lossy(&content).into_owned()
}

#[test]
fn the_default_expiry_is_the_one_of_whoever_numbered_the_mutation() {
    for kind in KINDS {
        let scratch = Scratch::new();
        let store = Store::open(kind, scratch.path());
        // This server has not heard of any default, as after a restart: a replay must not lose it.
        assert_eq!(store.app.stamp(), 0);
        let requests = vec![request_of(&RPC_RRDB_RRDB_PUT, &put("v"))];
        let mutation = Mutation { stamp: 100, ..store.mutation(requests) };
        let mut replies = Replies::new(true);
        store.app.apply(&[mutation], ApplyMode::Blocking, &mut replies).unwrap();
        let ttl: TtlResponse = store.read(&RPC_RRDB_RRDB_TTL, &put("").key);
        assert_eq!((ttl.error, ttl.ttl_seconds), (0, 100));
        store.app.reconfigure(&table(&[(settings::DEFAULT_TTL, "7")]));
        assert_eq!(store.app.stamp(), 7);
    }
}

#[test]
fn a_scenario_tunes_rocksdb_at_once_and_after_a_restart() {
    let scratch = Scratch::new();
    let mut store = Store::open(Kind::Rocks, scratch.path());
    // The automatic compactions of these tests are off anyway; the other options tell.
    let stop = |text: &str| text.contains("level0_stop_writes_trigger=1000000000");
    assert!(!stop(&rocks_options(scratch.path())));
    store.app.reconfigure(&table(&[(USAGE_SCENARIO, "bulk_load")]));
    assert!(!stop(&rocks_options(scratch.path())), "what may take a while is left for later");
    store.app.tune().unwrap();
    assert!(stop(&rocks_options(scratch.path())));
    assert_eq!(store.app.engine().meta(meta::USAGE_SCENARIO), Ok(Some("bulk_load".to_owned())));
    let _: UpdateResponse = store.write(&RPC_RRDB_RRDB_PUT, &put("v"));
    store.app.engine().flush(true).unwrap();
    drop(store);
    let store = Store::open(Kind::Rocks, scratch.path());
    assert!(!stop(&rocks_options(scratch.path())));
    store.app.restore_tuning().unwrap();
    assert!(stop(&rocks_options(scratch.path())), "no disk keeps envs, the meta family does");
    store.app.reconfigure(&table(&[(WRITE_BUFFER_SIZE, "33554432")]));
    store.app.tune().unwrap();
    let text = rocks_options(scratch.path());
    assert!(!stop(&text) && text.contains("level0_stop_writes_trigger=60"));
    assert_eq!(store.app.engine().meta(meta::USAGE_SCENARIO), Ok(Some("normal".to_owned())));
    let sizes = text.lines().filter_map(|line| line.trim().strip_prefix("write_buffer_size="));
    let size: u64 = sizes.map(|size| size.parse().unwrap()).max().unwrap();
    assert!((24 << 20..=40 << 20).contains(&size), "{size}");
}

#[test]
fn values_of_old_servers_are_read_and_written_as_they_are() {
    for kind in KINDS {
        let scratch = Scratch::new();
        let engine = open_engine(kind, scratch.path());
        engine.set_meta(meta::DATA_VERSION, "0").unwrap();
        engine.flush(true).unwrap();
        drop(engine);
        let mut store = Store::open(kind, scratch.path());
        let expire = store.now as i32 + 9;
        let request = UpdateRequest { expire_ts_seconds: expire, ..put("old") };
        let _: UpdateResponse = store.write(&RPC_RRDB_RRDB_PUT, &request);
        let stored = store.content();
        let expected = [&expire.to_be_bytes()[..], b"old"].concat();
        assert_eq!(stored, [(request.key.clone(), Bytes::from(expected))], "no time tag");
        let found: ReadResponse = store.read(&RPC_RRDB_RRDB_GET, &request.key);
        assert_eq!((found.error, &found.value[..]), (0, &b"old"[..]));
        store.now += 9;
        let gone: ReadResponse = store.read(&RPC_RRDB_RRDB_GET, &request.key);
        assert_eq!(gone.error, 1);
        let _: UpdateResponse =
            store.write(&RPC_RRDB_RRDB_REMOVE, &encode_key(b"h", b"x").unwrap());
        store.app.engine().compact().unwrap();
        assert_eq!(store.content(), [], "the compaction filter knows the old header too");
    }
}

#[test]
fn slow_and_large_reads_are_counted() {
    let scratch = Scratch::new();
    let mut store = Store::open(Kind::Rocks, scratch.path());
    let abnormal = |store: &Store| store.app.metrics().abnormal_read_requests.value();
    let _: UpdateResponse = store.write(&RPC_RRDB_RRDB_PUT, &put(&"x".repeat(999_999)));
    let key = put("").key;
    let _: ReadResponse = store.read(&RPC_RRDB_RRDB_GET, &key);
    assert_eq!(abnormal(&store), 0);
    let _: UpdateResponse = store.write(&RPC_RRDB_RRDB_PUT, &put(&"x".repeat(1_000_000)));
    let _: ReadResponse = store.read(&RPC_RRDB_RRDB_GET, &key);
    assert_eq!(abnormal(&store), 1, "large");
    let missing = encode_key(b"h", b"missing").unwrap();
    store.tick = Duration::from_millis(60).as_nanos() as u64;
    let _: ReadResponse = store.read(&RPC_RRDB_RRDB_GET, &missing);
    assert_eq!(abnormal(&store), 1, "60 ms are not slow");
    store.app.reconfigure(&table(&[(SLOW_QUERY_THRESHOLD, "50")]));
    let _: ReadResponse = store.read(&RPC_RRDB_RRDB_GET, &missing);
    assert_eq!(abnormal(&store), 2, "for this table they are");
}
