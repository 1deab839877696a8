//! Logging: lines that say when, where and during which event something happened.
//!
//! ```text
//! W2026-11-24 03:43:00.123456 replica1@34801 REPLICATION/w0 RPC_PREPARE dsn_rpc::call: no answer peer=h:1
//! ```
//!
//! Level, time (virtual in the simulator), node, stage and thread, task code, module, message, fields. The
//! code of the server uses the macros of `tracing`; this module is the subscriber behind them. One line is
//! one event: line breaks within values are escaped, and a line is cut at [`LINE_MAX`] bytes.
//!
//! Node, stage, thread and code come from a cell of the running thread that the worker keeps up to date
//! ([`set_thread`], [`set_task`]); it is the only thread-local of the runtime, and nothing but this module
//! reads it.
//!
//! Lines go to files in `[core] log_dir`, from `stderr_start_level` on also to standard error, or only
//! there when no directory is given. A line is written when the event happens, without a buffer, so that
//! none is lost when the process ends, however it ends. A message below the start level costs one relaxed
//! load.
//!
//! [`init`] makes a process log; the level changes at run time with `[core] logging_start_level`, by the
//! command `reset-log-start-level`, and for single modules with `log-target-level`.

mod current;
mod files;
mod filter;
mod format;

use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use crate::command::{CommandReply, Commands};
use crate::config::{Config, ConfigError, CoreOptions, LogLevel, OnPanic, Tunable};

pub use current::{AsThread, NodeLabel, Thread, as_thread, set_task, set_thread, set_virtual_time};
pub use filter::BadTarget;
pub use format::LINE_MAX;

use files::RotatingFile;
use filter::Filter;

/// Why a process cannot log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The configuration is not complete.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An element of `[core] logging_targets` means nothing.
    #[error("[core] logging_targets: {0}")]
    BadTarget(#[from] BadTarget),
    /// The directory or a file in it cannot be made.
    #[error("cannot log to {dir}: {cause}")]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// What the operating system said.
        cause: std::io::Error,
    },
    /// Somebody has set a subscriber before.
    #[error("this process logs already")]
    Already,
}

/// Where lines go.
struct Sinks {
    file: Option<Mutex<RotatingFile>>,
    /// Lines from this level on go to standard error.
    stderr_from: Tunable<LogLevel>,
    /// Takes every line, in tests.
    memory: Option<Mutex<Box<dyn Write + Send>>>,
    /// Lines that no file took.
    lost: AtomicU64,
}

impl Sinks {
    fn write(&self, level: LogLevel, line: &[u8]) {
        let in_file = self.file.as_ref().is_some_and(|file| file.lock().write(line).is_ok());
        if self.file.is_some() && !in_file {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(memory) = &self.memory {
            let _ = memory.lock().write_all(line);
        } else if !in_file || level >= self.stderr_from.get() {
            let _ = std::io::stderr().lock().write_all(line);
        }
    }
}

/// The subscriber's layer: filters, formats, writes.
pub struct Logger {
    handle: LogHandle,
}

/// Controls the log of the process. Clones control the same one.
#[derive(Clone)]
pub struct LogHandle {
    filter: Arc<Filter>,
    sinks: Arc<Sinks>,
}

impl Logger {
    /// A logger as the options want it.
    ///
    /// # Errors
    /// [`LogError::BadTarget`] and [`LogError::Directory`].
    pub fn new(options: &CoreOptions) -> Result<Self, LogError> {
        let file = match options.log_dir.as_str() {
            "" => None,
            dir => {
                let dir = PathBuf::from(dir);
                let size = options.max_log_file_bytes.get();
                let files = options.max_number_of_log_files_on_disk;
                match RotatingFile::open(&dir, size, files) {
                    Ok(file) => Some(Mutex::new(file)),
                    Err(cause) => return Err(LogError::Directory { dir, cause }),
                }
            }
        };
        let stderr_from = options.stderr_start_level.clone();
        Self::with_sinks(
            options,
            Sinks { file, stderr_from, memory: None, lost: AtomicU64::new(0) },
        )
    }

    /// A logger that writes every line to `sink` and nowhere else.
    ///
    /// # Errors
    /// [`LogError::BadTarget`]
    pub fn to_sink(
        options: &CoreOptions,
        sink: impl Write + Send + 'static,
    ) -> Result<Self, LogError> {
        let memory: Option<Mutex<Box<dyn Write + Send>>> = Some(Mutex::new(Box::new(sink)));
        let stderr_from = options.stderr_start_level.clone();
        Self::with_sinks(
            options,
            Sinks { file: None, stderr_from, memory, lost: AtomicU64::new(0) },
        )
    }

    fn with_sinks(options: &CoreOptions, sinks: Sinks) -> Result<Self, LogError> {
        let filter = Filter::new(options.logging_start_level.clone(), &options.logging_targets)?;
        let handle = LogHandle { filter: Arc::new(filter), sinks: Arc::new(sinks) };
        Ok(Self { handle })
    }

    /// The control of this logger.
    pub fn handle(&self) -> LogHandle {
        self.handle.clone()
    }

    /// The logger as a subscriber: for `tracing::subscriber::with_default`, where a test wants a log of
    /// its own.
    pub fn into_subscriber(self) -> impl Subscriber + Send + Sync {
        tracing_subscriber::registry().with(self)
    }
}

impl<S: Subscriber> Layer<S> for Logger {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.handle.filter.passes(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.handle.filter.passes(metadata)
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(self.handle.filter.most_verbose())
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let line = format::line(event);
        self.handle.sinks.write(filter::level_of(event.metadata().level()), line.as_bytes());
    }
}

impl LogHandle {
    /// Applies a changed start level to every place that logs.
    pub fn refresh(&self) {
        tracing::callsite::rebuild_interest_cache();
    }

    /// Gives modules whose path begins with `target` a level of their own; `None` takes it back.
    pub fn set_target_level(&self, target: &str, level: Option<LogLevel>) {
        self.filter.set_target(target, level);
        self.refresh();
    }

    /// Every module path with a level of its own.
    pub fn target_levels(&self) -> Vec<(String, LogLevel)> {
        self.filter.targets()
    }

    /// Lines that could not be written to a file, because the disk is full for instance. They went to
    /// standard error.
    pub fn lost(&self) -> u64 {
        self.sinks.lost.load(Ordering::Relaxed)
    }

    /// Registers `reset-log-start-level`, `log-target-level` and `flush-log`.
    pub fn add_commands(&self, commands: &Commands, config: &Config) {
        let config = config.clone();
        let purpose = "Changes the level from which lines are logged; without one, to the level of the start.";
        let initial = config.get(START_LEVEL).map(|view| view.plain_value()).unwrap_or_default();
        commands.add(
            "reset-log-start-level",
            "[DEBUG | INFO | WARNING | ERROR | FATAL]",
            purpose,
            move |call| {
                let wanted = call.argument(0).unwrap_or(&initial);
                CommandReply::done(match level_named(wanted) {
                    None => format!("ERR: {wanted}: no such level"),
                    Some(level) => match config.set(START_LEVEL, level.name()) {
                        Ok(()) => format!("OK, current level is {}", level.name()),
                        Err(error) => format!("ERR: {error}"),
                    },
                })
            },
        );
        let handle = self.clone();
        let purpose = "Shows or sets the level of single modules.";
        commands.add(
            "log-target-level",
            "[module::path level | module::path DEFAULT]",
            purpose,
            move |call| {
                CommandReply::done(handle.target_command(call.argument(0), call.argument(1)))
            },
        );
        commands.add("flush-log", "", "Does nothing: each line is written at once.", |_| {
            CommandReply::done("Flush done.")
        });
    }

    fn target_command(&self, target: Option<&str>, level: Option<&str>) -> String {
        match (target, level) {
            (Some(target), Some("DEFAULT")) => self.set_target_level(target, None),
            (Some(target), Some(text)) => match level_named(text) {
                Some(level) => self.set_target_level(target, Some(level)),
                None => return format!("ERR: {text}: no such level"),
            },
            _ => {}
        }
        let levels = self.target_levels();
        levels.iter().map(|(target, level)| format!("{target}={level}\n")).collect()
    }
}

impl fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogHandle").finish_non_exhaustive()
    }
}

impl fmt::Debug for Logger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logger").finish_non_exhaustive()
    }
}

const START_LEVEL: &str = "core.logging_start_level";

/// Makes the process log as `[core]` wants it, panics included.
///
/// # Errors
/// [`LogError`]
pub fn init(config: &Config) -> Result<LogHandle, LogError> {
    let options = config.section::<CoreOptions>()?;
    let logger = Logger::new(&options)?;
    let handle = logger.handle();
    tracing::subscriber::set_global_default(logger.into_subscriber())
        .map_err(|_| LogError::Already)?;
    let refreshed = handle.clone();
    config.on_change(START_LEVEL, move || refreshed.refresh())?;
    log_panics(options.on_panic);
    Ok(handle)
}

/// Puts panics into the log: the runtime catches them, so that nobody else would say where they began.
fn log_panics(then: OnPanic) {
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("no message");
        let backtrace = std::backtrace::Backtrace::capture();
        if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
            tracing::error!(place, %backtrace, "panic: {message}");
        } else {
            tracing::error!(place, "panic: {message}");
        }
        if then == OnPanic::Abort {
            std::process::abort();
        }
    }));
}

fn level_named(text: &str) -> Option<LogLevel> {
    LogLevel::from_name(text).or_else(|| LogLevel::from_name(&text.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests;
