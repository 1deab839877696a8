//! What both engines promise: durability and decrees, snapshots, checkpoints, and never to block unasked.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dsn_core::disk::{Disk, OpenMode};
use dsn_core::driver::native::OsDisk;
use dsn_core::time::Mono;
use dsn_replication::state_machine::{ApplyError, ApplyMode, ReadMode, ReadOutcome, StateMachine};
use pegasus_client::schema::key::encode_key;
use pegasus_client::schema::rrdb::*;
use pegasus_client::schema::value::{DataVersion, Timetag};
use pegasus_server::codes::*;
use pegasus_server::engine::checkpoints::{Checkpoints, Progress, ReservePolicy};
use pegasus_server::engine::mem::MemEngine;
use pegasus_server::engine::rocks::{RocksEngine, RocksShared};
use pegasus_server::engine::{
    Batch, Direction, EngineError, EngineIter, EngineStats, ReadTier, Retention, Scope, Stall,
    StorageEngine, meta,
};
use pegasus_server::options::StorageOptions;
use support::*;

fn put(engine: &dyn StorageEngine, records: &[(&[u8], &[u8])]) {
    let mut batch = Batch::new();
    for (key, value) in records {
        batch.put(&[key], &[value]);
    }
    engine.write(&mut batch, engine.last_committed() + 1, Stall::Wait).unwrap();
}

fn get(engine: &dyn StorageEngine, key: &[u8]) -> Option<Vec<u8>> {
    let mut found = None;
    let there = engine.get(key, ReadTier::All, &mut |value| found = Some(value.to_vec())).unwrap();
    assert_eq!(there, found.is_some());
    found
}

fn walk(mut iter: Box<dyn EngineIter>) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    while let Some((key, _)) = iter.entry() {
        keys.push(key.to_vec());
        iter.advance();
    }
    iter.advance();
    assert!(iter.entry().is_none());
    iter.status().unwrap();
    keys
}

fn on_both(test: impl Fn(Kind, &Path)) {
    for kind in KINDS {
        let scratch = Scratch::new();
        test(kind, scratch.path());
    }
}

#[test]
fn what_was_not_flushed_is_lost_and_the_decree_tells() {
    on_both(|kind, dir| {
        let engine = open_engine(kind, dir);
        assert_eq!((engine.last_committed(), engine.last_flushed()), (0, Ok(0)));
        assert_eq!(engine.data_version(), DataVersion::V1);
        put(&*engine, &[(b"a", b"1"), (b"b", b"1")]);
        put(&*engine, &[(b"a", b"2")]);
        assert_eq!((engine.last_committed(), engine.last_flushed()), (2, Ok(0)));
        engine.flush(true).unwrap();
        assert_eq!(engine.last_flushed(), Ok(2));
        put(&*engine, &[(b"a", b"3"), (b"c", b"3")]);
        // A decree alone, as for a heartbeat.
        put(&*engine, &[]);
        assert_eq!((engine.last_committed(), engine.last_flushed()), (4, Ok(2)));
        drop(engine);
        let engine = open_engine(kind, dir);
        assert_eq!((engine.last_committed(), engine.last_flushed()), (2, Ok(2)));
        assert_eq!(get(&*engine, b"a"), Some(b"2".to_vec()));
        assert_eq!(get(&*engine, b"b"), Some(b"1".to_vec()));
        assert_eq!(get(&*engine, b"c"), None);
        put(&*engine, &[]);
        engine.flush(true).unwrap();
        drop(engine);
        assert_eq!(open_engine(kind, dir).last_committed(), 3, "a decree without records");
    });
}

#[test]
fn the_decree_crosses_powers_of_ten() {
    // The decree is overwritten in place while it keeps its length, and must be right when it does not.
    on_both(|kind, dir| {
        let engine = open_engine(kind, dir);
        for decree in [1, 9, 10, 11, 99, 100, 1_000_000] {
            let mut batch = Batch::new();
            batch.put(&[b"k"], &[b"v"]);
            engine.write(&mut batch, decree, Stall::Wait).unwrap();
            engine.flush(true).unwrap();
            assert_eq!(engine.last_flushed(), Ok(decree));
        }
        drop(engine);
        assert_eq!(open_engine(kind, dir).last_committed(), 1_000_000);
    });
}

#[test]
fn flushing_without_waiting_gets_there() {
    on_both(|kind, dir| {
        let engine = open_engine(kind, dir);
        put(&*engine, &[(b"a", b"1")]);
        engine.flush(false).unwrap();
        put(&*engine, &[(b"b", b"1")]);
        // A waiting flush comes behind the one that was only started.
        engine.flush(true).unwrap();
        assert_eq!(engine.last_flushed(), Ok(2));
    });
}

#[test]
fn iterators_show_the_moment_they_were_made() {
    on_both(|kind, dir| {
        let engine = open_engine(kind, dir);
        put(&*engine, &[(b"\0\x01a1", b""), (b"\0\x01a2", b""), (b"\0\x01b", b""), (b"", b"")]);
        let all = |start: &[u8], direction, scope| engine.iter(start, direction, scope);
        let before = all(b"", Direction::Forward, Scope::All);
        let backwards = all(b"\0\x01a2", Direction::Reverse, Scope::All);
        put(&*engine, &[(b"\0\x01a15", b"new")]);
        let mut batch = Batch::new();
        batch.delete(&[b"\0\x01a1"]);
        engine.write(&mut batch, 3, Stall::Wait).unwrap();
        engine.flush(true).unwrap();
        engine.compact().unwrap();
        assert_eq!(walk(before), [&b""[..], b"\0\x01a1", b"\0\x01a2", b"\0\x01b"]);
        assert_eq!(walk(backwards), [&b"\0\x01a2"[..], b"\0\x01a1", b""]);
        let keys = walk(all(b"\0\x01a", Direction::Forward, Scope::SameHashKey));
        assert_eq!(keys, [&b"\0\x01a15"[..], b"\0\x01a2"], "one hash key only");
        let keys = walk(all(b"\0\x01a2\xff", Direction::Forward, Scope::SameHashKey));
        assert_eq!(keys, Vec::<Vec<u8>>::new(), "the next hash key is another");
        let keys = walk(all(b"\0\x01a3", Direction::Forward, Scope::All));
        assert_eq!(keys, [b"\0\x01b"]);
        let keys = walk(all(b"\0\x01a16", Direction::Reverse, Scope::SameHashKey));
        assert_eq!(keys, [&b"\0\x01a15"[..], b""], "backwards is always over everything");
        let keys = walk(all(b"\0\x09x", Direction::Forward, Scope::SameHashKey));
        assert_eq!(keys, Vec::<Vec<u8>>::new(), "a start that is no proper key");
    });
}

#[test]
fn an_iterator_outlives_the_handle_of_its_engine() {
    on_both(|kind, dir| {
        let engine = open_engine(kind, dir);
        put(&*engine, &[(b"\0\x01a", b"v")]);
        let iter = engine.iter(b"", Direction::Forward, Scope::All);
        drop(engine);
        assert_eq!(walk(iter), [b"\0\x01a"]);
    });
}

#[test]
fn meta_values_are_kept_and_the_decree_is_not_theirs() {
    on_both(|kind, dir| {
        let engine = open_engine(kind, dir);
        assert_eq!(engine.meta(meta::USAGE_SCENARIO), Ok(None));
        engine.set_meta(meta::USAGE_SCENARIO, "bulk_load").unwrap();
        engine.flush(true).unwrap();
        assert!(engine.set_meta(meta::LAST_FLUSHED_DECREE, "9").is_err());
        drop(engine);
        let engine = open_engine(kind, dir);
        assert_eq!(engine.meta(meta::USAGE_SCENARIO), Ok(Some("bulk_load".to_owned())));
        assert_eq!(engine.last_committed(), 0);
    });
}

#[test]
fn a_copy_is_an_engine_of_its_own() {
    on_both(|kind, dir| {
        let engine = open_engine(kind, dir);
        put(&*engine, &[(b"a", b"1")]);
        engine.flush(true).unwrap();
        put(&*engine, &[(b"a", b"2")]);
        let flushed = Scratch::new();
        let current = Scratch::new();
        assert_eq!(engine.copy_to(&flushed.path().join("rdb"), false), Ok(1));
        assert_eq!(engine.copy_to(&current.path().join("rdb"), true), Ok(2));
        put(&*engine, &[(b"a", b"3")]);
        for (copy, decree, value) in [(&flushed, 1, b"1"), (&current, 2, b"2")] {
            let copy = open_engine(kind, copy.path());
            assert_eq!((copy.last_committed(), copy.last_flushed()), (decree, Ok(decree)));
            assert_eq!(get(&*copy, b"a"), Some(value.to_vec()));
            put(&*copy, &[(b"a", b"own")]);
        }
        assert_eq!(get(&*engine, b"a"), Some(b"3".to_vec()));
    });
}

#[test]
fn compaction_drops_what_expired_before_the_newest_mutation() {
    on_both(|kind, dir| {
        let value = |expire| DataVersion::V1.encode_value(expire, Timetag::default(), b"v");
        let engine = open_engine(kind, dir);
        put(
            &*engine,
            &[
                (b"\0\x01a", &value(100)),
                (b"\0\x01b", &value(101)),
                (b"\0\x01c", &value(0)),
                (b"", &value(1)),
            ],
        );
        engine.compact().unwrap();
        let keys = |engine: &dyn StorageEngine| {
            walk(engine.iter(b"\0", Direction::Forward, Scope::All)).len()
        };
        assert_eq!(keys(&*engine), 3, "no mutation has told the time yet");
        engine.retention().observe(100);
        engine.compact().unwrap();
        assert_eq!(keys(&*engine), 2);
        assert_eq!(get(&*engine, b"\0\x01b"), Some(value(101)));
        assert_eq!(get(&*engine, b""), Some(value(1)), "what is no key is left alone");
        engine.retention().set_default_ttl(50);
        engine.compact().unwrap();
        assert_eq!(get(&*engine, b"\0\x01c"), Some(value(150)), "100 and 50");
        engine.retention().observe(200);
        engine.compact().unwrap();
        assert_eq!(keys(&*engine), 0);
        assert_eq!(engine.last_flushed(), Ok(1));
    });
}

#[test]
fn checkpoints_follow_what_is_durable() {
    on_both(|kind, dir| {
        let now = Mono::ZERO;
        let engine = open_engine(kind, dir);
        let load = |engine: &Arc<dyn StorageEngine>| {
            Checkpoints::load(engine.clone(), Arc::new(OsDisk), dir, now)
        };
        let checkpoints = load(&engine).unwrap();
        assert_eq!(checkpoints.make(true, now), Ok(Progress::UpToDate(0)));
        put(&*engine, &[(b"a", b"1")]);
        assert_eq!(checkpoints.make(false, now), Ok(Progress::UpToDate(0)), "nothing is flushed");
        // Asked to flush, it may come back before that is done, but gets there.
        while checkpoints.make(true, now).unwrap() == Progress::Flushing {
            engine.flush(true).unwrap();
        }
        assert_eq!(checkpoints.last_durable(), 1);
        put(&*engine, &[(b"a", b"2")]);
        assert_eq!(checkpoints.make_waiting(now), Ok(Progress::Made(2)));
        assert_eq!(checkpoints.make_waiting(now), Ok(Progress::UpToDate(2)));
        put(&*engine, &[(b"a", b"3")]);
        engine.flush(true).unwrap();
        assert_eq!(checkpoints.make(false, now), Ok(Progress::Made(3)));
        // What interrupted steps leave behind.
        OsDisk.create_dir_all(&dir.join("checkpoint.tmp.7")).unwrap();
        OsDisk.open(&dir.join("checkpoint.5.part"), OpenMode::CreateNew).unwrap();
        drop(checkpoints);
        let checkpoints = load(&engine).unwrap();
        let decrees = |checkpoints: &Checkpoints| -> Vec<i64> {
            checkpoints.all().iter().map(|checkpoint| checkpoint.decree()).collect()
        };
        assert_eq!(decrees(&checkpoints), [1, 2, 3]);
        let names = OsDisk.list(dir).unwrap();
        assert!(names.iter().all(|entry| !entry.name.contains("tmp") && entry.name.len() < 13));
        let copy = Scratch::new();
        assert_eq!(checkpoints.copy_to(&copy.path().join("rdb"), true), Ok(3));
        assert_eq!(get(&*open_engine(kind, copy.path()), b"a"), Some(b"3".to_vec()));
    });
}

#[test]
fn collection_keeps_the_newest_the_young_and_the_used() {
    let scratch = Scratch::new();
    let engine = open_engine(Kind::Memory, scratch.path());
    let at = |seconds| Mono::ZERO + Duration::from_secs(seconds);
    let checkpoints =
        Checkpoints::load(engine.clone(), Arc::new(OsDisk), scratch.path(), at(0)).unwrap();
    for decree in 1..=6 {
        put(&*engine, &[]);
        assert_eq!(checkpoints.make_waiting(at(decree * 10)), Ok(Progress::Made(decree as i64)));
    }
    let decrees = || -> Vec<i64> { checkpoints.all().iter().map(|c| c.decree()).collect() };
    let policy = ReservePolicy { min_count: 2, min_age: Duration::from_secs(40) };
    assert_eq!(checkpoints.collect(policy, false, at(65)), 2, "those of 10 and 20 seconds");
    assert_eq!(decrees(), [3, 4, 5, 6]);
    let used = checkpoints.all().swap_remove(0);
    assert_eq!(checkpoints.collect(policy, false, at(500)), 1);
    assert_eq!(decrees(), [3, 5, 6]);
    assert!(OsDisk.exists(used.dir()));
    drop(used);
    assert_eq!(checkpoints.collect(policy, true, at(500)), 2, "force keeps one");
    assert_eq!(decrees(), [6]);
    assert_eq!(checkpoints.collect(ReservePolicy { min_count: 0, ..policy }, false, at(999)), 0);
    let newest = checkpoints.newest().unwrap();
    assert!(matches!(checkpoints.remove_all(), Err(EngineError::Busy(_))));
    drop(newest);
    checkpoints.remove_all().unwrap();
    assert_eq!(checkpoints.last_durable(), 0);
    assert!(OsDisk.list(scratch.path()).unwrap().iter().all(|entry| entry.name == "rdb"));
}

#[test]
fn a_received_checkpoint_is_adopted_only_when_newer() {
    on_both(|kind, dir| {
        let engine = open_engine(kind, dir);
        for _ in 0..3 {
            put(&*engine, &[]);
        }
        let checkpoints =
            Checkpoints::load(engine.clone(), Arc::new(OsDisk), dir, Mono::ZERO).unwrap();
        assert_eq!(checkpoints.make_waiting(Mono::ZERO), Ok(Progress::Made(3)));
        let received = Scratch::new();
        let place = received.path().join("received");
        OsDisk.create_dir_all(&place).unwrap();
        let adopted = checkpoints.adopt(&place, 3, Mono::ZERO);
        assert!(matches!(adopted, Err(EngineError::InvalidArgument(_))));
        put(&*engine, &[]);
        engine.copy_to(&place.join("copy"), true).unwrap();
        checkpoints.adopt(&place.join("copy"), 4, Mono::ZERO).unwrap();
        assert_eq!(checkpoints.last_durable(), 4);
    });
}

#[test]
fn checkpoints_without_their_engine_are_damage() {
    on_both(|kind, dir| {
        let engine = open_engine(kind, dir);
        put(&*engine, &[]);
        let disk: Arc<dyn Disk> = Arc::new(OsDisk);
        let checkpoints = Checkpoints::load(engine.clone(), disk.clone(), dir, Mono::ZERO).unwrap();
        assert_eq!(checkpoints.make_waiting(Mono::ZERO), Ok(Progress::Made(1)));
        drop((engine, checkpoints));
        OsDisk.remove_dir_all(&dir.join("rdb")).unwrap();
        let engine = open_engine(kind, dir);
        let loaded = Checkpoints::load(engine, disk, dir, Mono::ZERO);
        assert!(matches!(loaded.map(|_| ()), Err(EngineError::Corruption(_))));
    });
}

type Opener<'a> = &'a dyn Fn(&Path) -> Result<(), EngineError>;

/// Bug 27: an engine of which a crash left only half is opened again and again.
#[test]
fn a_directory_that_is_no_complete_engine_is_damage_and_a_half_made_one_is_not() {
    let rocks = |dir: &Path| {
        let options = StorageOptions::quiet();
        let shared = RocksShared::new(&options).unwrap();
        RocksEngine::open(&dir.join("rdb"), &options, &shared, &OsDisk).map(|_| ())
    };
    let memory = |dir: &Path| MemEngine::open(&dir.join("rdb"), Arc::new(OsDisk)).map(|_| ());
    let openers: [Opener<'_>; 2] = [&rocks, &memory];
    for open in openers {
        let scratch = Scratch::new();
        OsDisk.create_dir_all(&scratch.path().join("rdb")).unwrap();
        assert!(matches!(open(scratch.path()), Err(EngineError::Corruption(_))));
        let scratch = Scratch::new();
        let half_made = scratch.path().join("rdb.new");
        OsDisk.create_dir_all(&half_made).unwrap();
        OsDisk.open(&half_made.join("rubbish"), OpenMode::CreateNew).unwrap();
        assert_eq!(open(scratch.path()), Ok(()));
        assert!(!OsDisk.exists(&half_made));
    }
    // A database of somebody else.
    let scratch = Scratch::new();
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    drop(rocksdb::DB::open(&options, scratch.path().join("rdb")).unwrap());
    let Err(EngineError::Corruption(text)) = rocks(scratch.path()) else { panic!("opened") };
    assert!(text.contains("pegasus_meta_cf"), "{text}");
}

#[test]
fn a_damaged_image_is_damage() {
    let scratch = Scratch::new();
    let engine = open_engine(Kind::Memory, scratch.path());
    put(&*engine, &[(b"a", b"1")]);
    engine.flush(true).unwrap();
    drop(engine);
    let image = scratch.path().join("rdb/IMAGE");
    let file = OsDisk.open(&image, OpenMode::ReadWrite).unwrap();
    file.write_at(20, &[Bytes::from_static(b"\xff")]).unwrap();
    let opened = MemEngine::open(&scratch.path().join("rdb"), Arc::new(OsDisk)).map(|_| ());
    assert!(matches!(opened, Err(EngineError::Corruption(_))), "{opened:?}");
}

#[test]
fn a_database_keeps_the_number_of_levels_it_was_made_with() {
    let scratch = Scratch::new();
    let dir = scratch.path().join("rdb");
    let mut options = StorageOptions { rocksdb_num_levels: 8, ..StorageOptions::quiet() };
    let shared = RocksShared::new(&options).unwrap();
    let engine = RocksEngine::open(&dir, &options, &shared, &OsDisk).unwrap();
    put(&engine, &[(b"\0\x01a", b"v")]);
    // To the bottom level, which fewer levels would not have.
    engine.compact().unwrap();
    drop(engine);
    options.rocksdb_num_levels = 2;
    let engine = RocksEngine::open(&dir, &options, &shared, &OsDisk).unwrap();
    assert_eq!(get(&engine, b"\0\x01a"), Some(b"v".to_vec()));
}

#[test]
fn a_cold_record_is_not_read_on_a_worker() {
    let scratch = Scratch::new();
    let key = encode_key(b"h", b"s").unwrap();
    let mut store = Store::open(Kind::Rocks, scratch.path());
    let request = UpdateRequest { key: key.clone(), value: "7".into(), ..Default::default() };
    let _: UpdateResponse = store.write(&RPC_RRDB_RRDB_PUT, &request);
    let get = |store: &Store, mode| store.read_body(&RPC_RRDB_RRDB_GET, wrapped(&key), mode).0;
    assert_eq!(get(&store, ReadMode::Inline), ReadOutcome::Reply, "from the memtable");
    store.app.engine().flush(true).unwrap();
    drop(store);
    let mut store = Store::open(Kind::Rocks, scratch.path());
    assert_eq!(get(&store, ReadMode::Inline), ReadOutcome::WouldBlock, "nothing is cached yet");
    let incr = IncrRequest { key: key.clone(), increment: 1, expire_ts_seconds: 0 };
    let run = || vec![vec![request_of(&RPC_RRDB_RRDB_INCR, &incr)]];
    assert_eq!(store.try_apply(run(), ApplyMode::Worker), Err(ApplyError::WouldBlock));
    assert_eq!(store.last_applied(), 1);
    assert_eq!(get(&store, ReadMode::Blocking), ReadOutcome::Reply);
    assert_eq!(get(&store, ReadMode::Inline), ReadOutcome::Reply, "now it is");
    assert!(store.try_apply(run(), ApplyMode::Worker).is_ok());
    let range = MultiGetRequest { hash_key: "h".into(), ..Default::default() };
    let (outcome, _) = store.read_body(&RPC_RRDB_RRDB_MULTI_GET, wrapped(&range), ReadMode::Inline);
    assert_eq!(outcome, ReadOutcome::WouldBlock, "ranges never");
}

/// An engine that would block at one chosen point of what is done without waiting.
struct Reluctant {
    inner: Arc<dyn StorageEngine>,
    /// Calls that still succeed.
    willing: AtomicU32,
}

impl Reluctant {
    fn agrees(&self) -> Result<(), EngineError> {
        let left = self.willing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            Some(left.saturating_sub(1))
        });
        if left == Ok(0) { Err(EngineError::WouldBlock) } else { Ok(()) }
    }
}

impl StorageEngine for Reluctant {
    fn get(
        &self,
        key: &[u8],
        tier: ReadTier,
        visit: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, EngineError> {
        if tier == ReadTier::CacheOnly {
            self.agrees()?;
        }
        self.inner.get(key, tier, visit)
    }

    fn write(&self, batch: &mut Batch, decree: i64, stall: Stall) -> Result<(), EngineError> {
        if stall == Stall::Refuse {
            self.agrees()?;
        }
        self.inner.write(batch, decree, stall)
    }

    fn iter(&self, start: &[u8], direction: Direction, scope: Scope) -> Box<dyn EngineIter> {
        self.inner.iter(start, direction, scope)
    }

    fn flush(&self, wait: bool) -> Result<(), EngineError> {
        self.inner.flush(wait)
    }

    fn last_committed(&self) -> i64 {
        self.inner.last_committed()
    }

    fn last_flushed(&self) -> Result<i64, EngineError> {
        self.inner.last_flushed()
    }

    fn data_version(&self) -> DataVersion {
        self.inner.data_version()
    }

    fn meta(&self, key: &str) -> Result<Option<String>, EngineError> {
        self.inner.meta(key)
    }

    fn set_meta(&self, key: &str, value: &str) -> Result<(), EngineError> {
        self.inner.set_meta(key, value)
    }

    fn copy_to(&self, dir: &Path, flush: bool) -> Result<i64, EngineError> {
        self.inner.copy_to(dir, flush)
    }

    fn retention(&self) -> &Retention {
        self.inner.retention()
    }

    fn compact(&self) -> Result<(), EngineError> {
        self.inner.compact()
    }

    fn set_options(&self, options: &[(&str, &str)]) -> Result<(), EngineError> {
        self.inner.set_options(options)
    }

    fn stats(&self) -> EngineStats {
        self.inner.stats()
    }

    fn stop(&self) {
        self.inner.stop();
    }
}

#[test]
fn a_run_that_would_block_anywhere_has_no_effect_and_can_be_repeated() {
    let incr = |name: &str| {
        let key = encode_key(b"h", name.as_bytes()).unwrap();
        request_of(&RPC_RRDB_RRDB_INCR, &IncrRequest { key, increment: 1, expire_ts_seconds: 0 })
    };
    let run = || vec![vec![incr("a"), incr("b")], vec![incr("a"), incr("c")]];
    let expected = {
        let scratch = Scratch::new();
        Store::open(Kind::Memory, scratch.path()).apply(run())
    };
    // Three reads (the second of "a" is answered by the batch) and the write.
    for willing in 0..=4 {
        let scratch = Scratch::new();
        let inner = open_engine(Kind::Memory, scratch.path());
        let engine = Arc::new(Reluctant { inner, willing: AtomicU32::new(willing) });
        let mut store = Store::over(engine, scratch.path());
        let outcome = store.try_apply(run(), ApplyMode::Worker);
        if willing < 4 {
            assert_eq!(outcome, Err(ApplyError::WouldBlock), "after {willing} calls");
            assert_eq!((store.last_applied(), store.content().len()), (0, 0));
            assert_eq!(store.apply(run()), expected);
        } else {
            assert_eq!(outcome.as_ref(), Ok(&expected));
        }
        assert_eq!((store.last_applied(), store.content().len()), (2, 3));
        assert_eq!(store.app.last_durable().0, 0);
    }
}
