//! An app as a state machine: keeps its state, calls its methods, makes and opens its checkpoints.
//!
//! Writes have the state to themselves, reads share it. A write that finds a reader, or a read that finds a writer,
//! does not wait on a worker but moves to a thread where it may. A panic of the app breaks its replica, and nothing
//! else: what it left half done is neither read nor written out.

use super::checkpoints::Checkpoints;
use super::files::Files;
use super::methods::{Methods, Moment};
use super::{Opening, ReplicatedApp};
use crate::ids::Decree;
use crate::mutation::Mutation;
use crate::state_machine::{
    AppError, ApplyError, ApplyMode, CheckpointKind, OpenArgs, ReadEnv, ReadMode, ReadOutcome,
    ReadRequest, Replies, StateMachine, StateMachineFactory, StorageCode,
};
use bytes::BytesMut;
use dsn_core::exec::BlockingCtx;
use dsn_rpc::error_code::ErrorCode;
use parking_lot::{Mutex, RwLock};
use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

const DATA_DIR: &str = "data";

/// One partition of an app.
pub struct AppMachine<A: ReplicatedApp> {
    methods: Arc<Methods<A>>,
    state: RwLock<A>,
    /// Changes with the state locked for writing.
    applied: AtomicI64,
    durable: AtomicI64,
    checkpoints: Mutex<Checkpoints>,
    is_broken: AtomicBool,
    /// What the app panicked with.
    broken: OnceLock<String>,
}

impl<A: ReplicatedApp> fmt::Debug for AppMachine<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppMachine")
            .field("app_type", &A::APP_TYPE)
            .field("applied", &self.applied)
            .finish_non_exhaustive()
    }
}

/// Calls the app's code. A panic in it is an error of the replica.
fn guarded<T>(what: &str, f: impl FnOnce() -> T) -> Result<T, AppError> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|panic| {
        AppError::Failed(format!("the app panicked in {what}: {}", panic_text(&*panic)))
    })
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "something that is no text".to_owned())
}

impl<A: ReplicatedApp> AppMachine<A> {
    fn open(
        job: &BlockingCtx<'_>,
        args: &OpenArgs<'_>,
        methods: &Arc<Methods<A>>,
    ) -> Result<Self, AppError> {
        let checkpoints = Checkpoints::load(job.disk(), &args.dir.join(DATA_DIR))?;
        let opening = Opening { gpid: args.gpid, info: args.info, job };
        let (app, decree) = match checkpoints.newest() {
            Some(files) => (guarded("install", || A::install(&opening, files))??, files.decree()),
            None => (guarded("open", || A::open(&opening))??, 0),
        };
        Ok(Self {
            methods: methods.clone(),
            state: RwLock::new(app),
            applied: AtomicI64::new(decree),
            durable: AtomicI64::new(decree),
            checkpoints: Mutex::new(checkpoints),
            is_broken: AtomicBool::new(false),
            broken: OnceLock::new(),
        })
    }

    /// The newest checkpoint, for a learner. Its directory stays while the result is held.
    pub fn newest_checkpoint(&self) -> Option<Arc<Files>> {
        self.checkpoints.lock().newest().cloned()
    }

    fn check_whole(&self) -> Result<(), AppError> {
        if !self.is_broken.load(Ordering::Acquire) {
            return Ok(());
        }
        let why = self.broken.get().cloned().unwrap_or_default();
        Err(AppError::Failed(why))
    }

    fn break_with(&self, error: &AppError) {
        let _ = self.broken.set(error.to_string());
        self.is_broken.store(true, Ordering::Release);
    }

    fn apply_run(&self, app: &mut A, run: &[Mutation], replies: &mut Replies) {
        for mutation in run {
            let moment = Moment { decree: mutation.decree, timestamp_us: mutation.timestamp_us };
            for request in &mutation.requests {
                self.methods.apply(app, request, &moment, replies);
            }
        }
    }

    fn make_checkpoint(&self) -> Result<Decree, AppError> {
        let Some(mut checkpoints) = self.checkpoints.try_lock() else {
            return Err(AppError::WrongTiming);
        };
        let (view, decree) = {
            let app = self.state.read();
            self.check_whole()?;
            let decree = self.applied.load(Ordering::Acquire);
            if decree == self.durable.load(Ordering::Acquire) {
                return Ok(Decree(decree));
            }
            (guarded("view", || app.view())?, decree)
        };
        let files = checkpoints
            .make(decree, |files| guarded("checkpoint", || A::checkpoint(&view, files))?)?;
        self.durable.store(decree, Ordering::Release);
        let told = {
            let mut app = self.state.write();
            guarded("checkpointed", || app.checkpointed(&view, &files))
        };
        drop((view, files));
        checkpoints.collect();
        told.inspect_err(|error| self.break_with(error))?;
        Ok(Decree(decree))
    }
}

impl<A: ReplicatedApp> StateMachine for AppMachine<A> {
    fn apply(
        &self,
        run: &[Mutation],
        mode: ApplyMode,
        replies: &mut Replies,
    ) -> Result<(), ApplyError> {
        let mut app = match mode {
            ApplyMode::Worker => self.state.try_write().ok_or(ApplyError::WouldBlock)?,
            ApplyMode::Blocking => self.state.write(),
        };
        self.check_whole()?;
        guarded("a write", || self.apply_run(&mut app, run, replies))
            .inspect_err(|error| self.break_with(error))?;
        if let Some(last) = run.last() {
            self.applied.store(last.decree.0, Ordering::Release);
        }
        Ok(())
    }

    fn last_applied(&self) -> Decree {
        Decree(self.applied.load(Ordering::Acquire))
    }

    fn last_durable(&self) -> Decree {
        Decree(self.durable.load(Ordering::Acquire))
    }

    fn read(
        &self,
        request: &ReadRequest,
        mode: ReadMode,
        env: &ReadEnv<'_>,
        out: &mut BytesMut,
    ) -> ReadOutcome {
        let start = out.len();
        let state = || match mode {
            ReadMode::Inline => self.state.try_read(),
            ReadMode::Blocking => Some(self.state.read()),
        };
        let outcome = guarded("a read", || self.methods.answer(request, mode, env, out, state));
        match outcome {
            Ok(outcome) if !self.is_broken.load(Ordering::Acquire) => return outcome,
            Ok(_) => {}
            Err(error) => {
                tracing::error!(gpid = %request.gpid, code = request.code.name(), %error);
            }
        }
        out.truncate(start);
        ReadOutcome::Error(ErrorCode::LocalAppFailure)
    }

    /// Writes out what has been applied since the last checkpoint, whatever `kind` says: nothing reaches the files by
    /// itself.
    fn checkpoint(&self, _: &BlockingCtx<'_>, _: CheckpointKind) -> Result<Decree, AppError> {
        self.make_checkpoint()
    }

    fn close(&self, _: &BlockingCtx<'_>) {
        // What cannot be written out now is replayed from the log.
        if let Err(error) = self.make_checkpoint() {
            tracing::warn!(%error, "no checkpoint of a replica that is being closed");
        }
    }
}

/// Opens the state machines of an app.
pub struct AppFactory<A: ReplicatedApp> {
    methods: Arc<Methods<A>>,
}

impl<A: ReplicatedApp> fmt::Debug for AppFactory<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppFactory").field("app_type", &A::APP_TYPE).finish_non_exhaustive()
    }
}

impl<A: ReplicatedApp> Default for AppFactory<A> {
    fn default() -> Self {
        Self { methods: Arc::new(Methods::collect()) }
    }
}

impl<A: ReplicatedApp> StateMachineFactory for AppFactory<A> {
    fn app_type(&self) -> &str {
        A::APP_TYPE
    }

    fn open(
        &self,
        job: &BlockingCtx<'_>,
        args: &OpenArgs<'_>,
    ) -> Result<Arc<dyn StateMachine>, AppError> {
        Ok(Arc::new(AppMachine::open(job, args, &self.methods)?))
    }

    fn codes(&self) -> &[StorageCode] {
        self.methods.codes()
    }
}
