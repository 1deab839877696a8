//! What a replica has done so far, for metrics. Counters only grow; whoever reports them computes rates.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter that any thread may add to.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `amount`.
    #[inline]
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// The total.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The counters of one replica, by the original's metric names.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: Counter,)*
        }

        /// Amounts not yet added to [`Counters`]: of work that may still turn out not to have happened.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Tally {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Every counter with its name, in order of declaration.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
                [$((stringify!($name), self.$name.get()),)*].into_iter()
            }

            /// Adds a tally.
            pub fn add(&self, tally: &Tally) {
                $(if tally.$name > 0 {
                    self.$name.add(tally.$name);
                })*
            }
        }
    };
}

counters! {
    /// get requests; ttl ones are not counted, as ever.
    get_requests,
    /// multi_get and sortkey_count requests.
    multi_get_requests,
    /// batch_get requests.
    batch_get_requests,
    /// get_scanner and scan requests.
    scan_requests,
    /// Bytes of keys and values answered to get.
    get_bytes,
    /// Bytes of keys and values answered to multi_get.
    multi_get_bytes,
    /// Bytes of keys and values answered to batch_get.
    batch_get_bytes,
    /// Bytes of keys and values answered to scans.
    scan_bytes,
    /// Records passed over because they had expired.
    read_expired_values,
    /// Records passed over because they did not match a filter.
    read_filtered_values,
    /// put requests.
    put_requests,
    /// multi_put requests.
    multi_put_requests,
    /// remove requests.
    remove_requests,
    /// multi_remove requests.
    multi_remove_requests,
    /// incr requests.
    incr_requests,
    /// check_and_set requests.
    check_and_set_requests,
    /// check_and_mutate requests.
    check_and_mutate_requests,
    /// Bytes of keys and values put.
    put_bytes,
    /// Bytes of keys and values put by multi_put.
    multi_put_bytes,
    /// Bytes of keys and values put by check_and_set.
    check_and_set_bytes,
    /// Bytes of keys and values changed by check_and_mutate.
    check_and_mutate_bytes,
    /// Committed requests that could not be decoded.
    corrupt_writes,
}
