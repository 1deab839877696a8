//! The checkpoints of one replica: directories `checkpoint.<decree>` below its `data`.
//!
//! A checkpoint is written under another name, synced and renamed, so that a directory of the proper name is complete.
//! The newest one counts; older ones go as soon as nobody holds them, what an interrupted step left goes when the
//! replica is opened. A checkpoint received from another replica is given its proper name then.

use super::files::{Files, NewFiles, disk_error};
use crate::state_machine::AppError;
use dsn_core::disk::Disk;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const PREFIX: &str = "checkpoint.";
const SCRATCH: &str = "checkpoint.new";
/// Where the files of another replica's checkpoint are put, below the folder of checkpoints.
pub(super) const RECEIVED: &str = "checkpoint.received";

/// See the module's header.
#[derive(Debug)]
pub(super) struct Checkpoints {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    newest: Option<Arc<Files>>,
    /// Older ones that somebody held when last looked at.
    old: Vec<Arc<Files>>,
}

impl Checkpoints {
    /// Those in `dir`, which is made when it is missing.
    pub(super) fn load(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Self, AppError> {
        crate::dirs::create_dir_durable(&**disk, dir)
            .map_err(|error| disk_error("making", dir, &error))?;
        adopt_received(disk, dir)?;
        // A sync after a rename may have failed: names that are found are made durable before they are trusted.
        disk.sync_dir(dir).map_err(|error| disk_error("syncing", dir, &error))?;
        let entries = disk.list(dir).map_err(|error| disk_error("listing", dir, &error))?;
        let decree_of = |name: &str| name.strip_prefix(PREFIX)?.parse::<i64>().ok();
        let newest = entries.iter().filter_map(|entry| decree_of(&entry.name)).max();
        for entry in entries.iter().filter(|entry| entry.name.starts_with(PREFIX)) {
            if decree_of(&entry.name) != newest || newest.is_none() {
                let path = dir.join(&entry.name);
                disk.remove_dir_all(&path)
                    .map_err(|error| disk_error("removing", &path, &error))?;
            }
        }
        let newest = match newest {
            Some(decree) => Some(Arc::new(Files::load(disk, &path_of(dir, decree))?)),
            None => None,
        };
        Ok(Self { disk: disk.clone(), dir: dir.to_owned(), newest, old: Vec::new() })
    }

    /// The newest.
    pub(super) fn newest(&self) -> Option<&Arc<Files>> {
        self.newest.as_ref()
    }

    /// Makes one of what `write` writes, as of `decree`, newer than all there are.
    pub(super) fn make(
        &mut self,
        decree: i64,
        write: impl FnOnce(&mut NewFiles) -> Result<(), AppError>,
    ) -> Result<Arc<Files>, AppError> {
        let scratch = self.dir.join(SCRATCH);
        let mut files = NewFiles::create(&self.disk, &scratch, decree)?;
        write(&mut files)?;
        files.finish()?;
        let path = path_of(&self.dir, decree);
        self.disk
            .rename(&scratch, &path)
            .and_then(|()| self.disk.sync_dir(&self.dir))
            .map_err(|error| AppError::Disk(format!("{}: {error}", path.display())))?;
        let files = Arc::new(Files::load(&self.disk, &path)?);
        self.old.extend(self.newest.replace(files.clone()));
        Ok(files)
    }

    /// Removes older ones that nobody holds.
    pub(super) fn collect(&mut self) {
        let disk = &self.disk;
        self.old.retain(|old| {
            if Arc::strong_count(old) > 1 {
                return true;
            }
            if let Err(error) = disk.remove_dir_all(old.dir()) {
                tracing::warn!(dir = %old.dir().display(), %error, "an old checkpoint stays");
                return true;
            }
            false
        });
    }
}

fn adopt_received(disk: &Arc<dyn Disk>, dir: &Path) -> Result<(), AppError> {
    let received = dir.join(RECEIVED);
    if !disk.exists(&received) {
        return Ok(());
    }
    let decree = Files::load(disk, &received)?.decree();
    disk.rename(&received, &path_of(dir, decree))
        .and_then(|()| disk.sync_dir(dir))
        .map_err(|error| disk_error("renaming", &received, &error))
}

fn path_of(dir: &Path, decree: i64) -> PathBuf {
    dir.join(format!("{PREFIX}{decree}"))
}
