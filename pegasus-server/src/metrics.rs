//! The storage app's metrics of a replica, by the original's names.
//!
//! Writes are counted in a [`WriteTally`] first and added when they have been applied: applying may be
//! given up and made again elsewhere.

dsn_core::metrics! {
    /// What the storage app of one replica has done and holds.
    pub struct StorageMetrics on "replica" {
        /// Get requests; ttl ones have never been counted.
        get_requests: Counter, Requests;
        /// Multi_get and sortkey_count requests.
        multi_get_requests: Counter, Requests;
        /// Batch_get requests.
        batch_get_requests: Counter, Requests;
        /// Get_scanner and scan requests.
        scan_requests: Counter, Requests;
        /// Keys and values answered to get.
        get_bytes: Counter, Bytes;
        /// Keys and values answered to multi_get.
        multi_get_bytes: Counter, Bytes;
        /// Keys and values answered to batch_get.
        batch_get_bytes: Counter, Bytes;
        /// Keys and values answered to scans.
        scan_bytes: Counter, Bytes;
        /// Records passed over because they had expired.
        read_expired_values: Counter, Values;
        /// Records passed over because a filter did not let them through.
        read_filtered_values: Counter, Values;
        /// Reads that were slow or large; each is in the log.
        abnormal_read_requests: Counter, Requests;
        /// Put requests.
        put_requests: Counter, Requests;
        /// Multi_put requests.
        multi_put_requests: Counter, Requests;
        /// Remove requests.
        remove_requests: Counter, Requests;
        /// Multi_remove requests.
        multi_remove_requests: Counter, Requests;
        /// Incr requests.
        incr_requests: Counter, Requests;
        /// Check_and_set requests.
        check_and_set_requests: Counter, Requests;
        /// Check_and_mutate requests.
        check_and_mutate_requests: Counter, Requests;
        /// Keys and values put.
        put_bytes: Counter, Bytes;
        /// Keys and values put by multi_put.
        multi_put_bytes: Counter, Bytes;
        /// Keys and values put by check_and_set.
        check_and_set_bytes: Counter, Bytes;
        /// Keys and values put by check_and_mutate.
        check_and_mutate_bytes: Counter, Bytes;
        /// Committed requests that could not be decoded.
        corrupt_writes: Counter, Requests;
        /// Scans that clients have open.
        open_scans: Gauge, Scans;
        /// Table files.
        rdb_total_sst_files: Gauge, Files;
        /// Size of the table files.
        rdb_total_sst_size_mb: Gauge, MegaBytes;
        /// Records, overwritten ones counted until compaction.
        rdb_estimated_keys: Gauge, Keys;
        /// Memtables.
        rdb_memtable_mem_usage_bytes: Gauge, Bytes;
        /// Indexes and filters outside the block cache.
        rdb_index_and_filter_blocks_mem_usage_bytes: Gauge, Bytes;
    }
}

macro_rules! tally {
    ($($name:ident)*) => {
        /// What a run of mutations adds to the counters once it is applied.
        #[derive(Clone, Debug, Default)]
        #[expect(missing_docs, reason = "the fields are those of the metrics above")]
        pub struct WriteTally {
            $(pub $name: u64,)*
        }

        impl StorageMetrics {
            /// Adds a tally to the counters.
            pub fn add(&self, tally: &WriteTally) {
                $(if tally.$name > 0 {
                    self.$name.add(tally.$name);
                })*
            }
        }
    };
}

tally! {
    put_requests multi_put_requests remove_requests multi_remove_requests incr_requests
    check_and_set_requests check_and_mutate_requests
    put_bytes multi_put_bytes check_and_set_bytes check_and_mutate_bytes corrupt_writes
}
