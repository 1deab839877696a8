//! Replication: PacificA groups of any deterministic state machine, and the meta server that places
//! them.
//!
//! Reading order: [`ids`] (ballots and decrees), [`mutation`] (what a decree does), [`state_machine`] (what a user of
//! the crate implements), [`log`] (where mutations are kept), [`replica`] (the protocol core), [`host`] (what carries
//! it out), [`group_link`] and [`learn`] (what
//! servers tell each other), [`stub`] (all replicas of a server), [`gate`], [`placement`] and [`reads`] (the way past the owner).

#![forbid(unsafe_code)]

pub mod codes;
pub mod dirs;
pub mod failure_detector;
pub mod gate;
pub mod group_link;
pub mod host;
pub mod ids;
pub mod learn;
pub mod log;
pub mod meta;
pub mod meta_link;
pub mod mutation;
pub mod options;
pub mod placement;
pub mod reads;
pub mod replica;
pub mod state_machine;
pub mod stub;
pub mod table_rules;
pub mod testing;
pub mod throttle;
pub mod wire;
pub mod worker_log;
