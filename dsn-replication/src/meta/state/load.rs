//! From the store to memory when a meta server begins to lead.
//!
//! Every record is checked before it is believed; what cannot be true stops the start with the key at fault. Changes of
//! tables that were under way go on from where their records show them to be.

use bytes::Bytes;
use dsn_core::time::{Mono, Wall};
use dsn_rpc::gpid::Gpid;
use dsn_rpc::thrift::{Decode, decode};

use super::app::{App, Job, Partition, ROOT, app_key, members};
use super::{Cluster, ClusterOptions};
use crate::meta::store::{MetaStore, StoreError, Stored, Version};
use crate::wire::config::{AppInfo, AppStatus, PartitionConfiguration};

/// Everything that is stored.
#[derive(Debug, Default)]
pub struct Loaded {
    next_app_id: Option<Stored>,
    apps: Vec<LoadedApp>,
}

#[derive(Debug)]
struct LoadedApp {
    name: String,
    record: Stored,
    partitions: Vec<(String, Stored)>,
}

/// Why a meta server cannot begin to lead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record cannot be true.
    #[error("meta state: {key}: {what}")]
    Record {
        /// Its key.
        key: String,
        /// What is wrong.
        what: String,
    },
}

/// Reads everything; on a blocking stage.
///
/// # Errors
/// Those of the store.
pub fn read(store: &mut dyn MetaStore) -> Result<Loaded, StoreError> {
    let mut loaded = Loaded { next_app_id: store.get(ROOT)?, apps: Vec::new() };
    for (name, record) in store.children(ROOT)? {
        let partitions = store.children(&format!("{ROOT}/{name}"))?;
        loaded.apps.push(LoadedApp { name, record, partitions });
    }
    Ok(loaded)
}

fn bad(key: &str, what: impl Into<String>) -> LoadError {
    LoadError::Record { key: key.to_owned(), what: what.into() }
}

fn parse<T: Decode>(key: &str, value: &Bytes) -> Result<T, LoadError> {
    decode(value).map_err(|error| bad(key, error.to_string()))
}

impl Cluster {
    /// The state of a meta server that begins to lead. Unfinished changes have effects already.
    ///
    /// # Errors
    /// [`LoadError::Record`].
    pub fn load(
        options: ClusterOptions,
        loaded: Loaded,
        now: Mono,
        wall: Wall,
    ) -> Result<Self, LoadError> {
        let mut cluster = Self::new(options, now);
        if let Some(stored) = &loaded.next_app_id {
            cluster.next_app_id = parse(ROOT, &stored.value)?;
            cluster.counter_version = Some(stored.version);
        }
        for entry in loaded.apps {
            let app = load_app(&entry)?;
            let (app_id, status) = (app.info.app_id, app.info.status);
            if app_id >= cluster.next_app_id {
                return Err(bad(&app_key(app_id), "its id is not below the next id"));
            }
            if status != AppStatus::Dropped {
                let name = app.info.app_name.clone();
                if let Some(other) = cluster.names.insert(name, app_id) {
                    return Err(bad(
                        &app_key(app_id),
                        format!("{other} is called {} too", app.info.app_name),
                    ));
                }
            }
            cluster.apps.insert(app_id, app);
        }
        let configs: Vec<PartitionConfiguration> = cluster
            .apps
            .values()
            .flat_map(|app| app.partitions.iter().map(|partition| partition.config.clone()))
            .collect();
        for config in &configs {
            cluster.link(config);
            for node in members(config) {
                cluster.fd.register(node, now);
            }
        }
        cluster.resume(now, wall);
        Ok(cluster)
    }

    /// Goes on with changes of tables that were under way.
    fn resume(&mut self, now: Mono, wall: Wall) {
        let unfinished: Vec<i32> = self
            .apps
            .iter_mut()
            .filter_map(|(app_id, app)| {
                app.job = match app.info.status {
                    AppStatus::Creating => Some(Job::Create(None)),
                    AppStatus::Dropping => Some(Job::Drop(None)),
                    AppStatus::Recalling => Some(Job::Recall(None)),
                    _ => None,
                };
                app.job.as_ref().map(|_| *app_id)
            })
            .collect();
        for app_id in unfinished {
            tracing::info!(app_id, "going on with a change of a table");
            self.go_on(app_id, now, wall);
        }
    }
}

fn load_app(entry: &LoadedApp) -> Result<App, LoadError> {
    let key = format!("{ROOT}/{}", entry.name);
    let info: AppInfo = parse(&key, &entry.record.value)?;
    if entry.name != info.app_id.to_string() {
        return Err(bad(&key, format!("it is the record of table {}", info.app_id)));
    }
    if info.partition_count <= 0 {
        return Err(bad(&key, format!("{} partitions", info.partition_count)));
    }
    let complete = match info.status {
        AppStatus::Creating | AppStatus::Dropped => false,
        AppStatus::Available | AppStatus::Dropping | AppStatus::Recalling => true,
        other => return Err(bad(&key, format!("status {other} is never stored"))),
    };
    let mut app = App { version: Some(entry.record.version), ..App::new(info) };
    let mut partitions = Vec::with_capacity(entry.partitions.len());
    for (name, stored) in &entry.partitions {
        partitions.push(load_partition(&key, name, stored, &app.info)?);
    }
    partitions.sort_by_key(|(index, ..)| *index);
    for (at, (index, config, version)) in partitions.into_iter().enumerate() {
        if i32::try_from(at) != Ok(index) {
            return Err(bad(&key, format!("partition {at} is missing, {index} is there")));
        }
        app.partitions.push(Partition::new(config, version));
    }
    let found = app.partitions.len();
    if complete && i32::try_from(found) != Ok(app.info.partition_count) {
        return Err(bad(&key, format!("{found} of {} partitions", app.info.partition_count)));
    }
    Ok(app)
}

fn load_partition(
    app_key: &str,
    name: &str,
    stored: &Stored,
    info: &AppInfo,
) -> Result<(i32, PartitionConfiguration, Version), LoadError> {
    let key = format!("{app_key}/{name}");
    let config: PartitionConfiguration = parse(&key, &stored.value)?;
    let index = config.pid.partition_index;
    if config.pid != Gpid::new(info.app_id, index) || name != index.to_string() {
        return Err(bad(&key, format!("it is the record of partition {}", config.pid)));
    }
    if index < 0 || index >= info.partition_count {
        return Err(bad(&key, format!("the table has {} partitions", info.partition_count)));
    }
    Ok((index, config, stored.version))
}
