//! What all RocksDB instances of a process share, and how an instance's options are built on it.
//!
//! Shared: the block cache, the cache of records, the memory budget of memtables, the background threads and the rate
//! limiter. RocksDB's thread pools belong to the process whatever we do; the rest is per
//! [`RocksShared`], so that several nodes in one process need not meet in it.

use std::sync::Arc;

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DBCompressionType, DataBlockIndexType, Env,
    LruCacheOptions, Options, SliceTransform, WriteBufferManager,
};

use super::error::engine_error;
use crate::engine::record_cache::RecordCache;
use crate::engine::{EngineError, prefix};
use crate::options::{CacheType, FilterType, IndexType, StorageOptions};

/// Bytes written at a time before the rate limiter is asked again, in microseconds.
const LIMITER_REFILL_US: i64 = 100_000;
/// One in so many requests at low priority is served first.
const LIMITER_FAIRNESS: i32 = 10;
/// `max_compaction_bytes` in table files.
const COMPACTION_FILES: u64 = 25;
/// First level that `rocksdb_compression_type = "lz4"` compresses.
const FIRST_COMPRESSED_LEVEL: usize = 2;
/// Lets the cache find out how large its entries are.
const ENTRY_CHARGE_AUTO: usize = 0;
/// Level 0 files that make the meta family compact.
const META_LEVEL0_TRIGGER: i32 = 10;
/// Share of a memtable's size spent on a bloom filter over its hash keys (original: 0.1). It spares a
/// read of a table file the search through a full memtable, 2 us of 5; a larger one would cost puts
/// and reads of the memtable more cache misses and spare nothing further: this is 18 bits per record
/// of 200 bytes.
const MEMTABLE_BLOOM_RATIO: f64 = 0.01;
/// Closing must not flush behind our back: what is durable is decided by who flushes.
const NO_LAST_FLUSH: &str = "avoid_flush_during_shutdown=true";
/// A memtable remembers where the last record went and looks for the place of the next from there: batches are
/// sorted. One place is remembered for each first byte of a key, which with hash keys below 256 bytes means one.
const INSERT_HINT: &str = "memtable_insert_with_hint_prefix_extractor=fixed:1";

/// Records of a data block from one place that its hash index knows to the next: a point read walks half of them.
const RESTART_INTERVAL: i32 = 4;

/// What the replicas of one server share. Cheap to clone.
#[derive(Clone)]
pub struct RocksShared {
    /// Process-wide parts set; cloning it shares them.
    base: Options,
    cache: Option<Cache>,
    write_buffers: Option<WriteBufferManager>,
    pub(super) records: Option<Arc<RecordCache>>,
}

impl RocksShared {
    /// Builds cache, budget, limiter and thread pools as `options` say.
    ///
    /// # Errors
    /// When RocksDB refuses its environment or an option.
    pub fn new(options: &StorageOptions) -> Result<Self, EngineError> {
        let mut env = Env::new().map_err(engine_error)?;
        env.set_high_priority_background_threads(options.rocksdb_max_background_flushes);
        env.set_low_priority_background_threads(options.rocksdb_max_background_compactions);
        // What the wrapper has no methods for.
        let mut base = Options::default()
            .get_options_from_string(format!("{NO_LAST_FLUSH};{INSERT_HINT}"))
            .map_err(engine_error)?;
        base.set_env(&env);
        let megabytes = options.rocksdb_limiter_max_write_megabytes_per_sec;
        if megabytes > 0 {
            let rate = megabytes.saturating_mul(1 << 20);
            if options.rocksdb_limiter_enable_auto_tune {
                base.set_auto_tuned_ratelimiter(rate, LIMITER_REFILL_US, LIMITER_FAIRNESS);
            } else {
                base.set_ratelimiter(rate, LIMITER_REFILL_US, LIMITER_FAIRNESS);
            }
        }
        let cache = (!options.rocksdb_disable_table_block_cache).then(|| {
            let capacity = options.rocksdb_block_cache_capacity.as_usize();
            match options.rocksdb_block_cache_type {
                CacheType::Lru => {
                    let mut lru = LruCacheOptions::default();
                    lru.set_capacity(capacity);
                    lru.set_num_shard_bits(options.rocksdb_block_cache_num_shard_bits);
                    Cache::new_lru_cache_opts(&lru)
                }
                CacheType::HyperClock => Cache::new_hyper_clock_cache(capacity, ENTRY_CHARGE_AUTO),
            }
        });
        let budget = options.rocksdb_total_size_across_write_buffer.as_usize();
        let write_buffers = options.rocksdb_enable_write_buffer_manager.then(|| match &cache {
            Some(cache) => WriteBufferManager::new_write_buffer_manager_with_cache(
                budget,
                false,
                cache.clone(),
            ),
            None => WriteBufferManager::new_write_buffer_manager(budget, false),
        });
        if let Some(manager) = &write_buffers {
            base.set_write_buffer_manager(manager);
        }
        let records = RecordCache::new(options.record_cache_capacity.as_usize());
        Ok(Self { base, cache, write_buffers, records })
    }

    /// Bytes used and bytes pinned in the block cache.
    pub fn block_cache_usage(&self) -> (u64, u64) {
        self.cache
            .as_ref()
            .map_or((0, 0), |cache| (cache.get_usage() as u64, cache.get_pinned_usage() as u64))
    }

    /// Bytes of memtables under the shared budget.
    pub fn write_buffer_usage(&self) -> u64 {
        self.write_buffers.as_ref().map_or(0, |manager| manager.get_usage() as u64)
    }

    /// Options of a database as a whole.
    pub(super) fn db_options(&self, options: &StorageOptions) -> Options {
        let mut db = self.base.clone();
        db.create_if_missing(true);
        db.create_missing_column_families(true);
        // One writer per database: what concurrent memtable inserts need only costs.
        db.set_allow_concurrent_memtable_write(false);
        db.set_enable_write_thread_adaptive_yield(false);
        db.set_atomic_flush(true);
        db.set_max_open_files(options.rocksdb_max_open_files);
        db.set_max_log_file_size(options.rocksdb_max_log_file_size.as_usize());
        db.set_log_file_time_to_roll(options.rocksdb_log_file_time_to_roll as usize);
        db.set_keep_log_file_num(options.rocksdb_keep_log_file_num as usize);
        db.set_stats_dump_period_sec(options.stats_dump_period_sec);
        db.set_stats_persist_period_sec(options.stats_persist_period_sec);
        db.set_compaction_readahead_size(options.rocksdb_compaction_readahead_size.as_usize());
        db.set_writable_file_max_buffer_size(options.rocksdb_writable_file_max_buffer_size.get());
        db.set_use_direct_reads(options.rocksdb_use_direct_reads);
        db.set_use_direct_io_for_flush_and_compaction(
            options.rocksdb_use_direct_io_for_flush_and_compaction,
        );
        set_background_jobs(&mut db, options);
        if options.rocksdb_enable_statistics {
            db.enable_statistics();
            db.set_statistics_level(rocksdb::statistics::StatsLevel::ExceptDetailedTimers);
        }
        db
    }

    /// Options of the data family, without its compaction filter.
    pub(super) fn data_family(&self, options: &StorageOptions) -> Result<Options, EngineError> {
        let mut family = self.family(options);
        family.set_level_zero_file_num_compaction_trigger(
            options.rocksdb_level0_file_num_compaction_trigger,
        );
        if options.rocksdb_filter_type == FilterType::Prefix
            && !options.rocksdb_disable_bloom_filter
        {
            family.set_memtable_prefix_bloom_ratio(MEMTABLE_BLOOM_RATIO);
        }
        let levels = compression_per_level(
            &options.rocksdb_compression_type,
            usize::try_from(options.rocksdb_num_levels).unwrap_or(1).max(1),
        )?;
        family.set_compression_per_level(&levels);
        Ok(family)
    }

    /// Options of the meta family.
    pub(super) fn meta_family(&self, options: &StorageOptions) -> Options {
        let mut family = self.family(options);
        family.set_level_zero_file_num_compaction_trigger(META_LEVEL0_TRIGGER);
        family.set_compression_type(DBCompressionType::None);
        // The decree is overwritten by every batch; in place it costs no new memtable entry.
        family.set_inplace_update_support(true);
        family.set_inplace_update_locks(1);
        family
    }

    fn family(&self, options: &StorageOptions) -> Options {
        let mut family = self.base.clone();
        family.set_write_buffer_size(options.rocksdb_write_buffer_size.as_usize());
        family.set_max_write_buffer_number(options.rocksdb_max_write_buffer_number);
        family.set_num_levels(options.rocksdb_num_levels);
        family.set_level_compaction_dynamic_level_bytes(false);
        family.set_target_file_size_base(options.rocksdb_target_file_size_base.get());
        family.set_target_file_size_multiplier(options.rocksdb_target_file_size_multiplier);
        family.set_max_bytes_for_level_base(options.rocksdb_max_bytes_for_level_base.get());
        family.set_max_bytes_for_level_multiplier(options.rocksdb_max_bytes_for_level_multiplier);
        family.set_max_compaction_bytes(
            COMPACTION_FILES * options.rocksdb_target_file_size_base.get(),
        );
        family
            .set_level_zero_slowdown_writes_trigger(options.rocksdb_level0_slowdown_writes_trigger);
        family.set_level_zero_stop_writes_trigger(options.rocksdb_level0_stop_writes_trigger);
        family.set_disable_auto_compactions(options.rocksdb_disable_auto_compactions);
        family.set_periodic_compaction_seconds(options.rocksdb_periodic_compaction_seconds);
        family.set_prefix_extractor(SliceTransform::create(
            prefix::EXTRACTOR_NAME,
            prefix::prefix_of,
            Some(prefix::in_domain),
        ));
        family.set_block_based_table_factory(&self.table(options));
        family
    }

    fn table(&self, options: &StorageOptions) -> BlockBasedOptions {
        let mut table = BlockBasedOptions::default();
        match &self.cache {
            Some(cache) => table.set_block_cache(cache),
            None => table.disable_cache(),
        }
        table.set_block_restart_interval(RESTART_INTERVAL);
        table.set_format_version(options.rocksdb_format_version);
        table.set_metadata_block_size(options.rocksdb_metadata_block_size.as_usize());
        table.set_index_type(match options.rocksdb_index_type {
            IndexType::BinarySearch => BlockBasedIndexType::BinarySearch,
            IndexType::HashSearch => BlockBasedIndexType::HashSearch,
            IndexType::TwoLevel => BlockBasedIndexType::TwoLevelIndexSearch,
        });
        table.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
        table.set_cache_index_and_filter_blocks(options.rocksdb_cache_index_and_filter_blocks);
        table.set_cache_index_and_filter_blocks_with_high_priority(
            options.rocksdb_cache_index_and_filter_blocks_with_high_priority,
        );
        table.set_pin_top_level_index_and_filter(options.rocksdb_pin_top_level_index_and_filter);
        table.set_pin_l0_filter_and_index_blocks_in_cache(
            options.rocksdb_pin_l0_filter_and_index_blocks_in_cache,
        );
        if !options.rocksdb_disable_bloom_filter {
            table.set_bloom_filter(options.rocksdb_bloom_filter_bits_per_key, false);
            table.set_partition_filters(options.rocksdb_partition_filters);
        }
        table
    }
}

#[expect(deprecated, reason = "the replacement derives one number from the other")]
fn set_background_jobs(db: &mut Options, options: &StorageOptions) {
    db.set_max_background_flushes(options.rocksdb_max_background_flushes);
    db.set_max_background_compactions(options.rocksdb_max_background_compactions);
}

/// Parses `rocksdb_compression_type` into one type per level.
fn compression_per_level(text: &str, levels: usize) -> Result<Vec<DBCompressionType>, EngineError> {
    let one = |name: &str| match name.trim() {
        "none" => Ok(DBCompressionType::None),
        "snappy" => Ok(DBCompressionType::Snappy),
        "lz4" => Ok(DBCompressionType::Lz4),
        "zstd" => Ok(DBCompressionType::Zstd),
        other => Err(EngineError::InvalidArgument(format!(
            "rocksdb_compression_type: {other:?} is none of none, snappy, lz4, zstd"
        ))),
    };
    match text.strip_prefix("per_level:") {
        None => {
            let kind = one(text)?;
            let none = std::iter::repeat_n(DBCompressionType::None, FIRST_COMPRESSED_LEVEL);
            Ok(none.chain(std::iter::repeat(kind)).take(levels).collect())
        }
        Some(list) => {
            let mut kinds = list.split(',').map(one).collect::<Result<Vec<_>, _>>()?;
            let last = *kinds.last().unwrap_or(&DBCompressionType::None);
            kinds.resize(levels, last);
            Ok(kinds)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use DBCompressionType::{Lz4, None as Plain, Zstd};

    #[test]
    fn compression_covers_every_level() {
        assert_eq!(compression_per_level("lz4", 4), Ok(vec![Plain, Plain, Lz4, Lz4]));
        assert_eq!(compression_per_level("none", 3), Ok(vec![Plain, Plain, Plain]));
        assert_eq!(compression_per_level("lz4", 1), Ok(vec![Plain]));
        assert_eq!(
            compression_per_level("per_level:none,lz4,zstd", 5),
            Ok(vec![Plain, Lz4, Zstd, Zstd, Zstd])
        );
        assert_eq!(compression_per_level("per_level:zstd,lz4", 1), Ok(vec![Zstd]));
        assert!(compression_per_level("brotli", 3).is_err());
        assert!(compression_per_level("per_level:", 3).is_err());
    }
}
