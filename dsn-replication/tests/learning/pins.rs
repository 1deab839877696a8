//! The log is collected while learners need it.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// What was seen while a learner learned.
#[derive(Debug)]
struct Seen {
    /// Checkpoints that it began to copy.
    copies: usize,
    /// Most files of the primary's log.
    files: usize,
}

/// Runs until everything is whole.
fn learn(world: &mut World, primary: usize, learner: usize, limit: Duration) -> Seen {
    let begun = world.cluster.sim().now();
    let (mut seen, mut was_copying) = (Seen { copies: 0, files: 0 }, false);
    let id = world.cluster.server(learner);
    while world.groups().iter().any(|(_, secondaries)| secondaries.len() < 2) {
        let passed = world.cluster.sim().now() - begun;
        assert!(passed < limit, "not whole after {passed:?}: {seen:?}");
        world.cluster.run_for(Duration::from_millis(20));
        let names = world.cluster.sim().disk(id).names(Path::new("/data/replica/reps"));
        let copying = names.iter().any(|name| name.ends_with(".learn"));
        seen.copies += usize::from(copying && !was_copying);
        was_copying = copying;
        seen.files = seen.files.max(world.log_files(primary));
    }
    seen
}

/// The log has grown for the learner, and shrinks when it has learned.
fn assert_let_go(world: &mut World, primary: usize, seen: &Seen) {
    assert!(seen.files > 5, "{seen:?}: there was nothing to keep");
    world.append(2);
    world.cluster.run_for(5 * SECOND);
    let files = world.log_files(primary);
    assert!(files <= 4, "{files} files are kept for nobody");
}

/// Bug 20, scenario 15: log files are removed while a slow learner is fed from them.
#[test]
fn the_log_keeps_what_a_slow_learner_is_being_fed() {
    let mut world = World::of((3, 1), 7, 1, "", true);
    world.append(2);
    world.cluster.run_for(5 * SECOND);
    let (primary, _) = world.groups()[0];
    let learner = world.secondary();
    world.lose(learner);
    world.append_one().expect("two of three are there");
    let ends = [primary, learner].map(|server| world.cluster.server(server));
    // A second for each MiB.
    let slow = world.cluster.sim().slow_link(&ends[..1], &ends[1..], Duration::ZERO, 1000);
    world.cluster.start_server(learner);
    world.append(8);
    let seen = learn(&mut world, primary, learner, 60 * SECOND);
    assert_eq!(seen.copies, 0, "{seen:?}: it was fed from the log");
    world.cluster.sim().mend(slow);
    assert_let_go(&mut world, primary, &seen);
    world.cluster.finish();
}

/// Bug 20, scenario 15: log files that go on from a checkpoint are removed while a learner copies the checkpoint.
#[test]
fn the_log_keeps_what_follows_a_checkpoint_that_is_being_copied() {
    let more = "[nfs]\nmax_copy_rate_megabytes_per_disk = 1\n";
    let mut world = World::without_the_last(8, 1, more);
    world.append(6);
    world.cluster.run_for(5 * SECOND);
    let lost = world.secondary();
    let (primary, _) = world.groups()[0];
    world.lose(lost);
    world.cluster.start_server(3);
    world.cluster.run_for(2 * SECOND);
    world.append(8);
    let seen = learn(&mut world, primary, 3, 60 * SECOND);
    assert_eq!(seen.copies, 1, "{seen:?}: what follows the checkpoint was in the log");
    assert_let_go(&mut world, primary, &seen);
    world.cluster.start_server(lost);
    world.cluster.finish();
}
