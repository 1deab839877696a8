//! `pegasus-bench compare`: the product beside Redis, so that the machine's mood hits both.
//!
//! Servers and client share one CPU (`--unpinned` leaves that out), so that what is compared, CPU
//! time per operation, does not hang on where the scheduler puts whom. Each cell of the table is
//! measured in rounds; in a round every contender has its turn, in changing order, and only the
//! ratios of one round are ever formed. A cell whose ratios range too far gets no verdict.
//!
//! [`servers`] starts and pins what is compared, [`cells`] holds the arithmetic and the table.

mod cells;
mod servers;

use crate::args::parse_time;
use anyhow::{Context, ensure};
use cells::{Cell, Measure, Setting, Shape, Work};
use clap::Args;
use servers::{Contender, Onebox, Pin, Redis, Temp};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

/// Fewest rounds that allow a verdict.
const ROUNDS_LEAST: usize = 3;
/// Most copies of a record.
const COPIES_MOST: usize = 5;
/// Most rounds.
const ROUNDS_MOST: usize = 1000;

/// Flags of the comparison.
#[derive(Args, Debug, Clone)]
pub struct CompareArgs {
    /// The project's run.sh: unless --meta is given, it starts a onebox and removes it again
    #[arg(long, value_name = "FILE", required_unless_present = "meta")]
    pub run_sh: Option<PathBuf>,
    /// Use this running cluster: meta servers, HOST:PORT separated by commas
    #[arg(long)]
    pub meta: Option<String>,
    /// Its servers' processes
    #[arg(long, value_delimiter = ',', value_name = "PID", requires = "meta")]
    pub server_pid: Vec<u32>,
    /// Its servers' processes, by name
    #[arg(long, value_name = "NAME", default_value = "pegasus-server")]
    pub server_name: String,
    /// Table
    #[arg(long, default_value = "temp")]
    pub table: String,
    /// Ports of the onebox begin above this one
    #[arg(long, default_value_t = 24_600)]
    pub port_base: u16,
    /// The peer's program
    #[arg(long, default_value = "redis-server", value_name = "PROGRAM")]
    pub redis_server: PathBuf,
    /// Copies of every record: so many replica servers on our side; on the other Redis replicas, and a set is
    /// followed by WAIT for all of them
    #[arg(long, default_value_t = 1)]
    pub copies: usize,
    /// Compare with a server that stores nothing as well
    #[arg(long)]
    pub control: bool,
    /// What is measured
    #[arg(long, value_delimiter = ',', default_value = "get,set")]
    pub operations: Vec<Work>,
    /// Bytes of a value
    #[arg(long, value_delimiter = ',', default_value = "100,1000", value_name = "BYTES")]
    pub value_size: Vec<usize>,
    /// Connections and requests in flight on each
    #[arg(long, value_delimiter = ',', default_value = "1x1,8x1,64x1,1x16,8x16,64x16")]
    pub shapes: Vec<Shape>,
    /// Number of records
    #[arg(long, default_value_t = 200_000)]
    pub keys: u64,
    /// Rounds of each cell
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// How long each turn is measured
    #[arg(long, value_parser = parse_time, default_value = "1s")]
    pub duration: Duration,
    /// How long each turn runs before that
    #[arg(long, value_parser = parse_time, default_value = "200ms")]
    pub warm_up: Duration,
    /// How long records are overwritten before anything is measured, and read before gets are
    #[arg(long, value_parser = parse_time, default_value = "10s")]
    pub settle: Duration,
    /// The CPU that all share
    #[arg(long, default_value_t = 0)]
    pub cpu: usize,
    /// Use all CPUs; only the ratio of operations per second means something then
    #[arg(long, conflicts_with = "cpu")]
    pub unpinned: bool,
    /// Servers keep their files here, in a folder of their own; /dev/shm leaves the disk out of it
    /// [default: the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    pub temp: Option<PathBuf>,
    /// Write the table to this file, too
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Runs the comparison.
///
/// # Errors
/// Servers that do not start, runs that fail.
pub fn compare(args: &CompareArgs) -> anyhow::Result<ExitCode> {
    ensure!((1..=COPIES_MOST).contains(&args.copies), "--copies: must be from 1 to {COPIES_MOST}");
    ensure!(
        (ROUNDS_LEAST..=ROUNDS_MOST).contains(&args.rounds),
        "--rounds {}: must be from {ROUNDS_LEAST} to {ROUNDS_MOST}",
        args.rounds
    );
    let mut pin = Pin::new((!args.unpinned).then_some(args.cpu))?;
    let temp = Temp::new(args.temp.as_deref())?;
    let mut bench = Bench { args, contenders: Vec::new(), cells: Vec::new() };
    let redis = Redis::start(&args.redis_server, temp.path(), args.copies - 1)?;
    let _onebox = match (&args.run_sh, &args.meta) {
        (Some(script), None) => {
            let onebox =
                Onebox::start(script, temp.path(), args.port_base, &args.table, args.copies)?;
            bench.contenders.push(onebox.contender(&args.table)?);
            Some(onebox)
        }
        (_, Some(meta)) => {
            let mut pids = args.server_pid.clone();
            if pids.is_empty() {
                pids = crate::procfs::find(&args.server_name)?;
            }
            ensure!(!pids.is_empty(), "no process is named {}", args.server_name);
            pin.pin_processes(&pids)?;
            bench.contenders.push(Contender::pegasus(meta, &args.table, pids));
            None
        }
        (None, None) => anyhow::bail!("--run-sh or --meta is needed"),
    };
    bench.contenders.push(redis.contender());
    let _null = match args.control {
        true => {
            let null = servers::NullServer::start(args.value_size.first().copied().unwrap_or(0))?;
            bench.contenders.push(null.contender());
            Some(null)
        }
        false => None,
    };
    bench.measure_all(&redis)?;
    let text = cells::markdown(&bench.cells, &header(args, &redis));
    std::io::stdout().write_all(text.as_bytes()).context("writing to standard output")?;
    if let Some(path) = &args.output {
        crate::save(path, &text)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What a reader must know to judge the figures.
fn header(args: &CompareArgs, redis: &Redis) -> String {
    let mode = if args.unpinned {
        "all CPUs".to_owned()
    } else {
        format!("servers and client on CPU {}", args.cpu)
    };
    let copies = match args.copies {
        1 => "one copy".to_owned(),
        n => format!("{n} copies of each record, Redis with WAIT {}", n - 1),
    };
    format!(
        "{}; {mode}; {copies}; {} records with keys of 24 B, uniform; {} rounds of {:.1} s, medians; {}, \
         append-only file every second.",
        servers::machine(),
        args.keys,
        args.rounds,
        args.duration.as_secs_f64(),
        redis.version
    )
}

struct Bench<'a> {
    args: &'a CompareArgs,
    /// The product first, then Redis, then the control.
    contenders: Vec<Contender>,
    cells: Vec<Cell>,
}

impl Bench<'_> {
    fn measure_all(&mut self, redis: &Redis) -> anyhow::Result<()> {
        for &size in &self.args.value_size {
            for contender in &self.contenders {
                if contender.stores {
                    eprintln!("{size} B: filling {}", contender.name);
                    self.prepare(contender, size)?;
                }
            }
            redis.compact()?;
            for &work in &self.args.operations {
                if work == Work::Get {
                    self.read_all(size)?;
                }
                for &shape in &self.args.shapes {
                    let cell = self.measure_cell(work, size, shape)?;
                    eprintln!("{}", cell.line());
                    self.cells.push(cell);
                    if work == Work::Set {
                        redis.compact()?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes every record, then overwrites until merging files is part of everyday life.
    fn prepare(&self, contender: &Contender, size: usize) -> anyhow::Result<()> {
        let shape = Shape { connections: 64, in_flight: 16 };
        self.run(contender, Work::Set, size, shape, &["--load-only"])?;
        if !self.args.settle.is_zero() {
            let time = format!("{}ms", self.args.settle.as_millis());
            self.run(contender, Work::Set, size, shape, &["--duration", &time])?;
        }
        Ok(())
    }

    /// Reads for a while, so that what servers keep of what was read is part of everyday life as well.
    fn read_all(&self, size: usize) -> anyhow::Result<()> {
        if self.args.settle.is_zero() {
            return Ok(());
        }
        let shape = Shape { connections: 64, in_flight: 16 };
        let time = format!("{}ms", self.args.settle.as_millis());
        for contender in self.contenders.iter().filter(|contender| contender.stores) {
            self.run(contender, Work::Get, size, shape, &["--duration", &time])?;
        }
        Ok(())
    }

    fn measure_cell(&self, work: Work, size: usize, shape: Shape) -> anyhow::Result<Cell> {
        let setting = Setting { copies: self.args.copies, one_core: !self.args.unpinned };
        let mut cell = Cell::new(work, size, shape, setting, self.contenders.len());
        let duration = format!("{}ms", self.args.duration.as_millis());
        let warm_up = format!("{}ms", self.args.warm_up.as_millis());
        for round in 0..self.args.rounds {
            let count = self.contenders.len();
            for turn in 0..count {
                let index = (turn + round) % count;
                let contender = &self.contenders[index];
                // The control answers with values of one size only.
                if !contender.stores && size != self.args.value_size[0] {
                    continue;
                }
                let seed = (round * 31 + 1).to_string();
                let extra = ["--duration", &duration, "--warm-up", &warm_up, "--seed", &seed];
                let json = self.run(contender, work, size, shape, &extra)?;
                let measure = Measure::from_json(&json)
                    .with_context(|| format!("the report of a run against {}", contender.name))?;
                cell.add(index, measure);
            }
        }
        Ok(cell)
    }

    /// One run of this very program; returns its report.
    fn run(
        &self,
        contender: &Contender,
        work: Work,
        size: usize,
        shape: Shape,
        extra: &[&str],
    ) -> anyhow::Result<serde_json::Value> {
        let program = std::env::current_exe().context("the path of this program")?;
        let pids: Vec<String> = contender.pids.iter().map(ToString::to_string).collect();
        let output = Command::new(program)
            .args(&contender.flags)
            .args(["--operation", work.name()])
            .args(["--value-size", &size.to_string()])
            .args(["--keys", &self.args.keys.to_string()])
            .args(["--connections", &shape.connections.to_string()])
            .args(["--in-flight", &shape.in_flight.to_string()])
            .args(["--server-pid", &pids.join(",")])
            .args(extra)
            .arg("--json")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .output()
            .context("starting a run")?;
        ensure!(
            output.status.success(),
            "a run against {} failed: {}",
            contender.name,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        serde_json::from_slice(&output.stdout).context("the report of a run")
    }
}
