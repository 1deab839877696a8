//! A disk in memory with a page cache to lose: for tests that enumerate crash points.
//!
//! Every operation that changes something is a *step*. At a chosen step the machine stops: that operation and all
//! later ones fail. [`MemDisk::restart`] then gives the disk a new process would find: after a kill everything that
//! was written, after a power loss only what was synced, plus an arbitrary part of the rest.

use bytes::Bytes;
use dsn_core::disk::{DirEntry, Disk, File, OpenMode, Space, SyncMode};
use dsn_core::rng::Rng;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Unit in which unsynced bytes survive a power loss or not.
const PAGE: usize = 512;

/// Content of a file: as programs see it, and as the platter has it.
#[derive(Clone, Debug, Default)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    File(usize),
    Dir,
}

#[derive(Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    live: BTreeMap<PathBuf, Node>,
    durable: BTreeMap<PathBuf, Node>,
    steps: u64,
    stop_at: Option<u64>,
    fail_writes: bool,
    fail_syncs: bool,
    /// Power losses so far.
    boot: u64,
}

/// How the machine went down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process ended; what it wrote is there, until the power fails.
    Kill,
    /// The power failed; the seed decides which unsynced pages survive.
    PowerLoss(u64),
}

/// The disk. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemDisk {
    state: Arc<Mutex<State>>,
}

impl MemDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// As the runtime takes it.
    #[must_use]
    pub fn shared(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    /// Steps done so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.state.lock().steps
    }

    /// Stops the machine before step number `step` (counted from 0) is done.
    pub fn stop_at(&self, step: u64) {
        self.state.lock().stop_at = Some(step);
    }

    /// Makes every write fail from now on, half of it being done, or ends that.
    pub fn fail_writes(&self, fail: bool) {
        self.state.lock().fail_writes = fail;
    }

    /// Makes every sync fail from now on, or ends that.
    pub fn fail_syncs(&self, fail: bool) {
        self.state.lock().fail_syncs = fail;
    }

    /// Changes bytes of a file behind everybody's back.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn corrupt(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state.lock();
        let Some(Node::File(inode)) = state.live.get(path).cloned() else {
            panic!("no file {path:?}");
        };
        let inode = &mut state.inodes[inode];
        change(&mut inode.live);
        inode.durable = inode.live.clone();
    }

    /// The disk after a crash.
    #[must_use]
    pub fn restart(&self, crash: Crash) -> Self {
        let old = self.state.lock();
        let mut inodes = old.inodes.clone();
        let (live, durable) = match crash {
            Crash::Kill => (old.live.clone(), old.durable.clone()),
            Crash::PowerLoss(seed) => {
                let mut rng = Rng::new(seed);
                inodes.iter_mut().for_each(|inode| lose_power(inode, &mut rng));
                let names = survivors(&old, &mut rng);
                (names.clone(), names)
            }
        };
        let boot = old.boot + u64::from(crash != Crash::Kill);
        let state = State { inodes, live, durable, boot, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }
}

/// Each unsynced page, and the length, survives or not.
fn lose_power(inode: &mut Inode, rng: &mut Rng) {
    let mut after = inode.durable.clone();
    if rng.chance(0.5) {
        after.resize(inode.live.len(), 0);
    }
    let mostly = rng.unit_f64();
    for at in (0..after.len()).step_by(PAGE) {
        let end = (at + PAGE).min(after.len()).min(inode.live.len());
        if at < end && rng.chance(mostly) {
            after[at..end].copy_from_slice(&inode.live[at..end]);
        }
    }
    inode.live = after.clone();
    inode.durable = after;
}

/// Each change of a name that was not synced survives or not; a file needs its directories.
fn survivors(state: &State, rng: &mut Rng) -> BTreeMap<PathBuf, Node> {
    let mut names = BTreeMap::new();
    let all = state.live.keys().chain(state.durable.keys());
    for path in all.collect::<std::collections::BTreeSet<_>>() {
        let (live, durable) = (state.live.get(path), state.durable.get(path));
        let kept = if live == durable || rng.chance(0.5) { live } else { durable };
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
        let has_parent =
            parent.is_none_or(|parent| names.contains_key(parent) || parent == Path::new("/"));
        if let Some(node) = kept
            && has_parent
        {
            names.insert(path.clone(), node.clone());
        }
    }
    names
}

fn error(kind: io::ErrorKind, path: &Path) -> io::Error {
    io::Error::new(kind, path.display().to_string())
}

impl State {
    fn step(&mut self) -> io::Result<()> {
        if self.stop_at.is_some_and(|stop| self.steps >= stop) {
            return Err(io::Error::other("the machine has stopped"));
        }
        self.steps += 1;
        Ok(())
    }

    fn below(&self, path: &Path) -> Vec<PathBuf> {
        self.live.keys().filter(|p| p.starts_with(path)).cloned().collect()
    }
}

#[derive(Debug)]
struct MemFile {
    state: Arc<Mutex<State>>,
    inode: usize,
}

impl File for MemFile {
    fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let state = self.state.lock();
        let live = &state.inodes[self.inode].live;
        let start = (offset as usize).min(live.len());
        let end = start.saturating_add(len).min(live.len());
        Ok(Bytes::copy_from_slice(&live[start..end]))
    }

    fn write_at(&self, offset: u64, bufs: &[Bytes]) -> io::Result<()> {
        let mut state = self.state.lock();
        state.step()?;
        let data = bufs.concat();
        let fails = state.fail_writes;
        let data = if fails { &data[..data.len() / 2] } else { &data[..] };
        let live = &mut state.inodes[self.inode].live;
        let end = offset as usize + data.len();
        if live.len() < end {
            live.resize(end, 0);
        }
        live[offset as usize..end].copy_from_slice(data);
        if fails { Err(io::Error::other("write failed")) } else { Ok(()) }
    }

    fn sync(&self, _: SyncMode) -> io::Result<()> {
        let mut state = self.state.lock();
        state.step()?;
        if state.fail_syncs {
            return Err(io::Error::other("sync failed"));
        }
        let inode = &mut state.inodes[self.inode];
        inode.durable.clone_from(&inode.live);
        Ok(())
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.step()?;
        state.inodes[self.inode].live.resize(len as usize, 0);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.state.lock().inodes[self.inode].live.len() as u64)
    }
}

impl Disk for MemDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut state = self.state.lock();
        let inode = match (state.live.get(path), mode) {
            (Some(Node::Dir), _) => return Err(error(io::ErrorKind::IsADirectory, path)),
            (Some(Node::File(_)), OpenMode::CreateNew) => {
                return Err(error(io::ErrorKind::AlreadyExists, path));
            }
            (Some(Node::File(inode)), _) => *inode,
            (None, OpenMode::Read) => return Err(error(io::ErrorKind::NotFound, path)),
            (None, _) => {
                let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
                if parent.is_some_and(|p| !state.live.contains_key(p) && p != Path::new("/")) {
                    return Err(error(io::ErrorKind::NotFound, path));
                }
                state.step()?;
                state.inodes.push(Inode::default());
                let inode = state.inodes.len() - 1;
                state.live.insert(path.to_owned(), Node::File(inode));
                inode
            }
        };
        Ok(Arc::new(MemFile { state: self.state.clone(), inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        if !state.live.contains_key(from) {
            return Err(error(io::ErrorKind::NotFound, from));
        }
        state.step()?;
        for path in state.below(from) {
            let Ok(rest) = path.strip_prefix(from) else { continue };
            let target = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
            if let Some(node) = state.live.remove(&path) {
                state.live.insert(target.clone(), node);
            }
            // Below a renamed directory, names move with it.
            if path != from
                && let Some(node) = state.durable.remove(&path)
            {
                state.durable.insert(target, node);
            }
        }
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        if !matches!(state.live.get(path), Some(Node::File(_))) {
            return Err(error(io::ErrorKind::NotFound, path));
        }
        state.step()?;
        state.live.remove(path);
        Ok(())
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let mut missing: Vec<PathBuf> = path
            .ancestors()
            .filter(|p| !p.as_os_str().is_empty() && *p != Path::new("/"))
            .filter(|p| !state.live.contains_key(*p))
            .map(Path::to_owned)
            .collect();
        missing.reverse();
        for dir in missing {
            state.step()?;
            state.live.insert(dir, Node::Dir);
        }
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        if !state.live.contains_key(path) {
            return Err(error(io::ErrorKind::NotFound, path));
        }
        state.step()?;
        for name in state.below(path) {
            state.live.remove(&name);
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let state = self.state.lock();
        if !state.live.contains_key(path) {
            return Err(error(io::ErrorKind::NotFound, path));
        }
        let inside = state.live.iter().filter(|(name, _)| name.parent() == Some(path));
        Ok(inside
            .filter_map(|(name, node)| {
                let (is_dir, len) = match node {
                    Node::Dir => (true, 0),
                    Node::File(inode) => (false, state.inodes[*inode].live.len() as u64),
                };
                let name = name.file_name()?.to_string_lossy().into_owned();
                Some(DirEntry { name, is_dir, len })
            })
            .collect())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.step()?;
        let inside = |name: &Path| name.parent() == Some(path) || name == path;
        let state = &mut *state;
        let gone: Vec<PathBuf> = state
            .durable
            .keys()
            .filter(|name| inside(name) && !state.live.contains_key(*name))
            .cloned()
            .collect();
        for name in gone {
            state.durable.retain(|path, _| !path.starts_with(&name));
        }
        for (name, node) in state.live.iter().filter(|(name, _)| inside(name)) {
            state.durable.insert(name.clone(), node.clone());
        }
        Ok(())
    }

    fn exists(&self, path: &Path) -> bool {
        self.state.lock().live.contains_key(path)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let Some(node) = state.live.get(from).cloned() else {
            return Err(error(io::ErrorKind::NotFound, from));
        };
        state.step()?;
        state.live.insert(to.to_owned(), node);
        Ok(())
    }

    fn space(&self, _: &Path) -> io::Result<Space> {
        Ok(Space { total: 1 << 40, available: 1 << 39 })
    }

    fn boot_id(&self) -> io::Result<String> {
        Ok(self.state.lock().boot.to_string())
    }
}
