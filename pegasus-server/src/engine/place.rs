//! Creating an engine's directory so that it is complete or absent, whatever interrupts it.

use std::path::Path;

use dsn_core::disk::{Disk, with_suffix};
use dsn_core::planted;

use super::EngineError;

/// Calls `fill` with a fresh directory beside `dir`, then renames that to `dir`, durably. What an
/// earlier interrupted call left behind is removed first.
///
/// # Errors
/// Those of `fill`, or [`EngineError::Io`]; `dir` then does not exist.
pub fn create_complete(
    disk: &dyn Disk,
    dir: &Path,
    fill: impl FnOnce(&Path) -> Result<(), EngineError>,
) -> Result<(), EngineError> {
    if planted::has("engine_made_in_place") {
        disk.create_dir_all(dir).map_err(|error| EngineError::io("creating", dir, &error))?;
        return fill(dir);
    }
    let making = with_suffix(dir, ".new");
    let parent = dir.parent().unwrap_or(Path::new("."));
    let io = |doing: &'static str| {
        let making = making.clone();
        move |error: std::io::Error| EngineError::io(doing, &making, &error)
    };
    if disk.exists(&making) {
        disk.remove_dir_all(&making).map_err(io("removing"))?;
    }
    disk.create_dir_all(&making).map_err(io("creating"))?;
    fill(&making)?;
    disk.sync_dir(&making).map_err(io("syncing"))?;
    disk.rename(&making, dir).map_err(io("putting in place"))?;
    disk.sync_dir(parent).map_err(|error| {
        // It must not be found there before its name is sure to stay.
        let _ = disk.remove_dir_all(dir);
        io("syncing the parent of")(error)
    })
}
