//! What goes wrong in the run of a seed.

use super::shape::{CLUSTER_KNOBS, Shape, durability};
use dsn_core::sim::{CORE_KNOBS, Fault, FaultClass, PlanSpec, Scenario};
use dsn_replication::options::LogDurability;
use std::time::Duration;

/// Virtual time with faults and load.
pub const DURATION: Duration = Duration::from_secs(60);

/// Files of the mutation log.
const LOG: &str = "/replica/log/";
/// Files of replicas.
const REPLICAS: &str = "/replica/reps/";
/// The newest records of a log with one copy cannot be told from torn writes: bits flip before them.
const LOG_SPARE: u64 = 128 << 10;

/// What may go wrong, and how long it takes on average until it does again; each class takes part in half of the seeds.
const CLASSES: [(FaultClass, u64); 15] = [
    (FaultClass::Kill, 8),
    (FaultClass::CrashAtStep, 10),
    (FaultClass::Pause, 10),
    (FaultClass::Partition, 10),
    (FaultClass::Clog, 10),
    (FaultClass::Reset, 5),
    (FaultClass::Silence, 15),
    (FaultClass::DiskFail, 25),
    (FaultClass::DiskSlow, 15),
    (FaultClass::DiskFull, 25),
    (FaultClass::BitFlip, 20),
    (FaultClass::SlowCpu, 15),
    (FaultClass::FdLimit, 20),
    (FaultClass::WallStep, 20),
    (FaultClass::Drift, 20),
];

/// What may go wrong as well where an acknowledged write is on the disk.
const SYNCED_CLASSES: [(FaultClass, u64); 3] =
    [(FaultClass::PowerOff, 8), (FaultClass::PowerAtStep, 8), (FaultClass::SyncFail, 20)];

/// The scenario of a seed: one replica server, one copy of everything. What may fail depends on what the
/// acknowledgement of a write promises.
pub fn draw(seed: u64) -> Scenario {
    draw_of(seed, &classes(seed))
}

/// The scenario of a seed with groups: three to five replica servers, three copies of everything, four clients.
pub fn draw_group(seed: u64) -> Scenario {
    let servers = 3 + seed % 3;
    let shape = [
        ("cluster.servers".to_owned(), servers),
        ("cluster.copies".to_owned(), 3),
        ("cluster.clients".to_owned(), 4),
    ];
    draw_shaped(seed, &classes(seed), &shape)
}

fn classes(seed: u64) -> Vec<(FaultClass, u64)> {
    let mut classes = CLASSES.to_vec();
    if durability(seed) == LogDurability::GroupSync {
        classes.extend(SYNCED_CLASSES);
    }
    classes
}

/// The scenario of a seed with only some classes of faults, each with the mean time between two of it in seconds.
pub fn draw_of(seed: u64, classes: &[(FaultClass, u64)]) -> Scenario {
    draw_shaped(seed, classes, &[])
}

fn draw_shaped(seed: u64, classes: &[(FaultClass, u64)], knobs: &[(String, u64)]) -> Scenario {
    let mut quiet = Scenario::quiet(seed, DURATION);
    quiet.knobs.extend(knobs.iter().cloned());
    let shape = Shape::of(&quiet);
    let plan = PlanSpec {
        nodes: shape.meta_names().into_iter().chain(shape.server_names()).collect(),
        peers: shape.client_names(),
        damageable: shape.server_names(),
        classes: classes
            .iter()
            .map(|(class, every)| (*class, Duration::from_secs(*every)))
            .collect(),
        paths: vec![LOG.to_owned(), REPLICAS.to_owned(), String::new()],
        flips: vec![(LOG.to_owned(), LOG_SPARE), (REPLICAS.to_owned(), 0)],
        from: Duration::from_secs(1),
        to: DURATION,
        max_down: 2,
        longest: Duration::from_secs(15),
    };
    let mut scenario = Scenario::draw(seed, DURATION, &[CORE_KNOBS, CLUSTER_KNOBS], &plan);
    scenario.knobs.extend(knobs.iter().cloned());
    scenario
}

/// Whether the plan damages what is stored: with one copy of everything, a server may have to refuse then.
pub fn damages(scenario: &Scenario) -> bool {
    scenario.faults.iter().any(|timed| matches!(timed.fault, Fault::BitFlip { .. }))
}

/// Whether wall clocks jump.
pub fn steps_clocks(scenario: &Scenario) -> bool {
    scenario.faults.iter().any(|timed| matches!(timed.fault, Fault::WallStep { .. }))
}
