//! What an operation costs, layer by layer: the raw crate call, the engine, the whole storage app.
//!
//! Run with `cargo bench -p pegasus-server --bench engine [-- <filter>]`. Each line is the median of
//! many short rounds, in nanoseconds of this thread's CPU time per operation; the variants of one case
//! take turns in each round, so that a busy machine disturbs all of them alike.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use dsn_core::disk::Disk;
use dsn_core::driver::native::OsDisk;
use dsn_core::metrics::Registry;
use dsn_core::rng::Rng;
use dsn_core::time::{Mono, Wall};
use dsn_replication::ids::{Ballot, Decree};
use dsn_replication::mutation::{ClientRequest, Mutation};
use dsn_replication::state_machine::{
    ApplyMode, ReadEnv, ReadMode, ReadOutcome, ReadRequest, Replies, StateMachine,
};
use dsn_rpc::gpid::Gpid;
use dsn_rpc::thrift::{ARGUMENT_ID, encode_wrapped};
use pegasus_client::schema::key::encode_key;
use pegasus_client::schema::rrdb::UpdateRequest;
use pegasus_client::schema::value::{DataVersion, Timetag};
use pegasus_server::app::{AppParts, StorageApp};
use pegasus_server::codes;
use pegasus_server::engine::rocks::{RocksEngine, RocksShared};
use pegasus_server::engine::{Batch, ReadTier, Stall, StorageEngine};
use pegasus_server::identity::Identity;
use pegasus_server::metrics::StorageMetrics;
use pegasus_server::options::StorageOptions;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const KEYS: u64 = 100_000;
const VALUE_BYTES: usize = 100;
/// Operations between two looks at the clock.
const SLICE: u64 = 2048;
const ROUNDS: u64 = 60;

fn main() {
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let cases: [(&str, fn()); 4] = [
        ("get_memtable", || gets(false)),
        ("get_cache", || gets(true)),
        ("put_batch_1", || puts(1)),
        ("put_batch_32", || puts(32)),
    ];
    for (name, case) in cases {
        if name.contains(&filter) {
            println!("{name} ({VALUE_BYTES}-byte values, {KEYS} keys)");
            case();
        }
    }
}

type Variant<'a> = (&'static str, Box<dyn FnMut(&mut Rng) + 'a>);

/// Runs the variants in turns and prints what each costs. `per_call` operations are one call.
fn compare(per_call: u64, mut variants: Vec<Variant<'_>>) {
    let mut samples = vec![Vec::new(); variants.len()];
    for round in 0..=ROUNDS {
        for (at, (_, run)) in variants.iter_mut().enumerate() {
            let mut rng = Rng::new(round);
            let start = cpu_nanos();
            for _ in 0..SLICE / per_call {
                run(&mut rng);
            }
            let nanos = (cpu_nanos() - start) as f64 / SLICE as f64;
            // The first round warms up.
            if round > 0 {
                samples[at].push(nanos);
            }
        }
    }
    for ((name, _), mut costs) in variants.into_iter().zip(samples) {
        costs.sort_by(f64::total_cmp);
        let (low, median) = (costs[costs.len() / 10], costs[costs.len() / 2]);
        println!("  {name:<24} {median:>7.0} ns/op (tenth percentile {low:.0})");
    }
}

/// CPU time of this thread.
fn cpu_nanos() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Directory of a bench, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("pegasus-bench-{}-{name}", std::process::id()));
        OsDisk.create_dir_all(&dir).expect("a temporary directory");
        Self(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = OsDisk.remove_dir_all(&self.0);
    }
}

fn raw_key(number: u64) -> Bytes {
    encode_key(format!("user{number:012}").as_bytes(), b"field").expect("a short key")
}

fn any_key(rng: &mut Rng) -> Bytes {
    raw_key(rng.below(KEYS))
}

fn stored_value() -> Vec<u8> {
    DataVersion::V1.encode_value(0, Timetag::new(1, 0, false), &[b'v'; VALUE_BYTES])
}

fn wrapped(value: &impl dsn_rpc::thrift::Encode) -> Bytes {
    let mut out = BytesMut::new();
    encode_wrapped(value, ARGUMENT_ID, &mut out);
    out.freeze()
}

fn put_body(raw_key: Bytes) -> Bytes {
    let value = Bytes::from_static(&[b'v'; VALUE_BYTES]);
    wrapped(&UpdateRequest { key: raw_key, value, ..Default::default() })
}

fn open_engine(dir: &Path) -> RocksEngine {
    let options = StorageOptions::default();
    let shared = RocksShared::new(&options).expect("options");
    RocksEngine::open(&dir.join("rdb"), &options, &shared, &OsDisk).expect("an engine")
}

fn open_app(dir: &Path) -> StorageApp {
    let parts = AppParts {
        engine: Arc::new(open_engine(dir)),
        identity: Identity { app_id: 1, partition_index: 0, server: "127.0.0.1:34801".into() },
        metrics: StorageMetrics::new(&Registry::default(), "replica@1.0", []),
        options: Arc::new(StorageOptions::default()),
        cluster_id: 0,
        scan_base: 0,
    };
    StorageApp::new(parts, Arc::new(OsDisk), dir, Mono::ZERO).expect("an app")
}

/// A database as close to RocksDB's defaults as the comparison allows: no log, one column family.
fn open_plain(dir: &Path) -> rocksdb::DB {
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    let mut table = rocksdb::BlockBasedOptions::default();
    table.set_block_cache(&rocksdb::Cache::new_lru_cache(1 << 30));
    table.set_bloom_filter(10.0, false);
    options.set_block_based_table_factory(&table);
    rocksdb::DB::open(&options, dir.join("plain")).expect("a database")
}

fn no_wal() -> rocksdb::WriteOptions {
    let mut options = rocksdb::WriteOptions::default();
    options.disable_wal(true);
    options
}

fn fill(engine: &dyn StorageEngine) {
    let value = stored_value();
    let mut batch = Batch::new();
    for number in 0..KEYS {
        batch.put(&[&raw_key(number)], &[&value]);
        if batch.len() == 1000 {
            let decree = engine.last_committed() + 1;
            engine.write(&mut batch, decree, Stall::Wait).expect("a write");
            batch.clear();
        }
    }
}

fn gets(from_files: bool) {
    let scratch = Scratch::new("gets");
    let plain = open_plain(&scratch.0);
    for number in 0..KEYS {
        plain.put_opt(raw_key(number), stored_value(), &no_wal()).expect("a write");
    }
    let app = open_app(&scratch.0);
    let engine = app.engine().clone();
    fill(&*engine);
    if from_files {
        engine.compact().expect("a compaction");
        plain.flush().expect("a flush");
        plain.compact_range(None::<&[u8]>, None::<&[u8]>);
        for number in 0..KEYS {
            engine.get(&raw_key(number), ReadTier::All, &mut |_| {}).expect("a record");
        }
    }
    let plain_options = rocksdb::ReadOptions::default();
    let wall = Wall::from_unix_seconds(1_800_000_000);
    let env = ReadEnv { wall, clock: &|| Mono::ZERO, deadline: None };
    let mut out = BytesMut::with_capacity(64 << 10);
    let mut request = ReadRequest {
        code: &codes::RPC_RRDB_RRDB_GET,
        gpid: Gpid { app_id: 1, partition_index: 0 },
        body: Bytes::new(),
        partition_hash: 0,
        is_backup: false,
    };
    compare(
        1,
        vec![
            ("making the key", Box::new(|rng| drop(black_box(any_key(rng))))),
            ("making the request", Box::new(|rng| drop(black_box(wrapped(&any_key(rng)))))),
            (
                "crate, plain options",
                Box::new(|rng| {
                    let found = plain.get_pinned_opt(any_key(rng), &plain_options);
                    black_box(found.expect("no error").expect("a record").len());
                }),
            ),
            (
                "engine",
                Box::new(|rng| {
                    let key = any_key(rng);
                    let mut len = 0;
                    let found = engine.get(&key, ReadTier::CacheOnly, &mut |v| len = v.len());
                    assert!(found.expect("no error"));
                    black_box(len);
                }),
            ),
            (
                "app, with request",
                Box::new(|rng| {
                    request.body = wrapped(&any_key(rng));
                    let outcome = app.read(&request, ReadMode::Inline, &env, &mut out);
                    assert_eq!(outcome, ReadOutcome::Reply);
                    out.clear();
                }),
            ),
        ],
    );
}

fn puts(batch_size: u64) {
    let scratch = Scratch::new("puts");
    let plain = open_plain(&scratch.0);
    let plain_write = no_wal();
    let engine_dir = scratch.0.join("engine");
    OsDisk.create_dir_all(&engine_dir).expect("a directory");
    let engine = open_engine(&engine_dir);
    let app = open_app(&scratch.0);
    let value = stored_value();
    let mut batch = Batch::new();
    let mut replies = Replies::new(true);
    let count = batch_size as usize;
    compare(
        batch_size,
        vec![
            (
                "making the requests",
                Box::new(|rng| {
                    for _ in 0..count {
                        drop(black_box(put_body(any_key(rng))));
                    }
                }),
            ),
            (
                "crate, plain options",
                Box::new(|rng| {
                    let mut batch = rocksdb::WriteBatch::default();
                    for _ in 0..count {
                        batch.put(any_key(rng), &value);
                    }
                    plain.write_opt(batch, &plain_write).expect("a write");
                }),
            ),
            (
                "engine",
                Box::new(|rng| {
                    batch.clear();
                    for _ in 0..count {
                        batch.put(&[&any_key(rng)], &[&value]);
                    }
                    let decree = engine.last_committed() + 1;
                    engine.write(&mut batch, decree, Stall::Refuse).expect("a write");
                }),
            ),
            (
                "app, with requests",
                Box::new(|rng| {
                    let request = |rng: &mut Rng| ClientRequest {
                        code: &codes::RPC_RRDB_RRDB_PUT,
                        body: put_body(any_key(rng)),
                    };
                    let decree = app.last_applied().next();
                    let mutation = Mutation {
                        gpid: Gpid { app_id: 1, partition_index: 0 },
                        ballot: Ballot(1),
                        decree,
                        last_committed: decree.prev(),
                        timestamp_us: 1_800_000_000_000_000 + Decree::ZERO.0 as u64,
                        stamp: 0,
                        requests: (0..count).map(|_| request(rng)).collect(),
                    };
                    replies.clear(true);
                    app.apply(&[mutation], ApplyMode::Worker, &mut replies).expect("applied");
                    assert_eq!(replies.len(), count);
                }),
            ),
        ],
    );
}
