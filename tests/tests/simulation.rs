//! The whole cluster in the simulator: seeds, each twice, the scenarios of failures that were mended, and every place
//! where a server can die.

use cluster_tests::cpu_time;
use cluster_tests::onebox::repository;
use cluster_tests::simulation::cuts::{self, Change, Cut, Scene, Victim};
use cluster_tests::simulation::plan::GROUP_FAULTS_MIN;
use cluster_tests::simulation::planted::BUGS;
use cluster_tests::simulation::shape::data_dirs;
use cluster_tests::simulation::{
    RunReport, SHRINK_STEPS_FACTOR, draw, draw_group, run, run_within, shrink_failure,
};
use cluster_tests::tell;
use dsn_core::sim::{DiskOp, Fault, Scenario, StepKind, TimedFault};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const SEEDS: u64 = 500;
const GROUP_SEEDS: u64 = 2_000;
const THREADS: usize = 2;
/// Places where the stories are cut; there are more.
const CUTS_MIN: usize = 1900;
const GROUP_CUTS_MIN: usize = 3800;

/// Does `work` with every item, on [`THREADS`] threads.
fn on_threads<T: Sync, R: Send>(items: &[T], work: fn(&T) -> R) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let share = || {
        let mut done = Vec::new();
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            done.push(work(item));
        }
        done
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(share)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("see above")).collect()
    })
}

fn twice(scenario: &Scenario) -> RunReport {
    let (first, second) = (run(scenario, false), run(scenario, false));
    let seed = scenario.seed;
    assert_eq!(first.report.trace_hash, second.report.trace_hash, "seed {seed} is not repeatable");
    if let Some(violation) = &first.report.violation {
        panic!("seed {seed}: {violation}; ./run.sh simulate --seeds 1 --from {seed} shrinks it");
    }
    first
}

#[test]
fn seeds_have_no_violation_and_repeat_exactly() {
    let runs = on_threads(&(0..SEEDS).collect::<Vec<_>>(), |seed| twice(&draw(*seed)));
    let sum = |f: fn(&RunReport) -> u64| runs.iter().map(f).sum::<u64>();
    let seconds: f64 = runs.iter().map(|run| run.report.length.as_secs_f64()).sum();
    let (acked, checked) = (sum(|run| run.acked), sum(|run| run.checked));
    let (faults, quarantined) = (sum(|run| run.faults as u64), sum(|run| run.quarantined as u64));
    tell!(
        "{SEEDS} seeds twice: {seconds:.0} s each, {acked} calls answered, {checked} pairs and leases seen, \
         {faults} faults, {quarantined} partitions put aside"
    );
    assert!(acked > 1000 * SEEDS / 10, "the clients worked");
    assert!(checked > 10 * SEEDS, "pairs and leases were looked at");
    assert!(faults > 8 * SEEDS, "and the faults struck");
    assert!(quarantined > 0, "stored bytes were damaged, and it was noticed");
}

/// Groups of three on three to five servers with one to three disks; every tenth seed twice.
#[test]
fn groups_have_no_violation() {
    let runs = on_threads(&(0..GROUP_SEEDS).collect::<Vec<_>>(), |seed| {
        let scenario = draw_group(*seed);
        assert!(scenario.faults.len() >= GROUP_FAULTS_MIN, "seed {seed} has too few faults");
        let begun = cpu_time::of_this_thread();
        if seed % 10 == 0 {
            return (twice(&scenario), 2.0, cpu_time::of_this_thread() - begun);
        }
        let report = run(&scenario, false);
        if let Some(violation) = &report.report.violation {
            panic!(
                "seed {seed}: {violation}; ./run.sh simulate --group --seeds 1 --from {seed} shrinks it"
            );
        }
        (report, 1.0, cpu_time::of_this_thread() - begun)
    });
    let sum = |f: fn(&RunReport) -> u64| runs.iter().map(|(run, ..)| f(run)).sum::<u64>();
    let (acked, faults) = (sum(|run| run.acked), sum(|run| run.faults as u64));
    let (compared, images) = (sum(|run| run.compared), sum(|run| run.images));
    let length = |(run, times, _): &(RunReport, f64, _)| times * run.report.length.as_secs_f64();
    let simulated: f64 = runs.iter().map(length).sum();
    let busy: f64 = runs.iter().map(|(_, _, busy)| busy.as_secs_f64()).sum();
    tell!(
        "groups: {acked} calls answered, {faults} faults, {compared} mutations and {images} images that were the \
         same on two servers; {simulated:.0} s simulated in {busy:.0} s of a core"
    );
    tell!("{GROUP_SEEDS} seeds, 0 violations, {:.0} x real time", simulated / busy);
    assert!(acked > 1000 * GROUP_SEEDS / 10, "the clients worked");
    assert!(compared > 1000 * GROUP_SEEDS, "members were compared");
    assert!(images > GROUP_SEEDS, "and what they had in the end");
}

/// Half of the seeds give their servers several disks; half of the faults of such a disk leave the others alone.
#[test]
fn groups_have_one_disk_or_several_and_faults_strike_one_or_all() {
    let (mut servers, mut faults) = (BTreeMap::new(), [0_u64; 2]);
    for seed in 0..GROUP_SEEDS {
        let mut scenario = draw_group(seed);
        let dirs = data_dirs(&scenario);
        *servers.entry(dirs.len()).or_insert(0) += 1;
        for timed in &mut scenario.faults {
            let of_meta = timed.fault.nodes().contains(&"meta");
            let Some(path) = timed.fault.path_mut() else { continue };
            let aimed = dirs.iter().any(|dir| path.starts_with(&format!("{dir}/")));
            assert!(!aimed || dirs.len() > 1 && !of_meta, "seed {seed}: {path}");
            if dirs.len() > 1 && !of_meta {
                faults[usize::from(aimed)] += 1;
            }
        }
    }
    tell!("servers by disks: {servers:?}; {} faults of all disks, {} of one", faults[0], faults[1]);
    assert!(servers[&1] > GROUP_SEEDS * 2 / 5 && servers[&2].min(servers[&3]) > GROUP_SEEDS / 5);
    assert!(faults[0].min(faults[1]) > 2 * (faults[0] + faults[1]) / 5);
}

/// Servers with three disks each: what is on them is served, and two of them come back from a failure of the third.
#[test]
fn a_disk_of_several_fails() {
    let mut scenario = Scenario::quiet(9, Duration::from_secs(40));
    let shape = [("cluster.servers", 3), ("cluster.copies", 3), ("cluster.data_dirs", 3)];
    scenario.knobs.extend(shape.map(|(name, value)| (name.to_owned(), value)));
    for (at_ms, op) in [(5_000, DiskOp::Write), (15_000, DiskOp::Read)] {
        let (node, path) = ("replica1".to_owned(), "/data2/".to_owned());
        let fault = Fault::DiskFail { node, op, one_in: 1, path, ms: 8_000 };
        scenario.faults.push(TimedFault { at_ms, fault });
    }
    let report = twice(&scenario);
    assert!(report.acked > 1000 && report.images > 4, "{} and {}", report.acked, report.images);
}

/// Three replica servers with a copy of some partitions each.
#[test]
fn a_cluster_has_the_shape_that_a_scenario_says() {
    let mut scenario = Scenario::quiet(8, Duration::from_secs(20));
    scenario.knobs.extend([("cluster.servers".to_owned(), 3), ("cluster.clients".to_owned(), 5)]);
    let report = twice(&scenario);
    assert!(report.acked > 1000, "{} calls answered", report.acked);
}

/// A candidate that is tried while a failure is being shrunk may go on for ever, though the failure does not.
#[test]
fn a_run_that_takes_too_many_steps_is_ended() {
    let scenario = Scenario::quiet(8, Duration::from_secs(20));
    let whole = run(&scenario, false).report;
    assert!(whole.violation.is_none() && whole.steps > 10_000, "{whole:?}");
    let ended = run_within(&scenario, false, 1_000).report;
    assert_eq!(ended.violation.map(|violation| violation.by).as_deref(), Some("livelock"));
    assert!((1_001..1_010).contains(&ended.steps), "{} steps", ended.steps);
    // Whatever is tried would end in a livelock, which is not what is looked for.
    let shrunk = shrink_failure(&scenario, "members", 1_000 / SHRINK_STEPS_FACTOR, 20);
    assert_eq!((&shrunk.scenario, shrunk.runs <= 20), (&scenario, true));
    let shrunk = shrink_failure(&scenario, "livelock", 1_000 / SHRINK_STEPS_FACTOR, 20);
    assert!(shrunk.scenario.duration_ms < scenario.duration_ms, "{}", shrunk.scenario);
}

/// Bug 28 is among them: an empty replica takes the place of one that is damaged, or after a power loss.
#[test]
fn mended_failures_stay_mended() {
    let mut count = 0;
    for entry in std::fs::read_dir(repository().join("tests/scenarios")).expect("scenarios") {
        let path = entry.expect("scenarios").path();
        println!("{}", path.display());
        let text = std::fs::read_to_string(&path).expect("a scenario");
        twice(&Scenario::from_toml(&text).expect("a scenario"));
        count += 1;
    }
    assert!(count >= 2);
}

/// What the stories of the cuts must change, or they would not cut what they are for; `$` is the end of a path.
const CHANGES: [(Victim, Scene, StepKind, &str); 35] = [
    (Victim::Replica, Scene::First, StepKind::Create, "/replica/log"),
    (Victim::Replica, Scene::First, StepKind::Write, "/replica/log/"),
    (Victim::Replica, Scene::First, StepKind::Sync, "/replica/log/"),
    (Victim::Replica, Scene::First, StepKind::SyncDir, "/replica/log"),
    (Victim::Replica, Scene::First, StepKind::Remove, "/replica/log/"),
    (Victim::Replica, Scene::First, StepKind::Create, "/replica/reps/"),
    (Victim::Replica, Scene::First, StepKind::Rename, ".app-info"),
    (Victim::Replica, Scene::First, StepKind::Rename, "/data/rdb"),
    (Victim::Replica, Scene::First, StepKind::Rename, "/IMAGE"),
    (Victim::Replica, Scene::First, StepKind::Rename, "/checkpoint."),
    (Victim::Replica, Scene::First, StepKind::Rename, ".gar"),
    (Victim::Replica, Scene::First, StepKind::Remove, "/checkpoint."),
    (Victim::Meta, Scene::First, StepKind::Rename, "/meta_state/snapshot."),
    (Victim::Meta, Scene::First, StepKind::Sync, "/meta_state/log."),
    (Victim::Meta, Scene::First, StepKind::Create, "/meta_state/log."),
    (Victim::Learner, Scene::ByLog, StepKind::Write, "/replica/log/"),
    (Victim::Learner, Scene::ByLog, StepKind::Sync, "/replica/log/"),
    (Victim::Source, Scene::ByLog, StepKind::Write, "/replica/log/"),
    (Victim::Learner, Scene::ByCheckpoint, StepKind::Create, ".learn/data/rdb/IMAGE"),
    (Victim::Learner, Scene::ByCheckpoint, StepKind::Write, ".learn/data/rdb/IMAGE"),
    (Victim::Learner, Scene::ByCheckpoint, StepKind::Sync, ".learn/data/rdb/IMAGE"),
    (Victim::Learner, Scene::ByCheckpoint, StepKind::SyncDir, ".learn/data/rdb"),
    (Victim::Learner, Scene::ByCheckpoint, StepKind::Rename, ".learn/.init-info"),
    (Victim::Learner, Scene::ByCheckpoint, StepKind::Rename, ".gar$"),
    (Victim::Learner, Scene::ByCheckpoint, StepKind::Rename, "/reps/1.0.pegasus$"),
    (Victim::Learner, Scene::ByCheckpoint, StepKind::SyncDir, "/replica/reps$"),
    (Victim::Learner, Scene::ByCheckpoint, StepKind::Remove, ".gar/data/rdb/IMAGE"),
    (Victim::Source, Scene::ByCheckpoint, StepKind::Rename, "/checkpoint."),
    (Victim::Source, Scene::ByCheckpoint, StepKind::Remove, "/replica/log/"),
    (Victim::Learner, Scene::FromNothing, StepKind::Rename, "/reps/1.0.pegasus$"),
    (Victim::Learner, Scene::FromNothing, StepKind::Create, ".learn/data/rdb/IMAGE"),
    (Victim::Source, Scene::Burst, StepKind::Write, "/replica/log/"),
    // The ballot under which it takes over.
    (Victim::Secondary, Scene::Takeover, StepKind::Write, "/replica/log/"),
    (Victim::Secondary, Scene::Takeover, StepKind::Sync, "/replica/log/"),
    (Victim::Source, Scene::Afterwards, StepKind::Write, "/replica/log/"),
];

/// Bugs 7 and 25: a crash while the log is begun anew, or while a checkpoint is made, leaves a hole or half a
/// checkpoint.
#[test]
fn no_cut_loses_anything() {
    let cuts = cuts::all().expect("the stories without a cut");
    let seeds: BTreeSet<u64> = cuts.iter().map(|cut| cut.seed).collect();
    for victim in Victim::ALONE.into_iter().chain(Victim::GROUP) {
        let changes = |seed: &u64| cuts::changes(*seed, victim).expect("the story without a cut");
        let changes: Vec<Change> = seeds.iter().flat_map(changes).collect();
        for (_, scene, kind, part) in CHANGES.into_iter().filter(|(of, ..)| *of == victim) {
            let is_one = |change: &Change| {
                let is_such = (change.scene, change.kind) == (scene, kind);
                is_such && format!("{}$", change.path).contains(part)
            };
            let changed = changes.iter().any(is_one);
            assert!(changed, "{victim:?}, {scene:?}: nothing does {kind:?} of {part}");
        }
        let mut fed = changes.iter().filter(|change| change.scene == Scene::ByLog);
        assert!(
            fed.all(|change| !change.path.contains(".learn")),
            "{victim:?} is fed from the log"
        );
    }
    let tell_one = |cut: &Cut| {
        let begun = cpu_time::of_this_thread();
        let telling = cuts::run(cut);
        let missed = (!telling.died).then(|| "the server did not die".to_owned());
        let differs =
            cut.step.is_multiple_of(50) && cuts::run(cut).trace_hash != telling.trace_hash;
        let differs = differs.then(|| "it does not repeat exactly".to_owned());
        let wrong = telling.wrong.or(missed).or(differs).map(|wrong| format!("{cut}: {wrong}"));
        (wrong, cpu_time::of_this_thread() - begun)
    };
    let mut all_wrong = Vec::new();
    for (name, victims, least) in
        [("one server", &Victim::ALONE[..], CUTS_MIN), ("a group", &Victim::GROUP, GROUP_CUTS_MIN)]
    {
        let of_story = cuts.iter().filter(|cut| victims.contains(&cut.victim));
        let cuts: Vec<Cut> = of_story.copied().collect();
        let place = |cut: &Cut| (cut.seed, format!("{:?}", cut.victim), cut.step, cut.power);
        let places = cuts.iter().map(place).collect::<BTreeSet<_>>().len();
        let (wrong, busy): (Vec<_>, Vec<_>) = on_threads(&cuts, tell_one).into_iter().unzip();
        let (told, busy) = (cuts.len(), busy.iter().sum::<Duration>().as_secs_f64());
        tell!("cuts of {name}: {places} places, {told} stories, {busy:.0} s of a core");
        all_wrong.extend(wrong.into_iter().flatten());
        assert!(places > least, "{name}: {places} places");
    }
    assert!(all_wrong.is_empty(), "{}:\n{}", all_wrong.len(), all_wrong.join("\n"));
}

#[test]
fn every_planted_bug_is_on_the_list() {
    let mut asked = BTreeSet::new();
    for folder in ["dsn-core", "dsn-rpc", "dsn-replication", "pegasus-client", "pegasus-server"] {
        gather(&repository().join(folder).join("src"), &mut asked);
    }
    let listed: BTreeSet<String> = BUGS.iter().map(|bug| bug.name.to_owned()).collect();
    assert_eq!(asked, listed);
}

/// The names that code below a folder asks for.
fn gather(folder: &Path, asked: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("sources") {
        let path = entry.expect("sources").path();
        if path.is_dir() {
            gather(&path, asked);
        } else {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let names = text.split("planted::has(\"").skip(1);
            asked.extend(names.filter_map(|rest| rest.split('"').next()).map(str::to_owned));
        }
    }
}
