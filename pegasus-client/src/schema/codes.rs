//! Names of the data RPCs and what a server must know about each.

macro_rules! data_codes {
    ($($(#[$meta:meta])* $name:ident = $wire:literal, $access:expr;)*) => {
        $($(#[$meta])* pub const $name: &str = $wire;)*

        /// Every data RPC.
        pub const ALL: &[DataCode] = &[$(DataCode { name: $name, access: $access }),*];
    };
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

/// A data RPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataCode {
    /// Name on the wire.
    pub name: &'static str,
    /// What it does.
    pub access: Access,
}

impl DataCode {
    /// Whether it changes data.
    #[must_use]
    pub const fn is_write(&self) -> bool {
        matches!(self.access, Access::Write { .. })
    }
}

/// The data RPC of that name.
#[must_use]
pub fn lookup(name: &str) -> Option<&'static DataCode> {
    ALL.iter().find(|code| code.name == name)
}

const BATCHED: Access = Access::Write { batchable: true, idempotent: true };
const ALONE: Access = Access::Write { batchable: false, idempotent: true };
const ONCE: Access = Access::Write { batchable: false, idempotent: false };

data_codes! {
    /// `UpdateRequest` to `UpdateResponse`.
    PUT = "RPC_RRDB_RRDB_PUT", BATCHED;
    /// `MultiPutRequest` to `UpdateResponse`.
    MULTI_PUT = "RPC_RRDB_RRDB_MULTI_PUT", ALONE;
    /// Full key to `UpdateResponse`.
    REMOVE = "RPC_RRDB_RRDB_REMOVE", BATCHED;
    /// `MultiRemoveRequest` to `MultiRemoveResponse`.
    MULTI_REMOVE = "RPC_RRDB_RRDB_MULTI_REMOVE", ALONE;
    /// `IncrRequest` to `IncrResponse`.
    INCR = "RPC_RRDB_RRDB_INCR", ONCE;
    /// `CheckAndSetRequest` to `CheckAndSetResponse`.
    CHECK_AND_SET = "RPC_RRDB_RRDB_CHECK_AND_SET", ONCE;
    /// `CheckAndMutateRequest` to `CheckAndMutateResponse`.
    CHECK_AND_MUTATE = "RPC_RRDB_RRDB_CHECK_AND_MUTATE", ONCE;
    /// `DuplicateRequest` to `DuplicateResponse`; sent by another cluster.
    DUPLICATE = "RPC_RRDB_RRDB_DUPLICATE", ALONE;
    /// Ingestion of files, sent by the meta server.
    BULK_LOAD = "RPC_RRDB_RRDB_BULK_LOAD", ALONE;
    /// Full key to `ReadResponse`.
    GET = "RPC_RRDB_RRDB_GET", Access::Read;
    /// Full key to `TtlResponse`.
    TTL = "RPC_RRDB_RRDB_TTL", Access::Read;
    /// `BatchGetRequest` to `BatchGetResponse`.
    BATCH_GET = "RPC_RRDB_RRDB_BATCH_GET", Access::Read;
    /// `MultiGetRequest` to `MultiGetResponse`.
    MULTI_GET = "RPC_RRDB_RRDB_MULTI_GET", Access::RangeRead;
    /// Hash key to `CountResponse`.
    SORTKEY_COUNT = "RPC_RRDB_RRDB_SORTKEY_COUNT", Access::RangeRead;
    /// `GetScannerRequest` to `ScanResponse`.
    GET_SCANNER = "RPC_RRDB_RRDB_GET_SCANNER", Access::RangeRead;
    /// `ScanRequest` to `ScanResponse`.
    SCAN = "RPC_RRDB_RRDB_SCAN", Access::RangeRead;
    /// Context id (`i64`); **never answered on success**: a reply breaks the Python clients.
    CLEAR_SCANNER = "RPC_RRDB_RRDB_CLEAR_SCANNER", Access::RangeRead;
}

/// Name under which an empty write stands in a mutation; never a message of its own.
pub const WRITE_EMPTY: &str = "RPC_REPLICATION_WRITE_EMPTY";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_those_of_the_protocol() {
        let names = |want: fn(&DataCode) -> bool| {
            ALL.iter().filter(|c| want(c)).map(|c| &c.name[14..]).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            names(|c| matches!(c.access, Access::Write { batchable: true, .. })),
            "PUT REMOVE"
        );
        assert_eq!(
            names(|c| matches!(c.access, Access::Write { idempotent: false, .. })),
            "INCR CHECK_AND_SET CHECK_AND_MUTATE"
        );
        assert_eq!(names(|c| c.access == Access::Read), "GET TTL BATCH_GET");
        assert_eq!(ALL.len(), 17);
        assert_eq!(lookup("RPC_RRDB_RRDB_GET").map(DataCode::is_write), Some(false));
        assert_eq!(lookup("RPC_RRDB_RRDB_GETS"), None);
    }
}
