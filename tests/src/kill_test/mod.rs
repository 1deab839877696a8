//! The kill test: real servers under load, whatever can happen to a process, a disk or a connection happening to them,
//! and every answer judged afterwards.
//!
//! Clients write, read, count and compare-and-set; each call is put down in a file before it is sent and after it was
//! answered ([`expected`]). In each round something is done to the servers ([`faults`]), and undone; then every
//! partition must have all its replicas again. At the end every key is read, and the calls of each key must be
//! linearizable: a lost acknowledged write, a stale read or a write carried out twice is none.

pub mod disk;
pub mod expected;
pub mod faults;
pub mod proxy;
pub mod workload;

use crate::linearizable::check;
use crate::onebox::{Onebox, OneboxOptions};
use dsn_core::rng::Rng;
use dsn_replication::wire::config::PartitionConfiguration;
use expected::Record;
use faults::{Count, Fault};
use pegasus_client::{ClientOptions, PegasusClient};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use workload::{CALL_TIMEOUT, Client, Traffic};

/// Copies of everything, and replica servers.
pub const SERVERS: usize = 3;
/// How long the groups may take to be whole after a round.
const HEALED_IN: Duration = Duration::from_secs(90);
/// Writes that meet each of the table's 8 partitions.
const PROBES: u64 = 64;
/// How long an attempt at a read may wait at a server that was stopped.
const LONG: Duration = Duration::from_secs(60);
/// Bytes of the small disk.
const SMALL_DISK: u64 = 512 << 20;

/// Leases and graces as short as the checks of the configuration allow, files small enough to be many.
pub const QUICK: [&str; 8] = [
    "replication.fd_beacon_interval_seconds=1",
    "replication.fd_check_interval_seconds=1",
    "replication.fd_lease_seconds=4",
    "replication.fd_grace_seconds=5",
    "replication.checkpoint_interval_seconds=5",
    "replication.log_private_file_size_mb=4",
    "replication.log_private_reserve_max_size_mb=16",
    "pegasus.server.rocksdb_write_buffer_size=\"256KiB\"",
];

/// When a run ends.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After so many rounds.
    Rounds(usize),
    /// With the round in which so much time is over.
    Time(Duration),
}

/// What a run is.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of its folder.
    pub name: &'static str,
    /// Decides what happens when and to whom.
    pub seed: u64,
    /// What happens; all of them in turn, in an order that the seed decides.
    pub faults: Vec<Fault>,
    /// When it ends.
    pub until: Until,
    /// Threads that call.
    pub clients: u32,
    /// Calls that are answered before the run ends.
    pub least_calls: u64,
    /// [`QUICK`] instead of the default times.
    pub quick: bool,
}

/// What a run has shown.
#[derive(Debug)]
pub struct Report {
    seed: u64,
    rounds: usize,
    /// What was done to the servers.
    pub done: Count,
    /// Calls answered.
    pub answered: u64,
    /// Writes of unknown outcome.
    pub unknown: u64,
    keys: usize,
    took: Duration,
    slowest: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {}: {} rounds in {:.0?}, {}; {} calls answered, {} writes unknown, {} keys, all linearizable; whole \
             again within {:.1?} each time: 0 violations",
            self.seed,
            self.rounds,
            self.took,
            self.done,
            self.answered,
            self.unknown,
            self.keys,
            self.slowest
        )
    }
}

/// A running cluster under load.
pub struct Run<'a> {
    /// The servers.
    pub onebox: Onebox,
    client: PegasusClient,
    /// Decides what happens.
    pub rng: Rng,
    traffic: &'a Traffic,
    records: PathBuf,
    numbers: &'a AtomicU32,
    seed: u64,
    /// The lease in force.
    pub lease: Duration,
    /// The grace.
    pub grace: Duration,
    /// What was done so far.
    pub done: Count,
}

/// Tells the clients to stop, also when a round panics.
struct StopAtEnd<'a>(&'a Traffic);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

/// Runs it.
///
/// # Errors
/// The violation. The files are kept then, and their place is printed.
#[expect(clippy::disallowed_methods, reason = "a test harness lives outside the runtime")]
pub fn run(options: &Options) -> Result<Report, String> {
    println!("{}: seed {}", options.name, options.seed);
    let begun = Instant::now();
    let traffic = Traffic::new();
    let numbers = AtomicU32::new(0);
    let mut run = Run::start(options, &traffic, &numbers);
    let mut outcome = std::thread::scope(|scope| {
        let _stop = StopAtEnd(&traffic);
        for _ in 0..options.clients {
            let client = run.client(&run.client.clone());
            scope.spawn(|| client.run());
        }
        run.rounds(options, begun)
    });
    if outcome.is_ok() {
        outcome = run.read_all().and(outcome);
    }
    let judged = outcome.and_then(|(rounds, slowest)| {
        let keys = judge(&run.records)?;
        Ok(Report {
            seed: options.seed,
            rounds,
            done: run.done.clone(),
            answered: traffic.answered.load(Ordering::Relaxed),
            unknown: traffic.unknown.load(Ordering::Relaxed),
            keys,
            took: begun.elapsed(),
            slowest,
        })
    });
    if judged.is_err() {
        run.onebox.keep();
    }
    judged
}

/// Holds every key's calls against the rule; gives how many keys there were.
fn judge(records: &Path) -> Result<usize, String> {
    let keys = expected::load(records).map_err(|error| error.to_string())?;
    for (key, calls) in &keys {
        check(calls).map_err(|error| format!("key{key} ({} calls): {error}", calls.len()))?;
    }
    Ok(keys.len())
}

impl<'a> Run<'a> {
    #[expect(clippy::disallowed_methods, reason = "a test harness lives outside the runtime")]
    fn start(options: &Options, traffic: &'a Traffic, numbers: &'a AtomicU32) -> Self {
        let has = |wanted: &dyn Fn(&Fault) -> bool| options.faults.iter().any(wanted);
        let sets = if options.quick { &QUICK[..] } else { &QUICK[4..] };
        let onebox = Onebox::start(
            options.name,
            &OneboxOptions {
                replicas: SERVERS,
                sets: sets.iter().map(|set| (*set).to_owned()).collect(),
                proxied: has(&|fault| fault.needs_proxy()),
                small_disk: has(&|fault| *fault == Fault::FullDisk).then_some(SMALL_DISK),
                ..OneboxOptions::default()
            },
        );
        let client = onebox.with_table(SERVERS as i32);
        let records = onebox.dir().join("expected");
        std::fs::create_dir_all(&records).expect("a folder");
        let (lease, grace) = if options.quick { (4, 5) } else { (20, 22) };
        Self {
            onebox,
            client,
            rng: Rng::stream(options.seed, "kill test", "faults", 0),
            traffic,
            records,
            numbers,
            seed: options.seed,
            lease: Duration::from_secs(lease),
            grace: Duration::from_secs(grace),
            done: Count::default(),
        }
    }

    /// A client of the workload on that connection to the cluster.
    fn client(&self, client: &PegasusClient) -> Client<'a> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let record = Record::open(&self.records, number).expect("a file for the record");
        Client::new(&client.table("temp"), self.traffic, record, self.seed, number)
    }

    /// All rounds: how many there were, and how long the slowest group took to be whole again.
    fn rounds(&mut self, options: &Options, begun: Instant) -> Result<(usize, Duration), String> {
        self.wait_until_whole()?;
        let (mut rounds, mut slowest) = (0, Duration::ZERO);
        let mut order: Vec<Fault> = Vec::new();
        let over = |rounds| match options.until {
            Until::Rounds(count) => rounds >= count,
            Until::Time(limit) => begun.elapsed() >= limit,
        };
        while !over(rounds) {
            if order.is_empty() {
                order = options.faults.clone();
                for at in (1..order.len()).rev() {
                    order.swap(at, self.rng.index(at + 1));
                }
            }
            let Some(fault) = order.pop() else { break };
            self.pause(Duration::from_millis(300));
            let what = fault.strike(self)?;
            let healing = self.wait_until_whole().map_err(|error| format!("{what}: {error}"))?;
            println!("{:>6.1?} {what}: whole again after {healing:.1?}", begun.elapsed());
            slowest = slowest.max(healing);
            rounds += 1;
        }
        while self.traffic.answered.load(Ordering::Relaxed) < options.least_calls {
            self.pause(Duration::from_millis(100));
        }
        Ok((rounds, slowest))
    }

    /// Sleeps between half and one and a half times `mean`.
    #[expect(clippy::disallowed_methods, reason = "a test harness lives outside the runtime")]
    pub fn pause(&mut self, mean: Duration) {
        std::thread::sleep(self.rng.duration(mean / 2, mean * 3 / 2));
    }

    /// Waits until every group is whole, and stays so over writes to all partitions, which all members must have
    /// logged; says how long that took.
    #[expect(clippy::disallowed_methods, reason = "a test harness lives outside the runtime")]
    pub fn wait_until_whole(&self) -> Result<Duration, String> {
        let begun = Instant::now();
        let table = self.client.table("temp").with_timeout(CALL_TIMEOUT);
        loop {
            let before = self.ballots();
            let mut written =
                (0..PROBES).map(|n| table.set(format!("probe{n}").as_bytes(), b"s", ""));
            if before.is_some() && written.all(|set| set.is_ok()) && self.ballots() == before {
                return Ok(begun.elapsed());
            }
            if begun.elapsed() > HEALED_IN {
                return Err(format!("not whole after {HEALED_IN:?}: {}", self.groups()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// All groups, for people.
    fn groups(&self) -> String {
        let config = match self.client.admin().query_config("temp") {
            Ok(config) => config,
            Err(error) => return error.to_string(),
        };
        let group = |group: PartitionConfiguration| {
            let (pid, ballot, members) = (group.pid, group.ballot, group.secondaries);
            format!("{pid} ballot {ballot} primary {} secondaries {members:?}", group.primary)
        };
        config.partitions.iter().map(group).collect::<Vec<_>>().join("; ")
    }

    /// Ballots of all groups; `None` while one of them is not whole.
    fn ballots(&self) -> Option<Vec<i64>> {
        let config = self.client.admin().query_config("temp").ok()?;
        let mut ballots = Vec::new();
        for group in config.partitions.iter() {
            let whole = group.primary.is_valid() && group.secondaries.len() == SERVERS - 1;
            ballots.push(whole.then_some(group.ballot)?);
        }
        Some(ballots)
    }

    /// Reads every key once more, until it is answered.
    #[expect(clippy::disallowed_methods, reason = "a test harness lives outside the runtime")]
    fn read_all(&mut self) -> Result<(), String> {
        let mut client = self.client(&self.client.clone()).with_timeout(LONG);
        for key in 0..self.traffic.keys() {
            let begun = Instant::now();
            while client.get(key).is_none() {
                if begun.elapsed() > HEALED_IN {
                    return Err(format!("key{key} is not served"));
                }
            }
        }
        Ok(())
    }

    /// Clients that know who serves now, and would wait for long at a server that does not answer: one for each of
    /// the keys in use.
    fn patient_readers(&self) -> Vec<(u64, Client<'a>)> {
        let mut options = ClientOptions::new([self.onebox.meta()]);
        (options.timeout, options.read_attempt) = (LONG, LONG);
        let patient = PegasusClient::with_options(options).expect("a client");
        let keys = self.traffic.keys();
        let keys = keys.saturating_sub(workload::HOT)..keys;
        let mut readers: Vec<(u64, Client<'a>)> =
            keys.map(|key| (key, self.client(&patient).with_timeout(LONG))).collect();
        for (key, reader) in &mut readers {
            reader.get(*key);
        }
        readers
    }
}
