//! The client itself: one resident that owns every connection and goes through the phases of a run.
//!
//! Connecting, loading, warming up, measuring, draining. A *slot* is the right to have one request
//! in flight; there are connections x in-flight of them. In the closed loop a slot asks again as
//! soon as it is answered, on the same connection if the next record lives there. In the open loop
//! due operations take free slots and the others wait. A slot whose request failed rests for
//! [`ERROR_PAUSE`], so that a broken server is not hammered.
//!
//! [`links`] opens connections and follows the placement of partitions, [`traffic`] sends and
//! receives.

mod links;
mod traffic;

use crate::args::{Load, Plan, Stop, Target};
use crate::conn::Conn;
use crate::locate::Locator;
use crate::meter::{Meter, latencies};
use crate::pace::Pace;
use crate::procfs::{self, Sample, Usage};
use crate::progress;
use crate::records::Records;
use crate::resp::Resp;
use crate::routes::Routes;
use crate::thft::Thft;
use crate::wire::Wire;
use crate::workload::{Filling, Op, Workload};
use crossbeam::channel::Sender;
use dsn_core::driver::IoEvent;
use dsn_core::exec::{Addr, Ctx, Resident};
use dsn_core::time::Mono;
use std::collections::VecDeque;
use std::time::Duration;

dsn_core::task_codes! {
    /// Codes of the load generator.
    pub CODES;
    /// Phases, timeouts, reconnecting.
    pub LPC_BENCH_TICK: Compute, Common, "THREAD_POOL_DEFAULT";
    /// The end of a turn: requests leave.
    pub LPC_BENCH_FLUSH: Compute, Common, "THREAD_POOL_DEFAULT";
    /// Operations of the open loop that are due.
    pub LPC_BENCH_PACE: Compute, Common, "THREAD_POOL_DEFAULT";
    /// Questions about placement, and answers.
    pub LPC_BENCH_LOCATE: Compute, Common, "THREAD_POOL_DEFAULT";
}

/// How often phases, resting slots and connections are looked after.
const TICK: Duration = Duration::from_millis(10);
/// How long a slot rests after a failure.
const ERROR_PAUSE: Duration = Duration::from_millis(10);
/// Loading keeps at least this many requests in flight per connection.
const LOAD_IN_FLIGHT: usize = 16;
/// A phase in which nothing succeeds for this long ends the run.
const STALL_LIMIT: Duration = Duration::from_secs(30);
/// Longest wait for the last answers.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);
/// In the open loop, gaps shorter than this are waited for without sleeping.
const SPIN_BELOW: Duration = Duration::from_millis(3);

/// Why there is no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// A server does not accept connections.
    #[error("cannot connect to {addr}: {why}")]
    Unreachable {
        /// Which.
        addr: String,
        /// The last attempt's error.
        why: String,
    },
    /// The placement of the table cannot be had.
    #[error("table {table}: {why}")]
    Table {
        /// Which.
        table: String,
        /// What the meta servers said.
        why: String,
    },
    /// Requests are sent but none succeeds.
    #[error("nothing succeeded for {} s; last errors: {errors}", STALL_LIMIT.as_secs())]
    Stalled {
        /// Errors by name.
        errors: String,
    },
    /// The client itself failed.
    #[error("internal error: {0}")]
    Internal(String),
}

/// What was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loaded {
    /// Records.
    pub records: u64,
    /// How long it took.
    pub elapsed: Duration,
}

/// The counts of a run.
#[derive(Debug)]
pub struct Outcome {
    /// The load phase, if there was one.
    pub loaded: Option<Loaded>,
    /// Length of the measured window; zero when there was none.
    pub elapsed: Duration,
    /// Counts of the window.
    pub meter: Meter,
    /// What the watched processes used.
    pub servers: Vec<Usage>,
    /// What this process used.
    pub own: Option<Usage>,
    /// Open loop: operations given up because the backlog was full, and its largest size.
    pub missed: u64,
    /// See `missed`.
    pub backlog_most: u64,
    /// Open loop: operations due within the window that were never sent.
    pub unsent: u64,
    /// Requests without answer at the very end.
    pub unanswered: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Loading,
    WarmUp,
    /// Nothing is sent until everything is answered; then the window begins.
    Settling,
    Measuring,
    Draining,
    Done,
}

/// See the module's header.
pub struct Engine {
    plan: Plan,
    me: Addr<Self>,
    tell: Option<Sender<Result<Outcome, RunError>>>,
    wire: Wire,
    records: Records,
    workload: Workload,
    filling: Filling,
    retry: Vec<Op>,
    meter: Meter,
    phase: Phase,
    // Connections.
    routes: Routes,
    conns: Vec<Conn>,
    by_server: Vec<Vec<usize>>,
    cursor: Vec<usize>,
    dirty: Vec<usize>,
    flush_asked: bool,
    locator: Option<Addr<Locator>>,
    routes_wanted: bool,
    routes_next: Mono,
    last_link_error: Option<(String, String)>,
    // Slots.
    slots: usize,
    in_flight: usize,
    resting: VecDeque<Mono>,
    // Times.
    ticks: u64,
    phase_start: Mono,
    last_success: Mono,
    window: (Mono, Mono),
    /// Time that looking at processes took at the end of the window; not the servers' fault.
    pause: u64,
    pace: Option<Pace>,
    issued: u64,
    ended: u64,
    // Results.
    loaded: Option<Loaded>,
    before: (Vec<Sample>, Option<Sample>),
    after: (Vec<Sample>, Option<Sample>),
    unsent: u64,
    losses: (u64, u64),
    progress: progress::Line,
}

impl Resident for Engine {
    fn on_io(&mut self, ctx: &mut Ctx<'_>, event: IoEvent, token: u64) {
        self.ready(ctx, event, token as usize);
    }
}

impl Engine {
    /// A client that will tell its outcome once.
    pub fn new(plan: Plan, me: Addr<Self>, tell: Sender<Result<Outcome, RunError>>) -> Self {
        let wire = match plan.target {
            Target::Redis { wait, .. } => Wire::Redis(Resp::new(wait)),
            Target::Pegasus { .. } => Wire::Pegasus(Box::new(Thft::new(plan.timeout, plan.batch))),
        };
        let mut meter = Meter::default();
        meter.second = plan.progress.then(latencies);
        Self {
            me,
            tell: Some(tell),
            wire,
            records: Records::new(&plan),
            workload: Workload::new(&plan),
            filling: Filling::new(&plan),
            retry: Vec::new(),
            meter,
            phase: Phase::Connecting,
            routes: Routes::of(0, &[], &[]),
            conns: Vec::new(),
            by_server: Vec::new(),
            cursor: Vec::new(),
            dirty: Vec::new(),
            flush_asked: false,
            locator: None,
            routes_wanted: true,
            routes_next: Mono::ZERO,
            last_link_error: None,
            slots: 0,
            in_flight: 0,
            resting: VecDeque::new(),
            ticks: 0,
            phase_start: Mono::ZERO,
            last_success: Mono::ZERO,
            window: (Mono::ZERO, Mono::ZERO),
            pause: 0,
            pace: None,
            issued: 0,
            ended: 0,
            loaded: None,
            before: (Vec::new(), None),
            after: (Vec::new(), None),
            unsent: 0,
            losses: (0, 0),
            progress: progress::Line::default(),
            plan,
        }
    }

    /// Begins.
    pub fn start(&mut self, ctx: &mut Ctx<'_>) {
        self.phase_start = ctx.now();
        match self.plan.target.clone() {
            Target::Redis { server, .. } => self.follow(ctx, Routes::single(server)),
            Target::Pegasus { metas, table } => {
                let engine = self.me;
                self.locator = Some(ctx.spawn_here(|_, me| Locator::new(metas, table, me, engine)));
            }
        }
        let me = self.me;
        ctx.every(me, &LPC_BENCH_TICK, TICK, Self::tick);
        if self.plan.progress {
            ctx.every(me, &LPC_BENCH_TICK, Duration::from_secs(1), Self::show_progress);
        }
    }

    fn tick(&mut self, ctx: &mut Ctx<'_>) {
        self.ticks += 1;
        let now = ctx.clock();
        self.look_after_links(ctx, now);
        if self.ticks.is_multiple_of(10) {
            self.give_up_overdue(ctx, now);
        }
        match self.phase {
            Phase::Connecting => self.wait_for_links(ctx, now),
            Phase::Loading | Phase::WarmUp | Phase::Measuring => {
                let quiet = now.saturating_since(self.last_success.max(self.phase_start));
                if quiet > STALL_LIMIT && self.in_flight + self.resting.len() > 0 {
                    let errors = progress::list_errors(&self.meter);
                    return self.end(ctx, Err(RunError::Stalled { errors }));
                }
            }
            Phase::Settling | Phase::Draining | Phase::Done => {}
        }
        self.fill(now, None);
        self.flush_all(ctx);
        self.advance(ctx, now);
    }

    fn wait_for_links(&mut self, ctx: &mut Ctx<'_>, now: Mono) {
        if self.all_open() {
            match self.plan.load {
                Load::No => self.begin_run(ctx, now),
                Load::First | Load::Only => {
                    self.enter(Phase::Loading, now);
                    self.slots = self.conns.len() * self.plan.in_flight.max(LOAD_IN_FLIGHT);
                }
            }
        } else if now.saturating_since(self.phase_start) > self.plan.connect_timeout {
            let error = self.why_no_links();
            self.end(ctx, Err(error));
        }
    }

    fn enter(&mut self, phase: Phase, now: Mono) {
        self.phase = phase;
        self.phase_start = now;
    }

    fn begin_run(&mut self, ctx: &mut Ctx<'_>, now: Mono) {
        self.enter(Phase::WarmUp, now);
        self.slots = self.plan.connections * self.plan.in_flight;
        self.begin_pace(ctx, now);
        if self.plan.warm_up.is_zero() {
            return self.end_warm_up(ctx);
        }
        let me = self.me;
        ctx.after(me, &LPC_BENCH_TICK, self.plan.warm_up, Self::end_warm_up);
    }

    fn end_warm_up(&mut self, ctx: &mut Ctx<'_>) {
        let now = ctx.clock();
        match self.plan.stop {
            Stop::After(_) => self.begin_window(ctx),
            Stop::Operations(_) => self.enter(Phase::Settling, now),
        }
        self.advance(ctx, now);
    }

    fn begin_pace(&mut self, ctx: &mut Ctx<'_>, now: Mono) {
        let Some(open_loop) = self.plan.open_loop else { return };
        if self.pace.replace(Pace::new(open_loop, now)).is_none() {
            let me = self.me;
            ctx.post(me, &LPC_BENCH_PACE, Self::keep_pace);
        }
    }

    /// Open loop: sends what is due and comes back when more is.
    fn keep_pace(&mut self, ctx: &mut Ctx<'_>) {
        let now = ctx.clock();
        self.fill(now, None);
        self.flush_all(ctx);
        self.advance(ctx, now);
        let Some(pace) = &self.pace else { return };
        let me = self.me;
        let gap = pace.next_at().saturating_since(ctx.clock());
        if gap < SPIN_BELOW {
            std::thread::yield_now();
            ctx.post(me, &LPC_BENCH_PACE, Self::keep_pace);
        } else {
            ctx.after(me, &LPC_BENCH_PACE, gap - SPIN_BELOW / 2, Self::keep_pace);
        }
    }

    fn begin_window(&mut self, ctx: &mut Ctx<'_>) {
        self.before = self.look_at_processes();
        self.meter.reset();
        let now = ctx.clock();
        self.enter(Phase::Measuring, now);
        self.window.0 = now;
        self.begin_pace(ctx, now);
        if let Stop::After(duration) = self.plan.stop {
            let me = self.me;
            // Timers count from the beginning of the turn, and looking at processes took a while.
            let behind = now.saturating_since(ctx.now());
            ctx.after(me, &LPC_BENCH_TICK, duration + behind, |engine, ctx| {
                if engine.phase == Phase::Measuring {
                    let now = ctx.clock();
                    engine.end_window(ctx, now);
                    engine.advance(ctx, now);
                }
            });
        }
        self.fill(now, None);
        self.flush_all(ctx);
    }

    fn end_window(&mut self, ctx: &mut Ctx<'_>, now: Mono) {
        self.window.1 = now;
        if let Some(mut pace) = self.pace.take() {
            pace.trim(now, 0);
            self.unsent = pace.unsent(now);
            self.losses = pace.losses();
        }
        self.after = self.look_at_processes();
        self.enter(Phase::Draining, now);
        self.pause = ctx.clock().saturating_since(now).as_nanos() as u64;
    }

    fn look_at_processes(&self) -> (Vec<Sample>, Option<Sample>) {
        (procfs::sample_all(&self.plan.pids), procfs::sample(std::process::id()).ok())
    }

    /// Goes to the next phase when the present one is complete.
    fn advance(&mut self, ctx: &mut Ctx<'_>, now: Mono) {
        let idle = self.in_flight == 0;
        match self.phase {
            Phase::Loading if idle && self.retry.is_empty() && self.resting.is_empty() => {
                let records = self.filling.done();
                if records < self.plan.records {
                    return;
                }
                let elapsed = now.saturating_since(self.phase_start);
                self.loaded = Some(Loaded { records, elapsed });
                if self.plan.load == Load::Only {
                    self.finish(ctx);
                } else {
                    self.begin_run(ctx, now);
                }
            }
            Phase::Settling if idle => self.begin_window(ctx),
            Phase::Measuring => {
                if let Stop::Operations(wanted) = self.plan.stop
                    && self.ended >= wanted
                {
                    self.end_window(ctx, now);
                    self.finish(ctx);
                }
            }
            Phase::Draining => {
                let limit = self.plan.timeout.min(DRAIN_LIMIT);
                if idle || now.saturating_since(self.phase_start) > limit {
                    self.finish(ctx);
                }
            }
            _ => {}
        }
    }

    fn finish(&mut self, ctx: &mut Ctx<'_>) {
        let unanswered = self.in_flight as u64;
        if unanswered > 0 {
            self.meter.name_error("no answer at the end", unanswered);
        }
        let (missed, backlog_most) = self.losses;
        let own = match (&self.before.1, &self.after.1) {
            (Some(before), Some(after)) => Some(before.until(after)),
            _ => None,
        };
        let outcome = Outcome {
            loaded: self.loaded,
            elapsed: self.window.1.saturating_since(self.window.0),
            meter: std::mem::take(&mut self.meter),
            servers: procfs::usages(&self.before.0, &self.after.0),
            own,
            missed,
            backlog_most,
            unsent: self.unsent,
            unanswered,
        };
        self.end(ctx, Ok(outcome));
    }

    fn end(&mut self, ctx: &mut Ctx<'_>, outcome: Result<Outcome, RunError>) {
        self.phase = Phase::Done;
        self.pace = None;
        for conn in &mut self.conns {
            conn.closed(ctx);
        }
        if let Some(tell) = self.tell.take() {
            let _ = tell.send(outcome);
        }
    }

    fn show_progress(&mut self, ctx: &mut Ctx<'_>) {
        let (name, share) = match self.phase {
            Phase::Connecting => ("connecting", None),
            Phase::Loading => ("load", Some(self.filling.done() as f64 / self.plan.records as f64)),
            Phase::WarmUp | Phase::Settling => ("warm-up", None),
            Phase::Measuring => ("run", None),
            Phase::Draining | Phase::Done => return,
        };
        self.progress.show(ctx.clock(), name, share, &mut self.meter);
    }
}
