//! The disk operations of the runtime over the simulated image.

use super::{DiskOp, Image, Pace, SimDisk, SimFile, StepKind};
use crate::disk::{DirEntry, Disk, File, OpenMode, Space, SyncMode};
use crate::sim::disk::names::{ROOT, parts};
use bytes::Bytes;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

/// "Bad file descriptor".
const EBADF: i32 = 9;
/// "No space left on device".
const ENOSPC: i32 = 28;

fn whole(parts: &[String]) -> String {
    format!("/{}", parts.join("/"))
}

impl SimDisk {
    /// Charges time for an operation on a name.
    fn charge_name(&self, image: &mut Image, parts: &[String], pace: Pace) {
        let path = if image.faults.is_empty() { String::new() } else { whole(parts) };
        self.charge(image, &path, pace, 0);
    }
}

impl SimFile {
    fn writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(io::Error::from_raw_os_error(EBADF)) }
    }
}

impl File for SimFile {
    fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut image = self.disk.image()?;
        let data = image.names.file(self.ino)?.read(offset, len);
        self.disk.charge(&mut image, &self.path, Pace::Read, data.len() as u64);
        image.faults.fails(DiskOp::Read, &self.path)?;
        Ok(data)
    }

    fn write_at(&self, offset: u64, bufs: &[Bytes]) -> io::Result<()> {
        self.writable()?;
        let mut image = self.disk.image()?;
        let total: u64 = bufs.iter().map(|buf| buf.len() as u64).sum();
        self.disk.charge(&mut image, &self.path, Pace::Write, total);
        let failed = image.faults.fails(DiskOp::Write, &self.path);
        let content = image.names.file(self.ino)?;
        let room = content.footprint().max(content.len() + image.room(&self.path));
        let fits = total.min(room.saturating_sub(offset));
        let mut limit = fits;
        if failed.is_err() || image.is_last() {
            // Any prefix may have been written.
            limit = image.pace.range(0, fits);
        }
        image.names.change(self.ino, |content| {
            let mut at = offset;
            for buf in bufs {
                let take = (buf.len() as u64).min(limit - (at - offset)) as usize;
                if take > 0 {
                    content.write(at, &buf[..take]);
                }
                at += take as u64;
            }
        });
        self.disk.step(&mut image, StepKind::Write, &self.path);
        failed?;
        if fits < total { Err(io::Error::from_raw_os_error(ENOSPC)) } else { Ok(()) }
    }

    fn sync(&self, _mode: SyncMode) -> io::Result<()> {
        let mut image = self.disk.image()?;
        let dirty = image.names.file(self.ino)?.dirty_bytes();
        self.disk.charge_sync(&mut image, &self.path, Pace::Sync, dirty);
        let outcome = image.faults.fails(DiskOp::Sync, &self.path);
        let lies = image.faults.lies(&self.path);
        image.names.change(self.ino, |content| match outcome {
            Err(_) => content.lose_dirty(),
            Ok(()) if lies => {}
            Ok(()) => content.sync(),
        });
        self.disk.step(&mut image, StepKind::Sync, &self.path);
        outcome
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.writable()?;
        let mut image = self.disk.image()?;
        self.disk.charge(&mut image, &self.path, Pace::Meta, 0);
        let grow = len.saturating_sub(image.names.file(self.ino)?.footprint());
        if grow > image.room(&self.path) {
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        image.names.change(self.ino, |content| content.reserved = content.reserved.max(len));
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.writable()?;
        let mut image = self.disk.image()?;
        self.disk.charge(&mut image, &self.path, Pace::Meta, 0);
        image.names.change(self.ino, |content| content.truncate(len));
        self.disk.step(&mut image, StepKind::Truncate, &self.path);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.image()?.names.file(self.ino)?.len())
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut image = self.image()?;
        let parts = parts(path);
        self.charge_name(&mut image, &parts, Pace::Meta);
        let (dir, name) = image.names.parent(&parts)?;
        let ino = match image.names.resolve(&parts) {
            Ok(_) if mode == OpenMode::CreateNew => return Err(ErrorKind::AlreadyExists.into()),
            Ok(ino) if image.names.is_dir(ino) && mode == OpenMode::ReadWrite => {
                return Err(ErrorKind::IsADirectory.into());
            }
            Ok(ino) if image.names.is_dir(ino) => return Err(ErrorKind::IsADirectory.into()),
            Ok(ino) => ino,
            Err(error) if error.kind() != ErrorKind::NotFound || mode == OpenMode::Read => {
                return Err(error);
            }
            Err(_) if image.faults.full(&whole(&parts)) => {
                return Err(io::Error::from_raw_os_error(ENOSPC));
            }
            Err(_) => {
                let ino = image.names.create(dir, name, false);
                self.step(&mut image, StepKind::Create, &whole(&parts));
                ino
            }
        };
        image.names.opened(ino, 1);
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            ino,
            path: whole(&parts),
            writable: mode != OpenMode::Read,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut image = self.image()?;
        let (from, to) = (parts(from), parts(to));
        self.charge_name(&mut image, &to, Pace::Meta);
        let ino = image.names.resolve(&from)?;
        let source = image.names.parent(&from)?;
        let target = image.names.parent(&to)?;
        if let Ok(there) = image.names.resolve(&to) {
            if there == ino {
                return Ok(());
            }
            match (image.names.is_dir(ino), image.names.is_dir(there)) {
                (false, true) => return Err(ErrorKind::IsADirectory.into()),
                (true, false) => return Err(ErrorKind::NotADirectory.into()),
                (true, true) if !image.names.entries(there)?.is_empty() => {
                    return Err(ErrorKind::DirectoryNotEmpty.into());
                }
                _ => {}
            }
        }
        if to.len() > from.len() && to[..from.len()] == from[..] {
            return Err(ErrorKind::InvalidInput.into());
        }
        image.names.rename(source, target, ino);
        self.step(&mut image, StepKind::Rename, &whole(&to));
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut image = self.image()?;
        let parts = parts(path);
        self.charge_name(&mut image, &parts, Pace::Meta);
        let ino = image.names.resolve(&parts)?;
        if image.names.is_dir(ino) {
            return Err(ErrorKind::IsADirectory.into());
        }
        let (dir, name) = image.names.parent(&parts)?;
        image.names.remove(dir, name);
        self.step(&mut image, StepKind::Remove, &whole(&parts));
        Ok(())
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let parts = parts(path);
        let mut dir = ROOT;
        for depth in 0..parts.len() {
            let mut image = self.image()?;
            match image.names.resolve(&parts[..=depth]) {
                Ok(ino) if image.names.is_dir(ino) => dir = ino,
                Ok(_) if depth + 1 == parts.len() => return Err(ErrorKind::AlreadyExists.into()),
                Ok(_) => return Err(ErrorKind::NotADirectory.into()),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    self.charge_name(&mut image, &parts[..=depth], Pace::Meta);
                    dir = image.names.create(dir, &parts[depth], true);
                    self.step(&mut image, StepKind::Create, &whole(&parts[..=depth]));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let (is_dir, entries) = {
            let image = self.image()?;
            let ino = image.names.resolve(&parts(path))?;
            (image.names.is_dir(ino), image.names.entries(ino))
        };
        if !is_dir {
            return Err(ErrorKind::NotADirectory.into());
        }
        for (name, is_dir, _) in entries? {
            let below = path.join(name);
            if is_dir { self.remove_dir_all(&below)? } else { self.unlink(&below)? }
        }
        let mut image = self.image()?;
        let parts = parts(path);
        self.charge_name(&mut image, &parts, Pace::Meta);
        let (dir, name) = image.names.parent(&parts)?;
        image.names.remove(dir, name);
        self.step(&mut image, StepKind::Remove, &whole(&parts));
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut image = self.image()?;
        let parts = parts(path);
        self.charge_name(&mut image, &parts, Pace::Meta);
        let ino = image.names.resolve(&parts)?;
        let entries = image.names.entries(ino)?.into_iter();
        Ok(entries.map(|(name, is_dir, len)| DirEntry { name, is_dir, len }).collect())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut image = self.image()?;
        let parts = parts(path);
        let full = whole(&parts);
        let itself = format!("{}/.", full.trim_end_matches('/'));
        let found = image.names.resolve(&parts);
        let changed = found.as_ref().is_ok_and(|ino| image.names.has_pending(*ino));
        self.charge_sync(&mut image, &itself, if changed { Pace::Sync } else { Pace::Flush }, 0);
        let ino = found?;
        image.faults.fails(DiskOp::Sync, &itself)?;
        if changed {
            if !image.faults.lies(&itself) {
                image.names.sync_dir(ino);
            }
            self.step(&mut image, StepKind::SyncDir, &full);
        }
        Ok(())
    }

    fn exists(&self, path: &Path) -> bool {
        self.image().is_ok_and(|image| image.names.resolve(&parts(path)).is_ok())
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut image = self.image()?;
        let (from, to) = (parts(from), parts(to));
        self.charge_name(&mut image, &to, Pace::Meta);
        let ino = image.names.resolve(&from)?;
        if image.names.is_dir(ino) {
            return Err(ErrorKind::PermissionDenied.into());
        }
        if image.names.resolve(&to).is_ok() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let (dir, name) = image.names.parent(&to)?;
        image.names.add_link(dir, name, ino);
        self.step(&mut image, StepKind::Create, &whole(&to));
        Ok(())
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let image = self.image()?;
        let parts = parts(path);
        image.names.resolve(&parts)?;
        // Of the disk that is mounted there.
        let available = image.room(&format!("{}/", whole(&parts)));
        Ok(Space { total: image.options.capacity, available })
    }

    fn boot_id(&self) -> io::Result<String> {
        Ok(format!("{}-{}", self.shared.name, self.image()?.boot))
    }
}
