//! The worker: one loop over a mailbox, run queues, timers, sockets and residents.
//!
//! A *turn* polls the driver, takes what other threads sent, handles readiness, runs events up to a budget, fires
//! timers, runs what was deferred to the end of the turn (logs, then frames) and hands the batches for other
//! workers over. Natively one thread calls turns for ever; the simulator calls a turn when the worker has
//! something to do. There is no other kind of loop.

use super::ctx::Ctx;
use super::home::{Addr, Home, RawAddr, Resident};
use super::locals::Locals;
use super::mailbox::WorkerShared;
use super::runq::RunQueue;
use super::task::{Task, TaskFn, WorkerId};
use super::wheel::Wheel;
use crate::code::{Code, CodeDef, CodeKind, Priority};
use crate::driver::{Driver, IoEvent, Park};
use crate::hash::mix64;
use crate::log;
use crate::node::Node;
use crate::rng::Rng;
use crate::time::Mono;
use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// Handling of socket readiness, as a code of its own.
pub static IO_READY: CodeDef = CodeDef::new(
    "LPC_IO_READY",
    CodeKind::Compute,
    Priority::Common,
    "THREAD_POOL_NETWORK",
    Duration::from_secs(5),
);

/// Most deferred handlers run in one turn; what is left runs in the next.
const DEFERRED_MAX: usize = 4096;

/// A turn's limits and weights.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Most events run in one turn.
    pub turn_tasks: usize,
    /// A turn stops running events after this time.
    pub turn_time: Duration,
    /// An event that runs longer is reported by its code.
    pub slow_task: Duration,
    /// Weights of LOW, COMMON, HIGH.
    pub weights: [u32; Priority::COUNT],
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            turn_tasks: 128,
            turn_time: Duration::from_micros(100),
            slow_task: Duration::from_millis(10),
            weights: [1, 4, 16],
        }
    }
}

pub(crate) struct TimerTask {
    pub(crate) target: RawAddr,
    pub(crate) code: Code,
    pub(crate) run: TaskFn,
}

/// Everything of a worker but the resident whose handler runs.
pub(crate) struct WorkerCore {
    pub(crate) node: Arc<Node>,
    pub(crate) shared: Arc<WorkerShared>,
    pub(crate) driver: Box<dyn Driver>,
    pub(crate) config: WorkerConfig,
    pub(crate) now: Mono,
    pub(crate) rng: Rng,
    pub(crate) runq: RunQueue,
    pub(crate) wheel: Wheel<TimerTask>,
    pub(crate) home: Home,
    pub(crate) sockets: Vec<Option<(RawAddr, u64)>>,
    pub(crate) deferred: [VecDeque<Task>; 2],
    pub(crate) locals: Locals,
    outgoing: Vec<Vec<Task>>,
    /// The event that runs, and its beginning.
    running: Option<(Code, Mono)>,
    /// Time that events within the running one have taken, which is not its own.
    inner: Duration,
    trace: u64,
    ran: u64,
}

impl WorkerCore {
    /// Queues an event for a worker of this node: here at once, elsewhere with the turn's batch.
    pub(crate) fn send(&mut self, worker: WorkerId, task: Task) {
        if self.node.hooks_on() && !self.node.hooks().on_enqueue(&self.node, task.code) {
            return;
        }
        if worker == self.shared.id {
            let priority = self.node.spec(task.code).priority;
            self.runq.push(priority, task);
        } else {
            self.outgoing[worker.index()].push(task);
        }
    }
    pub(crate) fn trace(&mut self, value: u64) {
        self.trace = mix64(self.trace ^ value);
    }

    /// What happens before each event: counted, traced, shown to the toollets. `enqueued` is zero for what waited in
    /// no queue. Returns what [`Self::end_event`] wants back.
    pub(crate) fn begin_event(&mut self, code: Code, enqueued: Mono, begun: Mono) -> Interrupted {
        let outer = self.running.replace((code, begun));
        let interrupted = Interrupted { event: outer, inner: std::mem::take(&mut self.inner) };
        self.node.note_sojourn(code, enqueued, begun);
        self.trace ^= begun.nanos();
        self.trace(code.name_hash());
        self.ran += 1;
        self.shared.set_running(self.running);
        log::set_task(Some((code.name(), self.node.spec(code).stage.0)));
        if self.node.hooks_on() {
            let waited = match enqueued {
                Mono::ZERO => Duration::ZERO,
                enqueued => begun.saturating_since(enqueued),
            };
            self.node.hooks().on_begin(&self.node, code, waited, begun);
        }
        interrupted
    }

    /// What happens after each event: the clock is read, slow ones are named. Events within it are named themselves,
    /// so that their time is not counted here.
    pub(crate) fn end_event(&mut self, code: Code, begun: Mono, outer: Interrupted) {
        self.now = self.driver.now();
        let took = self.now.saturating_since(begun);
        let own = took.saturating_sub(self.inner);
        self.inner = outer.inner + took;
        if own > self.config.slow_task {
            self.node.count_slow();
            tracing::warn!(code = code.name(), micros = own.as_micros() as u64, "slow task");
        }
        if self.node.hooks_on() {
            self.node.hooks().on_end(&self.node, code, own);
        }
        self.running = outer.event;
        self.shared.set_running(self.running);
        let task = self.running.map(|(code, _)| (code.name(), self.node.spec(code).stage.0));
        log::set_task(task);
    }
}

/// What an event interrupts.
pub(crate) struct Interrupted {
    event: Option<(Code, Mono)>,
    inner: Duration,
}

/// What a turn leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Events run.
    pub ran: usize,
    /// Whether events wait that need no wake.
    pub more: bool,
    /// When the next timer wants a turn.
    pub next_timer: Option<Mono>,
}

/// A worker with its driver. Not `Send`: it is made on the thread that runs it.
pub struct Worker {
    core: WorkerCore,
    events: Vec<IoEvent>,
    due: Vec<TimerTask>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("node", &self.core.node.name())
            .field("id", &self.core.shared.id)
            .finish_non_exhaustive()
    }
}

impl Worker {
    /// A worker of `node` with index `id` over `driver`.
    pub fn new(node: Arc<Node>, id: WorkerId, driver: Box<dyn Driver>) -> Self {
        let config = node.worker_config().clone();
        let now = driver.now();
        let workers = node.worker_count();
        let core = WorkerCore {
            shared: node.worker(id).clone(),
            now,
            rng: Rng::stream(node.seed(), node.name(), "worker", u64::from(id.0)),
            runq: RunQueue::new(config.weights),
            wheel: Wheel::new(now),
            home: Home::default(),
            sockets: Vec::new(),
            deferred: Default::default(),
            locals: Locals::default(),
            outgoing: (0..workers).map(|_| Vec::new()).collect(),
            running: None,
            inner: Duration::ZERO,
            trace: u64::from(id.0),
            ran: 0,
            config,
            driver,
            node,
        };
        Self { core, events: Vec::with_capacity(256), due: Vec::new() }
    }

    /// The node.
    pub fn node(&self) -> &Arc<Node> {
        &self.core.node
    }

    /// Rolling hash over (time, code) of every event run and every [`Ctx::trace`].
    pub fn trace_hash(&self) -> u64 {
        self.core.trace
    }

    /// Events run since the start.
    pub fn ran(&self) -> u64 {
        self.core.ran
    }

    /// Timers armed.
    pub fn timers(&self) -> usize {
        self.core.wheel.len()
    }

    /// Native loop: turns until the node stops.
    pub fn run(&mut self) {
        let thread = log::Thread::Worker(self.core.shared.id.0);
        log::set_thread(Some((self.core.node.log_label(), thread)));
        let mut turn = Turn { ran: 0, more: true, next_timer: None };
        while !self.core.node.is_stopped() {
            let park = match (turn.more, turn.next_timer) {
                (true, _) => Park::No,
                (false, Some(at)) => Park::Until(at),
                (false, None) => Park::Forever,
            };
            turn = self.turn(park);
        }
        self.close_all();
    }

    /// One turn. With a `park` other than [`Park::No`] it first waits until there is something to do.
    pub fn turn(&mut self, park: Park) -> Turn {
        let mailbox = &self.core.shared.mailbox;
        let may_block = park != Park::No && mailbox.prepare_park();
        let park = if may_block { park } else { Park::No };
        self.events.clear();
        let polled = self.core.driver.poll(park, &mut self.events);
        self.core.shared.count_turn();
        self.core.shared.mailbox.unpark();
        if let Err(error) = polled {
            tracing::error!(%error, "poll failed");
        }
        self.core.now = self.core.driver.now();
        self.take_mail();
        let started = self.core.now;
        self.readiness();
        self.timers_due();
        let ran = self.run_events(started);
        self.end_of_turn();
        Turn { ran, more: self.has_work(), next_timer: self.next_timer() }
    }

    /// Runs `f` as one event outside of a turn and ends as a turn ends: the way in for whoever drives the worker.
    pub fn enter<R>(&mut self, code: Code, f: impl FnOnce(&mut Ctx<'_>) -> R) -> R {
        self.core.now = self.core.driver.now();
        let begun = self.core.now;
        let outer = self.core.begin_event(code, Mono::ZERO, begun);
        let result = f(&mut Ctx { core: &mut self.core, current: None, code, deadline: None });
        self.core.end_event(code, begun, outer);
        self.end_of_turn();
        result
    }

    /// Looks at a resident between turns.
    pub fn peek<T: Resident, R>(&self, at: Addr<T>, f: impl FnOnce(&T) -> R) -> Option<R> {
        let resident: &dyn Any = self.core.home.peek(at.raw())?;
        resident.downcast_ref::<T>().map(f)
    }

    /// Whether events wait that need no wake.
    pub fn has_work(&self) -> bool {
        !self.core.runq.is_empty() || self.core.deferred.iter().any(|queue| !queue.is_empty())
    }

    /// When the next timer wants a turn: nothing is due before.
    pub fn next_timer(&self) -> Option<Mono> {
        self.core.wheel.next_at()
    }

    /// Closes every resident and forgets every event that has not begun, on the way out.
    pub fn close_all(&mut self) {
        let all = self.core.home.all(self.core.shared.id);
        let mut ctx = Ctx { core: &mut self.core, current: None, code: &IO_READY, deadline: None };
        for raw in all {
            ctx.close_raw(raw);
        }
        self.end_of_turn();
        self.core.deferred.iter_mut().for_each(VecDeque::clear);
        while self.core.runq.pop().is_some() {}
        while self.core.shared.mailbox.pop().is_some() {}
    }

    fn take_mail(&mut self) {
        while let Some(batch) = self.core.shared.mailbox.pop() {
            for task in batch {
                let priority = self.core.node.spec(task.code).priority;
                self.core.runq.push(priority, task);
            }
        }
    }

    fn readiness(&mut self) {
        for index in 0..self.events.len() {
            let event = self.events[index];
            let owner = self.core.sockets.get(event.sock.0 as usize).copied().flatten();
            let Some((raw, token)) = owner else { continue };
            let begun = self.core.now;
            let outer = self.core.begin_event(&IO_READY, Mono::ZERO, begun);
            self.deliver_io(raw, event, token);
            self.core.end_event(&IO_READY, begun, outer);
        }
    }

    fn deliver_io(&mut self, raw: RawAddr, event: IoEvent, token: u64) {
        let Some(mut resident) = self.core.home.take(raw) else { return };
        let code = &IO_READY;
        let mut ctx = Ctx { core: &mut self.core, current: Some(raw), code, deadline: None };
        let outcome = catch_unwind(AssertUnwindSafe(|| resident.on_io(&mut ctx, event, token)));
        match outcome {
            Ok(()) => ctx.finish(raw, resident),
            Err(panic) => ctx.lost(raw, resident, code, panic_text(&*panic)),
        }
    }

    fn run_events(&mut self, started: Mono) -> usize {
        let mut ran = 0;
        while ran < self.core.config.turn_tasks {
            let Some(task) = self.core.runq.pop() else { break };
            ran += 1;
            self.run_one(task);
            if self.core.now.saturating_since(started) > self.core.config.turn_time {
                break;
            }
        }
        ran
    }

    fn run_one(&mut self, task: Task) {
        let begun = self.core.now;
        let code = task.code;
        let expired = task.deadline.is_some_and(|deadline| deadline < begun);
        if expired && self.core.node.spec(code).drop_expired {
            self.core.node.count_expired(code);
            return;
        }
        let outer = self.core.begin_event(code, task.enqueued, begun);
        self.deliver(task.target, code, task.deadline, task.run);
        self.core.end_event(code, begun, outer);
    }

    fn deliver(
        &mut self,
        target: Option<RawAddr>,
        code: Code,
        deadline: Option<Mono>,
        run: TaskFn,
    ) {
        let mut ctx = Ctx { core: &mut self.core, current: target, code, deadline };
        let Some(raw) = target else {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(None, &mut ctx))) {
                let text = panic_text(&*panic);
                tracing::error!(code = code.name(), text, "panic outside any resident");
                let worker = ctx.core.shared.id;
                let none = RawAddr { worker, slot: u32::MAX, generation: 0 };
                ctx.core.node.report_poison(worker, none, code, text);
            }
            return;
        };
        let Some(mut resident) = ctx.core.home.take(raw) else {
            ctx.core.node.count_vanished(code);
            return;
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| run(Some(&mut *resident), &mut ctx)));
        match outcome {
            Ok(()) => ctx.finish(raw, resident),
            Err(panic) => ctx.lost(raw, resident, code, panic_text(&*panic)),
        }
    }

    fn timers_due(&mut self) {
        self.core.wheel.expire(self.core.now, &mut self.due);
        let mut due = std::mem::take(&mut self.due);
        for timer in due.drain(..) {
            let mut task = Task::new(timer.code, Some(timer.target), self.core.now, timer.run);
            task.deadline = None;
            let priority = self.core.node.spec(timer.code).priority;
            self.core.runq.push(priority, task);
        }
        self.due = due;
    }

    fn end_of_turn(&mut self) {
        for _ in 0..DEFERRED_MAX {
            let [log, send] = &mut self.core.deferred;
            let Some(task) = log.pop_front().or_else(|| send.pop_front()) else { break };
            let begun = self.core.now;
            let outer = self.core.begin_event(task.code, Mono::ZERO, begun);
            self.deliver(task.target, task.code, None, task.run);
            self.core.end_event(task.code, begun, outer);
        }
        for index in 0..self.core.outgoing.len() {
            if !self.core.outgoing[index].is_empty() {
                let batch = std::mem::take(&mut self.core.outgoing[index]);
                self.core.node.worker(WorkerId(index as u16)).mailbox.push(batch);
            }
        }
    }
}

/// The message of a panic.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic without a message".to_owned())
}
