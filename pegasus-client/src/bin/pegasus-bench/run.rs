//! Runs one plan, or the null server, on a node of one worker.

use crate::args::Plan;
use crate::engine::{self, Engine, Outcome, RunError};
use crate::nullserver::{Behaviour, NullApp};
use crossbeam::channel::{Sender, bounded};
use dsn_core::app::{AppError, AppFactory, AppHost, NativeNode, ServiceApp};
use dsn_core::driver::native::{NativeClock, OsDisk};
use dsn_core::exec::{Addr, Ctx, WorkerConfig};
use dsn_core::node::{Node, NodeParts, Poisoned};
use dsn_core::stage::StagePlan;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How long the node may take to end.
const STOP_TIME: Duration = Duration::from_secs(2);

struct BenchApp {
    plan: Option<Plan>,
    tell: Sender<Result<Outcome, RunError>>,
}

impl ServiceApp for BenchApp {
    fn start(&mut self, ctx: &mut Ctx<'_>, _: Addr<AppHost>) -> Result<(), AppError> {
        let Some(plan) = self.plan.take() else { return Err(AppError("started twice".into())) };
        let tell = self.tell.clone();
        let engine = ctx.spawn_here(|_, me| Engine::new(plan, me, tell));
        ctx.with(engine, |engine, ctx| engine.start(ctx))
            .map_err(|_| AppError("the client is gone".into()))
    }

    fn on_poisoned(&mut self, _: &mut Ctx<'_>, lost: &Poisoned) {
        let _ = self.tell.try_send(Err(RunError::Internal(lost.text.clone())));
    }
}

/// A node of one worker and no other threads.
///
/// # Errors
/// No threads or descriptors, or the app's own refusal.
pub fn start(name: &str, factory: AppFactory) -> Result<NativeNode, AppError> {
    dsn_core::code::register(engine::CODES);
    let node = Node::new(NodeParts {
        name: name.to_owned(),
        role: name.to_owned(),
        config: None,
        plan: StagePlan::auto(1),
        worker: WorkerConfig::default(),
        codes: Vec::new(),
        disk: Arc::new(OsDisk),
        seed: 0,
    })
    .map_err(|error| AppError(error.to_string()))?;
    // Names are looked up where waiting is allowed.
    let pools = [("bench".to_owned(), 1)];
    NativeNode::start(node, &pools, NativeClock::start(), factory)
}

/// Runs a plan to its end.
///
/// # Errors
/// [`RunError`].
pub fn run(plan: &Plan) -> Result<Outcome, RunError> {
    let (tell, told) = bounded(2);
    let plan = Some(plan.clone());
    let native = start("pegasus-bench", Box::new(move || Box::new(BenchApp { plan, tell })))
        .map_err(|error| RunError::Internal(error.to_string()))?;
    let outcome = told
        .recv()
        .unwrap_or_else(|_| Err(RunError::Internal("the client ended without a word".into())));
    native.shutdown(STOP_TIME);
    outcome
}

/// Starts a null server; it serves until the node is dropped.
///
/// # Errors
/// When it cannot listen.
pub fn start_null_server(behaviour: Behaviour) -> Result<(NativeNode, SocketAddr), AppError> {
    let (tell, told) = bounded(1);
    let factory = move || Box::new(NullApp::new(behaviour, tell)) as Box<dyn ServiceApp>;
    let native = start("null-server", Box::new(factory))?;
    let addr = told.recv().map_err(|_| AppError("it does not listen".into()))?;
    Ok((native, addr))
}
