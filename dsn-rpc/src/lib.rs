//! RPC layer: what travels between processes, and how calls are made, served and answered.
//!
//! One port speaks three protocols (`THFT` for client libraries, `RDSN` for servers and the C++
//! client, HTTP/1.1); all of them carry thrift-binary bodies or text.

#![forbid(unsafe_code)]

pub mod address;
pub mod builtin;
pub mod call;
mod connector;
pub mod error_code;
mod exchange;
pub mod frame;
pub mod gpid;
pub mod host_port;
pub mod http;
mod listener;
pub mod metrics;
pub mod names;
pub mod options;
mod probe;
mod rpc_loop;
pub mod service;
mod session;
mod shared;
mod stats;
mod sweep;
pub mod task_code;
pub mod thrift;

pub use builtin::BUILTIN_CODES;
pub use call::{
    CallError, CallId, CallOptions, NetworkError, call, call_raw, call_with, cancel, send_oneway,
    send_oneway_with,
};
pub use connector::Lane;
pub use options::RpcOptions;
pub use probe::{Probed, probe, when_ended};
pub use rpc_loop::{BYTES_PER_TURN, CODES, FRAMES_PER_TURN, Rpc};
pub use service::{Replier, Request, ServiceTable, hand_to};
pub use session::{SessionId, detach};
pub use stats::Stats;
