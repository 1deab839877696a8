//! The files of a checkpoint: written once, then never changed.
//!
//! A checkpoint is a directory with a manifest that knows length and checksum of every file. A later checkpoint may
//! keep a file of an earlier one by giving it a second name, which costs nothing. The directory stays as long as
//! somebody holds its [`Files`].

use crate::state_machine::AppError;
use bytes::{Bytes, BytesMut};
use dsn_core::disk::{Disk, OpenMode, SyncMode, read_file};
use dsn_rpc::thrift::{Decode, Encode, decode_stored, encode};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest file of a checkpoint, in bytes: it is written and read as one.
pub const FILE_MAX: usize = dsn_core::disk::READ_FILE_MAX as usize;
const MANIFEST: &str = "MANIFEST";

dsn_rpc::message! {
    /// What a manifest says of one file.
    pub struct FileEntry { 1: name: String, 2: length: i64, 3: crc: i32 }

    /// What a checkpoint consists of.
    pub struct Manifest { 1: decree: i64, 2: files: Vec<FileEntry> }
}

/// The files of a complete checkpoint.
pub struct Files {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    decree: i64,
    files: BTreeMap<String, FileEntry>,
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files").field("dir", &self.dir).field("files", &self.files.len()).finish()
    }
}

/// The error of a step on the disk, for the replica's fate: what is not there or makes no sense is corrupt.
pub(super) fn disk_error(what: &str, path: &Path, error: &io::Error) -> AppError {
    let text = format!("{what} {}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::NotFound => AppError::Corrupt(text),
        _ => AppError::Disk(text),
    }
}

impl Files {
    /// Reads the manifest of the checkpoint in `dir` and looks whether its files are there.
    pub(super) fn load(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Self, AppError> {
        let path = dir.join(MANIFEST);
        let stored =
            read_file(&**disk, &path).map_err(|error| disk_error("reading", &path, &error))?;
        let corrupt = |what: &str| AppError::Corrupt(format!("{}: {what}", path.display()));
        let Some(split) = stored.len().checked_sub(4) else { return Err(corrupt("cut off")) };
        let (content, sum) = (stored.slice(..split), &stored[split..]);
        if crc32c::crc32c(&content).to_be_bytes() != sum {
            return Err(corrupt("its checksum is wrong"));
        }
        let manifest: Manifest =
            decode_stored(&content).map_err(|error| corrupt(&error.to_string()))?;
        let found = disk.list(dir).map_err(|error| disk_error("listing", dir, &error))?;
        for file in &manifest.files {
            let there = found.iter().any(|e| e.name == file.name && e.len == file.length as u64);
            if !there {
                return Err(corrupt(&format!("{} is not there, or not as long", file.name)));
            }
        }
        let files = manifest.files.into_iter().map(|file| (file.name.clone(), file)).collect();
        Ok(Self { disk: disk.clone(), dir: dir.to_owned(), decree: manifest.decree, files })
    }

    /// The last decree whose writes are in it.
    #[must_use]
    pub fn decree(&self) -> i64 {
        self.decree
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Names of the files, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// Reads a file, checked against its checksum.
    ///
    /// # Errors
    /// [`AppError::Corrupt`] when it is not what was written, [`AppError::Disk`] when it cannot be read.
    pub fn read(&self, name: &str) -> Result<Bytes, AppError> {
        let path = self.dir.join(name);
        let entry = self.files.get(name);
        let entry =
            entry.ok_or_else(|| AppError::Corrupt(format!("{} is missing", path.display())))?;
        let content =
            read_file(&*self.disk, &path).map_err(|error| disk_error("reading", &path, &error))?;
        if content.len() as i64 != entry.length || crc32c::crc32c(&content) as i32 != entry.crc {
            return Err(AppError::Corrupt(format!("{}: its checksum is wrong", path.display())));
        }
        Ok(content)
    }

    /// Reads the value that [`NewFiles::encode`] wrote.
    ///
    /// # Errors
    /// Those of [`Files::read`]; [`AppError::Corrupt`] when it is another type's.
    pub fn decode<T: Decode>(&self, name: &str) -> Result<T, AppError> {
        decode_stored(&self.read(name)?).map_err(|error| {
            AppError::Corrupt(format!("{}: {error}", self.dir.join(name).display()))
        })
    }
}

/// The files of a checkpoint that is being written.
#[derive(Debug)]
pub struct NewFiles {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    manifest: Manifest,
}

impl NewFiles {
    /// An empty checkpoint in `dir`, which is made.
    pub(super) fn create(disk: &Arc<dyn Disk>, dir: &Path, decree: i64) -> Result<Self, AppError> {
        let error = |error: io::Error| disk_error("making", dir, &error);
        if disk.exists(dir) {
            disk.remove_dir_all(dir).map_err(error)?;
        }
        disk.create_dir_all(dir).map_err(error)?;
        let manifest = Manifest { decree, ..Manifest::default() };
        Ok(Self { disk: disk.clone(), dir: dir.to_owned(), manifest })
    }

    fn enter(&mut self, entry: FileEntry) -> Result<PathBuf, AppError> {
        let name = &entry.name;
        let is_plain = !name.is_empty() && !name.contains('/') && name != "." && name != "..";
        if !is_plain || name == MANIFEST || self.manifest.files.iter().any(|e| e.name == *name) {
            return Err(AppError::Failed(format!("no name for a file here: {name:?}")));
        }
        let path = self.dir.join(name);
        self.manifest.files.push(entry);
        Ok(path)
    }

    /// Writes a file of at most [`FILE_MAX`] bytes.
    ///
    /// # Errors
    /// [`AppError::Disk`]; [`AppError::Failed`] for a name that is taken or none, and above the limit.
    pub fn write(&mut self, name: &str, content: impl Into<Bytes>) -> Result<(), AppError> {
        let content = content.into();
        if content.len() > FILE_MAX {
            return Err(AppError::Failed(format!("{name}: {} bytes are too many", content.len())));
        }
        let crc = crc32c::crc32c(&content) as i32;
        let entry = FileEntry { name: name.to_owned(), length: content.len() as i64, crc };
        let path = self.enter(entry)?;
        self.store(&path, content).map_err(|error| AppError::Disk(format!("{path:?}: {error}")))
    }

    /// Writes a file that holds one value.
    ///
    /// # Errors
    /// Those of [`NewFiles::write`].
    pub fn encode<T: Encode>(&mut self, name: &str, value: &T) -> Result<(), AppError> {
        let mut out = BytesMut::new();
        encode(value, &mut out);
        self.write(name, out)
    }

    /// Takes over a file of an earlier checkpoint as it is, without copying it.
    ///
    /// # Errors
    /// Those of [`NewFiles::write`]; [`AppError::Failed`] when there is no such file.
    pub fn keep(&mut self, from: &Files, name: &str) -> Result<(), AppError> {
        let Some(entry) = from.files.get(name) else {
            return Err(AppError::Failed(format!("{:?} has no file {name:?}", from.dir)));
        };
        let path = self.enter(entry.clone())?;
        self.disk
            .hard_link(&from.dir.join(name), &path)
            .map_err(|error| AppError::Disk(format!("{path:?}: {error}")))
    }

    fn store(&self, path: &Path, content: Bytes) -> io::Result<()> {
        let file = self.disk.open(path, OpenMode::CreateNew)?;
        file.write_at(0, &[content])?;
        file.sync(SyncMode::All)
    }

    /// Writes the manifest; afterwards all is durable under the directory's present name.
    pub(super) fn finish(self) -> Result<(), AppError> {
        let mut out = BytesMut::new();
        encode(&self.manifest, &mut out);
        let sum = crc32c::crc32c(&out);
        out.extend_from_slice(&sum.to_be_bytes());
        let path = self.dir.join(MANIFEST);
        self.store(&path, out.freeze())
            .and_then(|()| self.disk.sync_dir(&self.dir))
            .map_err(|error| AppError::Disk(format!("{path:?}: {error}")))
    }
}
