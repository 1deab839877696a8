//! The in-memory engine: what the simulator runs most of its seeds on.
//!
//! The records live in an ordered map shared by reference count. Iterators hold a reference to the map as it was;
//! the first write while one does copies the map (the keys and values themselves are shared), so a
//! snapshot costs a copy of the index and nothing until then.
//!
//! Durable is what [`image`] wrote last, one file replaced atomically by each flush. Nothing else is on
//! disk: dropping the engine, or a power loss, loses what came after the last flush. Nothing ever blocks except the
//! file operations of flush and copy.

mod image;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use dsn_core::disk::Disk;
use parking_lot::{Mutex, RwLock};
use pegasus_client::schema::value::DataVersion;

use self::image::Image;
use super::meta;
use super::retention::Verdict;
use super::{
    Batch, Direction, EngineError, EngineIter, EngineStats, ReadTier, Record, Retention, Scope,
    Stall, StorageEngine, place, prefix,
};

type Table = BTreeMap<Bytes, Bytes>;

/// An ordered map with explicit persistence. See [`StorageEngine`].
pub struct MemEngine {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    state: RwLock<State>,
    /// Decree of the image on disk; the lock is held while one is written or copied.
    flushed: Mutex<i64>,
    data_version: DataVersion,
    retention: Retention,
}

struct State {
    table: Arc<Table>,
    meta: BTreeMap<String, String>,
    committed: i64,
}

impl MemEngine {
    /// Opens the engine in `dir`, or creates an empty one if `dir` does not exist.
    ///
    /// # Errors
    /// [`EngineError::Corruption`] when the image is missing, damaged or from another version.
    pub fn open(dir: &Path, disk: Arc<dyn Disk>) -> Result<Self, EngineError> {
        if !disk.exists(dir) {
            place::create_complete(&*disk, dir, |making| {
                Image::empty(DataVersion::default()).store(&*disk, making)
            })?;
        }
        // A flush may have failed after the image got its name: what is found is made durable before it is trusted.
        sync_dir(&*disk, dir)?;
        let image = Image::load(&*disk, dir)?;
        let version = image.meta.get(meta::DATA_VERSION).ok_or_else(|| {
            let place = dir.display();
            EngineError::Corruption(format!(
                "{place}: meta value of {} is missing",
                meta::DATA_VERSION
            ))
        })?;
        Ok(Self {
            dir: dir.to_owned(),
            disk,
            flushed: Mutex::new(image.decree),
            data_version: meta::parse_data_version(version)?,
            retention: Retention::default(),
            state: RwLock::new(State {
                table: image.table,
                meta: image.meta,
                committed: image.decree,
            }),
        })
    }

    fn image(&self) -> Image {
        let state = self.state.read();
        Image { decree: state.committed, meta: state.meta.clone(), table: state.table.clone() }
    }
}

fn sync_dir(disk: &dyn Disk, dir: &Path) -> Result<(), EngineError> {
    disk.sync_dir(dir).map_err(|error| EngineError::io("syncing", dir, &error))
}

impl StorageEngine for MemEngine {
    fn get(
        &self,
        key: &[u8],
        _tier: ReadTier,
        visit: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, EngineError> {
        let value = self.state.read().table.get(key).cloned();
        Ok(match value {
            Some(value) => {
                visit(&value);
                true
            }
            None => false,
        })
    }

    fn iter(&self, start: &[u8], direction: Direction, scope: Scope) -> Box<dyn EngineIter> {
        let table = self.state.read().table.clone();
        Box::new(MemIter::new(table, start, direction, scope))
    }

    fn write(&self, batch: &mut Batch, decree: i64, _stall: Stall) -> Result<(), EngineError> {
        let mut state = self.state.write();
        let table = Arc::make_mut(&mut state.table);
        for record in batch.records() {
            match record {
                Record::Put { key, value } => {
                    table.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
                }
                Record::Delete { key } => {
                    table.remove(key);
                }
            }
        }
        state.committed = decree;
        Ok(())
    }

    fn flush(&self, _wait: bool) -> Result<(), EngineError> {
        let mut flushed = self.flushed.lock();
        let image = self.image();
        image.store(&*self.disk, &self.dir)?;
        *flushed = image.decree;
        Ok(())
    }

    fn last_committed(&self) -> i64 {
        self.state.read().committed
    }

    fn last_flushed(&self) -> Result<i64, EngineError> {
        Ok(*self.flushed.lock())
    }

    fn data_version(&self) -> DataVersion {
        self.data_version
    }

    fn meta(&self, key: &str) -> Result<Option<String>, EngineError> {
        Ok(self.state.read().meta.get(key).cloned())
    }

    fn set_meta(&self, key: &str, value: &str) -> Result<(), EngineError> {
        if key == meta::LAST_FLUSHED_DECREE {
            return Err(EngineError::InvalidArgument("the decree belongs to batches".to_owned()));
        }
        self.state.write().meta.insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    fn copy_to(&self, dir: &Path, flush: bool) -> Result<i64, EngineError> {
        if flush {
            self.flush(true)?;
        }
        let flushed = self.flushed.lock();
        // What a flush has left there whose last sync failed must not be older than its copy.
        sync_dir(&*self.disk, &self.dir)?;
        let image = Image::load(&*self.disk, &self.dir)?;
        drop(flushed);
        self.disk.create_dir_all(dir).map_err(|error| EngineError::io("creating", dir, &error))?;
        image.store(&*self.disk, dir)?;
        Ok(image.decree)
    }

    fn retention(&self) -> &Retention {
        &self.retention
    }

    fn compact(&self) -> Result<(), EngineError> {
        let policy = self.retention.policy();
        {
            let mut state = self.state.write();
            let mut kept = Table::new();
            for (key, value) in &*state.table {
                match policy.judge(key, value) {
                    Verdict::Keep => {
                        kept.insert(key.clone(), value.clone());
                    }
                    Verdict::Drop => {}
                    Verdict::SetExpire(header) => {
                        let value = [&header[..], &value[header.len()..]].concat();
                        kept.insert(key.clone(), value.into());
                    }
                }
            }
            state.table = Arc::new(kept);
        }
        self.flush(true)
    }

    fn set_options(&self, _options: &[(&str, &str)]) -> Result<(), EngineError> {
        Ok(())
    }

    fn stats(&self) -> EngineStats {
        let table = self.state.read().table.clone();
        let bytes: usize = table.iter().map(|(key, value)| key.len() + value.len()).sum();
        EngineStats {
            estimated_keys: table.len() as u64,
            memtable_bytes: bytes as u64,
            ..EngineStats::default()
        }
    }

    fn stop(&self) {}
}

/// A walk over one version of the table.
struct MemIter {
    table: Arc<Table>,
    direction: Direction,
    /// Keys must start with this, `None` for no limit.
    within: Option<Bytes>,
    current: Option<(Bytes, Bytes)>,
}

impl MemIter {
    fn new(table: Arc<Table>, start: &[u8], direction: Direction, scope: Scope) -> Self {
        let limited = scope == Scope::SameHashKey
            && direction == Direction::Forward
            && prefix::in_domain(start);
        let within = limited.then(|| Bytes::copy_from_slice(prefix::prefix_of(start)));
        let mut iter = Self { table, direction, within, current: None };
        iter.current = iter.find(Bound::Included(start));
        iter
    }

    /// The first record from `bound` on, in the walk's direction and scope.
    fn find(&self, bound: Bound<&[u8]>) -> Option<(Bytes, Bytes)> {
        let found = match self.direction {
            Direction::Forward => self.table.range::<[u8], _>((bound, Bound::Unbounded)).next(),
            Direction::Reverse => {
                self.table.range::<[u8], _>((Bound::Unbounded, bound)).next_back()
            }
        };
        let (key, value) = found?;
        let outside = self.within.as_ref().is_some_and(|within| prefix::prefix_of(key) != within);
        if outside { None } else { Some((key.clone(), value.clone())) }
    }
}

impl EngineIter for MemIter {
    fn entry(&self) -> Option<(&[u8], &[u8])> {
        self.current.as_ref().map(|(key, value)| (&key[..], &value[..]))
    }

    fn advance(&mut self) {
        if let Some((key, _)) = self.current.take() {
            self.current = self.find(Bound::Excluded(&key));
        }
    }

    fn status(&self) -> Result<(), EngineError> {
        Ok(())
    }
}
