//! A private runtime of one worker, for programs that have none: one thread, however many tables and operations.

use dsn_core::app::{AppError, AppHost, NativeNode, ServiceApp};
use dsn_core::driver::native::{NativeClock, OsDisk};
use dsn_core::exec::{Addr, Ctx, Handle, WorkerConfig};
use dsn_core::node::{Node, NodeParts};
use dsn_core::stage::{Layout, StagePlan};
use dsn_core::time::{Mono, Wall};
use dsn_rpc::{Rpc, RpcOptions, ServiceTable};
use parking_lot::Mutex;
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::Duration;

use super::core::ClientCore;
use super::options::ClientOptions;

/// How long the end of the embedded runtime may take.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest pause before a connection is tried again: a server that is back is to be found well within the time that an
/// operation has.
const RECONNECT_PAUSE: Duration = Duration::from_millis(500);

type Slot = Arc<Mutex<Option<(Addr<ClientCore>, ThreadId)>>>;

struct ClientApp {
    options: ClientOptions,
    slot: Slot,
}

impl ServiceApp for ClientApp {
    fn start(&mut self, ctx: &mut Ctx<'_>, _me: Addr<AppHost>) -> Result<(), AppError> {
        let rpc = RpcOptions { max_reconnect_pause: RECONNECT_PAUSE, ..RpcOptions::default() };
        Rpc::start(ctx, rpc, ServiceTable::new());
        let options = self.options.clone();
        let core = ctx.spawn_here(|_, me| ClientCore::new(me, options));
        *self.slot.lock() = Some((core, std::thread::current().id()));
        Ok(())
    }
}

/// The runtime; dropped, it ends.
#[derive(Debug)]
pub(crate) struct Embedded {
    node: Option<NativeNode>,
    handle: Handle,
    core: Addr<ClientCore>,
    /// The worker's thread.
    thread: ThreadId,
    clock: NativeClock,
}

impl Embedded {
    pub(crate) fn start(options: ClientOptions) -> Result<Self, AppError> {
        let plan = StagePlan::with_layout(1, Layout::Fused);
        let node = Node::new(NodeParts {
            name: "client".to_owned(),
            role: "client".to_owned(),
            config: None,
            plan,
            worker: WorkerConfig::default(),
            codes: Vec::new(),
            disk: Arc::new(OsDisk),
            seed: NativeClock::start().wall().unix_nanos() ^ u64::from(std::process::id()),
        })
        .map_err(|error| AppError(error.to_string()))?;
        let slot = Slot::default();
        let clock = NativeClock::start();
        let app = ClientApp { options, slot: slot.clone() };
        // One thread for all that may block: resolving names.
        let pools = [("client".to_owned(), 1)];
        let node = NativeNode::start(node, &pools, clock, Box::new(move || Box::new(app)))?;
        let (core, thread) =
            slot.lock().take().ok_or_else(|| AppError("no client core".to_owned()))?;
        let handle = node.handle();
        Ok(Self { node: Some(node), handle, core, thread, clock })
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(crate) fn core(&self) -> Addr<ClientCore> {
        self.core
    }

    /// The monotonic clock.
    pub(crate) fn now(&self) -> Mono {
        self.clock.now()
    }

    /// Lets the calling thread, which is none of the runtime's, wait.
    pub(crate) fn pause(&self, time: Duration) {
        let (_completer, never) = super::pending::pending::<()>();
        let _ = never.wait_timeout(time);
    }

    /// The wall clock.
    pub(crate) fn wall(&self) -> Wall {
        self.clock.wall()
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        if let Some(node) = self.node.take() {
            // A closure that held the last clone ends the thread that it runs on: it cannot wait for that.
            let own = std::thread::current().id() == self.thread;
            node.shutdown(if own { Duration::ZERO } else { END_TIMEOUT });
        }
    }
}
