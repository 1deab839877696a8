//! Pegasus's client protocol as its Go and Python clients speak it: `THFT` header version 0, thrift
//! bodies.
//!
//! Requests are written straight into the connection's buffer. Replies of single records are read
//! in place; those of many records go through the message types of the library.

use crate::records::{Checker, Records, Tally};
use crate::routes::Routes;
use crate::wire::{BadReply, MAX_REPLY, Reply, Verdict};
use crate::workload::{Kind, Op};
use bytes::{Bytes, BytesMut};
use dsn_rpc::error_code::{Advice, ErrorCode};
use dsn_rpc::frame::{Protocol, RequestHead, RpcName, write_request};
use dsn_rpc::gpid::Gpid;
use dsn_rpc::thrift::{ARGUMENT_ID, Decode, Encode, Writer, decode_wrapped, ttype};
use pegasus_client::schema::rrdb::{
    GetScannerRequest, KeyValueRef, MultiGetResponse, ScanRequest, ScanResponse, scan_context,
    status,
};
use pegasus_client::schema::{codes, key, partition_hash};
use std::time::Duration;

/// Shortest response: total length, an empty error name, a message header with an empty name.
const LEAST_REPLY: usize = 4 + 4 + 12;
/// Version and type of a reply's message header.
const REPLY_BEGIN: [u8; 4] = [0x80, 0x01, 0, 2];

/// Writer of requests.
#[derive(Debug)]
pub struct Thft {
    head: RequestHead,
    app_id: i32,
    /// Which partition serves for each.
    serving: Vec<usize>,
    /// Full key of the operation at hand: length, hash key, sort key.
    raw: Vec<u8>,
    batch: i32,
}

impl Thft {
    /// A writer that announces `timeout` and asks for `batch` rows at a time.
    pub fn new(timeout: Duration, batch: u64) -> Self {
        let mut head = RequestHead::new(Protocol::Thft, RpcName::new(b""), 0);
        head.timeout_ms = timeout.as_millis().min(i32::MAX as u128) as u32;
        Self { head, app_id: 0, serving: vec![0], raw: Vec::new(), batch: batch as i32 }
    }

    /// Takes the table's id and its number of partitions.
    pub fn follow(&mut self, routes: &Routes) {
        self.app_id = routes.app_id;
        self.serving.clone_from(&routes.serving);
    }

    /// The partition of an operation; the request that is written next goes there.
    #[inline]
    pub fn partition(&mut self, records: &Records, op: &Op) -> usize {
        let hash_len = records.hash_key_len();
        self.raw.clear();
        self.raw.extend_from_slice(&(hash_len as u16).to_be_bytes());
        records.hash_key(op.record, &mut self.raw);
        let hash = partition_hash::crc64(&self.raw[key::LENGTH_PREFIX..]);
        let index = (hash % self.serving.len().max(1) as u64) as usize;
        let partition = self.serving.get(index).copied().unwrap_or(index);
        self.head.gpid = Gpid::new(self.app_id, partition as i32);
        self.head.thread_hash = self.head.gpid.thread_hash();
        self.head.partition_hash = hash;
        partition
    }

    /// Appends the request of the operation that [`partition`](Self::partition) was asked about.
    #[inline]
    pub fn encode(&mut self, records: &Records, op: &Op, token: u32, out: &mut BytesMut) {
        self.head.id = u64::from(token);
        let hash_len = self.raw.len();
        if matches!(op.kind, Kind::Set | Kind::Get) {
            records.sort_key(op.record, &mut self.raw);
        }
        let raw = &self.raw[..];
        let hash_key = &raw[key::LENGTH_PREFIX..hash_len];
        self.head.name = RpcName::new(rpc_of(op.kind).as_bytes());
        write_request(out, &self.head, |w| match op.kind {
            Kind::Set => wrap(w, |w| {
                w.bytes_field(ttype::STRUCT, 1, raw);
                w.bytes_field(ttype::STRUCT, 2, records.value(op.record));
                0i32.write_as_field(3, w);
            }),
            Kind::Get => {
                w.bytes_field(ttype::STRUCT, ARGUMENT_ID, raw);
                w.stop();
            }
            Kind::MultiSet => wrap(w, |w| put_many(w, records, op, hash_key)),
            Kind::MultiGet => wrap(w, |w| get_many(w, records, op, hash_key)),
            Kind::Scan => w.wrapped(ARGUMENT_ID, &scan_of(hash_key, self.batch)),
        });
    }

    /// Appends the request for the next rows of a scan.
    pub fn encode_more(&mut self, context_id: i64, token: u32, out: &mut BytesMut) {
        self.head.id = u64::from(token);
        self.head.name = RpcName::new(codes::RPC_RRDB_RRDB_SCAN.name().as_bytes());
        write_request(out, &self.head, |w| w.wrapped(ARGUMENT_ID, &ScanRequest { context_id }));
    }
}

fn rpc_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Set => codes::RPC_RRDB_RRDB_PUT.name(),
        Kind::Get => codes::RPC_RRDB_RRDB_GET.name(),
        Kind::MultiSet => codes::RPC_RRDB_RRDB_MULTI_PUT.name(),
        Kind::MultiGet => codes::RPC_RRDB_RRDB_MULTI_GET.name(),
        Kind::Scan => codes::RPC_RRDB_RRDB_GET_SCANNER.name(),
    }
}

/// Writes a structure as the argument of a call.
#[inline]
fn wrap(w: &mut Writer<'_>, fields: impl FnOnce(&mut Writer<'_>)) {
    w.field(ttype::STRUCT, ARGUMENT_ID);
    fields(w);
    w.stop();
    w.stop();
}

/// The fields of a `MultiPutRequest`.
fn put_many(w: &mut Writer<'_>, records: &Records, op: &Op, hash_key: &[u8]) {
    let mut sort_key = Vec::with_capacity(records.sort_key_len());
    w.bytes_field(ttype::STRUCT, 1, hash_key);
    w.field(ttype::LIST, 2);
    w.list_head(ttype::STRUCT, op.count as usize);
    for record in op.record..op.record + u64::from(op.count) {
        sort_key.clear();
        records.sort_key(record, &mut sort_key);
        let value = records.value(record);
        KeyValueRef { key: &sort_key, value, expire_ts_seconds: None }.write(w);
    }
    0i32.write_as_field(3, w);
}

/// The fields of a `MultiGetRequest` that names its sort keys.
fn get_many(w: &mut Writer<'_>, records: &Records, op: &Op, hash_key: &[u8]) {
    let mut sort_key = Vec::with_capacity(records.sort_key_len());
    w.bytes_field(ttype::STRUCT, 1, hash_key);
    w.field(ttype::LIST, 2);
    w.list_head(ttype::STRUCT, op.count as usize);
    for record in op.record..op.record + u64::from(op.count) {
        sort_key.clear();
        records.sort_key(record, &mut sort_key);
        w.bytes(&sort_key);
    }
    (-1i32).write_as_field(3, w);
    (-1i32).write_as_field(4, w);
    false.write_as_field(5, w);
    w.bytes_field(ttype::STRUCT, 6, &[]);
    w.bytes_field(ttype::STRUCT, 7, &[]);
    true.write_as_field(8, w);
    false.write_as_field(9, w);
    0i32.write_as_field(10, w);
    w.bytes_field(ttype::STRUCT, 11, &[]);
    false.write_as_field(12, w);
}

/// A scan of one hash key.
fn scan_of(hash_key: &[u8], batch: i32) -> GetScannerRequest {
    GetScannerRequest {
        start_key: key::encode_key(hash_key, &[]).unwrap_or_default(),
        stop_key: key::next_of_hash_key(hash_key).unwrap_or_default(),
        start_inclusive: true,
        batch_size: batch,
        ..GetScannerRequest::default()
    }
}

/// The first complete reply.
///
/// # Errors
/// [`BadReply`].
#[inline]
pub fn next(input: &[u8]) -> Result<Option<Reply<'_>>, BadReply> {
    let Some(total) = input.first_chunk::<4>() else { return Ok(None) };
    let total = u32::from_be_bytes(*total) as usize;
    if !(LEAST_REPLY..=MAX_REPLY).contains(&total) {
        return Err(BadReply("a length out of range"));
    }
    let Some(frame) = input.get(4..total) else { return Ok(None) };
    let mut cursor = Cursor(frame);
    let error = cursor.bytes()?;
    if cursor.array::<4>()? != REPLY_BEGIN {
        return Err(BadReply("not a reply"));
    }
    cursor.bytes()?;
    let token = u32::from_be_bytes(cursor.array()?);
    let error = (error != ErrorCode::Ok.name().as_bytes()).then_some(error);
    Ok(Some(Reply { token: Some(token), error, body: cursor.0, len: total }))
}

/// What a reply says about its operation.
///
/// # Errors
/// [`BadReply`].
#[inline]
pub fn judge(op: &Op, reply: &Reply<'_>, check: &Checker<'_>) -> Result<Verdict, BadReply> {
    if let Some(error) = reply.error {
        return Ok(Verdict::Failed(String::from_utf8_lossy(error).into_owned()));
    }
    let mut tally = Tally::default();
    match op.kind {
        Kind::Set | Kind::MultiSet => match single(reply.body)?.0 {
            status::OK => tally.found = u64::from(op.count),
            other => return Ok(storage_error(other)),
        },
        Kind::Get => match single(reply.body)? {
            (status::OK, value) => check.value(op.record, Some(value), &mut tally),
            (status::NOT_FOUND, _) => check.value(op.record, None, &mut tally),
            (other, _) => return Ok(storage_error(other)),
        },
        Kind::MultiGet => {
            let answer: MultiGetResponse = message(reply.body)?;
            if answer.error != status::OK {
                return Ok(storage_error(answer.error));
            }
            for kv in answer.kvs.iter() {
                check.row(op.record, &kv.key, &kv.value, &mut tally);
            }
            tally.missing = u64::from(op.count).saturating_sub(tally.found);
        }
        Kind::Scan => {
            let answer: ScanResponse = message(reply.body)?;
            if answer.error != status::OK {
                return Ok(storage_error(answer.error));
            }
            for kv in answer.kvs.iter() {
                match key::split_key(&kv.key) {
                    Ok((_, sort_key)) => check.row(op.record, sort_key, &kv.value, &mut tally),
                    Err(_) => tally.wrong += 1,
                }
            }
            if answer.context_id != scan_context::COMPLETED {
                return Ok(Verdict::More(answer.context_id, tally));
            }
        }
    }
    Ok(Verdict::Done(tally))
}

/// Whether an error of that name means that the placement may have changed.
pub fn means_moved(name: &str) -> bool {
    ErrorCode::from_name(name.as_bytes()).advice() == Advice::RefreshAndRetry
}

fn storage_error(status: i32) -> Verdict {
    Verdict::Failed(format!("storage error {status}"))
}

fn message<T: Decode>(body: &[u8]) -> Result<T, BadReply> {
    decode_wrapped(&Bytes::copy_from_slice(body)).map_err(|_| BadReply("a broken message"))
}

/// `error` (field 1) and, where there is one, `value` (field 2) of a response to a request for one
/// record.
#[inline]
fn single(body: &[u8]) -> Result<(i32, &[u8]), BadReply> {
    let mut cursor = Cursor(body);
    let [outer, ..] = cursor.array::<3>()?;
    if outer != ttype::STRUCT {
        return Err(BadReply("a result that is no structure"));
    }
    let (mut error, mut value) = (0, &[][..]);
    loop {
        let [field_type] = cursor.array()?;
        if field_type == ttype::STOP {
            return Ok((error, value));
        }
        let id = i16::from_be_bytes(cursor.array()?);
        match (field_type, id) {
            (ttype::I32, 1) => error = i32::from_be_bytes(cursor.array()?),
            // A blob announces itself as a structure and is a length with bytes.
            (ttype::STRUCT, 2) => value = cursor.bytes()?,
            (ttype::I32, _) => drop(cursor.array::<4>()?),
            (ttype::I64, _) => drop(cursor.array::<8>()?),
            (ttype::STRING, _) => drop(cursor.bytes()?),
            (ttype::BOOL, _) => drop(cursor.array::<1>()?),
            _ => return Err(BadReply("an unknown field")),
        }
    }
}

/// What is left of a frame.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], BadReply> {
        let Some((head, rest)) = self.0.split_first_chunk::<N>() else {
            return Err(BadReply("it ends early"));
        };
        self.0 = rest;
        Ok(*head)
    }

    #[inline]
    fn bytes(&mut self) -> Result<&'a [u8], BadReply> {
        let length = u32::from_be_bytes(self.array()?) as usize;
        let Some((head, rest)) = self.0.split_at_checked(length) else {
            return Err(BadReply("it ends early"));
        };
        self.0 = rest;
        Ok(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::tests::records_of;
    use dsn_core::rng::Rng;
    use dsn_rpc::address::RpcAddress;
    use dsn_rpc::frame::{self, Frame, Parsed, Parser};
    use dsn_rpc::thrift::{Blob, RESULT_ID, Text};
    use pegasus_client::schema::rrdb::{
        KeyValue, MultiGetRequest, MultiPutRequest, ReadResponse, UpdateRequest, UpdateResponse,
    };

    fn writer(partitions: usize) -> Thft {
        let mut thft = Thft::new(Duration::from_millis(1500), 7);
        thft.follow(&Routes::of(2, &vec![None; partitions], &[]));
        thft
    }

    fn request_of(records: &Records, op: Op) -> (RequestHead, Bytes) {
        let (mut thft, mut out) = (writer(8), BytesMut::new());
        thft.partition(records, &op);
        thft.encode(records, &op, 77, &mut out);
        match Parser::server(frame::DEFAULT_MAX_FRAME).next(&mut out) {
            Ok(Parsed::Frame(Frame::Request(request))) => (request.head, request.body),
            other => panic!("{other:?}"),
        }
    }

    fn op(kind: Kind, record: u64, count: u32) -> Op {
        Op { kind, record, count }
    }

    #[test]
    fn single_records_are_asked_for_like_the_clients_do() {
        let records = records_of("--key-size 16 --keys 1000 --sort-keys 10 --value-size 50");
        let (head, body) = request_of(&records, op(Kind::Set, 127, 1));
        assert_eq!(head.name.as_str(), codes::RPC_RRDB_RRDB_PUT.name());
        assert_eq!((head.id, head.timeout_ms, head.version), (77, 1500, 0));
        let hash = partition_hash::crc64(b"k0000012");
        assert_eq!(head.partition_hash, hash);
        assert_eq!(head.gpid, Gpid::new(2, (hash % 8) as i32));
        assert_eq!(head.thread_hash, 2 * 7919 + (hash % 8) as i32);
        let put: UpdateRequest = decode_wrapped(&body).unwrap();
        let full = key::encode_key(b"k0000012", b"s0000007").unwrap();
        assert_eq!((&put.key, &put.value[..]), (&full, records.value(127)));
        assert_eq!((put.expire_ts_seconds, put.update_type), (0, None));
        let (head, body) = request_of(&records, op(Kind::Get, 127, 1));
        assert_eq!(head.name.as_str(), codes::RPC_RRDB_RRDB_GET.name());
        assert_eq!(decode_wrapped::<Blob>(&body).unwrap(), full);
    }

    #[test]
    fn many_records_are_asked_for_by_hash_key() {
        let records = records_of("--key-size 16 --keys 1000 --sort-keys 10 --value-size 50");
        let (head, body) = request_of(&records, op(Kind::MultiSet, 125, 3));
        assert_eq!(head.name.as_str(), codes::RPC_RRDB_RRDB_MULTI_PUT.name());
        let put: MultiPutRequest = decode_wrapped(&body).unwrap();
        let rows: Vec<KeyValue> = put.kvs.to_vec();
        assert_eq!((&put.hash_key[..], rows.len()), (&b"k0000012"[..], 3));
        assert_eq!((&rows[2].key[..], &rows[2].value[..]), (&b"s0000007"[..], records.value(127)));
        let (head, body) = request_of(&records, op(Kind::MultiGet, 125, 3));
        assert_eq!(head.name.as_str(), codes::RPC_RRDB_RRDB_MULTI_GET.name());
        let get: MultiGetRequest = decode_wrapped(&body).unwrap();
        assert_eq!(get.sort_keys.to_vec(), [&b"s0000005"[..], b"s0000006", b"s0000007"]);
        assert_eq!((get.max_kv_count, get.no_value, get.reverse), (-1, false, false));
        let (head, body) = request_of(&records, op(Kind::Scan, 120, 10));
        assert_eq!(head.name.as_str(), codes::RPC_RRDB_RRDB_GET_SCANNER.name());
        let scan: GetScannerRequest = decode_wrapped(&body).unwrap();
        assert_eq!((scan.batch_size, scan.start_inclusive, scan.stop_inclusive), (7, true, false));
        assert_eq!(scan.stop_key, key::next_of_hash_key(b"k0000012").unwrap());
    }

    fn response<T: Encode>(name: &str, error: ErrorCode, result: Option<&T>) -> BytesMut {
        let call = RequestHead::new(Protocol::Thft, RpcName::from(name), 5);
        let mut out = BytesMut::new();
        frame::write_response(&mut out, &call, error, RpcAddress::INVALID, |w| {
            if let Some(result) = result {
                w.wrapped(RESULT_ID, result);
            }
        });
        out
    }

    #[test]
    fn replies_are_complete_or_awaited_at_every_cut() {
        let answer =
            UpdateResponse { decree: 9, server: Text::from_static("h:1"), ..Default::default() };
        let one = response(codes::RPC_RRDB_RRDB_PUT.name(), ErrorCode::Ok, Some(&answer));
        let mut both = one.clone();
        both.extend_from_slice(&response::<UpdateResponse>(
            codes::RPC_RRDB_RRDB_PUT.name(),
            ErrorCode::Busy,
            None,
        ));
        for cut in 0..both.len() {
            let first = next(&both[..cut]).unwrap();
            assert_eq!(first.is_some(), cut >= one.len(), "cut at {cut}");
        }
        let first = next(&both).unwrap().unwrap();
        assert_eq!((first.token, first.error, first.len), (Some(5), None, one.len()));
        let second = next(&both[first.len..]).unwrap().unwrap();
        assert_eq!((second.error, second.body.len()), (Some(&b"ERR_BUSY"[..]), 0));
    }

    #[test]
    fn verdicts() {
        let records = records_of("--key-size 16 --keys 1000 --sort-keys 10 --value-size 50");
        let check = Checker { records: &records, content: true };
        let judged = |op: Op, bytes: BytesMut| judge(&op, &next(&bytes).unwrap().unwrap(), &check);
        let done = |found, missing, wrong| Ok(Verdict::Done(Tally { found, missing, wrong }));
        let read = |error, value: &[u8]| {
            let value = Blob::copy_from_slice(value);
            let answer = ReadResponse { error, value, ..Default::default() };
            response(codes::RPC_RRDB_RRDB_GET.name(), ErrorCode::Ok, Some(&answer))
        };
        let get = op(Kind::Get, 127, 1);
        assert_eq!(judged(get, read(0, records.value(127))), done(1, 0, 0));
        assert_eq!(judged(get, read(0, records.value(126))), done(1, 0, 1));
        assert_eq!(judged(get, read(1, b"")), done(0, 1, 0));
        assert_eq!(judged(get, read(5, b"")), Ok(Verdict::Failed("storage error 5".into())));
        let answer = UpdateResponse { decree: i64::MAX, ..Default::default() };
        let set = op(Kind::Set, 1, 1);
        assert_eq!(
            judged(set, response(codes::RPC_RRDB_RRDB_PUT.name(), ErrorCode::Ok, Some(&answer))),
            done(1, 0, 0)
        );
        let moved = response::<UpdateResponse>(
            codes::RPC_RRDB_RRDB_PUT.name(),
            ErrorCode::InvalidState,
            None,
        );
        assert_eq!(judged(set, moved), Ok(Verdict::Failed("ERR_INVALID_STATE".into())));
        assert!(means_moved("ERR_INVALID_STATE") && means_moved("ERR_OBJECT_NOT_FOUND"));
        assert!(!means_moved("ERR_BUSY") && !means_moved("storage error 5"));
    }

    #[test]
    fn rows_are_checked_one_by_one() {
        let records = records_of("--key-size 16 --keys 1000 --sort-keys 10 --value-size 50");
        let check = Checker { records: &records, content: true };
        let row = |key: &[u8], record| KeyValue {
            key: Blob::copy_from_slice(key),
            value: Blob::copy_from_slice(records.value(record)),
            expire_ts_seconds: None,
        };
        let mut answer = MultiGetResponse::default();
        answer.kvs.push(row(b"s0000005", 125));
        answer.kvs.push(row(b"s0000006", 999));
        let bytes = response(codes::RPC_RRDB_RRDB_MULTI_GET.name(), ErrorCode::Ok, Some(&answer));
        let verdict = judge(&op(Kind::MultiGet, 125, 3), &next(&bytes).unwrap().unwrap(), &check);
        assert_eq!(verdict, Ok(Verdict::Done(Tally { found: 2, missing: 1, wrong: 1 })));
        let mut answer = ScanResponse { context_id: 12, ..Default::default() };
        answer.kvs.push(row(&key::encode_key(b"k0000012", b"s0000001").unwrap(), 121));
        let bytes = response(codes::RPC_RRDB_RRDB_SCAN.name(), ErrorCode::Ok, Some(&answer));
        let verdict = judge(&op(Kind::Scan, 120, 10), &next(&bytes).unwrap().unwrap(), &check);
        assert_eq!(verdict, Ok(Verdict::More(12, Tally { found: 1, missing: 0, wrong: 0 })));
    }

    #[test]
    fn broken_replies_are_errors_and_never_panics() {
        let records = records_of("--value-size 20");
        let check = Checker { records: &records, content: true };
        let answer = ReadResponse { value: Blob::from_static(b"abc"), ..Default::default() };
        let good = response(codes::RPC_RRDB_RRDB_GET.name(), ErrorCode::Ok, Some(&answer));
        let seed = 4;
        println!("seed {seed}");
        let (mut rng, mut refused) = (Rng::new(seed), 0);
        for _ in 0..100_000 {
            let mut bytes = good.to_vec();
            let at = rng.index(bytes.len());
            bytes[at] = rng.next_u64() as u8;
            match next(&bytes) {
                Ok(Some(reply)) => {
                    for kind in Kind::ALL {
                        refused += u32::from(judge(&op(kind, 1, 1), &reply, &check).is_err());
                    }
                }
                Ok(None) => {}
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 1000, "{refused} refused");
    }
}
