//! Replication: PacificA groups of any deterministic state machine, and the meta server that places
//! them.

#![forbid(unsafe_code)]

pub mod failure_detector;
pub mod meta;
pub mod options;
pub mod wire;
