//! incr: adds to a record that holds a number as text.
//!
//! What is not there, expired or empty counts as 0. A value that is no number, and a sum that does not
//! fit, is an invalid argument; after an overflow the answer holds the old number.

use bytes::Bytes;
use dsn_rpc::thrift::decode_wrapped;
use pegasus_client::schema::key;
use pegasus_client::schema::rrdb::{IncrRequest, IncrResponse, status};

use super::{Failure, Step, number};
use crate::engine::EngineError;

pub(super) fn apply(step: &mut Step<'_>, body: &Bytes) -> Result<(), Failure> {
    let request: IncrRequest = decode_wrapped(body)?;
    let (error, new_value) = match key::split_key(&request.key) {
        Ok(_) => add(step, &request)?,
        Err(_) => (status::INVALID_ARGUMENT, 0),
    };
    step.tally.incr_requests += 1;
    let (identity, decree) = (step.identity, step.decree);
    step.reply(|| IncrResponse {
        error,
        new_value,
        app_id: identity.app_id,
        partition_index: identity.partition_index,
        decree,
        server: identity.server.clone(),
    });
    Ok(())
}

/// Status and new value.
fn add(step: &mut Step<'_>, request: &IncrRequest) -> Result<(i32, i64), EngineError> {
    let current = step.read(&request.key)?;
    let base = match current {
        Some(_) if !step.found.is_empty() => match number::parse(step.found) {
            Some(base) => base,
            None => return Ok((status::INVALID_ARGUMENT, 0)),
        },
        _ => 0,
    };
    let Some(sum) = base.checked_add(request.increment) else {
        return Ok((status::INVALID_ARGUMENT, base));
    };
    let expire_ts = match request.expire_ts_seconds {
        0 => current.map_or(0, |record| record.expire_ts as i32),
        cleared if cleared < 0 => 0,
        given => given,
    };
    step.put(&[&request.key], sum.to_string().as_bytes(), expire_ts);
    Ok((status::OK, sum))
}
