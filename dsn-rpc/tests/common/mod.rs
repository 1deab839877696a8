//! A node with a service on it, for the tests of this crate.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dsn_core::app::{AppError, AppHost, NativeNode, ServiceApp};
use dsn_core::code::Code;
use dsn_core::config::{ConfigSchema, Loader};
use dsn_core::driver::native::{NativeClock, OsDisk};
use dsn_core::exec::{Addr, Ctx, Resident, WorkerConfig, WorkerId};
use dsn_core::node::{Node, NodeParts};
use dsn_core::stage::{Layout, Stage, StagePlan};
use dsn_rpc::{Replier, Request, Rpc, RpcOptions, ServiceTable};

dsn_core::task_codes! {
    pub CODES;
    /// Answers what it was sent.
    pub RPC_TEST_ECHO: Rpc, Common, "THREAD_POOL_DEFAULT", timeout_ms = 10_000;
    /// Keeps the replier until told.
    pub RPC_TEST_HOLD: Rpc, Common, "THREAD_POOL_DEFAULT", timeout_ms = 10_000;
    /// Answers everything that is held, the last first.
    pub RPC_TEST_RELEASE: Rpc, Common, "THREAD_POOL_DEFAULT", timeout_ms = 10_000;
    /// Drops the replier.
    pub RPC_TEST_DROP: Rpc, Common, "THREAD_POOL_DEFAULT", timeout_ms = 10_000;
    /// Panics.
    pub RPC_TEST_PANIC: Rpc, Common, "THREAD_POOL_DEFAULT", timeout_ms = 10_000;
    /// Never answers.
    pub RPC_TEST_FORGET: Rpc, Common, "THREAD_POOL_DEFAULT", timeout_ms = 10_000;
    /// Answers with so many bytes as the number says.
    pub RPC_TEST_BULK: Rpc, Common, "THREAD_POOL_DEFAULT", timeout_ms = 20_000;
    /// A resident of the last worker answers.
    pub RPC_TEST_FAR: Rpc, Common, "THREAD_POOL_DEFAULT", timeout_ms = 10_000;
    /// Answers with what was asked, and leaves its connection in [`SESSIONS`].
    pub RPC_TEST_SESSION: Rpc, Common, "THREAD_POOL_DEFAULT", timeout_ms = 10_000;
    /// Has no handler.
    pub RPC_TEST_NOBODY: Rpc, Common, "THREAD_POOL_DEFAULT", timeout_ms = 10_000;
    /// Work of the tests themselves.
    pub LPC_TEST: Compute, Common, "THREAD_POOL_DEFAULT";
}

/// Connections of those who asked with [`RPC_TEST_SESSION`].
pub static SESSIONS: Mutex<Vec<dsn_rpc::SessionId>> = Mutex::new(Vec::new());

/// Holds repliers and answers them backwards.
#[derive(Default)]
pub struct Holder {
    pub held: Vec<(Request, Replier)>,
}
impl Resident for Holder {}

impl Holder {
    pub fn hold(&mut self, _: &mut Ctx<'_>, request: Request, replier: Replier) {
        self.held.push((request, replier));
    }

    pub fn release(&mut self, ctx: &mut Ctx<'_>, request: Request, replier: Replier) {
        while let Some((request, replier)) = self.held.pop() {
            replier.reply_encoded(ctx, &request.body);
        }
        replier.reply_encoded(ctx, &request.body);
    }

    pub fn echo(&mut self, ctx: &mut Ctx<'_>, request: Request, replier: Replier) {
        replier.reply_encoded(ctx, &request.body);
    }

    pub fn panic(&mut self, _: &mut Ctx<'_>, _: Request, _: Replier) {
        panic!("a test wants this");
    }
}

/// The test services; holders live on worker 0 and on the last worker.
pub fn services(ctx: &mut Ctx<'_>) -> ServiceTable {
    let near: Addr<Holder> = ctx.spawn_here(|_, _| Holder::default());
    let last = WorkerId(ctx.node().worker_count() as u16 - 1);
    let far: Addr<Holder> =
        ctx.spawn(dsn_core::exec::Place::Worker(last), &LPC_TEST, |_, _| Holder::default());
    let fragile: Addr<Holder> = ctx.spawn_here(|_, _| Holder::default());
    let mut table = ServiceTable::new();
    ctx.node().commands().add_version("test 1.2.3+abc");
    table.on(&RPC_TEST_ECHO, |ctx, request, replier| replier.reply_encoded(ctx, &request.body));
    table.on(&RPC_TEST_SESSION, |ctx, request, replier| {
        SESSIONS.lock().unwrap().push(replier.session());
        replier.reply_encoded(ctx, &request.body);
    });
    table.on(&RPC_TEST_DROP, |_, _, _| {});
    table.on(&RPC_TEST_FORGET, |ctx, _, replier| replier.forget(ctx));
    table.on(&RPC_TEST_BULK, |ctx, request, replier| match request.decode::<i64>() {
        Ok(n) => replier.reply(ctx, &Bytes::from(vec![7; n as usize])),
        Err(_) => replier.error(ctx, dsn_rpc::error_code::ErrorCode::InvalidParameters),
    });
    table.on_resident(&RPC_TEST_HOLD, near, Holder::hold);
    table.on_resident(&RPC_TEST_RELEASE, near, Holder::release);
    table.on_resident(&RPC_TEST_FAR, far, Holder::echo);
    table.on_resident(&RPC_TEST_PANIC, fragile, Holder::panic);
    table
}

/// Does something with a context on worker 0.
type Start = Box<dyn FnOnce(&mut Ctx<'_>) + Send>;
struct App(Option<Start>);
impl ServiceApp for App {
    fn start(&mut self, ctx: &mut Ctx<'_>, _: Addr<AppHost>) -> Result<(), AppError> {
        if let Some(start) = self.0.take() {
            start(ctx);
        }
        Ok(())
    }
}

/// A node of its own threads.
pub struct TestNode {
    pub native: Option<NativeNode>,
    pub rpc: Rpc,
    pub addr: SocketAddr,
}

impl TestNode {
    /// A node with the test services, listening on loopback.
    pub fn start(workers: usize, options: RpcOptions) -> Self {
        Self::with(workers, options, services)
    }

    /// A node with other services.
    pub fn with(
        workers: usize,
        options: RpcOptions,
        services: impl FnOnce(&mut Ctx<'_>) -> ServiceTable + Send + 'static,
    ) -> Self {
        dsn_core::code::register(CODES);
        dsn_core::code::register(dsn_rpc::CODES);
        let mut plan = StagePlan::with_layout(workers, Layout::Fused);
        // Without admission by delay: the machine may be busy with other things.
        for stage in &mut plan.stages {
            let executor = stage.executor().clone();
            *stage = Stage::new(stage.name(), executor, Duration::ZERO, usize::MAX);
        }
        let pools = plan.pools.clone();
        let node = Node::new(NodeParts {
            name: "test".into(),
            role: "test".into(),
            plan,
            worker: WorkerConfig::default(),
            codes: vec![],
            disk: Arc::new(OsDisk),
            seed: 1,
            config: Some(Loader::new(ConfigSchema::new().section::<RpcOptions>()).load().unwrap()),
        })
        .unwrap();
        let (tell, told) = channel();
        let start: Start = Box::new(move |ctx| {
            let table = services(ctx);
            let rpc = Rpc::start(ctx, options, table);
            let addr = rpc.listen(ctx, "127.0.0.1:0".parse().unwrap()).unwrap();
            tell.send((rpc, addr)).unwrap();
        });
        let native = NativeNode::start(
            node,
            &pools,
            NativeClock::start(),
            Box::new(move || Box::new(App(Some(start)))),
        )
        .unwrap();
        let (rpc, addr) = told.recv().unwrap();
        Self { native: Some(native), rpc, addr }
    }

    /// Runs `f` on a worker and waits for what it returns.
    pub fn run<R: Send + 'static>(
        &self,
        worker: u16,
        f: impl FnOnce(&mut Ctx<'_>) -> R + Send + 'static,
    ) -> R {
        let (tell, told) = channel();
        let handle = self.native.as_ref().unwrap().handle();
        handle
            .run(WorkerId(worker), &LPC_TEST, move |ctx| {
                let _ = tell.send(f(ctx));
            })
            .unwrap();
        told.recv_timeout(Duration::from_secs(20)).expect("the worker answers")
    }

    /// Waits until `f` says so; for states that other threads reach.
    pub fn wait(&self, what: &str, mut f: impl FnMut(&dsn_rpc::Stats) -> bool) {
        let until = Duration::from_secs(20);
        #[expect(clippy::disallowed_methods, reason = "a test's own patience")]
        let start = std::time::Instant::now();
        while !f(&self.rpc.stats()) {
            assert!(start.elapsed() < until, "{what}: {:?}", self.rpc.stats());
            std::thread::yield_now();
        }
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        if let Some(native) = self.native.take() {
            assert!(native.shutdown(Duration::from_secs(10)), "an orderly end");
        }
    }
}

/// A resident that receives outcomes and passes them on to the test.
pub struct Caller;
impl Resident for Caller {}

/// The outcome of a raw call with the text of the answer.
pub type Told = (u32, Result<Bytes, dsn_rpc::CallError>);

/// Makes calls from a worker of `node`; each outcome arrives as (number, outcome).
pub struct Calls {
    pub tell: Sender<Told>,
    pub told: Receiver<Told>,
    pub caller: Addr<Caller>,
    pub worker: u16,
}

impl Calls {
    pub fn new(node: &TestNode, worker: u16) -> Self {
        let caller = node.run(worker, |ctx| ctx.spawn_here(|_, _| Caller));
        let (tell, told) = channel();
        Self { tell, told, caller, worker }
    }

    pub fn call(
        &self,
        node: &TestNode,
        number: u32,
        to: SocketAddr,
        code: Code,
        body: &str,
        options: dsn_rpc::CallOptions,
    ) -> dsn_rpc::CallId {
        let (tell, caller) = (self.tell.clone(), self.caller);
        let body = Bytes::copy_from_slice(body.as_bytes());
        node.run(self.worker, move |ctx| {
            dsn_rpc::call_with(
                ctx,
                to,
                code,
                |w| w.wrapped(1, &body),
                options,
                caller,
                move |_, _, outcome| {
                    let _ = tell.send((number, outcome));
                },
            )
        })
    }

    pub fn next(&self) -> Told {
        self.told.recv_timeout(Duration::from_secs(20)).expect("an outcome")
    }

    /// The next outcome with its wrapped text.
    pub fn next_text(&self) -> (u32, Result<String, dsn_rpc::CallError>) {
        let (number, outcome) = self.next();
        (number, outcome.map(|body| text(&body)))
    }

    pub fn nothing_more(&self) {
        assert!(self.told.try_recv().is_err(), "one outcome per call");
    }
}

/// The text in a wrapped blob.
pub fn text(body: &Bytes) -> String {
    let blob: Bytes = dsn_rpc::thrift::decode_wrapped(body).unwrap();
    String::from_utf8(blob.to_vec()).unwrap()
}
