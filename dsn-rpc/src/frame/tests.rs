//! Frames cut from byte streams, and what is refused.

use bytes::{Bytes, BytesMut};

use super::http::{HttpMethod, HttpResponse, HttpTarget};
use super::*;
use crate::thrift::{ARGUMENT_ID, Blob, RESULT_ID, decode_wrapped};

const LIMIT: usize = 1024;

fn head(protocol: Protocol) -> RequestHead {
    RequestHead {
        gpid: Gpid::new(2, 3),
        timeout_ms: 700,
        thread_hash: Gpid::new(2, 3).thread_hash(),
        partition_hash: u64::MAX - 1,
        ..RequestHead::new(protocol, RpcName::from("RPC_X"), 77)
    }
}

fn request(head: &RequestHead) -> BytesMut {
    let mut out = BytesMut::new();
    write_request(&mut out, head, |w| w.wrapped(ARGUMENT_ID, &Blob::from_static(b"argument")));
    out
}

fn response(head: &RequestHead, error: ErrorCode) -> BytesMut {
    let mut out = BytesMut::new();
    let me = RpcAddress::new(std::net::Ipv4Addr::LOCALHOST, 34801);
    if error.is_ok() {
        let result = Blob::from_static(b"result");
        write_response(&mut out, head, error, me, |w| w.wrapped(RESULT_ID, &result));
    } else {
        write_error(&mut out, head, error, me);
    }
    out
}

/// The only frame in `input`.
fn only(mut parser: Parser, mut input: BytesMut) -> Result<Frame, FrameError> {
    match parser.next(&mut input)? {
        Parsed::Frame(frame) => {
            assert!(input.is_empty(), "{} bytes left", input.len());
            Ok(frame)
        }
        Parsed::NeedMore(total) => panic!("needs {total} bytes, has {}", input.len()),
    }
}

#[test]
fn requests_survive_the_trip() {
    for protocol in [Protocol::Thft, Protocol::Rdsn] {
        let head = head(protocol);
        let Ok(Frame::Request(frame)) = only(Parser::server(LIMIT), request(&head)) else {
            panic!("not a request");
        };
        assert_eq!(frame.head, head);
        assert_eq!(decode_wrapped::<Blob>(&frame.body), Ok(Blob::from_static(b"argument")));
    }
}

#[test]
fn responses_survive_the_trip() {
    for protocol in [Protocol::Thft, Protocol::Rdsn] {
        for error in [ErrorCode::Ok, ErrorCode::Busy] {
            let bytes = response(&head(protocol), error);
            let Ok(Frame::Response(frame)) = only(Parser::client(protocol, LIMIT), bytes) else {
                panic!("not a response");
            };
            assert_eq!((frame.id, frame.error), (77, error));
            assert_eq!(frame.name, "RPC_X_ACK");
            match error {
                ErrorCode::Ok => {
                    let result = Blob::from_static(b"result");
                    assert_eq!(decode_wrapped::<Blob>(&frame.body), Ok(result));
                }
                _ => assert_eq!(frame.body, Bytes::new()),
            }
        }
    }
}

#[test]
fn frames_are_cut_at_every_split() {
    for protocol in [Protocol::Thft, Protocol::Rdsn] {
        let mut stream = request(&head(protocol));
        stream.extend_from_slice(&request(&head(protocol)));
        let mut parser = Parser::server(LIMIT);
        let mut input = BytesMut::new();
        let mut frames = 0;
        let mut needed = 0;
        for byte in stream {
            input.extend_from_slice(&[byte]);
            match parser.next(&mut input).unwrap() {
                Parsed::Frame(_) => frames += 1,
                Parsed::NeedMore(total) => {
                    assert!(total > input.len());
                    needed = needed.max(total);
                }
            }
        }
        assert_eq!((frames, input.len()), (2, 0));
        assert_eq!(needed, request(&head(protocol)).len());
        assert_eq!(parser.protocol(), Some(protocol));
    }
}

#[test]
fn unknown_first_bytes_are_refused() {
    for first in [&b"PUT "[..], b"_RAW", b"\0\0\0\0", b"THFX", b"HEAD"] {
        let error = Parser::server(LIMIT).next(&mut BytesMut::from(first));
        assert!(matches!(error, Err(FrameError::Magic(_))), "{first:?}");
    }
    let parsed = Parser::server(LIMIT).next(&mut BytesMut::from(&b"TH"[..]));
    assert_eq!(parsed, Ok(Parsed::NeedMore(4)));
    // Every frame is looked at, not only the first.
    for protocol in [Protocol::Thft, Protocol::Rdsn] {
        let mut parser = Parser::server(LIMIT);
        let mut input = request(&head(protocol));
        input.extend_from_slice(b"GET /");
        assert!(matches!(parser.next(&mut input), Ok(Parsed::Frame(_))));
        assert_eq!(parser.next(&mut input), Err(FrameError::Magic(*b"GET ")));
    }
}

#[test]
fn declared_lengths_are_checked_before_the_body_arrives() {
    let mut thft = request(&head(Protocol::Thft));
    thft.truncate(48);
    let mut rdsn = request(&head(Protocol::Rdsn));
    rdsn.truncate(192);
    for length in [LIMIT as u32, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff] {
        let mut v0 = thft.clone();
        v0[16..20].copy_from_slice(&length.to_be_bytes());
        let mut v1 = thft.clone();
        v1[4..8].copy_from_slice(&1u32.to_be_bytes());
        v1[8..12].copy_from_slice(&length.to_be_bytes());
        let mut v1_body = v1.clone();
        v1_body[8..12].copy_from_slice(&0u32.to_be_bytes());
        v1_body[12..16].copy_from_slice(&length.to_be_bytes());
        let mut rdsn = rdsn.clone();
        rdsn[16..20].copy_from_slice(&length.to_le_bytes());
        for mut input in [v0, v1, v1_body, rdsn] {
            let error = Parser::server(LIMIT).next(&mut input);
            assert!(matches!(error, Err(FrameError::FrameLength { .. })), "{error:?}");
        }
        let mut input = BytesMut::from(&(length + 1).to_be_bytes()[..]);
        let error = Parser::client(Protocol::Thft, LIMIT).next(&mut input);
        assert!(matches!(error, Err(FrameError::FrameLength { .. })), "{error:?}");
    }
}

#[test]
fn broken_headers_are_refused() {
    let with = |protocol, at: usize, bytes: &[u8]| {
        let mut input = request(&head(protocol));
        input[at..at + bytes.len()].copy_from_slice(bytes);
        only(Parser::server(LIMIT), input)
    };
    use Protocol::{Rdsn, Thft};
    assert_eq!(with(Thft, 4, &[0, 0, 0, 2]), Err(FrameError::HeaderVersion(2)));
    assert_eq!(with(Thft, 8, &[0, 0, 0, 47]), Err(FrameError::HeaderLength(47)));
    assert_eq!(with(Thft, 48, &[0x80, 2]), Err(FrameError::MessageVersion(0x8002_0001)));
    assert_eq!(with(Thft, 51, &[3]), Err(FrameError::MessageType(3)));
    assert!(matches!(with(Thft, 52, &[0xff]), Err(FrameError::Header(_))));
    assert_eq!(with(Rdsn, 4, &[1]), Err(FrameError::HeaderVersion(1)));
    assert_eq!(with(Rdsn, 8, &[191]), Err(FrameError::HeaderLength(191)));
    assert_eq!(with(Rdsn, 12, &[1]), Err(FrameError::HeaderChecksum));
    assert_eq!(with(Rdsn, 20, &[1]), Err(FrameError::BodyChecksum));
    assert_eq!(with(Rdsn, 104, &[0x81]), Err(FrameError::Serialization(2)));
}

#[test]
fn old_style_messages_and_one_way_calls_are_read() {
    let mut message = Vec::new();
    message.extend(b"\0\0\0\x05RPC_X\x04\0\0\0\x09");
    message.push(0);
    let mut input = request(&head(Protocol::Thft));
    input.truncate(48);
    input[16..20].copy_from_slice(&(message.len() as u32).to_be_bytes());
    input.extend_from_slice(&message);
    let Ok(Frame::Request(frame)) = only(Parser::server(LIMIT), input) else {
        panic!("not a request");
    };
    assert_eq!(frame.head.name, "RPC_X");
    assert!(frame.head.is_oneway);
    assert_eq!((frame.head.id, &frame.body[..]), (9, &[0][..]));
}

#[test]
fn version_one_headers_are_read() {
    let mut meta = BytesMut::new();
    crate::thrift::encode(
        &thft::RequestMeta {
            app_id: Some(2),
            partition_index: Some(3),
            client_timeout: Some(-5),
            client_partition_hash: Some(-1),
            is_backup_request: Some(true),
        },
        &mut meta,
    );
    let plain = request(&head(Protocol::Thft));
    let mut input = BytesMut::from(&b"THFT\0\0\0\x01"[..]);
    input.extend_from_slice(&(meta.len() as u32).to_be_bytes());
    input.extend_from_slice(&((plain.len() - 48) as u32).to_be_bytes());
    input.extend_from_slice(&meta);
    input.extend_from_slice(&plain[48..]);
    let Ok(Frame::Request(frame)) = only(Parser::server(LIMIT), input) else {
        panic!("not a request");
    };
    let h = frame.head;
    assert_eq!((h.version, h.gpid, h.timeout_ms), (1, Gpid::new(2, 3), 0));
    assert_eq!((h.partition_hash, h.thread_hash), (u64::MAX, 15841));
    assert!(h.context.is_backup());
}

#[test]
fn sealed_frames_verify_and_any_flipped_byte_is_noticed() {
    let mut sealed = request(&head(Protocol::Rdsn));
    rdsn::seal(&mut sealed, 0);
    assert!(only(Parser::server(LIMIT), sealed.clone()).is_ok());
    for at in (4..sealed.len()).filter(|at| !(16..20).contains(at)) {
        let mut broken = sealed.clone();
        broken[at] ^= 0x10;
        let mut parser = Parser::client(Protocol::Rdsn, LIMIT);
        assert!(parser.next(&mut broken).is_err(), "byte {at}");
    }
}

#[test]
fn http_requests_are_read() {
    let text = concat!(
        "POST /a//b?x=1&flag HTTP/1.1\r\nHost: h\r\ncontent-length: 4\r\n\r\nbody",
        "GET / HTTP/1.0\r\n\r\n",
    );
    let mut input = BytesMut::from(text);
    let mut parser = Parser::server(LIMIT);
    let Ok(Parsed::Frame(Frame::Http(first))) = parser.next(&mut input) else {
        panic!("not HTTP");
    };
    assert_eq!(
        (first.method, &first.body[..], first.keep_alive),
        (HttpMethod::Post, &b"body"[..], true)
    );
    assert_eq!(first.header("HOST"), Some(&b"h"[..]));
    let target = HttpTarget::parse(&first.target).unwrap();
    assert_eq!(target.path, "a/b");
    assert_eq!((target.argument("x"), target.argument("flag")), (Some("1"), Some("")));
    let Ok(Parsed::Frame(Frame::Http(second))) = parser.next(&mut input) else {
        panic!("not HTTP");
    };
    assert_eq!((second.method, second.keep_alive), (HttpMethod::Get, false));
    assert!(input.is_empty());
}

#[test]
fn http_limits_are_reached() {
    let status =
        |text: &str| match Parser::client(Protocol::Http, LIMIT).next(&mut BytesMut::from(text)) {
            Err(FrameError::Http(error)) => error.status(),
            other => panic!("{other:?}"),
        };
    let with = |header: &str| status(&format!("GET / HTTP/1.1\r\n{header}\r\n\r\n"));
    assert_eq!(with("Content-Length: 1048577"), 413);
    assert_eq!(with("Content-Length: 99999999999999999999"), 413);
    assert_eq!(with("Content-Length: -1"), 400);
    assert_eq!(with("Content-Length: +1"), 400);
    assert_eq!(with("Content-Length: 1\r\nContent-Length: 2"), 400);
    assert_eq!(with("Transfer-Encoding: chunked"), 501);
    assert_eq!(with(&vec!["A: b"; http::MAX_HEADERS + 1].join("\r\n")), 431);
    assert_eq!(with(&format!("A: {}", "x".repeat(http::MAX_HEAD))), 431);
    assert_eq!(status("DELETE / HTTP/1.1\r\n\r\n"), 501);
    assert_eq!(status("GET / HTTP/3\r\n\r\n"), 400);
}

#[test]
fn http_connection_header_decides() {
    let keep = |text: &str| match only(Parser::server(LIMIT), BytesMut::from(text)) {
        Ok(Frame::Http(request)) => request.keep_alive,
        other => panic!("{other:?}"),
    };
    assert!(keep("GET / HTTP/1.1\r\n\r\n"));
    assert!(!keep("GET / HTTP/1.1\r\nConnection: x, Close\r\n\r\n"));
    assert!(keep("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"));
}

#[test]
fn http_targets() {
    let parse = |target: &str| HttpTarget::parse(target.as_bytes());
    assert_eq!(parse("/").unwrap(), HttpTarget::default());
    let target = parse("//m%65ta/app+x?name=a%20b+c&=e#top").unwrap();
    assert_eq!(target.path, "meta/app+x");
    assert_eq!(target.argument("name"), Some("a b c"));
    for bad in ["/?a=1&a=2", "/%", "/%zz", "/?x=%ff", "/%1"] {
        assert_eq!(parse(bad), Err(HttpError::Malformed), "{bad}");
    }
    let many: Vec<String> = (0..=http::MAX_QUERY_ARGUMENTS).map(|i| format!("a{i}")).collect();
    assert_eq!(parse(&format!("/?{}", many.join("&"))), Err(HttpError::Malformed));
}

#[test]
fn http_answers() {
    let mut out = BytesMut::new();
    http::write_response(&mut out, &HttpResponse::text(200, b"hi"));
    assert_eq!(out, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi");
    let mut out = BytesMut::new();
    let answer = HttpResponse {
        status: 307,
        content_type: "text/plain",
        location: Some("http://a:1/x"),
        body: b"",
        keep_alive: false,
    };
    http::write_response(&mut out, &answer);
    let text = String::from_utf8(out.to_vec()).unwrap();
    assert!(text.contains("\r\nLocation: http://a:1/x\r\n"));
    assert!(text.ends_with("\r\nConnection: close\r\n\r\n"));
}
