//! How far a range read may go: records examined, bytes returned, time taken.
//!
//! The clock is looked at about ten times on the way to the count limit, not for every record.

use std::time::Duration;

use dsn_core::time::Mono;

use super::Call;
use crate::limits::CLOCK_CHECKS_PER_READ;

/// The bounds of one read and how much of them is used up.
pub(super) struct Limiter<'a> {
    clock: &'a dyn Fn() -> Mono,
    deadline: Option<Mono>,
    examined_max: u64,
    bytes_max: u64,
    check_every: u64,
    examined: u64,
    bytes: u64,
    timed_out: bool,
}

impl<'a> Limiter<'a> {
    /// Bounds from now on. The clock is looked at as often as befits a read of `usual_count` records.
    pub(super) fn new(
        call: &Call<'a>,
        examined_max: u64,
        bytes_max: u64,
        usual_count: u32,
    ) -> Self {
        let service = call.service;
        let threshold = service
            .settings
            .iteration_threshold_ms()
            .unwrap_or_else(|| service.options.rocksdb_iteration_threshold_time_ms.get());
        let own = (threshold > 0).then(|| (call.clock)() + Duration::from_millis(threshold));
        Self {
            clock: call.clock,
            deadline: own.into_iter().chain(call.deadline).min(),
            examined_max,
            bytes_max,
            check_every: u64::from(usual_count / CLOCK_CHECKS_PER_READ).max(1),
            examined: 0,
            bytes: 0,
            timed_out: false,
        }
    }

    /// Whether another record may be examined.
    pub(super) fn may_go_on(&mut self) -> bool {
        if self.examined >= self.examined_max || self.bytes >= self.bytes_max {
            return false;
        }
        if (self.examined + 1).is_multiple_of(self.check_every) {
            self.check_time();
        }
        !self.timed_out
    }

    /// Notes that a record was examined.
    pub(super) fn examine(&mut self) {
        self.examined += 1;
    }

    /// Notes that `bytes` more will be returned.
    pub(super) fn returning(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Records examined so far.
    pub(super) fn examined(&self) -> u64 {
        self.examined
    }

    /// Bytes that will be returned.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Looks at the clock now, and whether the time is up.
    pub(super) fn check_time(&mut self) -> bool {
        self.timed_out = self.timed_out
            || self.deadline.is_some_and(|deadline| deadline.is_past((self.clock)()));
        self.timed_out
    }
}
