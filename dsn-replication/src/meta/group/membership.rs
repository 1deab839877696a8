//! What each kind of change makes of a group. Pure.

use dsn_rpc::address::RpcAddress;

use crate::meta::state::app::is_member;
use crate::wire::config::{ConfigType, PartitionConfiguration};

/// Former members that a group remembers.
pub const MAX_LAST_DROPS: usize = 3;

/// Why a change cannot be made to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// There is a primary already.
    #[error("the group has a primary")]
    HasPrimary,
    /// The server is a member already.
    #[error("the server is a member")]
    IsMember,
    /// The server is not what it would have to be.
    #[error("the server is not {0}")]
    IsNot(&'static str),
    /// The group is as large as it may be.
    #[error("the group is complete")]
    Complete,
    /// This is not a change of a group.
    #[error("not a change of a group")]
    Kind,
}

/// Remembers that `node` left; the newest stands last.
pub fn note_drop(config: &mut PartitionConfiguration, node: RpcAddress) {
    if !node.is_valid() {
        return;
    }
    config.last_drops.retain(|former| *former != node);
    config.last_drops.push(node);
    let excess = config.last_drops.len().saturating_sub(MAX_LAST_DROPS);
    config.last_drops.drain(..excess);
}

fn remove(config: &mut PartitionConfiguration, node: RpcAddress) {
    if config.primary == node {
        config.primary = RpcAddress::INVALID;
    }
    config.secondaries.retain(|secondary| *secondary != node);
}

/// The group after `kind` was done with `node`, its ballot one higher.
///
/// # Errors
/// [`ChangeError`]: the group is not one that this can be done to.
pub fn change(
    before: &PartitionConfiguration,
    kind: ConfigType,
    node: RpcAddress,
) -> Result<PartitionConfiguration, ChangeError> {
    let mut after = PartitionConfiguration {
        ballot: before.ballot + 1,
        hp_primary: None,
        hp_secondaries: None,
        hp_last_drops: None,
        ..before.clone()
    };
    if !node.is_valid() {
        return Err(ChangeError::IsNot("named"));
    }
    match kind {
        ConfigType::AssignPrimary | ConfigType::UpgradeToPrimary => {
            // The primary itself may be assigned once more: after a restart it begins a new ballot.
            if before.primary.is_valid()
                && (before.primary, kind) != (node, ConfigType::AssignPrimary)
            {
                return Err(ChangeError::HasPrimary);
            }
            let secondary = before.secondaries.contains(&node);
            match (kind, secondary) {
                (ConfigType::AssignPrimary, true) => return Err(ChangeError::IsMember),
                (ConfigType::UpgradeToPrimary, false) => {
                    return Err(ChangeError::IsNot("a secondary"));
                }
                _ => {}
            }
            remove(&mut after, node);
            after.primary = node;
        }
        ConfigType::PrimaryForceUpdateBallot if before.primary == node => {}
        ConfigType::PrimaryForceUpdateBallot => return Err(ChangeError::IsNot("the primary")),
        ConfigType::UpgradeToSecondary => {
            if is_member(before, node) {
                return Err(ChangeError::IsMember);
            }
            // One more than complete is how a replica moves to another server.
            let members = 1 + before.secondaries.len() as i64;
            if members > i64::from(before.max_replica_count) {
                return Err(ChangeError::Complete);
            }
            after.secondaries.push(node);
        }
        ConfigType::DowngradeToSecondary if before.primary == node => {
            remove(&mut after, node);
            after.secondaries.push(node);
        }
        ConfigType::DowngradeToSecondary => return Err(ChangeError::IsNot("the primary")),
        ConfigType::DowngradeToInactive | ConfigType::Remove => {
            if !is_member(before, node) {
                return Err(ChangeError::IsNot("a member"));
            }
            remove(&mut after, node);
            note_drop(&mut after, node);
        }
        _ => return Err(ChangeError::Kind),
    }
    after.last_drops.retain(|former| !is_member_of(&after.primary, &after.secondaries, *former));
    Ok(after)
}

fn is_member_of(primary: &RpcAddress, secondaries: &[RpcAddress], node: RpcAddress) -> bool {
    *primary == node || secondaries.contains(&node)
}

/// Whether two groups have the same primary and the same secondaries, in any order.
#[must_use]
pub fn same_members(a: &PartitionConfiguration, b: &PartitionConfiguration) -> bool {
    let sorted = |config: &PartitionConfiguration| {
        let mut secondaries = config.secondaries.clone();
        secondaries.sort_unstable();
        secondaries
    };
    a.primary == b.primary && sorted(a) == sorted(b)
}
