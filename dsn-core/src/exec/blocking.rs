//! Work that may block: jobs on a shared stage's threads, never on a worker.
//!
//! A job runs on one of the stage's threads (in the simulator: at a virtual time of its own) and its result goes
//! back to a resident as a task. Jobs of one stage start in the order of submission.

use super::mailbox::WorkerShared;
use super::task::Task;
use crate::code::Code;
use crate::disk::Disk;
use crate::driver::Driver;
use crate::node::{Node, StageId};
use crate::time::{Mono, Wall};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

/// What a blocking job may use.
pub struct BlockingCtx<'a> {
    pub(crate) node: &'a Arc<Node>,
    pub(crate) now: &'a dyn Fn() -> Mono,
    pub(crate) wall: &'a dyn Fn() -> Wall,
    pub(crate) resolve: &'a dyn Fn(&str) -> io::Result<Vec<IpAddr>>,
}

impl fmt::Debug for BlockingCtx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockingCtx").field("node", &self.node.name()).finish_non_exhaustive()
    }
}

impl<'a> BlockingCtx<'a> {
    /// Made by drivers.
    pub fn new(
        node: &'a Arc<Node>,
        now: &'a dyn Fn() -> Mono,
        wall: &'a dyn Fn() -> Wall,
        resolve: &'a dyn Fn(&str) -> io::Result<Vec<IpAddr>>,
    ) -> Self {
        Self { node, now, wall, resolve }
    }

    /// The node's files.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        self.node.disk()
    }

    /// The node.
    pub fn node(&self) -> &Arc<Node> {
        self.node
    }

    /// The monotonic clock.
    pub fn now(&self) -> Mono {
        (self.now)()
    }

    /// Runs `f` as a part of the job that may panic without harm to whom the job is for.
    ///
    /// # Errors
    /// What it panicked with.
    pub fn contain<R>(&self, f: impl FnOnce() -> R) -> Result<R, String> {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
        outcome.map_err(|panic| super::worker::panic_text(&*panic))
    }

    /// The wall clock.
    pub fn wall(&self) -> Wall {
        (self.wall)()
    }

    /// The addresses of a host, at least one. May take as long as the system's resolver likes.
    ///
    /// # Errors
    /// The name does not exist, or nobody can be asked.
    pub fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        (self.resolve)(host)
    }
}

type JobFn = Box<dyn FnOnce(&BlockingCtx<'_>) -> Task + Send>;

/// A job on its way to a blocking pool.
pub struct BlockingJob {
    pub(crate) code: Code,
    pub(crate) stage: StageId,
    pub(crate) run: JobFn,
    pub(crate) home: Arc<WorkerShared>,
    pub(crate) lost: JobLost,
}

/// What becomes of the waiting resident when its job panicked: it is poisoned.
pub(crate) type JobLost = Box<dyn FnOnce(String) -> Task + Send>;

impl fmt::Debug for BlockingJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockingJob").field("code", &self.code).finish_non_exhaustive()
    }
}

impl BlockingJob {
    /// The code of the job.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The shared stage it runs on.
    pub fn stage(&self) -> StageId {
        self.stage
    }

    /// Runs the job. The driver posts the completion to the worker's mailbox, and counts the job as ended before. A
    /// panic poisons the resident that waits for it.
    pub(crate) fn run(self, ctx: &BlockingCtx<'_>) -> (Arc<WorkerShared>, Task) {
        let Self { run, home, lost, code, stage } = self;
        crate::log::set_task(Some((code.name(), stage.0)));
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(ctx)));
        let completion = match outcome {
            Ok(task) => task,
            Err(panic) => lost(super::worker::panic_text(&*panic)),
        };
        crate::log::set_task(None);
        (home, completion)
    }
}

/// Hands `job` to the driver; kept here so that `Ctx` stays small.
pub(crate) fn submit(driver: &mut dyn Driver, job: BlockingJob) {
    driver.offload(job);
}
