//! What a handler may do: every effect goes through this argument, nothing is ambient.

use super::blocking::{BlockingCtx, BlockingJob};
use super::home::{Addr, PutBack, RawAddr, Resident};
use super::mailbox::{WorkerShared, erase};
use super::task::{Task, TaskFn, WorkerId};
use super::wheel::TimerId;
use super::worker::{TimerTask, WorkerCore, panic_text};
use crate::code::Code;
use crate::disk::Disk;
use crate::driver::{Accepted, Sock};
use crate::node::{Node, StageId};
use crate::rng::Rng;
use crate::time::{Mono, Wall};
use std::any::Any;
use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

/// Where a new resident goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// This worker.
    Here,
    /// A given worker.
    Worker(WorkerId),
    /// The worker of a loop stage with the fewest residents.
    Stage(StageId),
}

/// When, at the end of a turn, a deferred handler runs. Earlier phases run to the end first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Batches are closed, logged and applied.
    Log,
    /// Frames leave.
    Send,
}

/// A slot for a resident that is still to be made; free again when that does not come to pass.
struct Reserved {
    shared: Option<Arc<WorkerShared>>,
    raw: RawAddr,
}

impl Reserved {
    fn used(mut self) {
        self.shared = None;
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            shared.release(self.raw);
        }
    }
}

/// A handler's view of its worker.
pub struct Ctx<'a> {
    pub(crate) core: &'a mut WorkerCore,
    pub(crate) current: Option<RawAddr>,
    pub(crate) code: Code,
    pub(crate) deadline: Option<Mono>,
}

impl fmt::Debug for Ctx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ctx")
            .field("node", &self.core.node.name())
            .field("worker", &self.core.shared.id)
            .field("code", &self.code)
            .finish_non_exhaustive()
    }
}

/// Time, identity, randomness.
impl Ctx<'_> {
    /// The monotonic clock as of the beginning of this event. Use [`Ctx::clock`] where a pause of the process
    /// in the middle of an event matters (leases).
    #[inline]
    pub fn now(&self) -> Mono {
        self.core.now
    }

    /// The monotonic clock, read now.
    pub fn clock(&self) -> Mono {
        self.core.driver.now()
    }

    /// The wall clock, read now.
    pub fn wall(&self) -> Wall {
        self.core.driver.wall()
    }

    /// This worker's random stream.
    pub fn rng(&mut self) -> &mut Rng {
        &mut self.core.rng
    }

    /// The node this worker belongs to.
    #[inline]
    pub fn node(&self) -> &Arc<Node> {
        &self.core.node
    }

    /// The node's files. Only page-cache appends and the like may be done in place; everything that can take
    /// long goes through [`Ctx::offload`].
    pub fn disk(&self) -> &Arc<dyn Disk> {
        self.core.node.disk()
    }

    /// This worker.
    #[inline]
    pub fn worker(&self) -> WorkerId {
        self.core.shared.id
    }

    /// The code of the event being handled.
    #[inline]
    pub fn code(&self) -> Code {
        self.code
    }

    /// When the event being handled stops to be of use.
    #[inline]
    pub fn deadline(&self) -> Option<Mono> {
        self.deadline
    }

    /// Mixes a value into the node's trace hash (a no-op natively): for decisions worth comparing between runs.
    #[inline]
    pub fn trace(&mut self, value: u64) {
        self.core.trace(value);
    }
}

/// Residents and events.
impl Ctx<'_> {
    /// Creates a resident; `make` runs on its worker. Its address is valid at once: what is posted to it from
    /// here on arrives after `make`.
    pub fn spawn<T: Resident>(
        &mut self,
        place: Place,
        code: Code,
        make: impl FnOnce(&mut Ctx<'_>, Addr<T>) -> T + Send + 'static,
    ) -> Addr<T> {
        let worker = match place {
            Place::Here => self.worker(),
            Place::Worker(worker) => worker,
            Place::Stage(stage) => self.core.node.least_loaded(stage),
        };
        let raw = self.core.node.worker(worker).allocate();
        let addr = Addr::new(raw);
        if worker == self.worker() {
            self.build(addr, make);
        } else {
            let reserved = Reserved { shared: Some(self.core.node.worker(worker).clone()), raw };
            let build: TaskFn = Box::new(move |_, ctx| {
                // It is `build` that answers for the slot from here on.
                reserved.used();
                ctx.build(addr, make);
            });
            let task = Task::new(code, None, self.now(), build);
            self.core.send(worker, task);
        }
        addr
    }

    /// Creates a resident on this worker, here and now.
    pub fn spawn_here<T: Resident>(
        &mut self,
        make: impl FnOnce(&mut Ctx<'_>, Addr<T>) -> T,
    ) -> Addr<T> {
        let raw = self.core.shared.allocate();
        let addr = Addr::new(raw);
        self.build(addr, make);
        addr
    }

    /// Makes a resident in its slot, which is free again when `make` panics.
    fn build<T: Resident>(&mut self, addr: Addr<T>, make: impl FnOnce(&mut Ctx<'_>, Addr<T>) -> T) {
        match catch_unwind(AssertUnwindSafe(|| make(self, addr))) {
            Ok(resident) => self.core.home.insert(addr.raw(), Box::new(resident)),
            Err(panic) => {
                self.core.shared.release(addr.raw());
                resume_unwind(panic);
            }
        }
    }

    /// Posts an event to a resident. Posts from one worker to one resident arrive in order (per priority); on a
    /// resident that is gone they vanish.
    pub fn post<T: Resident>(
        &mut self,
        to: Addr<T>,
        code: Code,
        f: impl FnOnce(&mut T, &mut Ctx<'_>) + Send + 'static,
    ) {
        self.post_raw(to.raw(), code, None, erase(f));
    }

    /// Like [`Ctx::post`]; the event is dropped when it has not begun by `deadline`.
    pub fn post_until<T: Resident>(
        &mut self,
        to: Addr<T>,
        code: Code,
        deadline: Mono,
        f: impl FnOnce(&mut T, &mut Ctx<'_>) + Send + 'static,
    ) {
        self.post_raw(to.raw(), code, Some(deadline), erase(f));
    }

    fn post_raw(&mut self, to: RawAddr, code: Code, deadline: Option<Mono>, run: TaskFn) {
        let mut task = Task::new(code, Some(to), self.now(), run);
        task.deadline = deadline;
        self.core.send(to.worker, task);
    }

    /// Runs `f` on a worker, without a resident.
    pub fn run_on(
        &mut self,
        worker: WorkerId,
        code: Code,
        f: impl FnOnce(&mut Ctx<'_>) + Send + 'static,
    ) {
        let task = Task::new(code, None, self.now(), Box::new(move |_, ctx| f(ctx)));
        self.core.send(worker, task);
    }

    /// Calls another resident of this worker here and now (run to completion, no queue). `Err` gives the closure
    /// back when the resident lives elsewhere, is gone, or is itself on the call stack. A panic in `f` loses the
    /// resident and goes on in the caller.
    pub fn with<T: Resident, R, F: FnOnce(&mut T, &mut Ctx<'_>) -> R>(
        &mut self,
        to: Addr<T>,
        f: F,
    ) -> Result<R, F> {
        let raw = to.raw();
        if raw.worker != self.worker() {
            return Err(f);
        }
        let Some(mut resident) = self.core.home.take(raw) else { return Err(f) };
        let caller = self.current.replace(raw);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let any: &mut dyn Any = &mut *resident;
            match any.downcast_mut::<T>() {
                Some(target) => Ok(f(target, self)),
                None => Err(f),
            }
        }));
        self.current = caller;
        match outcome {
            Ok(outcome) => {
                self.finish(raw, resident);
                outcome
            }
            Err(panic) => {
                let code = self.code;
                self.lost(raw, resident, code, panic_text(&*panic));
                // The caller was interrupted as well: its state is not to be trusted either.
                resume_unwind(panic)
            }
        }
    }

    /// Runs `f` as an event of its own, here and now, within the one being handled: under its own code and deadline,
    /// counted, timed and traced as if it had come through the queue, where it would have been since `enqueued`.
    /// A panic ends `f` and the residents it was in, not the caller: `None`.
    pub fn event<R>(
        &mut self,
        code: Code,
        enqueued: Mono,
        deadline: Option<Mono>,
        f: impl FnOnce(&mut Ctx<'_>) -> R,
    ) -> Option<R> {
        let begun = self.core.now;
        let interrupted = self.core.begin_event(code, enqueued, begun);
        let outer = (self.code, self.deadline);
        (self.code, self.deadline) = (code, deadline);
        let outcome = self.contain(f);
        (self.code, self.deadline) = outer;
        self.core.end_event(code, begun, interrupted);
        outcome
    }

    /// Runs `f` as a part of the event being handled. A panic ends `f` and the residents it was in, not the caller:
    /// `None`.
    pub fn contain<R>(&mut self, f: impl FnOnce(&mut Ctx<'_>) -> R) -> Option<R> {
        let (code, deadline, current) = (self.code, self.deadline, self.current);
        let outcome = catch_unwind(AssertUnwindSafe(|| f(self)));
        match outcome {
            Ok(value) => Some(value),
            Err(panic) => {
                (self.code, self.deadline, self.current) = (code, deadline, current);
                let text = panic_text(&*panic);
                tracing::error!(code = code.name(), text, "panic in an event");
                None
            }
        }
    }

    /// Whether a resident of this worker is alive. Always `false` for residents of other workers.
    pub fn is_here<T>(&self, addr: Addr<T>) -> bool {
        addr.worker() == self.worker() && self.core.home.contains(addr.raw())
    }

    /// Closes a resident, here or elsewhere; its `on_close` runs on its worker.
    pub fn close<T: Resident>(&mut self, addr: Addr<T>) {
        self.close_raw(addr.raw());
    }

    pub(crate) fn close_raw(&mut self, raw: RawAddr) {
        if raw.worker != self.worker() {
            self.run_on(raw.worker, self.code, move |ctx| ctx.close_raw(raw));
            return;
        }
        if let Ok(Some(resident)) = self.core.home.close(raw) {
            self.bury(raw, resident);
        }
    }

    /// Puts a resident back after its handler, or buries it when the handler closed it.
    pub(crate) fn finish(&mut self, raw: RawAddr, resident: Box<dyn Resident>) {
        if let PutBack::Close(resident) = self.core.home.put_back(raw, resident) {
            self.bury(raw, resident);
        }
    }

    /// The end of a resident. Its last words may panic like any handler: it is lost all the same, and nobody else.
    fn bury(&mut self, raw: RawAddr, mut resident: Box<dyn Resident>) {
        match catch_unwind(AssertUnwindSafe(|| resident.on_close(self))) {
            Ok(()) => self.discard(raw, resident),
            Err(panic) => self.lost(raw, resident, self.code, panic_text(&*panic)),
        }
    }

    /// A handler panicked: its resident says its last words and is gone, the process goes on.
    pub(crate) fn lost(
        &mut self,
        raw: RawAddr,
        mut resident: Box<dyn Resident>,
        code: Code,
        text: String,
    ) {
        tracing::error!(code = code.name(), ?raw, text, "panic in a handler, resident poisoned");
        self.core.home.abandon(raw);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| resident.on_lost(self, &text))) {
            let text = panic_text(&*panic);
            tracing::error!(
                code = code.name(),
                ?raw,
                text,
                "panic in the last words of a resident"
            );
        }
        self.discard(raw, resident);
        self.core.node.report_poison(self.core.shared.id, raw, code, text);
    }

    /// Drops a resident that is no longer at home. That may panic as well: nobody else is lost.
    fn discard(&mut self, raw: RawAddr, resident: Box<dyn Resident>) {
        let outcome = catch_unwind(AssertUnwindSafe(|| drop(resident)));
        self.core.shared.release(raw);
        if let Err(panic) = outcome {
            let text = panic_text(&*panic);
            tracing::error!(
                code = self.code.name(),
                ?raw,
                text,
                "panic when a resident was dropped"
            );
            self.core.node.report_poison(self.core.shared.id, raw, self.code, text);
        }
    }

    /// Runs a handler of a resident of this worker at the end of this turn, as an event of `code`. Callers remember
    /// that they have asked (a dirty flag): every call adds a run.
    pub fn defer<T: Resident>(
        &mut self,
        phase: Phase,
        to: Addr<T>,
        code: Code,
        f: impl FnOnce(&mut T, &mut Ctx<'_>) + Send + 'static,
    ) {
        debug_assert_eq!(to.worker(), self.worker(), "deferred work is local");
        let task = Task::new(code, Some(to.raw()), self.now(), erase(f));
        self.core.deferred[phase as usize].push_back(task);
    }

    /// This worker's one value of type `T`, made by `Default` on first use.
    pub fn local<T: Default + 'static>(&mut self) -> &mut T {
        self.core.locals.get()
    }
}

/// Time and other threads.
impl Ctx<'_> {
    /// Runs `f` on a resident of this worker after `delay`. Vanishes with the resident.
    pub fn after<T: Resident>(
        &mut self,
        to: Addr<T>,
        code: Code,
        delay: Duration,
        f: impl FnOnce(&mut T, &mut Ctx<'_>) + Send + 'static,
    ) -> TimerId {
        debug_assert_eq!(to.worker(), self.worker(), "timers are local");
        let at = self.now() + delay;
        self.core.wheel.insert(at, TimerTask { target: to.raw(), code, run: erase(f) })
    }

    /// Runs `f` on a resident of this worker every `period`, first after one period, as long as it lives.
    pub fn every<T: Resident>(
        &mut self,
        to: Addr<T>,
        code: Code,
        period: Duration,
        f: impl FnMut(&mut T, &mut Ctx<'_>) + Send + 'static,
    ) {
        let mut f = f;
        self.after(to, code, period, move |resident, ctx| {
            f(resident, ctx);
            if ctx.is_here(to) {
                ctx.every(to, code, period, f);
            }
        });
    }

    /// Disarms a timer; `false` when it has fired or was disarmed before.
    pub fn cancel(&mut self, timer: TimerId) -> bool {
        self.core.wheel.cancel(timer).is_some()
    }

    /// Runs `job` on the shared stage of `code` (its declared or configured one) and brings the result back to a
    /// resident. When the job panics, the resident is poisoned.
    pub fn offload<T: Resident, R: Send + 'static>(
        &mut self,
        code: Code,
        job: impl FnOnce(&BlockingCtx<'_>) -> R + Send + 'static,
        back: Addr<T>,
        done: impl FnOnce(&mut T, R, &mut Ctx<'_>) + Send + 'static,
    ) {
        self.offload_on(None, code, job, back, done);
    }

    /// The same on a shared stage that is not that of `code`, if one is given.
    pub fn offload_on<T: Resident, R: Send + 'static>(
        &mut self,
        stage: Option<StageId>,
        code: Code,
        job: impl FnOnce(&BlockingCtx<'_>) -> R + Send + 'static,
        back: Addr<T>,
        done: impl FnOnce(&mut T, R, &mut Ctx<'_>) + Send + 'static,
    ) {
        let raw = back.raw();
        let stage = stage.unwrap_or(self.core.node.spec(code).stage);
        let job = BlockingJob {
            code,
            stage,
            run: Box::new(move |blocking| {
                let result = job(blocking);
                let run = erase(move |resident: &mut T, ctx: &mut Ctx<'_>| {
                    done(resident, result, ctx);
                });
                Task::new(code, Some(raw), blocking.now(), run)
            }),
            home: self.core.node.worker(raw.worker).clone(),
            lost: Box::new(move |text| {
                let run: TaskFn = Box::new(move |_, ctx| ctx.poison(raw, code, text));
                Task::new(code, None, Mono::ZERO, run)
            }),
        };
        super::blocking::submit(&mut *self.core.driver, job);
    }

    /// Removes a resident whose state can no longer be trusted and tells the app.
    pub(crate) fn poison(&mut self, raw: RawAddr, code: Code, text: String) {
        match self.core.home.take(raw) {
            Some(resident) => self.lost(raw, resident, code, text),
            None => self.core.node.report_poison(self.core.shared.id, raw, code, text),
        }
    }
}

/// Sockets. Each belongs to this worker.
impl Ctx<'_> {
    /// Makes `to` (of this worker) the receiver of the socket's readiness.
    pub fn attach<T: Resident>(&mut self, sock: Sock, to: Addr<T>, token: u64) {
        debug_assert_eq!(to.worker(), self.worker());
        let index = sock.0 as usize;
        if self.core.sockets.len() <= index {
            self.core.sockets.resize(index + 1, None);
        }
        self.core.sockets[index] = Some((to.raw(), token));
    }

    /// Starts listening on `addr`; port 0 asks for a free one.
    pub fn listen(&mut self, addr: SocketAddr) -> io::Result<Sock> {
        self.core.driver.listen(addr)
    }

    /// The address a socket is bound to.
    pub fn local_addr(&self, sock: Sock) -> io::Result<SocketAddr> {
        self.core.driver.local_addr(sock)
    }

    /// Takes one waiting connection, or `WouldBlock`.
    pub fn accept(&mut self, listener: Sock) -> io::Result<Accepted> {
        self.core.driver.accept(listener)
    }

    /// Makes an accepted connection this worker's.
    pub fn adopt(&mut self, accepted: Accepted) -> io::Result<Sock> {
        self.core.driver.adopt(accepted)
    }

    /// Starts connecting; see [`Driver::connect`](crate::driver::Driver::connect).
    pub fn connect(&mut self, addr: SocketAddr) -> io::Result<Sock> {
        self.core.driver.connect(addr)
    }

    /// Outcome of a connect, after writable readiness.
    pub fn connect_result(&mut self, sock: Sock) -> io::Result<()> {
        self.core.driver.connect_result(sock)
    }

    /// Reads into `buf`; 0 is the end of the stream.
    pub fn read(&mut self, sock: Sock, buf: &mut [u8]) -> io::Result<usize> {
        self.core.driver.read(sock, buf)
    }

    /// Writes a prefix of the buffers.
    pub fn writev(&mut self, sock: Sock, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.core.driver.writev(sock, bufs)
    }

    /// Says that no more will be written; reading goes on.
    pub fn finish_writing(&mut self, sock: Sock) -> io::Result<()> {
        self.core.driver.finish_writing(sock)
    }

    /// Closes a socket.
    pub fn close_socket(&mut self, sock: Sock) {
        if let Some(entry) = self.core.sockets.get_mut(sock.0 as usize) {
            *entry = None;
        }
        self.core.driver.close(sock);
    }
}
