//! Names of the RPCs of meta servers and replica servers.

macro_rules! names {
    ($($(#[$meta:meta])* $name:ident = $wire:literal;)*) => {
        $($(#[$meta])* pub const $name: &str = $wire;)*
    };
}

names! {
    /// `QueryCfgRequest` to `QueryCfgResponse`: where the partitions of a table are.
    QUERY_CONFIG = "RPC_CM_QUERY_PARTITION_CONFIG_BY_INDEX";
    /// `CreateAppRequest` to `CreateAppResponse`.
    CREATE_APP = "RPC_CM_CREATE_APP";
    /// `DropAppRequest` to `DropAppResponse`.
    DROP_APP = "RPC_CM_DROP_APP";
    /// `RecallAppRequest` to `RecallAppResponse`.
    RECALL_APP = "RPC_CM_RECALL_APP";
    /// `RenameAppRequest` to `RenameAppResponse`.
    RENAME_APP = "RPC_CM_RENAME_APP";
    /// `ListAppsRequest` to `ListAppsResponse`.
    LIST_APPS = "RPC_CM_LIST_APPS";
    /// `ListNodesRequest` to `ListNodesResponse`.
    LIST_NODES = "RPC_CM_LIST_NODES";
    /// `ClusterInfoRequest` to `ClusterInfoResponse`.
    CLUSTER_INFO = "RPC_CM_CLUSTER_INFO";
    /// `UpdateAppEnvRequest` to `UpdateAppEnvResponse`.
    UPDATE_APP_ENV = "RPC_CM_UPDATE_APP_ENV";
    /// `MetaControlRequest` to `MetaControlResponse`.
    CONTROL_META = "RPC_CM_CONTROL_META";
    /// `BalancerRequest` to `BalancerResponse`.
    PROPOSE_BALANCER = "RPC_CM_PROPOSE_BALANCER";
    /// `RecoveryRequest` to `RecoveryResponse`.
    START_RECOVERY = "RPC_CM_START_RECOVERY";
    /// `DddDiagnoseRequest` to `DddDiagnoseResponse`.
    DDD_DIAGNOSE = "RPC_CM_DDD_DIAGNOSE";
    /// `GetMaxReplicaCountRequest` to `GetMaxReplicaCountResponse`.
    GET_MAX_REPLICA_COUNT = "RPC_CM_GET_MAX_REPLICA_COUNT";
    /// `SetMaxReplicaCountRequest` to `SetMaxReplicaCountResponse`.
    SET_MAX_REPLICA_COUNT = "RPC_CM_SET_MAX_REPLICA_COUNT";
    /// `StartPartitionSplitRequest` to `StartPartitionSplitResponse`.
    START_PARTITION_SPLIT = "RPC_CM_START_PARTITION_SPLIT";
    /// `DuplicationAddRequest` to `DuplicationAddResponse`.
    ADD_DUPLICATION = "RPC_CM_ADD_DUPLICATION";
    /// `ConfigSyncRequest` to `ConfigSyncResponse`, from replica servers.
    CONFIG_SYNC = "RPC_CM_CONFIG_SYNC";
    /// `ConfigurationUpdateRequest` to `ConfigurationUpdateResponse`, from primaries.
    UPDATE_PARTITION_CONFIGURATION = "RPC_CM_UPDATE_PARTITION_CONFIGURATION";

    /// `ConfigurationUpdateRequest`, one way, from the meta server.
    CONFIG_PROPOSAL = "RPC_CONFIG_PROPOSAL";
    /// `GroupCheckRequest` to `GroupCheckResponse`, from primaries.
    GROUP_CHECK = "RPC_GROUP_CHECK";
    /// `LearnRequest` to `LearnResponse`, from learners.
    LEARN = "RPC_LEARN";
    /// `GroupCheckResponse` to `LearnNotifyResponse`, from learners.
    LEARN_COMPLETION_NOTIFY = "RPC_LEARN_COMPLETION_NOTIFY";
    /// `GroupCheckRequest`, one way, from primaries.
    LEARN_ADD_LEARNER = "RPC_LEARN_ADD_LEARNER";
    /// `PrepareMsg`, one way, from primaries.
    PREPARE = "RPC_PREPARE";
    /// `PrepareAckMsg`, one way, from members and learners.
    PREPARE_ACK = "RPC_PREPARE_ACK";
    /// `ReplicaConfiguration`, one way, from primaries.
    REMOVE_REPLICA = "RPC_REMOVE_REPLICA";
    /// `QueryAppInfoRequest` to `QueryAppInfoResponse`.
    QUERY_APP_INFO = "RPC_QUERY_APP_INFO";
    /// `QueryReplicaInfoRequest` to `QueryReplicaInfoResponse`.
    QUERY_REPLICA_INFO = "RPC_QUERY_REPLICA_INFO";
    /// `QueryReplicaDecreeRequest` to `QueryReplicaDecreeResponse`.
    QUERY_PN_DECREE = "RPC_QUERY_PN_DECREE";
    /// `QueryDiskInfoRequest` to `QueryDiskInfoResponse`.
    QUERY_DISK_INFO = "RPC_QUERY_DISK_INFO";
    /// `CopyRequest` to `CopyResponse`.
    NFS_COPY = "RPC_NFS_COPY";
    /// `GetFileSizeRequest` to `GetFileSizeResponse`.
    NFS_GET_FILE_SIZE = "RPC_NFS_GET_FILE_SIZE";

    /// `BeaconMsg` to `BeaconAck`, from replica servers to meta servers.
    FAILURE_DETECTOR_PING = "RPC_FD_FAILURE_DETECTOR_PING";
}
