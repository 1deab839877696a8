//! Cluster tests: the harness for whole clusters, native and simulated, and the checkers they share.
#![forbid(unsafe_code)]

/// As in the server, whose RocksDB is linked here as well.
#[global_allocator]
static HEAP: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

pub mod cpu_time;
pub mod kill_test;
pub mod linearizable;
pub mod onebox;
pub mod simulation;

/// Tells a figure to whoever runs the tests, also when the test passes: what tests print otherwise is shown only when
/// they fail. Arguments as for `println!`.
#[macro_export]
macro_rules! tell {
    ($($argument:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($argument)*);
    }};
}
