//! What becomes of old records when an engine rewrites its files: expired ones are dropped, and ones
//! without expiry get the table's default time to live.
//!
//! "Now" is the timestamp of the newest mutation applied here, never a clock: mutation timestamps only
//! grow, so whatever is expired at it is expired for every mutation still to come. Dropping it early
//! or late therefore cannot change what any replica computes. (The price: a table without any
//! writes keeps expired records until the next heartbeat mutation.) The rewritten expiry does depend on when
//! compaction runs and so differs between replicas by the time between their compactions, as it always has.
//!
//! The expiry is the first four bytes, big endian, of a stored value in both value schemas.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::prefix;

/// Bytes of the expiry that opens every stored value.
const EXPIRE_BYTES: usize = 4;

/// Settings shared by an engine's compactions and the write path. Cheap to read and to update.
#[derive(Debug, Default)]
pub struct Retention {
    default_ttl: AtomicU32,
    /// Whether records without expiry were ever to get one.
    rewrites: AtomicBool,
    now: AtomicU32,
}

impl Retention {
    /// Sets the time to live, in seconds, of records written without one; 0 for none.
    pub fn set_default_ttl(&self, seconds: u32) {
        if seconds > 0 {
            self.rewrites.store(true, Ordering::SeqCst);
        }
        self.default_ttl.store(seconds, Ordering::SeqCst);
    }

    /// Whether a copy of a record that was read earlier may stand for the record: no compaction may have changed it
    /// or dropped it since. What once had a default time to live may still be rewritten by a compaction that began
    /// then, so such an engine says no until it is opened anew.
    #[inline]
    pub fn spares(&self, key: &[u8], value: &[u8]) -> bool {
        !self.rewrites.load(Ordering::SeqCst) && self.policy().judge(key, value) == Verdict::Keep
    }

    /// See [`Self::set_default_ttl`].
    pub fn default_ttl(&self) -> u32 {
        self.default_ttl.load(Ordering::Relaxed)
    }

    /// Notes that a mutation stamped `epoch_seconds` (seconds since 2016) was applied.
    pub fn observe(&self, epoch_seconds: u32) {
        if self.now.load(Ordering::Relaxed) < epoch_seconds {
            self.now.fetch_max(epoch_seconds, Ordering::Relaxed);
        }
    }

    /// The rules as they are now; a compaction takes them once, at its start.
    pub fn policy(&self) -> Policy {
        Policy { now: self.now.load(Ordering::Relaxed), default_ttl: self.default_ttl() }
    }
}

/// The rules of one compaction.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Seconds since 2016 of the newest mutation applied; 0 when none was, and then nothing happens.
    pub now: u32,
    /// Seconds given to records without expiry; 0 for none.
    pub default_ttl: u32,
}

/// What to do with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Leave it.
    Keep,
    /// Remove it.
    Drop,
    /// Replace the first bytes of the stored value by these.
    SetExpire([u8; EXPIRE_BYTES]),
}

impl Policy {
    /// Judges one record. What has no hash key or no complete header is left alone.
    pub fn judge(&self, key: &[u8], value: &[u8]) -> Verdict {
        let Some(header) = value.first_chunk::<EXPIRE_BYTES>() else { return Verdict::Keep };
        if self.now == 0 || !prefix::in_domain(key) {
            return Verdict::Keep;
        }
        match u32::from_be_bytes(*header) {
            0 if self.default_ttl > 0 => {
                Verdict::SetExpire(self.now.saturating_add(self.default_ttl).to_be_bytes())
            }
            0 => Verdict::Keep,
            expire if expire <= self.now => Verdict::Drop,
            _ => Verdict::Keep,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"\x00\x01h";

    fn value(expire: u32) -> Vec<u8> {
        [&expire.to_be_bytes()[..], &[0; 8], b"data"].concat()
    }

    #[test]
    fn records_are_dropped_at_the_second_they_expire_and_not_before() {
        let policy = Policy { now: 100, default_ttl: 0 };
        assert_eq!(policy.judge(KEY, &value(0)), Verdict::Keep);
        assert_eq!(policy.judge(KEY, &value(101)), Verdict::Keep);
        assert_eq!(policy.judge(KEY, &value(100)), Verdict::Drop);
        assert_eq!(policy.judge(KEY, &value(1)), Verdict::Drop);
    }

    #[test]
    fn default_ttl_touches_only_records_without_expiry() {
        let policy = Policy { now: 100, default_ttl: 50 };
        assert_eq!(policy.judge(KEY, &value(0)), Verdict::SetExpire(150u32.to_be_bytes()));
        assert_eq!(policy.judge(KEY, &value(120)), Verdict::Keep);
        assert_eq!(policy.judge(KEY, &value(99)), Verdict::Drop);
    }

    #[test]
    fn nothing_happens_before_the_first_mutation_or_to_strange_records() {
        let idle = Policy { now: 0, default_ttl: 50 };
        assert_eq!(idle.judge(KEY, &value(0)), Verdict::Keep);
        let policy = Policy { now: 100, default_ttl: 50 };
        assert_eq!(policy.judge(b"", &value(1)), Verdict::Keep);
        assert_eq!(policy.judge(KEY, b"abc"), Verdict::Keep);
    }

    #[test]
    fn a_copy_stands_for_a_record_that_no_compaction_touches() {
        let retention = Retention::default();
        assert!(retention.spares(KEY, &value(100)));
        retention.observe(100);
        assert!(retention.spares(KEY, &value(0)) && retention.spares(KEY, &value(101)));
        assert!(!retention.spares(KEY, &value(100)));
        retention.set_default_ttl(0);
        assert!(retention.spares(KEY, &value(0)));
        retention.set_default_ttl(5);
        retention.set_default_ttl(0);
        assert!(!retention.spares(KEY, &value(0)), "a compaction may have begun in between");
    }

    #[test]
    fn time_only_goes_forward() {
        let retention = Retention::default();
        retention.observe(7);
        retention.observe(5);
        assert_eq!(retention.policy().now, 7);
    }
}
