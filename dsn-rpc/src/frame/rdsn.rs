//! `RDSN` frames: what servers, the C++ client and its tools speak, in both directions.
//!
//! A 192-byte header, the image of a C structure on a little-endian machine, then a wrapped value
//! without thrift message header. Checksums are CRC-32C; zero means that the sender made none. A
//! reply carries the id of its call, and the error as a name.

use bytes::BytesMut;

use super::{
    Frame, FrameError, Parsed, Protocol, RequestFrame, RequestHead, ResponseFrame, RpcName,
    checked_length,
};
use crate::address::RpcAddress;
use crate::error_code::ErrorCode;
use crate::gpid::Gpid;
use crate::thrift::Writer;

/// First bytes of every frame.
pub(super) const MAGIC: &[u8; 4] = b"RDSN";

/// Bytes of the header.
pub const HEADER: usize = 192;

/// Offsets of the header's fields.
mod at {
    pub(super) const VERSION: usize = 4;
    pub(super) const HEADER_LENGTH: usize = 8;
    pub(super) const HEADER_CRC: usize = 12;
    pub(super) const BODY_LENGTH: usize = 16;
    pub(super) const BODY_CRC: usize = 20;
    pub(super) const ID: usize = 24;
    pub(super) const TRACE_ID: usize = 32;
    pub(super) const NAME: usize = 40;
    pub(super) const APP_ID: usize = 96;
    pub(super) const PARTITION_INDEX: usize = 100;
    pub(super) const CONTEXT: usize = 104;
    pub(super) const FROM: usize = 112;
    pub(super) const TIMEOUT: usize = 120;
    pub(super) const THREAD_HASH: usize = 124;
    pub(super) const PARTITION_HASH: usize = 128;
    pub(super) const ERROR: usize = 136;
}

/// Length of the name fields, with at least one NUL.
const NAME_FIELD: usize = 48;

/// Where a header says how long the caller waits.
pub(super) const TIMEOUT_AT: usize = at::TIMEOUT;

/// The flags of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context(u64);

impl Context {
    const IS_REQUEST: u64 = 1;
    const IS_FORWARDED: u64 = 1 << 1;
    const FORMAT_SHIFT: u32 = 6;
    const FORMAT_MASK: u64 = 0xf;
    const FORMAT_THRIFT_BINARY: u64 = 1;
    const CAN_FORWARD: u64 = 1 << 10;
    const IS_BACKUP: u64 = 1 << 11;

    /// A call that a meta server must not forward, as all calls over `THFT` are.
    pub const REQUEST: Self =
        Self(Self::IS_REQUEST | Self::FORMAT_THRIFT_BINARY << Self::FORMAT_SHIFT);

    /// A call that a meta server may forward to its leader.
    pub const FORWARDABLE_REQUEST: Self = Self(Self::REQUEST.0 | Self::CAN_FORWARD);

    /// The flags of that number.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The number of these flags.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether it is a call, not an answer.
    #[inline]
    #[must_use]
    pub const fn is_request(self) -> bool {
        self.0 & Self::IS_REQUEST != 0
    }

    /// Whether a meta server passed the call on; the answer then goes to the call's `from_address`.
    #[must_use]
    pub const fn is_forwarded(self) -> bool {
        self.0 & Self::IS_FORWARDED != 0
    }

    /// Whether a meta server may pass the call on.
    #[must_use]
    pub const fn can_forward(self) -> bool {
        self.0 & Self::CAN_FORWARD != 0
    }

    /// Whether it is a read that a secondary may answer.
    #[inline]
    #[must_use]
    pub const fn is_backup(self) -> bool {
        self.0 & Self::IS_BACKUP != 0
    }

    /// The same, as a backup request.
    #[must_use]
    pub const fn with_backup(self) -> Self {
        Self(self.0 | Self::IS_BACKUP)
    }

    /// The same, as passed on by a meta server.
    #[must_use]
    pub const fn with_forwarded(self) -> Self {
        Self(self.0 | Self::IS_FORWARDED)
    }

    const fn format(self) -> u64 {
        self.0 >> Self::FORMAT_SHIFT & Self::FORMAT_MASK
    }

    const fn of_answer(self) -> Self {
        Self(self.0 & !Self::IS_REQUEST)
    }
}

/// Takes the next frame out of `input`.
pub(super) fn next(input: &mut BytesMut, max_frame: usize) -> Result<Parsed, FrameError> {
    let Some(header) = input.first_chunk::<HEADER>() else {
        return match input.first_chunk::<4>() {
            Some(magic) if magic != MAGIC => Err(FrameError::Magic(*magic)),
            _ => Ok(Parsed::NeedMore(HEADER)),
        };
    };
    let header = Header(*header);
    header.check()?;
    let total = HEADER as u64 + u64::from(header.u32(at::BODY_LENGTH));
    let total = checked_length(total, HEADER, max_frame)?;
    if input.len() < total {
        return Ok(Parsed::NeedMore(total));
    }
    let mut frame = input.split_to(total).freeze();
    let body = frame.split_off(HEADER);
    let crc = header.u32(at::BODY_CRC);
    if crc != 0 && crc != crc32c::crc32c(&body) {
        return Err(FrameError::BodyChecksum);
    }
    let context = Context(header.u64(at::CONTEXT));
    let name = RpcName::new(header.name(at::NAME));
    let gpid = Gpid::new(header.i32(at::APP_ID), header.i32(at::PARTITION_INDEX));
    let from_address = RpcAddress::from_raw(header.u64(at::FROM)).unwrap_or_default();
    let (id, trace_id) = (header.u64(at::ID), header.u64(at::TRACE_ID));
    if !context.is_request() {
        let error = ErrorCode::from_name(header.name(at::ERROR));
        let protocol = Protocol::Rdsn;
        return Ok(Parsed::Frame(Frame::Response(ResponseFrame {
            protocol,
            name,
            id,
            trace_id,
            gpid,
            error,
            from_address,
            body,
        })));
    }
    let head = RequestHead {
        protocol: Protocol::Rdsn,
        version: 0,
        name,
        id,
        trace_id,
        gpid,
        timeout_ms: header.i32(at::TIMEOUT).max(0) as u32,
        thread_hash: header.i32(at::THREAD_HASH),
        partition_hash: header.u64(at::PARTITION_HASH),
        context,
        is_oneway: false,
        from_address,
    };
    Ok(Parsed::Frame(Frame::Request(RequestFrame { head, body })))
}

/// Appends a call.
pub(super) fn write_request(
    out: &mut BytesMut,
    head: &RequestHead,
    body: impl FnOnce(&mut Writer<'_>),
) {
    let mut header = Header::new(head, head.name, head.context);
    header.put_u64(at::FROM, head.from_address.to_raw());
    write_frame(out, &header, body);
}

/// Appends the answer to a call.
pub(super) fn write_response(
    out: &mut BytesMut,
    call: &RequestHead,
    error: ErrorCode,
    responder: RpcAddress,
    body: impl FnOnce(&mut Writer<'_>),
) {
    let mut header = Header::new(call, call.name.with_ack(), call.context.of_answer());
    header.put_u64(at::FROM, responder.to_raw());
    header.put_name(at::ERROR, error.name().as_bytes());
    write_frame(out, &header, body);
}

fn write_frame(out: &mut BytesMut, header: &Header, body: impl FnOnce(&mut Writer<'_>)) {
    let start = out.len();
    out.extend_from_slice(&header.0);
    body(&mut Writer::new(out));
    let length = (out.len() - start - HEADER) as u32;
    out[start + at::BODY_LENGTH..][..4].copy_from_slice(&length.to_le_bytes());
}

/// Adds both checksums to the frame that begins at `start` and reaches to the end of `out`; an
/// option, since readers accept frames without.
pub fn seal(out: &mut BytesMut, start: usize) {
    let frame = &mut out[start..];
    let Some((header, body)) = frame.split_first_chunk_mut::<HEADER>() else {
        return;
    };
    let mut image = Header(*header);
    image.put_u32(at::BODY_CRC, crc32c::crc32c(body));
    image.put_u32(at::HEADER_CRC, 0);
    image.put_u32(at::HEADER_CRC, crc32c::crc32c(&image.0));
    *header = image.0;
}

/// The image of a header.
#[derive(Clone, Copy)]
struct Header([u8; HEADER]);

impl Header {
    fn new(call: &RequestHead, name: RpcName, context: Context) -> Self {
        let mut header = Self([0; HEADER]);
        header.0[..4].copy_from_slice(MAGIC);
        header.put_u32(at::HEADER_LENGTH, HEADER as u32);
        header.put_u64(at::ID, call.id);
        header.put_u64(at::TRACE_ID, call.trace_id);
        header.put_name(at::NAME, name.as_bytes());
        header.put_u32(at::APP_ID, call.gpid.app_id as u32);
        header.put_u32(at::PARTITION_INDEX, call.gpid.partition_index as u32);
        header.put_u64(at::CONTEXT, context.0);
        header.put_u32(at::TIMEOUT, call.timeout_ms);
        header.put_u32(at::THREAD_HASH, call.thread_hash as u32);
        header.put_u64(at::PARTITION_HASH, call.partition_hash);
        header
    }

    /// What can be checked before the body has arrived.
    fn check(&self) -> Result<(), FrameError> {
        let magic = self.bytes(0);
        if magic != *MAGIC {
            return Err(FrameError::Magic(magic));
        }
        if self.u32(at::VERSION) != 0 {
            return Err(FrameError::HeaderVersion(self.u32(at::VERSION)));
        }
        if self.u32(at::HEADER_LENGTH) != HEADER as u32 {
            return Err(FrameError::HeaderLength(self.u32(at::HEADER_LENGTH)));
        }
        let crc = self.u32(at::HEADER_CRC);
        if crc != 0 {
            let mut image = *self;
            image.put_u32(at::HEADER_CRC, 0);
            if crc32c::crc32c(&image.0) != crc {
                return Err(FrameError::HeaderChecksum);
            }
        }
        let format = Context(self.u64(at::CONTEXT)).format();
        if format != Context::FORMAT_THRIFT_BINARY {
            return Err(FrameError::Serialization(format as u8));
        }
        Ok(())
    }

    #[inline]
    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.0[at..at + N]);
        bytes
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes(at))
    }

    fn i32(&self, at: usize) -> i32 {
        i32::from_le_bytes(self.bytes(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes(at))
    }

    fn name(&self, at: usize) -> &[u8] {
        let field = &self.0[at..at + NAME_FIELD];
        field.split(|&byte| byte == 0).next().unwrap_or_default()
    }

    fn put_u32(&mut self, at: usize, value: u32) {
        self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    fn put_u64(&mut self, at: usize, value: u64) {
        self.0[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    fn put_name(&mut self, at: usize, name: &[u8]) {
        let len = name.len().min(NAME_FIELD - 1);
        self.0[at..at + len].copy_from_slice(&name[..len]);
    }
}
