//! Faults that cost others their data, one by one, told to a group of protocol cores. `docs/faults.md` has the list.

use super::*;
use crate::log::{Durability, LogBatch};
use crate::table_rules::TableRules;
use crate::testing::group::*;
use crate::testing::mem_disk::Crash;
use crate::wire::config::{AppInfo, ConfigType};
use dsn_rpc::error_code::ErrorCode;
use std::time::Duration;

mod learning;
mod lost_tails;
mod restarts;

/// A whole group: its primary and its two secondaries.
fn whole(seed: u64) -> (World, usize, [usize; 2]) {
    let mut world = World::new(seed);
    world.heal();
    for _ in 0..3 {
        world.write_to(world.config.primary.expect("a primary"));
        world.settle();
    }
    world.must_agree();
    world.asked.clear();
    world.links.clear();
    let primary = world.config.primary.expect("a primary");
    let [one, other] = world.config.secondaries[..] else { panic!("two secondaries") };
    (world, primary, [one, other])
}

/// What a member answers that has everything up to `logged`.
fn taken(ballot: Ballot, logged: Decree) -> Ack {
    Ack {
        gpid: GPID,
        ballot,
        attempt: 0,
        seq: 1,
        verdict: Verdict::Taken,
        logged,
        applied: logged,
        disk_is_full: false,
    }
}

impl World {
    /// Everything that is under way from one server to another arrives.
    fn pass(&mut self, from: usize, to: usize) {
        while self.links.get(&(from, to)).is_some_and(|link| !link.is_empty()) {
            self.deliver(from, to);
        }
    }

    /// Everything that is under way arrives, and what follows from it.
    fn settle(&mut self) {
        for _ in 0..10 {
            for at in 0..SERVERS {
                (0..SERVERS).for_each(|to| self.pass(at, to));
                if self.servers[at].up {
                    self.sync(at);
                }
            }
        }
    }

    /// The meta server makes a change by itself.
    fn decree_group(&mut self, primary: Option<usize>, secondaries: &[usize]) {
        self.config.ballot = self.config.ballot.next();
        (self.config.primary, self.config.secondaries) = (primary, secondaries.to_vec());
    }

    /// The primary loses its lease, and `heir` takes over.
    fn fail_over(&mut self, dead: usize, heir: usize, others: &[usize]) {
        self.expire(dead);
        self.decree_group(None, &[]);
        self.decree_group(Some(heir), others);
        self.lead(heir);
    }

    pub(super) fn core(&self, at: usize) -> &Replica {
        &self.servers[at].core
    }

    fn invited(&mut self, from: usize, to: usize) -> Message {
        let link = self.links.get(&(from, to)).expect("something is under way");
        let invite = link.iter().rev().find(|message| matches!(message, Message::Invite(..)));
        invite.expect("an invitation").clone()
    }

    fn send_again(&mut self, from: usize, to: usize, message: Message) {
        self.links.entry((from, to)).or_default().push_back(message);
    }

    /// What stands at the end of everybody's history is the same, and it is whole.
    fn must_agree(&mut self) {
        self.heal();
        let primary = self.config.primary.expect("a primary");
        for at in self.config.secondaries.clone() {
            assert_eq!(self.servers[at].history, self.servers[primary].history, "server {at}");
        }
    }

    /// What the server at `at` does not have is lost for good, and nobody asks for it any more.
    fn forget_lost(&mut self, at: usize) {
        let kept = self.core(at).prepared().0;
        self.decided.retain(|decree, _| *decree <= kept);
        let known: Vec<u64> = self.decided.values().flat_map(|content| content.1.clone()).collect();
        self.acked.retain(|write| known.contains(write));
    }

    fn numbers(&self, at: usize) -> Vec<u64> {
        self.servers[at].history.iter().flat_map(|content| content.1.clone()).collect()
    }
}

/// Puts a member out and lets the primary invite it again.
fn with_learner() -> (World, usize, usize, usize) {
    let (mut world, primary, [member, learner]) = whole(0);
    world.decree_group(Some(primary), &[member]);
    world.lead(primary);
    world.settle();
    world.turn(primary, |core, _, out, now| {
        core.add_learner(node(learner), WANTED, now, out);
        GivenUp::default()
    });
    (world, primary, member, learner)
}

/// Bug 1: a restarted primary that keeps its ballot gives a decree twice, with different content.
#[test]
fn a_restarted_primary_gives_no_decree_another_content() {
    let (mut world, primary, [one, other]) = whole(1);
    assert_eq!(world.durability, Durability::GroupSync);
    let ballot = world.core(primary).ballot();
    world.write_to(primary);
    world.pass(primary, one);
    world.sync(one);
    let lost = world.core(one).prepared();
    assert!(lost > world.core(one).committed(), "one member has what nobody decided");
    // The primary had not synced it, and its power fails.
    world.kill(primary);
    let disk = world.servers[primary].disk.clone();
    world.servers[primary].disk = disk.restart(Crash::PowerLoss(7));
    world.restart(primary);
    world.decree_group(Some(primary), &[one, other]);
    world.lead(primary);
    assert!(world.core(primary).ballot() > ballot, "under the next ballot only");
    world.write_to(primary);
    world.must_agree();
    assert!(world.core(primary).applied() >= lost);
}

/// Everybody lost power, and of two that had lost something the one with less was made primary. The other one comes
/// back when the primary has gone on beyond what it had.
#[test]
fn a_learner_with_another_history_begins_anew() {
    for restarted in [false, true] {
        let (mut world, primary, [one, other]) = whole(0);
        world.write_to(primary);
        world.settle();
        world.now += Duration::from_secs(60);
        world.tick(primary);
        world.settle();
        let before = world.servers[one].disk.restart(Crash::Kill);
        let lost_after = world.core(one).prepared();
        for _ in 0..4 {
            world.write_to(primary);
            world.settle();
        }
        let longest = world.core(other).prepared();
        [primary, one, other].into_iter().for_each(|at| world.kill(at));
        world.servers[one].disk = before;
        world.restart(one);
        assert!(world.core(one).prepared() < longest, "the end of it is lost");
        // What was acknowledged and is lost now is lost: that was the choice.
        world.forget_lost(one);
        world.decree_group(Some(one), &[]);
        world.lead(one);
        for _ in 0..10 {
            world.write_to(one);
            world.settle();
        }
        assert!(world.core(one).committed() > longest, "it has gone on beyond");
        if restarted {
            // It knows of the decree in question only what its log says.
            world.kill(one);
            world.restart(one);
            world.decree_group(Some(one), &[]);
            world.lead(one);
            world.settle();
        }
        world.restart(other);
        let known = world.core(other).position().decree;
        assert!(known > lost_after, "it knows to be decided what is lost");
        world.must_agree();
        assert_eq!(world.servers[other].history, world.servers[one].history);
    }
}

/// Bug 2: a learner that was secondary before holds entries of the same decrees; two takeovers while it learns.
#[test]
fn a_learner_with_an_old_tail_commits_nothing_of_it() {
    let (mut world, primary, [heir, learner]) = whole(0);
    for _ in 0..3 {
        world.write_to(primary);
    }
    world.pass(primary, learner);
    let tail = world.core(learner).prepared();
    assert!(tail > world.core(learner).committed());
    // The heir never saw them.
    world.links.clear();
    world.fail_over(primary, heir, &[]);
    world.write_to(heir);
    world.turn(heir, |core, _, out, now| {
        core.add_learner(node(learner), WANTED, now, out);
        GivenUp::default()
    });
    world.pass(heir, learner);
    world.decree_group(Some(heir), &[]);
    world.lead(heir);
    world.settle();
    world.renew(primary);
    world.must_agree();
    assert_eq!(world.servers[learner].history, world.servers[heir].history);
}

/// Bug 3: a delayed invitation of an old attempt restarts learning in the middle of a newer one.
#[test]
fn a_late_invitation_does_not_disturb_a_newer_attempt() {
    let (mut world, primary, _, learner) = with_learner();
    let old = world.invited(primary, learner);
    world.turn(primary, |core, _, out, now| {
        core.wish(ConfigType::Remove, Some(node(learner)), now, out);
        core.add_learner(node(learner), WANTED, now, out);
        GivenUp::default()
    });
    let Message::Invite(_, newer) = world.invited(primary, learner) else { unreachable!() };
    world.pass(primary, learner);
    world.send_again(primary, learner, old.clone());
    world.pass(primary, learner);
    let Role::Learner(follow) = world.core(learner).role() else { panic!("a learner") };
    assert_eq!(follow.attempt, newer);
    let Message::Invite(_, older) = old else { unreachable!() };
    assert!(older < newer, "attempts grow");
    world.must_agree();
}

/// Bug 4: the answer of an old attempt makes a member of a newer one.
#[test]
fn an_answer_of_an_old_attempt_promotes_nobody() {
    let (mut world, primary, _, learner) = with_learner();
    world.pass(primary, learner);
    world.pass(learner, primary);
    let Role::Learner(follow) = world.core(learner).role() else { panic!("a learner") };
    let (attempt, ballot, logged) =
        (follow.attempt, world.core(learner).ballot(), world.core(primary).prepared());
    world.asked.clear();
    let stale = Ack { attempt: attempt - 1, ..taken(ballot, logged) };
    world.send_again(learner, primary, Message::Ack(stale));
    world.pass(learner, primary);
    assert!(world.asked.is_empty(), "{:?}", world.asked);
}

/// Bug 5: a learner that says twice that it is ready is promoted twice.
#[test]
fn an_answer_that_comes_twice_promotes_once() {
    let (mut world, primary, _, learner) = with_learner();
    for _ in 0..6 {
        world.pass(primary, learner);
        if let Some(link) = world.links.get_mut(&(learner, primary)) {
            let twice: Vec<Message> = link.iter().flat_map(|m| [m.clone(), m.clone()]).collect();
            *link = twice.into();
        }
        world.pass(learner, primary);
        world.now += Duration::from_millis(500);
        world.tick(primary);
    }
    let asked: Vec<_> = world.asked.iter().map(|(_, change)| change.kind).collect();
    assert_eq!(asked, [ConfigType::UpgradeToSecondary]);
}

/// Bug 6: what was learned is only in memory when the learner becomes a member, and a crash makes a hole.
#[test]
fn what_was_learned_survives_a_crash_right_after_the_promotion() {
    let (mut world, primary, _, learner) = with_learner();
    for _ in 0..4 {
        world.write_to(primary);
        world.settle();
    }
    while !matches!(world.core(learner).role(), Role::Secondary(_)) {
        world.answer();
        world.settle();
    }
    let committed = world.core(primary).committed();
    world.kill(learner);
    world.restart(learner);
    assert!(world.core(learner).prepared() >= committed, "its log has everything");
    world.must_agree();
}

/// A learner's question is under way for so long that the learner is killed meanwhile. It begins again with less: that
/// its last mutation was decided was not in its log yet.
#[test]
fn what_a_learner_had_before_a_restart_does_not_count() {
    let (mut world, primary, _, learner) = with_learner();
    let invitation = world.invited(primary, learner);
    world.pass(primary, learner);
    let asked = world.links.remove(&(learner, primary)).expect("a question");
    let Some(Message::Learn(_, claimed)) = asked.back().cloned() else { panic!("a question") };
    world.kill(learner);
    world.restart(learner);
    world.send_again(primary, learner, invitation);
    world.pass(primary, learner);
    assert!(world.core(learner).prepared() < claimed.decree, "it has less than before");
    world.links.insert((learner, primary), asked);
    let mut rounds = 0;
    while world.asked.is_empty() {
        world.pass(learner, primary);
        world.now += Duration::from_millis(500);
        world.tick(primary);
        let (has, committed) = (world.core(learner).prepared(), world.core(primary).committed());
        assert!(world.asked.is_empty() || has >= committed, "{has} is not all of {committed}");
        world.pass(primary, learner);
        world.sync(learner);
        rounds += 1;
        assert!(rounds < 20, "it becomes a member all the same");
    }
    world.must_agree();
}

/// Bugs 8 and 16, scenario 9: where exactly the log begins for a learner, and that an idle group gets one as well.
#[test]
fn a_learner_is_told_the_very_next_decree() {
    let (mut world, primary, _, learner) = with_learner();
    let Message::Invite(_, attempt) = world.invited(primary, learner) else { unreachable!() };
    let applied = world.core(primary).applied();
    assert!(applied > Decree(1));
    let now = world.now;
    let mut ask = |position: Decree, log_from: Option<Decree>| {
        let position = Position { decree: position, fingerprint: None };
        world.servers[primary].core.on_learn(node(learner), attempt, position, log_from, now)
    };
    let copy = LearnAnswer::Checkpoint { fresh: false };
    let lacks = applied.prev();
    assert_eq!(ask(lacks, Some(applied.next())), copy, "the log begins after what is next");
    assert_eq!(ask(lacks, None), copy, "the log has nothing");
    assert_eq!(ask(applied.plus(100), Some(Decree(1))), copy, "who has more has another history");
    assert_eq!(ask(lacks, Some(applied)), LearnAnswer::Stream, "it begins with what is next");
    assert_eq!(ask(applied, None), LearnAnswer::Stream, "nothing is lacking");
    world.must_agree();
}

/// Bug 9: entries from before a checkpoint that was learned stay in the window.
#[test]
fn a_learned_checkpoint_ends_what_was_held_before() {
    let (mut world, primary, [member, learner]) = whole(0);
    world.write_to(primary);
    world.pass(primary, learner);
    assert!(world.core(learner).prepared() > world.core(learner).applied());
    let files = world.servers[member].history.clone();
    let (ballot, attempt) = (world.config.ballot.next(), 77);
    world.turn(learner, |core, log, _, _| {
        core.begin_learning(node(primary), ballot, attempt, log).expect("a newer ballot")
    });
    world.install(learner, primary, ballot, attempt, files.clone());
    let core = world.core(learner);
    assert_eq!((core.applied(), core.prepared()), (Decree(files.len() as i64), core.applied()));
}

/// Bug 11: the last acknowledgement and a failure arrive together, and the member that is to leave is sent more.
#[test]
fn a_member_that_is_to_leave_is_sent_nothing_more() {
    let (mut world, primary, [one, other]) = whole(0);
    for _ in 0..8 {
        world.write_to(primary);
    }
    world.pass(primary, other);
    world.links.remove(&(primary, one));
    let (ballot, applied) = (world.config.ballot, world.core(one).applied());
    let refused = Ack { verdict: Verdict::Refused, ..taken(ballot, applied) };
    world.send_again(one, primary, Message::Ack(refused));
    world.pass(one, primary);
    world.pass(other, primary);
    world.write_to(primary);
    assert!(world.links.get(&(primary, one)).is_none_or(VecDeque::is_empty), "nothing for it");
    assert_eq!(world.asked[0].1.kind, ConfigType::DowngradeToInactive);
    assert!(!world.asked[0].1.secondaries.contains(&node(one)));
    world.must_agree();
}

/// Bug 13, scenario 19: two members fail at once, and an answer of the meta server is lost.
#[test]
fn two_changes_are_never_asked_for_under_one_ballot() {
    let (mut world, primary, [one, other]) = whole(0);
    let (ballot, applied) = (world.config.ballot, world.core(one).applied());
    world.write_to(primary);
    for failed in [one, other] {
        let ack = Ack { verdict: Verdict::Refused, ..taken(ballot, applied) };
        world.send_again(failed, primary, Message::Ack(ack));
        world.pass(failed, primary);
    }
    world.now += Duration::from_secs(10);
    world.tick(primary);
    assert_eq!(world.asked.len(), 1, "{:?}", world.asked);
    assert_eq!(world.asked[0].1.ballot, ballot.next());
    world.must_agree();
}

/// Bug 17: what a new primary proposes again loses its time stamp.
#[test]
fn what_is_proposed_again_keeps_its_time_stamp() {
    let (mut world, primary, [heir, other]) = whole(0);
    for _ in 0..3 {
        world.write_to(primary);
    }
    let proposed: Vec<Content> =
        world.core(primary).window.iter().map(|entry| content(&entry.mutation)).collect();
    world.pass(primary, heir);
    world.links.clear();
    let before = world.servers[heir].history.len();
    world.fail_over(primary, heir, &[other]);
    world.must_agree();
    assert_eq!(world.servers[other].history[before..before + 3], proposed);
}

/// Bug 21: a replica that was given a ballot before its first checkpoint cannot be loaded after a crash.
#[test]
fn a_ballot_before_the_first_checkpoint_does_not_keep_a_replica_from_loading() {
    let (mut world, primary, [one, other]) = whole(0);
    assert_eq!(world.servers[one].durable, 0);
    for _ in 0..3 {
        world.decree_group(Some(primary), &[one, other]);
        world.lead(primary);
        world.write_to(primary);
        world.settle();
    }
    let ballot = world.core(one).ballot();
    assert_eq!(ballot, world.config.ballot);
    world.kill(one);
    world.restart(one);
    assert_eq!(world.core(one).ballot(), ballot);
    world.must_agree();
}

/// Bug 23: the ballot of the log is forgotten when the note of the first ballot is lost.
#[test]
fn a_ballot_is_not_forgotten_without_the_note_of_the_first() {
    let (mut world, _, [one, _]) = whole(0);
    let ballot = world.core(one).ballot();
    world.servers[one].init_ballot = Ballot::ZERO;
    world.kill(one);
    world.restart(one);
    assert_eq!(world.core(one).ballot(), ballot);
    let mut log = LogBatch::new();
    assert!(world.servers[one].core.lead(ballot, &[], &mut log).is_err(), "it is used up");
}

/// Bug 60: members hear late, or never, that the last write of a burst is committed.
#[test]
fn members_hear_soon_that_the_last_write_is_committed() {
    let (mut world, primary, [one, other]) = whole(0);
    world.write_to(primary);
    world.settle();
    world.now += Duration::from_millis(150);
    world.tick(primary);
    world.settle();
    for at in [one, other] {
        assert_eq!(world.core(at).applied(), world.core(primary).applied());
    }
}

/// Scenario 1: the window is full, each member has another part of it, and the heir dies as well.
#[test]
fn a_full_window_in_pieces_survives_two_takeovers() {
    let (mut world, primary, [heir, other]) = whole(0);
    for _ in 0..5 {
        world.write_to(primary);
    }
    world.deliver(primary, heir);
    world.deliver(primary, heir);
    world.pass(primary, other);
    world.pass(other, primary);
    world.links.clear();
    let acked = world.acked.clone();
    world.fail_over(primary, heir, &[other]);
    world.deliver(heir, other);
    world.links.clear();
    world.fail_over(heir, other, &[]);
    world.renew(primary);
    world.renew(heir);
    world.must_agree();
    assert!(acked.iter().all(|number| world.numbers(other).contains(number)));
}

/// Scenario 2: whoever was not chosen had a longer tail; it becomes primary later.
#[test]
fn a_longer_tail_of_an_old_ballot_is_not_led_from() {
    let (mut world, primary, [heir, longer]) = whole(0);
    for _ in 0..4 {
        world.write_to(primary);
    }
    world.pass(primary, longer);
    world.links.clear();
    let stale: Vec<u64> =
        world.core(longer).window.iter().flat_map(|e| content(&e.mutation).1).collect();
    assert!(!stale.is_empty());
    world.fail_over(primary, heir, &[longer]);
    world.write_to(heir);
    world.settle();
    world.fail_over(heir, longer, &[]);
    let numbers = world.numbers(longer);
    assert!(stale.iter().all(|number| !numbers.contains(number)), "{stale:?} in {numbers:?}");
    world.renew(primary);
    world.renew(heir);
    world.must_agree();
}

/// Scenario 4: a member that needs nearly its whole time for each answer stays, one that needs more is replaced.
#[test]
fn a_member_is_late_after_its_time_and_not_before() {
    for (pause, leaves) in [(2_900, false), (3_100, true)] {
        let (mut world, primary, [slow, fast]) = whole(0);
        for _ in 0..4 {
            world.write_to(primary);
            world.pass(primary, fast);
            world.pass(fast, primary);
            world.now += Duration::from_millis(pause);
            if !leaves {
                world.pass(primary, slow);
                world.pass(slow, primary);
            }
            world.tick(primary);
        }
        let asked = world.asked.iter().any(|(_, change)| change.node == Some(node(slow)));
        assert_eq!(asked, leaves, "after {pause} ms: {:?}", world.asked);
    }
}

/// A way there and back that takes longer than the pause before things are sent again makes nobody late.
#[test]
fn a_member_on_a_slow_link_stays() {
    let (mut world, primary, members) = whole(0);
    for member in members {
        world.links.remove(&(member, primary));
    }
    // The questions of three ticks are always under way.
    let mut answers = 0;
    for _ in 0..60 {
        world.now += Duration::from_millis(600);
        world.tick(primary);
        for member in members {
            if world.links.get(&(primary, member)).is_some_and(|link| link.len() > 3) {
                world.deliver(primary, member);
            }
            answers += world.links.get(&(member, primary)).map_or(0, VecDeque::len);
            world.pass(member, primary);
        }
    }
    assert!(answers > 40, "{answers} answers came");
    assert!(world.asked.is_empty(), "{:?}", world.asked);
}

/// Bug 19: a write to a group of which a secondary has no room is refused for that reason, until it has.
#[test]
fn writes_are_refused_while_a_member_has_no_room() {
    let (mut world, primary, [one, _]) = whole(0);
    let (rules, table) = (WriteRules::default(), TableRules::new(&AppInfo::default()));
    let logged = world.core(primary).committed();
    for (full, expected) in [(true, Err(ErrorCode::DiskInsufficient)), (false, Ok(()))] {
        let ack = Ack { disk_is_full: full, ..taken(world.config.ballot, logged) };
        world.send_again(one, primary, Message::Ack(ack));
        world.pass(one, primary);
        assert_eq!(world.core(primary).admit_write(&rules, &table, 1, 0, true), expected);
    }
}

/// Where to go on is no acknowledgement: what a member has taken may not be in its log yet.
#[test]
fn a_gap_commits_nothing() {
    let (mut world, primary, [one, other]) = whole(0);
    world.write_to(primary);
    let (ballot, before) = (world.config.ballot, world.core(primary).committed());
    let prepared = world.core(primary).prepared();
    assert!(prepared > before);
    world.pass(primary, other);
    world.pass(other, primary);
    let gap = Ack { verdict: Verdict::Gap, ..taken(ballot, prepared) };
    world.send_again(one, primary, Message::Ack(gap));
    world.pass(one, primary);
    assert_eq!(world.core(primary).committed(), before, "one member has not logged it");
    world.settle();
    world.now += Duration::from_millis(600);
    world.tick(primary);
    world.settle();
    assert_eq!(world.core(primary).committed(), prepared);
    world.must_agree();
}
