//! State machines with bugs: what a panic costs.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use bytes::BytesMut;
use dsn_core::code::register;
use dsn_core::exec::BlockingCtx;
use dsn_core::sim::SimOptions;
use dsn_replication::ids::Decree;
use dsn_replication::method::{Read, Scan, Write};
use dsn_replication::mutation::Mutation;
use dsn_replication::replica_app::MakeFactory;
use dsn_replication::server;
use dsn_replication::state_machine::{
    AppError, ApplyError, ApplyMode, CheckpointKind, OpenArgs, PinnedCheckpoint, ReadEnv, ReadMode,
    ReadOutcome, ReadRequest, Replies, StateMachine, StateMachineFactory, StorageCode,
};
use dsn_replication::testing::cluster::{ClusterSpec, SimCluster};
use dsn_replication::wire::config::PartitionConfiguration;
use dsn_rpc::thrift::{RESULT_ID, decode_wrapped, encode_wrapped};
use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

dsn_core::task_codes! {
    CODES;
    RPC_FRAGILE_WRITE: Rpc, Low, "THREAD_POOL_REPLICATION";
    RPC_FRAGILE_READ: Rpc, Common, "THREAD_POOL_DEFAULT";
    RPC_FRAGILE_SCAN: Rpc, Common, "THREAD_POOL_SCAN";
}

/// Adds; the answer is the sum. Panics when it is to add [`TROUBLE`], as often as [`Bugs`] says.
const WRITE: Write<i64, i64> = Write::new(&RPC_FRAGILE_WRITE);
/// The sum.
const READ: Read<i64, i64> = Read::new(&RPC_FRAGILE_READ);
/// What it is asked. Panics when that is [`TROUBLE`].
const SCAN: Scan<i64, i64> = Scan::new(&RPC_FRAGILE_SCAN);
const TROUBLE: i64 = 13;

/// How often something is still to panic, in all servers of a test, which has a thread of its own.
#[derive(Default)]
struct Bugs {
    write: Cell<u32>,
    open: Cell<u32>,
    close: Cell<u32>,
}

thread_local! {
    static BUGS: Bugs = Bugs::default();
}

fn strike(of: fn(&Bugs) -> &Cell<u32>) {
    let left = BUGS.with(|bugs| of(bugs).get());
    if left > 0 {
        BUGS.with(|bugs| of(bugs).set(left - 1));
        panic!("a bug");
    }
}

/// The sum of everything written, of which nothing is ever on the disk.
#[derive(Default)]
struct Fragile {
    sum: AtomicI64,
    last: AtomicI64,
}

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
                let sum = self.sum.fetch_add(n, Ordering::Relaxed) + n;
                if n == TROUBLE {
                    strike(|bugs| &bugs.write);
                }
                replies.push(|out| encode_wrapped(&sum, RESULT_ID, out));
            }
            self.last.store(mutation.decree.0, Ordering::Relaxed);
        }
        Ok(())
    }

    fn last_applied(&self) -> Decree {
        Decree(self.last.load(Ordering::Relaxed))
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
        let n =
            if request.code == &RPC_FRAGILE_READ { self.sum.load(Ordering::Relaxed) } else { n };
        assert!(request.code != &RPC_FRAGILE_SCAN || n != TROUBLE, "a bug in a read");
        encode_wrapped(&n, RESULT_ID, out);
        ReadOutcome::Reply
    }

    fn checkpoint(&self, _: &BlockingCtx<'_>, _: CheckpointKind) -> Result<Decree, AppError> {
        Ok(Decree::ZERO)
    }

    fn pin_checkpoint(&self, _: &BlockingCtx<'_>) -> Result<PinnedCheckpoint, AppError> {
        Err(AppError::TryAgain)
    }

    fn close(&self, _: &BlockingCtx<'_>) {
        strike(|bugs| &bugs.close);
    }
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
        strike(|bugs| &bugs.open);
        Ok(Arc::new(Fragile::default()))
    }

    fn checkpoint_home(&self) -> &Path {
        Path::new("data")
    }

    fn codes(&self) -> &[StorageCode] {
        const ALL: &[StorageCode] = &[WRITE.storage(), READ.storage(), SCAN.storage()];
        ALL
    }
}

fn factory() -> MakeFactory {
    Box::new(|_, _| Ok(Arc::new(Factory)))
}

/// Three servers with a table of four partitions on all of them, each written to.
fn group_of_three(seed: u64) -> SimCluster {
    register(CODES);
    let sim = SimOptions { poison_is_violation: false, ..SimOptions::default() };
    let spec = ClusterSpec { seed, servers: 3, copies: 3, sim, ..ClusterSpec::default() };
    let mut cluster = SimCluster::start_with(&spec, server::schema(), "fragile", factory);
    cluster.create_table("t", PARTITIONS);
    wait_for_whole_groups(&mut cluster);
    for key in KEYS {
        assert_eq!(cluster.call("t", &WRITE, key, &1), Ok(1), "seed {seed}");
    }
    cluster
}

const PARTITIONS: i32 = 4;

/// One key of each partition.
const KEYS: [&[u8]; 4] = [b"c", b"e", b"a", b"b"];

fn wait_for_whole_groups(cluster: &mut SimCluster) -> Duration {
    let begun = cluster.sim().now();
    loop {
        let config = cluster.config("t").expect("the meta server answers");
        let is_whole = |p: PartitionConfiguration| p.primary.is_valid() && p.secondaries.len() == 2;
        if config.partitions.len() == PARTITIONS as usize && config.partitions.iter().all(is_whole)
        {
            return cluster.sim().now() - begun;
        }
        let passed = cluster.sim().now() - begun;
        assert!(passed < Duration::from_secs(300), "not whole: {:?}", config.partitions);
        cluster.run_for(Duration::from_millis(100));
    }
}

fn arm(of: fn(&Bugs) -> &Cell<u32>, times: u32) {
    BUGS.with(|bugs| of(bugs).set(times));
}

/// A write that panics at `times` of its replicas; then everything is as it would be if it had not.
fn a_write_panics(seed: u64, times: u32) {
    let mut cluster = group_of_three(seed);
    arm(|bugs| &bugs.write, times);
    let error = cluster.call("t", &WRITE, KEYS[0], &TROUBLE).unwrap_err();
    assert!(error.is_ambiguous(), "seed {seed}: it is in the log and may be done: {error}");
    for key in &KEYS[1..] {
        let begun = cluster.sim().now();
        assert_eq!(cluster.call("t", &WRITE, key, &1), Ok(2), "seed {seed}");
        let took = cluster.sim().now() - begun;
        assert!(took < Duration::from_secs(1), "seed {seed}: another partition waits {took:?}");
    }
    let begun = cluster.sim().now();
    assert_eq!(cluster.call("t", &READ, KEYS[0], &0), Ok(1 + TROUBLE), "seed {seed}");
    let took = cluster.sim().now() - begun;
    println!("seed {seed}: {times} panics, read after {took:?}");
    assert!(took < Duration::from_secs(60), "seed {seed}: {took:?}");
    let took = wait_for_whole_groups(&mut cluster);
    assert_eq!(cluster.call("t", &WRITE, KEYS[0], &1), Ok(2 + TROUBLE), "seed {seed}");
    println!("seed {seed}: whole again after {took:?}");
    // A replica that is whole again can lead: the others may go.
    for index in 0..3 {
        cluster.kill_server(index);
        assert_eq!(cluster.call("t", &READ, KEYS[0], &0), Ok(2 + TROUBLE), "seed {seed}");
        cluster.start_server(index);
        wait_for_whole_groups(&mut cluster);
    }
    cluster.finish();
}

#[test]
fn a_write_that_panics_at_the_primary_costs_nobody_else_anything() {
    a_write_panics(1, 1);
}

#[test]
fn a_write_that_panics_at_two_members_is_done_by_the_third() {
    a_write_panics(2, 2);
}

#[test]
fn a_write_that_panics_at_every_member_is_done_when_it_panics_no_more() {
    a_write_panics(3, 5);
}

#[test]
fn a_replica_that_panics_when_it_is_opened_or_closed_is_tried_again() {
    let mut cluster = group_of_three(4);
    arm(|bugs| &bugs.write, 1);
    arm(|bugs| &bugs.close, 1);
    arm(|bugs| &bugs.open, 2);
    let error = cluster.call("t", &WRITE, KEYS[0], &TROUBLE).unwrap_err();
    assert!(error.is_ambiguous(), "{error}");
    assert_eq!(cluster.call("t", &READ, KEYS[0], &0), Ok(1 + TROUBLE));
    cluster.run_for(Duration::from_secs(10));
    wait_for_whole_groups(&mut cluster);
    BUGS.with(|bugs| assert_eq!((bugs.open.get(), bugs.close.get()), (0, 0), "it was tried"));
    // And when a server starts: the others of its replicas are opened all the same.
    cluster.kill_server(0);
    arm(|bugs| &bugs.open, 1);
    cluster.start_server(0);
    wait_for_whole_groups(&mut cluster);
    cluster.finish();
}

#[test]
fn a_read_that_panics_costs_nobody_else_an_answer() {
    register(CODES);
    let sim = SimOptions { poison_is_violation: false, ..SimOptions::default() };
    let spec = ClusterSpec { sim, ..ClusterSpec::default() };
    let mut cluster = SimCluster::start_with(&spec, server::schema(), "fragile", factory);
    cluster.create_table("t", PARTITIONS);
    assert_eq!(cluster.call("t", &WRITE, b"a", &1), Ok(1));
    assert_eq!(cluster.call("t", &SCAN, b"a", &2), Ok(2));
    let error = cluster.call("t", &SCAN, b"a", &TROUBLE).unwrap_err();
    println!("{error}");
    for n in 20..30 {
        assert_eq!(cluster.call("t", &SCAN, b"a", &n), Ok(n), "the next reads are answered");
    }
    assert_eq!(cluster.call("t", &WRITE, b"a", &3), Ok(4));
    cluster.finish();
}
