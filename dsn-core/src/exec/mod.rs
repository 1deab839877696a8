//! The executor: workers, what they own, and how events reach them.
//!
//! Reading order: [`mailbox`] (events from other threads) over [`park`] (when to wake a worker), [`runq`] (events
//! waiting here), [`wheel`] (events waiting for time), [`home`] (the residents a worker owns), [`task`] (one event),
//! [`ctx`] (what a handler may do), [`worker`] (the loop over all of them), [`blocking`] (work that may block,
//! elsewhere).

mod blocking;
mod ctx;
mod home;
mod locals;
mod mailbox;
mod park;
mod runq;
mod task;
mod wheel;
mod worker;

/// What [`park`] is made of; its model brings others.
mod sync {
    pub(super) use std::sync::atomic::{AtomicU8, Ordering, fence};
}

pub use blocking::{BlockingCtx, BlockingJob};
pub use ctx::{Ctx, Phase, Place};
pub use home::{Addr, RawAddr, Resident};
pub use mailbox::{Handle, MAILBOX_MAX, Mailbox, MailboxFull, WorkerShared};
pub use runq::RunQueue;
pub use task::{Task, WorkerId};
pub use wheel::{TimerId, Wheel};
pub(crate) use worker::{IO_READY, panic_text};
pub use worker::{Turn, Worker, WorkerConfig};
