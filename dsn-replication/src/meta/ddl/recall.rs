//! Bringing a dropped table back, and giving a table another name.

use dsn_core::time::Wall;
use dsn_rpc::error_code::ErrorCode;

use super::create::is_valid_name;
use crate::meta::state::app::{FLAG_DROPPED, Job, Waiting};
use crate::meta::state::{Answer, Cluster, Ticket};
use crate::wire::admin::{
    RecallAppRequest, RecallAppResponse, RenameAppRequest, RenameAppResponse,
};
use crate::wire::config::{AppInfo, AppStatus, PartitionConfiguration};

/// The group of a partition whose table is back: nobody yet; its former members are known.
pub(super) fn recalled(config: &PartitionConfiguration) -> PartitionConfiguration {
    PartitionConfiguration {
        ballot: config.ballot + 1,
        partition_flags: config.partition_flags & !FLAG_DROPPED,
        ..config.clone()
    }
}

impl Cluster {
    /// Brings a dropped table back; answered when its partitions may have members again.
    pub fn recall_app(&mut self, ticket: Ticket, request: &RecallAppRequest, wall: Wall) {
        match self.check_recall(request, wall) {
            Ok(info) => {
                let app_id = info.app_id;
                self.names.insert(info.app_name.clone(), app_id);
                if let Some(app) = self.apps.get_mut(&app_id) {
                    app.job = Some(Job::Recall(Some(ticket)));
                }
                self.write_app(app_id, info);
            }
            Err(err) => {
                let response = RecallAppResponse { err, ..RecallAppResponse::default() };
                self.reply(ticket, Answer::Recall(response));
            }
        }
    }

    fn check_recall(&self, request: &RecallAppRequest, wall: Wall) -> Result<AppInfo, ErrorCode> {
        let app = self.apps.get(&request.app_id).ok_or(ErrorCode::AppNotExist)?;
        if let Some(busy) = app.busy() {
            return Err(busy);
        }
        if app.info.status != AppStatus::Dropped {
            return Err(ErrorCode::AppExist);
        }
        let expired = app.info.expire_second <= wall.unix_seconds() as i64;
        let partly_forgotten = app.partitions.len() as i64 != i64::from(app.info.partition_count);
        if expired || partly_forgotten || app.job.is_some() {
            return Err(ErrorCode::AppNotExist);
        }
        let name = match request.new_app_name.as_str() {
            "" => app.info.app_name.as_str(),
            name => name,
        };
        if !is_valid_name(name) || self.names.contains_key(name) {
            return Err(ErrorCode::InvalidParameters);
        }
        Ok(AppInfo {
            status: AppStatus::Recalling,
            app_name: name.to_owned(),
            drop_second: 0,
            expire_second: 0,
            ..app.info.clone()
        })
    }

    /// Gives a table another name.
    pub fn rename_app(&mut self, ticket: Ticket, request: &RenameAppRequest) {
        let refuse = |err, hint: &str| {
            Answer::Rename(RenameAppResponse { err, hint_message: hint.to_owned() })
        };
        let (old, new) = (&request.old_app_name, &request.new_app_name);
        let Some(app) = self.app_named(old) else {
            let answer = refuse(ErrorCode::AppNotExist, "there is no table of that name");
            return self.reply(ticket, answer);
        };
        let app_id = app.info.app_id;
        if let Some(busy) = app.busy() {
            return self.reply(ticket, refuse(busy, "another change of the table is under way"));
        }
        if !is_valid_name(new) || self.names.contains_key(new) {
            let answer = refuse(ErrorCode::InvalidParameters, "the new name is taken or not valid");
            return self.reply(ticket, answer);
        }
        if app.job.is_some() {
            if !self.wait_for(app_id, Waiting::Rename(ticket, request.clone())) {
                self.reply(ticket, refuse(ErrorCode::Busy, "too many changes of the table wait"));
            }
            return;
        }
        let info = AppInfo { app_name: new.clone(), ..app.info.clone() };
        self.names.insert(new.clone(), app_id);
        if let Some(app) = self.apps.get_mut(&app_id) {
            app.job = Some(Job::Rename(ticket));
        }
        self.write_app(app_id, info);
    }
}
