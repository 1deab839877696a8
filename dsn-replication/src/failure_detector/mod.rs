//! The failure detector: a lease on one side, a longer grace on the other.
//!
//! A replica server sends a beacon every interval. When the meta server acknowledges one that was sent at `T`, the
//! replica server may serve until `T + lease` by its own monotonic clock; the meta server takes it for dead
//! not before `T' + grace` by its clock, where `T'` is when the beacon arrived, so `T' >= T`. As long as the rates of
//! both clocks differ by no more than [`MAX_DRIFT_PERCENT`], [`Timing`] makes sure that the lease has ended before
//! the death is declared. Wall clocks play no part.
//!
//! Only an acknowledgement of the *leader* renews a lease. Waking up late (a stopped process, a starved worker) is
//! covered on both sides: a lease is looked at when it is used, not when a timer fires, and a meta server that was
//! not running itself gives everybody that much more time.
//!
//! Both sides notice and say when they did not run for a while.
//!
//! [`worker`] and [`master`] are pure; time comes in as an argument.

pub mod lease;
pub mod master;
mod pauses;
pub mod worker;

use std::time::Duration;

use crate::options::{ReplicationOptions, seconds};

/// How far the rates of the monotonic clocks of two servers may differ, in percent.
pub const MAX_DRIFT_PERCENT: u32 = 5;

/// The times of the failure detector, checked against each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two looks at leases and silent servers.
    pub check: Duration,
    /// Between two beacons.
    pub beacon: Duration,
    /// How long a beacon is waited for; two thirds of the interval.
    pub beacon_timeout: Duration,
    /// How long a replica server may serve after an acknowledged beacon was sent.
    pub lease: Duration,
    /// How long the meta server waits for a silent replica server.
    pub grace: Duration,
}

/// Times that do not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// A replica server could serve after it was declared dead.
    #[error(
        "[replication] fd_lease_seconds = {lease} and fd_grace_seconds = {grace}: with clocks whose rates differ by \
         {MAX_DRIFT_PERCENT} %, a server could still serve after it was declared dead; make the grace longer"
    )]
    GraceTooShort {
        /// Lease in seconds.
        lease: u32,
        /// Grace in seconds.
        grace: u32,
    },
    /// One lost beacon or two would end the lease.
    #[error(
        "[replication] fd_lease_seconds = {lease} is shorter than three beacon intervals and a check \
         ({needed} seconds): a lost beacon or two would stop the server"
    )]
    LeaseTooShort {
        /// Lease in seconds.
        lease: u32,
        /// Least lease in seconds.
        needed: u32,
    },
}

impl Timing {
    /// The times of the configuration.
    ///
    /// # Errors
    /// [`TimingError`], when a lease could outlive the grace or would not survive a lost beacon.
    pub fn new(options: &ReplicationOptions) -> Result<Self, TimingError> {
        let (lease, grace) = (options.fd_lease_seconds, options.fd_grace_seconds);
        let longest_lease = u64::from(lease) * u64::from(100 + MAX_DRIFT_PERCENT);
        if longest_lease >= 100 * u64::from(grace) {
            return Err(TimingError::GraceTooShort { lease, grace });
        }
        let needed = 3 * options.fd_beacon_interval_seconds + options.fd_check_interval_seconds;
        if lease < needed {
            return Err(TimingError::LeaseTooShort { lease, needed });
        }
        let beacon = seconds(options.fd_beacon_interval_seconds);
        Ok(Self {
            check: seconds(options.fd_check_interval_seconds),
            beacon,
            beacon_timeout: beacon * 2 / 3,
            lease: seconds(lease),
            grace: seconds(grace),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bug 40: a beacon is waited for longer than until the next one.
    #[test]
    fn the_defaults_fit_and_unsafe_times_do_not() {
        let options = ReplicationOptions::default();
        let timing = Timing::new(&options).unwrap();
        assert_eq!(timing.beacon_timeout, Duration::from_secs(2));
        let with = |lease, grace, beacon| {
            let mut options = options.clone();
            options.fd_lease_seconds = lease;
            options.fd_grace_seconds = grace;
            options.fd_beacon_interval_seconds = beacon;
            Timing::new(&options)
        };
        assert!(with(19, 20, 3).is_ok(), "1995 < 2000");
        assert_eq!(with(20, 21, 3), Err(TimingError::GraceTooShort { lease: 20, grace: 21 }));
        assert_eq!(with(30, 31, 3), Err(TimingError::GraceTooShort { lease: 30, grace: 31 }));
        assert_eq!(with(20, 20, 3), Err(TimingError::GraceTooShort { lease: 20, grace: 20 }));
        assert_eq!(with(10, 22, 3), Err(TimingError::LeaseTooShort { lease: 10, needed: 11 }));
    }
}
