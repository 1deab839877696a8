//! A byte of the mutation log flips between `kill -9` and restart: the partition concerned stays out, with its data,
//! and says so; all others serve everything that was acknowledged.
#![expect(clippy::disallowed_methods, reason = "a native test lives outside the runtime")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cluster_tests::onebox::{Onebox, OneboxOptions};
use pegasus_client::schema::partition_hash::{of_record, partition_index};
use pegasus_client::{ClientOptions, PegasusClient, Table, TableSpec};

const PARTITIONS: i32 = 8;
const RECORDS: u64 = 400;
/// In a record of the middle of the log.
const MARKER: &str = "here the byte will flip";
const VICTIM_RECORD: u64 = RECORDS / 2;

fn key(n: u64) -> String {
    format!("key{n}")
}

fn value(n: u64) -> String {
    if n == VICTIM_RECORD { MARKER.to_owned() } else { format!("value{n}") }
}

fn partition(n: u64) -> i32 {
    partition_index(of_record(key(n).as_bytes(), b"s"), PARTITIONS)
}

fn create(onebox: &Onebox) -> (PegasusClient, Table) {
    let mut options = ClientOptions::new([onebox.meta()]);
    options.timeout = Duration::from_secs(20);
    let client = PegasusClient::with_options(options).expect("client");
    let spec = TableSpec {
        name: "temp".to_owned(),
        partitions: PARTITIONS,
        replicas: 1,
        envs: Default::default(),
        if_not_exists: true,
    };
    client.admin().create_and_wait(&spec, Duration::from_secs(60), |_| {}).expect("a table");
    let table = client.table("temp");
    (client, table)
}

/// The files below a folder.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

fn flip_in_log(dir: &Path) {
    let in_log = |path: &PathBuf| path.components().any(|part| part.as_os_str() == "log");
    let mut flipped = 0;
    for path in files(dir).into_iter().filter(in_log) {
        let mut bytes = fs::read(&path).expect("a log file");
        let found = bytes.windows(MARKER.len()).position(|window| window == MARKER.as_bytes());
        if let Some(at) = found {
            bytes[at] ^= 1;
            fs::write(&path, bytes).expect("written");
            flipped += 1;
        }
    }
    assert_eq!(flipped, 1, "the record is in the log, once");
}

fn http(onebox: &Onebox, path: &str) -> String {
    let mut stream = TcpStream::connect(onebox.replica(1)).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// Bug 22: one damaged place of a log takes all replicas of the server along.
#[test]
fn a_flipped_byte_in_the_middle_of_the_log_costs_one_partition() {
    let mut onebox = Onebox::start("corruption", &OneboxOptions::single());
    let (_client, table) = create(&onebox);
    for n in 0..RECORDS {
        table.set(key(n).as_bytes(), b"s", value(n)).expect("acknowledged");
    }
    onebox.kill(1);
    flip_in_log(onebox.dir());
    onebox.start_instance(1);
    let victim = partition(VICTIM_RECORD);
    let mut served = 0;
    for n in (0..RECORDS).filter(|n| partition(*n) != victim) {
        let found = table.get(key(n).as_bytes(), b"s").expect("the others serve");
        assert_eq!(found.as_deref(), Some(value(n).as_bytes()), "{} was acknowledged", key(n));
        served += 1;
    }
    assert!(served > RECORDS / 2, "{served}");
    let impatient = table.with_timeout(Duration::from_secs(2));
    let lost = impatient.get(key(VICTIM_RECORD).as_bytes(), b"s");
    assert!(lost.is_err(), "never a wrong answer, never an empty one: {lost:?}");
    let told = http(&onebox, "/replica/unserved");
    assert!(told.contains(&format!(".{victim}\"")) && told.contains("damaged"), "{told}");
    let metrics = http(&onebox, "/metrics?types=server&metrics=replica_error_dirs");
    assert!(metrics.contains("\"replica_error_dirs\",\"value\":1"), "{metrics}");
    let kept = files(onebox.dir()).into_iter().any(|path| {
        path.components().any(|part| {
            let name = part.as_os_str().to_string_lossy();
            name.contains(&format!(".{victim}.pegasus.")) && name.ends_with(".err")
        })
    });
    assert!(kept, "its data is kept");
    // The others go on, and are all there after an orderly stop as well.
    for n in (0..RECORDS).filter(|n| partition(*n) != victim).take(20) {
        table.set(key(n).as_bytes(), b"t", "more").expect("acknowledged");
    }
    assert!(onebox.stop(1), "an orderly stop");
    onebox.start_instance(1);
    for n in (0..RECORDS).filter(|n| partition(*n) != victim) {
        let found = table.get(key(n).as_bytes(), b"s").expect("the others serve");
        assert_eq!(found.as_deref(), Some(value(n).as_bytes()));
    }
    assert!(impatient.get(key(VICTIM_RECORD).as_bytes(), b"s").is_err());
}
