//! The directories of a server's replicas: `<data_dir>/replica/reps/<app_id>.<index>.<app_type>/`.
//!
//! ```text
//! .app-info    the table (magic number and thrift JSON, as Pegasus writes it)
//! .init-info   where the replica begins, JSON: crc, magic, init_ballot, init_durable_decree,
//!              init_offset_in_private_log
//! data/        the state machine's files
//! ```
//! It is put together as `<name>.new` and renamed when it is complete.
//! While a checkpoint is copied it is put together in `<name>.learn`.
//! A directory that cannot be opened is renamed to `<name>.<unix_us>.err`, one that is no longer wanted to
//! `<name>.<unix_us>.gar`. The mutation log of a data directory is `<data_dir>/replica/log/`;
//! `<data_dir>/replica/.log-info` says under which run of the machine it is written.

use crate::dirs::{create_dir_durable, sync_parent};
use crate::ids::Ballot;
use crate::wire::app_info_file;
use crate::wire::config::AppInfo;
use bytes::Bytes;
use dsn_core::disk::{Disk, read_file, with_suffix, write_file_durable};
use dsn_rpc::gpid::Gpid;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

const NEW_SUFFIX: &str = ".new";
const LEARN_SUFFIX: &str = ".learn";
const INIT_INFO: &str = ".init-info";
const MAGIC: u32 = 0xdead_beef;

/// Where a replica begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitInfo {
    crc: u32,
    magic: u32,
    /// Ballot at its creation, or a later one that the log need not keep.
    pub init_ballot: i64,
    /// Decree of the checkpoint it was made from.
    pub init_durable_decree: i64,
    /// Records of the log before this position belong to a former replica of the partition.
    pub init_offset_in_private_log: u64,
}

impl InitInfo {
    /// For a replica that begins at `offset` of the log.
    #[must_use]
    pub fn new(ballot: i64, decree: i64, offset: u64) -> Self {
        let mut info = Self {
            crc: 0,
            magic: MAGIC,
            init_ballot: ballot,
            init_durable_decree: decree,
            init_offset_in_private_log: offset,
        };
        info.crc = info.checksum();
        info
    }

    /// Reads the content of the file.
    ///
    /// # Errors
    /// `InvalidData` for content that is none of ours.
    pub fn decode(content: &[u8]) -> io::Result<Self> {
        let invalid = |error: String| io::Error::new(io::ErrorKind::InvalidData, error);
        let init: Self =
            serde_json::from_slice(content).map_err(|error| invalid(error.to_string()))?;
        if init.magic != MAGIC || init.crc != init.checksum() {
            return Err(invalid(".init-info: wrong checksum".to_owned()));
        }
        Ok(init)
    }

    fn checksum(&self) -> u32 {
        let mut bytes = Vec::with_capacity(28);
        bytes.extend_from_slice(&self.magic.to_le_bytes());
        bytes.extend_from_slice(&self.init_ballot.to_le_bytes());
        bytes.extend_from_slice(&self.init_durable_decree.to_le_bytes());
        bytes.extend_from_slice(&self.init_offset_in_private_log.to_le_bytes());
        crc32c::crc32c(&bytes)
    }
}

/// Directory of all replicas of a data directory.
#[must_use]
pub fn replicas_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("replica").join("reps")
}

/// Directory of the mutation log of a data directory.
#[must_use]
pub fn log_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("replica").join("log")
}

/// What is known about the end of the mutation log, see [`Tails`](crate::log::Tails).
#[must_use]
pub fn log_info(data_dir: &Path) -> PathBuf {
    data_dir.join("replica").join(".log-info")
}

/// Directory of one replica.
#[must_use]
pub fn replica_dir(data_dir: &Path, gpid: Gpid, app_type: &str) -> PathBuf {
    let name = format!("{}.{}.{app_type}", gpid.app_id, gpid.partition_index);
    replicas_dir(data_dir).join(name)
}

/// The partition of a directory name of this app type; `None` for everything else.
#[must_use]
pub fn parse_name(name: &str, app_type: &str) -> Option<Gpid> {
    let mut parts = name.splitn(3, '.');
    let app_id: i32 = parts.next()?.parse().ok()?;
    let partition_index: i32 = parts.next()?.parse().ok()?;
    let fits = parts.next()? == app_type && app_id > 0 && partition_index >= 0;
    fits.then_some(Gpid { app_id, partition_index })
}

/// A directory that was put aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aside {
    /// The partition.
    pub gpid: Gpid,
    /// When, in microseconds since the Unix epoch.
    pub since_us: u64,
    /// As damaged (`.err`), not as unwanted (`.gar`).
    pub damaged: bool,
}

/// Reads the name of a directory that was put aside.
#[must_use]
pub fn parse_aside(name: &str, app_type: &str) -> Option<Aside> {
    let (name, damaged) = match name.strip_suffix(".err") {
        Some(name) => (name, true),
        None => (name.strip_suffix(".gar")?, false),
    };
    let (name, since) = name.rsplit_once('.')?;
    let since_us = since.parse().ok()?;
    Some(Aside { gpid: parse_name(name, app_type)?, since_us, damaged })
}

/// Whether a directory is a new replica that was never completed.
#[must_use]
pub fn is_incomplete(name: &str) -> bool {
    name.ends_with(NEW_SUFFIX)
}

/// Makes a new replica's directory with what it begins with: whole or not at all, whatever interrupts it.
///
/// # Errors
/// Of the file system.
pub fn create_new(disk: &dyn Disk, dir: &Path, info: &AppInfo, init: &InitInfo) -> io::Result<()> {
    let making = with_suffix(dir, NEW_SUFFIX);
    if disk.exists(&making) {
        disk.remove_dir_all(&making)?;
    }
    create(disk, &making, info, init)?;
    disk.rename(&making, dir)?;
    sync_parent(disk, dir).inspect_err(|_| {
        // It must not be found there before its name is sure to stay.
        let _ = disk.remove_dir_all(dir);
    })
}

/// Where a checkpoint for the replica in `dir` is put together.
#[must_use]
pub fn learn_dir(dir: &Path) -> PathBuf {
    with_suffix(dir, LEARN_SUFFIX)
}

/// Whether a name is that of a [`learn_dir`], which nobody needs after a restart.
#[must_use]
pub fn is_learn_dir(name: &str) -> bool {
    name.ends_with(LEARN_SUFFIX)
}

/// Writes what a new replica begins with.
///
/// # Errors
/// Of the file system.
pub fn create(disk: &dyn Disk, dir: &Path, info: &AppInfo, init: &InitInfo) -> io::Result<()> {
    create_dir_durable(disk, dir)?;
    let invalid = |error: String| io::Error::new(io::ErrorKind::InvalidData, error);
    write_init(disk, &dir.join(INIT_INFO), init)?;
    let app = app_info_file::encode(info).map_err(|error| invalid(error.to_string()))?;
    write_file_durable(disk, &dir.join(".app-info"), app)
}

/// Reads what a replica began with.
///
/// # Errors
/// Of the file system, or `InvalidData` for content that is none of ours.
pub fn load(disk: &dyn Disk, dir: &Path) -> io::Result<(AppInfo, InitInfo)> {
    let invalid = |error: String| io::Error::new(io::ErrorKind::InvalidData, error);
    let app = read_file(disk, &dir.join(".app-info"))?;
    let app = app_info_file::decode(&app).map_err(|error| invalid(error.to_string()))?;
    let init = InitInfo::decode(&read_file(disk, &dir.join(INIT_INFO))?)?;
    Ok((app, init))
}

/// Puts a replica's ballot on record, durably, unless a higher one is.
///
/// # Errors
/// Of the file system, or `InvalidData` for a file that is none of ours.
pub fn raise_ballot(disk: &dyn Disk, dir: &Path, ballot: Ballot) -> io::Result<()> {
    let path = dir.join(INIT_INFO);
    let init = InitInfo::decode(&read_file(disk, &path)?)?;
    if ballot.0 <= init.init_ballot {
        // An earlier attempt may have failed at this.
        return disk.sync_dir(dir);
    }
    let (decree, offset) = (init.init_durable_decree, init.init_offset_in_private_log);
    write_init(disk, &path, &InitInfo::new(ballot.0, decree, offset))
}

fn write_init(disk: &dyn Disk, path: &Path, init: &InitInfo) -> io::Result<()> {
    let json = serde_json::to_vec(init)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    write_file_durable(disk, path, Bytes::from(json))
}

/// Puts a directory aside under `suffix`; its name is free then.
///
/// # Errors
/// Of the file system.
pub fn put_aside(disk: &dyn Disk, dir: &Path, now_us: u64, suffix: &str) -> io::Result<PathBuf> {
    let mut name = dir.as_os_str().to_owned();
    name.push(format!(".{now_us}.{suffix}"));
    let aside = PathBuf::from(name);
    disk.rename(dir, &aside)?;
    sync_parent(disk, dir)?;
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_others_are_not() {
        let gpid = Gpid { app_id: 2, partition_index: 7 };
        let dir = replica_dir(Path::new("d"), gpid, "pegasus");
        let name = dir.file_name().unwrap().to_str().unwrap();
        assert_eq!(parse_name(name, "pegasus"), Some(gpid));
        for (name, damaged) in [("2.7.pegasus.123.err", true), ("2.7.pegasus.123.gar", false)] {
            let aside = Aside { gpid, since_us: 123, damaged };
            assert_eq!(parse_aside(name, "pegasus"), Some(aside));
        }
        for other in ["2.7.pegasus.123.bak", "2.7.pegasus.err", "2.7.pegasus.x.err", "2.7.pegasus"]
        {
            assert_eq!(parse_aside(other, "pegasus"), None, "{other}");
        }
        for other in ["2.7.counter", "2.7.pegasus.123.err", "x.7.pegasus", "2.-1.pegasus", "2.7"] {
            assert_eq!(parse_name(other, "pegasus"), None, "{other}");
        }
    }

    #[test]
    fn the_checksum_covers_every_number() {
        let good = InitInfo::new(1, 2, 3);
        assert_eq!(good.crc, good.checksum());
        for bad in [
            InitInfo { init_ballot: 9, ..good },
            InitInfo { init_durable_decree: 9, ..good },
            InitInfo { init_offset_in_private_log: 9, ..good },
        ] {
            assert_ne!(bad.crc, bad.checksum());
        }
    }
}
