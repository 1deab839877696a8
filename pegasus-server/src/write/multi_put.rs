//! multi_put: sets several records of one hash key at once. Of equal sort keys the last wins; all share
//! one expiry.

use bytes::Bytes;
use dsn_rpc::thrift::decode_wrapped;
use pegasus_client::schema::rrdb::{MultiPutRequest, status};

use super::{Failure, Step, key_length};

pub(super) fn apply(step: &mut Step<'_>, body: &Bytes) -> Result<(), Failure> {
    let request: MultiPutRequest = decode_wrapped(body)?;
    step.tally.multi_put_requests += 1;
    let error = match key_length(&request.hash_key) {
        Some(length) if !request.kvs.is_empty() => {
            let mut bytes = 0;
            for kv in &request.kvs {
                let key: [&[u8]; 3] = [&length, &request.hash_key, &kv.key];
                step.put(&key, &kv.value, request.expire_ts_seconds);
                bytes += request.hash_key.len() + kv.key.len() + kv.value.len();
            }
            step.tally.multi_put_bytes += bytes as u64;
            status::OK
        }
        _ => status::INVALID_ARGUMENT,
    };
    step.reply_update(error);
    Ok(())
}
