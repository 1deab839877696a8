//! The data RPCs that a replica serves, as replication wants to know them.
//!
//! They are declared, and it is said which of them reads, writes, may share a mutation or may be applied twice, in
//! [`pegasus_client::schema::codes`]. Here is the stage in which each read runs.

use dsn_core::code::Code;
use dsn_replication::state_machine::{Access, ReadStage, StorageCode};
use pegasus_client::schema::codes::{self, Access as Known};
use std::sync::LazyLock;

pub use pegasus_client::schema::codes::{
    RPC_RRDB_RRDB_BATCH_GET, RPC_RRDB_RRDB_BULK_LOAD, RPC_RRDB_RRDB_CHECK_AND_MUTATE,
    RPC_RRDB_RRDB_CHECK_AND_SET, RPC_RRDB_RRDB_CLEAR_SCANNER, RPC_RRDB_RRDB_DUPLICATE,
    RPC_RRDB_RRDB_GET, RPC_RRDB_RRDB_GET_SCANNER, RPC_RRDB_RRDB_INCR, RPC_RRDB_RRDB_MULTI_GET,
    RPC_RRDB_RRDB_MULTI_PUT, RPC_RRDB_RRDB_MULTI_REMOVE, RPC_RRDB_RRDB_PUT, RPC_RRDB_RRDB_REMOVE,
    RPC_RRDB_RRDB_SCAN, RPC_RRDB_RRDB_SORTKEY_COUNT, RPC_RRDB_RRDB_TTL,
};

/// Data RPCs of the protocol that are not served yet.
pub static NOT_SERVED: [Code; 2] = [&RPC_RRDB_RRDB_DUPLICATE, &RPC_RRDB_RRDB_BULK_LOAD];

/// The data codes that are served, writes first.
pub static STORAGE_CODES: LazyLock<Vec<StorageCode>> = LazyLock::new(|| {
    let served = codes::ACCESS.iter().filter(|(code, _)| !NOT_SERVED.contains(code));
    served.map(|&(code, known)| StorageCode { code, access: access(code, known) }).collect()
});

fn access(code: Code, known: Known) -> Access {
    match known {
        Known::Write { batchable, idempotent } => Access::Write { batchable, idempotent },
        Known::RangeRead => Access::Read(ReadStage::Scan),
        // Several records: seldom all of them in memory.
        Known::Read if *code == RPC_RRDB_RRDB_BATCH_GET => Access::Read(ReadStage::Read),
        Known::Read => Access::Read(ReadStage::Inline),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn point_reads_run_in_place_and_ranges_in_their_own_stage() {
        let names = |want: Access| {
            let found = STORAGE_CODES.iter().filter(|code| code.access == want);
            found.map(|code| &code.code.name()[14..]).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(Access::Read(ReadStage::Inline)), "GET TTL");
        assert_eq!(names(Access::Read(ReadStage::Read)), "BATCH_GET");
        assert_eq!(
            names(Access::Read(ReadStage::Scan)),
            "MULTI_GET SORTKEY_COUNT GET_SCANNER SCAN CLEAR_SCANNER"
        );
        assert_eq!(STORAGE_CODES.len(), codes::CODES.len() - NOT_SERVED.len());
    }
}
