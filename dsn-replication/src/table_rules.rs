//! What the envs of a table say to replication: who is denied, what is throttled, whether key hashes are checked.
//!
//! Envs reach replicas with config sync and are in force at once. A value that cannot be read, which the meta server
//! should have refused, limits nothing and is logged.

use crate::gate::{ANY_HASH, Deny};
use crate::throttle::{ReadBucket, Throttle};
use crate::wire::config::AppInfo;

/// Requests of clients that are denied.
pub const DENY_CLIENT_REQUEST: &str = "replica.deny_client_request";
/// Writes per second.
pub const WRITE_THROTTLING: &str = "replica.write_throttling";
/// Bytes of writes per second.
pub const WRITE_THROTTLING_BY_SIZE: &str = "replica.write_throttling_by_size";
/// Reads per second.
pub const READ_THROTTLING: &str = "replica.read_throttling";
/// Bytes of answers to reads per second.
pub const READ_THROTTLING_BY_SIZE: &str = "replica.read_throttling_by_size";
/// Reads per second that may be answered by secondaries.
pub const BACKUP_REQUEST_THROTTLING: &str = "replica.backup_request_throttling";
/// Whether requests, scans and compaction hold keys against the number of partitions.
pub const VALIDATE_PARTITION_HASH: &str = "replica.split.validate_partition_hash";

/// What a partition's requests are held against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRules {
    /// What is denied to readers.
    pub deny_reads: Deny,
    /// What is denied to writers.
    pub deny_writes: Deny,
    /// See [`crate::gate::ReadGate::set_partition_version`].
    pub partition_version: i32,
    /// Writes.
    pub writes: Throttle,
    /// Bytes of writes.
    pub write_bytes: Throttle,
    /// Reads.
    pub reads: Throttle,
    /// Reads of secondaries.
    pub backup_reads: Throttle,
    /// Bytes of answers.
    pub read_bytes: Option<ReadBucket>,
}

impl TableRules {
    /// The rules of a table.
    #[must_use]
    pub fn new(info: &AppInfo) -> Self {
        let (deny_reads, deny_writes) = denied(text(info, DENY_CLIENT_REQUEST));
        let throttle = |key: &str| {
            read(key, text(info, key), |text| Throttle::parse(text, info.partition_count))
        };
        let checked = text(info, VALIDATE_PARTITION_HASH) == "true";
        Self {
            deny_reads,
            deny_writes,
            partition_version: if checked { info.partition_count - 1 } else { ANY_HASH },
            writes: throttle(WRITE_THROTTLING),
            write_bytes: throttle(WRITE_THROTTLING_BY_SIZE),
            reads: throttle(READ_THROTTLING),
            backup_reads: throttle(BACKUP_REQUEST_THROTTLING),
            read_bytes: read(
                READ_THROTTLING_BY_SIZE,
                text(info, READ_THROTTLING_BY_SIZE),
                |text| ReadBucket::parse(text, info.partition_count),
            ),
        }
    }
}

fn text<'a>(info: &'a AppInfo, key: &str) -> &'a str {
    info.envs.get(key).map_or("", String::as_str)
}

fn read<T: Default>(key: &str, text: &str, parse: impl Fn(&str) -> Result<T, String>) -> T {
    parse(text).unwrap_or_else(|error| {
        tracing::warn!(key, value = text, error, "the value of a table's env cannot be read");
        T::default()
    })
}

/// What is denied to readers and to writers.
fn denied(text: &str) -> (Deny, Deny) {
    let Some((manner, kind)) = text.split_once('*') else { return (Deny::Nothing, Deny::Nothing) };
    let deny = if manner == "reconfig" { Deny::Reconfigure } else { Deny::Timeout };
    match kind {
        "read" => (deny, Deny::Nothing),
        "write" => (Deny::Nothing, deny),
        _ => (deny, deny),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(envs: &[(&str, &str)]) -> TableRules {
        let envs = envs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let info = AppInfo { partition_count: 8, envs: envs.collect(), ..AppInfo::default() };
        TableRules::new(&info)
    }

    #[test]
    fn nothing_is_limited_by_nothing_and_by_nonsense() {
        let free = rules(&[]);
        assert_eq!((free.deny_reads, free.deny_writes), (Deny::Nothing, Deny::Nothing));
        assert_eq!(free.partition_version, ANY_HASH);
        assert!(!free.writes.is_on() && free.read_bytes.is_none());
        assert_eq!(rules(&[(WRITE_THROTTLING, "soon"), (READ_THROTTLING_BY_SIZE, "?")]), free);
    }

    #[test]
    fn everything_is_read() {
        let all = rules(&[
            (DENY_CLIENT_REQUEST, "reconfig*write"),
            (VALIDATE_PARTITION_HASH, "true"),
            (WRITE_THROTTLING, "8*reject*1"),
            (WRITE_THROTTLING_BY_SIZE, "8K*delay*1"),
            (READ_THROTTLING, "8*delay*1"),
            (BACKUP_REQUEST_THROTTLING, "8*reject*1"),
            (READ_THROTTLING_BY_SIZE, "8K"),
        ]);
        assert_eq!((all.deny_reads, all.deny_writes), (Deny::Nothing, Deny::Reconfigure));
        assert_eq!(all.partition_version, 7);
        assert!(all.writes.is_on() && all.write_bytes.is_on());
        assert!(all.reads.is_on() && all.backup_reads.is_on() && all.read_bytes.is_some());
        let deny = |text| denied(text);
        assert_eq!(deny("timeout*all"), (Deny::Timeout, Deny::Timeout));
        assert_eq!(deny("timeout*read"), (Deny::Timeout, Deny::Nothing));
    }
}
