//! Calls between two nodes of one process, over real sockets.

mod common;

use std::time::Duration;

use common::*;
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::frame::Protocol;
use dsn_rpc::{CallError, CallOptions, NetworkError, RpcOptions};

fn options(protocol: Protocol) -> CallOptions {
    CallOptions { protocol, ..CallOptions::default() }
}

const PROTOCOLS: [Protocol; 2] = [Protocol::Thft, Protocol::Rdsn];

#[test]
fn a_call_is_answered_over_both_protocols_and_from_any_worker() {
    let server = TestNode::start(2, RpcOptions::default());
    let client = TestNode::start(2, RpcOptions::default());
    for protocol in PROTOCOLS {
        for worker in [0, 1] {
            let calls = Calls::new(&client, worker);
            for code in [&RPC_TEST_ECHO, &RPC_TEST_FAR] {
                calls.call(&client, 1, server.addr, code, "hello", options(protocol));
                assert_eq!(calls.next_text(), (1, Ok("hello".into())));
            }
            calls.nothing_more();
        }
    }
    assert_eq!(server.rpc.stats().requests, 8);
}
