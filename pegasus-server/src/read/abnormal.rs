//! Reads that took long or answered much: one line in the log and a count for each.
//!
//! Time is measured where a read may block; what is answered from memory on a connection's thread takes microseconds,
//! and two looks at the clock would be a good part of them.

use bytes::Bytes;
use dsn_core::code::Code;
use dsn_core::config::Tunable;
use dsn_core::time::nanos_of;
use std::time::Duration;

use super::ReadService;
use crate::codes;
use crate::options::StorageOptions;

/// Bytes of a request that are shown.
const SHOWN: usize = 100;

const NANOS_PER_MS: u64 = 1_000_000;

/// What a read came to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    /// Bytes of keys and values answered.
    pub(super) bytes: u64,
    /// Keys asked for, or records examined.
    pub(super) rows: u64,
}

impl ReadService {
    /// Looks at a read that was answered; `took` where it was measured.
    #[inline]
    pub(super) fn note_cost(&self, code: Code, body: &Bytes, cost: Cost, took: Option<Duration>) {
        if self.is_large(code, cost) || took.is_some_and(|took| self.is_slow(took)) {
            self.report(code, body, cost, took);
        }
    }

    fn is_large(&self, code: Code, cost: Cost) -> bool {
        let options: &StorageOptions = &self.options;
        let reaches = |value: u64, limit: &Tunable<u64>| value >= limit.get() && limit.get() > 0;
        if code == &codes::RPC_RRDB_RRDB_GET {
            reaches(cost.bytes, &options.rocksdb_abnormal_get_size_threshold)
        } else if code == &codes::RPC_RRDB_RRDB_MULTI_GET {
            reaches(cost.bytes, &options.rocksdb_abnormal_multi_get_size_threshold)
                || reaches(cost.rows, &options.rocksdb_abnormal_multi_get_iterate_count_threshold)
        } else if code == &codes::RPC_RRDB_RRDB_BATCH_GET {
            reaches(cost.bytes, &options.rocksdb_abnormal_batch_get_bytes_threshold)
                || reaches(cost.rows, &options.rocksdb_abnormal_batch_get_count_threshold)
        } else {
            false
        }
    }

    fn is_slow(&self, took: Duration) -> bool {
        let own = self.settings.slow_query_ms().map(|ms| ms.saturating_mul(NANOS_PER_MS));
        let limit = own.unwrap_or_else(|| self.options.rocksdb_slow_query_threshold_ns.get());
        nanos_of(took) >= limit
    }

    #[cold]
    fn report(&self, code: Code, body: &Bytes, cost: Cost, took: Option<Duration>) {
        self.metrics.abnormal_read_requests.increment();
        let request = body[..body.len().min(SHOWN)].escape_ascii();
        tracing::warn!(
            app_id = self.identity.app_id,
            partition = self.identity.partition_index,
            code = code.name(),
            bytes = cost.bytes,
            rows = cost.rows,
            ?took,
            %request,
            "abnormal read"
        );
    }
}
