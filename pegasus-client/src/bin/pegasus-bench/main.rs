//! `pegasus-bench`: load on a Pegasus table or, with the same client, on a Redis server.
//!
//! One thread, one resident: requests are encoded into the connections' write buffers, each
//! connection is written at most once per turn, replies are judged where they were received. See
//! `args` for what can be asked for, `engine` for the phases of a run, `report` for what comes out,
//! `compare` for product and peer side by side.
//!
//! Exit status: 0 done, 1 no result, 2 bad flags, 3 `--read-back` found misses or wrong values.

#![forbid(unsafe_code)]

mod args;
mod compare;
mod conn;
mod engine;
mod flights;
mod keys;
mod locate;
mod meter;
mod nullserver;
mod pace;
mod procfs;
mod progress;
mod records;
mod report;
mod resp;
mod routes;
mod run;
#[cfg(test)]
mod tests;
mod thft;
mod wire;
mod workload;

use anyhow::Context;
use args::{Cli, Command, NullServerArgs, RunArgs};
use clap::Parser;
use report::Report;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match &cli.command {
        None => run_once(&cli.run),
        Some(Command::Compare(args)) => compare::compare(args),
        Some(Command::NullServer(args)) => serve_nothing(args),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            let bad_flags = error.is::<args::ArgsError>();
            eprintln!("pegasus-bench: {error:#}");
            ExitCode::from(if bad_flags { 2 } else { 1 })
        }
    }
}

fn run_once(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let mut pids = args.server_pid.clone();
    for &pid in &pids {
        procfs::sample(pid).with_context(|| format!("--server-pid {pid}"))?;
    }
    if let Some(name) = &args.server_name {
        let found = procfs::find(name).context("--server-name")?;
        anyhow::ensure!(!found.is_empty(), "--server-name {name}: no process has that name");
        pids.extend(found);
    }
    let plan = args.plan(pids, std::io::stderr().is_terminal())?;
    let outcome = run::run(&plan)?;
    let report = Report { plan: &plan, outcome: &outcome };
    match args.json.as_deref() {
        None => print(&report.table())?,
        Some(path) => {
            let text = format!("{:#}\n", report.json());
            if path == Path::new("-") { print(&text)? } else { save(path, &text)? }
        }
    }
    let bad = plan.read_back && report.faults() != (0, 0);
    Ok(ExitCode::from(if bad { 3 } else { 0 }))
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("writing to standard output")
}

/// Writes a report.
#[expect(clippy::disallowed_methods, reason = "a report of a client program, not a node's file")]
fn save(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

fn serve_nothing(args: &NullServerArgs) -> anyhow::Result<ExitCode> {
    let behaviour = nullserver::Behaviour {
        listen: args.listen,
        value_size: args.value_size,
        stall: None,
        hang_up: None,
    };
    let (_node, addr) = run::start_null_server(behaviour).context("the null server")?;
    print(&format!("{addr}\n"))?;
    loop {
        std::thread::park();
    }
}
