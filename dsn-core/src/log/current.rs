//! What the running thread is doing, for the prefix of its lines.
//!
//! The one thread-local of the runtime. It only ever decorates log lines: no decision may depend on it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::Arc;

use tracing::level_filters::LevelFilter;

use crate::time::Wall;

/// How a node and its stages are called in the log.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct NodeLabel {
    /// The node's name.
    pub name: String,
    /// The names of its stages, by index.
    pub stages: Vec<String>,
}

/// A thread of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thread {
    /// A worker loop, by number.
    Worker(u16),
    /// A thread of a blocking pool, by number.
    Pool(u16),
}

impl fmt::Display for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Worker(number) => write!(f, "w{number}"),
            Self::Pool(number) => write!(f, "p{number}"),
        }
    }
}

const NO_STAGE: u16 = u16::MAX;
const NO_CODE: &str = "";

thread_local! {
    static NODE: RefCell<Option<(Arc<NodeLabel>, Thread)>> = const { RefCell::new(None) };
    /// Apart from the node, because cells without a destructor cost no check when they are set.
    static TASK: Task = const { Task { code: Cell::new(NO_CODE), stage: Cell::new(NO_STAGE), time: Cell::new(None) } };
}

struct Task {
    code: Cell<&'static str>,
    stage: Cell<u16>,
    time: Cell<Option<Wall>>,
}

/// From now on this thread runs `thread` of a node, or none. For the beginning of a thread's life and, in
/// the simulator, of each turn. Forgets the task.
pub fn set_thread(place: Option<(&Arc<NodeLabel>, Thread)>) {
    set_task(None);
    NODE.with_borrow_mut(|node| *node = place.map(|(label, thread)| (label.clone(), thread)));
}

/// Like [`set_thread`], until the result is dropped: for the simulator, whose one thread is many. Does nothing while
/// nobody logs.
pub fn as_thread(label: &Arc<NodeLabel>, thread: Thread) -> AsThread {
    let logs = LevelFilter::current() != LevelFilter::OFF;
    if logs {
        set_thread(Some((label, thread)));
    }
    AsThread(logs)
}

/// While it lives, lines of this thread bear the node given to [`as_thread`].
#[derive(Debug)]
#[must_use = "lines bear the node's name as long as this lives"]
pub struct AsThread(bool);

impl Drop for AsThread {
    fn drop(&mut self) {
        if self.0 {
            set_thread(None);
        }
    }
}

/// From now on this thread runs an event with this code in the stage of this index, or none. Costs about a
/// nanosecond.
pub fn set_task(task: Option<(&'static str, u16)>) {
    let (code, stage) = task.unwrap_or((NO_CODE, NO_STAGE));
    TASK.with(|current| {
        current.code.set(code);
        current.stage.set(stage);
    });
}

/// From now on lines of this thread bear this time instead of the real one: for the simulator.
pub fn set_virtual_time(time: Option<Wall>) {
    TASK.with(|current| current.time.set(time));
}

/// The virtual time, if the simulator has set one.
pub(super) fn virtual_time() -> Option<Wall> {
    TASK.try_with(|current| current.time.get()).ok().flatten()
}

/// Writes `node stage/thread code`, with `-` for what is not known.
pub(super) fn write_place(out: &mut String) {
    use fmt::Write as _;
    let (code, stage) = TASK
        .try_with(|current| (current.code.get(), current.stage.get()))
        .unwrap_or((NO_CODE, NO_STAGE));
    // A value whose text is being made may belong to a task that logs: never panic here, and a thread that
    // is ending has no cell any more.
    let known = NODE.try_with(|node| {
        let Ok(node) = node.try_borrow() else { return false };
        let Some((label, thread)) = &*node else { return false };
        let stage = label.stages.get(usize::from(stage)).map_or("-", |name| short(name));
        let _ = write!(out, "{} {stage}/{thread}", label.name);
        true
    });
    if known != Ok(true) {
        out.push_str("- -");
    }
    out.push(' ');
    out.push_str(if code.is_empty() { "-" } else { code });
}

/// A stage's name without what all of them begin with.
fn short(stage: &str) -> &str {
    stage.strip_prefix("THREAD_POOL_").unwrap_or(stage)
}
