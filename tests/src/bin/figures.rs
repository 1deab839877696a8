//! What a group of three real servers costs and how fast it comes back: the figures of `docs/performance.md` that
//! are no comparisons. `./run.sh figures [NAME...]` runs those named, or all; they need minutes and a quiet machine.
//! Each prints what it saw and ends the program only when the cluster does not do what it should.
#![forbid(unsafe_code)]
#![expect(clippy::disallowed_methods, reason = "real processes are measured outside the runtime")]

use cluster_tests::cpu_time;
use cluster_tests::onebox::{Onebox, OneboxOptions, program};
use dsn_replication::wire::config::PartitionConfiguration;
use pegasus_client::{PegasusClient, TableSpec};
use serde_json::Value;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SERVERS: usize = 3;
/// Keys that meet each of the 8 partitions of the table.
const PROBES: u64 = 64;
/// Kills of a primary.
const KILLS: usize = 30;
/// Longest time that anything here is waited for.
const PATIENCE: Duration = Duration::from_secs(240);

/// How much longer than here a sync takes on the disks of others.
const SYNC_DELAYS: [Duration; 3] =
    [Duration::from_millis(1), Duration::from_millis(2), Duration::from_millis(4)];

/// What can be asked for.
const FIGURES: [(&str, fn()); 7] = [
    ("group_sync", group_sync),
    ("group_sync_slower", group_sync_slower),
    ("failover", failover),
    ("failover_by_lease", failover_by_lease),
    ("learning", learning),
    ("restart", restart),
    ("idle", idle),
];

fn main() -> std::process::ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let known = |name: &String| FIGURES.iter().any(|(figure, _)| figure == name);
    if let Some(name) = wanted.iter().find(|name| !known(name)) {
        let names: Vec<&str> = FIGURES.iter().map(|(name, _)| *name).collect();
        eprintln!("there is no figure {name:?}; there are {}", names.join(", "));
        return std::process::ExitCode::FAILURE;
    }
    for (name, measure) in FIGURES {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            measure();
        }
    }
    std::process::ExitCode::SUCCESS
}

/// Servers that share the machine as those of `./run.sh start_onebox` do: about one worker for each core in all.
fn cluster(name: &str, servers: usize, sets: &[&str]) -> Onebox {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let workers = format!("runtime.workers={}", (cores / servers).max(1));
    let sets = sets.iter().map(ToString::to_string).chain([workers]).collect();
    Onebox::start(name, &OneboxOptions { replicas: servers, sets, ..OneboxOptions::default() })
}

/// A run of `pegasus-bench`, which may go on while other things happen.
fn bench(onebox: &Onebox, line: &str) -> Child {
    Command::new(program("pegasus-bench"))
        .args(["--meta", &onebox.meta().to_string(), "--json"])
        .args(line.split_whitespace())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the bench starts")
}

fn report(run: Child) -> Value {
    let output = run.wait_with_output().expect("the bench ends");
    serde_json::from_slice(&output.stdout).expect("a report")
}

fn number(report: &Value, path: &str) -> f64 {
    report.pointer(path).and_then(Value::as_f64).unwrap_or(f64::NAN)
}

fn create(client: &PegasusClient, name: &str, partitions: i32, replicas: i32) {
    let spec = TableSpec {
        name: name.to_owned(),
        partitions,
        replicas,
        envs: Default::default(),
        if_not_exists: true,
    };
    client.admin().create_and_wait(&spec, PATIENCE, |_| {}).expect("a table");
}

/// Whether every group of a table has a primary and so many secondaries.
fn whole(client: &PegasusClient, table: &str, secondaries: usize) -> bool {
    let Ok(config) = client.admin().query_config(table) else { return false };
    let whole = |group: &PartitionConfiguration| {
        group.primary.is_valid() && group.secondaries.len() == secondaries
    };
    config.partitions.iter().all(|group| whole(&group))
}

/// Waits for `done`; returns how long that took.
fn until(what: &str, mut done: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "{what} takes too long");
        std::thread::sleep(Duration::from_millis(5));
    }
    begun.elapsed()
}

fn group_sync() {
    let onebox = syncing();
    let rates = sets_per_second("group_sync", &onebox, &[1, 64, 256]);
    println!("64 connections: {:.1} times the sets/s of one", rates[1] / rates[0]);
}

/// The same where a sync takes longer than on the disk at hand: each call of `fdatasync` by a thread that syncs logs
/// returns so much later.
fn group_sync_slower() {
    let onebox = syncing();
    for delay in SYNC_DELAYS {
        let slowed: Vec<Child> =
            (1..=SERVERS).flat_map(|server| slow_syncs(&onebox, server, delay)).collect();
        let name = format!("group_sync, syncs {delay:?} longer");
        let rates = sets_per_second(&name, &onebox, &[1, 64, 256]);
        println!("{name}: 64 connections: {:.1} times the sets/s of one", rates[1] / rates[0]);
        for mut strace in slowed {
            let _ = Command::new("kill").arg(strace.id().to_string()).status();
            let _ = strace.wait();
        }
    }
}

/// A cluster that acknowledges what is synced.
fn syncing() -> Onebox {
    let onebox = cluster("figures-sync", SERVERS, &["replication.log_durability=\"group_sync\""]);
    drop(onebox.with_table(SERVERS as i32));
    onebox
}

fn sets_per_second(name: &str, onebox: &Onebox, connections: &[usize]) -> Vec<f64> {
    let measure = |connections: &usize| {
        let line = format!("-o set -c {connections} --duration 5s --warm-up 1s");
        let report = report(bench(onebox, &line));
        let rate = number(&report, "/ops_per_s");
        let p99 = number(&report, "/kinds/set/latency_us/p99") / 1000.0;
        println!("{name}, {connections} connections: {rate:.0} sets/s, p99 {p99:.1} ms");
        rate
    };
    connections.iter().map(measure).collect()
}

/// Attaches `strace` to the threads of a server that sync its logs.
fn slow_syncs(onebox: &Onebox, server: usize, delay: Duration) -> Vec<Child> {
    let pid = onebox.pid(server).expect("it runs");
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
    let syncs = |task: &fs::DirEntry| {
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        name.starts_with("log-")
    };
    let attach = |task: fs::DirEntry| {
        let slower = format!("inject=fdatasync:delay_exit={}", delay.as_micros());
        Command::new("strace")
            .args(["-qq", "-e", "trace=fdatasync", "-e", &slower, "-o", "/dev/null", "-p"])
            .arg(task.file_name())
            .spawn()
            .expect("strace is installed, and may attach")
    };
    let attached: Vec<Child> = tasks.flatten().filter(syncs).map(attach).collect();
    assert!(!attached.is_empty(), "no thread of server {server} syncs logs");
    attached
}

/// Kills a primary and waits until all partitions take writes again; then until all groups are whole.
fn outages(name: &str, kills: usize, sets: &[&str]) {
    let mut onebox = cluster("figures-failover", SERVERS, sets);
    let client = onebox.with_table(SERVERS as i32);
    let table = client.table("temp").with_timeout(Duration::from_millis(100));
    let write = |n| table.set(format!("probe{n}").as_bytes(), b"s", "").is_ok();
    let mut outages = Vec::new();
    for kill in 0..kills {
        until("mending", || whole(&client, "temp", SERVERS - 1));
        until("writing", || (0..PROBES).all(write));
        let victim = 1 + kill % SERVERS;
        onebox.kill(victim);
        let mut next = 0;
        let outage = until("failing over", || {
            while next < PROBES && write(next) {
                next += 1;
            }
            next == PROBES
        });
        outages.push(outage.as_secs_f64() * 1000.0);
        onebox.start_instance(victim);
    }
    outages.sort_by(f64::total_cmp);
    let (median, worst) = (outages[kills / 2], outages[kills - 1]);
    println!(
        "{name}: all partitions writable {median:.0} ms after the kill of a server, worst of {kills}: {worst:.0} ms"
    );
}

fn failover() {
    outages("fast path", KILLS, &[]);
}

fn failover_by_lease() {
    outages("default leases", KILLS, &["meta_server.fast_failover_enabled=false"]);
}

fn learning() {
    const RECORDS: usize = 1_000_000;
    let mut onebox = cluster("figures-learning", SERVERS, &["replication.lb_interval_ms=1000"]);
    let client = onebox.with_table(SERVERS as i32);
    let shape = format!("--keys {RECORDS} --value-size 1000");
    let _ = bench(&onebox, &format!("{shape} --load-only")).wait();
    let load = |time: &str| {
        bench(&onebox, &format!("{shape} -o mixed --rate 2000 -c 16 --duration {time}"))
    };
    let before = report(load("8s"));
    onebox.kill(SERVERS);
    let data = onebox.dir().join(format!("replica@{SERVERS}/data"));
    fs::remove_dir_all(&data).expect("the data of a server");
    until("failing over", || whole(&client, "temp", SERVERS - 2));
    onebox.start_instance(SERVERS);
    let during = bench(&onebox, &format!("{shape} -o mixed --rate 2000 -c 16 --duration 8s"));
    let took = until("learning", || whole(&client, "temp", SERVERS - 1));
    let during = report(during);
    let megabytes = RECORDS as f64 * 1024.0 / 1e6;
    println!(
        "learning: {megabytes:.0} MB in {took:.1?}: {:.0} MB/s",
        megabytes / took.as_secs_f64()
    );
    for kind in ["get", "set"] {
        let p99 = |report| number(report, &format!("/kinds/{kind}/latency_us/p99")) / 1000.0;
        println!(
            "p99 of {kind} at 2,000/s: {:.1} ms before, {:.1} ms meanwhile",
            p99(&before),
            p99(&during)
        );
    }
}

fn restart() {
    let mut onebox = cluster("figures-restart", 1, &[]);
    let client = onebox.with_table(1);
    create(&client, "many", 128, 1);
    let _ = bench(&onebox, "--table many --keys 200000 --value-size 100 --load-only").wait();
    let table = client.table("many").with_timeout(Duration::from_millis(200));
    for signal in ["kill -9", "SIGTERM"] {
        match signal {
            "SIGTERM" => assert!(onebox.stop(1)),
            _ => onebox.kill(1),
        }
        let begun = Instant::now();
        onebox.start_instance(1);
        let listens = begun.elapsed();
        let mut next = 0;
        until("serving", || {
            while next < 1000 && table.get(format!("key{next}").as_bytes(), b"s").is_ok() {
                next += 1;
            }
            next == 1000
        });
        println!(
            "restart with 136 replicas after {signal}: listens after {listens:.1?}, serves all after {:.1?}",
            begun.elapsed()
        );
    }
}

fn idle() {
    const WATCH: Duration = Duration::from_secs(20);
    let onebox = cluster("figures-idle", SERVERS, &[]);
    let client = onebox.with_table(SERVERS as i32);
    create(&client, "many", 128, SERVERS as i32);
    drop(client);
    std::thread::sleep(Duration::from_secs(5));
    let pids: Vec<u32> = (0..=SERVERS).filter_map(|index| onebox.pid(index)).collect();
    let before: Vec<Duration> = pids.iter().map(|pid| cpu_time::of_process(*pid)).collect();
    std::thread::sleep(WATCH);
    for (index, (pid, before)) in pids.iter().zip(before).enumerate() {
        let share =
            (cpu_time::of_process(*pid) - before).as_secs_f64() / WATCH.as_secs_f64() * 100.0;
        let name = if index == 0 {
            "meta server".to_owned()
        } else {
            format!("replica@{index}, 136 replicas")
        };
        println!("idle: {name}: {share:.2} % of a core");
    }
}
