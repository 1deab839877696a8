//! What operators' tools ask of meta servers and replica servers.

use std::collections::BTreeMap;

use dsn_rpc::address::RpcAddress;
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::gpid::Gpid;
use dsn_rpc::host_port::HostPort;
use dsn_rpc::thrift::{List, SetOf};
use dsn_rpc::{message, wire_enum};

use super::config::{AppInfo, AppStatus, ConfigType, PartitionConfiguration, ReplicaInfo};

wire_enum! {
    /// Whether a node is alive.
    pub enum NodeStatus {
        /// In requests: any.
        Invalid = 0 => "NS_INVALID",
        Alive = 1 => "NS_ALIVE",
        Unalive = 2 => "NS_UNALIVE",
    }

    /// How a name must match a pattern.
    pub enum PatternMatchType {
        Invalid = 0 => "PMT_INVALID",
        All = 1 => "PMT_MATCH_ALL",
        Exact = 2 => "PMT_MATCH_EXACT",
        Anywhere = 3 => "PMT_MATCH_ANYWHERE",
        Prefix = 4 => "PMT_MATCH_PREFIX",
        Postfix = 5 => "PMT_MATCH_POSTFIX",
        Regex = 6 => "PMT_MATCH_REGEX",
    }

    /// What to do with table envs.
    pub enum AppEnvOperation {
        Invalid = 0 => "APP_ENV_OP_INVALID",
        Set = 1 => "APP_ENV_OP_SET",
        Del = 2 => "APP_ENV_OP_DEL",
        Clear = 3 => "APP_ENV_OP_CLEAR",
    }

    /// How much the meta server does of itself.
    pub enum MetaFunctionLevel {
        Stopped = 100 => "fl_stopped",
        Blind = 200 => "fl_blind",
        Freezed = 300 => "fl_freezed",
        Steady = 400 => "fl_steady",
        Lively = 500 => "fl_lively",
        /// In requests: only tell the level.
        Invalid = 10000 => "fl_invalid",
    }

    /// Kind of a balancing move.
    pub enum BalancerRequestType {
        MovePrimary = 0 => "move_primary",
        CopyPrimary = 1 => "copy_primary",
        CopySecondary = 2 => "copy_secondary",
    }
}

message! {
    /// How a table is to be made.
    pub struct CreateAppOptions {
        1: partition_count: i32,
        2: replica_count: i32,
        3: success_if_exist: bool,
        4: app_type: String,
        5: is_stateful: bool,
        6: envs: BTreeMap<String, String>,
        7: atomic_idempotent: bool,
    }

    /// Makes a table.
    pub struct CreateAppRequest { 1: app_name: String, 2: options: CreateAppOptions }

    /// Outcome of making a table.
    pub struct CreateAppResponse { 1: err: ErrorCode, 2: appid: i32 }

    /// How a table is to be dropped.
    pub struct DropAppOptions {
        1: success_if_not_exist: bool,
        /// How long it can be recalled.
        2: reserve_seconds: Option<i64>,
    }

    /// Drops a table.
    pub struct DropAppRequest { 1: app_name: String, 2: options: DropAppOptions }

    /// Outcome of dropping a table.
    pub struct DropAppResponse { 1: err: ErrorCode }

    /// Brings a dropped table back.
    pub struct RecallAppRequest {
        1: app_id: i32,
        /// Empty = its old name.
        2: new_app_name: String,
    }

    /// Outcome of recalling a table.
    pub struct RecallAppResponse { 1: err: ErrorCode, 2: info: AppInfo }

    /// Gives a table another name.
    pub struct RenameAppRequest { 1: old_app_name: String, 2: new_app_name: String }

    /// Outcome of renaming a table.
    pub struct RenameAppResponse { 1: err: ErrorCode, 2: hint_message: String }

    /// Asks for tables.
    pub struct ListAppsRequest {
        /// `AS_INVALID` = any.
        1: status: AppStatus,
        2: app_name_pattern: Option<String>,
        3: match_type: Option<PatternMatchType>,
    }

    /// Tables.
    pub struct ListAppsResponse {
        1: err: ErrorCode,
        2: infos: List<AppInfo>,
        3: hint_message: Option<String>,
    }

    /// A replica server as the meta server sees it.
    pub struct NodeInfo {
        1: status: NodeStatus,
        2: node: RpcAddress,
        3: hp_node: Option<HostPort>,
    }

    /// Asks for replica servers.
    pub struct ListNodesRequest {
        /// `NS_INVALID` = any.
        1: status: NodeStatus,
    }

    /// Replica servers.
    pub struct ListNodesResponse { 1: err: ErrorCode, 2: infos: List<NodeInfo> }

    /// Asks for facts about the cluster.
    pub struct ClusterInfoRequest {}

    /// Facts about the cluster, names and values in parallel.
    pub struct ClusterInfoResponse {
        1: err: ErrorCode,
        2: keys: Vec<String>,
        3: values: Vec<String>,
    }

    /// Sets, deletes or clears table envs.
    pub struct UpdateAppEnvRequest {
        1: app_name: String,
        2: op: AppEnvOperation,
        3: keys: Option<Vec<String>>,
        4: values: Option<Vec<String>>,
        5: clear_prefix: Option<String>,
    }

    /// Outcome of changing table envs.
    pub struct UpdateAppEnvResponse { 1: err: ErrorCode, 2: hint_message: String }

    /// Sets how much the meta server does of itself.
    pub struct MetaControlRequest { 1: level: MetaFunctionLevel }

    /// The level before.
    pub struct MetaControlResponse { 1: err: ErrorCode, 2: old_level: MetaFunctionLevel }

    /// One step of a balancing move.
    pub struct ProposalAction {
        1: target: RpcAddress,
        2: node: RpcAddress,
        3: config_type: ConfigType,
        5: hp_target: Option<HostPort>,
        6: hp_node: Option<HostPort>,
    }

    /// Asks for a balancing move.
    pub struct BalancerRequest {
        1: gpid: Gpid,
        2: action_list: List<ProposalAction>,
        3: force: bool,
        4: balance_type: Option<BalancerRequestType>,
    }

    /// Outcome of asking for a balancing move.
    pub struct BalancerResponse { 1: err: ErrorCode }

    /// Rebuilds the meta state from replica servers.
    pub struct RecoveryRequest {
        1: recovery_nodes: Vec<RpcAddress>,
        2: skip_bad_nodes: bool,
        3: skip_lost_partitions: bool,
        4: hp_recovery_nodes: Option<Vec<HostPort>>,
    }

    /// Outcome of rebuilding the meta state.
    pub struct RecoveryResponse { 1: err: ErrorCode, 2: hint_message: String }

    /// Asks which partitions lost all members.
    pub struct DddDiagnoseRequest {
        /// -1.-1 = all, app.-1 = one table.
        1: pid: Gpid,
    }

    /// A former member of a partition that lost all members.
    pub struct DddNodeInfo {
        1: node: RpcAddress,
        2: drop_time_ms: i64,
        3: is_alive: bool,
        4: is_collected: bool,
        5: ballot: i64,
        6: last_committed_decree: i64,
        7: last_prepared_decree: i64,
        8: hp_node: Option<HostPort>,
    }

    /// A partition that lost all members.
    pub struct DddPartitionInfo {
        1: config: PartitionConfiguration,
        2: dropped: List<DddNodeInfo>,
        3: reason: String,
    }

    /// Partitions that lost all members.
    pub struct DddDiagnoseResponse { 1: err: ErrorCode, 2: partitions: List<DddPartitionInfo> }

    /// Asks how many replicas a table's partitions have.
    pub struct GetMaxReplicaCountRequest { 1: app_name: String }

    /// How many replicas a table's partitions have.
    pub struct GetMaxReplicaCountResponse {
        1: err: ErrorCode,
        2: max_replica_count: i32,
        3: hint_message: String,
    }

    /// Sets how many replicas a table's partitions have.
    pub struct SetMaxReplicaCountRequest { 1: app_name: String, 2: max_replica_count: i32 }

    /// How many replicas a table's partitions had.
    pub struct SetMaxReplicaCountResponse {
        1: err: ErrorCode,
        2: old_max_replica_count: i32,
        3: hint_message: String,
    }

    /// Doubles the partitions of a table.
    pub struct StartPartitionSplitRequest { 1: app_name: String, 2: new_partition_count: i32 }

    /// Outcome of starting a split.
    pub struct StartPartitionSplitResponse { 1: err: ErrorCode, 2: hint_msg: String }

    /// Starts copying a table to another cluster.
    pub struct DuplicationAddRequest {
        1: app_name: String,
        2: remote_cluster_name: String,
        3: is_duplicating_checkpoint: bool = true,
        4: remote_app_name: Option<String>,
        5: remote_replica_count: Option<i32>,
    }

    /// Outcome of starting a duplication.
    pub struct DuplicationAddResponse {
        1: err: ErrorCode,
        2: appid: i32,
        3: dupid: i32,
        4: hint: Option<String>,
        5: remote_app_name: Option<String>,
        6: remote_replica_count: Option<i32>,
    }

    /// Asks a replica server for the tables it holds replicas of.
    pub struct QueryAppInfoRequest {
        1: meta_server: RpcAddress,
        2: hp_meta_server: Option<HostPort>,
    }

    /// Tables that a replica server holds replicas of.
    pub struct QueryAppInfoResponse { 1: err: ErrorCode, 2: apps: List<AppInfo> }

    /// Asks a replica server for its replicas.
    pub struct QueryReplicaInfoRequest { 1: node: RpcAddress, 2: hp_node: Option<HostPort> }

    /// Replicas of a server.
    pub struct QueryReplicaInfoResponse { 1: err: ErrorCode, 2: replicas: List<ReplicaInfo> }

    /// Asks for the last decree of one replica.
    pub struct QueryReplicaDecreeRequest {
        1: pid: Gpid,
        2: node: RpcAddress,
        3: hp_node: Option<HostPort>,
    }

    /// Last decree of one replica.
    pub struct QueryReplicaDecreeResponse { 1: err: ErrorCode, 2: last_decree: i64 }

    /// A data directory of a replica server.
    pub struct DiskInfo {
        1: tag: String,
        2: full_dir: String,
        3: disk_capacity_mb: i64,
        4: disk_available_mb: i64,
        /// By table.
        5: holding_primary_replicas: BTreeMap<i32, SetOf<Gpid>>,
        6: holding_secondary_replicas: BTreeMap<i32, SetOf<Gpid>>,
    }

    /// Asks a replica server for its data directories.
    pub struct QueryDiskInfoRequest {
        1: node: RpcAddress,
        /// Empty = all tables.
        2: app_name: String,
        3: hp_node: Option<HostPort>,
    }

    /// Data directories of a replica server.
    pub struct QueryDiskInfoResponse {
        1: err: ErrorCode,
        2: total_capacity_mb: i64,
        3: total_available_mb: i64,
        4: disk_infos: List<DiskInfo>,
    }
}
