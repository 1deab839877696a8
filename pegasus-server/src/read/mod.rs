//! Reads: from a request as the client sent it to the response, encoded where it will be sent from.
//!
//! One file per kind of request. "Now", for what has expired, is the server's wall clock: reads are
//! answered by one server and need not agree with anybody. Responses are written straight into the
//! caller's buffer from the engine's memory; on every outcome but a reply the buffer is as it was.
//!
//! Point reads can be limited to memory ([`ReadMode::Inline`]); range reads may always touch files and
//! belong on a thread that may block. They are bounded by count, bytes and time, see [`limiter`].

mod abnormal;
mod batch_get;
mod filter;
mod get;
mod limiter;
mod multi_get;
mod response;
mod scanner;
mod sortkey_count;
mod ttl;
mod walk;

use std::cell::Cell;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use dsn_core::code::Code;
use dsn_core::time::{Mono, Wall};
use dsn_replication::state_machine::{ReadEnv, ReadMode, ReadOutcome};
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::thrift::WireError;
use pegasus_client::schema::time;
use pegasus_client::schema::value::{DataVersion, ValueError};

pub use scanner::Scan;

use abnormal::Cost;

use crate::codes;
use crate::engine::{EngineError, ReadTier, StorageEngine};
use crate::identity::Identity;
use crate::metrics::StorageMetrics;
use crate::options::StorageOptions;
use crate::scan_context::ScanContexts;
use crate::settings::TableSettings;

/// Answers the reads of one replica, from any number of threads.
pub struct ReadService {
    engine: Arc<dyn StorageEngine>,
    identity: Arc<Identity>,
    metrics: Arc<StorageMetrics>,
    options: Arc<StorageOptions>,
    settings: Arc<TableSettings>,
    version: DataVersion,
    scans: ScanContexts<Scan>,
}

/// Why a read gave no reply.
#[derive(Debug)]
enum Failure {
    Undecodable(WireError),
    Engine(EngineError),
}

impl From<WireError> for Failure {
    fn from(error: WireError) -> Self {
        Self::Undecodable(error)
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

impl From<ValueError> for EngineError {
    fn from(error: ValueError) -> Self {
        Self::Corruption(error.to_string())
    }
}

/// One read and what it may know.
struct Call<'a> {
    service: &'a ReadService,
    body: &'a Bytes,
    tier: ReadTier,
    /// Seconds since 2016.
    now: u32,
    clock: &'a dyn Fn() -> Mono,
    deadline: Option<Mono>,
    cost: Cell<Cost>,
}

impl ReadService {
    /// A service that answers as `identity`. `scan_base` makes the ids of scans differ between
    /// replicas and between starts of one.
    pub fn new(
        engine: Arc<dyn StorageEngine>,
        identity: Arc<Identity>,
        metrics: Arc<StorageMetrics>,
        options: Arc<StorageOptions>,
        settings: Arc<TableSettings>,
        scan_base: u32,
    ) -> Self {
        let version = engine.data_version();
        let scans = ScanContexts::new(scan_base);
        Self { engine, identity, metrics, options, settings, version, scans }
    }

    /// Answers a request of `code`, appending the wrapped response to `out`.
    #[inline]
    pub fn read(
        &self,
        code: Code,
        body: &Bytes,
        mode: ReadMode,
        env: &ReadEnv<'_>,
        out: &mut BytesMut,
    ) -> ReadOutcome {
        let call = Call {
            service: self,
            body,
            tier: match mode {
                ReadMode::Inline => ReadTier::CacheOnly,
                ReadMode::Blocking => ReadTier::All,
            },
            now: epoch_seconds(env.wall),
            clock: env.clock,
            deadline: env.deadline,
            cost: Cell::default(),
        };
        let start = out.len();
        let begun = (mode == ReadMode::Blocking).then(|| (env.clock)());
        match call.answer(code, out) {
            Ok(outcome) => {
                let took = begun.map(|begun| (env.clock)().saturating_since(begun));
                self.note_cost(code, body, call.cost.get(), took);
                outcome
            }
            Err(failure) => {
                out.truncate(start);
                self.outcome_of(failure, code)
            }
        }
    }

    /// Forgets scans that nobody has continued for long.
    pub fn expire_scans(&self, now: Mono) {
        self.scans.expire(now);
        self.metrics.open_scans.set_u64(self.scans.len() as u64);
    }

    /// Forgets all scans; their snapshots keep the engine open.
    pub fn clear_scans(&self) {
        self.scans.clear();
        self.metrics.open_scans.set_u64(0);
    }

    fn outcome_of(&self, failure: Failure, code: Code) -> ReadOutcome {
        let (answer, error) = match failure {
            Failure::Engine(EngineError::WouldBlock) => return ReadOutcome::WouldBlock,
            Failure::Undecodable(error) => (ErrorCode::InvalidData, error.to_string()),
            Failure::Engine(error) => (error_code(&error), error.to_string()),
        };
        tracing::warn!(
            app_id = self.identity.app_id,
            partition = self.identity.partition_index,
            code = code.name(),
            error,
            "a read failed"
        );
        ReadOutcome::Error(answer)
    }
}

impl Call<'_> {
    #[inline]
    fn answer(&self, code: Code, out: &mut BytesMut) -> Result<ReadOutcome, Failure> {
        if code == &codes::RPC_RRDB_RRDB_GET {
            get::answer(self, out)?;
        } else if code == &codes::RPC_RRDB_RRDB_TTL {
            ttl::answer(self, out)?;
        } else if code == &codes::RPC_RRDB_RRDB_BATCH_GET {
            batch_get::answer(self, out)?;
        } else {
            return self.answer_range(code, out);
        }
        Ok(ReadOutcome::Reply)
    }

    fn answer_range(&self, code: Code, out: &mut BytesMut) -> Result<ReadOutcome, Failure> {
        if self.tier == ReadTier::CacheOnly {
            return Ok(ReadOutcome::WouldBlock);
        }
        if code == &codes::RPC_RRDB_RRDB_MULTI_GET {
            multi_get::answer(self, out)?;
        } else if code == &codes::RPC_RRDB_RRDB_SORTKEY_COUNT {
            sortkey_count::answer(self, out)?;
        } else if code == &codes::RPC_RRDB_RRDB_GET_SCANNER {
            scanner::open(self, out)?;
        } else if code == &codes::RPC_RRDB_RRDB_SCAN {
            scanner::next(self, out)?;
        } else if code == &codes::RPC_RRDB_RRDB_CLEAR_SCANNER {
            scanner::clear(self)?;
            return Ok(ReadOutcome::NoReply);
        } else {
            return Ok(ReadOutcome::Error(ErrorCode::HandlerNotFound));
        }
        Ok(ReadOutcome::Reply)
    }

    /// Looks up one record and calls `visit` with its expiry and data if it is there and has not
    /// expired. Returns whether it was.
    #[inline]
    fn live_record(
        &self,
        raw_key: &[u8],
        mut visit: impl FnMut(u32, &[u8]),
    ) -> Result<bool, EngineError> {
        let (version, now) = (self.service.version, self.now);
        let mut live = Ok(false);
        self.service.engine.get(raw_key, self.tier, &mut |stored| {
            live = match version.split_value(stored) {
                Ok((expire_ts, _)) if time::is_expired(expire_ts, now) => {
                    self.service.metrics.read_expired_values.increment();
                    Ok(false)
                }
                Ok((expire_ts, data)) => {
                    visit(expire_ts, data);
                    Ok(true)
                }
                Err(error) => Err(error.into()),
            };
        })?;
        live
    }
}

/// The error of the RPC level for an error of the engine.
pub(crate) fn error_code(error: &EngineError) -> ErrorCode {
    match error {
        EngineError::Corruption(_) => ErrorCode::RdbCorruption,
        EngineError::Io(_) => ErrorCode::DiskIoError,
        _ => ErrorCode::LocalAppFailure,
    }
}

/// Pegasus time of a wall clock reading.
fn epoch_seconds(wall: Wall) -> u32 {
    time::from_unix(wall.unix_nanos() / dsn_core::time::NANOS_PER_SECOND)
}
