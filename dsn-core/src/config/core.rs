//! The sections of the configuration that the runtime itself reads.

use std::time::Duration;

use super::{ConfigSchema, Size};
use crate::code::Priority;
use crate::metrics::MetricsOptions;

crate::choice! {
    /// What runs the service: the real world or a simulated one.
    pub enum Tool {
        /// Threads, sockets and files of the operating system.
        Native = "native" | "nativerun",
        /// Virtual time, network and disks in one thread, from a seed: what simulations run, not servers.
        Simulator = "simulator",
    }
}

crate::choice! {
    /// How serious a line of the log is. A line is written when its level is at least the start level.
    pub enum LogLevel {
        /// Details for whoever debugs the program.
        Debug = "debug" | "LOG_LEVEL_DEBUG",
        /// What happened.
        Info = "info" | "LOG_LEVEL_INFO",
        /// Something is unusual, and the server copes.
        Warning = "warning" | "LOG_LEVEL_WARNING",
        /// Something failed.
        Error = "error" | "LOG_LEVEL_ERROR",
        /// The process cannot go on.
        Fatal = "fatal" | "LOG_LEVEL_FATAL",
    }
}

crate::choice! {
    /// What a panic in the handler of a resident leads to.
    pub enum OnPanic {
        /// The resident is removed and reported; the process goes on.
        Poison = "poison",
        /// The process ends, with a core if the system makes one.
        Abort = "abort",
    }
}

crate::choice! {
    /// How stages are put onto threads.
    pub enum Layout {
        /// `fused` up to three cores, `split` above.
        Auto = "auto",
        /// Every loop polls sockets and owns partitions.
        Fused = "fused",
        /// Network loops and owner loops are threads of their own.
        Split = "split",
    }
}

crate::choice! {
    impl for Priority {
        Low = "low" | "TASK_PRIORITY_LOW",
        Common = "common" | "TASK_PRIORITY_COMMON",
        High = "high" | "TASK_PRIORITY_HIGH",
    }
}

crate::options! {
    /// The process as a whole.
    pub section CoreOptions at "core" {
        /// What runs the service: `native` is the real world, `simulator` a deterministic one.
        tool: Tool = Tool::Native;
        /// Tools attached to every task from the start: `tracer`, `profiler`, `fault_injector`. Commands
        /// attach and detach them later.
        toollets: Vec<String> = Vec::new();
        /// Where the server keeps its data; one directory for each disk.
        data_dirs: Vec<String> = ["./data"];
        /// Lines below this level are not logged.
        logging_start_level: LogLevel = LogLevel::Info, [mutable];
        /// Levels for single modules, each `module::path=level`; they win over `logging_start_level`.
        logging_targets: Vec<String> = Vec::new();
        /// Where log files go. Empty: to standard error only.
        log_dir: String = "";
        /// A log file that has reached this size is closed and a new one begun.
        max_log_file_bytes: Size = Size::mib(64), in Size::kib(4)..=Size::gib(4);
        /// When more log files than this are in the directory, the oldest are deleted.
        max_number_of_log_files_on_disk: u32 = 20, in 1..=10_000;
        /// Lines of at least this level also go to standard error when there are log files.
        stderr_start_level: LogLevel = LogLevel::Warning, [mutable];
        /// An orderly stop that has not ended after this time is forced.
        shutdown_timeout: Duration = Duration::from_secs(20),
            in Duration::from_secs(1)..=Duration::from_secs(600);
        /// What a panic in a handler leads to: `poison` removes the resident at fault, `abort` ends the
        /// process.
        on_panic: OnPanic = OnPanic::Poison;
    }
}

crate::options! {
    /// The worker loops and their budgets.
    pub section RuntimeOptions at "runtime" {
        /// How stages are put onto threads. `auto` takes `fused` on one to three cores, else `split`.
        layout: Layout = Layout::Auto;
        /// Worker loops; 0 means one per core.
        workers: u32 = 0, in 0..=256;
        /// Tasks a worker runs before it looks at sockets, timers and disks again.
        turn_tasks: u32 = 128, in 1..=10_000;
        /// Time after which a worker looks at sockets, timers and disks again.
        turn_time: Duration = Duration::from_micros(100),
            in Duration::from_micros(10)..=Duration::from_millis(100);
        /// A task that runs longer than this is reported by name.
        slow_task: Duration = Duration::from_millis(10);
        /// How many events of high, common and low priority a worker runs in a round, as long as all three
        /// wait. None of them is ever starved.
        priority_weights: [u32; 3] = [16, 4, 1], in 1..=1_000;
    }
}

crate::options! {
    /// A service app: what one role of the server runs. `[apps.replica]`, `[apps.meta]`.
    pub section AppOptions at "apps.*" {
        /// Which registered app this is. Empty: the one called like the section.
        r#type: String = "";
        /// Whether this server runs it.
        run: bool = true;
        /// How many of it run in this process, each a node of its own with its ports and data shifted.
        count: u32 = 1, in 1..=1_000;
        /// TCP ports it listens on. The n-th instance adds n - 1 to each.
        ports: Vec<u16> = Vec::new(), in 1..=65_535;
        /// Where it keeps its data. Empty: below `[core] data_dirs`.
        data_dir: String = "";
        /// Free text handed to the app.
        arguments: String = "";
    }
}

crate::options! {
    /// A stage: where events of a kind wait, and who runs them. `[threadpool.THREAD_POOL_REPLICATION]`.
    pub section StageOptions at "threadpool.*" {
        /// Stages naming the same executor share its threads. Empty: as the layout decides. Only for
        /// stages whose events may block; where the others run is decided by `[runtime] layout`.
        executor: String = "";
        /// Threads of the stage's executor; of stages that share one, the largest number counts. For a stage
        /// of worker loops: on how many of those that the layout gives it. 0 means as the layout decides.
        worker_count: u32 = 0, in 0..=1_024;
        /// When events have waited longer than this throughout 100 ms, new ones of low and common
        /// priority from clients are refused as busy. 0 turns this off. Unset: 20 ms on worker loops,
        /// 100 ms where events may block.
        admit_delay: Option<Duration> = None;
        /// Events that may wait; beyond, new ones are refused. Unset: no limit on worker loops, 10,000
        /// where events may block.
        queue_limit: Option<u32> = None, in 1..=16_777_216;
    }
}

crate::options! {
    /// What holds for one kind of event, by its code. `[task.RPC_RRDB_RRDB_PUT]`.
    pub section TaskOptions at "task.*" {
        /// Which waiting events run first. Unset: as the program declares the code.
        priority: Option<Priority> = None;
        /// The stage in which these events wait. Unset: as the program declares the code.
        pool_code: Option<String> = None;
        /// How long a call with this code may take. Unset: as the program declares the code.
        rpc_timeout_milliseconds: Option<u32> = None, in 1..=3_600_000;
        /// Whether the tracer, when it is on, follows events with this code.
        is_trace: bool = true;
        /// Whether the profiler, when it is on, measures events with this code.
        is_profile: bool = true;
        /// Whether an event whose deadline has passed before it runs is dropped.
        drop_expired: bool = true;
    }
}

crate::options! {
    /// Faults that the fault injector, when it is on, adds to messages with one code. Each number is a
    /// probability.
    pub section FaultOptions at "task.*.fault" {
        /// The message vanishes.
        drop: f64 = 0.0, in 0.0..=1.0, [mutable];
        /// The message fails.
        fail: f64 = 0.0, in 0.0..=1.0, [mutable];
        /// The message comes later, by a time between `delay_min` and `delay_max`.
        delay: f64 = 0.0, in 0.0..=1.0, [mutable];
        /// The shortest delay.
        delay_min: Duration = Duration::from_millis(1), [mutable];
        /// The longest delay.
        delay_max: Duration = Duration::from_millis(200), [mutable];
    }
}

/// The sections of the runtime: the beginning of every program's schema.
pub fn core_schema() -> ConfigSchema {
    ConfigSchema::new()
        .section::<CoreOptions>()
        .section::<RuntimeOptions>()
        .section::<AppOptions>()
        .section::<StageOptions>()
        .section::<TaskOptions>()
        .section::<FaultOptions>()
        .section::<MetricsOptions>()
}
