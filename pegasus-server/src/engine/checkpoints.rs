//! A replica's checkpoints: directories `checkpoint.<decree>` beside the live database, each a
//! self-contained copy of it at that decree.
//!
//! The newest one's decree is the replica's *durable* decree: the log may be cut below it, learners
//! are given it. Not the flushed decree, which is never smaller: what was flushed into the live
//! database cannot be handed out while it changes.
//!
//! A checkpoint is made under another name and renamed, and renamed away before it is removed, so that
//! every directory of the proper name is complete. Whatever else is called "checkpoint" is rubbish of
//! an interrupted step and is removed on load. Whoever copies a checkpoint to a learner holds the
//! [`Arc<Checkpoint>`]; collection passes over what somebody holds.
//!
//! One checkpoint is made at a time; who comes second is told so and tries later.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use dsn_core::disk::Disk;
use dsn_core::time::Mono;
use parking_lot::Mutex;

use super::{EngineError, StorageEngine};

const NAME_PREFIX: &str = "checkpoint.";
const RUBBISH_MARK: &str = "checkpoint";

/// How many checkpoints are kept and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReservePolicy {
    /// The newest so many stay (`checkpoint_reserve_min_count`); at least one does.
    pub min_count: usize,
    /// Younger ones stay (`checkpoint_reserve_time_seconds`); those found on load count as made then.
    pub min_age: Duration,
}

impl Default for ReservePolicy {
    fn default() -> Self {
        Self { min_count: 2, min_age: Duration::from_secs(1800) }
    }
}

/// One complete checkpoint on disk.
#[derive(Debug)]
pub struct Checkpoint {
    decree: i64,
    dir: PathBuf,
    made_at: Mono,
}

impl Checkpoint {
    /// The decree of its content.
    pub fn decree(&self) -> i64 {
        self.decree
    }

    /// Its directory. The files in it do not change.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// What an attempt to make a checkpoint came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A new checkpoint at this decree.
    Made(i64),
    /// There was nothing newer to make one of.
    UpToDate(i64),
    /// A flush has been started; come back when it may be done.
    Flushing,
    /// Somebody else is making one.
    Occupied,
}

/// The checkpoints of one replica.
pub struct Checkpoints {
    engine: Arc<dyn StorageEngine>,
    disk: Arc<dyn Disk>,
    /// Where the checkpoint directories are.
    dir: PathBuf,
    /// Oldest first.
    list: Mutex<Vec<Arc<Checkpoint>>>,
    durable: AtomicI64,
    making: AtomicBool,
    scratch_names: AtomicU64,
}

impl Checkpoints {
    /// Finds the checkpoints of `engine` in `dir` and removes what is left of interrupted work.
    ///
    /// # Errors
    /// [`EngineError::Io`]; [`EngineError::Corruption`] when a checkpoint is newer than the engine's
    /// durable content, which only an interrupted removal of a replica leaves behind.
    pub fn load(
        engine: Arc<dyn StorageEngine>,
        disk: Arc<dyn Disk>,
        dir: &Path,
        now: Mono,
    ) -> Result<Self, EngineError> {
        // The sync after a rename may have failed: names that are found are made durable before they are trusted.
        disk.sync_dir(dir).map_err(|error| EngineError::io("syncing", dir, &error))?;
        let entries = disk.list(dir).map_err(|error| EngineError::io("listing", dir, &error))?;
        let mut list = Vec::new();
        for entry in entries.iter().filter(|entry| entry.name.contains(RUBBISH_MARK)) {
            let path = dir.join(&entry.name);
            match decree_of(&entry.name).filter(|_| entry.is_dir) {
                Some(decree) => {
                    list.push(Arc::new(Checkpoint { decree, dir: path, made_at: now }));
                }
                None if entry.is_dir => remove_dir(&*disk, &path)?,
                None => disk
                    .unlink(&path)
                    .map_err(|error| EngineError::io("removing", &path, &error))?,
            }
        }
        list.sort_unstable_by_key(|checkpoint| checkpoint.decree);
        let durable = list.last().map_or(0, |newest| newest.decree);
        let flushed = engine.last_flushed()?;
        if durable > flushed {
            return Err(EngineError::Corruption(format!(
                "{}: checkpoint {durable} is newer than the database, which is at {flushed}",
                dir.display()
            )));
        }
        Ok(Self {
            engine,
            disk,
            dir: dir.to_owned(),
            list: Mutex::new(list),
            durable: AtomicI64::new(durable),
            making: AtomicBool::new(false),
            scratch_names: AtomicU64::new(0),
        })
    }

    /// The decree of the newest checkpoint, 0 when there is none.
    pub fn last_durable(&self) -> i64 {
        self.durable.load(Ordering::Acquire)
    }

    /// The newest checkpoint. While the result is held, its directory stays.
    pub fn newest(&self) -> Option<Arc<Checkpoint>> {
        self.list.lock().last().cloned()
    }

    /// All checkpoints, oldest first.
    pub fn all(&self) -> Vec<Arc<Checkpoint>> {
        self.list.lock().clone()
    }

    /// Makes a checkpoint of what is flushed and not yet in one. When everything flushed is, and
    /// `flush` is set, starts a flush instead ([`Progress::Flushing`]). Blocks on files; safe while
    /// mutations are applied.
    ///
    /// # Errors
    /// Those of the engine and of the disk; nothing that counts as a checkpoint is left behind.
    pub fn make(&self, flush: bool, now: Mono) -> Result<Progress, EngineError> {
        let Some(_turn) = Turn::take(&self.making) else { return Ok(Progress::Occupied) };
        let durable = self.last_durable();
        if durable == self.engine.last_committed() {
            return Ok(Progress::UpToDate(durable));
        }
        if durable == self.engine.last_flushed()? {
            if !flush {
                return Ok(Progress::UpToDate(durable));
            }
            self.engine.flush(false)?;
            if durable == self.engine.last_flushed()? {
                return Ok(Progress::Flushing);
            }
        }
        self.make_now(flush, now).map(Progress::Made)
    }

    /// Makes a checkpoint of everything applied so far, waiting for the flush.
    ///
    /// # Errors
    /// As [`Self::make`].
    pub fn make_waiting(&self, now: Mono) -> Result<Progress, EngineError> {
        let Some(_turn) = Turn::take(&self.making) else { return Ok(Progress::Occupied) };
        let durable = self.last_durable();
        if durable == self.engine.last_committed() {
            return Ok(Progress::UpToDate(durable));
        }
        self.make_now(true, now).map(Progress::Made)
    }

    /// Copies the durable content, after a flush if asked, to `dir`, and returns its decree. `dir`
    /// exists afterwards only if it is complete.
    ///
    /// # Errors
    /// Those of the engine and of the disk.
    pub fn copy_to(&self, dir: &Path, flush: bool) -> Result<i64, EngineError> {
        let scratch = self.scratch();
        let decree = self.copy_to_scratch(&scratch, flush)?;
        self.rename(&scratch, dir)?;
        Ok(decree)
    }

    /// Takes over a received copy of another replica's checkpoint at `decree`, which must be newer
    /// than every checkpoint here. The live database is not touched.
    ///
    /// # Errors
    /// [`EngineError::InvalidArgument`] when it is not newer; [`EngineError::Io`].
    pub fn adopt(&self, received: &Path, decree: i64, now: Mono) -> Result<(), EngineError> {
        let _turn = Turn::take(&self.making)
            .ok_or_else(|| EngineError::Busy("a checkpoint is being made".to_owned()))?;
        if decree <= self.last_durable() {
            return Err(EngineError::InvalidArgument(format!(
                "received checkpoint {decree} is not newer than {}",
                self.last_durable()
            )));
        }
        self.install(received, decree, now)
    }

    /// Removes what the policy does not keep; with `force` all but the newest. Returns how many went. A
    /// directory that cannot be removed stays listed and is tried again next time.
    pub fn collect(&self, policy: ReservePolicy, force: bool, now: Mono) -> usize {
        let keep = if force { 1 } else { policy.min_count.max(1) };
        let mut removed = 0;
        let mut list = self.list.lock();
        let mut at = 0;
        // Never one of the newest, however many of the older ones must stay.
        while at + keep < list.len() {
            let old = &list[at];
            let young = !force && now.saturating_since(old.made_at) < policy.min_age;
            // The list's own reference is one; any other is somebody reading the files.
            if young || Arc::strong_count(old) > 1 || self.discard(&old.dir).is_err() {
                at += 1;
                continue;
            }
            list.remove(at);
            removed += 1;
        }
        removed
    }

    /// Removes every checkpoint, for a replica that is being removed or replaced. Must come before
    /// the removal of the database, else a crash between the two leaves checkpoints without one.
    ///
    /// # Errors
    /// [`EngineError::Busy`] when somebody holds one, [`EngineError::Io`].
    pub fn remove_all(&self) -> Result<(), EngineError> {
        let mut list = self.list.lock();
        while let Some(newest) = list.last() {
            if Arc::strong_count(newest) > 1 {
                return Err(EngineError::Busy(format!("checkpoint {} is in use", newest.decree)));
            }
            self.discard(&newest.dir)?;
            list.pop();
            let durable = list.last().map_or(0, |newest| newest.decree);
            self.durable.store(durable, Ordering::Release);
        }
        Ok(())
    }

    fn make_now(&self, flush: bool, now: Mono) -> Result<i64, EngineError> {
        let scratch = self.scratch();
        let decree = self.copy_to_scratch(&scratch, flush)?;
        if decree <= self.last_durable() {
            remove_dir(&*self.disk, &scratch)?;
            return Ok(self.last_durable());
        }
        self.install(&scratch, decree, now)?;
        Ok(decree)
    }

    fn copy_to_scratch(&self, scratch: &Path, flush: bool) -> Result<i64, EngineError> {
        self.engine.copy_to(scratch, flush).inspect_err(|_| {
            // Whatever is half made is rubbish; if it cannot be removed now, the next load does.
            let _ = self.disk.remove_dir_all(scratch);
        })
    }

    fn install(&self, from: &Path, decree: i64, now: Mono) -> Result<(), EngineError> {
        let dir = self.dir.join(format!("{NAME_PREFIX}{decree}"));
        self.rename(from, &dir)?;
        self.list.lock().push(Arc::new(Checkpoint { decree, dir, made_at: now }));
        self.durable.store(decree, Ordering::Release);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), EngineError> {
        self.disk.rename(from, to).map_err(|error| EngineError::io("renaming", from, &error))?;
        let parent = to.parent().unwrap_or(Path::new("."));
        self.disk.sync_dir(parent).map_err(|error| EngineError::io("syncing", parent, &error))
    }

    fn discard(&self, dir: &Path) -> Result<(), EngineError> {
        let scratch = self.scratch();
        self.disk
            .rename(dir, &scratch)
            .map_err(|error| EngineError::io("renaming", dir, &error))?;
        remove_dir(&*self.disk, &scratch)
    }

    /// A name that no checkpoint has and that the next load removes.
    fn scratch(&self) -> PathBuf {
        let number = self.scratch_names.fetch_add(1, Ordering::Relaxed);
        self.dir.join(format!("{NAME_PREFIX}tmp.{number}"))
    }
}

/// The right to make a checkpoint; given back when dropped.
struct Turn<'a>(&'a AtomicBool);

impl<'a> Turn<'a> {
    fn take(flag: &'a AtomicBool) -> Option<Self> {
        flag.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
            .then_some(Self(flag))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

fn decree_of(name: &str) -> Option<i64> {
    let digits = name.strip_prefix(NAME_PREFIX)?;
    // Exactly what we write: no sign, no leading zeros.
    digits.parse().ok().filter(|decree: &i64| decree.to_string() == digits && *decree > 0)
}

fn remove_dir(disk: &dyn Disk, dir: &Path) -> Result<(), EngineError> {
    disk.remove_dir_all(dir).map_err(|error| EngineError::io("removing", dir, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bug 25: a checkpoint that was not completed is taken for one.
    #[test]
    fn only_our_own_names_are_checkpoints() {
        assert_eq!(decree_of("checkpoint.17"), Some(17));
        for name in ["checkpoint.", "checkpoint.017", "checkpoint.+7", "checkpoint.-1"] {
            assert_eq!(decree_of(name), None, "{name}");
        }
        for name in ["checkpoint.0", "checkpoint.tmp.5", "checkpoint.5.bad", "my.checkpoint.5"] {
            assert_eq!(decree_of(name), None, "{name}");
        }
    }
}
