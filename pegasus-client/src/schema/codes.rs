//! Task codes of the data RPCs, with Pegasus's priorities and stages, and what a server must know about each. One
//! declaration for client and server: a code is known by identity.

use dsn_core::code::Code;
use dsn_core::stage::{LOCAL_APP, REPLICATION, SCAN};

dsn_core::task_codes! {
    /// Every data RPC.
    pub CODES;
    /// `UpdateRequest` to `UpdateResponse`.
    pub RPC_RRDB_RRDB_PUT: Rpc, Low, REPLICATION;
    /// Full key to `UpdateResponse`.
    pub RPC_RRDB_RRDB_REMOVE: Rpc, Low, REPLICATION;
    /// `MultiPutRequest` to `UpdateResponse`.
    pub RPC_RRDB_RRDB_MULTI_PUT: Rpc, Low, REPLICATION;
    /// `MultiRemoveRequest` to `MultiRemoveResponse`.
    pub RPC_RRDB_RRDB_MULTI_REMOVE: Rpc, Low, REPLICATION;
    /// `IncrRequest` to `IncrResponse`.
    pub RPC_RRDB_RRDB_INCR: Rpc, Low, REPLICATION;
    /// `CheckAndSetRequest` to `CheckAndSetResponse`.
    pub RPC_RRDB_RRDB_CHECK_AND_SET: Rpc, Low, REPLICATION;
    /// `CheckAndMutateRequest` to `CheckAndMutateResponse`.
    pub RPC_RRDB_RRDB_CHECK_AND_MUTATE: Rpc, Low, REPLICATION;
    /// `DuplicateRequest` to `DuplicateResponse`; sent by another cluster.
    pub RPC_RRDB_RRDB_DUPLICATE: Rpc, Low, REPLICATION;
    /// Ingestion of files, sent by the meta server.
    pub RPC_RRDB_RRDB_BULK_LOAD: Rpc, Low, REPLICATION;
    /// Full key to `ReadResponse`.
    pub RPC_RRDB_RRDB_GET: Rpc, Common, LOCAL_APP;
    /// Full key to `TtlResponse`.
    pub RPC_RRDB_RRDB_TTL: Rpc, Common, LOCAL_APP;
    /// `BatchGetRequest` to `BatchGetResponse`.
    pub RPC_RRDB_RRDB_BATCH_GET: Rpc, Common, LOCAL_APP;
    /// `MultiGetRequest` to `MultiGetResponse`.
    pub RPC_RRDB_RRDB_MULTI_GET: Rpc, Common, SCAN;
    /// Hash key to `CountResponse`.
    pub RPC_RRDB_RRDB_SORTKEY_COUNT: Rpc, Common, SCAN;
    /// `GetScannerRequest` to `ScanResponse`.
    pub RPC_RRDB_RRDB_GET_SCANNER: Rpc, Common, SCAN;
    /// `ScanRequest` to `ScanResponse`.
    pub RPC_RRDB_RRDB_SCAN: Rpc, Common, SCAN;
    /// Context id (`i64`); **never answered on success**: a reply breaks the Python clients.
    pub RPC_RRDB_RRDB_CLEAR_SCANNER: Rpc, Common, SCAN;
}

/// What a data RPC does to the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads one record or a few named ones.
    Read,
    /// Reads a range; may take long.
    RangeRead,
    /// Changes data, through replication.
    Write {
        /// Whether several of them may share one mutation.
        batchable: bool,
        /// Whether applying it twice gives the same as once.
        idempotent: bool,
    },
}

/// What a data RPC does; `None` for a code of another kind.
#[must_use]
pub fn access(code: Code) -> Option<Access> {
    let found = ACCESS.iter().find(|(known, _)| *known == code);
    found.map(|(_, access)| *access)
}

const BATCHED: Access = Access::Write { batchable: true, idempotent: true };
const ALONE: Access = Access::Write { batchable: false, idempotent: true };
const ONCE: Access = Access::Write { batchable: false, idempotent: false };

/// What each data RPC does.
pub static ACCESS: [(Code, Access); 17] = [
    (&RPC_RRDB_RRDB_PUT, BATCHED),
    (&RPC_RRDB_RRDB_REMOVE, BATCHED),
    (&RPC_RRDB_RRDB_MULTI_PUT, ALONE),
    (&RPC_RRDB_RRDB_MULTI_REMOVE, ALONE),
    (&RPC_RRDB_RRDB_INCR, ONCE),
    (&RPC_RRDB_RRDB_CHECK_AND_SET, ONCE),
    (&RPC_RRDB_RRDB_CHECK_AND_MUTATE, ONCE),
    (&RPC_RRDB_RRDB_DUPLICATE, ALONE),
    (&RPC_RRDB_RRDB_BULK_LOAD, ALONE),
    (&RPC_RRDB_RRDB_GET, Access::Read),
    (&RPC_RRDB_RRDB_TTL, Access::Read),
    (&RPC_RRDB_RRDB_BATCH_GET, Access::Read),
    (&RPC_RRDB_RRDB_MULTI_GET, Access::RangeRead),
    (&RPC_RRDB_RRDB_SORTKEY_COUNT, Access::RangeRead),
    (&RPC_RRDB_RRDB_GET_SCANNER, Access::RangeRead),
    (&RPC_RRDB_RRDB_SCAN, Access::RangeRead),
    (&RPC_RRDB_RRDB_CLEAR_SCANNER, Access::RangeRead),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_those_of_the_protocol() {
        let names = |want: fn(Access) -> bool| {
            let found = CODES.iter().filter(|code| access(code).is_some_and(want));
            found.map(|code| &code.name()[14..]).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(|a| matches!(a, Access::Write { batchable: true, .. })), "PUT REMOVE");
        assert_eq!(
            names(|a| matches!(a, Access::Write { idempotent: false, .. })),
            "INCR CHECK_AND_SET CHECK_AND_MUTATE"
        );
        assert_eq!(names(|a| a == Access::Read), "GET TTL BATCH_GET");
        assert!(CODES.iter().all(|code| access(code).is_some()), "each has its line");
        assert_eq!(CODES.len(), ACCESS.len());
    }

    #[test]
    fn writes_are_low_and_belong_to_the_owner() {
        use dsn_core::code::Priority;
        for (code, access) in ACCESS {
            let is_write = matches!(access, Access::Write { .. });
            assert_eq!(code.priority() == Priority::Low, is_write, "{code}");
            assert_eq!(code.stage() == REPLICATION, is_write, "{code}");
        }
    }
}
