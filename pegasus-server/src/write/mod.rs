//! Applying committed mutations: from the requests as clients sent them to one engine batch.
//!
//! One file per kind of request. Everything that an outcome depends on is in the mutation or in the
//! replicated state: "now", for what has expired and for default expiry, is the mutation's timestamp,
//! which is also the time tag of what is written; the default expiry itself is the mutation's stamp. So
//! every replica computes the same, and so does a replay of the log.
//!
//! A run of mutations goes into one batch. A request that reads (incr, check_and_*) sees what
//! earlier requests of its run wrote, for it looks into the batch before it asks the engine. Nothing
//! is applied before the batch is written, at the end: when a read or the write would block, the call
//! has had no effect at all and is simply made again where blocking is allowed.
//!
//! A mutation without requests, and one whose requests all fail their validation, moves the decree and
//! nothing else.

mod check;
mod check_and_mutate;
mod check_and_set;
mod incr;
mod multi_put;
mod multi_remove;
pub mod number;
mod put;
mod remove;

use std::sync::Arc;

use dsn_core::code::Code;
use dsn_replication::ids::Decree;
use dsn_replication::mutation::{ClientRequest, Mutation};
use dsn_replication::state_machine::Replies;
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::thrift::{Encode, RESULT_ID, WireError, encode_wrapped};
use pegasus_client::schema::value::{DataVersion, Timetag};
use pegasus_client::schema::{key, time};

use crate::codes;
use crate::engine::{Batch, EngineError, Pending, ReadTier, Stall, StorageEngine};
use crate::identity::Identity;
use crate::metrics::{StorageMetrics, WriteTally};

/// Kinds of requests that a mutation can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WriteCode {
    /// Sets one record.
    Put,
    /// Removes one record.
    Remove,
    /// Sets records of one hash key.
    MultiPut,
    /// Removes records of one hash key.
    MultiRemove,
    /// Adds to a number.
    Incr,
    /// Sets a record if a check passes.
    CheckAndSet,
    /// Changes records of one hash key if a check passes.
    CheckAndMutate,
}

impl WriteCode {
    /// The kind of that code; `None` when it is none of ours.
    fn of(code: Code) -> Option<Self> {
        const BY_CODE: [(Code, WriteCode); 7] = [
            (&codes::RPC_RRDB_RRDB_PUT, WriteCode::Put),
            (&codes::RPC_RRDB_RRDB_REMOVE, WriteCode::Remove),
            (&codes::RPC_RRDB_RRDB_MULTI_PUT, WriteCode::MultiPut),
            (&codes::RPC_RRDB_RRDB_MULTI_REMOVE, WriteCode::MultiRemove),
            (&codes::RPC_RRDB_RRDB_INCR, WriteCode::Incr),
            (&codes::RPC_RRDB_RRDB_CHECK_AND_SET, WriteCode::CheckAndSet),
            (&codes::RPC_RRDB_RRDB_CHECK_AND_MUTATE, WriteCode::CheckAndMutate),
        ];
        BY_CODE.iter().find(|(known, _)| *known == code).map(|(_, kind)| *kind)
    }
}

/// Applies mutations to one engine. Owned by whoever owns the replica.
pub struct WriteService {
    engine: Arc<dyn StorageEngine>,
    identity: Arc<Identity>,
    metrics: Arc<StorageMetrics>,
    version: DataVersion,
    /// This cluster's id in a duplication group, 0 when it is in none.
    cluster_id: u8,
    batch: Batch,
    tally: WriteTally,
    /// The value that an operation read last; kept for its memory.
    found: Vec<u8>,
}

impl WriteService {
    /// A service that answers as `identity`.
    pub fn new(
        engine: Arc<dyn StorageEngine>,
        identity: Arc<Identity>,
        metrics: Arc<StorageMetrics>,
        cluster_id: u8,
    ) -> Self {
        let version = engine.data_version();
        Self {
            engine,
            identity,
            metrics,
            version,
            cluster_id,
            batch: Batch::new(),
            tally: WriteTally::default(),
            found: Vec::new(),
        }
    }

    /// Applies a run of mutations, in order, as one batch. Adds one reply per request.
    ///
    /// `stall` tells whether the call may block, be it to read a record or to write the batch.
    ///
    /// # Errors
    /// [`EngineError::WouldBlock`]: nothing was applied, what is in `replies` means nothing; call again
    /// with the same run and [`Stall::Wait`] where blocking is allowed. Every other error is one of
    /// the engine, after which the replica cannot go on.
    ///
    /// # Panics
    /// When a decree does not follow its predecessor.
    pub fn apply(
        &mut self,
        run: &[Mutation],
        stall: Stall,
        replies: &mut Replies,
    ) -> Result<(), EngineError> {
        let Some(newest) = run.last() else { return Ok(()) };
        self.batch.clear();
        self.tally = WriteTally::default();
        let mut last = Decree(self.engine.last_committed());
        for mutation in run {
            assert_eq!(mutation.decree, last.next(), "mutations must be applied in decree order");
            last = mutation.decree;
            self.add(mutation, stall, replies)?;
        }
        self.engine.write(&mut self.batch, newest.decree.0, stall)?;
        self.engine.retention().observe(epoch_seconds(newest.timestamp_us));
        self.metrics.add(&self.tally);
        Ok(())
    }

    fn add(
        &mut self,
        mutation: &Mutation,
        stall: Stall,
        replies: &mut Replies,
    ) -> Result<(), EngineError> {
        let mut step = Step {
            engine: &*self.engine,
            identity: &self.identity,
            tally: &mut self.tally,
            batch: &mut self.batch,
            found: &mut self.found,
            replies,
            version: self.version,
            decree: mutation.decree.0,
            now: epoch_seconds(mutation.timestamp_us),
            default_ttl: mutation.stamp,
            timetag: Timetag::new(mutation.timestamp_us, self.cluster_id, false),
            tier: match stall {
                Stall::Wait => ReadTier::All,
                Stall::Refuse => ReadTier::CacheOnly,
            },
        };
        for request in &mutation.requests {
            let error = match step.apply(request) {
                Ok(()) => continue,
                Err(Failure::Engine(error)) => return Err(error),
                Err(Failure::Undecodable(error)) => error.to_string(),
                Err(Failure::UnknownCode) => "not a write of this app".to_owned(),
            };
            step.tally.corrupt_writes += 1;
            step.replies.error(ErrorCode::InvalidData);
            tracing::error!(
                app_id = self.identity.app_id,
                partition = self.identity.partition_index,
                decree = mutation.decree.0,
                code = request.code.name(),
                bytes = request.body.len(),
                error,
                "a committed request cannot be carried out; it is passed over"
            );
        }
        Ok(())
    }
}

/// Why a request could not be carried out. Requests that merely make no sense are not failures, they
/// get an answer that says so.
#[derive(Debug)]
enum Failure {
    Undecodable(WireError),
    UnknownCode,
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

/// A record as an operation finds it; the value itself is in [`Step::found`].
#[derive(Clone, Copy)]
struct Current {
    /// Seconds since 2016, 0 for never.
    expire_ts: u32,
}

/// What an operation works with: one request of one mutation. Operations decode their request before
/// they touch anything else here.
struct Step<'a> {
    engine: &'a dyn StorageEngine,
    identity: &'a Identity,
    tally: &'a mut WriteTally,
    batch: &'a mut Batch,
    found: &'a mut Vec<u8>,
    replies: &'a mut Replies,
    version: DataVersion,
    decree: i64,
    /// Seconds since 2016.
    now: u32,
    default_ttl: u32,
    timetag: Timetag,
    tier: ReadTier,
}

impl Step<'_> {
    fn apply(&mut self, request: &ClientRequest) -> Result<(), Failure> {
        match WriteCode::of(request.code).ok_or(Failure::UnknownCode)? {
            WriteCode::Put => put::apply(self, &request.body),
            WriteCode::Remove => remove::apply(self, &request.body),
            WriteCode::MultiPut => multi_put::apply(self, &request.body),
            WriteCode::MultiRemove => multi_remove::apply(self, &request.body),
            WriteCode::Incr => incr::apply(self, &request.body),
            WriteCode::CheckAndSet => check_and_set::apply(self, &request.body),
            WriteCode::CheckAndMutate => check_and_mutate::apply(self, &request.body),
        }
    }

    /// Answers the request with a response of its kind.
    fn reply<T: Encode>(&mut self, response: impl FnOnce() -> T) {
        self.replies.push(|out| encode_wrapped(&response(), RESULT_ID, out));
    }

    /// Puts a record. `expire_ts` is a request's field: absolute, 0 for the table's default.
    fn put(&mut self, key: &[&[u8]], data: &[u8], expire_ts: i32) {
        // Negative numbers are times beyond 2084 in disguise.
        let expire_ts = match expire_ts as u32 {
            0 if self.default_ttl > 0 => self.now.saturating_add(self.default_ttl),
            given => given,
        };
        let header = self.version.header(expire_ts, self.timetag);
        self.batch.put(key, &[header.as_bytes(), data]);
    }

    /// Reads the record of `raw_key` as the requests before this one left it. When it is there and has
    /// not expired, its data is in `found`.
    fn read(&mut self, raw_key: &[u8]) -> Result<Option<Current>, EngineError> {
        let (version, now, found) = (self.version, self.now, &mut *self.found);
        let mut outcome = Ok(None);
        let mut visit = |stored: &[u8]| {
            outcome = match version.split_value(stored) {
                Ok((expire_ts, _)) if time::is_expired(expire_ts, now) => Ok(None),
                Ok((expire_ts, data)) => {
                    found.clear();
                    found.extend_from_slice(data);
                    Ok(Some(Current { expire_ts }))
                }
                Err(error) => Err(EngineError::Corruption(error.to_string())),
            };
        };
        match self.batch.lookup(raw_key) {
            Some(Pending::Put(stored)) => visit(stored),
            Some(Pending::Deleted) => return Ok(None),
            None => {
                self.engine.get(raw_key, self.tier, &mut visit)?;
            }
        }
        outcome
    }
}

/// The two bytes that open a raw key, `None` when the hash key is too long for one.
fn key_length(hash_key: &[u8]) -> Option<[u8; key::LENGTH_PREFIX]> {
    let length = u16::try_from(hash_key.len()).ok()?;
    (hash_key.len() <= key::MAX_HASH_KEY_LEN).then(|| length.to_be_bytes())
}

/// Pegasus time of a mutation's timestamp.
fn epoch_seconds(timestamp_us: u64) -> u32 {
    time::from_unix(timestamp_us / 1_000_000)
}
