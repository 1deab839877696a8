//! Replication: PacificA groups of any deterministic state machine, and the meta server that places
//! them.
//!
//! Reading order: [`ids`] (ballots and decrees), [`mutation`] (what a decree does), [`state_machine`] (what a user of
//! the crate implements).

#![forbid(unsafe_code)]

pub mod codes;
pub mod failure_detector;
pub mod gate;
pub mod ids;
pub mod meta;
pub mod meta_link;
pub mod mutation;
pub mod options;
pub mod placement;
pub mod reads;
pub mod state_machine;
pub mod wire;
