//! What goes wrong in the run of a seed.

use super::members;
use super::shape::{CLUSTER_KNOBS, GROUP_KNOBS, Servers, Shape, data_dirs, durability};
use dsn_core::hash::mix64;
use dsn_core::rng::Rng;
use dsn_core::sim::{CORE_KNOBS, Fault, FaultClass, Knob, PlanSpec, Scenario, Sim, TimedFault};
use dsn_replication::options::LogDurability;
use std::time::Duration;

/// Virtual time with faults and load.
pub const DURATION: Duration = Duration::from_secs(60);

/// Faults that the plan of a group has at least, and how often one is drawn for that.
pub const GROUP_FAULTS_MIN: usize = 8;
const FAULT_ROUNDS_MAX: u64 = 20;

/// Mean pause of a session of a group between two calls, at least, in ms.
const GROUP_THINK_MS: u64 = 40;

/// Where messages take 200 times as long as usual, so many bytes at least travel at a time. With 512, members cannot
/// answer within their time beside what is learned, and a group loses each as soon as it has it.
const WINDOW_MIN: u64 = 8 << 10;
const WINDOW: &str = "net.window";
const LATENCY: &str = "net.latency_percent";
const LONGEST: u64 = 20_000;

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

/// How often one machine loses its power, where the others have in memory what it loses.
const POWER_OF_ONE: [(FaultClass, u64); 1] = [(FaultClass::PowerOff, 8)];

/// The scenario of a seed: one replica server, one copy of everything. What may fail depends on what the
/// acknowledgement of a write promises.
pub fn draw(seed: u64) -> Scenario {
    draw_of(seed, &classes(seed))
}

/// The scenario of a seed with groups: three to five replica servers with up to three disks each, three copies of
/// everything, four clients.
pub fn draw_group(seed: u64) -> Scenario {
    let servers = 3 + seed % 3;
    let shape = [
        ("cluster.servers".to_owned(), servers),
        ("cluster.copies".to_owned(), 3),
        ("cluster.clients".to_owned(), 4),
    ];
    let mut scenario =
        draw_shaped(seed, &classes(seed), &shape, &[CORE_KNOBS, CLUSTER_KNOBS, GROUP_KNOBS]);
    // Eight sessions: more haste makes histories that the judge cannot decide in reasonable time.
    let think = scenario.knobs.entry("workload.think_ms".to_owned()).or_insert(GROUP_THINK_MS);
    *think = GROUP_THINK_MS.max(*think);
    let latency = scenario.knobs.get(LATENCY).copied();
    if let Some(window) = scenario.knobs.get_mut(WINDOW).filter(|_| latency == Some(LONGEST)) {
        *window = WINDOW_MIN.max(*window);
    }
    for round in 1..FAULT_ROUNDS_MAX {
        if scenario.faults.len() >= GROUP_FAULTS_MIN {
            break;
        }
        let more =
            plan(seed, &Shape::of(&scenario), &classes(seed)).draw(mix64(seed ^ mix64(round)));
        scenario.faults.extend(more);
        scenario.faults.sort_by_key(|fault| fault.at_ms);
    }
    let servers = Shape::of(&scenario).server_names();
    if let Some(one) = power_of_one(seed, &servers) {
        let mut power = plan(seed, &Shape::of(&scenario), &POWER_OF_ONE);
        power.nodes = vec![one.clone()];
        scenario.faults.extend(power.draw(mix64(seed)));
        scenario.faults.sort_by_key(|fault| fault.at_ms);
    }
    let dirs = data_dirs(&scenario);
    for timed in &mut scenario.faults {
        aim_at_one_dir(seed, timed, &servers, &dirs);
    }
    scenario
}

/// Half of the faults of a disk strike one of the several disks of a replica server, the others all of them.
fn aim_at_one_dir(seed: u64, timed: &mut TimedFault, servers: &[String], dirs: &[String]) {
    let TimedFault { at_ms, fault } = timed;
    let concerned = fault.nodes().iter().all(|node| servers.iter().any(|server| server == node));
    let Some(path) = fault.path_mut().filter(|_| concerned && dirs.len() > 1) else { return };
    let mut rng = Rng::stream(seed, "plan", "data dir", *at_ms);
    if rng.ratio(1, 2)
        && let Some(dir) = rng.pick(dirs)
    {
        *path = if path.is_empty() { format!("{dir}/") } else { format!("{dir}{path}") };
    }
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
    draw_shaped(seed, classes, &[], &[CORE_KNOBS, CLUSTER_KNOBS])
}

fn draw_shaped(
    seed: u64,
    classes: &[(FaultClass, u64)],
    shape: &[(String, u64)],
    knobs: &[&[Knob]],
) -> Scenario {
    let mut quiet = Scenario::quiet(seed, DURATION);
    quiet.knobs.extend(shape.iter().cloned());
    let plan = plan(seed, &Shape::of(&quiet), classes);
    let mut scenario = Scenario::draw(seed, DURATION, knobs, &plan);
    scenario.knobs.extend(quiet.knobs);
    scenario
}

/// Where acknowledged writes are in the memory of all members, the power of one of them may be cut, or its disk
/// damaged: what it loses the others have. A fourth of the seeds of groups does so; in the other half of those with
/// [`LogDurability::Os`] any disk may be damaged, and no power is cut. See [`spares`].
fn power_of_one(seed: u64, servers: &[String]) -> Option<&String> {
    let drawn = servers.len() > 1 && seed.is_multiple_of(4);
    let mut rng = Rng::stream(seed, "plan", "power of one", 0);
    servers.get(rng.index(servers.len())).filter(|_| drawn)
}

/// Whether a fault of the plan does not strike now: of a group that has only one member left nobody else has what that
/// one acknowledges, and without a sync its power is not cut then.
pub fn spares(sim: &Sim, servers: &Servers, partitions: i32, fault: &Fault) -> bool {
    let Fault::PowerOff { node, .. } = fault else { return false };
    let in_memory = durability(sim.seed()) == LogDurability::Os;
    let server = servers.replicas.iter().position(|id| sim.name(*id) == node);
    let Some(server) = server.filter(|_| in_memory && servers.replicas.len() > 1) else {
        return false;
    };
    !sim.is_up(servers.replicas[server])
        || members::has_all_there_is(sim, servers, partitions, server)
}

/// What may be drawn for a cluster of a shape.
fn plan(seed: u64, shape: &Shape, classes: &[(FaultClass, u64)]) -> PlanSpec {
    let servers = shape.server_names();
    let damageable = match power_of_one(seed, &servers) {
        Some(one) => vec![one.clone()],
        None => servers,
    };
    PlanSpec {
        nodes: shape.meta_names().into_iter().chain(shape.server_names()).collect(),
        peers: shape.client_names(),
        damageable,
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
    }
}

/// Whether the plan damages what is stored: with one copy of everything, a server may have to refuse then.
pub fn damages(scenario: &Scenario) -> bool {
    scenario.faults.iter().any(|timed| matches!(timed.fault, Fault::BitFlip { .. }))
}

/// Whether wall clocks jump.
pub fn steps_clocks(scenario: &Scenario) -> bool {
    scenario.faults.iter().any(|timed| matches!(timed.fault, Fault::WallStep { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seeds 332487, 335766 and 536541 asked for what no group can do.
    #[test]
    fn no_group_is_to_live_with_a_network_that_its_timeouts_do_not_allow() {
        for seed in [332_487, 335_766, 536_541] {
            let drawn = draw_group(seed).knobs;
            assert_eq!(drawn.get(LATENCY), Some(&LONGEST), "seed {seed} is about something else");
            assert_eq!(drawn.get(WINDOW), Some(&WINDOW_MIN), "seed {seed}");
        }
    }
}
