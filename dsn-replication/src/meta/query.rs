//! What clients and tools are told.

use std::collections::BTreeSet;

use dsn_core::time::Mono;
use dsn_rpc::address::RpcAddress;
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::thrift::List;

use super::envs::EnvRules;
use super::state::Cluster;
use super::state::app::App;
use crate::options::FunctionLevel;
use crate::wire::admin::{
    ClusterInfoResponse, DddDiagnoseRequest, DddDiagnoseResponse, DddNodeInfo, DddPartitionInfo,
    ListAppsRequest, ListAppsResponse, ListNodesRequest, ListNodesResponse, MetaControlRequest,
    MetaControlResponse, MetaFunctionLevel, NodeInfo, NodeStatus, PatternMatchType,
};
use crate::wire::config::{
    AppInfo, AppStatus, PartitionConfiguration, QueryCfgRequest, QueryCfgResponse,
};

impl FunctionLevel {
    /// As it travels.
    pub(super) fn to_wire(self) -> MetaFunctionLevel {
        match self {
            Self::Stopped => MetaFunctionLevel::Stopped,
            Self::Blind => MetaFunctionLevel::Blind,
            Self::Freezed => MetaFunctionLevel::Freezed,
            Self::Steady => MetaFunctionLevel::Steady,
            Self::Lively => MetaFunctionLevel::Lively,
        }
    }

    /// The level that travelled; `None` for one that only asks, or that there is not.
    pub(super) fn from_wire(level: MetaFunctionLevel) -> Option<Self> {
        Self::ALL.iter().copied().find(|known| known.to_wire() == level)
    }
}

impl Cluster {
    /// The group with host names beside addresses.
    pub(super) fn named(&self, config: &PartitionConfiguration) -> PartitionConfiguration {
        let hosts = |nodes: &[_]| Some(nodes.iter().map(|node| self.host_of(*node)).collect());
        PartitionConfiguration {
            hp_primary: Some(self.host_of(config.primary)),
            hp_secondaries: hosts(&config.secondaries),
            hp_last_drops: hosts(&config.last_drops),
            last_leader: None,
            ..config.clone()
        }
    }

    /// Where the partitions of a table are.
    pub fn query_config(&self, request: &QueryCfgRequest) -> QueryCfgResponse {
        let refuse = |err| QueryCfgResponse { err, ..QueryCfgResponse::default() };
        let Some(app) = self.app_named(&request.app_name) else {
            return refuse(ErrorCode::ObjectNotFound);
        };
        if let Some(busy) = app.busy() {
            return refuse(busy);
        }
        if app.info.status != AppStatus::Available {
            return refuse(ErrorCode::Unknown);
        }
        let count = app.info.partition_count;
        let wanted: BTreeSet<i32> = request
            .partition_indices
            .iter()
            .copied()
            .filter(|index| (0..count).contains(index))
            .collect();
        let partitions = app
            .partitions
            .iter()
            .map(|partition| &partition.config)
            .filter(|config| wanted.is_empty() || wanted.contains(&config.pid.partition_index))
            .map(|config| self.named(config))
            .collect();
        QueryCfgResponse {
            err: ErrorCode::Ok,
            app_id: app.info.app_id,
            partition_count: count,
            is_stateful: true,
            partitions,
        }
    }

    /// Tables, by status and name.
    pub fn list_apps(&self, request: &ListAppsRequest) -> ListAppsResponse {
        let pattern = request.app_name_pattern.as_deref().unwrap_or_default();
        let kind = request.match_type.unwrap_or(PatternMatchType::All);
        let matches: fn(&str, &str) -> bool = match kind {
            _ if pattern.is_empty() => |_, _| true,
            PatternMatchType::All | PatternMatchType::Invalid => |_, _| true,
            PatternMatchType::Exact => |name, pattern| name == pattern,
            PatternMatchType::Anywhere => |name, pattern| name.contains(pattern),
            PatternMatchType::Prefix => |name, pattern| name.starts_with(pattern),
            PatternMatchType::Postfix => |name, pattern| name.ends_with(pattern),
            other => {
                return ListAppsResponse {
                    err: ErrorCode::NotImplemented,
                    hint_message: Some(format!("match type {other} is not supported")),
                    ..ListAppsResponse::default()
                };
            }
        };
        let infos: List<AppInfo> = self
            .apps
            .values()
            .map(|app| &app.info)
            .filter(|info| request.status == AppStatus::Invalid || request.status == info.status)
            .filter(|info| matches(&info.app_name, pattern))
            .cloned()
            .collect();
        ListAppsResponse { err: ErrorCode::Ok, infos, hint_message: None }
    }

    /// Replica servers, by status.
    pub fn list_nodes(&self, request: &ListNodesRequest) -> ListNodesResponse {
        let infos = self
            .fd
            .members()
            .map(|(node, member)| NodeInfo {
                status: if member.alive { NodeStatus::Alive } else { NodeStatus::Unalive },
                node,
                hp_node: Some(self.host_of(node)),
            })
            .filter(|info| request.status == NodeStatus::Invalid || request.status == info.status)
            .collect();
        ListNodesResponse { err: ErrorCode::Ok, infos }
    }

    /// Facts about the cluster, in the order that the tools expect.
    pub fn cluster_info(&self) -> ClusterInfoResponse {
        let (primaries, replicas) = self.spread();
        let metas = &self.options.meta.server_list;
        let metas = match metas.is_empty() {
            true => self.options.this_server.clone(),
            false => metas.join(","),
        };
        let facts = [
            ("meta_servers", metas),
            ("primary_meta_server", self.options.this_server.clone()),
            ("zookeeper_hosts", String::new()),
            ("zookeeper_root", String::new()),
            ("meta_function_level", self.effective_level().name().to_owned()),
            (
                "balance_operation_count",
                "move_primary=0,copy_primary=0,copy_secondary=0,total=0".to_owned(),
            ),
            ("primary_replica_count_stddev", format!("{primaries:.2}")),
            ("total_replica_count_stddev", format!("{replicas:.2}")),
            ("cluster_name", self.options.replication.cluster_name.clone()),
        ];
        let (keys, values) = facts.into_iter().map(|(key, value)| (key.to_owned(), value)).unzip();
        ClusterInfoResponse { err: ErrorCode::Ok, keys, values }
    }

    /// Standard deviations of primaries and of replicas over the living servers.
    fn spread(&self) -> (f64, f64) {
        let loads: Vec<(f64, f64)> = self
            .alive()
            .filter_map(|node| self.nodes.get(&node))
            .map(|node| {
                let primaries = node.primaries.len();
                (primaries as f64, (primaries + node.secondaries.len()) as f64)
            })
            .collect();
        let deviation = |numbers: Vec<f64>| {
            let count = numbers.len().max(1) as f64;
            let mean = numbers.iter().sum::<f64>() / count;
            (numbers.iter().map(|n| (n - mean).powi(2)).sum::<f64>() / count).sqrt()
        };
        let (primaries, replicas) = loads.into_iter().unzip();
        (deviation(primaries), deviation(replicas))
    }

    /// Sets the function level, or only tells it.
    pub fn control(&mut self, request: &MetaControlRequest, now: Mono) -> MetaControlResponse {
        let old_level = self.effective_level().to_wire();
        let err = match (FunctionLevel::from_wire(request.level), request.level) {
            (Some(level), _) => {
                let before = self.set_level(level, now);
                tracing::info!(?before, ?level, "the function level was set");
                ErrorCode::Ok
            }
            (None, MetaFunctionLevel::Invalid) => ErrorCode::Ok,
            (None, _) => ErrorCode::InvalidParameters,
        };
        MetaControlResponse { err, old_level }
    }

    /// Partitions that nobody can be made primary of, and why.
    pub fn ddd_diagnose(&self, request: &DddDiagnoseRequest) -> DddDiagnoseResponse {
        let pid = request.pid;
        let apps = self.apps.values().filter(|app| pid.app_id < 0 || app.info.app_id == pid.app_id);
        let partitions = apps
            .filter(|app| app.is_serving())
            .flat_map(|app| &app.partitions)
            .filter(|partition| {
                pid.partition_index < 0
                    || partition.config.pid.partition_index == pid.partition_index
            })
            .filter_map(|partition| {
                let reason = partition.stuck.clone()?;
                let dropped = self
                    .former(&partition.config)
                    .into_iter()
                    .map(|former| {
                        let (ballot, committed, prepared) = former.replica.unwrap_or((-1, -1, -1));
                        DddNodeInfo {
                            node: former.node,
                            drop_time_ms: 0,
                            is_alive: former.alive,
                            is_collected: former.collected,
                            ballot,
                            last_committed_decree: committed,
                            last_prepared_decree: prepared,
                            hp_node: Some(self.host_of(former.node)),
                        }
                    })
                    .collect();
                Some(DddPartitionInfo { config: self.named(&partition.config), dropped, reason })
            })
            .collect();
        DddDiagnoseResponse { err: ErrorCode::Ok, partitions }
    }

    /// A table that is not dropped.
    pub fn table(&self, name: &str) -> Option<&App> {
        self.app_named(name)
    }

    /// All tables, dropped ones included.
    pub fn tables(&self) -> impl Iterator<Item = &App> {
        self.apps.values()
    }
}

/// For the pages of operators.
impl Cluster {
    /// Whether every member is there and alive.
    pub fn is_complete(&self, config: &PartitionConfiguration) -> bool {
        self.is_well(config)
    }

    /// Whether there is a primary with enough members for writes.
    pub fn is_writable(&self, config: &PartitionConfiguration) -> bool {
        let needed = self.min_members(config.max_replica_count);
        let wanted = usize::try_from(config.max_replica_count).unwrap_or_default();
        config.primary.is_valid() && 1 + config.secondaries.len() >= needed.min(wanted)
    }

    /// Primaries and secondaries on a server.
    pub fn replicas_on(&self, node: RpcAddress) -> (usize, usize) {
        self.nodes.get(&node).map_or((0, 0), |n| (n.primaries.len(), n.secondaries.len()))
    }

    /// Envs that may be set.
    pub fn env_rules(&self) -> &EnvRules {
        &self.options.envs
    }
}
