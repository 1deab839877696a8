//! The deterministic simulation by hand; see `docs/simulation.md`.
//!
//! ```text
//! simulate [--seeds N] [--from S] [--group] [--twice] [--log] [--hashes]   seeds, each a run of its own
//! simulate --show [--seeds N] [--from S] [--group]       what seeds draw, as scenario files
//! simulate --scenario FILE [--twice] [--log]             one scenario from its file
//! simulate --cuts                                        every place where a server can die
//! simulate --planted [NAME]                              bugs planted on purpose must be found
//! ```
#![forbid(unsafe_code)]
#![expect(clippy::disallowed_methods, reason = "a program outside the runtime")]

use cluster_tests::cpu_time;
use cluster_tests::simulation::{cuts, draw, draw_group, run, shrink_failure};
use dsn_core::config::{Loader, core_schema};
use dsn_core::sim::{Report, Scenario, run_twice};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Runs that shrinking a failure may take.
const SHRINK_RUNS: usize = 100;
/// Seeds after which a long run says how far it is.
const PROGRESS_EVERY: u64 = 1_000;

enum What {
    Seeds,
    Show,
    Scenario(String),
    Cuts,
    Planted(Option<String>),
}

struct Arguments {
    what: What,
    seeds: u64,
    from: u64,
    /// Three copies instead of one.
    group: bool,
    twice: bool,
    log: bool,
    /// Tells the hash of each run: whether a change leaves it as it was.
    hashes: bool,
}

impl Arguments {
    /// The scenario of a seed, counted from the first.
    fn draw(&self, number: u64) -> Scenario {
        let draw = if self.group { draw_group } else { draw };
        draw(self.from + number)
    }
}

fn arguments() -> Result<Arguments, String> {
    let mut parsed = Arguments {
        what: What::Seeds,
        seeds: 100,
        from: 0,
        group: false,
        twice: false,
        log: false,
        hashes: false,
    };
    let mut words = std::env::args().skip(1).peekable();
    while let Some(word) = words.next() {
        if word == "--planted" {
            parsed.what = What::Planted(words.next_if(|next| !next.starts_with("--")));
            continue;
        }
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--seeds" => parsed.seeds = value()?.parse().map_err(|_| "--seeds: a number")?,
            "--from" => parsed.from = value()?.parse().map_err(|_| "--from: a number")?,
            "--scenario" => parsed.what = What::Scenario(value()?),
            "--show" => parsed.what = What::Show,
            "--cuts" => parsed.what = What::Cuts,
            "--group" => parsed.group = true,
            "--twice" => parsed.twice = true,
            "--log" => parsed.log = true,
            "--hashes" => parsed.hashes = true,
            other => return Err(format!("unknown argument {other}")),
        }
    }
    Ok(parsed)
}

fn main() -> ExitCode {
    let outcome = arguments().and_then(|arguments| {
        let config = Loader::new(core_schema()).load().map_err(|error| error.to_string())?;
        let _log = match arguments.log {
            true => Some(dsn_core::log::init(&config).map_err(|error| error.to_string())?),
            false => None,
        };
        match &arguments.what {
            What::Seeds => {
                let scenario = |number| arguments.draw(number);
                Ok(all_of(arguments.seeds, scenario, &arguments))
            }
            What::Show => {
                (0..arguments.seeds).for_each(|number| println!("{}", arguments.draw(number)));
                Ok(true)
            }
            What::Scenario(path) => {
                let text = std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
                let scenario = Scenario::from_toml(&text).map_err(|e| format!("{path}: {e}"))?;
                Ok(all_of(1, |_| scenario.clone(), &arguments))
            }
            What::Cuts => all_cuts(),
            What::Planted(name) => planted(name.as_deref()),
        }
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("simulate: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one scenario; its report, or how two runs of it differ.
fn one(scenario: &Scenario, twice: bool) -> Result<Report, String> {
    match twice {
        false => Ok(run(scenario, false).report),
        true => {
            run_twice(|log| run(scenario, log).report).map_err(|difference| difference.to_string())
        }
    }
}

/// What the runs of a thread came to.
#[derive(Default)]
struct Sum {
    violations: u64,
    virtual_seconds: f64,
    busy_seconds: f64,
    events: u64,
}

/// Runs `count` scenarios, on all cores.
fn all_of(count: u64, scenario: impl Fn(u64) -> Scenario + Sync, arguments: &Arguments) -> bool {
    let (next, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    let work = || {
        let mut sum = Sum::default();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return sum;
            }
            let scenario = scenario(number);
            let begun = cpu_time::of_this_thread();
            let outcome = one(&scenario, arguments.twice);
            sum.busy_seconds += (cpu_time::of_this_thread() - begun).as_secs_f64();
            let times = if arguments.twice { 2.0 } else { 1.0 };
            sum.virtual_seconds +=
                outcome.as_ref().map_or(0.0, |report| times * report.length.as_secs_f64());
            let events = outcome.as_ref().map_or(0, |report| report.steps);
            sum.events += if arguments.twice { 2 * events } else { events };
            if arguments.hashes
                && let Ok(report) = &outcome
            {
                println!("seed {}: hash {:016x}", scenario.seed, report.trace_hash);
            }
            if !is_well(&scenario, outcome, !arguments.log) {
                sum.violations += 1;
                failed.fetch_add(1, Ordering::Relaxed);
            }
            if (number + 1).is_multiple_of(PROGRESS_EVERY) {
                let failed = failed.load(Ordering::Relaxed);
                eprintln!("{} of {count} seeds begun, {failed} violations", number + 1);
            }
        }
    };
    let threads = if arguments.log { 1 } else { cores() };
    let sums: Vec<Sum> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no run panics")).collect()
    });
    let violations: u64 = sums.iter().map(|sum| sum.violations).sum();
    let seconds: f64 = sums.iter().map(|sum| sum.virtual_seconds).sum();
    let busy: f64 = sums.iter().map(|sum| sum.busy_seconds).sum();
    let speed = seconds / busy.max(1e-9);
    let events: u64 = sums.iter().map(|sum| sum.events).sum();
    let (rate, cost) = (events as f64 / seconds.max(1e-9), busy * 1e9 / events.max(1) as f64);
    println!("{rate:.0} events in a simulated second, {cost:.0} ns of a core each");
    println!("{count} seeds, {violations} violations, {speed:.0} x real time");
    violations == 0
}

/// Prints what is wrong with a run, if anything is, and the smallest scenario that fails in the same way.
fn is_well(scenario: &Scenario, outcome: Result<Report, String>, shrinks: bool) -> bool {
    let seed = scenario.seed;
    let report = match outcome {
        Ok(report) => report,
        Err(difference) => {
            println!("seed {seed}: repeatability: {difference}");
            return false;
        }
    };
    let Some(violation) = report.violation else { return true };
    println!("seed {seed}: {violation}");
    if !shrinks {
        return false;
    }
    let shrunk = shrink_failure(scenario, &violation.by, report.steps, SHRINK_RUNS);
    let (runs, small) = (shrunk.runs, shrunk.scenario.to_toml());
    println!("--- seed {seed} shrunk in {runs} runs ---\n{small}---");
    false
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn all_cuts() -> Result<bool, String> {
    let begun = Instant::now();
    let cuts = cuts::all()?;
    let mut violations = 0;
    for cut in &cuts {
        if let Some(wrong) = cuts::run(cut).wrong {
            violations += 1;
            println!("{cut}: {wrong}");
        }
    }
    println!(
        "{} cuts, {violations} violations, {:.1} s",
        cuts.len(),
        begun.elapsed().as_secs_f64()
    );
    Ok(violations == 0)
}

#[cfg(not(feature = "planted"))]
fn planted(_: Option<&str>) -> Result<bool, String> {
    Err("no bug is planted in this build; ./run.sh simulate --planted makes one".to_owned())
}

#[cfg(feature = "planted")]
fn planted(name: Option<&str>) -> Result<bool, String> {
    use cluster_tests::simulation::planted::{BUGS, hunt, shrink_a_catch};
    use std::sync::atomic::AtomicUsize;

    let bugs: Vec<_> = BUGS.iter().filter(|bug| name.is_none_or(|name| name == bug.name)).collect();
    if bugs.is_empty() {
        return Err(format!("there is no bug {name:?}"));
    }
    // A group of cores tells what does not hold with a panic, which the hunt reports.
    std::panic::set_hook(Box::new(|_| {}));
    let (next, caught) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let problem = std::sync::Mutex::new(None);
    let work = || {
        while let Some(bug) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let begun = Instant::now();
            match hunt(bug) {
                Ok(Some(catch)) => {
                    caught.fetch_add(1, Ordering::Relaxed);
                    let seconds = begun.elapsed().as_secs_f64();
                    println!(
                        "{:<28} {} | {} | {} runs | {seconds:.1} s | {}",
                        bug.name, catch.by, catch.case, catch.runs, catch.text
                    );
                }
                Ok(None) => println!("{:<28} got away", bug.name),
                Err(error) => *problem.lock().expect("no thread panics") = Some(error),
            }
        }
    };
    std::thread::scope(|scope| (0..cores()).for_each(|_| drop(scope.spawn(work))));
    if let Some(problem) = problem.into_inner().expect("no thread panics") {
        return Err(problem);
    }
    if name.is_none() {
        println!("{}", shrink_a_catch()?);
    }
    let caught = caught.into_inner();
    println!("{caught} of {} planted bugs caught", bugs.len());
    Ok(caught == bugs.len())
}
