//! The server program of the log store: `log_store --config log_store.toml --app meta` and `--app replica`.
#![forbid(unsafe_code)]

mod log_store;

use std::process::ExitCode;

fn main() -> ExitCode {
    dsn_replication::server::program::<log_store::LogStore>("log_store", "1.0").main()
}
