//! The simulation itself: takes the next event, lets a worker have its turn, asks the checkers.

use super::checker::{Checker, Violation};
use super::jobs::run_job;
use super::net::CutId;
use super::node::{NodeId, SimNode};
use super::options::SimOptions;
use super::queue::{Entry, Event};
use super::trace::Step;
use super::world::{NEVER, NodeState, World};
use crate::driver::Park;
use crate::exec::WorkerId;
use crate::log;
use crate::node::Node;
use crate::rng::Rng;
use crate::time::nanos_of;
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

type Action = Box<dyn FnOnce(&mut Sim)>;

/// A simulated world of nodes. See the [module](super).
pub struct Sim {
    pub(super) world: Rc<RefCell<World>>,
    pub(super) nodes: Vec<SimNode>,
    pub(super) violation: Option<Violation>,
    checkers: Vec<Box<dyn Checker>>,
    actions: Vec<Option<Action>>,
    seed: u64,
    poison_is_violation: bool,
    max_steps: u64,
    pub(super) start_retry: Duration,
    /// Whose worker had its turn in the last step, if it was a turn.
    last_turn: Option<NodeId>,
    /// Whether a process that crashes at a disk step loses its power, by node.
    pub(super) crash_modes: Vec<(NodeId, CrashMode)>,
}

/// What a death at a chosen disk step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CrashMode {
    pub(super) power: bool,
    pub(super) restart: Option<Duration>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The condition became true.
    Reached,
    /// Its time was over.
    TimedOut,
    /// Nothing will ever happen again.
    Quiet,
    /// A checker or the simulation itself found something wrong: see [`Sim::violation`].
    Violated,
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sim").field("seed", &self.seed).field("now", &self.now()).finish()
    }
}

impl Sim {
    /// An empty world. Everything in it follows from `seed` and `options`.
    pub fn new(seed: u64, options: SimOptions) -> Self {
        let (poison_is_violation, max_steps, start_retry) =
            (options.poison_is_violation, options.max_steps, options.start_retry);
        Self {
            world: Rc::new(RefCell::new(World::new(seed, options))),
            nodes: Vec::new(),
            violation: None,
            checkers: Vec::new(),
            actions: Vec::new(),
            seed,
            poison_is_violation,
            max_steps,
            start_retry,
            last_turn: None,
            crash_modes: Vec::new(),
        }
    }

    /// The run's seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// A random stream of the run, for workloads: `(seed, node, purpose, ordinal)`.
    pub fn stream(&self, node: &str, purpose: &str, ordinal: u64) -> Rng {
        Rng::stream(self.seed, node, purpose, ordinal)
    }

    /// Virtual time since the start.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.world.borrow().now)
    }

    /// Events taken so far.
    pub fn steps(&self) -> u64 {
        self.world.borrow().trace.steps()
    }

    /// Whose worker had its turn in the step that was taken last, if it was a turn.
    pub fn last_turn(&self) -> Option<NodeId> {
        self.last_turn
    }

    /// Hash of everything that has happened: equal in every run of the same seed.
    pub fn trace_hash(&self) -> u64 {
        self.world.borrow().trace.value()
    }

    /// The steps so far, when [`SimOptions::step_log`] is on.
    pub fn step_log(&self) -> Vec<Step> {
        self.world.borrow().trace.log().to_vec()
    }

    /// What went wrong, if anything did.
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// Records that something went wrong; the first record stays, and the run stops.
    pub fn violate(&mut self, by: &str, text: String) {
        if self.violation.is_none() {
            let step = self.steps();
            self.violation = Some(Violation { by: by.to_owned(), text, at: self.now(), step });
        }
    }

    /// Like [`Sim::violate`], but puts an earlier record aside.
    pub fn accuse(&mut self, by: &str, text: String) {
        self.violation = None;
        self.violate(by, text);
    }

    /// Adds a checker; it is asked after every step.
    pub fn add_checker(&mut self, checker: Box<dyn Checker>) {
        self.checkers.push(checker);
    }

    /// Does `f` at a time from the start, or now when that has passed.
    pub fn at(&mut self, time: Duration, f: impl FnOnce(&mut Self) + 'static) {
        let index = self.actions.len() as u32;
        self.actions.push(Some(Box::new(f)));
        let mut world = self.world.borrow_mut();
        let at = nanos_of(time).max(world.now);
        world.queue.push(at, u64::from(index), Event::Action { index });
    }

    /// Does `f` after a time from now.
    pub fn after(&mut self, delay: Duration, f: impl FnOnce(&mut Self) + 'static) {
        self.at(self.now() + delay, f);
    }

    /// Runs for some virtual time, or until something is wrong.
    pub fn run_for(&mut self, time: Duration) -> Outcome {
        match self.run_until(time, |_| false) {
            Outcome::Quiet => {
                // Time passes though nothing happens.
                Outcome::TimedOut
            }
            other => other,
        }
    }

    /// Runs until `done`, asked after every step, but not longer than `limit`.
    pub fn run_until(
        &mut self,
        limit: Duration,
        mut done: impl FnMut(&mut Self) -> bool,
    ) -> Outcome {
        let end = self.world.borrow().now.saturating_add(nanos_of(limit));
        self.collect_mail();
        loop {
            if self.violation.is_some() {
                return Outcome::Violated;
            }
            if done(self) {
                return Outcome::Reached;
            }
            let next = self.world.borrow().queue.next_at();
            match next {
                Some(at) if at <= end => self.step(),
                next => {
                    self.world.borrow_mut().advance(end);
                    return if next.is_none() { Outcome::Quiet } else { Outcome::TimedOut };
                }
            }
        }
    }

    /// Takes one event.
    fn step(&mut self) {
        let Some(Entry { at, event, .. }) = self.world.borrow_mut().queue.pop() else { return };
        self.world.borrow_mut().advance(at);
        self.last_turn = None;
        self.dispatch(at, event);
        if self.steps() > self.max_steps {
            let limit = self.max_steps;
            self.violate("livelock", format!("more than {limit} steps"));
        }
        let mut checkers = std::mem::take(&mut self.checkers);
        for checker in &mut checkers {
            if let Err(text) = checker.after_step(self) {
                self.violate(checker.name(), text);
                break;
            }
        }
        // One that was added meanwhile comes after them.
        std::mem::swap(&mut self.checkers, &mut checkers);
        self.checkers.extend(checkers);
    }

    fn dispatch(&mut self, at: u64, event: Event) {
        match event {
            Event::Worker { node, worker, life } => {
                let mut world = self.world.borrow_mut();
                let host = &mut world.nodes[usize::from(node)];
                if host.life != life || host.workers[usize::from(worker)].soon != at {
                    return;
                }
                if host.state == NodeState::Paused {
                    host.held.push(event);
                    return;
                }
                let state = &mut host.workers[usize::from(worker)];
                state.soon = NEVER;
                let busy = state.busy_until;
                if busy > at {
                    return world.wake_worker(node, worker, busy);
                }
                drop(world);
                self.turn(NodeId(node), WorkerId(worker));
            }
            Event::Timer { node, worker, life } => self.timer(at, node, worker, life, event),
            Event::Job { node, life, .. } | Event::JobDone { node, life, .. } => {
                let mut world = self.world.borrow_mut();
                let host = &mut world.nodes[usize::from(node)];
                if host.life != life {
                    return;
                }
                if host.state == NodeState::Paused {
                    host.held.push(event);
                    return;
                }
                drop(world);
                self.job_event(NodeId(node), event);
            }
            Event::Syn { end } => self.net_event("syn", end.index, |world| world.on_syn(end)),
            Event::Packet { end } => {
                self.net_event("packet", end.index, |world| world.on_packet(end));
            }
            Event::Room { end } => self.net_event("room", end.index, |world| world.on_room(end)),
            Event::Probe { end } => {
                self.net_event("probe", end.index, |world| world.on_probe(end));
            }
            Event::Action { index } => {
                self.world.borrow_mut().record("action", 0, 0, 0);
                if let Some(action) = self.actions[index as usize].take() {
                    action(self);
                    self.collect_mail();
                }
            }
        }
    }

    fn net_event(&mut self, what: &'static str, index: u32, f: impl FnOnce(&mut World)) {
        let mut world = self.world.borrow_mut();
        world.spent = 0;
        world.record(what, u64::from(index), 0, 0);
        f(&mut world);
    }

    fn timer(&mut self, at: u64, node: u16, worker: u16, life: u32, event: Event) {
        let mut world = self.world.borrow_mut();
        let host = &mut world.nodes[usize::from(node)];
        if host.life != life || host.workers[usize::from(worker)].timer != at {
            return;
        }
        if host.state == NodeState::Paused {
            host.held.push(event);
            return;
        }
        let state = &mut host.workers[usize::from(worker)];
        state.timer = NEVER;
        let Some(due) = state.due else { return };
        if host.clock.when(due) > at || state.busy_until > at {
            return world.arm_timer(node, worker);
        }
        drop(world);
        self.turn(NodeId(node), WorkerId(worker));
    }

    fn turn(&mut self, id: NodeId, worker: WorkerId) {
        let Some(process) = &mut self.nodes[id.index()].process else { return };
        self.world.borrow_mut().spent = 0;
        self.last_turn = Some(id);
        let log = log::as_thread(process.node.log_label(), log::Thread::Worker(worker.0));
        let runner = &mut process.workers[worker.index()];
        let next_timer = runner.turn(Park::No).next_timer;
        drop(log);
        let hash = runner.trace_hash();
        self.world.borrow_mut().record("turn", u64::from(id.0), u64::from(worker.0), hash);
        self.after_work(id, Some((worker, next_timer)));
    }

    fn job_event(&mut self, id: NodeId, event: Event) {
        let Some(node) = self.node(id).cloned() else { return };
        match event {
            Event::Job { pool, .. } => {
                self.world.borrow_mut().record("job", u64::from(id.0), u64::from(pool), 0);
                run_job(&self.world, id.0, pool, &node);
            }
            Event::JobDone { slot, .. } => {
                let mut world = self.world.borrow_mut();
                world.spent = 0;
                world.record("job done", u64::from(id.0), u64::from(slot), 0);
                world.job_done(id.0, slot, &node);
            }
            _ => {}
        }
        drop(node);
        self.after_work(id, None);
    }

    /// Gives a turn to workers that got mail from outside of the simulation, and looks for stopped nodes.
    fn collect_mail(&mut self) {
        for id in self.node_ids() {
            self.world.borrow_mut().spent = 0;
            self.after_work(id, None);
        }
    }

    /// A process died at a chosen disk step.
    pub(super) fn crashed(&mut self, id: NodeId) {
        self.nodes[id.index()].deaths += 1;
        let index = self.crash_modes.iter().position(|(node, _)| *node == id);
        let mode = index.map(|index| self.crash_modes.swap_remove(index).1);
        match mode {
            Some(mode) if mode.power => self.power_off(id),
            _ => self.kill(id),
        }
        if let Some(delay) = mode.and_then(|mode| mode.restart) {
            self.restart_after(id, delay);
        }
    }

    /// Kills the node, or cuts its power, right after the `steps`th change of its disk from now on, in the middle of
    /// whatever it does then.
    pub fn crash_after(&mut self, id: NodeId, steps: u64, power: bool, restart: Option<Duration>) {
        self.crash_modes.retain(|(node, _)| *node != id);
        self.crash_modes.push((id, CrashMode { power, restart }));
        self.disk(id).crash_after(steps.max(1));
    }

    /// Like [`Sim::crash_after`], for a node that is to be started: counts from the beginning of its next process.
    pub fn crash_next_after(
        &mut self,
        id: NodeId,
        steps: u64,
        power: bool,
        restart: Option<Duration>,
    ) {
        self.crash_modes.retain(|(node, _)| *node != id);
        self.crash_modes.push((id, CrashMode { power, restart }));
        self.disk(id).crash_next_after(steps);
    }

    /// Starts a node after a delay, and again after [`SimOptions::start_retry`] as long as its app refuses.
    pub fn restart_after(&mut self, id: NodeId, delay: Duration) {
        self.nodes[id.index()].restarting = true;
        self.after(delay, move |sim| {
            let wanted = std::mem::take(&mut sim.nodes[id.index()].restarting);
            if wanted && !sim.is_up(id) && sim.start(id).is_err() {
                let delay = sim.start_retry;
                sim.restart_after(id, delay);
            }
        });
    }

    pub(super) fn check_poison(&mut self, id: NodeId, node: &Arc<Node>, seen: u64) {
        if self.poison_is_violation && node.poisoned() > seen {
            let name = self.name(id).to_owned();
            let text = match node.first_poisoned() {
                Some(lost) => format!("{name}: {} panicked: {}", lost.code, lost.text),
                None => format!("{name}: a handler panicked"),
            };
            self.violate("panic", text);
        }
    }

    pub(super) fn report_leaks(
        &mut self,
        id: NodeId,
        residents: usize,
        _timers: usize,
        sockets: usize,
    ) {
        if residents + sockets > 0 {
            let name = self.name(id).to_owned();
            self.violate(
                "leak",
                format!("{name} stopped with {residents} residents and {sockets} sockets left"),
            );
        }
    }

    /// Stops every running node in an orderly way, asks the checkers for their last word, and looks for what was left
    /// behind: residents, sockets, open files, nodes that something still holds.
    ///
    /// # Errors
    /// The first violation of the run.
    pub fn finish(&mut self, limit: Duration) -> Result<(), Violation> {
        let ids: Vec<NodeId> = self.node_ids().collect();
        for &id in &ids {
            self.resume(id);
            self.stop(id);
        }
        let ended = |sim: &mut Self| ids.iter().all(|id| !sim.is_up(*id));
        if self.violation.is_none() && self.run_until(limit, ended) != Outcome::Reached {
            let left: Vec<&str> =
                ids.iter().filter(|id| self.is_up(**id)).map(|id| self.name(*id)).collect();
            let text = format!("{left:?} did not stop within {limit:?}");
            self.violate("shutdown", text);
        }
        self.look_for_leaks();
        let mut checkers = std::mem::take(&mut self.checkers);
        for checker in &mut checkers {
            if let Err(text) = checker.at_end(self) {
                self.violate(checker.name(), text);
            }
        }
        self.violation.clone().map_or(Ok(()), Err)
    }

    fn look_for_leaks(&mut self) {
        for id in self.node_ids() {
            let held = self.nodes[id.index()].ended.iter().any(|node| node.strong_count() > 0);
            let files = self.disk(id).open_files();
            let name = self.name(id).to_owned();
            if held {
                self.violate("leak", format!("{name}: something keeps an ended process alive"));
            }
            if files > 0 && !self.is_up(id) {
                self.violate("leak", format!("{name}: {files} files open after its end"));
            }
        }
    }
}

/// Network faults by hand. Fault plans use the same.
impl Sim {
    fn pairs(from: &[NodeId], to: &[NodeId], both: bool) -> Vec<(u16, u16)> {
        let mut links = Vec::new();
        for a in from {
            for b in to {
                if a != b {
                    links.push((a.0, b.0));
                    if both {
                        links.push((b.0, a.0));
                    }
                }
            }
        }
        links
    }

    /// Cuts every link between two groups, both ways. Ends with [`Sim::mend`] or [`Sim::heal_network`].
    pub fn partition(&mut self, one: &[NodeId], other: &[NodeId]) -> CutId {
        self.world.borrow_mut().cut(Self::pairs(one, other, true))
    }

    /// Cuts links one way: what `from` sends does not reach `to`.
    pub fn partition_one_way(&mut self, from: &[NodeId], to: &[NodeId]) -> CutId {
        self.world.borrow_mut().cut(Self::pairs(from, to, false))
    }

    /// Clogs links one way: packets wait, and pass at once when the clog ends.
    pub fn clog(&mut self, from: &[NodeId], to: &[NodeId]) -> CutId {
        self.world.borrow_mut().clog(Self::pairs(from, to, false))
    }

    /// Slows links down, both ways: a delay more, and transmission times `factor`.
    pub fn slow_link(
        &mut self,
        one: &[NodeId],
        other: &[NodeId],
        extra: Duration,
        factor: u64,
    ) -> CutId {
        self.world.borrow_mut().slow(Self::pairs(one, other, true), extra, factor)
    }

    /// Ends one lasting network fault.
    pub fn mend(&mut self, cut: CutId) {
        self.world.borrow_mut().mend(cut);
    }

    /// Ends all lasting network faults.
    pub fn heal_network(&mut self) {
        self.world.borrow_mut().mend_all();
    }

    /// Resets connections between two nodes, each with odds of `percent`. Returns how many.
    pub fn reset_connections(&mut self, a: NodeId, b: NodeId, percent: u64) -> usize {
        let mut world = self.world.borrow_mut();
        let mut rng = Rng::stream(self.seed, self.name(a), "reset", world.now);
        world.reset(a.0, b.0, percent, &mut rng)
    }

    /// Makes connections between two nodes half-open for both: they look alive and carry nothing, each with odds of
    /// `percent`. Returns how many.
    pub fn silence_connections(&mut self, a: NodeId, b: NodeId, percent: u64) -> usize {
        let mut world = self.world.borrow_mut();
        let mut rng = Rng::stream(self.seed, self.name(a), "silence", world.now);
        world.silence(a.0, b.0, percent, &mut rng)
    }

    /// Ends of connections that a node has.
    pub fn connections(&self, id: NodeId) -> usize {
        self.world.borrow().net.count(id.0)
    }
}
