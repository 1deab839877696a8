//! The heart of the client: a resident that knows where partitions are and carries operations there.
//!
//! It lives on one worker, natively (see [`crate::embedded`]) or in a simulation. An operation is sent to the primary
//! of its partition over the one connection its worker has to that server; routes come from a meta server, are asked
//! for at most once at a time per table, and are asked for again when a server says that it is not the one.
//! Every operation ends exactly once: with an answer, a refusal, or an error at its deadline.

use bytes::Bytes;
use dsn_core::code::Code;
use dsn_core::exec::{Addr, Ctx, Resident};
use dsn_core::hash::DetHashMap;
use dsn_core::time::Mono;
use dsn_replication::wire::config::{QueryCfgRequest, QueryCfgResponse};
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::frame::Protocol;
use dsn_rpc::gpid::Gpid;
use dsn_rpc::thrift::{Decode, Encode};
use dsn_rpc::{CallError, CallOptions, call, call_raw};
use std::net::SocketAddr;
use std::time::Duration;

use crate::codes::RPC_CM_QUERY_PARTITION_CONFIG_BY_INDEX;
use crate::error::{ClientError, Next, Place, Reason, after};
use crate::ops::{Request, Target};
use crate::options::ClientOptions;
use crate::routes::{Route, Routes};
use crate::schema::partition_hash;

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
/// Pause before the second attempt; doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(10);
/// Longest pause between two attempts.
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// Receives the outcome of an operation, on the client's worker.
pub type Callback<T> = Box<dyn FnOnce(&mut Ctx<'_>, Result<T, ClientError>) + Send>;

/// Which server an operation is for.
enum To {
    Meta,
    Table { table: String, target: Target },
}

/// An operation under way.
struct Operation {
    to: To,
    code: Code,
    body: Bytes,
    is_write: bool,
    begun: Mono,
    deadline: Mono,
    attempts: u32,
    last: Option<String>,
    server: Option<SocketAddr>,
    gpid: Option<Gpid>,
    done: Callback<Bytes>,
}

impl Operation {
    fn place(&self) -> Place {
        let (table, hash_key) = match &self.to {
            To::Meta => ("(meta server)".to_owned(), None),
            To::Table { table, target: Target::Record { hash_key, .. } } => {
                (table.clone(), Some(hash_key.to_vec()))
            }
            To::Table { table, .. } => (table.clone(), None),
        };
        Place { table, hash_key, gpid: self.gpid, server: self.server }
    }

    fn fail(self, ctx: &mut Ctx<'_>, reason: Reason) {
        let error = ClientError { reason, place: self.place() };
        (self.done)(ctx, Err(error));
    }
}

/// The client as a resident.
pub struct ClientCore {
    me: Addr<Self>,
    options: ClientOptions,
    routes: Routes,
    /// Operations that wait for their table's route.
    waiting: DetHashMap<String, Vec<Operation>>,
    pending: usize,
    closed: bool,
}

impl std::fmt::Debug for ClientCore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientCore").field("pending", &self.pending).finish_non_exhaustive()
    }
}

impl Resident for ClientCore {
    fn on_close(&mut self, ctx: &mut Ctx<'_>) {
        self.closed = true;
        for (_, waiting) in std::mem::take(&mut self.waiting) {
            for operation in waiting {
                operation.fail(ctx, Reason::Closed);
            }
        }
    }
}

impl ClientCore {
    /// A client whose resident's address is `me`. The node's RPC layer must have been started on this worker.
    pub fn new(me: Addr<Self>, options: ClientOptions) -> Self {
        let routes = Routes::new(options.metas.clone());
        Self { me, options, routes, waiting: DetHashMap::default(), pending: 0, closed: false }
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
        table: &str,
        request: Request<T>,
        timeout: Option<Duration>,
        done: Callback<T>,
    ) {
        let Request { target, code, body, is_write, parse } = request;
        let to = To::Table { table: table.to_owned(), target };
        let done: Callback<Bytes> = Box::new(move |ctx, outcome| {
            done(ctx, outcome.and_then(|answer| parse(&answer)));
        });
        self.enter(ctx, to, code, body, is_write, timeout, done);
    }

    /// Asks the meta servers.
    pub fn ask_meta<Q: Encode, A: Decode + 'static>(
        &mut self,
        ctx: &mut Ctx<'_>,
        code: Code,
        request: &Q,
        timeout: Option<Duration>,
        done: Callback<A>,
    ) {
        let mut body = bytes::BytesMut::new();
        dsn_rpc::thrift::encode_wrapped(request, dsn_rpc::thrift::RESULT_ID, &mut body);
        let done: Callback<Bytes> = Box::new(move |ctx, outcome| {
            let answer = outcome.and_then(|answer| {
                dsn_rpc::thrift::decode_wrapped(&answer)
                    .map_err(|error| ClientError::new(Reason::Decode(error)))
            });
            done(ctx, answer);
        });
        self.enter(ctx, To::Meta, code, body.freeze(), false, timeout, done);
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one operation")]
    fn enter(
        &mut self,
        ctx: &mut Ctx<'_>,
        to: To,
        code: Code,
        body: Bytes,
        is_write: bool,
        timeout: Option<Duration>,
        done: Callback<Bytes>,
    ) {
        let begun = ctx.clock();
        let operation = Operation {
            to,
            code,
            body,
            is_write: is_write && !self.options.retry_ambiguous_writes,
            begun,
            deadline: begun + timeout.unwrap_or(self.options.timeout),
            attempts: 0,
            last: None,
            server: None,
            gpid: None,
            done,
        };
        if self.pending >= MAX_PENDING {
            operation.fail(ctx, Reason::Overloaded);
            return;
        }
        self.pending += 1;
        self.attempt(ctx, operation);
    }

    fn finish(&mut self, ctx: &mut Ctx<'_>, operation: Operation, outcome: Result<Bytes, Reason>) {
        self.pending -= 1;
        match outcome {
            Ok(answer) => (operation.done)(ctx, Ok(answer)),
            Err(reason) => operation.fail(ctx, reason),
        }
    }

    fn attempt(&mut self, ctx: &mut Ctx<'_>, mut operation: Operation) {
        if ctx.clock() >= operation.deadline {
            return self.give_up(ctx, operation);
        }
        operation.attempts += 1;
        let (table, target) = match &operation.to {
            To::Meta => {
                let server = self.routes.meta();
                return self.send(ctx, operation, server, Gpid::default(), 0);
            }
            To::Table { table, target } => (table, target),
        };
        let Some(route) = self.routes.get(table) else {
            let table = table.clone();
            self.waiting.entry(table.clone()).or_default().push(operation);
            return self.query(ctx, table);
        };
        let (index, hash) = match target {
            Target::Record { hash, .. } => {
                (partition_hash::partition_index(*hash, route.partition_count()), *hash)
            }
            Target::Partition(index) => (*index, *index as u64),
        };
        let Some((index, primary)) = route.primary(index) else {
            return self.finish(ctx, operation, Err(Reason::Invalid("no such partition")));
        };
        let gpid = Gpid { app_id: route.app_id, partition_index: index };
        operation.gpid = Some(gpid);
        match primary {
            Some(server) => self.send(ctx, operation, server, gpid, hash),
            None => {
                operation.last = Some(format!("partition {gpid} has no primary"));
                self.refresh_later(ctx, operation);
            }
        }
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
        let is_meta = matches!(operation.to, To::Meta);
        let left = operation.deadline.saturating_since(ctx.clock());
        let timeout = match operation.is_write {
            true => left,
            false => left.min(self.options.read_attempt),
        };
        let options = CallOptions {
            timeout: Some(timeout),
            gpid,
            partition_hash: hash,
            protocol: if is_meta { Protocol::Rdsn } else { Protocol::Thft },
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
        let error = match outcome {
            Ok(answer) => return self.finish(ctx, operation, Ok(answer)),
            Err(error) => error,
        };
        operation.last = Some(error.to_string());
        match after(&error, operation.is_write) {
            Next::Fail => {
                let reason = match error {
                    CallError::Remote { error, .. } => Reason::Refused(error),
                    CallError::Decode { error, .. } => Reason::Decode(error),
                    CallError::Timeout { .. } => {
                        Reason::Timeout(operation.deadline.saturating_since(operation.begun))
                    }
                    other => Reason::Ambiguous(other.to_string()),
                };
                self.finish(ctx, operation, Err(reason));
            }
            Next::Refresh => match &operation.to {
                To::Meta => {
                    self.routes.next_meta();
                    self.again_later(ctx, operation);
                }
                To::Table { .. } => self.refresh_later(ctx, operation),
            },
            Next::Again => self.again_later(ctx, operation),
        }
    }

    fn refresh_later(&mut self, ctx: &mut Ctx<'_>, operation: Operation) {
        if let To::Table { table, .. } = &operation.to {
            self.routes.forget(table);
        }
        self.again_later(ctx, operation);
    }

    /// Tries again after a pause that grows with the attempts, or gives up at the deadline.
    fn again_later(&mut self, ctx: &mut Ctx<'_>, operation: Operation) {
        let left = operation.deadline.saturating_since(ctx.clock());
        let pause = BACKOFF_MIN.saturating_mul(1 << operation.attempts.min(10)).min(BACKOFF_MAX);
        let pause = ctx.rng().jitter(pause, 25);
        if left <= pause {
            return self.give_up(ctx, operation);
        }
        ctx.after(self.me, &LPC_CLIENT_RETRY, pause, move |core, ctx| core.attempt(ctx, operation));
    }

    fn give_up(&mut self, ctx: &mut Ctx<'_>, operation: Operation) {
        let after = operation.deadline.saturating_since(operation.begun);
        let last = operation.last.clone();
        let reason = match last {
            Some(last) => Reason::Unavailable { after, last },
            None => Reason::Unavailable { after, last: "no meta server answered".to_owned() },
        };
        self.finish(ctx, operation, Err(reason));
    }

    /// Asks a meta server for a table's route, unless that is being asked.
    fn query(&mut self, ctx: &mut Ctx<'_>, table: String) {
        if !self.routes.begin_query(&table) {
            return;
        }
        let meta = self.routes.meta();
        let request = QueryCfgRequest { app_name: table.clone(), partition_indices: Vec::new() };
        let options = CallOptions {
            timeout: Some(self.options.meta_timeout),
            protocol: Protocol::Rdsn,
            ..CallOptions::default()
        };
        let code = &RPC_CM_QUERY_PARTITION_CONFIG_BY_INDEX;
        call(ctx, meta, code, &request, options, self.me, move |core: &mut Self, ctx, outcome| {
            core.configured(ctx, table, meta, outcome);
        });
    }

    fn configured(
        &mut self,
        ctx: &mut Ctx<'_>,
        table: String,
        meta: SocketAddr,
        outcome: Result<QueryCfgResponse, CallError>,
    ) {
        self.routes.end_query(&table);
        let waiting = self.waiting.remove(&table).unwrap_or_default();
        let problem = match outcome {
            Ok(answer) if answer.err == ErrorCode::Ok => match Route::from_answer(&answer) {
                Some(route) => {
                    self.routes.insert(table, route);
                    for operation in waiting {
                        self.attempt(ctx, operation);
                    }
                    return;
                }
                None => format!("meta server {meta} sent an incomplete configuration"),
            },
            Ok(answer)
                if matches!(answer.err, ErrorCode::ObjectNotFound | ErrorCode::AppNotExist) =>
            {
                for operation in waiting {
                    self.finish(ctx, operation, Err(Reason::NoSuchTable));
                }
                return;
            }
            Ok(answer) => {
                let leader = answer.partitions.first().and_then(|p| p.primary.socket_addr());
                match leader {
                    Some(leader) => self.routes.follow(leader.into()),
                    None => self.routes.next_meta(),
                }
                format!("meta server {meta} answered {}", answer.err)
            }
            Err(error) => {
                self.routes.next_meta();
                error.to_string()
            }
        };
        for mut operation in waiting {
            operation.last = Some(problem.clone());
            self.again_later(ctx, operation);
        }
    }

    /// The number of partitions of a table, asking for the route when it is not known.
    pub fn with_route(
        &mut self,
        ctx: &mut Ctx<'_>,
        table: &str,
        timeout: Option<Duration>,
        done: Callback<i32>,
    ) {
        if let Some(route) = self.routes.get(table) {
            let count = route.partition_count();
            return done(ctx, Ok(count));
        }
        let request = QueryCfgRequest { app_name: table.to_owned(), ..QueryCfgRequest::default() };
        let code = &RPC_CM_QUERY_PARTITION_CONFIG_BY_INDEX;
        let table = table.to_owned();
        self.ask_meta(
            ctx,
            code,
            &request,
            timeout,
            Box::new(move |ctx, outcome: Result<QueryCfgResponse, ClientError>| {
                let count = outcome.and_then(|answer| {
                    match answer.err {
                        ErrorCode::Ok => Ok(answer.partition_count),
                        ErrorCode::ObjectNotFound => Err(Reason::NoSuchTable),
                        other => Err(Reason::Refused(other)),
                    }
                    .map_err(|reason| ClientError {
                        reason,
                        place: Place { table, ..Place::default() },
                    })
                });
                done(ctx, count);
            }),
        );
    }
}
