//! What the simulated cluster consists of: its servers, their settings, and the knobs of a scenario that turn them.
//!
//! Everything is a knob, so that a scenario file says it: a cluster of one replica server is the default, one of three
//! is `"cluster.servers" = 3` and `"cluster.copies" = 3`.

use super::groups::{MetaWatch, WatchedMeta};
use super::spy::{Contents, spied};
use dsn_core::sim::{Knob, NodeId, NodeSpec, Scenario, Sim};
use dsn_replication::host::ReplicaHost;
use dsn_replication::meta::{MetaApp, MetaAppOptions};
use dsn_replication::options::{
    FunctionLevel, LogDurability, MetaServerOptions, NfsOptions, ReplicationOptions,
};
use dsn_replication::placement::Watch;
use dsn_replication::replica_app::{ReplicaApp, ReplicaAppOptions};
use dsn_rpc::RpcOptions;
use pegasus_server::options::{EngineKind, StorageOptions};
use pegasus_server::replica_app::storage_apps;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

const META_PORT: u16 = 34601;
const REPLICA_PORT: u16 = 34801;
const META_HOSTS: u8 = 1;
const SERVER_HOSTS: u8 = 10;
const CLIENT_HOSTS: u8 = 50;

/// Knobs of the cluster.
pub const CLUSTER_KNOBS: &[Knob] = &[
    Knob { name: "cluster.metas", default: 1, extremes: &[] },
    Knob { name: "cluster.servers", default: 1, extremes: &[] },
    Knob { name: "cluster.copies", default: 1, extremes: &[] },
    Knob { name: "cluster.partitions", default: 4, extremes: &[] },
    Knob { name: "cluster.clients", default: 3, extremes: &[] },
    Knob { name: "cluster.sessions", default: 2, extremes: &[1] },
    Knob { name: "cluster.workers", default: 2, extremes: &[1] },
    Knob { name: "replication.staleness", default: 20, extremes: &[1, 2] },
    Knob { name: "replication.batching_off", default: 0, extremes: &[1] },
    Knob { name: "replication.checkpoint_seconds", default: 300, extremes: &[1, 3, 10] },
    Knob { name: "replication.segment_mb", default: 32, extremes: &[1] },
    Knob { name: "replication.segments", default: 100, extremes: &[1, 3] },
    Knob { name: "replication.reserve_seconds", default: 36_000, extremes: &[0, 5] },
    Knob { name: "workload.think_ms", default: 20, extremes: &[5, 200] },
    Knob { name: "workload.value_bytes", default: 0, extremes: &[200, 4_000] },
];

/// Knobs that only groups turn.
pub const GROUP_KNOBS: &[Knob] = &[
    Knob { name: "cluster.data_dirs", default: 1, extremes: &[2, 3] },
    Knob { name: "replication.prepare_timeout_ms", default: 3_000, extremes: &[2_000, 10_000] },
    Knob { name: "replication.resend_ms", default: 500, extremes: &[250, 1_000] },
    Knob { name: "replication.check_ms", default: 10_000, extremes: &[100, 1_000] },
    Knob { name: "replication.learn_timeout_ms", default: 60_000, extremes: &[5_000, 20_000] },
    Knob { name: "replication.learn", default: 0, extremes: &[LEARN_LOG, LEARN_CHECKPOINT] },
    Knob { name: "replication.sync_ms", default: 30_000, extremes: &[500, 5_000] },
    Knob { name: "fd.lease_seconds", default: 20, extremes: &[5, 10] },
    Knob { name: "meta.round_ms", default: 10_000, extremes: &[200, 1_000] },
    Knob { name: "meta.assign_delay_ms", default: 600_000, extremes: &[0, 5_000] },
    Knob { name: "meta.reserved_drops", default: 1, extremes: &[0] },
    Knob { name: "meta.lively", default: 0, extremes: &[1] },
    Knob { name: "workload.reads_percent", default: 40, extremes: &[5, 90] },
    Knob { name: "workload.tables", default: 0, extremes: &[1] },
];

/// Learners are fed from the log, which is kept.
pub const LEARN_LOG: u64 = 1;
/// Learners begin with a checkpoint: the log is given back as soon as it may be.
pub const LEARN_CHECKPOINT: u64 = 2;

/// The value of a knob of the cluster.
///
/// # Panics
/// When there is none of that name.
pub fn knob(scenario: &Scenario, name: &str) -> u64 {
    let knob = CLUSTER_KNOBS.iter().chain(GROUP_KNOBS).find(|knob| knob.name == name);
    scenario.knob(knob.unwrap_or_else(|| panic!("no knob {name}")))
}

/// Where a replica server of a scenario keeps its data: one directory for each of its disks.
pub fn data_dirs(scenario: &Scenario) -> Vec<String> {
    match knob(scenario, "cluster.data_dirs") {
        // Several have numbers, so that none is part of the path of a file in another.
        several @ 2.. => (1..=several).map(|number| format!("/data{number}")).collect(),
        _ => vec!["/data".to_owned()],
    }
}

/// The shape of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Meta servers.
    pub metas: u8,
    /// Replica servers.
    pub servers: u8,
    /// Copies of each partition.
    pub copies: i32,
    /// Partitions of the table.
    pub partitions: i32,
    /// Client processes.
    pub clients: u8,
    /// Sessions of each, with one call under way at a time.
    pub sessions: usize,
}

impl Shape {
    /// The shape that a scenario's knobs describe.
    pub fn of(scenario: &Scenario) -> Self {
        let knob = |name| knob(scenario, name);
        Self {
            metas: knob("cluster.metas") as u8,
            servers: knob("cluster.servers") as u8,
            copies: knob("cluster.copies") as i32,
            partitions: knob("cluster.partitions") as i32,
            clients: knob("cluster.clients") as u8,
            sessions: knob("cluster.sessions") as usize,
        }
    }

    /// Names of the meta servers.
    pub fn meta_names(&self) -> Vec<String> {
        (0..self.metas).map(|index| name("meta", index)).collect()
    }

    /// Names of the replica servers.
    pub fn server_names(&self) -> Vec<String> {
        (0..self.servers).map(|index| name("replica", index)).collect()
    }

    /// Names of the clients.
    pub fn client_names(&self) -> Vec<String> {
        (0..self.clients).map(|index| format!("client{index}")).collect()
    }

    /// Where the meta servers listen.
    pub fn meta_addresses(&self) -> Vec<SocketAddr> {
        (0..self.metas).map(|index| at(META_HOSTS + index, META_PORT)).collect()
    }
}

/// The first of a kind has no number.
fn name(kind: &str, index: u8) -> String {
    if index == 0 { kind.to_owned() } else { format!("{kind}{index}") }
}

fn at(host: u8, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::from([10, 0, 0, host]), port)
}

/// The address of a client's node.
pub fn client_ip(index: u8) -> IpAddr {
    [10, 0, 0, CLIENT_HOSTS + index].into()
}

/// What acknowledgements rest on: a property of the seed, so that shrinking does not change what may be lost.
pub fn durability(seed: u64) -> LogDurability {
    if seed.is_multiple_of(2) { LogDurability::Os } else { LogDurability::GroupSync }
}

fn replication(scenario: &Scenario) -> ReplicationOptions {
    let knob = |name| knob(scenario, name) as u32;
    let lease = knob("fd.lease_seconds");
    // A short lease needs frequent signs of life.
    let often = if lease < 20 { (1, 1) } else { (3, 2) };
    let mut options = ReplicationOptions {
        mutation_2pc_min_replica_count: 0,
        fd_lease_seconds: lease,
        fd_grace_seconds: (lease + lease / 10).max(lease + 1),
        fd_beacon_interval_seconds: often.0,
        fd_check_interval_seconds: often.1,
        prepare_timeout_ms_for_secondaries: knob("replication.prepare_timeout_ms"),
        prepare_resend_ms: knob("replication.resend_ms"),
        member_check_interval_ms: knob("replication.check_ms"),
        learn_timeout_ms: knob("replication.learn_timeout_ms"),
        config_sync_interval_ms: knob("replication.sync_ms"),
        lb_interval_ms: knob("meta.round_ms"),
        staleness_for_commit: knob("replication.staleness"),
        batch_write_disabled: knob("replication.batching_off") == 1,
        checkpoint_interval_seconds: knob("replication.checkpoint_seconds"),
        log_private_file_size_mb: knob("replication.segment_mb"),
        log_shared_file_count_limit: knob("replication.segments"),
        log_private_reserve_max_time_seconds: knob("replication.reserve_seconds"),
        log_private_reserve_max_size_mb: 0,
        log_durability: durability(scenario.seed),
        ..ReplicationOptions::default()
    };
    match u64::from(knob("replication.learn")) {
        LEARN_LOG => {
            options.log_private_reserve_max_time_seconds = 36_000;
            options.log_private_reserve_max_size_mb = 1_000;
        }
        LEARN_CHECKPOINT => {
            options.log_private_file_size_mb = 1;
            options.log_shared_file_count_limit = 1;
            options.log_private_reserve_max_time_seconds = 0;
            options.checkpoint_interval_seconds = 1;
        }
        _ => {}
    }
    options
}

/// The servers of a simulated cluster.
#[derive(Clone)]
pub struct Servers {
    /// Meta servers.
    pub metas: Vec<NodeId>,
    /// What they know.
    pub meta_watches: Vec<MetaWatch>,
    /// Replica servers.
    pub replicas: Vec<NodeId>,
    /// Where each of them listens.
    pub addresses: Vec<SocketAddr>,
    /// Their replicas.
    pub watches: Vec<Watch<ReplicaHost>>,
    /// What their state machines apply.
    pub contents: Contents,
    /// Where each of them keeps its data.
    pub data_dirs: Vec<String>,
}

impl Servers {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.metas.iter().chain(&self.replicas).copied()
    }

    /// The directories of a server's replicas, of all its disks.
    pub fn replica_dirs(&self) -> impl Iterator<Item = String> + '_ {
        self.data_dirs.iter().map(|dir| format!("{dir}/replica/reps"))
    }
}

/// Registers every code that the cluster uses.
pub fn register_codes() {
    for codes in pegasus_server::program::program().codes {
        dsn_core::code::register(codes);
    }
}

/// Adds the servers of a scenario's cluster; none is started.
pub fn add_servers(sim: &mut Sim, scenario: &Scenario) -> Servers {
    let shape = Shape::of(scenario);
    let replication = replication(scenario);
    let meta = meta(scenario);
    let names = shape.meta_names().into_iter().zip(0..);
    let meta_watches: Vec<MetaWatch> = names.clone().map(|_| MetaWatch::default()).collect();
    let metas = names.zip(&meta_watches).map(|((name, index), watch)| {
        add_meta(sim, (&name, index), &meta, &replication, watch.clone())
    });
    let metas = metas.collect();
    let names = shape.server_names().into_iter().zip(0..);
    let meta_addresses = shape.meta_addresses();
    let addresses =
        (0..shape.servers).map(|index| at(SERVER_HOSTS + index, REPLICA_PORT)).collect();
    let watches: Vec<Watch<ReplicaHost>> = (0..shape.servers).map(|_| Watch::default()).collect();
    let contents = Contents::default();
    let data_dirs = data_dirs(scenario);
    let workers = knob(scenario, "cluster.workers") as usize;
    let replicas = names.zip(&watches).map(|((name, index), watch)| {
        let seen = (watch.clone(), contents.clone());
        add_replica(sim, (&name, index), &meta_addresses, &replication, &data_dirs, workers, seen)
    });
    let replicas = replicas.collect();
    Servers { metas, meta_watches, replicas, addresses, watches, contents, data_dirs }
}

fn meta(scenario: &Scenario) -> MetaServerOptions {
    let lively = knob(scenario, "meta.lively") == 1;
    MetaServerOptions {
        min_live_node_count_for_unfreeze: 1,
        node_live_percentage_threshold_for_update: 0,
        meta_function_level_on_start: match lively {
            true => FunctionLevel::Lively,
            false => FunctionLevel::Steady,
        },
        replica_assign_delay_ms_for_dropouts: knob(scenario, "meta.assign_delay_ms"),
        max_reserved_dropped_replicas: knob(scenario, "meta.reserved_drops") as u32,
        ..MetaServerOptions::default()
    }
}

fn add_meta(
    sim: &mut Sim,
    (name, index): (&str, u8),
    meta: &MetaServerOptions,
    replication: &ReplicationOptions,
    watch: MetaWatch,
) -> NodeId {
    let (meta, replication) = (meta.clone(), replication.clone());
    let app = move || -> Box<dyn dsn_core::app::ServiceApp> {
        let app = MetaApp::new(MetaAppOptions {
            listen: at(META_HOSTS + index, META_PORT),
            data_dir: "/data".into(),
            replication: replication.clone(),
            meta: meta.clone(),
            rpc: RpcOptions::default(),
            envs: pegasus_server::program::env_rules(),
            extend: Box::new(|_| {}),
        });
        Box::new(WatchedMeta { app, watch: watch.clone() })
    };
    sim.add_node(NodeSpec::new(name, [10, 0, 0, META_HOSTS + index].into(), 1, app))
}

fn add_replica(
    sim: &mut Sim,
    (name, index): (&str, u8),
    metas: &[SocketAddr],
    replication: &ReplicationOptions,
    data_dirs: &[String],
    workers: usize,
    (watch, contents): (Watch<ReplicaHost>, Contents),
) -> NodeId {
    let (metas, replication) = (metas.to_vec(), replication.clone());
    let data_dirs: Vec<PathBuf> = data_dirs.iter().map(PathBuf::from).collect();
    let app = move || -> Box<dyn dsn_core::app::ServiceApp> {
        let storage =
            StorageOptions { storage_engine: EngineKind::Memory, ..StorageOptions::default() };
        let options = ReplicaAppOptions {
            listen: at(SERVER_HOSTS + index, REPLICA_PORT),
            metas: metas.iter().copied().map(Into::into).collect(),
            data_dirs: data_dirs.clone(),
            replication: replication.clone(),
            copy: NfsOptions::default(),
            rpc: RpcOptions::default(),
        };
        let make = spied(storage_apps(storage), index.into(), contents.clone());
        Box::new(ReplicaApp::new(options, make).watched_by(watch.clone()))
    };
    sim.add_node(NodeSpec::new(name, [10, 0, 0, SERVER_HOSTS + index].into(), workers, app))
}

/// A partition that a replica server has put aside because its files contradict themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// Id of the table.
    pub app_id: i32,
    /// Number of the partition.
    pub partition: i32,
}

/// The partitions that the replica servers have put aside.
pub fn quarantined(sim: &Sim, servers: &Servers) -> Vec<Quarantined> {
    let mut found: Vec<Quarantined> = Vec::new();
    for id in &servers.replicas {
        let disk = sim.disk(*id);
        for name in servers.replica_dirs().flat_map(|dir| disk.names(Path::new(&dir))) {
            let Some(name) = name.strip_suffix(".err") else { continue };
            let mut parts = name.split('.').map(str::parse::<i32>);
            if let (Some(Ok(app_id)), Some(Ok(partition))) = (parts.next(), parts.next()) {
                let one = Quarantined { app_id, partition };
                if !found.contains(&one) {
                    found.push(one);
                }
            }
        }
    }
    found
}

/// How long a cluster may take until its table is made.
pub const START_LIMIT: Duration = Duration::from_secs(120);
/// How long it may take to serve everything again when nothing is wrong any more.
pub const HEAL_LIMIT: Duration = Duration::from_secs(300);
/// How long an orderly stop of everything may take.
pub const STOP_LIMIT: Duration = Duration::from_secs(300);
