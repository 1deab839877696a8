//! What the meta server wants of this server's replicas, and what they want of it.
//!
//! A proposal is a wish: whoever is asked to lead asks the meta server to make that durable first, and leads when it
//! hears that it is. A primary's own changes ([`ReplicaStub::request_change`]) take the same way.

use super::create::create_new;
use super::open::close;
use super::{Held, LPC_OPEN_REPLICA, LPC_STUB_EVENT, ReplicaStub, layout};
use crate::group_link::{node, wire};
use crate::host::{LPC_REPLICA_EVENT, ReplicaHost};
use crate::ids::Ballot;
use crate::replica::{Change, Node};
use crate::wire::config::{
    AppInfo, ConfigType, ConfigurationUpdateRequest, ConfigurationUpdateResponse,
    PartitionConfiguration, PartitionStatus,
};
use dsn_core::exec::Ctx;
use dsn_rpc::address::RpcAddress;
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::gpid::Gpid;
use dsn_rpc::{Replier, Request};

/// Most partitions of which it is asked at a time whether nobody has led them yet; the meta server proposes again.
pub const NEW_GROUPS_MAX: usize = 10_000;

/// Members of a group but the primary, without those that have no address.
fn secondaries(config: &PartitionConfiguration) -> Vec<Node> {
    config.secondaries.iter().filter_map(|address| node(*address)).collect()
}

/// Wishes of the meta server.
impl ReplicaStub {
    /// The meta server asks this server to act.
    pub(super) fn on_proposal(&mut self, ctx: &mut Ctx<'_>, request: Request, replier: Replier) {
        replier.forget(ctx);
        match request.decode::<ConfigurationUpdateRequest>() {
            Ok(proposal) => self.propose(ctx, proposal),
            Err(error) => tracing::warn!(peer = %request.peer, %error, "unreadable proposal"),
        }
    }

    fn propose(&mut self, ctx: &mut Ctx<'_>, proposal: ConfigurationUpdateRequest) {
        let gpid = proposal.config.pid;
        let me = self.options.link.me;
        let whom = node(proposal.node);
        match proposal.config_type {
            ConfigType::AssignPrimary | ConfigType::UpgradeToPrimary => {
                self.propose_to_lead(ctx, proposal);
            }
            ConfigType::DropPartition => self.retire(ctx, gpid, Ballot(proposal.config.ballot)),
            ConfigType::AddSecondary | ConfigType::AddSecondaryForLb => {
                let spare = usize::from(proposal.config_type == ConfigType::AddSecondaryForLb);
                let most = usize::try_from(proposal.config.max_replica_count).unwrap_or(1) + spare;
                if let Some(whom) = whom {
                    self.at_primary(ctx, &proposal, move |host, ctx| {
                        host.add_learner(ctx, whom, most);
                    });
                }
            }
            kind @ (ConfigType::DowngradeToSecondary
            | ConfigType::DowngradeToInactive
            | ConfigType::Remove) => {
                let whom = whom.filter(|whom| *whom != me);
                self.at_primary(ctx, &proposal, move |host, ctx| host.wish(ctx, kind, whom));
            }
            other => {
                tracing::warn!(%gpid, %other, "a proposal that makes no sense to a replica server")
            }
        }
    }

    /// Runs `f` on the host of a primary whose ballot is the proposal's.
    fn at_primary(
        &mut self,
        ctx: &mut Ctx<'_>,
        proposal: &ConfigurationUpdateRequest,
        f: impl FnOnce(&mut ReplicaHost, &mut Ctx<'_>) + Send + 'static,
    ) {
        let ballot = Ballot(proposal.config.ballot);
        let Some(held) = self.held.get(&proposal.config.pid) else { return };
        ctx.post(held.host, &LPC_REPLICA_EVENT, move |host, ctx| {
            if host.core().role().is_primary() && host.core().ballot() == ballot {
                f(host, ctx);
            }
        });
    }

    fn propose_to_lead(&mut self, ctx: &mut Ctx<'_>, proposal: ConfigurationUpdateRequest) {
        let gpid = proposal.config.pid;
        if self.is_busy_with(gpid) {
            return;
        }
        if !self.held.contains_key(&gpid) {
            return self.create_to_lead(ctx, proposal);
        }
        let Some(placed) = self.board.placement.get(ctx, gpid) else { return };
        if placed.gate.status() == PartitionStatus::Error
            || placed.gate.ballot().0 > proposal.config.ballot
        {
            return;
        }
        if placed.gate.is_uncertain() && proposal.despite_uncertain_tail != Some(true) {
            tracing::warn!(%gpid, "does not lead yet: the end of its log may be missing, which others may have");
            return self.sync_now(ctx);
        }
        let known_ballot = Some(placed.gate.ballot().0);
        // Envs are not kept on the disk: whoever leads must have heard them.
        self.configure(ctx, gpid, &proposal.info);
        self.ask_to_lead(ctx, ConfigurationUpdateRequest { known_ballot, ..proposal });
    }

    /// Whether its replica of a partition is being opened, or waits for that, or it takes no new one at all.
    fn is_busy_with(&self, gpid: Gpid) -> bool {
        let waits = || self.board.unserved.lock().contains_key(&gpid);
        self.closing || self.opening.contains_key(&gpid) || waits()
    }

    /// Makes an empty replica, then goes on with the proposal, if the meta server says that nobody has led the
    /// partition yet. The proposal may be old: a server that has lost its replica since it became a member would be
    /// taken for that member.
    fn create_to_lead(&mut self, ctx: &mut Ctx<'_>, proposal: ConfigurationUpdateRequest) {
        let gpid = proposal.config.pid;
        // A group that ever had a primary may have data, whatever the meta server has heard of it.
        let (decree, ballot) = (proposal.config.last_committed_decree, proposal.config.ballot);
        if decree > 0 || ballot > 0 || proposal.config_type != ConfigType::AssignPrimary {
            tracing::error!(%gpid, "asked to lead a partition that has data, of which this server has none");
            return;
        }
        let Some(link) = self.link else { return };
        if self.new_groups.contains_key(&gpid) || self.new_groups.len() >= NEW_GROUPS_MAX {
            return;
        }
        self.questions += 1;
        let question = self.questions;
        self.new_groups.insert(gpid, question);
        let board = self.board.clone();
        let table = proposal.info.app_name.clone();
        ctx.post(link, &LPC_STUB_EVENT, move |link, ctx| {
            let done = move |ctx: &mut Ctx<'_>, group| {
                board.with(ctx, move |stub, ctx| {
                    stub.create_new_group(ctx, question, proposal, group)
                });
            };
            link.find_group(ctx, &table, gpid, Box::new(done));
        });
    }

    /// The meta server has said what it has of a group that this server was asked to lead as the first.
    fn create_new_group(
        &mut self,
        ctx: &mut Ctx<'_>,
        question: u64,
        proposal: ConfigurationUpdateRequest,
        group: Result<PartitionConfiguration, ErrorCode>,
    ) {
        let (gpid, info) = (proposal.config.pid, proposal.info.clone());
        // What was opened and is gone again since may have been a member.
        if self.new_groups.get(&gpid) != Some(&question) {
            return;
        }
        self.new_groups.remove(&gpid);
        match group {
            Ok(group) if group.ballot == 0 => {}
            Ok(group) => {
                tracing::warn!(%gpid, ballot = group.ballot, "asked to lead as the first, and is not");
                return;
            }
            Err(error) => {
                tracing::info!(%gpid, %error, "it is not known whether a partition is new");
                return;
            }
        }
        if self.is_busy_with(gpid) || self.held.contains_key(&gpid) {
            return;
        }
        let then = move |stub: &mut Self, ctx: &mut Ctx<'_>| stub.ask_to_lead(ctx, proposal);
        self.create(ctx, (gpid, info, Ballot::ZERO), None, then);
    }

    /// Makes an empty replica in the directory that has the fewest of its table, then of all; in the one to `avoid`
    /// only if there is no other. `then` goes on with it.
    pub(super) fn create(
        &mut self,
        ctx: &mut Ctx<'_>,
        (gpid, info, ballot): (Gpid, AppInfo, Ballot),
        avoid: Option<usize>,
        then: impl FnOnce(&mut Self, &mut Ctx<'_>) + Send + 'static,
    ) {
        let load = |index: usize| {
            let held = self.held.iter().filter(|(_, held)| held.data_dir == index);
            let opening = self.opening.iter().filter(|(_, dir)| **dir == index);
            let here: Vec<i32> = held
                .map(|(held, _)| held.app_id)
                .chain(opening.map(|(opening, _)| opening.app_id))
                .collect();
            (here.iter().filter(|app_id| **app_id == gpid.app_id).count(), here.len())
        };
        let usable = (0..self.dirs.len()).filter(|index| {
            let dir = &self.dirs[*index];
            dir.usable().is_some() && !dir.is_full()
        });
        let Some(index) = usable.min_by_key(|index| (Some(*index) == avoid, load(*index))) else {
            tracing::error!(%gpid, "no disk can take a new replica");
            return;
        };
        let path = self.dirs[index].path.clone();
        let dir = &self.dirs[index];
        let (Some(log), Some(tails)) = (dir.log.clone(), dir.tails.clone()) else { return };
        let factory = self.factory.clone();
        self.opening.insert(gpid, index);
        ctx.offload(
            &LPC_OPEN_REPLICA,
            move |job| {
                let dir = layout::replica_dir(&path, gpid, factory.app_type());
                let made = create_new(job, &*factory, &path, &log, (gpid, &info, ballot.0));
                // A former replica of the partition may have lacked something, and this one is another.
                let settled = made.and_then(|opened| match tails.settle(gpid) {
                    Ok(()) => Ok(opened),
                    Err(error) => {
                        close(job, &*opened.machine);
                        Err(error.to_string())
                    }
                });
                settled.map_err(|reason| {
                    let is_there = job.disk().exists(&dir);
                    (reason, is_there.then_some(dir))
                })
            },
            self.me,
            move |stub, opened, ctx| {
                stub.opening.remove(&gpid);
                match opened {
                    Ok(opened) => {
                        stub.hold(ctx, opened, index);
                        then(stub, ctx);
                    }
                    Err((reason, left)) => {
                        tracing::error!(%gpid, reason, "a new replica cannot be made");
                        if let Some(dir) = left {
                            stub.wait_for_disk(ctx, gpid, (index, dir), reason, None);
                        }
                    }
                }
            },
        );
    }

    /// Asks the meta server to make this replica primary; it is when the answer says so.
    fn ask_to_lead(&mut self, ctx: &mut Ctx<'_>, mut request: ConfigurationUpdateRequest) {
        let gpid = request.config.pid;
        let me = wire(self.options.link.me);
        let Some(host) = self.held.get(&gpid).map(|held| held.host) else { return };
        if !self.proposed.insert(gpid) {
            return;
        }
        let config = &mut request.config;
        config.ballot += 1;
        config.primary = me;
        config.secondaries.retain(|member| *member != me);
        request.node = me;
        self.report(ctx, request, move |stub, ctx, outcome| {
            stub.proposed.remove(&gpid);
            // Another replica of the partition, opened meanwhile, is not the one that was chosen.
            let same = stub.held.get(&gpid).is_some_and(|held| held.host == host);
            match outcome {
                Ok(_) if !same => tracing::warn!(%gpid, "the replica that was to lead is gone"),
                Ok(answer) => stub.take_config(ctx, &answer.config),
                Err(error) => tracing::warn!(%gpid, %error, "the meta server refused a report"),
            }
        });
    }

    /// Reports a change of a group to the meta server.
    fn report(
        &mut self,
        ctx: &mut Ctx<'_>,
        request: ConfigurationUpdateRequest,
        done: impl FnOnce(&mut Self, &mut Ctx<'_>, Result<ConfigurationUpdateResponse, ErrorCode>)
        + Send
        + 'static,
    ) {
        let Some(link) = self.link else { return };
        let board = self.board.clone();
        ctx.post(link, &LPC_STUB_EVENT, move |link, ctx| {
            let done = move |ctx: &mut Ctx<'_>, outcome| {
                board.with(ctx, move |stub, ctx| done(stub, ctx, outcome));
            };
            link.update(ctx, request, Box::new(done));
        });
    }

    /// A group that the meta server has made durable, at this server's asking.
    fn take_config(&mut self, ctx: &mut Ctx<'_>, config: &PartitionConfiguration) {
        let Some(held) = self.held.get(&config.pid) else { return };
        let leads = node(config.primary) == Some(self.options.link.me);
        let (ballot, members) = (Ballot(config.ballot), secondaries(config));
        ctx.post(held.host, &LPC_REPLICA_EVENT, move |host, ctx| {
            host.on_change_made(ctx, ballot, leads, &members);
        });
    }
}

/// Wishes of primaries, and the meta server's view.
impl ReplicaStub {
    /// A primary wants its group changed.
    pub(super) fn request_change(
        &mut self,
        ctx: &mut Ctx<'_>,
        gpid: Gpid,
        info: AppInfo,
        change: Change,
    ) {
        let me = wire(self.options.link.me);
        let whom = change.node.map_or(me, wire);
        let mut members: Vec<RpcAddress> =
            change.secondaries.iter().map(|node| wire(*node)).collect();
        let mut primary = me;
        match (change.kind, change.node) {
            (ConfigType::DowngradeToSecondary, None) => {
                primary = RpcAddress::INVALID;
                members.push(me);
            }
            (_, None) => primary = RpcAddress::INVALID,
            (_, Some(_)) => {}
        }
        let request = ConfigurationUpdateRequest {
            config: PartitionConfiguration {
                pid: gpid,
                ballot: change.ballot.0,
                max_replica_count: info.max_replica_count,
                primary,
                secondaries: members,
                last_committed_decree: change.committed.0,
                ..PartitionConfiguration::default()
            },
            info,
            config_type: change.kind,
            node: whom,
            ..ConfigurationUpdateRequest::default()
        };
        let (ballot, kind) = (change.ballot, change.kind);
        tracing::info!(%gpid, %ballot, %kind, node = %whom, "asks for a change of the group");
        self.report(ctx, request, move |stub, ctx, outcome| match outcome {
            Ok(answer) => stub.take_config(ctx, &answer.config),
            Err(error) => {
                tracing::warn!(%gpid, kind = %change.kind, %error, "a change of the group was refused");
                let Some(held) = stub.held.get(&gpid) else { return };
                ctx.post(held.host, &LPC_REPLICA_EVENT, move |host, ctx| {
                    host.on_change_refused(ctx, &change, error);
                });
            }
        });
    }

    /// A group as the meta server has it.
    pub(super) fn on_config(&mut self, ctx: &mut Ctx<'_>, config: &ConfigurationUpdateRequest) {
        let gpid = config.config.pid;
        let ballot = Ballot(config.config.ballot);
        let me = self.options.link.me;
        let placed = self.board.placement.get(ctx, gpid);
        if placed.is_none_or(|placed| placed.gate.status() == PartitionStatus::Error) {
            return self.on_config_of_absent(ctx, config);
        }
        self.configure(ctx, gpid, &config.info);
        let Some(held) = self.held.get(&gpid) else { return };
        let leads = node(config.config.primary) == Some(me);
        let member = leads || secondaries(&config.config).contains(&me);
        let members = secondaries(&config.config);
        ctx.post(held.host, &LPC_REPLICA_EVENT, move |host, ctx| {
            let role = host.core().role();
            let newer = ballot > host.core().ballot();
            if newer && role.is_primary() {
                // A change that this primary asked for, whose answer was lost, or its end.
                host.on_change_made(ctx, ballot, leads, &members);
            } else if newer && !member {
                host.become_inactive(ctx, ballot);
            }
        });
    }

    /// Tells a replica what its table says now.
    fn configure(&mut self, ctx: &mut Ctx<'_>, gpid: Gpid, info: &AppInfo) {
        let Some(data_dir) = self.held.get(&gpid).map(|held| held.data_dir) else { return };
        let rules = self.rules(info, data_dir);
        let Some(held) = self.held.get_mut(&gpid) else { return };
        held.info = info.clone();
        let info = info.clone();
        ctx.post(held.host, &LPC_REPLICA_EVENT, |host, ctx| host.configure(ctx, info, rules));
    }

    /// The meta server counts on a replica that is not here, or on a disk that refuses it: its group must do without.
    /// The other members have everything that was acknowledged.
    ///
    /// The last member of a group never leaves by itself: a former member that fell behind would be taken for it, and
    /// what only this one had acknowledged would be gone without a word. That is for the operator to decide.
    fn on_config_of_absent(&mut self, ctx: &mut Ctx<'_>, config: &ConfigurationUpdateRequest) {
        let gpid = config.config.pid;
        let me = wire(self.options.link.me);
        if config.config.primary != me {
            return;
        }
        if secondaries(&config.config).is_empty() {
            tracing::error!(%gpid, "the only replica of a partition cannot be served by this server");
            return;
        }
        if !self.proposed.insert(gpid) {
            return;
        }
        tracing::error!(%gpid, "taken for the primary of a partition that cannot be served here");
        let mut request = config.clone();
        request.config.ballot += 1;
        request.config.primary = RpcAddress::INVALID;
        request.config_type = ConfigType::DowngradeToInactive;
        request.node = me;
        self.report(ctx, request, move |stub, _, outcome| {
            stub.proposed.remove(&gpid);
            if let Err(error) = outcome {
                tracing::warn!(%gpid, %error, "the meta server refused a report");
            }
        });
    }

    /// The replica of a partition, if it is open.
    pub(super) fn held(&self, gpid: Gpid) -> Option<&Held> {
        self.held.get(&gpid)
    }
}
