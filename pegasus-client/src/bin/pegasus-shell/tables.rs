//! Commands about tables: create, drop, recall, ls, app and the envs.

use dsn_core::time::Wall;
use dsn_replication::wire::config::{AppInfo, AppStatus, PartitionConfiguration};
use dsn_rpc::address::RpcAddress;
use pegasus_client::TableSpec;
use serde_json::{Value, json};
use std::time::Duration;

use crate::Shell;
use crate::cli::{CreateArgs, TableCommand};

/// Runs one.
pub fn run(shell: &mut Shell, command: TableCommand) -> anyhow::Result<()> {
    let admin = shell.admin();
    match command {
        TableCommand::Create(args) => return create(shell, args),
        TableCommand::Drop { name, reserve } => {
            admin.drop_table(&name, reserve.map(Duration::from_secs))?;
            shell.out.value("result", json!(format!("table {name} is dropped")))?;
        }
        TableCommand::Recall { id, new_name } => {
            let info = admin.recall_table(id, &new_name)?;
            let text = format!("table {} is coming back as {}", id, info.app_name);
            shell.out.value("result", json!(text))?;
        }
        TableCommand::Ls { all } => {
            let status = if all { AppStatus::Invalid } else { AppStatus::Available };
            let mut tables = admin.list_tables(status)?;
            tables.sort_by_key(|info| info.app_id);
            shell.out.table(&TABLE_COLUMNS, tables.iter().map(table_row).collect())?;
        }
        TableCommand::App { name } => {
            let config = admin.query_config(&name)?;
            let mut partitions: Vec<PartitionConfiguration> = config.partitions.to_vec();
            partitions.sort_by_key(|partition| partition.pid.partition_index);
            let rows = partitions.iter().map(partition_row).collect();
            shell.out.table(&PARTITION_COLUMNS, rows)?;
        }
        TableCommand::GetAppEnvs { name } => {
            let envs = admin.envs(&name)?;
            shell.out.pairs(envs.into_iter().map(|(key, value)| (key, Value::String(value))))?;
        }
        TableCommand::SetAppEnvs { name, envs } => {
            admin.set_envs(&name, &envs.into_iter().collect())?;
            shell.out.value("result", json!("OK"))?;
        }
        TableCommand::DelAppEnvs { name, keys } => {
            admin.remove_envs(&name, &keys)?;
            shell.out.value("result", json!("OK"))?;
        }
        TableCommand::ClearAppEnvs { name, prefix } => {
            admin.clear_envs(&name, &prefix)?;
            shell.out.value("result", json!("OK"))?;
        }
    }
    Ok(())
}

fn create(shell: &mut Shell, args: CreateArgs) -> anyhow::Result<()> {
    let spec = TableSpec {
        name: args.name,
        partitions: args.partitions,
        replicas: args.replicas,
        envs: args.envs.into_iter().collect(),
        if_not_exists: args.if_not_exists,
    };
    let admin = shell.admin().of_app(&args.app_type);
    let (id, state) = match args.wait {
        None => (admin.create_table(&spec)?, "is made"),
        Some(limit) => {
            let progress = |text: &str| eprintln!("waiting: {text}");
            let limit = Duration::from_secs(limit);
            (admin.create_and_wait(&spec, limit, progress)?, "is ready")
        }
    };
    let (name, partitions) = (&spec.name, spec.partitions);
    let text = format!("table {name} (id {id}) with {partitions} partitions {state}");
    shell.out.value("result", json!(text))?;
    Ok(())
}

const TABLE_COLUMNS: [&str; 7] =
    ["App Id", "Status", "Name", "Partitions", "Replicas", "Created", "Expires"];

fn table_row(info: &AppInfo) -> Vec<Value> {
    vec![
        json!(info.app_id),
        json!(format!("{:?}", info.status).to_lowercase()),
        json!(info.app_name),
        json!(info.partition_count),
        json!(info.max_replica_count),
        time(info.create_second),
        if info.status == AppStatus::Dropped { time(info.expire_second) } else { Value::Null },
    ]
}

/// Unix seconds as UTC, to the second; nothing for zero.
fn time(unix: i64) -> Value {
    match u64::try_from(unix) {
        Ok(seconds) if seconds > 0 => json!(Wall::from_unix_seconds(seconds).utc().date_time()),
        _ => Value::Null,
    }
}

const PARTITION_COLUMNS: [&str; 5] = ["Partition", "Ballot", "Replicas", "Primary", "Secondaries"];

fn partition_row(partition: &PartitionConfiguration) -> Vec<Value> {
    let replicas = usize::from(partition.primary.is_valid()) + partition.secondaries.len();
    vec![
        json!(partition.pid.partition_index),
        json!(partition.ballot),
        json!(format!("{replicas}/{}", partition.max_replica_count)),
        address(partition.primary),
        partition.secondaries.iter().copied().map(address).collect(),
    ]
}

/// A server, nothing when there is none.
pub fn address(address: RpcAddress) -> Value {
    address.socket_addr().map_or(Value::Null, |address| json!(address.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_readable() {
        assert_eq!(time(0), Value::Null);
        assert_eq!(time(-1), Value::Null);
        assert_eq!(time(951_782_400), json!("2000-02-29 00:00:00"));
        assert_eq!(time(1_735_689_599), json!("2024-12-31 23:59:59"));
        assert_eq!(time(4_107_542_400), json!("2100-03-01 00:00:00"));
    }

    #[test]
    fn a_partition_without_primary_shows_none() {
        let mut partition = PartitionConfiguration { max_replica_count: 3, ..Default::default() };
        assert_eq!(partition_row(&partition)[2..], [json!("0/3"), Value::Null, json!([])]);
        partition.primary = RpcAddress::new(std::net::Ipv4Addr::LOCALHOST, 34801);
        partition.secondaries = vec![RpcAddress::new(std::net::Ipv4Addr::LOCALHOST, 34802)];
        assert_eq!(partition_row(&partition)[2..4], [json!("2/3"), json!("127.0.0.1:34801")]);
    }
}
