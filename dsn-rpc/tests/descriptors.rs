//! No descriptors left: accepting pauses, and goes on when there are some again. A process of its own, for its limit is
//! changed.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use common::*;
use dsn_rpc::RpcOptions;
use rustix::process::{Resource, getrlimit, setrlimit};

#[expect(clippy::disallowed_methods, reason = "the test is the client")]
fn connect(server: &TestNode) -> TcpStream {
    let stream = TcpStream::connect(server.addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

#[test]
fn accepting_pauses_without_descriptors_and_recovers() {
    let server = TestNode::start(1, RpcOptions::default());
    let first = connect(&server);
    server.wait("the first", |stats| stats.accepted == 1);
    let mut waiting = connect(&server);
    server.wait("the second", |stats| stats.accepted == 2);
    // The next descriptor would be above the limit. One more for the client's end.
    let highest = std::os::fd::AsRawFd::as_raw_fd(&waiting).max(0) as u64;
    let usual = getrlimit(Resource::Nofile);
    let spare = connect(&server);
    server.wait("the third", |stats| stats.accepted == 3);
    drop(waiting);
    server.wait("its end", |stats| stats.closed == 1);
    // Descriptors up to the highest in use are the limit; the one just freed goes to the client.
    let mut tight = usual;
    tight.current = Some(highest + 1);
    setrlimit(Resource::Nofile, tight).unwrap();
    waiting = connect(&server);
    server.wait("a pause", |stats| stats.accept_pauses >= 2);
    assert_eq!(server.rpc.stats().accepted, 3);
    setrlimit(Resource::Nofile, usual).unwrap();
    waiting.write_all(b"GET /version HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = [0; 15];
    waiting.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    assert_eq!(server.rpc.stats().accepted, 4);
    drop((first, spare));
}
