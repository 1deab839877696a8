//! Directories of replicas: names and durable creation.

use dsn_core::disk::Disk;
use std::io;
use std::path::Path;

/// Creates a directory with its parents so that it is there after a power loss.
///
/// # Errors
/// The first failing step's.
pub fn create_dir_durable(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path
        .ancestors()
        .take_while(|dir| !dir.as_os_str().is_empty() && !disk.exists(dir))
        .collect();
    disk.create_dir_all(path)?;
    for dir in missing.into_iter().rev() {
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
        disk.sync_dir(parent.unwrap_or(Path::new(".")))?;
    }
    Ok(())
}
