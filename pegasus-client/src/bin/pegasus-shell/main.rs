//! `pegasus-shell`: tables, servers and records of a cluster, one command at a time or interactively.
//!
//! `pegasus-shell --meta HOST:PORT[,HOST:PORT] COMMAND ARGS...` runs one command; without a command, lines are read
//! from standard input (see `repl`). The commands bear Pegasus's names; see `cli` for all of them.
//!
//! Exit status: 0 done, 1 an error (on standard error, naming table, key, partition and server), 2 bad usage.

#![forbid(unsafe_code)]

mod cli;
mod cluster;
mod output;
mod records;
mod repl;
mod scans;
mod tables;
mod values;
mod words;

use clap::Parser;
use cli::{Cli, Command};
use output::Output;
use pegasus_client::{ClientOptions, PegasusClient, Table};
use std::process::ExitCode;
use std::time::Duration;

/// What commands work with.
pub struct Shell {
    client: PegasusClient,
    metas: Vec<std::net::SocketAddr>,
    timeout: Option<Duration>,
    out: Output,
}

impl Shell {
    fn new(cli: &Cli) -> anyhow::Result<Self> {
        let timeout = cli.timeout.map(Duration::from_secs_f64);
        let metas = values::resolve(&cli.meta)?;
        let mut options = ClientOptions::new(metas.iter().copied());
        if let Some(timeout) = timeout {
            options.timeout = timeout;
        }
        let client = PegasusClient::with_options(options)?;
        Ok(Self { client, metas, timeout, out: Output::stdout(cli.json) })
    }

    fn table(&self, name: &str) -> Table {
        self.client.table(name)
    }

    fn admin(&self) -> pegasus_client::Admin {
        let admin = self.client.admin();
        match self.timeout {
            Some(timeout) => admin.with_timeout(timeout),
            None => admin,
        }
    }

    /// Runs one command.
    fn run(&mut self, command: Command) -> anyhow::Result<()> {
        match command {
            Command::Table(command) => tables::run(self, command),
            Command::Cluster(command) => cluster::run(self, command),
            Command::Record(command) => records::run(self, command),
            Command::HashKey(command) => records::run_several(self, command),
            Command::Scan(command) => scans::run(self, command),
        }?;
        self.out.flush()?;
        Ok(())
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut shell = match Shell::new(&cli) {
        Ok(shell) => shell,
        Err(error) => return complain(&error),
    };
    let outcome = match cli.command {
        Some(command) => shell.run(command).map(|()| ExitCode::SUCCESS),
        None => repl::run(&mut shell),
    };
    outcome.unwrap_or_else(|error| complain(&error))
}

/// Shows an error and gives the exit status that goes with it.
fn complain(error: &anyhow::Error) -> ExitCode {
    let gone = error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe);
    if !gone {
        eprintln!("error: {error:#}");
    }
    ExitCode::FAILURE
}
