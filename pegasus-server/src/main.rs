//! pegasus-server: one binary for all roles; `[apps.*]` and `--app` say which run here.
#![forbid(unsafe_code)]

use std::process::ExitCode;

/// One heap for our code and RocksDB, which is built against the same allocator.
#[global_allocator]
static HEAP: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    pegasus_server::program::program().main()
}
