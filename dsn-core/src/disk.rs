//! Files and directories as the runtime sees them.
//!
//! One synchronous trait, [`Disk`], has two implementations: the operating system's (native driver) and the
//! simulator's live/durable image. It is synchronous on purpose: the same operation can be run in place by a
//! worker (a page-cache append costs less than a hand-over to another thread) or inside a blocking job through
//! [`Ctx::offload`](crate::exec::Ctx::offload), and both are the same call to the fault injector.
//!
//! Durability contract, which the simulator enforces by losing everything else at a power loss:
//! * bytes are durable after [`File::sync`] returned `Ok`; a failed sync leaves them lost for ever;
//! * a created, renamed or removed name is durable after [`Disk::sync_dir`] on its directory;
//! * what a killed process wrote without sync survives (page cache), what a power loss hits may not, and may be torn.

use crate::planted;
use bytes::Bytes;
use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How [`Disk::open`] treats an existing or missing file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Read only; the file must exist.
    Read,
    /// Read and write; created empty when missing, kept as it is when present.
    ReadWrite,
    /// Read and write; must not exist.
    CreateNew,
}

/// What a sync must make durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    /// Data and the metadata needed to read it back (`fdatasync`).
    Data,
    /// Data and all metadata (`fsync`).
    All,
}

/// One entry of [`Disk::list`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// Name within the directory, no slashes.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// File length in bytes; 0 for directories.
    pub len: u64,
}

/// Free and total space of the file system under a path, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Size of the file system.
    pub total: u64,
    /// Bytes available to this process.
    pub available: u64,
}

/// An open file. Positions are explicit; there is no cursor.
pub trait File: Send + Sync + Debug {
    /// Reads at most `len` bytes from `offset`; shorter at the end of the file, empty past it.
    fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes>;
    /// Writes all buffers, one after the other, from `offset` on. On `Err` any prefix may have been written.
    fn write_at(&self, offset: u64, bufs: &[Bytes]) -> io::Result<()>;
    /// Makes earlier writes durable.
    fn sync(&self, mode: SyncMode) -> io::Result<()>;
    /// Reserves space so that later writes inside it need no new blocks. The length does not change.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Sets the length, cutting or zero-filling.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Current length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file is empty.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// A file system. Paths are absolute or relative to the node's working folder.
pub trait Disk: Send + Sync + Debug {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;
    /// Renames a file or directory, replacing a file of that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn unlink(&self, path: &Path) -> io::Result<()>;
    /// Creates a directory and its parents.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory with everything below it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Entries of a directory, sorted by name.
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    /// Makes the names inside a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Whether a file or directory of that name exists.
    fn exists(&self, path: &Path) -> bool;
    /// Makes a second name for a file.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Free and total space.
    fn space(&self, path: &Path) -> io::Result<Space>;
    /// Names the run of the machine: as long as it is the same, nothing that was written is lost, synced or not. It is
    /// another after every start of the machine, and the same after a start of the process alone.
    fn boot_id(&self) -> io::Result<String>;
}

/// Largest file [`read_file`] loads, in bytes: small state files only.
pub const READ_FILE_MAX: u64 = 1 << 30;

/// Reads a whole (small) file.
///
/// # Errors
/// The open or read error, or `InvalidData` above [`READ_FILE_MAX`].
pub fn read_file(disk: &dyn Disk, path: &Path) -> io::Result<Bytes> {
    let file = disk.open(path, OpenMode::Read)?;
    let len = file.len()?;
    if len > READ_FILE_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{path:?}: {len} bytes")));
    }
    file.read_at(0, len as usize)
}

/// Replaces a small file atomically and durably: temporary name, write, sync, rename, directory sync.
///
/// # Errors
/// The first failing step's error. The old content is then still in place, except when that step was the sync of the
/// directory: then the new content is found, and may be lost with the power until the directory is synced.
pub fn write_file_durable(disk: &dyn Disk, path: &Path, content: Bytes) -> io::Result<()> {
    let tmp = with_suffix(path, ".tmp");
    if disk.exists(&tmp) {
        disk.unlink(&tmp)?;
    }
    let file = disk.open(&tmp, OpenMode::CreateNew)?;
    file.write_at(0, &[content])?;
    file.sync(SyncMode::All)?;
    drop(file);
    disk.rename(&tmp, path)?;
    if planted::has("rename_without_dir_sync") {
        return Ok(());
    }
    disk.sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// `path` with `suffix` appended to its file name.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
