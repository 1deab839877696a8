//! Groups of one: a replica server over a small state machine and its meta server, in the simulator.

mod durability;
mod repair;
mod texts;
mod world;
