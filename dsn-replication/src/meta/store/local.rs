//! The embedded store: an image in memory, a log of commits and a snapshot in one directory.
//!
//! Files of generation `g`: `snapshot.g` (the whole image) and `log.g` (commits since). Opening reads the newest
//! generation and at once writes the next one, which makes three things true: the epoch is stored, a torn tail is never
//! appended to, and nothing that is served rests on pages which a failed sync may have left unwritten. While running,
//! a log that has outgrown the image starts a new generation in the same way.
//!
//! Order of the durable steps of a new generation: snapshot under a temporary name, synced, renamed, directory synced;
//! empty log created, directory synced; only then the older generation is removed. A commit is acknowledged when its
//! frame is synced. A bad frame at the end of the last log is a commit that was never acknowledged, and is
//! dropped; everything else that does not read is reported and nothing is served.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use dsn_core::disk::{self, Disk, File, OpenMode, SyncMode};
use dsn_core::planted;

use super::log::{self, Image};
use super::{Epoch, MetaStore, StoreError, Stored, Transaction, check_limits};
use crate::dirs::create_root_durable;

/// A log below this size is never rewritten, in bytes.
pub const LOG_MIN_ROLL: u64 = 16 << 20;

/// A log this many times as large as the image is rewritten.
pub const LOG_ROLL_FACTOR: u64 = 2;

const SNAPSHOT: &str = "snapshot.";
const LOG: &str = "log.";

/// The embedded store of one meta server.
#[derive(Debug)]
pub struct LocalStore {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    image: Image,
    open: Option<OpenLog>,
    min_roll: u64,
}

#[derive(Debug)]
struct OpenLog {
    generation: u64,
    file: Arc<dyn File>,
    len: u64,
    next_frame: u64,
    snapshot_len: u64,
}

/// A file of the store.
struct StoreFile {
    name: String,
    generation: u64,
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Failed(format!("{what} {}: {error}", path.display()))
}

impl LocalStore {
    /// A store in `dir`, which is made when it is missing. Nothing is read before [`MetaStore::acquire`].
    pub fn new(disk: Arc<dyn Disk>, dir: impl Into<PathBuf>) -> Self {
        Self { disk, dir: dir.into(), image: Image::default(), open: None, min_roll: LOG_MIN_ROLL }
    }

    #[cfg(test)]
    pub(super) fn rolling_at(mut self, bytes: u64) -> Self {
        self.min_roll = bytes;
        self
    }

    fn path(&self, kind: &str, generation: u64) -> PathBuf {
        self.dir.join(format!("{kind}{generation}"))
    }

    /// The generations that have a snapshot, and every file.
    fn files(&self) -> Result<(Vec<u64>, Vec<StoreFile>), StoreError> {
        let entries =
            self.disk.list(&self.dir).map_err(|error| failed("list", &self.dir, &error))?;
        let mut snapshots = Vec::new();
        let mut files = Vec::new();
        for entry in entries {
            let number = |kind: &str| entry.name.strip_prefix(kind)?.parse::<u64>().ok();
            if let Some(generation) = number(SNAPSHOT) {
                snapshots.push(generation);
                files.push(StoreFile { name: entry.name.clone(), generation });
            } else if let Some(generation) = number(LOG) {
                files.push(StoreFile { name: entry.name.clone(), generation });
            }
        }
        Ok((snapshots, files))
    }

    /// Reads the newest generation; 0 when there is none.
    fn load(&mut self) -> Result<u64, StoreError> {
        self.image = Image::default();
        let (snapshots, files) = self.files()?;
        let Some(generation) = snapshots.into_iter().max() else {
            if let Some(StoreFile { name, .. }) = files.first() {
                return Err(StoreError::Damaged {
                    file: self.dir.join(name).display().to_string(),
                    offset: 0,
                    what: "a log without any snapshot".to_owned(),
                });
            }
            return Ok(0);
        };
        let path = self.path(SNAPSHOT, generation);
        let content = self.read(&path)?;
        let damaged = |offset: usize, what: &str| StoreError::Damaged {
            file: path.display().to_string(),
            offset: offset as u64,
            what: what.to_owned(),
        };
        let (number, body, len) =
            log::parse(&content).ok_or_else(|| damaged(0, "checksum of the snapshot"))?;
        if number != 0 || len != content.len() {
            return Err(damaged(len, "more than a snapshot"));
        }
        self.image.replay(body).ok_or_else(|| damaged(0, "malformed snapshot"))?;
        let path = self.path(LOG, generation);
        if files.iter().any(|file| self.dir.join(&file.name) == path) {
            self.replay_log(&path)?;
        }
        Ok(generation)
    }

    fn read(&self, path: &Path) -> Result<Bytes, StoreError> {
        disk::read_file(&*self.disk, path).map_err(|error| failed("read", path, &error))
    }

    fn replay_log(&mut self, path: &Path) -> Result<(), StoreError> {
        let content = self.read(path)?;
        let mut offset = 0;
        let mut expected = 1;
        let damaged = |offset: usize, what: String| StoreError::Damaged {
            file: path.display().to_string(),
            offset: offset as u64,
            what,
        };
        while offset < content.len() {
            let rest = content.slice(offset..);
            match log::parse(&rest) {
                Some((number, body, len)) if number == expected => {
                    self.image
                        .replay(body)
                        .ok_or_else(|| damaged(offset, format!("malformed commit {number}")))?;
                    offset += len;
                    expected += 1;
                }
                Some((number, ..)) => {
                    return Err(damaged(offset, format!("commit {number} instead of {expected}")));
                }
                None if log::any_frame(&rest, expected + 1) => {
                    return Err(damaged(
                        offset,
                        format!("commit {expected} is unreadable, later ones are there"),
                    ));
                }
                None => {
                    tracing::info!(
                        file = %path.display(),
                        offset,
                        bytes = rest.len(),
                        "dropped a commit that was not complete"
                    );
                    break;
                }
            }
        }
        Ok(())
    }

    /// Writes the image as generation `generation`, opens its log and removes older files.
    fn begin(&mut self, generation: u64) -> Result<(), StoreError> {
        self.open = None;
        let path = self.path(SNAPSHOT, generation);
        let content = log::frame(0, &self.image.body());
        let snapshot_len = content.len() as u64;
        disk::write_file_durable(&*self.disk, &path, content)
            .map_err(|error| failed("write", &path, &error))?;
        let path = self.path(LOG, generation);
        if self.disk.exists(&path) {
            // Left by an attempt that ended before anything was committed to it.
            self.disk.unlink(&path).map_err(|error| failed("remove", &path, &error))?;
        }
        let file = self
            .disk
            .open(&path, OpenMode::CreateNew)
            .map_err(|error| failed("create", &path, &error))?;
        self.disk.sync_dir(&self.dir).map_err(|error| failed("sync", &self.dir, &error))?;
        for file in self.files()?.1 {
            if file.generation < generation {
                let path = self.dir.join(file.name);
                self.disk.unlink(&path).map_err(|error| failed("remove", &path, &error))?;
            }
        }
        self.open = Some(OpenLog { generation, file, len: 0, next_frame: 1, snapshot_len });
        Ok(())
    }

    fn append(&mut self, body: &[u8]) -> Result<(), StoreError> {
        let path = self.dir.clone();
        let open = self.open.as_mut().ok_or_else(not_open)?;
        let frame = log::frame(open.next_frame, body);
        let len = frame.len() as u64;
        open.file
            .write_at(open.len, &[frame])
            .and_then(|()| match planted::has("meta_acks_before_sync") {
                true => Ok(()),
                false => open.file.sync(SyncMode::Data),
            })
            .map_err(|error| failed("append to the log in", &path, &error))?;
        open.len += len;
        open.next_frame += 1;
        Ok(())
    }

    fn make(&mut self, epoch: Epoch, transactions: &[Transaction]) -> Result<(), StoreError> {
        if epoch != self.image.epoch {
            return Err(StoreError::Fenced { held: epoch, current: self.image.epoch });
        }
        let mut body = BytesMut::new();
        let mut refused = None;
        for transaction in transactions {
            if let Err(error) = self.apply_whole(transaction, &mut body) {
                refused = Some(error);
                break;
            }
        }
        if !body.is_empty() {
            self.append(&body)?;
        }
        let roll = self.open.as_ref().is_some_and(|open| {
            open.len > self.min_roll && open.len > open.snapshot_len * LOG_ROLL_FACTOR
        });
        if roll {
            let next = self.open.as_ref().map_or(0, |open| open.generation) + 1;
            self.begin(next)?;
        }
        refused.map_or(Ok(()), Err)
    }

    /// Applies a transaction to the image, or leaves the image and `body` as they were.
    fn apply_whole(
        &mut self,
        transaction: &Transaction,
        body: &mut BytesMut,
    ) -> Result<(), StoreError> {
        check_limits(transaction)?;
        let begun = body.len();
        let mut undo: Vec<(String, Option<Stored>)> = Vec::with_capacity(transaction.len());
        for change in transaction {
            let before = self.image.entries.get(&change.key).cloned();
            if let Err(error) = self.image.apply(change, body) {
                body.truncate(begun);
                for (key, before) in undo.into_iter().rev() {
                    match before {
                        Some(stored) => self.image.entries.insert(key, stored),
                        None => self.image.entries.remove(&key),
                    };
                }
                return Err(error);
            }
            undo.push((change.key.clone(), before));
        }
        Ok(())
    }
}

fn not_open() -> StoreError {
    StoreError::Failed("the store is not open".to_owned())
}

impl MetaStore for LocalStore {
    fn acquire(&mut self) -> Result<Epoch, StoreError> {
        self.open = None;
        create_root_durable(&*self.disk, &self.dir)
            .map_err(|error| failed("create", &self.dir, &error))?;
        let generation = self.load()?;
        self.image.epoch = Epoch(self.image.epoch.0 + 1);
        self.begin(generation + 1)?;
        Ok(self.image.epoch)
    }

    fn get(&mut self, key: &str) -> Result<Option<Stored>, StoreError> {
        self.open.as_ref().ok_or_else(not_open)?;
        Ok(self.image.entries.get(key).cloned())
    }

    fn children(&mut self, key: &str) -> Result<Vec<(String, Stored)>, StoreError> {
        self.open.as_ref().ok_or_else(not_open)?;
        let prefix = if key.ends_with('/') { key.to_owned() } else { format!("{key}/") };
        let mut children = Vec::new();
        for (key, stored) in self.image.entries.range(prefix.clone()..) {
            let Some(name) = key.strip_prefix(&prefix) else { break };
            if !name.contains('/') {
                children.push((name.to_owned(), stored.clone()));
            }
        }
        Ok(children)
    }

    fn commit(&mut self, epoch: Epoch, transactions: &[Transaction]) -> Result<(), StoreError> {
        self.open.as_ref().ok_or_else(not_open)?;
        let outcome = self.make(epoch, transactions);
        if matches!(outcome, Err(StoreError::Failed(_))) {
            // What the image says and what the disk holds may differ now.
            self.open = None;
        }
        outcome
    }
}
