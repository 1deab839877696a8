//! Service apps: what a node runs, and the native way to run one.
//!
//! An app is a resident of worker 0. It starts by creating residents where it wants them, and it stops by closing
//! them and then calling [`Node::stop`]; when it takes longer than the deadline the node is stopped for it.

use crate::driver::native::{NativeClock, NativeDriver, Pools};
use crate::exec::{Addr, Ctx, Handle, Resident, Worker, WorkerId, panic_text};
use crate::node::{Node, Poisoned};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

crate::task_codes! {
    /// Codes of the runtime itself.
    pub CODES;
    /// Starting the app.
    pub LPC_APP_START: Compute, High, "THREAD_POOL_DEFAULT";
    /// Stopping the app.
    pub LPC_APP_STOP: Compute, High, "THREAD_POOL_DEFAULT";
    /// A resident was lost.
    pub LPC_APP_POISONED: Compute, High, "THREAD_POOL_DEFAULT";
}

/// Why an app did not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AppError(pub String);

impl From<io::Error> for AppError {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

/// A service of one node.
pub trait ServiceApp: 'static {
    /// Creates the app's residents. `me` is the app itself.
    ///
    /// # Errors
    /// Anything that makes serving impossible; the node then stops.
    fn start(&mut self, ctx: &mut Ctx<'_>, me: Addr<AppHost>) -> Result<(), AppError>;

    /// Orderly end: refuse new work, finish or hand over the old, then call [`Node::stop`].
    fn stop(&mut self, ctx: &mut Ctx<'_>) {
        ctx.node().stop();
    }

    /// One of the node's residents panicked and is gone; everything else goes on.
    fn on_poisoned(&mut self, ctx: &mut Ctx<'_>, lost: &Poisoned) {
        let _ = (ctx, lost);
    }
}

/// The resident that holds the app.
pub struct AppHost {
    app: Box<dyn ServiceApp>,
}

impl fmt::Debug for AppHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppHost").finish_non_exhaustive()
    }
}

impl Resident for AppHost {
    fn on_lost(&mut self, ctx: &mut Ctx<'_>, text: &str) {
        ctx.node().fail(text);
    }
}

impl AppHost {
    /// Creates and starts the app; call on worker 0.
    ///
    /// # Errors
    /// The app's refusal to start; it is closed then.
    pub fn launch(ctx: &mut Ctx<'_>, app: Box<dyn ServiceApp>) -> Result<Addr<Self>, AppError> {
        let addr = ctx.spawn_here(|_, _| Self { app });
        let handle = Handle::new(ctx.node());
        ctx.node().on_poison(Box::new(move |lost| {
            let lost = lost.clone();
            let _ = handle.post(addr, &LPC_APP_POISONED, move |host, ctx| {
                host.app.on_poisoned(ctx, &lost);
            });
        }));
        let outcome = ctx.with(addr, |host, ctx| host.app.start(ctx, addr));
        match outcome {
            Ok(Ok(())) => Ok(addr),
            Ok(Err(error)) => {
                ctx.close(addr);
                Err(error)
            }
            Err(_) => Err(AppError("the app is gone".into())),
        }
    }

    /// Asks the app to stop.
    pub fn stop(&mut self, ctx: &mut Ctx<'_>) {
        self.app.stop(ctx);
    }
}

/// Makes an app on its own worker's thread.
pub type AppFactory = Box<dyn FnOnce() -> Box<dyn ServiceApp> + Send>;

/// A node running natively: a thread per worker, threads of its pools.
pub struct NativeNode {
    node: Arc<Node>,
    /// Disconnects when the last thread of the node has ended.
    ended: Receiver<()>,
    app: Addr<AppHost>,
}

impl fmt::Debug for NativeNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NativeNode").field("node", &self.node).finish_non_exhaustive()
    }
}

/// How long an app may take to start.
pub const START_TIMEOUT: Duration = Duration::from_secs(600);

/// How long a node whose app did not start may take to end.
const ABANDON_TIMEOUT: Duration = Duration::from_secs(10);

impl NativeNode {
    /// Starts threads and app; returns when the app has started.
    ///
    /// # Errors
    /// No threads or descriptors, or the app's own refusal.
    pub fn start(
        node: Arc<Node>,
        pools: &[(String, usize)],
        clock: NativeClock,
        factory: AppFactory,
    ) -> Result<Self, AppError> {
        node.time_disk(move || clock.now());
        let (alive, ended) = bounded::<()>(0);
        let started = Self::start_threads(&node, pools, clock, &alive);
        drop(alive);
        match started.and_then(|()| Self::launch(&node, factory)) {
            Ok(app) => {
                // What the app sent to other workers left with the end of its turn; events from outside that come
                // after this are behind it.
                pass(&node, 0..1);
                pass(&node, 1..node.worker_count());
                Ok(Self { node, ended, app })
            }
            Err(error) => {
                node.stop();
                let _ = ended.recv_timeout(ABANDON_TIMEOUT);
                Err(error)
            }
        }
    }

    fn start_threads(
        node: &Arc<Node>,
        pools: &[(String, usize)],
        clock: NativeClock,
        alive: &Sender<()>,
    ) -> Result<(), AppError> {
        let pools = Pools::start(node, pools, clock, alive)?;
        for index in 0..node.worker_count() {
            let id = WorkerId(index as u16);
            let (driver, waker) = NativeDriver::new(pools.clone(), clock)?;
            node.worker(id).mailbox.set_waker(waker);
            let (node, alive) = (node.clone(), alive.clone());
            std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                let _alive = alive;
                work(node, id, driver);
            })?;
        }
        Ok(())
    }

    fn launch(node: &Arc<Node>, factory: AppFactory) -> Result<Addr<AppHost>, AppError> {
        let (tell, told) = bounded(1);
        let start = move |ctx: &mut Ctx<'_>| {
            let _ = tell.send(AppHost::launch(ctx, factory()));
        };
        let _ = Handle::new(node).run(WorkerId(0), &LPC_APP_START, start);
        match told.recv_timeout(START_TIMEOUT) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Timeout) => {
                Err(AppError(format!("the app did not start within {START_TIMEOUT:?}")))
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(AppError("the app panicked when it started; see the log".into()))
            }
        }
    }

    /// The node.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// A way in for other threads.
    pub fn handle(&self) -> Handle {
        Handle::new(&self.node)
    }

    /// Asks the app to stop and waits until every thread has ended, those of blocking pools after the jobs that are
    /// queued. After `deadline` the workers are ended all the same, and threads that hang are left behind. `true`
    /// when the end was orderly.
    pub fn shutdown(self, deadline: Duration) -> bool {
        let app = self.app;
        let _ = self.handle().post(app, &LPC_APP_STOP, |host, ctx| host.stop(ctx));
        let orderly =
            matches!(self.ended.recv_timeout(deadline), Err(RecvTimeoutError::Disconnected));
        if !orderly {
            tracing::error!(node = self.node.name(), "shutdown took too long, ending the workers");
        }
        self.node.stop();
        orderly
    }
}

/// A worker's thread. When the worker itself fails, which no handler can make it do, its node must not go on
/// without it.
fn work(node: Arc<Node>, id: WorkerId, driver: NativeDriver) {
    let worker = node.clone();
    let run = AssertUnwindSafe(move || Worker::new(worker, id, Box::new(driver)).run());
    if let Err(panic) = catch_unwind(run) {
        let text = panic_text(&*panic);
        tracing::error!(node = node.name(), worker = id.0, text, "a worker has failed");
        node.stop();
    }
}

/// Waits until each of the workers has run one event that came from outside.
fn pass(node: &Arc<Node>, workers: std::ops::Range<usize>) {
    let (tell, told) = bounded(node.worker_count());
    for index in workers {
        let tell = tell.clone();
        let _ = Handle::new(node).run(WorkerId(index as u16), &LPC_APP_START, move |_| {
            let _ = tell.send(());
        });
    }
    drop(tell);
    // Ends when all have sent, or their closures are gone.
    while told.recv_timeout(START_TIMEOUT).is_ok() {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::native::OsDisk;
    use crate::exec::WorkerConfig;
    use crate::node::NodeParts;
    use crate::stage::{REPLICATION, StagePlan};
    use crossbeam::channel::Sender;

    crate::task_codes! {
        TEST_CODES;
        LPC_TEST_PING: Compute, Common, "THREAD_POOL_REPLICATION";
        LPC_TEST_JOB: Blocking, Common, "THREAD_POOL_SCAN";
    }

    struct Pinger {
        left: u32,
        tell: Sender<String>,
    }
    impl Resident for Pinger {}

    struct PingApp(Sender<String>);
    impl ServiceApp for PingApp {
        fn start(&mut self, ctx: &mut Ctx<'_>, _: Addr<AppHost>) -> Result<(), AppError> {
            let tell = self.0.clone();
            let stage = ctx.node().find_stage(REPLICATION).unwrap();
            let a = ctx.spawn(crate::exec::Place::Stage(stage), &LPC_TEST_PING, |_, _| Pinger {
                left: 1000,
                tell,
            });
            let tell = self.0.clone();
            let b = ctx.spawn(crate::exec::Place::Worker(WorkerId(1)), &LPC_TEST_PING, |_, _| {
                Pinger { left: 1000, tell }
            });
            ctx.post(a, &LPC_TEST_PING, move |p, ctx| ping(p, ctx, b, a));
            Ok(())
        }
    }

    fn ping(p: &mut Pinger, ctx: &mut Ctx<'_>, to: Addr<Pinger>, me: Addr<Pinger>) {
        if p.left == 0 {
            ctx.offload(
                &LPC_TEST_JOB,
                |b| b.node().name().to_owned(),
                me,
                |p, name, _| {
                    p.tell.send(name).unwrap();
                },
            );
            return;
        }
        p.left -= 1;
        ctx.post(to, &LPC_TEST_PING, move |p, ctx| ping(p, ctx, me, to));
    }

    #[test]
    fn two_workers_ping_and_stop() {
        crate::code::register(TEST_CODES);
        let plan = StagePlan::auto(2);
        let pools = plan.pools.clone();
        let node = Node::new(NodeParts {
            name: "t".into(),
            role: "t".into(),
            config: None,
            plan,
            worker: WorkerConfig::default(),
            codes: vec![],
            disk: Arc::new(OsDisk),
            seed: 1,
        })
        .unwrap();
        let (tell, told) = bounded(1);
        let native = NativeNode::start(
            node,
            &pools,
            NativeClock::start(),
            Box::new(move || Box::new(PingApp(tell))),
        )
        .unwrap();
        assert_eq!(told.recv_timeout(Duration::from_secs(10)).unwrap(), "t");
        assert!(native.shutdown(Duration::from_secs(5)));
    }
}
