//! The operations as values: where each goes, its bytes, and how to read its answer.
//!
//! One function per operation makes a [`Request`]; the blocking, callback and future forms of the client all send
//! the same value.

use bytes::Bytes;
use dsn_replication::client::{ClientError, Kind, Reason, Request, Target};
use dsn_rpc::thrift::List;

use crate::schema::codes;
use crate::schema::key::{KeyError, encode_key};
use crate::schema::rrdb::{
    BatchGetRequest, BatchGetResponse, CasCheckType, CheckAndMutateRequest, CheckAndMutateResponse,
    CheckAndSetRequest, CheckAndSetResponse, CountResponse, FilterType, FullKey, GetScannerRequest,
    IncrRequest, IncrResponse, KeyValue, MultiGetRequest, MultiGetResponse, MultiPutRequest,
    MultiRemoveRequest, MultiRemoveResponse, Mutate, ReadResponse, ScanRequest, ScanResponse,
    TtlResponse, UpdateRequest, UpdateResponse, status,
};
use crate::schema::{partition_hash, time};

/// A status of the storage engine that is a failure.
pub(crate) fn failed(error: i32) -> Reason {
    Reason::Status { code: error, name: status::name(error) }
}

fn ok(error: i32) -> Result<(), Reason> {
    if error == status::OK { Ok(()) } else { Err(failed(error)) }
}

/// A key that cannot be used.
pub(crate) fn invalid(error: KeyError) -> ClientError {
    ClientError::invalid(error.to_string())
}

fn record(hash_key: &[u8], sort_key: &[u8]) -> Result<(Target, Bytes), ClientError> {
    let key = encode_key(hash_key, sort_key).map_err(invalid)?;
    let hash = partition_hash::of_record(hash_key, sort_key);
    Ok((Target::Key { hash, key: Bytes::copy_from_slice(hash_key) }, key))
}

/// Operations on many records address the hash key alone, which must not be empty.
pub(crate) fn hash_only(hash_key: &[u8]) -> Result<Target, ClientError> {
    if hash_key.is_empty() {
        return Err(ClientError::invalid("the hash key must not be empty here"));
    }
    Ok(record(hash_key, b"")?.0)
}

/// When a record dies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ttl {
    /// Never (or after the table's default time to live).
    #[default]
    Forever,
    /// This many seconds from now; 0 is as good as [`Ttl::Forever`].
    Seconds(u32),
}

impl Ttl {
    /// As on the wire, given the wall clock in unix seconds.
    pub fn expire_ts(self, unix_seconds: u64) -> i32 {
        match self {
            Self::Forever | Self::Seconds(0) => 0,
            Self::Seconds(seconds) => {
                let seconds = i32::try_from(seconds).unwrap_or(i32::MAX);
                time::expire_after(time::from_unix(unix_seconds), seconds) as i32
            }
        }
    }
}

/// Sets a record. `expire_ts` as made by [`Ttl::expire_ts`].
pub fn put(hk: &[u8], sk: &[u8], value: Bytes, expire_ts: i32) -> Result<Request<()>, ClientError> {
    let (target, key) = record(hk, sk)?;
    let argument =
        UpdateRequest { key, value, expire_ts_seconds: expire_ts, ..UpdateRequest::default() };
    Ok(Request::new(
        target,
        &codes::RPC_RRDB_RRDB_PUT,
        &argument,
        Kind::Write,
        |a: UpdateResponse| ok(a.error),
    ))
}

/// Removes a record; removing an absent one succeeds.
pub fn remove(hk: &[u8], sk: &[u8]) -> Result<Request<()>, ClientError> {
    let (target, key) = record(hk, sk)?;
    Ok(Request::new(
        target,
        &codes::RPC_RRDB_RRDB_REMOVE,
        &key,
        Kind::Write,
        |a: UpdateResponse| ok(a.error),
    ))
}

/// Reads a record.
pub fn get(hk: &[u8], sk: &[u8]) -> Result<Request<Option<Bytes>>, ClientError> {
    let (target, key) = record(hk, sk)?;
    Ok(Request::new(target, &codes::RPC_RRDB_RRDB_GET, &key, Kind::Read, |a: ReadResponse| match a
        .error
    {
        status::OK => Ok(Some(a.value)),
        status::NOT_FOUND => Ok(None),
        error => Err(failed(error)),
    }))
}

/// Seconds a record has left: `None` when there is no such record, `Some(None)` when it lives for ever.
pub fn ttl(hk: &[u8], sk: &[u8]) -> Result<Request<Option<Option<u32>>>, ClientError> {
    let (target, key) = record(hk, sk)?;
    Ok(Request::new(target, &codes::RPC_RRDB_RRDB_TTL, &key, Kind::Read, |a: TtlResponse| match a
        .error
    {
        status::OK => Ok(Some(u32::try_from(a.ttl_seconds).ok())),
        status::NOT_FOUND => Ok(None),
        error => Err(failed(error)),
    }))
}

/// Adds to a decimal number; an absent record counts as 0. `expire_ts` 0 keeps the expiry, below 0 clears it.
pub fn incr(hk: &[u8], sk: &[u8], by: i64, expire_ts: i32) -> Result<Request<i64>, ClientError> {
    let (target, key) = record(hk, sk)?;
    let argument = IncrRequest { key, increment: by, expire_ts_seconds: expire_ts };
    Ok(Request::new(
        target,
        &codes::RPC_RRDB_RRDB_INCR,
        &argument,
        Kind::Write,
        |a: IncrResponse| ok(a.error).map(|()| a.new_value),
    ))
}

/// Sets several records of one hash key in one step.
pub fn multi_put(
    hk: &[u8],
    records: impl IntoIterator<Item = (Bytes, Bytes)>,
    expire_ts: i32,
) -> Result<Request<()>, ClientError> {
    let target = hash_only(hk)?;
    let kvs =
        records.into_iter().map(|(key, value)| KeyValue { key, value, ..KeyValue::default() });
    let argument = MultiPutRequest {
        hash_key: Bytes::copy_from_slice(hk),
        kvs: kvs.collect(),
        expire_ts_seconds: expire_ts,
    };
    Ok(Request::new(
        target,
        &codes::RPC_RRDB_RRDB_MULTI_PUT,
        &argument,
        Kind::Write,
        |a: UpdateResponse| ok(a.error),
    ))
}

/// Removes several records of one hash key in one step; the answer counts the keys given.
pub fn multi_remove(
    hk: &[u8],
    sort_keys: impl IntoIterator<Item = Bytes>,
) -> Result<Request<i64>, ClientError> {
    let target = hash_only(hk)?;
    let argument = MultiRemoveRequest {
        hash_key: Bytes::copy_from_slice(hk),
        sort_keys: sort_keys.into_iter().collect(),
        max_count: 0,
    };
    Ok(Request::new(
        target,
        &codes::RPC_RRDB_RRDB_MULTI_REMOVE,
        &argument,
        Kind::Write,
        |a: MultiRemoveResponse| ok(a.error).map(|()| a.count),
    ))
}

/// Which records [`multi_get`] reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MultiGet {
    /// These; when not empty, everything below but the limits and `no_value` is ignored.
    pub sort_keys: Vec<Bytes>,
    /// From here.
    pub start: Bytes,
    /// To here; empty is the end of the hash key.
    pub stop: Bytes,
    /// Whether `start` itself is in the range.
    pub start_inclusive: bool,
    /// Whether `stop` itself is in the range.
    pub stop_inclusive: bool,
    /// Only sort keys that match.
    pub filter: FilterType,
    /// What they must match.
    pub pattern: Bytes,
    /// From the end backwards; the answer is in ascending order all the same.
    pub reverse: bool,
    /// Only keys.
    pub no_value: bool,
    /// At most this many records; 0 leaves it to the server.
    pub max_count: i32,
    /// At most about this many bytes; 0 leaves it to the server.
    pub max_bytes: i32,
}

impl Default for MultiGet {
    fn default() -> Self {
        Self {
            sort_keys: Vec::new(),
            start: Bytes::new(),
            stop: Bytes::new(),
            start_inclusive: true,
            stop_inclusive: false,
            filter: FilterType::NoFilter,
            pattern: Bytes::new(),
            reverse: false,
            no_value: false,
            max_count: 0,
            max_bytes: 0,
        }
    }
}

/// What a limited read found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Sort keys and values, ascending.
    pub records: Vec<(Bytes, Bytes)>,
    /// Whether that is all; otherwise a limit ended it.
    pub complete: bool,
}

/// Reads several records of one hash key.
pub fn multi_get(hk: &[u8], what: &MultiGet) -> Result<Request<Found>, ClientError> {
    let target = hash_only(hk)?;
    let argument = MultiGetRequest {
        hash_key: Bytes::copy_from_slice(hk),
        sort_keys: what.sort_keys.iter().cloned().collect(),
        max_kv_count: what.max_count,
        max_kv_size: what.max_bytes,
        no_value: what.no_value,
        start_sortkey: what.start.clone(),
        stop_sortkey: what.stop.clone(),
        start_inclusive: what.start_inclusive,
        stop_inclusive: what.stop_inclusive,
        sort_key_filter_type: what.filter,
        sort_key_filter_pattern: what.pattern.clone(),
        reverse: what.reverse,
    };
    Ok(Request::new(
        target,
        &codes::RPC_RRDB_RRDB_MULTI_GET,
        &argument,
        Kind::RangeRead,
        |a: MultiGetResponse| {
            let complete = match a.error {
                status::OK => true,
                status::INCOMPLETE => false,
                error => return Err(failed(error)),
            };
            Ok(Found { records: a.kvs.iter().map(|kv| (kv.key, kv.value)).collect(), complete })
        },
    ))
}

/// A record by hash key, sort key and value.
pub type Record = (Bytes, Bytes, Bytes);

/// Reads named records of one partition; the caller groups keys by partition.
pub fn batch_get(partition: i32, keys: Vec<(Bytes, Bytes)>) -> Request<Vec<Record>> {
    let keys: List<FullKey> =
        keys.into_iter().map(|(hash_key, sort_key)| FullKey { hash_key, sort_key }).collect();
    let argument = BatchGetRequest { keys };
    let target = Target::Partition(partition);
    Request::new(
        target,
        &codes::RPC_RRDB_RRDB_BATCH_GET,
        &argument,
        Kind::Read,
        |a: BatchGetResponse| {
            ok(a.error)?;
            Ok(a.data.iter().map(|found| (found.hash_key, found.sort_key, found.value)).collect())
        },
    )
}

/// Counts the records of a hash key.
pub fn sortkey_count(hk: &[u8]) -> Result<Request<u64>, ClientError> {
    let target = hash_only(hk)?;
    let argument = Bytes::copy_from_slice(hk);
    Ok(Request::new(
        target,
        &codes::RPC_RRDB_RRDB_SORTKEY_COUNT,
        &argument,
        Kind::RangeRead,
        |a: CountResponse| {
            ok(a.error)?;
            u64::try_from(a.count).map_err(|_| failed(status::TIMED_OUT))
        },
    ))
}

/// A condition on a record of the hash key that is written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Sort key of the record looked at.
    pub sort_key: Bytes,
    /// How.
    pub kind: CasCheckType,
    /// Against what, where the kind wants something.
    pub operand: Bytes,
}

/// Outcome of a conditional write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Whether the condition held and the write was done.
    pub done: bool,
    /// The value looked at, as it was before; `None` when absent or not asked for.
    pub value: Option<Bytes>,
}

fn checked(error: i32, exist: bool, value: Bytes) -> Result<Checked, Reason> {
    let done = match error {
        status::OK => true,
        status::TRY_AGAIN => false,
        error => return Err(failed(error)),
    };
    Ok(Checked { done, value: exist.then_some(value) })
}

/// Sets a record if another (or the same) passes a check.
pub fn check_and_set(
    hk: &[u8],
    check: &Check,
    sort_key: &Bytes,
    value: Bytes,
    expire_ts: i32,
) -> Result<Request<Checked>, ClientError> {
    let target = hash_only(hk)?;
    let argument = CheckAndSetRequest {
        hash_key: Bytes::copy_from_slice(hk),
        check_sort_key: check.sort_key.clone(),
        check_type: check.kind,
        check_operand: check.operand.clone(),
        set_diff_sort_key: *sort_key != check.sort_key,
        set_sort_key: sort_key.clone(),
        set_value: value,
        set_expire_ts_seconds: expire_ts,
        return_check_value: true,
    };
    Ok(Request::new(
        target,
        &codes::RPC_RRDB_RRDB_CHECK_AND_SET,
        &argument,
        Kind::Write,
        |a: CheckAndSetResponse| checked(a.error, a.check_value_exist, a.check_value),
    ))
}

/// Puts and removes several records of one hash key if one of them passes a check.
pub fn check_and_mutate(
    hk: &[u8],
    check: &Check,
    mutations: Vec<Mutate>,
) -> Result<Request<Checked>, ClientError> {
    let target = hash_only(hk)?;
    let argument = CheckAndMutateRequest {
        hash_key: Bytes::copy_from_slice(hk),
        check_sort_key: check.sort_key.clone(),
        check_type: check.kind,
        check_operand: check.operand.clone(),
        mutate_list: mutations.into(),
        return_check_value: true,
    };
    Ok(Request::new(
        target,
        &codes::RPC_RRDB_RRDB_CHECK_AND_MUTATE,
        &argument,
        Kind::Write,
        |a: CheckAndMutateResponse| checked(a.error, a.check_value_exist, a.check_value),
    ))
}

/// One batch of a scan.
#[derive(Clone, Debug, Default)]
pub(crate) struct Batch {
    /// Full keys, values, expiry.
    pub(crate) rows: Vec<KeyValue>,
    /// Where to go on; below 0 when the partition is done.
    pub(crate) context: i64,
    /// Whether the context is lost and the scan must be opened again behind the last row.
    pub(crate) reopen: bool,
}

fn batch(a: ScanResponse) -> Result<Batch, Reason> {
    let reopen = match a.error {
        status::OK => false,
        // The context is gone, or the time limit ended the batch without one.
        status::NOT_FOUND | status::INCOMPLETE => true,
        error => return Err(failed(error)),
    };
    Ok(Batch { rows: a.kvs.to_vec(), context: a.context_id, reopen })
}

pub(crate) fn get_scanner(partition: i32, argument: &GetScannerRequest) -> Request<Batch> {
    Request::new(
        Target::Partition(partition),
        &codes::RPC_RRDB_RRDB_GET_SCANNER,
        argument,
        Kind::RangeRead,
        batch,
    )
}

pub(crate) fn scan(partition: i32, context_id: i64) -> Request<Batch> {
    let argument = ScanRequest { context_id };
    Request::new(
        Target::Partition(partition),
        &codes::RPC_RRDB_RRDB_SCAN,
        &argument,
        Kind::RangeRead,
        batch,
    )
}
