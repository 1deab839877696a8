//! Who answers: what every response of the storage app says about the replica it comes from.

use dsn_rpc::thrift::Text;

/// Table, partition and server of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Id of the table.
    pub app_id: i32,
    /// Index of the partition.
    pub partition_index: i32,
    /// `host:port` of the server.
    pub server: Text,
}
