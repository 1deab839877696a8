//! Task codes of the calls that a client makes; the names are the RPCs'.

dsn_core::task_codes! {
    /// Every code of this crate.
    pub CODES;
    /// `UpdateRequest` to `UpdateResponse`.
    pub RPC_RRDB_RRDB_PUT: Rpc, Low, "THREAD_POOL_REPLICATION";
    /// `MultiPutRequest` to `UpdateResponse`.
    pub RPC_RRDB_RRDB_MULTI_PUT: Rpc, Low, "THREAD_POOL_REPLICATION";
    /// Full key to `UpdateResponse`.
    pub RPC_RRDB_RRDB_REMOVE: Rpc, Low, "THREAD_POOL_REPLICATION";
    /// `MultiRemoveRequest` to `MultiRemoveResponse`.
    pub RPC_RRDB_RRDB_MULTI_REMOVE: Rpc, Low, "THREAD_POOL_REPLICATION";
    /// `IncrRequest` to `IncrResponse`.
    pub RPC_RRDB_RRDB_INCR: Rpc, Low, "THREAD_POOL_REPLICATION";
    /// `CheckAndSetRequest` to `CheckAndSetResponse`.
    pub RPC_RRDB_RRDB_CHECK_AND_SET: Rpc, Low, "THREAD_POOL_REPLICATION";
    /// `CheckAndMutateRequest` to `CheckAndMutateResponse`.
    pub RPC_RRDB_RRDB_CHECK_AND_MUTATE: Rpc, Low, "THREAD_POOL_REPLICATION";
    /// Full key to `ReadResponse`.
    pub RPC_RRDB_RRDB_GET: Rpc, Common, "THREAD_POOL_LOCAL_APP";
    /// Full key to `TtlResponse`.
    pub RPC_RRDB_RRDB_TTL: Rpc, Common, "THREAD_POOL_LOCAL_APP";
    /// `BatchGetRequest` to `BatchGetResponse`.
    pub RPC_RRDB_RRDB_BATCH_GET: Rpc, Common, "THREAD_POOL_LOCAL_APP";
    /// `MultiGetRequest` to `MultiGetResponse`.
    pub RPC_RRDB_RRDB_MULTI_GET: Rpc, Common, "THREAD_POOL_SCAN";
    /// Hash key to `CountResponse`.
    pub RPC_RRDB_RRDB_SORTKEY_COUNT: Rpc, Common, "THREAD_POOL_SCAN";
    /// `GetScannerRequest` to `ScanResponse`.
    pub RPC_RRDB_RRDB_GET_SCANNER: Rpc, Common, "THREAD_POOL_SCAN";
    /// `ScanRequest` to `ScanResponse`.
    pub RPC_RRDB_RRDB_SCAN: Rpc, Common, "THREAD_POOL_SCAN";
    /// Context id; no answer.
    pub RPC_RRDB_RRDB_CLEAR_SCANNER: Rpc, Common, "THREAD_POOL_SCAN";
    /// `CreateAppRequest` to `CreateAppResponse`.
    pub RPC_CM_CREATE_APP: Rpc, Common, "THREAD_POOL_META_SERVER";
    /// `DropAppRequest` to `DropAppResponse`.
    pub RPC_CM_DROP_APP: Rpc, Common, "THREAD_POOL_META_SERVER";
    /// `RecallAppRequest` to `RecallAppResponse`.
    pub RPC_CM_RECALL_APP: Rpc, Common, "THREAD_POOL_META_SERVER";
    /// `ListAppsRequest` to `ListAppsResponse`.
    pub RPC_CM_LIST_APPS: Rpc, Common, "THREAD_POOL_META_SERVER";
    /// `ListNodesRequest` to `ListNodesResponse`.
    pub RPC_CM_LIST_NODES: Rpc, Common, "THREAD_POOL_META_SERVER";
    /// `ClusterInfoRequest` to `ClusterInfoResponse`.
    pub RPC_CM_CLUSTER_INFO: Rpc, Common, "THREAD_POOL_META_SERVER";
    /// `UpdateAppEnvRequest` to `UpdateAppEnvResponse`.
    pub RPC_CM_UPDATE_APP_ENV: Rpc, Common, "THREAD_POOL_META_SERVER";
    /// `QueryCfgRequest` to `QueryCfgResponse`.
    pub RPC_CM_QUERY_PARTITION_CONFIG_BY_INDEX: Rpc, Common, "THREAD_POOL_META_SERVER";
    /// `Command` to text, on every server.
    pub RPC_CLI_CLI_CALL: Rpc, Common, "THREAD_POOL_DEFAULT";
}
