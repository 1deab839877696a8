//! Whole registries: what is shown to whom, and for how long.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::*;
use crate::config::{ConfigSchema, Loader};
use crate::time::{Mono, Wall};

crate::metrics! {
    /// Some metrics of a replica.
    struct ReplicaMetrics on "replica" {
        /// The number of GET requests.
        get_requests: Counter, Requests;
        /// How long a GET takes,
        /// from the first byte to the last.
        get_latency_ns: Percentile, NanoSeconds;
        /// Since the last look.
        recent_faults: VolatileCounter, Requests;
        /// Log on disk.
        private_log_size_mb: Gauge, MegaBytes;
    }
}

crate::metrics! {
    /// More of them, from another part of the program.
    struct MoreReplicaMetrics on "replica" {
        /// The number of SCAN requests.
        scan_requests: Counter, Requests;
    }
}

crate::metrics! {
    /// The server.
    struct ServerMetrics on "server" {
        /// Sessions.
        sessions: Gauge, Sessions;
    }
}

struct World {
    registry: Registry,
    replicas: Vec<ReplicaMetrics>,
    server: ServerMetrics,
}

fn world() -> World {
    let registry = Registry::default();
    let replica = |id, table, partition| {
        ReplicaMetrics::new(&registry, id, [("table_id", table), ("partition_id", partition)])
    };
    let replicas = vec![replica("replica@1.0", "1", "0"), replica("replica@2.5", "2", "5")];
    let server = ServerMetrics::new(&registry, "server", []);
    World { registry, replicas, server }
}

fn labels() -> Labels {
    Labels { cluster: "c1".into(), role: "replica".into(), host: "h".into(), port: 34801 }
}

fn get(world: &World, arguments: &[(&str, &str)]) -> serde_json::Value {
    let filters = Filters::parse(arguments.iter().copied()).expect("valid");
    let entities = world.registry.snapshot(Mono::ZERO, &filters);
    let text = json(&labels(), Wall::from_unix_nanos(7), &entities, &filters);
    serde_json::from_str(&text).expect("JSON")
}

fn ids(answer: &serde_json::Value) -> Vec<&str> {
    let entities = answer["entities"].as_array().expect("array");
    entities.iter().map(|entity| entity["id"].as_str().expect("string")).collect()
}

#[test]
fn json_has_pegasus_form_to_the_byte() {
    let registry = Registry::default();
    let replica = ReplicaMetrics::new(&registry, "replica@1.0", [("table_id", "1")]);
    replica.get_requests.add(3);
    replica.get_latency_ns.record(7);
    let filters = Filters::default();
    let entities = registry.snapshot(Mono::ZERO, &filters);
    let text = json(&labels(), Wall::from_unix_nanos(7), &entities, &filters);
    assert_eq!(
        text,
        "{\"cluster\":\"c1\",\"role\":\"replica\",\"host\":\"h\",\"port\":34801,\"timestamp_ns\":7,\
         \"entities\":[{\"type\":\"replica\",\"id\":\"replica@1.0\",\"attributes\":{\"table_id\":\"1\"},\
         \"metrics\":[{\"name\":\"get_latency_ns\",\"p50\":7,\"p90\":7,\"p95\":7,\"p99\":7,\"p999\":7},\
         {\"name\":\"get_requests\",\"value\":3},{\"name\":\"private_log_size_mb\",\"value\":0},\
         {\"name\":\"recent_faults\",\"value\":0}]}]}"
    );
}

#[test]
fn filters_choose_entities_and_metrics() {
    let world = world();
    assert_eq!(ids(&get(&world, &[])), ["replica@1.0", "replica@2.5", "server"]);
    assert_eq!(ids(&get(&world, &[("types", "server,disk")])), ["server"]);
    assert_eq!(ids(&get(&world, &[("ids", "replica@2.5")])), ["replica@2.5"]);
    assert_eq!(ids(&get(&world, &[("types", "")])).len(), 3, "an empty list chooses everything");
    let either = [("attributes", "table_id,1,partition_id,5")];
    assert_eq!(ids(&get(&world, &either)), ["replica@1.0", "replica@2.5"]);
    assert_eq!(ids(&get(&world, &[("attributes", "table_id,9")])), Vec::<&str>::new());
    let sessions = get(&world, &[("metrics", "sessions,unknown")]);
    assert_eq!(ids(&sessions), ["server"], "entities without a chosen metric are left out");
}

#[test]
fn fields_are_brief_detailed_or_listed() {
    let world = world();
    world.server.sessions.set(-4);
    let first =
        |arguments: &[(&str, &str)]| get(&world, arguments)["entities"][0]["metrics"][0].clone();
    assert_eq!(first(&[("types", "server")]), serde_json::json!({"name": "sessions", "value": -4}));
    let detail = serde_json::json!(
        {"type": "Gauge", "name": "sessions", "unit": "Sessions", "desc": "Sessions.", "value": -4}
    );
    assert_eq!(first(&[("types", "server"), ("detail", "true")]), detail);
    assert_eq!(
        first(&[("types", "server"), ("detail", "TRUE"), ("with_metric_fields", "")]),
        detail
    );
    let listed = [
        ("metrics", "get_latency_ns"),
        ("with_metric_fields", "name,p99,unit"),
        ("detail", "true"),
    ];
    let listed = first(&listed);
    assert_eq!(
        listed,
        serde_json::json!({"name": "get_latency_ns", "unit": "NanoSeconds", "p99": 0})
    );
    let all = first(&[("metrics", "get_latency_ns"), ("detail", "true")]);
    assert_eq!(all["desc"], "How long a GET takes, from the first byte to the last.");
}

#[test]
fn wrong_arguments_are_refused_with_a_message() {
    let refusal = |name, value| Filters::parse([(name, value)]).expect_err(name).to_json();
    assert_eq!(refusal("colour", "red"), "{\"error_message\":\"unknown field colour=red\"}");
    assert!(refusal("attributes", "a,b,c").contains("should be even"));
    assert!(refusal("detail", "maybe").contains("true or false"));
}

#[test]
fn volatile_counters_start_again_when_read_as_json_only() {
    let world = world();
    let counter = &world.replicas[0].recent_faults;
    counter.add(5);
    let filters = Filters::parse([("metrics", "recent_faults")]).expect("valid");
    let text = prometheus(&labels(), &world.registry.snapshot(Mono::ZERO, &filters));
    assert!(text.contains("id=\"replica@1.0\",partition_id=\"0\",table_id=\"1\"} 5\n"), "{text}");
    let read = || {
        let answer = get(&world, &[("metrics", "recent_faults")]);
        answer["entities"][0]["metrics"][0]["value"].as_u64().expect("number")
    };
    assert_eq!((read(), read()), (5, 0));
    counter.increment();
    assert_eq!((read(), counter.total()), (1, 6));
}

#[test]
fn prometheus_text_groups_samples_by_metric() {
    let world = world();
    world.replicas[1].private_log_size_mb.set(12);
    world.replicas[1].get_requests.increment();
    world.replicas[1].get_latency_ns.record(1 << 20);
    let text = prometheus(&labels(), &world.registry.snapshot(Mono::ZERO, &Filters::default()));
    let node = "cluster=\"c1\",role=\"replica\",host=\"h\",port=\"34801\"";
    let expected = format!(
        "# HELP get_requests The number of GET requests.\n# TYPE get_requests counter\n\
         get_requests{{{node},entity=\"replica\",id=\"replica@1.0\",partition_id=\"0\",table_id=\"1\"}} 0\n\
         get_requests{{{node},entity=\"replica\",id=\"replica@2.5\",partition_id=\"5\",table_id=\"2\"}} 1\n\
         # HELP private_log_size_mb "
    );
    assert!(text.contains(&expected), "{text}");
    assert!(text.contains("table_id=\"2\",quantile=\"0.999\"} 1081344\n"), "{text}");
    assert!(text.contains("private_log_size_mb{") && text.contains("\"} 12\n"), "{text}");
    assert_eq!(text.matches("# TYPE").count(), 5);
    assert!(text.lines().all(|line| !line.is_empty()));
}

#[test]
fn prometheus_escapes_what_it_must() {
    let registry = Registry::default();
    let server = ServerMetrics::new(&registry, "a\"b\\c\nd", [("9-lives", "x")]);
    let text = prometheus(&labels(), &registry.snapshot(Mono::ZERO, &Filters::default()));
    assert!(text.contains(r#"id="a\"b\\c\nd",_9_lives="x"}"#), "{text}");
    drop(server);
}

#[test]
fn the_same_entity_has_the_same_metrics() {
    let world = world();
    let again = ReplicaMetrics::new(&world.registry, "replica@1.0", [("table_id", "7")]);
    let more = MoreReplicaMetrics::of(again.entity.clone());
    more.scan_requests.increment();
    again.get_requests.increment();
    assert_eq!(world.replicas[0].get_requests.value(), 1);
    let answer = get(&world, &[("ids", "replica@1.0")]);
    assert_eq!(answer["entities"][0]["attributes"], serde_json::json!({"table_id": "7"}));
    assert_eq!(answer["entities"][0]["metrics"].as_array().expect("array").len(), 5);
}

#[test]
fn entities_retire_after_the_delay() {
    let schema = ConfigSchema::new().section::<MetricsOptions>();
    let config =
        Loader::new(schema).set("metrics.entity_retirement_delay_ms=1000").load().expect("ok");
    let registry = Registry::new(&config.section().expect("registered"));
    let shown = |millis| {
        let now = Mono::ZERO + Duration::from_millis(millis);
        registry.snapshot(now, &Filters::default()).len()
    };
    let server = ServerMetrics::new(&registry, "server", []);
    assert_eq!(shown(5_000), 1);
    drop(server);
    assert_eq!(
        (shown(6_000), shown(6_999)),
        (1, 1),
        "still there for a second after it was noticed"
    );
    let server = ServerMetrics::new(&registry, "server", []);
    assert_eq!((shown(7_100), shown(9_000)), (1, 1), "somebody wants it again");
    drop(server);
    config.set("entity_retirement_delay_ms", "10").expect("mutable");
    assert_eq!((shown(9_100), shown(9_110)), (1, 0));
}

#[test]
fn refreshers_run_before_each_snapshot_until_they_end() {
    let world = world();
    let more = Arc::new(AtomicBool::new(true));
    let (gauge, goes_on) = (world.server.sessions.clone(), more.clone());
    world.registry.refresh_with(move || {
        gauge.increment();
        goes_on.load(Ordering::Relaxed)
    });
    get(&world, &[]);
    more.store(false, Ordering::Relaxed);
    get(&world, &[]);
    get(&world, &[]);
    assert_eq!(world.server.sessions.value(), 2);
}

#[test]
#[should_panic(expected = "declared twice, differently")]
fn one_name_cannot_be_two_kinds() {
    crate::metrics! {
        /// In conflict with the other declaration.
        struct Conflict on "server" {
            /// A counter here.
            sessions: Counter, Sessions;
        }
    }
    let world = world();
    Conflict::of(world.server.entity.clone()).sessions.increment();
}
