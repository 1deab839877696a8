//! HTTP/1.1, as far as monitoring and operators need it: GET and POST, bodies of known length.
//!
//! Requests may be pipelined and connections stay open unless one side says otherwise. Limits:
//! [`MAX_HEAD`], [`MAX_HEADERS`], [`MAX_BODY`]; chunked bodies are refused. A request that breaks a
//! rule should be answered with [`HttpError::status`] before the connection is closed.

use bytes::{Bytes, BytesMut};

use super::{Frame, FrameError, Parsed};

/// Most bytes of a request line and its headers.
pub const MAX_HEAD: usize = 16 * 1024;

/// Most headers of a request.
pub const MAX_HEADERS: usize = 64;

/// Most bytes of a request's body.
pub const MAX_BODY: usize = 1024 * 1024;

/// Most arguments in the query of a target.
pub const MAX_QUERY_ARGUMENTS: usize = 64;

/// Why an HTTP request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// Not HTTP, or broken.
    #[error("malformed HTTP request")]
    Malformed,
    /// The head is larger than [`MAX_HEAD`], or has more than [`MAX_HEADERS`] headers.
    #[error("HTTP request head is too large")]
    HeadTooLarge,
    /// The body is larger than [`MAX_BODY`].
    #[error("HTTP request body of {0} bytes is too large")]
    BodyTooLarge(u64),
    /// Neither GET nor POST.
    #[error("only GET and POST are supported")]
    Method,
    /// A chunked body.
    #[error("transfer encodings are not supported")]
    TransferEncoding,
}

impl HttpError {
    /// The status to answer with.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::HeadTooLarge => 431,
            Self::BodyTooLarge(_) => 413,
            Self::Method | Self::TransferEncoding => 501,
        }
    }
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpMethod {
    /// Read.
    Get,
    /// Do.
    Post,
}

/// A request; everything in it shares the frame's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRequest {
    /// GET or POST.
    pub method: HttpMethod,
    /// Path and query as they were sent; see [`HttpTarget::parse`].
    pub target: Bytes,
    /// Names and values in the order they were sent.
    pub headers: Vec<(Bytes, Bytes)>,
    /// The body, empty without `Content-Length`.
    pub body: Bytes,
    /// Whether the connection stays open after the answer.
    pub keep_alive: bool,
}

impl HttpRequest {
    /// The value of the first header of that name, in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let found = self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes()));
        found.map(|(_, value)| &**value)
    }
}

/// What a request head says.
struct Head {
    method: HttpMethod,
    length: usize,
    body_length: usize,
    keep_alive: bool,
}

/// Takes the next request out of `input`.
pub(super) fn next(input: &mut BytesMut) -> Result<Parsed, FrameError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let Some(head) = parse_head(&mut request, input)? else {
        return Ok(Parsed::NeedMore(input.len() + 1));
    };
    let total = head.length + head.body_length;
    if input.len() < total {
        return Ok(Parsed::NeedMore(total));
    }
    let mut frame = input.split_to(total).freeze();
    let body = frame.split_off(head.length);
    // Once more over the bytes that stay, so that everything can be a slice of them.
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    parse_head(&mut request, &frame)?;
    let target = request.path.unwrap_or_default();
    let headers = request
        .headers
        .iter()
        .map(|h| (frame.slice_ref(h.name.as_bytes()), frame.slice_ref(h.value)));
    Ok(Parsed::Frame(Frame::Http(HttpRequest {
        method: head.method,
        target: frame.slice_ref(target.as_bytes()),
        headers: headers.collect(),
        body,
        keep_alive: head.keep_alive,
    })))
}

/// Reads a head into `request`; `None` while it is incomplete.
fn parse_head<'b>(
    request: &mut httparse::Request<'_, 'b>,
    input: &'b [u8],
) -> Result<Option<Head>, HttpError> {
    let window = &input[..input.len().min(MAX_HEAD)];
    let length = match request.parse(window) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if window.len() < MAX_HEAD => return Ok(None),
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Err(HttpError::HeadTooLarge);
        }
        Err(_) => return Err(HttpError::Malformed),
    };
    let method = match request.method {
        Some("GET") => HttpMethod::Get,
        Some("POST") => HttpMethod::Post,
        _ => return Err(HttpError::Method),
    };
    let mut body_length = None;
    let mut keep_alive = request.version == Some(1);
    for header in request.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            let length = content_length(header.value)?;
            if body_length.replace(length).is_some_and(|before| before != length) {
                return Err(HttpError::Malformed);
            }
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(HttpError::TransferEncoding);
        } else if header.name.eq_ignore_ascii_case("connection") {
            let mut options = header.value.split(|&b| b == b',').map(<[u8]>::trim_ascii);
            if options.clone().any(|option| option.eq_ignore_ascii_case(b"close")) {
                keep_alive = false;
            } else if options.any(|option| option.eq_ignore_ascii_case(b"keep-alive")) {
                keep_alive = true;
            }
        }
    }
    let body_length = body_length.unwrap_or_default();
    Ok(Some(Head { method, length, body_length, keep_alive }))
}

fn content_length(value: &[u8]) -> Result<usize, HttpError> {
    let value = value.trim_ascii();
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(HttpError::Malformed);
    }
    let text = std::str::from_utf8(value).map_err(|_| HttpError::Malformed)?;
    let length: u64 = text.parse().map_err(|_| HttpError::BodyTooLarge(u64::MAX))?;
    match usize::try_from(length) {
        Ok(length) if length <= MAX_BODY => Ok(length),
        _ => Err(HttpError::BodyTooLarge(length)),
    }
}

/// An answer.
#[derive(Clone, Copy, Debug)]
pub struct HttpResponse<'a> {
    /// Status number.
    pub status: u16,
    /// Media type of the body.
    pub content_type: &'a str,
    /// Where to ask instead, with status 307. Must hold no line break.
    pub location: Option<&'a str>,
    /// The body.
    pub body: &'a [u8],
    /// Whether the connection stays open.
    pub keep_alive: bool,
}

impl<'a> HttpResponse<'a> {
    /// A plain text that leaves the connection open.
    #[must_use]
    pub const fn text(status: u16, body: &'a [u8]) -> Self {
        Self { status, content_type: "text/plain", location: None, body, keep_alive: true }
    }
}

/// Appends an answer.
pub fn write_response(out: &mut BytesMut, response: &HttpResponse<'_>) {
    let reason = match response.status {
        200 => "OK",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        _ => "",
    };
    let mut head = format!(
        "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\n",
        response.status,
        response.content_type,
        response.body.len()
    );
    if let Some(location) = response.location.filter(|l| !l.contains(['\r', '\n'])) {
        head.push_str("Location: ");
        head.push_str(location);
        head.push_str("\r\n");
    }
    if !response.keep_alive {
        head.push_str("Connection: close\r\n");
    }
    head.push_str("\r\n");
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(response.body);
}

/// The path and the arguments of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpTarget {
    /// Segments joined by single slashes, without a leading one; `""` is the root.
    pub path: String,
    /// Arguments in the order they were given; a name without `=` has no value.
    pub arguments: Vec<(String, Option<String>)>,
}

impl HttpTarget {
    /// Splits and decodes a target.
    ///
    /// # Errors
    /// [`HttpError::Malformed`] for bad escapes, text that is not UTF-8, an argument given twice,
    /// or more than [`MAX_QUERY_ARGUMENTS`] of them; [`HttpError::HeadTooLarge`] for more bytes
    /// than a head may have.
    pub fn parse(target: &[u8]) -> Result<Self, HttpError> {
        if target.len() > MAX_HEAD {
            return Err(HttpError::HeadTooLarge);
        }
        let target = std::str::from_utf8(target).map_err(|_| HttpError::Malformed)?;
        let target = target.split('#').next().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut parsed = Self::default();
        for segment in path.split('/').filter(|segment| !segment.is_empty()) {
            if !parsed.path.is_empty() {
                parsed.path.push('/');
            }
            parsed.path.push_str(&percent_decode(segment, b'+')?);
        }
        for argument in query.split('&').filter(|argument| !argument.is_empty()) {
            let (name, value) = match argument.split_once('=') {
                Some((name, value)) => (name, Some(percent_decode(value, b' ')?)),
                None => (argument, None),
            };
            let name = percent_decode(name, b' ')?;
            let twice = parsed.arguments.iter().any(|(known, _)| *known == name);
            if twice || parsed.arguments.len() == MAX_QUERY_ARGUMENTS {
                return Err(HttpError::Malformed);
            }
            parsed.arguments.push((name, value));
        }
        Ok(parsed)
    }

    /// The value of an argument; empty for one given without value.
    #[must_use]
    pub fn argument(&self, name: &str) -> Option<&str> {
        let (_, value) = self.arguments.iter().find(|(known, _)| known == name)?;
        Some(value.as_deref().unwrap_or_default())
    }
}

/// Resolves `%NN`; `plus` is what a plus sign stands for.
fn percent_decode(text: &str, plus: u8) -> Result<String, HttpError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    loop {
        rest = match *rest {
            [] => break,
            [b'%', high, low, ref tail @ ..] => {
                let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(HttpError::Malformed);
                bytes.push((digit(high)? << 4 | digit(low)?) as u8);
                tail
            }
            [b'%', ..] => return Err(HttpError::Malformed),
            [b'+', ref tail @ ..] => {
                bytes.push(plus);
                tail
            }
            [byte, ref tail @ ..] => {
                bytes.push(byte);
                tail
            }
        };
    }
    String::from_utf8(bytes).map_err(|_| HttpError::Malformed)
}
