//! Tables and partitions.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use dsn_core::time::Mono;
use dsn_rpc::address::RpcAddress;
use dsn_rpc::gpid::Gpid;
use dsn_rpc::thrift::{Encode, encode};

use super::{Cluster, Step, Ticket};
use crate::meta::store::{Change, Version};
use crate::wire::admin::{DropAppRequest, RenameAppRequest, UpdateAppEnvRequest};
use crate::wire::config::{AppInfo, AppStatus, ConfigType, PartitionConfiguration};

/// Bit of [`PartitionConfiguration::partition_flags`] of a partition whose table is dropped.
pub const FLAG_DROPPED: i32 = 1;

/// Requests that may wait for a change of the same table to end; beyond, they are refused as busy.
pub const MAX_WAITING: usize = 64;

/// Partitions changed in one transaction.
pub const CHUNK: usize = 500;

/// The key below which everything about tables is; its value is the next table id.
pub const ROOT: &str = "/apps";

/// The key of a table.
pub fn app_key(app_id: i32) -> String {
    format!("{ROOT}/{app_id}")
}

/// The key of a partition.
pub fn partition_key(gpid: Gpid) -> String {
    format!("{ROOT}/{}/{}", gpid.app_id, gpid.partition_index)
}

/// The stored form of a record.
pub fn record<T: Encode>(value: &T) -> Bytes {
    let mut out = BytesMut::new();
    encode(value, &mut out);
    out.freeze()
}

/// A request that waits for its table.
#[derive(Clone, Debug)]
pub enum Waiting {
    /// Drop.
    Drop(Ticket, DropAppRequest),
    /// Rename.
    Rename(Ticket, RenameAppRequest),
    /// Change of envs.
    Env(Ticket, UpdateAppEnvRequest),
}

/// The change of a table that is under way: one at a time.
#[derive(Clone, Debug)]
pub enum Job {
    /// Being made; the answer goes to the ticket, if its sender is still known.
    Create(Option<Ticket>),
    /// Being dropped.
    Drop(Option<Ticket>),
    /// Being brought back.
    Recall(Option<Ticket>),
    /// Getting another name.
    Rename(Ticket),
    /// Getting other envs.
    Env(Ticket),
    /// Being forgotten.
    Erase,
}

/// A table.
#[derive(Debug)]
pub struct App {
    /// The durable record.
    pub info: AppInfo,
    /// Its version in the store; `None` while it was never written.
    pub version: Option<Version>,
    /// By index; while a table is being made, those that are durable.
    pub partitions: Vec<Partition>,
    /// The change under way.
    pub job: Option<Job>,
    /// The record that is being written.
    pub next_info: Option<AppInfo>,
    /// Partitions that are being written together.
    pub batch: Vec<PartitionConfiguration>,
    /// Requests that wait for the job to end.
    pub waiting: VecDeque<Waiting>,
}

impl App {
    /// A table that is not stored yet.
    pub fn new(info: AppInfo) -> Self {
        Self {
            info,
            version: None,
            partitions: Vec::new(),
            job: None,
            next_info: None,
            batch: Vec::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Whether partitions are served and may be changed.
    pub fn is_serving(&self) -> bool {
        self.info.status == AppStatus::Available
            && !matches!(self.job, Some(Job::Drop(_) | Job::Create(_) | Job::Recall(_)))
    }
}

/// A change of one group that is being written.
#[derive(Clone, Debug)]
pub struct Pending {
    /// The group as it will be.
    pub config: PartitionConfiguration,
    /// Who waits for it.
    pub tickets: Vec<Ticket>,
}

/// A change that a replica server was asked to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Who acts.
    pub target: RpcAddress,
    /// Whom it concerns.
    pub node: RpcAddress,
    /// What is to be done.
    pub kind: ConfigType,
    /// Whoever is to lead may lack the end of its log, as is known.
    pub may_lack: bool,
    /// The ballot it is based on.
    pub ballot: i64,
    /// When it was first sent.
    pub since: Mono,
    /// When it is sent again.
    pub resend: Mono,
    /// How often it was sent.
    pub sent: u32,
}

/// One partition's group.
#[derive(Clone, Debug)]
pub struct Partition {
    /// The durable record, without host names.
    pub config: PartitionConfiguration,
    /// Its version in the store.
    pub version: Version,
    /// The change that is being written.
    pub pending: Option<Pending>,
    /// The change that was asked for.
    pub proposal: Option<Proposal>,
    /// When the last member was lost; `None` when not since the start of this server.
    pub dropped_at: Option<Mono>,
    /// The highest commit point that anybody reported.
    pub known_committed: i64,
    /// A server that did not act on a proposal in time.
    pub avoid: Option<RpcAddress>,
    /// The primary says that it does not act as one: it was started anew.
    pub idle: bool,
    /// Since when nobody leads because those that are there may lack the end of their logs.
    pub uncertain_since: Option<Mono>,
    /// Why nobody can be made primary.
    pub stuck: Option<String>,
    /// The group went on with a replica that may have lost something, since the start of this server: with which.
    pub may_have_lost: Option<String>,
}

impl Partition {
    /// A partition with this durable record.
    pub fn new(config: PartitionConfiguration, version: Version) -> Self {
        Self {
            known_committed: config.last_committed_decree,
            config,
            version,
            pending: None,
            proposal: None,
            dropped_at: None,
            avoid: None,
            idle: false,
            uncertain_since: None,
            stuck: None,
            may_have_lost: None,
        }
    }

    /// Whether its table is dropped.
    pub fn is_dropped(&self) -> bool {
        self.config.partition_flags & FLAG_DROPPED != 0
    }
}

/// Whether `node` is primary or secondary.
pub fn is_member(config: &PartitionConfiguration, node: RpcAddress) -> bool {
    config.primary == node || config.secondaries.contains(&node)
}

/// Primary and secondaries.
pub fn members(config: &PartitionConfiguration) -> impl Iterator<Item = RpcAddress> {
    let primary = Some(config.primary).filter(|primary| primary.is_valid());
    primary.into_iter().chain(config.secondaries.iter().copied())
}

impl Cluster {
    /// Writes a table's record.
    pub(in crate::meta) fn write_app(&mut self, app_id: i32, info: AppInfo) {
        let Some(app) = self.apps.get_mut(&app_id) else { return };
        let mut transaction = Vec::new();
        match app.version {
            Some(version) => {
                transaction.push(Change::set(app_key(app_id), version, record(&info)));
            }
            None => {
                let counter = record(&(app_id + 1));
                transaction.push(match self.counter_version {
                    Some(version) => Change::set(ROOT, version, counter),
                    None => Change::create(ROOT, counter),
                });
                self.counter_version = Some(self.counter_version.map_or(0, |v| v + 1));
                transaction.push(Change::create(app_key(app_id), record(&info)));
            }
        }
        app.next_info = Some(info);
        self.write(transaction, Step::App(app_id));
    }

    /// Makes `config` the durable record of a partition; its nodes follow.
    pub(in crate::meta) fn install(&mut self, config: PartitionConfiguration) {
        let gpid = config.pid;
        let Some(partition) = self.partition_mut(gpid) else { return };
        let before = std::mem::replace(&mut partition.config, config);
        partition.version += 1;
        partition.avoid = None;
        partition.idle = false;
        if partition.config.primary.is_valid() {
            partition.uncertain_since = None;
        }
        partition.known_committed =
            partition.known_committed.max(partition.config.last_committed_decree);
        let after = partition.config.clone();
        self.withdraw(gpid);
        self.unlink(&before);
        self.link(&after);
        for node in
            members(&after).filter(|node| *node == after.primary || !is_member(&before, *node))
        {
            self.note_member(&after, node);
        }
    }
}
