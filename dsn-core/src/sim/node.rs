//! The life of simulated nodes: start, orderly stop, kill, power loss, pause.

use super::clock::{MONO_START, NodeClock};
use super::disk::SimDisk;
use super::driver::SimDriver;
use super::queue::Event;
use super::sim::Sim;
use super::world::{NEVER, NodeState, NodeWorld};
use crate::app::{AppError, AppHost, LPC_APP_START, LPC_APP_STOP, ServiceApp};
use crate::code::Code;
use crate::config::Config;
use crate::disk::Disk;
use crate::exec::{Addr, Ctx, Resident, Worker, WorkerConfig, WorkerId};
use crate::log;
use crate::node::{CodeOverride, Node, NodeParts};
use crate::rng::Rng;
use crate::stage::StagePlan;
use crate::time::Mono;
use slab::Slab;
use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A node of a simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u16);

impl NodeId {
    #[inline]
    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Makes what a process consists of, at each of its starts: from its disk and a seed.
pub type MakeParts = Rc<dyn Fn(Arc<dyn Disk>, u64) -> Result<NodeParts, String>>;
/// Makes a node's app, at each start of its process.
pub type MakeApp = Rc<dyn Fn() -> Result<Box<dyn ServiceApp>, AppError>>;

/// What a simulated node is.
#[derive(Clone)]
pub struct NodeSpec {
    /// Unique within the simulation; names random streams.
    pub name: String,
    /// Its one address.
    pub ip: IpAddr,
    /// Makes stages, workers and codes. The name in the parts should be this one.
    pub parts: MakeParts,
    /// Makes the app.
    pub app: MakeApp,
}

impl fmt::Debug for NodeSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeSpec").field("name", &self.name).field("ip", &self.ip).finish()
    }
}

impl NodeSpec {
    /// A node with the built-in stages for `cores` cores.
    pub fn new(
        name: &str,
        ip: IpAddr,
        cores: usize,
        app: impl Fn() -> Box<dyn ServiceApp> + 'static,
    ) -> Self {
        Self::with(name, ip, app, Vec::new(), None, move || StagePlan::auto(cores))
    }

    /// A node with given stages, codes and configuration.
    pub fn with(
        name: &str,
        ip: IpAddr,
        app: impl Fn() -> Box<dyn ServiceApp> + 'static,
        codes: Vec<(String, CodeOverride)>,
        config: Option<Config>,
        plan: impl Fn() -> StagePlan + 'static,
    ) -> Self {
        let owned = name.to_owned();
        let parts = move |disk: Arc<dyn Disk>, seed: u64| {
            Ok(NodeParts {
                name: owned.clone(),
                role: "app".to_owned(),
                config: config.clone(),
                plan: plan(),
                worker: WorkerConfig::default(),
                codes: codes.clone(),
                disk,
                seed,
            })
        };
        Self { name: name.to_owned(), ip, parts: Rc::new(parts), app: Rc::new(move || Ok(app())) }
    }
}

/// A running process.
pub(super) struct Process {
    pub(super) node: Arc<Node>,
    pub(super) workers: Vec<Worker>,
    app: Option<Addr<AppHost>>,
    poisoned: u64,
}

/// What the simulation keeps of a node.
pub(super) struct SimNode {
    pub(super) spec: NodeSpec,
    pub(super) process: Option<Process>,
    /// Processes that have ended; nothing may keep their node alive.
    pub(super) ended: Vec<Weak<Node>>,
    /// Addresses of residents and the like that ended processes left, for the report.
    pub(super) last_error: Option<String>,
    /// Start again after an end or a refusal, when a fault plan has ended it.
    pub(super) restarting: bool,
    /// It was started and not stopped.
    pub(super) wanted: bool,
    /// Processes that died at a chosen disk step.
    pub(super) deaths: u32,
}

impl Sim {
    /// Adds a node; it does not run until [`Sim::start`].
    pub fn add_node(&mut self, spec: NodeSpec) -> NodeId {
        let mut world = self.world.borrow_mut();
        let world = &mut *world;
        let id = world.nodes.len() as u16;
        let options = &world.options;
        let disk = SimDisk::new(world.seed, &spec.name, options.disk.clone(), world.time.clone());
        world.nodes.push(NodeWorld {
            name: spec.name.clone(),
            ip: spec.ip,
            clock: NodeClock::new(world.now, MONO_START, options.wall_start * 1_000_000_000),
            state: NodeState::Down,
            down_since: world.now,
            life: 0,
            workers: Vec::new(),
            pools: Vec::new(),
            finished: Slab::new(),
            disk,
            next_port: 0,
            connects: 0,
            fds: 0,
            fd_limit: options.net.fd_limit,
            cpu_percent: 100,
            held: Vec::new(),
            rng: Rng::stream(world.seed, &spec.name, "node", 0),
        });
        self.nodes.push(SimNode {
            spec,
            process: None,
            ended: Vec::new(),
            last_error: None,
            restarting: false,
            wanted: false,
            deaths: 0,
        });
        NodeId(id)
    }

    /// Starts a node's process on what its disk holds.
    ///
    /// # Errors
    /// The app's refusal, or a plan that does not fit. The node is down then.
    pub fn start(&mut self, id: NodeId) -> Result<(), AppError> {
        if self.nodes[id.index()].process.is_some() {
            return Err(AppError("it runs already".into()));
        }
        self.nodes[id.index()].wanted = true;
        let was_off = self.state(id) == NodeState::Off;
        let outcome = self.boot(id);
        if was_off {
            self.world.borrow_mut().host_returned();
        }
        match &outcome {
            Ok(()) => {
                self.nodes[id.index()].last_error = None;
                self.world.borrow_mut().record("start", u64::from(id.0), 0, 0);
            }
            Err(error) => {
                self.nodes[id.index()].last_error = Some(error.0.clone());
                self.world.borrow_mut().record("start failed", u64::from(id.0), 0, 0);
                if self.nodes[id.index()].process.is_some() {
                    self.end_process(id, NodeState::Down);
                }
            }
        }
        outcome
    }

    fn boot(&mut self, id: NodeId) -> Result<(), AppError> {
        let (disk, seed) = {
            let mut world = self.world.borrow_mut();
            let world = &mut *world;
            let host = &mut world.nodes[id.index()];
            host.disk = host.disk.restart();
            let ordinal = u64::from(host.life) + 1;
            let seed = Rng::stream(world.seed, &host.name, "process", ordinal).next_u64();
            (host.disk.clone(), seed)
        };
        let spec = self.nodes[id.index()].spec.clone();
        let parts = (spec.parts)(Arc::new(disk), seed).map_err(AppError)?;
        let pools = parts.plan.pools.clone();
        let node = Node::new(parts).map_err(|error| AppError(error.to_string()))?;
        self.world.borrow_mut().boot(id.0, node.worker_count(), &pools);
        let workers = (0..node.worker_count() as u16)
            .map(|worker| {
                let driver = SimDriver::new(self.world.clone(), id.0, worker, &node);
                Worker::new(node.clone(), WorkerId(worker), Box::new(driver))
            })
            .collect();
        self.nodes[id.index()].process = Some(Process { node, workers, app: None, poisoned: 0 });
        let app = (spec.app)()?;
        let addr = self
            .enter(id, WorkerId(0), &LPC_APP_START, |ctx| AppHost::launch(ctx, app))
            .unwrap_or_else(|| Err(AppError("it died while it started".into())))?;
        match &mut self.nodes[id.index()].process {
            Some(process) => process.app = Some(addr),
            None => return Err(AppError("it died while it started".into())),
        }
        Ok(())
    }

    /// What a node is doing.
    pub fn state(&self, id: NodeId) -> NodeState {
        self.world.borrow().nodes[id.index()].state
    }

    /// What a node's monotonic clock shows.
    pub fn mono(&self, id: NodeId) -> Mono {
        let world = self.world.borrow();
        world.nodes[id.index()].clock.mono(world.now)
    }

    /// Whether a node's process runs or is paused.
    pub fn is_up(&self, id: NodeId) -> bool {
        matches!(self.state(id), NodeState::Up | NodeState::Paused)
    }

    /// How often a process of a node died at a disk step that was chosen for it.
    pub fn deaths(&self, id: NodeId) -> u32 {
        self.nodes[id.index()].deaths
    }

    /// Why a node's last start failed.
    pub fn last_error(&self, id: NodeId) -> Option<&str> {
        self.nodes[id.index()].last_error.as_deref()
    }

    /// The running process's node.
    pub fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.nodes[id.index()].process.as_ref().map(|process| &process.node)
    }

    /// Its name.
    pub fn name(&self, id: NodeId) -> &str {
        &self.nodes[id.index()].spec.name
    }

    /// All nodes.
    pub fn node_ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.nodes.len() as u16).map(NodeId)
    }

    /// The node of a name.
    pub fn find_node(&self, name: &str) -> Option<NodeId> {
        self.nodes.iter().position(|node| node.spec.name == name).map(|i| NodeId(i as u16))
    }

    /// Replaces what the node starts from next time: another configuration, another version.
    pub fn replace_spec(&mut self, id: NodeId, parts: MakeParts, app: MakeApp) {
        self.nodes[id.index()].spec.parts = parts;
        self.nodes[id.index()].spec.app = app;
    }

    /// A node's disk: fault controls, and its files as the running process sees them.
    pub fn disk(&self, id: NodeId) -> SimDisk {
        self.world.borrow().nodes[id.index()].disk.clone()
    }

    /// Asks a node's app to stop. It runs on until the app is done; see [`Sim::state`]. A node that is down and was
    /// to be started again stays down.
    pub fn stop(&mut self, id: NodeId) {
        self.nodes[id.index()].wanted = false;
        self.nodes[id.index()].restarting = false;
        let app = self.nodes[id.index()].process.as_ref().and_then(|process| process.app);
        if let Some(app) = app {
            self.post(id, app, &LPC_APP_STOP, |host, ctx| host.stop(ctx));
        }
    }

    /// Kills a node's process (SIGKILL): its files stay as it wrote them, its connections are closed by the host.
    pub fn kill(&mut self, id: NodeId) {
        if self.nodes[id.index()].process.is_none() {
            return;
        }
        self.world.borrow_mut().record("kill", u64::from(id.0), 0, 0);
        self.end_process(id, NodeState::Down);
    }

    /// Cuts a node's power: connections go silent, and of its files only what was synced is sure to stay.
    pub fn power_off(&mut self, id: NodeId) {
        if self.state(id) == NodeState::Off {
            return;
        }
        self.world.borrow_mut().record("power off", u64::from(id.0), 0, 0);
        self.end_process(id, NodeState::Off);
        let mut world = self.world.borrow_mut();
        let host = &mut world.nodes[id.index()];
        host.disk = host.disk.power_loss();
    }

    /// Ends the process, without a word to its residents.
    pub(super) fn end_process(&mut self, id: NodeId, state: NodeState) {
        {
            let mut world = self.world.borrow_mut();
            let now = world.now;
            // Whatever residents do when they are dropped reaches nothing.
            world.nodes[id.index()].disk.crash_after(0);
            if state == NodeState::Off {
                world.vanish_host(id.0);
            } else {
                world.close_process(id.0);
            }
            let host = &mut world.nodes[id.index()];
            host.state = state;
            host.down_since = now;
            host.life += 1;
        }
        if let Some(process) = self.nodes[id.index()].process.take() {
            self.check_poison(id, &process.node, process.poisoned);
            let weak = Arc::downgrade(&process.node);
            drop(process);
            self.nodes[id.index()].ended.push(weak);
        }
        let mut world = self.world.borrow_mut();
        let host = &mut world.nodes[id.index()];
        host.pools.clear();
        host.finished.clear();
        host.workers.clear();
        host.held.clear();
        host.disk = host.disk.restart();
        drop(world);
        drop(self.world.borrow().dropped.take());
    }

    /// Gives a node that does not run another disk, on which there is nothing.
    pub fn replace_disk(&mut self, id: NodeId) {
        assert!(self.nodes[id.index()].process.is_none(), "a process uses the disk");
        let mut world = self.world.borrow_mut();
        world.record("new disk", u64::from(id.0), 0, 0);
        let host = &mut world.nodes[id.index()];
        host.disk = host.disk.replaced();
    }

    /// Stops a node's process where it is (SIGSTOP). Its clocks run on.
    pub fn pause(&mut self, id: NodeId) {
        let mut world = self.world.borrow_mut();
        let host = &mut world.nodes[id.index()];
        if host.state == NodeState::Up {
            host.state = NodeState::Paused;
            world.record("pause", u64::from(id.0), 0, 0);
        }
    }

    /// Lets a paused process go on.
    pub fn resume(&mut self, id: NodeId) {
        let mut world = self.world.borrow_mut();
        let world = &mut *world;
        let host = &mut world.nodes[id.index()];
        if host.state != NodeState::Paused {
            return;
        }
        host.state = NodeState::Up;
        for event in std::mem::take(&mut host.held) {
            let tie = host.rng.next_u64();
            world.queue.push(world.now, tie, event);
            match event {
                Event::Worker { worker, .. } => host.workers[usize::from(worker)].soon = world.now,
                Event::Timer { worker, .. } => host.workers[usize::from(worker)].timer = world.now,
                _ => {}
            }
        }
        world.record("resume", u64::from(id.0), 0, 0);
    }

    /// Runs `f` on a worker of a running node, as one event outside its turns, and gives its result. `None` when the
    /// process does not run, or died of it.
    pub fn enter<R>(
        &mut self,
        id: NodeId,
        worker: WorkerId,
        code: Code,
        f: impl FnOnce(&mut Ctx<'_>) -> R,
    ) -> Option<R> {
        let process = self.nodes[id.index()].process.as_mut()?;
        {
            // It begins when the worker is free, as far as the worker's clock can tell.
            let mut world = self.world.borrow_mut();
            let busy = world.nodes[id.index()].workers[worker.index()].busy_until;
            world.spent = busy.saturating_sub(world.now);
        }
        let log = log::as_thread(process.node.log_label(), log::Thread::Worker(worker.0));
        let result = process.workers[worker.index()].enter(code, f);
        drop(log);
        let next_timer = process.workers[worker.index()].next_timer();
        self.after_work(id, Some((worker, next_timer)));
        self.is_up(id).then_some(result)
    }

    /// Posts an event to a resident of a running node.
    pub fn post<T: Resident>(
        &mut self,
        id: NodeId,
        to: Addr<T>,
        code: Code,
        f: impl FnOnce(&mut T, &mut Ctx<'_>) + Send + 'static,
    ) {
        let worker = to.worker();
        self.enter(id, worker, code, |ctx| ctx.post(to, code, f));
    }

    /// Looks at a resident: `None` when it is gone or its node does not run.
    pub fn peek<T: Resident, R>(
        &self,
        id: NodeId,
        at: Addr<T>,
        f: impl FnOnce(&T) -> R,
    ) -> Option<R> {
        let process = self.nodes[id.index()].process.as_ref()?;
        process.workers[at.worker().index()].peek(at, f)
    }

    /// What follows every turn, job and injected call of a node: the worker is busy for as long as it took, others
    /// have mail, a process may have stopped, died at a disk step, or lost a resident. `worked` is the worker, and when
    /// its next timer is due.
    pub(super) fn after_work(&mut self, id: NodeId, worked: Option<(WorkerId, Option<Mono>)>) {
        self.world.borrow_mut().close_dropped();
        let Some(process) = &mut self.nodes[id.index()].process else { return };
        let mut guard = self.world.borrow_mut();
        let world = &mut *guard;
        if let Some((worked, next_timer)) = worked {
            let spent = world.spent + world.nodes[id.index()].disk.take_spent();
            let end = world.now + spent;
            let state = &mut world.nodes[id.index()].workers[worked.index()];
            state.busy_until = state.busy_until.max(end);
            state.due = next_timer;
            world.spent = spent;
        }
        let end = world.local();
        for (index, worker) in process.workers.iter().enumerate() {
            let index = index as u16;
            let here = worked.is_some_and(|(worked, _)| worked == WorkerId(index));
            let host = &mut world.nodes[id.index()];
            let state = &mut host.workers[usize::from(index)];
            if !process.node.worker(WorkerId(index)).mailbox.is_empty() {
                // What was sent at the end of a turn is not seen before that end.
                state.busy_until = state.busy_until.max(if worked.is_some() { end } else { 0 });
                if here || state.soon == NEVER {
                    let hop = if here { 0 } else { world.options.hop.draw(&mut state.rng) };
                    world.wake_worker(id.0, index, end + hop);
                }
            } else if here && (worker.has_work() || !state.ready.is_empty()) {
                world.wake_worker(id.0, index, end);
            }
            if here {
                world.arm_timer(id.0, index);
            }
        }
        world.spent = 0;
        let crashed = world.nodes[id.index()].disk.is_crashed();
        drop(guard);
        let stopped = process.node.is_stopped();
        let (seen, now) = (process.poisoned, process.node.poisoned());
        if seen != now {
            process.poisoned = now;
            let node = process.node.clone();
            self.check_poison(id, &node, seen);
        }
        if crashed {
            self.crashed(id);
        } else if stopped {
            self.finish_process(id);
        }
    }

    /// An orderly end: every resident is closed, then the process is gone.
    fn finish_process(&mut self, id: NodeId) {
        if let Some(process) = &mut self.nodes[id.index()].process {
            for worker in &mut process.workers {
                worker.close_all();
            }
            let timers: usize = process.workers.iter().map(Worker::timers).sum();
            let residents = process.node.residents();
            let sockets: usize = {
                let world = self.world.borrow();
                world.nodes[id.index()].workers.iter().map(|worker| worker.socks.len()).sum()
            };
            self.report_leaks(id, residents, timers, sockets);
        }
        self.world.borrow_mut().record("stopped", u64::from(id.0), 0, 0);
        self.end_process(id, NodeState::Down);
    }

    /// Makes a node's CPU `percent` per cent as slow as normal.
    pub fn slow_cpu(&mut self, id: NodeId, percent: u64) {
        self.world.borrow_mut().nodes[id.index()].cpu_percent = percent.max(1);
    }

    /// Limits the sockets that a node may have open; `None` for the usual limit.
    pub fn limit_fds(&mut self, id: NodeId, limit: Option<usize>) {
        let mut world = self.world.borrow_mut();
        let limit = limit.unwrap_or(world.options.net.fd_limit);
        world.nodes[id.index()].fd_limit = limit;
    }

    /// Whether a node that is down should run: it was started, and not stopped in an orderly way.
    pub(super) fn wanted(&self, id: NodeId) -> bool {
        self.nodes[id.index()].wanted
    }

    /// Steps a node's wall clock.
    pub fn step_wall(&mut self, id: NodeId, by: Duration, back: bool) {
        let nanos = i64::try_from(by.as_nanos()).unwrap_or(i64::MAX);
        let mut world = self.world.borrow_mut();
        world.nodes[id.index()].clock.step_wall(if back { -nanos } else { nanos });
    }

    /// Lets a node's monotonic clock run fast or slow by `ppm` millionths, at most a tenth.
    pub fn drift(&mut self, id: NodeId, ppm: i64) {
        let mut world = self.world.borrow_mut();
        let now = world.now;
        world.nodes[id.index()].clock.drift(now, ppm);
        for worker in 0..world.nodes[id.index()].workers.len() {
            world.arm_timer(id.0, worker as u16);
        }
    }
}
