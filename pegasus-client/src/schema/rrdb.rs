//! Requests and responses of the data RPCs.
//!
//! Besides these, `remove`, `get` and `ttl` take a full key, `sortkey_count` a hash key (both a
//! bare [`Blob`]) and `clear_scanner` an `i64`. Response field `error` is a RocksDB status number,
//! see [`status`]. The field numbered 5 of read responses is unused.

use dsn_rpc::task_code::TaskCode;
use dsn_rpc::thrift::{Blob, Encode, List, Text, Writer, ttype};
use dsn_rpc::{message, wire_enum};

/// Values of the `error` field of responses.
pub mod status {
    /// Success.
    pub const OK: i32 = 0;
    /// No such record, or it has expired; unknown scan context.
    pub const NOT_FOUND: i32 = 1;
    /// The engine found corrupt data.
    pub const CORRUPTION: i32 = 2;
    /// Not supported by the engine.
    pub const NOT_SUPPORTED: i32 = 3;
    /// The request makes no sense.
    pub const INVALID_ARGUMENT: i32 = 4;
    /// The disk failed.
    pub const IO_ERROR: i32 = 5;
    /// A limit was reached; the data is valid but there is more.
    pub const INCOMPLETE: i32 = 7;
    /// The engine is closing.
    pub const SHUTDOWN_IN_PROGRESS: i32 = 8;
    /// The engine gave up waiting.
    pub const TIMED_OUT: i32 = 9;
    /// Aborted.
    pub const ABORTED: i32 = 10;
    /// The engine is busy.
    pub const BUSY: i32 = 11;
    /// Expired.
    pub const EXPIRED: i32 = 12;
    /// The check of a check-and-... request did not pass.
    pub const TRY_AGAIN: i32 = 13;

    /// What a value means, for people.
    #[must_use]
    pub const fn name(value: i32) -> &'static str {
        match value {
            OK => "ok",
            NOT_FOUND => "not found",
            CORRUPTION => "corruption",
            NOT_SUPPORTED => "not supported",
            INVALID_ARGUMENT => "invalid argument",
            IO_ERROR => "i/o error",
            INCOMPLETE => "incomplete",
            SHUTDOWN_IN_PROGRESS => "shutting down",
            TIMED_OUT => "timed out",
            ABORTED => "aborted",
            BUSY => "busy",
            EXPIRED => "expired",
            TRY_AGAIN => "check not passed",
            _ => "unknown",
        }
    }
}

/// Special values of scan context ids; real ones are not negative.
pub mod scan_context {
    /// Nothing more to scan.
    pub const COMPLETED: i64 = -1;
    /// Used by clients for a context that is gone.
    pub const NOT_EXIST: i64 = -2;
    /// The last of the numbers that are no context. Below are contexts again: the original draws them at random, and
    /// every other one is negative.
    pub const LAST_SPECIAL: i64 = -3;

    /// Whether a scan goes on under `id`.
    #[must_use]
    pub const fn is_valid(id: i64) -> bool {
        id >= 0 || id < LAST_SPECIAL
    }
}

wire_enum! {
    /// How a key must match a pattern.
    pub enum FilterType {
        NoFilter = 0 => "FT_NO_FILTER",
        Anywhere = 1 => "FT_MATCH_ANYWHERE",
        Prefix = 2 => "FT_MATCH_PREFIX",
        Postfix = 3 => "FT_MATCH_POSTFIX",
    }

    /// Condition of a check-and-... request.
    pub enum CasCheckType {
        NoCheck = 0 => "CT_NO_CHECK",
        ValueNotExist = 1 => "CT_VALUE_NOT_EXIST",
        ValueNotExistOrEmpty = 2 => "CT_VALUE_NOT_EXIST_OR_EMPTY",
        ValueExist = 3 => "CT_VALUE_EXIST",
        ValueNotEmpty = 4 => "CT_VALUE_NOT_EMPTY",
        ValueMatchAnywhere = 5 => "CT_VALUE_MATCH_ANYWHERE",
        ValueMatchPrefix = 6 => "CT_VALUE_MATCH_PREFIX",
        ValueMatchPostfix = 7 => "CT_VALUE_MATCH_POSTFIX",
        ValueBytesLess = 8 => "CT_VALUE_BYTES_LESS",
        ValueBytesLessOrEqual = 9 => "CT_VALUE_BYTES_LESS_OR_EQUAL",
        ValueBytesEqual = 10 => "CT_VALUE_BYTES_EQUAL",
        ValueBytesGreaterOrEqual = 11 => "CT_VALUE_BYTES_GREATER_OR_EQUAL",
        ValueBytesGreater = 12 => "CT_VALUE_BYTES_GREATER",
        ValueIntLess = 13 => "CT_VALUE_INT_LESS",
        ValueIntLessOrEqual = 14 => "CT_VALUE_INT_LESS_OR_EQUAL",
        ValueIntEqual = 15 => "CT_VALUE_INT_EQUAL",
        ValueIntGreaterOrEqual = 16 => "CT_VALUE_INT_GREATER_OR_EQUAL",
        ValueIntGreater = 17 => "CT_VALUE_INT_GREATER",
    }

    /// What one part of a check-and-mutate does.
    pub enum MutateOperation {
        Put = 0 => "MO_PUT",
        Delete = 1 => "MO_DELETE",
    }

    /// What an update was before the primary made it idempotent.
    pub enum UpdateType {
        Put = 0 => "UT_PUT",
        Incr = 1 => "UT_INCR",
        CheckAndSet = 2 => "UT_CHECK_AND_SET",
        CheckAndMutatePut = 3 => "UT_CHECK_AND_MUTATE_PUT",
        CheckAndMutateRemove = 4 => "UT_CHECK_AND_MUTATE_REMOVE",
    }
}

message! {
    /// Sets one record.
    pub struct UpdateRequest {
        /// Full key.
        1: key: Blob,
        2: value: Blob,
        /// Pegasus time, 0 = never.
        3: expire_ts_seconds: i32,
        /// Set only between replicas, like the fields that follow.
        4: update_type: Option<UpdateType>,
        5: check_value_returned: Option<bool>,
        6: check_value_exist: Option<bool>,
        7: check_value: Option<Blob>,
    }

    /// Outcome of put, multi_put and remove.
    pub struct UpdateResponse {
        1: error: i32,
        2: app_id: i32,
        3: partition_index: i32,
        4: decree: i64,
        5: server: Text,
    }

    /// Outcome of get. Servers answer with [`ReadResponseRef`].
    pub struct ReadResponse {
        1: error: i32,
        2: value: Blob,
        3: app_id: i32,
        4: partition_index: i32,
        6: server: Text,
    }

    /// Outcome of ttl.
    pub struct TtlResponse {
        1: error: i32,
        /// Seconds left, -1 without expiry.
        2: ttl_seconds: i32,
        3: app_id: i32,
        4: partition_index: i32,
        6: server: Text,
    }

    /// Outcome of sortkey_count.
    pub struct CountResponse {
        1: error: i32,
        /// -1 when the time limit was reached.
        2: count: i64,
        3: app_id: i32,
        4: partition_index: i32,
        6: server: Text,
    }

    /// One record.
    pub struct KeyValue {
        /// Sort key in multi_put and multi_get, full key in scans.
        1: key: Blob,
        2: value: Blob,
        3: expire_ts_seconds: Option<i32>,
    }

    /// Sets several records of one hash key.
    pub struct MultiPutRequest {
        1: hash_key: Blob,
        2: kvs: List<KeyValue>,
        /// Of all of them; Pegasus time, 0 = never.
        3: expire_ts_seconds: i32,
    }

    /// Removes several records of one hash key.
    pub struct MultiRemoveRequest {
        1: hash_key: Blob,
        2: sort_keys: List<Blob>,
        /// Ignored.
        3: max_count: i64,
    }

    /// Outcome of multi_remove.
    pub struct MultiRemoveResponse {
        1: error: i32,
        /// Sort keys given, whether they existed or not.
        2: count: i64,
        3: app_id: i32,
        4: partition_index: i32,
        5: decree: i64,
        6: server: Text,
    }

    /// Reads named records, or a range, of one hash key.
    pub struct MultiGetRequest {
        1: hash_key: Blob,
        /// When given, everything about ranges is ignored.
        2: sort_keys: List<Blob>,
        3: max_kv_count: i32,
        4: max_kv_size: i32,
        5: no_value: bool,
        6: start_sortkey: Blob,
        /// Empty = to the end of the hash key.
        7: stop_sortkey: Blob,
        8: start_inclusive: bool,
        9: stop_inclusive: bool,
        10: sort_key_filter_type: FilterType,
        11: sort_key_filter_pattern: Blob,
        12: reverse: bool,
    }

    /// Outcome of multi_get.
    pub struct MultiGetResponse {
        1: error: i32,
        2: kvs: List<KeyValue>,
        3: app_id: i32,
        4: partition_index: i32,
        6: server: Text,
    }

    /// Names one record.
    pub struct FullKey { 1: hash_key: Blob, 2: sort_key: Blob }

    /// Reads named records of one partition.
    pub struct BatchGetRequest { 1: keys: List<FullKey> }

    /// One record found by batch_get.
    pub struct FullData { 1: hash_key: Blob, 2: sort_key: Blob, 3: value: Blob }

    /// Outcome of batch_get: what was found.
    pub struct BatchGetResponse {
        1: error: i32,
        2: data: List<FullData>,
        3: app_id: i32,
        4: partition_index: i32,
        6: server: Text,
    }

    /// Adds to a decimal number.
    pub struct IncrRequest {
        /// Full key.
        1: key: Blob,
        2: increment: i64,
        /// Pegasus time; 0 keeps the expiry, below 0 clears it.
        3: expire_ts_seconds: i32,
    }

    /// Outcome of incr.
    pub struct IncrResponse {
        1: error: i32,
        2: new_value: i64,
        3: app_id: i32,
        4: partition_index: i32,
        5: decree: i64,
        6: server: Text,
    }

    /// Sets one record if another (or the same) passes a check.
    pub struct CheckAndSetRequest {
        1: hash_key: Blob,
        2: check_sort_key: Blob,
        3: check_type: CasCheckType,
        4: check_operand: Blob,
        /// Whether `set_sort_key` differs from `check_sort_key`.
        5: set_diff_sort_key: bool,
        6: set_sort_key: Blob,
        7: set_value: Blob,
        8: set_expire_ts_seconds: i32,
        9: return_check_value: bool,
    }

    /// Outcome of check_and_set.
    pub struct CheckAndSetResponse {
        1: error: i32,
        2: check_value_returned: bool,
        3: check_value_exist: bool,
        4: check_value: Blob,
        5: app_id: i32,
        6: partition_index: i32,
        7: decree: i64,
        8: server: Text,
    }

    /// One part of a check-and-mutate.
    pub struct Mutate {
        1: operation: MutateOperation,
        2: sort_key: Blob,
        3: value: Blob,
        4: set_expire_ts_seconds: i32,
    }

    /// Puts and removes several records of one hash key if one of them passes a check.
    pub struct CheckAndMutateRequest {
        1: hash_key: Blob,
        2: check_sort_key: Blob,
        3: check_type: CasCheckType,
        4: check_operand: Blob,
        5: mutate_list: List<Mutate>,
        6: return_check_value: bool,
    }

    /// Outcome of check_and_mutate.
    pub struct CheckAndMutateResponse {
        1: error: i32,
        2: check_value_returned: bool,
        3: check_value_exist: bool,
        4: check_value: Blob,
        5: app_id: i32,
        6: partition_index: i32,
        7: decree: i64,
        8: server: Text,
    }

    /// Opens a scan over a range of full keys.
    pub struct GetScannerRequest {
        1: start_key: Blob,
        2: stop_key: Blob,
        3: start_inclusive: bool,
        4: stop_inclusive: bool,
        5: batch_size: i32,
        6: no_value: bool,
        7: hash_key_filter_type: FilterType,
        8: hash_key_filter_pattern: Blob,
        9: sort_key_filter_type: FilterType,
        10: sort_key_filter_pattern: Blob,
        /// Absent means true.
        11: validate_partition_hash: Option<bool>,
        12: return_expire_ts: Option<bool>,
        13: full_scan: Option<bool>,
        14: only_return_count: bool,
    }

    /// Asks for the next batch of a scan.
    pub struct ScanRequest { 1: context_id: i64 }

    /// One batch of a scan.
    pub struct ScanResponse {
        1: error: i32,
        2: kvs: List<KeyValue>,
        /// See [`scan_context`].
        3: context_id: i64,
        4: app_id: i32,
        5: partition_index: i32,
        6: server: Text,
        /// Set when only the count was asked for.
        7: kv_count: Option<i32>,
    }

    /// Writes of another cluster.
    pub struct DuplicateRequest { 1: entries: List<DuplicateEntry> }

    /// One write of another cluster.
    pub struct DuplicateEntry {
        /// Microseconds since the Unix epoch.
        1: timestamp: Option<i64>,
        2: task_code: Option<TaskCode>,
        /// The wrapped request.
        3: raw_message: Option<Blob>,
        4: cluster_id: Option<i8>,
        5: verify_timetag: Option<bool>,
    }

    /// Outcome of duplicate.
    pub struct DuplicateResponse {
        1: error: Option<i32>,
        2: error_hint: Option<String>,
    }
}

/// A [`ReadResponse`] that is written straight from borrowed memory, such as a pinned block of the
/// engine.
#[derive(Clone, Copy, Debug)]
pub struct ReadResponseRef<'a> {
    /// RocksDB status.
    pub error: i32,
    /// The value, empty when there is none.
    pub value: &'a [u8],
    /// Table.
    pub app_id: i32,
    /// Partition.
    pub partition_index: i32,
    /// `host:port` of this server.
    pub server: &'a str,
}

impl Encode for ReadResponseRef<'_> {
    const TTYPE: u8 = ttype::STRUCT;

    #[inline]
    fn write(&self, w: &mut Writer<'_>) {
        w.buffer().reserve(32 + self.value.len() + self.server.len());
        self.error.write_as_field(1, w);
        w.bytes_field(ttype::STRUCT, 2, self.value);
        self.app_id.write_as_field(3, w);
        self.partition_index.write_as_field(4, w);
        w.bytes_field(ttype::STRING, 6, self.server.as_bytes());
        w.stop();
    }
}

/// A [`KeyValue`] that is written straight from borrowed memory, into a list that
/// [`Writer::begin_list`] opened.
#[derive(Clone, Copy, Debug)]
pub struct KeyValueRef<'a> {
    /// Sort key or full key.
    pub key: &'a [u8],
    /// The value, empty when it was not asked for.
    pub value: &'a [u8],
    /// Pegasus time, when asked for.
    pub expire_ts_seconds: Option<i32>,
}

impl Encode for KeyValueRef<'_> {
    const TTYPE: u8 = ttype::STRUCT;

    #[inline]
    fn write(&self, w: &mut Writer<'_>) {
        w.buffer().reserve(22 + self.key.len() + self.value.len());
        w.bytes_field(ttype::STRUCT, 1, self.key);
        w.bytes_field(ttype::STRUCT, 2, self.value);
        if let Some(expire_ts) = self.expire_ts_seconds {
            expire_ts.write_as_field(3, w);
        }
        w.stop();
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use dsn_rpc::thrift::encode;

    use super::*;

    fn bytes_of<T: Encode>(value: &T) -> Bytes {
        let mut out = BytesMut::new();
        encode(value, &mut out);
        out.freeze()
    }

    #[test]
    fn borrowed_forms_write_what_the_messages_write() {
        let owned = ReadResponse {
            error: 1,
            value: Blob::from_static(b"value"),
            app_id: 2,
            partition_index: 3,
            server: Text::from_static("127.0.0.1:34801"),
        };
        let borrowed = ReadResponseRef {
            error: 1,
            value: b"value",
            app_id: 2,
            partition_index: 3,
            server: "127.0.0.1:34801",
        };
        assert_eq!(bytes_of(&borrowed), bytes_of(&owned));
        for expire_ts_seconds in [None, Some(9)] {
            let owned = KeyValue {
                key: Blob::from_static(b"k"),
                value: Blob::from_static(b"v"),
                expire_ts_seconds,
            };
            let borrowed = KeyValueRef { key: b"k", value: b"v", expire_ts_seconds };
            assert_eq!(bytes_of(&borrowed), bytes_of(&owned));
        }
    }
}
