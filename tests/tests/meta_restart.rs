//! The meta server as a process of its own: what it has acknowledged is there after `kill -9`, and while it is away the
//! replica server goes on with what it serves, for as long as its lease lasts.
#![expect(clippy::disallowed_methods, reason = "a native test lives outside the runtime")]

use cluster_tests::onebox::{Onebox, OneboxOptions};
use dsn_replication::wire::admin::NodeStatus;
use dsn_replication::wire::config::{AppInfo, AppStatus};
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::host_port::HostPort;
use pegasus_client::{Admin, ClientError, ClientOptions, PegasusClient, Reason, TableSpec};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
/// Times that the meta server is killed.
const KILLS: usize = 5;

fn spec(name: &str, partitions: i32) -> TableSpec {
    TableSpec {
        name: name.to_owned(),
        partitions,
        replicas: 1,
        envs: BTreeMap::new(),
        if_not_exists: false,
    }
}

/// A table as the meta server lists it: name, id, partitions, status, envs.
type Row = (String, i32, i32, AppStatus, BTreeMap<String, String>);

struct Cluster {
    onebox: Onebox,
    client: PegasusClient,
}

impl Cluster {
    /// A cluster with the table `temp`.
    fn start(name: &str) -> Self {
        let onebox = Onebox::start(name, &OneboxOptions::single());
        let mut options = ClientOptions::new([HostPort::new("localhost", onebox.meta().port())]);
        options.timeout = Duration::from_secs(20);
        let client = PegasusClient::with_options(options).expect("client");
        let cluster = Self { onebox, client };
        cluster.create("temp", 8);
        cluster
    }

    fn admin(&self) -> Admin {
        self.client.admin()
    }

    /// Makes a table and waits until it serves.
    fn create(&self, name: &str, partitions: i32) {
        let made = self.admin().create_and_wait(&spec(name, partitions), PATIENCE, |_| {});
        made.unwrap_or_else(|error| panic!("{error}\n{}", self.onebox.stderr(0)));
    }

    fn restart_meta(&mut self) {
        self.onebox.kill(0);
        self.onebox.start_instance(0);
    }

    /// All tables, dropped ones too. Waits until the meta server leads.
    fn tables(&self) -> Vec<Row> {
        let tables = self.admin().list_tables(AppStatus::Invalid).expect("the tables");
        let row = |info: AppInfo| {
            (info.app_name, info.app_id, info.partition_count, info.status, info.envs)
        };
        tables.into_iter().map(row).collect()
    }
}

fn code_of<T: std::fmt::Debug>(outcome: Result<T, ClientError>) -> ErrorCode {
    match outcome.expect_err("a refusal").reason {
        Reason::Refused(code) | Reason::Hinted(code, _) => code,
        other => panic!("no refusal by the meta server: {other:?}"),
    }
}

/// Tries until there is an answer: envs reach the replicas with the next report.
fn until_some<T>(mut f: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        match f() {
            Some(found) => return found,
            None if begun.elapsed() > PATIENCE => panic!("not in {PATIENCE:?}"),
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

#[test]
fn tables_and_envs_survive_kills_of_the_meta_server() {
    let mut cluster = Cluster::start("meta-state");
    let table = cluster.client.table("temp");
    table.set(b"before", b"s", "1").expect("set");
    for round in 0..KILLS {
        println!("round {round}");
        let name = format!("round{round}");
        cluster.create(&name, 1 << round);
        let admin = cluster.admin();
        let envs = [("default_ttl".to_owned(), (1000 + round).to_string())];
        admin.set_envs(&name, &BTreeMap::from(envs)).expect("envs");
        if round > 0 {
            admin.drop_table(&format!("round{}", round - 1), None).expect("drop");
        }
        let before = cluster.tables();
        cluster.restart_meta();
        assert_eq!(cluster.tables(), before, "what was acknowledged is there");
        let status = |name: &str| before.iter().find(|row| row.0 == name).expect(name).3;
        assert_eq!(status(&name), AppStatus::Available);
        assert_eq!(status("temp"), AppStatus::Available);
        if round > 0 {
            assert_eq!(status(&format!("round{}", round - 1)), AppStatus::Dropped);
        }
        // The same process of the replica server has come back to the new meta server, and serves all there is.
        let other = cluster.client.table(&name);
        let expected = 900 + round as u32..=1000 + round as u32;
        let left = until_some(|| {
            other.set(b"k", b"s", "v").expect("set");
            other.ttl(b"k", b"s").expect("ttl").expect("the record")
        });
        assert!(expected.contains(&left), "{left} seconds left: the env has reached the replica");
        assert_eq!(table.get(b"before", b"s").expect("get").as_deref(), Some(&b"1"[..]));
    }
    let nodes = cluster.admin().list_nodes(NodeStatus::Alive).expect("nodes");
    assert_eq!(nodes.len(), 1, "{nodes:?}");
}

#[test]
fn clients_go_on_while_the_meta_server_is_away() {
    let mut cluster = Cluster::start("meta-away");
    let table = cluster.client.table("temp").with_timeout(Duration::from_secs(5));
    for n in 0..100 {
        table.set(format!("k{n}").as_bytes(), b"s", n.to_string()).expect("set");
    }
    cluster.onebox.kill(0);
    // Well within the lease, of which a third has gone at most.
    let begun = Instant::now();
    let mut rounds = 0;
    while begun.elapsed() < Duration::from_secs(2) {
        for n in 0..100 {
            let key = format!("k{n}");
            table.set(key.as_bytes(), b"s", rounds.to_string()).expect("set without meta server");
            let found = table.get(key.as_bytes(), b"s").expect("get without meta server");
            assert_eq!(found.as_deref(), Some(rounds.to_string().as_bytes()));
        }
        rounds += 1;
    }
    assert!(rounds > 0);
    cluster.onebox.start_instance(0);
    // The lease begins again before anything is refused, or comes back soon after.
    for n in 0..100 {
        let found = table.get(format!("k{n}").as_bytes(), b"s").expect("get");
        assert_eq!(found.as_deref(), Some((rounds - 1).to_string().as_bytes()));
    }
}

#[test]
fn the_meta_server_answers_with_the_codes_of_the_protocol() {
    let cluster = Cluster::start("meta-codes");
    let admin = cluster.admin();
    let temp = |partitions| TableSpec { if_not_exists: true, ..spec("temp", partitions) };
    let id = admin.create_table(&temp(8)).expect("it is there, and the same");
    assert_eq!(code_of(admin.create_table(&spec("temp", 8))), ErrorCode::AppExist);
    assert_eq!(code_of(admin.create_table(&temp(16))), ErrorCode::InvalidParameters);
    let bad_names = ["", "a b", "a/b", "täble", &"x".repeat(300)];
    for name in bad_names {
        assert_eq!(
            code_of(admin.create_table(&spec(name, 4))),
            ErrorCode::InvalidParameters,
            "{name}"
        );
    }
    for partitions in [0, -8, 3, 12] {
        let error = admin.create_table(&spec("odd", partitions)).expect_err("no power of two");
        assert!(matches!(error.reason, Reason::Invalid(_)), "{error}");
    }
    let too_many = TableSpec { replicas: 3, ..spec("three", 4) };
    assert_eq!(code_of(admin.create_table(&too_many)), ErrorCode::InvalidParameters);
    for (name, value) in [("default_ttl", "-1"), ("no.such.env", "1")] {
        let envs = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        let with = TableSpec { envs: envs.clone(), ..spec("envs", 4) };
        assert_eq!(code_of(admin.create_table(&with)), ErrorCode::InvalidParameters, "{name}");
        assert_eq!(code_of(admin.set_envs("temp", &envs)), ErrorCode::InvalidParameters, "{name}");
    }
    let gone = |outcome: Result<(), ClientError>| outcome.expect_err("no table").reason;
    assert_eq!(gone(admin.drop_table("nothing", None)), Reason::NoSuchTable);
    let error = cluster.client.table("nothing").get(b"k", b"s").expect_err("no table");
    assert_eq!(error.reason, Reason::NoSuchTable);
    assert_eq!(error.place.table, "nothing");
    // Dropped, gone for its users; recalled, all is back.
    let table = cluster.client.table("temp");
    table.set(b"k", b"s", "v").expect("set");
    admin.drop_table("temp", None).expect("drop");
    assert_eq!(gone(admin.drop_table("temp", None)), Reason::NoSuchTable);
    let fresh = PegasusClient::with_options(cluster.client.options()).expect("client");
    let error = fresh.table("temp").get(b"k", b"s").expect_err("dropped");
    assert_eq!(error.reason, Reason::NoSuchTable);
    admin.recall_table(id, "").expect("recall");
    let found = fresh.table("temp").get(b"k", b"s").expect("get");
    assert_eq!(found.as_deref(), Some(&b"v"[..]));
}
