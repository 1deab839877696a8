//! What the meta server tells over HTTP, in the tables of Pegasus: all values are strings.

use dsn_core::exec::{Addr, Ctx};
use dsn_core::time::Wall;
use dsn_rpc::ServiceTable;
use dsn_rpc::address::RpcAddress;
use dsn_rpc::http::{HttpReplier, HttpReply, HttpRequest};
use serde_json::{Map, Value, json};

use super::{LPC_META_HTTP, MetaServer};
use crate::meta::state::Cluster;
use crate::meta::state::app::members;
use crate::meta::state::app::{App, Partition};
use crate::wire::admin::{ListNodesRequest, NodeStatus};
use crate::wire::config::{AppStatus, PartitionConfiguration};

type Page = fn(&Cluster, &HttpRequest) -> HttpReply;

pub(super) fn register(table: &mut ServiceTable, to: Addr<MetaServer>) {
    let pages: [(&str, &str, Page); 6] = [
        ("meta/app", "name=TABLE[&detail]: partitions of a table", app),
        ("meta/apps", "[detail]: all tables", apps),
        ("meta/nodes", "[detail]: replica servers", nodes),
        ("meta/cluster", "facts about the cluster", cluster),
        ("meta/app_envs", "name=TABLE: envs of a table", app_envs),
        ("envs/list", "envs that may be set", envs_list),
    ];
    for (path, help, page) in pages {
        table.http_deferred(path, help, move |ctx, request, replier| {
            ctx.post(to, &LPC_META_HTTP, move |server, ctx| {
                server.serve_page(ctx, &request, replier, page);
            });
        });
    }
}

impl MetaServer {
    fn serve_page(
        &mut self,
        ctx: &mut Ctx<'_>,
        request: &HttpRequest,
        replier: HttpReplier,
        page: Page,
    ) {
        let reply = match self.cluster() {
            Some(cluster) => page(cluster, request),
            None => HttpReply::text(500, "ERR_SERVICE_NOT_ACTIVE"),
        };
        replier.reply(ctx, &reply);
    }
}

fn text(value: impl ToString) -> Value {
    Value::String(value.to_string())
}

fn address(node: RpcAddress) -> Value {
    if node.is_valid() { text(node) } else { text("") }
}

/// A time in seconds as it is shown; empty for none.
fn date(seconds: i64) -> Value {
    match u64::try_from(seconds) {
        Ok(seconds) if seconds > 0 => text(Wall::from_unix_seconds(seconds).utc().date_time()),
        _ => text("-"),
    }
}

fn table<'a>(cluster: &'a Cluster, request: &HttpRequest) -> Result<&'a App, HttpReply> {
    let name = request.argument("name").unwrap_or_default();
    if name.is_empty() {
        return Err(HttpReply::text(400, "the argument name=TABLE is missing"));
    }
    let found = cluster.table(name).filter(|app| app.info.status == AppStatus::Available);
    found.ok_or_else(|| HttpReply::text(404, format!("table not found: \"{name}\"")))
}

fn app(cluster: &Cluster, request: &HttpRequest) -> HttpReply {
    let found = match table(cluster, request) {
        Ok(found) => found,
        Err(reply) => return reply,
    };
    let info = &found.info;
    let mut page = Map::new();
    page.insert(
        "general".to_owned(),
        json!({
            "app_name": info.app_name,
            "app_id": text(info.app_id),
            "partition_count": text(info.partition_count),
            "max_replica_count": text(info.max_replica_count),
        }),
    );
    if request.argument("detail").is_some() {
        let configs: Vec<&PartitionConfiguration> =
            found.partitions.iter().map(|partition| &partition.config).collect();
        page.insert("replicas".to_owned(), replicas(&found.partitions));
        page.insert("nodes".to_owned(), nodes_of(&configs));
    }
    HttpReply::json(&Value::Object(page))
}

fn replicas(partitions: &[Partition]) -> Value {
    let rows = partitions.iter().map(|partition| {
        let config = &partition.config;
        let index = config.pid.partition_index.to_string();
        let count = members(config).count();
        let secondaries: Vec<String> = config.secondaries.iter().map(ToString::to_string).collect();
        let mut row = json!({
            "pidx": index.clone(),
            "ballot": text(config.ballot),
            "replica_count": text(format!("{count}/{}", config.max_replica_count)),
            "primary": address(config.primary),
            "secondaries": text(format!("[{}]", secondaries.join(","))),
        });
        if let Some(lost) = &partition.may_have_lost {
            row["may_have_lost"] = text(lost);
        }
        (index, row)
    });
    Value::Object(rows.collect())
}

fn nodes_of(configs: &[&PartitionConfiguration]) -> Value {
    let mut counts: std::collections::BTreeMap<RpcAddress, (usize, usize)> = Default::default();
    for config in configs {
        for node in members(config) {
            let (primaries, secondaries) = counts.entry(node).or_default();
            *(if node == config.primary { primaries } else { secondaries }) += 1;
        }
    }
    let rows = counts.into_iter().map(|(node, (primaries, secondaries))| {
        let row = json!({
            "node": text(node),
            "primary": text(primaries),
            "secondary": text(secondaries),
            "total": text(primaries + secondaries),
        });
        (node.to_string(), row)
    });
    Value::Object(rows.collect())
}

fn apps(cluster: &Cluster, request: &HttpRequest) -> HttpReply {
    let mut general = Map::new();
    let mut health = Map::new();
    let mut fully_healthy = 0;
    for app in cluster.tables() {
        let info = &app.info;
        general.insert(
            info.app_id.to_string(),
            json!({
                "app_id": text(info.app_id),
                "status": text(info.status).as_str().unwrap_or_default().trim_start_matches("AS_").to_owned(),
                "app_name": info.app_name,
                "app_type": info.app_type,
                "partition_count": text(info.partition_count),
                "replica_count": text(info.max_replica_count),
                "is_stateful": text(info.is_stateful),
                "create_time": date(info.create_second),
                "drop_time": date(info.drop_second),
                "drop_expire": date(info.expire_second),
                "envs_count": text(info.envs.len()),
            }),
        );
        if info.status != AppStatus::Available {
            continue;
        }
        let total = app.partitions.len();
        let count = |f: &dyn Fn(&PartitionConfiguration) -> bool| {
            app.partitions.iter().filter(|partition| f(&partition.config)).count()
        };
        let healthy = count(&|config| cluster.is_complete(config));
        let unwritable = count(&|config| !cluster.is_writable(config));
        let unreadable = count(&|config| !config.primary.is_valid());
        fully_healthy += usize::from(healthy == total);
        health.insert(
            info.app_id.to_string(),
            json!({
                "app_id": text(info.app_id),
                "app_name": info.app_name,
                "partition_count": text(total),
                "fully_healthy": text(healthy),
                "unhealthy": text(total - healthy),
                "write_unhealthy": text(unwritable),
                "read_unhealthy": text(unreadable),
            }),
        );
    }
    let mut summary = Map::new();
    summary.insert("total_app_count".to_owned(), text(general.len()));
    let mut page = Map::new();
    page.insert("general_info".to_owned(), Value::Object(general));
    if request.argument("detail").is_some() {
        summary.insert("fully_healthy_app_count".to_owned(), text(fully_healthy));
        summary.insert("unhealthy_app_count".to_owned(), text(health.len() - fully_healthy));
        page.insert("healthy_info".to_owned(), Value::Object(health));
    }
    page.insert("summary".to_owned(), Value::Object(summary));
    HttpReply::json(&Value::Object(page))
}

fn nodes(cluster: &Cluster, request: &HttpRequest) -> HttpReply {
    let detail = request.argument("detail").is_some();
    let mut details = Map::new();
    let mut alive = 0;
    for info in &cluster.list_nodes(&ListNodesRequest::default()).infos {
        alive += usize::from(info.status == NodeStatus::Alive);
        let status = if info.status == NodeStatus::Alive { "ALIVE" } else { "UNALIVE" };
        let mut row = Map::new();
        row.insert("address".to_owned(), text(info.node));
        row.insert("status".to_owned(), text(status));
        if detail {
            let (primaries, secondaries) = cluster.replicas_on(info.node);
            row.insert("replica_count".to_owned(), text(primaries + secondaries));
            row.insert("primary_count".to_owned(), text(primaries));
            row.insert("secondary_count".to_owned(), text(secondaries));
        }
        details.insert(info.node.to_string(), Value::Object(row));
    }
    let total = details.len();
    HttpReply::json(&json!({
        "details": details,
        "summary": {
            "total_node_count": text(total),
            "alive_node_count": text(alive),
            "unalive_node_count": text(total - alive),
        },
    }))
}

fn cluster(cluster: &Cluster, _: &HttpRequest) -> HttpReply {
    let info = cluster.cluster_info();
    let facts = info.keys.into_iter().zip(info.values.into_iter().map(Value::String));
    HttpReply::json(&Value::Object(facts.collect()))
}

fn app_envs(cluster: &Cluster, request: &HttpRequest) -> HttpReply {
    match table(cluster, request) {
        Ok(found) => {
            let envs = found.info.envs.iter().map(|(name, value)| (name.clone(), text(value)));
            HttpReply::json(&Value::Object(envs.collect()))
        }
        Err(reply) => reply,
    }
}

fn envs_list(cluster: &Cluster, _: &HttpRequest) -> HttpReply {
    let rows = cluster.env_rules().iter().map(|rule| {
        (rule.name.to_owned(), json!({ "limitation": rule.limit, "sample": rule.sample }))
    });
    HttpReply::json(&Value::Object(rows.collect()))
}
