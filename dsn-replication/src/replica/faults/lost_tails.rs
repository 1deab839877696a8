//! Members that have lost what they acknowledged.

use super::*;

/// A machine was started anew within the grace: what its replica acknowledged may be gone, though nothing shows that.
#[test]
fn a_member_that_may_have_lost_something_learns_before_it_counts() {
    let (mut world, primary, [one, _]) = whole(0);
    world.write_to(primary);
    world.pass(primary, one);
    world.pass(one, primary);
    world.kill(one);
    world.restart(one);
    world.servers[one].core.uncertain = true;
    world.write_to(primary);
    world.pass(primary, one);
    assert_eq!(*world.core(one).role(), Role::Inactive, "no member");
    world.pass(one, primary);
    let leaves =
        |(asker, change): &(usize, Change)| *asker == primary && change.node == Some(node(one));
    assert!(world.asked.iter().any(leaves), "the primary wants it out: {:?}", world.asked);
    world.must_agree();
    let is_member = matches!(world.core(one).role(), Role::Secondary(_));
    assert_eq!(is_member, !world.core(one).is_uncertain(), "by learning");
}

/// The same, and it is invited before it hears of its group: by a former primary, or by a copy of an old invitation.
/// The world, the primary, that member and the other one.
fn invited_without_what_it_acknowledged() -> (World, usize, usize, usize) {
    let (mut world, primary, [one, other]) = whole(0);
    let before = world.servers[one].disk.restart(Crash::Kill);
    for _ in 0..3 {
        world.write_to(primary);
    }
    world.settle();
    let acked = world.core(primary).committed();
    world.kill(one);
    world.servers[one].disk = before;
    world.restart(one);
    world.servers[one].core.uncertain = true;
    assert!(world.core(one).prepared() < acked, "it has lost what it acknowledged");
    world.turn(one, |core, log, _, _| {
        core.begin_learning(node(other), core.ballot(), 1, log).expect("a learner")
    });
    (world, primary, one, other)
}

/// The primary has heard how little the member has, and decides nothing at present: what it says carries nothing.
#[test]
fn a_group_check_makes_no_lost_tail_certain() {
    let (mut world, primary, one, _) = invited_without_what_it_acknowledged();
    let decided = world.core(primary).committed();
    let ballot = Ballot(world.core(primary).ballot().0 + 1);
    let check = |first: Decree| {
        let (takeover, committed, bodies) = (decided, decided, Vec::new());
        Prepare { gpid: GPID, ballot, attempt: 0, seq: 1, takeover, committed, first, bodies }
    };
    // Of one that was made anew, in the place of one that is gone, nothing is uncertain.
    for uncertain in [true, false] {
        world.servers[one].core.uncertain = uncertain;
        for first in [Decree(1), decided.next()] {
            let check = check(first);
            world.turn(one, |core, log, out, _| core.on_prepare(node(primary), &check, log, out));
            assert_eq!(world.core(one).is_uncertain(), uncertain, "it lacks what was acknowledged");
            assert!(!matches!(world.core(one).role(), Role::Secondary(_)), "no member: {first}");
        }
    }
}

#[test]
fn an_invitation_alone_makes_no_lost_tail_certain() {
    let (mut world, primary, one, other) = invited_without_what_it_acknowledged();
    world.decree_group(Some(primary), &[one, other]);
    world.lead(primary);
    world.write_to(primary);
    world.pass(primary, one);
    assert!(world.core(one).is_uncertain(), "it lacks what was acknowledged");
    assert!(!matches!(world.core(one).role(), Role::Secondary(_)), "no member");
    world.pass(one, primary);
    let leaves =
        |(asker, change): &(usize, Change)| *asker == primary && change.node == Some(node(one));
    assert!(world.asked.iter().any(leaves), "the primary wants it out: {:?}", world.asked);
    world.must_agree();
}

/// Power failed where logs are not synced, or the newest record of its log was damaged: a primary is started again and
/// is made primary anew, for nobody knows yet that it has lost what the others know to be decided.
#[test]
fn a_primary_that_has_lost_the_end_of_its_log_does_not_lead() {
    let (mut world, primary, [one, other]) = whole(0);
    let before = world.servers[primary].disk.restart(Crash::Kill);
    for _ in 0..3 {
        world.write_to(primary);
        world.settle();
    }
    world.now += Duration::from_secs(60);
    world.tick(primary);
    world.settle();
    let decided = world.core(one).committed();
    assert_eq!(decided, world.core(primary).committed(), "the others have heard of it");
    let numbers = world.numbers(one);
    world.kill(primary);
    world.servers[primary].disk = before;
    world.restart(primary);
    assert!(world.core(primary).prepared() < decided);
    world.decree_group(Some(primary), &[one, other]);
    world.lead(primary);
    world.write_to(primary);
    world.settle();
    assert!(world.left > 0, "it has left");
    world.must_agree();
    let leader = world.config.primary.expect("a primary");
    assert_eq!(world.numbers(leader)[..numbers.len()], numbers, "nothing is lost");
}
