//! A disk for tests: files with a live and a durable image, and power that goes out at a chosen step.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use dsn_core::disk::{DirEntry, Disk, File, OpenMode, Space, SyncMode};
use parking_lot::Mutex;

/// Files with a live and a durable image; everything fails from step `cut_at` on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Files {
    pub(crate) inodes: Vec<Inode>,
    pub(crate) live: BTreeMap<PathBuf, usize>,
    pub(crate) durable: BTreeMap<PathBuf, usize>,
    pub(crate) steps: usize,
    pub(crate) cut_at: Option<usize>,
    pub(crate) fail_sync_at: Option<usize>,
    /// Whether there is a file of a name cannot be found out; that says no, as an input/output error does.
    pub(crate) is_blind: bool,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Inode {
    pub(crate) live: Vec<u8>,
    pub(crate) durable: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Crash {
    /// The process is killed: what was written stays.
    Kill,
    /// Nothing that was not synced stays.
    PowerLoss,
    /// Half of what was appended and not synced stays, followed by zeros.
    Torn,
}

impl Files {
    fn step(&mut self) -> io::Result<()> {
        self.steps += 1;
        if self.cut_at.is_some_and(|cut| self.steps > cut) {
            return Err(io::Error::other("power is out"));
        }
        Ok(())
    }

    pub(crate) fn crash(&self, how: Crash) -> Self {
        let mut after = Self::default();
        let names = if how == Crash::Kill { &self.live } else { &self.durable };
        for (name, inode) in names {
            let Inode { live, durable } = &self.inodes[*inode];
            let content = match how {
                Crash::Kill => live.clone(),
                Crash::PowerLoss => durable.clone(),
                Crash::Torn => {
                    let kept = durable.len() + live.len().saturating_sub(durable.len()) / 2;
                    let mut content = live[..kept.min(live.len())].to_vec();
                    content.resize(live.len(), 0);
                    content
                }
            };
            let inode = Inode { live: content.clone(), durable: content };
            after.inodes.push(inode);
            after.live.insert(name.clone(), after.inodes.len() - 1);
        }
        after.durable = after.live.clone();
        after
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct CrashDisk(pub(crate) Arc<Mutex<Files>>);

impl CrashDisk {
    pub(crate) fn of(files: Files) -> Self {
        Self(Arc::new(Mutex::new(files)))
    }

    pub(crate) fn edit(&self, name: &str, f: impl FnOnce(&mut Vec<u8>)) {
        let mut files = self.0.lock();
        let inode = files.live[Path::new(name)];
        f(&mut files.inodes[inode].live);
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.0.lock().live.keys().map(|path| path.display().to_string()).collect()
    }
}

#[derive(Debug)]
struct CrashFile(CrashDisk, usize);

impl File for CrashFile {
    fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let files = self.0.0.lock();
        let content = &files.inodes[self.1].live;
        let from = (offset as usize).min(content.len());
        Ok(Bytes::copy_from_slice(&content[from..(from + len).min(content.len())]))
    }

    fn write_at(&self, offset: u64, bufs: &[Bytes]) -> io::Result<()> {
        let mut files = self.0.0.lock();
        let outcome = files.step();
        let content = &mut files.inodes[self.1].live;
        content.truncate(offset as usize);
        bufs.iter().for_each(|buf| content.extend_from_slice(buf));
        outcome
    }

    fn sync(&self, _: SyncMode) -> io::Result<()> {
        let mut files = self.0.0.lock();
        files.step()?;
        if files.fail_sync_at.is_some_and(|at| files.steps == at) {
            return Err(io::Error::other("input/output error"));
        }
        let inode = &mut files.inodes[self.1];
        inode.durable = inode.live.clone();
        Ok(())
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.0.lock().inodes[self.1].live.truncate(len as usize);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.0.lock().inodes[self.1].live.len() as u64)
    }
}

impl Disk for CrashDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut files = self.0.lock();
        let inode = match (files.live.get(path).copied(), mode) {
            (Some(_), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(inode), _) => inode,
            (None, OpenMode::Read) => return Err(io::ErrorKind::NotFound.into()),
            (None, _) => {
                files.step()?;
                files.inodes.push(Inode::default());
                let inode = files.inodes.len() - 1;
                files.live.insert(path.to_owned(), inode);
                inode
            }
        };
        Ok(Arc::new(CrashFile(self.clone(), inode)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.0.lock();
        files.step()?;
        let inode = files.live.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.live.insert(to.to_owned(), inode);
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut files = self.0.lock();
        files.step()?;
        files.live.remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove_dir_all(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let files = self.0.lock();
        let inside = files.live.iter().filter(|(name, _)| name.parent() == Some(path));
        Ok(inside
            .map(|(name, inode)| DirEntry {
                name: name.file_name().unwrap().to_string_lossy().into_owned(),
                is_dir: false,
                len: files.inodes[*inode].live.len() as u64,
            })
            .collect())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut files = self.0.lock();
        files.step()?;
        let inside = |name: &Path| name.parent() == Some(path);
        files.durable.retain(|name, _| !inside(name));
        let added: Vec<(PathBuf, usize)> = files
            .live
            .iter()
            .filter(|(name, _)| inside(name))
            .map(|(name, inode)| (name.clone(), *inode))
            .collect();
        files.durable.extend(added);
        Ok(())
    }

    fn exists(&self, path: &Path) -> bool {
        let files = self.0.lock();
        files.live.contains_key(path) && !files.is_blind
    }

    fn hard_link(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn space(&self, _: &Path) -> io::Result<Space> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn boot_id(&self) -> io::Result<String> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
