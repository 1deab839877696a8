//! Client side of Pegasus: the library, and the schema that it shares with the server.

#![forbid(unsafe_code)]

pub mod admin;
mod client;
pub mod core;
mod embedded;
mod error;
mod meta;
mod operation;
pub mod ops;
mod options;
mod pending;
mod routes;
mod scanner;
pub mod schema;

pub use admin::{Admin, TableSpec};
pub use client::{PegasusClient, Table};
pub use core::{ClientCore, MAX_PENDING};
pub use error::{ClientError, Place, Reason};
pub use ops::{Check, Checked, Found, Kind, MultiGet, Ttl};
pub use options::ClientOptions;
pub use pending::Pending;
pub use scanner::{ScanOptions, Scanner};

/// The page of the library; its code is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/client.md")]
struct ClientPage;
