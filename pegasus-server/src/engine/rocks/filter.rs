//! The compaction filter: applies [`Retention`] to every record that a compaction rewrites.

use std::ffi::CStr;
use std::sync::Arc;

use rocksdb::compaction_filter::CompactionFilter;
use rocksdb::compaction_filter_factory::{CompactionFilterContext, CompactionFilterFactory};
use rocksdb::{CompactionDecision, Options};

use super::ffi;
use crate::engine::Retention;
use crate::engine::retention::{Policy, Verdict};

/// Makes every compaction under `options` obey `retention`.
pub fn install(options: &mut Options, retention: Arc<Retention>) {
    options.set_compaction_filter_factory(Factory { retention });
}

/// RocksDB may call this from several compaction threads at once; it holds only shared atomics.
struct Factory {
    retention: Arc<Retention>,
}

impl CompactionFilterFactory for Factory {
    type Filter = Filter;

    fn create(&mut self, _context: CompactionFilterContext) -> Filter {
        Filter { policy: self.retention.policy(), scratch: Vec::new() }
    }

    fn name(&self) -> &CStr {
        c"pegasus.KeyWithTTLCompactionFilterFactory"
    }
}

struct Filter {
    policy: Policy,
    scratch: Vec<u8>,
}

impl CompactionFilter for Filter {
    fn filter(&mut self, _level: u32, key: &[u8], value: &[u8]) -> CompactionDecision {
        match self.policy.judge(key, value) {
            Verdict::Keep => CompactionDecision::Keep,
            Verdict::Drop => CompactionDecision::Remove,
            Verdict::SetExpire(header) => {
                self.scratch.clear();
                self.scratch.extend_from_slice(&header);
                self.scratch.extend_from_slice(&value[header.len()..]);
                ffi::change_value(&self.scratch)
            }
        }
    }

    fn name(&self) -> &CStr {
        c"pegasus.KeyWithTTLCompactionFilter"
    }
}
