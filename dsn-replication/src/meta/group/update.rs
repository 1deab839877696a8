//! A replica server reports that a group has changed: the fence between the old group and the new one.
//!
//! The ballot of the report must be the next one, and the report must be exactly the change that it says it is; the
//! group that is stored is computed here, from the one that is known and the kind of change. A report that was made
//! already is answered as it was (its sender did not hear). While a change is being written, others of the same
//! group are told to come again.

use dsn_core::time::Mono;
use dsn_rpc::address::RpcAddress;
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::gpid::Gpid;

use super::membership::{ChangeError, change, same_members};
use crate::meta::state::app::{Pending, is_member, partition_key, record};
use crate::meta::state::{Answer, Cluster, Step, Ticket};
use crate::meta::store::Change;
use crate::options::FunctionLevel;
use crate::wire::config::{
    ConfigType, ConfigurationUpdateRequest, ConfigurationUpdateResponse, Leader,
    PartitionConfiguration,
};

/// What a report leads to.
enum Verdict {
    /// This answer, now.
    Answer(ErrorCode),
    /// The answer of the change that is being written.
    Join,
    /// A change.
    Make(Box<PartitionConfiguration>),
}

/// Who leads the group after a change, or was the last to do so.
fn last_leader(
    current: &PartitionConfiguration,
    request: &ConfigurationUpdateRequest,
) -> Option<Leader> {
    match request.config_type {
        ConfigType::AssignPrimary | ConfigType::UpgradeToPrimary => {
            let known_ballot = request.known_ballot.unwrap_or(current.ballot);
            let known_ballot = known_ballot.clamp(0, current.ballot);
            Some(Leader { node: request.node, known_ballot })
        }
        // Only a primary asks for another member to come or go, and under the ballot of the group.
        _ if current.primary.is_valid() && request.node != current.primary => {
            Some(Leader { node: current.primary, known_ballot: current.ballot })
        }
        _ => current.last_leader.clone(),
    }
}

impl Cluster {
    /// A replica server reports a change of a group; answered when it is durable.
    pub fn update_configuration(&mut self, ticket: Ticket, request: &ConfigurationUpdateRequest) {
        let gpid = request.config.pid;
        match self.judge(request) {
            Verdict::Answer(err) => {
                let config = self.partition(gpid).map(|partition| self.named(&partition.config));
                let config = config.unwrap_or_else(|| request.config.clone());
                let response = ConfigurationUpdateResponse { err, config };
                self.reply(ticket, Answer::Update(response));
            }
            Verdict::Join => {
                if let Some(pending) = self.partition_mut(gpid).and_then(|p| p.pending.as_mut()) {
                    // The sender waits for one answer at a time: the newest ticket is the one it still knows.
                    let outdated = std::mem::replace(&mut pending.tickets, vec![ticket]);
                    for ticket in outdated {
                        let response = ConfigurationUpdateResponse {
                            err: ErrorCode::IoPending,
                            config: request.config.clone(),
                        };
                        self.reply(ticket, Answer::Update(response));
                    }
                }
            }
            Verdict::Make(config) => self.write_group(*config, vec![ticket]),
        }
    }

    fn judge(&self, request: &ConfigurationUpdateRequest) -> Verdict {
        let gpid = request.config.pid;
        let Some(app) = self.apps.get(&gpid.app_id).filter(|app| app.is_serving()) else {
            return Verdict::Answer(ErrorCode::ObjectNotFound);
        };
        let Some(partition) = self.partition(gpid) else {
            return Verdict::Answer(ErrorCode::ObjectNotFound);
        };
        let current = &partition.config;
        let known = |config: &PartitionConfiguration| {
            request.config.ballot == config.ballot && same_members(&request.config, config)
        };
        if known(current) {
            return Verdict::Answer(ErrorCode::Ok);
        }
        if self.effective_level() < FunctionLevel::Freezed || self.is_frozen_for(request) {
            return Verdict::Answer(ErrorCode::StateFreezed);
        }
        if let Some(pending) = &partition.pending {
            return match known(&pending.config) {
                true => Verdict::Join,
                false => Verdict::Answer(ErrorCode::IoPending),
            };
        }
        if request.config.ballot != current.ballot + 1 {
            return Verdict::Answer(ErrorCode::InvalidVersion);
        }
        match self.checked_change(current, request) {
            Ok(after) => Verdict::Make(Box::new(after)),
            Err(error) => {
                tracing::warn!(
                    %gpid,
                    kind = %request.config_type,
                    node = %request.node,
                    table = app.info.app_name,
                    %error,
                    "refused a change of a group"
                );
                Verdict::Answer(ErrorCode::InvalidState)
            }
        }
    }

    /// While membership is frozen, a restarted primary may still go on: its group stays as it is.
    fn is_frozen_for(&self, request: &ConfigurationUpdateRequest) -> bool {
        self.effective_level() == FunctionLevel::Freezed
            && request.config.primary != self.primary_of(request.config.pid)
    }

    fn primary_of(&self, gpid: Gpid) -> RpcAddress {
        self.partition(gpid).map_or(RpcAddress::INVALID, |partition| partition.config.primary)
    }

    fn checked_change(
        &self,
        current: &PartitionConfiguration,
        request: &ConfigurationUpdateRequest,
    ) -> Result<PartitionConfiguration, ChangeError> {
        let mut after = change(current, request.config_type, request.node)?;
        if !same_members(&after, &request.config) {
            return Err(ChangeError::IsNot("placed as the change says"));
        }
        if request.config_type == ConfigType::AssignPrimary
            && !current.last_drops.is_empty()
            && current.primary != request.node
        {
            // There is data somewhere: only the server that was chosen for having it may go on with it.
            let chosen = self.partition(current.pid).and_then(|p| p.proposal.as_ref());
            if !chosen.is_some_and(|p| p.node == request.node && p.kind == request.config_type) {
                return Err(ChangeError::IsNot("the one that was chosen"));
            }
        }
        after.last_leader = last_leader(current, request);
        let committed = request.config.last_committed_decree;
        after.last_committed_decree = match self.accepted_loss(request) {
            // What it does not have is lost, as was said when it was chosen.
            Some(has) => has,
            None => after.last_committed_decree.max(committed),
        };
        Ok(after)
    }

    /// A server is to lead though the end of its log may be missing, as is known: the commit point that it reported.
    fn accepted_loss(&self, request: &ConfigurationUpdateRequest) -> Option<i64> {
        let gpid = request.config.pid;
        let chosen = self.partition(gpid)?.proposal.as_ref()?;
        let is_it = (chosen.node, chosen.kind) == (request.node, request.config_type);
        let (_, committed, _) = self.known_of(gpid, request.node).replica?;
        (chosen.may_lack && is_it).then_some(committed)
    }

    /// Makes a group durable.
    pub(super) fn write_group(&mut self, config: PartitionConfiguration, tickets: Vec<Ticket>) {
        let gpid = config.pid;
        let Some(partition) = self.partition_mut(gpid) else { return };
        let change = Change::set(partition_key(gpid), partition.version, record(&config));
        partition.pending = Some(Pending { config, tickets });
        self.write(vec![change], Step::Group(gpid));
    }

    pub(in crate::meta) fn group_written(&mut self, gpid: Gpid, now: Mono) {
        let Some(partition) = self.partition_mut(gpid) else { return };
        let Some(Pending { config, tickets }) = partition.pending.take() else { return };
        let chosen = partition.proposal.as_ref().filter(|chosen| chosen.may_lack);
        if chosen.is_some_and(|chosen| chosen.node == config.primary) {
            partition.known_committed = config.last_committed_decree;
        }
        let lost = partition
            .config
            .secondaries
            .iter()
            .chain([&partition.config.primary])
            .any(|node| node.is_valid() && !is_member(&config, *node));
        if lost {
            partition.dropped_at = Some(now);
        }
        tracing::info!(
            %gpid,
            ballot = config.ballot,
            primary = %config.primary,
            secondaries = ?config.secondaries,
            "a group has changed"
        );
        let answer =
            ConfigurationUpdateResponse { err: ErrorCode::Ok, config: self.named(&config) };
        self.install(config);
        for ticket in tickets {
            self.reply(ticket, Answer::Update(answer.clone()));
        }
        self.cure(gpid, now);
    }
}
