//! Two kinds of time: [`Mono`] for measuring and [`Wall`] for telling.
//!
//! Deadlines, leases, timers and latencies are [`Mono`]: a clock that only goes forward, whose zero is
//! the start of the process (or of the simulated node) and means nothing elsewhere. Dates in logs,
//! records and replies are [`Wall`]: nanoseconds since the Unix epoch, which may jump when somebody
//! sets the clock. Neither type can read a clock: values come from the driver, as arguments, so that
//! the same code runs under virtual time.
//!
//! Both hold nanoseconds in a `u64`: 584 years. All arithmetic saturates instead of wrapping, so a
//! deadline built from an absurd timeout is simply "never".

use std::fmt;
use std::ops::{Add, AddAssign};
use std::time::Duration;

/// Nanoseconds in a second.
pub const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// The length of `duration` in nanoseconds, `u64::MAX` when it does not fit.
#[inline]
pub fn nanos_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A reading of the monotonic clock, in nanoseconds since an arbitrary start of this node.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(u64);

impl Mono {
    /// The start of the clock.
    pub const ZERO: Self = Self(0);
    /// Later than every reading: the deadline that never passes.
    pub const NEVER: Self = Self(u64::MAX);

    /// The reading `nanos` nanoseconds after the clock's start.
    #[inline]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's start.
    #[inline]
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// Whole microseconds since the clock's start.
    pub const fn micros(self) -> u64 {
        self.0 / 1_000
    }

    /// Whole milliseconds since the clock's start.
    pub const fn millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// How long ago `earlier` was; zero when it is not in the past.
    #[inline]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// How long until `later`; zero when it has come.
    #[inline]
    pub const fn until(self, later: Self) -> Duration {
        later.saturating_since(self)
    }

    /// The reading `duration` before this one, not before the clock's start.
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanos_of(duration)))
    }

    /// Whether a deadline at `self` has passed at `now`.
    #[inline]
    pub const fn is_past(self, now: Self) -> bool {
        self.0 <= now.0
    }
}

impl Add<Duration> for Mono {
    type Output = Self;

    /// Saturates at [`Mono::NEVER`].
    #[inline]
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos_of(duration)))
    }
}

impl AddAssign<Duration> for Mono {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl fmt::Debug for Mono {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NEVER {
            return f.write_str("never");
        }
        write!(f, "+{}.{:09}s", self.0 / NANOS_PER_SECOND, self.0 % NANOS_PER_SECOND)
    }
}

/// A reading of the wall clock, in nanoseconds since 1970-01-01 00:00:00 UTC.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wall(u64);

impl Wall {
    /// 1970-01-01 00:00:00 UTC.
    pub const UNIX_EPOCH: Self = Self(0);

    /// The moment `nanos` nanoseconds after the Unix epoch.
    #[inline]
    pub const fn from_unix_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The moment `micros` microseconds after the Unix epoch.
    pub const fn from_unix_micros(micros: u64) -> Self {
        Self(micros.saturating_mul(1_000))
    }

    /// The moment `millis` milliseconds after the Unix epoch.
    pub const fn from_unix_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// The moment `seconds` seconds after the Unix epoch.
    pub const fn from_unix_seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(NANOS_PER_SECOND))
    }

    /// Nanoseconds since the Unix epoch.
    #[inline]
    pub const fn unix_nanos(self) -> u64 {
        self.0
    }

    /// Whole microseconds since the Unix epoch.
    pub const fn unix_micros(self) -> u64 {
        self.0 / 1_000
    }

    /// Whole milliseconds since the Unix epoch.
    pub const fn unix_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Whole seconds since the Unix epoch.
    pub const fn unix_seconds(self) -> u64 {
        self.0 / NANOS_PER_SECOND
    }

    /// How long ago `earlier` was by this clock; zero when the clock has been set back since.
    #[inline]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The moment `duration` before this one, not before the Unix epoch.
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanos_of(duration)))
    }

    /// The date and time of day in UTC.
    pub fn utc(self) -> Utc {
        let seconds = self.unix_seconds();
        let (year, month, day) = civil_from_days(seconds / 86_400);
        let of_day = seconds % 86_400;
        Utc {
            year,
            month,
            day,
            hour: (of_day / 3_600) as u32,
            minute: (of_day / 60 % 60) as u32,
            second: (of_day % 60) as u32,
            nanos: (self.0 % NANOS_PER_SECOND) as u32,
        }
    }
}

impl Add<Duration> for Wall {
    type Output = Self;

    /// Saturates in the year 2554.
    #[inline]
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos_of(duration)))
    }
}

impl AddAssign<Duration> for Wall {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl fmt::Debug for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}Z", self.utc())
    }
}

/// A moment split into calendar fields, in UTC. `Display` writes `2026-11-24 03:43:00.123456`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Utc {
    /// Year, 1970 to 2554.
    pub year: u32,
    /// Month, 1 to 12.
    pub month: u32,
    /// Day of the month, 1 to 31.
    pub day: u32,
    /// Hour, 0 to 23.
    pub hour: u32,
    /// Minute, 0 to 59.
    pub minute: u32,
    /// Second, 0 to 59.
    pub second: u32,
    /// Nanoseconds into the second.
    pub nanos: u32,
}

impl Utc {
    /// The date alone, `2026-11-24`.
    pub fn date(&self) -> String {
        format!("{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }

    /// Date and time to the second, `2026-11-24 03:43:00`, the form the HTTP endpoints use.
    pub fn date_time(&self) -> String {
        format!("{} {:02}:{:02}:{:02}", self.date(), self.hour, self.minute, self.second)
    }
}

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:04}-{:02}-{:02} {:02}:{:02}:{:02}.{:06}",
            self.year,
            self.month,
            self.day,
            self.hour,
            self.minute,
            self.second,
            self.nanos / 1_000
        )
    }
}

/// Proleptic Gregorian date of a day counted from 1970-01-01.
///
/// Years are counted from 1 March, so that the leap day is a year's last and months follow a straight
/// line: month `m` (0 = March) begins on day `(153 m + 2) / 5`.
fn civil_from_days(days: u64) -> (u32, u32, u32) {
    const DAYS_PER_ERA: u64 = 146_097; // 400 years
    let shifted = days + 719_468; // days since 0000-03-01
    let era = shifted / DAYS_PER_ERA;
    let of_era = shifted % DAYS_PER_ERA;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year as u32, month as u32, day as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        let t = Mono::from_nanos(10);
        assert_eq!(t + Duration::from_nanos(5), Mono::from_nanos(15));
        assert_eq!(t + Duration::MAX, Mono::NEVER);
        assert_eq!(t.saturating_sub(Duration::from_secs(1)), Mono::ZERO);
        assert_eq!(t.saturating_since(Mono::from_nanos(11)), Duration::ZERO);
        assert_eq!(t.until(Mono::from_nanos(12)), Duration::from_nanos(2));
        assert!(t.is_past(t) && !Mono::NEVER.is_past(t));
        assert_eq!(Wall::from_unix_seconds(u64::MAX) + Duration::MAX, Wall(u64::MAX));
    }

    #[test]
    fn units_convert() {
        let w = Wall::from_unix_millis(1_700_000_000_123);
        assert_eq!(w.unix_seconds(), 1_700_000_000);
        assert_eq!(w.unix_micros(), 1_700_000_000_123_000);
        assert_eq!(w, Wall::from_unix_micros(1_700_000_000_123_000));
        assert_eq!(w.unix_nanos(), 1_700_000_000_123_000_000);
        assert_eq!(Mono::from_nanos(1_500_000).millis(), 1);
        assert_eq!(Mono::from_nanos(1_500_000).micros(), 1_500);
    }

    #[test]
    fn calendar_agrees_with_known_dates() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00"),
            (68_169_599, "1972-02-28 23:59:59"),
            (68_169_600, "1972-02-29 00:00:00"),
            (951_782_400, "2000-02-29 00:00:00"),
            (951_868_800, "2000-03-01 00:00:00"),
            (1_451_606_400, "2016-01-01 00:00:00"), // Pegasus's own epoch
            (4_107_542_399, "2100-02-28 23:59:59"),
            (4_107_542_400, "2100-03-01 00:00:00"), // 2100 has no leap day
        ] {
            assert_eq!(Wall::from_unix_seconds(seconds).utc().date_time(), text);
        }
    }

    #[test]
    fn debug_forms_are_readable() {
        assert_eq!(format!("{:?}", Mono::from_nanos(1_000_000_001)), "+1.000000001s");
        assert_eq!(format!("{:?}", Mono::NEVER), "never");
        let w = Wall::from_unix_micros(1_451_606_400_000_042);
        assert_eq!(format!("{w:?}"), "2016-01-01 00:00:00.000042Z");
    }
}
