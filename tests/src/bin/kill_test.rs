//! The kill test by hand, for as long as one likes; see `docs/operators.md`.
//!
//! ```text
//! kill_test [--duration SECONDS] [--faults NAME,NAME...] [--seed N] [--clients N] [--default-times]
//! ```
#![forbid(unsafe_code)]
#![expect(clippy::disallowed_methods, reason = "a program outside the runtime")]

use cluster_tests::kill_test::disk::SmallDisk;
use cluster_tests::kill_test::faults::{FAULTS, Fault};
use cluster_tests::kill_test::{Options, Until, run};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

/// How long it runs when nothing else is said, in seconds.
const DURATION: u64 = 600;
/// Threads that call when nothing else is said.
const CLIENTS: u32 = 12;

fn options() -> Result<Options, String> {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let mut options = Options {
        name: "kill-test",
        seed: since_1970.map_or(0, |since| since.as_secs()),
        faults: Vec::new(),
        until: Until::Time(Duration::from_secs(DURATION)),
        clients: CLIENTS,
        least_calls: 0,
        quick: true,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        let number = |text: String| text.parse::<u64>().map_err(|_| format!("{text}: no number"));
        match word.as_str() {
            "--duration" => options.until = Until::Time(Duration::from_secs(number(value()?)?)),
            "--seed" => options.seed = number(value()?)?,
            "--clients" => options.clients = number(value()?)?.clamp(1, 256) as u32,
            "--faults" => options.faults = faults(&value()?)?,
            "--default-times" => options.quick = false,
            other => return Err(format!("unknown argument {other}")),
        }
    }
    if options.faults.is_empty() {
        options.faults = FAULTS.iter().map(|(_, fault)| *fault).collect();
        if let Err(reason) = SmallDisk::possible() {
            eprintln!("no full disks: this system permits no small one ({reason})");
            options.faults.retain(|fault| *fault != Fault::FullDisk);
        }
    }
    Ok(options)
}

fn faults(names: &str) -> Result<Vec<Fault>, String> {
    let find = |name: &str| {
        let found = FAULTS.iter().find(|(known, _)| *known == name);
        let all: Vec<&str> = FAULTS.iter().map(|(known, _)| *known).collect();
        found
            .map(|(_, fault)| *fault)
            .ok_or(format!("no fault {name}; there are {}", all.join(", ")))
    };
    names.split(',').map(find).collect()
}

fn main() -> ExitCode {
    let outcome = options().and_then(|options| run(&options).map(|report| report.to_string()));
    match outcome {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(violation) => {
            println!("VIOLATION: {violation}");
            ExitCode::FAILURE
        }
    }
}
