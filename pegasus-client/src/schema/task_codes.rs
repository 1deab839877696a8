//! Task codes of the data RPCs, with Pegasus's priorities and stages. One declaration for server and client: a code is
//! known by identity. [`codes`](super::codes) tells what each does.

use dsn_core::code::Code;
use dsn_core::stage::{LOCAL_APP, REPLICATION, SCAN};

dsn_core::task_codes! {
    /// Every code of this file.
    pub CODES;
    /// See [`PUT`](super::codes::PUT).
    pub RPC_RRDB_RRDB_PUT: Rpc, Low, REPLICATION;
    /// See [`MULTI_PUT`](super::codes::MULTI_PUT).
    pub RPC_RRDB_RRDB_MULTI_PUT: Rpc, Low, REPLICATION;
    /// See [`REMOVE`](super::codes::REMOVE).
    pub RPC_RRDB_RRDB_REMOVE: Rpc, Low, REPLICATION;
    /// See [`MULTI_REMOVE`](super::codes::MULTI_REMOVE).
    pub RPC_RRDB_RRDB_MULTI_REMOVE: Rpc, Low, REPLICATION;
    /// See [`INCR`](super::codes::INCR).
    pub RPC_RRDB_RRDB_INCR: Rpc, Low, REPLICATION;
    /// See [`CHECK_AND_SET`](super::codes::CHECK_AND_SET).
    pub RPC_RRDB_RRDB_CHECK_AND_SET: Rpc, Low, REPLICATION;
    /// See [`CHECK_AND_MUTATE`](super::codes::CHECK_AND_MUTATE).
    pub RPC_RRDB_RRDB_CHECK_AND_MUTATE: Rpc, Low, REPLICATION;
    /// See [`DUPLICATE`](super::codes::DUPLICATE).
    pub RPC_RRDB_RRDB_DUPLICATE: Rpc, Low, REPLICATION;
    /// See [`BULK_LOAD`](super::codes::BULK_LOAD).
    pub RPC_RRDB_RRDB_BULK_LOAD: Rpc, Low, REPLICATION;
    /// See [`GET`](super::codes::GET).
    pub RPC_RRDB_RRDB_GET: Rpc, Common, LOCAL_APP;
    /// See [`TTL`](super::codes::TTL).
    pub RPC_RRDB_RRDB_TTL: Rpc, Common, LOCAL_APP;
    /// See [`BATCH_GET`](super::codes::BATCH_GET).
    pub RPC_RRDB_RRDB_BATCH_GET: Rpc, Common, LOCAL_APP;
    /// See [`MULTI_GET`](super::codes::MULTI_GET).
    pub RPC_RRDB_RRDB_MULTI_GET: Rpc, Common, SCAN;
    /// See [`SORTKEY_COUNT`](super::codes::SORTKEY_COUNT).
    pub RPC_RRDB_RRDB_SORTKEY_COUNT: Rpc, Common, SCAN;
    /// See [`GET_SCANNER`](super::codes::GET_SCANNER).
    pub RPC_RRDB_RRDB_GET_SCANNER: Rpc, Common, SCAN;
    /// See [`SCAN`](super::codes::SCAN).
    pub RPC_RRDB_RRDB_SCAN: Rpc, Common, SCAN;
    /// See [`CLEAR_SCANNER`](super::codes::CLEAR_SCANNER).
    pub RPC_RRDB_RRDB_CLEAR_SCANNER: Rpc, Common, SCAN;
}

/// The task code of a data RPC, by its name.
#[must_use]
pub fn of(name: &str) -> Option<Code> {
    CODES.iter().copied().find(|code| code.name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_data_rpc_has_one() {
        for data in super::super::codes::ALL {
            assert!(of(data.name).is_some(), "{}", data.name);
        }
        assert_eq!(CODES.len(), super::super::codes::ALL.len());
    }
}
