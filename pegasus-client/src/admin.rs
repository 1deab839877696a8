//! What operators ask of the meta server: tables, nodes, envs.

use dsn_core::code::Code;
use dsn_replication::wire::admin::{
    AppEnvOperation, ClusterInfoRequest, ClusterInfoResponse, CreateAppOptions, CreateAppRequest,
    CreateAppResponse, DropAppOptions, DropAppRequest, DropAppResponse, ListAppsRequest,
    ListAppsResponse, ListNodesRequest, ListNodesResponse, NodeInfo, NodeStatus, RecallAppRequest,
    RecallAppResponse, UpdateAppEnvRequest, UpdateAppEnvResponse,
};
use dsn_replication::wire::config::{AppInfo, AppStatus, QueryCfgRequest, QueryCfgResponse};
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::thrift::{Decode, Encode};
use std::collections::BTreeMap;
use std::time::Duration;

use crate::client::PegasusClient;
use crate::codes;
use crate::core::LPC_CLIENT_SUBMIT;
use crate::error::{ClientError, Reason};
use crate::pending::pending;

/// How long a question to the meta server may take.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(10);

/// A table to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSpec {
    /// Its name.
    pub name: String,
    /// Partitions; a power of two, so that it can be split.
    pub partitions: i32,
    /// Copies of each partition.
    pub replicas: i32,
    /// Envs.
    pub envs: BTreeMap<String, String>,
    /// Whether a table of that name with the same options is fine.
    pub if_not_exists: bool,
}

/// Operator calls of a cluster.
#[derive(Clone, Debug)]
pub struct Admin {
    client: PegasusClient,
}

type Outcome<T> = Result<T, ClientError>;

fn refused<T>(code: ErrorCode, value: T) -> Outcome<T> {
    match code {
        ErrorCode::Ok => Ok(value),
        other => Err(ClientError::new(Reason::Refused(other))),
    }
}

impl PegasusClient {
    /// Operator calls.
    pub fn admin(&self) -> Admin {
        Admin { client: self.clone() }
    }
}

impl Admin {
    /// Any question to the meta server.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn ask<Q, A>(&self, code: Code, request: Q) -> Outcome<A>
    where
        Q: Encode + Send + 'static,
        A: Decode + Send + 'static,
    {
        let (completer, outcome) = pending();
        let embedded = &self.client.embedded;
        let _ = embedded.handle().post(embedded.core(), &LPC_CLIENT_SUBMIT, move |core, ctx| {
            let done = Box::new(move |_: &mut dsn_core::exec::Ctx<'_>, outcome| {
                completer.complete(outcome);
            });
            core.ask_meta(ctx, code, &request, Some(ADMIN_TIMEOUT), done);
        });
        outcome.wait()
    }

    /// Makes a table; gives its id. The partitions begin to serve a moment later.
    ///
    /// # Errors
    /// See [`ClientError`]; `ERR_APP_EXIST`, `ERR_INVALID_PARAMETERS`.
    pub fn create_table(&self, spec: &TableSpec) -> Outcome<i32> {
        let request = CreateAppRequest {
            app_name: spec.name.clone(),
            options: CreateAppOptions {
                partition_count: spec.partitions,
                replica_count: spec.replicas,
                success_if_exist: spec.if_not_exists,
                app_type: "pegasus".to_owned(),
                is_stateful: true,
                envs: spec.envs.clone(),
                ..CreateAppOptions::default()
            },
        };
        let answer: CreateAppResponse = self.ask(&codes::RPC_CM_CREATE_APP, request)?;
        refused(answer.err, answer.appid)
    }

    /// Drops a table; it can be recalled for `reserve` (the server's default when `None`).
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn drop_table(&self, name: &str, reserve: Option<Duration>) -> Outcome<()> {
        let request = DropAppRequest {
            app_name: name.to_owned(),
            options: DropAppOptions {
                success_if_not_exist: false,
                reserve_seconds: reserve.map(|reserve| reserve.as_secs() as i64),
            },
        };
        let answer: DropAppResponse = self.ask(&codes::RPC_CM_DROP_APP, request)?;
        refused(answer.err, ())
    }

    /// Brings a dropped table back.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn recall_table(&self, app_id: i32, new_name: &str) -> Outcome<AppInfo> {
        let request = RecallAppRequest { app_id, new_app_name: new_name.to_owned() };
        let answer: RecallAppResponse = self.ask(&codes::RPC_CM_RECALL_APP, request)?;
        refused(answer.err, answer.info)
    }

    /// Tables in a state (`AppStatus::Invalid` for any).
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn list_tables(&self, status: AppStatus) -> Outcome<Vec<AppInfo>> {
        let request = ListAppsRequest { status, ..ListAppsRequest::default() };
        let answer: ListAppsResponse = self.ask(&codes::RPC_CM_LIST_APPS, request)?;
        refused(answer.err, answer.infos.to_vec())
    }

    /// Replica servers in a state (`NodeStatus::Invalid` for any).
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn list_nodes(&self, status: NodeStatus) -> Outcome<Vec<NodeInfo>> {
        let request = ListNodesRequest { status };
        let answer: ListNodesResponse = self.ask(&codes::RPC_CM_LIST_NODES, request)?;
        refused(answer.err, answer.infos.to_vec())
    }

    /// Facts about the cluster, by name.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn cluster_info(&self) -> Outcome<Vec<(String, String)>> {
        let answer: ClusterInfoResponse =
            self.ask(&codes::RPC_CM_CLUSTER_INFO, ClusterInfoRequest::default())?;
        refused(answer.err, answer.keys.into_iter().zip(answer.values).collect())
    }

    /// Where the partitions of a table are.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn query_config(&self, table: &str) -> Outcome<QueryCfgResponse> {
        let request = QueryCfgRequest { app_name: table.to_owned(), ..QueryCfgRequest::default() };
        let answer: QueryCfgResponse =
            self.ask(&codes::RPC_CM_QUERY_PARTITION_CONFIG_BY_INDEX, request)?;
        match answer.err {
            ErrorCode::ObjectNotFound => Err(ClientError::new(Reason::NoSuchTable)),
            err => refused(err, answer),
        }
    }

    /// Sets envs of a table.
    ///
    /// # Errors
    /// See [`ClientError`]; `ERR_INVALID_PARAMETERS` for an unknown env.
    pub fn set_envs(&self, table: &str, envs: &BTreeMap<String, String>) -> Outcome<()> {
        let request = UpdateAppEnvRequest {
            app_name: table.to_owned(),
            op: AppEnvOperation::Set,
            keys: Some(envs.keys().cloned().collect()),
            values: Some(envs.values().cloned().collect()),
            clear_prefix: None,
        };
        let answer: UpdateAppEnvResponse = self.ask(&codes::RPC_CM_UPDATE_APP_ENV, request)?;
        refused(answer.err, ())
    }

    /// Waits until every partition of a table has a primary; `false` when `limit` was too short.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn wait_ready(&self, table: &str, limit: Duration) -> Outcome<bool> {
        let begun = self.client.embedded.now();
        loop {
            let config = self.query_config(table)?;
            let ready = config.partitions.iter().filter(|p| p.primary.is_valid()).count();
            if config.partition_count > 0 && ready == config.partition_count as usize {
                return Ok(true);
            }
            if self.client.embedded.now().saturating_since(begun) > limit {
                return Ok(false);
            }
            self.client.embedded.pause(Duration::from_millis(100));
        }
    }
}
