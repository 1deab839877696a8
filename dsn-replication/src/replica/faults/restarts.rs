//! What a server must still know when it has been killed and started again.

use super::*;

/// A learner is killed when it has acknowledged everything, and the meta server makes it a member. A copy of its
/// invitation was under way all the time and reaches who it is now. Its log does not say that what it had from an older
/// ballot was decided.
#[test]
fn an_invitation_that_comes_twice_voids_nothing_that_was_acknowledged() {
    let (mut world, primary, [heir, learner]) = whole(0);
    assert_eq!(world.durability, Durability::Os);
    world.write_to(primary);
    world.write_to(primary);
    // The learner has the first, and hears that it is decided; the heir has both, and does not.
    world.deliver(primary, learner);
    world.links.remove(&(primary, learner));
    world.pass(primary, heir);
    world.pass(learner, primary);
    world.pass(heir, primary);
    let decided = world.core(primary).committed();
    world.now += Duration::from_millis(600);
    world.tick(primary);
    world.links.remove(&(primary, heir));
    world.pass(primary, learner);
    assert_eq!(world.core(learner).committed(), decided);
    assert!(world.core(heir).committed() < decided, "it was not told");
    world.links.clear();
    world.fail_over(primary, heir, &[]);
    world.turn(heir, |core, _, out, now| {
        core.add_learner(node(learner), WANTED, now, out);
        GivenUp::default()
    });
    let invitation = world.invited(heir, learner);
    while world.asked.is_empty() {
        world.pass(heir, learner);
        world.pass(learner, heir);
        world.now += Duration::from_millis(500);
        world.tick(heir);
    }
    let Role::Primary(lead) = world.core(heir).role() else { panic!("it leads") };
    let acked = lead.peers[&node(learner)].acked;
    assert!(acked > decided);
    world.kill(learner);
    world.restart(learner);
    assert!(world.core(learner).committed() < decided, "the log does not tell");
    world.send_again(heir, learner, invitation);
    world.pass(heir, learner);
    assert!(matches!(world.core(learner).role(), Role::Learner(_)));
    assert!(world.core(learner).prepared() >= acked, "it has what it acknowledged");
    while world.config.secondaries.is_empty() {
        world.answer();
    }
    // The only member with the heir, which dies.
    world.links.clear();
    world.fail_over(heir, learner, &[]);
    world.renew(primary);
    world.renew(heir);
    world.must_agree();
}

/// A server takes a ballot into use and stops before anything is written under it.
#[test]
fn a_ballot_of_which_the_log_has_only_the_mark_is_not_forgotten() {
    let (mut world, primary, [one, _]) = whole(0);
    let ballot = Ballot(world.config.ballot.0 + 3);
    world.turn(one, |core, log, _, _| core.become_inactive(ballot, log));
    world.kill(one);
    world.restart(one);
    assert_eq!(world.core(one).ballot(), ballot);
    // What the primary of an older ballot says has no say any more.
    world.write_to(primary);
    let before = world.core(one).prepared();
    world.pass(primary, one);
    assert_eq!(world.core(one).prepared(), before);
}
