//! What servers of one cluster tell each other: liveness, group checks, learning, file copy.

use dsn_rpc::address::RpcAddress;
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::gpid::Gpid;
use dsn_rpc::host_port::HostPort;
use dsn_rpc::thrift::{Blob, List};
use dsn_rpc::{message, wire_enum};

use super::config::{AppInfo, DiskStatus, ReplicaConfiguration, SplitStatus};

wire_enum! {
    /// What a learner is given.
    pub enum LearnType {
        Invalid = 0 => "LT_INVALID",
        Cache = 1 => "LT_CACHE",
        App = 2 => "LT_APP",
        Log = 3 => "LT_LOG",
    }

    /// Where a learner is.
    pub enum LearnerStatus {
        Invalid = 0 => "LearningInvalid",
        WithoutPrepare = 1 => "LearningWithoutPrepare",
        WithPrepareTransient = 2 => "LearningWithPrepareTransient",
        WithPrepare = 3 => "LearningWithPrepare",
        Succeeded = 4 => "LearningSucceeded",
        Failed = 5 => "LearningFailed",
    }

    /// How a prepare was taken.
    pub enum PrepareVerdict {
        Taken = 0 => "PV_TAKEN",
        Gap = 1 => "PV_GAP",
        Outdated = 2 => "PV_OUTDATED",
        Refused = 3 => "PV_REFUSED",
        Absent = 4 => "PV_ABSENT",
        Ahead = 5 => "PV_AHEAD",
    }

    /// How learned files are checked.
    pub enum ChecksumType {
        Invalid = 0 => "CST_INVALID",
        None = 1 => "CST_NONE",
        Md5 = 2 => "CST_MD5",
    }
}

message! {
    /// "I am alive", from a replica server.
    pub struct BeaconMsg {
        /// Milliseconds, the sender's clock; echoed.
        1: time: i64,
        2: from_node: RpcAddress,
        3: to_node: RpcAddress,
        /// Milliseconds; tells a restarted server from one that was cut off.
        4: start_time: Option<i64>,
        5: hp_from_node: Option<HostPort>,
        6: hp_to_node: Option<HostPort>,
    }

    /// "I have heard you", from a meta server.
    pub struct BeaconAck {
        1: time: i64,
        2: this_node: RpcAddress,
        /// The leader.
        3: primary_node: RpcAddress,
        4: is_master: bool,
        5: allowed: bool,
        6: hp_this_node: Option<HostPort>,
        7: hp_primary_node: Option<HostPort>,
    }

    /// A primary tells a member what it knows.
    pub struct GroupCheckRequest {
        1: app: AppInfo,
        2: node: RpcAddress,
        3: config: ReplicaConfiguration,
        4: last_committed_decree: i64,
        /// Confirmed by duplication.
        5: confirmed_decree: Option<i64>,
        6: child_gpid: Option<Gpid>,
        7: meta_split_status: Option<SplitStatus>,
        8: hp_node: Option<HostPort>,
    }

    /// A member tells its primary where it is.
    pub struct GroupCheckResponse {
        1: pid: Gpid,
        2: err: ErrorCode,
        3: last_committed_decree_in_app: i64,
        4: last_committed_decree_in_prepare_list: i64,
        5: learner_status: LearnerStatus,
        6: learner_signature: i64,
        7: node: RpcAddress,
        8: is_split_stopped: Option<bool>,
        9: disk_status: DiskStatus,
        10: hp_node: Option<HostPort>,
    }

    /// Prepares of any partitions, from one server to another; answered by a [`PrepareAckMsg`], if at all.
    pub struct PrepareMsg {
        /// Where the sender listens.
        1: from: RpcAddress,
        2: items: List<PrepareItem>,
    }

    /// Consecutive mutations of one partition, see [`Prepare`](crate::replica::Prepare).
    pub struct PrepareItem {
        1: pid: Gpid,
        2: ballot: i64,
        3: learner_signature: i64,
        4: seq: i64,
        5: takeover: i64,
        6: last_committed_decree: i64,
        7: first_decree: i64,
        8: mutations: List<Blob>,
    }

    /// Acknowledgements of any partitions, from one server to another.
    pub struct PrepareAckMsg {
        /// Where the sender listens.
        1: from: RpcAddress,
        2: items: List<PrepareAckItem>,
    }

    /// What a member has, see [`Ack`](crate::replica::Ack).
    pub struct PrepareAckItem {
        1: pid: Gpid,
        2: ballot: i64,
        3: learner_signature: i64,
        4: seq: i64,
        5: verdict: PrepareVerdict,
        6: logged_decree: i64,
        7: applied_decree: i64,
        8: disk_status: DiskStatus,
    }

    /// Outcome of a prepare, as the original tells it.
    pub struct PrepareAck {
        1: pid: Gpid,
        2: err: ErrorCode,
        3: ballot: i64,
        4: decree: i64,
        5: last_committed_decree_in_app: i64,
        6: last_committed_decree_in_prepare_list: i64,
        /// Nanoseconds.
        7: receive_timestamp: Option<i64>,
        /// Nanoseconds.
        8: response_timestamp: Option<i64>,
    }

    /// What a learner is to take.
    pub struct LearnState {
        1: from_decree_excluded: i64,
        2: to_decree_included: i64,
        3: meta: Blob,
        4: files: List<String>,
        5: learn_start_decree: Option<i64>,
        6: file_sizes: Option<Vec<i64>>,
        7: file_checksums: Option<List<String>>,
    }

    /// A learner asks its primary.
    pub struct LearnRequest {
        1: pid: Gpid,
        2: learner: RpcAddress,
        3: signature: i64,
        4: last_committed_decree_in_app: i64,
        5: last_committed_decree_in_prepare_list: i64,
        6: app_specific_learn_request: Blob,
        7: max_gced_decree: Option<i64>,
        8: hp_learner: Option<HostPort>,
        9: checksum_type: ChecksumType = ChecksumType::None,
        100: fingerprint: Option<i64>,
        101: only_confirms: Option<bool>,
    }

    /// A primary answers its learner.
    pub struct LearnResponse {
        1: err: ErrorCode,
        2: config: ReplicaConfiguration,
        3: last_committed_decree: i64,
        4: prepare_start_decree: i64,
        5: learn_type: LearnType,
        6: state: LearnState,
        7: learnee: RpcAddress,
        8: base_local_dir: String,
        9: replica_disk_tag: Option<String>,
        10: hp_learnee: Option<HostPort>,
    }

    /// A primary acknowledges that a learner is done.
    pub struct LearnNotifyResponse { 1: pid: Gpid, 2: err: ErrorCode, 3: signature: i64 }

    /// Asks for a block of a file.
    pub struct CopyRequest {
        1: source: RpcAddress,
        2: source_dir: String,
        3: dst_dir: String,
        4: file_name: String,
        5: offset: i64,
        6: size: i32,
        7: is_last: bool,
        8: overwrite: bool,
        9: source_disk_tag: Option<String>,
        10: pid: Option<Gpid>,
        11: hp_source: Option<HostPort>,
    }

    /// A block of a file.
    pub struct CopyResponse {
        1: error: ErrorCode,
        2: file_content: Blob,
        3: offset: i64,
        4: size: i32,
    }

    /// Asks for the sizes of files.
    pub struct GetFileSizeRequest {
        1: source: RpcAddress,
        2: dst_dir: String,
        /// Empty = the whole directory.
        3: file_list: List<String>,
        4: source_dir: String,
        5: overwrite: bool,
        6: source_disk_tag: Option<String>,
        7: dest_disk_tag: Option<String>,
        8: pid: Option<Gpid>,
        9: hp_source: Option<HostPort>,
    }

    /// Sizes of files, names and sizes in parallel.
    pub struct GetFileSizeResponse {
        /// 0 or a number that means something to the sender only.
        1: error: i32,
        2: file_list: List<String>,
        3: size_list: Vec<i64>,
    }
}
