//! What can happen in the simulated world: kill, power loss, pause, restart, skewed clocks, and plans of faults.
//!
//! What the simulator has in common with the real driver is in `driver_conformance/`.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use dsn_core::app::{AppError, AppHost, ServiceApp};
use dsn_core::disk::{Disk, OpenMode, SyncMode, read_file};
use dsn_core::exec::{Addr, Ctx, Resident, WorkerId};
use dsn_core::sim::{
    DiskFault, FaultClass, NodeId, NodeSpec, NodeState, PlanSpec, Sim, SimDisk, SimOptions,
};
use dsn_core::time::{Mono, Wall};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

dsn_core::task_codes! {
    /// Codes of the tests.
    CODES;
    LPC_BEAT: Compute, Common, "THREAD_POOL_DEFAULT";
}

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const W0: WorkerId = WorkerId(0);

struct Nothing;
impl ServiceApp for Nothing {
    fn start(&mut self, _: &mut Ctx<'_>, _: Addr<AppHost>) -> Result<(), AppError> {
        Ok(())
    }
}

/// Counts its heart beats.
struct Heart {
    beats: Vec<Mono>,
}
impl Resident for Heart {}

fn world(nodes: u8) -> (Sim, Vec<NodeId>) {
    dsn_core::code::register(CODES);
    let mut sim = Sim::new(5, SimOptions::default());
    let ids = (1..=nodes)
        .map(|n| {
            let spec =
                NodeSpec::new(&format!("n{n}"), [10, 0, 0, n].into(), 1, || Box::new(Nothing));
            let id = sim.add_node(spec);
            sim.start(id).unwrap();
            id
        })
        .collect();
    (sim, ids)
}

/// A heart on a node that beats every 10 ms of the node's clock.
fn heart(sim: &mut Sim, id: NodeId) -> Addr<Heart> {
    let make = |ctx: &mut Ctx<'_>| {
        let heart = ctx.spawn_here(|_, _| Heart { beats: Vec::new() });
        ctx.every(heart, &LPC_BEAT, 10 * MS, |heart, ctx| heart.beats.push(ctx.now()));
        heart
    };
    sim.enter(id, W0, &LPC_BEAT, make).unwrap()
}

fn beats(sim: &Sim, id: NodeId, heart: Addr<Heart>) -> Option<usize> {
    sim.peek(id, heart, |heart| heart.beats.len())
}

fn clocks(sim: &mut Sim, id: NodeId) -> (Mono, Wall) {
    sim.enter(id, W0, &LPC_BEAT, |ctx| (ctx.clock(), ctx.wall())).unwrap()
}

fn put(disk: &dyn Disk, path: &str, content: &'static str, sync: bool) {
    let file = disk.open(Path::new(path), OpenMode::ReadWrite).unwrap();
    file.write_at(0, &[content.into()]).unwrap();
    if sync {
        file.sync(SyncMode::Data).unwrap();
    }
}

fn get(disk: &dyn Disk, path: &str) -> Option<String> {
    let content = match read_file(disk, Path::new(path)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        content => content.unwrap(),
    };
    Some(String::from_utf8_lossy(&content).into_owned())
}

#[test]
fn a_killed_process_loses_its_state_and_none_of_its_files() {
    let (mut sim, ids) = world(1);
    let id = ids[0];
    let heart = heart(&mut sim, id);
    put(&sim.disk(id), "/a", "written", false);
    sim.run_for(SECOND);
    assert!(beats(&sim, id, heart).unwrap() > 80);
    let stale = sim.disk(id).open(Path::new("/a"), OpenMode::Read).unwrap();
    let before = clocks(&mut sim, id).1;
    sim.kill(id);
    assert_eq!(sim.state(id), NodeState::Down);
    sim.run_for(SECOND);
    sim.start(id).unwrap();
    assert!(stale.read_at(0, 10).is_err(), "a handle of the process that has ended");
    assert_eq!(get(&sim.disk(id), "/a").as_deref(), Some("written"));
    assert_eq!(beats(&sim, id, heart), None, "the new process has no residents of the old one");
    let (mono, wall) = clocks(&mut sim, id);
    assert!(mono < Mono::ZERO + 4 * SECOND, "its monotonic clock starts over: {mono:?}");
    assert!(wall.saturating_since(before) >= SECOND, "its wall clock does not");
    sim.finish(SECOND).unwrap();
}

#[test]
fn power_loss_keeps_what_was_synced_and_may_lose_the_rest() {
    let (mut lost, mut kept) = (0, 0);
    for seed in 0..40 {
        println!("seed {seed}");
        let disk = SimDisk::standalone(seed);
        put(&disk, "/synced", "durable", true);
        put(&disk, "/half", "durable", true);
        disk.sync_dir(Path::new("/")).unwrap();
        put(&disk, "/half", "unknown", false);
        put(&disk, "/unsynced", "perhaps", true);
        let disk = disk.power_loss();
        assert_eq!(get(&disk, "/synced").as_deref(), Some("durable"));
        let half = get(&disk, "/half").unwrap();
        assert!(half == "durable" || half == "unknown", "one sector is not torn: {half}");
        match get(&disk, "/unsynced") {
            None => lost += 1,
            Some(content) => {
                assert_eq!(content, "perhaps", "the file was synced, its name was not");
                kept += 1;
            }
        }
        assert_eq!(get(&disk.power_loss(), "/synced").as_deref(), Some("durable"));
    }
    assert!(lost > 5 && kept > 5, "{lost} lost, {kept} kept");
}

#[test]
fn a_power_loss_begins_another_run_of_the_machine_and_spares_what_was_written_back() {
    for seed in 0..40 {
        let disk = SimDisk::standalone(seed);
        let run = disk.boot_id().unwrap();
        put(&disk, "/a", "in memory", false);
        let (image, disk) = (disk.snapshot(), disk.restart());
        assert_eq!(disk.boot_id().unwrap(), run, "seed {seed}: only the process ended");
        disk.write_back();
        let disk = disk.power_loss();
        assert_ne!(disk.boot_id().unwrap(), run, "seed {seed}");
        assert_eq!(get(&disk, "/a").as_deref(), Some("in memory"), "seed {seed}");
        assert_eq!(disk.restore(&image).boot_id().unwrap(), run, "seed {seed}: as it was");
    }
}

#[test]
fn a_rename_happens_or_does_not() {
    let (mut old, mut new) = (0, 0);
    for seed in 0..40 {
        println!("seed {seed}");
        let disk = SimDisk::standalone(seed);
        put(&disk, "/state", "old", true);
        put(&disk, "/state.tmp", "new", true);
        disk.sync_dir(Path::new("/")).unwrap();
        disk.rename(Path::new("/state.tmp"), Path::new("/state")).unwrap();
        let lost = disk.power_loss();
        match get(&lost, "/state").as_deref() {
            Some("old") => old += 1,
            Some("new") => new += 1,
            other => panic!("neither: {other:?}"),
        }
        assert_eq!(
            get(&lost, "/state").as_deref() == Some("old"),
            lost.exists(Path::new("/state.tmp"))
        );
    }
    assert!(old > 5 && new > 5, "{old} old, {new} new");
    let disk = SimDisk::standalone(1);
    put(&disk, "/a", "x", true);
    disk.sync_dir(Path::new("/")).unwrap();
    disk.unlink(Path::new("/a")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    assert_eq!(get(&disk.power_loss(), "/a"), None, "a removal that was synced is for good");
}

#[test]
fn a_full_disk_says_so_and_loses_nothing() {
    let disk = SimDisk::standalone(1);
    put(&disk, "/a", "before", true);
    disk.set_capacity(1_000);
    let file = disk.open(Path::new("/b"), OpenMode::CreateNew).unwrap();
    let full = file.write_at(0, &[vec![1; 10_000].into()]).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    assert_eq!(get(&disk, "/a").as_deref(), Some("before"));
    disk.set_capacity(1 << 30);
    file.write_at(0, &[vec![1; 10_000].into()]).unwrap();
}

#[test]
fn one_disk_of_several_may_be_full() {
    let disk = SimDisk::standalone(1);
    for dir in ["/one", "/other"] {
        disk.create_dir_all(Path::new(dir)).unwrap();
    }
    let fault = disk.add_fault(DiskFault::Full { path: "/other/".to_owned() });
    put(&disk, "/one/a", "kept", true);
    let other = disk.open(Path::new("/other/a"), OpenMode::CreateNew).unwrap_err();
    assert_eq!(other.kind(), ErrorKind::StorageFull);
    let room = |dir: &str| disk.space(Path::new(dir)).unwrap().available;
    assert!(room("/one") > 0 && room("/other") == 0);
    disk.remove_fault(fault);
    put(&disk, "/other/a", "kept", true);
}

#[test]
fn a_paused_process_does_nothing_while_its_clocks_run() {
    let (mut sim, ids) = world(2);
    let (id, other) = (ids[0], ids[1]);
    let (paused, running) = (heart(&mut sim, id), heart(&mut sim, other));
    sim.run_for(100 * MS);
    let (before, clock) = (beats(&sim, id, paused).unwrap(), clocks(&mut sim, id).0);
    sim.pause(id);
    sim.run_for(SECOND);
    assert_eq!(beats(&sim, id, paused), Some(before));
    assert!(beats(&sim, other, running).unwrap() > before + 80);
    sim.resume(id);
    sim.run_for(5 * MS);
    assert_eq!(beats(&sim, id, paused), Some(before + 1), "the beat that was due, at once");
    assert!(clocks(&mut sim, id).0.saturating_since(clock) >= SECOND);
    sim.finish(SECOND).unwrap();
}

#[test]
fn a_skewed_clock_changes_what_its_node_sees_and_nothing_else() {
    let (mut sim, ids) = world(3);
    let hearts: Vec<Addr<Heart>> = ids.iter().map(|id| heart(&mut sim, *id)).collect();
    sim.drift(ids[0], 100_000);
    sim.drift(ids[1], -100_000);
    let before: Vec<(Mono, Wall)> = ids.iter().map(|id| clocks(&mut sim, *id)).collect();
    sim.run_for(10 * SECOND);
    let counts: Vec<usize> =
        ids.iter().zip(&hearts).map(|(id, heart)| beats(&sim, *id, *heart).unwrap()).collect();
    // 1,000 beats of 10 ms in 10 s, fewer by what each beat is late.
    let near = |count: usize, expected: usize| count * 100 / expected;
    assert!((85..=101).contains(&near(counts[2], 1_000)), "{counts:?}");
    assert!(counts[0] * 100 / counts[2] >= 108, "a tenth faster: {counts:?}");
    assert!(counts[1] * 100 / counts[2] <= 92, "a tenth slower: {counts:?}");
    let after: Vec<(Mono, Wall)> = ids.iter().map(|id| clocks(&mut sim, *id)).collect();
    let passed = |n: usize| after[n].0.saturating_since(before[n].0).as_millis();
    assert!((10_995..11_010).contains(&passed(0)) && (8_995..9_010).contains(&passed(1)));
    let wall = |n: usize| after[n].1.saturating_since(before[n].1).as_millis();
    assert!((0..3).all(|n| (9_995..10_010).contains(&wall(n))), "drift is the monotonic clock's");

    sim.step_wall(ids[2], 3_600 * SECOND, true);
    let (mono, back) = clocks(&mut sim, ids[2]);
    assert!(after[2].1.saturating_since(back) > 3_599 * SECOND, "an hour back");
    assert!(mono >= after[2].0, "the monotonic clock does not follow");
    sim.finish(SECOND).unwrap();
}

fn spec(classes: &[FaultClass]) -> PlanSpec {
    PlanSpec {
        nodes: vec!["n1".into(), "n2".into(), "n3".into()],
        peers: Vec::new(),
        damageable: vec!["n3".into()],
        classes: classes.iter().map(|class| (*class, 2 * SECOND)).collect(),
        paths: Vec::new(),
        flips: Vec::new(),
        from: SECOND,
        to: 20 * SECOND,
        max_down: 2,
        longest: 5 * SECOND,
    }
}

#[test]
fn a_plan_follows_from_its_seed() {
    let spec = spec(&FaultClass::ALL);
    let mut kinds = BTreeSet::new();
    for seed in 0..100 {
        let plan = spec.draw(seed);
        assert_eq!(plan, spec.draw(seed), "seed {seed}");
        assert!(plan.windows(2).all(|pair| pair[0].at_ms <= pair[1].at_ms));
        assert!(plan.iter().all(|timed| (1_000..20_000).contains(&timed.at_ms)), "{plan:?}");
        for timed in &plan {
            let text = serde_json::to_value(&timed.fault).unwrap();
            kinds.insert(text["kind"].as_str().unwrap().to_owned());
        }
    }
    assert_ne!(spec.draw(1), spec.draw(2));
    // All but the lying disk, which no class draws: nothing can be promised then.
    assert_eq!(kinds.len(), 19, "{kinds:?}");
}

/// Writes to a file and syncs it, again and again. Under disk faults some of that fails, which must be all.
struct Writer {
    written: u64,
}

impl Resident for Writer {}

impl Writer {
    fn write(&mut self, ctx: &mut Ctx<'_>) {
        self.written += 1;
        let data = self.written.to_le_bytes().to_vec();
        if let Ok(file) = ctx.disk().open(Path::new("/work"), OpenMode::ReadWrite) {
            let done = file
                .write_at(self.written * 8, &[data.into()])
                .and_then(|()| file.sync(SyncMode::Data));
            ctx.trace(u64::from(done.is_ok()));
        }
    }
}

struct Writing;
impl ServiceApp for Writing {
    fn start(&mut self, ctx: &mut Ctx<'_>, _: Addr<AppHost>) -> Result<(), AppError> {
        let writer = ctx.spawn_here(|_, _| Writer { written: 0 });
        ctx.every(writer, &LPC_BEAT, 50 * MS, Writer::write);
        Ok(())
    }
}

#[test]
fn planned_faults_happen_end_and_repeat() {
    dsn_core::code::register(CODES);
    let run = |seed: u64| {
        let mut sim = Sim::new(seed, SimOptions::default());
        for n in 1..=3 {
            let spec =
                NodeSpec::new(&format!("n{n}"), [10, 0, 0, n].into(), 1, || Box::new(Writing));
            let id = sim.add_node(spec);
            sim.start(id).unwrap();
        }
        let plan = spec(&FaultClass::ALL).draw(seed);
        sim.schedule_faults(&plan).unwrap();
        sim.run_for(35 * SECOND);
        assert_eq!(sim.violation(), None, "seed {seed}: {plan:#?}");
        let states: Vec<NodeState> = sim.node_ids().map(|id| sim.state(id)).collect();
        assert_eq!(states, [NodeState::Up; 3], "seed {seed}: every fault has ended: {plan:#?}");
        sim.finish(5 * SECOND).unwrap();
        (sim.trace_hash(), plan.len())
    };
    let mut faults = 0;
    for seed in 0..15 {
        println!("seed {seed}");
        let (hash, count) = run(seed);
        assert_eq!(run(seed).0, hash);
        faults += count;
    }
    assert!(faults > 100, "{faults} faults");
}

#[test]
fn a_plan_for_nodes_that_do_not_exist_is_refused() {
    let (mut sim, _) = world(1);
    let spec = PlanSpec { nodes: vec!["n2".into()], ..spec(&[FaultClass::Kill]) };
    let plan = (0..100).map(|seed| spec.draw(seed)).find(|plan| !plan.is_empty()).unwrap();
    assert_eq!(sim.schedule_faults(&plan).unwrap_err(), "n2");
}
