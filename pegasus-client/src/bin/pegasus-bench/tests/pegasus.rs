//! Runs against the fake cluster.

use super::fake::{Cluster, TABLE, cluster};
use super::{plan, run, totals};
use crate::engine::RunError;

fn calm() -> Cluster {
    Cluster { servers: 3, partitions: 8, move_after: None, swallow_every: None }
}

#[test]
fn what_was_loaded_is_read_back_from_every_server() {
    let (_node, meta) = cluster(calm());
    let common = format!("--meta {meta} --table {TABLE} --keys 3000 --warm-up 0 --read-back");
    let outcome = run(&format!("{common} --load --operations 6000 -o get -c 4 -d 8"));
    let (ops, errors, latencies, tally) = totals(&outcome);
    assert_eq!((ops, errors, latencies), (6000, 0, 6000));
    assert_eq!((tally.found, tally.missing, tally.wrong), (6000, 0, 0));
    // Twice as many keys: the second half was never written.
    let line = "--keys 6000 --distribution sequential --operations 6000 -o get";
    let common = format!("--meta {meta} --table {TABLE} --warm-up 0 --read-back");
    let tally = totals(&run(&format!("{common} {line}"))).3;
    assert_eq!((tally.found, tally.missing, tally.wrong), (3000, 3000, 0));
    // Other sizes: everything is of the wrong length.
    let line = "--keys 3000 --value-size 50 --operations 1000 -o get";
    assert_eq!(totals(&run(&format!("{common} {line}"))).3.wrong, 1000);
}

#[test]
fn many_records_at_a_time() {
    let (_node, meta) = cluster(calm());
    let common = format!("--meta {meta} --table {TABLE} --warm-up 0 --read-back --keys 2000");
    let line = "--sort-keys 20 --operations 400 -c 3 -d 2";
    let outcome = run(&format!("{common} {line} -o multi_get --batch 5 --load"));
    let (ops, errors, _, tally) = totals(&outcome);
    assert_eq!((ops, errors, tally.found, tally.missing, tally.wrong), (400, 0, 2000, 0, 0));
    // 20 rows of each hash key, 7 and then 3 at a time.
    let outcome = run(&format!("{common} {line} -o scan --batch 7"));
    let (ops, errors, latencies, tally) = totals(&outcome);
    assert_eq!((ops, errors, latencies), (400, 0, 400));
    assert_eq!((tally.found, tally.missing, tally.wrong), (8000, 0, 0));
    let outcome = run(&format!("{common} {line} -o multi_set --batch 5"));
    assert_eq!(totals(&outcome).3.found, 2000);
}

#[test]
fn moved_partitions_are_followed() {
    let (_node, meta) = cluster(Cluster { move_after: Some(4000), ..calm() });
    let common = format!("--meta {meta} --table {TABLE} --keys 1000 --warm-up 0 --read-back");
    let outcome = run(&format!("{common} --load --operations 20000 -o mixed -c 6 -d 2"));
    let (ops, errors, _, tally) = totals(&outcome);
    assert_eq!(ops + errors, 20_000);
    assert_eq!((tally.missing, tally.wrong), (0, 0));
    let named = outcome.meter.errors();
    assert_eq!(named.keys().collect::<Vec<_>>(), ["ERR_INVALID_STATE"], "{named:?}");
    // Slots rest after a failure, so the half second until the next question costs few errors.
    assert!((1..2000).contains(&errors), "{errors} errors");
}

#[test]
fn loading_repeats_what_failed() {
    let (_node, meta) = cluster(Cluster { move_after: Some(500), ..calm() });
    let common = format!("--meta {meta} --table {TABLE} --keys 2000 --read-back --warm-up 0");
    let line = "--load --operations 2000 -o get --distribution sequential -c 3";
    let tally = totals(&run(&format!("{common} {line}"))).3;
    assert_eq!((tally.found, tally.missing), (2000, 0));
}

#[test]
fn a_request_without_answer_times_out_alone() {
    let (_node, meta) = cluster(Cluster { swallow_every: Some(400), ..calm() });
    let common = format!("--meta {meta} --table {TABLE} --warm-up 0 --timeout 100ms");
    let outcome = run(&format!("{common} --operations 2000 -c 4 -d 4"));
    let (ops, errors, _, _) = totals(&outcome);
    assert_eq!(ops + errors, 2000);
    assert_eq!(outcome.meter.errors().get("ERR_TIMEOUT"), Some(&errors));
    assert_eq!(errors, 5);
}

#[test]
fn an_unknown_table_ends_the_run_at_once() {
    let (_node, meta) = cluster(calm());
    let plan = plan(&format!("--meta {meta} --table nowhere"));
    match crate::run::run(&plan) {
        Err(RunError::Table { table, why }) => {
            assert_eq!(table, "nowhere");
            assert!(why.contains("there is no such table"), "{why}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_next_meta_server_is_asked_when_one_is_down() {
    let (_node, meta) = cluster(calm());
    // Nothing listens on port 1.
    let line = format!("--meta 127.0.0.1:1,{meta} --table {TABLE} --operations 10 --warm-up 0");
    assert_eq!(totals(&run(&line)).0, 10);
}
