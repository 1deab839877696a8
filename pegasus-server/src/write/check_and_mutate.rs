//! check_and_mutate: puts and removes several records of a hash key if one of them passes a check.
//!
//! All changes or none, in the order given. Answers like check_and_set.

use bytes::Bytes;
use dsn_rpc::thrift::decode_wrapped;
use pegasus_client::schema::rrdb::{
    CasCheckType, CheckAndMutateRequest, CheckAndMutateResponse, MutateOperation, status,
};

use super::check::{Verdict, check};
use super::{Failure, Step, key_length};
use crate::engine::EngineError;

pub(super) fn apply(step: &mut Step<'_>, body: &Bytes) -> Result<(), Failure> {
    let request: CheckAndMutateRequest = decode_wrapped(body)?;
    let mut response =
        CheckAndMutateResponse { error: status::INVALID_ARGUMENT, ..Default::default() };
    if let Some(length) = key_length(&request.hash_key)
        && makes_sense(&request)
    {
        check_then_mutate(step, &length, &request, &mut response)?;
    }
    step.tally.check_and_mutate_requests += 1;
    let (identity, decree) = (step.identity, step.decree);
    step.reply(|| CheckAndMutateResponse {
        app_id: identity.app_id,
        partition_index: identity.partition_index,
        decree,
        server: identity.server.clone(),
        ..response
    });
    Ok(())
}

fn makes_sense(request: &CheckAndMutateRequest) -> bool {
    !request.mutate_list.is_empty()
        && !matches!(request.check_type, CasCheckType::Other(_))
        && request
            .mutate_list
            .iter()
            .all(|mutate| !matches!(mutate.operation, MutateOperation::Other(_)))
}

fn check_then_mutate(
    step: &mut Step<'_>,
    length: &[u8],
    request: &CheckAndMutateRequest,
    response: &mut CheckAndMutateResponse,
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
        let mut bytes = 0;
        for mutate in &request.mutate_list {
            let key = [length, &request.hash_key, &mutate.sort_key];
            if mutate.operation == MutateOperation::Put {
                step.put(&key, &mutate.value, mutate.set_expire_ts_seconds);
                bytes += mutate.value.len();
            } else {
                step.batch.delete(&key);
            }
            bytes += request.hash_key.len() + mutate.sort_key.len();
        }
        step.tally.check_and_mutate_bytes += bytes as u64;
    }
    Ok(())
}
