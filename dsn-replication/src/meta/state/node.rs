//! Replica servers: what they are members of, and what they reported.

use std::collections::{BTreeMap, BTreeSet};

use dsn_rpc::address::RpcAddress;
use dsn_rpc::gpid::Gpid;

use super::Cluster;
use super::app::{is_member, members};
use crate::wire::config::{PartitionConfiguration, PartitionStatus, ReplicaInfo};

/// A replica server.
#[derive(Debug, Default)]
pub struct Node {
    /// Partitions it is primary of.
    pub primaries: BTreeSet<Gpid>,
    /// Partitions it is secondary of.
    pub secondaries: BTreeSet<Gpid>,
    /// Partitions it was proposed to become primary of.
    pub planned_primaries: BTreeSet<Gpid>,
    /// Partitions it was proposed to become secondary of.
    pub planned_secondaries: BTreeSet<Gpid>,
    /// Everything it said it holds, since it was last found alive or restarted; `None` before its first report.
    pub reported: Option<BTreeMap<Gpid, ReplicaInfo>>,
    /// What was on its disks as well when it reported last, which refused it then.
    pub refused: BTreeSet<Gpid>,
    /// When it reported last it may have held more, in a data directory that could not be used then.
    pub incomplete: bool,
}

/// How much a server has to do, with what is planned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Load {
    /// Primaries of the table at hand.
    pub app_primaries: usize,
    /// Replicas of the table at hand.
    pub app_replicas: usize,
    /// Primaries of all tables.
    pub primaries: usize,
    /// Replicas of all tables.
    pub replicas: usize,
}

fn of_app(set: &BTreeSet<Gpid>, app_id: i32) -> usize {
    set.range(Gpid::new(app_id, i32::MIN)..=Gpid::new(app_id, i32::MAX)).count()
}

impl Node {
    /// Its load, as placement of a partition of `app_id` sees it.
    pub fn load(&self, app_id: i32) -> Load {
        let of_table = |set: &BTreeSet<Gpid>| of_app(set, app_id);
        let (leads, follows) = (of_table(&self.primaries), of_table(&self.secondaries));
        let mut load = Load {
            app_primaries: leads,
            app_replicas: leads + follows,
            primaries: self.primaries.len(),
            replicas: self.primaries.len() + self.secondaries.len(),
        };
        for planned in self.planned_primaries.difference(&self.primaries) {
            let of_table = usize::from(planned.app_id == app_id);
            // Whoever takes over has its replica already.
            let new = usize::from(!self.secondaries.contains(planned));
            load.app_primaries += of_table;
            load.app_replicas += new * of_table;
            load.primaries += 1;
            load.replicas += new;
        }
        load.app_replicas += of_table(&self.planned_secondaries);
        load.replicas += self.planned_secondaries.len();
        load
    }

    /// Partitions it is a member of.
    pub fn partitions(&self) -> impl Iterator<Item = Gpid> {
        self.primaries.iter().chain(&self.secondaries).copied()
    }

    /// Whether it has reported what it holds, and not this partition.
    pub(in crate::meta) fn lacks(&self, gpid: Gpid) -> bool {
        self.reported.as_ref().is_some_and(|all| !all.contains_key(&gpid))
    }

    /// Whether it has reported that its replica of this partition has failed and is not opened anew by itself.
    pub(in crate::meta) fn has_failed(&self, gpid: Gpid) -> bool {
        let told = self.reported.as_ref().and_then(|all| all.get(&gpid));
        told.is_some_and(|info| info.status == PartitionStatus::Error)
    }

    /// Whether it has reported nothing of this partition that could be served.
    pub(in crate::meta) fn cannot_serve(&self, gpid: Gpid) -> bool {
        self.lacks(gpid) || self.has_failed(gpid)
    }
}

impl Cluster {
    /// Enters a group at its members.
    pub(in crate::meta) fn link(&mut self, config: &PartitionConfiguration) {
        for node in members(config) {
            let entry = self.nodes.entry(node).or_default();
            let set =
                if node == config.primary { &mut entry.primaries } else { &mut entry.secondaries };
            set.insert(config.pid);
        }
    }

    /// Removes a group from its members.
    pub(in crate::meta) fn unlink(&mut self, config: &PartitionConfiguration) {
        for node in members(config) {
            if let Some(entry) = self.nodes.get_mut(&node) {
                entry.primaries.remove(&config.pid);
                entry.secondaries.remove(&config.pid);
            }
        }
    }

    /// A server leads a group, or was made a member, which only one is that has everything: what it reported before
    /// is not what it has now.
    pub(in crate::meta) fn note_member(
        &mut self,
        config: &PartitionConfiguration,
        node: RpcAddress,
    ) {
        let reported = self.nodes.get_mut(&node).and_then(|entry| entry.reported.as_mut());
        let Some(reported) = reported else { return };
        let info = reported.entry(config.pid).or_default();
        info.pid = config.pid;
        info.status = match node == config.primary {
            true => PartitionStatus::Primary,
            false => PartitionStatus::Secondary,
        };
        info.ballot = info.ballot.max(config.ballot);
        info.last_committed_decree = info.last_committed_decree.max(config.last_committed_decree);
        info.last_prepared_decree = info.last_prepared_decree.max(info.last_committed_decree);
        info.tail_uncertain = None;
    }

    /// What a server reported is no longer true: it is dead or was started anew. Groups of which it is a member, or was
    /// the last to leave, and that wait for what it could not serve, begin to wait anew.
    pub(in crate::meta) fn forget_reports(&mut self, node: RpcAddress) {
        let Some(entry) = self.nodes.get_mut(&node) else { return };
        let Some(reported) = entry.reported.take() else { return };
        let failed = reported.values().filter(|info| info.status == PartitionStatus::Error);
        let waited_for = failed.map(|info| info.pid).chain(entry.refused.iter().copied());
        for gpid in waited_for.collect::<Vec<_>>() {
            let Some(partition) = self.partition_mut(gpid) else { continue };
            let config = &partition.config;
            if is_member(config, node) || config.last_drops.last() == Some(&node) {
                partition.uncertain_since = None;
            }
        }
    }
}
