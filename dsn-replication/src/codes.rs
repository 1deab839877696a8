//! Task codes of the RPCs between clients, meta servers and replica servers, with Pegasus's priorities and stages.
//!
//! What an RPC carries is told in [`wire::codes`](crate::wire::codes). A code is known by identity, so there is one
//! declaration for all who serve or call it.

use dsn_core::stage::{BLOCK_SERVICE, DEFAULT, META_SERVER, REPLICATION};

dsn_core::task_codes! {
    /// Every code of this file.
    pub CODES;

    /// Where the partitions of a table are.
    pub RPC_CM_QUERY_PARTITION_CONFIG_BY_INDEX: Rpc, Common, META_SERVER;
    /// Makes a table.
    pub RPC_CM_CREATE_APP: Rpc, Common, META_SERVER, timeout_ms = 30_000;
    /// Drops a table.
    pub RPC_CM_DROP_APP: Rpc, Common, META_SERVER, timeout_ms = 30_000;
    /// Brings a dropped table back.
    pub RPC_CM_RECALL_APP: Rpc, Common, META_SERVER, timeout_ms = 30_000;
    /// Gives a table another name.
    pub RPC_CM_RENAME_APP: Rpc, Common, META_SERVER;
    /// Lists tables.
    pub RPC_CM_LIST_APPS: Rpc, Common, META_SERVER;
    /// Lists replica servers.
    pub RPC_CM_LIST_NODES: Rpc, Common, META_SERVER;
    /// Facts about the cluster.
    pub RPC_CM_CLUSTER_INFO: Rpc, Common, META_SERVER;
    /// Sets, deletes or clears envs of a table.
    pub RPC_CM_UPDATE_APP_ENV: Rpc, Common, META_SERVER;
    /// Sets the function level.
    pub RPC_CM_CONTROL_META: Rpc, Common, META_SERVER;
    /// Asks for a balancing move.
    pub RPC_CM_PROPOSE_BALANCER: Rpc, Common, META_SERVER;
    /// Rebuilds the meta state from replica servers.
    pub RPC_CM_START_RECOVERY: Rpc, High, META_SERVER;
    /// Which partitions nobody can be made primary of.
    pub RPC_CM_DDD_DIAGNOSE: Rpc, Common, META_SERVER;
    /// How many replicas a table has.
    pub RPC_CM_GET_MAX_REPLICA_COUNT: Rpc, Common, META_SERVER;
    /// Sets how many replicas a table has.
    pub RPC_CM_SET_MAX_REPLICA_COUNT: Rpc, Common, META_SERVER;
    /// Doubles the partitions of a table.
    pub RPC_CM_START_PARTITION_SPLIT: Rpc, Common, META_SERVER;
    /// Starts copying a table to another cluster.
    pub RPC_CM_ADD_DUPLICATION: Rpc, Common, META_SERVER;
    /// A replica server reports what it holds.
    pub RPC_CM_CONFIG_SYNC: Rpc, Common, META_SERVER;
    /// A group has changed.
    pub RPC_CM_UPDATE_PARTITION_CONFIGURATION: Rpc, Common, META_SERVER;

    /// "I am alive", to meta servers.
    pub RPC_FD_FAILURE_DETECTOR_PING: Rpc, High, DEFAULT, timeout_ms = 2_000;

    /// A replica server is asked to change a group; one way.
    pub RPC_CONFIG_PROPOSAL: Rpc, High, REPLICATION;
    /// Mutations, from primaries; one way.
    pub RPC_PREPARE: Rpc, High, REPLICATION;
    /// How far members have them; one way.
    pub RPC_PREPARE_ACK: Rpc, High, REPLICATION;
    /// What the primary knows of its group.
    pub RPC_GROUP_CHECK: Rpc, High, REPLICATION;
    /// A learner asks its primary.
    pub RPC_LEARN: Rpc, High, REPLICATION;
    /// A learner has caught up.
    pub RPC_LEARN_COMPLETION_NOTIFY: Rpc, High, REPLICATION;
    /// A server is to begin learning; one way.
    pub RPC_LEARN_ADD_LEARNER: Rpc, High, REPLICATION;
    /// A server is no longer a member; one way.
    pub RPC_REMOVE_REPLICA: Rpc, Common, REPLICATION;
    /// Tables that a replica server holds replicas of.
    pub RPC_QUERY_APP_INFO: Rpc, Common, REPLICATION;
    /// Replicas of a server.
    pub RPC_QUERY_REPLICA_INFO: Rpc, High, REPLICATION;
    /// The last decree of one replica.
    pub RPC_QUERY_PN_DECREE: Rpc, High, REPLICATION;
    /// Data directories of a replica server.
    pub RPC_QUERY_DISK_INFO: Rpc, Common, DEFAULT;
    /// A block of a file.
    pub RPC_NFS_COPY: Rpc, Common, BLOCK_SERVICE;
    /// Sizes of files.
    pub RPC_NFS_GET_FILE_SIZE: Rpc, Common, BLOCK_SERVICE;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::codes;

    #[test]
    fn the_names_are_those_that_the_messages_are_told_under() {
        let declared: Vec<&str> = CODES.iter().map(|code| code.name()).collect();
        for name in [
            codes::QUERY_CONFIG,
            codes::CREATE_APP,
            codes::DROP_APP,
            codes::RECALL_APP,
            codes::RENAME_APP,
            codes::LIST_APPS,
            codes::LIST_NODES,
            codes::CLUSTER_INFO,
            codes::UPDATE_APP_ENV,
            codes::CONTROL_META,
            codes::PROPOSE_BALANCER,
            codes::START_RECOVERY,
            codes::DDD_DIAGNOSE,
            codes::GET_MAX_REPLICA_COUNT,
            codes::SET_MAX_REPLICA_COUNT,
            codes::START_PARTITION_SPLIT,
            codes::ADD_DUPLICATION,
            codes::CONFIG_SYNC,
            codes::UPDATE_PARTITION_CONFIGURATION,
            codes::CONFIG_PROPOSAL,
            codes::GROUP_CHECK,
            codes::LEARN,
            codes::LEARN_COMPLETION_NOTIFY,
            codes::LEARN_ADD_LEARNER,
            codes::PREPARE,
            codes::PREPARE_ACK,
            codes::REMOVE_REPLICA,
            codes::QUERY_APP_INFO,
            codes::QUERY_REPLICA_INFO,
            codes::QUERY_PN_DECREE,
            codes::QUERY_DISK_INFO,
            codes::NFS_COPY,
            codes::NFS_GET_FILE_SIZE,
            codes::FAILURE_DETECTOR_PING,
        ] {
            assert!(declared.contains(&name), "{name}");
        }
        assert_eq!(declared.len(), 34);
    }
}
