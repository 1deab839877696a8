//! One event on its way to a worker.

use super::ctx::Ctx;
use super::home::RawAddr;
use crate::code::Code;
use crate::time::Mono;
use std::any::Any;
use std::fmt;

/// Index of a worker within its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u16);

impl WorkerId {
    /// As an index into per-worker tables.
    #[inline]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// What a task does with its target (`None` for a task that has no resident).
pub(crate) type TaskFn = Box<dyn FnOnce(Option<&mut dyn Any>, &mut Ctx<'_>) + Send>;

/// One event: a code, the resident it is for, and what to do there.
pub struct Task {
    pub(crate) code: Code,
    pub(crate) target: Option<RawAddr>,
    pub(crate) enqueued: Mono,
    pub(crate) deadline: Option<Mono>,
    pub(crate) run: TaskFn,
}

impl Task {
    /// A task for `target`; dropped without running when the resident is gone by then.
    pub(crate) fn new(code: Code, target: Option<RawAddr>, enqueued: Mono, run: TaskFn) -> Self {
        Self { code, target, enqueued, deadline: None, run }
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.code
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("code", &self.code)
            .field("target", &self.target)
            .field("enqueued", &self.enqueued)
            .finish_non_exhaustive()
    }
}
