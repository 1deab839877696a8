//! What the engine of a table is tuned for: its usage scenario and the size of its memtables. Both change as it runs.
//!
//! | option | normal | prefer_write | bulk_load |
//! |---|---|---|---|
//! | write_buffer_size | W | between W and 2 W | 4 W |
//! | level0_file_num_compaction_trigger | as configured | level 1 in memtables, at least 4 | never |
//! | level0 slowdown and stop triggers | as configured | as configured | never |
//! | pending compaction bytes, soft and hard limit | RocksDB's | RocksDB's | none |
//! | disable_auto_compactions | as configured | as configured | true |
//! | max_compaction_bytes | 25 files | 25 files | without limit |
//! | max_write_buffer_number | as configured | as configured | at least 6 |
//!
//! W is the table's `rocksdb.write_buffer_size`, else the server's, and differs by up to a quarter between replicas, so
//! that they do not flush all at once. The scenario is also kept in the meta family, for the time between the start of
//! a server and its first config sync.

use std::collections::BTreeMap;
use std::str::FromStr;

use dsn_replication::meta::envs::{EnvRule, check_number};

use crate::options::StorageOptions;

/// What the engine is tuned for.
pub const USAGE_SCENARIO: &str = "rocksdb.usage_scenario";
/// Memtable size at which it is flushed.
pub const WRITE_BUFFER_SIZE: &str = "rocksdb.write_buffer_size";
/// Levels of the database; looked at when it is made, and never again.
pub const NUM_LEVELS: &str = "rocksdb.num_levels";

/// The envs that are read here, for the meta server to check.
pub const ENV_RULES: &[EnvRule] = &[
    EnvRule {
        name: USAGE_SCENARIO,
        limit: "normal, prefer_write, bulk_load",
        sample: "normal",
        check: |value| value.parse::<Scenario>().map(|_| ()),
    },
    EnvRule {
        name: WRITE_BUFFER_SIZE,
        limit: "bytes, 16 MiB to 512 MiB",
        sample: "67108864",
        check: |value| check_number(value, 16 << 20..=512 << 20),
    },
    EnvRule {
        name: NUM_LEVELS,
        limit: "1 to 10, for new tables",
        sample: "6",
        check: |value| check_number(value, 1..=10),
    },
];

/// Files in level 0 that are never reached.
const NEVER: u64 = 1_000_000_000;
/// RocksDB's own limits of bytes that wait for compaction.
const SOFT_PENDING_BYTES: u64 = 64 << 30;
const HARD_PENDING_BYTES: u64 = 256 << 30;
/// `max_compaction_bytes` in table files.
const COMPACTION_FILES: u64 = 25;
/// Fewest files in level 0 that start a compaction under `prefer_write`.
const PREFER_WRITE_TRIGGER_MIN: u64 = 4;
/// Fewest memtables under `bulk_load`.
const BULK_LOAD_BUFFERS_MIN: i32 = 6;
/// Fractions of memtable sizes are counted in these.
const PARTS: u64 = 1000;

/// What a table is used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scenario {
    /// Reads and writes.
    #[default]
    Normal,
    /// Writes, mostly.
    PreferWrite,
    /// Nothing but writes, to be compacted afterwards.
    BulkLoad,
}

impl Scenario {
    /// As envs and the meta family spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::PreferWrite => "prefer_write",
            Self::BulkLoad => "bulk_load",
        }
    }
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Normal, Self::PreferWrite, Self::BulkLoad]
            .into_iter()
            .find(|scenario| scenario.name() == text)
            .ok_or_else(|| "none of normal, prefer_write, bulk_load".to_owned())
    }
}

/// What is asked of an engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tuning {
    /// The scenario.
    pub scenario: Scenario,
    /// The table's own memtable size.
    pub write_buffer_size: Option<u64>,
}

impl Tuning {
    /// What a table's envs ask for; what is absent or unreadable is as configured.
    #[must_use]
    pub fn of(envs: &BTreeMap<String, String>) -> Self {
        let scenario = envs.get(USAGE_SCENARIO).and_then(|text| text.parse().ok());
        let size = envs.get(WRITE_BUFFER_SIZE).and_then(|text| text.parse().ok());
        Self { scenario: scenario.unwrap_or_default(), write_buffer_size: size }
    }

    /// The engine's options for it. `salt` differs from replica to replica.
    #[must_use]
    pub fn engine_options(
        self,
        options: &StorageOptions,
        salt: u64,
    ) -> Vec<(&'static str, String)> {
        let own = self.write_buffer_size;
        let size = own.unwrap_or_else(|| options.rocksdb_write_buffer_size.get());
        let scaled =
            |size: u64, low: u64, high: u64| size.saturating_mul(low + salt % (high - low)) / PARTS;
        let near = |size| scaled(size, PARTS * 3 / 4, PARTS * 5 / 4);
        let configured = |value: i32| u64::try_from(value).unwrap_or(0);
        let slowdown = configured(options.rocksdb_level0_slowdown_writes_trigger);
        let stop = configured(options.rocksdb_level0_stop_writes_trigger);
        let trigger = configured(options.rocksdb_level0_file_num_compaction_trigger);
        let files = COMPACTION_FILES * options.rocksdb_target_file_size_base.get();
        let buffers = options.rocksdb_max_write_buffer_number;
        let manual = options.rocksdb_disable_auto_compactions;
        let pending = (SOFT_PENDING_BYTES, HARD_PENDING_BYTES);
        let (size, trigger, levels, pending, manual, files, buffers) = match self.scenario {
            Scenario::Normal => {
                (near(size), trigger, (slowdown, stop), pending, manual, files, buffers)
            }
            Scenario::PreferWrite => {
                let size = scaled(size, PARTS, 2 * PARTS);
                let level1 = near(options.rocksdb_max_bytes_for_level_base.get());
                let trigger = (level1 / size.max(1)).max(PREFER_WRITE_TRIGGER_MIN);
                (size, trigger, (slowdown, stop), pending, manual, files, buffers)
            }
            Scenario::BulkLoad => {
                let buffers = buffers.max(BULK_LOAD_BUFFERS_MIN);
                (near(4 * size), NEVER, (NEVER, NEVER), (0, 0), true, 1 << 60, buffers)
            }
        };
        vec![
            ("write_buffer_size", size.to_string()),
            ("level0_file_num_compaction_trigger", trigger.to_string()),
            ("level0_slowdown_writes_trigger", levels.0.to_string()),
            ("level0_stop_writes_trigger", levels.1.to_string()),
            ("soft_pending_compaction_bytes_limit", pending.0.to_string()),
            ("hard_pending_compaction_bytes_limit", pending.1.to_string()),
            ("disable_auto_compactions", manual.to_string()),
            ("max_compaction_bytes", files.to_string()),
            ("max_write_buffer_number", buffers.to_string()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(tuning: Tuning, salt: u64, key: &str) -> String {
        let options = tuning.engine_options(&StorageOptions::default(), salt);
        let found = options.into_iter().find(|(name, _)| *name == key);
        found.expect("an option").1
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for rule in ENV_RULES {
            assert_eq!((rule.check)(rule.sample), Ok(()), "{rule:?}");
            for bad in ["", "-1", "x", "11", "16777215", "536870913"] {
                assert!((rule.check)(bad).is_err(), "{rule:?} lets {bad:?} pass");
            }
        }
    }

    #[test]
    fn envs_choose_and_nonsense_does_not() {
        let envs = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            Tuning::of(&pairs.collect())
        };
        assert_eq!(envs(&[]), Tuning::default());
        assert_eq!(envs(&[(USAGE_SCENARIO, "slow"), (WRITE_BUFFER_SIZE, "x")]), Tuning::default());
        let chosen = envs(&[(USAGE_SCENARIO, "bulk_load"), (WRITE_BUFFER_SIZE, "33554432")]);
        assert_eq!(chosen.scenario, Scenario::BulkLoad);
        assert_eq!(chosen.write_buffer_size, Some(32 << 20));
    }

    #[test]
    fn scenarios_turn_what_they_promise() {
        let mib = 1u64 << 20;
        for salt in [0, 1, 499, 999, 123_456_789, u64::MAX] {
            let size = |scenario, own| {
                let tuning = Tuning { scenario, write_buffer_size: own };
                value(tuning, salt, "write_buffer_size").parse::<u64>().expect("a number")
            };
            let normal = size(Scenario::Normal, None);
            assert!((6 * mib..=10 * mib).contains(&normal), "{normal}");
            let own = size(Scenario::Normal, Some(16 * mib));
            assert!((12 * mib..=20 * mib).contains(&own), "{own}");
            let writes = size(Scenario::PreferWrite, None);
            assert!((8 * mib..16 * mib).contains(&writes), "{writes}");
            let bulk = size(Scenario::BulkLoad, None);
            assert!((24 * mib..=40 * mib).contains(&bulk), "{bulk}");
        }
        let bulk = Tuning { scenario: Scenario::BulkLoad, write_buffer_size: None };
        assert_eq!(value(bulk, 0, "disable_auto_compactions"), "true");
        assert_eq!(value(bulk, 0, "level0_stop_writes_trigger"), "1000000000");
        assert_eq!(value(bulk, 0, "max_write_buffer_number"), "6");
        let normal = Tuning::default();
        assert_eq!(value(normal, 0, "disable_auto_compactions"), "false");
        assert_eq!(value(normal, 0, "level0_stop_writes_trigger"), "60");
        assert_eq!(value(normal, 0, "max_write_buffer_number"), "3");
    }
}
