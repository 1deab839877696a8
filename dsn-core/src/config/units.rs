//! Sizes and durations as people write them: `"64MiB"`, `"100ms"`.

use std::fmt;
use std::time::Duration;

use crate::time::nanos_of;

/// A number of bytes. In TOML a plain integer or a string with a unit: `4096`, `"64MiB"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(u64);

const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

impl Size {
    /// `n` bytes.
    pub const fn bytes(n: u64) -> Self {
        Self(n)
    }

    /// `n` times 1024 bytes.
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    /// `n` times 1024 KiB.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// `n` times 1024 MiB.
    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number of bytes as an index, at most `usize::MAX`.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// Reads `"64MiB"`, `"10 KB"`, `"512B"` or `"4096"`.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, unit) = split_number(text)?;
        if unit.is_empty() {
            return Some(Self(number));
        }
        let scale = SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?.1;
        number.checked_mul(scale).map(Self)
    }
}

impl fmt::Display for Size {
    /// The largest binary unit that divides it: `64MiB`, `1000B`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |scale: u64| self.0 != 0 && self.0.is_multiple_of(scale);
        let (unit, scale) =
            SIZE_UNITS[..4].iter().copied().find(|&(_, scale)| fits(scale)).unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / scale)
    }
}

const DURATION_UNITS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("min", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Reads `"5s"`, `"100ms"`, `"20us"`, `"3 min"`; `"0"` needs no unit.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_number(text)?;
    if unit.is_empty() {
        return (number == 0).then_some(Duration::ZERO);
    }
    let scale = DURATION_UNITS.iter().find(|(name, _)| *name == unit)?.1;
    number.checked_mul(scale).map(Duration::from_nanos)
}

/// Writes a duration in the largest unit that divides it: `5s`, `1500ms`.
pub fn duration_text(duration: Duration) -> String {
    let nanos = nanos_of(duration);
    let fits = |scale: u64| nanos != 0 && nanos.is_multiple_of(scale);
    let (unit, scale) =
        DURATION_UNITS.iter().copied().find(|&(_, scale)| fits(scale)).unwrap_or(("s", 1));
    format!("{}{unit}", nanos / scale)
}

/// Splits `"64 MiB"` into 64 and `"MiB"`. Underscores may separate digits.
fn split_number(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let digits: String = text[..end].chars().filter(|&c| c != '_').collect();
    Some((digits.parse().ok()?, text[end..].trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_and_print() {
        for (text, bytes, printed) in [
            ("64MiB", 64 << 20, "64MiB"),
            ("64 mib", 64 << 20, "64MiB"),
            ("1KB", 1000, "1000B"),
            ("4096", 4096, "4KiB"),
            ("1_024B", 1024, "1KiB"),
            ("0", 0, "0B"),
            ("3GiB", 3 << 30, "3GiB"),
        ] {
            let size = Size::parse(text).expect(text);
            assert_eq!(size.get(), bytes, "{text}");
            assert_eq!(size.to_string(), printed);
            assert_eq!(Size::parse(printed), Some(size));
        }
        for bad in ["", "MiB", "1.5MiB", "-1", "64M", "99999999999TiB", "1 2"] {
            assert_eq!(Size::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn durations_read_and_print() {
        for (text, nanos, printed) in [
            ("5s", 5_000_000_000, "5s"),
            ("1500ms", 1_500_000_000, "1500ms"),
            ("20us", 20_000, "20us"),
            ("90 min", 5_400_000_000_000, "90min"),
            ("24h", 86_400_000_000_000, "1d"),
            ("0", 0, "0s"),
            ("7ns", 7, "7ns"),
        ] {
            let duration = parse_duration(text).expect(text);
            assert_eq!(duration, Duration::from_nanos(nanos), "{text}");
            assert_eq!(duration_text(duration), printed);
            assert_eq!(parse_duration(printed), Some(duration));
        }
        for bad in ["", "5", "s", "1.5s", "-1s", "5S", "999999999999d", "5 s s"] {
            assert_eq!(parse_duration(bad), None, "{bad:?}");
        }
    }
}
