//! Blocking pools as virtual threads: jobs start in order, take a drawn time, and finish at its end.
//!
//! A job runs as a whole at its start; what it writes is on the disk from then on, and a power loss at a chosen disk
//! step cuts it in the middle ([`super::SimDisk::crash_after`]). Its completion arrives after its CPU and disk time.

use super::queue::Event;
use super::world::{FinishedJob, World};
use crate::exec::{BlockingCtx, BlockingJob};
use crate::log;
use crate::node::Node;
use crate::rng::Rng;
use crate::stage::Executor;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

/// One blocking pool of a node.
pub(super) struct Pool {
    threads: usize,
    busy: usize,
    queue: VecDeque<BlockingJob>,
    pub(super) rng: Rng,
}

impl Pool {
    pub(super) fn new(threads: usize, rng: Rng) -> Self {
        Self { threads: threads.max(1), busy: 0, queue: VecDeque::new(), rng }
    }

    /// Jobs waiting or running.
    pub(super) fn load(&self) -> usize {
        self.queue.len() + self.busy
    }
}

impl World {
    /// Queues a job on its stage's pool.
    pub(super) fn offload(&mut self, node: u16, of: &Node, job: BlockingJob) {
        let stage = of.stage(job.stage());
        let at = self.local();
        let host = &mut self.nodes[usize::from(node)];
        let index = match stage.executor() {
            Executor::Shared(pool) => *pool,
            // As natively: work that a loop stage wants done elsewhere goes to the last pool.
            Executor::Loop(_) => host.pools.len() - 1,
        };
        stage.job_submitted();
        host.pools[index].queue.push_back(job);
        self.start_job(node, index, at);
    }

    /// Gives a waiting job to a free thread of the pool.
    fn start_job(&mut self, node: u16, index: usize, at: u64) {
        let host = &mut self.nodes[usize::from(node)];
        let life = host.life;
        let pool = &mut host.pools[index];
        if pool.busy < pool.threads.min(pool.load()) {
            pool.busy += 1;
            let at = at + self.options.hop.draw(&mut pool.rng);
            let tie = pool.rng.next_u64();
            self.queue.push(at, tie, Event::Job { node, pool: index as u16, life });
        }
    }

    /// A job's time is over: its completion goes to its worker, the thread takes the next job.
    pub(super) fn job_done(&mut self, node: u16, slot: u32, of: &Node) {
        let host = &mut self.nodes[usize::from(node)];
        let FinishedJob { pool, stage, home, task } = host.finished.remove(slot as usize);
        host.pools[usize::from(pool)].busy -= 1;
        of.stage(stage).job_ended();
        home.mailbox.push(vec![task]);
        let now = self.now;
        self.start_job(node, usize::from(pool), now);
    }
}

/// Runs the next job of a pool and schedules its end.
pub(super) fn run_job(world: &Rc<RefCell<World>>, node: u16, index: u16, of: &Arc<Node>) {
    let (job, disk) = {
        let mut world = world.borrow_mut();
        world.spent = 0;
        let host = &mut world.nodes[usize::from(node)];
        let Some(job) = host.pools[usize::from(index)].queue.pop_front() else {
            host.pools[usize::from(index)].busy -= 1;
            return;
        };
        host.disk.take_spent();
        (job, host.disk.clone())
    };
    let stage = job.stage();
    let local = || {
        let mut world = world.borrow_mut();
        world.spent += disk.take_spent();
        (world.local(), world.nodes[usize::from(node)].clock.clone())
    };
    let now = || {
        let (at, clock) = local();
        clock.mono(at)
    };
    let wall = || {
        let (at, clock) = local();
        clock.wall(at)
    };
    let log = log::as_thread(of.log_label(), log::Thread::Pool(index));
    let resolve = |host: &str| world.borrow_mut().resolve(node, index, host);
    let (home, task) = job.run(&BlockingCtx::new(of, &now, &wall, &resolve));
    drop(log);
    let mut world = world.borrow_mut();
    let world = &mut *world;
    let host = &mut world.nodes[usize::from(node)];
    let rng = &mut host.pools[usize::from(index)].rng;
    let cost = world.options.job_cost.draw(rng) * host.cpu_percent / 100 + disk.take_spent();
    let tie = rng.next_u64();
    let life = host.life;
    let slot = host.finished.insert(FinishedJob { pool: index, stage, home, task }) as u32;
    let at = world.now + std::mem::take(&mut world.spent) + cost;
    world.queue.push(at, tie, Event::JobDone { node, slot, life });
}
