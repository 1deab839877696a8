//! batch_get: named records of one partition. Answers with those that are there, in the order asked for.

use bytes::BytesMut;
use dsn_rpc::thrift::{Encode, Writer, decode_wrapped, ttype};
use pegasus_client::schema::key;
use pegasus_client::schema::rrdb::{BatchGetRequest, FullKey, status};

use super::abnormal::Cost;
use super::response::{ListResponse, finish};
use super::{Call, Failure};

pub(super) fn answer(call: &Call<'_>, out: &mut BytesMut) -> Result<(), Failure> {
    let request: BatchGetRequest = decode_wrapped(call.body)?;
    let mut response = ListResponse::begin(out);
    let mut error = status::OK;
    let mut bytes = 0;
    if request.keys.is_empty() {
        error = status::INVALID_ARGUMENT;
    }
    let mut raw_key = Vec::new();
    for full_key in &request.keys {
        raw_key.clear();
        // A hash key too long to exist has no records.
        if key::append_key(&full_key.hash_key, &full_key.sort_key, &mut raw_key).is_err() {
            continue;
        }
        call.live_record(&raw_key, |_, value| {
            bytes += full_key.hash_key.len() + full_key.sort_key.len() + value.len();
            response.push(&Found { key: &full_key, value });
        })?;
    }
    let identity = &call.service.identity;
    let mut writer = response.end(error);
    identity.app_id.write_as_field(3, &mut writer);
    identity.partition_index.write_as_field(4, &mut writer);
    identity.server.write_as_field(6, &mut writer);
    finish(writer);
    call.cost.set(Cost { bytes: bytes as u64, rows: request.keys.len() as u64 });
    let metrics = &call.service.metrics;
    metrics.batch_get_requests.increment();
    metrics.batch_get_bytes.add(bytes as u64);
    Ok(())
}

/// A `full_data`, written from borrowed memory.
struct Found<'a> {
    key: &'a FullKey,
    value: &'a [u8],
}

impl Encode for Found<'_> {
    const TTYPE: u8 = ttype::STRUCT;

    fn write(&self, w: &mut Writer<'_>) {
        w.bytes_field(ttype::STRUCT, 1, &self.key.hash_key);
        w.bytes_field(ttype::STRUCT, 2, &self.key.sort_key);
        w.bytes_field(ttype::STRUCT, 3, self.value);
        w.stop();
    }
}
