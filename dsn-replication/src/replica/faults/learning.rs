//! A learner that is far behind.

use super::*;
use crate::log::SyncScope;
use crate::replica::prepare::BACKLOG_MAX;

/// How far a member may be behind elsewhere.
const STALENESS: usize = 110;

/// What a learner was sent that its primary did not have in memory any more.
#[derive(Debug, Default)]
struct Fed {
    from_log: usize,
    checkpoints: usize,
}

impl World {
    /// Feeds a learner until the primary asks for it to become a member.
    fn feed(&mut self, primary: usize, learner: usize) -> Fed {
        let mut fed = Fed::default();
        for _ in 0..2 * BACKLOG_MAX {
            self.pass(learner, primary);
            let applied = self.core(primary).applied();
            for message in self.links.get(&(primary, learner)).into_iter().flatten() {
                match message {
                    Message::Prepare(prepare) if prepare.first <= applied => {
                        fed.from_log += prepare.bodies.len();
                    }
                    Message::Checkpoint(..) => fed.checkpoints += 1,
                    _ => {}
                }
            }
            self.pass(primary, learner);
            self.sync(learner);
            if !self.asked.is_empty() {
                return fed;
            }
        }
        panic!("it never catches up: {fed:?}, {:?}", self.core(learner).role());
    }
}

/// Bug 12: a learner that lacks more than a member may be behind, and knows of an old commit point only, can take no
/// more before it commits, and never catches up.
#[test]
fn a_learner_far_behind_begins_with_a_checkpoint_or_the_log() {
    for (behind, has_log) in
        [(STALENESS + 40, true), (STALENESS + 40, false), (BACKLOG_MAX + 100, true)]
    {
        let (mut world, primary, [member, learner]) = whole(0);
        // It has something that it does not know to be decided.
        world.write_to(primary);
        world.pass(primary, learner);
        assert!(world.core(learner).prepared() > world.core(learner).committed());
        world.links.clear();
        world.decree_group(Some(primary), &[member]);
        world.lead(primary);
        for _ in 0..behind {
            world.write_to(primary);
            world.pass(primary, member);
            world.pass(member, primary);
        }
        let applied = world.core(primary).applied();
        let lacking = applied.since(world.core(learner).committed());
        assert!(lacking > behind && lacking > STALENESS, "{lacking} decrees behind");
        if !has_log {
            let log = &world.servers[primary].log;
            log.set_durable(GPID, applied);
            log.set_ballot(GPID, world.config.ballot);
            log.sync_now(SyncScope::All).expect("it works");
            assert!(log.collect(u64::MAX).expect("it works").removed > 0);
        }
        world.links.clear();
        world.asked.clear();
        world.turn(primary, |core, _, out, now| {
            core.add_learner(node(learner), WANTED, now, out);
            GivenUp::default()
        });
        world.pass(primary, learner);
        let fed = world.feed(primary, learner);
        match has_log {
            true => assert_eq!((fed.from_log, fed.checkpoints), (lacking, 0), "the log has all"),
            false => assert_eq!((fed.from_log, fed.checkpoints), (0, 1), "the log has too little"),
        }
        assert_eq!(world.asked[0].1.kind, ConfigType::UpgradeToSecondary);
        assert_eq!(world.core(learner).committed(), applied, "it has decided all of it");
        world.must_agree();
    }
}

/// Whoever has lost everything may make a new replica for an invitation that is still meant, and for no other.
#[test]
fn an_invitation_is_meant_until_it_may_have_made_a_member() {
    let (mut world, primary, member, learner) = with_learner();
    let Message::Invite(_, attempt) = world.invited(primary, learner) else { unreachable!() };
    let invites = |world: &World, at: usize, whom: usize, attempt: i64| {
        world.core(at).invites(node(whom), attempt)
    };
    assert!(invites(&world, primary, learner, attempt));
    assert!(!invites(&world, primary, learner, attempt - 1), "an older attempt");
    assert!(!invites(&world, primary, member, 0), "a member");
    assert!(!invites(&world, member, learner, attempt), "not by this one");
    world.feed(primary, learner);
    assert!(!invites(&world, primary, learner, attempt), "it may be a member by now");
    world.answer();
    assert!(world.config.secondaries.contains(&learner));
    assert!(!invites(&world, primary, learner, attempt), "it is one");
    world.must_agree();
}

/// A learner begins anew, with less, while the meta server is asked to make it a member: until that is decided writes
/// wait for it, whoever else is to learn.
#[test]
fn a_learner_that_may_be_a_member_gives_way_to_nobody() {
    let (mut world, primary, member, learner) = with_learner();
    let Message::Invite(_, attempt) = world.invited(primary, learner) else {
        panic!("it is invited");
    };
    world.feed(primary, learner);
    assert_eq!(world.asked[0].1.kind, ConfigType::UpgradeToSecondary);
    world.links.clear();
    let now = world.now;
    let core = &mut world.servers[primary].core;
    let seq = match core.role() {
        Role::Primary(lead) => lead.peers[&node(learner)].seq,
        other => panic!("{other:?}"),
    };
    let mut out = Effects::default();
    let gap = Ack { attempt, seq, verdict: Verdict::Gap, ..taken(core.ballot(), Decree::ZERO) };
    core.on_ack(node(learner), &gap, now, &mut out);
    core.send_prepares(now, &mut out);
    core.on_log_read(node(learner), attempt, Decree::ZERO, Vec::new(), now, &mut out);
    let later = now + core.options.group.resend_after;
    assert!(!core.add_learner(node(9), WANTED, later, &mut out), "somebody takes its place");
    let before = core.committed();
    world.write_to(primary);
    world.pass(primary, member);
    world.pass(member, primary);
    world.sync(member);
    world.pass(member, primary);
    assert_eq!(world.core(primary).committed(), before, "without one that may be a member");
}
