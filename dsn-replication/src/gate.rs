//! The read gate: what a reader on any thread must know of a replica, published by its owner.
//!
//! Reads do not visit the owner. They look at the gate, read the state machine, and look again when they answer: the
//! replica may have stepped down, or the server lost its lease, while files were being read. The owner publishes with
//! release ordering *before* it acknowledges a change of configuration; readers load with acquire.

use crate::failure_detector::lease::Lease;
use crate::host::HostMetrics;
use crate::ids::{Ballot, Decree};
use crate::state_machine::StateMachine;
use crate::table_rules::TableRules;
use crate::throttle::{ReadBucket, Throttle, Verdict};
use crate::wire::config::PartitionStatus;
use dsn_core::exec::Ctx;
use dsn_core::planted;
use dsn_core::time::Mono;
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::gpid::Gpid;
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

/// Partition version that switches the check of key hashes off.
pub const ANY_HASH: i32 = i32::MIN;

/// What an operator has denied to clients (`replica.deny_client_request`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deny {
    /// Nothing.
    Nothing,
    /// Requests are left without an answer.
    Timeout,
    /// Requests are refused so that clients look for another server.
    Reconfigure,
}

/// Called with the error when a read found the replica broken.
pub type OnBroken = Box<dyn Fn(&mut Ctx<'_>, ErrorCode) + Send + Sync>;

/// See the module's header.
pub struct ReadGate {
    gpid: Gpid,
    machine: Arc<dyn StateMachine>,
    lease: Lease,
    /// Ballot in the upper bits, then whether the primary has caught up, then the status in the lowest byte.
    word: AtomicU64,
    /// The highest decree that the owner held when its role last changed, decided or not.
    prepared: AtomicI64,
    /// The end of the replica's log may be missing.
    uncertain: AtomicBool,
    partition_version: AtomicI32,
    deny_reads: AtomicU8,
    /// Whether `throttles` has anything to say.
    throttled: AtomicBool,
    throttles: Mutex<Throttles>,
    metrics: OnceLock<HostMetrics>,
    on_broken: OnceLock<OnBroken>,
}

/// What readers are held against.
#[derive(Debug, Default)]
struct Throttles {
    reads: Throttle,
    backup_reads: Throttle,
    bytes: Option<ReadBucket>,
}

const READY: u64 = 1 << 8;

impl fmt::Debug for ReadGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.word.load(Ordering::Acquire);
        write!(f, "ReadGate({}, status {}, ready {})", self.gpid, word & 0xff, word & READY != 0)
    }
}

impl ReadGate {
    /// A closed gate (status inactive).
    pub fn new(gpid: Gpid, machine: Arc<dyn StateMachine>, lease: Lease) -> Self {
        let gate = Self {
            gpid,
            machine,
            lease,
            word: AtomicU64::new(0),
            prepared: AtomicI64::new(0),
            uncertain: AtomicBool::new(false),
            partition_version: AtomicI32::new(ANY_HASH),
            deny_reads: AtomicU8::new(0),
            throttled: AtomicBool::new(false),
            throttles: Mutex::default(),
            metrics: OnceLock::new(),
            on_broken: OnceLock::new(),
        };
        gate.publish(PartitionStatus::Inactive, Ballot::ZERO, false);
        gate
    }

    /// The partition.
    pub fn gpid(&self) -> Gpid {
        self.gpid
    }

    /// What is read.
    pub fn machine(&self) -> &Arc<dyn StateMachine> {
        &self.machine
    }

    /// Owner: the replica is `status` under `ballot`; `ready` tells whether a primary has committed everything it
    /// found when it became one.
    pub fn publish(&self, status: PartitionStatus, ballot: Ballot, ready: bool) {
        let ready = if ready { READY } else { 0 };
        let status = number(status);
        self.word.store(((ballot.0 as u64) << 16) | ready | status, Ordering::Release);
    }

    /// The owner is gone, and with it who could open this again.
    pub fn shut(&self) {
        self.publish(PartitionStatus::Error, self.ballot(), false);
    }

    /// Status last published.
    pub fn status(&self) -> PartitionStatus {
        PartitionStatus::from((self.word.load(Ordering::Acquire) & 0xff) as i32)
    }

    /// Owner: the highest decree that it holds.
    pub fn note_prepared(&self, prepared: Decree) {
        self.prepared.store(prepared.0, Ordering::Release);
    }

    /// The highest decree that the replica holds, decided or not, as far as the owner has said.
    pub fn prepared(&self) -> Decree {
        let applied = self.machine.last_applied();
        applied.max(Decree(self.prepared.load(Ordering::Acquire)))
    }

    /// Owner: whether the end of its log may be missing, see [`Tails`](crate::log::Tails).
    pub fn note_uncertain(&self, uncertain: bool) {
        self.uncertain.store(uncertain, Ordering::Release);
    }

    /// Whether the end of the replica's log may be missing.
    pub fn is_uncertain(&self) -> bool {
        self.uncertain.load(Ordering::Acquire)
    }

    /// A number that is another one after each change of what was published.
    pub fn published(&self) -> u64 {
        self.word.load(Ordering::Acquire)
    }

    /// Ballot last published.
    pub fn ballot(&self) -> Ballot {
        Ballot((self.word.load(Ordering::Acquire) >> 16) as i64)
    }

    /// Whether the last word of the owner and the lease allow reads of a primary at `now`.
    #[inline]
    pub fn serves(&self, now: Mono) -> bool {
        let word = self.word.load(Ordering::Acquire);
        word & (READY | 0xff) == READY | number(PartitionStatus::Primary)
            && (self.lease.holds(now) || planted::has("read_without_lease"))
    }

    /// Owner: what the table says about reads.
    pub fn obey(&self, table: &TableRules) {
        self.set_partition_version(table.partition_version);
        self.deny_reads(table.deny_reads);
        let throttles = Throttles {
            reads: table.reads.clone(),
            backup_reads: table.backup_reads.clone(),
            bytes: table.read_bytes.clone(),
        };
        let on = throttles.reads.is_on() || throttles.backup_reads.is_on();
        let on = on || throttles.bytes.is_some();
        *self.throttles.lock() = throttles;
        self.throttled.store(on, Ordering::Release);
    }

    /// Whether a read must wait, or is refused.
    #[inline]
    pub fn throttle(&self, now: Mono, is_backup: bool) -> Verdict {
        if !self.throttled.load(Ordering::Relaxed) {
            return Verdict::Pass;
        }
        let mut throttles = self.throttles.lock();
        let by_count = match is_backup {
            true => throttles.backup_reads.admit(1, now),
            false => throttles.reads.admit(1, now),
        };
        let full = |bucket: &mut ReadBucket| !bucket.admit(now);
        if by_count == Verdict::Pass && throttles.bytes.as_mut().is_some_and(full) {
            return Verdict::Reject(Duration::ZERO);
        }
        by_count
    }

    /// Owner: where throttled reads are counted; once.
    pub fn set_metrics(&self, metrics: HostMetrics) {
        let _ = self.metrics.set(metrics);
    }

    pub(crate) fn count_throttled(&self, is_backup: bool, refused: bool) {
        let Some(metrics) = self.metrics.get() else { return };
        let counter = match (is_backup, refused) {
            (false, false) => &metrics.throttling_delayed_read_requests,
            (false, true) => &metrics.throttling_rejected_read_requests,
            (true, false) => &metrics.throttling_delayed_backup_requests,
            (true, true) => &metrics.throttling_rejected_backup_requests,
        };
        counter.increment();
    }

    /// A read was answered with `bytes`.
    #[inline]
    pub fn answered(&self, bytes: usize) {
        if self.throttled.load(Ordering::Relaxed)
            && let Some(bucket) = &mut self.throttles.lock().bytes
        {
            bucket.pay(bytes as u64);
        }
    }

    /// Which keys are this partition's, `partition_count - 1`; [`ANY_HASH`] for no check, below 0 while the count is
    /// being switched.
    pub fn set_partition_version(&self, version: i32) {
        self.partition_version.store(version, Ordering::Release);
    }

    fn deny_reads(&self, deny: Deny) {
        let number = match deny {
            Deny::Nothing => 0,
            Deny::Timeout => 1,
            Deny::Reconfigure => 2,
        };
        self.deny_reads.store(number, Ordering::Release);
    }

    /// Owner: whom to tell that a read failed on the replica's files; once.
    pub fn on_broken(&self, hook: OnBroken) {
        let _ = self.on_broken.set(hook);
    }

    /// A read failed on the replica's files.
    pub(crate) fn broken(&self, ctx: &mut Ctx<'_>, error: ErrorCode) {
        if let Some(hook) = self.on_broken.get() {
            hook(ctx, error);
        }
    }

    /// Whether clients are to be left without an answer.
    #[inline]
    pub fn is_silent(&self) -> bool {
        self.deny_reads.load(Ordering::Acquire) == 1
    }

    /// Whether a read may be served at `now`. Before an answer leaves, `now` must have been read just then. Checks in
    /// the original's order.
    ///
    /// # Errors
    /// What to answer instead.
    #[inline]
    pub fn admit(&self, now: Mono, is_backup: bool, hash: u64) -> Result<(), ErrorCode> {
        if self.deny_reads.load(Ordering::Acquire) == 2 {
            return Err(ErrorCode::InvalidState);
        }
        let version = self.partition_version.load(Ordering::Acquire);
        if version != ANY_HASH {
            self.check_hash(version, hash)?;
        }
        if planted::has("read_without_gate") {
            return Ok(());
        }
        if is_backup && self.status() == PartitionStatus::Secondary {
            return Ok(());
        }
        if !self.serves(now) {
            return Err(ErrorCode::InvalidState);
        }
        Ok(())
    }

    fn check_hash(&self, version: i32, hash: u64) -> Result<(), ErrorCode> {
        if version < 0 {
            return Err(ErrorCode::Splitting);
        }
        if hash & version as u64 != self.gpid.partition_index as u64 {
            return Err(ErrorCode::ParentPartitionMisused);
        }
        Ok(())
    }
}

fn number(status: PartitionStatus) -> u64 {
    u64::from(i32::from(status) as u8)
}
