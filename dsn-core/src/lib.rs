//! dsn-core: the staged event-driven runtime (SEDA) under every server of this project.
//!
//! Six nouns. A [code](code) names a kind of event; its priority, stage, timeout, tracing and faults hang off it. A
//! [task](exec::Task) is one event. A [stage](stage) is where events of some codes wait, by name. A
//! [worker](exec::Worker) is a thread that runs them. A [resident](exec::Resident) is state that exactly one worker
//! owns; its handlers get `&mut self`, so that there are no locks. A [driver](driver) is the outside world: the
//! operating system, or [a simulation of one](sim) that replays from a seed.
//!
//! # A service of two stages
//!
//! The first stage cuts lines into words; the second, on workers of its own where there are enough cores, counts them.
//! The same service runs natively and simulated; the difference is in the last lines.
//!
//! ```
//! use dsn_core::app::{AppError, AppHost, NativeNode, ServiceApp};
//! use dsn_core::driver::native::{NativeClock, OsDisk};
//! use dsn_core::exec::{Addr, Ctx, Phase, Place, Resident, WorkerConfig};
//! use dsn_core::node::{Node, NodeParts};
//! use dsn_core::sim::{NodeSpec, Outcome, Sim, SimOptions};
//! use dsn_core::stage::{REPLICATION, StagePlan};
//! use std::collections::BTreeMap;
//! use std::sync::{Arc, mpsc};
//! use std::time::Duration;
//!
//! dsn_core::task_codes! {
//!     /// Every code of the service.
//!     pub CODES;
//!     /// First stage: a line is cut.
//!     pub LPC_SPLIT: Compute, Common, "THREAD_POOL_DEFAULT";
//!     /// Second stage: the words of a turn are counted.
//!     pub LPC_COUNT: Compute, Common, "THREAD_POOL_REPLICATION";
//! }
//!
//! struct Splitter {
//!     me: Addr<Splitter>,
//!     counter: Addr<Counter>,
//!     words: Vec<String>,
//! }
//!
//! impl Resident for Splitter {}
//!
//! impl Splitter {
//!     fn split(&mut self, ctx: &mut Ctx<'_>, line: &str) {
//!         if self.words.is_empty() {
//!             // Once per turn, however many lines the turn has: stages hand each other batches.
//!             ctx.defer(Phase::Send, self.me, &LPC_SPLIT, Self::hand_over);
//!         }
//!         self.words.extend(line.split_whitespace().map(str::to_owned));
//!     }
//!
//!     fn hand_over(&mut self, ctx: &mut Ctx<'_>) {
//!         let words = std::mem::take(&mut self.words);
//!         ctx.post(self.counter, &LPC_COUNT, move |counter, _| counter.count(words));
//!     }
//! }
//!
//! #[derive(Default)]
//! struct Counter {
//!     counts: BTreeMap<String, u64>,
//! }
//!
//! impl Resident for Counter {}
//!
//! impl Counter {
//!     fn count(&mut self, words: Vec<String>) {
//!         for word in words {
//!             *self.counts.entry(word).or_default() += 1;
//!         }
//!     }
//! }
//!
//! /// Counts a text and, a little later, reports how often it has the word "the".
//! struct WordCount(mpsc::Sender<u64>);
//!
//! impl ServiceApp for WordCount {
//!     fn start(&mut self, ctx: &mut Ctx<'_>, _: Addr<AppHost>) -> Result<(), AppError> {
//!         let stage = ctx.node().find_stage(REPLICATION).ok_or(AppError("no such stage".into()))?;
//!         let counter = ctx.spawn(Place::Stage(stage), &LPC_COUNT, |_, _| Counter::default());
//!         let splitter =
//!             ctx.spawn_here(|_, me| Splitter { me, counter, words: Vec::new() });
//!         for line in ["the owner of the state", "needs no lock", "to change the state"] {
//!             ctx.post(splitter, &LPC_SPLIT, move |splitter, ctx| splitter.split(ctx, line));
//!         }
//!         let report = self.0.clone();
//!         ctx.after(splitter, &LPC_SPLIT, Duration::from_millis(20), move |splitter, ctx| {
//!             ctx.post(splitter.counter, &LPC_COUNT, move |counter, _| {
//!                 let _ = report.send(counter.counts["the"]);
//!             });
//!         });
//!         Ok(())
//!     }
//! }
//!
//! dsn_core::code::register(CODES);
//! let (report, reported) = mpsc::channel();
//!
//! // Natively: a thread per worker.
//! let plan = StagePlan::auto(2);
//! let pools = plan.pools.clone();
//! let node = Node::new(NodeParts {
//!     name: "words".into(),
//!     role: "words".into(),
//!     config: None,
//!     plan,
//!     worker: WorkerConfig::default(),
//!     codes: Vec::new(),
//!     disk: Arc::new(OsDisk),
//!     seed: 1,
//! })?;
//! let app = report.clone();
//! let make = Box::new(move || -> Box<dyn ServiceApp> { Box::new(WordCount(app)) });
//! let running = NativeNode::start(node, &pools, NativeClock::start(), make)?;
//! assert_eq!(reported.recv_timeout(Duration::from_secs(10))?, 3);
//! assert!(running.shutdown(Duration::from_secs(10)), "an orderly end");
//!
//! // Simulated: one thread, virtual time; the seed decides everything.
//! let mut sim = Sim::new(7, SimOptions::default());
//! let id = sim.add_node(NodeSpec::new("words", [10, 0, 0, 1].into(), 2, move || {
//!     Box::new(WordCount(report.clone()))
//! }));
//! sim.start(id)?;
//! let mut answer = None;
//! let outcome = sim.run_until(Duration::from_secs(10), |_| {
//!     answer = reported.try_recv().ok();
//!     answer.is_some()
//! });
//! assert_eq!((outcome, answer), (Outcome::Reached, Some(3)));
//! sim.finish(Duration::from_secs(10))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A server adds a configuration and a command line: see [`boot`]. Messages between nodes are the next crate's.
#![forbid(unsafe_code)]

pub mod app;
pub mod boot;
pub mod code;
pub mod command;
pub mod config;
pub mod disk;
pub mod driver;
pub mod exec;
pub mod hash;
pub mod log;
pub mod metrics;
pub mod node;
pub mod rng;
pub mod sim;
pub mod stage;
pub mod time;
pub mod toollet;
