//! Two storage apps, one per engine, that are given the same.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use dsn_core::code::Code;
use dsn_core::time::{Mono, NANOS_PER_SECOND};
use dsn_replication::mutation::{ClientRequest, Mutation};
use dsn_replication::state_machine::{
    ApplyMode, ReadMode, ReadOutcome, Replies, ReplyView, StateMachine,
};
use dsn_replication::wire::config::AppInfo;
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::thrift::decode_wrapped;
use pegasus_client::schema::rrdb::*;
use pegasus_server::codes::*;
use pegasus_server::engine::meta;
use pegasus_server::options::StorageOptions;

use crate::steps::Step;
use crate::support::{KINDS, Kind, Store, open_engine, wrapped};

/// Most ids of scans that are remembered.
const IDS_MAX: usize = 20;

/// What a run is about.
#[derive(Clone, Debug)]
pub struct Flavour {
    /// Limits of reads so low that they are met all the time.
    pub tight_limits: bool,
    /// Values as servers before 2020 stored them.
    pub old_schema: bool,
}

/// What a run did, so that one that did nothing does not pass for a good one.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub writes: u64,
    pub reads: u64,
    pub found: u64,
    pub scans: u64,
    pub incomplete: u64,
    pub inline: u64,
    pub crashes: u64,
    pub checkpoints: u64,
    pub compactions: u64,
}

type Answers = Vec<Result<Bytes, ErrorCode>>;

/// See the module's header.
pub struct Pair {
    flavour: Flavour,
    dirs: [PathBuf; 2],
    stores: Vec<Store>,
    /// Every mutation with its answers: what a log would hold.
    log: Vec<(Mutation, Answers)>,
    info: AppInfo,
    ids: Vec<i64>,
    pub tally: Tally,
}

fn options(flavour: &Flavour) -> StorageOptions {
    use dsn_core::config::{Size, Tunable};
    let quiet = StorageOptions::quiet();
    if !flavour.tight_limits {
        return quiet;
    }
    StorageOptions {
        rocksdb_multi_get_max_iteration_count: Tunable::fixed(7),
        rocksdb_multi_get_max_iteration_size: Tunable::fixed(Size::bytes(120)),
        rocksdb_max_iteration_count: Tunable::fixed(5),
        ..quiet
    }
}

fn open(flavour: &Flavour, kind: Kind, dir: &Path) -> Store {
    Store::with(open_engine(kind, dir), dir, options(flavour))
}

impl Pair {
    pub fn new(flavour: Flavour, dir: &Path) -> Self {
        let dirs = [dir.join("memory"), dir.join("rocks")];
        let mut stores = Vec::new();
        for (kind, dir) in KINDS.into_iter().zip(&dirs) {
            crate::support::make_dir(dir);
            if flavour.old_schema {
                let engine = open_engine(kind, dir);
                engine.set_meta(meta::DATA_VERSION, "0").unwrap();
                engine.flush(true).unwrap();
            }
            stores.push(open(&flavour, kind, dir));
        }
        let version = if flavour.old_schema { 0 } else { 1 };
        for store in &stores {
            assert_eq!(store.app.engine().data_version().number(), version);
        }
        let info = AppInfo { partition_count: 8, ..AppInfo::default() };
        let (ids, tally) = (Vec::new(), Tally::default());
        Self { flavour, dirs, stores, log: Vec::new(), info, ids, tally }
    }

    /// Does one thing to both.
    pub fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Write(run) => self.write(run.clone()),
            Step::Read(code, body, mode) => self.read(code, body.clone(), *mode),
            Step::Scan(pick) => {
                let context_id = self.id(*pick);
                let body = wrapped(&ScanRequest { context_id });
                self.read(&RPC_RRDB_RRDB_SCAN, body, ReadMode::Blocking)
            }
            Step::ClearScanner(pick) => {
                let id = self.id(*pick);
                self.read(&RPC_RRDB_RRDB_CLEAR_SCANNER, wrapped(&id), ReadMode::Blocking)
            }
            Step::Later(seconds) => {
                for store in &mut self.stores {
                    store.now += seconds;
                    store.mono = Mono::from_nanos(
                        store.mono.nanos() + u64::from(*seconds) * NANOS_PER_SECOND,
                    );
                    store.app.tick(store.mono);
                }
                Ok(())
            }
            Step::Tick(nanos) => {
                self.stores.iter_mut().for_each(|store| store.tick = *nanos);
                Ok(())
            }
            Step::Envs(envs, partition_count) => {
                self.info.envs = envs.clone();
                self.info.partition_count = *partition_count;
                self.stores.iter().for_each(|store| store.app.reconfigure(&self.info));
                Ok(())
            }
            Step::Flush => self.each(|store| store.app.engine().flush(true)),
            Step::Compact => {
                self.tally.compactions += 1;
                self.each(|store| store.app.engine().compact())
            }
            Step::Checkpoint => {
                self.tally.checkpoints += 1;
                self.each(|store| store.app.checkpoints().make_waiting(store.mono).map(|_| ()))
            }
            Step::Collect => {
                self.stores.iter().for_each(|store| {
                    store.app.collect_checkpoints(true, store.mono);
                });
                self.same("checkpoints", |store| {
                    let all = store.app.checkpoints().all();
                    all.iter().map(|each| each.decree()).collect::<Vec<_>>()
                })
            }
            Step::Crash { flushed } => self.reopen(*flushed),
            Step::Planted => {
                let request =
                    UpdateRequest { key: Bytes::from_static(b"\0\x01p"), ..Default::default() };
                let store = &mut self.stores[1];
                store.apply(vec![vec![crate::support::request_of(&RPC_RRDB_RRDB_PUT, &request)]]);
                Ok(())
            }
        }
    }

    fn each<E: std::fmt::Debug>(
        &mut self,
        f: impl Fn(&Store) -> Result<(), E>,
    ) -> Result<(), String> {
        self.stores.iter().try_for_each(|store| f(store).map_err(|error| format!("{error:?}")))
    }

    fn same<T: PartialEq + std::fmt::Debug>(
        &self,
        what: &str,
        f: impl Fn(&Store) -> T,
    ) -> Result<(), String> {
        let (memory, rocks) = (f(&self.stores[0]), f(&self.stores[1]));
        if memory == rocks {
            Ok(())
        } else {
            Err(format!("{what}: {memory:?}, RocksDB: {rocks:?}"))
        }
    }

    fn id(&self, pick: usize) -> i64 {
        match self.ids.len() {
            0 => 17,
            count => self.ids[count - 1 - pick % count],
        }
    }

    fn write(&mut self, run: Vec<Vec<ClientRequest>>) -> Result<(), String> {
        self.tally.writes += run.iter().map(|requests| requests.len() as u64).sum::<u64>();
        let first = self.stores[0].last_applied();
        let mutations = self.stores[0].mutations(run);
        let memory = answers(&mut self.stores[0], &mutations);
        let rocks = answers(&mut self.stores[1], &mutations);
        if memory != rocks {
            return Err(format!("answers {memory:?}, RocksDB {rocks:?}"));
        }
        assert_eq!(self.log.len() as i64, first, "the log has everything");
        let mut rest = memory.into_iter();
        for mutation in mutations {
            let own: Answers = rest.by_ref().take(mutation.requests.len()).collect();
            self.log.push((mutation, own));
        }
        self.same("decree", Store::last_applied)
    }

    fn read(&mut self, code: Code, body: Bytes, mode: ReadMode) -> Result<(), String> {
        self.tally.reads += 1;
        let (memory, answer) = self.stores[0].read_body(code, body.clone(), mode);
        let (mut rocks, mut other) = self.stores[1].read_body(code, body.clone(), mode);
        self.tally.inline += u64::from(mode == ReadMode::Inline && rocks == ReadOutcome::Reply);
        if rocks == ReadOutcome::WouldBlock && memory != ReadOutcome::WouldBlock {
            // Allowed where a file must be read; the answer is the same then.
            (rocks, other) = self.stores[1].read_body(code, body, ReadMode::Blocking);
        }
        if (memory, &answer) != (rocks, &other) {
            return Err(format!("{memory:?} {answer:?}, RocksDB {rocks:?} {other:?}"));
        }
        self.learn(code, memory, &answer);
        Ok(())
    }

    /// Remembers ids of scans, and counts.
    fn learn(&mut self, code: Code, outcome: ReadOutcome, answer: &Bytes) {
        if outcome != ReadOutcome::Reply {
            return;
        }
        if code == &RPC_RRDB_RRDB_GET_SCANNER || code == &RPC_RRDB_RRDB_SCAN {
            let scan: ScanResponse = decode_wrapped(answer).unwrap();
            self.tally.scans += u64::from(!scan.kvs.is_empty());
            self.tally.incomplete += u64::from(scan.error == status::INCOMPLETE);
            if scan.context_id > 0 {
                self.ids.push(scan.context_id);
                let excess = self.ids.len().saturating_sub(IDS_MAX);
                self.ids.drain(..excess);
            }
        } else if code == &RPC_RRDB_RRDB_MULTI_GET {
            let found: MultiGetResponse = decode_wrapped(answer).unwrap();
            self.tally.found += found.kvs.len() as u64;
            self.tally.incomplete += u64::from(found.error == status::INCOMPLETE);
        } else if code == &RPC_RRDB_RRDB_GET {
            let found: ReadResponse = decode_wrapped(answer).unwrap();
            self.tally.found += u64::from(found.error == status::OK);
        }
    }

    /// Both end, orderly or not, are opened again and fed what they have lost.
    fn reopen(&mut self, flushed: bool) -> Result<(), String> {
        self.tally.crashes += 1;
        for (at, kind) in KINDS.into_iter().enumerate() {
            let old = self.stores.remove(at);
            if flushed {
                old.app.engine().flush(true).map_err(|error| error.to_string())?;
            }
            let (now, mono, tick) = (old.now, old.mono, old.tick);
            drop(old);
            let mut store = open(&self.flavour, kind, &self.dirs[at]);
            (store.now, store.mono, store.tick) = (now, mono, tick);
            for (mutation, before) in &self.log[store.last_applied() as usize..] {
                let again = answers(&mut store, std::slice::from_ref(mutation));
                if again != *before {
                    return Err(format!(
                        "{kind:?} answers a replay by {again:?}, first {before:?}"
                    ));
                }
            }
            store.app.reconfigure(&self.info);
            self.stores.insert(at, store);
        }
        // Ids begin anew; and compaction learns the time from mutations.
        self.ids.clear();
        self.write(vec![Vec::new()])
    }

    /// Compares everything that is stored.
    pub fn finish(&mut self) -> Result<(), String> {
        let (memory, rocks) = (self.stores[0].content(), self.stores[1].content());
        if memory == rocks {
            return Ok(());
        }
        let differs = memory.iter().zip(&rocks).find(|(a, b)| a != b);
        Err(format!("content: {} records, RocksDB {}: {differs:?}", memory.len(), rocks.len()))
    }
}

fn answers(store: &mut Store, run: &[Mutation]) -> Answers {
    let mut replies = Replies::new(true);
    store.app.apply(run, ApplyMode::Blocking, &mut replies).unwrap();
    let answer = |at| match replies.get(at).unwrap() {
        ReplyView::Value(value) => Ok(Bytes::copy_from_slice(value)),
        ReplyView::Error(error) => Err(error),
        ReplyView::Silence => panic!("a request without an answer"),
    };
    (0..replies.len()).map(answer).collect()
}
