//! The unmodified Python client from the package index, against a real onebox started as a user would.
#![expect(clippy::disallowed_methods, reason = "a native test lives outside the runtime")]

use cluster_tests::onebox::{free_port, repository, scratch};
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

#[test]
fn everything_the_python_client_can_do() {
    let venv = environment();
    let dir = scratch("python").join("onebox");
    let base = free_port() - 1;
    assert!(run_sh(&dir, &["start_onebox", "--port-base", &base.to_string()]));
    // A second start must be harmless.
    assert!(run_sh(&dir, &["start_onebox"]));
    let wrapper = dir.join("run.sh");
    let text = format!(
        "#!/bin/sh\nexec {} \"$@\" --dir {}\n",
        repository().join("run.sh").display(),
        dir.display()
    );
    std::fs::write(&wrapper, text).expect("wrapper");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&wrapper, executable).expect("mode");
    let outcome = Command::new(venv.join("bin/python"))
        .args(["-W", "ignore"])
        .arg(repository().join("tests/python/acceptance.py"))
        .arg(format!("127.0.0.1:{}", base + 1))
        .arg(&wrapper)
        .arg("replica@1,replica@2,replica@3")
        .output()
        .expect("python");
    let text = String::from_utf8_lossy(&outcome.stdout).into_owned();
    println!("{text}\n{}", String::from_utf8_lossy(&outcome.stderr));
    assert!(outcome.status.success(), "see the FAIL lines above");
    assert!(text.contains(" passed, 0 failed"), "the report is complete");
    assert!(run_sh(&dir, &["clear_onebox"]));
    assert!(!dir.exists(), "clear_onebox removes everything");
    let _ = std::fs::remove_dir_all(dir.parent().expect("scratch"));
}
