//! Which messages are logged: from a level on, with exceptions for single modules.

use std::sync::Arc;

use parking_lot::RwLock;
use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata};

use crate::config::{LogLevel, Tunable};

/// Modules with a level of their own; beyond, the oldest exception is dropped.
const TARGETS_MAX: usize = 64;

/// An element of `[core] logging_targets` that is not `module::path=level`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?}: expected \"module::path=level\", the level being debug, info, warning, error or fatal"
)]
pub struct BadTarget(pub String);

pub(super) struct Filter {
    start: Tunable<LogLevel>,
    targets: RwLock<Arc<Vec<(String, LogLevel)>>>,
}

impl Filter {
    pub(super) fn new(start: Tunable<LogLevel>, targets: &[String]) -> Result<Self, BadTarget> {
        let filter = Self { start, targets: RwLock::default() };
        for text in targets {
            let parsed = text.split_once('=').and_then(|(target, level)| {
                Some((target.trim(), LogLevel::from_name(level.trim())?))
            });
            let (target, level) = parsed.ok_or_else(|| BadTarget(text.clone()))?;
            filter.set_target(target, Some(level));
        }
        Ok(filter)
    }

    pub(super) fn set_target(&self, target: &str, level: Option<LogLevel>) {
        let mut targets = self.targets.write();
        let mut changed: Vec<_> =
            targets.iter().filter(|(known, _)| known != target).cloned().collect();
        changed.extend(level.map(|level| (target.to_owned(), level)));
        let surplus = changed.len().saturating_sub(TARGETS_MAX);
        changed.drain(..surplus);
        *targets = Arc::new(changed);
    }

    pub(super) fn targets(&self) -> Vec<(String, LogLevel)> {
        self.targets.read().to_vec()
    }

    /// Asked once per place in the code and change of levels, not once per event.
    pub(super) fn passes(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        let targets = self.targets.read();
        let fitting = targets.iter().filter(|(prefix, _)| is_within(target, prefix));
        let from = fitting.max_by_key(|(prefix, _)| prefix.len()).map(|(_, level)| *level);
        level_of(metadata.level()) >= from.unwrap_or_else(|| self.start.get())
    }

    /// The level below which nothing passes, whatever the module.
    pub(super) fn most_verbose(&self) -> LevelFilter {
        let targets = self.targets.read();
        let lowest = targets.iter().map(|(_, level)| *level).chain([self.start.get()]).min();
        match lowest {
            Some(LogLevel::Debug) | None => LevelFilter::TRACE,
            Some(LogLevel::Info) => LevelFilter::INFO,
            Some(LogLevel::Warning) => LevelFilter::WARN,
            Some(LogLevel::Error) => LevelFilter::ERROR,
            Some(LogLevel::Fatal) => LevelFilter::OFF,
        }
    }
}

/// Whether the module `target` is `prefix` or lies in it.
fn is_within(target: &str, prefix: &str) -> bool {
    target.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Our name for a level of `tracing`. It knows no fatal messages: whoever writes one ends the process.
pub(super) fn level_of(level: &Level) -> LogLevel {
    match *level {
        Level::ERROR => LogLevel::Error,
        Level::WARN => LogLevel::Warning,
        Level::INFO => LogLevel::Info,
        Level::DEBUG | Level::TRACE => LogLevel::Debug,
    }
}
