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
        // A disk that fails needs no check: its replicas have failed, and are members no more.
        if rules.disk_is_full || lead.member_disk_is_full() {
            return Err(ErrorCode::DiskInsufficient);
        }
        if lead.members() < rules.min_members as usize {
            return Err(ErrorCode::NotEnoughMember);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::group::World;
    use crate::wire::config::AppInfo;

    struct Write {
        rules: WriteRules,
        table: TableRules,
        /// The server that is asked.
        at: usize,
        bytes: usize,
        has_lease: bool,
    }

    type Mend<'a> = &'a dyn Fn(&mut Write);

    /// Everything is wrong, and one thing after the other is mended: the next check objects.
    #[test]
    fn checks_come_in_the_order_of_the_original() {
        let mut world = World::new(0);
        world.heal();
        let primary = world.config.primary.expect("a primary");
        let mut write = Write {
            rules: WriteRules { max_bytes: 10, min_members: 9, disk_is_full: true },
            table: TableRules {
                deny_writes: Deny::Reconfigure,
                partition_version: -1,
                ..TableRules::new(&AppInfo::default())
            },
            at: world.config.secondaries[0],
            bytes: 11,
            has_lease: false,
        };
        let hash = world.core(primary).gpid().partition_index as u64 + 1;
        let mends: [(ErrorCode, Mend<'_>); 8] = [
            (ErrorCode::InvalidState, &|write| write.table.deny_writes = Deny::Nothing),
            (ErrorCode::InvalidData, &|write| write.bytes = 10),
            (ErrorCode::Splitting, &|write| write.table.partition_version = 7),
            (ErrorCode::ParentPartitionMisused, &|write| write.table.partition_version = ANY_HASH),
            (ErrorCode::InvalidState, &|write| write.at = primary),
            (ErrorCode::InvalidState, &|write| write.has_lease = true),
            (ErrorCode::DiskInsufficient, &|write| write.rules.disk_is_full = false),
            (ErrorCode::NotEnoughMember, &|write| write.rules.min_members = 3),
        ];
        let admit = |write: &Write| {
            let Write { rules, table, at, bytes, has_lease } = write;
            world.core(*at).admit_write(rules, table, *bytes, hash, *has_lease)
        };
        for (number, (error, mend)) in mends.into_iter().enumerate() {
            assert_eq!(admit(&write), Err(error), "check {number}");
            mend(&mut write);
        }
        assert_eq!(admit(&write), Ok(()));
    }
}
