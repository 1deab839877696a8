//! Commands about servers: nodes, cluster_info, server_info, remote_command.

use dsn_replication::wire::admin::NodeStatus;
use dsn_replication::wire::config::AppStatus;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::Shell;
use crate::cli::{ClusterCommand, ServerType, ServersArgs};
use crate::tables::address;
use crate::values::resolve;

/// Runs one.
pub fn run(shell: &mut Shell, command: ClusterCommand) -> anyhow::Result<()> {
    match command {
        ClusterCommand::Nodes { detailed } => nodes(shell, detailed),
        ClusterCommand::ClusterInfo => {
            let facts = shell.admin().cluster_info()?;
            let facts = facts.into_iter().map(|(name, value)| (name, Value::String(value)));
            Ok(shell.out.pairs(facts)?)
        }
        ClusterCommand::ServerInfo(servers) => remote(shell, &servers, "version", &[]),
        ClusterCommand::RemoteCommand { servers, command, arguments } => {
            remote(shell, &servers, &command, &arguments)
        }
    }
}

fn nodes(shell: &mut Shell, detailed: bool) -> anyhow::Result<()> {
    let admin = shell.admin();
    let mut nodes = admin.list_nodes(NodeStatus::Invalid)?;
    nodes.sort_by_key(|node| node.node);
    let mut held: BTreeMap<_, (u64, u64)> = BTreeMap::new();
    if detailed {
        for table in admin.list_tables(AppStatus::Available)? {
            for partition in admin.query_config(&table.app_name)?.partitions.iter() {
                held.entry(partition.primary).or_default().0 += 1;
                for secondary in partition.secondaries {
                    held.entry(secondary).or_default().1 += 1;
                }
            }
        }
    }
    let rows = nodes.iter().map(|node| {
        let mut row = vec![
            address(node.node),
            node.hp_node.as_ref().map_or(Value::Null, |name| json!(name.to_string())),
            json!(format!("{:?}", node.status).to_lowercase()),
        ];
        if detailed {
            let (primaries, secondaries) = held.get(&node.node).copied().unwrap_or_default();
            row.extend([json!(primaries), json!(secondaries)]);
        }
        row
    });
    let columns = ["Address", "Name", "Status", "Primaries", "Secondaries"];
    let columns = if detailed { &columns[..] } else { &columns[..3] };
    Ok(shell.out.table(columns, rows.collect())?)
}

fn servers(shell: &Shell, args: &ServersArgs) -> anyhow::Result<Vec<(&'static str, SocketAddr)>> {
    if !args.list.is_empty() {
        return Ok(resolve(&args.list)?.into_iter().map(|server| ("server", server)).collect());
    }
    let mut servers = Vec::new();
    if args.kind != ServerType::ReplicaServer {
        servers.extend(shell.metas.iter().map(|meta| ("meta-server", *meta)));
    }
    if args.kind != ServerType::MetaServer {
        let nodes = shell.admin().list_nodes(NodeStatus::Alive)?;
        let addresses = nodes.iter().filter_map(|node| node.node.socket_addr());
        servers.extend(addresses.map(|address| ("replica-server", SocketAddr::from(address))));
    }
    Ok(servers)
}

/// Runs a command on each server in turn and shows every answer; an error when one of them gave none.
fn remote(
    shell: &mut Shell,
    args: &ServersArgs,
    command: &str,
    arguments: &[String],
) -> anyhow::Result<()> {
    let servers = servers(shell, args)?;
    let admin = shell.admin();
    let mut failed = 0;
    let mut rows = Vec::new();
    for (kind, server) in &servers {
        let answer = match admin.command(*server, command, arguments.iter().cloned()) {
            Ok(answer) => answer,
            Err(error) => {
                failed += 1;
                eprintln!("error: {command}: {error}");
                continue;
            }
        };
        rows.push((*kind, server.to_string(), answer));
    }
    if shell.out.is_json() {
        let rows = rows
            .into_iter()
            .map(|(kind, server, answer)| vec![json!(kind), json!(server), json!(answer)]);
        shell.out.table(&["Type", "Server", "Answer"], rows.collect())?;
    } else if let ([(_, _, answer)], 1) = (&rows[..], servers.len()) {
        shell.out.value("answer", json!(answer.trim_end()))?;
    } else {
        for (kind, server, answer) in rows {
            shell.out.value("", json!(format!("[{kind}] {server}\n{}\n", answer.trim_end())))?;
        }
    }
    anyhow::ensure!(failed == 0, "{failed} of {} servers did not answer", servers.len());
    Ok(())
}
