//! The storage app: one partition's data as a [`StateMachine`] of replication.
//!
//! It ties together the engine with its checkpoints, the write service (one caller at a time) and the
//! read service (any number of callers). Directories, below the replica's own:
//!
//! | path | what |
//! |---|---|
//! | `data/rdb` | the live engine |
//! | `data/checkpoint.<decree>` | checkpoints, see [`crate::engine::checkpoints`] |
//!
//! Opening makes sure that what the engine holds durably is also in a checkpoint, so that right
//! afterwards durable, flushed and applied decree are one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use dsn_core::exec::BlockingCtx;
use dsn_core::hash::mix64;
use dsn_core::metrics::Registry;
use dsn_core::time::Mono;
use dsn_replication::dirs::create_dir_durable;
use dsn_replication::ids::Decree;
use dsn_replication::mutation::Mutation;
use dsn_replication::state_machine::{
    AppError, ApplyError, ApplyMode, CheckpointKind, OpenArgs, ReadEnv, ReadMode, ReadOutcome,
    ReadRequest, Replies, StateMachine, StateMachineFactory, StorageCode,
};
use dsn_replication::wire::config::AppInfo;
use dsn_rpc::thrift::Text;
use parking_lot::Mutex;
use pegasus_client::schema::APP_TYPE;

use crate::codes::STORAGE_CODES;
use crate::engine::checkpoints::{Checkpoint, Checkpoints, Progress, ReservePolicy};
use crate::engine::mem::MemEngine;
use crate::engine::rocks::{RocksEngine, RocksShared};
use crate::engine::{EngineError, Stall, StorageEngine, meta};
use crate::identity::Identity;
use crate::metrics::StorageMetrics;
use crate::options::{EngineKind, StorageOptions};
use crate::read::ReadService;
use crate::scenario::{NUM_LEVELS, Tuning};
use crate::settings::TableSettings;
use crate::write::WriteService;

const DATA_DIR: &str = "data";
const ENGINE_DIR: &str = "rdb";

/// One partition's data.
pub struct StorageApp {
    engine: Arc<dyn StorageEngine>,
    checkpoints: Checkpoints,
    writer: Mutex<WriteService>,
    reader: ReadService,
    options: Arc<StorageOptions>,
    settings: Arc<TableSettings>,
    metrics: Arc<StorageMetrics>,
    tuning: Mutex<Tunings>,
    /// Differs from replica to replica.
    salt: u64,
}

/// What the engine is tuned for, and what it is to be tuned for.
#[derive(Debug, Default)]
struct Tunings {
    /// `None` for an engine as it was opened.
    present: Option<Tuning>,
    wanted: Tuning,
}

/// What an app is opened with, apart from where.
pub struct AppParts {
    /// The engine, open.
    pub engine: Arc<dyn StorageEngine>,
    /// Who answers.
    pub identity: Identity,
    /// Where its numbers go.
    pub metrics: StorageMetrics,
    /// The server's configuration.
    pub options: Arc<StorageOptions>,
    /// This cluster's id in a duplication group, 0 when it is in none.
    pub cluster_id: u8,
    /// Makes the ids of scans differ between replicas and between starts of one.
    pub scan_base: u32,
}

impl StorageApp {
    /// Puts an app together over an open engine whose directory is below `data_dir`, and brings its
    /// checkpoints up to what the engine holds durably.
    ///
    /// # Errors
    /// [`EngineError::Corruption`] when the checkpoints contradict the engine, and those of making one.
    pub fn new(
        parts: AppParts,
        disk: Arc<dyn dsn_core::disk::Disk>,
        data_dir: &Path,
        now: Mono,
    ) -> Result<Self, EngineError> {
        let AppParts { engine, identity, metrics, options, cluster_id, scan_base } = parts;
        let (identity, metrics) = (Arc::new(identity), Arc::new(metrics));
        let checkpoints = Checkpoints::load(engine.clone(), disk, data_dir, now)?;
        if checkpoints.last_durable() < engine.last_flushed()? {
            checkpoints.make(false, now)?;
        }
        let settings = Arc::new(TableSettings::default());
        let writer =
            WriteService::new(engine.clone(), identity.clone(), metrics.clone(), cluster_id);
        let reader = ReadService::new(
            engine.clone(),
            identity.clone(),
            metrics.clone(),
            options.clone(),
            settings.clone(),
            scan_base,
        );
        let (writer, tuning) = (Mutex::new(writer), Mutex::default());
        let salt = mix64((identity.app_id as u64) << 32 | identity.partition_index as u64);
        Ok(Self { engine, checkpoints, writer, reader, options, settings, metrics, tuning, salt })
    }

    /// Tunes the engine as it was tuned before its server ended; envs are not kept on the disk.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn restore_tuning(&self) -> Result<(), EngineError> {
        let stored = self.engine.meta(meta::USAGE_SCENARIO)?;
        let scenario = stored.and_then(|text| text.parse().ok()).unwrap_or_default();
        self.tuning.lock().wanted.scenario = scenario;
        self.tune()
    }

    /// Brings the engine's options to what is wanted; may block.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn tune(&self) -> Result<(), EngineError> {
        let mut tuning = self.tuning.lock();
        let wanted = tuning.wanted;
        if tuning.present.unwrap_or_default() == wanted {
            return Ok(());
        }
        let options = wanted.engine_options(&self.options, self.salt);
        let options: Vec<(&str, &str)> =
            options.iter().map(|(key, value)| (*key, value.as_str())).collect();
        self.engine.set_options(&options)?;
        if tuning.present.unwrap_or_default().scenario != wanted.scenario {
            self.engine.set_meta(meta::USAGE_SCENARIO, wanted.scenario.name())?;
        }
        tracing::info!(salt = self.salt, ?wanted, "storage engine tuned");
        tuning.present = Some(wanted);
        Ok(())
    }

    /// The engine.
    pub fn engine(&self) -> &Arc<dyn StorageEngine> {
        &self.engine
    }

    /// What it has done.
    pub fn metrics(&self) -> &StorageMetrics {
        &self.metrics
    }

    /// The checkpoints.
    pub fn checkpoints(&self) -> &Checkpoints {
        &self.checkpoints
    }

    /// The newest checkpoint, for a learner. Its directory stays while the result is held.
    pub fn newest_checkpoint(&self) -> Option<Arc<Checkpoint>> {
        self.checkpoints.newest()
    }

    /// Removes checkpoints that are neither among the newest nor young. With `force` all but the
    /// newest.
    pub fn collect_checkpoints(&self, force: bool, now: Mono) -> usize {
        let (options, settings) = (&self.options, &self.settings);
        let count = settings
            .reserve_min_count()
            .unwrap_or_else(|| options.checkpoint_reserve_min_count.get());
        let seconds = settings
            .reserve_time_seconds()
            .unwrap_or_else(|| options.checkpoint_reserve_time_seconds.get());
        let policy =
            ReservePolicy { min_count: count as usize, min_age: Duration::from_secs(seconds) };
        self.checkpoints.collect(policy, force, now)
    }

    /// Housekeeping, to be called every few seconds where blocking is allowed: drops abandoned scans
    /// and refreshes gauges.
    pub fn tick(&self, now: Mono) {
        self.reader.expire_scans(now);
        let stats = self.engine.stats();
        let metrics = &self.metrics;
        metrics.rdb_total_sst_files.set_u64(stats.sst_files);
        metrics.rdb_total_sst_size_mb.set_u64(stats.sst_bytes >> 20);
        metrics.rdb_estimated_keys.set_u64(stats.estimated_keys);
        metrics.rdb_memtable_mem_usage_bytes.set_u64(stats.memtable_bytes);
        metrics.rdb_index_and_filter_blocks_mem_usage_bytes.set_u64(stats.index_and_filter_bytes);
    }
}

impl StateMachine for StorageApp {
    fn apply(
        &self,
        run: &[Mutation],
        mode: ApplyMode,
        replies: &mut Replies,
    ) -> Result<(), ApplyError> {
        let stall = match mode {
            ApplyMode::Worker => Stall::Refuse,
            ApplyMode::Blocking => Stall::Wait,
        };
        self.writer.lock().apply(run, stall, replies).map_err(|error| match error {
            EngineError::WouldBlock => ApplyError::WouldBlock,
            other => ApplyError::Failed(app_error(other)),
        })
    }

    fn last_applied(&self) -> Decree {
        Decree(self.engine.last_committed())
    }

    fn last_durable(&self) -> Decree {
        Decree(self.checkpoints.last_durable())
    }

    fn read(
        &self,
        request: &ReadRequest,
        mode: ReadMode,
        env: &ReadEnv<'_>,
        out: &mut BytesMut,
    ) -> ReadOutcome {
        self.reader.read(request.code, &request.body, mode, env, out)
    }

    fn checkpoint(&self, job: &BlockingCtx<'_>, kind: CheckpointKind) -> Result<Decree, AppError> {
        let flush = kind == CheckpointKind::Flush;
        match self.checkpoints.make(flush, job.now()).map_err(app_error)? {
            Progress::Made(decree) => {
                self.collect_checkpoints(false, job.now());
                Ok(Decree(decree))
            }
            Progress::UpToDate(decree) => Ok(Decree(decree)),
            Progress::Flushing => Err(AppError::TryAgain),
            Progress::Occupied => Err(AppError::WrongTiming),
        }
    }

    fn stamp(&self) -> u32 {
        self.engine.retention().default_ttl()
    }

    fn reconfigure(&self, info: &AppInfo) {
        let default_ttl = self.settings.update(&info.envs, info.partition_count);
        self.engine.retention().set_default_ttl(default_ttl);
        self.tuning.lock().wanted = Tuning::of(&info.envs);
    }

    fn settle(&self, _job: &BlockingCtx<'_>) {
        if let Err(error) = self.tune() {
            tracing::warn!(%error, "the storage engine does not take a table's settings");
        }
    }

    fn close(&self, _job: &BlockingCtx<'_>) {
        self.reader.clear_scans();
        // What cannot be written out now is replayed from the log.
        if let Err(error) = self.engine.flush(true) {
            tracing::warn!(%error, "flushing a replica that is being closed failed");
        }
        self.engine.stop();
    }
}

/// Opens storage apps of one server.
pub struct StorageAppFactory {
    options: Arc<StorageOptions>,
    /// `None` when the engine is not RocksDB.
    rocks: Option<RocksShared>,
    registry: Registry,
    server: Text,
    cluster_id: u8,
}

impl StorageAppFactory {
    /// A factory for the server at `server` (`host:port`), whose replicas share caches and threads.
    ///
    /// # Errors
    /// When RocksDB refuses the configuration.
    pub fn new(
        options: StorageOptions,
        registry: Registry,
        server: &str,
        cluster_id: u8,
    ) -> Result<Self, EngineError> {
        let rocks = match options.storage_engine {
            EngineKind::Rocks => Some(RocksShared::new(&options)?),
            EngineKind::Memory => None,
        };
        Ok(Self {
            options: Arc::new(options),
            rocks,
            registry,
            server: Text::from(server),
            cluster_id,
        })
    }

    /// Opens the app in the replica directory `args.dir`; see [`StateMachineFactory::open`].
    ///
    /// # Errors
    /// Those of the engine.
    pub fn open_app(
        &self,
        job: &BlockingCtx<'_>,
        args: &OpenArgs<'_>,
    ) -> Result<StorageApp, EngineError> {
        let disk = job.disk();
        let data_dir: PathBuf = args.dir.join(DATA_DIR);
        create_dir_durable(&**disk, &data_dir)
            .map_err(|error| EngineError::io("creating", &data_dir, &error))?;
        let engine_dir = data_dir.join(ENGINE_DIR);
        let options = self.options_for(args.info);
        let engine: Arc<dyn StorageEngine> = match &self.rocks {
            Some(shared) => Arc::new(RocksEngine::open(&engine_dir, &options, shared, &**disk)?),
            None => Arc::new(MemEngine::open(&engine_dir, disk.clone())?),
        };
        let gpid = args.gpid;
        let (table, partition) = (gpid.app_id.to_string(), gpid.partition_index.to_string());
        let metrics = StorageMetrics::new(
            &self.registry,
            &format!("replica@{table}.{partition}"),
            [("table_id", table.as_str()), ("partition_id", partition.as_str())],
        );
        let place = (gpid.app_id as u64) << 32 | gpid.partition_index as u64;
        let parts = AppParts {
            engine,
            identity: Identity {
                app_id: gpid.app_id,
                partition_index: gpid.partition_index,
                server: self.server.clone(),
            },
            metrics,
            options: self.options.clone(),
            cluster_id: self.cluster_id,
            scan_base: mix64(mix64(job.wall().unix_nanos()) ^ place) as u32,
        };
        let app = StorageApp::new(parts, disk.clone(), &data_dir, job.now())?;
        app.restore_tuning()?;
        // Without envs nothing is known of what the table wants, see `restore_tuning`.
        if !args.info.envs.is_empty() {
            app.reconfigure(args.info);
            app.tune()?;
        }
        Ok(app)
    }

    /// The server's options with what a table may say about a new database.
    fn options_for(&self, info: &AppInfo) -> StorageOptions {
        let mut options = StorageOptions::clone(&self.options);
        if let Some(levels) = info.envs.get(NUM_LEVELS).and_then(|text| text.parse().ok()) {
            options.rocksdb_num_levels = levels;
        }
        options
    }
}

impl StateMachineFactory for StorageAppFactory {
    fn app_type(&self) -> &str {
        APP_TYPE
    }

    fn open(
        &self,
        job: &BlockingCtx<'_>,
        args: &OpenArgs<'_>,
    ) -> Result<Arc<dyn StateMachine>, AppError> {
        let app = self.open_app(job, args).map_err(app_error)?;
        Ok(Arc::new(app))
    }

    fn codes(&self) -> &[StorageCode] {
        &STORAGE_CODES
    }
}

fn app_error(error: EngineError) -> AppError {
    match error {
        EngineError::Corruption(text) => AppError::Corrupt(text),
        EngineError::Io(text) => AppError::Disk(text),
        other => AppError::Failed(other.to_string()),
    }
}
