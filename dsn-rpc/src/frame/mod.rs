//! Cutting the byte stream of a connection into frames, and writing frames; no sockets here.
//!
//! The first four bytes that a server receives choose the protocol of the whole connection: `THFT`
//! (client libraries), `RDSN` (servers, the C++ client and its tools) or HTTP (`GET `, `POST`).
//! Anything else is an error, as is every header that does not hold together: the connection is
//! dropped, nothing else is harmed.
//!
//! [`Parser::next`] takes complete frames out of a receive buffer; their bodies share its memory. A
//! declared length is checked against the limit before a byte of it is awaited. The parser says how
//! many bytes it needs, but whoever reads the socket should not reserve all of them at once on a
//! stranger's word.

pub mod http;
mod name;
pub mod rdsn;
#[cfg(test)]
mod tests;
pub mod thft;

use bytes::{Bytes, BytesMut};

use crate::address::RpcAddress;
use crate::error_code::ErrorCode;
use crate::gpid::Gpid;
use crate::thrift::{WireError, Writer};

pub use self::http::{HttpError, HttpRequest};
pub use self::name::RpcName;
pub use self::rdsn::Context;

/// Largest frame in bytes, headers included, unless configured otherwise. Must hold the largest
/// answer: a `multi_get` may return 30 MiB and one record.
pub const DEFAULT_MAX_FRAME: usize = 64 * 1024 * 1024;

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Client libraries: thrift with a small header.
    Thft,
    /// Servers among themselves, the C++ client and its tools.
    Rdsn,
    /// Operators and monitoring.
    Http,
}

/// Why a connection must be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first bytes belong to no protocol, or not to the one of this connection.
    #[error("unknown protocol, first bytes {0:02x?}")]
    Magic([u8; 4]),
    /// A header version that does not exist.
    #[error("unknown header version {0}")]
    HeaderVersion(u32),
    /// A header that declares another length than headers have.
    #[error("declared header length {0}")]
    HeaderLength(u32),
    /// A frame larger than the limit, or smaller than its own header.
    #[error("declared frame length {declared}, the limit is {limit}")]
    FrameLength {
        /// Bytes that the frame would take.
        declared: u64,
        /// Most bytes that a frame may take.
        limit: usize,
    },
    /// The checksum of the header is wrong.
    #[error("header checksum mismatch")]
    HeaderChecksum,
    /// The checksum of the body is wrong.
    #[error("body checksum mismatch")]
    BodyChecksum,
    /// A body in another encoding than thrift binary.
    #[error("unsupported body encoding {0}")]
    Serialization(u8),
    /// A thrift message of an unknown version.
    #[error("unknown message version {0:#010x}")]
    MessageVersion(u32),
    /// A thrift message of a type that does not belong here.
    #[error("unexpected message type {0}")]
    MessageType(u8),
    /// A frame header or message header that cannot be decoded.
    #[error("broken header: {0}")]
    Header(#[from] WireError),
    /// A bad HTTP request; it should be answered with the error's status before the connection
    /// closes.
    #[error(transparent)]
    Http(#[from] HttpError),
}

/// What came of looking at a receive buffer.
#[derive(Clone, Debug, PartialEq)]
pub enum Parsed {
    /// A complete frame, taken out of the buffer.
    Frame(Frame),
    /// No complete frame: the buffer must hold this many bytes in all, more than now, before it is
    /// worth looking again.
    NeedMore(usize),
}

/// A complete frame.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// A call, to be answered unless it is one way.
    Request(RequestFrame),
    /// The answer to a call.
    Response(ResponseFrame),
    /// An HTTP request.
    Http(HttpRequest),
}

/// A call: who is asked what; with everything that its answer must repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// What the connection speaks; the answer goes the same way.
    pub protocol: Protocol,
    /// Version of the header, 0 or 1.
    pub version: u8,
    /// Name of the RPC.
    pub name: RpcName,
    /// Pairs calls with answers; unique among the open calls of a connection. 32 bits in `THFT`.
    pub id: u64,
    /// Random number that follows a call through servers; 0 in `THFT`.
    pub trace_id: u64,
    /// The partition addressed; app id 0 or less for calls that concern none.
    pub gpid: Gpid,
    /// How long the caller waits, in milliseconds; 0 = it did not say.
    pub timeout_ms: u32,
    /// Spreads calls over threads; says nothing that `gpid` does not.
    pub thread_hash: i32,
    /// Hash of the hash key, or 0.
    pub partition_hash: u64,
    /// Flags.
    pub context: Context,
    /// Whether the sender said that it expects no answer. In `RDSN` that hangs on the name instead.
    pub is_oneway: bool,
    /// The caller's own address if it listens on one; invalid in `THFT`.
    pub from_address: RpcAddress,
}

impl RequestHead {
    /// A head with neutral values.
    #[must_use]
    pub fn new(protocol: Protocol, name: RpcName, id: u64) -> Self {
        Self {
            protocol,
            version: 0,
            name,
            id,
            trace_id: 0,
            gpid: Gpid::default(),
            timeout_ms: 0,
            thread_hash: 0,
            partition_hash: 0,
            context: Context::REQUEST,
            is_oneway: false,
            from_address: RpcAddress::INVALID,
        }
    }
}

/// A call with its argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestFrame {
    /// Everything but the argument.
    pub head: RequestHead,
    /// The wrapped argument exactly as the client sent it.
    pub body: Bytes,
}

/// The answer to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseFrame {
    /// What the connection speaks.
    pub protocol: Protocol,
    /// Name of the RPC with `_ACK` behind it.
    pub name: RpcName,
    /// Id of the call.
    pub id: u64,
    /// Trace id of the call; 0 in `THFT`.
    pub trace_id: u64,
    /// Partition of the call; 0.0 in `THFT`.
    pub gpid: Gpid,
    /// Outcome at the RPC level. Most errors come without a body.
    pub error: ErrorCode,
    /// Address of who answered; invalid in `THFT`.
    pub from_address: RpcAddress,
    /// The wrapped result, or nothing.
    pub body: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Undecided,
    ThftRequests,
    ThftResponses,
    Rdsn,
    Http,
}

/// Cuts one connection's bytes into frames. After an error it must not be used further.
#[derive(Clone, Debug)]
pub struct Parser {
    mode: Mode,
    max_frame: usize,
}

impl Parser {
    /// For an accepted connection, whose protocol its first bytes tell.
    #[must_use]
    pub const fn server(max_frame: usize) -> Self {
        Self { mode: Mode::Undecided, max_frame }
    }

    /// For a connection that we opened, on which answers arrive (and in `RDSN` also calls).
    /// HTTP is not spoken as a client; for it the parser behaves as on an accepted connection.
    #[must_use]
    pub const fn client(protocol: Protocol, max_frame: usize) -> Self {
        let mode = match protocol {
            Protocol::Thft => Mode::ThftResponses,
            Protocol::Rdsn => Mode::Rdsn,
            Protocol::Http => Mode::Http,
        };
        Self { mode, max_frame }
    }

    /// The protocol, once it is known.
    #[must_use]
    pub const fn protocol(&self) -> Option<Protocol> {
        match self.mode {
            Mode::Undecided => None,
            Mode::ThftRequests | Mode::ThftResponses => Some(Protocol::Thft),
            Mode::Rdsn => Some(Protocol::Rdsn),
            Mode::Http => Some(Protocol::Http),
        }
    }

    /// Takes the next complete frame out of `input`.
    ///
    /// # Errors
    /// Any [`FrameError`]: the connection must be dropped.
    #[inline]
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Parsed, FrameError> {
        loop {
            match self.mode {
                Mode::ThftRequests => return thft::next_request(input, self.max_frame),
                Mode::ThftResponses => return thft::next_response(input, self.max_frame),
                Mode::Rdsn => return rdsn::next(input, self.max_frame),
                Mode::Http => return http::next(input),
                Mode::Undecided => {
                    let Some(magic) = input.first_chunk::<4>() else {
                        return Ok(Parsed::NeedMore(4));
                    };
                    self.mode = match magic {
                        thft::MAGIC => Mode::ThftRequests,
                        rdsn::MAGIC => Mode::Rdsn,
                        b"GET " | b"POST" => Mode::Http,
                        other => return Err(FrameError::Magic(*other)),
                    };
                }
            }
        }
    }
}

/// Appends the answer to a call. `body` writes the wrapped result into the frame itself; optional
/// host-port fields are left out where the protocol's readers cannot bear them. `responder` is this
/// server's address.
///
/// HTTP calls are answered with [`http::write_response`]; here they add nothing.
#[inline]
pub fn write_response(
    out: &mut BytesMut,
    call: &RequestHead,
    error: ErrorCode,
    responder: RpcAddress,
    body: impl FnOnce(&mut Writer<'_>),
) {
    match call.protocol {
        Protocol::Thft => thft::write_response(out, call, error, body),
        Protocol::Rdsn => rdsn::write_response(out, call, error, responder, body),
        Protocol::Http => {}
    }
}

/// Appends the answer to a call that failed at the RPC level: it has no body.
pub fn write_error(
    out: &mut BytesMut,
    call: &RequestHead,
    error: ErrorCode,
    responder: RpcAddress,
) {
    write_response(out, call, error, responder, |_| {});
}

/// Appends a call in the protocol that `head` names (HTTP adds nothing); `body` writes the wrapped
/// argument.
#[inline]
pub fn write_request(out: &mut BytesMut, head: &RequestHead, body: impl FnOnce(&mut Writer<'_>)) {
    match head.protocol {
        Protocol::Thft => thft::write_request(out, head, body),
        Protocol::Rdsn => rdsn::write_request(out, head, body),
        Protocol::Http => {}
    }
}

/// Changes how long the caller waits, in a frame that [`write_request`] has written.
pub(crate) fn set_request_timeout(protocol: Protocol, frame: &mut [u8], timeout_ms: u32) {
    let (at, bytes) = match protocol {
        Protocol::Thft => (thft::TIMEOUT_AT, timeout_ms.to_be_bytes()),
        Protocol::Rdsn => (rdsn::TIMEOUT_AT, timeout_ms.to_le_bytes()),
        Protocol::Http => return,
    };
    if let Some(place) = frame.get_mut(at..at + 4) {
        place.copy_from_slice(&bytes);
    }
}

/// Refuses a frame that is too large or smaller than `least`; returns its length.
#[inline]
fn checked_length(declared: u64, least: usize, limit: usize) -> Result<usize, FrameError> {
    match usize::try_from(declared) {
        Ok(length) if (least..=limit).contains(&length) => Ok(length),
        _ => Err(FrameError::FrameLength { declared, limit }),
    }
}
