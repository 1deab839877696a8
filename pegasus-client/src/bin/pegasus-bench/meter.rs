//! What is counted while a run is measured.

use crate::records::Tally;
use crate::workload::Kind;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;

/// Shortest latency that is told apart, in nanoseconds.
const LOWEST_NS: u64 = 100;
/// Longest latency that is told apart, in nanoseconds: ten minutes.
const HIGHEST_NS: u64 = 600 * 1_000_000_000;
/// Significant decimal digits of a latency.
const DIGITS: u8 = 3;
/// Most different errors that are listed by name.
const MAX_ERROR_NAMES: usize = 64;

/// An empty histogram of latencies in nanoseconds.
pub fn latencies() -> Histogram<u64> {
    match Histogram::new_with_bounds(LOWEST_NS, HIGHEST_NS, DIGITS) {
        Ok(histogram) => histogram,
        Err(error) => unreachable!("constant bounds: {error}"),
    }
}

/// Counts of one kind of operation.
#[derive(Debug, Clone)]
pub struct Series {
    /// Latencies of the operations that were begun within the window.
    pub latency: Histogram<u64>,
    /// Operations that ended well within the window.
    pub ops: u64,
    /// Operations that failed within the window.
    pub errors: u64,
    /// What they read (or wrote).
    pub tally: Tally,
}

/// All counts of a window.
#[derive(Debug, Default)]
pub struct Meter {
    series: [Option<Box<Series>>; Kind::COUNT],
    errors: BTreeMap<String, u64>,
    /// Open loop: how long after it was due each operation was sent.
    pub lag: Option<Histogram<u64>>,
    /// Latencies of the current second, when somebody watches.
    pub second: Option<Histogram<u64>>,
    /// Operations ended well since the beginning of the program, whatever the phase.
    pub total: u64,
    /// Operations failed since the beginning of the program.
    pub total_errors: u64,
}

impl Meter {
    fn series_mut(&mut self, kind: Kind) -> &mut Series {
        self.series[kind as usize].get_or_insert_with(|| {
            Box::new(Series { latency: latencies(), ops: 0, errors: 0, tally: Tally::default() })
        })
    }

    /// Forgets everything but the totals; a window begins.
    pub fn reset(&mut self) {
        self.series = Default::default();
        self.errors.clear();
        self.lag = None;
    }

    /// An operation ended well within the window.
    #[inline]
    pub fn count(&mut self, kind: Kind, tally: &Tally) {
        let series = self.series_mut(kind);
        series.ops += 1;
        series.tally.found += tally.found;
        series.tally.missing += tally.missing;
        series.tally.wrong += tally.wrong;
    }

    /// An operation of the window took this long.
    #[inline]
    pub fn latency(&mut self, kind: Kind, nanos: u64) {
        self.series_mut(kind).latency.saturating_record(nanos);
        if let Some(second) = &mut self.second {
            second.saturating_record(nanos);
        }
    }

    /// Open loop: an operation of the window was sent so long after it was due.
    pub fn lag(&mut self, nanos: u64) {
        self.lag.get_or_insert_with(latencies).saturating_record(nanos);
    }

    /// An operation failed within the window.
    pub fn error(&mut self, kind: Kind, name: &str) {
        self.series_mut(kind).errors += 1;
        self.name_error(name, 1);
    }

    /// Adds to the list of errors by name.
    pub fn name_error(&mut self, name: &str, count: u64) {
        let full = self.errors.len() >= MAX_ERROR_NAMES && !self.errors.contains_key(name);
        *self.errors.entry(if full { "other" } else { name }.to_owned()).or_insert(0) += count;
    }

    /// Counts by kind, of the kinds that occurred.
    pub fn series(&self) -> impl Iterator<Item = (Kind, &Series)> {
        Kind::ALL
            .into_iter()
            .filter_map(|kind| Some((kind, self.series[kind as usize].as_deref()?)))
    }

    /// Errors by name.
    pub fn errors(&self) -> &BTreeMap<String, u64> {
        &self.errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_and_error_names_are_bounded() {
        let mut meter = Meter::default();
        let tally = Tally { found: 2, missing: 1, wrong: 0 };
        meter.count(Kind::Get, &tally);
        meter.count(Kind::Get, &tally);
        meter.latency(Kind::Get, 1_000_000);
        meter.latency(Kind::Get, u64::MAX);
        for n in 0..200 {
            meter.error(Kind::Set, &format!("E{n}"));
        }
        let kinds: Vec<(Kind, u64, u64)> =
            meter.series().map(|(kind, s)| (kind, s.ops, s.errors)).collect();
        assert_eq!(kinds, [(Kind::Set, 0, 200), (Kind::Get, 2, 0)]);
        let (_, get) = meter.series().nth(1).unwrap();
        assert_eq!(get.tally, Tally { found: 4, missing: 2, wrong: 0 });
        assert_eq!(get.latency.len(), 2);
        assert!(get.latency.max() >= HIGHEST_NS / 2);
        assert_eq!(meter.errors().len(), MAX_ERROR_NAMES + 1);
        assert_eq!(meter.errors()["other"], 200 - MAX_ERROR_NAMES as u64);
        meter.reset();
        assert_eq!(meter.series().count(), 0);
    }

    #[test]
    fn three_digits_hold_from_microseconds_to_minutes() {
        let mut histogram = latencies();
        for nanos in [5_000u64, 123_456, 98_765_432, 120_000_000_000] {
            histogram.reset();
            histogram.saturating_record(nanos);
            let read = histogram.value_at_quantile(0.5);
            assert!(read.abs_diff(nanos) * 1000 <= nanos.max(64_000), "{nanos} reads {read}");
        }
    }
}
