//! The heart of the client: a resident that knows where partitions are and carries operations there.
//!
//! It lives on one worker, natively (behind a [`Client`](super::Client)) or in a simulation. An operation is sent to
//! the primary of its partition over the one connection its worker has to that server. Routes come from a meta server,
//! are asked for at most once at a time per table, and are asked for again when a server says that it is not the one;
//! until the answer is here, operations on other partitions go by the route that is known.
//! Every operation ends exactly once: with an answer, a refusal, or an error at its deadline.

use bytes::{Bytes, BytesMut};
use dsn_core::code::Code;
use dsn_core::exec::{Addr, Ctx, Resident};
use dsn_core::hash::DetHashMap;
use dsn_core::planted;
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::frame::Protocol;
use dsn_rpc::gpid::Gpid;
use dsn_rpc::names::{self, NameError};
use dsn_rpc::thrift::{Decode, Encode, RESULT_ID, decode_wrapped, encode_wrapped};
use dsn_rpc::{CallError, CallOptions, call, call_raw, send_oneway};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::error::{ClientError, Next, Reason, after};
use super::leader;
use super::operation::{Done, Operation, To};
use super::options::ClientOptions;
use super::request::{Kind, Request, Target, partition_index};
use super::routes::{Route, Routes};
use crate::codes::RPC_CM_QUERY_PARTITION_CONFIG_BY_INDEX;
use crate::wire::config::{QueryCfgRequest, QueryCfgResponse};

dsn_core::task_codes! {
    /// Codes of the client's own events.
    pub CODES;
    /// An operation is tried again.
    pub LPC_CLIENT_RETRY: Compute, Common, "THREAD_POOL_DEFAULT";
    /// An operation arrives from another thread.
    pub LPC_CLIENT_SUBMIT: Compute, Common, "THREAD_POOL_DEFAULT";
}

/// Operations that one client holds at a time; beyond, new ones fail with [`Reason::Overloaded`].
pub const MAX_PENDING: usize = 65_536;
/// How often [`ClientOptions::read_attempt`](super::ClientOptions::read_attempt) doubles at most.
const SILENCE_DOUBLINGS: u32 = 16;
/// Pause before the second attempt; doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(10);
/// Longest pause between two attempts.
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// Receives the outcome of an operation, on the client's worker.
pub type Callback<T> = Box<dyn FnOnce(&mut Ctx<'_>, Result<T, ClientError>) + Send>;

/// The client as a resident.
pub struct ClientCore {
    me: Addr<Self>,
    options: ClientOptions,
    routes: Routes,
    /// Operations that wait for their table's route; a table that is here is being asked for.
    waiting: DetHashMap<Arc<str>, Vec<Operation>>,
    pending: usize,
}

impl std::fmt::Debug for ClientCore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientCore").field("pending", &self.pending).finish_non_exhaustive()
    }
}

impl Resident for ClientCore {
    fn on_close(&mut self, ctx: &mut Ctx<'_>) {
        for (_, waiting) in std::mem::take(&mut self.waiting) {
            for operation in waiting {
                self.finish(ctx, operation, Err(Reason::Closed));
            }
        }
    }
}

impl ClientCore {
    /// A client whose resident's address is `me`. The node's RPC layer must have been started on this worker.
    pub fn new(me: Addr<Self>, options: ClientOptions) -> Self {
        let routes = Routes::new(options.metas.clone());
        Self { me, options, routes, waiting: DetHashMap::default(), pending: 0 }
    }

    /// Settings.
    pub fn options(&self) -> &ClientOptions {
        &self.options
    }

    /// Operations under way.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// Carries `request` to `table`. `timeout` of `None` takes the client's.
    pub fn submit<T: 'static>(
        &mut self,
        ctx: &mut Ctx<'_>,
        table: impl Into<Arc<str>>,
        request: Request<T>,
        timeout: Option<Duration>,
        done: Callback<T>,
    ) {
        let Request { target, code, body, kind, parse } = request;
        let to = To::Table { table: table.into(), target };
        let done: Done = Box::new(move |ctx, ended| done(ctx, ended.read(parse)));
        self.enter(ctx, to, (code, body, kind), timeout, done);
    }

    /// Asks the meta servers; [`Kind::Write`] for what must not be carried out twice.
    pub fn ask_meta<Q: Encode, A: Decode + 'static>(
        &mut self,
        ctx: &mut Ctx<'_>,
        code: Code,
        request: &Q,
        kind: Kind,
        timeout: Option<Duration>,
        done: Callback<A>,
    ) {
        let mut body = BytesMut::new();
        encode_wrapped(request, RESULT_ID, &mut body);
        let done: Done = Box::new(move |ctx, ended| {
            done(ctx, ended.read(|answer| decode_wrapped(answer).map_err(Reason::Decode)));
        });
        self.enter(ctx, To::Meta, (code, body.freeze(), kind), timeout, done);
    }

    /// Asks one server, whichever it is, once.
    pub fn ask_server<Q: Encode, A: Decode + 'static>(
        &mut self,
        ctx: &mut Ctx<'_>,
        server: SocketAddr,
        code: Code,
        request: &Q,
        timeout: Option<Duration>,
        done: Callback<A>,
    ) {
        let mut body = BytesMut::new();
        encode_wrapped(request, RESULT_ID, &mut body);
        let done: Done = Box::new(move |ctx, ended| {
            done(ctx, ended.read(|answer| decode_wrapped(answer).map_err(Reason::Decode)));
        });
        let parts = (code, body.freeze(), Kind::Write);
        let operation = self.operation(ctx, To::Server, parts, timeout, done);
        self.pending += 1;
        self.send(ctx, operation, server, Gpid::default(), 0);
    }

    /// The number of partitions of a table, asking for the route when it is not known.
    pub fn partition_count(
        &mut self,
        ctx: &mut Ctx<'_>,
        table: impl Into<Arc<str>>,
        timeout: Option<Duration>,
        done: Callback<i32>,
    ) {
        let done: Done = Box::new(move |ctx, ended| {
            done(
                ctx,
                ended.read(|count| Ok(count.as_ref().try_into().map_or(0, i32::from_ne_bytes))),
            );
        });
        let code = &RPC_CM_QUERY_PARTITION_CONFIG_BY_INDEX;
        self.enter(ctx, To::Route(table.into()), (code, Bytes::new(), Kind::Read), timeout, done);
    }

    /// Tells the primary of a partition something that nobody answers; nobody minds when it does not arrive.
    pub fn tell<Q: Encode>(
        &mut self,
        ctx: &mut Ctx<'_>,
        table: &str,
        index: i32,
        code: Code,
        what: &Q,
    ) {
        let Some(route) = self.routes.get(table) else { return };
        let Some((index, Some(server))) = route.primary(index) else { return };
        let gpid = Gpid { app_id: route.app_id, partition_index: index };
        let options = CallOptions {
            gpid,
            protocol: Protocol::Thft,
            partition_hash: index as u64,
            ..CallOptions::default()
        };
        send_oneway(ctx, server, code, what, options);
    }

    fn operation(
        &self,
        ctx: &mut Ctx<'_>,
        to: To,
        (code, body, kind): (Code, Bytes, Kind),
        timeout: Option<Duration>,
        done: Done,
    ) -> Operation {
        let begun = ctx.clock();
        let again = kind == Kind::Write
            && (self.options.retry_ambiguous_writes || planted::has("client_repeats_writes"));
        Operation {
            to,
            code,
            body,
            kind: if again { Kind::Read } else { kind },
            begun,
            deadline: begun + timeout.unwrap_or(self.options.timeout),
            attempts: 0,
            silences: 0,
            last: None,
            server: None,
            gpid: None,
            route: 0,
            stale: 0,
            done,
        }
    }

    fn enter(
        &mut self,
        ctx: &mut Ctx<'_>,
        to: To,
        parts: (Code, Bytes, Kind),
        timeout: Option<Duration>,
        done: Done,
    ) {
        let operation = self.operation(ctx, to, parts, timeout, done);
        if self.pending >= MAX_PENDING {
            operation.end(ctx, Err(Reason::Overloaded));
            return;
        }
        self.pending += 1;
        self.attempt(ctx, operation);
    }

    fn finish(&mut self, ctx: &mut Ctx<'_>, operation: Operation, outcome: Result<Bytes, Reason>) {
        self.pending -= 1;
        operation.end(ctx, outcome);
    }

    fn attempt(&mut self, ctx: &mut Ctx<'_>, mut operation: Operation) {
        if ctx.clock() >= operation.deadline {
            return self.give_up(ctx, operation);
        }
        let (table, target) = match &operation.to {
            To::Meta | To::Server => {
                operation.attempts += 1;
                return self.with_meta(ctx, |core, ctx, found| match found {
                    Ok(meta) => core.send(ctx, operation, meta, Gpid::default(), 0),
                    Err(error) => core.meta_not_found(ctx, operation, &error),
                });
            }
            To::Route(table) => (table, None),
            To::Table { table, target } => (table, Some(target)),
        };
        let Some(route) = self.routes.get(table).filter(|route| route.stamp > operation.stale)
        else {
            return self.wait_for_route(ctx, table.clone(), operation);
        };
        let (index, hash) = match target {
            None => {
                let count = Bytes::copy_from_slice(&route.partition_count().to_ne_bytes());
                return self.finish(ctx, operation, Ok(count));
            }
            Some(Target::Key { hash, .. }) => {
                (partition_index(*hash, route.partition_count()), *hash)
            }
            Some(Target::Partition(index)) => (*index, *index as u64),
        };
        operation.attempts += 1;
        operation.route = route.stamp;
        let Some((index, primary)) = route.primary(index) else {
            return self.finish(ctx, operation, Err(Reason::Invalid("no such partition".into())));
        };
        let gpid = Gpid { app_id: route.app_id, partition_index: index };
        operation.gpid = Some(gpid);
        match primary {
            Some(server) => self.send(ctx, operation, server, gpid, hash),
            None => {
                operation.last = Some("the partition has no primary".to_owned());
                self.refresh_later(ctx, operation);
            }
        }
    }

    /// Goes on with the address of the meta server to ask: now when it is known, else when its name was looked up.
    fn with_meta(
        &mut self,
        ctx: &mut Ctx<'_>,
        f: impl FnOnce(&mut Self, &mut Ctx<'_>, Result<SocketAddr, NameError>) + Send + 'static,
    ) {
        let name = self.routes.meta();
        match names::known(ctx, &name) {
            Some(addr) => f(self, ctx, Ok(addr)),
            None => names::find(ctx, &name, self.options.meta_timeout, self.me, f),
        }
    }

    fn meta_not_found(&mut self, ctx: &mut Ctx<'_>, mut operation: Operation, error: &NameError) {
        self.routes.next_meta();
        operation.last = Some(error.to_string());
        self.again_later(ctx, operation);
    }

    fn send(
        &mut self,
        ctx: &mut Ctx<'_>,
        mut operation: Operation,
        server: SocketAddr,
        gpid: Gpid,
        hash: u64,
    ) {
        operation.server = Some(server);
        let left = operation.deadline.saturating_since(ctx.clock());
        let timeout = match operation.kind {
            Kind::Write | Kind::RangeRead => left,
            Kind::Read => {
                let doublings = operation.silences.min(SILENCE_DOUBLINGS);
                left.min(self.options.read_attempt.saturating_mul(1 << doublings))
            }
        };
        let to_table = matches!(operation.to, To::Table { .. });
        let options = CallOptions {
            timeout: Some(timeout),
            gpid,
            partition_hash: hash,
            protocol: if to_table { Protocol::Thft } else { Protocol::Rdsn },
            ..CallOptions::default()
        };
        let (code, body) = (operation.code, operation.body.clone());
        call_raw(ctx, server, code, &body, options, self.me, move |core, ctx, outcome| {
            core.answered(ctx, operation, outcome);
        });
    }

    fn answered(
        &mut self,
        ctx: &mut Ctx<'_>,
        mut operation: Operation,
        outcome: Result<Bytes, CallError>,
    ) {
        let is_meta = matches!(operation.to, To::Meta);
        let error = match outcome {
            Ok(answer) if is_meta => match leader::not_leading(operation.code, &answer) {
                None => return self.finish(ctx, operation, Ok(answer)),
                Some(not) => {
                    operation.last = Some(format!("it answered {}", not.error));
                    self.routes.other_meta(&not);
                    return self.again_later(ctx, operation);
                }
            },
            Ok(answer) => return self.finish(ctx, operation, Ok(answer)),
            Err(error) => error,
        };
        operation.last = Some(error.to_string());
        operation.silences += u32::from(matches!(error, CallError::Timeout { .. }));
        if is_meta && let Some(not) = leader::turned_away(&error) {
            self.routes.other_meta(&not);
            return self.again_later(ctx, operation);
        }
        match after(&error, operation.kind == Kind::Write) {
            Next::Refresh if is_meta => {
                self.routes.next_meta();
                self.again_later(ctx, operation);
            }
            Next::Refresh if matches!(operation.to, To::Table { .. }) => {
                self.refresh_later(ctx, operation);
            }
            Next::Again if !matches!(operation.to, To::Server) => self.again_later(ctx, operation),
            Next::Fail | Next::Refresh | Next::Again => {
                let reason = Reason::of_call(error, operation.allowed());
                self.finish(ctx, operation, Err(reason));
            }
        }
    }

    /// Tries again with a newer route than the one used.
    fn refresh_later(&mut self, ctx: &mut Ctx<'_>, mut operation: Operation) {
        operation.stale = operation.route;
        self.again_later(ctx, operation);
    }

    /// Tries again after a pause that grows with the attempts, or gives up at the deadline.
    fn again_later(&mut self, ctx: &mut Ctx<'_>, operation: Operation) {
        let left = operation.deadline.saturating_since(ctx.clock());
        let doublings = operation.attempts.saturating_sub(1).min(10);
        let pause = BACKOFF_MIN.saturating_mul(1 << doublings).min(BACKOFF_MAX);
        let pause = ctx.rng().jitter(pause, 25);
        if left <= pause {
            return self.give_up(ctx, operation);
        }
        ctx.after(self.me, &LPC_CLIENT_RETRY, pause, move |core, ctx| core.attempt(ctx, operation));
    }

    fn give_up(&mut self, ctx: &mut Ctx<'_>, mut operation: Operation) {
        let last = operation.last.take().unwrap_or_else(|| "no meta server answered".to_owned());
        let reason = Reason::Unavailable { after: operation.allowed(), last };
        self.finish(ctx, operation, Err(reason));
    }

    /// Leaves an operation until its table's route is here, and sees to it that somebody asks for it.
    fn wait_for_route(&mut self, ctx: &mut Ctx<'_>, table: Arc<str>, operation: Operation) {
        let left = operation.deadline.saturating_since(ctx.clock());
        if left < self.options.meta_timeout {
            let table = table.clone();
            ctx.after(self.me, &LPC_CLIENT_RETRY, left, move |core, ctx| {
                core.expire_waiting(ctx, &table);
            });
        }
        if let Some(waiting) = self.waiting.get_mut(&table) {
            waiting.push(operation);
            return;
        }
        self.waiting.insert(table.clone(), vec![operation]);
        let pause = self.routes.pause_before_query(&table, ctx.clock());
        if pause.is_zero() {
            return self.query(ctx, table);
        }
        ctx.after(self.me, &LPC_CLIENT_RETRY, pause, move |core, ctx| core.query(ctx, table));
    }

    fn expire_waiting(&mut self, ctx: &mut Ctx<'_>, table: &Arc<str>) {
        let now = ctx.clock();
        let Some(waiting) = self.waiting.get_mut(table) else { return };
        let over: Vec<Operation> =
            waiting.extract_if(.., |operation| operation.deadline.is_past(now)).collect();
        for operation in over {
            self.give_up(ctx, operation);
        }
    }

    /// Asks a meta server for a table's route.
    fn query(&mut self, ctx: &mut Ctx<'_>, table: Arc<str>) {
        self.with_meta(ctx, move |core, ctx, found| match found {
            Ok(meta) => core.query_at(ctx, table, meta),
            Err(error) => {
                core.routes.next_meta();
                core.no_route(ctx, &table, None, &error.to_string());
            }
        });
    }

    fn query_at(&mut self, ctx: &mut Ctx<'_>, table: Arc<str>, meta: SocketAddr) {
        let request =
            QueryCfgRequest { app_name: table.to_string(), partition_indices: Vec::new() };
        let options = CallOptions::within(self.options.meta_timeout);
        let code = &RPC_CM_QUERY_PARTITION_CONFIG_BY_INDEX;
        call(ctx, meta, code, &request, options, self.me, move |core: &mut Self, ctx, outcome| {
            core.configured(ctx, table, meta, outcome);
        });
    }

    fn configured(
        &mut self,
        ctx: &mut Ctx<'_>,
        table: Arc<str>,
        meta: SocketAddr,
        outcome: Result<QueryCfgResponse, CallError>,
    ) {
        let problem = match outcome {
            Ok(answer) => match self.learn_route(&table, meta, answer) {
                Ok(()) => {
                    for operation in self.end_query(ctx, &table) {
                        self.attempt(ctx, operation);
                    }
                    return;
                }
                Err(Some(problem)) => problem,
                Err(None) => {
                    self.routes.forget(&table);
                    for mut operation in self.end_query(ctx, &table) {
                        operation.server = Some(meta);
                        self.finish(ctx, operation, Err(Reason::NoSuchTable));
                    }
                    return;
                }
            },
            Err(error) => {
                match leader::turned_away(&error) {
                    Some(not) => self.routes.other_meta(&not),
                    None => self.routes.next_meta(),
                }
                error.to_string()
            }
        };
        self.no_route(ctx, &table, Some(meta), &problem);
    }

    /// A question for a table's route has ended; those that wait for it.
    fn end_query(&mut self, ctx: &mut Ctx<'_>, table: &Arc<str>) -> Vec<Operation> {
        self.routes.queried(table, ctx.clock());
        self.waiting.remove(table).unwrap_or_default()
    }

    /// A question for a table's route has brought nothing.
    fn no_route(
        &mut self,
        ctx: &mut Ctx<'_>,
        table: &Arc<str>,
        asked: Option<SocketAddr>,
        problem: &str,
    ) {
        for mut operation in self.end_query(ctx, table) {
            operation.attempts += 1;
            operation.server = asked;
            operation.last = Some(problem.to_owned());
            self.again_later(ctx, operation);
        }
    }

    /// Takes over a configuration. `Err(None)` when there is no such table, else the problem.
    fn learn_route(
        &mut self,
        table: &Arc<str>,
        meta: SocketAddr,
        answer: QueryCfgResponse,
    ) -> Result<(), Option<String>> {
        match answer.err {
            ErrorCode::Ok => match Route::from_answer(&answer) {
                Some(route) => {
                    self.routes.insert(table.clone(), route);
                    Ok(())
                }
                None => Err(Some(format!("meta server {meta} sent an incomplete configuration"))),
            },
            ErrorCode::ObjectNotFound
            | ErrorCode::AppNotExist
            | ErrorCode::AppDropped
            | ErrorCode::BusyDropping => Err(None),
            error => {
                if let Some(not) = leader::not_leading_in(&answer) {
                    self.routes.other_meta(&not);
                }
                Err(Some(format!("meta server {meta} answered {error}")))
            }
        }
    }
}
