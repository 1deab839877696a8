//! dsn-core: the staged event-driven runtime.
#![forbid(unsafe_code)]

pub mod app;
pub mod boot;
pub mod code;
pub mod command;
pub mod config;
pub mod disk;
pub mod driver;
pub mod exec;
pub mod hash;
pub mod log;
pub mod metrics;
pub mod node;
pub mod planted;
pub mod rng;
pub mod sim;
pub mod stage;
pub mod time;
pub mod toollet;
