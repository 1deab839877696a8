//! Which crate may depend on which, and where outside crates come in.

use std::process::Command;

use serde_json::Value;

use crate::text::UNSAFE_FILES;
use crate::tree::{Tree, root};

/// Our crates from the bottom up, each with those it may depend on. Nothing points upwards.
const ALLOWED: [(&str, &[&str]); 6] = [
    ("dsn-core", &[]),
    ("dsn-rpc", &["dsn-core"]),
    ("dsn-replication", &["dsn-core", "dsn-rpc"]),
    ("pegasus-client", &["dsn-core", "dsn-rpc", "dsn-replication"]),
    ("pegasus-server", &["dsn-core", "dsn-rpc", "dsn-replication", "pegasus-client"]),
    (
        "cluster-tests",
        &["dsn-core", "dsn-rpc", "dsn-replication", "pegasus-client", "pegasus-server"],
    ),
];

/// Crates of others that only one of ours may name, because everything else goes through it.
const FENCED: [(&str, &str); 6] = [
    ("rocksdb", "pegasus-server"),
    ("librocksdb-sys", "pegasus-server"),
    ("mio", "dsn-core"),
    ("socket2", "dsn-core"),
    ("signal-hook", "dsn-core"),
    ("tracing-subscriber", "dsn-core"),
];

/// Crates nobody may name: the servers are written without an asynchronous runtime.
const REFUSED: [&str; 4] = ["tokio", "async-std", "futures", "smol"];

/// What cargo knows of the workspace, dependencies of others left out.
pub fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo speaks JSON")
}

/// The packages of the workspace.
pub fn packages(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata["packages"].as_array().into_iter().flatten()
}

pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// Dependencies between crates.
pub fn check(metadata: &Value) -> Vec<String> {
    let mut complaints = Vec::new();
    for package in packages(metadata) {
        let name = text(package, "name");
        let Some((_, allowed)) = ALLOWED.iter().find(|(known, _)| *known == name) else {
            complaints
                .push(format!("crate {name} is not on the list in tests/tests/tidy/crates.rs"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let wanted = text(dependency, "name");
            let is_ours = ALLOWED.iter().any(|(known, _)| *known == wanted);
            if is_ours && !allowed.contains(&wanted) {
                complaints
                    .push(format!("{name} depends on {wanted}: dependencies point downwards"));
            }
            if let Some((_, owner)) = FENCED.iter().find(|(fenced, _)| *fenced == wanted)
                && *owner != name
            {
                complaints.push(format!("{name} depends on {wanted}, which is for {owner} alone"));
            }
            if REFUSED.contains(&wanted) {
                complaints.push(format!("{name} depends on {wanted}: handlers, not futures"));
            }
        }
    }
    complaints
}

/// The attribute at the root of every library and program.
pub fn check_unsafe(tree: &Tree, metadata: &Value) -> Vec<String> {
    let mut complaints = Vec::new();
    for package in packages(metadata) {
        let folder = folder(package);
        for target in package["targets"].as_array().into_iter().flatten() {
            let kinds = target["kind"].as_array().into_iter().flatten();
            let is_shipped =
                kinds.filter_map(Value::as_str).any(|kind| kind == "lib" || kind == "bin");
            let path = relative(text(target, "src_path"));
            // A library with a fenced file cannot forbid, but it can deny by default.
            let has_fence =
                UNSAFE_FILES.iter().any(|(file, _)| file.starts_with(&format!("{folder}src/")))
                    && path == format!("{folder}src/lib.rs");
            let wanted =
                if has_fence { "#![deny(unsafe_code)]" } else { "#![forbid(unsafe_code)]" };
            let root = tree.files.get(&path).map(String::as_str).unwrap_or_default();
            if is_shipped && !root.lines().any(|line| line.trim() == wanted) {
                complaints.push(format!("{path}: a crate's root says {wanted}"));
            }
        }
    }
    complaints
}

/// The folder of a package from the root, with a `/` behind it.
fn folder(package: &Value) -> String {
    relative(text(package, "manifest_path")).trim_end_matches("Cargo.toml").to_owned()
}

/// A path of cargo's, from the root.
pub fn relative(path: &str) -> String {
    let root = format!("{}/", root().display());
    path.strip_prefix(&root).unwrap_or(path).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn package(name: &str, dependencies: &[&str]) -> Value {
        let dependencies: Vec<Value> =
            dependencies.iter().map(|name| json!({ "name": name })).collect();
        json!({ "name": name, "dependencies": dependencies })
    }

    #[test]
    fn wrong_dependencies_are_noticed() {
        let good = json!({ "packages": [package("dsn-rpc", &["dsn-core", "bytes"])] });
        assert_eq!(check(&good), Vec::<String>::new());
        let bad = json!({ "packages": [
            package("dsn-core", &["dsn-rpc", "mio"]),
            package("dsn-replication", &["rocksdb", "tokio"]),
            package("utils", &[]),
        ]});
        let expected = [
            "dsn-core depends on dsn-rpc: dependencies point downwards",
            "dsn-replication depends on rocksdb, which is for pegasus-server alone",
            "dsn-replication depends on tokio: handlers, not futures",
            "crate utils is not on the list in tests/tests/tidy/crates.rs",
        ];
        assert_eq!(check(&bad), expected);
    }

    #[test]
    fn a_root_without_the_attribute_is_noticed() {
        let at = |path: &str| root().join(path).display().to_string();
        let package = json!({
            "name": "x",
            "manifest_path": at("x/Cargo.toml"),
            "targets": [
                { "kind": ["lib"], "src_path": at("x/src/lib.rs") },
                { "kind": ["bin"], "src_path": at("x/src/main.rs") },
                { "kind": ["test"], "src_path": at("x/tests/t.rs") },
            ],
        });
        let tree = Tree::of(&[("x/src/lib.rs", "//! x\n#![forbid(unsafe_code)]\n")]);
        let complaints = check_unsafe(&tree, &json!({ "packages": [package] }));
        assert_eq!(complaints, ["x/src/main.rs: a crate's root says #![forbid(unsafe_code)]"]);
    }
}
