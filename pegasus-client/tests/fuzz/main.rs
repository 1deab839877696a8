//! Structure-aware fuzzing of every decoder, on stable Rust and with fixed seeds.
//!
//! Valid encodings (recorded from clients where there are any) are cut, flipped, spliced, given odd
//! lengths, bombs of nesting and crowds of elements. Whatever comes: no panic, and no more memory
//! than what arrived plus the allowance. What does decode must walk to its end, and must survive
//! being encoded and decoded again.

#![deny(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[expect(unsafe_code, reason = "a global allocator cannot be implemented without")]
mod alloc;
#[macro_use]
#[path = "../common/mod.rs"]
mod common;
mod files;
mod mutate;
mod text;

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use common::{NoAnswer, hex_of};
use dsn_replication::wire::{admin::*, config::*, replica::*};
use dsn_rpc::builtin::{Command, Negotiation};
use dsn_rpc::frame::http::HttpTarget;
use dsn_rpc::frame::{Frame, Parsed, Parser, Protocol, RequestHead, RpcName, rdsn, write_request};
use dsn_rpc::gpid::Gpid;
use dsn_rpc::host_port::HostPort;
use dsn_rpc::task_code::TaskCode;
use dsn_rpc::thrift::json::{decode_json, encode_json};
use dsn_rpc::thrift::{
    ALLOWANCE, Blob, Decode, Encode, List, RESULT_ID, decode_wrapped, encode_wrapped,
};
use mutate::{Rng, Sample, mutate};
use pegasus_client::schema::rrdb::*;
use pegasus_client::schema::value::{DataVersion, Timetag};
use pegasus_client::schema::{key, partition_hash};

/// Inputs for each decoder.
const INPUTS: usize = 100_000;

/// Seed of the first decoder's inputs; each decoder adds its name.
const SEED: u64 = 0x5eed_0001;

/// Most bytes of a bad input that are printed.
const SHOWN: usize = 512;

/// Prints the input if the test fails while it is being tried.
struct Witness<'a> {
    decoder: &'a str,
    number: usize,
    input: &'a [u8],
}

impl Drop for Witness<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { decoder, number, input } = self;
            let (shown, len) = (&input[..input.len().min(SHOWN)], input.len());
            let shown = shown.escape_ascii();
            eprintln!("{decoder}: seed {SEED:#x}, input {number} of {len} bytes: {shown}");
        }
    }
}

/// Tries `INPUTS` mutations of the samples; `probe` says whether the input was accepted.
fn fuzz(decoder: &str, samples: &[Sample], mut probe: impl FnMut(&Bytes, &mut Rng) -> bool) {
    let name = decoder.bytes().fold(0u64, |hash, byte| hash.wrapping_mul(31) + u64::from(byte));
    let mut rng = Rng::new(SEED ^ name);
    let mut accepted = 0;
    for sample in samples {
        let input = Bytes::copy_from_slice(&sample.bytes);
        let witness = Witness { decoder, number: 0, input: &input };
        assert!(probe(&input, &mut rng), "{decoder}: a sample is refused");
        drop(witness);
    }
    for number in 1..=INPUTS {
        let input = Bytes::from(mutate(&mut rng, samples));
        let _witness = Witness { decoder, number, input: &input };
        accepted += usize::from(probe(&input, &mut rng));
    }
    assert!(accepted > INPUTS / 1000, "{decoder}: only {accepted} inputs were accepted");
    assert!(accepted < INPUTS - INPUTS / 100, "{decoder}: {accepted} inputs were accepted");
}

/// Runs `decode` and checks what it allocated.
fn bounded<T>(input: &[u8], decode: impl FnOnce() -> T) -> T {
    let (result, peak) = alloc::peak(decode);
    assert!(peak <= input.len() + ALLOWANCE, "{peak} bytes for {} that arrived", input.len());
    result
}

fn probe_wrapped<T: Decode + Clone + PartialEq>(input: &Bytes) -> bool {
    let Ok(value) = bounded(input, || decode_wrapped::<T>(input)) else {
        return false;
    };
    let mut again = BytesMut::new();
    encode_wrapped(&value, RESULT_ID, &mut again);
    let again = decode_wrapped::<T>(&again.freeze()).expect("what was decoded can be encoded");
    // Comparing walks every list to its end.
    assert!(again == value);
    true
}

fn fuzz_wrapped<T: Decode + Clone + PartialEq>(name: &str, samples: &[Bytes]) {
    let samples: Vec<Sample> = samples.iter().map(|sample| Sample::new(sample)).collect();
    fuzz(name, &samples, |input, _| probe_wrapped::<T>(input));
}

/// Recorded and synthesised arguments and results by RPC.
fn recorded_bodies() -> BTreeMap<String, (Vec<Bytes>, Vec<Bytes>)> {
    let mut bodies: BTreeMap<String, (Vec<Bytes>, Vec<Bytes>)> = BTreeMap::new();
    let file = common::synthesised();
    for vector in file["vectors"].as_array().expect("vectors") {
        let entry = bodies.entry(vector["rpc"].as_str().expect("name").to_owned()).or_default();
        entry.0.push(hex_of(vector, "args_field0_hex"));
        entry.1.push(hex_of(vector, "response_body_hex"));
    }
    let (_, recording) = &common::recordings()[0];
    for vector in recording["vectors"].as_array().expect("vectors") {
        for rpc in vector["rpcs"].as_array().expect("rpcs") {
            let entry = bodies.entry(rpc["rpc"].as_str().expect("name").to_owned()).or_default();
            let bytes = hex_of(rpc, "request_hex");
            if let Frame::Request(frame) = only(Parser::server(1 << 20), &bytes) {
                entry.0.push(frame.body);
            }
            let bytes = hex_of(rpc, "response_hex");
            let by_rule = vector["label"] != "clear_scanner_replied" && !bytes.is_empty();
            if by_rule
                && let Frame::Response(frame) =
                    only(Parser::client(Protocol::Thft, 1 << 20), &bytes)
            {
                entry.1.push(frame.body);
            }
        }
    }
    for (requests, responses) in bodies.values_mut() {
        requests.retain(|body| !body.is_empty());
        responses.retain(|body| !body.is_empty());
    }
    bodies
}

fn only(mut parser: Parser, bytes: &Bytes) -> Frame {
    match parser.next(&mut BytesMut::from(&bytes[..])) {
        Ok(Parsed::Frame(frame)) => frame,
        other => panic!("no frame: {other:?}"),
    }
}

macro_rules! fuzz_rpcs {
    ($($name:literal: $request:ty => $response:ty;)*) => {
        #[test]
        fn arguments_of_every_rpc() {
            let bodies = recorded_bodies();
            $( fuzz_wrapped::<$request>(concat!($name, " argument"), &bodies[$name].0); )*
        }

        #[test]
        fn results_of_every_rpc() {
            let mut bodies = recorded_bodies();
            let nothing = encoded(&NoAnswer {});
            $(
                let samples = &mut bodies.get_mut($name).expect("recorded").1;
                if samples.is_empty() {
                    samples.push(nothing.clone());
                }
                fuzz_wrapped::<$response>(concat!($name, " result"), samples);
            )*
        }
    };
}

with_rpcs!(fuzz_rpcs);

fn encoded<T: Encode>(value: &T) -> Bytes {
    let mut out = BytesMut::new();
    encode_wrapped(value, RESULT_ID, &mut out);
    out.freeze()
}

fn fuzz_made<T: Decode + Clone + PartialEq>(name: &str, value: &T) {
    fuzz_wrapped::<T>(name, &[encoded(value), encoded(&T::default())]);
}

fn table() -> AppInfo {
    let envs = [("default_ttl", "86400"), ("replica.slow_query_threshold", "30")];
    AppInfo {
        app_type: "pegasus".into(),
        app_name: "temp".into(),
        app_id: 2,
        partition_count: 8,
        envs: envs.map(|(name, value)| (name.into(), value.into())).into(),
        is_stateful: true,
        ..AppInfo::default()
    }
}

fn group() -> PartitionConfiguration {
    let host = HostPort::new("localhost", 34801);
    PartitionConfiguration {
        pid: Gpid::new(2, 3),
        ballot: 5,
        hp_primary: Some(host.clone()),
        hp_secondaries: Some(vec![host.clone(), host]),
        ..PartitionConfiguration::default()
    }
}

#[test]
fn messages_without_recordings() {
    let entry = DuplicateEntry {
        timestamp: Some(1),
        task_code: Some(TaskCode::from_static("RPC_RRDB_RRDB_PUT")),
        raw_message: Some(Blob::from_static(b"message")),
        cluster_id: Some(1),
        verify_timetag: Some(true),
    };
    let entries = List::from(vec![entry.clone(), entry]);
    fuzz_made("duplicate_request", &DuplicateRequest { entries });
    let hint = DuplicateResponse { error: Some(4), error_hint: Some("hint".into()) };
    fuzz_made("duplicate_response", &hint);
    let update =
        ConfigurationUpdateRequest { info: table(), config: group(), ..Default::default() };
    let replica = ReplicaInfo { app_type: "pegasus".into(), ..Default::default() };
    fuzz_made(
        "config_sync_response",
        &ConfigSyncResponse {
            partitions: List::from(vec![update.clone(), update]),
            gc_replicas: Some(List::from(vec![replica])),
            ..Default::default()
        },
    );
    fuzz_made(
        "configuration_update_response",
        &ConfigurationUpdateResponse { config: group(), ..Default::default() },
    );
    let dropped = List::from(vec![DddNodeInfo::default(); 2]);
    let lost = DddPartitionInfo { config: group(), dropped, reason: "all gone".into() };
    let partitions = List::from(vec![lost]);
    fuzz_made("ddd_diagnose_response", &DddDiagnoseResponse { partitions, ..Default::default() });
    fuzz_made("prepare_ack", &PrepareAck { receive_timestamp: Some(1), ..Default::default() });
    fuzz_made("replica_configuration", &ReplicaConfiguration::default());
    fuzz_made("learn_request", &LearnRequest { max_gced_decree: Some(7), ..Default::default() });
    let state = LearnState {
        files: List::from(vec!["1.sst".to_owned(), "2.sst".to_owned()]),
        file_sizes: Some(vec![1, 2]),
        ..Default::default()
    };
    fuzz_made("learn_response", &LearnResponse { state, ..Default::default() });
    fuzz_made("learn_notify_response", &LearnNotifyResponse::default());
    fuzz_made("query_replica_decree_request", &QueryReplicaDecreeRequest::default());
    fuzz_made("query_replica_decree_response", &QueryReplicaDecreeResponse::default());
    fuzz_made(
        "set_max_replica_count_request",
        &SetMaxReplicaCountRequest { app_name: "temp".into(), max_replica_count: 3 },
    );
    fuzz_made("set_max_replica_count_response", &SetMaxReplicaCountResponse::default());
}

/// Feeds the input in up to four pieces; true if it held a whole frame.
fn probe_frames(mut parser: Parser, input: &Bytes, rng: &mut Rng) -> bool {
    let mut buffer = BytesMut::new();
    let mut rest = &input[..];
    let mut found = false;
    for piece in 0..4 {
        let (now, later) =
            rest.split_at(if piece == 3 { rest.len() } else { rng.below(rest.len() + 1) });
        rest = later;
        buffer.extend_from_slice(now);
        loop {
            let before = buffer.len();
            match bounded(&buffer.clone(), || parser.next(&mut buffer)) {
                Ok(Parsed::Frame(frame)) => {
                    found = true;
                    assert!(buffer.len() < before, "a frame of no bytes");
                    if let Frame::Http(request) = frame {
                        let _ = bounded(&request.target, || HttpTarget::parse(&request.target));
                    }
                }
                Ok(Parsed::NeedMore(total)) => {
                    assert!(total > buffer.len(), "needs {total}, has {}", buffer.len());
                    assert_eq!(buffer.len(), before);
                    break;
                }
                Err(_) => return found,
            }
        }
    }
    found
}

fn frames_of(key: &str) -> Vec<Sample> {
    let file = common::synthesised();
    let vectors = file["vectors"].as_array().expect("vectors").iter();
    let frames = vectors.map(|vector| hex_of(vector, key)).filter(|frame| !frame.is_empty());
    frames.map(|frame| Sample::new(&frame)).collect()
}

/// Small enough that declared lengths meet it often.
const MAX_FRAME: usize = 64 * 1024;

#[test]
fn thft_requests() {
    let mut samples = frames_of("thft_v0_request_hex");
    samples.extend(frames_of("thft_v1_request_hex"));
    let parser = Parser::server(MAX_FRAME);
    fuzz("thft request", &samples, |input, rng| probe_frames(parser.clone(), input, rng));
}

#[test]
fn thft_responses() {
    let samples = frames_of("thft_response_hex");
    let parser = Parser::client(Protocol::Thft, MAX_FRAME);
    fuzz("thft response", &samples, |input, rng| probe_frames(parser.clone(), input, rng));
}

#[test]
fn rdsn_frames() {
    let mut samples = frames_of("rdsn_request_hex");
    samples.extend(frames_of("rdsn_response_hex"));
    let mut sealed = BytesMut::new();
    let head = RequestHead::new(Protocol::Rdsn, RpcName::from("RPC_CM_LIST_APPS"), 1);
    write_request(&mut sealed, &head, |w| w.wrapped(RESULT_ID, &ListAppsRequest::default()));
    rdsn::seal(&mut sealed, 0);
    samples.push(Sample::new(&sealed));
    let parser = Parser::server(MAX_FRAME);
    fuzz("rdsn", &samples, |input, rng| probe_frames(parser.clone(), input, rng));
}

#[test]
fn http_requests() {
    let texts = [
        "GET /metrics?types=replica&detail=true HTTP/1.1\r\nHost: a:1\r\nAccept: */*\r\n\r\n",
        "POST /command HTTP/1.1\r\nContent-Length: 11\r\nConnection: close\r\n\r\nserver-info",
        "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /a%20b HTTP/1.1\r\n\r\n",
    ];
    let samples: Vec<Sample> = texts.iter().map(|text| Sample::new(text.as_bytes())).collect();
    let parser = Parser::server(MAX_FRAME);
    fuzz("http", &samples, |input, rng| probe_frames(parser.clone(), input, rng));
}

#[test]
fn http_targets() {
    let texts = ["/meta/app?name=temp&detail", "//a//b%20c?x=%41+b#c", "/?a=1&b=2&c=3&d"];
    let samples: Vec<Sample> = texts.iter().map(|text| Sample::new(text.as_bytes())).collect();
    fuzz("http target", &samples, |input, _| bounded(input, || HttpTarget::parse(input)).is_ok());
}

#[test]
fn json_of_tables() {
    let full = encode_json(&table()).expect("JSON");
    let samples = [Sample::new(full.as_bytes()), Sample::new(b"{}")];
    fuzz("json", &samples, |input, _| {
        let Ok(info) = bounded(input, || decode_json::<AppInfo>(input)) else {
            return false;
        };
        let again = encode_json(&info).expect("JSON of what was read");
        assert_eq!(decode_json::<AppInfo>(again.as_bytes()).ok(), Some(info));
        true
    });
}

#[test]
fn keys() {
    let samples = [&b"\0\x04hk_1sk_1"[..], b"\0\0sort", b"\xff\xfe", b"\0\x02\xff\xff\xff"];
    let samples: Vec<Sample> = samples.iter().map(|raw| Sample::new(raw)).collect();
    let probe = |raw: &Bytes, _: &mut Rng| {
        let hash = bounded(raw, || partition_hash::of_raw_key(raw));
        let Ok((hash_key, sort_key)) = bounded(raw, || key::split_key(raw)) else {
            assert_eq!(hash, None);
            return false;
        };
        assert_eq!(hash, Some(partition_hash::of_record(hash_key, sort_key)));
        assert_eq!(key::encode_key(hash_key, sort_key).as_ref(), Ok(raw));
        for next in [key::next_of_hash_key(hash_key), key::next_of_prefix(hash_key, sort_key)] {
            let next = next.expect("a hash key of allowed length");
            assert!(next > *raw);
            assert!(next.len() <= raw.len());
        }
        true
    };
    // A hash key of 65534 bytes is announced by the third sample, which is therefore no key.
    assert!(!probe(&Bytes::from_static(b"\xff\xfe"), &mut Rng::new(0)));
    let keys: Vec<Sample> =
        samples.into_iter().filter(|s| key::split_key(&s.bytes).is_ok()).collect();
    fuzz("key", &keys, probe);
}

#[test]
fn values() {
    for version in [DataVersion::V0, DataVersion::V1] {
        let stored = version.encode_value(7, Timetag::new(1, 2, false), b"user data");
        let empty = version.encode_value(0, Timetag::default(), b"");
        let samples = [Sample::new(&stored), Sample::new(&empty)];
        fuzz("value", &samples, |stored, _| {
            let Ok((expire_ts, data)) = bounded(stored, || version.split_value(stored)) else {
                assert!(version.timetag(stored).is_err());
                assert!(version.shared_data(stored).is_err());
                return false;
            };
            let timetag = version.timetag(stored).expect("as long as its header");
            assert_eq!(version.shared_data(stored).as_deref(), Ok(data));
            assert_eq!(version.encode_value(expire_ts, timetag, data), *stored);
            true
        });
    }
}
