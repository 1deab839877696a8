//! What the tests over recorded bytes share: the files, and which types each RPC has.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use bytes::Bytes;
use dsn_replication::wire::{admin::*, config::*, replica::*};
use dsn_rpc::builtin::{Command, Negotiation};
use dsn_rpc::thrift::{Blob, Decode, WireError, Writer, decode_wrapped};
use pegasus_client::schema::rrdb::*;
use serde_json::Value;

dsn_rpc::message! {
    /// Stands for the answer of an RPC that has none.
    pub struct NoAnswer {}
}

/// Decodes a wrapped value and writes it again, wrapped under the given id.
pub type Recode = fn(&Bytes, i16, &mut Writer<'_>) -> Result<(), WireError>;

/// An RPC with the types of its argument and its result.
pub struct Rpc {
    /// Name on the wire.
    pub name: &'static str,
    /// For the argument.
    pub request: Recode,
    /// For the result.
    pub response: Recode,
}

fn recode<T: Decode>(body: &Bytes, id: i16, w: &mut Writer<'_>) -> Result<(), WireError> {
    let value: T = decode_wrapped(body)?;
    w.wrapped(id, &value);
    Ok(())
}

macro_rules! rpcs {
    ($($name:literal: $request:ty => $response:ty;)*) => {
        /// Every RPC that the recorded bytes hold.
        pub const RPCS: &[Rpc] = &[$(
            Rpc { name: $name, request: recode::<$request>, response: recode::<$response> }
        ),*];
    };
}

/// Hands `name: request => response;` of every RPC that the recorded bytes hold to another macro.
macro_rules! with_rpcs {
    ($then:ident) => {
        $then! {
            "RPC_RRDB_RRDB_PUT": UpdateRequest => UpdateResponse;
            "RPC_RRDB_RRDB_MULTI_PUT": MultiPutRequest => UpdateResponse;
            "RPC_RRDB_RRDB_REMOVE": Blob => UpdateResponse;
            "RPC_RRDB_RRDB_MULTI_REMOVE": MultiRemoveRequest => MultiRemoveResponse;
            "RPC_RRDB_RRDB_INCR": IncrRequest => IncrResponse;
            "RPC_RRDB_RRDB_CHECK_AND_SET": CheckAndSetRequest => CheckAndSetResponse;
            "RPC_RRDB_RRDB_CHECK_AND_MUTATE": CheckAndMutateRequest => CheckAndMutateResponse;
            "RPC_RRDB_RRDB_GET": Blob => ReadResponse;
            "RPC_RRDB_RRDB_TTL": Blob => TtlResponse;
            "RPC_RRDB_RRDB_BATCH_GET": BatchGetRequest => BatchGetResponse;
            "RPC_RRDB_RRDB_MULTI_GET": MultiGetRequest => MultiGetResponse;
            "RPC_RRDB_RRDB_SORTKEY_COUNT": Blob => CountResponse;
            "RPC_RRDB_RRDB_GET_SCANNER": GetScannerRequest => ScanResponse;
            "RPC_RRDB_RRDB_SCAN": ScanRequest => ScanResponse;
            "RPC_RRDB_RRDB_CLEAR_SCANNER": i64 => NoAnswer;
            "RPC_CM_QUERY_PARTITION_CONFIG_BY_INDEX": QueryCfgRequest => QueryCfgResponse;
            "RPC_CM_CREATE_APP": CreateAppRequest => CreateAppResponse;
            "RPC_CM_DROP_APP": DropAppRequest => DropAppResponse;
            "RPC_CM_RECALL_APP": RecallAppRequest => RecallAppResponse;
            "RPC_CM_RENAME_APP": RenameAppRequest => RenameAppResponse;
            "RPC_CM_LIST_APPS": ListAppsRequest => ListAppsResponse;
            "RPC_CM_LIST_NODES": ListNodesRequest => ListNodesResponse;
            "RPC_CM_CLUSTER_INFO": ClusterInfoRequest => ClusterInfoResponse;
            "RPC_CM_CONTROL_META": MetaControlRequest => MetaControlResponse;
            "RPC_CM_UPDATE_APP_ENV": UpdateAppEnvRequest => UpdateAppEnvResponse;
            "RPC_CM_PROPOSE_BALANCER": BalancerRequest => BalancerResponse;
            "RPC_CM_START_RECOVERY": RecoveryRequest => RecoveryResponse;
            "RPC_CM_DDD_DIAGNOSE": DddDiagnoseRequest => DddDiagnoseResponse;
            "RPC_CM_GET_MAX_REPLICA_COUNT": GetMaxReplicaCountRequest => GetMaxReplicaCountResponse;
            "RPC_CM_START_PARTITION_SPLIT":
                StartPartitionSplitRequest => StartPartitionSplitResponse;
            "RPC_CM_ADD_DUPLICATION": DuplicationAddRequest => DuplicationAddResponse;
            "RPC_QUERY_APP_INFO": QueryAppInfoRequest => QueryAppInfoResponse;
            "RPC_QUERY_REPLICA_INFO": QueryReplicaInfoRequest => QueryReplicaInfoResponse;
            "RPC_QUERY_DISK_INFO": QueryDiskInfoRequest => QueryDiskInfoResponse;
            "RPC_CLI_CLI_CALL": Command => String;
            "RPC_NEGOTIATION": Negotiation => Negotiation;
            "RPC_FD_FAILURE_DETECTOR_PING": BeaconMsg => BeaconAck;
            "RPC_CM_CONFIG_SYNC": ConfigSyncRequest => ConfigSyncResponse;
            "RPC_CONFIG_PROPOSAL": ConfigurationUpdateRequest => NoAnswer;
            "RPC_GROUP_CHECK": GroupCheckRequest => GroupCheckResponse;
            "RPC_NFS_GET_FILE_SIZE": GetFileSizeRequest => GetFileSizeResponse;
            "RPC_NFS_COPY": CopyRequest => CopyResponse;
        }
    };
}

with_rpcs!(rpcs);

/// The RPC of that name.
pub fn rpc(name: &str) -> &'static Rpc {
    RPCS.iter().find(|rpc| rpc.name == name).unwrap_or_else(|| panic!("no types for {name}"))
}

/// The recordings of real clients, by file name.
pub fn recordings() -> Vec<(&'static str, Value)> {
    let files = [
        ("python_pypi", include_str!("../../../tests/vectors/python_pypi.json")),
        ("python_master", include_str!("../../../tests/vectors/python_master.json")),
        ("python_master_hp", include_str!("../../../tests/vectors/python_master_hp.json")),
        ("python_pypi_hp", include_str!("../../../tests/vectors/python_pypi_hp_breaks.json")),
    ];
    files.map(|(name, text)| (name, serde_json::from_str(text).expect("a JSON file"))).into()
}

/// The bytes made with generated classes.
pub fn synthesised() -> Value {
    let text = include_str!("../../../tests/vectors/synthesised_thrift.json");
    serde_json::from_str(text).expect("a JSON file")
}

/// Hash keys with their hashes.
pub fn partition_hashes() -> Value {
    let text = include_str!("../../../tests/vectors/partition_hash.json");
    serde_json::from_str(text).expect("a JSON file")
}

/// The bytes of a hex text.
pub fn unhex(text: &str) -> Bytes {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    assert!(rest.is_empty(), "odd hex text");
    let byte = |pair: &[u8; 2]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    pairs.iter().map(|pair| byte(pair).expect("hex digits")).collect()
}

/// The bytes of a hex text in a JSON object; empty when it is null or absent.
pub fn hex_of(object: &Value, key: &str) -> Bytes {
    unhex(object[key].as_str().unwrap_or_default())
}
