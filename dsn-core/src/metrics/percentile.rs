//! Percentiles of recent values, cheap to record.
//!
//! Values fall into buckets whose width grows with the value: sixteen to each power of two, so that a
//! percentile is off by at most 1/32 of itself. Recording is one relaxed addition. The buckets only
//! grow; a reader subtracts what they held at the beginning of the window, so that no timer is needed
//! and writers never meet a reader.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use crate::time::{Mono, nanos_of};

/// How long a value counts at least, if somebody reads more often than that. With fewer reads it counts
/// until the next one.
pub const WINDOW: Duration = Duration::from_secs(10);

/// The percentiles that are shown: their names and their ranks in thousandths.
pub const KNOWN_PERCENTILES: [(&str, u64); 5] =
    [("p50", 500), ("p90", 900), ("p95", 950), ("p99", 990), ("p999", 999)];

/// Buckets to each power of two, as a power of two.
const SUB_BITS: u32 = 4;
const SUB_BUCKETS: usize = 1 << SUB_BITS;
/// Values from 2 to this power on share the last bucket: nearly five hours in nanoseconds.
const MAX_BITS: u32 = 44;
/// The first sixteen values exactly, then sixteen buckets for each further power of two.
const BUCKETS: usize = SUB_BUCKETS * (MAX_BITS - SUB_BITS + 1) as usize;

/// The distribution of recently recorded values. Clones record together.
#[derive(Clone, Debug, Default)]
pub struct Percentile(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// 32 bits wrap only when four thousand million values fall into one bucket within a window. Made by
    /// the first value, since most percentiles of most replicas never see one.
    buckets: OnceLock<Box<[AtomicU32]>>,
    window: Mutex<Window>,
}

/// What the buckets held at two moments of the past.
#[derive(Debug, Default)]
struct Window {
    /// The beginning of the window; no counts means all zero.
    older: Option<Box<[u32]>>,
    /// The beginning of the next one.
    newer: Option<Box<[u32]>>,
    newer_at: Mono,
}

/// Percentiles at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PercentileSnapshot {
    /// How many values the window has. All percentiles are zero when it has none.
    pub count: u64,
    /// In the order of [`KNOWN_PERCENTILES`].
    pub values: [u64; KNOWN_PERCENTILES.len()],
}

impl Percentile {
    /// Records a value.
    pub fn record(&self, value: u64) {
        let buckets =
            self.0.buckets.get_or_init(|| (0..BUCKETS).map(|_| AtomicU32::new(0)).collect());
        buckets[bucket_of(value)].fetch_add(1, Ordering::Relaxed);
    }

    /// Records a duration in nanoseconds.
    pub fn record_duration(&self, duration: Duration) {
        self.record(nanos_of(duration));
    }

    /// Percentiles of the window that ends `now`.
    pub fn snapshot(&self, now: Mono) -> PercentileSnapshot {
        let Some(buckets) = self.0.buckets.get() else { return PercentileSnapshot::default() };
        let counts: Box<[u32]> =
            buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        let mut window = self.0.window.lock();
        let recent: Vec<u64> = match &window.older {
            None => counts.iter().map(|&count| count.into()).collect(),
            Some(older) => {
                counts.iter().zip(older).map(|(new, old)| new.wrapping_sub(*old).into()).collect()
            }
        };
        if now.saturating_since(window.newer_at) >= WINDOW {
            window.older = window.newer.replace(counts);
            window.newer_at = now;
        }
        drop(window);
        percentiles(&recent)
    }
}

fn percentiles(counts: &[u64]) -> PercentileSnapshot {
    let count: u64 = counts.iter().sum();
    let mut snapshot = PercentileSnapshot { count, ..Default::default() };
    let mut wanted = KNOWN_PERCENTILES.iter().zip(&mut snapshot.values).peekable();
    let mut up_to_here = 0;
    for (bucket, &in_bucket) in counts.iter().enumerate() {
        up_to_here += in_bucket;
        // A percentile is the smallest value that at least its share of all values does not exceed.
        let reached = |rank: u64| up_to_here > 0 && up_to_here * 1000 >= count * rank;
        while let Some((_, value)) = wanted.next_if(|((_, rank), _)| reached(*rank)) {
            *value = middle_of(bucket);
        }
    }
    snapshot
}

fn bucket_of(value: u64) -> usize {
    if value < SUB_BUCKETS as u64 {
        return value as usize;
    }
    let bits = 63 - value.leading_zeros();
    if bits >= MAX_BITS {
        return BUCKETS - 1;
    }
    let shift = bits - SUB_BITS;
    let sub = (value >> shift) as usize & (SUB_BUCKETS - 1);
    (shift as usize + 1) * SUB_BUCKETS + sub
}

/// The value in the middle of a bucket.
fn middle_of(bucket: usize) -> u64 {
    if bucket < SUB_BUCKETS {
        return bucket as u64;
    }
    let shift = (bucket / SUB_BUCKETS - 1) as u32;
    let low = ((bucket % SUB_BUCKETS + SUB_BUCKETS) as u64) << shift;
    low + (1 << shift) / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn buckets_are_dense_and_ordered() {
        let mut last = 0;
        for value in (0..100_000u64).chain((17..64).map(|bits| 1 << bits)) {
            let bucket = bucket_of(value);
            assert!(bucket == last || bucket == last + 1 || value >= 1 << 17, "{value}");
            assert!(bucket >= last && bucket < BUCKETS);
            last = bucket;
            if value < 1 << (MAX_BITS - 1) {
                let error = middle_of(bucket).abs_diff(value);
                assert!(error * 32 <= value, "{value} is shown as {}", middle_of(bucket));
            }
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        assert_eq!(bucket_of((1 << MAX_BITS) - 1), BUCKETS - 1);
    }

    #[test]
    fn percentiles_agree_with_sorting() {
        let mut rng = Rng::new(42);
        let percentile = Percentile::default();
        let mut values: Vec<u64> =
            (0..10_000).map(|_| rng.next_u64() >> rng.range(24, 63)).collect();
        values.iter().for_each(|&value| percentile.record(value));
        values.sort_unstable();
        let snapshot = percentile.snapshot(Mono::ZERO);
        assert_eq!(snapshot.count, 10_000);
        for ((name, rank), shown) in KNOWN_PERCENTILES.iter().zip(snapshot.values) {
            let exact = values[(10_000 * rank / 1000 - 1) as usize];
            assert!(shown.abs_diff(exact) * 32 <= exact.max(32), "{name}: {shown} for {exact}");
        }
    }

    #[test]
    fn old_values_leave_the_window() {
        let percentile = Percentile::default();
        let at = |seconds: u64| Mono::from_nanos(seconds * 1_000_000_000);
        let p50 = |seconds| percentile.snapshot(at(seconds)).values[0];
        percentile.record(1);
        assert_eq!(p50(1), 1);
        assert_eq!(p50(12), 1); // a window begins here
        (0..5).for_each(|_| percentile.record(9));
        assert_eq!(p50(13), 9);
        assert_eq!(percentile.snapshot(at(14)).count, 6);
        percentile.snapshot(at(23)); // and the next one here
        assert_eq!(percentile.snapshot(at(24)).count, 5, "the first value is forgotten");
        percentile.snapshot(at(40));
        percentile.snapshot(at(60));
        assert_eq!(percentile.snapshot(at(61)), PercentileSnapshot::default());
    }

    #[test]
    fn nothing_recorded_shows_zero() {
        assert_eq!(Percentile::default().snapshot(Mono::NEVER), PercentileSnapshot::default());
    }
}
