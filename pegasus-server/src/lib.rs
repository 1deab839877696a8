//! pegasus-server: the storage app and the servers of Pegasus.
#![deny(unsafe_code)]

pub mod body;
pub mod counters;
pub mod engine;
pub mod identity;
pub mod limits;
pub mod options;
pub mod write;
