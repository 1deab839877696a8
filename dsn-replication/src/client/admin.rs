//! What operators ask of the meta server: tables, nodes, envs.

use crate::wire::admin::{
    AppEnvOperation, ClusterInfoRequest, ClusterInfoResponse, CreateAppOptions, CreateAppRequest,
    CreateAppResponse, DropAppOptions, DropAppRequest, DropAppResponse, ListAppsRequest,
    ListAppsResponse, ListNodesRequest, ListNodesResponse, NodeInfo, NodeStatus, RecallAppRequest,
    RecallAppResponse, UpdateAppEnvRequest, UpdateAppEnvResponse,
};
use crate::wire::config::{
    AppInfo, AppStatus, PartitionConfiguration, QueryCfgRequest, QueryCfgResponse,
};
use dsn_core::code::Code;
use dsn_rpc::builtin::{Command, RPC_CLI_CLI_CALL};
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::thrift::{Decode, Encode};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::error::{ClientError, Place, Reason};
use super::handle::Client;
use super::request::Kind;
use crate::codes;

/// How long a question to the meta server may take.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one attempt to make a table may take while a cluster is waited for.
const CREATE_ATTEMPT: Duration = Duration::from_secs(5);
/// Pause between two looks at a cluster that is waited for.
const WAIT_INTERVAL: Duration = Duration::from_millis(100);

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

/// How far the groups of a table have come: partitions that ...
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Members {
    /// ... there are.
    pub partitions: usize,
    /// ... have a primary.
    pub served: usize,
    /// ... have that and all other members they should have.
    pub whole: usize,
}

/// Operator calls of a cluster.
#[derive(Clone, Debug)]
pub struct Admin {
    client: Client,
    /// Of the tables that are made.
    app_type: Arc<str>,
    timeout: Duration,
}

type Outcome<T> = Result<T, ClientError>;

fn refused<T>(code: ErrorCode, table: &str, value: T) -> Outcome<T> {
    match code {
        ErrorCode::Ok => Ok(value),
        ErrorCode::AppNotExist => Err(about(Reason::NoSuchTable, table)),
        other => Err(about(Reason::Refused(other), table)),
    }
}

fn about(reason: Reason, table: &str) -> ClientError {
    ClientError { reason, place: Place::of_table(table) }
}

impl Client {
    /// Operator calls. Tables that are made have state machines of this app type.
    #[must_use]
    pub fn admin(&self, app_type: &str) -> Admin {
        Admin { client: self.clone(), app_type: app_type.into(), timeout: ADMIN_TIMEOUT }
    }
}

impl Admin {
    /// The same for tables of another app type.
    #[must_use]
    pub fn of_app(&self, app_type: &str) -> Self {
        Self { app_type: app_type.into(), ..self.clone() }
    }

    /// The same with another limit for each question.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { timeout, ..self.clone() }
    }

    /// Any question to the meta server. [`Kind::Write`] for what must not be carried out twice.
    ///
    /// # Errors
    /// See [`ClientError`]; verdicts in the answer are left to the caller.
    pub fn ask<Q, A>(&self, code: Code, request: Q, kind: Kind) -> Outcome<A>
    where
        Q: Encode + Send + 'static,
        A: Decode + Send + 'static,
    {
        self.client.ask_meta(code, request, kind, Some(self.timeout)).wait()
    }

    /// Runs an operator command on one server, meta or replica, and gives its answer as text.
    ///
    /// # Errors
    /// See [`ClientError`]. A command that the server does not know is answered with a text.
    pub fn command(
        &self,
        server: SocketAddr,
        command: &str,
        arguments: impl IntoIterator<Item = String>,
    ) -> Outcome<String> {
        let request =
            Command { cmd: command.to_owned(), arguments: arguments.into_iter().collect() };
        self.client.ask_server(server, &RPC_CLI_CLI_CALL, request, Some(self.timeout)).wait()
    }

    /// Makes a table; gives its id. The partitions begin to serve a moment later.
    ///
    /// # Errors
    /// See [`ClientError`]; `ERR_APP_EXIST`, `ERR_INVALID_PARAMETERS`. [`Reason::Invalid`] for a number of partitions
    /// that is no power of two: such a table could never be split, and some clients refuse it.
    pub fn create_table(&self, spec: &TableSpec) -> Outcome<i32> {
        if spec.partitions <= 0 || spec.partitions.count_ones() != 1 {
            let reason = Reason::Invalid("the number of partitions must be a power of two".into());
            return Err(about(reason, &spec.name));
        }
        let request = CreateAppRequest {
            app_name: spec.name.clone(),
            options: CreateAppOptions {
                partition_count: spec.partitions,
                replica_count: spec.replicas,
                success_if_exist: spec.if_not_exists,
                app_type: self.app_type.to_string(),
                is_stateful: true,
                envs: spec.envs.clone(),
                ..CreateAppOptions::default()
            },
        };
        let answer: CreateAppResponse =
            self.ask(&codes::RPC_CM_CREATE_APP, request, Kind::Write)?;
        if answer.err == ErrorCode::InvalidParameters && spec.if_not_exists {
            return self.settle_for(spec);
        }
        refused(answer.err, &spec.name, answer.appid)
    }

    /// The table that is there already will do if its counts are those wanted; its envs may have been changed.
    fn settle_for(&self, spec: &TableSpec) -> Outcome<i32> {
        let tables = self.list_tables(AppStatus::Available)?;
        let code = ErrorCode::InvalidParameters;
        match tables.iter().find(|info| info.app_name == spec.name) {
            Some(info)
                if info.partition_count == spec.partitions
                    && info.max_replica_count == spec.replicas =>
            {
                Ok(info.app_id)
            }
            Some(info) => {
                let (partitions, replicas) = (info.partition_count, info.max_replica_count);
                let hint =
                    format!("it exists, with {partitions} partitions of {replicas} replicas");
                Err(about(Reason::Hinted(code, hint), &spec.name))
            }
            None => Err(about(Reason::Refused(code), &spec.name)),
        }
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
        let answer: DropAppResponse = self.ask(&codes::RPC_CM_DROP_APP, request, Kind::Write)?;
        refused(answer.err, name, ())
    }

    /// Brings a dropped table back.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn recall_table(&self, app_id: i32, new_name: &str) -> Outcome<AppInfo> {
        let request = RecallAppRequest { app_id, new_app_name: new_name.to_owned() };
        let answer: RecallAppResponse =
            self.ask(&codes::RPC_CM_RECALL_APP, request, Kind::Write)?;
        match answer.err {
            ErrorCode::AppNotExist => {
                let hint = format!("there is no dropped table with app id {app_id}");
                Err(about(Reason::Hinted(answer.err, hint), new_name))
            }
            err => refused(err, new_name, answer.info),
        }
    }

    /// Tables in a state (`AppStatus::Invalid` for any).
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn list_tables(&self, status: AppStatus) -> Outcome<Vec<AppInfo>> {
        let request = ListAppsRequest { status, ..ListAppsRequest::default() };
        let answer: ListAppsResponse = self.ask(&codes::RPC_CM_LIST_APPS, request, Kind::Read)?;
        refused(answer.err, "", answer.infos.to_vec())
    }

    /// Replica servers in a state (`NodeStatus::Invalid` for any).
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn list_nodes(&self, status: NodeStatus) -> Outcome<Vec<NodeInfo>> {
        let request = ListNodesRequest { status };
        let answer: ListNodesResponse = self.ask(&codes::RPC_CM_LIST_NODES, request, Kind::Read)?;
        refused(answer.err, "", answer.infos.to_vec())
    }

    /// Facts about the cluster, by name.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn cluster_info(&self) -> Outcome<Vec<(String, String)>> {
        let (code, request) = (&codes::RPC_CM_CLUSTER_INFO, ClusterInfoRequest::default());
        let answer: ClusterInfoResponse = self.ask(code, request, Kind::Read)?;
        refused(answer.err, "", answer.keys.into_iter().zip(answer.values).collect())
    }

    /// Where the partitions of a table are.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn query_config(&self, table: &str) -> Outcome<QueryCfgResponse> {
        let request = QueryCfgRequest { app_name: table.to_owned(), ..QueryCfgRequest::default() };
        let code = &codes::RPC_CM_QUERY_PARTITION_CONFIG_BY_INDEX;
        let answer: QueryCfgResponse = self.ask(code, request, Kind::Read)?;
        match answer.err {
            ErrorCode::ObjectNotFound => Err(about(Reason::NoSuchTable, table)),
            err => refused(err, table, answer),
        }
    }

    /// Envs of a table.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn envs(&self, table: &str) -> Outcome<BTreeMap<String, String>> {
        let tables = self.list_tables(AppStatus::Available)?;
        let found = tables.into_iter().find(|info| info.app_name == table);
        found.map(|info| info.envs).ok_or_else(|| about(Reason::NoSuchTable, table))
    }

    /// Sets envs of a table.
    ///
    /// # Errors
    /// See [`ClientError`]; [`Reason::Hinted`] for an unknown env or a value that is none.
    pub fn set_envs(&self, table: &str, envs: &BTreeMap<String, String>) -> Outcome<()> {
        self.update_envs(UpdateAppEnvRequest {
            app_name: table.to_owned(),
            op: AppEnvOperation::Set,
            keys: Some(envs.keys().cloned().collect()),
            values: Some(envs.values().cloned().collect()),
            clear_prefix: None,
        })
    }

    /// Removes envs of a table.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn remove_envs(&self, table: &str, names: &[String]) -> Outcome<()> {
        self.update_envs(UpdateAppEnvRequest {
            app_name: table.to_owned(),
            op: AppEnvOperation::Del,
            keys: Some(names.to_vec()),
            ..UpdateAppEnvRequest::default()
        })
    }

    /// Removes the envs of a table that begin with `prefix` and a dot; all of them when it is empty.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn clear_envs(&self, table: &str, prefix: &str) -> Outcome<()> {
        self.update_envs(UpdateAppEnvRequest {
            app_name: table.to_owned(),
            op: AppEnvOperation::Clear,
            clear_prefix: Some(prefix.to_owned()),
            ..UpdateAppEnvRequest::default()
        })
    }

    fn update_envs(&self, request: UpdateAppEnvRequest) -> Outcome<()> {
        let table = request.app_name.clone();
        // Doing it twice is as good as once.
        let answer: UpdateAppEnvResponse =
            self.ask(&codes::RPC_CM_UPDATE_APP_ENV, request, Kind::Read)?;
        if answer.err != ErrorCode::Ok && !answer.hint_message.is_empty() {
            return Err(about(Reason::Hinted(answer.err, answer.hint_message), &table));
        }
        refused(answer.err, &table, ())
    }

    /// Makes a table like [`Admin::create_table`], but waits, at most `limit`, for meta server and replica servers
    /// that are just starting, and until every partition has a primary and all its other members. `progress` is
    /// told what is being waited for whenever that changes. Gives the table's id.
    ///
    /// # Errors
    /// What a repetition would not help against, at once; else the last obstacle when the time is over.
    pub fn create_and_wait(
        &self,
        spec: &TableSpec,
        limit: Duration,
        mut progress: impl FnMut(&str),
    ) -> Outcome<i32> {
        let begun = self.client.embedded.now();
        let (mut said, mut id) = (String::new(), None);
        loop {
            let waits_for = match id {
                None => match self.try_create(spec)? {
                    Ok(created) => {
                        id = Some(created);
                        "the table is made, its partitions are not served yet".to_owned()
                    }
                    Err(obstacle) => obstacle,
                },
                Some(id) => match self.members(&spec.name) {
                    Ok(found) if found.whole == found.partitions && found.partitions > 0 => {
                        return Ok(id);
                    }
                    Ok(found) if found.served < found.partitions => {
                        format!("{} of {} partitions are served", found.served, found.partitions)
                    }
                    Ok(found) => {
                        format!(
                            "{} of {} partitions have all their replicas",
                            found.whole, found.partitions
                        )
                    }
                    Err(error) if may_pass(&error) => error.to_string(),
                    Err(error) => return Err(error),
                },
            };
            if self.client.embedded.now().saturating_since(begun) >= limit {
                let reason = Reason::Unavailable { after: limit, last: waits_for };
                return Err(about(reason, &spec.name));
            }
            if said != waits_for {
                progress(&waits_for);
                said = waits_for;
            }
            self.client.embedded.pause(WAIT_INTERVAL);
        }
    }

    /// One attempt to make a table: its id, or an obstacle that time may remove.
    fn try_create(&self, spec: &TableSpec) -> Outcome<Result<i32, String>> {
        let admin = self.with_timeout(self.timeout.min(CREATE_ATTEMPT));
        // Counted before, so that a server that arrives in between is not missed.
        let missing = admin.missing_servers(spec);
        let error = match admin.create_table(spec) {
            Ok(id) => return Ok(Ok(id)),
            Err(error) => error,
        };
        match (missing, &error.reason) {
            (
                Some(missing),
                Reason::Refused(ErrorCode::InvalidParameters | ErrorCode::StateFreezed),
            ) => Ok(Err(missing)),
            // A table that may have been made by the last attempt is not to be taken for somebody else's.
            _ if may_pass(&error) && (spec.if_not_exists || !error.is_ambiguous()) => {
                Ok(Err(error.to_string()))
            }
            _ => Err(error),
        }
    }

    /// How many partitions of a table there are, have a primary, and have all their members.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn members(&self, table: &str) -> Outcome<Members> {
        let config = self.query_config(table)?;
        let served = |group: &PartitionConfiguration| group.primary.is_valid();
        let whole = |group: &PartitionConfiguration| {
            let wanted = usize::try_from(group.max_replica_count).unwrap_or(0);
            served(group) && group.secondaries.len() + 1 >= wanted
        };
        Ok(Members {
            partitions: usize::try_from(config.partition_count).unwrap_or(0),
            served: config.partitions.iter().filter(served).count(),
            whole: config.partitions.iter().filter(whole).count(),
        })
    }

    /// What to say when fewer servers live than a table wants, or when nobody knows how many.
    fn missing_servers(&self, spec: &TableSpec) -> Option<String> {
        let alive = match self.list_nodes(NodeStatus::Alive) {
            Ok(nodes) => nodes.len(),
            Err(error) => return Some(error.to_string()),
        };
        let wanted = usize::try_from(spec.replicas).unwrap_or(0);
        (alive < wanted).then(|| {
            format!(
                "{alive} replica servers are alive, {wanted} replicas of each partition are wanted"
            )
        })
    }
}

/// Whether an error is one of a cluster that is just starting.
fn may_pass(error: &ClientError) -> bool {
    match &error.reason {
        Reason::Unavailable { .. } | Reason::Timeout(_) | Reason::Ambiguous(_) => true,
        Reason::Refused(code) => matches!(
            code,
            ErrorCode::ServiceNotActive
                | ErrorCode::UnderRecovery
                | ErrorCode::StateFreezed
                | ErrorCode::BusyCreating
                | ErrorCode::BusyDropping
                | ErrorCode::Busy
                | ErrorCode::TryAgain
        ),
        _ => false,
    }
}
