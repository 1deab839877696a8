//! put: sets one record. Always succeeds; an empty value is a value.

use bytes::Bytes;
use dsn_rpc::thrift::{Reader, WireError, ttype};
use pegasus_client::schema::key;
use pegasus_client::schema::rrdb::{UpdateResponse, UpdateType, status};

use super::{Failure, Step};

/// An update request whose parts borrow from the body: this is the hottest decoder of the server, and
/// sharing the body's memory would cost more than all the rest of it.
#[derive(Default)]
struct Update<'a> {
    key: &'a [u8],
    value: &'a [u8],
    expire_ts: i32,
    kind: UpdateType,
}

pub(super) fn apply(step: &mut Step<'_>, body: &Bytes) -> Result<(), Failure> {
    let update = decode(body)?;
    let error = match (key::split_key(update.key), update.kind) {
        (Err(_), _) => status::INVALID_ARGUMENT,
        // One part of a check_and_mutate that a primary has already decided.
        (Ok(_), UpdateType::CheckAndMutateRemove) => {
            step.batch.delete(&[update.key]);
            status::OK
        }
        (Ok(_), _) => {
            step.put(&[update.key], update.value, update.expire_ts);
            status::OK
        }
    };
    step.tally.put_requests += 1;
    step.tally.put_bytes += (update.key.len() + update.value.len()) as u64;
    step.reply_update(error);
    Ok(())
}

impl Step<'_> {
    /// The response that put, remove and multi_put share.
    pub(super) fn reply_update(&mut self, error: i32) {
        let (identity, decree) = (self.identity, self.decree);
        self.reply(|| UpdateResponse {
            error,
            app_id: identity.app_id,
            partition_index: identity.partition_index,
            decree,
            server: identity.server.clone(),
        });
    }
}

fn decode(body: &Bytes) -> Result<Update<'_>, WireError> {
    let mut r = Reader::new(body);
    if r.field()?.is_none() {
        return Err(WireError::MissingValue);
    }
    let mut update = Update::default();
    while let Some((ttype, id)) = r.field()? {
        match (id, ttype) {
            (1, ttype::STRUCT) => update.key = r.bytes()?,
            (2, ttype::STRUCT) => update.value = r.bytes()?,
            (3, ttype::I32) => update.expire_ts = r.i32()?,
            (4, ttype::I32) => update.kind = UpdateType::from(r.i32()?),
            // Announced as a structure, but a byte string like the first two.
            (7, ttype::STRUCT) => drop(r.bytes()?),
            _ => r.skip(ttype)?,
        }
    }
    if r.field()?.is_some() {
        return Err(WireError::Trailing(r.rest().len()));
    }
    r.finish()?;
    Ok(update)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use dsn_rpc::thrift::{ARGUMENT_ID, decode_wrapped, encode_wrapped};
    use pegasus_client::schema::rrdb::UpdateRequest;

    fn wrapped(request: &UpdateRequest) -> Bytes {
        let mut out = BytesMut::new();
        encode_wrapped(request, ARGUMENT_ID, &mut out);
        out.freeze()
    }

    #[test]
    fn the_short_cut_reads_what_the_message_type_reads() {
        let full = UpdateRequest {
            key: Bytes::from_static(b"\0\x01hs"),
            value: Bytes::from_static(b"value"),
            expire_ts_seconds: -7,
            update_type: Some(UpdateType::CheckAndMutatePut),
            check_value_returned: Some(true),
            check_value: Some(Bytes::from_static(b"old")),
            ..UpdateRequest::default()
        };
        for request in [full, UpdateRequest::default()] {
            let body = wrapped(&request);
            let update = decode(&body).expect("valid");
            assert_eq!((update.key, update.value), (&request.key[..], &request.value[..]));
            assert_eq!(update.expire_ts, request.expire_ts_seconds);
            assert_eq!(update.kind, request.update_type.unwrap_or_default());
        }
    }

    #[test]
    fn it_refuses_what_the_message_type_refuses() {
        let whole = wrapped(&UpdateRequest { expire_ts_seconds: 1, ..Default::default() });
        for end in 0..whole.len() {
            let cut = whole.slice(..end);
            assert!(decode(&cut).is_err(), "cut at {end}");
            assert!(decode_wrapped::<UpdateRequest>(&cut).is_err());
        }
        let long = Bytes::from([&whole[..], b"\0"].concat());
        assert!(decode(&long).is_err());
        assert!(decode_wrapped::<UpdateRequest>(&long).is_err());
    }
}
