//! Whatever a peer sends or fails to do costs it its own connection, and little memory.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use common::*;
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::frame::{Protocol, RequestHead, RpcName, rdsn, write_request};
use dsn_rpc::{CallOptions, RpcOptions};

#[expect(clippy::disallowed_methods, reason = "the test is the client")]
fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

fn frame(protocol: Protocol, name: &str, id: u64, body: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    let head = RequestHead::new(protocol, RpcName::from(name), id);
    write_request(&mut out, &head, |w| w.put(body));
    out.to_vec()
}

fn wrapped(value: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    dsn_rpc::thrift::encode_wrapped(&Bytes::copy_from_slice(value), 1, &mut out);
    out.to_vec()
}

fn echo(protocol: Protocol) -> Vec<u8> {
    frame(protocol, RPC_TEST_ECHO.name(), 5, &wrapped(b"hello"))
}

/// Changes bytes of a frame.
fn patched(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

/// What arrives until the other end closes.
fn until_closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = [0; 65536];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return all,
            Ok(n) => all.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return all,
            Err(error) => panic!("not closed: {error}"),
        }
    }
}

/// A `THFT` answer: error name and body behind the message header.
fn thft_answer(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut rest = vec![0; u32::from_be_bytes(length) as usize - 4];
    stream.read_exact(&mut rest).unwrap();
    let error = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
    let text = String::from_utf8(rest[4..4 + error].to_vec()).unwrap();
    (text, rest.split_off(4 + error))
}

/// The server still serves others.
fn assert_serves(server: &TestNode) {
    let mut stream = connect(server.addr);
    stream.write_all(&echo(Protocol::Thft)).unwrap();
    assert_eq!(thft_answer(&mut stream).0, "ERR_OK");
}

fn short_times() -> RpcOptions {
    RpcOptions {
        frame_timeout: Duration::from_millis(200),
        send_timeout: Duration::from_millis(200),
        ..RpcOptions::default()
    }
}

/// A structure in a structure in a structure ...
fn bomb(depth: usize) -> Vec<u8> {
    let mut bytes = [12, 0, 9].repeat(depth);
    bytes.resize(4 * depth, 0);
    bytes
}

/// A `THFT` request of version 1 with this meta structure.
fn version_one(meta: &[u8]) -> Vec<u8> {
    let body = &echo(Protocol::Thft)[48..];
    let mut out = b"THFT\0\0\0\x01".to_vec();
    out.extend_from_slice(&(meta.len() as u32).to_be_bytes());
    out.extend_from_slice(&(body.len() as u32).to_be_bytes());
    out.extend_from_slice(meta);
    out.extend_from_slice(body);
    out
}

fn broken_frames() -> Vec<(&'static str, Vec<u8>)> {
    let (thft, rdsn) = (echo(Protocol::Thft), echo(Protocol::Rdsn));
    let mut sealed = BytesMut::from(&rdsn[..]);
    rdsn::seal(&mut sealed, 0);
    let mut flipped = sealed.to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    let name_at = 52;
    vec![
        ("no protocol", b"ABCD and so on".to_vec()),
        ("a method that is none", b"PUT / HTTP/1.1\r\n\r\n".to_vec()),
        ("thft header length", patched(thft.clone(), 8, &[0, 0, 0, 47])),
        ("thft header version", patched(thft.clone(), 4, &[0, 0, 0, 7])),
        ("thft body of 2^32-1", patched(thft.clone(), 16, &[0xff; 4])),
        ("thft body of 2^31", patched(thft.clone(), 16, &[0x80, 0, 0, 0])),
        ("thft body one above the limit", patched(thft.clone(), 16, &[4, 0, 0, 0])),
        ("thft body shorter than its message", patched(thft.clone(), 16, &[0, 0, 0, 9])),
        ("thft name of 2^31-1", patched(thft.clone(), name_at, &[0x7f, 0xff, 0xff, 0xff])),
        ("thft name of -1", patched(thft.clone(), name_at, &[0xff; 4])),
        ("thft message type", patched(thft.clone(), 51, &[9])),
        ("thft message version", patched(thft.clone(), 48, &[0x80, 2])),
        ("thft meta of 2^32-1", patched(version_one(&[0]), 8, &[0xff; 4])),
        ("thft meta cut off", version_one(&[8, 0, 1, 0])),
        ("thft meta of an unknown type", version_one(&[77, 0, 1, 0, 0])),
        ("thft meta nested too deep", version_one(&bomb(500))),
        ("rdsn header length", patched(rdsn.clone(), 8, &[191])),
        ("rdsn header version", patched(rdsn.clone(), 4, &[1])),
        ("rdsn body of 2^32-1", patched(rdsn.clone(), 16, &[0xff; 4])),
        ("rdsn body of 2^31", patched(rdsn.clone(), 16, &[0, 0, 0, 0x80])),
        ("rdsn encoding", patched(rdsn, 104, &[0x81, 0])),
        ("rdsn header checksum", patched(sealed.to_vec(), 24, &[9])),
        ("rdsn body checksum", flipped),
        ("http without an end", [b"GET /".to_vec(), vec![b'a'; 20_000]].concat()),
        ("http header without colon", b"GET / HTTP/1.1\r\nabc\r\n\r\n".to_vec()),
        (
            "http body of 2^64",
            b"POST / HTTP/1.1\r\nContent-Length: 18446744073709551616\r\n\r\n".to_vec(),
        ),
        ("http body of -1", b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n".to_vec()),
        (
            "http with too many headers",
            [b"GET / HTTP/1.1\r\n".to_vec(), b"a: b\r\n".repeat(100), b"\r\n".to_vec()].concat(),
        ),
    ]
}

#[test]
fn broken_frames_cost_the_connection_and_nothing_else() {
    let server = TestNode::start(2, RpcOptions::default());
    let cases = broken_frames();
    for (at, (name, bytes)) in cases.iter().enumerate() {
        println!("{name}");
        let mut stream = connect(server.addr);
        // The rest may meet a closed connection.
        let _ = stream.write_all(bytes);
        let answer = until_closed(&mut stream);
        let is_http = name.starts_with("http");
        assert_eq!(answer.starts_with(b"HTTP/1.1 4"), is_http, "{name}: {answer:?}");
        server.wait(name, |stats| stats.bad_input == at as u64 + 1);
    }
    assert_serves(&server);
    server.wait("all gone", |stats| stats.closed >= cases.len() as u64);
}

#[test]
fn garbage_after_a_good_frame_comes_after_its_answer() {
    let server = TestNode::start(1, RpcOptions::default());
    for protocol in [Protocol::Thft, Protocol::Rdsn] {
        let mut stream = connect(server.addr);
        stream.write_all(&echo(protocol)).unwrap();
        let mut first = [0; 4];
        stream.read_exact(&mut first).unwrap();
        stream.write_all(&[0xaa; 300]).unwrap();
        until_closed(&mut stream);
    }
    server.wait("both", |stats| stats.bad_input == 2 && stats.replies == 2);
    assert_serves(&server);
}

#[test]
fn bad_arguments_of_good_frames_are_answered() {
    let server = TestNode::start(1, RpcOptions::default());
    let mut stream = connect(server.addr);
    let bulk = RPC_TEST_BULK.name();
    let bodies: [&[u8]; 6] = [
        b"",
        &bomb(1000),
        &[77, 0, 1, 0],
        &[11, 0, 1, 0x80, 0, 0, 0],
        &[15, 0, 1, 12, 0x7f, 0xff, 0xff, 0xff],
        &[10, 0, 1, 0, 0],
    ];
    for (id, body) in bodies.iter().enumerate() {
        stream.write_all(&frame(Protocol::Thft, bulk, id as u64, body)).unwrap();
        let (error, rest) = thft_answer(&mut stream);
        assert_eq!(error, ErrorCode::InvalidParameters.name());
        assert_eq!(rest.last(), Some(&(id as u8)), "an error has no body behind the number");
    }
    let unknown = "RPC_".to_owned() + &"X".repeat(3000);
    for name in [RPC_TEST_NOBODY.name(), "", &unknown] {
        stream.write_all(&frame(Protocol::Thft, name, 3, b"\0")).unwrap();
        assert_eq!(thft_answer(&mut stream).0, ErrorCode::HandlerNotFound.name());
    }
    stream.write_all(&echo(Protocol::Thft)).unwrap();
    assert_eq!(thft_answer(&mut stream).0, "ERR_OK");
    assert_eq!(server.rpc.stats().bad_input, 0);
}

#[test]
fn a_declared_length_reserves_nothing() {
    let server = TestNode::start(1, short_times());
    // Each declares 60 MiB; 20 KiB of it arrive.
    let large = patched(echo(Protocol::Thft), 16, &(60u32 << 20).to_be_bytes());
    let sent = [large, vec![0; 20_000]].concat();
    let streams: Vec<TcpStream> = (0..50)
        .map(|_| {
            let mut stream = connect(server.addr);
            stream.write_all(&sent).unwrap();
            stream
        })
        .collect();
    let mut most = 0;
    server.wait("unfinished frames end", |stats| {
        most = most.max(stats.buffer_bytes);
        stats.too_slow == 50
    });
    let arrived = (sent.len() * streams.len()) as u64;
    assert!(most > arrived / 2, "the walk has seen them: {most}");
    assert!(most <= 2 * arrived + 50 * 65536, "{most} bytes held for {arrived} that arrived");
    for mut stream in streams {
        assert!(until_closed(&mut stream).is_empty());
    }
    server.wait("all memory is back", |stats| stats.buffer_bytes == 0);
    assert_serves(&server);
}

#[test]
fn truncated_frames_leave_nothing_behind() {
    let server = TestNode::start(1, RpcOptions::default());
    let mut count = 0;
    for protocol in [Protocol::Thft, Protocol::Rdsn] {
        let whole = echo(protocol);
        for length in (1..whole.len()).step_by(7) {
            let mut stream = connect(server.addr);
            stream.write_all(&whole[..length]).unwrap();
            drop(stream);
            count += 1;
        }
    }
    server.wait("all gone", |stats| stats.closed == count);
    server.wait("no memory", |stats| stats.sessions == 0 && stats.buffer_bytes == 0);
    assert_eq!(server.rpc.stats().requests, 0);
    assert_serves(&server);
}

#[test]
fn frames_in_single_bytes_are_frames_all_the_same() {
    let server = TestNode::start(1, RpcOptions::default());
    for protocol in [Protocol::Thft, Protocol::Rdsn] {
        let mut stream = connect(server.addr);
        stream.set_nodelay(true).unwrap();
        for byte in echo(protocol) {
            stream.write_all(&[byte]).unwrap();
        }
        let mut first = [0; 8];
        stream.read_exact(&mut first).unwrap();
    }
    assert_eq!(server.rpc.stats().replies, 2);
}

#[test]
fn a_sender_that_drips_is_cut_off() {
    let server = TestNode::start(1, short_times());
    let mut stream = connect(server.addr);
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let frame = frame(Protocol::Thft, RPC_TEST_ECHO.name(), 1, &wrapped(&[0; 5000]));
    for byte in frame {
        let gone = stream.write_all(&[byte]).is_err();
        match stream.read(&mut [0]) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            _ => break,
        }
        if gone {
            break;
        }
    }
    server.wait("cut off", |stats| stats.too_slow == 1 && stats.requests == 0);
    assert_serves(&server);
}

#[test]
fn a_peer_that_never_reads_is_bounded_and_cut_off() {
    let server = TestNode::start(1, short_times());
    let mut stream = connect(server.addr);
    let mut body = BytesMut::new();
    dsn_rpc::thrift::encode_wrapped(&(3i64 << 20), 1, &mut body);
    let requests = frame(Protocol::Thft, RPC_TEST_BULK.name(), 1, &body).repeat(200);
    // 600 MiB of answers are asked for, and none is taken.
    stream.write_all(&requests).unwrap();
    let mut most = 0;
    server.wait("cut off", |stats| {
        most = most.max(stats.buffer_bytes);
        stats.too_slow == 1
    });
    let stats = server.rpc.stats();
    assert!(stats.pauses > 0 && stats.requests < 20, "no further requests are read: {stats:?}");
    assert!(most < 16 << 20, "{most} bytes held");
    server.wait("all memory is back", |stats| stats.buffer_bytes == 0);
    assert_serves(&server);
}

#[test]
fn idle_connections_end_when_they_are_to() {
    let options = RpcOptions { idle_timeout: Duration::from_millis(100), ..RpcOptions::default() };
    let server = TestNode::start(2, options);
    let client = TestNode::start(1, RpcOptions::default());
    let calls = Calls::new(&client, 0);
    calls.call(&client, 1, server.addr, &RPC_TEST_HOLD, "x", CallOptions::default());
    let mut silent = connect(server.addr);
    let mut answered = connect(server.addr);
    answered.write_all(&echo(Protocol::Thft)).unwrap();
    assert!(until_closed(&mut silent).is_empty());
    assert!(!until_closed(&mut answered).is_empty());
    assert_eq!(server.rpc.stats().idle_closed, 2, "who waits for an answer is not idle");
    calls.nothing_more();
}

#[test]
fn too_many_connections_are_turned_away() {
    let options = RpcOptions { max_connections: 3, ..RpcOptions::default() };
    let per_ip = RpcOptions { conn_threshold_per_ip: 3, ..RpcOptions::default() };
    for options in [options, per_ip] {
        let server = TestNode::start(2, options);
        let mut streams: Vec<TcpStream> = (0..3).map(|_| connect(server.addr)).collect();
        for stream in &mut streams {
            stream.write_all(&echo(Protocol::Thft)).unwrap();
            assert_eq!(thft_answer(stream).0, "ERR_OK");
        }
        assert!(until_closed(&mut connect(server.addr)).is_empty());
        assert_eq!(server.rpc.stats().turned_away, 1);
        drop(streams.pop());
        server.wait("one place is free", |stats| stats.closed == 1);
        assert_serves(&server);
    }
}

#[test]
fn more_than_the_node_may_hold_is_refused() {
    let options =
        RpcOptions { max_held_bytes: dsn_core::config::Size::mib(1), ..RpcOptions::default() };
    let server = TestNode::start(1, options);
    let mut holder = connect(server.addr);
    let hold = frame(Protocol::Thft, RPC_TEST_HOLD.name(), 1, &wrapped(&vec![0; 1 << 20]));
    holder.write_all(&hold).unwrap();
    server.wait("it is held", |stats| stats.requests == 1);
    let mut stream = connect(server.addr);
    stream.write_all(&echo(Protocol::Thft)).unwrap();
    assert_eq!(thft_answer(&mut stream).0, ErrorCode::Busy.name());
    // Servers among themselves are not refused, or what is held would never end.
    let client = TestNode::start(1, RpcOptions::default());
    let calls = Calls::new(&client, 0);
    calls.call(&client, 1, server.addr, &RPC_TEST_RELEASE, "x", CallOptions::default());
    assert_eq!(calls.next_text().1, Ok("x".into()));
    assert_eq!(thft_answer(&mut holder).0, "ERR_OK");
    stream.write_all(&echo(Protocol::Thft)).unwrap();
    assert_eq!(thft_answer(&mut stream).0, "ERR_OK");
    assert_eq!(server.rpc.stats().busy, 1);
}
