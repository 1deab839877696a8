//! Every write operation, with the edge cases of the protocol, on both engines.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use bytes::Bytes;
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::thrift::decode_wrapped;
use pegasus_client::schema::key::encode_key;
use pegasus_client::schema::rrdb::*;
use pegasus_client::schema::value::DataVersion;
use pegasus_server::codes::*;
use support::*;

fn b(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
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
    fn put(&mut self, sort_key: &str, value: &'static str, expire: i32) -> UpdateResponse {
        let request = UpdateRequest {
            key: raw("h", sort_key),
            value: b(value),
            expire_ts_seconds: expire,
            ..Default::default()
        };
        self.write(&RPC_RRDB_RRDB_PUT, &request)
    }

    fn get(&self, sort_key: &str) -> Result<Bytes, i32> {
        let response: ReadResponse = self.read(&RPC_RRDB_RRDB_GET, &raw("h", sort_key));
        if response.error == status::OK { Ok(response.value) } else { Err(response.error) }
    }

    /// Seconds left, or the status.
    fn ttl(&self, sort_key: &str) -> Result<i32, i32> {
        let response: TtlResponse = self.read(&RPC_RRDB_RRDB_TTL, &raw("h", sort_key));
        if response.error == status::OK { Ok(response.ttl_seconds) } else { Err(response.error) }
    }

    fn incr(&mut self, sort_key: &str, increment: i64, expire: i32) -> (i32, i64) {
        let request = IncrRequest { key: raw("h", sort_key), increment, expire_ts_seconds: expire };
        let response: IncrResponse = self.write(&RPC_RRDB_RRDB_INCR, &request);
        (response.error, response.new_value)
    }
}

#[test]
fn put_answers_with_who_and_when() {
    on_both(|store| {
        let response = store.put("s", "v", 0);
        let expected = UpdateResponse {
            error: 0,
            app_id: GPID.app_id,
            partition_index: GPID.partition_index,
            decree: 1,
            server: SERVER.into(),
        };
        assert_eq!(response, expected);
        assert_eq!(store.put("s", "w", 0).decree, 2);
        assert_eq!(store.get("s"), Ok(b("w")));
        assert_eq!(store.put("", "", 0).error, 0);
        assert_eq!(store.get(""), Ok(b("")), "empty sort key, empty value");
    });
}

#[test]
fn stored_values_carry_expiry_and_the_mutations_timestamp() {
    on_both(|store| {
        store.put("s", "v", 77);
        let content = store.content();
        let timestamp = u64::from(BEGIN) + 1_451_606_400;
        let (key, stored) = &content[0];
        assert_eq!(*key, raw("h", "s"));
        assert_eq!(DataVersion::V1.split_value(stored), Ok((77, &b"v"[..])));
        let tag = DataVersion::V1.timetag(stored).unwrap();
        assert_eq!(tag.timestamp_us(), timestamp * 1_000_000 + 1);
        assert_eq!((tag.cluster_id(), tag.is_deleted()), (0, false));
        assert_eq!(content.len(), 1);
    });
}

#[test]
fn keys_that_are_none_are_refused_and_the_decree_moves() {
    on_both(|store| {
        for bad in [&b""[..], b"\0", b"\0\x05abc", b"\xff\xff"] {
            let key = Bytes::copy_from_slice(bad);
            let put = UpdateRequest { key: key.clone(), ..Default::default() };
            let before = store.last_applied();
            let response: UpdateResponse = store.write(&RPC_RRDB_RRDB_PUT, &put);
            assert_eq!(response.error, status::INVALID_ARGUMENT);
            let response: UpdateResponse = store.write(&RPC_RRDB_RRDB_REMOVE, &key);
            assert_eq!(response.error, status::INVALID_ARGUMENT);
            let incr = IncrRequest { key, ..Default::default() };
            let response: IncrResponse = store.write(&RPC_RRDB_RRDB_INCR, &incr);
            assert_eq!(response.error, status::INVALID_ARGUMENT);
            assert_eq!(store.last_applied(), before + 3);
        }
        assert_eq!(store.content(), []);
    });
}

#[test]
fn remove_is_a_success_either_way() {
    on_both(|store| {
        store.put("s", "v", 0);
        for _ in 0..2 {
            let response: UpdateResponse = store.write(&RPC_RRDB_RRDB_REMOVE, &raw("h", "s"));
            assert_eq!(response.error, 0);
            assert_eq!(store.get("s"), Err(status::NOT_FOUND));
        }
        assert_eq!(store.content(), [], "nothing is left of a removed record");
    });
}

#[test]
fn expiry_takes_effect_in_its_second() {
    on_both(|store| {
        let expire = BEGIN as i32 + 10;
        store.put("s", "v", expire);
        assert_eq!((store.get("s"), store.ttl("s")), (Ok(b("v")), Ok(10)));
        store.now = BEGIN + 9;
        assert_eq!((store.get("s"), store.ttl("s")), (Ok(b("v")), Ok(1)));
        store.now = BEGIN + 10;
        assert_eq!((store.get("s"), store.ttl("s")), (Err(1), Err(1)));
        store.put("t", "v", 0);
        assert_eq!(store.ttl("t"), Ok(-1));
        store.put("u", "v", 1000);
        assert_eq!(store.get("u"), Err(1), "stored, but expired long ago");
        store.put("n", "v", -5);
        assert_eq!(store.get("n"), Ok(b("v")), "a negative expiry is one in the far future");
    });
}

#[test]
fn the_default_expiry_counts_from_the_mutation() {
    on_both(|store| {
        store.app.engine().retention().set_default_ttl(100);
        store.put("s", "v", 0);
        store.put("t", "v", BEGIN as i32 + 7);
        assert_eq!((store.ttl("s"), store.ttl("t")), (Ok(100), Ok(7)));
        assert_eq!(store.incr("n", 1, 0), (0, 1));
        assert_eq!(store.ttl("n"), Ok(100));
        store.app.engine().retention().set_default_ttl(0);
        store.put("s", "v", 0);
        assert_eq!(store.ttl("s"), Ok(-1));
    });
}

#[test]
fn multi_put_sets_all_and_the_last_of_equals_wins() {
    on_both(|store| {
        let kv = |key, value| KeyValue { key: b(key), value: b(value), expire_ts_seconds: Some(1) };
        let request = MultiPutRequest {
            hash_key: b("h"),
            kvs: vec![kv("a", "1"), kv("b", "2"), kv("a", "3")].into(),
            expire_ts_seconds: BEGIN as i32 + 5,
        };
        let response: UpdateResponse = store.write(&RPC_RRDB_RRDB_MULTI_PUT, &request);
        assert_eq!((response.error, response.decree), (0, 1));
        assert_eq!((store.get("a"), store.get("b")), (Ok(b("3")), Ok(b("2"))));
        assert_eq!(store.ttl("b"), Ok(5), "one expiry for all, those of the records do not count");
        let empty = MultiPutRequest { hash_key: b("h"), ..Default::default() };
        let response: UpdateResponse = store.write(&RPC_RRDB_RRDB_MULTI_PUT, &empty);
        assert_eq!((response.error, response.decree), (status::INVALID_ARGUMENT, 2));
        let long = MultiPutRequest { hash_key: vec![b'x'; 65_535].into(), ..request };
        let response: UpdateResponse = store.write(&RPC_RRDB_RRDB_MULTI_PUT, &long);
        assert_eq!((response.error, response.decree), (status::INVALID_ARGUMENT, 3));
    });
}

#[test]
fn multi_remove_counts_what_was_asked_for() {
    on_both(|store| {
        store.put("a", "1", 0);
        store.put("b", "1", 0);
        let request = MultiRemoveRequest {
            hash_key: b("h"),
            sort_keys: vec![b("a"), b("x"), b("y")].into(),
            max_count: 1,
        };
        let response: MultiRemoveResponse = store.write(&RPC_RRDB_RRDB_MULTI_REMOVE, &request);
        assert_eq!((response.error, response.count, response.decree), (0, 3, 3));
        assert_eq!((store.get("a"), store.get("b")), (Err(1), Ok(b("1"))));
        let empty = MultiRemoveRequest { hash_key: b("h"), ..Default::default() };
        let response: MultiRemoveResponse = store.write(&RPC_RRDB_RRDB_MULTI_REMOVE, &empty);
        assert_eq!((response.error, response.count), (status::INVALID_ARGUMENT, 0));
    });
}

#[test]
fn incr_reads_texts_and_refuses_what_is_no_number() {
    on_both(|store| {
        assert_eq!(store.incr("n", 5, 0), (0, 5));
        assert_eq!(store.incr("n", -7, 0), (0, -2));
        assert_eq!(store.incr("n", 0, 0), (0, -2));
        assert_eq!(store.get("n"), Ok(b("-2")));
        store.put("octal", "010", 0);
        assert_eq!(store.incr("octal", 1, 0), (0, 9));
        assert_eq!(store.get("octal"), Ok(b("9")));
        store.put("empty", "", 0);
        assert_eq!(store.incr("empty", 3, 0), (0, 3));
        store.put("text", "12a", 0);
        assert_eq!(store.incr("text", 1, 0), (status::INVALID_ARGUMENT, 0));
        assert_eq!(store.get("text"), Ok(b("12a")));
        store.put("max", "9223372036854775807", 0);
        assert_eq!(store.incr("max", 1, 0), (status::INVALID_ARGUMENT, i64::MAX));
        assert_eq!(store.incr("max", 0, 0), (0, i64::MAX));
        store.put("min", "-9223372036854775808", 0);
        assert_eq!(store.incr("min", -1, 0), (status::INVALID_ARGUMENT, i64::MIN));
        assert_eq!(store.incr("min", i64::MAX, 0), (0, -1));
    });
}

#[test]
fn incr_keeps_sets_and_clears_the_expiry() {
    on_both(|store| {
        let later = |seconds: i32| BEGIN as i32 + seconds;
        store.put("n", "1", later(50));
        store.incr("n", 1, 0);
        assert_eq!(store.ttl("n"), Ok(50));
        store.incr("n", 1, later(20));
        assert_eq!(store.ttl("n"), Ok(20));
        store.incr("n", 1, -1);
        assert_eq!(store.ttl("n"), Ok(-1));
        store.put("gone", "41", later(5));
        store.now = BEGIN + 5;
        assert_eq!(store.incr("gone", 1, 0), (0, 1), "an expired number counts as none");
        assert_eq!(store.ttl("gone"), Ok(-1), "and its expiry is not kept");
        store.put("empty", "", later(90));
        assert_eq!(store.incr("empty", 1, 0), (0, 1));
        assert_eq!(store.ttl("empty"), Ok(85), "that of an empty value is");
    });
}

#[test]
fn expiry_inside_a_write_is_judged_by_the_mutation_not_by_a_clock() {
    on_both(|store| {
        store.put("n", "41", BEGIN as i32 + 5);
        store.now = BEGIN + 100;
        // A replay of an old mutation on a server whose clock went on.
        let mut mutation = store.mutation(vec![request_of(
            &RPC_RRDB_RRDB_INCR,
            &IncrRequest { key: raw("h", "n"), increment: 1, expire_ts_seconds: -1 },
        )]);
        mutation.timestamp_us = (u64::from(BEGIN) + 1_451_606_404) * 1_000_000;
        store.replies.clear(true);
        use dsn_replication::state_machine::{ApplyMode, StateMachine};
        store.app.apply(&[mutation], ApplyMode::Blocking, &mut store.replies).unwrap();
        assert_eq!(store.get("n"), Ok(b("42")));
    });
}

fn cas(kind: CasCheckType, operand: &'static str) -> CheckAndSetRequest {
    CheckAndSetRequest {
        hash_key: b("h"),
        check_sort_key: b("check"),
        check_type: kind,
        check_operand: b(operand),
        set_diff_sort_key: true,
        set_sort_key: b("set"),
        set_value: b("new"),
        set_expire_ts_seconds: 0,
        return_check_value: true,
    }
}

#[test]
fn check_and_set_checks_then_sets() {
    on_both(|store| {
        let ask = |store: &mut Store, request: &CheckAndSetRequest| -> CheckAndSetResponse {
            store.write(&RPC_RRDB_RRDB_CHECK_AND_SET, request)
        };
        let absent = ask(store, &cas(CasCheckType::ValueExist, ""));
        assert_eq!(absent.error, status::TRY_AGAIN);
        assert_eq!((absent.check_value_returned, absent.check_value_exist), (true, false));
        assert_eq!(store.get("set"), Err(1));
        store.put("check", "7", 0);
        let passed = ask(store, &cas(CasCheckType::ValueIntLess, "010"));
        assert_eq!((passed.error, passed.decree, &passed.check_value[..]), (0, 3, &b"7"[..]));
        assert_eq!((passed.app_id, passed.partition_index), (GPID.app_id, GPID.partition_index));
        assert_eq!(store.get("set"), Ok(b("new")));
        let failed = ask(store, &cas(CasCheckType::ValueBytesEqual, "8"));
        assert_eq!(failed.error, status::TRY_AGAIN);
        assert_eq!((failed.check_value_exist, &failed.check_value[..]), (true, &b"7"[..]));
        let invalid = ask(store, &cas(CasCheckType::ValueIntLess, "ten"));
        assert_eq!(invalid.error, status::INVALID_ARGUMENT);
        assert!(invalid.check_value_returned, "the record was read before the operand");
        let unknown = ask(store, &cas(CasCheckType::Other(18), ""));
        assert_eq!(unknown.error, status::INVALID_ARGUMENT);
        assert!(!unknown.check_value_returned && unknown.check_value.is_empty());
    });
}

#[test]
fn check_and_set_on_the_checked_record_itself_returns_the_old_value() {
    on_both(|store| {
        store.put("check", "old", 0);
        let request = CheckAndSetRequest {
            set_diff_sort_key: false,
            set_sort_key: b("ignored"),
            set_expire_ts_seconds: BEGIN as i32 + 8,
            ..cas(CasCheckType::NoCheck, "")
        };
        let response: CheckAndSetResponse = store.write(&RPC_RRDB_RRDB_CHECK_AND_SET, &request);
        assert_eq!((response.error, response.check_value), (0, b("old")));
        assert_eq!((store.get("check"), store.ttl("check")), (Ok(b("new")), Ok(8)));
        assert_eq!(store.get("ignored"), Err(1));
        store.now = BEGIN + 8;
        let quiet = CheckAndSetRequest {
            return_check_value: false,
            ..cas(CasCheckType::ValueNotExist, "")
        };
        let response: CheckAndSetResponse = store.write(&RPC_RRDB_RRDB_CHECK_AND_SET, &quiet);
        assert_eq!(response.error, 0, "an expired record does not exist");
        assert!(!response.check_value_returned && !response.check_value_exist);
    });
}

#[test]
fn check_and_mutate_is_all_or_nothing() {
    on_both(|store| {
        let mutate = |operation, sort_key, value| Mutate {
            operation,
            sort_key: b(sort_key),
            value: b(value),
            set_expire_ts_seconds: 0,
        };
        let (put, delete) = (MutateOperation::Put, MutateOperation::Delete);
        let request = CheckAndMutateRequest {
            hash_key: b("h"),
            check_sort_key: b("a"),
            check_type: CasCheckType::ValueExist,
            mutate_list: vec![
                mutate(put, "b", "1"),
                mutate(delete, "a", ""),
                mutate(put, "c", "1"),
                mutate(delete, "b", ""),
                mutate(put, "c", "2"),
            ]
            .into(),
            return_check_value: true,
            ..Default::default()
        };
        let ask = |store: &mut Store, request: &CheckAndMutateRequest| {
            let response: CheckAndMutateResponse =
                store.write(&RPC_RRDB_RRDB_CHECK_AND_MUTATE, request);
            (response.error, response.check_value_returned, response.check_value)
        };
        assert_eq!(ask(store, &request), (status::TRY_AGAIN, true, b("")));
        assert_eq!(store.get("c"), Err(1));
        store.put("a", "x", 0);
        assert_eq!(ask(store, &request), (0, true, b("x")));
        assert_eq!((store.get("a"), store.get("b"), store.get("c")), (Err(1), Err(1), Ok(b("2"))));
        let none = CheckAndMutateRequest { mutate_list: vec![].into(), ..request.clone() };
        assert_eq!(ask(store, &none), (status::INVALID_ARGUMENT, false, b("")));
        let odd = CheckAndMutateRequest {
            mutate_list: vec![mutate(put, "z", ""), mutate(MutateOperation::Other(2), "z", "")]
                .into(),
            ..request.clone()
        };
        assert_eq!(ask(store, &odd), (status::INVALID_ARGUMENT, false, b("")));
        assert_eq!(store.get("z"), Err(1));
    });
}

#[test]
fn a_run_is_one_step_in_which_later_requests_see_earlier_ones() {
    on_both(|store| {
        let incr = |increment| {
            let key = raw("h", "n");
            let request = IncrRequest { key, increment, expire_ts_seconds: 0 };
            request_of(&RPC_RRDB_RRDB_INCR, &request)
        };
        let put = UpdateRequest { key: raw("h", "n"), value: b("100"), ..Default::default() };
        let run = vec![
            vec![incr(1)],
            vec![],
            vec![incr(1)],
            vec![request_of(&RPC_RRDB_RRDB_PUT, &put)],
            vec![incr(1), request_of(&RPC_RRDB_RRDB_REMOVE, &raw("h", "n")), incr(7)],
        ];
        let replies = store.apply(run);
        let values: Vec<(i64, i64)> = [0, 1, 3, 5]
            .map(|at: usize| {
                let body = replies[at].as_ref().unwrap();
                let response: IncrResponse = decode_wrapped(body).unwrap();
                (response.new_value, response.decree)
            })
            .to_vec();
        assert_eq!(values, [(1, 1), (2, 3), (101, 5), (7, 5)]);
        assert_eq!(store.last_applied(), 5);
        assert_eq!(store.get("n"), Ok(b("7")));
    });
}

#[test]
fn an_undecodable_request_is_passed_over_and_its_neighbours_are_not() {
    on_both(|store| {
        let good = |sort_key| {
            let request =
                UpdateRequest { key: raw("h", sort_key), value: b("v"), ..Default::default() };
            request_of(&RPC_RRDB_RRDB_PUT, &request)
        };
        let mut bad = good("bad");
        bad.body = bad.body.slice(..bad.body.len() - 1);
        let mut unknown = good("unknown");
        unknown.code = &RPC_RRDB_RRDB_GET;
        let replies = store.apply(vec![vec![good("a"), bad, unknown, good("b")]]);
        assert!(replies[0].is_ok() && replies[3].is_ok());
        assert_eq!(replies[1], Err(ErrorCode::InvalidData));
        assert_eq!(replies[2], Err(ErrorCode::InvalidData));
        assert_eq!((store.get("a"), store.get("b")), (Ok(b("v")), Ok(b("v"))));
        assert_eq!((store.get("bad"), store.get("unknown")), (Err(1), Err(1)));
        assert_eq!(store.last_applied(), 1);
    });
}

#[test]
fn a_decided_remove_of_a_check_and_mutate_arrives_as_an_update() {
    on_both(|store| {
        store.put("s", "v", 0);
        let request = UpdateRequest {
            key: raw("h", "s"),
            update_type: Some(UpdateType::CheckAndMutateRemove),
            ..Default::default()
        };
        let response: UpdateResponse = store.write(&RPC_RRDB_RRDB_PUT, &request);
        assert_eq!((response.error, store.get("s")), (0, Err(1)));
    });
}

#[test]
#[should_panic(expected = "decree order")]
fn a_decree_that_does_not_follow_is_a_broken_host() {
    let scratch = Scratch::new();
    let mut store = Store::open(Kind::Memory, scratch.path());
    let mut mutation = store.mutation(vec![]);
    mutation.decree = mutation.decree.next();
    use dsn_replication::state_machine::{ApplyMode, StateMachine};
    let _ = store.app.apply(&[mutation], ApplyMode::Blocking, &mut store.replies);
}
