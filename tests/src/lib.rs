//! Cluster tests: the harness for whole clusters, native and simulated, and the checkers they share.
#![forbid(unsafe_code)]

pub mod cpu_time;
pub mod kill_test;
pub mod linearizable;
pub mod onebox;
pub mod simulation;
