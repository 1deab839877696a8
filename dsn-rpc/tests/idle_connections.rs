//! 10,000 connections that do nothing: what each costs. A process of its own, for its memory is measured; the other
//! ends are in a second one, for descriptors are limited.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use bytes::{Bytes, BytesMut};
use common::*;
use dsn_rpc::RpcOptions;
use dsn_rpc::frame::{Protocol, RequestHead, RpcName, write_request};
use rustix::process::{Resource, getrlimit, setrlimit};

const CONNECTIONS: u64 = 10_000;
/// Most bytes of the server's process per idle connection.
const MOST: u64 = 16 * 1024;
/// Tells the second process whom to connect to.
const TARGET: &str = "IDLE_CONNECTIONS_TARGET";

/// Resident memory of this process, in bytes.
#[expect(clippy::disallowed_methods, reason = "the test looks at its own process")]
fn resident() -> u64 {
    let text = std::fs::read("/proc/self/statm").unwrap();
    let text = String::from_utf8(text).unwrap();
    text.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn raise_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// The second process: connects, works once on each connection, and holds them until its input ends.
#[test]
fn other_ends() {
    let Ok(target) = std::env::var(TARGET) else { return };
    let target: SocketAddr = target.parse().unwrap();
    raise_limit();
    let mut request = BytesMut::new();
    let body = Bytes::from(vec![1; 4000]);
    let head = RequestHead::new(Protocol::Thft, RpcName::from(RPC_TEST_ECHO.name()), 1);
    write_request(&mut request, &head, |w| w.wrapped(1, &body));
    let mut answer = vec![0; 4000];
    let streams: Vec<TcpStream> = (0..CONNECTIONS)
        .map(|_| {
            #[expect(clippy::disallowed_methods, reason = "the test is the client")]
            let mut stream = TcpStream::connect(target).unwrap();
            stream.write_all(&request).unwrap();
            stream.read_exact(&mut answer).unwrap();
            stream
        })
        .collect();
    println!("\nconnected");
    let _ = std::io::stdin().read(&mut [0]);
    drop(streams);
}

#[test]
fn idle_connections_hold_next_to_nothing() {
    if std::env::var(TARGET).is_ok() {
        return;
    }
    raise_limit();
    let server = TestNode::start(2, RpcOptions::default());
    let before = resident();
    let mut other = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "other_ends", "--nocapture"])
        .env(TARGET, server.addr.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(other.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "connected"), "all connections are made");
    server.wait("all are seen", |stats| stats.sessions == CONNECTIONS);
    let each = resident().saturating_sub(before) / CONNECTIONS;
    println!("{each} bytes of memory per connection");
    assert!(each <= MOST, "{each} bytes each");
    assert_eq!(server.rpc.stats().buffer_bytes, 0, "an idle connection has no buffers");
    drop(other.stdin.take());
    assert!(other.wait().unwrap().success());
    server.wait("all are gone", |stats| stats.sessions == 0);
}
