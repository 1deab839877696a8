//! What a table's environment and partition count say to its replicas; changes while they run.
//!
//! Keys that are not for the storage app are passed over here, as are values that the meta server
//! should have refused: those keep what was in force and are logged.

use dsn_replication::meta::envs::{EnvRule, check_number};
use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

use dsn_replication::table_rules::VALIDATE_PARTITION_HASH;

/// Time to live, in seconds, of records written without one.
pub const DEFAULT_TTL: &str = "default_ttl";
/// Milliseconds that one range read may take.
pub const ITERATION_THRESHOLD_MS: &str = "replica.rocksdb_iteration_threshold_time_ms";
/// Checkpoints kept at least.
pub const RESERVE_MIN_COUNT: &str = "rocksdb.checkpoint.reserve_min_count";
/// Seconds for which a checkpoint is kept at least.
pub const RESERVE_TIME_SECONDS: &str = "rocksdb.checkpoint.reserve_time_seconds";
/// Milliseconds from which a read is slow.
pub const SLOW_QUERY_THRESHOLD: &str = "replica.slow_query_threshold";

/// The envs that the storage app reads, for the meta server to check.
pub const ENV_RULES: &[EnvRule] = &[
    EnvRule {
        name: DEFAULT_TTL,
        limit: "seconds, 0 for none",
        sample: "86400",
        check: |value| check_number(value, 0..=i64::from(i32::MAX)),
    },
    EnvRule {
        name: ITERATION_THRESHOLD_MS,
        limit: "milliseconds, 0 for no limit",
        sample: "1000",
        check: |value| check_number(value, 0..=i64::MAX),
    },
    EnvRule {
        name: RESERVE_MIN_COUNT,
        limit: "a number, 1 or more",
        sample: "2",
        check: |value| check_number(value, 1..=i64::from(u32::MAX - 1)),
    },
    EnvRule {
        name: RESERVE_TIME_SECONDS,
        limit: "seconds",
        sample: "1800",
        check: |value| check_number(value, 0..=i64::MAX),
    },
];

const UNSET_U32: u32 = u32::MAX;
const UNSET_U64: u64 = u64::MAX;

/// The settings in force. Read from any thread.
#[derive(Debug)]
pub struct TableSettings {
    iteration_threshold_ms: AtomicU64,
    reserve_min_count: AtomicU32,
    reserve_time_seconds: AtomicU64,
    slow_query_ms: AtomicU64,
    validate_partition_hash: AtomicBool,
    partition_version: AtomicI32,
}

impl Default for TableSettings {
    fn default() -> Self {
        Self {
            iteration_threshold_ms: AtomicU64::new(UNSET_U64),
            reserve_min_count: AtomicU32::new(UNSET_U32),
            reserve_time_seconds: AtomicU64::new(UNSET_U64),
            slow_query_ms: AtomicU64::new(UNSET_U64),
            validate_partition_hash: AtomicBool::new(false),
            partition_version: AtomicI32::new(-1),
        }
    }
}

impl TableSettings {
    /// Takes over a table's environment. What is absent goes back to the server's configuration.
    /// Returns the table's default time to live.
    pub fn update(&self, envs: &BTreeMap<String, String>, partition_count: i32) -> u32 {
        let order = Ordering::Relaxed;
        if let Some(value) = parse(envs, ITERATION_THRESHOLD_MS, UNSET_U64) {
            self.iteration_threshold_ms.store(value, order);
        }
        if let Some(value) = parse(envs, RESERVE_MIN_COUNT, UNSET_U32) {
            self.reserve_min_count.store(value, order);
        }
        if let Some(value) = parse(envs, RESERVE_TIME_SECONDS, UNSET_U64) {
            self.reserve_time_seconds.store(value, order);
        }
        if let Some(value) = parse(envs, SLOW_QUERY_THRESHOLD, UNSET_U64) {
            self.slow_query_ms.store(value, order);
        }
        // The version first: a check against an old one would hide what belongs here.
        self.partition_version.store(partition_count.saturating_sub(1), order);
        if let Some(value) = parse(envs, VALIDATE_PARTITION_HASH, false) {
            self.validate_partition_hash.store(value, order);
        }
        parse(envs, DEFAULT_TTL, 0).unwrap_or(0)
    }

    /// Milliseconds that one range read may take, `None` when the table does not say.
    pub fn iteration_threshold_ms(&self) -> Option<u64> {
        Some(self.iteration_threshold_ms.load(Ordering::Relaxed)).filter(|ms| *ms != UNSET_U64)
    }

    /// Checkpoints kept at least, `None` when the table does not say.
    pub fn reserve_min_count(&self) -> Option<u32> {
        Some(self.reserve_min_count.load(Ordering::Relaxed)).filter(|count| *count != UNSET_U32)
    }

    /// Seconds for which a checkpoint is kept at least, `None` when the table does not say.
    pub fn reserve_time_seconds(&self) -> Option<u64> {
        Some(self.reserve_time_seconds.load(Ordering::Relaxed)).filter(|time| *time != UNSET_U64)
    }

    /// Milliseconds from which a read is slow, `None` when the table does not say.
    pub fn slow_query_ms(&self) -> Option<u64> {
        Some(self.slow_query_ms.load(Ordering::Relaxed)).filter(|ms| *ms != UNSET_U64)
    }

    /// The number of partitions less one, when records must be held against it; `None` when not.
    pub fn partition_check(&self) -> Option<i32> {
        self.validate_partition_hash
            .load(Ordering::Relaxed)
            .then(|| self.partition_version.load(Ordering::Relaxed))
    }
}

/// The value of `key`, `absent` when there is none, `None` when it cannot be read.
fn parse<T: FromStr>(envs: &BTreeMap<String, String>, key: &str, absent: T) -> Option<T> {
    let Some(text) = envs.get(key) else { return Some(absent) };
    let value = text.parse().ok();
    if value.is_none() {
        tracing::warn!(key, value = text, "the value of a table's environment cannot be read");
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_the_rules_let_pass_can_be_read() {
        for rule in ENV_RULES {
            assert_eq!((rule.check)(rule.sample), Ok(()), "{rule:?}");
            for bad in ["", "-1", "x", "1.5", "99999999999999999999"] {
                assert!((rule.check)(bad).is_err(), "{rule:?} lets {bad:?} pass");
            }
            let settings = TableSettings::default();
            let ttl = settings.update(&envs(&[(rule.name, rule.sample)]), 8);
            let read = [
                ttl > 0,
                settings.iteration_threshold_ms().is_some(),
                settings.reserve_min_count().is_some(),
                settings.reserve_time_seconds().is_some(),
            ];
            assert_eq!(read.iter().filter(|read| **read).count(), 1, "{rule:?} is read");
        }
    }

    #[test]
    fn settings_come_go_and_survive_nonsense() {
        let settings = TableSettings::default();
        assert_eq!(settings.partition_check(), None);
        let first = envs(&[
            (DEFAULT_TTL, "7"),
            (ITERATION_THRESHOLD_MS, "50"),
            (RESERVE_MIN_COUNT, "4"),
            (VALIDATE_PARTITION_HASH, "true"),
        ]);
        assert_eq!(settings.update(&first, 8), 7);
        assert_eq!(settings.iteration_threshold_ms(), Some(50));
        assert_eq!(settings.reserve_min_count(), Some(4));
        assert_eq!(settings.reserve_time_seconds(), None);
        assert_eq!(settings.partition_check(), Some(7));
        assert_eq!(settings.update(&envs(&[(ITERATION_THRESHOLD_MS, "soon")]), 8), 0);
        assert_eq!(settings.iteration_threshold_ms(), Some(50));
        assert_eq!(settings.reserve_min_count(), None);
        assert_eq!(settings.partition_check(), None);
    }
}
