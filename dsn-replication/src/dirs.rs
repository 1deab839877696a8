//! Durable creation of directories.
//!
//! That a directory is there does not say that it stays: an earlier attempt may have made it, or renamed something to
//! it, and have failed or been killed before its name was synced. So nothing that is found is trusted before it is
//! synced.

use dsn_core::disk::Disk;
use std::io;
use std::path::Path;

/// Creates a directory with its parents so that it is there after a power loss. One that is there already is made
/// durable as well, in its parent; see [`create_root_durable`] for those above.
///
/// # Errors
/// The first failing step's. It may be called again.
pub fn create_dir_durable(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    let missing =
        path.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !disk.exists(dir)).count();
    disk.create_dir_all(path)?;
    path.ancestors().skip(1).take(missing.max(1)).try_for_each(|above| sync_dir(disk, above))
}

/// Creates the directory of a server: as [`create_dir_durable`], and every directory above is made durable, whoever
/// made it.
///
/// # Errors
/// The first failing step's. It may be called again.
pub fn create_root_durable(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    disk.create_dir_all(path)?;
    path.ancestors().skip(1).try_for_each(|above| match sync_dir(disk, above) {
        // Nothing in there was made by a process that may not even read it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        outcome => outcome,
    })
}

/// Syncs the directory that holds `path`: what was created or renamed there is durable then.
///
/// # Errors
/// Of the file system.
pub fn sync_parent(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    sync_dir(disk, path.parent().unwrap_or(Path::new("")))
}

fn sync_dir(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    disk.sync_dir(if dir.as_os_str().is_empty() { Path::new(".") } else { dir })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::mem_disk::{Crash, MemDisk};

    /// Calls `create` on a machine that stops at each of its steps in turn, then once more, as the next process does;
    /// afterwards no power loss takes the directory. How many steps there were.
    fn steps_of(create: fn(&dyn Disk, &Path) -> io::Result<()>, above: &str, path: &str) -> u64 {
        let path = Path::new(path);
        for stop in 0.. {
            let disk = MemDisk::new();
            disk.create_dir_all(Path::new(above)).unwrap();
            disk.sync_dir(Path::new("/")).unwrap();
            let begun = disk.steps();
            disk.stop_at(begun + stop);
            let first = create(&disk, path);
            let next = disk.restart(Crash::Kill);
            create(&next, path).unwrap();
            for seed in 0..32 {
                let after = next.restart(Crash::PowerLoss(seed));
                assert!(after.exists(path), "{path:?} is gone, stopped at {stop}, seed {seed}");
            }
            if first.is_ok() {
                return stop;
            }
        }
        unreachable!()
    }

    #[test]
    fn a_directory_that_an_earlier_process_made_is_made_durable() {
        assert_eq!(steps_of(create_dir_durable, "/data", "/data/one"), 2);
        assert_eq!(steps_of(create_root_durable, "/data", "/data/one/two/three"), 7);
    }
}
