//! What the state machines of a whole cluster apply, seen from between replication and storage: a decree has one
//! content for ever, on every server, before and after every restart; and no server opens the files of a replica while
//! it still has them open.

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
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

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
    /// Applied in this step, by which server: a process that dies in the middle of a step has not done it.
    fresh: Mutex<Vec<(usize, Applied)>>,
    has_fresh: AtomicBool,
    /// What is open, by server and directory.
    open: Mutex<BTreeMap<(usize, PathBuf), Weak<()>>>,
    /// What was opened while it was open.
    twice: Mutex<Option<String>>,
}

/// More than any run proposes.
const DECREES_MAX: usize = 10_000_000;

#[derive(Clone, Copy, Debug)]
struct Applied {
    gpid: Gpid,
    decree: i64,
    ballot: i64,
    hash: u64,
}

impl Contents {
    /// Takes what was applied in the step that has just ended by servers that are still `up`.
    ///
    /// # Errors
    /// What two servers, or two lives of one, applied differently; what a server has opened twice.
    pub fn settle(&self, up: impl Fn(usize) -> bool) -> Result<(), String> {
        if !self.shared.has_fresh.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        if let Some(twice) = self.shared.twice.lock().expect("one thread").take() {
            return Err(twice);
        }
        let fresh = std::mem::take(&mut *self.shared.fresh.lock().expect("one thread"));
        let mut seen = self.shared.seen.lock().expect("one thread");
        for (_, applied) in fresh.into_iter().filter(|(server, _)| up(*server)) {
            let Applied { gpid, decree, ballot, hash } = applied;
            let seen = seen.entry((gpid.app_id, gpid.partition_index)).or_default();
            let place = usize::try_from(decree).unwrap_or_default();
            if place > DECREES_MAX {
                return Err(format!("{gpid} applies decree {decree}, which nobody proposed"));
            }
            if seen.len() <= place {
                seen.resize(place + 1, 0);
            }
            match seen[place] {
                0 => seen[place] = hash,
                same if same == hash => drop(self.shared.compared.fetch_add(1, Ordering::Relaxed)),
                _ => {
                    return Err(format!(
                        "{gpid} applies another mutation at decree {decree} than before, ballot {ballot}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Mutations that were applied more than once in the cluster, and were the same.
    pub fn compared(&self) -> u64 {
        self.shared.compared.load(Ordering::Relaxed)
    }

    /// A server's process starts: whatever the one before it had open is not open any more, though what it never came
    /// to look at, a finished job for instance, may be kept somewhere.
    fn started(&self, server: usize) {
        let mut open = self.shared.open.lock().expect("one thread");
        open.retain(|(other, _), _| *other != server);
    }

    /// A server is about to open the files in `dir`, which must not be open.
    fn about_to_open(&self, server: usize, dir: &Path) {
        let open = self.shared.open.lock().expect("one thread");
        if open.get(&(server, dir.to_owned())).is_some_and(|it| it.strong_count() > 0) {
            let twice = format!("server {server} opens {} while it is open", dir.display());
            *self.shared.twice.lock().expect("one thread") = Some(twice);
            self.shared.has_fresh.store(true, Ordering::Relaxed);
        }
    }

    fn note(&self, server: usize, gpid: Gpid, run: &[Mutation]) {
        let applied = |mutation: &Mutation| {
            let (decree, ballot) = (mutation.decree.0, mutation.ballot.0);
            (server, Applied { gpid, decree, ballot, hash: hash_of(mutation) })
        };
        self.shared.fresh.lock().expect("one thread").extend(run.iter().map(applied));
        self.shared.has_fresh.store(true, Ordering::Relaxed);
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

/// Lets `contents` see what the state machines of a server, of this number, apply.
pub fn spied(make: MakeFactory, server: usize, contents: Contents) -> MakeFactory {
    Box::new(move |ctx, listen| {
        let inner = make(ctx, listen)?;
        contents.started(server);
        let factory: Arc<dyn StateMachineFactory> =
            Arc::new(SpyFactory { inner, server, contents });
        Ok(factory)
    })
}

struct SpyFactory {
    inner: Arc<dyn StateMachineFactory>,
    server: usize,
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
        let (server, gpid, contents) = (self.server, args.gpid, self.contents.clone());
        contents.about_to_open(server, args.dir);
        let inner = self.inner.open(job, args)?;
        let is_open = Arc::new(());
        let mut open = self.contents.shared.open.lock().expect("one thread");
        open.insert((server, args.dir.to_owned()), Arc::downgrade(&is_open));
        Ok(Arc::new(Spy { inner, server, gpid, contents, _is_open: is_open }))
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
    server: usize,
    gpid: Gpid,
    contents: Contents,
    _is_open: Arc<()>,
}

impl StateMachine for Spy {
    fn apply(
        &self,
        run: &[Mutation],
        mode: ApplyMode,
        replies: &mut Replies,
    ) -> Result<(), ApplyError> {
        self.inner.apply(run, mode, replies)?;
        self.contents.note(self.server, self.gpid, run);
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
