//! Toollets: tracer, profiler and fault injector, hooked to every event, call and disk operation of a node.
//!
//! Switched at run time (`[core] toollets`, command `toollet`). With none on, a hook costs one relaxed load.

mod commands;
mod disk;
mod injector;
mod profiler;
mod tracer;

pub use commands::install;
pub(crate) use disk::HookedDisk;
pub use disk::{CODES, LPC_DISK_NAME, LPC_DISK_READ, LPC_DISK_SYNC, LPC_DISK_WRITE};
pub use injector::{FaultRule, Injector};
pub use profiler::{ProfileRow, Profiler};
pub use tracer::{TraceRow, Tracer};

use crate::code::Code;
use crate::node::{CodeSpec, Node};
use crate::time::Mono;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// What a hook decides at a point where it may interfere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Proceed,
    /// Pretend it was lost.
    Drop,
    /// Do it later.
    Delay(Duration),
    /// Pretend it failed.
    Fail,
}

/// Names a built-in toollet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toollet {
    /// Remembers the last events.
    Tracer,
    /// Counts and times events by code.
    Profiler,
    /// Drops, delays and fails by code.
    FaultInjector,
}

impl Toollet {
    /// All, in order of their bits.
    pub const ALL: [Self; 3] = [Self::Tracer, Self::Profiler, Self::FaultInjector];

    /// As in `[core] toollets`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tracer => "tracer",
            Self::Profiler => "profiler",
            Self::FaultInjector => "fault_injector",
        }
    }

    /// By name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|toollet| toollet.name() == name)
    }

    fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// The toollets of one node.
#[derive(Debug, Default)]
pub struct Hooks {
    on: AtomicU32,
    /// Last events.
    pub tracer: Tracer,
    /// Counts and times.
    pub profiler: Profiler,
    /// Faults.
    pub injector: Injector,
}

impl Hooks {
    /// Whether any toollet is on.
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed) != 0
    }

    /// Whether a given one is on.
    pub fn has(&self, toollet: Toollet) -> bool {
        self.on.load(Ordering::Relaxed) & toollet.bit() != 0
    }

    /// Switches one on or off.
    pub fn switch(&self, toollet: Toollet, on: bool) {
        if on {
            self.on.fetch_or(toollet.bit(), Ordering::Relaxed);
        } else {
            self.on.fetch_and(!toollet.bit(), Ordering::Relaxed);
        }
    }

    /// An event is about to be queued; `false` drops it.
    pub(crate) fn on_enqueue(&self, node: &Node, code: Code) -> bool {
        if self.has(Toollet::Profiler) && node.spec(code).profile {
            self.profiler.enqueued(code);
        }
        true
    }

    /// An event begins that waited in queues for `waited`.
    pub(crate) fn on_begin(&self, node: &Node, code: Code, waited: Duration, begun: Mono) {
        if self.has(Toollet::Profiler) && node.spec(code).profile {
            self.profiler.begun(code, waited);
        }
        if self.has(Toollet::Tracer) && node.spec(code).trace {
            self.tracer.record(code, "begin", begun, waited);
        }
    }

    pub(crate) fn on_end(&self, node: &Node, code: Code, took: Duration) {
        if self.has(Toollet::Profiler) && node.spec(code).profile {
            self.profiler.ended(code, took);
        }
    }

    /// An operation on a file has ended.
    fn on_disk(&self, spec: &CodeSpec, code: Code, begun: Mono, took: Duration, ok: bool) {
        if self.has(Toollet::Profiler) && spec.profile {
            self.profiler.enqueued(code);
            self.profiler.ended(code, took);
        }
        if self.has(Toollet::Tracer) && spec.trace {
            let what = if ok { "done" } else { "failed" };
            self.tracer.record(code, what, begun + took, took);
        }
    }

    /// A message is about to be sent or handled, or an operation on a file begun; the caller obeys the verdict.
    pub fn on_message(&self, code: Code, roll: u64) -> Verdict {
        if self.has(Toollet::FaultInjector) {
            self.injector.roll(code, roll)
        } else {
            Verdict::Proceed
        }
    }
}
