//! Tables come and go: each change is a walk through durable states.
//!
//! ```text
//! create   Creating ── partitions written, a run at a time ──► Available
//! drop     Dropping ── partitions marked, a run at a time ───► Dropped ── expired ──► forgotten
//! recall   Recalling ─ marks removed, a run at a time ───────► Available
//! rename, envs: one write of the table's record
//! ```
//!
//! [`Cluster::go_on`] looks at nothing but the durable record and the durable partitions, so a meta server that was
//! restarted at any point goes on where the records stand. One change per table at a time; others wait in a short
//! queue or are refused as busy. A request is answered when its change is durable.

mod create;
mod drop;
mod envs;
mod recall;
#[cfg(test)]
mod tests;

pub use create::{MAX_NAME_LEN, is_valid_name};

use dsn_core::time::{Mono, Wall};
use dsn_rpc::error_code::ErrorCode;

use super::state::app::{App, CHUNK, Job, MAX_WAITING, Partition, Waiting, partition_key, record};
use super::state::{Answer, Cluster, Step};
use super::store::Change;
use crate::wire::admin::{
    CreateAppResponse, DropAppResponse, RecallAppResponse, RenameAppResponse, UpdateAppEnvResponse,
};
use crate::wire::config::{AppInfo, AppStatus, PartitionConfiguration};

impl App {
    /// The error for requests that cannot be served because of the change under way.
    pub(super) fn busy(&self) -> Option<ErrorCode> {
        match (&self.job, self.info.status) {
            (Some(Job::Create(_) | Job::Recall(_)), _)
            | (_, AppStatus::Creating | AppStatus::Recalling) => Some(ErrorCode::BusyCreating),
            (Some(Job::Drop(_)), _) | (_, AppStatus::Dropping) => Some(ErrorCode::BusyDropping),
            _ => None,
        }
    }
}

impl Cluster {
    /// Takes the next step of the change under way, or ends it.
    pub(super) fn go_on(&mut self, app_id: i32, now: Mono, wall: Wall) {
        let Some(app) = self.apps.get(&app_id) else { return };
        let info = app.info.clone();
        match info.status {
            AppStatus::Creating
                if (app.partitions.len() as i64) < i64::from(info.partition_count) =>
            {
                let from = app.partitions.len() as i32;
                let to = info.partition_count.min(from + CHUNK as i32);
                let batch = (from..to).map(|index| create::fresh(&info, index)).collect();
                self.write_batch(app_id, batch);
            }
            AppStatus::Dropping | AppStatus::Recalling => {
                let dropping = info.status == AppStatus::Dropping;
                let unchanged = app.partitions.iter().filter(|p| p.is_dropped() != dropping);
                let batch: Vec<PartitionConfiguration> = unchanged
                    .take(CHUNK)
                    .map(|partition| match dropping {
                        true => drop::dropped(&partition.config),
                        false => recall::recalled(&partition.config),
                    })
                    .collect();
                if batch.is_empty() {
                    let status = if dropping { AppStatus::Dropped } else { AppStatus::Available };
                    self.write_app(app_id, AppInfo { status, ..info });
                } else {
                    self.write_batch(app_id, batch);
                }
            }
            AppStatus::Creating => {
                self.write_app(app_id, AppInfo { status: AppStatus::Available, ..info });
            }
            _ => self.job_done(app_id, now, wall),
        }
    }

    fn write_batch(&mut self, app_id: i32, batch: Vec<PartitionConfiguration>) {
        let Some(app) = self.apps.get_mut(&app_id) else { return };
        let changes = batch
            .iter()
            .map(|config| {
                let (key, value) = (partition_key(config.pid), record(config));
                match app.partitions.get(config.pid.partition_index as usize) {
                    Some(partition) => Change::set(key, partition.version, value),
                    None => Change::create(key, value),
                }
            })
            .collect();
        app.batch = batch;
        self.write(changes, Step::Partitions(app_id));
    }

    pub(super) fn app_written(&mut self, app_id: i32, now: Mono, wall: Wall) {
        let Some(app) = self.apps.get_mut(&app_id) else { return };
        app.version = Some(app.version.map_or(0, |version| version + 1));
        let Some(info) = app.next_info.take() else { return };
        let before = std::mem::replace(&mut app.info, info);
        let (name, status) = (app.info.app_name.clone(), app.info.status);
        if before.app_name != name && before.status != AppStatus::Dropped {
            self.names.remove(&before.app_name);
        }
        if status == AppStatus::Dropped {
            self.names.remove(&name);
        }
        self.go_on(app_id, now, wall);
    }

    pub(super) fn partitions_written(&mut self, app_id: i32, now: Mono, wall: Wall) {
        let Some(app) = self.apps.get_mut(&app_id) else { return };
        let batch = std::mem::take(&mut app.batch);
        for config in batch {
            let known = self.partition(config.pid).map(|partition| partition.config.clone());
            match known {
                Some(before) => {
                    self.install(config);
                    self.tell_former_members(&before);
                }
                None => {
                    if let Some(app) = self.apps.get_mut(&app_id) {
                        app.partitions.push(Partition::new(config, 0));
                    }
                }
            }
        }
        self.go_on(app_id, now, wall);
    }

    /// The change under way is complete and durable.
    fn job_done(&mut self, app_id: i32, now: Mono, wall: Wall) {
        let Some(app) = self.apps.get_mut(&app_id) else { return };
        let Some(job) = app.job.take() else { return };
        let info = app.info.clone();
        let err = ErrorCode::Ok;
        let answer = match &job {
            Job::Create(ticket) => {
                tracing::info!(app_id, name = info.app_name, "created a table");
                ticket.map(|t| (t, Answer::Create(CreateAppResponse { err, appid: app_id })))
            }
            Job::Drop(ticket) => {
                tracing::info!(app_id, name = info.app_name, "dropped a table");
                ticket.map(|t| (t, Answer::Drop(DropAppResponse { err })))
            }
            Job::Recall(ticket) => {
                tracing::info!(app_id, name = info.app_name, "recalled a table");
                ticket.map(|t| (t, Answer::Recall(RecallAppResponse { err, info: info.clone() })))
            }
            Job::Rename(ticket) => {
                Some((*ticket, Answer::Rename(RenameAppResponse { err, ..Default::default() })))
            }
            Job::Env(ticket) => {
                Some((*ticket, Answer::Env(UpdateAppEnvResponse { err, ..Default::default() })))
            }
            Job::Erase => None,
        };
        if let Some((ticket, answer)) = answer {
            self.reply(ticket, answer);
        }
        if matches!(job, Job::Create(_) | Job::Recall(_)) {
            self.cure_app(app_id, now);
        }
        self.serve_waiting(app_id, wall);
    }

    /// Lets requests that waited for the table have their turn.
    fn serve_waiting(&mut self, app_id: i32, wall: Wall) {
        loop {
            let Some(app) = self.apps.get_mut(&app_id) else { return };
            if app.job.is_some() {
                return;
            }
            match app.waiting.pop_front() {
                Some(Waiting::Drop(ticket, request)) => {
                    self.drop_app(ticket, &request, wall);
                }
                Some(Waiting::Rename(ticket, request)) => {
                    self.rename_app(ticket, &request);
                }
                Some(Waiting::Env(ticket, request)) => {
                    self.update_app_env(ticket, &request);
                }
                None => return,
            }
        }
    }

    /// Puts a request behind the change under way; `false` when too many wait.
    fn wait_for(&mut self, app_id: i32, waiting: Waiting) -> bool {
        let Some(app) = self.apps.get_mut(&app_id) else { return false };
        let room = app.waiting.len() < MAX_WAITING;
        if room {
            app.waiting.push_back(waiting);
        }
        room
    }
}
