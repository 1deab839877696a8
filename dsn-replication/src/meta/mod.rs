//! The meta server: tables, membership of partitions, liveness of replica servers.

pub mod store;
