//! Changing the envs of a table.

use std::collections::BTreeMap;

use dsn_rpc::error_code::ErrorCode;

use crate::meta::envs::{EnvRules, MAX_ENVS};
use crate::meta::state::app::{Job, Waiting};
use crate::meta::state::{Answer, Cluster, Ticket};
use crate::wire::admin::{AppEnvOperation, UpdateAppEnvRequest, UpdateAppEnvResponse};
use crate::wire::config::AppInfo;

type Envs = BTreeMap<String, String>;

/// The envs after the request.
fn changed(rules: &EnvRules, before: &Envs, request: &UpdateAppEnvRequest) -> Result<Envs, String> {
    let mut envs = before.clone();
    let keys = request.keys.as_deref().unwrap_or_default();
    match request.op {
        AppEnvOperation::Set => {
            let values = request.values.as_deref().unwrap_or_default();
            if keys.is_empty() || keys.len() != values.len() {
                return Err(format!("{} keys and {} values", keys.len(), values.len()));
            }
            for (key, value) in keys.iter().zip(values) {
                rules.check(key, value)?;
                envs.insert(key.clone(), value.clone());
            }
            if envs.len() > MAX_ENVS {
                return Err(format!("{} envs, at most {MAX_ENVS} are allowed", envs.len()));
            }
        }
        AppEnvOperation::Del => {
            if keys.is_empty() {
                return Err("no keys".to_owned());
            }
            keys.iter().for_each(|key| drop(envs.remove(key)));
        }
        AppEnvOperation::Clear => match request.clear_prefix.as_deref().unwrap_or_default() {
            "" => envs.clear(),
            prefix => {
                let below = format!("{prefix}.");
                envs.retain(|key, _| !key.starts_with(&below));
            }
        },
        other => return Err(format!("unknown operation {other}")),
    }
    Ok(envs)
}

impl Cluster {
    /// Sets, deletes or clears envs; answered when the change is durable.
    pub fn update_app_env(&mut self, ticket: Ticket, request: &UpdateAppEnvRequest) {
        let answer = |err, hint_message| Answer::Env(UpdateAppEnvResponse { err, hint_message });
        let Some(app) = self.app_named(&request.app_name) else {
            let hint = format!("there is no table {}", request.app_name);
            return self.reply(ticket, answer(ErrorCode::AppNotExist, hint));
        };
        let app_id = app.info.app_id;
        if let Some(busy) = app.busy() {
            let hint = "the table is being made or dropped".to_owned();
            return self.reply(ticket, answer(busy, hint));
        }
        if app.job.is_some() {
            if !self.wait_for(app_id, Waiting::Env(ticket, request.clone())) {
                let hint = "too many changes of the table wait".to_owned();
                self.reply(ticket, answer(ErrorCode::Busy, hint));
            }
            return;
        }
        match changed(&self.options.envs, &app.info.envs, request) {
            Ok(envs) if envs == app.info.envs => {
                self.reply(ticket, answer(ErrorCode::Ok, String::new()));
            }
            Ok(envs) => {
                let info = AppInfo { envs, ..app.info.clone() };
                if let Some(app) = self.apps.get_mut(&app_id) {
                    app.job = Some(Job::Env(ticket));
                }
                self.write_app(app_id, info);
            }
            Err(hint) => self.reply(ticket, answer(ErrorCode::InvalidParameters, hint)),
        }
    }
}
