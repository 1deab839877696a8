//! The executor: workers, what they own, and how events reach them.
//!
//! Reading order: [`mailbox`] (events from other threads), [`runq`] (events waiting here), [`wheel`] (events
//! waiting for time), [`home`] (the residents a worker owns), [`task`] (one event), [`ctx`] (what a handler may
//! do), [`worker`] (the loop over all of them), [`blocking`] (work that may block, elsewhere).

mod blocking;
mod ctx;
mod home;
mod mailbox;
mod runq;
mod task;
mod wheel;
mod worker;

pub use blocking::{BlockingCtx, BlockingJob};
pub use ctx::{Ctx, Phase, Place};
pub use home::{Addr, RawAddr, Resident};
pub use mailbox::{Handle, MAILBOX_MAX, Mailbox, MailboxFull, WorkerShared};
pub use runq::RunQueue;
pub use task::{Task, WorkerId};
pub use wheel::{TimerId, Wheel};
pub use worker::{Turn, Worker, WorkerConfig};
