//! Real servers under load, killed, stopped, damaged, filled up and cut off: no acknowledged write is lost, no stale
//! value is read, and every partition returns to three replicas. `./run.sh start_kill_test` does the same for as long
//! as one likes.

use cluster_tests::kill_test::disk::SmallDisk;
use cluster_tests::kill_test::faults::Fault;
use cluster_tests::kill_test::{Options, Report, Until, run};
use cluster_tests::tell;

/// Calls of the longest run.
const CALLS: u64 = 200_000;
/// Calls of each of the others.
const SOME_CALLS: u64 = 20_000;
/// Processes killed in the longest run.
const KILLS: usize = 60;

fn must_pass(
    name: &'static str,
    faults: &[Fault],
    rounds: usize,
    quick: bool,
    least: u64,
) -> Report {
    let options = Options {
        name,
        // Another one in each run; it is printed.
        seed: u64::from(std::process::id()),
        faults: faults.to_vec(),
        until: Until::Rounds(rounds),
        clients: 8,
        least_calls: least,
        quick,
    };
    let report = run(&options).unwrap_or_else(|violation| panic!("{name}: {violation}"));
    tell!("{report}");
    assert!(report.answered >= least, "{report}");
    report
}

#[test]
fn kills_lose_nothing() {
    let faults = [
        Fault::KillOne,
        Fault::KillTwo,
        Fault::KillAll,
        Fault::KillMeta,
        Fault::KillEverything,
        Fault::KillLearner,
        Fault::KillMetaAtRestart,
    ];
    let report = must_pass("kills", &faults, 4 * faults.len(), true, CALLS);
    assert!(report.done.kills >= KILLS, "{report}");
}

#[test]
fn servers_that_were_stopped_serve_nothing_stale() {
    let report = must_pass("pauses", &[Fault::Pause, Fault::PauseMeta], 4, true, SOME_CALLS);
    assert_eq!(report.done.pauses, 4, "{report}");
}

#[test]
fn with_the_default_lease_and_grace_as_well() {
    let faults = [Fault::Pause, Fault::KillOne, Fault::KillTwo, Fault::KillAll];
    let report = must_pass("defaults", &faults, faults.len(), false, SOME_CALLS);
    assert_eq!((report.done.pauses, report.done.kills), (1, 6), "{report}");
}

#[test]
fn damaged_disks_are_learned_anew() {
    let mut faults = vec![Fault::LoseData, Fault::CorruptLog, Fault::CorruptSst];
    match SmallDisk::possible() {
        Ok(()) => faults.push(Fault::FullDisk),
        Err(reason) => println!("SKIPPED: full disks, for want of a small one: {reason}"),
    }
    let report = must_pass("damages", &faults, 2 * faults.len(), true, SOME_CALLS);
    assert_eq!(report.done.damages, 6, "{report}");
    assert_eq!(report.done.full_disks, 2 * usize::from(faults.len() > 3), "{report}");
}

#[test]
fn bad_networks_confuse_nobody() {
    let faults = [Fault::Cut, Fault::CutOneWay, Fault::CutFromMeta, Fault::Slow, Fault::Reset];
    let report = must_pass("networks", &faults, faults.len(), true, SOME_CALLS);
    assert_eq!(report.done.network, faults.len(), "{report}");
}
