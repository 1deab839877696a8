//! get_scanner, scan, clear_scanner: a range of raw keys in batches.
//!
//! Opening a scan answers with its first batch. When there is more, the iterator stays here under an id,
//! and with it the snapshot: all batches show one state. An id is good for one use; each
//! batch that leaves something over comes with the next id. An answer without records but with an id is
//! normal: filters may pass over a whole batch.
//!
//! A batch that ran out of time answers "incomplete" and leaves nothing behind; the client opens a new
//! scan after the last key it got.

use bytes::{Bytes, BytesMut};
use dsn_rpc::thrift::{Encode, decode_wrapped};
use pegasus_client::schema::rrdb::{
    GetScannerRequest, KeyValueRef, ScanRequest, scan_context, status,
};
use pegasus_client::schema::{key, partition_hash, time};

use super::filter::Filter;
use super::limiter::Limiter;
use super::response::{ListResponse, finish};
use super::walk::{FarEnd, Row, Walked, skip_excluded, walk};
use super::{Call, Failure};
use crate::engine::{Direction, EngineError, EngineIter, Scope, prefix};

/// Id in an answer that has no other, for want of records or of time.
const NO_CONTEXT: i64 = 0;

/// An open scan.
pub struct Scan {
    iter: Box<dyn EngineIter>,
    far: FarEnd,
    /// Records per batch.
    batch_size: u32,
    shape: Shape,
}

/// Which records a scan shows, and what of them.
struct Shape {
    hash_key: Filter,
    sort_key: Filter,
    no_value: bool,
    validate_hash: bool,
    return_expire_ts: bool,
    only_count: bool,
}

/// Outcome of one batch.
struct Batch {
    error: i32,
    context_id: i64,
}

/// Opens a scan and answers with its first batch.
pub(super) fn open(call: &Call<'_>, out: &mut BytesMut) -> Result<(), Failure> {
    let request: GetScannerRequest = decode_wrapped(call.body)?;
    let only_count = request.only_return_count;
    let mut response = ListResponse::begin(out);
    let mut count = 0;
    let batch = match scan_of(call, &request) {
        Opened::NoSuchFilter => Batch { error: status::INVALID_ARGUMENT, context_id: NO_CONTEXT },
        Opened::Empty => Batch { error: status::OK, context_id: scan_context::COMPLETED },
        Opened::Scan(scan) => {
            let examined_max = call.service.options.rocksdb_max_iteration_count.get();
            run(call, scan, examined_max, &mut response, &mut count)?
        }
    };
    respond(call, response, &batch, only_count.then_some(count));
    Ok(())
}

/// Answers with the next batch of an open scan.
pub(super) fn next(call: &Call<'_>, out: &mut BytesMut) -> Result<(), Failure> {
    let request: ScanRequest = decode_wrapped(call.body)?;
    let mut response = ListResponse::begin(out);
    let mut count = 0;
    let (batch, only_count) = match call.service.scans.take(request.context_id, (call.clock)()) {
        None => (Batch { error: status::NOT_FOUND, context_id: NO_CONTEXT }, false),
        Some(scan) => {
            let only_count = scan.shape.only_count;
            let examined_max = scan.batch_size;
            (run(call, scan, examined_max, &mut response, &mut count)?, only_count)
        }
    };
    respond(call, response, &batch, only_count.then_some(count));
    Ok(())
}

/// Forgets a scan.
pub(super) fn clear(call: &Call<'_>) -> Result<(), Failure> {
    let context_id: i64 = decode_wrapped(call.body)?;
    drop(call.service.scans.take(context_id, (call.clock)()));
    Ok(())
}

enum Opened {
    NoSuchFilter,
    Empty,
    Scan(Scan),
}

fn scan_of(call: &Call<'_>, request: &GetScannerRequest) -> Opened {
    let hash_key = Filter::new(request.hash_key_filter_type, &request.hash_key_filter_pattern);
    let sort_key = Filter::new(request.sort_key_filter_type, &request.sort_key_filter_pattern);
    let (Some(hash_key), Some(sort_key)) = (hash_key, sort_key) else {
        return Opened::NoSuchFilter;
    };
    let (mut start, mut start_inclusive) = (request.start_key.clone(), request.start_inclusive);
    let first = hash_key.prefix().and_then(|prefix| key::encode_key(prefix, &[]).ok());
    if let Some(first) = first.filter(|first| *first > start) {
        (start, start_inclusive) = (first, true);
    }
    // Neither end may reach the record of the heartbeats, which is no record.
    if !prefix::in_domain(&start) {
        (start, start_inclusive) = (Bytes::from_static(key::SCAN_START), true);
    }
    let both = start_inclusive && request.stop_inclusive;
    if start > request.stop_key || (start == request.stop_key && !both) {
        return Opened::Empty;
    }
    let scope = if request.full_scan != Some(true) && within_one_hash_key(&start, request) {
        Scope::SameHashKey
    } else {
        Scope::All
    };
    let service = call.service;
    let mut iter = service.engine.iter(&start, Direction::Forward, scope);
    skip_excluded(&mut *iter, &start, start_inclusive);
    let own = service.options.rocksdb_max_iteration_count.get();
    let asked = u32::try_from(request.batch_size).ok().filter(|size| *size > 0);
    Opened::Scan(Scan {
        iter,
        far: FarEnd {
            // Copied: the request's memory must not be kept for as long as the scan may live.
            key: Bytes::copy_from_slice(&request.stop_key),
            inclusive: request.stop_inclusive,
            direction: Direction::Forward,
        },
        batch_size: asked.map_or(own, |size| size.min(own)),
        shape: Shape {
            hash_key,
            sort_key,
            no_value: request.no_value,
            validate_hash: request.validate_partition_hash.unwrap_or(true),
            return_expire_ts: request.return_expire_ts.unwrap_or(false),
            only_count: request.only_return_count,
        },
    })
}

/// Whether a range from `start` shows records of its hash key only. An empty hash key is never taken
/// for one: that is how scans over everything begin.
fn within_one_hash_key(start: &[u8], request: &GetScannerRequest) -> bool {
    let Ok((hash_key, _)) = key::split_key(start) else { return false };
    if hash_key.is_empty() {
        return false;
    }
    key::next_of_hash_key(hash_key).is_ok_and(|next| {
        request.stop_key < next || (request.stop_key == next && !request.stop_inclusive)
    })
}

/// Produces one batch, and keeps the scan if something is left.
fn run(
    call: &Call<'_>,
    mut scan: Scan,
    examined_max: u32,
    response: &mut ListResponse<'_>,
    count: &mut i32,
) -> Result<Batch, Failure> {
    let service = call.service;
    let mut limiter = Limiter::new(call, examined_max.into(), u64::MAX, examined_max);
    let Scan { iter, far, batch_size, shape } = &mut scan;
    let mut bytes = 0;
    let visit = |raw_key: &[u8], stored: &[u8]| {
        let row = shape.show(call, raw_key, stored, response)?;
        if let Row::Taken(size) = row {
            *count += 1;
            bytes += size;
        }
        Ok(row)
    };
    let walked =
        walk(&mut **iter, far, (*batch_size).into(), &mut limiter, &service.metrics, visit)?;
    service.metrics.scan_bytes.add(bytes);
    Ok(match walked {
        Walked::ToTheEnd => Batch { error: status::OK, context_id: scan_context::COMPLETED },
        Walked::ToALimit if limiter.check_time() => {
            Batch { error: status::INCOMPLETE, context_id: NO_CONTEXT }
        }
        Walked::ToALimit => {
            Batch { error: status::OK, context_id: service.scans.put(scan, (call.clock)()) }
        }
    })
}

impl Shape {
    /// Adds a record to the answer, unless something is against it.
    fn show(
        &self,
        call: &Call<'_>,
        raw_key: &[u8],
        stored: &[u8],
        response: &mut ListResponse<'_>,
    ) -> Result<Row, EngineError> {
        let (expire_ts, data) = call.service.version.split_value(stored)?;
        if time::is_expired(expire_ts, call.now) {
            return Ok(Row::Expired);
        }
        if self.validate_hash
            && let Some(version) = call.service.settings.partition_check()
            && !owned(raw_key, version, call.service.identity.partition_index)
        {
            return Ok(Row::Filtered);
        }
        if !self.passes(raw_key) {
            return Ok(Row::Filtered);
        }
        let value = if self.no_value { &[] } else { data };
        if !self.only_count {
            let expire_ts_seconds = self.return_expire_ts.then_some(expire_ts as i32);
            response.push(&KeyValueRef { key: raw_key, value, expire_ts_seconds });
        }
        Ok(Row::Taken((raw_key.len() + value.len()) as u64))
    }

    fn passes(&self, raw_key: &[u8]) -> bool {
        if self.hash_key.passes_all() && self.sort_key.passes_all() {
            return true;
        }
        key::split_key(raw_key).is_ok_and(|(hash_key, sort_key)| {
            self.hash_key.passes(hash_key) && self.sort_key.passes(sort_key)
        })
    }
}

/// Whether the record is this partition's when there are `version + 1` of them. Nothing is, for a
/// partition that does not exist then.
fn owned(raw_key: &[u8], version: i32, partition_index: i32) -> bool {
    let (Ok(mask), Ok(index)) = (u64::try_from(version), u64::try_from(partition_index)) else {
        return false;
    };
    index <= mask && partition_hash::of_raw_key(raw_key).is_some_and(|hash| hash & mask == index)
}

fn respond(call: &Call<'_>, response: ListResponse<'_>, batch: &Batch, kv_count: Option<i32>) {
    let identity = &call.service.identity;
    let mut writer = response.end(batch.error);
    batch.context_id.write_as_field(3, &mut writer);
    identity.app_id.write_as_field(4, &mut writer);
    identity.partition_index.write_as_field(5, &mut writer);
    identity.server.write_as_field(6, &mut writer);
    if let Some(count) = kv_count {
        count.write_as_field(7, &mut writer);
    }
    finish(writer);
    let metrics = &call.service.metrics;
    metrics.scan_requests.increment();
    metrics.open_scans.set_u64(call.service.scans.len() as u64);
}
