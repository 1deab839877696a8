//! Everybody who could lead a group may have lost the end of its log: who of them goes on, and who is waited for.
//!
//! A member has everything that its group acknowledged; but where that did not rest on a sync, a machine that was
//! started anew may have lost some of it, and says so ([`Tails`](crate::log::Tails)). While another member is there
//! that is certain, it leads. Else one may have what another has lost: as many as the group should have are waited for,
//! its members and those that left last, and of those that answer the one that has most goes on. After a time
//! (`uncertain_log_wait_seconds`) it goes on without the others: what all that are there have lost was not promised to
//! survive.

use dsn_core::time::Mono;
use dsn_rpc::address::RpcAddress;
use dsn_rpc::gpid::Gpid;

use super::cure::View;
use super::ddd::{Former, REFUSES};
use crate::meta::state::Cluster;
use crate::meta::state::app::members;
use crate::options::seconds;
use crate::wire::config::PartitionConfiguration;

impl Former {
    /// It may have a replica of which it has told nothing.
    pub(super) fn may_hold(&self) -> bool {
        self.replica.is_none() && (self.refused || self.incomplete)
    }

    /// Its report has arrived, and says what it has of the group.
    pub(super) fn has_answered(&self) -> bool {
        self.alive && self.collected && !self.may_hold()
    }

    /// It is known to hold a replica whose log has everything that it ever acknowledged.
    pub(super) fn is_certain(&self) -> bool {
        self.has_answered() && self.replica.is_some() && !self.uncertain
    }

    /// It is known to hold a replica the end of whose log may be missing.
    pub(super) fn may_lack(&self) -> bool {
        self.has_answered() && self.replica.is_some() && self.uncertain
    }
}

/// Who of `asked` goes on, when none of those that are there has everything for certain: by ballot, then by what is
/// prepared, among those that have what others know to be committed. The first `last_members` of `asked` were the group
/// as it was last; `committed_once` is the highest commit point that anybody ever reported: with less than that nobody
/// goes on while one of those members has a replica that its disk refuses. `waited`: for those that are away for long
/// enough. Who is there and has yet to report is waited for always.
///
/// # Errors
/// A sentence for the operator: who is waited for, or that nobody has a replica.
pub fn choose_most(
    asked: &[Former],
    last_members: usize,
    committed_once: i64,
    waited: bool,
) -> Result<RpcAddress, String> {
    let names = |which: &dyn Fn(&Former) -> bool| {
        let nodes = asked.iter().filter(|one| which(one)).map(|one| one.node.to_string());
        nodes.collect::<Vec<_>>().join(", ")
    };
    let reports_soon = names(&|one| one.alive && !one.collected);
    let silent = names(&|one| !one.has_answered());
    if !reports_soon.is_empty() && waited {
        return Err(format!("waits for the report of {reports_soon}"));
    }
    if !silent.is_empty() && !waited {
        let lacking = names(&Former::may_lack);
        return Err(format!(
            "the end of the log may be missing at {lacking}: the machine was started anew since it was written, and \
             log_durability does not ask for it to be synced before writes are acknowledged; waits for what {silent} \
             has, for uncertain_log_wait_seconds"
        ));
    }
    let there = || asked.iter().filter(|one| one.has_answered());
    let numbers = there().filter_map(|one| Some((one, one.replica?)));
    let committed = numbers.clone().map(|(_, (_, committed, _))| committed).max();
    let able = numbers.filter(|(_, (_, _, prepared))| Some(*prepared) >= committed);
    // Of equals, the first: a member before one that has left.
    let best = able
        .rev()
        .max_by_key(|(_, (ballot, committed, prepared))| (*ballot, *prepared, *committed));
    // What is known to be on the disk of a member that is there is not given up.
    let mut members = asked.iter().take(last_members);
    let refused = members.find(|one| one.alive && one.refused && one.replica.is_none());
    match (best, refused) {
        (Some((one, (_, _, prepared))), Some(other)) if prepared < committed_once => Err(format!(
            "{} has prepared up to {prepared}, but {committed_once} was committed; waits for {}, {REFUSES}",
            one.node, other.node
        )),
        (Some((one, _)), _) => Ok(one.node),
        (None, Some(other)) => Err(format!("waits for {}, {REFUSES}", other.node)),
        (None, None) => Err("nobody who is there holds a replica any more".to_owned()),
    }
}

impl View {
    fn asked(&self, node: RpcAddress) -> Option<&Former> {
        self.asked.iter().find(|one| one.node == node)
    }

    /// Whether a server is known to hold a replica the end of whose log may be missing.
    pub(super) fn may_lack(&self, node: RpcAddress) -> bool {
        self.asked(node).is_some_and(Former::may_lack)
    }

    /// Whether a server is known to have everything that it ever acknowledged.
    pub(super) fn is_certain(&self, node: RpcAddress) -> bool {
        self.asked(node).is_some_and(Former::is_certain)
    }

    /// Who goes on, when nobody is certain to have everything.
    pub(super) fn most(&self) -> Result<RpcAddress, String> {
        // The secondaries, and the primary or who was it last.
        let members = 1 + self.config.secondaries.len();
        choose_most(&self.asked, members, self.committed, self.tails_waited)
    }
}

impl Cluster {
    /// Who is asked for what it has: as many as the group should have, its members first, then those that left last.
    pub(super) fn asked(&self, config: &PartitionConfiguration) -> Vec<Former> {
        let wanted = usize::try_from(config.max_replica_count).unwrap_or_default();
        let mut nodes: Vec<RpcAddress> = members(config).collect();
        let missing = wanted.saturating_sub(nodes.len());
        nodes.extend(config.last_drops.iter().rev().take(missing));
        nodes.into_iter().map(|node| self.known_of(config.pid, node)).collect()
    }

    /// Whether a server has reported that the end of its replica's log may be missing.
    pub(super) fn may_lack(&self, gpid: Gpid, node: RpcAddress) -> bool {
        self.known_of(gpid, node).may_lack()
    }

    /// Others are waited for because those that are there may lack something; since when.
    pub(super) fn await_tails(&mut self, gpid: Gpid, now: Mono) {
        if let Some(partition) = self.partition_mut(gpid) {
            partition.uncertain_since.get_or_insert(now);
        }
    }

    /// Whether others have been waited for long enough.
    pub(super) fn tails_waited(&self, gpid: Gpid, now: Mono) -> bool {
        let wait = seconds(self.options.meta.uncertain_log_wait_seconds);
        let since = self.partition(gpid).and_then(|partition| partition.uncertain_since);
        wait.is_zero() || since.is_some_and(|since| now.saturating_since(since) >= wait)
    }

    /// Tells the operator that a group goes on with one that may lack something.
    pub(super) fn tell_what_may_be_lost(&mut self, gpid: Gpid, node: RpcAddress) {
        let Some(partition) = self.partition(gpid) else { return };
        let known = partition.known_committed;
        let others: Vec<String> = self
            .asked(&partition.config)
            .into_iter()
            .map(|one| match one.replica {
                Some((ballot, committed, prepared)) => format!(
                    "{}: ballot {ballot}, committed {committed}, prepared {prepared}, {}",
                    one.node,
                    if one.uncertain { "uncertain" } else { "certain" }
                ),
                None if one.has_answered() => format!("{}: no replica", one.node),
                None => format!("{}: no answer", one.node),
            })
            .collect();
        tracing::error!(
            %gpid,
            %node,
            committed = known,
            ?others,
            "acknowledged writes may be lost: the group goes on with a replica the end of whose log may be missing, \
             for its machine was started anew since the log was written, which log_durability does not sync before \
             writes are acknowledged; nobody who is there has more"
        );
        if let Some(partition) = self.partition_mut(gpid) {
            partition.may_have_lost = Some(format!("the end of the log of {node}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::group::cure::{Action, decide};
    use crate::meta::group::placement::Candidate;
    use crate::meta::testing::{Bench, addr, options};
    use crate::wire::admin::DddDiagnoseRequest;
    use crate::wire::config::{ConfigType, Leader, PartitionStatus, ReplicaInfo};
    use std::time::Duration;

    const P: Gpid = Gpid::new(1, 0);
    const NOBODY: RpcAddress = RpcAddress::INVALID;

    fn server(n: u8) -> Former {
        Former { node: addr(n), ..Former::default() }
    }

    /// A server that is there: ballot, committed and prepared.
    fn certain(n: u8, numbers: (i64, i64, i64)) -> Former {
        Former { alive: true, collected: true, replica: Some(numbers), ..server(n) }
    }

    fn uncertain(n: u8, numbers: (i64, i64, i64)) -> Former {
        Former { uncertain: true, ..certain(n, numbers) }
    }

    #[test]
    fn of_those_that_may_lack_something_the_one_that_has_most_goes_on() {
        let empty = Former { replica: None, ..certain(3, (0, 0, 0)) };
        let cases = [
            (vec![uncertain(1, (7, 50, 60)), uncertain(2, (7, 40, 61))], 2, "prepared"),
            (vec![uncertain(1, (7, 50, 60)), uncertain(2, (7, 40, 60))], 1, "committed"),
            (vec![uncertain(1, (7, 50, 60)), uncertain(2, (7, 50, 60))], 1, "a member first"),
            (vec![uncertain(1, (7, 50, 60)), uncertain(2, (8, 50, 55))], 2, "ballot"),
            (vec![uncertain(1, (7, 50, 60)), uncertain(2, (8, 40, 49))], 1, "50 is committed"),
            (vec![uncertain(1, (7, 50, 60)), certain(2, (6, 61, 62))], 2, "61 is committed"),
            (vec![uncertain(1, (7, 0, 0)), empty.clone()], 1, "the other has nothing"),
        ];
        for (asked, expected, why) in cases {
            assert_eq!(choose_most(&asked, 1, 0, false), Ok(addr(expected)), "{why}: {asked:?}");
        }
        assert!(choose_most(&[empty], 1, 0, false).unwrap_err().contains("nobody"));
    }

    #[test]
    fn the_others_are_waited_for_and_not_for_ever() {
        let asked = [uncertain(1, (7, 50, 60)), server(2)];
        let reason = choose_most(&asked, 1, 0, false).unwrap_err();
        assert!(reason.contains("missing at 127.0.0.1:34801"), "{reason}");
        assert!(reason.contains("what 127.0.0.2:34801 has"), "{reason}");
        assert_eq!(choose_most(&asked, 1, 0, true), Ok(addr(1)));
        let silent = Former { alive: true, ..server(2) };
        let asked = [asked[0].clone(), silent];
        assert!(choose_most(&asked, 1, 0, true).unwrap_err().contains("the report of"));
    }

    #[test]
    fn what_is_on_a_disk_that_refuses_it_is_not_given_up() {
        let shut = Former { replica: None, refused: true, ..certain(2, (0, 0, 0)) };
        let mut asked = [uncertain(1, (7, 50, 60)), shut];
        let chosen = |asked: &[Former], committed, waited| choose_most(asked, 2, committed, waited);
        let reason = chosen(&asked, 61, false).unwrap_err();
        assert!(reason.contains("what 127.0.0.2:34801 has"), "{reason}");
        let reason = chosen(&asked, 61, true).unwrap_err();
        assert!(reason.contains("but 61 was committed; waits for 127.0.0.2:34801"), "{reason}");
        assert_eq!(chosen(&asked, 60, true), Ok(addr(1)), "all that is known of");
        assert_eq!(choose_most(&asked, 1, 61, true), Ok(addr(1)), "the other had left before");
        asked[1].collected = false;
        let reason = chosen(&asked, 60, true).unwrap_err();
        assert!(reason.contains("the report of 127.0.0.2:34801"), "it is there again: {reason}");
        asked[1] = Former { incomplete: true, refused: false, collected: true, ..asked[1].clone() };
        assert!(chosen(&asked, 61, false).is_err(), "another disk may have it");
        assert_eq!(chosen(&asked, 61, true), Ok(addr(1)), "nobody knows that it does");
    }

    /// A group of three with these members; `0` for no primary.
    fn view(primary: u8, secondaries: &[u8], drops: &[u8], asked: &[Former]) -> View {
        let nodes = |nodes: &[u8]| nodes.iter().map(|n| addr(*n)).collect();
        let config = PartitionConfiguration {
            pid: P,
            ballot: 7,
            max_replica_count: 3,
            primary: if primary == 0 { NOBODY } else { addr(primary) },
            secondaries: nodes(secondaries),
            last_drops: nodes(drops),
            last_leader: drops
                .last()
                .map(|n| Leader { node: addr(*n), known_ballot: 6 })
                .filter(|_| primary == 0),
            ..PartitionConfiguration::default()
        };
        let known = |n: &u8| asked.iter().find(|one| one.node == addr(*n)).cloned();
        let known = |n: &u8| known(n).unwrap_or(server(*n));
        let alive = asked.iter().filter(|one| one.alive).map(|one| Candidate {
            node: one.node,
            load: Default::default(),
            doubtful: false,
            may_be_gone: false,
            lacks: one.collected && one.replica.is_none(),
            asked: false,
        });
        let members = [&[primary][..], secondaries].concat();
        let members = members.iter().filter(|n| **n > 0).chain(drops.iter().rev());
        View {
            config,
            alive: alive.collect(),
            former: drops.iter().map(known).collect(),
            asked: members.map(known).take(3).collect(),
            idle: primary > 0,
            min_members: 2,
            ..View::default()
        }
    }

    fn leads(n: u8, kind: ConfigType) -> Action {
        Action::Propose { target: addr(n), node: addr(n), kind }
    }

    #[test]
    fn what_is_decided_about_a_primary_that_was_started_anew() {
        let goes_on = leads(1, ConfigType::AssignPrimary);
        let decided = |asked: &[Former]| decide(&view(1, &[2, 3], &[], asked));
        let known = |action: Action| match action {
            Action::Await(_) => "waits".to_owned(),
            other => format!("{other:?}"),
        };
        assert_eq!(decided(&[certain(1, (7, 5, 9))]), goes_on, "it has everything");
        let lost = uncertain(1, (7, 5, 9));
        assert_eq!(known(decided(std::slice::from_ref(&lost))), "waits");
        let taken_out = Action::TakeOut(addr(1));
        let other = |other| decided(&[lost.clone(), other]);
        assert_eq!(other(certain(2, (7, 5, 9))), taken_out, "another has everything");
        assert_eq!(known(other(uncertain(2, (7, 5, 11)))), "waits", "for the third");
        let all = |two, three| decided(&[lost.clone(), uncertain(2, two), uncertain(3, three)]);
        assert_eq!(all((7, 5, 8), (7, 5, 11)), taken_out, "another has more");
        assert_eq!(all((7, 5, 8), (7, 5, 9)), goes_on, "nobody has more");
        let mut late = view(1, &[2, 3], &[], &[lost, uncertain(2, (7, 5, 8))]);
        late.tails_waited = true;
        assert_eq!(decide(&late), goes_on);
    }

    #[test]
    fn what_is_decided_when_nobody_leads() {
        use ConfigType::{AssignPrimary, UpgradeToPrimary};
        let decided = |secondaries: &[u8], drops: &[u8], asked: &[Former]| {
            decide(&view(0, secondaries, drops, asked))
        };
        let waits = |action: &Action| matches!(action, Action::Await(_));
        let lost = uncertain(2, (7, 5, 9));
        // A secondary that is certain takes over, and one of which nothing is known yet: it would say no itself.
        let unknown = Former { alive: true, ..server(3) };
        for other in [certain(3, (7, 5, 8)), unknown] {
            let asked = [lost.clone(), other];
            assert_eq!(decided(&[2, 3], &[1], &asked), leads(3, UpgradeToPrimary));
        }
        assert!(waits(&decided(&[2, 3], &[1], std::slice::from_ref(&lost))));
        // The primary of the group as it was last is as good as a secondary.
        let asked = [lost.clone(), certain(1, (7, 5, 9))];
        assert_eq!(decided(&[2, 3], &[1], &asked), leads(1, AssignPrimary));
        let empty = Former { replica: None, ..certain(3, (0, 0, 0)) };
        let asked = [lost.clone(), empty, uncertain(1, (7, 5, 10))];
        assert_eq!(decided(&[2, 3], &[1], &asked), leads(1, AssignPrimary), "it has most");
        let asked = [lost.clone(), uncertain(3, (7, 5, 11)), uncertain(1, (7, 5, 10))];
        assert_eq!(decided(&[2, 3], &[1], &asked), leads(3, UpgradeToPrimary), "it has most");
        // Whoever is left of the members holds nothing, or is away: the last primary has everything.
        let empty = Former { replica: None, ..certain(2, (0, 0, 0)) };
        let last = certain(1, (6, 5, 9));
        let asked = [empty, last];
        let goes_on = leads(1, AssignPrimary);
        assert_eq!(decided(&[2], &[3, 1], &asked), goes_on, "it has nothing");
        assert_eq!(decided(&[2], &[3, 1], &asked[1..]), goes_on, "it is away");
        assert!(matches!(decided(&[2], &[3, 1], &asked[..1]), Action::Stuck(_)), "nobody has");
        let third = certain(3, (5, 5, 9));
        assert!(matches!(decided(&[2], &[3, 1], &[third]), Action::Stuck(_)), "not its word");
        let mut more = view(0, &[2], &[3, 1], &asked);
        more.committed = 10;
        assert!(matches!(decide(&more), Action::Stuck(_)), "it has lost something");
        // Everybody has left: the last one's word counts, if it is certain.
        let first = certain(1, (6, 5, 5));
        let asked = [first.clone(), certain(2, (7, 5, 9))];
        assert_eq!(decided(&[], &[1, 2], &asked), leads(2, AssignPrimary));
        assert_eq!(decided(&[], &[1, 2], &[first.clone(), lost.clone()]), leads(2, AssignPrimary));
        let asked = [certain(1, (6, 11, 11)), lost.clone()];
        assert_eq!(decided(&[], &[1, 2], &asked), leads(1, AssignPrimary), "it has what was lost");
        assert!(waits(&decided(&[], &[3, 1, 2], &[first, lost])));
        let asked = [uncertain(1, (6, 5, 5))];
        assert!(matches!(decided(&[], &[1, 2], &asked), Action::Stuck(_)), "not without the last");
    }

    fn report(ballot: i64, prepared: i64, uncertain: bool) -> [ReplicaInfo; 1] {
        [ReplicaInfo {
            pid: P,
            ballot,
            last_committed_decree: 5,
            last_prepared_decree: prepared,
            tail_uncertain: uncertain.then_some(true),
            ..ReplicaInfo::default()
        }]
    }

    /// A table of one partition with members 1 to 3, whose machines have all lost their power.
    fn dark() -> Bench {
        let mut options = options();
        options.meta.uncertain_log_wait_seconds = 60;
        let mut bench = Bench::on(Default::default(), options);
        [1, 2, 3].iter().for_each(|node| bench.beacon(*node, 1));
        bench.create("temp", 1, 3);
        bench.obey(&[1, 2, 3]);
        bench
    }

    fn reason(bench: &Bench) -> String {
        let request = DddDiagnoseRequest { pid: P };
        let told = bench.cluster.ddd_diagnose(&request).partitions.first();
        told.map(|told| told.reason).unwrap_or_default()
    }

    #[test]
    fn the_one_that_has_most_leads_after_a_power_loss_of_all() {
        let mut bench = dark();
        bench.beacon(1, 2);
        bench.sync_with(1, report(3, 6, true));
        bench.beacon(2, 2);
        bench.sync_with(2, report(3, 9, true));
        assert!(bench.proposals.is_empty(), "the third may have more");
        assert!(
            reason(&bench).contains("waits for what 127.0.0.3:34801 has"),
            "{}",
            reason(&bench)
        );
        bench.beacon(3, 2);
        bench.sync_with(3, report(3, 8, true));
        let (to, proposal) = &bench.proposals[0];
        assert_eq!((*to, proposal.config_type), (addr(2), ConfigType::UpgradeToPrimary));
        assert_eq!(proposal.despite_uncertain_tail, Some(true), "it must know that this is known");
        bench.obey(&[1, 2, 3]);
        assert_eq!(bench.partition(P).config.primary, addr(2));
        assert_eq!(reason(&bench), "");
        let lost = bench.partition(P).may_have_lost.clone().expect("people are told");
        assert!(lost.contains("127.0.0.2:34801"), "{lost}");
        assert_eq!(bench.partition(P).uncertain_since, None);
    }

    #[test]
    fn what_was_given_up_is_not_asked_for_for_ever() {
        let mut bench = dark();
        bench.sync(1, &[(P, 3, 61)]);
        assert_eq!(bench.partition(P).known_committed, 61);
        for (node, prepared) in [(1, 50), (2, 51), (3, 49)] {
            bench.beacon(node, 2);
            bench.sync_with(node, report(3, prepared, true));
        }
        bench.obey(&[1, 2, 3]);
        assert_eq!(bench.partition(P).config.primary, addr(2), "it has most");
        assert_eq!(bench.partition(P).known_committed, 5, "what it knows");
        assert_eq!(bench.restart().partition(P).known_committed, 5);
    }

    /// One has lost everything, the disks of the others are full: they have it, and cannot open it.
    #[test]
    fn a_replica_that_its_disk_refuses_is_waited_for() {
        let mut bench = dark();
        let before = report(3, 8, false).map(|info| ReplicaInfo {
            status: PartitionStatus::Primary,
            last_committed_decree: 8,
            ..info
        });
        bench.sync_with(1, before);
        bench.beacon(1, 2);
        bench.sync_with(1, report(3, 5, true));
        for node in [2, 3] {
            bench.beacon(node, 2);
            bench.sync_all(node, [], &[P]);
        }
        assert!(reason(&bench).contains("waits for what 127.0.0.2:34801"), "{}", reason(&bench));
        for _ in 0..9 {
            bench.pass(Duration::from_secs(10), &[]);
            [1, 2, 3].iter().for_each(|node| bench.beacon(*node, 2));
            assert!(bench.proposals.is_empty(), "{}", reason(&bench));
        }
        assert!(reason(&bench).contains("whose disk refuses its replica"), "{}", reason(&bench));
        bench.sync_with(3, report(3, 8, false));
        bench.obey(&[1, 2, 3]);
        assert_eq!(bench.partition(P).config.primary, addr(3));
    }

    #[test]
    fn after_its_time_a_group_goes_on_without_those_that_stay_away() {
        let mut bench = dark();
        bench.beacon(1, 2);
        bench.sync_with(1, report(3, 6, true));
        bench.pass(Duration::from_secs(55), &[]);
        bench.beacon(1, 3);
        bench.sync_with(1, report(3, 6, true));
        assert!(bench.proposals.is_empty(), "not yet: {}", reason(&bench));
        bench.pass(Duration::from_secs(25), &[]);
        bench.beacon(1, 4);
        bench.sync_with(1, report(3, 6, true));
        bench.obey(&[1]);
        assert_eq!(bench.partition(P).config.primary, addr(1));
    }

    #[test]
    fn a_server_that_turns_out_to_lack_something_is_passed_over() {
        let mut bench = dark();
        bench.pass(Duration::from_secs(30), &[2, 3]);
        let (heir, proposal) = bench.proposals[0].clone();
        assert_eq!(proposal.config_type, ConfigType::UpgradeToPrimary);
        assert_eq!(proposal.despite_uncertain_tail, None);
        bench.proposals.clear();
        let heir = heir.ip().octets()[3];
        bench.beacon(heir, 2);
        bench.sync_with(heir, report(3, 6, true));
        let (other, _) = bench.proposals[0];
        assert_eq!(other, addr(5 - heir), "of which nothing bad is known");
    }
}
