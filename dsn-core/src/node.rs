//! A node: one server's identity, stages, workers, files, metrics and commands.
//!
//! Nothing in the runtime is global: a process may host several nodes, and a simulation hosts a cluster of them.
//! A node is shared by its workers behind an `Arc` and is immutable but for atomics and registries.

use crate::code::{Code, Priority, registered};
use crate::command::Commands;
use crate::config::Config;
use crate::disk::Disk;
use crate::exec::{RawAddr, WorkerConfig, WorkerId, WorkerShared};
use crate::log::NodeLabel;
use crate::metrics::{MetricsOptions, Registry};
use crate::rng::Rng;
use crate::stage::{Stage, StagePlan};
use crate::time::Mono;
use crate::toollet::{HookedDisk, Hooks};
use std::fmt;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

pub use crate::stage::StageId;

/// Effective policy of a code on one node.
#[derive(Debug, Clone, Copy)]
pub struct CodeSpec {
    /// Which run queue.
    pub priority: Priority,
    /// Which stage.
    pub stage: StageId,
    /// Timeout of calls.
    pub timeout: Duration,
    /// Whether events past their deadline are dropped before they begin.
    pub drop_expired: bool,
    /// Whether the tracer follows its events.
    pub trace: bool,
    /// Whether the profiler measures its events.
    pub profile: bool,
}

/// What configuration changes of a code's declared policy. `None` keeps the declaration.
#[derive(Debug, Clone, Default)]
pub struct CodeOverride {
    /// Priority.
    pub priority: Option<Priority>,
    /// Stage name.
    pub stage: Option<String>,
    /// Call timeout.
    pub timeout: Option<Duration>,
    /// See [`CodeSpec::drop_expired`].
    pub drop_expired: Option<bool>,
    /// See [`CodeSpec::trace`].
    pub trace: Option<bool>,
    /// See [`CodeSpec::profile`].
    pub profile: Option<bool>,
}

/// Called when a resident was lost to a panic: worker, resident, code, panic message.
pub type PoisonHook = Box<dyn Fn(&Poisoned) + Send + Sync>;

/// Called before the workers end.
pub type StopHook = Box<dyn Fn() + Send + Sync>;

/// One lost resident.
#[derive(Debug, Clone)]
pub struct Poisoned {
    /// Where it lived.
    pub addr: RawAddr,
    /// The event that panicked.
    pub code: Code,
    /// The panic's message.
    pub text: String,
}

/// What a node is made of.
pub struct NodeParts {
    /// Unique within the cluster, `replica@127.0.0.1:34801` by habit; names random streams and log lines.
    pub name: String,
    /// App type, `meta` or `replica` for instance.
    pub role: String,
    /// Effective configuration, where there is one.
    pub config: Option<Config>,
    /// Stages and workers.
    pub plan: StagePlan,
    /// Turn limits.
    pub worker: WorkerConfig,
    /// Per-code changes, by code name.
    pub codes: Vec<(String, CodeOverride)>,
    /// Files.
    pub disk: Arc<dyn Disk>,
    /// Seed of the node's random streams: random natively, given in the simulator.
    pub seed: u64,
}

/// One server. See the module's header.
pub struct Node {
    name: String,
    role: String,
    config: Option<Config>,
    stages: Vec<Stage>,
    workers: Vec<Arc<WorkerShared>>,
    worker_config: WorkerConfig,
    specs: Vec<CodeSpec>,
    disk: Arc<dyn Disk>,
    hooked_disk: HookedDisk,
    seed: u64,
    metrics: Registry,
    commands: Commands,
    hooks: Arc<Hooks>,
    log_label: Arc<NodeLabel>,
    stopped: AtomicBool,
    vanished: AtomicU64,
    expired: AtomicU64,
    poisoned: AtomicU64,
    slow: AtomicU64,
    poison_hook: OnceLock<PoisonHook>,
    stop_hook: OnceLock<StopHook>,
    first_poisoned: OnceLock<Poisoned>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("name", &self.name).field("role", &self.role).finish()
    }
}

/// A configuration names a stage that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("task code {code} wants stage {stage}, which is not configured")]
pub struct UnknownStage {
    /// The code.
    pub code: String,
    /// The stage it names.
    pub stage: String,
}

/// Makes the runtime's own codes known, so that configuration may name them.
pub(crate) fn register_runtime_codes() {
    for codes in [crate::app::CODES, crate::toollet::CODES, &[&crate::exec::IO_READY]] {
        crate::code::register(codes);
    }
}

impl Node {
    /// Assembles a node. Codes registered so far get their effective policy.
    ///
    /// # Errors
    /// [`UnknownStage`] when an override names a stage that the plan does not have. A *declared* stage that the
    /// plan lacks falls back to the plan's first stage.
    pub fn new(parts: NodeParts) -> Result<Arc<Self>, UnknownStage> {
        let NodeParts { name, role, config, plan, worker, codes, disk, seed } = parts;
        register_runtime_codes();
        let stages = plan.stages;
        let find = |stage: &str| {
            stages.iter().position(|s: &Stage| s.name() == stage).map(|i| StageId(i as u16))
        };
        let mut specs = Vec::new();
        for code in registered() {
            let change = codes.iter().find(|(name, _)| name == code.name()).map(|(_, c)| c.clone());
            let change = change.unwrap_or_default();
            let stage = match &change.stage {
                Some(stage) => find(stage).ok_or_else(|| UnknownStage {
                    code: code.name().to_owned(),
                    stage: stage.clone(),
                })?,
                None => find(code.stage()).unwrap_or(StageId(0)),
            };
            specs.push(CodeSpec {
                priority: change.priority.unwrap_or(code.priority()),
                stage,
                timeout: change.timeout.unwrap_or(code.timeout()),
                drop_expired: change.drop_expired.unwrap_or(true),
                trace: change.trace.unwrap_or(true),
                profile: change.profile.unwrap_or(true),
            });
        }
        // A section that cannot be read has been reported by the loader.
        let metrics = config.as_ref().and_then(|config| config.section().ok());
        let metrics = metrics.unwrap_or_else(MetricsOptions::default);
        let stage_names = stages.iter().map(|stage| stage.name().to_owned()).collect();
        let log_label = Arc::new(NodeLabel { name: name.clone(), stages: stage_names });
        let workers =
            (0..plan.workers).map(|i| Arc::new(WorkerShared::new(WorkerId(i as u16)))).collect();
        let hooks = Arc::<Hooks>::default();
        let disk_specs = crate::toollet::CODES.iter().map(|code| specs[code.index()]).collect();
        let rolls = Rng::stream(seed, &name, "disk faults", 0);
        let hooked_disk = HookedDisk::new(disk, hooks.clone(), disk_specs, rolls);
        Ok(Arc::new(Self {
            name,
            role,
            config,
            stages,
            workers,
            worker_config: worker,
            specs,
            disk: Arc::new(hooked_disk.clone()),
            hooked_disk,
            seed,
            metrics: Registry::new(&metrics),
            commands: Commands::default(),
            hooks,
            log_label,
            stopped: AtomicBool::new(false),
            vanished: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            poisoned: AtomicU64::new(0),
            slow: AtomicU64::new(0),
            poison_hook: OnceLock::new(),
            stop_hook: OnceLock::new(),
            first_poisoned: OnceLock::new(),
        }))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its app type.
    pub fn role(&self) -> &str {
        &self.role
    }

    /// Effective configuration, where the node was made from one.
    pub fn config(&self) -> Option<&Config> {
        self.config.as_ref()
    }

    /// Its files.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Sets the clock by which toollets time operations on files.
    pub(crate) fn time_disk(&self, clock: impl Fn() -> Mono + Send + Sync + 'static) {
        self.hooked_disk.set_clock(Box::new(clock));
    }

    /// Seed of its random streams.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Metrics.
    pub fn metrics(&self) -> &Registry {
        &self.metrics
    }

    /// Operator commands.
    pub fn commands(&self) -> &Commands {
        &self.commands
    }

    /// Toollets.
    pub fn hooks(&self) -> &Hooks {
        &self.hooks
    }

    /// How log lines name the node and its stages.
    pub fn log_label(&self) -> &Arc<NodeLabel> {
        &self.log_label
    }
    pub(crate) fn hooks_on(&self) -> bool {
        self.hooks.is_on()
    }

    /// Effective policy of a code. A code that was not registered when the node was made has its declared one: what
    /// else the process has registered, and when, must not show.
    pub fn spec(&self, code: Code) -> CodeSpec {
        match self.specs.get(code.index()) {
            Some(spec) => *spec,
            None => CodeSpec {
                priority: code.priority(),
                stage: self.find_stage(code.stage()).unwrap_or(StageId(0)),
                timeout: code.timeout(),
                drop_expired: true,
                trace: true,
                profile: true,
            },
        }
    }

    /// Number of workers.
    pub fn worker_count(&self) -> usize {
        self.workers.len()
    }

    /// A worker's shared part.
    ///
    /// # Panics
    /// On an id of another node's worker.
    pub fn worker(&self, id: WorkerId) -> &Arc<WorkerShared> {
        &self.workers[id.index()]
    }

    /// Turns of all workers so far.
    pub fn turns(&self) -> u64 {
        self.workers.iter().map(|worker| worker.turns()).sum()
    }

    /// Turn limits.
    pub fn worker_config(&self) -> &WorkerConfig {
        &self.worker_config
    }

    /// All stages.
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// A stage by id.
    pub fn stage(&self, id: StageId) -> &Stage {
        &self.stages[usize::from(id.0)]
    }

    /// A stage by name.
    pub fn find_stage(&self, name: &str) -> Option<StageId> {
        self.stages.iter().position(|s| s.name() == name).map(|i| StageId(i as u16))
    }

    /// The worker of a loop stage that has the fewest residents.
    pub fn least_loaded(&self, stage: StageId) -> WorkerId {
        self.stage(stage)
            .workers()
            .iter()
            .copied()
            .min_by_key(|id| self.worker(*id).residents())
            .unwrap_or(WorkerId(0))
    }

    /// Whether the node's workers are to end.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Ends the node's workers after their current turn. What [`Self::before_stop`] was given runs first.
    pub fn stop(&self) {
        if let Some(hook) = self.stop_hook.get() {
            hook();
        }
        self.stopped.store(true, Ordering::Release);
        for worker in &self.workers {
            worker.mailbox.wake();
        }
    }

    /// Something without which the node cannot work is lost: better none than half a one. The process that it is all of
    /// ends, and whatever watches over that starts it again.
    pub fn fail(&self, text: &str) {
        tracing::error!(
            node = self.name,
            text,
            "a part that a node cannot do without has panicked, the node ends"
        );
        self.stop();
    }

    /// Sets what is done before the first worker ends, however that comes about; the first setting stays.
    pub fn before_stop(&self, hook: StopHook) {
        let _ = self.stop_hook.set(hook);
    }

    /// Sets what is told about lost residents; the first setting stays.
    pub fn on_poison(&self, hook: PoisonHook) {
        let _ = self.poison_hook.set(hook);
    }

    /// Residents lost to panics so far.
    pub fn poisoned(&self) -> u64 {
        self.poisoned.load(Ordering::Relaxed)
    }

    /// The first lost resident, if any was lost.
    pub fn first_poisoned(&self) -> Option<&Poisoned> {
        self.first_poisoned.get()
    }

    /// Residents alive or on their way, of all workers.
    pub fn residents(&self) -> usize {
        self.workers.iter().map(|worker| worker.residents()).sum()
    }

    /// Events that found their resident gone.
    pub fn vanished(&self) -> u64 {
        self.vanished.load(Ordering::Relaxed)
    }

    /// Events dropped because their deadline had passed.
    pub fn expired(&self) -> u64 {
        self.expired.load(Ordering::Relaxed)
    }

    /// Events that ran longer than [`WorkerConfig::slow_task`].
    pub fn slow(&self) -> u64 {
        self.slow.load(Ordering::Relaxed)
    }

    pub(crate) fn count_slow(&self) {
        self.slow.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn report_poison(&self, _worker: WorkerId, addr: RawAddr, code: Code, text: String) {
        self.poisoned.fetch_add(1, Ordering::Relaxed);
        let lost = Poisoned { addr, code, text };
        if let Some(hook) = self.poison_hook.get() {
            hook(&lost);
        }
        let _ = self.first_poisoned.set(lost);
    }

    pub(crate) fn count_vanished(&self, _code: Code) {
        self.vanished.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_expired(&self, _code: Code) {
        self.expired.fetch_add(1, Ordering::Relaxed);
    }
    pub(crate) fn note_sojourn(&self, code: Code, enqueued: Mono, begun: Mono) {
        if enqueued != Mono::ZERO {
            self.stage(self.spec(code).stage).note(enqueued, begun);
        }
    }
}
