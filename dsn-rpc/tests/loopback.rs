//! Calls between two nodes of one process, over real sockets.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use common::*;
use dsn_core::exec::Ctx;
use dsn_core::toollet::{FaultRule, Toollet};
use dsn_rpc::builtin::{
    Command, Negotiation, RPC_CLI_CLI_CALL, RPC_NEGOTIATION, SASL_AUTH_DISABLE,
};
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::frame::Protocol;
use dsn_rpc::{CallError, CallOptions, Lane, NetworkError, Probed, RpcOptions};

const PROTOCOLS: [Protocol; 2] = [Protocol::Thft, Protocol::Rdsn];

fn over(protocol: Protocol) -> CallOptions {
    CallOptions { protocol, ..CallOptions::default() }
}

fn within(millis: u64) -> CallOptions {
    CallOptions::within(Duration::from_millis(millis))
}

fn pair() -> (TestNode, TestNode) {
    (TestNode::start(2, RpcOptions::default()), TestNode::start(2, RpcOptions::default()))
}

#[expect(clippy::disallowed_methods, reason = "the test is the client")]
fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// An address that nobody listens on.
#[expect(clippy::disallowed_methods, reason = "the test wants a port that was free a moment ago")]
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn a_call_is_answered_over_both_protocols_and_from_any_worker() {
    let (server, client) = pair();
    for protocol in PROTOCOLS {
        for worker in [0, 1] {
            let calls = Calls::new(&client, worker);
            for code in [&RPC_TEST_ECHO, &RPC_TEST_FAR] {
                calls.call(&client, 1, server.addr, code, "hello", over(protocol));
                assert_eq!(calls.next_text(), (1, Ok("hello".into())));
            }
            calls.nothing_more();
        }
    }
    assert_eq!(server.rpc.stats().requests, 8);
}

#[test]
fn pipelined_calls_all_get_their_own_answer() {
    // Less than a turn takes: what is for the other worker cannot be answered before the limit is reached.
    let options = RpcOptions { max_requests_per_connection: 48, ..RpcOptions::default() };
    let server = TestNode::start(2, options);
    let options = RpcOptions { max_calls_while_connecting: 4096, ..RpcOptions::default() };
    let client = TestNode::start(2, options);
    for protocol in PROTOCOLS {
        for code in [&RPC_TEST_ECHO, &RPC_TEST_FAR] {
            let calls = Calls::new(&client, 1);
            let (tell, caller, addr) = (calls.tell.clone(), calls.caller, server.addr);
            client.run(1, move |ctx| {
                for number in 0..3000u32 {
                    let (tell, body) = (tell.clone(), bytes::Bytes::from(number.to_string()));
                    dsn_rpc::call_with(
                        ctx,
                        addr,
                        code,
                        |w| w.wrapped(0, &body),
                        over(protocol),
                        caller,
                        move |_, _, outcome| tell.send((number, outcome)).unwrap(),
                    );
                }
            });
            let mut seen = vec![false; 3000];
            for _ in 0..3000 {
                let (number, outcome) = calls.next_text();
                assert_eq!(outcome, Ok(number.to_string()));
                assert!(!std::mem::replace(&mut seen[number as usize], true));
            }
            calls.nothing_more();
        }
    }
    let stats = server.rpc.stats();
    assert!(stats.reads < stats.requests / 4, "many frames to a read: {stats:?}");
    assert!(stats.writes < stats.requests / 4, "many answers to a write: {stats:?}");
    assert!(stats.pauses > 0, "3000 at once are more than the limit");
}

#[test]
fn answers_may_come_in_any_order() {
    let (server, client) = pair();
    for protocol in PROTOCOLS {
        let calls = Calls::new(&client, 0);
        for number in 0..5 {
            let text = number.to_string();
            calls.call(&client, number, server.addr, &RPC_TEST_HOLD, &text, over(protocol));
        }
        calls.call(&client, 9, server.addr, &RPC_TEST_RELEASE, "9", over(protocol));
        let order: Vec<u32> = (0..6)
            .map(|_| {
                let (number, outcome) = calls.next_text();
                assert_eq!(outcome, Ok(number.to_string()));
                number
            })
            .collect();
        assert_eq!(order, [4, 3, 2, 1, 0, 9]);
    }
}

#[test]
fn a_call_times_out_once_and_its_late_answer_is_dropped() {
    let (server, client) = pair();
    let calls = Calls::new(&client, 0);
    calls.call(&client, 1, server.addr, &RPC_TEST_HOLD, "x", within(30));
    let timeout = CallError::Timeout { peer: server.addr, after: Duration::from_millis(30) };
    assert_eq!(calls.next(), (1, Err(timeout)));
    calls.call(&client, 2, server.addr, &RPC_TEST_RELEASE, "y", CallOptions::default());
    assert_eq!(calls.next_text(), (2, Ok("y".into())));
    client.wait("the late answer", |stats| stats.late_replies == 1);
    calls.nothing_more();
    assert_eq!(client.rpc.stats().call_timeouts, 1);
}

#[test]
fn a_cancelled_call_has_no_outcome() {
    let (server, client) = pair();
    let calls = Calls::new(&client, 0);
    let id = calls.call(&client, 1, server.addr, &RPC_TEST_HOLD, "x", within(5000));
    assert!(client.run(0, move |ctx| dsn_rpc::cancel(ctx, id)));
    assert!(!client.run(0, move |ctx| dsn_rpc::cancel(ctx, id)), "only once");
    calls.call(&client, 2, server.addr, &RPC_TEST_RELEASE, "y", CallOptions::default());
    assert_eq!(calls.next_text(), (2, Ok("y".into())));
    assert!(!client.run(1, move |ctx| dsn_rpc::cancel(ctx, id)), "not from another worker");
    calls.nothing_more();
}

#[test]
fn the_end_of_a_connection_fails_its_calls_at_once() {
    let (server, client) = pair();
    let calls = Calls::new(&client, 1);
    let addr = server.addr;
    for number in 0..3 {
        calls.call(&client, number, addr, &RPC_TEST_HOLD, "x", CallOptions::default());
    }
    calls.call(&client, 3, addr, &RPC_TEST_ECHO, "there", CallOptions::default());
    assert_eq!(calls.next_text(), (3, Ok("there".into())));
    drop(server);
    for number in 0..3 {
        let (which, outcome) = calls.next();
        assert_eq!(which, number);
        assert!(
            matches!(
                outcome,
                Err(CallError::Network {
                    error: NetworkError::Closed | NetworkError::Lost(_),
                    peer
                }) if peer == addr
            ),
            "{outcome:?}"
        );
    }
    calls.nothing_more();
}

#[test]
fn who_does_not_answer_still_answers() {
    let (server, client) = pair();
    let calls = Calls::new(&client, 0);
    for protocol in PROTOCOLS {
        for code in [&RPC_TEST_DROP, &RPC_TEST_PANIC] {
            calls.call(&client, 1, server.addr, code, "x", over(protocol));
            let (_, outcome) = calls.next();
            let error = outcome.unwrap_err();
            assert_eq!((error.code(), error.peer()), (ErrorCode::InvalidState, server.addr));
        }
        calls.call(&client, 1, server.addr, &RPC_TEST_NOBODY, "x", over(protocol));
        assert_eq!(calls.next().1.unwrap_err().code(), ErrorCode::HandlerNotFound);
        calls.call(&client, 2, server.addr, &RPC_TEST_ECHO, "alive", over(protocol));
        assert_eq!(calls.next_text(), (2, Ok("alive".into())));
    }
    let stats = server.rpc.stats();
    assert_eq!((stats.unanswered, stats.unknown), (4, 2));
    let poisoned = server.native.as_ref().unwrap().node().poisoned();
    assert_eq!(poisoned, 1, "the resident that panicked, and nothing else");
}

#[test]
fn one_way_messages_arrive_and_are_not_answered() {
    let (server, client) = pair();
    for protocol in PROTOCOLS {
        let addr = server.addr;
        client.run(0, move |ctx| {
            let body = bytes::Bytes::from_static(b"x");
            for _ in 0..10 {
                dsn_rpc::send_oneway(ctx, addr, &RPC_TEST_FORGET, &body, over(protocol));
            }
        });
    }
    server.wait("all arrive", |stats| stats.requests == 20);
    let calls = Calls::new(&client, 0);
    for protocol in PROTOCOLS {
        calls.call(&client, 1, server.addr, &RPC_TEST_ECHO, "x", over(protocol));
        assert_eq!(calls.next_text(), (1, Ok("x".into())));
    }
    assert_eq!(server.rpc.stats().replies, 2);
    assert_eq!(client.rpc.stats().late_replies, 0);
}

#[test]
fn a_slow_call_does_not_use_up_the_room_of_others() {
    let server = TestNode::start(2, RpcOptions::default());
    let options = RpcOptions { max_calls_per_connection: 3, ..RpcOptions::default() };
    let client = TestNode::start(2, options);
    let calls = Calls::new(&client, 0);
    let to = server.addr;
    for (round, protocol) in PROTOCOLS.into_iter().enumerate() {
        calls.call(&client, 0, to, &RPC_TEST_HOLD, "slow", over(protocol));
        for number in 1..20 {
            client.run(0, move |ctx| {
                let body = bytes::Bytes::from_static(b"x");
                dsn_rpc::send_oneway(ctx, to, &RPC_TEST_FORGET, &body, over(protocol));
            });
            calls.call(&client, number, to, &RPC_TEST_ECHO, "x", over(protocol));
            assert_eq!(calls.next_text(), (number, Ok("x".into())));
        }
        for number in 21..24 {
            calls.call(&client, number, to, &RPC_TEST_HOLD, "slow", over(protocol));
        }
        assert_eq!(calls.next(), (23, Err(CallError::Overloaded { peer: to })));
        client.run(0, move |ctx| {
            let body = bytes::Bytes::from_static(b"x");
            dsn_rpc::send_oneway(ctx, to, &RPC_TEST_FORGET, &body, over(protocol));
        });
        // What holds, what is echoed, the messages, of which the last was sent when calls were refused.
        let sent = 3 + 19 + 20;
        let arrived = round as u64 * (sent + 1) + sent;
        server.wait("all arrive", move |stats| stats.requests == arrived);
        let by = CallOptions { lane: Lane::Control, ..over(protocol) };
        calls.call(&client, 30, to, &RPC_TEST_RELEASE, "", by);
        let mut ended: Vec<u32> = (0..4).map(|_| calls.next()).map(|(number, _)| number).collect();
        ended.sort();
        assert_eq!(ended, [0, 21, 22, 30]);
    }
}

#[test]
fn calls_to_nobody_fail_and_wait_for_the_pause() {
    let options = RpcOptions {
        reconnect_pause: Duration::from_secs(60),
        max_reconnect_pause: Duration::from_secs(60),
        max_calls_while_connecting: 2,
        ..RpcOptions::default()
    };
    let client = TestNode::start(1, options);
    let (calls, to) = (Calls::new(&client, 0), nobody());
    calls.call(&client, 1, to, &RPC_TEST_ECHO, "x", within(5000));
    let error = calls.next().1.unwrap_err();
    assert!(matches!(error, CallError::Network { error: NetworkError::Connect(_), .. }), "{error}");
    for number in 2..5 {
        calls.call(&client, number, to, &RPC_TEST_ECHO, "x", within(50));
    }
    assert_eq!(calls.next(), (4, Err(CallError::Overloaded { peer: to })));
    for number in 2..4 {
        let (which, outcome) = calls.next();
        assert_eq!((which, outcome.unwrap_err().code()), (number, ErrorCode::Timeout));
    }
    calls.nothing_more();
    assert_eq!(client.rpc.stats().connect_failures, 1, "the second attempt waits");
}

#[test]
fn large_bodies_go_both_ways() {
    let (server, client) = pair();
    let calls = Calls::new(&client, 0);
    let text: String = (0..700_000).map(|n| format!("{n:07} ")).collect();
    for protocol in PROTOCOLS {
        for number in 0..3 {
            calls.call(&client, number, server.addr, &RPC_TEST_ECHO, &text, over(protocol));
            calls.call(&client, 3 + number, server.addr, &RPC_TEST_FAR, &text, over(protocol));
        }
        for _ in 0..6 {
            let (number, outcome) = calls.next_text();
            if let Err(e) = &outcome {
                panic!("{number} {e} {:?} {:?}", client.rpc.stats(), server.rpc.stats());
            }
            assert_eq!(outcome.unwrap(), text);
        }
        let addr = server.addr;
        let (tell, caller) = (calls.tell.clone(), calls.caller);
        client.run(0, move |ctx| {
            for (number, size) in [30i64 << 20, 100, 8192, 65536].into_iter().enumerate() {
                let tell = tell.clone();
                let options = CallOptions { lane: Lane::Bulk, ..over(protocol) };
                dsn_rpc::call(
                    ctx,
                    addr,
                    &RPC_TEST_BULK,
                    &size,
                    options,
                    caller,
                    move |_, _, answer: Result<bytes::Bytes, CallError>| {
                        assert_eq!(answer.as_ref().unwrap().len() as i64, size);
                        tell.send((number as u32, answer)).unwrap();
                    },
                );
            }
        });
        for _ in 0..4 {
            assert!(calls.next().1.unwrap().iter().all(|&byte| byte == 7));
        }
    }
}

#[test]
fn injected_faults_are_obeyed() {
    let (server, client) = pair();
    let calls = Calls::new(&client, 0);
    let rule = |drop_ppm, fail_ppm, delay_ppm| FaultRule {
        code: RPC_TEST_ECHO.name().into(),
        drop_ppm,
        fail_ppm,
        delay_ppm,
        delay: (Duration::from_millis(40), Duration::from_millis(40)),
    };
    for (at, name) in [(&client, "client"), (&server, "server")] {
        let hooks = at.native.as_ref().unwrap().node().hooks();
        hooks.switch(Toollet::FaultInjector, true);
        hooks.injector.set(vec![rule(1_000_000, 0, 0)]);
        calls.call(&client, 1, server.addr, &RPC_TEST_ECHO, "x", within(50));
        assert_eq!(calls.next().1.unwrap_err().code(), ErrorCode::Timeout, "{name}");
        hooks.injector.set(vec![rule(0, 1_000_000, 0)]);
        calls.call(&client, 1, server.addr, &RPC_TEST_ECHO, "x", within(5000));
        let code = calls.next().1.unwrap_err().code();
        let expected =
            if name == "client" { ErrorCode::NetworkFailure } else { ErrorCode::Injected };
        assert_eq!(code, expected);
        hooks.injector.set(vec![rule(0, 0, 1_000_000)]);
        calls.call(&client, 1, server.addr, &RPC_TEST_ECHO, "late", within(5000));
        assert_eq!(calls.next_text().1, Ok("late".into()), "{name}");
        calls.call(&client, 1, server.addr, &RPC_TEST_ECHO, "late", within(10));
        assert_eq!(calls.next().1.unwrap_err().code(), ErrorCode::Timeout, "{name}");
        hooks.switch(Toollet::FaultInjector, false);
        calls.call(&client, 1, server.addr, &RPC_TEST_ECHO, "x", within(5000));
        assert_eq!(calls.next_text().1, Ok("x".into()));
    }
}

#[test]
fn a_connection_with_too_much_unanswered_is_not_read() {
    let options = RpcOptions { max_requests_per_connection: 4, ..RpcOptions::default() };
    let server = TestNode::start(2, options);
    let client = TestNode::start(1, RpcOptions::default());
    let calls = Calls::new(&client, 0);
    let (tell, caller, addr) = (calls.tell.clone(), calls.caller, server.addr);
    client.run(0, move |ctx| {
        for number in 0..22 {
            // The time of the last two is up while they wait.
            let options = if number < 20 { CallOptions::default() } else { within(20) };
            let tell = tell.clone();
            let told = move |_: &mut Caller, _: &mut Ctx<'_>, outcome| {
                tell.send((number, outcome)).unwrap();
            };
            dsn_rpc::call_raw(ctx, addr, &RPC_TEST_HOLD, b"x", options, caller, told);
        }
    });
    server.wait("a pause", |stats| stats.pauses == 1 && stats.requests == 4);
    let read = server.run(0, |ctx| ctx.now());
    for _ in 20..22 {
        assert_eq!(calls.next().1.unwrap_err().code(), ErrorCode::Timeout);
    }
    while server.run(0, |ctx| ctx.now()) <= read + Duration::from_millis(20) {}
    let control = CallOptions { lane: Lane::Control, ..CallOptions::default() };
    let mut answered = 0;
    while answered < 20 {
        calls.call(&client, 99, server.addr, &RPC_TEST_RELEASE, "go", control);
        while calls.next().0 != 99 {
            answered += 1;
        }
    }
    let stats = server.rpc.stats();
    assert_eq!(stats.expired, 2, "nobody waited for those any more: {stats:?}");
    calls.nothing_more();
}

/// Reads one HTTP answer: status line and body.
fn http_answer(stream: &mut TcpStream) -> (String, String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.split("Content-Length: ").nth(1).unwrap().split("\r\n").next().unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    (head.lines().next().unwrap().to_owned(), String::from_utf8(body).unwrap())
}

#[test]
fn the_same_port_speaks_http() {
    let server = TestNode::start(1, RpcOptions::default());
    let mut stream = connect(server.addr);
    let request = "GET /version HTTP/1.1\r\n\r\nGET //recentStartTime HTTP/1.1\r\n\r\n\
                   GET /no/where?x=1 HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let (status, body) = http_answer(&mut stream);
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert_eq!(body, r#"{"GitCommit":"abc","Version":"1.2.3"}"#);
    let (_, body) = http_answer(&mut stream);
    assert!(body.starts_with(r#"{"RecentStartTime":"20"#), "{body}");
    let (status, body) = http_answer(&mut stream);
    assert_eq!(status, "HTTP/1.1 404 Not Found");
    assert!(body.starts_with("service not found for \"no/where\""), "{body}");
    assert!(body.contains("/version  the version"), "{body}");
    let (_, body) = http_answer(&mut stream);
    assert!(body.contains(r#""/version":"#), "{body}");
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "closed as asked");
    let mut stream = connect(server.addr);
    stream.write_all(b"POST /version HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    assert_eq!(http_answer(&mut stream).0, "HTTP/1.1 501 Not Implemented");
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

#[test]
fn operators_ask_over_http() {
    let server = TestNode::start(2, RpcOptions::default());
    let mut stream = connect(server.addr);
    let mut get = |target: &str| {
        let request = format!("GET {target} HTTP/1.1\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        http_answer(&mut stream)
    };
    let (status, body) = get("/metrics?types=server&metrics=http_requests,network_accepted");
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(body.contains(r#""role":"test","host":"127.0.0.1""#), "{body}");
    assert!(body.contains(r#"{"name":"network_accepted","value":1}"#), "{body}");
    let (_, body) = get("/metrics?format=prometheus&metrics=http_requests");
    assert!(body.contains("# TYPE http_requests counter\n"), "{body}");
    assert!(body.contains("} 2"), "{body}");
    assert_eq!(get("/metrics?colour=red").0, "HTTP/1.1 400 Bad Request");
    let (_, body) = get("/config?name=network.send_timeout");
    assert!(body.contains(r#""section":"network""#), "{body}");
    assert_eq!(get("/config").0, "HTTP/1.1 400 Bad Request");
    assert!(get("/configs").1.contains(r#""network.max_frame_bytes":{"#));
    let (_, body) = get("/updateConfig?network.send_timeout=3s");
    assert!(body.starts_with(r#"{"update_status":"#) && !body.contains("ERR_OK"), "{body}");
    assert!(get("/command?name=help").1.contains("help [command]"));
    assert_eq!(get("/command?name=nonsense").1, "unknown command 'nonsense'");
    assert_eq!(get("/command").0, "HTTP/1.1 400 Bad Request");
    let post = "POST /command HTTP/1.1\r\nContent-Length: 9\r\n\r\nhelp help";
    stream.write_all(post.as_bytes()).unwrap();
    assert!(http_answer(&mut stream).1.starts_with("help [command] - Lists"));
}

#[test]
fn commands_and_negotiation_are_answered_everywhere() {
    let (server, client) = pair();
    let calls = Calls::new(&client, 0);
    for protocol in PROTOCOLS {
        let (caller, addr) = (calls.caller, server.addr);
        let (tell, told) = std::sync::mpsc::channel();
        client.run(0, move |ctx| {
            let command = Command { cmd: "nonsense".into(), arguments: vec!["x".into()] };
            let tell2 = tell.clone();
            dsn_rpc::call(
                ctx,
                addr,
                &RPC_CLI_CLI_CALL,
                &command,
                over(protocol),
                caller,
                move |_, _, outcome: Result<String, CallError>| {
                    tell.send(outcome.unwrap()).unwrap();
                },
            );
            dsn_rpc::call(
                ctx,
                addr,
                &RPC_NEGOTIATION,
                &Negotiation { status: 1, ..Default::default() },
                over(protocol),
                caller,
                move |_, _, outcome: Result<Negotiation, CallError>| {
                    assert_eq!(outcome.unwrap().status, SASL_AUTH_DISABLE);
                    tell2.send("negotiated".to_owned()).unwrap();
                },
            );
        });
        let mut answers = [0, 1].map(|_| told.recv_timeout(Duration::from_secs(20)).unwrap());
        answers.sort();
        assert_eq!(answers, ["negotiated", "unknown command 'nonsense'"]);
    }
}

#[test]
fn a_peer_that_has_said_everything_still_gets_its_answers() {
    let server = TestNode::start(1, RpcOptions::default());
    let mut stream = connect(server.addr);
    stream.write_all(b"GET /version HTTP/1.1\r\n\r\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    assert!(all.ends_with(r#"{"GitCommit":"abc","Version":"1.2.3"}"#), "{all}");
    server.wait("the end", |stats| stats.closed == 1);
}

/// What a probe from worker 1 of `node` finds.
fn probe(node: &TestNode, to: SocketAddr) -> Probed {
    let (tell, told) = std::sync::mpsc::channel();
    node.run(1, move |ctx| {
        let caller = ctx.spawn_here(|_, _| Caller);
        dsn_rpc::probe(ctx, to, Duration::from_millis(300), caller, move |_, _, found| {
            let _ = tell.send(found);
        });
    });
    told.recv_timeout(Duration::from_secs(20)).expect("an outcome")
}

#[test]
fn a_probe_tells_a_closed_port_from_an_open_one() {
    let (server, client) = pair();
    assert_eq!(probe(&client, server.addr), Probed::Listening);
    assert_eq!(probe(&client, nobody()), Probed::Refused);
    let port = server.addr;
    let rpc = server.rpc.clone();
    server.run(0, move |ctx| rpc.stop_listening(ctx));
    server.run(1, |_| ());
    server.run(0, |_| ());
    assert_eq!(probe(&client, port), Probed::Refused, "it listens no more");
}

#[test]
fn whoever_watches_a_connection_hears_of_its_end_once() {
    let server = TestNode::start(2, RpcOptions::default());
    let (tell, told) = std::sync::mpsc::channel();
    for worker in [0, 1] {
        // Whichever worker the connection is on, from both.
        let client = TestNode::start(1, RpcOptions::default());
        let calls = Calls::new(&client, 0);
        calls.call(&client, 1, server.addr, &RPC_TEST_SESSION, "", CallOptions::default());
        assert_eq!(calls.next_text(), (1, Ok("".into())));
        let session = SESSIONS.lock().unwrap().pop().expect("the handler has seen it");
        let tell = tell.clone();
        server.run(worker, move |ctx| {
            let caller = ctx.spawn_here(|_, _| Caller);
            dsn_rpc::when_ended(ctx, session, caller, move |_, _| {
                let _ = tell.send(session);
            });
        });
        assert!(told.recv_timeout(Duration::from_millis(50)).is_err(), "it lasts");
        drop(client);
        assert_eq!(told.recv_timeout(Duration::from_secs(20)), Ok(session));
        let again = told.recv_timeout(Duration::from_millis(50));
        assert!(again.is_err(), "told twice: {again:?}");
    }
}
