//! multi_get: named records of a hash key, or a range of its sort keys.
//!
//! Always ascending, also when the range is walked backwards from its end. "Incomplete" goes with what
//! was found before a limit was reached. The record that reaches the byte limit is still part
//! of the answer.

use bytes::{Bytes, BytesMut};
use dsn_rpc::thrift::{Encode, decode_wrapped};
use pegasus_client::schema::rrdb::{KeyValueRef, MultiGetRequest, status};
use pegasus_client::schema::{key, time};

use super::abnormal::Cost;
use super::filter::Filter;
use super::limiter::Limiter;
use super::response::{ListResponse, finish};
use super::walk::{FarEnd, Row, Walked, skip_excluded, walk};
use super::{Call, Failure};
use crate::engine::{Direction, Scope};

pub(super) fn answer(call: &Call<'_>, out: &mut BytesMut) -> Result<(), Failure> {
    let request: MultiGetRequest = decode_wrapped(call.body)?;
    let mut response = ListResponse::begin(out);
    let mut read = Read { call, request: &request, response: &mut response, bytes: 0, examined: 0 };
    let error = if request.sort_keys.is_empty() { read.range()? } else { read.named_records()? };
    let bytes = read.bytes;
    call.cost.set(Cost { bytes, rows: read.examined });
    let found = response.count();
    let identity = &call.service.identity;
    let mut writer = response.end(error);
    identity.app_id.write_as_field(3, &mut writer);
    identity.partition_index.write_as_field(4, &mut writer);
    identity.server.write_as_field(6, &mut writer);
    finish(writer);
    let metrics = &call.service.metrics;
    metrics.multi_get_requests.increment();
    metrics.multi_get_bytes.add(bytes + (found * request.hash_key.len()) as u64);
    Ok(())
}

struct Read<'a, 'b, 'out> {
    call: &'a Call<'b>,
    request: &'a MultiGetRequest,
    response: &'a mut ListResponse<'out>,
    /// Sort keys and values found.
    bytes: u64,
    /// Records looked up or passed by.
    examined: u64,
}

/// A range of raw keys.
struct Range {
    start: Bytes,
    start_inclusive: bool,
    stop: Bytes,
    stop_inclusive: bool,
}

impl Range {
    fn is_empty(&self) -> bool {
        let both = self.start_inclusive && self.stop_inclusive;
        self.start > self.stop || (self.start == self.stop && !both)
    }
}

impl Read<'_, '_, '_> {
    fn count_max(&self) -> u32 {
        let own = self.call.service.options.rocksdb_multi_get_max_iteration_count.get();
        u32::try_from(self.request.max_kv_count)
            .ok()
            .filter(|max| *max > 0)
            .map_or(own, |max| max.min(own))
    }

    fn bytes_max(&self) -> u64 {
        u64::try_from(self.request.max_kv_size).ok().filter(|max| *max > 0).unwrap_or(u64::MAX)
    }

    fn named_records(&mut self) -> Result<i32, Failure> {
        let (count_max, bytes_max) = (self.count_max() as usize, self.bytes_max());
        let hash_key = &self.request.hash_key;
        let mut raw_key = Vec::new();
        if key::append_key(hash_key, &[], &mut raw_key).is_err() {
            return Ok(status::OK);
        }
        let sort_key_at = raw_key.len();
        let mut full = false;
        for sort_key in &self.request.sort_keys {
            raw_key.truncate(sort_key_at);
            raw_key.extend_from_slice(&sort_key);
            let (response, bytes) = (&mut *self.response, &mut self.bytes);
            self.examined += 1;
            let no_value = self.request.no_value;
            self.call.live_record(&raw_key, |_, data| {
                full = response.count() >= count_max || *bytes >= bytes_max;
                if !full {
                    let value = if no_value { &[] } else { data };
                    response.push(&KeyValueRef { key: &sort_key, value, expire_ts_seconds: None });
                    *bytes += (sort_key.len() + value.len()) as u64;
                }
            })?;
            if full {
                return Ok(status::INCOMPLETE);
            }
        }
        Ok(status::OK)
    }

    fn range(&mut self) -> Result<i32, Failure> {
        let request = self.request;
        let Some(filter) =
            Filter::new(request.sort_key_filter_type, &request.sort_key_filter_pattern)
        else {
            return Ok(status::INVALID_ARGUMENT);
        };
        let range = match range_of(request, &filter) {
            Some(range) if !range.is_empty() => range,
            _ => return Ok(status::OK),
        };
        let direction = if request.reverse { Direction::Reverse } else { Direction::Forward };
        let (near, near_inclusive, far) = match direction {
            Direction::Forward => {
                let far = FarEnd { key: range.stop, inclusive: range.stop_inclusive, direction };
                (range.start, range.start_inclusive, far)
            }
            Direction::Reverse => {
                let far = FarEnd { key: range.start, inclusive: range.start_inclusive, direction };
                (range.stop, range.stop_inclusive, far)
            }
        };
        let service = self.call.service;
        let options = &service.options;
        let count_max = self.count_max();
        let examined_max = options.rocksdb_multi_get_max_iteration_count.get();
        let bytes_max =
            self.bytes_max().min(options.rocksdb_multi_get_max_iteration_size.get().get());
        let mut limiter = Limiter::new(self.call, examined_max.into(), bytes_max, examined_max);
        let mut iter = service.engine.iter(&near, direction, Scope::SameHashKey);
        skip_excluded(&mut *iter, &near, near_inclusive);
        let sort_key_at = key::LENGTH_PREFIX + request.hash_key.len();
        let mut positions = Vec::new();
        let response = &mut *self.response;
        let now = self.call.now;
        let visit = |raw_key: &[u8], stored: &[u8]| {
            let (expire_ts, data) = service.version.split_value(stored)?;
            if time::is_expired(expire_ts, now) {
                return Ok(Row::Expired);
            }
            let sort_key = &raw_key[sort_key_at.min(raw_key.len())..];
            if !filter.passes(sort_key) {
                return Ok(Row::Filtered);
            }
            if direction == Direction::Reverse {
                positions.push(response.position());
            }
            let value = if request.no_value { &[] } else { data };
            response.push(&KeyValueRef { key: sort_key, value, expire_ts_seconds: None });
            Ok(Row::Taken((sort_key.len() + value.len()) as u64))
        };
        let walked =
            walk(&mut *iter, &far, count_max.into(), &mut limiter, &service.metrics, visit)?;
        if direction == Direction::Reverse {
            self.response.reverse(&positions);
        }
        (self.bytes, self.examined) = (limiter.bytes(), limiter.examined());
        Ok(if walked == Walked::ToALimit { status::INCOMPLETE } else { status::OK })
    }
}

/// The range a request asks for, narrowed by a prefix filter; `None` when its hash key cannot exist.
fn range_of(request: &MultiGetRequest, filter: &Filter) -> Option<Range> {
    let hash_key = &request.hash_key;
    let to_the_end = request.stop_sortkey.is_empty();
    let mut range = Range {
        start: key::encode_key(hash_key, &request.start_sortkey).ok()?,
        start_inclusive: request.start_inclusive,
        stop: if to_the_end {
            key::next_of_hash_key(hash_key).ok()?
        } else {
            key::encode_key(hash_key, &request.stop_sortkey).ok()?
        },
        stop_inclusive: request.stop_inclusive && !to_the_end,
    };
    if let Some(prefix) = filter.prefix() {
        let first = key::encode_key(hash_key, prefix).ok()?;
        if first > range.start {
            (range.start, range.start_inclusive) = (first, true);
        }
        let after = key::next_of_prefix(hash_key, prefix).ok()?;
        if after <= range.stop {
            (range.stop, range.stop_inclusive) = (after, false);
        }
    }
    Some(range)
}
