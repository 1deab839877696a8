//! Bugs planted on purpose: the proof that the checkers of the simulation have teeth.
//!
//! Where a mistake would lose data, the code asks [`has`] whether the mistake is to be made, by a name that is unique
//! in the project. Without the cargo feature `planted`, which only `./run.sh simulate --planted` asks for, the answer
//! is the constant `false`: nothing of the bug is compiled, and nothing is asked at run time. With it, the thread's
//! choice decides; a simulation runs on one thread.

#[cfg(feature = "planted")]
mod on {
    use std::cell::{Cell, RefCell};

    type Work = Box<dyn FnOnce()>;

    thread_local! {
        static PLANTED: Cell<Option<&'static str>> = const { Cell::new(None) };
        static REACHED: Cell<u64> = const { Cell::new(0) };
        static LATER: RefCell<Option<Work>> = const { RefCell::new(None) };
    }

    /// Plants a bug in what this thread does from now on, or none.
    pub fn plant(bug: Option<&'static str>) {
        PLANTED.set(bug);
        REACHED.set(0);
        LATER.take();
    }

    /// How often the planted bug was asked for.
    pub fn reached() -> u64 {
        REACHED.get()
    }

    /// Whether this bug is planted.
    pub fn has(bug: &'static str) -> bool {
        let planted = PLANTED.get() == Some(bug);
        REACHED.set(REACHED.get() + u64::from(planted));
        planted
    }

    /// Leaves work undone until the next call.
    pub fn later(work: impl FnOnce() + 'static) {
        let before = LATER.replace(Some(Box::new(work)));
        if let Some(before) = before {
            before();
        }
    }
}

#[cfg(not(feature = "planted"))]
mod off {
    /// Whether this bug is planted: never.
    #[inline(always)]
    pub const fn has(_bug: &'static str) -> bool {
        false
    }

    /// Work that a planted bug leaves undone for a while; nobody calls it.
    #[inline(always)]
    pub fn later(_work: impl FnOnce() + 'static) {}
}

#[cfg(not(feature = "planted"))]
pub use off::{has, later};
#[cfg(feature = "planted")]
pub use on::{has, later, plant, reached};
