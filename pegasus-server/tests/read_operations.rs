//! Every read operation, with the limits and edge cases of the protocol, on both engines.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use dsn_replication::state_machine::{ReadMode, ReadOutcome};
use dsn_replication::table_rules::VALIDATE_PARTITION_HASH;
use dsn_rpc::error_code::ErrorCode;
use pegasus_client::schema::key::{self, encode_key};
use pegasus_client::schema::rrdb::*;
use pegasus_server::codes::*;
use pegasus_server::settings;
use support::*;

fn b(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn raw(hash_key: &str, sort_key: &str) -> Bytes {
    encode_key(hash_key.as_bytes(), sort_key.as_bytes()).unwrap()
}

fn on_both(test: impl Fn(&mut Store)) {
    for kind in KINDS {
        let scratch = Scratch::new();
        let mut store = Store::open(kind, scratch.path());
        test(&mut store);
    }
}

impl Store {
    fn put(&mut self, hash_key: &str, sort_key: &str, value: &str, expire: i32) {
        let request = UpdateRequest {
            key: raw(hash_key, sort_key),
            value: b(value),
            expire_ts_seconds: expire,
            ..Default::default()
        };
        let response: UpdateResponse = self.write(&RPC_RRDB_RRDB_PUT, &request);
        assert_eq!(response.error, 0);
    }

    /// Records `a`, `b`, ... of hash key `h`, each with its own name as value.
    fn fill(&mut self, sort_keys: &str) {
        for sort_key in sort_keys.chars() {
            self.put("h", &sort_key.to_string(), &sort_key.to_string(), 0);
        }
    }

    fn multi_get(&self, request: &MultiGetRequest) -> (i32, String) {
        let response: MultiGetResponse = self.read(&RPC_RRDB_RRDB_MULTI_GET, request);
        let keys = response.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned());
        (response.error, keys.collect::<Vec<_>>().concat())
    }

    fn open_scan(&self, request: &GetScannerRequest) -> ScanResponse {
        self.read(&RPC_RRDB_RRDB_GET_SCANNER, request)
    }

    fn scan(&self, context_id: i64) -> ScanResponse {
        self.read(&RPC_RRDB_RRDB_SCAN, &ScanRequest { context_id })
    }

    fn count(&self, hash_key: &str) -> i64 {
        let response: CountResponse = self.read(&RPC_RRDB_RRDB_SORTKEY_COUNT, &b(hash_key));
        assert_eq!(response.error, 0);
        response.count
    }
}

/// A multi_get of everything below `h`.
fn all() -> MultiGetRequest {
    MultiGetRequest { hash_key: b("h"), start_inclusive: true, ..Default::default() }
}

/// A scan over the whole partition.
fn everything() -> GetScannerRequest {
    GetScannerRequest {
        start_key: Bytes::from_static(key::SCAN_START),
        stop_key: Bytes::from_static(key::SCAN_STOP),
        start_inclusive: true,
        full_scan: Some(true),
        ..Default::default()
    }
}

fn keys(response: &ScanResponse) -> Vec<Bytes> {
    response.kvs.iter().map(|kv| kv.key).collect()
}

#[test]
fn get_answers_with_who() {
    on_both(|store| {
        store.put("h", "s", "value", 0);
        let found: ReadResponse = store.read(&RPC_RRDB_RRDB_GET, &raw("h", "s"));
        let expected = ReadResponse {
            error: 0,
            value: b("value"),
            app_id: GPID.app_id,
            partition_index: GPID.partition_index,
            server: SERVER.into(),
        };
        assert_eq!(found, expected);
        let absent: ReadResponse = store.read(&RPC_RRDB_RRDB_GET, &raw("h", "t"));
        assert_eq!(absent, ReadResponse { error: 1, value: b(""), ..expected });
        for no_key in [&b""[..], b"\0", b"\0\x09short"] {
            let no_key = Bytes::copy_from_slice(no_key);
            let absent: ReadResponse = store.read(&RPC_RRDB_RRDB_GET, &no_key);
            assert_eq!(absent.error, 1);
        }
    });
}

#[test]
fn bytes_that_are_no_request_are_an_error_of_the_rpc() {
    on_both(|store| {
        for code in STORAGE_CODES.iter().map(|code| code.code).skip(7) {
            let (outcome, _) =
                store.read_body(code, Bytes::from_static(b"\x0c\0\x01\xff"), ReadMode::Blocking);
            assert_eq!(outcome, ReadOutcome::Error(ErrorCode::InvalidData), "{code}");
        }
        let (outcome, _) =
            store.read_body(&RPC_RRDB_RRDB_PUT, wrapped(&b("x")), ReadMode::Blocking);
        assert_eq!(outcome, ReadOutcome::Error(ErrorCode::HandlerNotFound));
    });
}

#[test]
fn batch_get_answers_with_what_is_there() {
    on_both(|store| {
        store.put("h", "a", "1", 0);
        store.put("h", "gone", "1", BEGIN as i32);
        store.put("", "s", "2", 0);
        let ask = |pairs: &[(&str, &str)]| {
            let full = |(h, s): &(&str, &str)| FullKey { hash_key: b(h), sort_key: b(s) };
            let request = BatchGetRequest { keys: pairs.iter().map(full).collect() };
            let response: BatchGetResponse = store.read(&RPC_RRDB_RRDB_BATCH_GET, &request);
            assert_eq!((response.app_id, response.server), (GPID.app_id, SERVER.into()));
            let found = response.data.iter().map(|d| (d.hash_key, d.sort_key, d.value));
            (response.error, found.collect::<Vec<_>>())
        };
        let expected =
            vec![(b(""), b("s"), b("2")), (b("h"), b("a"), b("1")), (b("h"), b("a"), b("1"))];
        let asked = [("", "s"), ("h", "a"), ("h", "gone"), ("x", "y"), ("h", "a")];
        assert_eq!(ask(&asked), (0, expected));
        assert_eq!(ask(&[("x", "y")]), (0, vec![]));
        assert_eq!(ask(&[]), (status::INVALID_ARGUMENT, vec![]));
        let long = "x".repeat(65_535);
        assert_eq!(ask(&[(&long, "")]), (0, vec![]));
    });
}

#[test]
fn multi_get_of_named_records_keeps_their_order_and_its_limits() {
    on_both(|store| {
        store.fill("abcde");
        store.put("h", "gone", "", BEGIN as i32);
        let named = |names: &[&str]| MultiGetRequest {
            sort_keys: names.iter().map(|name| b(name)).collect(),
            ..all()
        };
        let some = named(&["d", "x", "a", "gone", "a"]);
        assert_eq!(store.multi_get(&some), (0, "daa".into()));
        // Reverse and range fields mean nothing here, not even a filter that does not exist.
        let odd = MultiGetRequest {
            reverse: true,
            start_sortkey: b("c"),
            sort_key_filter_type: FilterType::Other(9),
            ..some
        };
        assert_eq!(store.multi_get(&odd), (0, "daa".into()));
        let limited = |count, size| {
            let request = MultiGetRequest {
                max_kv_count: count,
                max_kv_size: size,
                ..named(&["a", "b", "x", "c"])
            };
            store.multi_get(&request)
        };
        assert_eq!(limited(2, 0), (status::INCOMPLETE, "ab".into()));
        assert_eq!(limited(3, 0), (0, "abc".into()), "nothing was left out");
        assert_eq!(limited(0, 1), (status::INCOMPLETE, "a".into()));
        assert_eq!(limited(0, 3), (status::INCOMPLETE, "ab".into()), "the one that crosses");
        assert_eq!(limited(-1, -1), (0, "abc".into()));
    });
}

#[test]
fn multi_get_of_a_range_respects_its_ends() {
    on_both(|store| {
        store.fill("abcde");
        store.put("h", "", "empty sort key", 0);
        store.put("g", "z", "neighbour", 0);
        store.put("i", "a", "neighbour", 0);
        let range = |start: &str, start_in, stop: &str, stop_in| {
            let mut answers = [false, true].map(|reverse| {
                store.multi_get(&MultiGetRequest {
                    hash_key: b("h"),
                    start_sortkey: b(start),
                    start_inclusive: start_in,
                    stop_sortkey: b(stop),
                    stop_inclusive: stop_in,
                    reverse,
                    ..Default::default()
                })
            });
            // Walked backwards, what was found is the same and in the same order.
            assert_eq!(answers[0], answers[1]);
            std::mem::take(&mut answers[0])
        };
        assert_eq!(range("b", true, "d", true), (0, "bcd".into()));
        assert_eq!(range("b", false, "d", true), (0, "cd".into()));
        assert_eq!(range("b", true, "d", false), (0, "bc".into()));
        assert_eq!(range("b", false, "d", false), (0, "c".into()));
        assert_eq!(range("b", true, "b", true), (0, "b".into()));
        assert_eq!(range("b", true, "b", false), (0, "".into()));
        assert_eq!(range("d", true, "b", true), (0, "".into()));
        assert_eq!(range("bb", false, "cc", true), (0, "c".into()));
        assert_eq!(range("", true, "", false), (0, "abcde".into()), "with the empty sort key");
        assert_eq!(range("", false, "", true), (0, "abcde".into()), "or without");
        assert_eq!(range("f", true, "", false), (0, "".into()));
    });
}

#[test]
fn the_record_with_the_empty_sort_key_needs_an_inclusive_start() {
    on_both(|store| {
        store.put("h", "", "v", 0);
        let count = |start_inclusive| {
            let request = MultiGetRequest { start_inclusive, ..all() };
            let response: MultiGetResponse = store.read(&RPC_RRDB_RRDB_MULTI_GET, &request);
            response.kvs.len()
        };
        assert_eq!((count(true), count(false)), (1, 0));
    });
}

#[test]
fn multi_get_tells_when_it_stopped_early() {
    on_both(|store| {
        store.fill("abcde");
        let ask = |store: &Store, count, size, reverse| {
            let request =
                MultiGetRequest { max_kv_count: count, max_kv_size: size, reverse, ..all() };
            store.multi_get(&request)
        };
        let limited = |count, size, reverse| ask(store, count, size, reverse);
        assert_eq!(limited(3, 0, false), (status::INCOMPLETE, "abc".into()));
        assert_eq!(limited(3, 0, true), (status::INCOMPLETE, "cde".into()));
        assert_eq!(limited(5, 0, false), (0, "abcde".into()), "the hash key ends here");
        assert_eq!(limited(6, 0, true), (0, "abcde".into()));
        assert_eq!(limited(0, 4, false), (status::INCOMPLETE, "ab".into()));
        assert_eq!(limited(0, 3, false), (status::INCOMPLETE, "ab".into()), "the one that crosses");
        assert_eq!(limited(0, 3, true), (status::INCOMPLETE, "de".into()));
        store.put("g", "before", "", 0);
        assert_eq!(ask(store, 5, 0, true).0, status::INCOMPLETE, "something lies before it");
    });
}

#[test]
fn multi_get_examines_three_thousand_records_at_most() {
    on_both(|store| {
        let kv = |n: usize| KeyValue { key: b(&format!("{n:05}")), ..Default::default() };
        let request = MultiPutRequest {
            hash_key: b("h"),
            kvs: (0..3100).map(kv).collect(),
            expire_ts_seconds: 0,
        };
        let response: UpdateResponse = store.write(&RPC_RRDB_RRDB_MULTI_PUT, &request);
        assert_eq!(response.error, 0);
        let ask = |request: &MultiGetRequest| {
            let response: MultiGetResponse = store.read(&RPC_RRDB_RRDB_MULTI_GET, request);
            (response.error, response.kvs.len())
        };
        assert_eq!(ask(&all()), (status::INCOMPLETE, 3000));
        assert_eq!(ask(&MultiGetRequest { max_kv_count: 5000, ..all() }), (7, 3000));
        let late = MultiGetRequest {
            sort_key_filter_type: FilterType::Postfix,
            sort_key_filter_pattern: b("3050"),
            ..all()
        };
        assert_eq!(ask(&late), (status::INCOMPLETE, 0), "filtered ones are examined too");
        assert_eq!(store.count("h"), 3100, "a count has no such limit");
    });
}

#[test]
fn multi_get_filters_and_values_on_demand() {
    on_both(|store| {
        for sort_key in ["a", "ab", "abc", "b", "bab", "c"] {
            store.put("h", sort_key, "v", 0);
        }
        store.put("h", "abd", "v", BEGIN as i32);
        let filtered = |kind, pattern: &str, reverse| {
            let request = MultiGetRequest {
                sort_key_filter_type: kind,
                sort_key_filter_pattern: b(pattern),
                reverse,
                ..all()
            };
            let response: MultiGetResponse = store.read(&RPC_RRDB_RRDB_MULTI_GET, &request);
            let keys = response.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned());
            (response.error, keys.collect::<Vec<_>>().join(" "))
        };
        for reverse in [false, true] {
            let got = |kind, pattern| filtered(kind, pattern, reverse);
            assert_eq!(got(FilterType::Prefix, "ab"), (0, "ab abc".into()));
            assert_eq!(got(FilterType::Postfix, "ab"), (0, "ab bab".into()));
            assert_eq!(got(FilterType::Anywhere, "ab"), (0, "ab abc bab".into()));
            assert_eq!(got(FilterType::Prefix, ""), (0, "a ab abc b bab c".into()));
            assert_eq!(got(FilterType::Other(4), "ab"), (status::INVALID_ARGUMENT, "".into()));
        }
        // A prefix narrows a range from both sides, and only narrows it.
        let narrowed = MultiGetRequest {
            start_sortkey: b("ab"),
            start_inclusive: false,
            stop_sortkey: b("abc"),
            stop_inclusive: true,
            sort_key_filter_type: FilterType::Prefix,
            sort_key_filter_pattern: b("a"),
            ..all()
        };
        assert_eq!(store.multi_get(&narrowed), (0, "abc".into()));
        let response: MultiGetResponse =
            store.read(&RPC_RRDB_RRDB_MULTI_GET, &MultiGetRequest { no_value: true, ..all() });
        assert!(response.kvs.iter().all(|kv| kv.value.is_empty()));
        assert_eq!(response.kvs.len(), 6);
        assert_eq!(response.kvs.first().unwrap().expire_ts_seconds, None);
    });
}

#[test]
fn counts_are_of_live_records_of_one_hash_key() {
    on_both(|store| {
        store.fill("abc");
        store.put("h", "gone", "v", BEGIN as i32);
        store.put("hh", "x", "v", 0);
        store.put("", "x", "v", 0);
        assert_eq!((store.count("h"), store.count("hh"), store.count("")), (3, 1, 1));
        assert_eq!((store.count("nobody"), store.count(&"x".repeat(65_535))), (0, 0));
    });
}

#[test]
fn range_reads_stop_when_their_time_is_up() {
    on_both(|store| {
        let kv = |n: usize| KeyValue { key: b(&format!("{n:05}")), ..Default::default() };
        let request = MultiPutRequest {
            hash_key: b("h"),
            kvs: (0..900).map(kv).collect(),
            expire_ts_seconds: 0,
        };
        let _: UpdateResponse = store.write(&RPC_RRDB_RRDB_MULTI_PUT, &request);
        // Thirty seconds are allowed; every look at the clock finds it 16 seconds on.
        store.tick = Duration::from_secs(16).as_nanos() as u64;
        let (error, keys) = store.multi_get(&all());
        assert_eq!(error, status::INCOMPLETE);
        assert_eq!(keys.len() / 5, 599, "noticed at the second look");
        assert_eq!(store.count("h"), -1);
        let response = store.open_scan(&everything());
        assert_eq!((response.error, response.context_id), (status::INCOMPLETE, 0));
        assert_eq!(response.kvs.len(), 199);
        // A table may allow more, or any.
        let envs = [(settings::ITERATION_THRESHOLD_MS.to_owned(), "0".to_owned())].into();
        let info = dsn_replication::wire::config::AppInfo { envs, ..Default::default() };
        use dsn_replication::state_machine::StateMachine;
        store.app.reconfigure(&info);
        assert_eq!(store.multi_get(&all()).0, 0);
        assert_eq!(store.count("h"), 900);
    });
}

#[test]
fn a_scan_goes_through_everything_in_batches_of_one_snapshot() {
    on_both(|store| {
        for (hash_key, sort_key) in [("b", "1"), ("aa", "1"), ("b", "2"), ("c", "1"), ("", "s")] {
            store.put(hash_key, sort_key, "v", 0);
        }
        let first = store.open_scan(&GetScannerRequest { batch_size: 2, ..everything() });
        assert_eq!(first.error, 0);
        assert_eq!(keys(&first), [raw("", "s"), raw("b", "1")]);
        assert!(first.context_id >= 0);
        store.put("b", "15", "new", 0);
        let request: UpdateResponse = store.write(&RPC_RRDB_RRDB_REMOVE, &raw("c", "1"));
        assert_eq!(request.error, 0);
        let second = store.scan(first.context_id);
        assert_eq!(keys(&second), [raw("b", "2"), raw("c", "1")], "as it was at the start");
        assert!(second.context_id > first.context_id, "an id is good once");
        assert_eq!(store.scan(first.context_id).error, status::NOT_FOUND);
        let third = store.scan(second.context_id);
        assert_eq!((keys(&third), third.context_id), (vec![raw("aa", "1")], -1));
        assert_eq!(store.scan(second.context_id).error, status::NOT_FOUND);
        let again = store.open_scan(&everything());
        assert_eq!(again.kvs.len(), 5);
        assert_eq!((again.context_id, again.kv_count), (-1, None));
        assert_eq!(again.kvs.first().unwrap().expire_ts_seconds, None);
    });
}

#[test]
fn scans_respect_both_ends() {
    on_both(|store| {
        store.fill("abcd");
        let scan = |start: Bytes, start_inclusive, stop: Bytes, stop_inclusive| {
            let response = store.open_scan(&GetScannerRequest {
                start_key: start,
                start_inclusive,
                stop_key: stop,
                stop_inclusive,
                ..Default::default()
            });
            assert_eq!((response.error, response.context_id), (0, -1));
            let sort_keys = response.kvs.iter().map(|kv| kv.key.slice(3..).to_vec());
            String::from_utf8(sort_keys.collect::<Vec<_>>().concat()).unwrap()
        };
        let at = |sort_key| raw("h", sort_key);
        let end = key::next_of_hash_key(b"h").unwrap();
        assert_eq!(scan(at("a"), true, at("c"), true), "abc");
        assert_eq!(scan(at("a"), false, at("c"), false), "b");
        assert_eq!(scan(at(""), true, end.clone(), false), "abcd");
        assert_eq!(scan(at("bb"), true, end, true), "cd");
        assert_eq!(scan(at("b"), true, at("b"), true), "b");
        assert_eq!(scan(at("b"), true, at("b"), false), "");
        assert_eq!(scan(at("d"), true, at("b"), true), "");
        assert_eq!(scan(at("a"), true, Bytes::new(), true), "");
        assert_eq!(scan(Bytes::new(), true, at("b"), false), "a", "an open start");
    });
}

#[test]
fn a_range_over_several_hash_keys_is_not_cut_at_the_first() {
    on_both(|store| {
        for hash_key in ["a", "b", "c", "d"] {
            store.put(hash_key, "s", "v", 0);
        }
        // As a client asks that lost its scan and goes on behind the last key it saw.
        let request = GetScannerRequest {
            start_key: raw("a", "s"),
            stop_key: Bytes::from_static(key::SCAN_STOP),
            ..Default::default()
        };
        let response = store.open_scan(&request);
        assert_eq!(keys(&response), [raw("b", "s"), raw("c", "s"), raw("d", "s")]);
    });
}

#[test]
fn scans_filter_by_hash_key_and_sort_key() {
    on_both(|store| {
        for hash_key in ["ab", "abc", "b", "cab"] {
            for sort_key in ["x", "xy"] {
                store.put(hash_key, sort_key, "v", 0);
            }
        }
        let scan = |hash: (FilterType, &str), sort: (FilterType, &str)| {
            let response = store.open_scan(&GetScannerRequest {
                hash_key_filter_type: hash.0,
                hash_key_filter_pattern: b(hash.1),
                sort_key_filter_type: sort.0,
                sort_key_filter_pattern: b(sort.1),
                ..everything()
            });
            (response.error, keys(&response))
        };
        use FilterType as T;
        let any = (T::NoFilter, "");
        let both = |hash_key| [raw(hash_key, "x"), raw(hash_key, "xy")];
        assert_eq!(scan((T::Prefix, "ab"), any), (0, [both("ab"), both("abc")].concat()));
        assert_eq!(scan((T::Postfix, "ab"), any), (0, [both("ab"), both("cab")].concat()));
        assert_eq!(
            scan((T::Anywhere, "b"), (T::Postfix, "y")),
            (0, ["b", "ab", "abc", "cab"].map(|h| raw(h, "xy")).to_vec())
        );
        assert_eq!(scan((T::Other(4), ""), any), (status::INVALID_ARGUMENT, vec![]));
        assert_eq!(scan(any, (T::Other(4), "")), (status::INVALID_ARGUMENT, vec![]));
    });
}

#[test]
fn a_batch_may_be_empty_and_yet_not_the_last() {
    on_both(|store| {
        store.fill("abcdefgh");
        let request = GetScannerRequest {
            batch_size: 3,
            sort_key_filter_type: FilterType::Anywhere,
            sort_key_filter_pattern: b("h"),
            ..everything()
        };
        // Opening examines up to a thousand records, going on only as many as a batch has.
        let response = store.open_scan(&request);
        assert_eq!((keys(&response), response.context_id), (vec![raw("h", "h")], -1));
        let request =
            GetScannerRequest { batch_size: 1, sort_key_filter_pattern: b("a"), ..request };
        let first = store.open_scan(&request);
        assert_eq!(keys(&first), [raw("h", "a")]);
        let mut next = first.context_id;
        for _ in 0..7 {
            assert!(next >= 0);
            let response = store.scan(next);
            assert_eq!((response.error, response.kvs.len()), (0, 0));
            next = response.context_id;
        }
        assert_eq!(next, -1, "the last examined record was the last of all");
    });
}

#[test]
fn scans_return_what_was_asked_for() {
    on_both(|store| {
        store.put("h", "a", "value", BEGIN as i32 + 9);
        store.put("h", "b", "value", 0);
        let first = |request: GetScannerRequest| store.open_scan(&request).kvs.first().unwrap();
        let kv = first(GetScannerRequest { return_expire_ts: Some(true), ..everything() });
        assert_eq!((kv.value, kv.expire_ts_seconds), (b("value"), Some(BEGIN as i32 + 9)));
        let kv = first(GetScannerRequest { no_value: true, ..everything() });
        assert_eq!((kv.key, kv.value), (raw("h", "a"), b("")));
        let counted = store.open_scan(&GetScannerRequest {
            only_return_count: true,
            batch_size: 1,
            ..everything()
        });
        assert_eq!((counted.kvs.len(), counted.kv_count), (0, Some(1)));
        let counted = store.scan(counted.context_id);
        assert_eq!((counted.kvs.len(), counted.kv_count, counted.context_id), (0, Some(1), -1));
        let none = store.open_scan(&GetScannerRequest {
            only_return_count: true,
            stop_key: Bytes::from_static(key::SCAN_START),
            ..everything()
        });
        assert_eq!((none.kv_count, none.context_id), (Some(0), -1));
    });
}

#[test]
fn a_cleared_or_abandoned_scan_is_gone() {
    on_both(|store| {
        store.fill("abc");
        let open = |store: &Store| {
            let request = GetScannerRequest { batch_size: 1, ..everything() };
            store.open_scan(&request).context_id
        };
        let cleared = open(store);
        let (outcome, _) =
            store.read_body(&RPC_RRDB_RRDB_CLEAR_SCANNER, wrapped(&cleared), ReadMode::Blocking);
        assert_eq!(outcome, ReadOutcome::NoReply);
        assert_eq!(store.scan(cleared).error, status::NOT_FOUND);
        let abandoned = open(store);
        store.mono += Duration::from_secs(299);
        let kept = open(store);
        store.mono += Duration::from_secs(1);
        assert_eq!(store.scan(abandoned).error, status::NOT_FOUND);
        store.app.tick(store.mono);
        assert_eq!(store.scan(kept).error, 0);
        assert_eq!(store.scan(-1).error, status::NOT_FOUND);
    });
}

#[test]
fn after_a_split_scans_hide_what_is_not_theirs() {
    on_both(|store| {
        let names: Vec<String> = (0..64).map(|n| format!("key{n}")).collect();
        for name in &names {
            store.put(name, "s", "v", 0);
        }
        let configure = |store: &Store, partition_count| {
            let envs = [(VALIDATE_PARTITION_HASH.to_owned(), "true".to_owned())].into();
            let info = dsn_replication::wire::config::AppInfo {
                envs,
                partition_count,
                ..Default::default()
            };
            use dsn_replication::state_machine::StateMachine;
            store.app.reconfigure(&info);
        };
        assert_eq!(store.open_scan(&everything()).kvs.len(), 64);
        configure(store, 4);
        let shown = keys(&store.open_scan(&everything()));
        let mut expected: Vec<Bytes> = names
            .iter()
            .filter(|name| {
                pegasus_client::schema::partition_hash::crc64(name.as_bytes()) % 4
                    == GPID.partition_index as u64
            })
            .map(|name| raw(name, "s"))
            .collect();
        expected.sort();
        assert!(shown.len() > 4 && shown.len() < 40);
        assert_eq!(shown, expected);
        let unchecked = GetScannerRequest { validate_partition_hash: Some(false), ..everything() };
        assert_eq!(store.open_scan(&unchecked).kvs.len(), 64);
        configure(store, 1);
        assert_eq!(store.open_scan(&everything()).kvs.len(), 0, "a partition that is not there");
    });
}
