//! What a request costs in system calls, on one connection with one request in flight: counts, not times, so that a
//! busy machine changes nothing. A new wake-up, a second poll or a log write too many shows here.
//!
//! The server counts its polls, reads and writes of sockets itself; the system counts its writes to files and its
//! wake-ups (`/proc/PID/io`, where the calls for sockets do not appear).
#![expect(clippy::disallowed_methods, reason = "a native test lives outside the runtime")]

use cluster_tests::onebox::{Onebox, OneboxOptions, program};
use cluster_tests::tell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

const REQUESTS: u64 = 4000;
/// Calls per request beyond those that it must make: timers, beacons, the looks at the counts.
const SLACK: f64 = 0.15;

/// Members of a group.
const SERVERS: usize = 3;
/// Most calls of all servers for one write to a group: 10 of the primary if nothing comes together, 4 of each other
/// member, and timers.
const GROUP_CALLS_MAX: f64 = 18.5;
/// Connections of the bench, and most calls of all servers for one write then.
const CONNECTIONS: usize = 64;
const SHARED_CALLS_MAX: f64 = 4.5;

/// Calls so far: polls, reads of sockets, writes to sockets, other reads, other writes.
#[derive(Debug, Clone, Copy)]
struct Calls([u64; 5]);

impl Calls {
    fn of(onebox: &Onebox, server: usize) -> Self {
        let metrics = http_get(onebox.replica(server), "/metrics?types=server");
        let pid = onebox.pid(server).expect("it runs");
        let io = std::fs::read_to_string(format!("/proc/{pid}/io"));
        let io = io.expect("the system counts");
        let line = |name: &str| {
            let found = io.lines().find_map(|line| line.strip_prefix(name));
            found.and_then(|rest| rest.trim().parse().ok()).expect("a count")
        };
        let server = |name| metric(&metrics, name);
        Self([
            server("worker_turns"),
            server("network_reads"),
            server("network_writes"),
            line("syscr:"),
            line("syscw:"),
        ])
    }

    /// Of all servers of a group.
    fn of_group(onebox: &Onebox) -> Vec<Self> {
        (1..=SERVERS).map(|server| Self::of(onebox, server)).collect()
    }

    fn per_request(self, later: Self, requests: f64) -> [f64; 5] {
        std::array::from_fn(|at| (later.0[at] - self.0[at]) as f64 / requests)
    }
}

fn http_get(addr: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(addr).expect("the server listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    answer
}

fn metric(answer: &str, name: &str) -> u64 {
    let wanted = format!("\"name\":\"{name}\",\"value\":");
    let at = answer.find(&wanted).unwrap_or_else(|| panic!("no {name} in {answer}"));
    let digits = answer[at + wanted.len()..].split(|c: char| !c.is_ascii_digit()).next();
    digits.and_then(|digits| digits.parse().ok()).expect("a number")
}

/// Whether each count is at most its limit and the first three are reached at all.
fn assert_calls(name: &str, seen: [f64; 5], limits: [f64; 5]) {
    tell!("{name}: polls, reads, writes, other reads, other writes per request: {seen:.3?}");
    for (at, (seen, limit)) in seen.into_iter().zip(limits).enumerate() {
        assert!(seen <= limit + SLACK, "{name}: {seen:.3} calls of kind {at}, at most {limit}");
        assert!(at > 2 || seen >= 0.99, "{name}: only {seen:.3} calls of kind {at}: not counted?");
    }
}

#[test]
fn a_request_makes_no_more_system_calls_than_it_must() {
    let options =
        OneboxOptions { sets: vec!["runtime.workers=1".to_owned()], ..OneboxOptions::single() };
    let onebox = Onebox::start("calls", &options);
    let client = onebox.with_table(1);
    let table = client.table("temp");
    let key = |n: u64| format!("key{n}").into_bytes();
    table.set(&key(0), b"s", "warm").expect("a write");

    let before = Calls::of(&onebox, 1);
    for n in 0..REQUESTS {
        table.set(&key(n), b"s", "value").expect("a write");
    }
    let between = Calls::of(&onebox, 1);
    for n in 0..REQUESTS {
        assert!(table.get(&key(n), b"s").expect("a read").is_some(), "key{n}");
    }
    let after = Calls::of(&onebox, 1);
    // One poll, one read, one answer; a set appends to the log once.
    assert_calls("set", before.per_request(between, REQUESTS as f64), [1.0, 1.0, 1.0, 0.0, 1.0]);
    assert_calls("get", between.per_request(after, REQUESTS as f64), [1.0, 1.0, 1.0, 0.0, 0.0]);
}

#[test]
fn a_write_to_a_group_makes_no_more_system_calls_than_it_must() {
    let sets = vec!["runtime.workers=1".to_owned()];
    let options = OneboxOptions { replicas: SERVERS, sets, ..OneboxOptions::default() };
    let onebox = Onebox::start("group-calls", &options);
    let client = onebox.with_table(SERVERS as i32);
    let table = client.table("temp");
    let key = |n: u64| format!("key{n}").into_bytes();
    (0..100).for_each(|n| table.set(&key(n), b"s", "warm").expect("a write"));

    let before = Calls::of_group(&onebox);
    for n in 0..REQUESTS {
        table.set(&key(n), b"s", "value").expect("a write");
    }
    let sum = calls_per_set(&onebox, before, REQUESTS as f64);
    tell!("a set of three copies: {sum:.2} calls in all");
    // The primary: polls, reads and writes for the client and both members, and its log. Each member: poll, read, log,
    // write.
    assert!(sum <= GROUP_CALLS_MAX, "{sum:.2} system calls per set");
    assert!(sum >= 14.0, "only {sum:.2} system calls per set: not counted?");

    // Many connections: what arrives meanwhile shares polls, the log and the ways to the members.
    let before = Calls::of_group(&onebox);
    let sets = sets_of_many_connections(&onebox);
    let sum = calls_per_set(&onebox, before, sets);
    tell!("a set of three copies, {CONNECTIONS} connections: {sum:.2} calls in all");
    assert!(sum <= SHARED_CALLS_MAX, "{sum:.2} system calls per set");
    assert!(sum >= 2.0, "only {sum:.2} system calls per set: not counted?");
}

/// Calls of all servers since `before` for each of so many sets.
fn calls_per_set(onebox: &Onebox, before: Vec<Calls>, sets: f64) -> f64 {
    let each = before.into_iter().zip(Calls::of_group(onebox));
    let each = each.map(|(before, after)| before.per_request(after, sets));
    each.inspect(|calls| println!("{calls:.3?}")).flatten().sum()
}

/// Sets as fast as they are answered, one in flight on each connection; how many there were.
fn sets_of_many_connections(onebox: &Onebox) -> f64 {
    let run = Command::new(program("pegasus-bench"))
        .args([
            "--meta",
            &onebox.meta().to_string(),
            "--json",
            "-o",
            "set",
            "--duration",
            "3s",
            "--warm-up",
            "0s",
        ])
        .args(["--connections", &CONNECTIONS.to_string()])
        .stderr(Stdio::null())
        .output()
        .expect("the bench runs");
    let report: serde_json::Value = serde_json::from_slice(&run.stdout).expect("a report");
    let number = |path| report.pointer(path).and_then(serde_json::Value::as_f64).expect(path);
    assert_eq!(number("/errors_total"), 0.0, "{report}");
    number("/ops")
}
