//! The RocksDB engine: one database per replica.
//!
//! Two column families, data and meta, are written by the same batches and flushed together
//! (`atomic_flush`); RocksDB's own log is off. These three are one mechanism: the decree that the
//! table files hold is exactly the decree of the data in them, so that after a crash the replica's log
//! is replayed from there, nothing lost and nothing applied twice.
//!
//! A new database is made beside its place and renamed into it once complete, so that a crash while
//! creating leaves nothing that could be mistaken for a damaged one.

mod error;
mod ffi;
mod filter;
mod iter;
mod saved;
mod shared;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use dsn_core::disk::Disk;
use pegasus_client::schema::value::DataVersion;
use rocksdb::checkpoint::Checkpoint;
use rocksdb::properties as prop;
use rocksdb::{
    BottommostLevelCompaction, ColumnFamily, ColumnFamilyDescriptor, CompactOptions, DB,
    DEFAULT_COLUMN_FAMILY_NAME, FlushOptions, Options, ReadOptions, WriteBatch, WriteOptions,
};

pub use shared::RocksShared;

use self::error::engine_error;
use self::iter::RocksIter;
use super::meta::{self, Decimal, META_FAMILY};
use super::record_cache::{Lookup, RecordCache, Records};
use super::{
    Batch, Direction, EngineError, EngineIter, EngineStats, ReadTier, Retention, Scope, Stall,
    StorageEngine, place,
};
use crate::options::StorageOptions;

/// Log size that keeps a checkpoint from flushing.
const NEVER_FLUSH: u64 = u64::MAX;

/// A RocksDB database. See [`StorageEngine`].
pub struct RocksEngine {
    db: Arc<DB>,
    shared: RocksShared,
    meta_id: u32,
    last_committed: AtomicI64,
    data_version: DataVersion,
    retention: Arc<Retention>,
    records: Option<Records>,
    read_all: ReadOptions,
    read_cached: ReadOptions,
    write_wait: WriteOptions,
    write_refuse: WriteOptions,
}

impl RocksEngine {
    /// Opens the database in `dir`, or creates one if `dir` does not exist.
    ///
    /// # Errors
    /// [`EngineError::Corruption`] when the directory is there but is not a complete database of ours,
    /// [`EngineError::InvalidArgument`] for a data version from the future or a bad option.
    pub fn open(
        dir: &Path,
        options: &StorageOptions,
        shared: &RocksShared,
        disk: &dyn Disk,
    ) -> Result<Self, EngineError> {
        if !disk.exists(dir) {
            create(dir, options, shared, disk)?;
        }
        let mut options = options.clone();
        if let Some(levels) = saved::num_levels(disk, dir)? {
            options.rocksdb_num_levels = levels;
        }
        check_families(dir, shared, &options)?;
        let retention = Arc::new(Retention::default());
        let db = open_families(dir, &options, shared, Some(retention.clone()))?;
        let family = meta_family(&db)?;
        let meta_id = ffi::family_id(family);
        let decree = read_decree(&db, &persisted())?;
        let version = read_meta(&db, meta::DATA_VERSION, &ReadOptions::default())?
            .ok_or_else(|| missing(meta::DATA_VERSION))?;
        Ok(Self {
            meta_id,
            last_committed: AtomicI64::new(decree),
            data_version: meta::parse_data_version(&version)?,
            retention,
            records: shared.records.as_ref().map(RecordCache::records),
            read_all: read_options(rocksdb::ReadTier::All),
            read_cached: read_options(rocksdb::ReadTier::BlockCache),
            write_wait: write_options(false),
            write_refuse: write_options(true),
            shared: shared.clone(),
            db: Arc::new(db),
        })
    }

    fn meta_put(&self, key: &str, value: &str) -> Result<(), EngineError> {
        self.db
            .put_cf_opt(meta_family(&self.db)?, key, value, &self.write_wait)
            .map_err(engine_error)
    }

    fn number(&self, property: &prop::PropName) -> u64 {
        self.db.property_int_value(property).ok().flatten().unwrap_or(0)
    }
}

impl StorageEngine for RocksEngine {
    #[inline]
    fn get(
        &self,
        key: &[u8],
        tier: ReadTier,
        visit: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, EngineError> {
        let options = match tier {
            ReadTier::All => &self.read_all,
            ReadTier::CacheOnly => &self.read_cached,
        };
        let mut vacancy = None;
        if let Some(records) = &self.records {
            let mut accept = |value: &[u8]| {
                let spared = self.retention.spares(key, value);
                if spared {
                    visit(value);
                }
                spared
            };
            match records.get(key, &mut accept) {
                Lookup::Hit => return Ok(true),
                Lookup::Miss(found) => vacancy = found,
            }
        }
        let Some(value) = self.db.get_pinned_opt(key, options).map_err(engine_error)? else {
            return Ok(false);
        };
        visit(&value);
        if let (Some(records), Some(vacancy)) = (&self.records, vacancy) {
            records.insert(vacancy, key, &value);
        }
        Ok(true)
    }

    fn iter(&self, start: &[u8], direction: Direction, scope: Scope) -> Box<dyn EngineIter> {
        Box::new(RocksIter::new(self.db.clone(), start, direction, scope))
    }

    fn write(&self, batch: &mut Batch, decree: i64, stall: Stall) -> Result<(), EngineError> {
        let options = match stall {
            Stall::Wait => &self.write_wait,
            Stall::Refuse => &self.write_refuse,
        };
        let writing = self.records.as_ref().map(|records| records.begin_write(batch));
        let digits = Decimal::of(decree);
        let key = meta::LAST_FLUSHED_DECREE.as_bytes();
        batch
            .with_family_put(self.meta_id, key, digits.as_bytes(), |rep| {
                self.db.write_opt(WriteBatch::from_data(rep), options)
            })
            .map_err(engine_error)?;
        drop(writing);
        self.last_committed.store(decree, Ordering::Release);
        Ok(())
    }

    fn flush(&self, wait: bool) -> Result<(), EngineError> {
        flush_both(&self.db, wait)
    }

    fn last_committed(&self) -> i64 {
        self.last_committed.load(Ordering::Acquire)
    }

    fn last_flushed(&self) -> Result<i64, EngineError> {
        read_decree(&self.db, &persisted())
    }

    fn data_version(&self) -> DataVersion {
        self.data_version
    }

    fn meta(&self, key: &str) -> Result<Option<String>, EngineError> {
        read_meta(&self.db, key, &self.read_all)
    }

    fn set_meta(&self, key: &str, value: &str) -> Result<(), EngineError> {
        if key == meta::LAST_FLUSHED_DECREE {
            return Err(EngineError::InvalidArgument("the decree belongs to batches".to_owned()));
        }
        self.meta_put(key, value)
    }

    fn copy_to(&self, dir: &Path, flush: bool) -> Result<i64, EngineError> {
        let checkpoint = Checkpoint::new(&*self.db).map_err(engine_error)?;
        let log_size = if flush { 0 } else { NEVER_FLUSH };
        checkpoint.create_checkpoint_with_log_size(dir, log_size).map_err(engine_error)?;
        let families = [DEFAULT_COLUMN_FAMILY_NAME, META_FAMILY];
        let copy = DB::open_cf_for_read_only(&Options::default(), dir, families, false)
            .map_err(engine_error)?;
        read_decree(&copy, &ReadOptions::default())
    }

    fn retention(&self) -> &Retention {
        &self.retention
    }

    fn compact(&self) -> Result<(), EngineError> {
        self.flush(true)?;
        let mut options = CompactOptions::default();
        options.set_exclusive_manual_compaction(true);
        options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        self.db.compact_range_opt(None::<&[u8]>, None::<&[u8]>, &options);
        Ok(())
    }

    fn set_options(&self, options: &[(&str, &str)]) -> Result<(), EngineError> {
        self.db.set_options(options).map_err(engine_error)
    }

    fn stats(&self) -> EngineStats {
        let files = self.db.live_files().unwrap_or_default();
        let (block_cache_bytes, block_cache_pinned_bytes) = self.shared.block_cache_usage();
        EngineStats {
            sst_files: files.len() as u64,
            sst_bytes: files.iter().map(|file| file.size as u64).sum(),
            estimated_keys: self.number(prop::ESTIMATE_NUM_KEYS),
            memtable_bytes: self.number(prop::CUR_SIZE_ALL_MEM_TABLES),
            index_and_filter_bytes: self.number(prop::ESTIMATE_TABLE_READERS_MEM),
            block_cache_bytes,
            block_cache_pinned_bytes,
            writes_delayed: self.number(prop::ACTUAL_DELAYED_WRITE_RATE) > 0,
            writes_stopped: self.number(prop::IS_WRITE_STOPPED) > 0,
            running_flushes: self.number(prop::NUM_RUNNING_FLUSHES),
            running_compactions: self.number(prop::NUM_RUNNING_COMPACTIONS),
            pending_compaction_bytes: self.number(prop::ESTIMATE_PENDING_COMPACTION_BYTES),
        }
    }

    fn stop(&self) {
        self.db.cancel_all_background_work(true);
    }
}

/// Makes an empty database in `dir`, complete or not at all.
fn create(
    dir: &Path,
    options: &StorageOptions,
    shared: &RocksShared,
    disk: &dyn Disk,
) -> Result<(), EngineError> {
    place::create_complete(disk, dir, |making| {
        let db = open_families(making, options, shared, None)?;
        let family = meta_family(&db)?;
        let write = write_options(false);
        let version = DataVersion::default().number().to_string();
        let bootstrap = [
            (meta::DATA_VERSION, version.as_str()),
            (meta::LAST_FLUSHED_DECREE, "0"),
            (meta::LAST_MANUAL_COMPACT_FINISH_TIME, "0"),
        ];
        for (key, value) in bootstrap {
            db.put_cf_opt(family, key, value, &write).map_err(engine_error)?;
        }
        flush_both(&db, true)
    })
}

/// Both column families must be there, and no other.
fn check_families(
    dir: &Path,
    shared: &RocksShared,
    options: &StorageOptions,
) -> Result<(), EngineError> {
    let mut found = DB::list_cf(&shared.db_options(options), dir)
        .map_err(|error| EngineError::Corruption(format!("{}: {error}", dir.display())))?;
    found.sort_unstable();
    if found == [DEFAULT_COLUMN_FAMILY_NAME, META_FAMILY] {
        return Ok(());
    }
    Err(EngineError::Corruption(format!(
        "{}: column families {found:?} instead of {DEFAULT_COLUMN_FAMILY_NAME:?} and {META_FAMILY:?}",
        dir.display()
    )))
}

fn open_families(
    dir: &Path,
    options: &StorageOptions,
    shared: &RocksShared,
    retention: Option<Arc<Retention>>,
) -> Result<DB, EngineError> {
    let mut data = shared.data_family(options)?;
    if let Some(retention) = retention {
        filter::install(&mut data, retention);
    }
    let families = [
        ColumnFamilyDescriptor::new(DEFAULT_COLUMN_FAMILY_NAME, data),
        ColumnFamilyDescriptor::new(META_FAMILY, shared.meta_family(options)),
    ];
    DB::open_cf_descriptors(&shared.db_options(options), dir, families).map_err(engine_error)
}

fn flush_both(db: &DB, wait: bool) -> Result<(), EngineError> {
    let mut options = FlushOptions::default();
    options.set_wait(wait);
    let data = family(db, DEFAULT_COLUMN_FAMILY_NAME)?;
    db.flush_cfs_opt(&[&data, &meta_family(db)?], &options).map_err(engine_error)
}

fn meta_family(db: &DB) -> Result<&ColumnFamily, EngineError> {
    family(db, META_FAMILY)
}

fn family<'a>(db: &'a DB, name: &str) -> Result<&'a ColumnFamily, EngineError> {
    db.cf_handle(name)
        .ok_or_else(|| EngineError::Corruption(format!("column family {name} is missing")))
}

fn read_meta(db: &DB, key: &str, options: &ReadOptions) -> Result<Option<String>, EngineError> {
    let value = db.get_cf_opt(meta_family(db)?, key, options).map_err(engine_error)?;
    value
        .map(|bytes| {
            String::from_utf8(bytes)
                .map_err(|_| EngineError::Corruption(format!("meta value of {key} is not text")))
        })
        .transpose()
}

fn read_decree(db: &DB, options: &ReadOptions) -> Result<i64, EngineError> {
    let key = meta::LAST_FLUSHED_DECREE;
    let text = read_meta(db, key, options)?.ok_or_else(|| missing(key))?;
    meta::parse_number(key, &text)
}

fn missing(key: &str) -> EngineError {
    EngineError::Corruption(format!("meta value of {key} is missing"))
}

fn persisted() -> ReadOptions {
    read_options(rocksdb::ReadTier::Persisted)
}

fn read_options(tier: rocksdb::ReadTier) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_read_tier(tier);
    options
}

fn write_options(refuse_stall: bool) -> WriteOptions {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    options.set_no_slowdown(refuse_stall);
    options
}
