//! Replicas that are closed while work of theirs is under way.

#[path = "../examples/log_store/log_store.rs"]
mod log_store;

use bytes::{Bytes, BytesMut};
use dsn_core::code::register;
use dsn_core::exec::BlockingCtx;
use dsn_core::sim::DiskFault;
use dsn_replication::app::{ReplicatedApp, codes_of};
use dsn_replication::client::Target;
use dsn_replication::ids::Decree;
use dsn_replication::mutation::Mutation;
use dsn_replication::replica_app::MakeFactory;
use dsn_replication::server;
use dsn_replication::state_machine::{
    AppError, ApplyError, ApplyMode, CheckpointKind, OpenArgs, PinnedCheckpoint, ReadEnv, ReadMode,
    ReadOutcome, ReadRequest, Replies, StateMachine, StateMachineFactory, StorageCode,
};
use dsn_replication::testing::cluster::{ClusterSpec, SimCluster};
use dsn_replication::wire::config::AppInfo;
use log_store::{APPEND, LogStore, READ, ReadFrom};
use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

thread_local! {
    /// What was called after the end, in all servers of a test, which has a thread of its own.
    static LATE: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
}

/// A state machine that notices what is called when it has been closed.
struct Watched {
    inner: Arc<dyn StateMachine>,
    closed: AtomicBool,
}

impl Watched {
    fn called(&self, what: &'static str) -> &dyn StateMachine {
        if self.closed.load(Ordering::Relaxed) {
            LATE.with_borrow_mut(|late| late.push(what));
        }
        &*self.inner
    }
}

impl StateMachine for Watched {
    fn apply(
        &self,
        run: &[Mutation],
        mode: ApplyMode,
        replies: &mut Replies,
    ) -> Result<(), ApplyError> {
        self.called("apply").apply(run, mode, replies)
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
        self.called("read").read(request, mode, env, out)
    }

    fn checkpoint(&self, job: &BlockingCtx<'_>, kind: CheckpointKind) -> Result<Decree, AppError> {
        self.called("checkpoint").checkpoint(job, kind)
    }

    fn pin_checkpoint(&self, job: &BlockingCtx<'_>) -> Result<PinnedCheckpoint, AppError> {
        self.called("pin_checkpoint").pin_checkpoint(job)
    }

    fn reconfigure(&self, info: &AppInfo) {
        self.called("reconfigure").reconfigure(info);
    }

    fn settle(&self, job: &BlockingCtx<'_>) {
        self.called("settle").settle(job);
    }

    fn close(&self, job: &BlockingCtx<'_>) {
        self.called("close").close(job);
        self.closed.store(true, Ordering::Relaxed);
    }
}

struct Factory(Arc<dyn StateMachineFactory>);

impl StateMachineFactory for Factory {
    fn app_type(&self) -> &str {
        self.0.app_type()
    }

    fn open(
        &self,
        job: &BlockingCtx<'_>,
        args: &OpenArgs<'_>,
    ) -> Result<Arc<dyn StateMachine>, AppError> {
        let inner = self.0.open(job, args)?;
        Ok(Arc::new(Watched { inner, closed: AtomicBool::new(false) }))
    }

    fn checkpoint_home(&self) -> &Path {
        self.0.checkpoint_home()
    }

    fn codes(&self) -> &[StorageCode] {
        self.0.codes()
    }
}

fn machines() -> MakeFactory {
    let make = server::machines_of::<LogStore>();
    Box::new(|ctx, me| Ok(Arc::new(Factory(make(ctx, me)?))))
}

const TABLE: &str = "logs";
const PARTITIONS: i32 = 4;
const ROUNDS: usize = 16;
const SECOND: Duration = Duration::from_secs(1);
const CONFIG: &str = "[replication]\ncheckpoint_interval_seconds = 1\ncheckpoint_max_interval_hours = 1\n\
    log_private_file_size_mb = 1\nlog_shared_file_count_limit = 1\nlog_private_reserve_max_size_mb = 0\n\
    log_private_reserve_max_time_seconds = 0\n";

/// Bug 50: a task that was begun before a replica was closed uses what is closed: a read that waits for its turn, a run
/// of mutations on its way to the state machine, a checkpoint.
#[test]
fn nothing_is_asked_of_a_replica_that_has_been_closed() {
    register(&codes_of::<LogStore>());
    let spec =
        ClusterSpec { servers: 3, copies: 3, config: CONFIG.to_owned(), ..ClusterSpec::default() };
    let schema = server::schema().merge(&LogStore::sections());
    let mut cluster = SimCluster::start_with(&spec, schema, LogStore::APP_TYPE, machines);
    cluster.create_table(TABLE, PARTITIONS);
    cluster.run_for(SECOND * 5);
    let entry = Bytes::from(vec![b'x'; 64 << 10]);
    for round in 0..ROUNDS {
        let victim = round % 3;
        // Its disk is slow: whatever it does takes long.
        let node = cluster.server(victim);
        let slow = DiskFault::Slow { factor: 200, path: String::new() };
        let fault = cluster.sim().disk(node).add_fault(slow);
        for _ in 0..20 {
            for partition in 0..PARTITIONS {
                let request = APPEND.request(Target::Partition(partition), &entry);
                drop(cluster.send(TABLE, request));
                let from = ReadFrom { offset: 0, max_count: 100 };
                drop(cluster.send(TABLE, READ.request(Target::Partition(partition), &from)));
            }
            cluster.run_for(SECOND / 500);
        }
        cluster.run_for(Duration::from_millis(round as u64 * 37));
        cluster.stop_server(victim);
        cluster.sim().disk(node).remove_fault(fault);
        cluster.start_server(victim);
        cluster.run_for(SECOND * 5);
        let late = LATE.with_borrow_mut(std::mem::take);
        assert!(late.is_empty(), "round {round}: {late:?} after the end");
    }
    cluster.finish();
}
