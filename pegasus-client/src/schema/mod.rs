//! What both ends of the client protocol agree on: names and types of the data RPCs, key and value
//! layout, hashing.
//!
//! Pure functions and plain types; the server's storage app and the client library both build on
//! them. The layouts are those of Apache Pegasus, byte for byte.

pub mod codes;
pub mod key;
pub mod partition_hash;
pub mod rrdb;
pub mod time;
pub mod value;

/// The app type of tables with this schema; last part of the names of replica directories.
pub const APP_TYPE: &str = "pegasus";
