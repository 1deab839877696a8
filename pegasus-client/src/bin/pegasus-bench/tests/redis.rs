//! Runs against the null server.

use super::{plan, run, slower_than, totals};
use crate::engine::{Outcome, RunError};
use crate::nullserver::Behaviour;
use crate::run::start_null_server;
use dsn_core::app::NativeNode;
use std::net::SocketAddr;
use std::time::Duration;

fn server(change: impl FnOnce(&mut Behaviour)) -> (NativeNode, SocketAddr) {
    let mut behaviour = Behaviour {
        listen: "127.0.0.1:0".parse().unwrap(),
        value_size: 100,
        stall: None,
        hang_up: None,
    };
    change(&mut behaviour);
    start_null_server(behaviour).unwrap()
}

/// Every send that was intended within the window was answered, given up, or still waited at the
/// end.
fn all_sends_are_known(outcome: &Outcome, rate: u64) {
    let known = totals(outcome).2 + outcome.missed + outcome.unsent;
    let intended = (outcome.elapsed.as_secs_f64() * rate as f64) as u64;
    assert!(known.abs_diff(intended) <= 1, "{known} of {intended} sends are known");
}

#[test]
fn a_number_of_operations_is_done_exactly() {
    let (_node, addr) = server(|_| {});
    for line in ["-c 1 -d 1", "-c 3 -d 4", "-c 40 -d 16"] {
        let rest = "-o mixed --operations 5000 --warm-up 20ms";
        let outcome = run(&format!("--redis {addr} {rest} {line}"));
        let (ops, errors, latencies, tally) = totals(&outcome);
        assert_eq!((ops, errors, latencies), (5000, 0, 5000), "{line}");
        assert_eq!((tally.found, tally.missing, tally.wrong), (5000, 0, 0), "{line}");
        assert!(outcome.elapsed > Duration::ZERO && outcome.unanswered == 0);
    }
}

#[test]
fn several_records_in_one_request() {
    let (_node, addr) = server(|_| {});
    let common = format!("--redis {addr} --operations 500 --warm-up 0 --batch 7 --keys 700");
    let (ops, errors, _, tally) = totals(&run(&format!("{common} -o multi_get")));
    assert_eq!((ops, errors, tally.found), (500, 0, 3500));
    let (ops, errors, _, tally) = totals(&run(&format!("{common} -o multi_set --load")));
    assert_eq!((ops, errors, tally.found), (500, 0, 3500));
}

#[test]
fn values_of_the_wrong_length_are_noticed() {
    let (_node, addr) = server(|behaviour| behaviour.value_size = 99);
    let outcome = run(&format!("--redis {addr} -o get --operations 300 --warm-up 0"));
    assert_eq!(totals(&outcome).3.wrong, 300);
}

#[test]
fn loading_writes_every_record_once() {
    let (_node, addr) = server(|_| {});
    let outcome = run(&format!("--redis {addr} --keys 12345 --load-only"));
    assert_eq!(outcome.loaded.map(|loaded| loaded.records), Some(12345));
    assert!(outcome.elapsed.is_zero());
}

#[test]
fn an_open_loop_sees_the_whole_stall_and_a_closed_loop_one_request_of_it() {
    let stall = Some((200, Duration::from_millis(400)));
    let (_node, addr) = server(|behaviour| behaviour.stall = stall);
    let outcome = run(&format!("--redis {addr} --rate 1000 --duration 1s --warm-up 0 -c 2 -d 8"));
    assert_eq!(totals(&outcome).1, 0);
    // Every intended send is accounted for.
    all_sends_are_known(&outcome, 1000);
    // 400 sends were due during the stall, all but the last 50 of them waited longer than 50 ms.
    let slow = slower_than(&outcome, 50);
    assert!(slow >= 330, "{slow} slow requests");
    assert!(outcome.backlog_most >= 300, "backlog {}", outcome.backlog_most);
    // The same sends were late: their latency is known to lie with the server, for no slot was free.
    let lag = outcome.meter.lag.as_ref().unwrap();
    assert!(lag.max() > 200_000_000, "latest send {} ns behind", lag.max());

    let (_node, addr) = server(|behaviour| behaviour.stall = stall);
    let outcome = run(&format!("--redis {addr} --duration 1s --warm-up 0 -c 1 -d 1"));
    let slow = slower_than(&outcome, 350);
    assert!((1..=3).contains(&slow), "{slow} slow requests");
    assert!(slower_than(&outcome, 50) < 20);
}

#[test]
fn the_backlog_is_bounded_and_what_it_loses_is_reported() {
    let stall = Some((100, Duration::from_millis(300)));
    let (_node, addr) = server(|behaviour| behaviour.stall = stall);
    let line = "--rate 5000 --duration 600ms --warm-up 0 -c 1 -d 4 --backlog 50";
    let outcome = run(&format!("--redis {addr} {line}"));
    assert!(outcome.backlog_most <= 50, "backlog {}", outcome.backlog_most);
    // About 1500 sends fell into the stall.
    assert!(outcome.missed > 1000, "missed {}", outcome.missed);
    all_sends_are_known(&outcome, 5000);
}

#[test]
fn a_lost_connection_is_counted_and_opened_again() {
    let (_node, addr) = server(|behaviour| behaviour.hang_up = Some(500));
    let outcome = run(&format!("--redis {addr} --operations 3000 --warm-up 0 -c 2 -d 8"));
    let (ops, errors, _, _) = totals(&outcome);
    assert_eq!(ops + errors, 3000);
    assert!((1..=100).contains(&errors), "{errors} errors");
    assert!(outcome.meter.errors()["connection lost"] <= 8);
}

#[test]
fn requests_that_are_not_answered_in_time_are_errors() {
    let stall = Some((500, Duration::from_secs(3)));
    let (_node, addr) = server(|behaviour| behaviour.stall = stall);
    let outcome =
        run(&format!("--redis {addr} --duration 800ms --timeout 200ms --warm-up 0 -c 2 -d 2"));
    let (ops, errors, _, _) = totals(&outcome);
    assert!(ops >= 450 && errors >= 4, "{ops} operations, {errors} errors");
    assert!(outcome.unanswered <= 4);
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let (node, addr) = server(|_| {});
    assert!(node.shutdown(Duration::from_secs(5)));
    let plan = plan(&format!("--redis {addr} --connect-timeout 200ms"));
    match crate::run::run(&plan) {
        Err(RunError::Unreachable { addr: named, why }) => {
            assert_eq!(named, addr.to_string());
            assert!(why.to_lowercase().contains("refused"), "{why}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_meta_server_that_hangs_up_is_named() {
    // The null server closes connections that do not speak RESP.
    let (_node, addr) = server(|_| {});
    let plan = plan(&format!("--meta {addr} --connect-timeout 300ms"));
    let error = crate::run::run(&plan).unwrap_err().to_string();
    assert!(error.starts_with("table temp: ") && error.contains(&addr.to_string()), "{error}");
}
