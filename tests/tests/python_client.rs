//! The unmodified Python client from the package index, against a real onebox started as a user would: everything it
//! can do, and then with servers killed and started again under it all the time.
#![expect(clippy::disallowed_methods, reason = "a native test lives outside the runtime")]

use cluster_tests::onebox::{free_port_base, repository, scratch};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A virtual environment with the client, made once per machine and requirements file.
fn environment() -> PathBuf {
    let requirements = repository().join("tests/python/requirements.txt");
    let wanted = std::fs::read_to_string(&requirements).expect("requirements");
    let home = std::env::var_os("HOME").map_or_else(std::env::temp_dir, PathBuf::from);
    let venv = home.join(".cache/pegasus/python-client");
    let stamp = venv.join("requirements.txt");
    if std::fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return venv;
    }
    let run = |command: &mut Command| {
        let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        assert!(status.success(), "{command:?}: {status}");
    };
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv));
    run(Command::new(venv.join("bin/pip")).args(["install", "-q", "-r"]).arg(&requirements));
    std::fs::copy(&requirements, &stamp).expect("stamp");
    venv
}

fn run_sh(dir: &Path, arguments: &[&str]) -> bool {
    let status = Command::new(repository().join("run.sh"))
        .args(arguments)
        .arg("--dir")
        .arg(dir)
        .status()
        .expect("run.sh");
    status.success()
}

/// A onebox that a user has started; removed when it is dropped.
struct UserBox {
    dir: PathBuf,
    meta: String,
    /// A script that is `run.sh` for it.
    run_sh: PathBuf,
}

impl UserBox {
    fn start(name: &str, more: &[&str]) -> Self {
        let dir = scratch(name).join("onebox");
        let base = free_port_base();
        let wrapper = dir.parent().expect("scratch").join("run.sh");
        let script = repository().join("run.sh");
        let text = format!("#!/bin/sh\nexec {} \"$@\" --dir {}\n", script.display(), dir.display());
        std::fs::write(&wrapper, text).expect("wrapper");
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&wrapper, executable).expect("mode");
        let onebox = Self { dir, meta: format!("127.0.0.1:{}", base + 1), run_sh: wrapper };
        let port_base = base.to_string();
        let start = [&["start_onebox", "--port-base", &port_base], more].concat();
        assert!(run_sh(&onebox.dir, &start), "the onebox starts");
        onebox
    }

    /// Runs a script of tests/python against it; gives what it printed.
    fn python(&self, script: &str, arguments: &[&str]) -> String {
        let outcome = Command::new(environment().join("bin/python"))
            .args(["-W", "ignore"])
            .arg(repository().join("tests/python").join(script))
            .arg(&self.meta)
            .arg(&self.run_sh)
            .args(arguments)
            .output()
            .expect("python");
        let text = String::from_utf8_lossy(&outcome.stdout).into_owned();
        println!("{text}\n{}", last(&String::from_utf8_lossy(&outcome.stderr)));
        assert!(outcome.status.success(), "see above");
        text
    }
}

impl Drop for UserBox {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the servers' files are kept in {:?}", self.dir);
            run_sh(&self.dir, &["stop_onebox"]);
            return;
        }
        assert!(run_sh(&self.dir, &["clear_onebox"]));
        assert!(!self.dir.exists(), "clear_onebox removes everything");
        let _ = std::fs::remove_dir_all(self.dir.parent().expect("scratch"));
    }
}

/// The end of a long text: the client says much about every lost connection.
fn last(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

#[test]
fn everything_the_python_client_can_do() {
    let onebox = UserBox::start("python", &[]);
    // A second start must be harmless.
    assert!(run_sh(&onebox.dir, &["start_onebox"]));
    let text = onebox.python("acceptance.py", &["replica@1,replica@2,replica@3"]);
    assert!(text.contains(" passed, 0 failed"), "the report is complete");
}

#[test]
fn the_python_client_loses_nothing_while_servers_are_killed() {
    // As short as the checks of lease and grace allow.
    let quick = [
        "replication.fd_beacon_interval_seconds=1",
        "replication.fd_check_interval_seconds=1",
        "replication.fd_lease_seconds=4",
        "replication.fd_grace_seconds=5",
    ];
    let sets: Vec<&str> = quick.iter().flat_map(|set| ["--set", set]).collect();
    let onebox = UserBox::start("python-kills", &sets);
    let record = onebox.dir.join("record");
    let seed = std::process::id().to_string();
    let text = onebox.python(
        "under_kills.py",
        &[&record.display().to_string(), "45", &seed, "replica@1,replica@2,replica@3,meta@1"],
    );
    let result = text.lines().last().expect("a result");
    let number = |what: &str| -> u64 {
        let words: Vec<&str> = result.split([' ', ',']).filter(|word| !word.is_empty()).collect();
        let at = words.iter().position(|word| *word == what).unwrap_or_else(|| panic!("{result}"));
        words[at - 1].parse().expect("a number")
    };
    assert_eq!(number("wrong"), 0, "{result}");
    assert!(number("kills") >= 8, "{result}");
    assert!(number("acknowledged") >= 2_000, "{result}");
    assert!(number("scans") >= 100 && number("reads") >= 1_000, "{result}");
}
