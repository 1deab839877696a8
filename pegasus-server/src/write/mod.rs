//! Applying committed mutations: from the requests as clients sent them to one engine batch.
//!
//! One file per kind of request. Everything that an outcome depends on is in the mutation or in the
//! replicated state: "now", for what has expired and for default expiry, is the mutation's timestamp,
//! which is also the time tag of what is written. So every replica computes the same, and so does
//! a replay of the log.
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
mod replies;

use std::sync::Arc;

use bytes::Bytes;
use dsn_rpc::thrift::WireError;
use pegasus_client::schema::value::{DataVersion, Timetag};
use pegasus_client::schema::{codes, key, time};

pub use replies::{Replies, Reply};

use crate::counters::{Counters, Tally};
use crate::engine::{Batch, EngineError, Pending, ReadTier, Stall, StorageEngine};
use crate::identity::Identity;
use crate::limits::APPLY_RUN_BYTES_MAX;

/// Kinds of requests that a mutation can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteCode {
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
    /// The kind of the task code of that name; `None` when it is none of ours.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            codes::PUT => Self::Put,
            codes::REMOVE => Self::Remove,
            codes::MULTI_PUT => Self::MultiPut,
            codes::MULTI_REMOVE => Self::MultiRemove,
            codes::INCR => Self::Incr,
            codes::CHECK_AND_SET => Self::CheckAndSet,
            codes::CHECK_AND_MUTATE => Self::CheckAndMutate,
            _ => return None,
        })
    }
}

/// One request of a mutation.
#[derive(Clone, Debug)]
pub struct WriteRequest {
    /// Its kind.
    pub code: WriteCode,
    /// The wrapped thrift value as the client sent it.
    pub body: Bytes,
}

/// One committed mutation.
#[derive(Clone, Copy, Debug)]
pub struct Mutation<'a> {
    /// Its number; one more than that of the mutation before it.
    pub decree: i64,
    /// When the primary made it, microseconds since the Unix epoch. Grows from mutation to mutation.
    pub timestamp_us: u64,
    /// Its requests, in order; none for a heartbeat.
    pub requests: &'a [WriteRequest],
}

/// Applies mutations to one engine. Owned by whoever owns the replica.
pub struct WriteService {
    engine: Arc<dyn StorageEngine>,
    identity: Arc<Identity>,
    counters: Arc<Counters>,
    version: DataVersion,
    /// This cluster's id in a duplication group, 0 when it is in none.
    cluster_id: u8,
    batch: Batch,
    tally: Tally,
    /// The value that an operation read last; kept for its memory.
    found: Vec<u8>,
}

impl WriteService {
    /// A service that answers as `identity`.
    pub fn new(
        engine: Arc<dyn StorageEngine>,
        identity: Arc<Identity>,
        counters: Arc<Counters>,
        cluster_id: u8,
    ) -> Self {
        let version = engine.data_version();
        Self {
            engine,
            identity,
            counters,
            version,
            cluster_id,
            batch: Batch::new(),
            tally: Tally::default(),
            found: Vec::new(),
        }
    }

    /// Applies mutations from the front of `run`, in order, and returns how many: all of them unless
    /// they are more than one batch should hold ([`APPLY_RUN_BYTES_MAX`]), at least one unless there is
    /// none. Appends one reply per request of what was applied.
    ///
    /// `stall` tells whether the call may block, be it to read a record or to write the batch.
    ///
    /// # Errors
    /// [`EngineError::WouldBlock`]: nothing was applied and no reply appended; call again with the same
    /// run and [`Stall::Wait`] where blocking is allowed. Every other error is one of the engine, after
    /// which the replica cannot go on.
    ///
    /// # Panics
    /// When a decree does not follow its predecessor.
    pub fn apply(
        &mut self,
        run: &[Mutation<'_>],
        stall: Stall,
        replies: &mut Replies,
    ) -> Result<usize, EngineError> {
        let mark = replies.mark();
        self.batch.clear();
        self.tally = Tally::default();
        let result = self.fill_and_write(run, stall, replies);
        match result {
            Ok(_) => self.counters.add(&self.tally),
            Err(_) => replies.back_to(mark),
        }
        result
    }

    fn fill_and_write(
        &mut self,
        run: &[Mutation<'_>],
        stall: Stall,
        replies: &mut Replies,
    ) -> Result<usize, EngineError> {
        let mut last = self.engine.last_committed();
        let mut taken = 0usize;
        for mutation in run {
            if taken > 0 && self.batch.size_bytes() >= APPLY_RUN_BYTES_MAX {
                break;
            }
            assert_eq!(mutation.decree, last + 1, "mutations must be applied in decree order");
            self.add(mutation, stall, replies)?;
            last = mutation.decree;
            taken += 1;
        }
        let Some(newest) = taken.checked_sub(1).map(|at| &run[at]) else { return Ok(0) };
        self.engine.write(&mut self.batch, newest.decree, stall)?;
        self.engine.retention().observe(epoch_seconds(newest.timestamp_us));
        Ok(taken)
    }

    fn add(
        &mut self,
        mutation: &Mutation<'_>,
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
            decree: mutation.decree,
            now: epoch_seconds(mutation.timestamp_us),
            default_ttl: self.engine.retention().default_ttl(),
            timetag: Timetag::new(mutation.timestamp_us, self.cluster_id, false),
            tier: match stall {
                Stall::Wait => ReadTier::All,
                Stall::Refuse => ReadTier::CacheOnly,
            },
        };
        for request in mutation.requests {
            match step.apply(request) {
                Ok(()) => {}
                Err(Failure::Engine(error)) => return Err(error),
                Err(Failure::Undecodable(error)) => {
                    step.tally.corrupt_writes += 1;
                    step.replies.push_undecodable();
                    tracing::error!(
                        app_id = self.identity.app_id,
                        partition = self.identity.partition_index,
                        decree = mutation.decree,
                        code = ?request.code,
                        bytes = request.body.len(),
                        %error,
                        "a committed request cannot be decoded; it is passed over"
                    );
                }
            }
        }
        Ok(())
    }
}

/// Why a request could not be carried out. Requests that merely make no sense are not failures, they
/// get an answer that says so.
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
    tally: &'a mut Tally,
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
    fn apply(&mut self, request: &WriteRequest) -> Result<(), Failure> {
        match request.code {
            WriteCode::Put => put::apply(self, &request.body),
            WriteCode::Remove => remove::apply(self, &request.body),
            WriteCode::MultiPut => multi_put::apply(self, &request.body),
            WriteCode::MultiRemove => multi_remove::apply(self, &request.body),
            WriteCode::Incr => incr::apply(self, &request.body),
            WriteCode::CheckAndSet => check_and_set::apply(self, &request.body),
            WriteCode::CheckAndMutate => check_and_mutate::apply(self, &request.body),
        }
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
