//! The files in `configs/`: each is valid, and the reference page explains every key that may stand in one.
//!
//! After changing an option: `UPDATE_REFERENCE=1 cargo test --release -p cluster-tests --test configs`.

use std::path::{Path, PathBuf};

use dsn_core::boot::instances;
use dsn_core::config::{AppOptions, Config, CoreOptions, Loader, Variables, reference};
use dsn_replication::meta::MetaApp;
use dsn_replication::meta::envs::EnvRules;
use dsn_replication::options::MetaServerOptions;
use pegasus_server::program::schema;

fn configs() -> PathBuf {
    // Asked when the test runs: clones of the repository may share what they compile.
    let tests = std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs this test");
    Path::new(&tests).join("../configs")
}

fn load(file: &str, variables: &[(&str, &str)]) -> Config {
    let variables: Variables =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let loaded = Loader::new(schema()).file(configs().join(file)).variables(variables).load();
    loaded.unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_declarations_are_sound() {
    assert_eq!(schema().problems(), Vec::<String>::new());
}

#[test]
#[expect(clippy::disallowed_methods, reason = "rewrites a file of the source tree on request")]
fn the_reference_page_is_fresh() {
    let path = configs().join("reference.md");
    let wanted = reference(&schema());
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&path, &wanted).expect("the page can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == wanted, "{} is stale; see this test's header", path.display());
}

#[test]
fn every_file_is_valid_as_it_stands() {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(configs()).expect("configs/ can be listed") {
        let name = entry.expect("configs/ can be listed").file_name();
        let name = name.to_string_lossy().into_owned();
        if name.ends_with(".toml") {
            load(&name, &[]);
            names.push(name);
        }
    }
    for file in ["onebox.toml", "cluster.toml"] {
        assert!(names.contains(&file.to_owned()), "{names:?}");
    }
}

#[test]
fn a_onebox_takes_ports_and_addresses_from_its_environment() {
    let config = load("onebox.toml", &[("ONEBOX_PORT", "7001"), ("ONEBOX_META_LIST", "h:1,h:2")]);
    for app in ["meta", "replica"] {
        assert_eq!(config.named::<AppOptions>(app).expect("known").ports, [7001]);
    }
    let meta: MetaServerOptions = config.section().expect("known");
    assert_eq!(meta.server_list, ["h:1", "h:2"]);

    let config = load("onebox.toml", &[]);
    assert_eq!(config.named::<AppOptions>("replica").expect("known").ports, [34801]);
    let meta: MetaServerOptions = config.section().expect("known");
    assert_eq!(meta.server_list, ["127.0.0.1:34601"]);
}

/// Each of two meta servers would lead a cluster of its own: the embedded store is not shared.
#[test]
fn a_meta_server_that_is_not_the_only_one_is_refused() {
    let options = |metas: &str| {
        let config = load("onebox.toml", &[("ONEBOX_META_LIST", metas)]);
        let core: CoreOptions = config.section().expect("known");
        let meta = instances(&config, &core, &["meta".to_owned()]).expect("it is there").remove(0);
        MetaApp::options(&meta, EnvRules::new())
    };
    assert!(options("h:1").is_ok());
    let refusal = options("h:1,h:2").expect_err("two").to_string();
    assert!(refusal.contains("server_list names 2 meta servers"), "{refusal}");
}
