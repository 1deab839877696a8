//! The endpoints that every node has.

use dsn_core::exec::Ctx;
use serde_json::json;

use super::{HttpReply, HttpRequest, HttpRoutes};
use crate::exchange::Exchange;

/// Adds the built-in endpoints, behind those of the application.
pub(crate) fn add_endpoints(routes: &mut HttpRoutes) {
    let (version, commit) = routes.version.clone();
    routes.add_direct("version", "the version of this server", move |_, _| {
        HttpReply::json(&json!({ "Version": version, "GitCommit": commit }))
    });
    routes.add_direct("recentStartTime", "when this server was started", |ctx, _| {
        let started = Exchange::of(ctx).map(|exchange| exchange.shared.started.utc().date_time());
        HttpReply::json(&json!({ "RecentStartTime": started.unwrap_or_default() }))
    });
    routes.add_direct("", "this list", list);
}

fn list(ctx: &mut Ctx<'_>, _: &HttpRequest) -> HttpReply {
    match Exchange::of(ctx) {
        Some(exchange) => HttpReply::json(&exchange.shared.table.routes.help()),
        None => HttpReply::text(500, "stopping"),
    }
}
