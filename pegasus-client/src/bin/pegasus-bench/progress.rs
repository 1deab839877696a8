//! The line per second on standard error.

use crate::meter::Meter;
use dsn_core::time::Mono;
use std::io::Write;

/// Most errors that are named in one line.
const ERRORS_SHOWN: usize = 5;

/// What the last line knew.
#[derive(Debug, Default)]
pub struct Line {
    first: Option<Mono>,
    last: Option<(Mono, u64, u64)>,
}

impl Line {
    /// Prints the line of the second that has passed, and begins a new one.
    pub fn show(&mut self, now: Mono, phase: &str, share: Option<f64>, meter: &mut Meter) {
        let first = *self.first.get_or_insert(now);
        let (then, ops, errors) = self.last.unwrap_or((now, 0, 0));
        self.last = Some((now, meter.total, meter.total_errors));
        let seconds = now.saturating_since(then).as_secs_f64().max(1e-3);
        let rate = if now == then { 0.0 } else { (meter.total - ops) as f64 / seconds };
        let mut text = format!(
            "{:>5.0}s {phase:<10} {rate:>9.0} ops/s",
            now.saturating_since(first).as_secs_f64()
        );
        if let Some(share) = share {
            text += &format!("  {:>3.0} %", share * 100.0);
        }
        if let Some(second) = &mut meter.second {
            if !second.is_empty() {
                let at = |q| crate::report::micros(second.value_at_quantile(q));
                text += &format!("  p50 {} us  p99 {} us  max {} us", at(0.5), at(0.99), at(1.0));
            }
            second.reset();
        }
        if meter.total_errors > errors {
            text += &format!("  {} errors: {}", meter.total_errors - errors, list_errors(meter));
        }
        // A closed standard error must not end the run.
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

/// The most frequent errors by name.
pub fn list_errors(meter: &Meter) -> String {
    let mut all: Vec<(&str, u64)> =
        meter.errors().iter().map(|(name, count)| (name.as_str(), *count)).collect();
    all.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let named: Vec<String> =
        all.iter().take(ERRORS_SHOWN).map(|(name, count)| format!("{name} x{count}")).collect();
    if named.is_empty() { "none".into() } else { named.join(", ") }
}
