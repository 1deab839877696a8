//! What the state machines of a whole cluster apply, seen from between replication and storage: a decree has one
//! content for ever, on every server, before and after every restart.

use bytes::BytesMut;
use dsn_core::exec::BlockingCtx;
use dsn_core::hash::{DetState, mix64};
use dsn_replication::ids::Decree;
use dsn_replication::mutation::Mutation;
use dsn_replication::replica_app::MakeFactory;
use dsn_replication::state_machine::{
    AppError, ApplyError, ApplyMode, CheckpointKind, OpenArgs, PinnedCheckpoint, ReadEnv, ReadMode,
    ReadOutcome, ReadRequest, Replies, StateMachine, StateMachineFactory, StorageCode,
};
use dsn_replication::wire::config::AppInfo;
use dsn_rpc::gpid::Gpid;
use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// What was applied at which decree, on any server. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// By partition and decree: a hash of time stamp, stamp and requests; 0 where nothing was seen.
    seen: Mutex<BTreeMap<(i32, i32), Vec<u64>>>,
    compared: AtomicU64,
    is_wrong: AtomicBool,
    wrong: Mutex<Option<String>>,
}

impl Contents {
    /// What two servers, or two lives of one, applied differently.
    pub fn wrong(&self) -> Option<String> {
        if !self.shared.is_wrong.load(Ordering::Relaxed) {
            return None;
        }
        self.shared.wrong.lock().expect("one thread").clone()
    }

    /// Mutations that were applied more than once in the cluster, and were the same.
    pub fn compared(&self) -> u64 {
        self.shared.compared.load(Ordering::Relaxed)
    }

    fn note(&self, gpid: Gpid, run: &[Mutation]) {
        let mut seen = self.shared.seen.lock().expect("one thread");
        let seen = seen.entry((gpid.app_id, gpid.partition_index)).or_default();
        for mutation in run {
            let (decree, hash) = (mutation.decree.0 as usize, hash_of(mutation));
            if seen.len() <= decree {
                seen.resize(decree + 1, 0);
            }
            match seen[decree] {
                0 => seen[decree] = hash,
                same if same == hash => {
                    self.shared.compared.fetch_add(1, Ordering::Relaxed);
                }
                _ => self.accuse(gpid, mutation),
            }
        }
    }

    fn accuse(&self, gpid: Gpid, mutation: &Mutation) {
        let text = format!(
            "{gpid} applies at decree {} another mutation than before: {} requests, time stamp {}, ballot {}",
            mutation.decree,
            mutation.requests.len(),
            mutation.timestamp_us,
            mutation.ballot
        );
        self.shared.wrong.lock().expect("one thread").get_or_insert(text);
        self.shared.is_wrong.store(true, Ordering::Relaxed);
    }
}

fn hash_of(mutation: &Mutation) -> u64 {
    let state = DetState::default();
    let mut hash = mix64(mutation.timestamp_us ^ mix64(u64::from(mutation.stamp)));
    for request in &mutation.requests {
        let body = state.hash_one((request.code.name(), &request.body[..]));
        hash = mix64(hash ^ body);
    }
    hash.max(1)
}

/// Lets `contents` see what the state machines of a server apply.
pub fn spied(make: MakeFactory, contents: Contents) -> MakeFactory {
    Box::new(move |ctx, listen| {
        let inner = make(ctx, listen)?;
        let factory: Arc<dyn StateMachineFactory> = Arc::new(SpyFactory { inner, contents });
        Ok(factory)
    })
}

struct SpyFactory {
    inner: Arc<dyn StateMachineFactory>,
    contents: Contents,
}

impl StateMachineFactory for SpyFactory {
    fn app_type(&self) -> &str {
        self.inner.app_type()
    }

    fn open(
        &self,
        job: &BlockingCtx<'_>,
        args: &OpenArgs<'_>,
    ) -> Result<Arc<dyn StateMachine>, AppError> {
        let inner = self.inner.open(job, args)?;
        let (gpid, contents) = (args.gpid, self.contents.clone());
        Ok(Arc::new(Spy { inner, gpid, contents }))
    }

    fn checkpoint_home(&self) -> &Path {
        self.inner.checkpoint_home()
    }

    fn codes(&self) -> &[StorageCode] {
        self.inner.codes()
    }
}

struct Spy {
    inner: Arc<dyn StateMachine>,
    gpid: Gpid,
    contents: Contents,
}

impl StateMachine for Spy {
    fn apply(
        &self,
        run: &[Mutation],
        mode: ApplyMode,
        replies: &mut Replies,
    ) -> Result<(), ApplyError> {
        self.inner.apply(run, mode, replies)?;
        self.contents.note(self.gpid, run);
        Ok(())
    }

    fn last_applied(&self) -> Decree {
        self.inner.last_applied()
    }

    fn last_durable(&self) -> Decree {
        self.inner.last_durable()
    }

    fn read(
        &self,
        request: &ReadRequest,
        mode: ReadMode,
        env: &ReadEnv<'_>,
        out: &mut BytesMut,
    ) -> ReadOutcome {
        self.inner.read(request, mode, env, out)
    }

    fn checkpoint(&self, job: &BlockingCtx<'_>, kind: CheckpointKind) -> Result<Decree, AppError> {
        self.inner.checkpoint(job, kind)
    }

    fn pin_checkpoint(&self, job: &BlockingCtx<'_>) -> Result<PinnedCheckpoint, AppError> {
        self.inner.pin_checkpoint(job)
    }

    fn stamp(&self) -> u32 {
        self.inner.stamp()
    }

    fn reconfigure(&self, info: &AppInfo) {
        self.inner.reconfigure(info);
    }

    fn settle(&self, job: &BlockingCtx<'_>) {
        self.inner.settle(job);
    }

    fn close(&self, job: &BlockingCtx<'_>) {
        self.inner.close(job);
    }
}
