//! The program `pegasus-shell` against a cluster in memory: what it prints, where, and how it ends.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod fake;

use dsn_core::app::ServiceApp;
use dsn_replication::meta::envs::EnvRules;
use dsn_replication::meta::{MetaApp, MetaAppOptions};
use dsn_replication::options::{MetaServerOptions, ReplicationOptions};
use dsn_rpc::RpcOptions;
use fake::{Server, World};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a run of the shell left.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn shell(meta: &Server, words: &[&str], input: &str) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pegasus-shell"))
        .args(["--meta", &meta.addr.to_string(), "--timeout", "5"])
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    Ran {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn cluster() -> (World, Server, Server) {
    let world = World::default();
    let (meta, replica) = (Server::meta(&world), Server::replica(&world));
    world.add_table("temp", 7, 4, &[&replica]);
    (world, meta, replica)
}

#[test]
fn single_commands_print_their_answer_or_an_error() {
    let (_world, meta, _replica) = cluster();
    let run = |words: &[&str]| shell(&meta, words, "");
    let ran = run(&["set", "temp", r"h\x00k", "s", r"a\nb\\"]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "OK\n", ""));
    let ran = run(&["get", "temp", r"h\x00k", "s"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "a\\x0ab\\\\\n"));
    let ran = run(&["--json", "get", "temp", r"h\x00k", "s"]);
    assert_eq!(serde_json::from_str::<Value>(&ran.out).unwrap(), json!({"value": r"a\x0ab\\"}));
    let ran = run(&["incr", "temp", "h", "n", "-5"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "-5\n"));

    let ran = run(&["get", "temp", "h", "absent"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(ran.err.contains("no such record") && ran.err.contains("absent"), "{}", ran.err);
    let ran = run(&["incr", "temp", r"h\x00k", "s"]);
    assert_eq!(ran.code, 1);
    for part in ["invalid argument", "table temp", r"h\x00k", "server 127."] {
        assert!(ran.err.contains(part), "{} does not name {part}", ran.err);
    }
    let ran = run(&["get", "nobody", "h", "s"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("no such table") && ran.err.contains("nobody"), "{}", ran.err);
    for wrong in [&["get", "temp", "h"][..], &["gte"], &["set", "temp", "h", "s", r"\q"]] {
        let ran = run(wrong);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{wrong:?}");
        assert!(!ran.err.is_empty());
    }
}

#[test]
fn lines_are_run_one_after_the_other() {
    let (_world, meta, _replica) = cluster();
    let lines = "\
# some records
set temp 'a key' 1 one
set temp \"a key\" 2 \"two words\"

get temp a\\ key 2
nonsense
full_scan temp
count_data temp
exit
get temp a\\ key 1
";
    let ran = shell(&meta, &[], lines);
    assert_eq!(ran.code, 1, "one of them has failed");
    assert!(ran.err.contains("nonsense"), "{}", ran.err);
    let expected = "\
OK
OK
two words
Hash Key  Sort Key  Value
a key     1         one
a key     2         two words
2
";
    assert_eq!(ran.out, expected);
    let ran = shell(&meta, &["--json"], "full_scan temp --max 1\nmulti_get temp 'a key'\n");
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let mut documents = serde_json::Deserializer::from_str(&ran.out).into_iter::<Value>();
    let row = json!({"hash_key": "a key", "sort_key": "1", "value": "one"});
    assert_eq!(documents.next().unwrap().unwrap(), json!([row]));
    assert_eq!(documents.next().unwrap().unwrap()[1]["value"], json!("two words"));
    assert!(documents.next().is_none());
}

#[test]
fn create_waits_and_says_what_for() {
    let (world, meta, replica) = cluster();
    world.edit(|state| state.nodes = vec![replica.addr]);
    let words = ["create", "temp", "--partitions", "4", "--replicas", "1", "--if-not-exists"];
    let ran = shell(&meta, &[&words[..], &["--wait", "60"]].concat(), "");
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("temp") && ran.out.contains("ready"), "{}", ran.out);
    // Nobody serves this one.
    let ran = shell(&meta, &["create", "new", "-p", "8", "-r", "1", "--wait", "1"], "");
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("waiting: ") && ran.err.contains("0 of 8 partitions"), "{}", ran.err);
    let ran = shell(&meta, &["create", "more", "-r", "2", "--wait", "1"], "");
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("1 replica servers are alive, 2 replicas"), "{}", ran.err);
}

/// The meta server itself, without a replica server.
fn real_meta(data_dir: PathBuf) -> Server {
    let mut addr = fake::own_host();
    addr.set_port(34601);
    let options = MetaAppOptions {
        listen: addr,
        data_dir,
        replication: ReplicationOptions::default(),
        meta: MetaServerOptions::default(),
        rpc: RpcOptions::default(),
        envs: EnvRules::new(),
        extend: Box::new(|_| {}),
    };
    let app = Box::new(move || Box::new(MetaApp::new(options)) as Box<dyn ServiceApp>);
    Server::from((addr, fake::start_node(app)))
}

#[expect(clippy::disallowed_methods, reason = "a test clears up behind a server that has ended")]
fn remove(dir: &Path) {
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_meta_server_without_replica_servers_explains_itself() {
    let dir = std::env::temp_dir().join(format!("pegasus-shell-{}", std::process::id()));
    let meta = real_meta(dir.clone());
    let run = |words: &[&str]| shell(&meta, words, "");
    let ran = run(&["cluster_info"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let leader = ran.out.lines().find(|line| line.starts_with("primary_meta_server")).unwrap();
    assert!(leader.ends_with(&meta.addr.to_string()), "{leader}");
    assert_eq!(run(&["--json", "ls", "--all"]).out, "[]\n");
    assert_eq!(run(&["nodes", "-d"]).out.lines().count(), 1, "only the heading");
    let ran = run(&["create", "temp", "-p", "8", "-r", "1", "-f", "--wait", "1"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("0 replica servers are alive, 1 replicas"), "{}", ran.err);
    for words in [&["drop", "temp"][..], &["app", "temp"], &["get_app_envs", "temp"]] {
        let ran = run(words);
        assert!(ran.code == 1 && ran.err.contains("no such table"), "{words:?}: {}", ran.err);
        assert!(ran.err.contains("table temp"), "{words:?}: {}", ran.err);
    }
    let ran = run(&["recall", "5"]);
    assert!(ran.code == 1 && ran.err.contains("app id 5"), "{}", ran.err);
    drop(meta);
    remove(&dir);
}

#[test]
fn servers_and_partitions_are_shown() {
    let (world, meta, replica) = cluster();
    world.edit(|state| state.nodes = vec![replica.addr]);
    let at = replica.addr.to_string();
    let ran = shell(&meta, &["nodes"], "");
    assert!(ran.code == 0 && ran.out.contains(&at) && ran.out.contains("alive"), "{}", ran.out);
    let ran = shell(&meta, &["--json", "app", "temp"], "");
    let partitions: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(partitions[3]["partition"], json!(3));
    assert_eq!((&partitions[3]["primary"], &partitions[3]["ballot"]), (&json!(at), &json!(3)));
    let to = meta.addr.to_string();
    let ran = shell(&meta, &["remote_command", "-l", &to, "config-set", "a.b", "-x"], "");
    assert_eq!((ran.code, ran.out.as_str()), (0, "config-set: a.b+-x\n"));
    let ran = shell(&meta, &["remote_command", "-l", "127.0.0.1:1", "version"], "");
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(ran.err.contains("127.0.0.1:1"), "{}", ran.err);
}
