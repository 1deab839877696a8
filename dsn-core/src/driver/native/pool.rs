//! Blocking pools: threads that run the jobs of shared stages.

use super::clock::NativeClock;
use crate::exec::{BlockingCtx, BlockingJob};
use crate::log::{Thread, set_thread};
use crate::node::Node;
use crate::stage::Executor;
use crossbeam::channel::{Receiver, Sender, unbounded};
use std::io;
use std::sync::{Arc, Weak};

/// The blocking pools of one node. Queues are bounded by stage admission and by one job per waiting resident.
///
/// Dropped, the threads end after what is queued; nobody waits for them here, because a job may never end.
#[derive(Debug)]
pub struct Pools {
    senders: Vec<Sender<BlockingJob>>,
    node: Weak<Node>,
}

impl Pools {
    /// Starts the threads of `node`'s pools: `(name, threads)` each, at least one pool. Each thread drops its clone
    /// of `alive` when it ends.
    ///
    /// # Errors
    /// When a thread cannot be started, or there is no pool.
    pub fn start(
        node: &Arc<Node>,
        pools: &[(String, usize)],
        clock: NativeClock,
        alive: &Sender<()>,
    ) -> io::Result<Arc<Self>> {
        if pools.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a node needs a blocking pool",
            ));
        }
        let mut senders = Vec::new();
        for (name, count) in pools {
            let (sender, receiver) = unbounded::<BlockingJob>();
            senders.push(sender);
            for index in 0..(*count).max(1) {
                let receiver = receiver.clone();
                let (node, alive) = (Arc::downgrade(node), alive.clone());
                std::thread::Builder::new().name(format!("{name}-{index}")).spawn(move || {
                    let _alive = alive;
                    work(&receiver, &node, clock, index as u16);
                })?;
            }
        }
        Ok(Arc::new(Self { senders, node: Arc::downgrade(node) }))
    }

    /// Queues a job on its stage's pool.
    pub fn submit(&self, job: BlockingJob) {
        let Some(node) = self.node.upgrade() else { return };
        let stage = node.stage(job.stage());
        // A loop stage has no pool of its own: its blocking work goes to the last, longest-running one.
        let pool = match stage.executor() {
            // A small program (the client library) may run all shared stages on fewer pools.
            Executor::Shared(pool) => (*pool).min(self.senders.len() - 1),
            Executor::Loop(_) => self.senders.len() - 1,
        };
        stage.job_submitted();
        if self.senders[pool].send(job).is_err() {
            tracing::error!(pool, "a blocking pool has ended");
        }
    }
}

fn work(receiver: &Receiver<BlockingJob>, node: &Weak<Node>, clock: NativeClock, number: u16) {
    let now = move || clock.now();
    let wall = move || clock.wall();
    if let Some(node) = node.upgrade() {
        set_thread(Some((node.log_label(), Thread::Pool(number))));
    }
    while let Ok(job) = receiver.recv() {
        let Some(node) = node.upgrade() else { return };
        let stage = job.stage();
        let (home, completion) =
            job.run(&BlockingCtx::new(&node, &now, &wall, &super::names::resolve));
        // Whoever sees the result sees that the job has ended.
        node.stage(stage).job_ended();
        home.mailbox.push(vec![completion]);
    }
}
