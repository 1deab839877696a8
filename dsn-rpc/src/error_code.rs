//! Error codes: names on the wire, a small enum in memory.
//!
//! Every server of a cluster may know another set of names, so they travel as strings (announced as
//! a structure inside messages). A name that is not in the list reads as [`ErrorCode::Unknown`], as
//! in Pegasus. Old clients lack some of the newer names and drop their connection on one; prefer
//! names that all of them know.

use std::fmt;

use crate::thrift::{Decode, Encode, Reader, WireError, Writer, ttype};

macro_rules! error_codes {
    ($($(#[$meta:meta])* $variant:ident => $name:literal,)*) => {
        /// Outcome of a call or of an operation on the cluster.
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ErrorCode {
            $($(#[$meta])* #[doc = concat!("`", $name, "`")] $variant,)*
        }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name that travels.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The code of that name; [`ErrorCode::Unknown`] if there is none.
            #[must_use]
            pub fn from_name(name: &[u8]) -> Self {
                if name == Self::Ok.name().as_bytes() {
                    return Self::Ok;
                }
                let known = Self::ALL.iter().find(|code| code.name().as_bytes() == name);
                known.copied().unwrap_or(Self::Unknown)
            }
        }
    };
}

error_codes! {
    /// Success.
    #[default]
    Ok => "ERR_OK",
    /// Unspecified; also stands for every name that is not in this list.
    Unknown => "ERR_UNKNOWN",
    /// No such service.
    ServiceNotFound => "ERR_SERVICE_NOT_FOUND",
    /// Started a second time.
    ServiceAlreadyRunning => "ERR_SERVICE_ALREADY_RUNNING",
    /// Not finished yet; another update of the same thing is under way.
    IoPending => "ERR_IO_PENDING",
    /// No reply in time; set by the caller.
    Timeout => "ERR_TIMEOUT",
    /// The meta leader is not serving yet, or the service is switched off.
    ServiceNotActive => "ERR_SERVICE_NOT_ACTIVE",
    /// Throttled, queue full, or the same operation is already running.
    Busy => "ERR_BUSY",
    /// The network could not be initialised at start.
    NetworkInitFailed => "ERR_NETWORK_INIT_FAILED",
    /// This meta server is not the leader.
    ForwardToOthers => "ERR_FORWARD_TO_OTHERS",
    /// The partition is not on this node, or there is no such table.
    ObjectNotFound => "ERR_OBJECT_NOT_FOUND",
    /// Unknown RPC name, or one without handler.
    HandlerNotFound => "ERR_HANDLER_NOT_FOUND",
    /// A file could not be learned.
    LearnFileFailed => "ERR_LEARN_FILE_FAILED",
    /// The learnee could not build its state.
    GetLearnStateFailed => "ERR_GET_LEARN_STATE_FAILED",
    /// Outdated ballot or version.
    InvalidVersion => "ERR_INVALID_VERSION",
    /// Bad arguments.
    InvalidParameters => "ERR_INVALID_PARAMETERS",
    /// Too many writes that are not committed yet.
    CapacityExceeded => "ERR_CAPACITY_EXCEEDED",
    /// Not primary, not ready, or not allowed in this state.
    InvalidState => "ERR_INVALID_STATE",
    /// The node or replica is inactive.
    InactiveState => "ERR_INACTIVE_STATE",
    /// Fewer replicas alive than a write needs.
    NotEnoughMember => "ERR_NOT_ENOUGH_MEMBER",
    /// A local file operation failed.
    FileOperationFailed => "ERR_FILE_OPERATION_FAILED",
    /// End of a log file.
    HandleEof => "ERR_HANDLE_EOF",
    /// A learned or ingested file does not match its checksum.
    WrongChecksum => "ERR_WRONG_CHECKSUM",
    /// A write above the size limit, or corrupt data.
    InvalidData => "ERR_INVALID_DATA",
    /// Bad file handle.
    InvalidHandle => "ERR_INVALID_HANDLE",
    /// Truncated log or data.
    IncompleteData => "ERR_INCOMPLETE_DATA",
    /// The ballot of the request is old.
    VersionOutdated => "ERR_VERSION_OUTDATED",
    /// No such file or directory.
    PathNotFound => "ERR_PATH_NOT_FOUND",
    /// The target exists already.
    PathAlreadyExist => "ERR_PATH_ALREADY_EXIST",
    /// The address to listen on is taken.
    AddressAlreadyUsed => "ERR_ADDRESS_ALREADY_USED",
    /// The meta function level forbids it.
    StateFreezed => "ERR_STATE_FREEZED",
    /// The storage engine failed to open or to checkpoint.
    LocalAppFailure => "ERR_LOCAL_APP_FAILURE",
    /// Not used any more.
    BindIocpFailed => "ERR_BIND_IOCP_FAILED",
    /// The network could not be started.
    NetworkStartFailed => "ERR_NETWORK_START_FAILED",
    /// Not supported.
    NotImplemented => "ERR_NOT_IMPLEMENTED",
    /// A checkpoint failed.
    CheckpointFailed => "ERR_CHECKPOINT_FAILED",
    /// Asked at a bad moment, such as a checkpoint during a checkpoint.
    WrongTiming => "ERR_WRONG_TIMING",
    /// Nothing to do.
    NoNeedOperate => "ERR_NO_NEED_OPERATE",
    /// Corrupt metadata.
    Corruption => "ERR_CORRUPTION",
    /// Transient; ask again.
    TryAgain => "ERR_TRY_AGAIN",
    /// No such cluster.
    ClusterNotFound => "ERR_CLUSTER_NOT_FOUND",
    /// The cluster exists already.
    ClusterAlreadyExist => "ERR_CLUSTER_ALREADY_EXIST",
    /// The service exists already; hotkey detection is running.
    ServiceAlreadyExist => "ERR_SERVICE_ALREADY_EXIST",
    /// Made by fault injection.
    Injected => "ERR_INJECTED",
    /// Replication failed.
    ReplicationFailure => "ERR_REPLICATION_FAILURE",
    /// A table of that name exists.
    AppExist => "ERR_APP_EXIST",
    /// No such table.
    AppNotExist => "ERR_APP_NOT_EXIST",
    /// The table is being created or recalled.
    BusyCreating => "ERR_BUSY_CREATING",
    /// The table is being dropped.
    BusyDropping => "ERR_BUSY_DROPPING",
    /// The connection broke; set by the caller.
    NetworkFailure => "ERR_NETWORK_FAILURE",
    /// The meta server is recovering the cluster.
    UnderRecovery => "ERR_UNDER_RECOVERY",
    /// The asking node is not a known learner.
    LearnerNotFound => "ERR_LEARNER_NOT_FOUND",
    /// The operation is disabled for this table or at this time.
    OperationDisabled => "ERR_OPERATION_DISABLED",
    /// A lock was lost.
    Expired => "ERR_EXPIRED",
    /// The lock exists already.
    LockAlreadyExist => "ERR_LOCK_ALREADY_EXIST",
    /// The lock is held elsewhere.
    HoldByOthers => "ERR_HOLD_BY_OTHERS",
    /// The lock was taken twice.
    RecursiveLock => "ERR_RECURSIVE_LOCK",
    /// The lock has no owner.
    NoOwner => "ERR_NO_OWNER",
    /// A node of the meta store, or a data directory, exists already.
    NodeAlreadyExist => "ERR_NODE_ALREADY_EXIST",
    /// What is stored does not match.
    InconsistentState => "ERR_INCONSISTENT_STATE",
    /// Index out of range.
    ArrayIndexOutOfRange => "ERR_ARRAY_INDEX_OUT_OF_RANGE",
    /// The directory is not empty.
    DirNotEmpty => "ERR_DIR_NOT_EMPTY",
    /// The remote file system failed.
    FsInternal => "ERR_FS_INTERNAL",
    /// A bad partition was skipped.
    IgnoreBadData => "ERR_IGNORE_BAD_DATA",
    /// The table is dropped already.
    AppDropped => "ERR_APP_DROPPED",
    /// Used by tests.
    MockInternal => "ERR_MOCK_INTERNAL",
    /// ZooKeeper failed.
    ZookeeperOperation => "ERR_ZOOKEEPER_OPERATION",
    /// The child partition is registered already.
    ChildRegistered => "ERR_CHILD_REGISTERED",
    /// Files could not be ingested.
    IngestionFailed => "ERR_INGESTION_FAILED",
    /// Not authenticated.
    Unauthenticated => "ERR_UNAUTHENTICATED",
    /// Kerberos failed.
    Krb5Internal => "ERR_KRB5_INTERNAL",
    /// SASL failed.
    SaslInternal => "ERR_SASL_INTERNAL",
    /// SASL needs another round.
    SaslIncomplete => "ERR_SASL_INCOMPLETE",
    /// The user may not do that.
    AclDeny => "ERR_ACL_DENY",
    /// The partition count is being changed.
    Splitting => "ERR_SPLITTING",
    /// The key belongs to another partition now; refresh the configuration.
    ParentPartitionMisused => "ERR_PARENT_PARTITION_MISUSED",
    /// The child partition does not serve yet; use its parent.
    ChildNotReady => "ERR_CHILD_NOT_READY",
    /// A disk of the group is full.
    DiskInsufficient => "ERR_DISK_INSUFFICIENT",
    /// Tried too often.
    RetryExhausted => "ERR_RETRY_EXHAUSTED",
    /// Ranger policies could not be fetched.
    SyncRangerPoliciesFailed => "ERR_SYNC_RANGER_POLICIES_FAILED",
    /// Ranger policies could not be read.
    RangerParseAcl => "ERR_RANGER_PARSE_ACL",
    /// Ranger policies are up to date.
    RangerPoliciesNoNeedUpdate => "ERR_RANGER_POLICIES_NO_NEED_UPDATE",
    /// RocksDB found corruption.
    RdbCorruption => "ERR_RDB_CORRUPTION",
    /// A disk of the group fails.
    DiskIoError => "ERR_DISK_IO_ERROR",
    /// An HTTP call could not be made.
    CurlFailed => "ERR_CURL_FAILED",
    /// A duplication to that cluster exists.
    DupExist => "ERR_DUP_EXIST",
    /// An HTTP call failed.
    HttpError => "ERR_HTTP_ERROR",
    /// The pattern matches nothing.
    NotMatched => "ERR_NOT_MATCHED",
}

/// What a caller of a storage operation should do about an error of the RPC level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// It worked.
    Done,
    /// Give the error to the user.
    Fail,
    /// Try again with the same partition configuration, after a pause.
    Retry,
    /// Fetch the partition configuration anew, then try again.
    RefreshAndRetry,
}

impl ErrorCode {
    /// Whether this is success.
    #[inline]
    #[must_use]
    pub const fn is_ok(self) -> bool {
        matches!(self, Self::Ok)
    }

    /// What the caller of an idempotent storage operation should do, until its deadline ends.
    /// Follows the C++ client, except that errors which no repetition can cure fail at once.
    #[must_use]
    pub const fn advice(self) -> Advice {
        match self {
            Self::Ok => Advice::Done,
            Self::Timeout
            | Self::NetworkFailure
            | Self::ObjectNotFound
            | Self::InvalidState
            | Self::InactiveState
            | Self::ParentPartitionMisused
            | Self::ChildNotReady
            | Self::IoPending => Advice::RefreshAndRetry,
            Self::NotEnoughMember | Self::CapacityExceeded | Self::TryAgain => Advice::Retry,
            _ => Advice::Fail,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::error::Error for ErrorCode {}

impl Encode for ErrorCode {
    const TTYPE: u8 = ttype::STRUCT;

    #[inline]
    fn write(&self, w: &mut Writer<'_>) {
        w.bytes(self.name().as_bytes());
    }
}

impl Decode for ErrorCode {
    const MIN_SIZE: usize = 4;

    #[inline]
    fn read(r: &mut Reader<'_>) -> Result<Self, WireError> {
        r.bytes().map(Self::from_name)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::thrift::decode;

    #[test]
    fn names_are_distinct_and_lead_back() {
        for &code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_name(code.name().as_bytes()), code);
            assert!(code.name().starts_with("ERR_"));
        }
        assert_eq!(ErrorCode::ALL.len(), 88);
    }

    #[test]
    fn other_names_read_as_unknown() {
        let wire = Bytes::from_static(b"\0\0\0\x07ERR_NEW");
        assert_eq!(decode(&wire), Ok(ErrorCode::Unknown));
        assert_eq!(ErrorCode::from_name(b""), ErrorCode::Unknown);
    }

    #[test]
    fn absent_means_ok() {
        assert!(ErrorCode::default().is_ok());
        assert_eq!(ErrorCode::Busy.advice(), Advice::Fail);
        assert_eq!(ErrorCode::InvalidState.advice(), Advice::RefreshAndRetry);
    }
}
