//! Task codes of the data RPCs.
//!
//! Declared with the stages they run in; which of them reads, writes, may share a mutation or may be
//! applied twice is said once, in [`pegasus_client::schema::codes`].

use dsn_replication::state_machine::{Access, ReadStage, StorageCode};
use pegasus_client::schema::codes as names;

dsn_core::task_codes! {
    /// Every data RPC that a replica serves.
    pub DATA_CODES;
    /// Sets one record.
    pub RPC_RRDB_RRDB_PUT: Rpc, Low, "THREAD_POOL_REPLICATION";
    /// Removes one record.
    pub RPC_RRDB_RRDB_REMOVE: Rpc, Low, "THREAD_POOL_REPLICATION";
    /// Sets records of one hash key.
    pub RPC_RRDB_RRDB_MULTI_PUT: Rpc, Low, "THREAD_POOL_REPLICATION";
    /// Removes records of one hash key.
    pub RPC_RRDB_RRDB_MULTI_REMOVE: Rpc, Low, "THREAD_POOL_REPLICATION";
    /// Adds to a number.
    pub RPC_RRDB_RRDB_INCR: Rpc, Low, "THREAD_POOL_REPLICATION";
    /// Sets a record if a check passes.
    pub RPC_RRDB_RRDB_CHECK_AND_SET: Rpc, Low, "THREAD_POOL_REPLICATION";
    /// Changes records of one hash key if a check passes.
    pub RPC_RRDB_RRDB_CHECK_AND_MUTATE: Rpc, Low, "THREAD_POOL_REPLICATION";
    /// Reads one record.
    pub RPC_RRDB_RRDB_GET: Rpc, Common, "THREAD_POOL_LOCAL_APP";
    /// Tells how long one record will live.
    pub RPC_RRDB_RRDB_TTL: Rpc, Common, "THREAD_POOL_LOCAL_APP";
    /// Reads named records of one partition.
    pub RPC_RRDB_RRDB_BATCH_GET: Rpc, Common, "THREAD_POOL_LOCAL_APP";
    /// Reads named records, or a range, of one hash key.
    pub RPC_RRDB_RRDB_MULTI_GET: Rpc, Common, "THREAD_POOL_SCAN";
    /// Counts the records of one hash key.
    pub RPC_RRDB_RRDB_SORTKEY_COUNT: Rpc, Common, "THREAD_POOL_SCAN";
    /// Opens a scan.
    pub RPC_RRDB_RRDB_GET_SCANNER: Rpc, Common, "THREAD_POOL_SCAN";
    /// Continues a scan.
    pub RPC_RRDB_RRDB_SCAN: Rpc, Common, "THREAD_POOL_SCAN";
    /// Ends a scan before its end.
    pub RPC_RRDB_RRDB_CLEAR_SCANNER: Rpc, Common, "THREAD_POOL_SCAN";
}

/// Number of data codes.
const COUNT: usize = 15;

/// The data codes as replication wants to know them.
pub static STORAGE_CODES: [StorageCode; COUNT] = [
    write(&RPC_RRDB_RRDB_PUT, true, true),
    write(&RPC_RRDB_RRDB_REMOVE, true, true),
    write(&RPC_RRDB_RRDB_MULTI_PUT, false, true),
    write(&RPC_RRDB_RRDB_MULTI_REMOVE, false, true),
    write(&RPC_RRDB_RRDB_INCR, false, false),
    write(&RPC_RRDB_RRDB_CHECK_AND_SET, false, false),
    write(&RPC_RRDB_RRDB_CHECK_AND_MUTATE, false, false),
    read(&RPC_RRDB_RRDB_GET, ReadStage::Inline),
    read(&RPC_RRDB_RRDB_TTL, ReadStage::Inline),
    read(&RPC_RRDB_RRDB_BATCH_GET, ReadStage::Read),
    read(&RPC_RRDB_RRDB_MULTI_GET, ReadStage::Scan),
    read(&RPC_RRDB_RRDB_SORTKEY_COUNT, ReadStage::Scan),
    read(&RPC_RRDB_RRDB_GET_SCANNER, ReadStage::Scan),
    read(&RPC_RRDB_RRDB_SCAN, ReadStage::Scan),
    read(&RPC_RRDB_RRDB_CLEAR_SCANNER, ReadStage::Scan),
];

const fn write(code: dsn_core::code::Code, batchable: bool, idempotent: bool) -> StorageCode {
    StorageCode { code, access: Access::Write { batchable, idempotent } }
}

const fn read(code: dsn_core::code::Code, stage: ReadStage) -> StorageCode {
    StorageCode { code, access: Access::Read(stage) }
}

/// Data RPCs of the protocol that are not served yet.
pub const NOT_SERVED: [&str; 2] = [names::DUPLICATE, names::BULK_LOAD];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_are_those_of_the_protocol() {
        assert_eq!(DATA_CODES.len(), COUNT);
        let mut served: Vec<&str> = STORAGE_CODES.iter().map(|code| code.code.name()).collect();
        for storage in &STORAGE_CODES {
            let known = names::lookup(storage.code.name()).expect("a name of the protocol");
            match (storage.access, known.access) {
                (
                    Access::Write { batchable, idempotent },
                    names::Access::Write {
                        batchable: known_batchable,
                        idempotent: known_idempotent,
                    },
                ) => assert_eq!((batchable, idempotent), (known_batchable, known_idempotent)),
                (Access::Read(ReadStage::Scan), names::Access::RangeRead)
                | (Access::Read(ReadStage::Inline | ReadStage::Read), names::Access::Read) => {}
                other => panic!("{} is {other:?}", storage.code.name()),
            }
        }
        served.extend(NOT_SERVED);
        served.sort_unstable();
        let mut all: Vec<&str> = names::ALL.iter().map(|code| code.name).collect();
        all.sort_unstable();
        assert_eq!(served, all);
    }
}
