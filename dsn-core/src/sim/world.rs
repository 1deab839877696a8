//! What the drivers of one simulation share: time, the event queue, nodes as hosts, connections.

use super::clock::{MONO_START, NodeClock};
use super::disk::SimDisk;
use super::jobs::Pool;
use super::net::{Dropped, EndId, Net};
use super::options::SimOptions;
use super::queue::{Event, Queue};
use super::trace::{Step, Trace};
use crate::exec::{Task, WorkerShared};
use crate::log;
use crate::node::StageId;
use crate::rng::Rng;
use crate::time::{Mono, Wall};
use slab::Slab;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Never, as a time.
pub(super) const NEVER: u64 = u64::MAX;

/// What a node is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// Its process does not run; the host answers connects with a refusal.
    Down,
    /// The host is off and answers nothing.
    Off,
    /// Running.
    Up,
    /// Its process is stopped (SIGSTOP); the host still takes packets and connections.
    Paused,
}

/// A socket of a worker.
#[derive(Debug)]
pub(super) enum SockKind {
    Listener(u16),
    Stream(EndId),
}

#[derive(Debug)]
pub(super) struct SockEntry {
    pub(super) kind: SockKind,
    /// Something has changed since the last poll.
    pub(super) edge: bool,
}

#[derive(Debug)]
pub(super) struct WorkerWorld {
    pub(super) socks: Slab<SockEntry>,
    pub(super) ready: Vec<u32>,
    pub(super) rng: Rng,
    pub(super) busy_until: u64,
    /// Time of the one valid [`Event::Worker`].
    pub(super) soon: u64,
    /// Time of the one valid [`Event::Timer`].
    pub(super) timer: u64,
    /// What the worker's wheel waits for.
    pub(super) due: Option<Mono>,
}

/// A job that has run and whose end is still to come.
pub(super) struct FinishedJob {
    pub(super) pool: u16,
    pub(super) stage: StageId,
    pub(super) home: Arc<WorkerShared>,
    pub(super) task: Task,
}

/// One node as the world sees it.
pub(super) struct NodeWorld {
    pub(super) name: String,
    pub(super) ip: IpAddr,
    pub(super) clock: NodeClock,
    pub(super) state: NodeState,
    pub(super) down_since: u64,
    /// Number of the process, from 1 on.
    pub(super) life: u32,
    pub(super) workers: Vec<WorkerWorld>,
    pub(super) pools: Vec<Pool>,
    pub(super) finished: Slab<FinishedJob>,
    pub(super) disk: SimDisk,
    pub(super) next_port: u16,
    pub(super) connects: u64,
    pub(super) fds: usize,
    pub(super) fd_limit: usize,
    /// How slow its CPU is, in per cent of normal cost.
    pub(super) cpu_percent: u64,
    /// Events that wait for the end of a pause.
    pub(super) held: Vec<Event>,
    pub(super) rng: Rng,
}

impl NodeWorld {
    /// Whether the host answers packets.
    pub(super) fn host_up(&self) -> bool {
        self.state != NodeState::Off
    }
}

/// See the module's header.
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) options: SimOptions,
    pub(super) now: u64,
    /// CPU and disk time that the running turn or job has used.
    pub(super) spent: u64,
    pub(super) queue: Queue,
    pub(super) nodes: Vec<NodeWorld>,
    pub(super) net: Net,
    /// Host names that a scenario has set.
    pub(super) names: BTreeMap<String, Vec<IpAddr>>,
    pub(super) trace: Trace,
    /// Accepted connections that nobody adopted.
    pub(super) dropped: Arc<Dropped>,
    /// The world's time, for disks.
    pub(super) time: Arc<AtomicU64>,
}

impl Drop for World {
    fn drop(&mut self) {
        log::set_virtual_time(None);
    }
}

impl World {
    pub(super) fn new(seed: u64, options: SimOptions) -> Self {
        Self {
            seed,
            now: 0,
            spent: 0,
            queue: Queue::default(),
            nodes: Vec::new(),
            net: Net::default(),
            names: BTreeMap::new(),
            trace: Trace::new(options.step_log),
            dropped: Arc::default(),
            time: Arc::default(),
            options,
        }
    }

    /// The time as the running turn or job sees it.
    pub(super) fn local(&self) -> u64 {
        self.now + self.spent
    }

    pub(super) fn advance(&mut self, to: u64) {
        self.now = self.now.max(to);
        self.time.store(self.now, Ordering::Relaxed);
        // Lines of all nodes bear the world's time, not that of their own, possibly wrong, clocks.
        let wall = Wall::from_unix_nanos(self.options.wall_start * 1_000_000_000 + self.now);
        log::set_virtual_time(Some(wall));
    }

    pub(super) fn record(&mut self, what: &'static str, who: u64, detail: u64, hash: u64) {
        self.trace.push(Step { at: self.now, what, who, detail, hash });
    }

    /// Makes the clocks, workers and pools of a starting process.
    pub(super) fn boot(&mut self, node: u16, workers: usize, pools: &[(String, usize)]) {
        let now = self.now;
        let seed = self.seed;
        let host = &mut self.nodes[usize::from(node)];
        host.life += 1;
        host.state = NodeState::Up;
        let life = host.life;
        let stream = |purpose: &str, ordinal: usize| {
            Rng::stream(seed, &host.name, purpose, (u64::from(life) << 16) | ordinal as u64)
        };
        host.workers = (0..workers)
            .map(|index| WorkerWorld {
                socks: Slab::new(),
                ready: Vec::new(),
                rng: stream("worker cost", index),
                busy_until: now,
                soon: NEVER,
                timer: NEVER,
                due: None,
            })
            .collect();
        host.pools = pools
            .iter()
            .enumerate()
            .map(|(index, (_, threads))| Pool::new(*threads, stream("pool", index)))
            .collect();
        host.finished = Slab::new();
        host.held.clear();
        host.fds = 0;
        let mut start = stream("clock", 0);
        host.clock.restart(now, MONO_START + start.below(1_000_000_000));
    }

    /// Charges what one look at the clock stands for: an event's CPU time, and what the disk took meanwhile.
    pub(super) fn charge_event(&mut self, node: u16, worker: u16) {
        let host = &mut self.nodes[usize::from(node)];
        let rng = &mut host.workers[usize::from(worker)].rng;
        let mut cost = self.options.event_cost.draw(rng);
        if self.options.stall_one_in > 0 && rng.ratio(1, self.options.stall_one_in) {
            cost += self.options.stall.draw(rng);
        }
        self.spent += cost * host.cpu_percent / 100 + host.disk.take_spent();
    }

    /// Charges a call into the system.
    pub(super) fn charge_syscall(&mut self, node: u16, worker: u16) {
        let host = &mut self.nodes[usize::from(node)];
        let rng = &mut host.workers[usize::from(worker)].rng;
        self.spent += self.options.syscall_cost.draw(rng) * host.cpu_percent / 100;
    }

    /// Gives a worker a turn at `at`, or when it is free.
    pub(super) fn wake_worker(&mut self, node: u16, worker: u16, at: u64) {
        let host = &mut self.nodes[usize::from(node)];
        let life = host.life;
        let Some(state) = host.workers.get_mut(usize::from(worker)) else { return };
        let at = at.max(state.busy_until);
        if at < state.soon {
            state.soon = at;
            let tie = state.rng.next_u64();
            self.queue.push(at, tie, Event::Worker { node, worker, life });
        }
    }

    /// Gives a worker a turn when its next timer is due.
    pub(super) fn arm_timer(&mut self, node: u16, worker: u16) {
        let host = &mut self.nodes[usize::from(node)];
        let life = host.life;
        let Some(state) = host.workers.get_mut(usize::from(worker)) else { return };
        let Some(due) = state.due else { return };
        let at = host.clock.when(due).max(state.busy_until).max(self.now);
        if at < state.timer {
            state.timer = at;
            let tie = state.rng.next_u64();
            self.queue.push(at, tie, Event::Timer { node, worker, life });
        }
    }

    /// Marks a socket as changed and wakes its worker.
    pub(super) fn mark_edge(&mut self, node: u16, worker: u16, sock: u32) {
        let host = &mut self.nodes[usize::from(node)];
        let Some(state) = host.workers.get_mut(usize::from(worker)) else { return };
        let Some(entry) = state.socks.get_mut(sock as usize) else { return };
        if !entry.edge {
            entry.edge = true;
            state.ready.push(sock);
        }
        let at = self.local();
        self.wake_worker(node, worker, at);
    }

    /// The node that owns an address, as seen from `from`.
    pub(super) fn host_of(&self, from: u16, ip: IpAddr) -> Option<u16> {
        if let Some(found) = self.nodes.iter().position(|node| node.ip == ip) {
            return Some(found as u16);
        }
        (ip.is_loopback() || ip.is_unspecified()).then_some(from)
    }
}
