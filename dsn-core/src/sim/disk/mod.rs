//! A simulated disk: a live image, a durable one, and everything that can happen in between.
//!
//! The image outlives processes. A killed process loses nothing that it wrote (the page cache survives); a power
//! loss keeps what was synced, a random part of the rest, pages torn at sectors, names undone
//! ([`SimDisk::power_loss`]). Handles belong to one process: those of an ended one fail.
//!
//! Every change counts as a *step*. [`SimDisk::crash_after`] lets the disk go dead right after a given step, in the
//! middle of whatever the process was doing; running a test once for every step cuts it at every possible place.
//!
//! ```
//! use dsn_core::disk::{Disk, OpenMode, SyncMode, write_file_durable};
//! use dsn_core::sim::SimDisk;
//! use std::path::Path;
//!
//! let disk = SimDisk::standalone(7);
//! disk.create_dir_all(Path::new("/d")).unwrap();
//! disk.sync_dir(Path::new("/")).unwrap();
//! write_file_durable(&disk, Path::new("/d/a"), "kept".into()).unwrap();
//! disk.open(Path::new("/d/b"), OpenMode::CreateNew).unwrap().write_at(0, &["lost?".into()]).unwrap();
//! let disk = disk.power_loss();
//! assert_eq!(dsn_core::disk::read_file(&disk, Path::new("/d/a")).unwrap(), "kept");
//! ```

mod content;
mod faults;
mod files;
mod names;

pub use content::{PAGE, SECTOR};
pub use faults::{DiskFault, DiskFaultId, DiskOp};

use super::options::DiskOptions;
use crate::rng::Rng;
use faults::Faults;
use names::{Ino, Names};
use parking_lot::{Mutex, MutexGuard};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The disk of one node, as seen by one of its processes. Clones are the same process's.
#[derive(Clone)]
pub struct SimDisk {
    shared: Arc<Shared>,
    process: u64,
}

struct Shared {
    image: Mutex<Image>,
    /// Time that operations have taken and nobody has been charged for, in ns.
    spent: AtomicU64,
    crashed: AtomicBool,
    time: Arc<AtomicU64>,
    name: String,
    seed: u64,
}

/// Everything on a disk and about it, without its faults: see [`SimDisk::snapshot`].
#[derive(Clone, Debug)]
pub struct DiskImage {
    names: Names,
    boot: u64,
}

#[derive(Debug)]
struct Image {
    names: Names,
    faults: Faults,
    options: DiskOptions,
    /// The process whose handles work.
    process: u64,
    steps: u64,
    crash_at: Option<u64>,
    /// Changes after which the disk goes dead under the next process.
    crash_next: Option<u64>,
    /// Draws how long operations take.
    pace: Rng,
    /// Number of power losses, each with its own stream.
    losses: u64,
    /// Which run of the machine this is: power losses that the files have seen.
    boot: u64,
    step_log: Option<Vec<(StepKind, String)>>,
}

/// What a change of a disk was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StepKind {
    /// A file or directory was made, or a second name for a file.
    Create,
    /// Bytes were written.
    Write,
    /// A file was synced.
    Sync,
    /// A file's length was set.
    Truncate,
    /// Something got another name; the path is the new one.
    Rename,
    /// A name was removed.
    Remove,
    /// The names of a directory were synced.
    SyncDir,
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDisk").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

/// What every operation on a dead disk or by a dead process gives.
fn dead() -> io::Error {
    io::Error::other("the simulated process has ended")
}

impl SimDisk {
    /// An empty disk of a node in a simulation.
    pub(super) fn new(seed: u64, name: &str, options: DiskOptions, time: Arc<AtomicU64>) -> Self {
        let image = Image {
            names: Names::default(),
            faults: Faults::default(),
            options,
            process: 1,
            steps: 0,
            crash_at: None,
            crash_next: None,
            pace: Rng::stream(seed, name, "disk pace", 0),
            losses: 0,
            boot: 0,
            step_log: None,
        };
        let shared = Shared {
            image: Mutex::new(image),
            spent: AtomicU64::new(0),
            crashed: AtomicBool::new(false),
            time,
            name: name.to_owned(),
            seed,
        };
        Self { shared: Arc::new(shared), process: 1 }
    }

    /// An empty disk without a simulation around it, for tests of what only needs files.
    pub fn standalone(seed: u64) -> Self {
        Self::new(seed, "disk", DiskOptions::default(), Arc::default())
    }

    /// Ends the process: its handles fail from now on. The returned handle is the next process's.
    #[must_use]
    pub fn restart(&self) -> Self {
        let mut image = self.shared.image.lock();
        image.process += 1;
        let (steps, next) = (image.steps, image.crash_next.take());
        image.crash_at = next.map(|next| steps + next);
        image.names.close_all();
        self.shared.crashed.store(false, Ordering::Relaxed);
        self.shared.spent.store(0, Ordering::Relaxed);
        Self { shared: self.shared.clone(), process: image.process }
    }

    /// The power fails: ends the process and keeps only what may survive. Seeded: the same losses at the same point
    /// of the same run.
    #[must_use]
    pub fn power_loss(&self) -> Self {
        {
            let mut image = self.shared.image.lock();
            image.losses += 1;
            image.boot += 1;
            let mut rng =
                Rng::stream(self.shared.seed, &self.shared.name, "power loss", image.losses);
            image.names.power_loss(&mut rng);
        }
        self.restart()
    }

    /// The system writes everything back that it holds in memory, as it does now and then by itself: all of it is
    /// durable.
    pub fn write_back(&self) {
        self.shared.image.lock().names.write_back();
    }

    /// No name that is not durable is going to be, as in the worst of all power losses. Follow with
    /// [`Self::power_loss`].
    pub fn lose_names(&self) {
        self.shared.image.lock().names.lose_pending();
    }

    /// Lets the disk go dead right after the `steps`th change from now on; 0 means now. A write that is the last
    /// change may be cut short. Follow with [`Self::restart`] or [`Self::power_loss`].
    pub fn crash_after(&self, steps: u64) {
        let mut image = self.shared.image.lock();
        image.crash_at = Some(image.steps + steps);
        if steps == 0 {
            self.shared.crashed.store(true, Ordering::Relaxed);
        }
    }

    /// Like [`Self::crash_after`], for the next process: counts from its beginning.
    pub(super) fn crash_next_after(&self, steps: u64) {
        self.shared.image.lock().crash_next = Some(steps.max(1));
    }

    /// Takes back [`Self::crash_after`], unless it has happened.
    pub fn never_crash(&self) {
        let mut image = self.shared.image.lock();
        (image.crash_at, image.crash_next) = (None, None);
    }

    /// Whether the disk has gone dead.
    pub fn is_crashed(&self) -> bool {
        self.shared.crashed.load(Ordering::Relaxed)
    }

    /// Changes so far.
    pub fn steps(&self) -> u64 {
        self.shared.image.lock().steps
    }

    /// Keeps the changes from now on, for [`Self::step_log`].
    pub fn log_steps(&self) {
        self.shared.image.lock().step_log.get_or_insert_default();
    }

    /// The changes since [`Self::log_steps`], with their paths.
    pub fn step_log(&self) -> Vec<(StepKind, String)> {
        self.shared.image.lock().step_log.clone().unwrap_or_default()
    }

    /// Begins a fault that lasts.
    pub fn add_fault(&self, fault: DiskFault) -> DiskFaultId {
        let now = self.shared.time.load(Ordering::Relaxed);
        let mut image = self.shared.image.lock();
        image.faults.add(fault, now, self.shared.seed, &self.shared.name)
    }

    /// Ends a lasting fault; nothing when it has ended.
    pub fn remove_fault(&self, id: DiskFaultId) {
        self.shared.image.lock().faults.remove(id);
    }

    /// Ends all lasting faults.
    pub fn heal(&self) {
        self.shared.image.lock().faults.clear();
    }

    /// Changes one durable bit in each of up to `count` files whose path contains `path`, before their last `spare`
    /// bytes. Returns their paths.
    pub fn flip_bits(&self, path: &str, count: usize, spare: u64, rng: &mut Rng) -> Vec<String> {
        let mut image = self.shared.image.lock();
        let mut files = image.names.files();
        files.retain(|(name, _)| name.contains(path));
        rng.shuffle(&mut files);
        let mut hit = Vec::new();
        for (name, ino) in files {
            if hit.len() < count
                && image.names.change(ino, |content| content.flip(spare, rng)) == Some(true)
            {
                hit.push(name);
            }
        }
        hit
    }

    /// Limits the file system's size, in bytes.
    pub fn set_capacity(&self, bytes: u64) {
        self.shared.image.lock().options.capacity = bytes;
    }

    /// Files open now.
    pub fn open_files(&self) -> usize {
        self.shared.image.lock().names.open_files()
    }

    /// All files with their lengths, sorted by path.
    pub fn files(&self) -> Vec<(String, u64)> {
        let image = self.shared.image.lock();
        let len = |ino| image.names.file(ino).map_or(0, |content| content.len());
        image.names.files().into_iter().map(|(path, ino)| (path, len(ino))).collect()
    }

    /// What is in a directory, sorted; nothing where there is none. A look from outside, which takes no time.
    pub fn names(&self, dir: &Path) -> Vec<String> {
        let image = self.shared.image.lock();
        let ino = image.names.resolve(&names::parts(dir));
        ino.and_then(|ino| image.names.names(ino)).unwrap_or_default()
    }

    /// A copy of everything on the disk, cheap: pages are shared. Explores several futures of one moment.
    pub fn snapshot(&self) -> DiskImage {
        let image = self.shared.image.lock();
        DiskImage { names: image.names.clone(), boot: image.boot }
    }

    /// Puts a copy back and ends the process, see [`Self::restart`].
    #[must_use]
    pub fn restore(&self, image: &DiskImage) -> Self {
        {
            let mut mine = self.shared.image.lock();
            (mine.names, mine.boot) = (image.names.clone(), image.boot);
        }
        self.restart()
    }

    /// Another disk, on which there is nothing, in the place of this one. Ends the process, see [`Self::restart`].
    #[must_use]
    pub(super) fn replaced(&self) -> Self {
        self.shared.image.lock().names = Names::default();
        self.restart()
    }

    /// Time that operations took since the last call, in ns.
    pub(super) fn take_spent(&self) -> u64 {
        if self.shared.spent.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        self.shared.spent.swap(0, Ordering::Relaxed)
    }

    /// The image, unless the process has ended.
    fn image(&self) -> io::Result<MutexGuard<'_, Image>> {
        if self.is_crashed() {
            return Err(dead());
        }
        let image = self.shared.image.lock();
        if image.process != self.process {
            return Err(dead());
        }
        Ok(image)
    }

    /// Charges time for an operation on a path that moves `bytes`.
    fn charge(&self, image: &mut Image, path: &str, pace: Pace, bytes: u64) {
        let Image { options, pace: rng, faults, .. } = image;
        let drawn = match pace {
            Pace::Read => options.read.draw(rng),
            Pace::Write => options.write.draw(rng),
            Pace::Sync => options.sync.draw(rng),
            Pace::Flush => options.sync.draw(rng) / FLUSH_SHARE,
            Pace::Meta => options.meta.draw(rng),
        };
        let mut cost = drawn + bytes * options.ns_per_kib / 1024;
        if !faults.is_empty() {
            cost = faults.slowed(cost, path, self.shared.time.load(Ordering::Relaxed));
        }
        self.shared.spent.fetch_add(cost, Ordering::Relaxed);
    }

    /// Charges time for a sync of `bytes` bytes, which may find nothing to write.
    fn charge_sync(&self, image: &mut Image, path: &str, pace: Pace, bytes: u64) {
        self.charge(image, path, pace, bytes);
        let spent = self.shared.spent.load(Ordering::Relaxed);
        let hung = image.faults.hangs(path, self.shared.time.load(Ordering::Relaxed) + spent);
        self.shared.spent.fetch_add(hung, Ordering::Relaxed);
    }

    /// Counts a change that has been made; the disk may go dead after it.
    fn step(&self, image: &mut Image, kind: StepKind, path: &str) {
        image.steps += 1;
        if let Some(log) = &mut image.step_log {
            log.push((kind, path.to_owned()));
        }
        if image.crash_at.is_some_and(|at| image.steps >= at) {
            self.shared.crashed.store(true, Ordering::Relaxed);
        }
    }
}

/// So many times as fast as a sync that writes something is one that finds nothing to write.
const FLUSH_SHARE: u64 = 4;

/// Whose time an operation takes.
#[derive(Clone, Copy, Debug)]
enum Pace {
    Read,
    Write,
    Sync,
    /// A sync of a directory that has not changed: the device is told to write what it holds, and nothing else.
    Flush,
    Meta,
}

impl Image {
    /// Whether the next change is the last before the disk goes dead.
    fn is_last(&self) -> bool {
        self.crash_at == Some(self.steps + 1)
    }

    /// Bytes that may still be written to a path.
    fn room(&self, path: &str) -> u64 {
        if self.faults.full(path) {
            0
        } else {
            self.options.capacity.saturating_sub(self.names.used)
        }
    }
}

/// An open file.
struct SimFile {
    disk: SimDisk,
    ino: Ino,
    path: String,
    writable: bool,
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut image = self.disk.shared.image.lock();
        if image.process == self.disk.process {
            image.names.opened(self.ino, -1);
        }
    }
}
