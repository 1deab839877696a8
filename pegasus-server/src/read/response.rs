//! Responses that hold a list: written element by element, status and count filled in at the end.

use bytes::BytesMut;
use dsn_rpc::thrift::{Encode, RESULT_ID, Writer, ttype};

/// Bytes of a field header: type and id.
const FIELD_HEAD: usize = 3;
/// Bytes of a list's head: element type and count.
const LIST_HEAD: usize = 5;

/// A response whose first field is the status and whose second is a list of structures.
pub(super) struct ListResponse<'a> {
    writer: Writer<'a>,
    /// Where the status is.
    error_at: usize,
    /// Where the first element is.
    list_at: usize,
    count: usize,
}

impl<'a> ListResponse<'a> {
    /// Begins a wrapped response at the end of `out`.
    pub(super) fn begin(out: &'a mut BytesMut) -> Self {
        let mut writer = Writer::new(out);
        writer.field(ttype::STRUCT, RESULT_ID);
        let error_at = writer.buffer().len() + FIELD_HEAD;
        0i32.write_as_field(1, &mut writer);
        writer.field(ttype::LIST, 2);
        writer.list_head(ttype::STRUCT, 0);
        let list_at = writer.buffer().len();
        Self { writer, error_at, list_at, count: 0 }
    }

    /// Appends an element.
    pub(super) fn push(&mut self, element: &impl Encode) {
        element.write(&mut self.writer);
        self.count += 1;
    }

    /// Number of elements.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Where the next element will be, for [`Self::reverse`].
    pub(super) fn position(&mut self) -> usize {
        self.writer.buffer().len()
    }

    /// Turns the order of the elements round, given the position of each.
    pub(super) fn reverse(&mut self, positions: &[usize]) {
        let list_at = self.list_at;
        let buffer = self.writer.buffer();
        let forward = buffer.split_off(list_at);
        let mut end = forward.len();
        for position in positions.iter().rev() {
            let start = position - list_at;
            buffer.extend_from_slice(&forward[start..end]);
            end = start;
        }
    }

    /// Ends the list and sets the status; the caller goes on with the fields after the list and ends
    /// with [`finish`].
    pub(super) fn end(mut self, error: i32) -> Writer<'a> {
        let (error_at, count_at) = (self.error_at, self.list_at - LIST_HEAD + 1);
        let count = (self.count as i32).to_be_bytes();
        let buffer = self.writer.buffer();
        buffer[error_at..error_at + 4].copy_from_slice(&error.to_be_bytes());
        buffer[count_at..count_at + 4].copy_from_slice(&count);
        self.writer
    }
}

/// Ends a response and its wrapping.
pub(super) fn finish(mut writer: Writer<'_>) {
    writer.stop();
    writer.stop();
}

#[cfg(test)]
mod tests {
    use super::*;
    use dsn_rpc::thrift::decode_wrapped;
    use pegasus_client::schema::rrdb::{KeyValueRef, MultiGetResponse};

    #[test]
    fn elements_status_and_order() {
        for reversed in [false, true] {
            let mut out = BytesMut::from(&b"before"[..]);
            let mut response = ListResponse::begin(&mut out);
            let mut positions = Vec::new();
            for n in 0..300u32 {
                positions.push(response.position());
                let value = vec![7; n as usize];
                let key = n.to_be_bytes();
                response.push(&KeyValueRef { key: &key, value: &value, expire_ts_seconds: None });
            }
            if reversed {
                response.reverse(&positions);
            }
            assert_eq!(response.count(), 300);
            let mut writer = response.end(7);
            5i32.write_as_field(3, &mut writer);
            finish(writer);
            assert_eq!(&out[..6], b"before");
            let back: MultiGetResponse = decode_wrapped(&out.freeze().slice(6..)).expect("valid");
            assert_eq!((back.error, back.app_id, back.kvs.len()), (7, 5, 300));
            let mut keys: Vec<u32> = (0..300).collect();
            if reversed {
                keys.reverse();
            }
            for (kv, n) in back.kvs.iter().zip(keys) {
                assert_eq!((&kv.key[..], kv.value.len()), (&n.to_be_bytes()[..], n as usize));
            }
        }
    }
}
