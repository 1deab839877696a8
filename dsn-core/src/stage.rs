//! Stages: where events wait, by name, and what runs them.
//!
//! Stages are logical, executors physical. A *loop* stage's events run on workers and may not block; several loop
//! stages share workers when the layout is fused. A *shared* stage's jobs run on a blocking pool; stages that name
//! the same executor share its threads.
//!
//! Admission is by queue delay, not by length (CoDel's idea: Nichols & Jacobson, ACM Queue 2012): when even the
//! luckiest event of an interval waited longer than the target, the stage has a standing queue and new client
//! requests are refused until it has drained.

use crate::exec::WorkerId;
use crate::time::Mono;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Index of a stage within its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StageId(pub u16);

/// Length of an admission interval.
pub const ADMISSION_INTERVAL: Duration = Duration::from_millis(100);

/// The network loops.
pub const NETWORK: &str = "THREAD_POOL_NETWORK";
/// Everyday work.
pub const DEFAULT: &str = "THREAD_POOL_DEFAULT";
/// Owners of partitions.
pub const REPLICATION: &str = "THREAD_POOL_REPLICATION";
/// The meta server's state.
pub const META_SERVER: &str = "THREAD_POOL_META_SERVER";
/// Point reads that must touch files.
pub const LOCAL_APP: &str = "THREAD_POOL_LOCAL_APP";
/// Range reads.
pub const SCAN: &str = "THREAD_POOL_SCAN";
/// Log syncs.
pub const PLOG: &str = "THREAD_POOL_PLOG";
/// File copy and other bulk input and output.
pub const BLOCK_SERVICE: &str = "THREAD_POOL_BLOCK_SERVICE";
/// Opening and closing replicas, checkpoints, garbage collection.
pub const REPLICATION_LONG: &str = "THREAD_POOL_REPLICATION_LONG";

/// What runs a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Executor {
    /// Workers; events must not block.
    Loop(Vec<WorkerId>),
    /// A blocking pool, by its index in [`StagePlan::pools`].
    Shared(usize),
}

/// One stage of a node.
#[derive(Debug)]
pub struct Stage {
    name: String,
    executor: Executor,
    admit_delay: Duration,
    queue_limit: usize,
    waiting: AtomicUsize,
    interval_start: AtomicU64,
    interval_min: AtomicU64,
    overloaded: AtomicBool,
}

impl Stage {
    /// A stage. `admit_delay` zero switches admission off.
    pub fn new(name: &str, executor: Executor, admit_delay: Duration, queue_limit: usize) -> Self {
        Self {
            name: name.to_owned(),
            executor,
            admit_delay,
            queue_limit,
            waiting: AtomicUsize::new(0),
            interval_start: AtomicU64::new(0),
            interval_min: AtomicU64::new(u64::MAX),
            overloaded: AtomicBool::new(false),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What runs it.
    pub fn executor(&self) -> &Executor {
        &self.executor
    }

    /// The workers of a loop stage; empty for a shared one.
    pub fn workers(&self) -> &[WorkerId] {
        match &self.executor {
            Executor::Loop(workers) => workers,
            Executor::Shared(_) => &[],
        }
    }

    /// The queue-delay target; zero when admission by delay is off.
    pub fn admit_delay(&self) -> Duration {
        self.admit_delay
    }

    /// Most jobs that may wait or run.
    pub fn queue_limit(&self) -> usize {
        self.queue_limit
    }

    /// Jobs waiting or running (shared stages).
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether a new client request may join: no standing queue, and fewer than the limit waiting.
    pub fn admits(&self) -> bool {
        !self.overloaded.load(Ordering::Relaxed) && self.waiting() < self.queue_limit
    }

    /// A job was submitted.
    pub fn job_submitted(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// A job ended.
    pub fn job_ended(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// Records how long an event waited; of a refused one too, so that admission opens again when nothing else runs.
    pub fn note(&self, enqueued: Mono, begun: Mono) {
        if self.admit_delay.is_zero() {
            return;
        }
        let waited = begun.saturating_since(enqueued).as_nanos() as u64;
        let (start, now) = (self.interval_start.load(Ordering::Relaxed), begun.nanos());
        let length = ADMISSION_INTERVAL.as_nanos() as u64;
        let elapsed = now.saturating_sub(start);
        if elapsed >= 2 * length {
            // Nothing happened for a while: there is no standing queue, and one late event does not make one.
            self.interval_min.store(waited, Ordering::Relaxed);
            self.interval_start.store(now, Ordering::Relaxed);
            self.overloaded.store(false, Ordering::Relaxed);
            return;
        }
        if waited < self.interval_min.load(Ordering::Relaxed) {
            self.interval_min.store(waited, Ordering::Relaxed);
        }
        if elapsed >= length {
            let min = self.interval_min.swap(u64::MAX, Ordering::Relaxed);
            let standing = min != u64::MAX && min > self.admit_delay.as_nanos() as u64;
            self.overloaded.store(standing, Ordering::Relaxed);
            self.interval_start.store(now, Ordering::Relaxed);
        }
    }
}

/// The name of a lane of a shared stage ([`StagePlan::add_lanes`]); the first is the stage itself.
pub fn lane(stage: &str, index: usize) -> String {
    match index {
        0 => stage.to_owned(),
        _ => format!("{stage}_{}", index + 1),
    }
}

/// How loop stages share workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Every loop stage on every worker.
    Fused,
    /// Network loops apart from owners.
    Split,
}

/// Stages, workers and blocking pools of one node.
#[derive(Debug)]
pub struct StagePlan {
    /// Number of workers.
    pub workers: usize,
    /// The stages.
    pub stages: Vec<Stage>,
    /// Threads of each blocking pool, with a name.
    pub pools: Vec<(String, usize)>,
}

/// Default queue-delay target of loop stages.
pub const LOOP_ADMIT_DELAY: Duration = Duration::from_millis(20);
/// Default queue-delay target of shared stages.
pub const SHARED_ADMIT_DELAY: Duration = Duration::from_millis(100);
/// Default bound of jobs waiting in one shared stage.
pub const SHARED_QUEUE_LIMIT: usize = 10_000;

impl StagePlan {
    /// Gives a shared stage `count` lanes: itself, and further stages of one thread each ([`lane`]). What is done in
    /// one waits for nothing that is done in another.
    pub fn add_lanes(&mut self, stage: &str, count: usize) {
        let Some(of) = self.stages.iter().find(|of| of.name() == stage) else { return };
        let (admit_delay, queue_limit) = (of.admit_delay, of.queue_limit);
        let names: Vec<String> = (1..count).map(|index| lane(stage, index)).collect();
        // In front of the others: what loop stages want done elsewhere goes to the last pool.
        for stage in &mut self.stages {
            if let Executor::Shared(pool) = &mut stage.executor {
                *pool += names.len();
            }
        }
        self.pools.splice(0..0, names.iter().map(|name| (name.clone(), 1)));
        for (pool, name) in names.iter().enumerate() {
            let executor = Executor::Shared(pool);
            self.stages.push(Stage::new(name, executor, admit_delay, queue_limit));
        }
    }

    /// Gives the pool of a shared stage a thread more for each of `dirs` data directories but the first.
    pub fn add_threads(&mut self, stage: &str, dirs: usize) {
        let Some(of) = self.stages.iter().find(|of| of.name() == stage) else { return };
        if let Executor::Shared(pool) = of.executor {
            self.pools[pool].1 += dirs.saturating_sub(1);
        }
    }

    /// The index of a blocking pool by name; a new one of one thread when there is none.
    pub fn pool(&mut self, name: &str) -> usize {
        if let Some(index) = self.pools.iter().position(|(known, _)| known == name) {
            return index;
        }
        self.pools.push((name.to_owned(), 1));
        self.pools.len() - 1
    }

    /// The built-in plan for `cores` cores: fused loops up to three, split above.
    pub fn auto(cores: usize) -> Self {
        let cores = cores.max(1);
        let layout = if cores <= 3 { Layout::Fused } else { Layout::Split };
        Self::with_layout(cores, layout)
    }

    /// The built-in plan for a layout.
    pub fn with_layout(cores: usize, layout: Layout) -> Self {
        let (network, owners) = match layout {
            Layout::Fused => (0..cores, 0..cores),
            Layout::Split => {
                let network = if cores <= 8 { (cores / 4).max(1) } else { cores / 6 };
                let owners = if cores <= 8 { cores / 2 } else { cores / 3 }.max(1);
                (0..network, network..network + owners)
            }
        };
        let workers = network.end.max(owners.end);
        let ids = |range: std::ops::Range<usize>| -> Vec<WorkerId> {
            range.map(|i| WorkerId(i as u16)).collect()
        };
        let reads = if cores <= 3 { 2 } else { cores / 2 };
        let pools = vec![
            ("read".to_owned(), reads),
            ("log".to_owned(), 1),
            ("long".to_owned(), if cores <= 3 { 1 } else { 2 }),
        ];
        let looped = |name: &str, workers: Vec<WorkerId>| {
            Stage::new(name, Executor::Loop(workers), LOOP_ADMIT_DELAY, usize::MAX)
        };
        let shared = |name: &str, pool: usize| {
            Stage::new(name, Executor::Shared(pool), SHARED_ADMIT_DELAY, SHARED_QUEUE_LIMIT)
        };
        let stages = vec![
            looped(DEFAULT, ids(0..1)),
            looped(NETWORK, ids(network)),
            looped(REPLICATION, ids(owners)),
            looped(META_SERVER, ids(0..1)),
            shared(LOCAL_APP, 0),
            shared(SCAN, 0),
            shared(PLOG, 1),
            shared(BLOCK_SERVICE, 2),
            shared(REPLICATION_LONG, 2),
        ];
        Self { workers, stages, pools }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_cores_are_fused_and_sixteen_split() {
        let small = StagePlan::auto(2);
        assert_eq!(small.workers, 2);
        assert_eq!(small.stages[1].workers(), small.stages[2].workers());
        let big = StagePlan::auto(16);
        assert!(big.stages[1].workers().iter().all(|w| !big.stages[2].workers().contains(w)));
    }

    #[test]
    fn lanes_have_a_thread_each_and_move_nothing() {
        let mut plan = StagePlan::auto(2);
        let pool_of = |plan: &StagePlan, name: &str| {
            let stage = plan.stages.iter().find(|stage| stage.name() == name).unwrap();
            let Executor::Shared(pool) = stage.executor() else { panic!("shared") };
            plan.pools[*pool].clone()
        };
        let names = [LOCAL_APP, SCAN, PLOG, REPLICATION_LONG];
        let before = names.map(|name| pool_of(&plan, name));
        let last = plan.pools.last().cloned();
        plan.add_lanes(PLOG, 3);
        plan.add_lanes(SCAN, 1);
        assert_eq!(names.map(|name| pool_of(&plan, name)), before);
        assert_eq!(plan.pools.last().cloned(), last);
        for index in 1..3 {
            let name = lane(PLOG, index);
            assert_eq!(pool_of(&plan, &name), (name.clone(), 1));
        }
        assert_eq!(lane(PLOG, 0), PLOG);
    }

    #[test]
    fn a_standing_queue_closes_admission_and_a_drained_one_opens_it() {
        let stage =
            Stage::new("S", Executor::Shared(0), Duration::from_millis(5), SHARED_QUEUE_LIMIT);
        let ms = |n: u64| Mono::from_nanos(n * 1_000_000);
        stage.note(ms(1000), ms(1001));
        assert!(stage.admits());
        for n in 0..24 {
            stage.note(ms(1000 + n * 10), ms(1020 + n * 10));
        }
        assert!(!stage.admits(), "everything waited 20 ms for 200 ms");
        stage.note(ms(1450), ms(1500));
        assert!(stage.admits(), "a late event after a quiet time is no queue");
        for n in 0..12 {
            stage.note(ms(1480 + n * 10), ms(1500 + n * 10));
        }
        assert!(!stage.admits(), "another 100 ms of it");
        for n in 0..12 {
            stage.note(ms(1620 + n * 10), ms(1620 + n * 10));
        }
        assert!(stage.admits());
    }
}
