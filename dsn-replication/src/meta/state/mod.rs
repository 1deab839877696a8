//! What the meta server knows, and the one place where changes of it become durable.
//!
//! [`Cluster`] is pure: methods take the time and an input and leave [`Effect`]s behind; it reads no clock, touches no
//! disk, sends nothing. Its host writes the transactions in order, one after the other, and reports each with
//! [`Cluster::written`]; only then does the change show in memory, in answers and in what replica servers are told.
//!
//! Because transactions become durable in the order in which they were handed out, what is in flight is a queue of
//! [`Step`]s. When a write fails, the host ends the process: memory is never trusted past an unknown outcome.

pub mod app;
pub mod load;
pub mod node;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dsn_core::time::{Mono, Wall};
use dsn_rpc::address::RpcAddress;
use dsn_rpc::gpid::Gpid;
use dsn_rpc::host_port::HostPort;

use super::envs::EnvRules;
use super::store::Transaction;
use crate::failure_detector::Timing;
use crate::failure_detector::master::{Heard, Master, Run, Stability};
use crate::options::{FunctionLevel, MetaServerOptions, ReplicationOptions, seconds};
use crate::wire::admin::{
    CreateAppResponse, DropAppResponse, RecallAppResponse, RenameAppResponse, UpdateAppEnvResponse,
};
use crate::wire::config::{ConfigurationUpdateRequest, ConfigurationUpdateResponse};
use crate::wire::replica::BeaconMsg;
use app::{App, Partition};
use node::Node;

/// Names a request that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// The answer to a request that had to wait.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To a create.
    Create(CreateAppResponse),
    /// To a drop.
    Drop(DropAppResponse),
    /// To a recall.
    Recall(RecallAppResponse),
    /// To a rename.
    Rename(RenameAppResponse),
    /// To a change of envs.
    Env(UpdateAppEnvResponse),
    /// To a change of a group.
    Update(ConfigurationUpdateResponse),
}

/// What the host is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Make this durable, after everything handed out before; then call [`Cluster::written`].
    Write(Transaction),
    /// Answer a request.
    Reply(Ticket, Answer),
    /// Send a proposal to a replica server, one way.
    Propose(RpcAddress, Box<ConfigurationUpdateRequest>),
}

/// What a write in flight was for.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// The table's own record.
    App(i32),
    /// A run of partitions of a table that change together.
    Partitions(i32),
    /// One partition's group.
    Group(Gpid),
    /// Part of a table that is being forgotten.
    Erase(i32),
}

/// The options that the state needs.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// `[replication]`.
    pub replication: ReplicationOptions,
    /// `[meta_server]`.
    pub meta: MetaServerOptions,
    /// The checked times of the failure detector.
    pub timing: Timing,
    /// Table envs that may be set.
    pub envs: EnvRules,
    /// `host:port` of this server.
    pub this_server: String,
}

/// Everything the meta server knows; see the module's header.
#[derive(Debug)]
pub struct Cluster {
    pub(super) options: ClusterOptions,
    pub(super) apps: BTreeMap<i32, App>,
    /// Names of all tables but dropped ones.
    pub(super) names: BTreeMap<String, i32>,
    pub(super) next_app_id: i32,
    pub(super) counter_version: Option<u64>,
    pub(super) nodes: BTreeMap<RpcAddress, Node>,
    pub(super) fd: Master<RpcAddress>,
    /// Servers of which it is being found out whether their processes have ended.
    pub(super) doubted: BTreeSet<RpcAddress>,
    pub(super) hosts: BTreeMap<RpcAddress, HostPort>,
    pub(super) level: FunctionLevel,
    pub(super) in_flight: VecDeque<Step>,
    /// Partitions with a proposal that has not been acted on.
    pub(super) proposed: BTreeSet<Gpid>,
    pub(super) effects: Vec<Effect>,
    pub(super) next_round: Mono,
}

impl Cluster {
    /// Without tables and nodes; [`load`] fills it.
    pub fn new(options: ClusterOptions, now: Mono) -> Self {
        let stability = Stability {
            min_running: seconds(options.meta.stable_rs_min_running_seconds),
            max_restarts: options.meta.max_succssive_unstable_restart,
        };
        Self {
            fd: Master::new(options.timing, stability, now),
            level: options.meta.meta_function_level_on_start,
            options,
            apps: BTreeMap::new(),
            names: BTreeMap::new(),
            next_app_id: 1,
            counter_version: None,
            nodes: BTreeMap::new(),
            doubted: BTreeSet::new(),
            hosts: BTreeMap::new(),
            in_flight: VecDeque::new(),
            proposed: BTreeSet::new(),
            effects: Vec::new(),
            next_round: now,
        }
    }

    /// What the host is to do since the last call, in order.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// The oldest write in flight is durable.
    pub fn written(&mut self, now: Mono, wall: Wall) {
        match self.in_flight.pop_front() {
            Some(Step::App(app_id)) => self.app_written(app_id, now, wall),
            Some(Step::Partitions(app_id)) => self.partitions_written(app_id, now, wall),
            Some(Step::Group(gpid)) => self.group_written(gpid, now),
            Some(Step::Erase(app_id)) => self.erase_written(app_id),
            None => debug_assert!(false, "no write is in flight"),
        }
    }

    /// A beacon arrived; whether its sender may serve. Whether it was alive before decides what is looked at again.
    pub fn on_beacon(&mut self, beacon: &BeaconMsg, now: Mono) -> bool {
        let node = beacon.from_node;
        if !node.is_valid() {
            return false;
        }
        if let Some(host) = beacon.hp_from_node.as_ref().filter(|host| host.is_valid()) {
            self.hosts.insert(node, host.clone());
        }
        self.nodes.entry(node).or_default();
        match self.fd.on_beacon(node, beacon.start_time, now) {
            Heard::Ended => return false,
            Heard::Same => {}
            Heard::Restarted => self.forget_reports(node),
            Heard::Alive => {
                tracing::info!(%node, "a replica server is alive");
                self.forget_reports(node);
                self.cure_all(now);
            }
        }
        true
    }

    /// What was last heard of a server, if anything ever was.
    pub fn run_of(&self, node: RpcAddress) -> Option<Run> {
        self.fd.run_of(node)
    }

    /// The process of a run of a replica server was seen to have ended; see `meta/server/ends.rs`.
    pub fn on_process_end(&mut self, node: RpcAddress, run: Run, now: Mono) {
        if self.fd.on_end(node, run, now) {
            tracing::warn!(%node, "the process of a replica server has ended");
            self.forget_reports(node);
            self.cure_all(now);
        }
    }

    /// Whether the connection of a server has ended and it is being found out whether its process has as well. It is
    /// passed over until then.
    pub fn doubt(&mut self, node: RpcAddress, doubted: bool) {
        match doubted {
            true => drop(self.doubted.insert(node)),
            false => drop(self.doubted.remove(&node)),
        }
    }

    /// Time passes: silent servers, proposals to repeat, the periodic round, dropped tables to forget.
    pub fn tick(&mut self, now: Mono, wall: Wall) {
        self.cure_proposed(now);
        if now >= self.next_round {
            self.next_round = now + self.round_interval();
            self.cure_all(now);
            self.erase_expired(wall);
        }
    }

    /// Looks for servers that are dead; call every check interval.
    pub fn check_nodes(&mut self, now: Mono) {
        let dead = self.fd.check(now);
        for node in &dead {
            tracing::warn!(%node, "a replica server is dead");
            self.forget_reports(*node);
        }
        if !dead.is_empty() {
            self.cure_all(now);
        }
    }

    fn round_interval(&self) -> std::time::Duration {
        std::time::Duration::from_millis(u64::from(self.options.replication.lb_interval_ms))
    }

    pub(super) fn write(&mut self, transaction: Transaction, step: Step) {
        self.in_flight.push_back(step);
        self.effects.push(Effect::Write(transaction));
    }

    pub(super) fn reply(&mut self, ticket: Ticket, answer: Answer) {
        self.effects.push(Effect::Reply(ticket, answer));
    }

    pub(super) fn partition(&self, gpid: Gpid) -> Option<&Partition> {
        self.apps.get(&gpid.app_id)?.partitions.get(usize::try_from(gpid.partition_index).ok()?)
    }

    pub(super) fn partition_mut(&mut self, gpid: Gpid) -> Option<&mut Partition> {
        let index = usize::try_from(gpid.partition_index).ok()?;
        self.apps.get_mut(&gpid.app_id)?.partitions.get_mut(index)
    }

    /// The table of that name; one that is only about to get the name is not it.
    pub(super) fn app_named(&self, name: &str) -> Option<&App> {
        self.apps.get(self.names.get(name)?).filter(|app| app.info.app_name == name)
    }

    /// The host name of a server; its address as text when it never told one.
    pub(super) fn host_of(&self, node: RpcAddress) -> HostPort {
        match self.hosts.get(&node) {
            Some(host) => host.clone(),
            None if node.is_valid() => HostPort::new(node.ip().to_string(), node.port()),
            None => HostPort::default(),
        }
    }

    /// Replica servers that are alive.
    pub fn alive(&self) -> impl Iterator<Item = RpcAddress> {
        self.fd.members().filter(|(_, member)| member.alive).map(|(node, _)| node)
    }

    /// What may be done now: the configured level, but `freezed` when too few servers are alive.
    pub fn effective_level(&self) -> FunctionLevel {
        if self.level <= FunctionLevel::Freezed {
            return self.level;
        }
        let known = self.fd.members().count();
        let alive = self.alive().count();
        let meta = &self.options.meta;
        let share = meta.node_live_percentage_threshold_for_update as usize;
        let few = alive < meta.min_live_node_count_for_unfreeze as usize;
        if few || alive * 100 < known * share { FunctionLevel::Freezed } else { self.level }
    }

    /// The level that is configured or was set.
    pub fn level(&self) -> FunctionLevel {
        self.level
    }

    /// Sets the level; returns the one before.
    pub fn set_level(&mut self, level: FunctionLevel, now: Mono) -> FunctionLevel {
        let before = std::mem::replace(&mut self.level, level);
        self.cure_all(now);
        before
    }
}
