//! CPU time of a server's thread per request: an echo service over `THFT`, beside the floor under it, the same runtime
//! and the same system calls without frames, handlers and limits.
//!
//! `taskset -c 0 cargo bench --release -p dsn-rpc --bench echo`: one CPU for client and server keeps wake-ups across
//! CPUs out of the figures. Rounds of both servers take turns; medians are shown.

#![expect(clippy::unwrap_used, reason = "a bench that cannot run ends")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::io::{IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use common::{RPC_TEST_ECHO, TestNode};
use dsn_core::driver::IoEvent;
use dsn_core::exec::{Addr, Ctx, Resident};
use dsn_rpc::RpcOptions;
use dsn_rpc::frame::{Protocol, RequestHead, RpcName, write_request};

/// Requests per round and connection count.
const REQUESTS: usize = 50_000;
const ROUNDS: usize = 5;

/// Answers every read with as many canned answers as requests of fixed size are in it.
struct Floor {
    me: Addr<Self>,
    request: usize,
    answer: Bytes,
    buffer: Vec<u8>,
    listener: dsn_core::driver::Sock,
}

impl Resident for Floor {
    fn on_io(&mut self, ctx: &mut Ctx<'_>, event: IoEvent, _: u64) {
        if event.sock == self.listener {
            while let Ok(accepted) = ctx.accept(self.listener) {
                let sock = ctx.adopt(accepted).unwrap();
                ctx.attach(sock, self.me, 1);
            }
            return;
        }
        match ctx.read(event.sock, &mut self.buffer) {
            Ok(0) => ctx.close_socket(event.sock),
            Ok(n) => {
                let out = self.answer.slice(..n / self.request * (self.answer.len() / 64));
                ctx.writev(event.sock, &[IoSlice::new(&out)]).unwrap();
            }
            Err(_) => {}
        }
    }
}

fn request(body: usize) -> Vec<u8> {
    let mut out = BytesMut::new();
    let body = Bytes::from(vec![b'x'; body]);
    let head = RequestHead::new(Protocol::Thft, RpcName::from(RPC_TEST_ECHO.name()), 1);
    write_request(&mut out, &head, |w| w.wrapped(1, &body));
    out.to_vec()
}

#[expect(clippy::disallowed_methods, reason = "the load generator stands outside of the runtime")]
fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Server CPU per request in ns: all of it, with `connections` times `depth` requests at a time.
fn measure(
    node: &TestNode,
    to: SocketAddr,
    connections: usize,
    depth: usize,
    answer: usize,
) -> f64 {
    let mut streams: Vec<TcpStream> = (0..connections).map(|_| connect(to)).collect();
    let batch = request(100).repeat(depth);
    let mut buffer = vec![0; answer * depth];
    let mut cycle = |streams: &mut Vec<TcpStream>| {
        for stream in streams.iter_mut() {
            stream.write_all(&batch).unwrap();
        }
        for stream in streams.iter_mut() {
            stream.read_exact(&mut buffer).unwrap();
        }
    };
    for _ in 0..20 {
        cycle(&mut streams);
    }
    let cycles = REQUESTS / connections / depth;
    let before = cpu(node);
    for _ in 0..cycles {
        cycle(&mut streams);
    }
    let spent = cpu(node) - before;
    spent.as_nanos() as f64 / (cycles * connections * depth) as f64
}

/// CPU time of worker 0.
fn cpu(node: &TestNode) -> Duration {
    node.run(0, |_| {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Length of the echo's answer.
fn answer_length(to: SocketAddr) -> usize {
    let mut stream = connect(to);
    stream.write_all(&request(100)).unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    u32::from_be_bytes(length) as usize
}

fn main() {
    let rpc = TestNode::start(1, RpcOptions::default());
    let answer = answer_length(rpc.addr);
    let floor = TestNode::start(1, RpcOptions::default());
    let size = request(100).len();
    let floor_addr = floor.run(0, move |ctx| {
        let listener = ctx.listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = ctx.local_addr(listener).unwrap();
        ctx.spawn_here(|ctx, me| {
            ctx.attach(listener, me, 0);
            let canned = Bytes::from(vec![0; answer * 64]);
            Floor { me, request: size, answer: canned, buffer: vec![0; 65536], listener }
        });
        addr
    });
    println!("request {size} bytes, answer {answer} bytes; server CPU in ns per request");
    println!("{:>12} {:>6} {:>8} {:>8} {:>8}", "connections", "depth", "echo", "floor", "own");
    for (connections, depth) in [(1, 1), (64, 1), (64, 16), (1, 64)] {
        let (mut echo, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            echo.push(measure(&rpc, rpc.addr, connections, depth, answer));
            bare.push(measure(&floor, floor_addr, connections, depth, answer));
        }
        let own = median(echo.iter().zip(&bare).map(|(e, b)| e - b).collect());
        let (echo, bare) = (median(echo), median(bare));
        println!("{connections:>12} {depth:>6} {echo:>8.0} {bare:>8.0} {own:>8.0}");
    }
    println!("{:?}", rpc.rpc.stats());
}
