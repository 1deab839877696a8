//! Proposals: what a replica server was asked to do, until it shows or makes no sense any more.
//!
//! They travel one way and may be lost, so they are repeated: soon at first, then ever less often. What is planned
//! counts as load, so that a thousand new partitions do not all go to the server that was emptiest before the
//! first.

use std::time::Duration;

use dsn_core::time::Mono;
use dsn_rpc::address::RpcAddress;
use dsn_rpc::gpid::Gpid;

use super::cure::{Action, decide};
use crate::meta::state::app::Proposal;
use crate::meta::state::{Cluster, Effect};
use crate::wire::config::{ConfigType, ConfigurationUpdateRequest};

/// First pause before a proposal is repeated; doubles up to `lb_interval_ms`.
pub const FIRST_RESEND: Duration = Duration::from_millis(500);

/// A server that was asked to become primary and has not done so for this long is passed over if there are others.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A server that is to become a member and reports no replica of the partition, not even one that learns, after this
/// time is passed over if there are others: its disk may be full or broken.
pub const PATIENCE_TO_BEGIN: Duration = Duration::from_secs(60);

impl Cluster {
    /// Asks a server to act.
    pub(super) fn propose(
        &mut self,
        gpid: Gpid,
        target: RpcAddress,
        node: RpcAddress,
        kind: ConfigType,
        now: Mono,
    ) {
        self.withdraw(gpid);
        let leads = matches!(kind, ConfigType::AssignPrimary | ConfigType::UpgradeToPrimary);
        let may_lack = leads && self.may_lack(gpid, node);
        if may_lack {
            self.tell_what_may_be_lost(gpid, node);
        }
        let Some(partition) = self.partition_mut(gpid) else { return };
        partition.proposal = Some(Proposal {
            target,
            node,
            kind,
            may_lack,
            ballot: partition.config.ballot,
            since: now,
            resend: now,
            sent: 0,
        });
        self.proposed.insert(gpid);
        let entry = self.nodes.entry(node).or_default();
        match kind {
            _ if leads => drop(entry.planned_primaries.insert(gpid)),
            ConfigType::AddSecondary => drop(entry.planned_secondaries.insert(gpid)),
            _ => {}
        }
        self.send_due(gpid, now);
    }

    /// Forgets the proposal of a partition.
    pub(in crate::meta) fn withdraw(&mut self, gpid: Gpid) {
        let Some(proposal) = self.partition_mut(gpid).and_then(|p| p.proposal.take()) else {
            return;
        };
        self.proposed.remove(&gpid);
        if let Some(entry) = self.nodes.get_mut(&proposal.node) {
            entry.planned_primaries.remove(&gpid);
            entry.planned_secondaries.remove(&gpid);
        }
    }

    /// Whether the present proposal still makes sense; it is repeated then if it is time.
    pub(super) fn keep_proposal(&mut self, gpid: Gpid, now: Mono) -> bool {
        let Some(partition) = self.partition(gpid) else { return false };
        let Some(proposal) = &partition.proposal else { return false };
        let removing =
            matches!(proposal.kind, ConfigType::DowngradeToInactive | ConfigType::Remove);
        let sensible = proposal.ballot == partition.config.ballot
            && self.fd.is_alive(proposal.target)
            && (removing != self.fd.is_alive(proposal.node) || proposal.kind == ConfigType::Remove);
        let assigning = proposal.kind == ConfigType::AssignPrimary;
        // A primary that does not act as one cannot do what it is asked to do.
        let sensible = sensible && (assigning || !partition.idle);
        let heir = proposal.kind == ConfigType::UpgradeToPrimary;
        let asked_for = now.saturating_since(proposal.since);
        let lacks = self.nodes.get(&proposal.node).is_some_and(|entry| entry.lacks(gpid));
        let idle = proposal.kind == ConfigType::AddSecondary && lacks;
        let late = ((assigning || heir) && asked_for >= PATIENCE)
            || (idle && asked_for >= PATIENCE_TO_BEGIN);
        // It may have said by now that it has lost its replica, or the end of its log, and others have not.
        let is_heir =
            |action| matches!(action, Action::Propose { node, .. } if node == proposal.node);
        let leads = assigning || heir;
        // Where a first primary goes depends on how much servers have to do.
        let config = &partition.config;
        let first = config.secondaries.is_empty() && config.last_drops.is_empty();
        let sensible = sensible && (!leads || first || is_heir(decide(&self.view(gpid, now))));
        let sensible =
            sensible && (!leads || proposal.may_lack == self.may_lack(gpid, proposal.node));
        if sensible && !late {
            self.send_due(gpid, now);
            return true;
        }
        let avoid = late.then_some(proposal.node);
        self.withdraw(gpid);
        if let Some(partition) = self.partition_mut(gpid) {
            partition.avoid = avoid;
        }
        false
    }

    /// Looks at the groups that have a proposal.
    pub(in crate::meta) fn cure_proposed(&mut self, now: Mono) {
        for gpid in self.proposed.clone() {
            self.cure(gpid, now);
        }
    }

    fn send_due(&mut self, gpid: Gpid, now: Mono) {
        let longest = Duration::from_millis(u64::from(self.options.replication.lb_interval_ms));
        let Some(partition) = self.partition_mut(gpid) else { return };
        let config = partition.config.clone();
        let Some(proposal) = &mut partition.proposal else { return };
        if now < proposal.resend {
            return;
        }
        let pause = FIRST_RESEND * 2u32.pow(proposal.sent.min(16));
        proposal.sent += 1;
        proposal.resend = now + pause.min(longest);
        let Proposal { target, node, kind, may_lack, .. } = *proposal;
        let Some(app) = self.apps.get(&gpid.app_id) else { return };
        let request = ConfigurationUpdateRequest {
            info: app.info.clone(),
            config: self.named(&config),
            config_type: kind,
            node,
            hp_node: Some(self.host_of(node)),
            despite_uncertain_tail: may_lack.then_some(true),
            ..ConfigurationUpdateRequest::default()
        };
        self.effects.push(Effect::Propose(target, Box::new(request)));
    }
}
