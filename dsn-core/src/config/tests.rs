//! Loading, refusing, inheriting, changing and printing whole configurations.

use std::time::Duration;

use super::*;
use crate::code::Priority;

crate::options! {
    /// A store.
    section StoreOptions at "pegasus.server" {
        /// Bytes of cache.
        cache: Size = Size::mib(64), in Size::kib(1)..=Size::gib(1), [mutable];
        /// How often.
        period_seconds: u32 = 10, in 1..=1000;
        /// A path.
        path: String = "x";
        /// Peers.
        peers: Vec<String> = Vec::new();
        /// A keyword as a key.
        r#type: Option<String> = None;
    }
}

crate::options! {
    /// Clusters by name.
    section ClusterOptions at "pegasus.clusters" map String;
}

fn schema() -> ConfigSchema {
    core_schema().section::<StoreOptions>().section::<ClusterOptions>()
}

fn load(text: &str) -> Result<Config, ConfigError> {
    Loader::new(schema()).text("t.toml", text).load()
}

fn problems(text: &str) -> Vec<String> {
    match load(text) {
        Err(ConfigError::Invalid(problems)) => problems.iter().map(Problem::to_string).collect(),
        other => panic!("expected problems, got {other:?}"),
    }
}

#[test]
fn the_schemas_are_sound() {
    assert_eq!(schema().problems(), Vec::<String>::new());
}

#[test]
fn defaults_hold_without_any_file() {
    let config = Loader::new(schema()).load().expect("empty");
    let store: StoreOptions = config.section().expect("registered");
    assert_eq!((store.cache.get(), store.period_seconds), (Size::mib(64), 10));
    assert_eq!((store.path.as_str(), store.r#type), ("x", None));
    let defaults = StoreOptions::default();
    assert_eq!((defaults.period_seconds, defaults.cache.get()), (10, Size::mib(64)));
    let runtime: RuntimeOptions = config.section().expect("registered");
    assert_eq!(runtime.priority_weights, [16, 4, 1]);
    let stage: StageOptions = config.named("ANY").expect("registered");
    assert_eq!((stage.worker_count, stage.admit_delay), (0, None));
}

#[test]
fn values_of_every_kind_are_read() {
    let config = load(
        "[pegasus.server]\ncache = '2MiB'\nperiod_seconds = 30\npath = \"/p\"\npeers = ['a', 'b']\n\
         type = 'rocks'\n[core]\ntool = \"simulator\"\nshutdown_timeout = '5s'\n",
    )
    .expect("valid");
    let store: StoreOptions = config.section().expect("registered");
    assert_eq!((store.cache.get(), store.period_seconds), (Size::mib(2), 30));
    assert_eq!(store.peers, ["a", "b"]);
    assert_eq!(store.r#type.as_deref(), Some("rocks"));
    let core: CoreOptions = config.section().expect("registered");
    assert_eq!((core.tool, core.shutdown_timeout), (Tool::Simulator, Duration::from_secs(5)));
}

#[test]
fn named_sections_inherit_key_by_key() {
    let config = load(
        "[task.default]\nis_trace = false\nrpc_timeout_milliseconds = 7\n\
         [task.RPC_A]\nrpc_timeout_milliseconds = 9\n[task.RPC_B]\npriority = 'high'\n\
         [task.default.fault]\ndrop = 0.5\n[task.RPC_B.fault]\nfail = 1\n",
    )
    .expect("valid");
    let a: TaskOptions = config.named("RPC_A").expect("registered");
    assert_eq!((a.is_trace, a.rpc_timeout_milliseconds), (false, Some(9)));
    let b: TaskOptions = config.named("RPC_B").expect("registered");
    assert_eq!((b.priority, b.rpc_timeout_milliseconds), (Some(Priority::High), Some(7)));
    let fault: FaultOptions = config.named("RPC_B").expect("registered");
    assert_eq!((fault.drop.get(), fault.fail.get()), (0.5, 1.0));
    let unseen: TaskOptions = config.named("RPC_C").expect("registered");
    assert_eq!(unseen.rpc_timeout_milliseconds, Some(7));
    let all = config.all::<TaskOptions>().expect("registered");
    assert_eq!(all.keys().collect::<Vec<_>>(), ["RPC_A", "RPC_B"]);
    assert_eq!(config.names("task.*")[0].1.to_string(), "t.toml:4");
}

#[test]
fn unknown_keys_and_sections_name_line_and_neighbour() {
    let found = problems(
        "[pegasus.server]\nperod_seconds = 1\n\n[pegasus.sever]\nx = 1\n[task.A]\nturn_tasks = 1\n\
         [core]\nzzz = 1\n[task.B.faults]\ndrop = 1\n",
    );
    let expected = [
        "t.toml:9: [core] zzz: unknown key",
        "t.toml:2: [pegasus.server] perod_seconds: unknown key; did you mean \"period_seconds\"?",
        "t.toml:4: [pegasus.sever]: unknown section; did you mean [pegasus.server]?",
        "t.toml:7: [task.A] turn_tasks: unknown key; it belongs to [runtime]",
        "t.toml:10: [task.B.faults]: unknown section; did you mean [task.B.fault]?",
    ];
    assert_eq!(found, expected);
    assert_eq!(problems("x = 1")[0], "t.toml:1: x: unknown key; every key belongs to a section");
    assert!(problems("core = 1")[0].contains("core is a section, not a key: write [core]"));
    assert!(problems("[core.tool]\na = 1")[0].contains("tool is a key, not a section"));
}

#[test]
fn wrong_types_and_ranges_name_what_was_expected() {
    let found = problems(
        "[pegasus.server]\nperiod_seconds = 0\ncache = \"2 parsecs\"\npath = 5\n\
         [core]\ntool = \"hammer\"\nshutdown_timeout = 5\n[apps.a]\nports = [70000]\n",
    );
    let expected = [
        "t.toml:9: [apps.a] ports = [70000]: expected a list, each element a whole number, 1 to 65535",
        "t.toml:7: [core] shutdown_timeout = 5: expected a duration such as \"5s\" or \"100ms\", 1s to 10min",
        "t.toml:6: [core] tool = \"hammer\": expected \"native\" or \"simulator\"",
        "t.toml:3: [pegasus.server] cache = \"2 parsecs\": expected a size such as \"64MiB\", or a number \
         of bytes, 1KiB to 1GiB",
        "t.toml:4: [pegasus.server] path = 5: expected a string",
        "t.toml:2: [pegasus.server] period_seconds = 0: expected a whole number, 1 to 1000",
    ];
    assert_eq!(found, expected);
    assert!(problems("[core]\ntool = = 1\n")[0].starts_with("t.toml:2: "));
}

#[test]
fn overrides_win_over_files_and_later_files_over_earlier() {
    let config = Loader::new(schema())
        .text("a.toml", "[pegasus.server]\nperiod_seconds = 1\npath = 'a'\npeers = ['p']\n")
        .text("b.toml", "[pegasus.server]\npath = 'b'\n")
        .set("pegasus.server.period_seconds=3")
        .set("pegasus.server.peers = x:1,y:2")
        .set("apps.meta.ports=[1, 2]")
        .load()
        .expect("valid");
    let store: StoreOptions = config.section().expect("registered");
    assert_eq!((store.period_seconds, store.path.as_str()), (3, "b"));
    assert_eq!(store.peers, ["x:1", "y:2"]);
    assert_eq!(config.named::<AppOptions>("meta").expect("registered").ports, [1, 2]);
    assert_eq!(config.get("pegasus.server.path").expect("known").origin.to_string(), "b.toml:2");
    assert_eq!(config.get("period_seconds").expect("known").origin, Origin::Set);

    for bad in ["pegasus.server.period_seconds=x", "period_seconds=1", "nonsense", "a.=1"] {
        let error = Loader::new(schema()).set(bad).load().expect_err(bad);
        assert!(error.to_string().starts_with("--set: "), "{bad}: {error}");
    }
}

#[test]
fn variables_fill_strings_and_numbers() {
    let text = "[pegasus.server]\nperiod_seconds = \"${N}\"\npath = \"${DIR:-/tmp}/${N}\"\n\
                peers = ['${PEER}']\n";
    let variables = [("N", "5"), ("PEER", "h:1")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    let loader = || Loader::new(schema()).text("t.toml", text);
    let config = loader().variables(variables.into()).load().expect("valid");
    let store: StoreOptions = config.section().expect("registered");
    assert_eq!((store.period_seconds, store.path.as_str()), (5, "/tmp/5"));
    assert_eq!(store.peers, ["h:1"]);
    let error = loader().load().expect_err("N is not set").to_string();
    assert!(error.contains("t.toml:2: variable N is not set"), "{error}");
    assert_eq!(error.lines().filter(|line| line.contains("is not set")).count(), 3, "{error}");
}

#[test]
fn mutable_options_change_for_every_holder() {
    let config = load("[task.default.fault]\nfail = 0.5\n").expect("valid");
    let (one, two): (StoreOptions, StoreOptions) =
        (config.section().expect("registered"), config.clone().section().expect("registered"));
    config.set("pegasus.server.cache", "1MiB").expect("mutable");
    assert_eq!((one.cache.get(), two.cache.get()), (Size::mib(1), Size::mib(1)));
    config.set("cache", "4096").expect("the key alone is enough");
    assert_eq!(one.cache.get(), Size::kib(4));
    let view = config.get("cache").expect("known");
    assert_eq!((view.plain_value().as_str(), view.origin), ("4KiB", Origin::RunTime));

    config.set("task.RPC_A.fault.fail", "1").expect("mutable before anybody reads it");
    let fail = |code| config.named::<FaultOptions>(code).expect("registered").fail.get();
    assert_eq!((fail("RPC_A"), fail("RPC_B")), (1.0, 0.5));

    let refused = |name, value| config.set(name, value).expect_err(name).to_string();
    assert!(refused("cache", "2 parsecs").contains("expected a size"));
    assert!(refused("pegasus.server.period_seconds", "5").contains("cannot change"));
    assert!(refused("task.RPC_A.is_trace", "false").contains("cannot change"));
    assert!(
        refused("pegasus.server.cahce", "5").contains("did you mean \"pegasus.server.cache\"?")
    );
    assert!(refused("fail", "1").contains("no option is called"));
    assert_eq!(one.cache.get(), Size::kib(4), "a refused change changes nothing");
}

#[test]
fn watchers_are_told_after_each_change() {
    let config = load("").expect("valid");
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let (all, one) = (told.clone(), told.clone());
    config.on_any_change(move |name| all.lock().push(name.to_owned()));
    config.on_change("cache", move || one.lock().push("it".into())).expect("mutable");
    assert!(
        config.on_change("period_seconds", || {}).is_err() && config.on_change("x", || {}).is_err()
    );
    config.set("cache", "1MiB").expect("mutable");
    config.set("task.A.fault.drop", "0.5").expect("mutable");
    config.set("cache", "2 parsecs").expect_err("refused");
    assert_eq!(*told.lock(), ["pegasus.server.cache", "it", "task.A.fault.drop"]);
}

#[test]
fn asking_for_an_unregistered_section_is_an_error() {
    let config = Loader::new(core_schema()).load().expect("empty");
    let error = config.section::<StoreOptions>().expect_err("not registered");
    assert!(error.to_string().contains("[pegasus.server]"));
    assert!(config.section::<TaskOptions>().is_err(), "a pattern needs a name");
}

#[test]
fn free_keys_are_kept() {
    let config = load("[pegasus.clusters]\nonebox = 'a:1,b:2'\n\"we.ird\" = 'c'\n").expect("valid");
    let clusters: ClusterOptions = config.section().expect("registered");
    assert_eq!(clusters.entries["onebox"], "a:1,b:2");
    assert_eq!(clusters.entries["we.ird"], "c");
    assert!(problems("[pegasus.clusters]\nonebox = 5\n")[0].contains("expected a string"));
}

#[test]
fn a_dump_shows_origins_and_loads_again() {
    let config = Loader::new(schema())
        .text(
            "t.toml",
            "[apps.default]\ncount = 2\n[apps.meta]\nports = [5]\n[core]\nlog_dir = 'a\"b'\n",
        )
        .set("pegasus.clusters.x=1,2")
        .load()
        .expect("valid");
    config.set("cache", "1MiB").expect("mutable");
    let text = dump(&config);
    let line = |start: &str| {
        text.lines().find(|line| line.starts_with(start)).unwrap_or_default().to_owned()
    };
    assert!(line("ports = [5]").ends_with("# t.toml:4"), "{text}");
    assert!(line("cache = ").ends_with("# run time"), "{text}");
    assert!(line("x = ").ends_with("# --set"), "{text}");
    assert!(line("turn_tasks = 128").ends_with("# default"), "{text}");
    assert_eq!(text.matches("count = 2").count(), 2, "inherited by [apps.meta]: {text}");

    let again = load(&text).expect("a dump is a configuration");
    let values = |config: &Config| {
        let options = config.options().into_iter();
        options.map(|view| (view.section, view.key, view.value)).collect::<Vec<_>>()
    };
    assert_eq!(values(&again), values(&config));
}

#[test]
fn an_option_as_json_has_pegasus_fields() {
    let config = load("").expect("valid");
    let json = config.get("cache").expect("known").to_json();
    assert_eq!(json["name"], "cache");
    assert_eq!(json["tags"], "flag_tag::FT_MUTABLE");
    assert_eq!(json["value"], "64MiB");
    assert_eq!(json["description"], "Bytes of cache.");
    assert_eq!(config.get("period_seconds").expect("known").to_json()["type"], "FV_UINT32");
}

#[test]
fn the_reference_explains_every_key() {
    let page = reference(&schema());
    for section in schema().sections() {
        assert!(page.contains(&format!("## `[{}]`", section.path)));
        for option in section.options {
            assert!(page.contains(&format!("| `{}`", option.key)), "{}", option.key);
        }
    }
    assert!(page.contains("| `period_seconds` | a whole number, 1 to 1000 | `10` | How often. |"));
    assert!(page.contains("| `cache` *live* |"));
}
