//! Tables, partitions and replicas, as the meta server describes them.

use std::collections::BTreeMap;

use dsn_rpc::address::RpcAddress;
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::gpid::Gpid;
use dsn_rpc::host_port::HostPort;
use dsn_rpc::thrift::List;
use dsn_rpc::{message, wire_enum};

wire_enum! {
    /// Where a table is in its life.
    pub enum AppStatus {
        Invalid = 0 => "AS_INVALID",
        Available = 1 => "AS_AVAILABLE",
        Creating = 2 => "AS_CREATING",
        CreateFailed = 3 => "AS_CREATE_FAILED",
        Dropping = 4 => "AS_DROPPING",
        DropFailed = 5 => "AS_DROP_FAILED",
        Dropped = 6 => "AS_DROPPED",
        Recalling = 7 => "AS_RECALLING",
    }

    /// Role of a replica in its group.
    pub enum PartitionStatus {
        Invalid = 0 => "PS_INVALID",
        Inactive = 1 => "PS_INACTIVE",
        Error = 2 => "PS_ERROR",
        Primary = 3 => "PS_PRIMARY",
        Secondary = 4 => "PS_SECONDARY",
        PotentialSecondary = 5 => "PS_POTENTIAL_SECONDARY",
        PartitionSplit = 6 => "PS_PARTITION_SPLIT",
    }

    /// Change of a group that is proposed or made.
    pub enum ConfigType {
        Invalid = 0 => "CT_INVALID",
        AssignPrimary = 1 => "CT_ASSIGN_PRIMARY",
        UpgradeToPrimary = 2 => "CT_UPGRADE_TO_PRIMARY",
        AddSecondary = 3 => "CT_ADD_SECONDARY",
        UpgradeToSecondary = 4 => "CT_UPGRADE_TO_SECONDARY",
        DowngradeToSecondary = 5 => "CT_DOWNGRADE_TO_SECONDARY",
        DowngradeToInactive = 6 => "CT_DOWNGRADE_TO_INACTIVE",
        Remove = 7 => "CT_REMOVE",
        AddSecondaryForLb = 8 => "CT_ADD_SECONDARY_FOR_LB",
        PrimaryForceUpdateBallot = 9 => "CT_PRIMARY_FORCE_UPDATE_BALLOT",
        DropPartition = 10 => "CT_DROP_PARTITION",
        RegisterChild = 11 => "CT_REGISTER_CHILD",
    }

    /// Where a partition split is.
    pub enum SplitStatus {
        NotSplit = 0 => "NOT_SPLIT",
        Splitting = 1 => "SPLITTING",
        Pausing = 2 => "PAUSING",
        Paused = 3 => "PAUSED",
        Canceling = 4 => "CANCELING",
    }

    /// Health of a disk.
    pub enum DiskStatus {
        Normal = 0 => "NORMAL",
        SpaceInsufficient = 1 => "SPACE_INSUFFICIENT",
        IoError = 2 => "IO_ERROR",
    }

    /// Where a manual compaction is.
    pub enum ManualCompactionStatus {
        Idle = 0 => "IDLE",
        Queuing = 1 => "QUEUING",
        Running = 2 => "RUNNING",
        Finished = 3 => "FINISHED",
    }
}

message! {
    /// A table.
    pub struct AppInfo {
        1: status: AppStatus,
        2: app_type: String,
        3: app_name: String,
        4: app_id: i32,
        5: partition_count: i32,
        6: envs: BTreeMap<String, String>,
        7: is_stateful: bool,
        8: max_replica_count: i32,
        /// Unix seconds at which a dropped table is forgotten.
        9: expire_second: i64,
        /// Unix seconds.
        10: create_second: i64,
        /// Unix seconds, 0 while not dropped.
        11: drop_second: i64,
        12: duplicating: bool,
        13: init_partition_count: i32 = -1,
        14: is_bulk_loading: bool,
        15: atomic_idempotent: bool,
    }

    /// Who led a group last, or leads it now.
    pub struct Leader {
        1: node: RpcAddress,
        /// A ballot that its replica knew when the group last changed: it may have been killed before it heard of
        /// higher ones, and a copy that it left behind somewhere earlier has no higher one.
        2: known_ballot: i64,
    }

    /// A partition's group.
    pub struct PartitionConfiguration {
        1: pid: Gpid,
        /// Below 0 for a child that does not serve yet.
        2: ballot: i64,
        3: max_replica_count: i32,
        4: primary: RpcAddress,
        5: secondaries: Vec<RpcAddress>,
        6: last_drops: Vec<RpcAddress>,
        7: last_committed_decree: i64,
        8: partition_flags: i32,
        9: hp_primary: Option<HostPort>,
        10: hp_secondaries: Option<Vec<HostPort>>,
        11: hp_last_drops: Option<Vec<HostPort>>,
        /// Only in the meta server's store. Not known to the original.
        1001: last_leader: Option<Leader>,
    }

    /// Asks for the configuration of a table.
    pub struct QueryCfgRequest {
        1: app_name: String,
        /// Empty = all.
        2: partition_indices: Vec<i32>,
    }

    /// Configuration of a table.
    pub struct QueryCfgResponse {
        1: err: ErrorCode,
        2: app_id: i32,
        3: partition_count: i32,
        /// Must be true, or the Python clients take the answer for a failure.
        4: is_stateful: bool,
        /// With `ERR_FORWARD_TO_OTHERS`, the first one's primary is the leader.
        5: partitions: List<PartitionConfiguration>,
    }

    /// What one replica is told about its group.
    pub struct ReplicaConfiguration {
        1: pid: Gpid,
        2: ballot: i64,
        3: primary: RpcAddress,
        4: status: PartitionStatus,
        5: learner_signature: i64,
        6: pop_all: bool,
        7: split_sync_to_child: bool,
        8: hp_primary: Option<HostPort>,
    }

    /// What a server says about a replica it holds.
    pub struct ReplicaInfo {
        1: pid: Gpid,
        2: ballot: i64,
        3: status: PartitionStatus,
        4: last_committed_decree: i64,
        5: last_prepared_decree: i64,
        6: last_durable_decree: i64,
        7: app_type: String,
        8: disk_tag: String,
        9: manual_compact_status: Option<ManualCompactionStatus>,
        /// The end of its log may be missing: the machine was started anew since it was written, and it need not have
        /// been synced. Not known to the original, whose numbers end far below.
        1001: tail_uncertain: Option<bool>,
    }

    /// A change of a group: proposed by the meta server, or reported to it.
    pub struct ConfigurationUpdateRequest {
        1: info: AppInfo,
        2: config: PartitionConfiguration,
        3: config_type: ConfigType,
        /// Whom the change concerns.
        4: node: RpcAddress,
        /// Unused.
        5: host_node: RpcAddress,
        6: meta_split_status: Option<SplitStatus>,
        7: hp_node: Option<HostPort>,
        /// In proposals to lead: though the end of its log may be missing, as the meta server knows. Not known to the
        /// original.
        1001: despite_uncertain_tail: Option<bool>,
        /// In reports of a server that is to lead: the ballot that its replica knows so far. Not known to the original.
        1002: known_ballot: Option<i64>,
    }

    /// The group as the meta server has it after a report.
    pub struct ConfigurationUpdateResponse {
        1: err: ErrorCode,
        2: config: PartitionConfiguration,
    }

    /// What a replica server has.
    pub struct ReplicaServerInfo {
        1: geo_tags: BTreeMap<String, String>,
        2: total_capacity_mb: i64,
    }

    /// A replica server tells what it holds and asks what it should.
    pub struct ConfigSyncRequest {
        1: node: RpcAddress,
        2: stored_replicas: Option<List<ReplicaInfo>>,
        3: info: Option<ReplicaServerInfo>,
        4: hp_node: Option<HostPort>,
        /// Replicas on its disks that these refuse at present. Not known to the original.
        1001: refused_replicas: Option<List<Gpid>>,
        /// A data directory cannot be used at present: it may hold more. Not known to the original.
        1002: is_incomplete: Option<bool>,
    }

    /// What a replica server should hold, and what it should delete.
    pub struct ConfigSyncResponse {
        1: err: ErrorCode,
        2: partitions: List<ConfigurationUpdateRequest>,
        3: gc_replicas: Option<List<ReplicaInfo>>,
    }
}
