//! pegasus-server: the storage app and the servers of Pegasus.
#![deny(unsafe_code)]

pub mod app;
pub mod body;
pub mod codes;
pub mod engine;
pub mod identity;
pub mod limits;
pub mod metrics;
pub mod options;
pub mod program;
pub mod read;
pub mod replica_app;
pub mod scan_context;
pub mod scenario;
pub mod settings;
pub mod write;
