//! check_and_set: sets a record of a hash key if another of its records, or the same, passes a check.
//!
//! The answer to a check that did not pass is "try again", with nothing written; the checked value, as
//! it was before, comes along when asked for, whatever the verdict.

use bytes::Bytes;
use dsn_rpc::thrift::decode_wrapped;
use pegasus_client::schema::rrdb::{CasCheckType, CheckAndSetRequest, CheckAndSetResponse, status};

use super::check::{Verdict, check};
use super::{Failure, Step, key_length};
use crate::engine::EngineError;

pub(super) fn apply(step: &mut Step<'_>, body: &Bytes) -> Result<(), Failure> {
    let request: CheckAndSetRequest = decode_wrapped(body)?;
    let mut response =
        CheckAndSetResponse { error: status::INVALID_ARGUMENT, ..Default::default() };
    if let Some(length) = key_length(&request.hash_key)
        && !matches!(request.check_type, CasCheckType::Other(_))
    {
        check_then_set(step, &length, &request, &mut response)?;
    }
    step.tally.check_and_set_requests += 1;
    let (identity, decree) = (step.identity, step.decree);
    step.reply(|| CheckAndSetResponse {
        app_id: identity.app_id,
        partition_index: identity.partition_index,
        decree,
        server: identity.server.clone(),
        ..response
    });
    Ok(())
}

fn check_then_set(
    step: &mut Step<'_>,
    length: &[u8],
    request: &CheckAndSetRequest,
    response: &mut CheckAndSetResponse,
) -> Result<(), EngineError> {
    let raw_key = [length, &request.hash_key, &request.check_sort_key].concat();
    let exists = step.read(&raw_key)?.is_some();
    let value = exists.then_some(&step.found[..]);
    let verdict = check(request.check_type, &request.check_operand, value);
    response.error = verdict.status();
    response.check_value_returned = request.return_check_value;
    if request.return_check_value && exists {
        response.check_value_exist = true;
        response.check_value = Bytes::copy_from_slice(step.found);
    }
    if verdict == Verdict::Passed {
        let sort_key =
            if request.set_diff_sort_key { &request.set_sort_key } else { &request.check_sort_key };
        let key = [length, &request.hash_key, sort_key];
        step.put(&key, &request.set_value, request.set_expire_ts_seconds);
        let bytes = request.hash_key.len() + sort_key.len() + request.set_value.len();
        step.tally.check_and_set_bytes += bytes as u64;
    }
    Ok(())
}
