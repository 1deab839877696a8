//! A real server that nobody talks to: how many threads it has and what it costs; then its toollets, switched by
//! commands while it runs.
#![expect(clippy::disallowed_methods, reason = "a native test lives outside the runtime")]

use cluster_tests::cpu_time;
use cluster_tests::onebox::{Onebox, OneboxOptions};
use cluster_tests::tell;
use pegasus_client::PegasusClient;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Threads of a server on two cores, those of RocksDB and jemalloc included.
const THREADS_MAX: usize = 16;
/// CPU time of an idle server, in thousandths of one core.
const IDLE_PERMILLE_MAX: f64 = 10.0;
/// How long a server is watched.
const WATCH: Duration = Duration::from_secs(5);

/// A cluster of one replica server as it is on two cores, with a table that has some data.
fn cluster(name: &str) -> (Onebox, PegasusClient) {
    let sets = vec!["runtime.workers=2".to_owned()];
    let onebox = Onebox::start(name, &OneboxOptions { sets, ..OneboxOptions::single() });
    let client = onebox.with_table(1);
    let table = client.table("temp");
    for n in 0..100 {
        let key = format!("key{n}");
        table.set(key.as_bytes(), b"s", "value").expect("set");
    }
    (onebox, client)
}

/// Names of a process's threads.
fn threads(pid: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let mut names: Vec<String> = tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .map(|name| name.trim().to_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn an_idle_server_has_few_threads_and_hardly_runs() {
    let (onebox, client) = cluster("idle");
    drop(client);
    std::thread::sleep(Duration::from_secs(1));
    for (index, name) in ["meta server", "replica server"].into_iter().enumerate() {
        let pid = onebox.pid(index).expect("it runs");
        let (begun, before) = (Instant::now(), cpu_time::of_process(pid));
        std::thread::sleep(WATCH);
        let used = cpu_time::of_process(pid).saturating_sub(before);
        let permille = used.as_secs_f64() / begun.elapsed().as_secs_f64() * 1_000.0;
        let threads = threads(pid);
        tell!(
            "{name}: {} threads, {:.2} % of a core idle: {threads:?}",
            threads.len(),
            permille / 10.0
        );
        assert!(threads.len() <= THREADS_MAX, "{name} has {} threads: {threads:?}", threads.len());
        assert!(permille < IDLE_PERMILLE_MAX, "{name} uses {:.2} % of a core", permille / 10.0);
    }
}

/// The body of an HTTP answer.
fn http(addr: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(addr).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or(answer)
}

#[test]
fn toollets_are_switched_on_a_running_server() {
    const GET: &str = "RPC_RRDB_RRDB_GET";
    let (onebox, client) = cluster("toollets");
    let table = client.table("temp");
    let command = |name: &str, words: &str| {
        http(onebox.replica(1), &format!("/command?name={name}&args={}", words.replace(' ', "%20")))
    };
    let get = || table.get(b"key1", b"s");
    get().expect("get");
    assert!(!command("profiler", GET).contains(GET), "it is off");

    assert!(command("toollet", "profiler on").contains("profiler: on"));
    assert!(command("toollet", "tracer on").contains("tracer: on"));
    for _ in 0..10 {
        get().expect("get");
    }
    let profile = command("profiler", GET);
    let row = profile.lines().find(|line| line.starts_with(GET)).unwrap_or_default();
    assert_eq!(row.split_whitespace().nth(1), Some("10"), "{profile}");
    assert!(command("tracer.find", GET).lines().count() >= 10);

    assert_eq!(command("config-set", &format!("task.{GET}.fault.fail 1")), "OK");
    get().expect("the injector is off");
    assert!(command("toollet", "fault_injector on").contains("fault_injector: on"));
    let begun = Instant::now();
    let failed = get().expect_err("every read fails");
    assert!(begun.elapsed() < Duration::from_secs(30), "{failed}");
    assert!(command("toollet", "fault_injector off").contains("fault_injector: off"));
    assert_eq!(get().expect("get").as_deref(), Some(&b"value"[..]));

    command("toollet", "profiler off");
    let before = command("profiler", GET);
    get().expect("get");
    assert_eq!(command("profiler", GET), before, "it no longer counts");
}
