//! Making a table.

use dsn_core::time::Wall;
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::gpid::Gpid;

use crate::meta::state::app::{App, Job};
use crate::meta::state::{Answer, Cluster, Ticket};
use crate::options::FunctionLevel;
use crate::wire::admin::{CreateAppOptions, CreateAppRequest, CreateAppResponse};
use crate::wire::config::{AppInfo, AppStatus, PartitionConfiguration};

/// Longest name of a table in bytes.
pub const MAX_NAME_LEN: usize = 255;

/// Whether a table may be called so: letters, digits and `_ . : - @`, at most [`MAX_NAME_LEN`].
#[must_use]
pub fn is_valid_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:-@".contains(&byte);
    !name.is_empty() && name.len() <= MAX_NAME_LEN && name.bytes().all(allowed)
}

/// The group of a partition that has no members yet.
pub(super) fn fresh(info: &AppInfo, index: i32) -> PartitionConfiguration {
    PartitionConfiguration {
        pid: Gpid::new(info.app_id, index),
        ballot: 0,
        max_replica_count: info.max_replica_count,
        ..PartitionConfiguration::default()
    }
}

fn is_same_table(options: &CreateAppOptions, info: &AppInfo) -> bool {
    options.partition_count == info.partition_count
        && options.replica_count == info.max_replica_count
        && options.app_type == info.app_type
        && options.envs == info.envs
}

impl Cluster {
    /// Makes a table; answered when table and partitions are durable.
    pub fn create_app(&mut self, ticket: Ticket, request: &CreateAppRequest, wall: Wall) {
        match self.check_create(request) {
            Ok(()) => self.begin_create(ticket, request, wall),
            Err((err, appid)) => {
                self.reply(ticket, Answer::Create(CreateAppResponse { err, appid }));
            }
        }
    }

    /// The answer when nothing is to be made.
    fn check_create(&self, request: &CreateAppRequest) -> Result<(), (ErrorCode, i32)> {
        let CreateAppRequest { app_name, options } = request;
        if self.effective_level() <= FunctionLevel::Freezed {
            return Err((ErrorCode::StateFreezed, 0));
        }
        let meta = &self.options.meta;
        let replicas = i64::from(options.replica_count);
        let replicas_fit = replicas >= i64::from(meta.min_allowed_replica_count)
            && replicas <= i64::from(meta.max_allowed_replica_count)
            && replicas <= self.alive().count() as i64;
        let partitions = i64::from(options.partition_count);
        let valid = is_valid_name(app_name)
            && partitions > 0
            && partitions <= i64::from(meta.max_allowed_partition_count)
            && !options.app_type.is_empty();
        if !valid {
            return Err((ErrorCode::InvalidParameters, 0));
        }
        if let Some(&app_id) = self.names.get(app_name) {
            return Err(self.check_existing(app_id, options));
        }
        if !replicas_fit {
            return Err((ErrorCode::InvalidParameters, 0));
        }
        for (name, value) in &options.envs {
            if let Err(hint) = self.options.envs.check(name, value) {
                tracing::info!(app_name, hint, "refused to create a table");
                return Err((ErrorCode::InvalidParameters, 0));
            }
        }
        Ok(())
    }

    fn check_existing(&self, app_id: i32, options: &CreateAppOptions) -> (ErrorCode, i32) {
        let Some(app) = self.apps.get(&app_id) else { return (ErrorCode::AppExist, 0) };
        if let Some(busy) = app.busy() {
            return (busy, 0);
        }
        match (options.success_if_exist, is_same_table(options, &app.info)) {
            (false, _) => (ErrorCode::AppExist, 0),
            (true, false) => (ErrorCode::InvalidParameters, 0),
            (true, true) => (ErrorCode::Ok, app_id),
        }
    }

    fn begin_create(&mut self, ticket: Ticket, request: &CreateAppRequest, wall: Wall) {
        let CreateAppRequest { app_name, options } = request;
        let app_id = self.next_app_id;
        self.next_app_id += 1;
        let info = AppInfo {
            status: AppStatus::Creating,
            app_type: options.app_type.clone(),
            app_name: app_name.clone(),
            app_id,
            partition_count: options.partition_count,
            envs: options.envs.clone(),
            is_stateful: true,
            max_replica_count: options.replica_count,
            create_second: wall.unix_seconds() as i64,
            init_partition_count: options.partition_count,
            atomic_idempotent: options.atomic_idempotent,
            ..AppInfo::default()
        };
        self.names.insert(app_name.clone(), app_id);
        let app = App { job: Some(Job::Create(Some(ticket))), ..App::new(info.clone()) };
        self.apps.insert(app_id, app);
        self.write_app(app_id, info);
    }
}
