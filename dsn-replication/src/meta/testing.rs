//! A meta server without a host: a cluster state, its store on a test disk, and hands to move time and messages.

use std::sync::Arc;
use std::time::Duration;

use dsn_core::time::{Mono, Wall};
use dsn_rpc::address::RpcAddress;
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::gpid::Gpid;
use dsn_rpc::thrift::List;

use super::envs::EnvRules;
use super::state::app::Partition;
use super::state::load;
use super::state::{Answer, Cluster, ClusterOptions, Effect, Ticket};
use super::store::crash_disk::CrashDisk;
use super::store::local::LocalStore;
use super::store::{Epoch, MetaStore, Transaction};
use crate::failure_detector::Timing;
use crate::options::{MetaServerOptions, ReplicationOptions};
use crate::wire::admin::{CreateAppOptions, CreateAppRequest};
use crate::wire::config::{
    ConfigSyncRequest, ConfigSyncResponse, ConfigType, ConfigurationUpdateRequest,
    ConfigurationUpdateResponse, QueryCfgRequest, QueryCfgResponse, ReplicaInfo,
};
use crate::wire::replica::BeaconMsg;

pub(super) fn addr(n: u8) -> RpcAddress {
    RpcAddress::new([127, 0, 0, n].into(), 34801)
}

pub(super) fn options() -> ClusterOptions {
    let replication = ReplicationOptions::default();
    let meta = MetaServerOptions {
        min_live_node_count_for_unfreeze: 1,
        node_live_percentage_threshold_for_update: 0,
        ..MetaServerOptions::default()
    };
    ClusterOptions {
        timing: Timing::new(&replication).unwrap(),
        replication,
        meta,
        envs: EnvRules::new(),
        this_server: "127.0.0.1:34601".to_owned(),
    }
}

pub(super) struct Bench {
    pub(super) cluster: Cluster,
    pub(super) disk: CrashDisk,
    pub(super) options: ClusterOptions,
    store: LocalStore,
    epoch: Epoch,
    queue: Vec<Transaction>,
    now: Mono,
    wall: Wall,
    next_ticket: u64,
    pub(super) answers: Vec<(Ticket, Answer)>,
    pub(super) proposals: Vec<(RpcAddress, ConfigurationUpdateRequest)>,
    /// Writes that are still let through; `None` = all.
    pub(super) budget: Option<usize>,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::on(CrashDisk::default(), options())
    }

    pub(super) fn on(disk: CrashDisk, options: ClusterOptions) -> Self {
        let (now, wall) = (Mono::from_nanos(1 << 40), Wall::from_unix_seconds(1_800_000_000));
        Self::at(disk, options, now, wall)
    }

    fn at(disk: CrashDisk, options: ClusterOptions, now: Mono, wall: Wall) -> Self {
        let mut store = LocalStore::new(Arc::new(disk.clone()), "/meta");
        let epoch = store.acquire().unwrap();
        let loaded = load::read(&mut store).unwrap();
        let cluster = Cluster::load(options.clone(), loaded, now, wall).unwrap();
        let mut bench = Self {
            cluster,
            disk,
            options,
            store,
            epoch,
            queue: Vec::new(),
            now,
            wall,
            next_ticket: 0,
            answers: Vec::new(),
            proposals: Vec::new(),
            budget: None,
        };
        bench.pump();
        bench
    }

    /// The process is killed and started again at once.
    pub(super) fn restart(self) -> Self {
        Self::at(self.disk, self.options, self.now, self.wall)
    }

    /// Does what the cluster asks for, until it asks for nothing more or the budget of writes is used up.
    pub(super) fn pump(&mut self) {
        loop {
            for effect in self.cluster.take_effects() {
                match effect {
                    Effect::Write(transaction) => self.queue.push(transaction),
                    Effect::Reply(ticket, answer) => self.answers.push((ticket, answer)),
                    Effect::Propose(to, request) => self.proposals.push((to, *request)),
                }
            }
            if self.queue.is_empty() || self.budget == Some(0) {
                return;
            }
            self.budget = self.budget.map(|left| left - 1);
            let transaction = self.queue.remove(0);
            self.store.commit(self.epoch, &[transaction]).unwrap();
            self.cluster.written(self.now, self.wall);
        }
    }

    pub(super) fn with<R>(&mut self, f: impl FnOnce(&mut Cluster, Mono, Wall) -> R) -> R {
        let result = f(&mut self.cluster, self.now, self.wall);
        self.pump();
        result
    }

    /// Lets time pass in steps of half a second; everybody in `alive` sends beacons.
    pub(super) fn pass(&mut self, time: Duration, alive: &[u8]) {
        let step = Duration::from_millis(500);
        let mut passed = Duration::ZERO;
        while passed < time {
            passed += step;
            self.now += step;
            self.wall += step;
            for node in alive {
                self.beacon(*node, 1);
            }
            self.with(|cluster, now, wall| {
                cluster.check_nodes(now);
                cluster.tick(now, wall);
            });
        }
    }

    pub(super) fn beacon(&mut self, node: u8, start_time: i64) {
        let beacon = BeaconMsg {
            from_node: addr(node),
            start_time: Some(start_time),
            ..BeaconMsg::default()
        };
        self.with(|cluster, now, _| cluster.on_beacon(&beacon, now));
    }

    pub(super) fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    /// Makes a request and takes its answer, if there is one by the time that nothing more happens.
    pub(super) fn ask(
        &mut self,
        f: impl FnOnce(&mut Cluster, Ticket, Mono, Wall),
    ) -> Option<Answer> {
        let ticket = self.ticket();
        self.with(|cluster, now, wall| f(cluster, ticket, now, wall));
        self.answer_to(ticket)
    }

    pub(super) fn answer_to(&mut self, ticket: Ticket) -> Option<Answer> {
        let at = self.answers.iter().position(|(to, _)| *to == ticket)?;
        Some(self.answers.remove(at).1)
    }

    pub(super) fn create(&mut self, name: &str, partitions: i32, replicas: i32) -> ErrorCode {
        self.create_with(&create_request(name, partitions, replicas)).0
    }

    pub(super) fn create_with(&mut self, request: &CreateAppRequest) -> (ErrorCode, i32) {
        match self.ask(|cluster, ticket, _, wall| cluster.create_app(ticket, request, wall)) {
            Some(Answer::Create(response)) => (response.err, response.appid),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn query(&self, name: &str) -> QueryCfgResponse {
        let request = QueryCfgRequest { app_name: name.to_owned(), ..Default::default() };
        self.cluster.query_config(&request)
    }

    pub(super) fn partition(&self, gpid: Gpid) -> &Partition {
        self.cluster.partition(gpid).unwrap()
    }

    pub(super) fn update(
        &mut self,
        request: &ConfigurationUpdateRequest,
    ) -> Option<ConfigurationUpdateResponse> {
        let answer =
            self.ask(|cluster, ticket, _, _| cluster.update_configuration(ticket, request));
        match answer {
            Some(Answer::Update(response)) => Some(response),
            None => None,
            other => panic!("{other:?}"),
        }
    }

    /// What a replica server reports when it did `kind` with `node`, given the group as it is now.
    pub(super) fn report(
        &self,
        gpid: Gpid,
        kind: ConfigType,
        node: u8,
    ) -> ConfigurationUpdateRequest {
        let before = &self.partition(gpid).config;
        let config = super::group::membership::change(before, kind, addr(node)).unwrap();
        ConfigurationUpdateRequest {
            config,
            config_type: kind,
            node: addr(node),
            known_ballot: Some(before.ballot),
            ..ConfigurationUpdateRequest::default()
        }
    }

    /// Every proposal sent so far is carried out by the server it went to, if it is in `alive`.
    pub(super) fn obey(&mut self, alive: &[u8]) {
        while !self.proposals.is_empty() {
            for (to, proposal) in std::mem::take(&mut self.proposals) {
                let able = alive.iter().any(|node| addr(*node) == to);
                let current = &self.partition(proposal.config.pid).config;
                if !able || current.ballot != proposal.config.ballot {
                    continue;
                }
                let kind = match proposal.config_type {
                    ConfigType::AddSecondary => ConfigType::UpgradeToSecondary,
                    ConfigType::DropPartition => continue,
                    kind => kind,
                };
                let node = proposal.node.ip().octets()[3];
                let request = self.report(proposal.config.pid, kind, node);
                let response = self.update(&request).unwrap();
                assert_eq!(response.err, ErrorCode::Ok, "{request:?}");
            }
        }
    }

    pub(super) fn sync(&mut self, node: u8, stored: &[(Gpid, i64, i64)]) -> ConfigSyncResponse {
        let stored = stored.iter().map(|(pid, ballot, decree)| ReplicaInfo {
            pid: *pid,
            ballot: *ballot,
            last_committed_decree: *decree,
            last_prepared_decree: *decree,
            ..ReplicaInfo::default()
        });
        self.sync_with(node, stored)
    }

    pub(super) fn sync_with(
        &mut self,
        node: u8,
        stored: impl IntoIterator<Item = ReplicaInfo>,
    ) -> ConfigSyncResponse {
        self.sync_all(node, stored, &[])
    }

    /// A server reports what is open, and what its disks refuse.
    pub(super) fn sync_all(
        &mut self,
        node: u8,
        stored: impl IntoIterator<Item = ReplicaInfo>,
        refused: &[Gpid],
    ) -> ConfigSyncResponse {
        let request = ConfigSyncRequest {
            node: addr(node),
            stored_replicas: Some(List::from(stored.into_iter().collect::<Vec<_>>())),
            refused_replicas: Some(List::from(refused.to_vec())),
            ..ConfigSyncRequest::default()
        };
        self.with(|cluster, now, wall| cluster.config_sync(&request, now, wall))
    }
}

pub(super) fn create_request(name: &str, partitions: i32, replicas: i32) -> CreateAppRequest {
    CreateAppRequest {
        app_name: name.to_owned(),
        options: CreateAppOptions {
            partition_count: partitions,
            replica_count: replicas,
            app_type: "pegasus".to_owned(),
            is_stateful: true,
            ..CreateAppOptions::default()
        },
    }
}
