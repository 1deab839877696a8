//! How events reach a worker from other threads.
//!
//! A lock-free queue of batches in an [`Inbox`], which wakes the worker when it is parked and only then.
//!
//! Order: what one producer pushes is taken in that order.

use super::home::{Addr, RawAddr, Resident};
use super::park::{Inbox, Queue};
use super::task::{Task, WorkerId};
use crate::code::Code;
use crate::driver::Wake;
use crate::exec::Ctx;
use crate::node::Node;
use crate::time::Mono;
use crossbeam::queue::SegQueue;
use parking_lot::Mutex;
use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

/// Most tasks that threads outside the runtime may have waiting in one mailbox.
pub const MAILBOX_MAX: usize = 1 << 16;

impl<T> Queue for SegQueue<T> {
    type Item = T;

    fn push(&self, item: T) {
        Self::push(self, item);
    }

    fn pop(&self) -> Option<T> {
        Self::pop(self)
    }

    fn is_empty(&self) -> bool {
        Self::is_empty(self)
    }
}

/// A worker's inbox, and what wakes the worker.
pub struct Mailbox {
    inbox: Inbox<SegQueue<Vec<Task>>>,
    len: AtomicUsize,
    waker: OnceLock<Arc<dyn Wake>>,
}

impl Default for Mailbox {
    fn default() -> Self {
        let inbox = Inbox::new(SegQueue::new());
        Self { inbox, len: AtomicUsize::new(0), waker: OnceLock::new() }
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Mailbox {
    /// Tasks waiting.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.inbox.is_empty()
    }

    /// Sets what wakes the owner; once, before its first park.
    pub(crate) fn set_waker(&self, waker: Arc<dyn Wake>) {
        let _ = self.waker.set(waker);
    }

    pub(crate) fn push(&self, batch: Vec<Task>) {
        self.len.fetch_add(batch.len(), Ordering::Relaxed);
        if self.inbox.push(batch) {
            self.wake();
        }
    }

    /// Makes the owner's poll return even though nothing was pushed.
    pub(crate) fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }

    pub(crate) fn pop(&self) -> Option<Vec<Task>> {
        let batch = self.inbox.pop()?;
        self.len.fetch_sub(batch.len(), Ordering::Relaxed);
        Some(batch)
    }

    pub(crate) fn prepare_park(&self) -> bool {
        self.inbox.prepare_park()
    }

    pub(crate) fn unpark(&self) {
        self.inbox.unpark();
    }
}

/// What other threads may touch of a worker.
#[derive(Debug)]
pub struct WorkerShared {
    /// Its index within the node.
    pub id: WorkerId,
    /// Its inbox.
    pub mailbox: Mailbox,
    slots: Mutex<SlotAllocator>,
    residents: AtomicUsize,
    running: Running,
}

/// The event that a worker runs, for whoever watches it: one more than the index of its code, and its beginning.
#[derive(Debug, Default)]
struct Running {
    code: AtomicUsize,
    since: AtomicU64,
}

#[derive(Debug, Default)]
struct SlotAllocator {
    free: Vec<(u32, u32)>,
    next: u32,
}

impl WorkerShared {
    /// A worker's shared part.
    pub fn new(id: WorkerId) -> Self {
        Self {
            id,
            mailbox: Mailbox::default(),
            slots: Mutex::default(),
            residents: AtomicUsize::new(0),
            running: Running::default(),
        }
    }

    /// The event that the worker runs now, and since when. May be a moment old, and the two may belong to successive
    /// events: good enough to find a worker that is stuck.
    pub fn running(&self) -> Option<(Code, Mono)> {
        let index = self.running.code.load(Ordering::Relaxed).checked_sub(1)?;
        let since = Mono::from_nanos(self.running.since.load(Ordering::Relaxed));
        crate::code::at(index).map(|code| (code, since))
    }

    pub(crate) fn set_running(&self, event: Option<(Code, Mono)>) {
        if let Some((_, since)) = event {
            self.running.since.store(since.nanos(), Ordering::Relaxed);
        }
        let code = event.map_or(0, |(code, _)| code.index() + 1);
        self.running.code.store(code, Ordering::Relaxed);
    }

    /// Residents alive or on their way; placement looks at it.
    pub fn residents(&self) -> usize {
        self.residents.load(Ordering::Relaxed)
    }

    pub(crate) fn allocate(&self) -> RawAddr {
        self.residents.fetch_add(1, Ordering::Relaxed);
        let mut slots = self.slots.lock();
        let (slot, generation) = slots.free.pop().unwrap_or_else(|| {
            slots.next += 1;
            (slots.next - 1, 0)
        });
        RawAddr { worker: self.id, slot, generation }
    }

    pub(crate) fn release(&self, addr: RawAddr) {
        self.residents.fetch_sub(1, Ordering::Relaxed);
        self.slots.lock().free.push((addr.slot, addr.generation.wrapping_add(1)));
    }
}

/// The mailbox has no room; try again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the worker's mailbox is full ({MAILBOX_MAX} tasks)")]
pub struct MailboxFull;

/// A way into a node for threads that are not its workers (client library users, signal handlers).
#[derive(Clone)]
pub struct Handle {
    node: Weak<Node>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

impl Handle {
    /// A handle to `node`; does not keep it alive.
    pub fn new(node: &Arc<Node>) -> Self {
        Self { node: Arc::downgrade(node) }
    }

    /// Posts to a resident. When the node or the resident is gone the closure is dropped without running.
    ///
    /// # Errors
    /// [`MailboxFull`] when [`MAILBOX_MAX`] tasks wait already.
    pub fn post<T: Resident>(
        &self,
        to: Addr<T>,
        code: Code,
        f: impl FnOnce(&mut T, &mut Ctx<'_>) + Send + 'static,
    ) -> Result<(), MailboxFull> {
        let Some(node) = self.node.upgrade() else { return Ok(()) };
        let worker = node.worker(to.raw().worker);
        if worker.mailbox.len() >= MAILBOX_MAX {
            return Err(MailboxFull);
        }
        worker.mailbox.push(vec![Task::new(code, Some(to.raw()), Mono::ZERO, erase(f))]);
        Ok(())
    }

    /// Runs `f` on a worker, without a resident.
    ///
    /// # Errors
    /// [`MailboxFull`] when [`MAILBOX_MAX`] tasks wait already.
    pub fn run(
        &self,
        worker: WorkerId,
        code: Code,
        f: impl FnOnce(&mut Ctx<'_>) + Send + 'static,
    ) -> Result<(), MailboxFull> {
        let Some(node) = self.node.upgrade() else { return Ok(()) };
        let worker = node.worker(worker);
        if worker.mailbox.len() >= MAILBOX_MAX {
            return Err(MailboxFull);
        }
        worker.mailbox.push(vec![Task::new(code, None, Mono::ZERO, Box::new(|_, ctx| f(ctx)))]);
        Ok(())
    }
}

/// Hides the resident's type behind `Any`.
pub(crate) fn erase<T: Resident>(
    f: impl FnOnce(&mut T, &mut Ctx<'_>) + Send + 'static,
) -> super::task::TaskFn {
    Box::new(move |target: Option<&mut dyn Any>, ctx| {
        if let Some(resident) = target.and_then(|any| any.downcast_mut::<T>()) {
            f(resident, ctx);
        }
    })
}
