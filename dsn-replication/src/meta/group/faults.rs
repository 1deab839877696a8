//! Faults that cost others their data or their service, by name, told to the meta server (`docs/faults.md`).

use std::time::Duration;

use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::gpid::Gpid;

use crate::meta::state::app::is_member;
use crate::meta::testing::{Bench, addr, options};
use crate::wire::config::{ConfigType as K, PartitionConfiguration, PartitionStatus, ReplicaInfo};

const P: Gpid = Gpid::new(1, 0);

/// A table of one partition with members 1 to 3; server 4 holds nothing.
fn started() -> Bench {
    let mut options = options();
    options.meta.replica_assign_delay_ms_for_dropouts = 0;
    let mut bench = Bench::on(Default::default(), options);
    [1, 2, 3].iter().for_each(|node| bench.beacon(*node, 1));
    assert_eq!(bench.create("temp", 1, 3), ErrorCode::Ok);
    bench.obey(&[1, 2, 3]);
    bench
}

/// Scenario 5, bug 42: the answer to each kind of change is lost, and the meta server is another one when the sender
/// asks again.
#[test]
fn a_lost_answer_is_given_again_for_every_kind_of_change() {
    let mut bench = started();
    let changes = [
        (K::PrimaryForceUpdateBallot, 1),
        (K::Remove, 2),
        (K::UpgradeToSecondary, 2),
        (K::DowngradeToInactive, 3),
        (K::UpgradeToSecondary, 3),
        (K::DowngradeToSecondary, 1),
        (K::UpgradeToPrimary, 2),
        (K::AssignPrimary, 2),
    ];
    for (kind, node) in changes {
        let request = bench.report(P, kind, node);
        let first = bench.update(&request).expect("an answer");
        assert_eq!(first.err, ErrorCode::Ok, "{kind} {node}");
        let again = bench.update(&request).expect("an answer");
        assert_eq!(again, first, "{kind} {node}");
        bench = bench.restart();
        [1, 2, 3].iter().for_each(|node| bench.beacon(*node, 1));
        let later = bench.update(&request).expect("an answer");
        assert_eq!(
            (later.err, later.config.ballot),
            (ErrorCode::Ok, first.config.ballot),
            "{kind}"
        );
        assert_eq!(later.config.secondaries, first.config.secondaries, "{kind}");
    }
}

/// Scenario 7: the primary dies while a change that it asked for is still being written.
#[test]
fn a_death_during_a_write_of_the_same_group_comes_after_it() {
    let mut bench = started();
    bench.budget = Some(0);
    let request = bench.report(P, K::Remove, 3);
    let ticket = bench.ticket();
    bench.with(|cluster, _, _| cluster.update_configuration(ticket, &request));
    let before = bench.partition(P).config.ballot;
    bench.pass(Duration::from_secs(25), &[2, 3]);
    assert_eq!(bench.partition(P).config.ballot, before, "not written yet");
    bench.budget = None;
    bench.pump();
    bench.pass(Duration::from_secs(15), &[2, 3]);
    bench.obey(&[2, 3]);
    let config = &bench.partition(P).config;
    assert_eq!(config.primary, addr(2), "the removed member is not the one that takes over");
    assert!(config.ballot >= before + 3, "first the removal, then the death, then the takeover");
}

/// Bug 46: what is planned for a server counts as its load for ever when the plan is given up.
#[test]
fn planned_copies_are_forgotten_with_their_proposals() {
    let mut bench = started();
    for _ in 0..5 {
        bench.pass(Duration::from_secs(25), &[1, 2]);
        bench.obey(&[1, 2]);
        bench.beacon(4, 1);
        bench.pass(Duration::from_secs(12), &[1, 2, 4]);
        assert!(bench.partition(P).proposal.is_some(), "a copy is planned");
        bench.pass(Duration::from_secs(40), &[1, 2]);
    }
    bench.pass(Duration::from_secs(12), &[1, 2]);
    assert!(bench.partition(P).proposal.is_none(), "nobody can take it");
    bench.with(|cluster, _, _| {
        for (node, entry) in &cluster.nodes {
            let planned = entry.planned_primaries.len() + entry.planned_secondaries.len();
            assert_eq!(planned, 0, "{node}");
        }
    });
}

/// Bug 44, hazard 8: what only the log of a former member has counts for the choice of who goes on.
#[test]
fn what_was_prepared_counts_when_all_members_are_gone() {
    use super::ddd::{Former, choose};
    let info = ReplicaInfo {
        ballot: 9,
        last_committed_decree: 629,
        last_prepared_decree: 630,
        ..ReplicaInfo::default()
    };
    let former = |replica| Former {
        node: addr(1),
        alive: true,
        collected: true,
        replica: Some(replica),
        ..Former::default()
    };
    let one = former(Former::reported(&info));
    let other = Former { node: addr(2), ..former((9, 629, 629)) };
    assert_eq!(choose(&[other.clone(), one.clone()], 630), Ok(addr(1)));
    assert_eq!(choose(&[one, other.clone()], 630), Ok(addr(1)));
    assert!(choose(&[other.clone(), other], 630).is_err(), "nobody has what was committed");
}

/// What may happen around a quick restart of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// The first beacon of the new process.
    Beacon,
    /// So much time passes that the grace of the old process is over.
    Expiry,
    /// A config sync of the server.
    Sync,
    /// The change that was being written is durable.
    Written,
}

fn orders(events: &[Event]) -> Vec<Vec<Event>> {
    if events.is_empty() {
        return vec![Vec::new()];
    }
    let with = |first: &Event| {
        let first = *first;
        let rest: Vec<Event> = events.iter().copied().filter(|event| *event != first).collect();
        orders(&rest).into_iter().map(move |rest| [vec![first], rest].concat())
    };
    events.iter().flat_map(with).collect()
}

/// Bug 38: a server is started again within its grace, and a config sync is answered before its death is known, or
/// while a change of a group of it is being written: what it is told is taken back a moment later.
#[test]
fn a_quick_restart_is_told_nothing_that_is_taken_back() {
    use Event::{Beacon, Expiry, Sync, Written};
    // Who is started again, and what its group was being changed to.
    let cases = [
        (1, K::PrimaryForceUpdateBallot, 1),
        (1, K::Remove, 3),
        (1, K::DowngradeToSecondary, 1),
        (2, K::Remove, 2),
        (2, K::Remove, 3),
    ];
    for (who, kind, node) in cases {
        for order in orders(&[Beacon, Expiry, Sync, Written]) {
            restart_quickly(who, (kind, node), &order);
        }
    }
}

fn restart_quickly(who: u8, (kind, node): (K, u8), order: &[Event]) {
    let what = format!("server {who}, {kind} {node}, {order:?}");
    let mut bench = started();
    let others: Vec<u8> = [1, 2, 3].into_iter().filter(|other| *other != who).collect();
    bench.pass(Duration::from_secs(20), &others);
    let before = bench.partition(P).config.ballot;
    let request = bench.report(P, kind, node);
    bench.budget = Some(0);
    assert_eq!(bench.update(&request), None, "{what}: it is being written");
    let report = |bench: &mut Bench, status| {
        let info = ReplicaInfo { pid: P, ballot: before, status, ..ReplicaInfo::default() };
        bench.sync_with(who, [info])
    };
    let (mut restarted, mut dead, mut written, mut told) = (false, false, false, None);
    for event in order {
        match event {
            Event::Beacon => {
                bench.beacon(who, 2);
                (restarted, dead) = (true, false);
                let known = &bench.cluster.nodes[&addr(who)].reported;
                assert!(known.is_none(), "{what}: what the old process reported counts no more");
            }
            Event::Expiry => {
                bench.pass(Duration::from_secs(4), &others);
                dead = !restarted;
            }
            Event::Written => {
                bench.budget = None;
                bench.pump();
                written = true;
            }
            Event::Sync => {
                // Before the first beacon of the new process it is one of the old process, which led.
                let led = who == 1 && !restarted;
                let status = if led { PartitionStatus::Primary } else { PartitionStatus::Inactive };
                let answer = report(&mut bench, status);
                assert_eq!(answer.err == ErrorCode::Ok, written && !dead, "{what}: {}", answer.err);
                if restarted && answer.err == ErrorCode::Ok {
                    told = Some(answer.partitions.first().map(|told| told.config));
                }
            }
        }
    }
    let after = bench.partition(P).config.clone();
    assert!(after.ballot > before && !dead, "{what}");
    if let Some(told) = told {
        let now = is_member(&after, addr(who)).then(|| after.clone());
        let shape =
            |config: PartitionConfiguration| (config.ballot, config.primary, config.secondaries);
        assert_eq!(told.map(shape), now.map(shape), "{what}: it was told something else");
    }
    // The new process has no lead to go on with: whoever leads in the end was asked to.
    for _ in 0..3 {
        report(&mut bench, PartitionStatus::Inactive);
        bench.obey(&[1, 2, 3]);
        bench.pass(Duration::from_secs(1), &others);
    }
    let end = &bench.partition(P).config;
    assert!(end.primary.is_valid(), "{what}: {end:?}");
    assert!(who == 2 || end.ballot > after.ballot, "{what}: leads on under its old ballot");
}
