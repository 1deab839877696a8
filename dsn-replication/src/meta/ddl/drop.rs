//! Dropping a table, and forgetting it when it can no longer be recalled.

use dsn_core::time::Wall;
use dsn_rpc::error_code::ErrorCode;

use crate::meta::group::membership::note_drop;
use crate::meta::state::app::{CHUNK, FLAG_DROPPED, Job, Waiting, app_key, members, partition_key};
use crate::meta::state::{Answer, Cluster, Effect, Step, Ticket};
use crate::meta::store::Change;
use crate::wire::admin::{DropAppRequest, DropAppResponse};
use crate::wire::config::{
    AppInfo, AppStatus, ConfigType, ConfigurationUpdateRequest, PartitionConfiguration,
};

/// The group of a partition whose table is dropped: nobody, the primary being the last that left.
pub(super) fn dropped(config: &PartitionConfiguration) -> PartitionConfiguration {
    let mut after = config.clone();
    after.ballot += 1;
    after.partition_flags |= FLAG_DROPPED;
    after.primary = Default::default();
    after.secondaries = Vec::new();
    for node in config.secondaries.iter().copied().chain([config.primary]) {
        note_drop(&mut after, node);
    }
    after
}

impl Cluster {
    /// Drops a table; answered when all its partitions are marked.
    pub fn drop_app(&mut self, ticket: Ticket, request: &DropAppRequest, wall: Wall) {
        let reply = |err| Answer::Drop(DropAppResponse { err });
        let Some(app) = self.app_named(&request.app_name) else {
            let fine = request.options.success_if_not_exist;
            let err = if fine { ErrorCode::Ok } else { ErrorCode::AppNotExist };
            return self.reply(ticket, reply(err));
        };
        let app_id = app.info.app_id;
        if let Some(busy) = app.busy() {
            return self.reply(ticket, reply(busy));
        }
        if app.job.is_some() {
            if !self.wait_for(app_id, Waiting::Drop(ticket, request.clone())) {
                self.reply(ticket, reply(ErrorCode::Busy));
            }
            return;
        }
        let hold = self.options.meta.hold_seconds_for_dropped_app as i64;
        let reserve = request.options.reserve_seconds.filter(|s| *s >= 0).unwrap_or(hold);
        let now = wall.unix_seconds() as i64;
        let info = AppInfo {
            status: AppStatus::Dropping,
            drop_second: now,
            expire_second: now.saturating_add(reserve),
            ..app.info.clone()
        };
        if let Some(app) = self.apps.get_mut(&app_id) {
            app.job = Some(Job::Drop(Some(ticket)));
        }
        self.write_app(app_id, info);
    }

    /// Tells the members of a group that it was dissolved, so that they close their replicas soon.
    pub(super) fn tell_former_members(&mut self, before: &PartitionConfiguration) {
        let Some(partition) = self.partition(before.pid) else { return };
        if !partition.is_dropped() {
            return;
        }
        let Some(app) = self.apps.get(&before.pid.app_id) else { return };
        let (config, info) = (partition.config.clone(), app.info.clone());
        for node in members(before) {
            let request = ConfigurationUpdateRequest {
                info: info.clone(),
                config: self.named(&config),
                config_type: ConfigType::DropPartition,
                node,
                hp_node: Some(self.host_of(node)),
                ..ConfigurationUpdateRequest::default()
            };
            self.effects.push(Effect::Propose(node, Box::new(request)));
        }
    }

    /// Begins to forget dropped tables that can no longer be recalled.
    pub(in crate::meta) fn erase_expired(&mut self, wall: Wall) {
        let now = wall.unix_seconds() as i64;
        let expired: Vec<i32> = self
            .apps
            .values()
            .filter(|app| app.info.status == AppStatus::Dropped && app.job.is_none())
            .filter(|app| app.info.expire_second <= now)
            .map(|app| app.info.app_id)
            .collect();
        for app_id in expired {
            if let Some(app) = self.apps.get_mut(&app_id) {
                app.job = Some(Job::Erase);
            }
            self.erase_more(app_id);
        }
    }

    /// Removes the last partitions of a table, and with the first of them the table itself.
    fn erase_more(&mut self, app_id: i32) {
        let Some(app) = self.apps.get_mut(&app_id) else { return };
        let keep = app.partitions.len().saturating_sub(CHUNK);
        let mut changes: Vec<Change> = app.partitions[keep..]
            .iter()
            .map(|partition| Change::remove(partition_key(partition.config.pid), partition.version))
            .collect();
        app.partitions.truncate(keep);
        if keep == 0 {
            changes.push(Change::remove(app_key(app_id), app.version.unwrap_or_default()));
        }
        self.write(changes, Step::Erase(app_id));
    }

    pub(in crate::meta) fn erase_written(&mut self, app_id: i32) {
        let Some(app) = self.apps.get(&app_id) else { return };
        if app.partitions.is_empty() {
            tracing::info!(app_id, name = app.info.app_name, "forgot a dropped table");
            self.apps.remove(&app_id);
        } else {
            self.erase_more(app_id);
        }
    }
}
