//! State machines with bugs: what a panic costs.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use bytes::BytesMut;
use dsn_core::code::register;
use dsn_core::exec::BlockingCtx;
use dsn_core::sim::SimOptions;
use dsn_replication::ids::Decree;
use dsn_replication::method::{Scan, Write};
use dsn_replication::mutation::Mutation;
use dsn_replication::replica_app::MakeFactory;
use dsn_replication::server;
use dsn_replication::state_machine::{
    AppError, ApplyError, ApplyMode, CheckpointKind, OpenArgs, ReadEnv, ReadMode, ReadOutcome,
    ReadRequest, Replies, StateMachine, StateMachineFactory, StorageCode,
};
use dsn_replication::testing::cluster::{ClusterSpec, SimCluster};
use dsn_rpc::thrift::{RESULT_ID, decode_wrapped, encode_wrapped};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

dsn_core::task_codes! {
    CODES;
    RPC_FRAGILE_WRITE: Rpc, Low, "THREAD_POOL_REPLICATION";
    RPC_FRAGILE_SCAN: Rpc, Common, "THREAD_POOL_SCAN";
}

const WRITE: Write<i64, i64> = Write::new(&RPC_FRAGILE_WRITE);
/// Panics when asked for [`TROUBLE`].
const SCAN: Scan<i64, i64> = Scan::new(&RPC_FRAGILE_SCAN);
const TROUBLE: i64 = 13;

/// Answers what it is asked.
#[derive(Default)]
struct Fragile(AtomicI64);

impl StateMachine for Fragile {
    fn apply(
        &self,
        run: &[Mutation],
        _: ApplyMode,
        replies: &mut Replies,
    ) -> Result<(), ApplyError> {
        for mutation in run {
            for request in &mutation.requests {
                let n: i64 = decode_wrapped(&request.body).unwrap();
                replies.push(|out| encode_wrapped(&n, RESULT_ID, out));
            }
            self.0.store(mutation.decree.0, Ordering::Relaxed);
        }
        Ok(())
    }

    fn last_applied(&self) -> Decree {
        Decree(self.0.load(Ordering::Relaxed))
    }

    fn last_durable(&self) -> Decree {
        Decree::ZERO
    }

    fn read(
        &self,
        request: &ReadRequest,
        _: ReadMode,
        _: &ReadEnv<'_>,
        out: &mut BytesMut,
    ) -> ReadOutcome {
        let n: i64 = decode_wrapped(&request.body).unwrap();
        assert_ne!(n, TROUBLE, "a bug in a read");
        encode_wrapped(&n, RESULT_ID, out);
        ReadOutcome::Reply
    }

    fn checkpoint(&self, _: &BlockingCtx<'_>, _: CheckpointKind) -> Result<Decree, AppError> {
        Ok(Decree::ZERO)
    }

    fn close(&self, _: &BlockingCtx<'_>) {}
}

struct Factory;

impl StateMachineFactory for Factory {
    fn app_type(&self) -> &str {
        "fragile"
    }

    fn open(
        &self,
        _: &BlockingCtx<'_>,
        _: &OpenArgs<'_>,
    ) -> Result<Arc<dyn StateMachine>, AppError> {
        Ok(Arc::new(Fragile::default()))
    }

    fn codes(&self) -> &[StorageCode] {
        const BOTH: &[StorageCode] = &[WRITE.storage(), SCAN.storage()];
        BOTH
    }
}

fn factory() -> MakeFactory {
    Box::new(|_, _| Ok(Arc::new(Factory)))
}

#[test]
fn a_read_that_panics_costs_nobody_else_an_answer() {
    register(CODES);
    let sim = SimOptions { poison_is_violation: false, ..SimOptions::default() };
    let spec = ClusterSpec { sim, ..ClusterSpec::default() };
    let mut cluster = SimCluster::start_with(&spec, server::schema(), "fragile", factory);
    cluster.create_table("t", 4);
    assert_eq!(cluster.call("t", &WRITE, b"a", &1), Ok(1));
    assert_eq!(cluster.call("t", &SCAN, b"a", &2), Ok(2));
    let error = cluster.call("t", &SCAN, b"a", &TROUBLE).unwrap_err();
    println!("{error}");
    for n in 20..30 {
        assert_eq!(cluster.call("t", &SCAN, b"a", &n), Ok(n), "the next reads are answered");
    }
    assert_eq!(cluster.call("t", &WRITE, b"a", &3), Ok(3));
    cluster.finish();
}
