//! From sections of the configuration to stages, threads and policies of codes.

use super::AppInstance;
use crate::code;
use crate::config::{Config, ConfigError, Layout, RuntimeOptions, StageOptions, TaskOptions};
use crate::disk::Disk;
use crate::exec::{WorkerConfig, WorkerId};
use crate::node::{CodeOverride, NodeParts, register_runtime_codes};
use crate::rng::Rng;
use crate::stage::{self, Executor, Stage, StagePlan};
use std::sync::Arc;
use std::time::Duration;

/// What a node of `instance` is made of, for any driver.
///
/// # Errors
/// A configuration that names unknown stages or codes.
pub fn node_parts(
    instance: &AppInstance,
    disk: Arc<dyn Disk>,
    seed: u64,
) -> Result<NodeParts, String> {
    let config = &instance.config;
    let text = |error: ConfigError| error.to_string();
    let runtime: RuntimeOptions = config.section().map_err(text)?;
    let [high, common, low] = runtime.priority_weights;
    let port = instance.ports.first().map(|port| format!("@{port}")).unwrap_or_default();
    Ok(NodeParts {
        name: format!("{}{}{port}", instance.name, instance.index),
        role: instance.name.clone(),
        config: Some(config.clone()),
        plan: stage_plan(config, &runtime, instance.data_dirs.len())?,
        worker: WorkerConfig {
            turn_tasks: runtime.turn_tasks as usize,
            turn_time: runtime.turn_time,
            slow_task: runtime.slow_task,
            weights: [low, common, high],
        },
        codes: code_overrides(config)?,
        disk,
        seed: Rng::new(seed).next_u64(),
    })
}

/// The policy of every code that the program knows, where the configuration says anything about it.
fn code_overrides(config: &Config) -> Result<Vec<(String, CodeOverride)>, String> {
    register_runtime_codes();
    for (name, origin) in config.names("task.*") {
        if code::find(&name).is_none() {
            return Err(format!("{origin}: [task.{name}]: no such task code"));
        }
    }
    let mut overrides = Vec::new();
    for code in code::registered() {
        let options: TaskOptions = config.named(code.name()).map_err(|error| error.to_string())?;
        let timeout = options.rpc_timeout_milliseconds;
        let change = CodeOverride {
            priority: options.priority,
            stage: options.pool_code,
            timeout: timeout.map(|millis| Duration::from_millis(u64::from(millis))),
            drop_expired: Some(options.drop_expired),
            trace: Some(options.is_trace),
            profile: Some(options.is_profile),
        };
        overrides.push((code.name().to_owned(), change));
    }
    Ok(overrides)
}

/// Stages and threads from `[runtime]` and `[threadpool.*]` over the built-in plan.
fn stage_plan(
    config: &Config,
    runtime: &RuntimeOptions,
    data_dirs: usize,
) -> Result<StagePlan, String> {
    let cores = match runtime.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers => workers as usize,
    };
    let mut plan = match runtime.layout {
        Layout::Auto => StagePlan::auto(cores),
        Layout::Fused => StagePlan::with_layout(cores, stage::Layout::Fused),
        Layout::Split => StagePlan::with_layout(cores, stage::Layout::Split),
    };
    // A disk that hangs must not hold up the others.
    plan.add_lanes(stage::PLOG, data_dirs);
    plan.add_threads(stage::REPLICATION_LONG, data_dirs);
    for (name, origin) in config.names("threadpool.*") {
        if !plan.stages.iter().any(|stage| stage.name() == name) {
            let known: Vec<&str> = plan.stages.iter().map(|stage| stage.name()).collect();
            return Err(format!(
                "{origin}: [threadpool.{name}]: no such stage; there are {known:?}"
            ));
        }
    }
    let mut threads: Vec<(usize, usize)> = Vec::new();
    for index in 0..plan.stages.len() {
        let name = plan.stages[index].name().to_owned();
        let options: StageOptions =
            config.named(&name).map_err(|error: ConfigError| error.to_string())?;
        let executor = match plan.stages[index].executor().clone() {
            Executor::Shared(pool) => {
                let pool = match options.executor.as_str() {
                    "" => pool,
                    wanted => plan.pool(wanted),
                };
                threads.push((pool, options.worker_count as usize));
                Executor::Shared(pool)
            }
            Executor::Loop(workers) => Executor::Loop(loops(&name, &options, workers)?),
        };
        let stage = &plan.stages[index];
        let admit_delay = options.admit_delay.unwrap_or(stage.admit_delay());
        let queue_limit = options.queue_limit.map_or(stage.queue_limit(), |limit| limit as usize);
        plan.stages[index] = Stage::new(&name, executor, admit_delay, queue_limit);
    }
    for pool in 0..plan.pools.len() {
        // Of stages that share threads, the one that wants most of them counts.
        let wanted = threads.iter().filter(|(of, _)| *of == pool).map(|(_, count)| *count).max();
        if let Some(count) = wanted.filter(|count| *count > 0) {
            plan.pools[pool].1 = count;
        }
    }
    Ok(plan)
}

/// The workers of a loop stage: those that the layout gives it, or the first few of them.
fn loops(
    name: &str,
    options: &StageOptions,
    mut workers: Vec<WorkerId>,
) -> Result<Vec<WorkerId>, String> {
    if !options.executor.is_empty() {
        return Err(format!(
            "[threadpool.{name}] executor = {:?}: the events of this stage run on the worker loops, as \
             [runtime] layout puts them",
            options.executor
        ));
    }
    let (wanted, given) = (options.worker_count as usize, workers.len());
    if wanted > given {
        return Err(format!(
            "[threadpool.{name}] worker_count = {wanted}: the layout gives this stage {given}; see [runtime] \
             workers"
        ));
    }
    if wanted > 0 {
        workers.truncate(wanted);
    }
    Ok(workers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::Priority;
    use crate::config::{Loader, core_schema};
    use crate::disk::Disk;
    use crate::node::Node;
    use crate::sim::SimDisk;

    crate::task_codes! {
        CODES;
        RPC_PLAN_PLAIN: Rpc, Common, "THREAD_POOL_DEFAULT";
        RPC_PLAN_CHANGED: Rpc, Low, "THREAD_POOL_DEFAULT", timeout_ms = 700;
    }

    fn config(text: &str) -> Config {
        Loader::new(core_schema()).text("t.toml", text).load().unwrap()
    }

    fn plan(text: &str) -> Result<StagePlan, String> {
        let config = config(text);
        stage_plan(&config, &config.section().unwrap(), 1)
    }

    fn stage<'a>(plan: &'a StagePlan, name: &str) -> &'a Stage {
        plan.stages.iter().find(|stage| stage.name() == name).unwrap()
    }

    fn threads(plan: &StagePlan, name: &str) -> (String, usize) {
        let Executor::Shared(pool) = stage(plan, name).executor() else { panic!("shared") };
        plan.pools[*pool].clone()
    }

    #[test]
    fn the_layout_decides_who_shares_workers() {
        let of = |text: &str| {
            let plan = plan(text).unwrap();
            let workers = |name| stage(&plan, name).workers().len();
            let shared = stage(&plan, stage::NETWORK).workers()
                == stage(&plan, stage::REPLICATION).workers();
            (workers(stage::NETWORK), workers(stage::REPLICATION), shared)
        };
        assert_eq!(of("[runtime]\nworkers = 2\n"), (2, 2, true), "auto on two cores");
        assert_eq!(of("[runtime]\nworkers = 8\n"), (2, 4, false), "auto on eight");
        assert_eq!(of("[runtime]\nworkers = 8\nlayout = 'fused'\n"), (8, 8, true));
        assert_eq!(of("[runtime]\nworkers = 2\nlayout = 'split'\n"), (1, 1, false));
    }

    #[test]
    fn shared_stages_get_their_threads() {
        let scan = "[runtime]\nworkers = 2\n[threadpool.THREAD_POOL_SCAN]\nworker_count = 3\n";
        let together = plan(scan).unwrap();
        assert_eq!(threads(&together, stage::SCAN), ("read".to_owned(), 3));
        assert_eq!(threads(&together, stage::LOCAL_APP).1, 3, "they share");
        let apart = plan(&format!("{scan}executor = 'scan'\n")).unwrap();
        assert_eq!(threads(&apart, stage::SCAN), ("scan".to_owned(), 3));
        assert_eq!(threads(&apart, stage::LOCAL_APP), ("read".to_owned(), 2));
        let loops = plan(
            "[runtime]\nworkers = 4\nlayout = 'fused'\n\
                          [threadpool.THREAD_POOL_REPLICATION]\nworker_count = 3\n",
        );
        assert_eq!(stage(&loops.unwrap(), stage::REPLICATION).workers().len(), 3);
    }

    #[test]
    fn what_a_stage_does_not_say_stays_as_declared_or_as_default_says() {
        let built_in = plan("").unwrap();
        let changed = plan("[threadpool.THREAD_POOL_SCAN]\nworker_count = 1\n").unwrap();
        for plan in [&built_in, &changed] {
            assert_eq!(stage(plan, stage::SCAN).admit_delay(), stage::SHARED_ADMIT_DELAY);
            assert_eq!(stage(plan, stage::SCAN).queue_limit(), stage::SHARED_QUEUE_LIMIT);
        }
        let text = "[threadpool.default]\nadmit_delay = '7ms'\n[threadpool.THREAD_POOL_SCAN]\nqueue_limit = 5\n";
        let inherited = plan(text).unwrap();
        let seven = Duration::from_millis(7);
        assert!(inherited.stages.iter().all(|stage| stage.admit_delay() == seven));
        assert_eq!(stage(&inherited, stage::SCAN).queue_limit(), 5);
        assert_eq!(stage(&inherited, stage::LOCAL_APP).queue_limit(), stage::SHARED_QUEUE_LIMIT);
    }

    #[test]
    fn what_cannot_be_had_is_refused() {
        let refused = |text: &str| plan(text).unwrap_err();
        let unknown = refused("\n[threadpool.THREAD_POOL_SCNA]\nworker_count = 3\n");
        assert!(
            unknown.contains("t.toml:2: [threadpool.THREAD_POOL_SCNA]: no such stage"),
            "{unknown}"
        );
        let few =
            refused("[runtime]\nworkers = 2\n[threadpool.THREAD_POOL_NETWORK]\nworker_count = 3\n");
        assert!(few.contains("worker_count = 3: the layout gives this stage 2"), "{few}");
        let moved = refused("[threadpool.THREAD_POOL_NETWORK]\nexecutor = 'x'\n");
        assert!(moved.contains("executor = \"x\""), "{moved}");
    }

    fn node(text: &str) -> Result<Arc<Node>, String> {
        code::register(CODES);
        let instance = AppInstance {
            name: "a".to_owned(),
            index: 1,
            ports: vec![34_801],
            data_dirs: Vec::new(),
            arguments: String::new(),
            config: config(text),
        };
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::standalone(1));
        Node::new(node_parts(&instance, disk, 1)?).map_err(|error| error.to_string())
    }

    #[test]
    fn a_code_has_what_its_section_or_the_default_one_says() {
        let plain = node("").unwrap().spec(&RPC_PLAN_CHANGED);
        assert_eq!((plain.priority, plain.timeout), (Priority::Low, Duration::from_millis(700)));
        assert!(plain.drop_expired && plain.trace && plain.profile);
        let node = node(
            "[task.default]\nis_profile = false\nrpc_timeout_milliseconds = 9\n\
             [task.RPC_PLAN_CHANGED]\npriority = 'high'\npool_code = 'THREAD_POOL_SCAN'\n\
             drop_expired = false\nis_trace = false\nrpc_timeout_milliseconds = 11\n",
        );
        let node = node.unwrap();
        let changed = node.spec(&RPC_PLAN_CHANGED);
        assert_eq!(
            (changed.priority, changed.timeout),
            (Priority::High, Duration::from_millis(11))
        );
        assert_eq!(node.stage(changed.stage).name(), stage::SCAN);
        assert!(!changed.drop_expired && !changed.trace && !changed.profile);
        let inherits = node.spec(&RPC_PLAN_PLAIN);
        assert_eq!(
            (inherits.priority, inherits.timeout),
            (Priority::Common, Duration::from_millis(9))
        );
        assert!(inherits.drop_expired && inherits.trace && !inherits.profile);
        assert_eq!(node.name(), "a1@34801");
    }

    #[test]
    fn unknown_codes_and_stages_are_refused() {
        let unknown = node("[task.RPC_PLAN_GONE]\npriority = 'low'\n").unwrap_err();
        assert_eq!(unknown, "t.toml:1: [task.RPC_PLAN_GONE]: no such task code");
        let faulty = node("[task.RPC_PLAN_GONE.fault]\ndrop = 0.5\n").unwrap_err();
        assert!(faulty.contains("RPC_PLAN_GONE"), "{faulty}");
        let stage = node("[task.RPC_PLAN_PLAIN]\npool_code = 'THREAD_POOL_X'\n").unwrap_err();
        assert!(stage.contains("THREAD_POOL_X"), "{stage}");
    }
}
