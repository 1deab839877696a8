//! Time per operation of what every request costs in the codec, single-threaded and warm.
//!
//! Run with `cargo bench -p pegasus-client --bench codec`; a filter may follow after `--`.

use std::hint::black_box;
use std::net::Ipv4Addr;

use bytes::{Bytes, BytesMut};
use dsn_rpc::address::RpcAddress;
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::frame::{
    Frame, Parsed, Parser, Protocol, RequestHead, RpcName, write_request, write_response,
};
use dsn_rpc::gpid::Gpid;
use dsn_rpc::thrift::{ARGUMENT_ID, Blob, List, RESULT_ID, decode_wrapped, encode_wrapped};
use pegasus_client::schema::partition_hash::crc64;
use pegasus_client::schema::rrdb::*;

/// Operations per sample; the best of several samples is printed.
const OPERATIONS: u32 = 200_000;
/// Samples per benchmark.
const SAMPLES: usize = 7;

const MAX_FRAME: usize = 1 << 20;

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn bench(name: &str, mut operation: impl FnMut()) {
    if std::env::args().skip(1).any(|arg| !arg.starts_with('-') && !name.contains(&arg)) {
        return;
    }
    let mut best = f64::MAX;
    for _ in 0..SAMPLES {
        let start = std::time::Instant::now();
        for _ in 0..OPERATIONS {
            operation();
        }
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(OPERATIONS));
    }
    println!("{name:<44} {best:>8.1} ns");
}

fn call(protocol: Protocol, name: &str) -> RequestHead {
    let gpid = Gpid::new(2, 3);
    RequestHead {
        gpid,
        timeout_ms: 1000,
        thread_hash: gpid.thread_hash(),
        partition_hash: crc64(b"user_0000000001"),
        ..RequestHead::new(protocol, RpcName::from(name), 7)
    }
}

fn frames(protocol: Protocol, name: &str, body: &Bytes, count: usize) -> BytesMut {
    let mut out = BytesMut::new();
    for _ in 0..count {
        write_request(&mut out, &call(protocol, name), |w| w.put(body));
    }
    out
}

fn wrapped<T: dsn_rpc::thrift::Encode>(value: &T) -> Bytes {
    let mut out = BytesMut::new();
    encode_wrapped(value, ARGUMENT_ID, &mut out);
    out.freeze()
}

/// Cuts 16 pipelined frames out of a buffer that is filled anew for each round; per frame.
fn bench_parse(protocol: Protocol, name: &str, body: &Bytes) {
    const BATCH: usize = 16;
    let stream = frames(protocol, name, body, BATCH);
    let mut input = BytesMut::with_capacity(64 * 1024);
    let mut left = 0;
    bench(&format!("cut {protocol:?} {name}"), || {
        if left == 0 {
            input.clear();
            input.reserve(stream.len());
            input.extend_from_slice(&stream);
            left = BATCH;
        }
        left -= 1;
        match Parser::client_or_server(protocol).next(&mut input) {
            Ok(Parsed::Frame(Frame::Request(frame))) => drop(black_box(frame)),
            other => panic!("{other:?}"),
        }
    });
}

/// A parser for calls of a protocol that is known already.
trait KnownParser {
    fn client_or_server(protocol: Protocol) -> Self;
}

impl KnownParser for Parser {
    fn client_or_server(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Rdsn => Self::client(protocol, MAX_FRAME),
            _ => Self::server(MAX_FRAME),
        }
    }
}

fn bench_requests(value: &'static [u8]) {
    let key = Blob::from_static(b"\0\x0fuser_0000000001sort_key_1");
    let get = wrapped(&key);
    let put = wrapped(&UpdateRequest {
        key: key.clone(),
        value: Blob::from_static(value),
        ..UpdateRequest::default()
    });
    let kvs: List<KeyValue> = (0..10)
        .map(|_| KeyValue {
            key: Blob::from_static(b"sort_key_1"),
            value: Blob::from_static(value),
            expire_ts_seconds: None,
        })
        .collect();
    let multi_put = wrapped(&MultiPutRequest {
        hash_key: Blob::from_static(b"user_0000000001"),
        kvs,
        expire_ts_seconds: 0,
    });
    for protocol in [Protocol::Thft, Protocol::Rdsn] {
        bench_parse(protocol, "RPC_RRDB_RRDB_GET", &get);
        bench_parse(protocol, "RPC_RRDB_RRDB_PUT", &put);
    }
    bench("decode get argument", || {
        black_box(decode_wrapped::<Blob>(black_box(&get)).ok());
    });
    bench("decode put argument", || {
        black_box(decode_wrapped::<UpdateRequest>(black_box(&put)).ok());
    });
    bench("decode and walk multi_put of 10", || {
        let request: MultiPutRequest = decode_wrapped(black_box(&multi_put)).expect("valid");
        request.kvs.iter().for_each(|kv| drop(black_box(kv)));
    });
}

fn bench_responses(value: &'static [u8]) {
    let responder = RpcAddress::new(Ipv4Addr::LOCALHOST, 34801);
    let mut out = BytesMut::with_capacity(64 * 1024);
    for protocol in [Protocol::Thft, Protocol::Rdsn] {
        let call = call(protocol, "RPC_RRDB_RRDB_GET");
        bench(&format!("write {protocol:?} read_response"), || {
            out.clear();
            let response = ReadResponseRef {
                error: 0,
                value: black_box(value),
                app_id: 2,
                partition_index: 3,
                server: "127.0.0.1:34801",
            };
            write_response(&mut out, black_box(&call), ErrorCode::Ok, responder, |w| {
                w.wrapped(RESULT_ID, &response);
            });
            black_box(&out);
        });
    }
    let call = call(Protocol::Thft, "RPC_RRDB_RRDB_PUT");
    let server = dsn_rpc::thrift::Text::from_static("127.0.0.1:34801");
    bench("write Thft update_response", || {
        out.clear();
        let response = UpdateResponse {
            error: 0,
            app_id: 2,
            partition_index: 3,
            decree: black_box(1234),
            server: server.clone(),
        };
        write_response(&mut out, black_box(&call), ErrorCode::Ok, responder, |w| {
            w.wrapped(RESULT_ID, &response);
        });
        black_box(&out);
    });
}

fn main() {
    let value: &'static [u8] = &[b'v'; 100];
    bench_requests(value);
    bench_responses(value);
    bench("crc64 of 15 bytes", || {
        black_box(crc64(black_box(b"user_0000000001")));
    });
    bench("crc64 of 100 bytes", || {
        black_box(crc64(black_box(value)));
    });
}
