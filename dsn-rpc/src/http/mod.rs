//! Operator endpoints over HTTP, on the same port as everything else.
//!
//! A path is served by a function of the request, or by one that answers later through an [`HttpReplier`]. Answers
//! keep the order of the requests of a connection: the next one is not looked at before the last is answered.

mod endpoints;

use std::fmt;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use dsn_core::exec::Ctx;

use crate::exchange::Exchange;
use crate::frame::http::{HttpResponse, HttpTarget, write_response};
use crate::frame::{self, HttpError};
use crate::rpc_loop::LPC_RPC_HTTP;
use crate::service::{LostAndFound, Ticket, deliver};
use crate::session::SessionId;
use crate::shared::RpcShared;

pub use crate::frame::http::HttpMethod;
pub(crate) use endpoints::add_endpoints;

/// A request, with its target taken apart.
#[derive(Clone, Debug)]
pub struct HttpRequest {
    /// Who asks.
    pub peer: SocketAddr,
    frame: frame::HttpRequest,
    target: HttpTarget,
}

impl HttpRequest {
    /// GET or POST.
    #[must_use]
    pub fn method(&self) -> HttpMethod {
        self.frame.method
    }

    /// The path, without leading slash.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.target.path
    }

    /// The value of an argument of the query; empty for one given without value.
    #[must_use]
    pub fn argument(&self, name: &str) -> Option<&str> {
        self.target.argument(name)
    }

    /// All arguments of the query in the order they were given; one without `=` has no value.
    #[must_use]
    pub fn arguments(&self) -> &[(String, Option<String>)] {
        &self.target.arguments
    }

    /// Path and query as they were sent.
    #[must_use]
    pub fn target(&self) -> &str {
        std::str::from_utf8(&self.frame.target).unwrap_or_default()
    }

    /// The value of a header, its name in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.frame.header(name)
    }

    /// The body; empty when there is none.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.frame.body
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpReply {
    /// Status number: 200, 307, 400, 404, 500.
    pub status: u16,
    /// Media type of the body.
    pub content_type: &'static str,
    /// Where to ask instead, with status 307.
    pub location: Option<String>,
    /// The body.
    pub body: String,
}

impl HttpReply {
    /// Plain text, which is also how Pegasus labels its JSON.
    #[must_use]
    pub fn text(status: u16, body: impl Into<String>) -> Self {
        Self { status, content_type: "text/plain", location: None, body: body.into() }
    }

    /// A JSON text.
    #[must_use]
    pub fn json(value: &serde_json::Value) -> Self {
        Self::text(200, value.to_string())
    }

    /// Ask elsewhere: an absolute URL.
    #[must_use]
    pub fn redirect(location: impl Into<String>) -> Self {
        Self { location: Some(location.into()), ..Self::text(307, "") }
    }
}

/// The right and the duty to answer one HTTP request, once.
#[must_use = "a dropped replier answers with status 500"]
pub struct HttpReplier {
    ticket: Ticket,
    home: Option<Arc<LostAndFound>>,
}

impl fmt::Debug for HttpReplier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpReplier").finish_non_exhaustive()
    }
}

impl HttpReplier {
    /// Answers.
    pub fn reply(mut self, ctx: &mut Ctx<'_>, reply: &HttpReply) {
        self.home = None;
        write(ctx, &self.ticket, reply);
    }
}

impl Drop for HttpReplier {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            home.lose(self.ticket);
        }
    }
}

type Deferred = Box<dyn Fn(&mut Ctx<'_>, HttpRequest, HttpReplier) + Send + Sync>;
type Direct = Box<dyn Fn(&mut Ctx<'_>, &HttpRequest) -> HttpReply + Send + Sync>;

enum Handler {
    Direct(Direct),
    Deferred(Deferred),
}

struct Route {
    path: String,
    help: String,
    handler: Handler,
}

/// The paths of one node.
#[derive(Default)]
pub(crate) struct HttpRoutes {
    routes: Vec<Route>,
}

impl HttpRoutes {
    fn add(&mut self, path: &str, help: &str, handler: Handler) {
        let path = path.trim_matches('/').to_owned();
        // Those of the application win over the built-in ones, which come last.
        if self.routes.iter().all(|route| route.path != path) {
            self.routes.push(Route { path, help: help.to_owned(), handler });
        }
    }

    pub(crate) fn add_direct(
        &mut self,
        path: &str,
        help: &str,
        handler: impl Fn(&mut Ctx<'_>, &HttpRequest) -> HttpReply + Send + Sync + 'static,
    ) {
        self.add(path, help, Handler::Direct(Box::new(handler)));
    }

    pub(crate) fn add_deferred(
        &mut self,
        path: &str,
        help: &str,
        handler: impl Fn(&mut Ctx<'_>, HttpRequest, HttpReplier) + Send + Sync + 'static,
    ) {
        self.add(path, help, Handler::Deferred(Box::new(handler)));
    }

    fn find(&self, path: &str) -> Option<&Handler> {
        self.routes.iter().find(|route| route.path == path).map(|route| &route.handler)
    }

    /// Every path with its line of help.
    fn help(&self) -> serde_json::Value {
        let lines = self.routes.iter().map(|route| {
            (format!("/{}", route.path), serde_json::Value::String(route.help.clone()))
        });
        serde_json::Value::Object(lines.collect())
    }

    fn not_found(&self, path: &str) -> HttpReply {
        let mut text = format!("service not found for \"{path}\"\n");
        for route in &self.routes {
            let _ = writeln!(text, "/{}  {}", route.path, route.help);
        }
        HttpReply::text(404, text)
    }
}

/// A request has arrived on a session of this worker.
pub(crate) fn dispatch(
    ctx: &mut Ctx<'_>,
    shared: &RpcShared,
    home: &Arc<LostAndFound>,
    id: SessionId,
    frame: frame::HttpRequest,
) {
    let bytes = frame.body.len() + frame.target.len();
    let Some(exchange) = Exchange::of(ctx) else { return };
    exchange.counters().http_requests.one();
    exchange.held += bytes;
    let Some(session) = exchange.session(id) else { return };
    session.in_flight += 1;
    session.in_flight_bytes += bytes;
    // As if the peer had closed its side: the connection ends with the answer.
    session.ended |= !frame.keep_alive;
    let peer = session.peer;
    let ticket = Ticket::http(id, bytes, frame.keep_alive);
    if !shared.limits.http {
        write(ctx, &ticket, &HttpReply::text(503, "[network] enable_http_server is false"));
        return;
    }
    let target = match HttpTarget::parse(&frame.target) {
        Ok(target) => target,
        Err(error) => {
            let text = format!("failed to parse request: {error}");
            write(ctx, &ticket, &HttpReply::text(400, text));
            return;
        }
    };
    let request = HttpRequest { peer, frame, target };
    let routes = &shared.table.routes;
    let now = ctx.now();
    match routes.find(request.path()) {
        None => write(ctx, &ticket, &routes.not_found(request.path())),
        Some(Handler::Direct(handler)) => {
            let reply = ctx.event(&LPC_RPC_HTTP, now, None, |ctx| handler(ctx, &request));
            let reply = reply.unwrap_or_else(|| HttpReply::text(500, "the handler failed"));
            write(ctx, &ticket, &reply);
        }
        Some(Handler::Deferred(handler)) => {
            let replier = HttpReplier { ticket, home: Some(home.clone()) };
            ctx.event(&LPC_RPC_HTTP, now, None, |ctx| handler(ctx, request, replier));
        }
    }
}

fn write(ctx: &mut Ctx<'_>, ticket: &Ticket, reply: &HttpReply) {
    let response = HttpResponse {
        status: reply.status,
        content_type: reply.content_type,
        location: reply.location.as_deref(),
        body: reply.body.as_bytes(),
        keep_alive: ticket.keep_alive,
    };
    deliver(ctx, ticket, |out, _| write_response(out, &response));
}

/// Answers for a replier that was dropped.
pub(crate) fn answer_lost(ctx: &mut Ctx<'_>, ticket: &Ticket) {
    write(ctx, ticket, &HttpReply::text(500, "the request was dropped"));
}

/// Says why a connection is about to be closed.
pub(crate) fn refuse(exchange: &mut Exchange, id: SessionId, error: HttpError) {
    let text = error.to_string();
    let response =
        HttpResponse { keep_alive: false, ..HttpResponse::text(error.status(), text.as_bytes()) };
    exchange.append(id, |out| write_response(out, &response));
}
