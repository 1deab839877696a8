//! ttl: how long a record will live, in seconds; -1 when it does not expire.

use bytes::BytesMut;
use dsn_rpc::thrift::{RESULT_ID, encode_wrapped};
use pegasus_client::schema::rrdb::{TtlResponse, status};

use super::{Call, Failure};
use crate::body::wrapped_bytes;
use crate::engine::prefix;

/// Seconds left of a record that never expires.
const FOREVER: i32 = -1;

pub(super) fn answer(call: &Call<'_>, out: &mut BytesMut) -> Result<(), Failure> {
    let raw_key = wrapped_bytes(call.body)?;
    let identity = &call.service.identity;
    let mut ttl_seconds = 0;
    let found = prefix::in_domain(raw_key)
        && call.live_record(raw_key, |expire_ts, _| {
            ttl_seconds = match expire_ts {
                0 => FOREVER,
                // Live, so later than now.
                later => (later - call.now) as i32,
            };
        })?;
    let response = TtlResponse {
        error: if found { status::OK } else { status::NOT_FOUND },
        ttl_seconds,
        app_id: identity.app_id,
        partition_index: identity.partition_index,
        server: identity.server.clone(),
    };
    encode_wrapped(&response, RESULT_ID, out);
    Ok(())
}
