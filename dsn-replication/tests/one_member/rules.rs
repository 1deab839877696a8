//! Envs of the table take effect on a live server, without a restart, and after one.

use std::time::Duration;

use dsn_core::sim::DiskFault;
use dsn_replication::log::{Durability, LogOptions};
use dsn_replication::replica::CoreOptions;
use dsn_rpc::CallError;
use dsn_rpc::error_code::ErrorCode;

use crate::world::{Outcome, PARTITIONS, SECOND, Setting, World, refused};

/// Longer than the time between two config syncs.
const HEARD: Duration = Duration::from_secs(31);

fn is_timeout<T>(outcome: Result<T, CallError>) -> bool {
    matches!(outcome, Err(CallError::Timeout { .. }))
}

fn rejected(world: &World, metric: &str) -> u64 {
    let registry = world.sim.node(world.server).unwrap().metrics().clone();
    let filters = dsn_core::metrics::Filters::default();
    let entities = registry.snapshot(dsn_core::time::Mono::ZERO, &filters);
    let text = dsn_core::metrics::json(
        &dsn_core::metrics::Labels::default(),
        dsn_core::time::Wall::UNIX_EPOCH,
        &entities,
        &filters,
    );
    let mut sum = 0;
    for part in text.split(&format!("{{\"name\":\"{metric}\",\"value\":")).skip(1) {
        sum += part.split('}').next().unwrap().parse::<u64>().unwrap();
    }
    sum
}

#[test]
fn denied_clients_are_refused_or_left_without_an_answer() {
    let mut world = World::new(1, &Setting::default());
    world.set(0, "a=1");
    let expect =
        |world: &mut World, env: &str, write: Option<ErrorCode>, read: Option<ErrorCode>| {
            world.set_envs(&[("replica.deny_client_request", env)]);
            world.sim.run_for(HEARD);
            let (wrote, got) = (world.try_set(0, "a=1", SECOND), world.try_get(0, "a"));
            match write {
                Some(ErrorCode::Ok) => drop(wrote.unwrap()),
                Some(error) => assert_eq!(refused(wrote), error, "{env}"),
                None => assert!(is_timeout(wrote), "{env}"),
            }
            match read {
                Some(ErrorCode::Ok) => assert_eq!(got.unwrap(), "1"),
                Some(error) => assert_eq!(refused(got), error, "{env}"),
                None => assert!(is_timeout(got), "{env}"),
            }
        };
    let (served, moved) = (Some(ErrorCode::Ok), Some(ErrorCode::InvalidState));
    expect(&mut world, "reconfig*all", moved, moved);
    expect(&mut world, "reconfig*write", moved, served);
    expect(&mut world, "timeout*read", served, None);
    expect(&mut world, "timeout*write", None, served);
    // In force before the first write after a restart, although no disk keeps envs.
    world.restart();
    for _ in 0..40 {
        let outcome = world.try_set(0, "b=2", SECOND / 4);
        assert!(outcome.is_err(), "{outcome:?}");
    }
    expect(&mut world, "", served, served);
    assert_eq!(world.get(0, "b"), "");
}

#[test]
fn a_server_leaves_clients_without_an_answer_when_its_operator_says_so() {
    let mut world = World::new(3, &Setting::default());
    world.set(0, "a=1");
    assert_eq!(world.command("replica.deny-client"), "false");
    assert!(world.command("replica.deny-client perhaps").starts_with("ERR: "));
    assert_eq!(world.command("replica.deny-client true"), "OK");
    assert_eq!(world.command("replica.deny-client"), "true");
    assert!(is_timeout(world.try_set(0, "a=2", SECOND)));
    assert!(is_timeout(world.try_get(0, "a")));
    assert_eq!(world.command("replica.deny-client false"), "OK");
    assert_eq!(world.get(0, "a"), "1", "nothing was done");
    world.set(0, "a=3");
    assert_eq!(world.get(0, "a"), "3");
}

/// Row "overload": a disk that hangs for ten seconds while ten times as much arrives as may wait.
#[test]
fn more_than_may_wait_is_refused_and_the_rest_is_done() {
    const WRITES: usize = 1_000;
    const BYTES: usize = 10_000;
    let core = CoreOptions { queue_bytes: 1 << 20, batching: false, ..CoreOptions::default() };
    let log = LogOptions { durability: Durability::GroupSync, ..LogOptions::default() };
    let may_wait = core.window + core.queue_bytes / BYTES;
    let mut world = World::new(5, &Setting { log, core, ..Setting::default() });
    let disk = world.sim.disk(world.server);
    disk.add_fault(DiskFault::HungSync { limit: 10 * SECOND, path: "/log/".to_owned() });
    let value = "v".repeat(BYTES - 20);
    let writes: Vec<Outcome> =
        (0..WRITES).map(|n| world.send(0, &format!("k{n}={value}"), 60 * SECOND)).collect();
    world.sim.run_for(9 * SECOND);
    let ended = |outcome: &&Outcome| outcome.lock().unwrap().is_some();
    let busy = writes.iter().filter(ended).count();
    assert!(WRITES - busy <= may_wait + 1, "{} wait", WRITES - busy);
    assert!(WRITES - busy > may_wait / 2, "{} wait", WRITES - busy);
    world.sim.run_for(6 * SECOND);
    let mut done = 0;
    for (n, outcome) in writes.iter().enumerate() {
        let outcome = outcome.lock().unwrap().take().expect("an outcome soon");
        if outcome.is_ok() {
            done += 1;
            assert_eq!(world.get(0, &format!("k{n}")), value, "write {n}");
        } else {
            assert_eq!(refused(outcome), ErrorCode::Busy, "write {n}");
        }
    }
    assert_eq!(done, WRITES - busy, "what waited was done");
    world.set(0, "after=1");
    assert_eq!(world.get(0, "after"), "1");
}

#[test]
fn writes_beyond_the_limit_wait_or_are_refused() {
    let mut world = World::new(2, &Setting::default());
    // Per partition: three units per second pass, five do not fail.
    let envs = [("replica.write_throttling", "8*delay*300,14*reject*100")];
    assert_eq!(PARTITIONS, 3);
    world.set_envs(&envs);
    world.sim.run_for(HEARD);
    let second = world.sim.now().as_secs() + 1;
    while world.sim.now().as_secs() < second {
        world.sim.run_for(Duration::from_millis(1));
    }
    let mut passed = 0;
    for n in 0..3 {
        let begun = world.sim.now();
        world.set(0, &format!("n{n}=x"));
        passed += usize::from(world.sim.now() - begun < Duration::from_millis(100));
    }
    assert_eq!(passed, 3);
    for n in 0..6 {
        world.fire(0, &format!("burst{n}=x"));
    }
    world.sim.run_for(Duration::from_millis(200));
    let stored =
        |world: &mut World| (0..6).filter(|n| world.get(0, &format!("burst{n}")) == "x").count();
    assert_eq!(stored(&mut world), 0, "two wait, four are refused");
    world.sim.run_for(SECOND);
    assert_eq!(stored(&mut world), 2);
    assert_eq!(rejected(&world, "throttling_rejected_write_requests"), 4);
    assert_eq!(rejected(&world, "throttling_delayed_write_requests"), 2);
}

#[test]
fn writes_and_reads_are_throttled_by_size() {
    let mut world = World::new(3, &Setting::default());
    world.set(0, &format!("large={}", "x".repeat(5000)));
    world.set_envs(&[
        ("replica.write_throttling_by_size", "3K*reject*0"),
        ("replica.read_throttling_by_size", "3K"),
    ]);
    world.sim.run_for(HEARD);
    assert_eq!(
        refused(world.try_set(0, &format!("a={}", "x".repeat(2000)), SECOND)),
        ErrorCode::Busy
    );
    world.set(0, "small=x");
    assert_eq!(world.get(0, "large").len(), 5000, "reads pay afterwards");
    assert_eq!(refused(world.try_get(0, "large")), ErrorCode::Busy);
    world.sim.run_for(6 * SECOND);
    assert_eq!(world.get(0, "small"), "x");
    world.set_envs(&[
        ("replica.read_throttling", "3*reject*0"),
        ("replica.read_throttling_by_size", "100M"),
    ]);
    world.sim.run_for(HEARD);
    let outcomes: Vec<bool> = (0..20).map(|_| world.try_get(0, "small").is_ok()).collect();
    assert!(outcomes.contains(&true) && outcomes.contains(&false), "{outcomes:?}");
}
