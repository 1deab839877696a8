//! sortkey_count: the number of records of a hash key. Bounded by time only; a count that was not
//! finished in time is -1, without an error.

use bytes::BytesMut;
use dsn_rpc::thrift::{RESULT_ID, encode_wrapped};
use pegasus_client::schema::rrdb::{CountResponse, status};
use pegasus_client::schema::{key, time};

use super::limiter::Limiter;
use super::walk::{FarEnd, Row, Walked, walk};
use super::{Call, Failure};
use crate::body::wrapped_bytes;
use crate::engine::{Direction, Scope};

/// What stands for a count that was not finished in time.
const UNFINISHED: i64 = -1;

pub(super) fn answer(call: &Call<'_>, out: &mut BytesMut) -> Result<(), Failure> {
    let hash_key = wrapped_bytes(call.body)?;
    let identity = &call.service.identity;
    let response = CountResponse {
        error: status::OK,
        count: count(call, hash_key)?,
        app_id: identity.app_id,
        partition_index: identity.partition_index,
        server: identity.server.clone(),
    };
    encode_wrapped(&response, RESULT_ID, out);
    call.service.metrics.multi_get_requests.increment();
    Ok(())
}

fn count(call: &Call<'_>, hash_key: &[u8]) -> Result<i64, Failure> {
    let (Ok(start), Ok(stop)) = (key::encode_key(hash_key, &[]), key::next_of_hash_key(hash_key))
    else {
        return Ok(0);
    };
    let service = call.service;
    let usual = service.options.rocksdb_multi_get_max_iteration_count.get();
    let mut limiter = Limiter::new(call, u64::MAX, u64::MAX, usual);
    let mut iter = service.engine.iter(&start, Direction::Forward, Scope::SameHashKey);
    let far = FarEnd { key: stop, inclusive: false, direction: Direction::Forward };
    let mut count = 0;
    let walked = walk(&mut *iter, &far, u64::MAX, &mut limiter, &service.metrics, |_, stored| {
        let (expire_ts, _) = service.version.split_value(stored)?;
        if time::is_expired(expire_ts, call.now) {
            return Ok(Row::Expired);
        }
        count += 1;
        Ok(Row::Taken(0))
    })?;
    Ok(if walked == Walked::ToALimit { UNFINISHED } else { count })
}
