//! What meta servers, replica servers, clients and tools say to each other, apart from data.
//!
//! Types and field ids are those of Apache Pegasus, so that its clients and its shell understand
//! us.
//!
//! Servers have two names in most messages: an IPv4 address (`node`, `primary`, ...) and a host
//! with port (`hp_node`, `hp_primary`, ...). Fill both: the writer of a `THFT` connection leaves
//! the optional `hp_` fields out, because older clients misread messages that hold them, and the
//! writer of an `RDSN` connection includes them, because the C++ client reads nothing else.

pub mod admin;
pub mod app_info_file;
pub mod codes;
pub mod config;
pub mod replica;
