//! Groups of one: a replica server over a small state machine and its meta server, in the simulator.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod durability;
mod repair;
mod rules;
mod texts;
mod upkeep;
mod world;
