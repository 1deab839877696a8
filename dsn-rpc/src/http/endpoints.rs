//! The endpoints that every node has.

use dsn_core::command::CommandCall;
use dsn_core::exec::Ctx;
use dsn_core::metrics::{self, Filters, Labels, PROMETHEUS_CONTENT_TYPE};
use serde_json::{Value, json};

use super::{HttpMethod, HttpReplier, HttpReply, HttpRequest, HttpRoutes};
use crate::builtin;
use crate::exchange::Exchange;

/// Adds the built-in endpoints, behind those of the application.
pub(crate) fn add_endpoints(routes: &mut HttpRoutes) {
    routes.add_direct("version", "the version of this server", version);
    routes.add_direct("recentStartTime", "when this server was started", |ctx, _| {
        let started = Exchange::of(ctx).map(|exchange| exchange.shared.started.utc().date_time());
        HttpReply::json(&json!({ "RecentStartTime": started.unwrap_or_default() }))
    });
    routes.add_direct("metrics", "all metrics, as JSON or with ?format=prometheus", metrics);
    routes.add_direct("config", "?name=<key>: one option of the configuration", config);
    routes.add_direct("configs", "all options of the configuration", configs);
    routes.add_direct("updateConfig", "?<key>=<value>: changes an option", update_config);
    routes.add_deferred("command", "?name=<command>&args=<words>: runs a command", command);
    routes.add_direct("", "this list", list);
}

/// What the command `version` says, taken apart: a name, a version, and its commit behind a plus sign.
fn version(ctx: &mut Ctx<'_>, _: &HttpRequest) -> HttpReply {
    let text = ctx.node().commands().run_now("version");
    let last = text.split_whitespace().next_back().unwrap_or_default();
    let (version, commit) = last.split_once('+').unwrap_or((last, ""));
    HttpReply::json(&json!({ "Version": version, "GitCommit": commit }))
}

fn list(ctx: &mut Ctx<'_>, _: &HttpRequest) -> HttpReply {
    match Exchange::of(ctx) {
        Some(exchange) => HttpReply::json(&exchange.shared.table.routes.help()),
        None => HttpReply::text(500, "stopping"),
    }
}

/// `/metrics` with Pegasus's filters. Prometheus is told by the argument `format` or by what it accepts.
fn metrics(ctx: &mut Ctx<'_>, request: &HttpRequest) -> HttpReply {
    let refuse =
        |message: String| HttpReply::text(400, json!({ "error_message": message }).to_string());
    if request.method() != HttpMethod::Get {
        return refuse("please use 'GET' method while querying for metrics".to_owned());
    }
    let mut format = None;
    let mut arguments = Vec::new();
    for (name, value) in request.arguments() {
        let value = value.as_deref().unwrap_or_default();
        if name == "format" { format = Some(value) } else { arguments.push((name.as_str(), value)) }
    }
    let text = match format {
        Some("prometheus") => true,
        Some("json") => false,
        Some(other) => return refuse(format!("unknown format {other}")),
        None => accepts_prometheus(request.header("accept").unwrap_or_default()),
    };
    let filters = match Filters::parse(arguments) {
        Ok(filters) => filters,
        Err(error) => return HttpReply::text(400, error.to_json()),
    };
    let labels = labels(ctx);
    let entities = ctx.node().metrics().snapshot(ctx.now(), &filters);
    if text {
        let body = metrics::prometheus(&labels, &entities);
        HttpReply { content_type: PROMETHEUS_CONTENT_TYPE, ..HttpReply::text(200, body) }
    } else {
        HttpReply::text(200, metrics::json(&labels, ctx.wall(), &entities, &filters))
    }
}

fn accepts_prometheus(accept: &[u8]) -> bool {
    let accept = String::from_utf8_lossy(accept);
    accept.contains("version=0.0.4") || accept.contains("openmetrics-text")
}

fn labels(ctx: &mut Ctx<'_>) -> Labels {
    let address = Exchange::of(ctx).map(|exchange| exchange.shared.responder());
    let node = ctx.node();
    let cluster = node.config().and_then(|config| config.get("cluster_name").ok());
    Labels {
        cluster: cluster.map(|option| option.plain_value()).unwrap_or_default(),
        role: node.role().to_owned(),
        host: address.map(|address| address.ip().to_string()).unwrap_or_default(),
        port: address.map(|address| address.port()).unwrap_or_default(),
    }
}

fn config(ctx: &mut Ctx<'_>, request: &HttpRequest) -> HttpReply {
    let [(name, Some(value))] = request.arguments() else {
        return HttpReply::text(400, "exactly one argument is wanted: name");
    };
    if name != "name" {
        return HttpReply::text(400, "exactly one argument is wanted: name");
    }
    let Some(config) = ctx.node().config() else {
        return HttpReply::text(200, "this server has no configuration");
    };
    match config.get(value) {
        Ok(option) => HttpReply::json(&option.to_json()),
        Err(error) => HttpReply::text(200, error.to_string()),
    }
}

fn configs(ctx: &mut Ctx<'_>, request: &HttpRequest) -> HttpReply {
    if !request.arguments().is_empty() {
        return HttpReply::text(400, "no arguments are wanted");
    }
    let options = ctx.node().config().map(|config| config.options()).unwrap_or_default();
    let members = options
        .iter()
        .map(|option| (format!("{}.{}", option.section, option.key), option.to_json()));
    HttpReply::json(&Value::Object(members.collect()))
}

fn update_config(ctx: &mut Ctx<'_>, request: &HttpRequest) -> HttpReply {
    let status = match (request.arguments(), ctx.node().config()) {
        ([(name, Some(value))], Some(config)) => match config.set(name, value) {
            Ok(()) => "ERR_OK".to_owned(),
            Err(error) => error.to_string(),
        },
        (_, None) => "this server has no configuration".to_owned(),
        _ => "exactly one argument is wanted: <key>=<value>".to_owned(),
    };
    HttpReply::json(&json!({ "update_status": status }))
}

/// A command by its name and words, or as a line in the body of a POST.
fn command(ctx: &mut Ctx<'_>, request: HttpRequest, replier: HttpReplier) {
    let line = match (request.method(), request.argument("name")) {
        (_, Some(name)) => format!("{name} {}", request.argument("args").unwrap_or_default()),
        (HttpMethod::Post, None) => String::from_utf8_lossy(request.body()).into_owned(),
        (HttpMethod::Get, None) => String::new(),
    };
    let call = CommandCall::parse(&line);
    if call.name.is_empty() {
        let usage = "usage: /command?name=<command>&args=<words>, or POST with the line as body";
        return replier.reply(ctx, &HttpReply::text(400, usage));
    }
    builtin::run(ctx, &call, move |ctx, text| replier.reply(ctx, &HttpReply::text(200, text)));
}
