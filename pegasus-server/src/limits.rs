//! Limits of the storage app that operators have no reason to change. The others are options, see
//! [`crate::options::StorageOptions`].

use std::time::Duration;

/// Most scans that a replica keeps open for its clients. When one more is opened, the oldest is
/// dropped; its client is told that it is gone and opens a new one.
pub const SCAN_CONTEXTS_MAX: usize = 1000;

/// How long a scan that nobody continues is kept.
pub const SCAN_CONTEXT_LIFETIME: Duration = Duration::from_secs(300);

/// A range read looks at the clock about this many times on the way to its count limit.
pub const CLOCK_CHECKS_PER_READ: u32 = 10;
