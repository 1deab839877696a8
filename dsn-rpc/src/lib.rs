//! RPC layer: what travels between processes, and how calls are made, served and answered.
//!
//! One port speaks three protocols (`THFT` for client libraries, `RDSN` for servers and the C++ client, HTTP/1.1);
//! all of them carry thrift-binary bodies or text.

#![forbid(unsafe_code)]

pub mod address;
pub mod error_code;
pub mod frame;
pub mod gpid;
pub mod host_port;
pub mod task_code;
pub mod thrift;
