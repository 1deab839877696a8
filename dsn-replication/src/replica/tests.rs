//! Groups of cores under faults, see [`crate::testing::group`].

use super::*;
use crate::testing::group::*;
use crate::wire::config::ConfigType;

#[test]
fn acknowledged_writes_survive_and_members_agree() {
    let seeds = std::env::var("GROUP_SEEDS").ok().and_then(|count| count.parse().ok());
    let seeds = 0..seeds.unwrap_or(2000_usize);
    let (mut acked, mut killed, mut elections) = (0, 0, 0);
    for seed in seeds.clone() {
        let outcome = std::panic::catch_unwind(|| {
            let counts = run(seed as u64, 4_000);
            (counts.acked, counts.killed, counts.elections)
        });
        let counts = outcome.unwrap_or_else(|_| panic!("seed {seed}"));
        acked += counts.0;
        killed += counts.1;
        elections += counts.2;
    }
    println!("{seeds:?}: {acked} writes acknowledged, {killed} kills, {elections} elections");
    let count = seeds.end;
    assert!(acked > 20 * count && killed > 10 * count && elections > count / 3);
}

#[test]
fn a_learner_far_behind_begins_with_a_checkpoint_or_the_log() {
    let mut world = World::new(2);
    for _ in 0..200 {
        world.servers[0].writes.clear();
        world.write();
    }
    world.heal();
    assert_eq!(world.config.secondaries.len(), WANTED - 1);
}

#[test]
fn a_change_of_the_group_has_the_next_ballot_and_names_who_stays() {
    let mut world = World::new(0);
    world.heal();
    let primary = world.config.primary.expect("a primary");
    let gone = world.config.secondaries[0];
    let ballot = world.config.ballot;
    world.turn(primary, |core, _, out, now| {
        core.wish(ConfigType::Remove, Some(node(gone)), now, out);
        GivenUp::default()
    });
    let (_, change) = world.asked.last().expect("asked for").clone();
    assert_eq!((change.ballot, change.kind), (ballot.next(), ConfigType::Remove));
    assert!(!change.secondaries.contains(&node(gone)));
}
