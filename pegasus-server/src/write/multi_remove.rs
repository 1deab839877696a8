//! multi_remove: deletes several records of one hash key at once. The count in the answer is the number
//! of sort keys asked for, not of records that were there.

use bytes::Bytes;
use dsn_rpc::thrift::decode_wrapped;
use pegasus_client::schema::rrdb::{MultiRemoveRequest, MultiRemoveResponse, status};

use super::{Failure, Step, key_length};

pub(super) fn apply(step: &mut Step<'_>, body: &Bytes) -> Result<(), Failure> {
    let request: MultiRemoveRequest = decode_wrapped(body)?;
    step.tally.multi_remove_requests += 1;
    let (error, count) = match key_length(&request.hash_key) {
        Some(length) if !request.sort_keys.is_empty() => {
            for sort_key in &request.sort_keys {
                step.batch.delete(&[&length, &request.hash_key, &sort_key]);
            }
            (status::OK, request.sort_keys.len() as i64)
        }
        _ => (status::INVALID_ARGUMENT, 0),
    };
    let (identity, decree) = (step.identity, step.decree);
    step.reply(|| MultiRemoveResponse {
        error,
        count,
        app_id: identity.app_id,
        partition_index: identity.partition_index,
        decree,
        server: identity.server.clone(),
    });
    Ok(())
}
