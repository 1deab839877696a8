//! Replication: PacificA groups of any deterministic state machine, and the meta server that places
//! them.
//!
//! # A replicated counter
//!
//! What a user writes is a [`ReplicatedApp`](app::ReplicatedApp), the state of one partition with its methods. This is
//! `examples/counter/counter.rs`, which the tests compile, kill and recover:
//!
//! ```ignore
#![doc = include_str!("../examples/counter/counter.rs")]
//! ```
//!
//! [`server::program`] makes a server program of it, [`client`] calls it, [`testing::cluster`] runs it in the
//! simulator. `docs/framework.md` explains each part; `examples/log_store` is a second app, larger than its memory.
//!
//! # Inside
//!
//! Reading order: [`ids`] (ballots and decrees), [`mutation`] (what a decree does), [`state_machine`] (what is
//! replicated; [`app`] is one over it), [`log`] (where mutations are kept), [`replica`] (the protocol core), [`host`]
//! (what carries it out), [`stub`] (all replicas of a server), [`gate`], [`placement`] and [`reads`] (the way past the
//! owner).

#![forbid(unsafe_code)]

pub mod app;
pub mod client;
pub mod codes;
pub mod dirs;
pub mod failure_detector;
pub mod gate;
pub mod host;
pub mod ids;
pub mod log;
pub mod meta;
pub mod meta_link;
pub mod method;
pub mod mutation;
pub mod options;
pub mod placement;
pub mod reads;
pub mod replica;
pub mod replica_app;
pub mod server;
pub mod state_machine;
pub mod stub;
pub mod table_rules;
pub mod testing;
pub mod throttle;
pub mod wire;
pub mod worker_log;

/// The page for users of the framework; its code is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/framework.md")]
struct FrameworkPage;
