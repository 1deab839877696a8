//! The meta server: tables, membership of partitions, liveness of replica servers.
//!
//! Reading order: [`store`] (what survives), [`state`] (what is known, and how changes become durable), [`ddl`] (tables
//! come and go), [`group`] (who belongs to a partition), [`sync`] (what replica servers are told), [`query`] (what
//! clients and tools are told), [`envs`] (settings of tables).
//!
//! **Invariant:** `state`, `ddl`, `group`, `sync` and `query` do no I/O and read no clock; only the host does.

mod app;
pub mod ddl;
pub mod envs;
pub mod group;
pub mod query;
pub mod server;
pub mod state;
pub mod store;
pub mod sync;
#[cfg(test)]
mod testing;

pub use app::{MetaApp, MetaAppOptions, meta_app};
