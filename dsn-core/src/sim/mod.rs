//! The simulator: a second driver, and a loop over everything that has one.
//!
//! A [`Sim`] runs the same workers, residents and apps as the native driver, on one thread and in virtual time. Each
//! node has its clocks, its disk with a live and a durable image, its CPU that takes time for each event, and one IP
//! address; connections between nodes have latency, partial reads and writes, resets and partitions. Everything that
//! happens follows from the seed: two runs of one seed have the same [`Sim::trace_hash`].
//!
//! A step is one turn of a worker, one job, or one thing on the network. After it the checkers look.
//!
//! ```
//! use dsn_core::app::{AppError, AppHost, ServiceApp};
//! use dsn_core::exec::{Addr, Ctx};
//! use dsn_core::sim::{NodeSpec, Sim, SimOptions};
//! use std::time::Duration;
//!
//! struct Idle;
//! impl ServiceApp for Idle {
//!     fn start(&mut self, _: &mut Ctx<'_>, _: Addr<AppHost>) -> Result<(), AppError> {
//!         Ok(())
//!     }
//! }
//!
//! let mut sim = Sim::new(1, SimOptions::default());
//! let node = sim.add_node(NodeSpec::new("a", [10, 0, 0, 1].into(), 2, || Box::new(Idle)));
//! sim.start(node).unwrap();
//! sim.run_for(Duration::from_secs(60));
//! sim.power_off(node);
//! sim.start(node).unwrap();
//! sim.finish(Duration::from_secs(5)).unwrap();
//! ```

mod checker;
mod clock;
mod disk;
mod dist;
mod driver;
mod fault;
mod jobs;
mod names;
mod net;
mod node;
mod options;
mod queue;
mod replay;
mod scenario;
mod shrink;
#[expect(clippy::module_inception, reason = "the type's own file")]
mod sim;
#[cfg(test)]
mod tests;
mod trace;
mod world;

pub use checker::{Checker, Violation};
pub use clock::{MONO_START, NodeClock};
pub use disk::{DiskFault, DiskFaultId, DiskImage, DiskOp, PAGE, SECTOR, SimDisk, StepKind};
pub use dist::Dist;
pub use fault::{Fault, FaultClass, PlanSpec, TimedFault};
pub use net::CutId;
pub use node::{MakeApp, MakeParts, NodeId, NodeSpec};
pub use options::{DiskOptions, NetOptions, SimOptions};
pub use replay::{NotDeterministic, Report, run_twice};
pub use scenario::{BadScenario, CORE_KNOBS, Knob, Scenario};
pub use shrink::{Shrunk, shrink};
pub use sim::{Outcome, Sim};
pub use trace::{Difference, Step, first_difference};
pub use world::NodeState;
