//! Codec, messages and frames against bytes of real clients and of generated classes.
//!
//! Whatever a client sent is cut by the frame parser, decoded into our message, compared with the
//! recorded decoded arguments, and encoded again: to the very same bytes when the client wrote
//! every plain field. Python leaves some out; then what we add must be exactly the defaults of what
//! it left out.

#![expect(clippy::unwrap_used, reason = "in a test, what is missing fails the test")]

mod common;

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use common::{Rpc, hex_of, rpc, unhex};
use dsn_rpc::address::RpcAddress;
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::frame::{
    Frame, Parsed, Parser, Protocol, RequestFrame, RequestHead, ResponseFrame, write_error,
    write_request, write_response,
};
use dsn_rpc::gpid::Gpid;
use dsn_rpc::thrift::{ARGUMENT_ID, RESULT_ID, Reader, Writer, decode_wrapped, ttype};
use pegasus_client::schema::partition_hash;
use pegasus_client::schema::rrdb::*;
use serde_json::Value;

const LIMIT: usize = 1 << 20;

fn cut(mut parser: Parser, bytes: &Bytes) -> Frame {
    let mut input = BytesMut::from(&bytes[..]);
    let parsed = parser.next(&mut input).unwrap();
    assert!(input.is_empty());
    match parsed {
        Parsed::Frame(frame) => frame,
        Parsed::NeedMore(total) => panic!("needs {total} bytes, has {}", bytes.len()),
    }
}

fn request(bytes: &Bytes) -> RequestFrame {
    match cut(Parser::server(LIMIT), bytes) {
        Frame::Request(frame) => frame,
        other => panic!("not a request: {other:?}"),
    }
}

fn response(protocol: Protocol, bytes: &Bytes) -> ResponseFrame {
    match cut(Parser::client(protocol, LIMIT), bytes) {
        Frame::Response(frame) => frame,
        other => panic!("not a response: {other:?}"),
    }
}

fn with_writer(write: impl FnOnce(&mut Writer<'_>)) -> Bytes {
    let mut out = BytesMut::new();
    write(&mut Writer::new(&mut out));
    out.freeze()
}

/// Compares the fields of a structure with their recorded form; returns how many plain fields the
/// record lacks.
fn compare_struct(recorded: &Value, r: &mut Reader<'_>) -> usize {
    let mut recorded: Vec<(i16, &str, &Value)> = recorded
        .as_object()
        .unwrap()
        .iter()
        .map(|(key, value)| {
            let (id, name) = key.split_once(':').unwrap();
            (id.parse().unwrap(), name, value)
        })
        .collect();
    let mut added = 0;
    while let Some((t, id)) = r.field().unwrap() {
        if let Some(at) = recorded.iter().position(|&(known, ..)| known == id) {
            let (_, name, value) = recorded.remove(at);
            added += compare_value(name, value, t, r);
        } else {
            added += 1;
            let default = match t {
                ttype::BOOL => r.take(1),
                ttype::I32 | ttype::STRUCT | ttype::STRING => r.take(4),
                ttype::I64 => r.take(8),
                ttype::LIST => r.take(5).map(|head| &head[1..]),
                other => panic!("field {id} of type {other}"),
            };
            assert!(default.unwrap().iter().all(|&byte| byte == 0), "field {id} is no default");
        }
    }
    assert!(recorded.is_empty(), "fields {recorded:?} are lost");
    added
}

fn compare_value(name: &str, value: &Value, t: u8, r: &mut Reader<'_>) -> usize {
    match (t, value) {
        (ttype::BOOL, Value::Bool(flag)) => assert_eq!(r.take(1).unwrap(), [u8::from(*flag)]),
        (ttype::I32, Value::Number(n)) => assert_eq!(Some(i64::from(r.i32().unwrap())), n.as_i64()),
        (ttype::I64, Value::Number(n)) => assert_eq!(Some(r.i64().unwrap()), n.as_i64()),
        (ttype::STRING, Value::String(text)) => assert_eq!(r.str().unwrap(), text),
        (ttype::STRUCT, Value::Object(o)) if o.contains_key("hex") => {
            assert_eq!(r.bytes().unwrap(), hex_of(value, "hex"), "{name}");
        }
        (ttype::STRUCT, Value::Object(_)) => return compare_struct(value, r),
        (ttype::LIST, Value::Array(items)) => {
            let element = r.rest()[0];
            assert_eq!(r.list_head(element, 1).unwrap(), items.len(), "{name}");
            return items.iter().map(|item| compare_value(name, item, element, r)).sum();
        }
        (t, value) => panic!("{name}: type {t} recorded as {value}"),
    }
    0
}

fn check_recorded_head(recorded: &Value, head: &RequestHead) {
    let header = &recorded["header"];
    let number = |key: &str| header[key].as_i64().unwrap();
    assert_eq!(head.protocol, Protocol::Thft);
    assert_eq!(i64::from(head.version), number("hdr_version"));
    assert_eq!(i64::from(head.gpid.app_id), number("app_id"));
    assert_eq!(i64::from(head.gpid.partition_index), number("partition_index"));
    assert_eq!(i64::from(head.timeout_ms), number("client_timeout"));
    assert_eq!(i64::from(head.thread_hash), number("client_thread_hash"));
    assert_eq!(head.thread_hash, head.gpid.thread_hash());
    assert_eq!(Some(head.partition_hash), header["client_partition_hash"].as_u64());
    assert_eq!(Some(head.id), recorded["message"]["seqid"].as_u64());
    assert_eq!(head.name, recorded["message"]["name"].as_str().unwrap());
    assert!(!head.is_oneway);
}

/// Returns whether our encoding of the argument is the client's, byte for byte.
fn check_recorded_request(recorded: &Value) -> bool {
    let bytes = hex_of(recorded, "request_hex");
    let frame = request(&bytes);
    check_recorded_head(recorded, &frame.head);
    let types = rpc(recorded["rpc"].as_str().unwrap());
    let ours = with_writer(|w| (types.request)(&frame.body, ARGUMENT_ID, w).unwrap());
    let added = compare_struct(&recorded["args"], &mut Reader::new(&ours));
    assert_eq!(added == 0, ours == frame.body, "{}", recorded["rpc"]);
    // Header and message header are ours to make too.
    let mut out = BytesMut::new();
    write_request(&mut out, &frame.head, |w| w.put(&frame.body));
    assert_eq!(out, bytes);
    added == 0
}

fn check_recorded_response(label: &str, recorded: &Value) {
    let bytes = hex_of(recorded, "response_hex");
    let call = request(&hex_of(recorded, "request_hex")).head;
    let types = rpc(recorded["rpc"].as_str().unwrap());
    if bytes.is_empty() {
        assert_eq!(call.name, "RPC_RRDB_RRDB_CLEAR_SCANNER");
        return;
    }
    let frame = response(Protocol::Thft, &bytes);
    assert_eq!((frame.name, frame.id), (call.name.with_ack(), call.id));
    assert_eq!(frame.error.name(), recorded["response_error"].as_str().unwrap());
    let mut out = BytesMut::new();
    if !frame.error.is_ok() {
        write_error(&mut out, &call, frame.error, RpcAddress::INVALID);
        assert_eq!(out, bytes);
        return;
    }
    let ours = with_writer(|w| (types.response)(&frame.body, RESULT_ID, w).unwrap());
    if label == "get_novalue_field" {
        let read: ReadResponse = decode_wrapped(&frame.body).unwrap();
        assert_eq!(read.value, Bytes::new());
        assert_ne!(ours, frame.body);
        return;
    }
    assert_eq!(ours, frame.body, "{label}");
    write_response(&mut out, &call, frame.error, RpcAddress::INVALID, |w| {
        (types.response)(&frame.body, RESULT_ID, w).unwrap();
    });
    if with_host_ports(types, &frame.body) {
        // What we would send instead: the same without the fields that this connection cannot bear.
        assert!(out.len() < bytes.len());
        assert!(!with_host_ports(types, &response(Protocol::Thft, &out.freeze()).body));
    } else {
        assert_eq!(out, bytes, "{label}");
    }
}

/// Whether a response holds optional host-port fields.
fn with_host_ports(types: &Rpc, body: &Bytes) -> bool {
    let mut without = BytesMut::new();
    let w = &mut Writer::without_host_ports(&mut without);
    (types.response)(body, RESULT_ID, w).unwrap();
    without != *body
}

#[test]
fn recorded_calls_decode_and_encode_to_the_same_bytes() {
    for (file, recording) in common::recordings() {
        let (mut exact, mut sparse) = (0, BTreeSet::new());
        for vector in recording["vectors"].as_array().unwrap() {
            let label = vector["label"].as_str().unwrap();
            for recorded in vector["rpcs"].as_array().unwrap() {
                if check_recorded_request(recorded) {
                    exact += 1;
                } else {
                    sparse.insert(
                        recorded["rpc"].as_str().unwrap()["RPC_RRDB_RRDB_".len()..].to_owned(),
                    );
                }
                check_recorded_response(label, recorded);
            }
        }
        let sparse: Vec<_> = sparse.iter().map(String::as_str).collect();
        if file == "python_pypi_hp" {
            assert_eq!((exact, sparse), (1, vec![]), "{file}");
            continue;
        }
        // Fields 6 to 12 of multi_get, max_count of multi_remove, no_value and filters of scanners.
        assert_eq!(sparse, ["GET_SCANNER", "MULTI_GET", "MULTI_REMOVE"], "{file}");
        assert!(exact >= 33, "{file}: only {exact} exact requests");
    }
}

#[test]
fn recorded_requests_go_to_the_partition_of_their_key() {
    for (file, recording) in common::recordings() {
        let vectors = recording["vectors"].as_array().unwrap().iter();
        for recorded in vectors.flat_map(|vector| vector["rpcs"].as_array().unwrap()) {
            let frame = request(&hex_of(recorded, "request_hex"));
            let head = &frame.head;
            let hash = match recorded["rpc"].as_str().unwrap() {
                "RPC_RRDB_RRDB_PUT" => {
                    let put: UpdateRequest = decode_wrapped(&frame.body).unwrap();
                    partition_hash::of_raw_key(&put.key).unwrap()
                }
                "RPC_RRDB_RRDB_GET" | "RPC_RRDB_RRDB_TTL" | "RPC_RRDB_RRDB_REMOVE" => {
                    let key: Bytes = decode_wrapped(&frame.body).unwrap();
                    partition_hash::of_raw_key(&key).unwrap()
                }
                "RPC_RRDB_RRDB_MULTI_GET" => {
                    let get: MultiGetRequest = decode_wrapped(&frame.body).unwrap();
                    partition_hash::of_record(&get.hash_key, b"")
                }
                _ => continue,
            };
            assert_eq!(head.gpid, Gpid::new(2, partition_hash::partition_index(hash, 8)));
            if file == "python_pypi" {
                assert_eq!(head.partition_hash, 0);
            } else {
                assert_eq!(head.partition_hash, hash);
            }
        }
    }
}

/// Checks one request frame of a synthesised vector; returns its head.
fn check_synthesised_request(vector: &Value, key: &str, argument: &str) -> RequestHead {
    let bytes = hex_of(vector, key);
    let frame = request(&bytes);
    let head = frame.head;
    let number = |key: &str| vector[key].as_i64().unwrap() as i32;
    assert_eq!(head.name, vector["rpc"].as_str().unwrap());
    assert_eq!(Some(head.id), vector["seqid"].as_u64());
    assert_eq!(head.gpid, Gpid::new(number("app_id"), number("partition_index")));
    assert_eq!(head.partition_hash, vector["partition_hash"].as_u64().unwrap());
    assert_eq!((head.timeout_ms, head.thread_hash), (5000, head.gpid.thread_hash()));
    assert_eq!(frame.body, hex_of(vector, argument));
    if head.version == 0 {
        let mut out = BytesMut::new();
        write_request(&mut out, &head, |w| w.put(&frame.body));
        assert_eq!(out, bytes, "{key} of {}", vector["rpc"]);
    }
    head
}

#[test]
fn synthesised_calls_decode_and_encode_to_the_same_bytes() {
    let file = common::synthesised();
    let vectors = file["vectors"].as_array().unwrap();
    for vector in vectors {
        let name = vector["rpc"].as_str().unwrap();
        let types = rpc(name);
        let argument = hex_of(vector, "args_field1_hex");
        for (id, key) in [(1, "args_field1_hex"), (0, "args_field0_hex")] {
            let ours = with_writer(|w| (types.request)(&argument, id, w).unwrap());
            assert_eq!(ours, hex_of(vector, key), "{key} of {name}");
        }
        let thft = check_synthesised_request(vector, "thft_v0_request_hex", "args_field1_hex");
        check_synthesised_request(vector, "thft_v1_request_hex", "args_field1_hex");
        let rdsn = check_synthesised_request(vector, "rdsn_request_hex", "args_field0_hex");
        assert_eq!(rdsn.trace_id, 0x1122_3344_5566_7788);
        let mut out = BytesMut::new();
        write_request(&mut out, &rdsn, |w| (types.request)(&argument, RESULT_ID, w).unwrap());
        assert_eq!(out, hex_of(vector, "rdsn_request_hex"), "{name}");
        check_synthesised_responses(vector, types, &thft, &rdsn);
    }
    assert_eq!(vectors.len(), 42);
}

fn check_synthesised_responses(
    vector: &Value,
    types: &Rpc,
    thft: &RequestHead,
    rdsn: &RequestHead,
) {
    let body = hex_of(vector, "response_body_hex");
    if body.is_empty() {
        return;
    }
    let ours = with_writer(|w| (types.response)(&body, RESULT_ID, w).unwrap());
    assert_eq!(ours, body, "response of {}", types.name);
    let responder = response(Protocol::Rdsn, &hex_of(vector, "rdsn_response_hex")).from_address;
    for (call, key) in [(thft, "thft_response_hex"), (rdsn, "rdsn_response_hex")] {
        let bytes = hex_of(vector, key);
        let frame = response(call.protocol, &bytes);
        assert_eq!((frame.id, frame.error, &frame.body), (call.id, ErrorCode::Ok, &body));
        let mut out = BytesMut::new();
        write_response(&mut out, call, ErrorCode::Ok, responder, |w| w.put(&body));
        assert_eq!(out, bytes, "{key} of {}", types.name);
    }
    let mut out = BytesMut::new();
    write_response(&mut out, rdsn, ErrorCode::Ok, responder, |w| {
        (types.response)(&body, RESULT_ID, w).unwrap();
    });
    assert_eq!(out, hex_of(vector, "rdsn_response_hex"));
}

#[test]
fn synthesised_values_are_read_as_what_they_say() {
    let file = common::synthesised();
    let vectors = file["vectors"].as_array().unwrap();
    let find = |name: &str, note: &str| {
        let found = vectors.iter().find(|v| v["rpc"] == name && v["note"] == note);
        found.unwrap_or_else(|| panic!("{name} {note}"))
    };
    let incr = find("RPC_RRDB_RRDB_INCR", "");
    let request: IncrRequest = decode_wrapped(&hex_of(incr, "args_field0_hex")).unwrap();
    assert_eq!((&request.key[..], request.increment), (&b"\0\x04hk_1sk_1"[..], 5));
    let mutate = find("RPC_RRDB_RRDB_CHECK_AND_MUTATE", "");
    let request: CheckAndMutateRequest =
        decode_wrapped(&hex_of(mutate, "args_field0_hex")).unwrap();
    let operations: Vec<_> = request.mutate_list.iter().map(|m| m.operation).collect();
    assert_eq!(operations, [MutateOperation::Put, MutateOperation::Delete]);
    assert_eq!(request.check_type, CasCheckType::ValueExist);
    let scan = find("RPC_RRDB_RRDB_GET_SCANNER", "only_return_count");
    let answer: ScanResponse = decode_wrapped(&hex_of(scan, "response_body_hex")).unwrap();
    assert_eq!((answer.context_id, answer.kv_count), (scan_context::COMPLETED, Some(42)));
    let config = find("RPC_CM_QUERY_PARTITION_CONFIG_BY_INDEX", "with hp_ fields 9..11");
    let answer: dsn_replication::wire::config::QueryCfgResponse =
        decode_wrapped(&hex_of(config, "response_body_hex")).unwrap();
    let partition = answer.partitions.first().unwrap();
    assert_eq!(partition.primary.to_string(), "127.0.0.1:34801");
    assert_eq!(partition.hp_primary.unwrap().to_string(), "localhost:34801");
    assert_eq!(partition.secondaries.len(), 2);
}

#[test]
fn extra_frames() {
    let file = common::synthesised();
    let extra = &file["extra"];
    for vector in extra["thft_error_reply"].as_array().unwrap() {
        let bytes = hex_of(vector, "hex");
        let frame = response(Protocol::Thft, &bytes);
        assert_eq!(frame.error.name(), vector["error"].as_str().unwrap());
        assert_eq!((frame.id, frame.body.len()), (9, 0));
        let call = RequestHead::new(Protocol::Thft, frame.name.without_ack(), 9);
        let mut out = BytesMut::new();
        write_error(&mut out, &call, frame.error, RpcAddress::INVALID);
        assert_eq!(out, bytes);
    }
    let frame = response(Protocol::Rdsn, &hex_of(&extra["rdsn_forward_reply"], "hex"));
    assert_eq!(frame.error, ErrorCode::ForwardToOthers);
    let leader: RpcAddress = decode_wrapped(&frame.body).unwrap();
    assert_eq!(leader.to_string(), "127.0.0.1:34602");
    let frame = request(&hex_of(&extra["thft_v1_backup_get"], "hex"));
    assert!(frame.head.context.is_backup());
    assert_eq!(frame.head.timeout_ms, 1000);
}

#[test]
fn hashes_agree_with_the_original() {
    let file = common::partition_hashes();
    let keys = file.as_array().unwrap();
    for key in keys {
        let bytes = unhex(key["hash_key_hex"].as_str().unwrap());
        let hash = partition_hash::crc64(&bytes);
        assert_eq!(format!("{hash:016x}"), key["crc64_hex"].as_str().unwrap());
        for count in [4, 8, 64] {
            let index = partition_hash::partition_index(hash, count);
            assert_eq!(Some(i64::from(index)), key[format!("pidx_mod_{count}")].as_i64());
            assert!(partition_hash::is_owner(hash, count - 1, index));
        }
        let index = partition_hash::partition_index(hash, 6);
        assert_eq!(Some(i64::from(index)), key["pidx_mod_6_unsigned"].as_i64());
    }
    assert_eq!(keys.len(), 16);
}
