//! Command line of `pegasus-bench`, and the plan that comes out of it.
//!
//! [`Cli`] is what a person types. [`RunArgs::plan`] checks it once; everything behind works on a
//! [`Plan`] whose numbers are known to fit together, so that no flag can fail in the middle of a
//! run.

use crate::keys::Distribution;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

/// Most connections.
pub const MAX_CONNECTIONS: usize = 10_000;
/// Most requests in flight on all connections together.
pub const MAX_IN_FLIGHT: usize = 65_536;
/// Most records; the scattering of hot keys multiplies two such numbers in 64 bits.
pub const MAX_RECORDS: u64 = 1 << 32;
/// Longest value, in bytes.
pub const MAX_VALUE: usize = 16 << 20;
/// Longest key, in bytes.
pub const MAX_KEY: usize = 1024;
/// Most records in one request, and most sort keys of one hash key.
pub const MAX_BATCH: u64 = 1000;
/// Most bytes of requests that may be in flight.
pub const MAX_BUFFERED: u64 = 1 << 30;
/// Longest pause, wait or run that can be asked for.
pub const MAX_TIME: Duration = Duration::from_secs(7 * 24 * 3600);
/// Most operations per second that can be asked for.
pub const MAX_RATE: f64 = 1e8;
/// Bytes of a sort key, when there are sort keys: a letter and seven digits.
pub const SORT_KEY_LEN: usize = 8;

const AFTER_HELP: &str = "\
Examples:
  pegasus-bench --load-only --keys 1000000                     fill the table `temp` of a local onebox
  pegasus-bench -o get -c 64 -d 16 --duration 10s              closed loop, 1024 requests in flight
  pegasus-bench -o mixed --read-ratio 0.95 --rate 20000        open loop, latency from the intended send time
  pegasus-bench --redis 127.0.0.1:6379 -o set -c 64            the same client against Redis
  pegasus-bench -o get --server-name pegasus-server --json     CPU time per operation of a local server";

/// Load generator for Pegasus and, for comparison, Redis.
#[derive(Parser, Debug)]
#[command(
    name = "pegasus-bench",
    version,
    after_help = AFTER_HELP,
    args_conflicts_with_subcommands = true
)]
pub struct Cli {
    /// A run is the default.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of a run.
    #[command(flatten)]
    pub run: RunArgs,
}

/// Everything but a run.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Hold the product against Redis in interleaved rounds and print a table
    Compare(Box<crate::compare::CompareArgs>),
    /// Answer Redis commands without storing anything: the client's own share of a figure
    NullServer(NullServerArgs),
}

/// Flags of the null server.
#[derive(Args, Debug, Clone)]
pub struct NullServerArgs {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Bytes of every value that is answered
    #[arg(long, default_value_t = 100)]
    pub value_size: usize,
}

/// What a run does to the server.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
#[value(rename_all = "snake_case")]
pub enum Operation {
    /// Writes one record
    Set,
    /// Reads one record
    Get,
    /// Reads and writes single records
    Mixed,
    /// Writes several records of one hash key (Redis: MSET)
    MultiSet,
    /// Reads several records of one hash key (Redis: MGET)
    MultiGet,
    /// Scans all records of one hash key
    Scan,
}

/// How records are chosen.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
#[value(rename_all = "snake_case")]
pub enum DistributionName {
    /// Every record as often as any other
    Uniform,
    /// Few hot records, many cold ones
    Zipf,
    /// One after the other, from the first
    Sequential,
}

/// Flags of a run.
#[derive(Args, Debug, Clone)]
pub struct RunArgs {
    /// Meta servers, HOST:PORT separated by commas
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:34601", value_name = "ADDR")]
    pub meta: Vec<String>,
    /// Table
    #[arg(long, default_value = "temp")]
    pub table: String,
    /// Speak to this Redis server instead
    #[arg(long, value_name = "ADDR", conflicts_with_all = ["table", "meta"])]
    pub redis: Option<String>,
    /// A write to it is done when so many of its replicas have it (WAIT)
    #[arg(long, value_name = "REPLICAS", default_value_t = 0, requires = "redis")]
    pub redis_wait: usize,
    /// What to do
    #[arg(short, long, value_enum, default_value = "set")]
    pub operation: Operation,
    /// Share of reads in `mixed`, from 0 to 1
    #[arg(long, default_value_t = 0.5)]
    pub read_ratio: f64,
    /// Number of records
    #[arg(long, default_value_t = 100_000)]
    pub keys: u64,
    /// Bytes of a key, hash key and sort key together
    #[arg(long, default_value_t = 24)]
    pub key_size: usize,
    /// Bytes of a value; of several sizes each record has one
    #[arg(long, value_delimiter = ',', default_value = "100", value_name = "BYTES")]
    pub value_size: Vec<usize>,
    /// Records of one hash key [default: 1; the batch for multi_set and multi_get; 100 for scan]
    #[arg(long)]
    pub sort_keys: Option<u64>,
    /// Records of one multi_set or multi_get; rows of one answer of a scan
    #[arg(long, default_value_t = 10)]
    pub batch: u64,
    /// How records are chosen
    #[arg(long, value_enum, default_value = "uniform")]
    pub distribution: DistributionName,
    /// Skew of the zipf distribution
    #[arg(long, default_value_t = 0.99)]
    pub theta: f64,
    /// Connections in all, spread over the servers
    #[arg(short, long, default_value_t = 8)]
    pub connections: usize,
    /// Requests in flight per connection
    #[arg(short = 'd', long, default_value_t = 1)]
    pub in_flight: usize,
    /// How long to measure (500ms, 10s, 2m)
    #[arg(long, value_parser = parse_time, default_value = "10s", conflicts_with = "operations")]
    pub duration: Duration,
    /// Measure this many operations instead
    #[arg(long)]
    pub operations: Option<u64>,
    /// How long to run before measuring
    #[arg(long, value_parser = parse_time, default_value = "500ms")]
    pub warm_up: Duration,
    /// Write every record once before the run
    #[arg(long)]
    pub load: bool,
    /// Write every record once and do nothing else
    #[arg(long, conflicts_with = "load")]
    pub load_only: bool,
    /// Open loop: operations per second, whatever the server does
    #[arg(long)]
    pub rate: Option<f64>,
    /// Open loop: operations that may wait for a free connection; later ones are missed
    #[arg(long, default_value_t = 100_000)]
    pub backlog: u64,
    /// Seed of all random choices
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// When a request counts as unanswered
    #[arg(long, value_parser = parse_time, default_value = "5s")]
    pub timeout: Duration,
    /// How long to try to reach the servers at the start
    #[arg(long, value_parser = parse_time, default_value = "5s")]
    pub connect_timeout: Duration,
    /// Compare every value read with the one that was written; misses and wrong values end with
    /// status 3
    #[arg(long)]
    pub read_back: bool,
    /// A line per second on standard error, also when it is not a terminal
    #[arg(long)]
    pub progress: bool,
    /// JSON instead of a table, to a file or (without one) to standard output
    #[arg(long, num_args = 0..=1, default_missing_value = "-", value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Report CPU time per operation of these local processes
    #[arg(long, value_delimiter = ',', value_name = "PID")]
    pub server_pid: Vec<u32>,
    /// The same, for all processes of that name
    #[arg(long, value_name = "NAME")]
    pub server_name: Option<String>,
}

/// Why flags do not make a plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    /// A number outside its range.
    #[error("--{flag} {value}: {why}")]
    Range {
        /// The flag, without dashes.
        flag: &'static str,
        /// What was given.
        value: String,
        /// What is allowed.
        why: String,
    },
    /// An address that cannot be used.
    #[error("--{flag} {value}: {why}")]
    Address {
        /// The flag, without dashes.
        flag: &'static str,
        /// What was given.
        value: String,
        /// Why not.
        why: String,
    },
    /// Two things that exclude each other.
    #[error("{0}")]
    Contradiction(String),
}

/// Whom to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A table of a Pegasus cluster.
    Pegasus {
        /// Meta servers.
        metas: Vec<SocketAddr>,
        /// Table name.
        table: String,
    },
    /// A Redis server.
    Redis {
        /// Its address.
        server: SocketAddr,
        /// Replicas that must have a write.
        wait: usize,
    },
}

/// When the measured window ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// After this time.
    After(Duration),
    /// When this many operations are done.
    Operations(u64),
}

/// What is written before the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// Nothing.
    No,
    /// Every record.
    First,
    /// Every record, and there is no run.
    Only,
}

/// Open loop.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OpenLoop {
    /// Operations per second.
    pub rate: f64,
    /// Most operations that wait for a free slot.
    pub backlog: u64,
}

/// A run whose numbers fit together.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Whom to load.
    pub target: Target,
    /// What to do.
    pub operation: Operation,
    /// Share of reads in `mixed`.
    pub read_ratio: f64,
    /// Number of records; a multiple of `sort_keys`.
    pub records: u64,
    /// Records of one hash key.
    pub sort_keys: u64,
    /// Records of one multi-record request.
    pub batch: u64,
    /// Bytes of hash key and sort key.
    pub key_size: usize,
    /// Bytes of values.
    pub value_sizes: Vec<usize>,
    /// How records are chosen.
    pub distribution: Distribution,
    /// Connections in all.
    pub connections: usize,
    /// Requests in flight per connection.
    pub in_flight: usize,
    /// End of the measured window.
    pub stop: Stop,
    /// Time before it.
    pub warm_up: Duration,
    /// What is written first.
    pub load: Load,
    /// Fixed rate.
    pub open_loop: Option<OpenLoop>,
    /// Seed.
    pub seed: u64,
    /// Limit of one request.
    pub timeout: Duration,
    /// Limit of reaching the servers.
    pub connect_timeout: Duration,
    /// Compare contents.
    pub read_back: bool,
    /// A line per second.
    pub progress: bool,
    /// Processes to watch.
    pub pids: Vec<u32>,
}

impl RunArgs {
    /// Checks everything and resolves names. `pids` are those that the flags name.
    ///
    /// # Errors
    /// [`ArgsError`], naming the flag.
    pub fn plan(&self, pids: Vec<u32>, terminal: bool) -> Result<Plan, ArgsError> {
        self.check_ranges()?;
        let sort_keys = self.sort_keys.unwrap_or(match self.operation {
            Operation::MultiSet | Operation::MultiGet => self.batch,
            Operation::Scan => 100,
            _ => 1,
        });
        let batch = self.batch.min(sort_keys);
        self.check_shape(sort_keys, batch)?;
        let target = match &self.redis {
            Some(_) if self.operation == Operation::Scan => {
                return Err(ArgsError::Contradiction(
                    "scan has no counterpart in Redis: use multi_get".into(),
                ));
            }
            Some(addr) => Target::Redis { server: resolve("redis", addr)?, wait: self.redis_wait },
            None => Target::Pegasus {
                metas: self.meta.iter().map(|m| resolve("meta", m)).collect::<Result<_, _>>()?,
                table: self.table.clone(),
            },
        };
        Ok(Plan {
            target,
            operation: self.operation,
            read_ratio: self.read_ratio,
            records: self.keys.div_ceil(sort_keys) * sort_keys,
            sort_keys,
            batch,
            key_size: self.key_size,
            value_sizes: self.value_size.clone(),
            distribution: match self.distribution {
                DistributionName::Uniform => Distribution::Uniform,
                DistributionName::Zipf => Distribution::Zipf(self.theta),
                DistributionName::Sequential => Distribution::Sequential,
            },
            connections: self.connections,
            in_flight: self.in_flight,
            stop: self.operations.map_or(Stop::After(self.duration), Stop::Operations),
            warm_up: self.warm_up,
            load: match (self.load, self.load_only) {
                (_, true) => Load::Only,
                (true, false) => Load::First,
                (false, false) => Load::No,
            },
            open_loop: self.rate.map(|rate| OpenLoop { rate, backlog: self.backlog }),
            seed: self.seed,
            timeout: self.timeout,
            connect_timeout: self.connect_timeout,
            read_back: self.read_back,
            progress: self.progress || terminal,
            pids,
        })
    }

    fn check_ranges(&self) -> Result<(), ArgsError> {
        within("connections", self.connections as u64, 1, MAX_CONNECTIONS as u64)?;
        within("in-flight", self.in_flight as u64, 1, MAX_IN_FLIGHT as u64)?;
        within("keys", self.keys, 1, MAX_RECORDS - MAX_BATCH)?;
        within("key-size", self.key_size as u64, 1, MAX_KEY as u64)?;
        within("batch", self.batch, 1, MAX_BATCH)?;
        within("sort-keys", self.sort_keys.unwrap_or(1), 1, MAX_BATCH)?;
        within("operations", self.operations.unwrap_or(1), 1, u64::MAX)?;
        within("backlog", self.backlog, 0, u64::MAX)?;
        for &size in &self.value_size {
            within("value-size", size as u64, 0, MAX_VALUE as u64)?;
        }
        fraction("read-ratio", self.read_ratio, 0.0, 1.0)?;
        fraction("theta", self.theta, 0.01, 10.0)?;
        if let Some(rate) = self.rate {
            fraction("rate", rate, 0.001, MAX_RATE)?;
        }
        for (flag, time) in [("duration", self.duration), ("timeout", self.timeout)] {
            if time.is_zero() {
                return Err(range(flag, "0", "must be longer".into()));
            }
        }
        Ok(())
    }

    fn check_shape(&self, sort_keys: u64, batch: u64) -> Result<(), ArgsError> {
        let in_flight = self.connections * self.in_flight;
        if in_flight > MAX_IN_FLIGHT {
            return Err(ArgsError::Contradiction(format!(
                "{} connections with {} requests in flight are {in_flight} in all, at most \
                 {MAX_IN_FLIGHT} are possible",
                self.connections, self.in_flight
            )));
        }
        let largest = self.value_size.iter().copied().max().unwrap_or(0) as u64;
        let request = (largest + self.key_size as u64 + 64) * batch;
        if request.saturating_mul(in_flight as u64) > MAX_BUFFERED {
            return Err(ArgsError::Contradiction(format!(
                "{in_flight} requests of {request} bytes in flight are more than {} MiB",
                MAX_BUFFERED >> 20
            )));
        }
        let sort_len = if sort_keys > 1 { SORT_KEY_LEN } else { 0 };
        let digits = (self.keys.div_ceil(sort_keys).max(2) - 1).ilog10() as usize + 1;
        if self.key_size < sort_len + 1 + digits {
            return Err(range(
                "key-size",
                &self.key_size.to_string(),
                format!("{} records need keys of {} bytes", self.keys, sort_len + 1 + digits),
            ));
        }
        Ok(())
    }
}

fn range(flag: &'static str, value: &str, why: String) -> ArgsError {
    ArgsError::Range { flag, value: value.to_owned(), why }
}

fn within(flag: &'static str, value: u64, low: u64, high: u64) -> Result<(), ArgsError> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(range(flag, &value.to_string(), format!("must be from {low} to {high}")))
}

fn fraction(flag: &'static str, value: f64, low: f64, high: f64) -> Result<(), ArgsError> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(range(flag, &value.to_string(), format!("must be from {low} to {high}")))
}

/// The first IPv4 address behind `HOST:PORT`, else the first of any kind.
///
/// # Errors
/// [`ArgsError::Address`].
#[expect(clippy::disallowed_methods, reason = "a program at its start: nothing else waits")]
pub fn resolve(flag: &'static str, text: &str) -> Result<SocketAddr, ArgsError> {
    let bad = |why: String| ArgsError::Address { flag, value: text.to_owned(), why };
    let found: Vec<SocketAddr> = match text.to_socket_addrs() {
        Ok(found) => found.collect(),
        Err(error) => return Err(bad(error.to_string())),
    };
    let first = found.iter().find(|a| a.is_ipv4()).or(found.first());
    first.copied().ok_or_else(|| bad("no address".into()))
}

/// Reads `250ms`, `1.5s`, `2m`, `1h`, or a plain number of seconds.
///
/// # Errors
/// What is wrong with the text.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    let at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let scale = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        other => return Err(format!("unknown unit {other:?}, use us, ms, s, m or h")),
    };
    let number: f64 = number.trim().parse().map_err(|_| format!("{text:?} is not a time"))?;
    match Duration::try_from_secs_f64(number * scale) {
        Ok(time) if time <= MAX_TIME => Ok(time),
        _ => Err(format!("{text:?} is not between 0 and {} s", MAX_TIME.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> RunArgs {
        let words = std::iter::once("pegasus-bench").chain(line.split_whitespace());
        Cli::try_parse_from(words).unwrap().run
    }

    fn error_of(line: &str) -> String {
        args(line).plan(vec![], false).unwrap_err().to_string()
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
        let plan = args("").plan(vec![], false).unwrap();
        let metas = vec!["127.0.0.1:34601".parse().unwrap()];
        assert_eq!(plan.target, Target::Pegasus { metas, table: "temp".into() });
        assert_eq!(plan.stop, Stop::After(Duration::from_secs(10)));
        assert_eq!((plan.sort_keys, plan.batch, plan.load), (1, 1, Load::No));
        assert!(!plan.progress);
    }

    #[test]
    fn multi_record_operations_have_sort_keys() {
        let plan = args("-o multi_get --keys 25").plan(vec![], true).unwrap();
        assert_eq!((plan.sort_keys, plan.batch, plan.records), (10, 10, 30));
        assert!(plan.progress);
        let plan = args("-o scan --keys 1000 --batch 500").plan(vec![], false).unwrap();
        assert_eq!((plan.sort_keys, plan.batch), (100, 100));
        let plan = args("-o get --sort-keys 4 --keys 8").plan(vec![], false).unwrap();
        assert_eq!((plan.sort_keys, plan.batch, plan.records), (4, 4, 8));
    }

    #[test]
    fn bad_numbers_name_their_flag() {
        assert_eq!(error_of("-c 0"), "--connections 0: must be from 1 to 10000");
        assert_eq!(error_of("--read-ratio 1.5"), "--read-ratio 1.5: must be from 0 to 1");
        assert_eq!(error_of("--rate 0"), "--rate 0: must be from 0.001 to 100000000");
        assert_eq!(error_of("--rate nan"), "--rate NaN: must be from 0.001 to 100000000");
        assert_eq!(error_of("--duration 0"), "--duration 0: must be longer");
        assert_eq!(
            error_of("--keys 1000000 --key-size 6"),
            "--key-size 6: 1000000 records need keys of 7 bytes"
        );
        assert!(args("--keys 1000000 --key-size 7").plan(vec![], false).is_ok());
        assert!(error_of("-c 10000 -d 100").contains("1000000 in all"));
        assert!(error_of("--value-size 16777216 -c 100").contains("more than 1024 MiB"));
        assert!(error_of("--redis 127.0.0.1:1 -o scan").contains("no counterpart"));
        assert!(error_of("--redis nowhere").starts_with("--redis nowhere: "));
    }

    #[test]
    fn contradictions_are_refused_by_the_parser() {
        for line in [
            "--duration 1s --operations 5",
            "--load --load-only",
            "--redis 127.0.0.1:1 --table temp",
            "-o swim",
            "--warm-up 5parsecs",
        ] {
            let words = std::iter::once("pegasus-bench").chain(line.split_whitespace());
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(parse_time("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_time("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_time("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_time("0"), Ok(Duration::ZERO));
        for bad in ["", "s", "-1s", "1e300s", "NaN", "10 days", "900000"] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
    }
}
