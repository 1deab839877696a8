//! Client side of Pegasus: the library, and the schema that it shares with the server.

#![forbid(unsafe_code)]

pub mod schema;
