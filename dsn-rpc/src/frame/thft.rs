//! `THFT` frames: what Pegasus client libraries speak.
//!
//! Requests come with a 48-byte header (version 0: Python, Node, Go) or with a 16-byte header and a
//! thrift structure (version 1: Java, Scala), all big endian, then a thrift message: name, type,
//! sequence id, argument. Responses have no header of that kind: total length, error name, thrift
//! message without the result if there is none. The checksum fields of the header are never
//! checked, since no client fills them.

use bytes::{Buf, Bytes, BytesMut};

use super::{
    Context, Frame, FrameError, Parsed, Protocol, RequestFrame, RequestHead, ResponseFrame,
    RpcName, checked_length,
};
use crate::address::RpcAddress;
use crate::error_code::ErrorCode;
use crate::gpid::Gpid;
use crate::message;
use crate::thrift::{Decode, Reader, Writer};

/// First bytes of every request.
pub(super) const MAGIC: &[u8; 4] = b"THFT";

/// Header length of version 0.
const HEADER_V0: usize = 48;
/// Where a header of version 0 says how long the caller waits.
pub(super) const TIMEOUT_AT: usize = 32;
/// Header length of version 1, without the structure that follows it.
const HEADER_V1: usize = 16;

/// Shortest response: total length, empty error name, message header of an empty name.
const LEAST_RESPONSE: usize = 4 + 4 + 12;

const STRICT_MASK: u32 = 0xffff_0000;
const STRICT: u32 = 0x8001_0000;
const CALL: u8 = 1;
const REPLY: u8 = 2;
const ONEWAY: u8 = 4;

message! {
    /// The structure behind a header of version 1.
    pub struct RequestMeta {
        1: app_id: Option<i32>,
        2: partition_index: Option<i32>,
        3: client_timeout: Option<i32>,
        4: client_partition_hash: Option<i64>,
        5: is_backup_request: Option<bool>,
    }
}

/// Takes the next request out of `input`.
pub(super) fn next_request(input: &mut BytesMut, max_frame: usize) -> Result<Parsed, FrameError> {
    // Both headers hold what tells the length within their first 20 and 16 bytes.
    let Some(start) = input.first_chunk::<HEADER_V1>() else {
        return match input.first_chunk::<4>() {
            Some(magic) if magic != MAGIC => Err(FrameError::Magic(*magic)),
            _ => Ok(Parsed::NeedMore(HEADER_V1)),
        };
    };
    if !start.starts_with(MAGIC) {
        return Err(FrameError::Magic([start[0], start[1], start[2], start[3]]));
    }
    let (version, second, third) = (word(start, 4), word(start, 8), word(start, 12));
    match version {
        0 => {
            if second != HEADER_V0 as u32 {
                return Err(FrameError::HeaderLength(second));
            }
            let Some(header) = input.first_chunk::<HEADER_V0>() else {
                return Ok(Parsed::NeedMore(HEADER_V0));
            };
            let total = HEADER_V0 as u64 + u64::from(word(header, 16));
            let total = checked_length(total, HEADER_V0, max_frame)?;
            if input.len() < total {
                return Ok(Parsed::NeedMore(total));
            }
            let frame = input.split_to(total).freeze();
            finish_v0(frame)
        }
        1 => {
            let (meta_length, body_length) = (second, third);
            let total = HEADER_V1 as u64 + u64::from(meta_length) + u64::from(body_length);
            let total = checked_length(total, HEADER_V1, max_frame)?;
            if input.len() < total {
                return Ok(Parsed::NeedMore(total));
            }
            let frame = input.split_to(total).freeze();
            finish_v1(frame, HEADER_V1 + meta_length as usize)
        }
        other => Err(FrameError::HeaderVersion(other)),
    }
}

#[inline]
fn finish_v0(frame: Bytes) -> Result<Parsed, FrameError> {
    let Some(header) = frame.first_chunk::<HEADER_V0>() else {
        return Err(FrameError::HeaderLength(frame.len() as u32));
    };
    let head = RequestHead {
        gpid: Gpid::new(word(header, 24) as i32, word(header, 28) as i32),
        timeout_ms: (word(header, 32) as i32).max(0) as u32,
        thread_hash: word(header, 36) as i32,
        partition_hash: u64::from(word(header, 40)) << 32 | u64::from(word(header, 44)),
        ..RequestHead::new(Protocol::Thft, RpcName::new(b""), 0)
    };
    finish_request(head, frame, HEADER_V0)
}

fn finish_v1(frame: Bytes, meta_end: usize) -> Result<Parsed, FrameError> {
    let meta = frame.slice(HEADER_V1..meta_end);
    let meta = RequestMeta::read(&mut Reader::new(&meta))?;
    let gpid = Gpid::new(meta.app_id.unwrap_or_default(), meta.partition_index.unwrap_or_default());
    let backup = meta.is_backup_request == Some(true);
    let head = RequestHead {
        version: 1,
        gpid,
        timeout_ms: meta.client_timeout.unwrap_or_default().max(0) as u32,
        thread_hash: gpid.thread_hash(),
        partition_hash: meta.client_partition_hash.unwrap_or_default() as u64,
        context: if backup { Context::REQUEST.with_backup() } else { Context::REQUEST },
        ..RequestHead::new(Protocol::Thft, RpcName::new(b""), 0)
    };
    finish_request(head, frame, meta_end)
}

/// Reads the thrift message header at `start`; what follows it is the body.
#[inline]
fn finish_request(
    mut head: RequestHead,
    mut frame: Bytes,
    start: usize,
) -> Result<Parsed, FrameError> {
    let mut r = Reader::new(&frame);
    r.take(start)?;
    let (name, message_type, id) = message_begin(&mut r)?;
    head.is_oneway = match message_type {
        CALL => false,
        ONEWAY => true,
        other => return Err(FrameError::MessageType(other)),
    };
    head.name = name;
    head.id = id;
    let body_at = frame.len() - r.rest().len();
    frame.advance(body_at);
    Ok(Parsed::Frame(Frame::Request(RequestFrame { head, body: frame })))
}

/// Name, type and sequence id of a message; the strict form has a version and the type first.
#[inline]
fn message_begin(r: &mut Reader<'_>) -> Result<(RpcName, u8, u64), FrameError> {
    let first = *r.rest().first_chunk::<4>().unwrap_or(&[0; 4]);
    let version = u32::from_be_bytes(first);
    if version & 0x8000_0000 == 0 {
        let name = RpcName::new(r.bytes()?);
        let [message_type] = r.array()?;
        return Ok((name, message_type, u64::from(r.i32()? as u32)));
    }
    if version & STRICT_MASK != STRICT {
        return Err(FrameError::MessageVersion(version));
    }
    r.take(4)?;
    let name = RpcName::new(r.bytes()?);
    Ok((name, version as u8, u64::from(r.i32()? as u32)))
}

/// Takes the next response out of `input`.
pub(super) fn next_response(input: &mut BytesMut, max_frame: usize) -> Result<Parsed, FrameError> {
    let Some(total) = input.first_chunk::<4>() else {
        return Ok(Parsed::NeedMore(LEAST_RESPONSE));
    };
    let total = u64::from(u32::from_be_bytes(*total));
    let total = checked_length(total, LEAST_RESPONSE, max_frame)?;
    if input.len() < total {
        return Ok(Parsed::NeedMore(total));
    }
    let frame = input.split_to(total).freeze();
    let mut r = Reader::new(&frame);
    r.take(4)?;
    let error = ErrorCode::from_name(r.bytes()?);
    let (name, message_type, id) = message_begin(&mut r)?;
    if message_type != REPLY {
        return Err(FrameError::MessageType(message_type));
    }
    Ok(Parsed::Frame(Frame::Response(ResponseFrame {
        protocol: Protocol::Thft,
        name,
        id,
        trace_id: 0,
        gpid: Gpid::default(),
        error,
        from_address: RpcAddress::INVALID,
        body: r.rest_shared(),
    })))
}

/// Appends a request with a header of version 0, which cannot say that it is a backup request.
pub(super) fn write_request(
    out: &mut BytesMut,
    head: &RequestHead,
    body: impl FnOnce(&mut Writer<'_>),
) {
    let start = out.len();
    let mut header = [0u8; HEADER_V0];
    header[..4].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&(HEADER_V0 as u32).to_be_bytes());
    header[24..28].copy_from_slice(&head.gpid.app_id.to_be_bytes());
    header[28..32].copy_from_slice(&head.gpid.partition_index.to_be_bytes());
    header[32..36].copy_from_slice(&head.timeout_ms.to_be_bytes());
    header[36..40].copy_from_slice(&head.thread_hash.to_be_bytes());
    header[40..48].copy_from_slice(&head.partition_hash.to_be_bytes());
    out.extend_from_slice(&header);
    let message_type = if head.is_oneway { ONEWAY } else { CALL };
    write_message_begin(out, message_type, head.name.as_bytes(), &[], head.id);
    body(&mut Writer::without_host_ports(out));
    let body_length = (out.len() - start - HEADER_V0) as u32;
    out[start + 16..start + 20].copy_from_slice(&body_length.to_be_bytes());
}

/// Appends a response.
#[inline]
pub(super) fn write_response(
    out: &mut BytesMut,
    call: &RequestHead,
    error: ErrorCode,
    body: impl FnOnce(&mut Writer<'_>),
) {
    let start = out.len();
    let error = error.name().as_bytes();
    let mut begin = [0u8; 8];
    begin[4..].copy_from_slice(&(error.len() as u32).to_be_bytes());
    out.extend_from_slice(&begin);
    out.extend_from_slice(error);
    write_message_begin(out, REPLY, call.name.as_bytes(), b"_ACK", call.id);
    body(&mut Writer::without_host_ports(out));
    let total = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&total.to_be_bytes());
}

#[inline]
fn write_message_begin(out: &mut BytesMut, message_type: u8, name: &[u8], suffix: &[u8], id: u64) {
    let mut begin = [0u8; 8];
    begin[..4].copy_from_slice(&(STRICT | u32::from(message_type)).to_be_bytes());
    begin[4..].copy_from_slice(&((name.len() + suffix.len()) as u32).to_be_bytes());
    out.extend_from_slice(&begin);
    out.extend_from_slice(name);
    out.extend_from_slice(suffix);
    out.extend_from_slice(&(id as u32).to_be_bytes());
}

/// The big-endian 32-bit word at an offset.
#[inline]
fn word<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
