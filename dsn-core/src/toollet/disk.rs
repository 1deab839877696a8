//! A node's files as the toollets see them: every operation counted, remembered and made to fail by its code.
//!
//! The four codes below are what configuration and commands call operations on files: `[task.LPC_DISK_WRITE.fault]
//! fail = 0.01` with the fault injector on lets one write in a hundred fail. An injected delay means nothing here,
//! since a worker would have to sleep; a drop is a failure, since a disk does not lose an operation without a word.

use super::{Hooks, Verdict};
use crate::code::Code;
use crate::disk::{DirEntry, Disk, File, OpenMode, Space, SyncMode};
use crate::node::CodeSpec;
use crate::rng::Rng;
use crate::time::Mono;
use bytes::Bytes;
use parking_lot::Mutex;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

crate::task_codes! {
    /// Codes of operations on files.
    pub CODES;
    /// A read of a file.
    pub LPC_DISK_READ: Blocking, Common, "THREAD_POOL_BLOCK_SERVICE";
    /// A write to a file, or a change of its length.
    pub LPC_DISK_WRITE: Blocking, Common, "THREAD_POOL_BLOCK_SERVICE";
    /// A sync of a file or a directory.
    pub LPC_DISK_SYNC: Blocking, Common, "THREAD_POOL_BLOCK_SERVICE";
    /// An operation on names: open, rename, remove, list and the like.
    pub LPC_DISK_NAME: Blocking, Common, "THREAD_POOL_BLOCK_SERVICE";
}

/// Reads the clock that times operations.
pub(crate) type DiskClock = Box<dyn Fn() -> Mono + Send + Sync>;

/// Files behind hooks.
#[derive(Debug, Clone)]
pub(crate) struct HookedDisk {
    inner: Arc<dyn Disk>,
    shared: Arc<Shared>,
}

struct Shared {
    hooks: Arc<Hooks>,
    /// Whether the tracer and the profiler want operations of each of [`CODES`].
    specs: Vec<CodeSpec>,
    clock: OnceLock<DiskClock>,
    rolls: Mutex<Rng>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl HookedDisk {
    /// Puts hooks before `inner`. `specs` are those of [`CODES`].
    pub(crate) fn new(
        inner: Arc<dyn Disk>,
        hooks: Arc<Hooks>,
        specs: Vec<CodeSpec>,
        rolls: Rng,
    ) -> Self {
        let shared = Shared { hooks, specs, clock: OnceLock::new(), rolls: Mutex::new(rolls) };
        Self { inner, shared: Arc::new(shared) }
    }

    /// Sets what times operations; before, they take no time. The first setting stays.
    pub(crate) fn set_clock(&self, clock: DiskClock) {
        let _ = self.shared.clock.set(clock);
    }
}

impl Shared {
    fn around<R>(&self, code: Code, operation: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        if self.hooks.is_on() { self.watched(code, operation) } else { operation() }
    }

    #[cold]
    fn watched<R>(&self, code: Code, operation: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        let now = || self.clock.get().map_or(Mono::ZERO, |clock| clock());
        let spec = CODES.iter().position(|known| *known == code).map(|index| self.specs[index]);
        let begun = now();
        let roll = self.rolls.lock().next_u64();
        let outcome = match self.hooks.on_message(code, roll) {
            Verdict::Proceed | Verdict::Delay(_) => operation(),
            Verdict::Drop | Verdict::Fail => Err(io::Error::other("injected disk fault")),
        };
        if let Some(spec) = spec {
            self.hooks.on_disk(&spec, code, begun, now().saturating_since(begun), outcome.is_ok());
        }
        outcome
    }
}

impl Disk for HookedDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let inner = self.shared.around(&LPC_DISK_NAME, || self.inner.open(path, mode))?;
        Ok(Arc::new(HookedFile { inner, shared: self.shared.clone() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.shared.around(&LPC_DISK_NAME, || self.inner.rename(from, to))
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.shared.around(&LPC_DISK_NAME, || self.inner.unlink(path))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.shared.around(&LPC_DISK_NAME, || self.inner.create_dir_all(path))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.shared.around(&LPC_DISK_NAME, || self.inner.remove_dir_all(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.shared.around(&LPC_DISK_NAME, || self.inner.list(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.shared.around(&LPC_DISK_SYNC, || self.inner.sync_dir(path))
    }

    fn exists(&self, path: &Path) -> bool {
        self.inner.exists(path)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.shared.around(&LPC_DISK_NAME, || self.inner.hard_link(from, to))
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.inner.space(path)
    }

    fn boot_id(&self) -> io::Result<String> {
        self.inner.boot_id()
    }
}

/// An open file behind hooks.
#[derive(Debug)]
struct HookedFile {
    inner: Arc<dyn File>,
    shared: Arc<Shared>,
}

impl File for HookedFile {
    fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        self.shared.around(&LPC_DISK_READ, || self.inner.read_at(offset, len))
    }

    fn write_at(&self, offset: u64, bufs: &[Bytes]) -> io::Result<()> {
        self.shared.around(&LPC_DISK_WRITE, || self.inner.write_at(offset, bufs))
    }

    fn sync(&self, mode: SyncMode) -> io::Result<()> {
        self.shared.around(&LPC_DISK_SYNC, || self.inner.sync(mode))
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.shared.around(&LPC_DISK_WRITE, || self.inner.allocate(len))
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.shared.around(&LPC_DISK_WRITE, || self.inner.truncate(len))
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
}
