//! Pegasus time: whole seconds since 2016-01-01T00:00:00Z.
//!
//! Expiry times on the wire and in stored values are counted so; 0 means "never".

/// Unix time in seconds of the second that Pegasus counts from.
pub const EPOCH_BEGIN_UNIX: u64 = 1_451_606_400;

/// Pegasus time of a Unix time in seconds; 0 before 2016.
#[must_use]
pub const fn from_unix(unix_seconds: u64) -> u32 {
    let seconds = unix_seconds.saturating_sub(EPOCH_BEGIN_UNIX);
    if seconds > u32::MAX as u64 { u32::MAX } else { seconds as u32 }
}

/// Unix time in seconds of a Pegasus time.
#[must_use]
pub const fn to_unix(seconds: u32) -> u64 {
    EPOCH_BEGIN_UNIX + seconds as u64
}

/// Whether a record that expires at `expire_ts` is gone at `now`, both in Pegasus time.
#[inline]
#[must_use]
pub const fn is_expired(expire_ts: u32, now: u32) -> bool {
    expire_ts > 0 && expire_ts <= now
}

/// The expiry that gives a record `ttl_seconds` from `now`; 0 (never) for a ttl of 0 or less.
#[must_use]
pub const fn expire_after(now: u32, ttl_seconds: i32) -> u32 {
    if ttl_seconds <= 0 { 0 } else { now.saturating_add(ttl_seconds as u32) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_is_2016_in_utc() {
        assert_eq!(from_unix(EPOCH_BEGIN_UNIX + 5), 5);
        assert_eq!(from_unix(0), 0);
        assert_eq!(to_unix(from_unix(1_800_000_000)), 1_800_000_000);
    }

    #[test]
    fn a_record_is_gone_in_the_second_of_its_expiry() {
        assert!(!is_expired(0, u32::MAX));
        assert!(!is_expired(11, 10));
        assert!(is_expired(10, 10));
        assert_eq!(expire_after(10, 5), 15);
        assert_eq!(expire_after(10, 0), 0);
        assert_eq!(expire_after(10, -5), 0);
    }
}
