//! The steps of a run, drawn from a seed. Few keys, so that operations meet; odd ones among them.

use std::collections::BTreeMap;

use bytes::Bytes;
use dsn_core::code::Code;
use dsn_core::rng::Rng;
use dsn_replication::mutation::ClientRequest;
use dsn_replication::state_machine::ReadMode;
use dsn_rpc::thrift::Encode;
use pegasus_client::schema::key::{MAX_HASH_KEY_LEN, encode_key};
use pegasus_client::schema::rrdb::*;
use pegasus_server::codes::*;

use crate::support::{BEGIN, request_of, wrapped};

/// One thing to do to both stores.
#[derive(Clone, Debug)]
pub enum Step {
    /// Mutations, each given by its requests, applied as one run.
    Write(Vec<Vec<ClientRequest>>),
    Read(Code, Bytes, ReadMode),
    /// Continues one of the scans that were opened last.
    Scan(usize),
    ClearScanner(usize),
    /// Seconds pass.
    Later(u32),
    /// What the clock advances by at every look, in nanoseconds.
    Tick(u64),
    Envs(BTreeMap<String, String>, i32),
    Flush,
    Compact,
    Checkpoint,
    Collect,
    /// The process ends, after a flush or with the loss of what was not flushed, and starts again.
    Crash {
        flushed: bool,
    },
    /// A write to one side only: what a test of the test needs.
    Planted,
}

struct Draw {
    rng: Rng,
    /// Roughly the time of the stores.
    now: u32,
}

/// The steps of a seed.
pub fn draw(seed: u64, count: usize) -> Vec<Step> {
    let mut draw = Draw { rng: Rng::new(seed), now: BEGIN };
    (0..count).map(|_| draw.step()).collect()
}

impl Draw {
    fn step(&mut self) -> Step {
        match self.rng.below(1000) {
            0..=429 => Step::Write(self.run()),
            430..=799 => self.read(),
            800..=899 => Step::Scan(self.rng.index(4)),
            900..=909 => Step::ClearScanner(self.rng.index(4)),
            910..=949 => {
                let seconds = [1, 1, 2, 5, 60, 301][self.rng.index(6)];
                self.now += seconds;
                Step::Later(seconds)
            }
            950..=954 => Step::Tick([0, 0, 1_000_000, 20_000_000][self.rng.index(4)]),
            955..=966 => self.envs(),
            967..=975 => Step::Flush,
            976..=981 => Step::Compact,
            982..=987 => Step::Checkpoint,
            988..=990 => Step::Collect,
            _ => Step::Crash { flushed: self.rng.ratio(1, 3) },
        }
    }

    fn pick(&mut self, items: &[&'static [u8]]) -> Bytes {
        Bytes::from_static(items[self.rng.index(items.len())])
    }

    fn hash_key(&mut self) -> Bytes {
        if self.rng.ratio(1, 300) {
            let excess = self.rng.index(3);
            return Bytes::from(vec![0xff; MAX_HASH_KEY_LEN - 1 + excess]);
        }
        self.pick(&[
            b"",
            b"a",
            b"a",
            b"a",
            b"b",
            b"aa",
            b"\xff",
            b"\xff\xff",
            b"\0",
            b"h\xff",
            b"h",
        ])
    }

    fn sort_key(&mut self) -> Bytes {
        match self.rng.below(60) {
            0 => Bytes::from(vec![b's'; self.rng.index(3000)]),
            1..=20 => {
                let alphabet = [0, b'a', b'b', 0xff];
                let len = self.rng.index(4);
                (0..len).map(|_| alphabet[self.rng.index(4)]).collect()
            }
            _ => self.pick(&[
                b"",
                b"0",
                b"1",
                b"2",
                b"3",
                b"10",
                b"ab",
                b"abc",
                b"b",
                b"\xff",
                b"\xff\xff",
                b"s\xff",
            ]),
        }
    }

    /// A full key; now and then bytes that are none.
    fn raw_key(&mut self) -> Bytes {
        if self.rng.ratio(1, 60) {
            return self.pick(&[b"", b"\0", b"\x07", b"\0\x09short", b"\xff\xff", b"\xff\xffx"]);
        }
        let (hash_key, sort_key) = (self.hash_key(), self.sort_key());
        encode_key(&hash_key, &sort_key)
            .unwrap_or_else(|_| [b"\xff\xff", &hash_key[..]].concat().into())
    }

    fn value(&mut self) -> Bytes {
        match self.rng.below(40) {
            0 => Bytes::from(vec![b'v'; self.rng.index(5000)]),
            1 => Bytes::from(vec![0xff; 1 + self.rng.index(40)]),
            2..=20 => self.pick(&[
                b"",
                b"0",
                b"7",
                b"-3",
                b"010",
                b"0x1F",
                b" 7",
                b"7 ",
                b"9223372036854775807",
                b"-9223372036854775808",
                b"99999999999999999999",
                b"seven",
            ]),
            _ => Bytes::from(format!("value {}", self.rng.below(50))),
        }
    }

    fn expire(&mut self) -> i32 {
        let now = self.now as i32;
        [0, 0, 0, 0, now - 1, now, now + 1, now + 3, now + 60, -1, i32::MIN, 1][self.rng.index(12)]
    }

    fn half(&mut self) -> bool {
        self.rng.ratio(1, 2)
    }

    fn run(&mut self) -> Vec<Vec<ClientRequest>> {
        let mutations = if self.rng.ratio(1, 5) { 1 + self.rng.index(5) } else { 1 };
        (0..mutations)
            .map(|_| {
                let requests = if self.rng.ratio(1, 5) { self.rng.index(6) } else { 1 };
                (0..requests).map(|_| self.write()).collect()
            })
            .collect()
    }

    fn write(&mut self) -> ClientRequest {
        match self.rng.below(100) {
            0..=29 => request_of(&RPC_RRDB_RRDB_PUT, &self.put()),
            30..=39 => request_of(&RPC_RRDB_RRDB_REMOVE, &self.raw_key()),
            40..=54 => request_of(&RPC_RRDB_RRDB_MULTI_PUT, &self.multi_put()),
            55..=61 => request_of(&RPC_RRDB_RRDB_MULTI_REMOVE, &self.multi_remove()),
            62..=74 => request_of(&RPC_RRDB_RRDB_INCR, &self.incr()),
            75..=87 => request_of(&RPC_RRDB_RRDB_CHECK_AND_SET, &self.check_and_set()),
            88..=98 => request_of(&RPC_RRDB_RRDB_CHECK_AND_MUTATE, &self.check_and_mutate()),
            _ => {
                let code = STORAGE_CODES[self.rng.index(STORAGE_CODES.len())].code;
                ClientRequest { code, body: self.damaged() }
            }
        }
    }

    /// Bytes that are hardly a request.
    fn damaged(&mut self) -> Bytes {
        let len = self.rng.index(6);
        [0x0c, 0, 1, 0xff, 0, 0].into_iter().take(len).collect()
    }

    fn put(&mut self) -> UpdateRequest {
        let update_type = match self.rng.below(12) {
            0 => Some(UpdateType::Incr),
            1 => Some(UpdateType::CheckAndMutatePut),
            2 => Some(UpdateType::CheckAndMutateRemove),
            _ => None,
        };
        UpdateRequest {
            key: self.raw_key(),
            value: self.value(),
            expire_ts_seconds: self.expire(),
            update_type,
            ..Default::default()
        }
    }

    fn multi_put(&mut self) -> MultiPutRequest {
        let count = self.rng.index(8);
        MultiPutRequest {
            hash_key: self.hash_key(),
            kvs: (0..count)
                .map(|_| KeyValue {
                    key: self.sort_key(),
                    value: self.value(),
                    ..Default::default()
                })
                .collect(),
            expire_ts_seconds: self.expire(),
        }
    }

    fn multi_remove(&mut self) -> MultiRemoveRequest {
        let count = self.rng.index(4);
        MultiRemoveRequest {
            hash_key: self.hash_key(),
            sort_keys: (0..count).map(|_| self.sort_key()).collect(),
            max_count: self.rng.below(3) as i64,
        }
    }

    fn incr(&mut self) -> IncrRequest {
        let increments = [0, 1, 5, -7, i64::MAX, i64::MIN];
        IncrRequest {
            key: self.raw_key(),
            increment: increments[self.rng.index(increments.len())],
            expire_ts_seconds: self.expire(),
        }
    }

    fn check_type(&mut self) -> CasCheckType {
        CasCheckType::from(self.rng.below(20) as i32 - 1)
    }

    fn check_and_set(&mut self) -> CheckAndSetRequest {
        CheckAndSetRequest {
            hash_key: self.hash_key(),
            check_sort_key: self.sort_key(),
            check_type: self.check_type(),
            check_operand: self.value(),
            set_diff_sort_key: self.half(),
            set_sort_key: self.sort_key(),
            set_value: self.value(),
            set_expire_ts_seconds: self.expire(),
            return_check_value: self.half(),
        }
    }

    fn check_and_mutate(&mut self) -> CheckAndMutateRequest {
        let count = self.rng.index(5);
        CheckAndMutateRequest {
            hash_key: self.hash_key(),
            check_sort_key: self.sort_key(),
            check_type: self.check_type(),
            check_operand: self.value(),
            mutate_list: (0..count)
                .map(|_| Mutate {
                    operation: MutateOperation::from(
                        i32::from(self.half()) + i32::from(self.rng.ratio(1, 40)),
                    ),
                    sort_key: self.sort_key(),
                    value: self.value(),
                    set_expire_ts_seconds: self.expire(),
                })
                .collect(),
            return_check_value: self.half(),
        }
    }

    fn read(&mut self) -> Step {
        let mode = if self.half() { ReadMode::Inline } else { ReadMode::Blocking };
        match self.rng.below(100) {
            0..=19 => Step::Read(&RPC_RRDB_RRDB_GET, wrapped(&self.raw_key()), mode),
            20..=29 => Step::Read(&RPC_RRDB_RRDB_TTL, wrapped(&self.raw_key()), mode),
            30..=39 => Step::Read(&RPC_RRDB_RRDB_BATCH_GET, wrapped(&self.batch_get()), mode),
            40..=69 => self.blocking(&RPC_RRDB_RRDB_MULTI_GET, Self::multi_get),
            70..=76 => self.blocking(&RPC_RRDB_RRDB_SORTKEY_COUNT, Self::hash_key),
            77..=98 => self.blocking(&RPC_RRDB_RRDB_GET_SCANNER, Self::get_scanner),
            _ => {
                let code = STORAGE_CODES[self.rng.index(STORAGE_CODES.len())].code;
                Step::Read(code, self.damaged(), ReadMode::Blocking)
            }
        }
    }

    fn blocking<T: Encode>(&mut self, code: Code, request: fn(&mut Self) -> T) -> Step {
        Step::Read(code, wrapped(&request(self)), ReadMode::Blocking)
    }

    fn batch_get(&mut self) -> BatchGetRequest {
        let count = self.rng.index(6);
        let key =
            |draw: &mut Self| FullKey { hash_key: draw.hash_key(), sort_key: draw.sort_key() };
        BatchGetRequest { keys: (0..count).map(|_| key(self)).collect() }
    }

    fn filter(&mut self) -> (FilterType, Bytes) {
        let kind = match self.rng.below(60) {
            0 => 4,
            1..=30 => 0,
            _ => self.rng.below(4) as i32,
        };
        let pattern = self.pick(&[b"", b"a", b"b", b"ab", b"s", b"\xff", b"1", b"\xff\xff"]);
        (FilterType::from(kind), pattern)
    }

    fn multi_get(&mut self) -> MultiGetRequest {
        let named = self.rng.ratio(1, 4);
        let count = if named { self.rng.index(6) } else { 0 };
        let (sort_key_filter_type, sort_key_filter_pattern) = self.filter();
        let end = |draw: &mut Self| if draw.half() { Bytes::new() } else { draw.sort_key() };
        MultiGetRequest {
            hash_key: self.hash_key(),
            sort_keys: (0..count).map(|_| self.sort_key()).collect(),
            max_kv_count: [-1, 0, 0, 1, 2, 3, 10, i32::MAX][self.rng.index(8)],
            max_kv_size: [-5, 0, 0, 1, 10, 100, i32::MAX][self.rng.index(7)],
            no_value: self.half(),
            start_sortkey: end(self),
            stop_sortkey: end(self),
            start_inclusive: self.half(),
            stop_inclusive: self.half(),
            sort_key_filter_type,
            sort_key_filter_pattern,
            reverse: self.half(),
        }
    }

    fn get_scanner(&mut self) -> GetScannerRequest {
        let whole = self.half();
        let (hash_key_filter_type, hash_key_filter_pattern) = self.filter();
        let (sort_key_filter_type, sort_key_filter_pattern) = self.filter();
        let maybe = |draw: &mut Self| [None, Some(true), Some(false)][draw.rng.index(3)];
        GetScannerRequest {
            start_key: if whole { Bytes::from_static(&[0, 0]) } else { self.raw_key() },
            stop_key: if whole { Bytes::from_static(&[0xff, 0xff]) } else { self.raw_key() },
            start_inclusive: self.half(),
            stop_inclusive: self.half(),
            batch_size: [-1, 0, 1, 2, 5, 1000, 5000][self.rng.index(7)],
            no_value: self.half(),
            hash_key_filter_type,
            hash_key_filter_pattern,
            sort_key_filter_type,
            sort_key_filter_pattern,
            validate_partition_hash: maybe(self),
            return_expire_ts: maybe(self),
            full_scan: maybe(self),
            only_return_count: self.rng.ratio(1, 5),
        }
    }

    fn envs(&mut self) -> Step {
        let mut envs = BTreeMap::new();
        let mut set = |key: &str, value: &str| drop(envs.insert(key.to_owned(), value.to_owned()));
        match self.rng.below(6) {
            0 => set("default_ttl", "3"),
            1 => set("default_ttl", "1000"),
            2 => set("default_ttl", "soon"),
            _ => {}
        }
        if self.rng.ratio(1, 3) {
            set("replica.rocksdb_iteration_threshold_time_ms", ["0", "1", "50"][self.rng.index(3)]);
        }
        if self.rng.ratio(1, 3) {
            set("replica.split.validate_partition_hash", "true");
        }
        if self.rng.ratio(1, 4) {
            set("rocksdb.checkpoint.reserve_min_count", "1");
            set("rocksdb.checkpoint.reserve_time_seconds", "0");
        }
        Step::Envs(envs, [1, 2, 8, 8][self.rng.index(4)])
    }
}
