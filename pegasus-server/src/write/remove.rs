//! remove: deletes one record. Whether there was one does not matter.

use bytes::Bytes;
use pegasus_client::schema::key;
use pegasus_client::schema::rrdb::status;

use super::{Failure, Step};
use crate::body;

pub(super) fn apply(step: &mut Step<'_>, body: &Bytes) -> Result<(), Failure> {
    let raw_key = body::wrapped_bytes(body)?;
    let error = match key::split_key(raw_key) {
        Ok(_) => {
            step.batch.delete(&[raw_key]);
            status::OK
        }
        Err(_) => status::INVALID_ARGUMENT,
    };
    step.tally.remove_requests += 1;
    step.reply_update(error);
    Ok(())
}
