//! May this write run? The checks and their order are the original's, so that clients see the same error first.

use super::{Replica, Role};
use crate::gate::{ANY_HASH, Deny};
use crate::table_rules::TableRules;
use dsn_rpc::error_code::ErrorCode;

/// What the server says about writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteRules {
    /// Largest body, in bytes; 0 for no limit.
    pub max_bytes: usize,
    /// Fewest members a group must have.
    pub min_members: u32,
    /// Whether the disk of this server has no room; what members say of theirs counts as well.
    pub disk_is_full: bool,
}

impl Default for WriteRules {
    fn default() -> Self {
        Self { max_bytes: 1 << 20, min_members: 1, disk_is_full: false }
    }
}

impl Replica {
    /// Checks a write of `bytes` with the client's key `hash`: against the server's rules and those of the table.
    /// `has_lease` was found just before. Throttling comes after this.
    ///
    /// # Errors
    /// What to answer instead.
    pub fn admit_write(
        &self,
        rules: &WriteRules,
        table: &TableRules,
        bytes: usize,
        hash: u64,
        has_lease: bool,
    ) -> Result<(), ErrorCode> {
        if table.deny_writes == Deny::Reconfigure {
            return Err(ErrorCode::InvalidState);
        }
        if rules.max_bytes > 0 && bytes > rules.max_bytes {
            return Err(ErrorCode::InvalidData);
        }
        if table.partition_version != ANY_HASH {
            if table.partition_version < 0 {
                return Err(ErrorCode::Splitting);
            }
            if hash & table.partition_version as u64 != self.gpid.partition_index as u64 {
                return Err(ErrorCode::ParentPartitionMisused);
            }
        }
        let Role::Primary(lead) = &self.role else { return Err(ErrorCode::InvalidState) };
        if !has_lease {
            return Err(ErrorCode::InvalidState);
        }
        if rules.disk_is_full || lead.member_disk_is_full() {
            return Err(ErrorCode::DiskInsufficient);
        }
        if lead.members() < rules.min_members as usize {
            return Err(ErrorCode::NotEnoughMember);
        }
        Ok(())
    }
}
