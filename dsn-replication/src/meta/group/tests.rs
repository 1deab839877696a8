//! Groups: the fence of ballots, what is decided for which view, and lives of whole partitions.

use std::time::Duration;

use dsn_rpc::address::RpcAddress;
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::gpid::Gpid;

use super::cure::{Action, View, decide};
use super::ddd::{Former, choose};
use super::membership::{ChangeError, MAX_LAST_DROPS, change, note_drop};
use super::placement::Candidate;
use crate::meta::state::node::Load;
use crate::meta::testing::{Bench, addr, options};
use crate::options::FunctionLevel;
use crate::wire::admin::{DddDiagnoseRequest, MetaControlRequest, MetaFunctionLevel};
use crate::wire::config::{ConfigType, PartitionConfiguration, PartitionStatus, ReplicaInfo};

const P: Gpid = Gpid::new(1, 0);

fn group(
    primary: u8,
    secondaries: &[u8],
    last_drops: &[u8],
    wanted: i32,
) -> PartitionConfiguration {
    let node = |n: u8| if n == 0 { RpcAddress::INVALID } else { addr(n) };
    PartitionConfiguration {
        pid: P,
        ballot: 7,
        max_replica_count: wanted,
        primary: node(primary),
        secondaries: secondaries.iter().map(|n| node(*n)).collect(),
        last_drops: last_drops.iter().map(|n| node(*n)).collect(),
        ..PartitionConfiguration::default()
    }
}

fn shape(config: &PartitionConfiguration) -> String {
    let last = |node: &RpcAddress| node.ip().octets()[3].to_string();
    let list = |nodes: &[RpcAddress]| nodes.iter().map(last).collect::<Vec<_>>().join(",");
    let primary = last(&config.primary);
    format!(
        "{primary} [{}] -[{}] @{}",
        list(&config.secondaries),
        list(&config.last_drops),
        config.ballot
    )
}

#[test]
fn every_kind_of_change_does_what_it_says_and_nothing_else() {
    use ConfigType as K;
    let full = group(1, &[2, 3], &[4], 3);
    let headless = group(0, &[2], &[1], 3);
    let cases = [
        (&headless, K::AssignPrimary, 3, Ok("3 [2] -[1] @8")),
        (&headless, K::AssignPrimary, 1, Ok("1 [2] -[] @8")),
        (&headless, K::AssignPrimary, 2, Err(ChangeError::IsMember)),
        (&full, K::AssignPrimary, 4, Err(ChangeError::HasPrimary)),
        (&full, K::AssignPrimary, 1, Ok("1 [2,3] -[4] @8")),
        (&headless, K::UpgradeToPrimary, 2, Ok("2 [] -[1] @8")),
        (&headless, K::UpgradeToPrimary, 3, Err(ChangeError::IsNot("a secondary"))),
        (&full, K::PrimaryForceUpdateBallot, 1, Ok("1 [2,3] -[4] @8")),
        (&full, K::PrimaryForceUpdateBallot, 2, Err(ChangeError::IsNot("the primary"))),
        (&full, K::UpgradeToSecondary, 4, Ok("1 [2,3,4] -[] @8")),
        (&full, K::UpgradeToSecondary, 2, Err(ChangeError::IsMember)),
        (&full, K::DowngradeToSecondary, 1, Ok("0 [2,3,1] -[4] @8")),
        (&full, K::DowngradeToSecondary, 2, Err(ChangeError::IsNot("the primary"))),
        (&full, K::DowngradeToInactive, 1, Ok("0 [2,3] -[4,1] @8")),
        (&full, K::DowngradeToInactive, 3, Ok("1 [2] -[4,3] @8")),
        (&full, K::Remove, 2, Ok("1 [3] -[4,2] @8")),
        (&full, K::Remove, 4, Err(ChangeError::IsNot("a member"))),
        (&full, K::DropPartition, 1, Err(ChangeError::Kind)),
        (&full, K::Invalid, 1, Err(ChangeError::Kind)),
    ];
    for (before, kind, node, expected) in cases {
        let found = change(before, kind, addr(node)).map(|after| shape(&after));
        assert_eq!(found, expected.map(str::to_owned), "{kind} {node} on {}", shape(before));
    }
    let over = group(1, &[2, 3, 4], &[], 3);
    assert_eq!(change(&over, K::UpgradeToSecondary, addr(5)), Err(ChangeError::Complete));
    assert!(change(&full, K::Remove, RpcAddress::INVALID).is_err());
}

/// Bug 43: the former members are kept in a wrong order, or too few of them.
#[test]
fn a_group_remembers_the_last_few_that_left() {
    let mut config = group(1, &[], &[], 3);
    for node in [2, 3, 2, 4, 5] {
        note_drop(&mut config, addr(node));
    }
    assert_eq!(config.last_drops, [addr(2), addr(4), addr(5)]);
    assert_eq!(config.last_drops.len(), MAX_LAST_DROPS);
}

fn view(config: PartitionConfiguration, alive: &[u8]) -> View {
    let alive = alive
        .iter()
        .map(|n| Candidate {
            node: addr(*n),
            load: Load { replicas: 10 - usize::from(*n), ..Load::default() },
            doubtful: false,
            may_be_gone: false,
            lacks: false,
            asked: false,
        })
        .collect();
    let former = |node: &RpcAddress| Former { node: *node, ..Former::default() };
    let former = config.last_drops.iter().map(former).collect();
    View { config, alive, former, min_members: 2, ..View::default() }
}

fn propose(target: u8, node: u8, kind: ConfigType) -> Action {
    Action::Propose { target: addr(target), node: addr(node), kind }
}

#[test]
fn what_is_decided_for_which_view() {
    use ConfigType as K;
    let all = [1, 2, 3, 4, 5];
    let cases = [
        (group(1, &[2, 3], &[], 3), &all[..], Action::Nothing),
        (group(1, &[2, 3], &[], 3), &[2, 3, 4], Action::TakeOut(addr(1))),
        (group(1, &[2, 3], &[], 3), &[1, 3, 4], propose(1, 2, K::DowngradeToInactive)),
        // The heaviest server has least n.
        (group(1, &[2, 3, 4], &[], 3), &all, propose(1, 2, K::Remove)),
        (group(0, &[2, 3], &[1], 3), &[1, 3], propose(3, 3, K::UpgradeToPrimary)),
        (group(0, &[], &[], 3), &all, propose(5, 5, K::AssignPrimary)),
        // Below the minimum: at once, a former member before a new one.
        (group(1, &[], &[2, 4], 3), &all, propose(1, 4, K::AddSecondary)),
        (group(1, &[], &[2, 4], 3), &[1, 2, 3], propose(1, 2, K::AddSecondary)),
        (group(1, &[], &[2, 4], 3), &[1, 3, 5], propose(1, 5, K::AddSecondary)),
        // Enough members to go on: only the last that left, if it is back.
        (group(1, &[2], &[4, 3], 3), &all, propose(1, 3, K::AddSecondary)),
        (group(1, &[2], &[4, 3], 3), &[1, 2, 4, 5], Action::Nothing),
        (group(1, &[2], &[], 3), &[1, 2, 3], propose(1, 3, K::AddSecondary)),
        (group(1, &[2], &[], 3), &[1, 2], Action::Nothing),
    ];
    for (config, alive, expected) in cases {
        let text = format!("{} alive {alive:?}", shape(&config));
        assert_eq!(decide(&view(config, alive)), expected, "{text}");
    }
    // The last that left is back and does nothing: the next best, or nobody else is there.
    for (alive, expected) in [(&all[..], 4), (&[1, 2, 3, 5], 5), (&[1, 2, 3], 3)] {
        let mut view = view(group(1, &[2], &[4, 3], 3), alive);
        view.avoid = Some(addr(3));
        view.alive.iter_mut().for_each(|found| found.doubtful = found.node == addr(3));
        assert_eq!(decide(&view), propose(1, expected, K::AddSecondary), "{alive:?}");
    }
    let mut patient = view(group(1, &[2], &[4, 3], 3), &[1, 2, 4, 5]);
    patient.waited = true;
    assert_eq!(decide(&patient), propose(1, 4, K::AddSecondary));
    for config in [group(0, &[2], &[], 3), group(0, &[], &[2], 3), group(0, &[], &[], 3)] {
        assert!(matches!(decide(&view(config, &[])), Action::Stuck(_)));
    }
}

#[test]
fn unstable_servers_come_last() {
    let mut view = view(group(0, &[], &[], 1), &[1, 2]);
    view.alive[1].doubtful = true;
    assert_eq!(decide(&view), propose(1, 1, ConfigType::AssignPrimary));
    view.alive.remove(0);
    assert_eq!(decide(&view), propose(2, 2, ConfigType::AssignPrimary), "but before nobody");
}

#[test]
fn a_dead_primary_is_waited_for_only_when_nobody_can_take_over() {
    let mut view = view(group(1, &[2], &[], 3), &[2, 3]);
    view.primary_may_start = true;
    view.alive[0].doubtful = true;
    let taken_out = Action::TakeOut(addr(1));
    assert_eq!(decide(&view), taken_out, "who starts often is better than nobody");
    view.alive[0].may_be_gone = true;
    assert_eq!(decide(&view), Action::Nothing);
    view.primary_may_start = false;
    assert_eq!(decide(&view), taken_out);
}

fn former(n: u8, replica: Option<(i64, i64, i64)>) -> Former {
    Former { node: addr(n), alive: true, collected: true, replica, ..Former::default() }
}

#[test]
fn the_former_member_that_is_chosen_has_what_was_committed() {
    let newest = |former: &[Former], committed| choose(former, committed);
    let good = former(1, Some((5, 10, 12)));
    assert_eq!(newest(std::slice::from_ref(&good), 10), Ok(addr(1)));
    assert_eq!(newest(std::slice::from_ref(&good), 99), Ok(addr(1)), "nobody else ever had it");
    assert!(newest(&[former(1, None)], 0).unwrap_err().contains("holds no replica"));
    assert!(newest(&[], 0).is_err());

    // By ballot, then committed, then prepared, then the one that left last.
    let other = |replica| former(2, Some(replica));
    assert_eq!(newest(&[good.clone(), other((6, 10, 10))], 10), Ok(addr(2)));
    assert_eq!(newest(&[good.clone(), other((5, 11, 11))], 10), Ok(addr(2)));
    assert_eq!(newest(&[good.clone(), other((5, 10, 11))], 10), Ok(addr(1)));
    assert_eq!(newest(&[good.clone(), other((5, 10, 12))], 10), Ok(addr(2)));
    assert_eq!(newest(&[former(2, None), good.clone()], 12), Ok(addr(1)));

    // Nobody is chosen against the evidence.
    assert!(newest(&[good.clone(), other((6, 9, 9))], 9).unwrap_err().contains("ballot 6"));
    assert!(newest(&[good.clone(), other((4, 11, 20))], 10).unwrap_err().contains("ballot 4"));
    assert!(newest(&[former(2, None), good.clone()], 13).unwrap_err().contains("13 was committed"));
    let lost = newest(&[good.clone(), former(2, None)], 0).unwrap_err();
    assert!(
        lost.contains("127.0.0.2") && lost.contains("the last member"),
        "it may have acknowledged more: {lost}"
    );

    // The last two are waited for; one before them is not.
    let away = Former { alive: false, ..former(2, None) };
    let silent = Former { collected: false, ..former(2, None) };
    assert!(newest(&[good.clone(), away.clone()], 0).unwrap_err().contains("not alive"));
    assert!(newest(&[silent, good.clone()], 0).unwrap_err().contains("report of 127.0.0.2"));
    assert_eq!(newest(&[away, former(3, None), good], 0), Ok(addr(1)));
}

/// The last member took over from the one before it, and went down before it had told its log that what it found there
/// was committed. It has everything, and nobody else is ever going to have more.
#[test]
fn the_last_member_need_not_know_what_was_committed_before_it_took_over() {
    let primary_before = former(1, Some((11, 17, 18)));
    let last = |committed, prepared| former(2, Some((13, committed, prepared)));
    assert_eq!(choose(&[primary_before.clone(), last(15, 18)], 17), Ok(addr(2)));
    assert_eq!(choose(&[primary_before.clone(), last(15, 17)], 17), Ok(addr(2)));
    let lost = choose(&[primary_before, last(15, 16)], 15).unwrap_err();
    assert!(lost.contains("committed 17") && lost.contains("prepared 16"), "{lost}");
}

/// The last member went on alone, and the one before it was invited to learn under the same ballot. It was told what
/// was committed before; the log of the last one knows of its newest mutation only that it is there, though it was
/// acknowledged.
#[test]
fn who_knows_more_of_what_was_committed_need_not_have_more() {
    let learner = former(1, Some((15, 570, 570)));
    let alone = former(2, Some((15, 569, 571)));
    assert_eq!(choose(&[learner.clone(), alone], 570), Ok(addr(2)));
    // It has lost what it told others was committed.
    let lost = former(2, Some((15, 568, 569)));
    assert_eq!(choose(&[learner.clone(), lost], 570), Ok(addr(1)));
    // It invited the learner under a ballot that it had no time to write down: nothing was acknowledged under that.
    let ended = former(2, Some((14, 569, 571)));
    assert_eq!(choose(&[learner.clone(), ended], 571), Ok(addr(2)));
    let lost = former(2, Some((14, 568, 569)));
    assert_eq!(choose(&[learner, lost], 570), Ok(addr(1)));
}

/// A table of one partition whose members are servers 1 to `replicas`.
fn started(replicas: u8) -> Bench {
    let mut bench = Bench::new();
    let nodes: Vec<u8> = (1..=replicas).collect();
    nodes.iter().for_each(|node| bench.beacon(*node, 1));
    assert_eq!(bench.create("temp", 1, i32::from(replicas)), ErrorCode::Ok);
    bench.obey(&nodes);
    bench
}

#[test]
fn a_group_grows_to_its_size() {
    let bench = started(3);
    let config = &bench.partition(P).config;
    assert_eq!(shape(config), "1 [2,3] -[] @3");
    assert!(bench.partition(P).proposal.is_none());
}

#[test]
fn a_restarted_server_goes_on_as_primary_at_once() {
    let mut bench = started(1);
    bench.beacon(1, 2);
    let told = bench.sync(1, &[(P, 1, 5)]);
    assert_eq!(told.err, ErrorCode::Ok);
    assert_eq!(told.partitions.first().unwrap().config.primary, addr(1));
    let request = bench.report(P, ConfigType::PrimaryForceUpdateBallot, 1);
    let response = bench.update(&request).unwrap();
    assert_eq!((response.err, response.config.ballot), (ErrorCode::Ok, 2));
    // The answer was lost: the same report gets the same answer.
    let again = bench.update(&request).unwrap();
    assert_eq!((again.err, again.config.ballot), (ErrorCode::Ok, 2));
    let bench = bench.restart();
    assert_eq!(shape(&bench.partition(P).config), "1 [] -[] @2");
}

#[test]
fn a_primary_that_was_started_anew_is_asked_at_once_to_go_on() {
    let mut bench = started(3);
    bench.beacon(1, 2);
    assert!(bench.proposals.is_empty());
    bench.sync(1, &[(P, 3, 5)]);
    let (to, request) = &bench.proposals[0];
    assert_eq!((*to, request.config_type), (addr(1), ConfigType::AssignPrimary));
    bench.pass(Duration::from_secs(1), &[1, 2, 3]);
    assert!(bench.proposals.len() > 1, "repeated until it does");
    bench.obey(&[1, 2, 3]);
    assert_eq!(shape(&bench.partition(P).config), "1 [2,3] -[] @4");
    bench.pass(Duration::from_secs(15), &[1, 2, 3]);
    assert!(bench.proposals.is_empty(), "it is enough");
}

#[test]
fn a_report_of_another_member_does_not_hide_that_the_primary_was_started_anew() {
    let mut bench = started(3);
    bench.beacon(1, 2);
    bench.sync(1, &[(P, 3, 5)]);
    bench.proposals.clear();
    bench.sync(2, &[(P, 3, 5)]);
    bench.pass(Duration::from_secs(5), &[1, 2, 3]);
    assert!(!bench.proposals.is_empty(), "it is asked again to go on");
}

#[test]
fn a_dead_primary_is_taken_out_and_comes_back() {
    let mut bench = started(1);
    bench.pass(Duration::from_secs(20), &[]);
    assert_eq!(shape(&bench.partition(P).config), "1 [] -[] @1", "within its grace");
    bench.pass(Duration::from_secs(5), &[]);
    assert_eq!(shape(&bench.partition(P).config), "0 [] -[1] @2");
    assert_eq!(bench.sync(1, &[]).err, ErrorCode::Busy, "it counts as dead");
    bench.beacon(1, 2);
    assert!(bench.proposals.is_empty(), "waits for its report");
    bench.sync(1, &[(P, 1, 5)]);
    bench.obey(&[1]);
    assert_eq!(shape(&bench.partition(P).config), "1 [] -[] @3");
}

#[test]
fn a_secondary_takes_over_from_a_dead_primary() {
    let mut bench = started(3);
    bench.pass(Duration::from_secs(25), &[2, 3]);
    let taken_out = shape(&bench.partition(P).config);
    assert_eq!(taken_out, "0 [2,3] -[1] @4");
    bench.obey(&[2, 3]);
    assert_eq!(shape(&bench.partition(P).config), "2 [3] -[1] @5");
    // The dead one comes back as what it was.
    bench.beacon(1, 2);
    bench.pass(Duration::from_secs(1), &[1, 2, 3]);
    bench.obey(&[1, 2, 3]);
    assert_eq!(shape(&bench.partition(P).config), "2 [3,1] -[] @6");
}

#[test]
fn who_is_asked_to_take_over_stays_so_while_loads_change() {
    let mut view = view(group(0, &[2, 3], &[1], 3), &[2, 3]);
    view.alive[0].asked = true;
    view.alive[0].load.app_primaries = 5;
    assert_eq!(decide(&view), propose(2, 2, ConfigType::UpgradeToPrimary));
    for (doubtful, lacks) in [(true, false), (false, true)] {
        (view.alive[0].doubtful, view.alive[0].lacks) = (doubtful, lacks);
        assert_eq!(decide(&view), propose(3, 3, ConfigType::UpgradeToPrimary), "{view:?}");
    }
}

/// Who is asked to lead counts as the primary that it will be, for the groups that lose theirs at the same moment.
#[test]
fn the_groups_of_a_dead_primary_are_spread_over_the_others() {
    let mut bench = Bench::new();
    let all = [1, 2, 3];
    all.iter().for_each(|node| bench.beacon(*node, 1));
    assert_eq!(bench.create("temp", 12, 3), ErrorCode::Ok);
    bench.obey(&all);
    let alive = [2, 3];
    let heirs = |bench: &Bench| -> Vec<RpcAddress> {
        let groups = (0..12).map(|index| bench.partition(Gpid::new(1, index)));
        let proposals = groups.filter_map(|group| group.proposal.as_ref());
        let leads = proposals.filter(|proposal| proposal.kind == ConfigType::UpgradeToPrimary);
        leads.map(|proposal| proposal.node).collect()
    };
    while heirs(&bench).is_empty() {
        bench.pass(Duration::from_secs(1), &alive);
    }
    let asked = heirs(&bench);
    let each = alive.map(|n| asked.iter().filter(|node| **node == addr(n)).count());
    assert_eq!(each, [2, 2]);
    bench.pass(Duration::from_secs(2), &alive);
    assert_eq!(heirs(&bench), asked, "nobody else is asked meanwhile");
    bench.obey(&alive);
    let leads = |n: &u8| bench.cluster.nodes[&addr(*n)].primaries.len();
    assert_eq!(alive.each_ref().map(leads), [6, 6]);
}

/// The primary and the first in line have both lost what they held; the third has everything.
#[test]
fn a_secondary_that_lost_its_replica_is_not_waited_for() {
    let mut bench = started(3);
    bench.pass(Duration::from_secs(25), &[2, 3]);
    assert_eq!(shape(&bench.partition(P).config), "0 [2,3] -[1] @4");
    let asked = |bench: &Bench| bench.partition(P).proposal.as_ref().map(|p| (p.node, p.kind));
    assert_eq!(asked(&bench), Some((addr(2), ConfigType::UpgradeToPrimary)), "nobody has said");
    bench.sync(2, &[]);
    bench.pass(Duration::from_secs(1), &[2, 3]);
    assert_eq!(asked(&bench), Some((addr(3), ConfigType::UpgradeToPrimary)));
    bench.obey(&[3]);
    assert_eq!(shape(&bench.partition(P).config), "3 [2] -[1] @5");

    // One that just does not act is passed over after a while.
    let mut bench = started(3);
    bench.pass(Duration::from_secs(25), &[2, 3]);
    bench.pass(super::proposal::PATIENCE + Duration::from_secs(1), &[2, 3]);
    assert_eq!(asked(&bench), Some((addr(3), ConfigType::UpgradeToPrimary)));
}

/// One secondary has lost what it held, the other one's has failed, while the primary was away: it has everything, and
/// goes on.
#[test]
fn a_primary_goes_on_when_no_member_has_anything() {
    let mut bench = started(3);
    bench.pass(Duration::from_secs(25), &[2, 3]);
    assert_eq!(shape(&bench.partition(P).config), "0 [2,3] -[1] @4");
    bench.sync(2, &[]);
    let failed =
        ReplicaInfo { pid: P, ballot: 4, status: PartitionStatus::Error, ..ReplicaInfo::default() };
    bench.sync_with(3, [failed]);
    assert_eq!(bench.partition(P).proposal, None, "they cannot lead");
    bench.beacon(1, 2);
    bench.sync(1, &[(P, 3, 0)]);
    bench.obey(&[1]);
    assert_eq!(shape(&bench.partition(P).config), "1 [2,3] -[] @5");
}

/// Server 2 takes over from server 1 and dies before it hears so; server 3 has lost everything.
#[test]
fn a_primary_that_never_heard_its_ballots_goes_on_when_no_member_has_anything() {
    let mut bench = started(3);
    bench.pass(Duration::from_secs(25), &[2, 3]);
    bench.proposals.clear();
    let mut heir = bench.report(P, ConfigType::UpgradeToPrimary, 2);
    heir.known_ballot = Some(3);
    assert_eq!(bench.update(&heir).unwrap().err, ErrorCode::Ok);
    bench.pass(Duration::from_secs(25), &[3]);
    assert_eq!(shape(&bench.partition(P).config), "0 [3] -[1,2] @6");
    bench = bench.restart();
    bench.beacon(3, 2);
    bench.sync(3, &[]);
    bench.beacon(2, 2);
    // A copy that it left behind, from before it came into the group.
    bench.sync(2, &[(P, 2, 0)]);
    bench.obey(&[2, 3]);
    assert_eq!(shape(&bench.partition(P).config), "0 [3] -[1,2] @6");
    bench.sync(2, &[(P, 3, 0)]);
    bench.obey(&[2, 3]);
    assert_eq!(shape(&bench.partition(P).config), "2 [3] -[1] @7");
    assert_eq!(
        bench.query("temp").partitions.first().unwrap().last_leader,
        None,
        "not for clients"
    );
}

/// Server 1 steps down and loses everything, as does server 2: server 3 left before, and has all that it heard of.
#[test]
fn who_left_under_another_leader_does_not_go_on_for_it() {
    let mut bench = started(3);
    let led = |bench: &mut Bench, kind, node| {
        let request = bench.report(P, kind, node);
        assert_eq!(bench.update(&request).unwrap().err, ErrorCode::Ok);
    };
    led(&mut bench, ConfigType::DowngradeToInactive, 3);
    led(&mut bench, ConfigType::DowngradeToSecondary, 1);
    assert_eq!(shape(&bench.partition(P).config), "0 [2,1] -[3] @5");
    [1, 2].iter().for_each(|node| drop(bench.sync(*node, &[])));
    bench.sync(3, &[(P, 4, 0)]);
    bench.pass(Duration::from_secs(5), &[1, 2, 3]);
    bench.obey(&[3]);
    assert_eq!(shape(&bench.partition(P).config), "0 [2,1] -[3] @5");
    assert!(bench.partition(P).stuck.is_some());
}

#[test]
fn a_lost_copy_is_waited_for_and_then_made_elsewhere() {
    let mut options = options();
    options.meta.replica_assign_delay_ms_for_dropouts = 60_000;
    let mut bench = Bench::on(Default::default(), options);
    [1, 2, 3].iter().for_each(|node| bench.beacon(*node, 1));
    bench.create("temp", 1, 3);
    bench.obey(&[1, 2, 3]);
    bench.beacon(4, 1);
    bench.pass(Duration::from_secs(30), &[1, 2, 4]);
    bench.obey(&[1, 2, 4]);
    assert_eq!(shape(&bench.partition(P).config), "1 [2] -[3] @4");
    bench.pass(Duration::from_secs(30), &[1, 2, 4]);
    bench.obey(&[1, 2, 4]);
    assert_eq!(shape(&bench.partition(P).config), "1 [2] -[3] @4", "not long enough");
    bench.pass(Duration::from_secs(45), &[1, 2, 4]);
    bench.obey(&[1, 2, 4]);
    assert_eq!(shape(&bench.partition(P).config), "1 [2,4] -[3] @5");
}

#[test]
fn reports_with_a_wrong_ballot_or_another_group_are_refused() {
    let mut bench = started(1);
    let good = bench.report(P, ConfigType::PrimaryForceUpdateBallot, 1);
    let refused = |bench: &mut Bench, f: &dyn Fn(&mut PartitionConfiguration)| {
        let mut request = good.clone();
        f(&mut request.config);
        let response = bench.update(&request).unwrap();
        (response.err, response.config.ballot)
    };
    assert_eq!(refused(&mut bench, &|c| c.ballot = 3), (ErrorCode::InvalidVersion, 1));
    assert_eq!(refused(&mut bench, &|c| c.ballot = 0), (ErrorCode::InvalidVersion, 1));
    let other = refused(&mut bench, &|c| c.secondaries.push(addr(9)));
    assert_eq!(other, (ErrorCode::InvalidState, 1));
    let unknown = refused(&mut bench, &|c| c.pid = Gpid::new(1, 9));
    assert_eq!(unknown.0, ErrorCode::ObjectNotFound);
    let unknown = refused(&mut bench, &|c| c.pid = Gpid::new(9, 0));
    assert_eq!(unknown.0, ErrorCode::ObjectNotFound);
    assert_eq!(refused(&mut bench, &|c| c.last_committed_decree = 77), (ErrorCode::Ok, 2));
    assert_eq!(bench.partition(P).config.last_committed_decree, 77);
}

#[test]
fn a_report_is_answered_when_it_is_durable_and_others_wait() {
    let mut bench = started(1);
    bench.budget = Some(0);
    let request = bench.report(P, ConfigType::PrimaryForceUpdateBallot, 1);
    let (first, second) = (bench.ticket(), bench.ticket());
    bench.with(|c, _, _| c.update_configuration(first, &request));
    assert!(bench.answer_to(first).is_none());
    assert_eq!(bench.sync(1, &[(P, 1, 5)]).err, ErrorCode::Busy, "half done");
    assert_eq!(shape(&bench.partition(P).config), "1 [] -[] @1");
    // Sent again, and something else at the same time.
    bench.with(|c, _, _| c.update_configuration(second, &request));
    assert!(bench.answer_to(second).is_none());
    let mut other = request.clone();
    other.config.primary = RpcAddress::INVALID;
    assert_eq!(bench.update(&other).unwrap().err, ErrorCode::IoPending);
    bench.budget = None;
    bench.pump();
    let crate::meta::state::Answer::Update(response) = bench.answer_to(second).unwrap() else {
        panic!("an update");
    };
    assert_eq!((response.err, response.config.ballot), (ErrorCode::Ok, 2));
    // Killed before it was durable: nobody was told, nothing has happened.
    bench.budget = Some(0);
    let request = bench.report(P, ConfigType::PrimaryForceUpdateBallot, 1);
    assert!(bench.update(&request).is_none());
    let mut bench = bench.restart();
    assert_eq!(bench.partition(P).config.ballot, 2);
    bench.beacon(1, 1);
    assert_eq!(bench.update(&request).unwrap().err, ErrorCode::Ok);
}

/// Bug 28: a server that has nothing of a group becomes its primary.
#[test]
fn only_the_chosen_server_may_go_on_with_data() {
    let mut bench = started(1);
    bench.beacon(2, 1);
    bench.pass(Duration::from_secs(25), &[2]);
    assert_eq!(shape(&bench.partition(P).config), "0 [] -[1] @2");
    let stranger = bench.report(P, ConfigType::AssignPrimary, 2);
    assert_eq!(bench.update(&stranger).unwrap().err, ErrorCode::InvalidState);
    bench.beacon(1, 2);
    bench.sync(1, &[(P, 1, 5)]);
    assert_eq!(bench.update(&stranger).unwrap().err, ErrorCode::InvalidState);
    bench.obey(&[1, 2]);
    assert_eq!(shape(&bench.partition(P).config), "1 [] -[] @3");
}

/// Bug 28: a server whose data directory was deleted comes back with nothing: it is not asked to lead, and that is
/// told.
#[test]
fn partitions_without_hope_are_told() {
    let mut bench = started(1);
    bench.pass(Duration::from_secs(25), &[]);
    let request = DddDiagnoseRequest { pid: Gpid::new(-1, -1) };
    let told = bench.cluster.ddd_diagnose(&request).partitions.first().unwrap();
    assert_eq!(told.config.pid, P);
    assert!(told.reason.contains("127.0.0.1:34801, which is not alive"), "{}", told.reason);
    bench.beacon(1, 2);
    bench.sync(1, &[]);
    let told = bench.cluster.ddd_diagnose(&request).partitions.first().unwrap();
    assert!(told.reason.contains("holds no replica"), "{}", told.reason);
    assert!(told.dropped.first().unwrap().is_collected);
    let other = DddDiagnoseRequest { pid: Gpid::new(2, -1) };
    assert!(bench.cluster.ddd_diagnose(&other).partitions.is_empty());
}

#[test]
fn lost_proposals_are_repeated_and_a_deaf_server_is_passed_over() {
    let mut bench = Bench::new();
    bench.beacon(1, 1);
    bench.create("temp", 1, 1);
    bench.proposals.clear();
    bench.pass(Duration::from_secs(4), &[1]);
    assert_eq!(bench.proposals.len(), 3, "after 0.5, 1.5 and 3.5 seconds");
    bench.beacon(2, 1);
    bench.proposals.clear();
    bench.pass(Duration::from_secs(40), &[1, 2]);
    assert!(bench.proposals.iter().any(|(to, _)| *to == addr(2)));
    bench.obey(&[2]);
    assert_eq!(bench.partition(P).config.primary, addr(2));
}

#[test]
fn levels_limit_what_is_done() {
    let mut bench = started(1);
    let set = |bench: &mut Bench, level| {
        bench.with(|c, now, _| c.control(&MetaControlRequest { level }, now).old_level)
    };
    assert_eq!(set(&mut bench, MetaFunctionLevel::Blind), MetaFunctionLevel::Steady);
    let request = bench.report(P, ConfigType::PrimaryForceUpdateBallot, 1);
    assert_eq!(bench.update(&request).unwrap().err, ErrorCode::StateFreezed);
    bench.pass(Duration::from_secs(25), &[]);
    assert_eq!(shape(&bench.partition(P).config), "1 [] -[] @1", "blind: not even that");
    assert_eq!(set(&mut bench, MetaFunctionLevel::Freezed), MetaFunctionLevel::Blind);
    assert_eq!(shape(&bench.partition(P).config), "0 [] -[1] @2");
    assert_eq!(set(&mut bench, MetaFunctionLevel::Invalid), MetaFunctionLevel::Freezed);
    assert_eq!(set(&mut bench, MetaFunctionLevel::Other(3)), MetaFunctionLevel::Freezed);
    assert_eq!(bench.cluster.level(), FunctionLevel::Freezed);
}

#[test]
fn too_few_living_servers_freeze_the_cluster() {
    let mut options = options();
    options.meta.min_live_node_count_for_unfreeze = 2;
    options.meta.node_live_percentage_threshold_for_update = 60;
    let mut bench = Bench::on(Default::default(), options);
    bench.beacon(1, 1);
    assert_eq!(bench.create("temp", 1, 1), ErrorCode::StateFreezed);
    [2, 3].iter().for_each(|node| bench.beacon(*node, 1));
    assert_eq!(bench.create("temp", 1, 1), ErrorCode::Ok);
    bench.pass(Duration::from_secs(25), &[1, 2]);
    assert_eq!(bench.cluster.effective_level(), FunctionLevel::Steady, "66 % of 3");
    bench.beacon(4, 1);
    bench.pass(Duration::from_secs(25), &[1, 2]);
    assert_eq!(bench.cluster.effective_level(), FunctionLevel::Freezed, "50 % of 4");
}

/// Bug 43: the last good copy of a group that is not whole is deleted.
#[test]
fn leftovers_are_deleted_only_when_everything_is_well() {
    let mut bench = started(2);
    bench.beacon(3, 1);
    let garbage = |bench: &mut Bench, stored: &[(Gpid, i64, i64)]| {
        let response = bench.sync(3, stored);
        assert_eq!(response.err, ErrorCode::Ok);
        response.gc_replicas.unwrap().iter().map(|info| info.pid).collect::<Vec<_>>()
    };
    let unknown_table = Gpid::new(0, 0);
    let future_table = Gpid::new(9, 0);
    let stored = [(P, 1, 5), (unknown_table, 1, 1), (future_table, 1, 1)];
    assert_eq!(garbage(&mut bench, &stored), [], "steady: nothing is deleted");
    bench.with(|c, now, _| c.set_level(FunctionLevel::Lively, now));
    assert_eq!(garbage(&mut bench, &stored), [P, unknown_table]);
    assert_eq!(garbage(&mut bench, &[(P, 99, 5)]), [], "it is ahead of the group");
    bench.pass(Duration::from_secs(25), &[1, 3]);
    assert_eq!(garbage(&mut bench, &[(P, 1, 5)]), [], "the group is not complete");
}

#[test]
fn forty_servers_are_filled_evenly() {
    let mut bench = Bench::new();
    let nodes = 40u8;
    (1..=nodes).for_each(|node| bench.beacon(node, 1));
    for table in ["a", "b", "c"] {
        assert_eq!(bench.create(table, 400, 3), ErrorCode::Ok);
    }
    bench.obey(&(1..=nodes).collect::<Vec<_>>());
    for table in ["a", "b", "c"] {
        let config = bench.query(table);
        let mut primaries = vec![0; usize::from(nodes) + 1];
        let mut replicas = primaries.clone();
        for partition in &config.partitions {
            assert_eq!(partition.secondaries.len(), 2);
            primaries[usize::from(partition.primary.ip().octets()[3])] += 1;
            for node in partition.secondaries.iter().chain([&partition.primary]) {
                replicas[usize::from(node.ip().octets()[3])] += 1;
            }
        }
        assert!(primaries[1..].iter().all(|n| *n == 10), "{table}: {primaries:?}");
        assert!(replicas[1..].iter().all(|n| (28..=32).contains(n)), "{table}: {replicas:?}");
    }
    let info = bench.cluster.cluster_info();
    let deviation = &info.values[6];
    assert_eq!(
        (info.keys[6].as_str(), deviation.as_str()),
        ("primary_replica_count_stddev", "0.00")
    );
}
