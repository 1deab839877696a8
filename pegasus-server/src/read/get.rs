//! get: one record. The hottest path of the server: the key is a slice of the request, the value goes
//! from the engine's memory straight into the reply, and nothing is allocated in between.

use bytes::BytesMut;
use dsn_rpc::thrift::{RESULT_ID, encode_wrapped};
use pegasus_client::schema::rrdb::{ReadResponseRef, status};

use super::abnormal::Cost;
use super::{Call, Failure};
use crate::body::wrapped_bytes;
use crate::engine::prefix;

#[inline]
pub(super) fn answer(call: &Call<'_>, out: &mut BytesMut) -> Result<(), Failure> {
    let raw_key = wrapped_bytes(call.body)?;
    let identity = &call.service.identity;
    let mut respond = |error, value: &[u8]| {
        let response = ReadResponseRef {
            error,
            value,
            app_id: identity.app_id,
            partition_index: identity.partition_index,
            server: identity.server.as_str(),
        };
        encode_wrapped(&response, RESULT_ID, out);
    };
    let mut bytes = raw_key.len();
    // What is too short for a key is not the record of the heartbeats either.
    let found = prefix::in_domain(raw_key)
        && call.live_record(raw_key, |_, data| {
            bytes += data.len();
            respond(status::OK, data);
        })?;
    if !found {
        respond(status::NOT_FOUND, &[]);
    }
    call.cost.set(Cost { bytes: (bytes - raw_key.len()) as u64, rows: 1 });
    let metrics = &call.service.metrics;
    metrics.get_requests.increment();
    metrics.get_bytes.add(bytes as u64);
    Ok(())
}
