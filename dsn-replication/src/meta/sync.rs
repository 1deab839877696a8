//! Config sync: a replica server tells everything it holds and is told what it should hold.

use std::collections::BTreeMap;

use dsn_core::time::{Mono, Wall};
use dsn_rpc::address::RpcAddress;
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::gpid::Gpid;
use dsn_rpc::thrift::List;

use super::state::Cluster;
use super::state::app::is_member;
use crate::options::FunctionLevel;
use crate::wire::config::{
    AppStatus, ConfigSyncRequest, ConfigSyncResponse, ConfigurationUpdateRequest, PartitionStatus,
    ReplicaInfo,
};

/// Most replicas that one report is read to hold.
pub const MAX_REPORTED: usize = 1_000_000;

impl Cluster {
    /// A replica server reports and asks. It must be alive, and no change that concerns it may be half done: what it is
    /// told must not be taken back a moment later.
    pub fn config_sync(
        &mut self,
        request: &ConfigSyncRequest,
        now: Mono,
        wall: Wall,
    ) -> ConfigSyncResponse {
        let node = request.node;
        let refuse = |err| ConfigSyncResponse { err, ..ConfigSyncResponse::default() };
        if !self.fd.is_alive(node) || self.is_changing(node) {
            return refuse(ErrorCode::Busy);
        }
        let Some(stored) = &request.stored_replicas else {
            return self.assigned(node, None);
        };
        let refused = request.refused_replicas.as_ref();
        if stored.len() + refused.map_or(0, List::len) > MAX_REPORTED {
            return refuse(ErrorCode::InvalidParameters);
        }
        let mut reported = BTreeMap::new();
        let mut garbage = Vec::new();
        for info in stored {
            if let Some(partition) = self.partition_mut(info.pid) {
                partition.known_committed =
                    partition.known_committed.max(info.last_committed_decree);
                if partition.config.primary == node {
                    // With an older ballot than the group's, it has yet to hear that it is primary.
                    partition.idle = info.status != PartitionStatus::Primary
                        && info.ballot <= partition.config.ballot;
                }
            }
            if self.is_garbage(node, &info, wall) {
                garbage.push(info);
            } else {
                reported.insert(info.pid, info);
            }
        }
        let headless: Vec<Gpid> = reported
            .keys()
            .copied()
            .filter(|gpid| {
                let partition = self.partition(*gpid);
                partition.is_some_and(|p| p.idle || !p.config.primary.is_valid())
            })
            .collect();
        let first = match self.nodes.get_mut(&node) {
            Some(entry) => {
                entry.refused = refused.into_iter().flatten().collect();
                entry.incomplete = request.is_incomplete == Some(true);
                entry.reported.replace(reported).is_none()
            }
            None => false,
        };
        let response = self.assigned(node, Some(garbage));
        if first {
            self.cure_all(now);
        } else {
            headless.into_iter().for_each(|gpid| self.cure(gpid, now));
        }
        response
    }

    /// Whether a change that concerns the node is being written.
    fn is_changing(&self, node: RpcAddress) -> bool {
        let Some(entry) = self.nodes.get(&node) else { return false };
        entry.partitions().any(|gpid| self.partition(gpid).is_some_and(|p| p.pending.is_some()))
    }

    fn assigned(&self, node: RpcAddress, garbage: Option<Vec<ReplicaInfo>>) -> ConfigSyncResponse {
        let mut partitions = Vec::new();
        let gpids = self.nodes.get(&node).into_iter().flat_map(|entry| entry.partitions());
        for gpid in gpids {
            let (Some(app), Some(partition)) = (self.apps.get(&gpid.app_id), self.partition(gpid))
            else {
                continue;
            };
            partitions.push(ConfigurationUpdateRequest {
                info: app.info.clone(),
                config: self.named(&partition.config),
                node,
                hp_node: Some(self.host_of(node)),
                ..ConfigurationUpdateRequest::default()
            });
        }
        ConfigSyncResponse {
            err: ErrorCode::Ok,
            partitions: List::from(partitions),
            gc_replicas: garbage.map(List::from),
        }
    }

    /// Whether a replica may be deleted: its table is forgotten, or its group is complete without it and has enough
    /// former members kept. Only while everything is well (`lively`), and never one that is ahead of the group.
    fn is_garbage(&self, node: RpcAddress, info: &ReplicaInfo, wall: Wall) -> bool {
        if self.effective_level() < FunctionLevel::Lively {
            return false;
        }
        let Some(app) = self.apps.get(&info.pid.app_id) else {
            return info.pid.app_id < self.next_app_id;
        };
        if app.info.status == AppStatus::Dropped {
            return app.info.expire_second <= wall.unix_seconds() as i64;
        }
        if !app.is_serving() {
            return false;
        }
        let Some(partition) = self.partition(info.pid) else { return true };
        let config = &partition.config;
        if is_member(config, node) || partition.pending.is_some() || info.ballot >= config.ballot {
            return false;
        }
        let complete = config.primary.is_valid()
            && 1 + config.secondaries.len() as i64 >= i64::from(config.max_replica_count)
            && self.fd.is_alive(config.primary)
            && config.secondaries.iter().all(|secondary| self.fd.is_alive(*secondary));
        let kept = self.options.meta.max_reserved_dropped_replicas as usize;
        complete && !config.last_drops.iter().rev().take(kept).any(|former| *former == node)
    }
}
