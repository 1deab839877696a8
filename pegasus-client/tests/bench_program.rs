//! `pegasus-bench` as a program: its exit status, its messages, its report against a real Redis.
//!
//! The Redis part needs `redis-server`; where it is not installed the test says so and does nothing.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use serde_json::Value;
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};

fn bench(line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pegasus-bench"))
        .args(line.split_whitespace())
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[expect(clippy::disallowed_methods, reason = "only asks the system for a free port")]
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn bad_flags_end_with_status_2_and_a_reason() {
    for (line, reason) in [
        ("--swim", "--swim"),
        ("-o swim", "swim"),
        ("-c 0", "--connections 0: must be from 1 to 10000"),
        ("--redis 127.0.0.1:1 -o scan", "no counterpart"),
        ("compare", "--run-sh"),
    ] {
        let output = bench(line);
        assert_eq!(output.status.code(), Some(2), "{line}: {}", stderr(&output));
        assert!(stderr(&output).contains(reason), "{line}: {}", stderr(&output));
    }
}

#[test]
fn servers_and_processes_that_are_not_there_are_named() {
    let port = free_port();
    for (line, reason) in [
        (format!("--redis 127.0.0.1:{port}"), format!("cannot connect to 127.0.0.1:{port}")),
        (format!("--meta 127.0.0.1:{port}"), format!("meta server 127.0.0.1:{port}")),
        ("--server-pid 4194305".into(), "--server-pid 4194305".into()),
        ("--server-name no-such-process".into(), "no process has that name".into()),
    ] {
        let output = bench(&format!("{line} --connect-timeout 200ms"));
        assert_eq!(output.status.code(), Some(1), "{line}: {}", stderr(&output));
        assert!(stderr(&output).contains(&reason), "{line}: {}", stderr(&output));
    }
}

struct Redis {
    child: Child,
    port: u16,
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn redis() -> Option<Redis> {
    let port = free_port();
    let child = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .args(["--appendonly", "no"])
        .stdout(Stdio::null())
        .spawn();
    match child {
        Ok(child) => Some(Redis { child, port }),
        Err(error) => {
            println!("skipped: redis-server: {error}");
            None
        }
    }
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", stderr(output)))
}

#[test]
fn a_real_redis_is_filled_and_read_back() {
    let Some(redis) = redis() else { return };
    let common = format!("--redis 127.0.0.1:{} --json --warm-up 0 --keys 5000", redis.port);
    let pid = redis.child.id();
    // The first run also waits for the server to listen.
    let line = "--load -o get --operations 20000 -c 8 -d 4 --read-back";
    let output = bench(&format!("{common} {line} --server-pid {pid}"));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let json = report(&output);
    assert_eq!(json["loaded"]["records"], 5000);
    assert_eq!(json["ops"], 20_000);
    for none in ["errors_total", "misses", "wrong", "unanswered"] {
        assert_eq!(json[none], 0, "{none}: {json}");
    }
    let latency = &json["kinds"]["get"]["latency_us"];
    let at = |name: &str| latency[name].as_f64().unwrap();
    let names = ["min", "p50", "p90", "p95", "p99", "p999", "p9999", "max"];
    assert!(names.windows(2).all(|pair| at(pair[0]) <= at(pair[1])), "{latency}");
    assert!(json["server_cpu_us_per_op"].as_f64().unwrap() > 0.1, "{json}");
    assert_eq!(json["servers"][0]["name"], "redis-server");

    let output = bench(&format!("{common} -o multi_get --batch 4 --load --operations 500"));
    let json = report(&output);
    assert_eq!(json["kinds"]["multi_get"]["records"], 2000);
    assert_eq!((&json["misses"], &json["wrong"]), (&Value::from(0), &Value::from(0)));

    // Values were written with 100 bytes, and records above 5000 never were.
    let line = "-o get --operations 1000 --read-back --distribution sequential";
    let output = bench(&format!("{common} {line} --value-size 10"));
    assert_eq!((output.status.code(), &report(&output)["wrong"]), (Some(3), &Value::from(1000)));
    let line = format!("{common} {line} --key-size 23");
    let output = bench(&line);
    assert_eq!((output.status.code(), &report(&output)["misses"]), (Some(3), &Value::from(1000)));
}
