//! Seeds of the deterministic simulation: `simulate --seeds N --from S [--twice] [--scenario FILE] [--log]`.
#![forbid(unsafe_code)]
#![expect(clippy::disallowed_methods, reason = "a program outside the runtime")]

use cluster_tests::simulation::{draw, run};
use dsn_core::config::{Loader, core_schema};
use dsn_core::sim::{Scenario, shrink};
use std::process::ExitCode;
use std::time::Instant;

/// Runs that shrinking a failure may take.
const SHRINK_RUNS: usize = 100;

struct Arguments {
    seeds: u64,
    from: u64,
    twice: bool,
    scenario: Option<String>,
    log: bool,
}

fn arguments() -> Result<Arguments, String> {
    let mut parsed = Arguments { seeds: 100, from: 0, twice: false, scenario: None, log: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--seeds" => parsed.seeds = value()?.parse().map_err(|_| "--seeds: a number")?,
            "--from" => parsed.from = value()?.parse().map_err(|_| "--from: a number")?,
            "--scenario" => parsed.scenario = Some(value()?),
            "--twice" => parsed.twice = true,
            "--log" => parsed.log = true,
            other => return Err(format!("unknown argument {other}")),
        }
    }
    Ok(parsed)
}

/// Runs one scenario; whether it failed, and its virtual seconds.
fn one(scenario: &Scenario, twice: bool) -> (Option<String>, f64) {
    let first = run(scenario, false);
    let mut problem = first.report.violation.as_ref().map(ToString::to_string);
    if twice {
        let second = run(scenario, false);
        if second.report.trace_hash != first.report.trace_hash {
            problem.get_or_insert("two runs differ".to_owned());
        }
    }
    (problem, first.report.length.as_secs_f64() * if twice { 2.0 } else { 1.0 })
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("simulate: {error}");
            return ExitCode::FAILURE;
        }
    };
    let scenarios: Vec<Scenario> = match &arguments.scenario {
        Some(path) => {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            match Scenario::from_toml(&text) {
                Ok(scenario) => vec![scenario],
                Err(error) => {
                    eprintln!("simulate: {path}: {error}");
                    return ExitCode::FAILURE;
                }
            }
        }
        None => (arguments.from..arguments.from + arguments.seeds).map(draw).collect(),
    };
    let config = Loader::new(core_schema()).load().expect("defaults are valid");
    let _log = arguments.log.then(|| dsn_core::log::init(&config).expect("standard error"));
    let begun = Instant::now();
    let (mut violations, mut seconds) = (0u64, 0.0);
    for scenario in &scenarios {
        let (problem, virtual_seconds) = one(scenario, arguments.twice);
        seconds += virtual_seconds;
        let Some(problem) = problem else { continue };
        violations += 1;
        println!("seed {}: {problem}", scenario.seed);
        if arguments.log {
            continue;
        }
        let kind = problem.split(' ').next().unwrap_or_default().to_owned();
        let mut fails = |smaller: &Scenario| {
            let violation = run(smaller, false).report.violation;
            violation.is_some_and(|violation| violation.by == kind)
        };
        let shrunk = shrink(scenario, SHRINK_RUNS, &mut fails);
        println!("--- shrunk in {} runs ---\n{}---", shrunk.runs, shrunk.scenario.to_toml());
    }
    let speed = seconds / begun.elapsed().as_secs_f64().max(1e-9);
    println!("{} seeds, {violations} violations, {speed:.0} x real time", scenarios.len());
    if violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
