//! Serving: which handler answers which name, what a handler gets, and how it answers.
//!
//! A handler runs on the worker of the connection the request came by, inside the loop that reads it: it answers at
//! once, or hands request and replier to whoever can. Each request has one [`Replier`]; dropped without an answer
//! it answers with an error by itself, so that no caller waits in vain and no connection is held up for ever.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dsn_core::code::{Code, Priority};
use dsn_core::exec::{Addr, Ctx, Handle, Resident};
use dsn_core::hash::DetHashMap;
use dsn_core::node::StageId;
use dsn_core::time::Mono;
use dsn_core::toollet::Verdict;

use crate::address::RpcAddress;
use crate::call::judge;
use crate::error_code::ErrorCode;
use crate::exchange::{self, Exchange};
use crate::frame::{Context, Protocol, RequestFrame, RequestHead, RpcName, write_response};
use crate::gpid::Gpid;
use crate::http::{HttpReplier, HttpReply, HttpRequest, HttpRoutes};
use crate::rpc_loop::{LPC_RPC_DELAYED, LPC_RPC_UNANSWERED, RpcLoop};
use crate::session::{SessionId, detach};
use crate::shared::RpcShared;
use crate::thrift::{Decode, Encode, RESULT_ID, WireError, Writer, decode_wrapped};

/// What the sender of a request said, and the argument.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which RPC.
    pub code: Code,
    /// The partition addressed; app id 0 or less for none.
    pub gpid: Gpid,
    /// The wrapped argument exactly as it was sent: a slice of a read buffer, see [`Request::keep_body`].
    pub body: Bytes,
    /// Hash of the hash key; 0 from clients that do not say.
    pub partition_hash: u64,
    /// How long the caller waits; `None` when it did not say.
    pub timeout: Option<Duration>,
    /// When the caller stops waiting, counted from the arrival here.
    pub deadline: Option<Mono>,
    /// When it arrived.
    pub arrived: Mono,
    /// A read that a secondary may answer.
    pub is_backup: bool,
    /// The sender expects no answer.
    pub is_oneway: bool,
    /// A meta server may pass it on to its leader.
    pub can_forward: bool,
    /// A meta server has passed it on.
    pub is_forwarded: bool,
    /// The other end of the connection.
    pub peer: SocketAddr,
    /// The address the sender listens on, if it does.
    pub from_address: RpcAddress,
    /// What the connection speaks.
    pub protocol: Protocol,
    /// Follows a request through servers; 0 when there is none.
    pub trace_id: u64,
}

impl Request {
    /// The argument as a value.
    ///
    /// # Errors
    /// Any [`WireError`]: the argument is not what the name promises.
    pub fn decode<T: Decode>(&self) -> Result<T, WireError> {
        decode_wrapped(&self.body)
    }

    /// The argument for keeping: small ones are copied, so that they do not hold the buffer they arrived in.
    #[must_use]
    pub fn keep_body(&self) -> Bytes {
        detach(&self.body)
    }
}

/// What an answer needs of its request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    pub(crate) session: SessionId,
    pub(crate) code: Option<Code>,
    pub(crate) protocol: Protocol,
    pub(crate) is_oneway: bool,
    pub(crate) keep_alive: bool,
    /// Bytes of the request.
    pub(crate) bytes: u32,
    id: u64,
    trace_id: u64,
    gpid: Gpid,
    timeout_ms: u32,
    thread_hash: i32,
    partition_hash: u64,
    context: Context,
}

impl Ticket {
    fn new(session: SessionId, head: &RequestHead, code: Option<Code>, bytes: usize) -> Self {
        Self {
            session,
            code,
            protocol: head.protocol,
            is_oneway: head.is_oneway,
            keep_alive: true,
            bytes: bytes as u32,
            id: head.id,
            trace_id: head.trace_id,
            gpid: head.gpid,
            timeout_ms: head.timeout_ms,
            thread_hash: head.thread_hash,
            partition_hash: head.partition_hash,
            context: head.context,
        }
    }

    /// For an HTTP request.
    pub(crate) fn http(session: SessionId, bytes: usize, keep_alive: bool) -> Self {
        let head = RequestHead::new(Protocol::Http, RpcName::new(b""), 0);
        Self { keep_alive, ..Self::new(session, &head, None, bytes) }
    }

    fn head(&self, name: RpcName) -> RequestHead {
        RequestHead {
            trace_id: self.trace_id,
            gpid: self.gpid,
            timeout_ms: self.timeout_ms,
            thread_hash: self.thread_hash,
            partition_hash: self.partition_hash,
            context: self.context,
            is_oneway: self.is_oneway,
            ..RequestHead::new(self.protocol, name, self.id)
        }
    }
}

/// Where tickets of dropped repliers go, from any thread.
#[derive(Debug)]
pub(crate) struct LostAndFound {
    tickets: Mutex<Vec<Ticket>>,
    handle: Handle,
    home: Addr<RpcLoop>,
}

impl LostAndFound {
    pub(crate) fn new(handle: Handle, home: Addr<RpcLoop>) -> Arc<Self> {
        Arc::new(Self { tickets: Mutex::default(), handle, home })
    }

    pub(crate) fn lose(&self, ticket: Ticket) {
        let mut tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        let first = tickets.is_empty();
        tickets.push(ticket);
        drop(tickets);
        if first {
            // With a full mailbox the loop finds them when it next looks around.
            let _ = self.handle.post(self.home, &LPC_RPC_UNANSWERED, RpcLoop::answer_lost);
        }
    }

    pub(crate) fn take(&self) -> Vec<Ticket> {
        std::mem::take(&mut *self.tickets.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The right and the duty to answer one request, once. May travel to other workers and to blocking stages.
#[must_use = "a dropped replier answers with ERR_INVALID_STATE"]
pub struct Replier {
    ticket: Ticket,
    /// `None` once answered.
    home: Option<Arc<LostAndFound>>,
}

impl fmt::Debug for Replier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replier").field("ticket", &self.ticket).finish_non_exhaustive()
    }
}

impl Replier {
    pub(crate) fn new(ticket: Ticket, home: &Arc<LostAndFound>) -> Self {
        Self { ticket, home: Some(home.clone()) }
    }

    fn redeem(mut self) -> Ticket {
        self.home = None;
        self.ticket
    }

    /// Answers with a result.
    pub fn reply<T: Encode>(self, ctx: &mut Ctx<'_>, body: &T) {
        self.respond(ctx, ErrorCode::Ok, |w| w.wrapped(RESULT_ID, body));
    }

    /// Answers with an encoded result: a wrapped value.
    pub fn reply_encoded(self, ctx: &mut Ctx<'_>, body: &[u8]) {
        self.respond(ctx, ErrorCode::Ok, |w| w.put(body));
    }

    /// Answers with a result, a wrapped value, that `f` appends to the frame.
    pub fn reply_with(self, ctx: &mut Ctx<'_>, f: impl FnOnce(&mut BytesMut)) {
        self.respond(ctx, ErrorCode::Ok, |w| f(w.buffer()));
    }

    /// Answers with an error and no result.
    pub fn error(self, ctx: &mut Ctx<'_>, error: ErrorCode) {
        self.respond(ctx, error, |_| {});
    }

    /// Answers with an error and a result all the same.
    pub fn error_with<T: Encode>(self, ctx: &mut Ctx<'_>, error: ErrorCode, body: &T) {
        self.respond(ctx, error, |w| w.wrapped(RESULT_ID, body));
    }

    /// Answers with whatever `body` writes. The writer knows whether the caller can read host-port fields.
    pub fn respond(self, ctx: &mut Ctx<'_>, error: ErrorCode, body: impl FnOnce(&mut Writer<'_>)) {
        let ticket = self.redeem();
        let name = ticket.code.map_or(RpcName::new(b""), |code| RpcName::from(code.name()));
        answer(ctx, &ticket, name, error, body);
    }

    /// Deliberately leaves the caller without an answer.
    pub fn forget(self, ctx: &mut Ctx<'_>) {
        let ticket = self.redeem();
        release(ctx, &ticket);
    }

    /// What the connection speaks.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.ticket.protocol
    }

    /// The connection that the answer goes to.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.ticket.session
    }
}

impl Drop for Replier {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            home.lose(self.ticket);
        }
    }
}

/// Writes an answer to where its session is.
fn answer(
    ctx: &mut Ctx<'_>,
    ticket: &Ticket,
    name: RpcName,
    error: ErrorCode,
    body: impl FnOnce(&mut Writer<'_>),
) {
    if ticket.is_oneway {
        release(ctx, ticket);
        return;
    }
    deliver(ctx, ticket, |out, responder| {
        write_response(out, &ticket.head(name), error, responder, body);
    });
}

/// Appends the bytes of an answer to its session's queue, or to the batch for its worker.
#[inline]
pub(crate) fn deliver(
    ctx: &mut Ctx<'_>,
    ticket: &Ticket,
    write: impl FnOnce(&mut BytesMut, RpcAddress),
) {
    let Some(exchange) = Exchange::of(ctx) else { return };
    let responder = exchange.shared.responder();
    let (id, bytes) = (ticket.session, ticket.bytes as usize);
    if id.worker == exchange.worker {
        if exchange.append(id, |out| write(out, responder)) {
            exchange.counters().replies.one();
            exchange.release(id, bytes);
        } else {
            exchange.counters().undeliverable.one();
        }
    } else {
        let batch = exchange.batch(id.worker);
        let before = batch.data.len();
        write(&mut batch.data, responder);
        let length = batch.data.len() - before;
        batch.entries.push((id, length, bytes));
    }
    exchange::ask(ctx);
}

/// A request that gets no answer.
fn release(ctx: &mut Ctx<'_>, ticket: &Ticket) {
    let Some(exchange) = Exchange::of(ctx) else { return };
    let (id, bytes) = (ticket.session, ticket.bytes as usize);
    if id.worker == exchange.worker {
        exchange.release(id, bytes);
    } else {
        exchange.batch(id.worker).entries.push((id, 0, bytes));
    }
    exchange::ask(ctx);
}

type Handler = Box<dyn Fn(&mut Ctx<'_>, Request, Replier) + Send + Sync>;

struct Service {
    code: Code,
    handler: Handler,
    stage: StageId,
    high: bool,
}

/// The handlers of one node; built at its start, then shared by all its workers.
#[derive(Default)]
pub struct ServiceTable {
    services: Vec<Service>,
    by_name: DetHashMap<&'static [u8], usize>,
    pub(crate) routes: HttpRoutes,
}

impl fmt::Debug for ServiceTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.services.iter().map(|service| service.code)).finish()
    }
}

impl ServiceTable {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers `code` with `handler`, on the worker of the connection. A later handler of the same code replaces an
    /// earlier one.
    pub fn on(
        &mut self,
        code: Code,
        handler: impl Fn(&mut Ctx<'_>, Request, Replier) + Send + Sync + 'static,
    ) {
        let service = Service {
            code,
            handler: Box::new(handler),
            stage: StageId(0),
            high: code.priority() == Priority::High,
        };
        match self.by_name.get(code.name().as_bytes()) {
            Some(&index) => self.services[index] = service,
            None => {
                self.by_name.insert(code.name().as_bytes(), self.services.len());
                self.services.push(service);
            }
        }
    }

    /// Like [`Self::on`], unless the code has a handler already.
    pub(crate) fn on_default(
        &mut self,
        code: Code,
        handler: impl Fn(&mut Ctx<'_>, Request, Replier) + Send + Sync + 'static,
    ) {
        if !self.by_name.contains_key(code.name().as_bytes()) {
            self.on(code, handler);
        }
    }

    /// Answers `code` by a method of one resident: at once when it is on the connection's worker and not busy, else
    /// as an event of it, dropped when the caller stops waiting before it begins.
    pub fn on_resident<T: Resident>(
        &mut self,
        code: Code,
        to: Addr<T>,
        f: fn(&mut T, &mut Ctx<'_>, Request, Replier),
    ) {
        self.on(code, move |ctx, request, replier| hand_to(ctx, to, request, replier, f));
    }

    /// Serves an HTTP path. `help` is one line for the list of paths.
    pub fn http(
        &mut self,
        path: &str,
        help: &str,
        handler: impl Fn(&mut Ctx<'_>, &HttpRequest) -> HttpReply + Send + Sync + 'static,
    ) {
        self.routes.add_direct(path, help, handler);
    }

    /// Serves an HTTP path by a handler that may answer later and from any worker.
    pub fn http_deferred(
        &mut self,
        path: &str,
        help: &str,
        handler: impl Fn(&mut Ctx<'_>, HttpRequest, HttpReplier) + Send + Sync + 'static,
    ) {
        self.routes.add_deferred(path, help, handler);
    }

    /// Takes the node's policies for the codes.
    pub(crate) fn settle(&mut self, node: &dsn_core::node::Node) {
        for service in &mut self.services {
            let spec = node.spec(service.code);
            service.stage = spec.stage;
            service.high = spec.priority == Priority::High;
        }
    }

    #[inline]
    fn find(&self, name: &[u8]) -> Option<&Service> {
        self.by_name.get(name).map(|&index| &self.services[index])
    }
}

/// Hands a request to a resident: here and now if it is on this worker and free, else as an event.
pub fn hand_to<T: Resident>(
    ctx: &mut Ctx<'_>,
    to: Addr<T>,
    request: Request,
    replier: Replier,
    f: impl FnOnce(&mut T, &mut Ctx<'_>, Request, Replier) + Send + 'static,
) {
    let (code, deadline) = (request.code, request.deadline);
    let run = move |resident: &mut T, ctx: &mut Ctx<'_>| f(resident, ctx, request, replier);
    let Err(run) = ctx.with(to, run) else { return };
    match deadline {
        Some(deadline) => ctx.post_until(to, code, deadline, run),
        None => ctx.post(to, code, run),
    }
}

/// A request has arrived on a session of this worker.
pub(crate) fn dispatch(
    ctx: &mut Ctx<'_>,
    shared: &RpcShared,
    home: &Arc<LostAndFound>,
    id: SessionId,
    frame: RequestFrame,
    arrived: Mono,
) {
    let RequestFrame { head, body } = frame;
    let bytes = body.len();
    let Some(exchange) = Exchange::of(ctx) else { return };
    let has_room = exchange.has_room();
    exchange.held += bytes;
    let Some(session) = exchange.session(id) else { return };
    session.in_flight += 1;
    session.in_flight_bytes += bytes;
    session.proven = true;
    let peer = session.peer;
    exchange.counters().requests.one();
    let Some(service) = shared.table.find(head.name.as_bytes()) else {
        exchange.counters().unknown.one();
        let ticket = Ticket::new(id, &head, None, bytes);
        answer(ctx, &ticket, head.name, ErrorCode::HandlerNotFound, |_| {});
        return;
    };
    let code = service.code;
    let ticket = Ticket::new(id, &head, Some(code), bytes);
    let timeout = (head.timeout_ms > 0).then(|| Duration::from_millis(u64::from(head.timeout_ms)));
    let deadline = timeout.map(|timeout| arrived + timeout);
    if deadline.is_some_and(|deadline| deadline.is_past(ctx.now())) {
        count(ctx, |c| c.expired.one());
        release(ctx, &ticket);
        return;
    }
    // Servers among themselves are not turned away: that would only make the load worse.
    let from_client = head.protocol == Protocol::Thft || head.gpid.app_id > 0;
    if from_client && !service.high && (!has_room || !ctx.node().stage(service.stage).admits()) {
        let now = ctx.now();
        ctx.node().stage(service.stage).note(arrived, now);
        count(ctx, |c| c.busy.one());
        answer(ctx, &ticket, head.name, ErrorCode::Busy, |_| {});
        return;
    }
    let request = Request {
        code,
        gpid: head.gpid,
        body,
        partition_hash: head.partition_hash,
        timeout,
        deadline,
        arrived,
        is_backup: head.context.is_backup(),
        is_oneway: head.is_oneway,
        can_forward: head.context.can_forward(),
        is_forwarded: head.context.is_forwarded(),
        peer,
        from_address: head.from_address,
        protocol: head.protocol,
        trace_id: head.trace_id,
    };
    match judge(ctx, code) {
        Verdict::Proceed => run(ctx, service, request, Replier::new(ticket, home)),
        Verdict::Drop => release(ctx, &ticket),
        Verdict::Fail => answer(ctx, &ticket, head.name, ErrorCode::Injected, |_| {}),
        Verdict::Delay(delay) => {
            let replier = Replier::new(ticket, home);
            let Some(me) = Exchange::of(ctx).map(|exchange| exchange.me) else { return };
            ctx.after(me, &LPC_RPC_DELAYED, delay, move |rpc, ctx| {
                rpc.dispatch_delayed(ctx, request, replier);
            });
        }
    }
}

/// Runs the handler of a request that was held back.
pub(crate) fn dispatch_delayed(
    ctx: &mut Ctx<'_>,
    shared: &RpcShared,
    request: Request,
    replier: Replier,
) {
    if let Some(service) = shared.table.find(request.code.name().as_bytes()) {
        run(ctx, service, request, replier);
    }
}

#[inline]
fn run(ctx: &mut Ctx<'_>, service: &Service, request: Request, replier: Replier) {
    let (arrived, deadline) = (request.arrived, request.deadline);
    // A panic in there drops the replier, which answers.
    ctx.event(service.code, arrived, deadline, |ctx| (service.handler)(ctx, request, replier));
}

fn count(ctx: &mut Ctx<'_>, f: impl FnOnce(&crate::stats::Counters)) {
    if let Some(exchange) = Exchange::of(ctx) {
        f(exchange.counters());
    }
}

impl RpcLoop {
    /// Answers for repliers that were dropped.
    pub(crate) fn answer_lost(&mut self, ctx: &mut Ctx<'_>) {
        for ticket in self.lost_and_found().take() {
            count(ctx, |c| c.unanswered.one());
            if ticket.protocol == Protocol::Http {
                crate::http::answer_lost(ctx, &ticket);
                continue;
            }
            let name = ticket.code.map_or(RpcName::new(b""), |code| RpcName::from(code.name()));
            answer(ctx, &ticket, name, ErrorCode::InvalidState, |_| {});
        }
    }
}
