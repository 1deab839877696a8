//! Section `[pegasus.server]` of the configuration: the storage engine and the limits of reads.
//!
//! Names and meanings are Apache Pegasus's. Defaults are its defaults too, except where they assume a
//! machine with tens of cores and gigabytes: those say what the original's is.

use dsn_core::config::Size;

dsn_core::choice! {
    /// What keeps the records.
    pub enum EngineKind {
        /// RocksDB, on files.
        Rocks = "rocksdb",
        /// An ordered map in memory, written out only by flushes and checkpoints: for simulations.
        Memory = "memory",
    }
}

dsn_core::choice! {
    /// What the bloom filters of table files hold.
    pub enum FilterType {
        /// Hash keys, and whole keys.
        Prefix = "prefix",
        /// Whole keys only.
        Common = "common",
    }
}

dsn_core::choice! {
    /// Kind of the index of a table file.
    pub enum IndexType {
        /// One sorted index.
        BinarySearch = "binary_search",
        /// With a hash table over hash keys.
        HashSearch = "hash_search",
        /// An index of indexes, for very large files.
        TwoLevel = "two_level_index_search",
    }
}

dsn_core::choice! {
    /// How the block cache decides what to keep.
    pub enum CacheType {
        /// Least recently used, behind a mutex for each shard.
        Lru = "lru",
        /// Clock, without locks: hits cost a tenth of a read less.
        HyperClock = "hyper_clock",
    }
}

dsn_core::options! {
    /// The storage app of replica servers: its engine, its limits.
    pub section StorageOptions at "pegasus.server" {
        /// What keeps the records.
        storage_engine: EngineKind = EngineKind::Rocks;
        /// Memtable size at which it is flushed (original: 64 MiB). What does not fit into the processor's
        /// caches is slow to search: of small memtables both reads and writes profit.
        rocksdb_write_buffer_size: Size = Size::mib(8), in Size::kib(64)..=Size::gib(4);
        /// Memtables of one replica before its writes stop.
        rocksdb_max_write_buffer_number: i32 = 3, in 2..=64;
        /// Levels of a newly created database.
        rocksdb_num_levels: i32 = 6, in 1..=10;
        /// Size of the table files of level 1.
        rocksdb_target_file_size_base: Size = Size::mib(64), in Size::kib(64)..=Size::gib(64);
        /// Growth of the file size per level.
        rocksdb_target_file_size_multiplier: i32 = 1, in 1..=100;
        /// Bytes in level 1 (original: 640 MiB).
        rocksdb_max_bytes_for_level_base: Size = Size::mib(64), in Size::kib(64)..=Size::gib(1024);
        /// Growth of the bytes per level.
        rocksdb_max_bytes_for_level_multiplier: f64 = 10.0, in 1.0..=1000.0;
        /// Files in level 0 that start a compaction (original: 4). Each is one place more to look for a record.
        rocksdb_level0_file_num_compaction_trigger: i32 = 2, in 1..;
        /// Files in level 0 that slow writes down.
        rocksdb_level0_slowdown_writes_trigger: i32 = 30, in 1..;
        /// Files in level 0 that stop writes.
        rocksdb_level0_stop_writes_trigger: i32 = 60, in 1..;
        /// Flushes at a time in the process (original: 4).
        rocksdb_max_background_flushes: i32 = 1, in 1..=64;
        /// Compactions at a time in the process (original: 12).
        rocksdb_max_background_compactions: i32 = 2, in 1..=256;
        /// Whether compactions run only when asked for, as simulations want it.
        rocksdb_disable_auto_compactions: bool = false;
        /// `none`, `snappy`, `lz4` or `zstd` for the levels from 2 on, or `per_level:a,b,c` with the
        /// last one repeated.
        rocksdb_compression_type: String = "lz4";
        /// Bytes a compaction reads ahead.
        rocksdb_compaction_readahead_size: Size = Size::mib(2), in ..=Size::mib(256);
        /// Buffer of a file being written.
        rocksdb_writable_file_max_buffer_size: Size = Size::mib(1), in Size::kib(4)..=Size::mib(256);
        /// Reads that bypass the page cache.
        rocksdb_use_direct_reads: bool = false;
        /// Flushes and compactions that bypass the page cache.
        rocksdb_use_direct_io_for_flush_and_compaction: bool = false;
        /// No block cache at all.
        rocksdb_disable_table_block_cache: bool = false;
        /// Block cache shared by all replicas of the process (original: 10 GiB).
        rocksdb_block_cache_capacity: Size = Size::gib(1), in Size::kib(64)..=Size::gib(16384);
        /// How it decides what to keep (original: always LRU).
        rocksdb_block_cache_type: CacheType = CacheType::HyperClock;
        /// Shards of an LRU block cache as a power of two; negative lets RocksDB choose.
        rocksdb_block_cache_num_shard_bits: i32 = -1, in -1..=19;
        /// Records that were read, kept to be found faster than RocksDB finds them; shared by all replicas of the
        /// process. Below 512 KiB there is none. Not an option of the original.
        record_cache_capacity: Size = Size::mib(128), in ..=Size::gib(16384);
        /// One budget for the memtables of all replicas, charged to the block cache (original: false).
        rocksdb_enable_write_buffer_manager: bool = true;
        /// That budget; 0 for none (original: 0).
        rocksdb_total_size_across_write_buffer: Size = Size::mib(512), in ..=Size::gib(16384);
        /// No bloom filters.
        rocksdb_disable_bloom_filter: bool = false;
        /// What the filters hold.
        rocksdb_filter_type: FilterType = FilterType::Prefix;
        /// Filter bits per key; 10 give one false positive in a hundred.
        rocksdb_bloom_filter_bits_per_key: f64 = 10.0, in 1.0..=100.0;
        /// Version of the table file format (original: 2).
        rocksdb_format_version: i32 = 5, in 2..=7;
        /// Kind of the index of a table file.
        rocksdb_index_type: IndexType = IndexType::BinarySearch;
        /// Filters cut into blocks, for very large files.
        rocksdb_partition_filters: bool = false;
        /// Block size of partitioned indexes and filters.
        rocksdb_metadata_block_size: Size = Size::kib(4), in Size::kib(1)..=Size::mib(16);
        /// Indexes and filters live in the block cache instead of beside it. Point reads of cold
        /// blocks then leave the connection's thread.
        rocksdb_cache_index_and_filter_blocks: bool = false;
        /// If so, they are the last to be evicted.
        rocksdb_cache_index_and_filter_blocks_with_high_priority: bool = true;
        /// The top level of partitioned ones is never evicted.
        rocksdb_pin_top_level_index_and_filter: bool = true;
        /// Those of level 0 files are never evicted.
        rocksdb_pin_l0_filter_and_index_blocks_in_cache: bool = false;
        /// Table files kept open; -1 for all. With fewer, point reads may have to open a file.
        rocksdb_max_open_files: i32 = -1, in -1..;
        /// Size at which RocksDB's own log starts a new file.
        rocksdb_max_log_file_size: Size = Size::mib(8), in Size::kib(4)..=Size::gib(1);
        /// Age in seconds at which it does.
        rocksdb_log_file_time_to_roll: u32 = 86_400;
        /// Own log files kept (original: 32).
        rocksdb_keep_log_file_num: u32 = 4, in 1..=1000;
        /// Age in seconds at which a file is compacted for its age alone; 0 for never.
        rocksdb_periodic_compaction_seconds: u64 = 0;
        /// Seconds between statistics in RocksDB's own log; 0 for none (original: 600).
        stats_dump_period_sec: u32 = 0;
        /// Seconds between statistics kept in memory; 0 for none (original: 600).
        stats_persist_period_sec: u32 = 0;
        /// Whether RocksDB counts what it does, which costs a little on every read and write. Not an
        /// option of the original, which always does.
        rocksdb_enable_statistics: bool = false;
        /// Limit of flush and compaction writes of the process, in MB/s; 0 or less for none.
        rocksdb_limiter_max_write_megabytes_per_sec: i64 = 500;
        /// Whether that limit adapts to what is needed.
        rocksdb_limiter_enable_auto_tune: bool = false;
        /// Records that one multi_get examines at most, and the most that it returns.
        rocksdb_multi_get_max_iteration_count: u32 = 3000, in 1..=1_000_000, [mutable];
        /// Bytes that one multi_get of a range returns at most; the record that crosses the line is
        /// still returned.
        rocksdb_multi_get_max_iteration_size: Size = Size::mib(30), in Size::bytes(1)..=Size::gib(1), [mutable];
        /// Records that one batch of a scan returns at most.
        rocksdb_max_iteration_count: u32 = 1000, in 1..=1_000_000, [mutable];
        /// Nanoseconds from which a read is slow: logged and counted. A table's own setting goes first.
        rocksdb_slow_query_threshold_ns: u64 = 100_000_000, in 1.., [mutable];
        /// Bytes of a value from which a get is logged and counted as abnormal; 0 for never.
        rocksdb_abnormal_get_size_threshold: u64 = 1_000_000, [mutable];
        /// Bytes of an answer from which a multi_get is logged and counted as abnormal; 0 for never.
        rocksdb_abnormal_multi_get_size_threshold: u64 = 10_000_000, [mutable];
        /// Records examined from which a multi_get is logged and counted as abnormal; 0 for never.
        rocksdb_abnormal_multi_get_iterate_count_threshold: u64 = 1_000, [mutable];
        /// Bytes of an answer from which a batch_get is logged and counted as abnormal; 0 for never.
        rocksdb_abnormal_batch_get_bytes_threshold: u64 = 10_000_000, [mutable];
        /// Keys from which a batch_get is logged and counted as abnormal; 0 for never.
        rocksdb_abnormal_batch_get_count_threshold: u64 = 2_000, [mutable];
        /// Milliseconds that one range read may take; 0 for no limit. A table's own setting goes first.
        rocksdb_iteration_threshold_time_ms: u64 = 30_000, [mutable];
        /// Checkpoints of a replica that are kept at least.
        checkpoint_reserve_min_count: u32 = 2, in 1..=1000, [mutable];
        /// Seconds for which a checkpoint is kept at least; 0 for no such rule.
        checkpoint_reserve_time_seconds: u64 = 1800, [mutable];
    }
}

impl StorageOptions {
    /// Options under which RocksDB does nothing unasked: no automatic compaction, no rate limit, small
    /// buffers. For simulations and tests.
    pub fn quiet() -> Self {
        Self {
            rocksdb_write_buffer_size: Size::mib(8),
            rocksdb_disable_auto_compactions: true,
            rocksdb_block_cache_capacity: Size::mib(16),
            record_cache_capacity: Size::mib(1),
            rocksdb_enable_write_buffer_manager: false,
            rocksdb_limiter_max_write_megabytes_per_sec: 0,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dsn_core::config::{ConfigSchema, Loader};

    #[test]
    fn the_section_is_sound_and_its_defaults_load() {
        let schema = ConfigSchema::new().section::<StorageOptions>();
        assert_eq!(schema.problems(), Vec::<String>::new());
        let text = "[pegasus.server]\nrocksdb_filter_type = 'common'\nstorage_engine = 'memory'";
        let config = Loader::new(schema).text("t.toml", text).load().expect("valid");
        let options: StorageOptions = config.section().expect("registered");
        assert_eq!(options.rocksdb_filter_type, FilterType::Common);
        assert_eq!(options.storage_engine, EngineKind::Memory);
        assert_eq!(options.rocksdb_num_levels, 6);
    }
}
