//! What to do about a group that is not well. [`decide`] is pure: a view of one group goes in, one action comes out.

use std::time::Duration;

use dsn_core::time::Mono;
use dsn_rpc::address::RpcAddress;
use dsn_rpc::gpid::Gpid;

use super::ddd::{self, Former};
use super::membership::change;
use super::placement::{
    Candidate, first_primary, new_secondary, next_primary, redundant_secondary,
};
use crate::meta::state::Cluster;
use crate::meta::state::app::is_member;
use crate::options::{FunctionLevel, min_members};
use crate::wire::config::{ConfigType, PartitionConfiguration};

/// What is to be done about a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing: it is well, or only time can help.
    Nothing,
    /// The primary is dead: the meta server takes it out by itself.
    TakeOut(RpcAddress),
    /// A replica server is asked to act.
    Propose {
        /// Who acts.
        target: RpcAddress,
        /// Whom it concerns.
        node: RpcAddress,
        /// What is to be done.
        kind: ConfigType,
    },
    /// Nobody can be made primary, for this reason.
    Stuck(String),
    /// Nobody is made primary for some time: who is there may lack something that others have.
    Await(String),
}

/// Everything that [`decide`] looks at.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The group.
    pub config: PartitionConfiguration,
    /// Servers that are alive.
    pub alive: Vec<Candidate>,
    /// What is known of `config.last_drops`, in the same order.
    pub former: Vec<Former>,
    /// What is known of as many as the group should have: its members, then those that left last.
    pub asked: Vec<Former>,
    /// Whether these have been waited for long enough, where what others have may lack something.
    pub tails_waited: bool,
    /// The highest commit point that anybody reported.
    pub committed: i64,
    /// Members below which copies are made at once.
    pub min_members: usize,
    /// Whether the primary says that it does not act as one.
    pub idle: bool,
    /// Whether the last lost member has been waited for long enough.
    pub waited: bool,
    /// Who did not do what it was asked for last.
    pub avoid: Option<RpcAddress>,
    /// Whether the primary's process ended so lately that it may be starting anew: with nobody to take over, it is
    /// more use as it is than as a former member.
    pub primary_may_start: bool,
}

impl View {
    fn candidate(&self, node: RpcAddress) -> Option<Candidate> {
        self.alive.iter().copied().find(|candidate| candidate.node == node)
    }

    /// Who of the secondaries that are alive takes over, as far as is known without having lost anything.
    fn heir(&self) -> Option<RpcAddress> {
        let mut able = self.living_secondaries();
        able.retain(|candidate| !candidate.lacks && !self.may_lack(candidate.node));
        next_primary(&able)
    }

    /// Who led until nobody did, if it is there and has everything: nothing was acknowledged since. It knows the ballot
    /// that it knew then, which a copy that it had left behind somewhere earlier does not.
    fn last_primary(&self) -> Option<RpcAddress> {
        let leader = self.config.last_leader.as_ref()?;
        let last =
            self.former.last().filter(|last| last.node == leader.node && last.is_certain())?;
        let (ballot, _, prepared) = last.replica?;
        (ballot >= leader.known_ballot && prepared >= self.committed).then_some(last.node)
    }

    fn living_secondaries(&self) -> Vec<Candidate> {
        self.config.secondaries.iter().filter_map(|node| self.candidate(*node)).collect()
    }
}

/// What is to be done about a group; one thing at a time.
#[must_use]
pub fn decide(view: &View) -> Action {
    let config = &view.config;
    if !config.primary.is_valid() {
        return without_primary(view);
    }
    if view.candidate(config.primary).is_none() {
        let successor = view.living_secondaries().iter().any(|secondary| !secondary.may_be_gone);
        return match view.primary_may_start && !successor {
            true => Action::Nothing,
            false => Action::TakeOut(config.primary),
        };
    }
    let propose = |node, kind| Action::Propose { target: config.primary, node, kind };
    if view.idle {
        return idle_primary(view);
    }
    if let Some(dead) = config.secondaries.iter().find(|node| view.candidate(**node).is_none()) {
        return propose(*dead, ConfigType::DowngradeToInactive);
    }
    let members = 1 + config.secondaries.len();
    let wanted = usize::try_from(config.max_replica_count).unwrap_or_default();
    if members > wanted {
        let redundant = redundant_secondary(&view.living_secondaries());
        return redundant.map_or(Action::Nothing, |node| propose(node, ConfigType::Remove));
    }
    if members < wanted {
        let found = missing_secondary(view, members, wanted);
        return found.map_or(Action::Nothing, |node| propose(node, ConfigType::AddSecondary));
    }
    Action::Nothing
}

/// The primary was started anew. It has everything, and goes on; unless the end of its log may be missing.
fn idle_primary(view: &View) -> Action {
    let config = &view.config;
    let primary = config.primary;
    let go_on = Action::Propose { target: primary, node: primary, kind: ConfigType::AssignPrimary };
    if !view.may_lack(primary) {
        return go_on;
    }
    if config.secondaries.iter().any(|node| view.is_certain(*node)) {
        return Action::TakeOut(primary);
    }
    match view.most() {
        Ok(node) if node == primary => go_on,
        Ok(_) => Action::TakeOut(primary),
        Err(reason) => Action::Await(reason),
    }
}

/// Nobody leads, and no secondary is known to have everything; `None` where that is so for another reason than that
/// the ends of logs may be missing.
fn without_certainty(view: &View) -> Option<Action> {
    let config = &view.config;
    let propose = |node, kind| Action::Propose { target: node, node, kind };
    let last = config.last_drops.last().copied();
    let concerned = match config.secondaries.is_empty() {
        // Who left last has everything that those before it had: nobody goes on without having heard of it.
        true => last.is_some_and(|last| view.may_lack(last)),
        false => view.asked.iter().any(Former::may_lack),
    };
    if !concerned {
        return None;
    }
    if let Some(last) = view.last_primary() {
        return Some(propose(last, ConfigType::AssignPrimary));
    }
    Some(match view.most() {
        Ok(node) if config.secondaries.contains(&node) => {
            propose(node, ConfigType::UpgradeToPrimary)
        }
        Ok(node) => propose(node, ConfigType::AssignPrimary),
        Err(reason) => Action::Await(reason),
    })
}

fn without_primary(view: &View) -> Action {
    let config = &view.config;
    let propose = |node, kind| Action::Propose { target: node, node, kind };
    if let Some(node) = view.heir() {
        return propose(node, ConfigType::UpgradeToPrimary);
    }
    if let Some(action) = without_certainty(view) {
        return action;
    }
    if !config.secondaries.is_empty() {
        return match view.last_primary() {
            Some(node) => propose(node, ConfigType::AssignPrimary),
            None if view.living_secondaries().is_empty() => {
                Action::Stuck("waits for a secondary to come back".to_owned())
            }
            None => Action::Stuck(
                "no secondary that is there has a replica to serve; waits for another one, or for who led last"
                    .to_owned(),
            ),
        };
    }
    if config.last_drops.is_empty() {
        return match first_primary(&view.alive) {
            Some(node) => propose(node, ConfigType::AssignPrimary),
            None => Action::Stuck("no replica server is alive".to_owned()),
        };
    }
    match ddd::choose(&view.former, view.committed) {
        Ok(node) => propose(node, ConfigType::AssignPrimary),
        Err(reason) => Action::Stuck(reason),
    }
}

fn missing_secondary(view: &View, members: usize, wanted: usize) -> Option<RpcAddress> {
    let config = &view.config;
    let outside: Vec<Candidate> =
        view.alive.iter().copied().filter(|candidate| !is_member(config, candidate.node)).collect();
    let returned = |node: &RpcAddress| outside.iter().any(|candidate| candidate.node == *node);
    let last = config.last_drops.last();
    let emergency =
        (members < view.min_members && wanted > view.min_members) || last.is_none() || view.waited;
    if !emergency && last.copied() != view.avoid {
        // Its data is still there: copying what it missed is cheaper than copying everything.
        return last.copied().filter(returned);
    }
    let fit = |node: &RpcAddress| returned(node) && view.avoid != Some(*node);
    let former = config.last_drops.iter().rev().copied().find(fit);
    former.or_else(|| new_secondary(&outside))
}

impl Cluster {
    /// Looks at one group and does what is to be done about it.
    pub(in crate::meta) fn cure(&mut self, gpid: Gpid, now: Mono) {
        let serving = self.apps.get(&gpid.app_id).is_some_and(|app| app.is_serving());
        let Some(partition) = self.partition(gpid) else { return };
        if !serving || partition.pending.is_some() || partition.is_dropped() {
            return;
        }
        let level = self.effective_level();
        if level < FunctionLevel::Freezed {
            return;
        }
        if !partition.idle && self.is_well(&partition.config) {
            self.withdraw(gpid);
            self.set_stuck(gpid, None);
            return;
        }
        if self.keep_proposal(gpid, now) {
            return;
        }
        let action = decide(&self.view(gpid, now));
        match action {
            Action::TakeOut(node) => self.take_out(gpid, node),
            Action::Nothing => self.withdraw(gpid),
            Action::Stuck(reason) => {
                self.withdraw(gpid);
                self.set_stuck(gpid, Some(reason));
            }
            Action::Await(reason) => {
                self.withdraw(gpid);
                self.await_tails(gpid, now);
                self.set_stuck(gpid, Some(reason));
            }
            Action::Propose { target, node, kind } if level >= FunctionLevel::Steady => {
                self.set_stuck(gpid, None);
                self.propose(gpid, target, node, kind, now);
            }
            Action::Propose { .. } => {}
        }
    }

    /// Looks at all groups of a table.
    pub(in crate::meta) fn cure_app(&mut self, app_id: i32, now: Mono) {
        let count = self.apps.get(&app_id).map_or(0, |app| app.partitions.len());
        for index in 0..count {
            self.cure(Gpid::new(app_id, index as i32), now);
        }
    }

    /// Looks at all groups.
    pub(in crate::meta) fn cure_all(&mut self, now: Mono) {
        let apps: Vec<i32> = self.apps.keys().copied().collect();
        for app_id in apps {
            self.cure_app(app_id, now);
        }
    }

    fn set_stuck(&mut self, gpid: Gpid, reason: Option<String>) {
        let Some(partition) = self.partition_mut(gpid) else { return };
        if partition.stuck != reason {
            if let Some(reason) = &reason {
                tracing::warn!(%gpid, reason, "a partition has no primary");
            }
            partition.stuck = reason;
        }
    }

    /// Everybody is there and alive; the common case, looked at cheaply.
    pub(in crate::meta) fn is_well(&self, config: &PartitionConfiguration) -> bool {
        config.primary.is_valid()
            && 1 + config.secondaries.len() as i64 == i64::from(config.max_replica_count)
            && self.fd.is_alive(config.primary)
            && config.secondaries.iter().all(|node| self.fd.is_alive(*node))
    }

    fn take_out(&mut self, gpid: Gpid, primary: RpcAddress) {
        self.withdraw(gpid);
        let Some(partition) = self.partition(gpid) else { return };
        match change(&partition.config, ConfigType::DowngradeToInactive, primary) {
            Ok(after) => self.write_group(after, Vec::new()),
            Err(error) => tracing::error!(%gpid, %primary, %error, "cannot take out a primary"),
        }
    }

    /// What [`decide`] is to look at for a partition.
    pub(super) fn view(&self, gpid: Gpid, now: Mono) -> View {
        let Some(partition) = self.partition(gpid) else { return View::default() };
        let config = &partition.config;
        let proposal = partition.proposal.as_ref();
        let heir = proposal.filter(|proposal| proposal.kind == ConfigType::UpgradeToPrimary);
        let heir = heir.map(|proposal| proposal.node);
        let alive = self
            .alive()
            .map(|node| Candidate {
                node,
                load: self.nodes.get(&node).map(|n| n.load(gpid.app_id)).unwrap_or_default(),
                doubtful: self.fd.is_unstable(node, now)
                    || partition.avoid == Some(node)
                    || self.doubted.contains(&node),
                may_be_gone: self.doubted.contains(&node),
                lacks: self.nodes.get(&node).is_some_and(|entry| entry.cannot_serve(gpid)),
                asked: heir == Some(node),
            })
            .collect();
        let delay = Duration::from_millis(self.options.meta.replica_assign_delay_ms_for_dropouts);
        View {
            config: config.clone(),
            alive,
            former: self.former(config),
            asked: self.asked(config),
            tails_waited: self.tails_waited(gpid, now),
            committed: partition.known_committed,
            min_members: self.min_members(config.max_replica_count),
            idle: partition.idle,
            primary_may_start: self.fd.may_be_starting(config.primary, now),
            avoid: partition.avoid,
            waited: partition.dropped_at.is_none_or(|at| now.saturating_since(at) >= delay),
        }
    }

    /// What is known of the former members of a group.
    pub(in crate::meta) fn former(&self, config: &PartitionConfiguration) -> Vec<Former> {
        config.last_drops.iter().map(|node| self.known_of(config.pid, *node)).collect()
    }

    /// What is known of a replica on a server.
    pub(super) fn known_of(&self, gpid: Gpid, node: RpcAddress) -> Former {
        let entry = self.nodes.get(&node);
        let reported = entry.and_then(|entry| entry.reported.as_ref());
        let told = reported.and_then(|all| all.get(&gpid));
        // One that has failed and is not opened anew by itself.
        let failed = entry.is_some_and(|entry| entry.has_failed(gpid));
        let replica = told.filter(|_| !failed);
        Former {
            node,
            alive: self.fd.is_alive(node),
            collected: reported.is_some(),
            refused: failed || entry.is_some_and(|entry| entry.refused.contains(&gpid)),
            incomplete: entry.is_some_and(|entry| entry.incomplete),
            uncertain: replica.is_some_and(|info| info.tail_uncertain == Some(true)),
            replica: replica.map(Former::reported),
        }
    }

    pub(in crate::meta) fn min_members(&self, max_replica_count: i32) -> usize {
        let configured = self.options.replication.mutation_2pc_min_replica_count;
        min_members(configured, max_replica_count) as usize
    }
}
