//! The client side: finds the primary of a partition, carries requests there, asks again when they moved.
//!
//! A request goes to a partition of a table, mostly that of a key. Where partitions are is asked of a meta server,
//! kept, and asked again when a server says that it is not the one. Reads are repeated until their time is over, writes
//! only when the last attempt certainly did nothing; every request ends exactly once. There are two ways in:
//!
//! * [`Client`], for threads that may wait: a thread and one connection per server behind it, however many tables and
//!   requests there are. Outcomes are waited for, followed by a closure, or awaited ([`Pending`]).
//! * [`ClientCore`], for code that lives in the runtime: a resident, natively or in the simulator.
//!
//! What is asked is a [`Method`](crate::method::Method) with its argument, or any [`Request`]. [`Admin`] has what
//! operators ask of the meta server.

mod admin;
mod core;
mod embedded;
mod error;
mod handle;
mod leader;
mod operation;
mod options;
mod pending;
mod request;
mod routes;

pub use self::core::{CODES, Callback, ClientCore, MAX_PENDING};
pub use admin::{Admin, Members, TableSpec};
pub use error::{ClientError, Place, Reason};
pub use handle::{Client, Table};
pub use options::ClientOptions;
pub use pending::{Completer, Pending, pending};
pub use request::{Kind, Request, Target, partition_index};
