//! What a server does by itself: checkpoints, log files given back, heartbeats.

use std::path::Path;
use std::time::Duration;

use dsn_core::disk::Disk;
use dsn_replication::log::LogOptions;
use dsn_replication::stub::layout;

use dsn_rpc::error_code::ErrorCode;

use crate::world::{DATA_DIR, PARTITIONS, SECOND, Setting, World, refused};

fn segments(world: &World) -> Vec<String> {
    let dir = Path::new(DATA_DIR).join("replica/log");
    let entries = world.sim.disk(world.server).list(&dir).unwrap();
    entries.into_iter().map(|entry| entry.name).collect()
}

#[test]
fn log_files_are_given_back_once_checkpoints_cover_them_and_nothing_is_lost() {
    let log = LogOptions {
        segment_bytes: 10_000,
        reserve_bytes: 0,
        reserve_age: Duration::ZERO,
        sync_interval: SECOND,
        ..LogOptions::default()
    };
    let setting = Setting { log, checkpoint_interval: 20 * SECOND, ..Setting::default() };
    let mut world = World::new(1, &setting);
    let filler = "x".repeat(500);
    for n in 0..150 {
        world.set(n % PARTITIONS, &format!("k{n}={filler}"));
    }
    let before = segments(&world);
    assert!(before.len() > 5, "{before:?}");
    world.sim.run_for(45 * SECOND);
    let after = segments(&world);
    assert!(after.len() <= 3, "the one in use and the next: {after:?}");
    assert!(!after.contains(&before[0]));
    for n in 150..200 {
        world.set(n % PARTITIONS, &format!("k{n}={filler}"));
    }
    world.restart();
    for n in 0..200 {
        world.wait_served(n % PARTITIONS);
        assert_eq!(world.get(n % PARTITIONS, &format!("k{n}")), filler, "k{n}");
    }
}

#[test]
fn a_partition_that_nobody_writes_to_gets_an_empty_write_now_and_then() {
    let mut world = World::new(2, &Setting::default());
    let first = world.set(0, "a=1");
    world.sim.run_for(Duration::from_secs(1010));
    let second = world.set(0, "b=2");
    let beats = second - first - 1;
    assert!((8..=10).contains(&beats), "{beats} in a thousand seconds");
    // Who writes needs none.
    for n in 0..40 {
        world.set(0, &format!("busy{n}=x"));
        world.sim.run_for(10 * SECOND);
    }
    assert_eq!(world.set(0, "c=3"), second + 41);
    world.restart();
    world.wait_served(0);
    assert_eq!(world.get(0, "a") + &world.get(0, "b") + &world.get(0, "c"), "123");
}

#[test]
fn a_ballot_outlives_the_log_files_that_had_it() {
    let log = LogOptions {
        segment_bytes: 10_000,
        reserve_bytes: 0,
        reserve_age: Duration::ZERO,
        sync_interval: SECOND,
        ..LogOptions::default()
    };
    let setting = Setting { log, checkpoint_interval: 20 * SECOND, ..Setting::default() };
    let mut world = World::new(3, &setting);
    // Each start is a new ballot.
    for _ in 0..3 {
        world.restart();
        world.wait_served(0);
    }
    let filler = "x".repeat(500);
    for n in 0..150 {
        world.set(n % PARTITIONS, &format!("k{n}={filler}"));
    }
    let before = segments(&world);
    world.sim.run_for(45 * SECOND);
    assert!(!segments(&world).contains(&before[0]), "the files are gone");
    let dir = Path::new(DATA_DIR).join("replica/reps/1.0.texts");
    let (_, init) = layout::load(&world.sim.disk(world.server), &dir).unwrap();
    assert_eq!(init.init_ballot, 4, "and the ballot stands elsewhere");
}

#[test]
fn a_disk_that_is_nearly_full_takes_no_writes_and_goes_on_being_read() {
    let mut world = World::new(4, &Setting::default());
    world.set(0, "a=1");
    let disk = world.sim.disk(world.server);
    let used = {
        let space = disk.space(Path::new(DATA_DIR)).unwrap();
        space.total - space.available
    };
    disk.set_capacity(used * 100 / 91);
    world.sim.run_for(11 * SECOND);
    assert_eq!(refused(world.try_set(0, "a=2", SECOND)), ErrorCode::DiskInsufficient);
    assert_eq!(world.get(0, "a"), "1");
    assert!(world.metric("full_data_dirs") == 1, "and it is told");
    disk.set_capacity(used * 100 / 80);
    world.sim.run_for(11 * SECOND);
    world.set(0, "a=3");
    assert_eq!(world.get(0, "a"), "3");
    assert!(world.metric("full_data_dirs") == 0);
}
