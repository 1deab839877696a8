//! May this write run? The checks and their order are the original's, so that clients see the same error first.

use super::{Replica, Role};
use crate::gate::{ANY_HASH, Deny};
use dsn_rpc::error_code::ErrorCode;

/// What the table and the server say about writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteRules {
    /// Largest body, in bytes; 0 for no limit.
    pub max_bytes: usize,
    /// What an operator has denied.
    pub deny: Deny,
    /// Which keys are this partition's, see [`crate::gate::ReadGate::set_partition_version`].
    pub partition_version: i32,
    /// Fewest members a group must have.
    pub min_members: u32,
    /// Whether the disk has room.
    pub disk_is_full: bool,
}

impl Default for WriteRules {
    fn default() -> Self {
        Self {
            max_bytes: 1 << 20,
            deny: Deny::Nothing,
            partition_version: ANY_HASH,
            min_members: 1,
            disk_is_full: false,
        }
    }
}

/// Members of a group of one.
const MEMBERS: u32 = 1;

impl Replica {
    /// Checks a write of `bytes` with the client's key `hash`. `has_lease` was found just before.
    ///
    /// # Errors
    /// What to answer instead.
    pub fn admit_write(
        &self,
        rules: &WriteRules,
        bytes: usize,
        hash: u64,
        has_lease: bool,
    ) -> Result<(), ErrorCode> {
        if rules.deny == Deny::Reconfigure {
            return Err(ErrorCode::InvalidState);
        }
        if rules.max_bytes > 0 && bytes > rules.max_bytes {
            return Err(ErrorCode::InvalidData);
        }
        if rules.partition_version != ANY_HASH {
            if rules.partition_version < 0 {
                return Err(ErrorCode::Splitting);
            }
            if hash & rules.partition_version as u64 != self.gpid.partition_index as u64 {
                return Err(ErrorCode::ParentPartitionMisused);
            }
        }
        if self.role != Role::Primary || !has_lease {
            return Err(ErrorCode::InvalidState);
        }
        if rules.disk_is_full {
            return Err(ErrorCode::DiskInsufficient);
        }
        if MEMBERS < rules.min_members {
            return Err(ErrorCode::NotEnoughMember);
        }
        Ok(())
    }
}
