//! The server program of the counter: `counter --config counter.toml --app meta` and `--app replica`.
#![forbid(unsafe_code)]

mod counter;

use std::process::ExitCode;

fn main() -> ExitCode {
    dsn_replication::server::program::<counter::Counter>("counter", "1.0").main()
}
