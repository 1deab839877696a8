//! Client side of Pegasus: the library, and the schema that it shares with the server.

#![forbid(unsafe_code)]

mod client;
pub mod ops;
mod scanner;
pub mod schema;

pub use client::{PegasusClient, Table};
pub use dsn_replication::client::{
    Admin, ClientCore, ClientError, ClientOptions, Kind, MAX_PENDING, Pending, Place, Reason,
    TableSpec,
};
pub use ops::{Check, Checked, Found, MultiGet, Ttl};
pub use scanner::{ScanOptions, Scanner};

/// The page of the library; its code is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/client.md")]
struct ClientPage;
