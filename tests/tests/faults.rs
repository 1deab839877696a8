//! Faults by name, told to a whole group: three or more servers, meta server, clients under load. The judges of every
//! simulated run look on: linearizability, one primary per ballot, one server that serves, equal contents and images,
//! liveness, leaks. `docs/faults.md` says which row, scenario or bug each of them is.

use cluster_tests::simulation::{RunReport, run};
use dsn_core::sim::{Fault, Scenario, TimedFault};
use std::time::Duration;

const SERVERS: [&str; 3] = ["replica", "replica1", "replica2"];
const META: &str = "meta";

/// A group of three under load for 40 virtual seconds, without any fault yet. Even seeds acknowledge what is in the
/// page cache, odd ones what is synced.
fn story(seed: u64) -> Scenario {
    let mut scenario = Scenario::quiet(seed, Duration::from_secs(40));
    for (name, value) in [
        ("cluster.servers", 3),
        ("cluster.copies", 3),
        ("cluster.clients", 4),
        ("workload.think_ms", 40),
        ("meta.round_ms", 1_000),
    ] {
        scenario.knobs.insert(name.to_owned(), value);
    }
    scenario
}

fn with(mut scenario: Scenario, faults: impl IntoIterator<Item = (u64, Fault)>) -> Scenario {
    scenario.faults.extend(faults.into_iter().map(|(at_ms, fault)| TimedFault { at_ms, fault }));
    scenario.faults.sort_by_key(|timed| timed.at_ms);
    scenario
}

fn knob(mut scenario: Scenario, name: &str, value: u64) -> Scenario {
    scenario.knobs.insert(name.to_owned(), value);
    scenario
}

/// Runs it; nobody may object.
fn holds(scenario: &Scenario) -> RunReport {
    println!("{scenario}");
    let report = run(scenario, false);
    assert_eq!(report.report.violation, None);
    assert!(report.acked > 1_000, "{} calls answered", report.acked);
    assert!(report.images > 0, "images were compared");
    report
}

/// Partitions: without a fault each has one leader.
const LEADERS: usize = 4;
/// Ballots without a fault: each group begins, gets two members, and goes on when all servers were started anew at the
/// end.
const BALLOTS: usize = 4 * LEADERS;

/// Somebody else came to lead.
fn taken_over(report: &RunReport) {
    assert!(report.leaders > LEADERS, "nobody took over: {report:?}");
}

/// Groups have changed.
fn regrouped(report: &RunReport) {
    assert!(report.ballots > BALLOTS, "no group has changed: {report:?}");
}

/// Nothing became of the fault: nobody left, nobody took over.
fn undisturbed(report: &RunReport) {
    assert_eq!((report.leaders, report.ballots), (LEADERS, BALLOTS), "{report:?}");
}

/// Clients were never without any answer for so long.
fn answered_within(report: &RunReport, limit: Duration) {
    assert!(report.silence < limit, "silence of {:?}", report.silence);
}

fn names(nodes: &[&str]) -> Vec<String> {
    nodes.iter().map(|node| (*node).to_owned()).collect()
}

fn kill(node: &str, down_ms: u64) -> Fault {
    Fault::Kill { node: node.to_owned(), down_ms }
}

fn power_off(node: &str, down_ms: u64) -> Fault {
    Fault::PowerOff { node: node.to_owned(), down_ms }
}

fn cut(one: &[&str], other: &[&str], ms: u64) -> Fault {
    Fault::Partition { one: names(one), other: names(other), ms }
}

fn cut_one_way(from: &[&str], to: &[&str], ms: u64) -> Fault {
    Fault::PartitionOneWay { from: names(from), to: names(to), ms }
}

fn pause(node: &str, ms: u64) -> Fault {
    Fault::Pause { node: node.to_owned(), ms }
}

/// Row "kill -9, any one".
#[test]
fn any_one_server_is_killed() {
    let nodes = SERVERS.into_iter().chain([META]);
    let kills = nodes.zip(0..).map(|(node, n)| (2_000 + n * 9_000, kill(node, 3_000)));
    let report = holds(&with(story(2), kills));
    taken_over(&report);
    answered_within(&report, Duration::from_secs(1));
}

/// Row "kill -9 all replicas and meta, at once": nothing that was acknowledged is lost, nobody has to help.
#[test]
fn all_servers_are_killed_at_once() {
    for at in [5_000, 20_000] {
        let nodes = SERVERS.into_iter().chain([META]);
        regrouped(&holds(&with(story(4), nodes.map(|node| (at, kill(node, 500))))));
    }
}

/// Row "power loss, one and all", scenario 10: with `group_sync` nothing is lost, whoever comes back first.
#[test]
fn all_servers_lose_their_power_at_once() {
    for order in [[100, 4_000, 9_000], [9_000, 100, 4_000], [4_000, 9_000, 100]] {
        let faults = SERVERS.into_iter().zip(order);
        let offs = faults.map(|(node, down)| (10_000, power_off(node, down)));
        regrouped(&holds(&with(story(5), offs)));
    }
}

/// Scenario 8: a server is back within the grace, as primary, as secondary and while others learn from it.
#[test]
fn servers_are_back_before_they_are_missed() {
    let faults = (0..15).map(|n| (1_500 + n * 2_500, kill(SERVERS[n as usize % 3], 120)));
    taken_over(&holds(&with(story(6), faults)));
    let learn = |node| (0..6).map(move |n| (10_100 + n * 60, kill(node, 20)));
    let learner = [(4_000, kill(SERVERS[2], 6_000))].into_iter().chain(learn(SERVERS[2]));
    regrouped(&holds(&with(story(8), learner)));
}

/// Scenario 19: two of three fail at once.
#[test]
fn two_members_fail_at_once() {
    let kills = [(6_000, kill(SERVERS[1], 8_000)), (6_001, kill(SERVERS[2], 9_000))];
    let report = holds(&with(story(10), kills));
    taken_over(&report);
    assert!(report.errors.contains_key("ERR_NOT_ENOUGH_MEMBER"), "{report:?}");
    answered_within(&report, Duration::from_secs(2));
}

/// Row "partition", scenario 3: cut off from the meta server alone.
#[test]
fn primaries_are_cut_off_from_the_meta_server_only() {
    let faults = SERVERS.into_iter().zip(0..);
    let report = holds(&with(
        story(12),
        faults.map(|(node, n)| (2_000 + n * 12_000, cut(&[node], &[META], 11_000))),
    ));
    undisturbed(&report);
    answered_within(&report, Duration::from_secs(1));
    let longer = knob(story(14), "fd.lease_seconds", 5);
    let report = holds(&with(longer, [(3_000, cut(&[SERVERS[0]], &[META], 25_000))]));
    taken_over(&report);
    answered_within(&report, Duration::from_secs(8));
}

/// Row "partition", scenario 3: cut off from the other members alone.
#[test]
fn primaries_are_cut_off_from_their_secondaries_only() {
    let others = |n: usize| [SERVERS[(n + 1) % 3], SERVERS[(n + 2) % 3]];
    let faults = (0..3).map(|n| (2_000 + n as u64 * 12_000, cut(&[SERVERS[n]], &others(n), 9_000)));
    regrouped(&holds(&with(story(16), faults)));
}

/// Row "partition", scenario 3: one direction only, and links that come and go.
#[test]
fn links_work_one_way_only_and_flap() {
    let longer = knob(story(18), "fd.lease_seconds", 5);
    let report = holds(&with(
        longer,
        [
            (2_000, cut_one_way(&[SERVERS[0]], &[META], 9_000)),
            (13_000, cut_one_way(&[META], &[SERVERS[1]], 9_000)),
            (24_000, cut_one_way(&[SERVERS[2]], &[SERVERS[0], SERVERS[1]], 9_000)),
        ],
    ));
    taken_over(&report);
    let flaps = (0..30)
        .map(|n| (2_000 + n * 1_100, cut(&[SERVERS[n as usize % 3]], &[META, "replica1"], 500)));
    regrouped(&holds(&with(story(20), flaps)));
}

/// Bug 37: whoever is cut off from the leader must stop before another one serves.
#[test]
fn a_primary_that_the_leader_does_not_hear_stops_in_time() {
    for lease in [5, 10] {
        let story = knob(story(22), "fd.lease_seconds", lease);
        let cuts = [(5_000, cut_one_way(&[SERVERS[0]], &[META], 20_000))];
        taken_over(&holds(&with(story, cuts)));
    }
}

/// Row "SIGSTOP", scenario 20: each server sleeps for longer than lease and grace while clients wait for it.
#[test]
fn primaries_sleep_for_longer_than_their_lease() {
    for seed in [24, 25] {
        let story = knob(story(seed), "fd.lease_seconds", 5);
        let sleeps =
            SERVERS.into_iter().zip(0..).map(|(node, n)| (2_000 + n * 12_000, pause(node, 8_000)));
        taken_over(&holds(&with(story, sleeps)));
    }
}

/// Row "clocks", scenario 16, bug 39: wall clocks jump by years, monotonic ones run 2.5 % fast and slow, 5 % apart.
#[test]
fn clocks_jump_and_drift() {
    let year = 365 * 86_400_000;
    let step = |node: &str, by_ms| Fault::WallStep { node: node.to_owned(), by_ms };
    let drift = |node: &str, ppm| Fault::Drift { node: node.to_owned(), ppm, ms: 38_000 };
    let story = knob(story(26), "fd.lease_seconds", 5);
    let report = holds(&with(
        story,
        [
            (1_000, drift(SERVERS[0], -25_000)),
            (1_000, drift(META, 25_000)),
            (4_000, step(SERVERS[0], year)),
            (6_000, step(SERVERS[1], -year)),
            (8_000, step(META, 3_600_000)),
            (10_000, cut(&[SERVERS[0]], &[META], 12_000)),
            (24_000, step(META, -7_200_000)),
        ],
    ));
    taken_over(&report);
}

/// Row "ENOSPC", scenario 12, bugs 19 and 32: a full disk of any member, and room again.
#[test]
fn a_full_disk_costs_nothing_and_heals() {
    let full = |node: &str, ms| Fault::DiskFull { node: node.to_owned(), path: String::new(), ms };
    let refused = |report: &RunReport| {
        assert!(report.errors.contains_key("ERR_DISK_INSUFFICIENT"), "{report:?}");
    };
    for seed in [28, 29] {
        let faults =
            SERVERS.into_iter().zip(0..).map(|(node, n)| (2_000 + n * 12_000, full(node, 11_000)));
        refused(&holds(&with(story(seed), faults)));
    }
    // A learner's disk: it is full when its server opens it, or just after.
    let learner = |full_at| [(3_000, kill(SERVERS[1], 3_000)), (full_at, full(SERVERS[1], 4_000))];
    refused(&holds(&with(story(30), learner(6_004))));
    holds(&with(story(30), learner(6_010)));
}

/// Rows "torn and short writes, EIO on append" and "EIO on sync", bugs 10 and 15: the member leaves, the server stays.
#[test]
fn a_log_that_cannot_be_written_costs_a_member_its_place() {
    for (seed, op) in [(32, dsn_core::sim::DiskOp::Write), (33, dsn_core::sim::DiskOp::Sync)] {
        let fail = |node: &str| {
            let path = "/replica/log/".to_owned();
            Fault::DiskFail { node: node.to_owned(), op, one_in: 3, path, ms: 4_000 }
        };
        let faults = SERVERS.into_iter().zip(0..).map(|(node, n)| (2_000 + n * 11_000, fail(node)));
        let report = holds(&with(story(seed), faults));
        regrouped(&report);
        taken_over(&report);
    }
}

/// A member whose log has failed is invited to learn again before its server has looked at the log: what is opened anew
/// with all the directory is not opened a second time by itself.
#[test]
fn a_member_whose_log_failed_is_opened_once() {
    let fail = |n: u64| {
        let path = "/replica/log/".to_owned();
        let op = dsn_core::sim::DiskOp::Write;
        let node = SERVERS[n as usize % 3].to_owned();
        (2_000 + n * 3_210, Fault::DiskFail { node, op, one_in: 1, path, ms: 500 })
    };
    for seed in [36, 37, 38, 39] {
        regrouped(&holds(&knob(with(story(seed), (0..11).map(fail)), "meta.round_ms", 100)));
    }
}

/// Row "slow disk, stuck disk": the member is replaced after its time, the group goes on.
#[test]
fn a_stuck_disk_does_not_hold_up_its_groups() {
    let stuck =
        |node: &str| Fault::DiskStuck { node: node.to_owned(), path: String::new(), ms: 8_000 };
    let slow = |node: &str| Fault::DiskSlow {
        node: node.to_owned(),
        factor: 100,
        path: String::new(),
        ms: 10_000,
    };
    let report = holds(&with(
        story(35),
        [(2_000, stuck(SERVERS[0])), (14_000, stuck(SERVERS[1])), (25_000, slow(SERVERS[2]))],
    ));
    regrouped(&report);
    answered_within(&report, Duration::from_secs(5));
}

/// Row "bit flip", bugs 22 and 26: what is damaged is put aside and learned anew from the others.
#[test]
fn damaged_files_are_noticed_and_learned_anew() {
    let flip = |node: &str, path: &str| Fault::BitFlip {
        node: node.to_owned(),
        path: path.to_owned(),
        files: 2,
        spare: 128 << 10,
    };
    let image = |node: &str| Fault::BitFlip {
        node: node.to_owned(),
        path: "IMAGE".to_owned(),
        files: 1,
        spare: 0,
    };
    let story = knob(story(36), "replication.checkpoint_seconds", 3);
    let report = holds(&with(
        knob(story, "workload.value_bytes", 200),
        [
            (20_000, flip(SERVERS[0], "/replica/log/")),
            (20_001, image(SERVERS[1])),
            (20_500, kill(SERVERS[0], 200)),
            (28_000, kill(SERVERS[1], 200)),
        ],
    ));
    assert!(report.quarantined > 0, "it was noticed");
}

/// Row "meta: kill, kill during update": the data plane goes on while the meta server is away.
#[test]
fn the_meta_server_comes_and_goes_under_changes_of_groups() {
    let metas = (0..12).map(|n| (1_000 + n * 3_000, kill(META, 700)));
    let servers = (0..6).map(|n| (1_010 + n * 6_000, kill(SERVERS[n as usize % 3], 1_500)));
    regrouped(&holds(&with(story(38), metas.chain(servers))));
    let steps = (0..6).map(|n| {
        let down_ms = 300;
        let crash =
            Fault::CrashAtStep { node: META.to_owned(), steps: 1 + n, power: true, down_ms };
        (2_000 + n * 6_000, crash)
    });
    let changes = (0..6).map(|n| (2_100 + n * 6_000, kill(SERVERS[n as usize % 3], 2_000)));
    regrouped(&holds(&with(story(39), steps.chain(changes))));
}

/// Row "reconfiguration during learning": the source, the learner and the meta server die while a learner copies.
#[test]
fn everybody_dies_once_while_a_learner_copies() {
    for mode in [1, 2] {
        let story = knob(knob(story(40), "replication.learn", mode), "workload.value_bytes", 4_000);
        let story = knob(story, "cluster.servers", 4);
        let story = knob(story, "meta.assign_delay_ms", 0);
        let report = holds(&with(
            story,
            [
                (8_000, kill(SERVERS[0], 14_000)),
                (12_000, kill(SERVERS[1], 300)),
                (14_000, kill("replica3", 300)),
                (16_000, kill(META, 300)),
                (24_000, kill(SERVERS[2], 300)),
            ],
        ));
        taken_over(&report);
    }
}

/// Row "duplicate and reordered messages": connections end all the time, what was sent is sent again.
#[test]
fn connections_end_all_the_time() {
    let reset = |one: &str, other: &str| Fault::Reset {
        one: one.to_owned(),
        other: other.to_owned(),
        percent: 100,
    };
    let faults = (0..150).map(|n| {
        let (one, other) = (
            SERVERS[n as usize % 3],
            if n % 4 == 0 { META } else { SERVERS[(n as usize + 1) % 3] },
        );
        (1_000 + n * 250, reset(one, other))
    });
    let report = holds(&with(story(42), faults));
    undisturbed(&report);
    answered_within(&report, Duration::from_secs(1));
}

/// Row "fd exhaustion": a server without descriptors for a while goes on afterwards.
#[test]
fn a_server_runs_out_of_descriptors() {
    let limit = |node: &str| Fault::FdLimit { node: node.to_owned(), limit: 0, ms: 5_000 };
    let faults = SERVERS.into_iter().zip(0..);
    let report = holds(&with(
        story(44),
        faults.flat_map(|(node, n)| {
            let at = 2_000 + n * 10_000;
            [(at, limit(node)), (at + 100, kill(SERVERS[(n as usize + 1) % 3], 300))]
        }),
    ));
    taken_over(&report);
}

/// What a machine had in memory is written back; then its power fails, in the same moment as that of others.
fn blackout(at: u64, whole: &str, downs: [u64; 3]) -> Vec<(u64, Fault)> {
    let write_back = (at, Fault::WriteBack { node: whole.to_owned() });
    let offs = SERVERS.into_iter().zip(downs).map(|(node, down)| (at, power_off(node, down)));
    std::iter::once(write_back).chain(offs).collect()
}

/// Row "power loss of all" without `group_sync`: what is in the page cache alone may be lost, and is not while one
/// machine has written it back, whichever comes back first and however little it has.
#[test]
fn what_one_of_three_machines_has_written_back_is_kept() {
    for (seed, whole) in (50..74).step_by(2).zip(SERVERS.into_iter().cycle()) {
        for downs in [[100, 3_000, 9_000], [9_000, 100, 3_000], [3_000, 9_000, 100]] {
            regrouped(&holds(&with(story(seed), blackout(12_000, whole, downs))));
        }
    }
}

/// The same, and what is back first ends once more before the others are there: it still knows that it may lack
/// something.
#[test]
fn a_second_restart_makes_no_lost_tail_certain() {
    for (seed, whole) in (80..92).step_by(2).zip(SERVERS.into_iter().cycle()) {
        for first in SERVERS {
            let downs = SERVERS.map(|node| if node == first { 100 } else { 8_000 });
            let again = (14_000, kill(first, 200));
            let faults = blackout(12_000, whole, downs).into_iter().chain([again]);
            regrouped(&holds(&with(story(seed), faults)));
        }
    }
}

/// A machine is back before it is missed, without what it had acknowledged and not synced: it is no member before it
/// has learned that from the others.
#[test]
fn machines_are_started_anew_before_they_are_missed() {
    for seed in [100, 102, 104, 106] {
        let faults = (0..12).map(|n| (2_000 + n * 3_000, power_off(SERVERS[n as usize % 3], 50)));
        taken_over(&holds(&with(story(seed), faults)));
    }
}
