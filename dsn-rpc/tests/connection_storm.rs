//! Thousands of connections that come and go at once: whoever is connected is served meanwhile, and nothing stays. A
//! process of its own, for its memory and its descriptors are counted.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![expect(
    clippy::disallowed_methods,
    reason = "the test is the client, and looks at its own process"
)]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::*;
use dsn_rpc::RpcOptions;

const STORMERS: usize = 8;
const CONNECTIONS: usize = 20_000;
/// Bytes of memory that may stay.
const MOST: u64 = 8 << 20;

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Asks for the version, and reads the beginning of the answer.
fn ask(stream: &mut TcpStream) {
    stream.write_all(b"GET /version HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = [0; 15];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
}

/// Reads what follows the beginning of an answer; it has come with it.
fn finish(stream: &mut TcpStream) {
    assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
}

/// Resident memory of this process in bytes, and its descriptors.
fn used() -> (u64, usize) {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = text.split_whitespace().nth(1).unwrap().parse().unwrap();
    (pages * 4096, std::fs::read_dir("/proc/self/fd").unwrap().count())
}

/// Connections that come, ask and go.
fn storm(to: SocketAddr, count: usize) {
    std::thread::scope(|scope| {
        for _ in 0..STORMERS {
            scope.spawn(|| {
                for number in 0..count / STORMERS {
                    let mut stream = connect(to);
                    // Some say nothing, some do not wait for their answer.
                    match number % 4 {
                        0 => {}
                        1 => stream.write_all(b"GET /version HTTP/1.1\r\n\r\n").unwrap(),
                        _ => ask(&mut stream),
                    }
                }
            });
        }
    });
}

#[test]
fn a_storm_of_connections_disturbs_nobody_and_leaves_nothing() {
    let server = TestNode::start(2, RpcOptions::default());
    let mut established = connect(server.addr);
    // Buffers, threads and the heap have the size that they need afterwards.
    storm(server.addr, CONNECTIONS / 10);
    server.wait("all but one are gone", |stats| stats.sessions == 1);
    let before = used();
    let over = AtomicBool::new(false);
    let (served, slowest) = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let (mut served, mut slowest) = (0, Duration::ZERO);
            while !over.load(Ordering::Relaxed) {
                let begun = Instant::now();
                ask(&mut established);
                finish(&mut established);
                slowest = slowest.max(begun.elapsed());
                served += 1;
            }
            (served, slowest)
        });
        storm(server.addr, CONNECTIONS);
        over.store(true, Ordering::Relaxed);
        client.join().unwrap()
    });
    println!("{served} requests answered meanwhile, the slowest after {slowest:?}");
    assert!(served > 100, "{served} answered");
    assert!(slowest < Duration::from_secs(2), "the slowest after {slowest:?}");
    server.wait("all but one are gone", |stats| stats.sessions == 1);
    let after = used();
    assert_eq!(after.1, before.1, "descriptors");
    assert!(after.0 < before.0 + MOST, "{} bytes more", after.0 - before.0);
    assert_eq!(server.rpc.stats().buffer_bytes, 0, "no buffers");
}
