//! Getting rid of directories that were put aside, once their time is over.
//!
//! What was replaced or is no longer wanted (`.gar`) goes after a day. What was damaged (`.err`) goes after a week, and
//! only if another replica of the same partition has taken its place here: it may be the only copy of what is in it.

use super::repair::DataDir;
use super::{LPC_OPEN_REPLICA, ReplicaStub, layout};
use dsn_core::disk::Disk;
use dsn_core::exec::Ctx;
use dsn_rpc::gpid::Gpid;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

/// How long directories that were put aside stay.
#[derive(Clone, Copy, Debug)]
pub struct GarbageOptions {
    /// `.err`.
    pub damaged: Duration,
    /// `.gar`.
    pub unwanted: Duration,
}

impl Default for GarbageOptions {
    fn default() -> Self {
        let day = Duration::from_secs(86_400);
        Self { damaged: 7 * day, unwanted: day }
    }
}

/// What was found below a data directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Swept {
    /// Directories removed.
    pub removed: u64,
    /// `.gar` directories that stay for now.
    pub garbage: u64,
}

impl ReplicaStub {
    /// Looks through all data directories.
    pub(super) fn sweep(&mut self, ctx: &mut Ctx<'_>) {
        let paths = self.dirs.iter().filter(|dir| dir.usable().is_some());
        let paths: Vec<_> = paths.map(|dir: &DataDir| layout::replicas_dir(&dir.path)).collect();
        let (app_type, options) = (self.factory.app_type().to_owned(), self.options.garbage);
        let held: BTreeSet<Gpid> = self.held.keys().copied().collect();
        ctx.offload(
            &LPC_OPEN_REPLICA,
            move |job| {
                let now_us = job.wall().unix_micros();
                let mut all = Swept::default();
                for path in paths {
                    let swept = sweep(&**job.disk(), &path, &app_type, &options, &held, now_us);
                    all.removed += swept.removed;
                    all.garbage += swept.garbage;
                }
                all
            },
            self.me,
            |stub, swept, _| stub.count_garbage(swept),
        );
    }
}

fn sweep(
    disk: &dyn Disk,
    base: &Path,
    app_type: &str,
    options: &GarbageOptions,
    held: &BTreeSet<Gpid>,
    now_us: u64,
) -> Swept {
    let mut swept = Swept::default();
    let entries = disk.list(base).unwrap_or_default();
    for entry in entries.into_iter().filter(|entry| entry.is_dir) {
        let Some(aside) = layout::parse_aside(&entry.name, app_type) else { continue };
        let keep = if aside.damaged { options.damaged } else { options.unwanted };
        // A clock that went back makes nothing older.
        let old = now_us.saturating_sub(aside.since_us) > keep.as_micros() as u64;
        if !old || (aside.damaged && !held.contains(&aside.gpid)) {
            swept.garbage += u64::from(!aside.damaged);
            continue;
        }
        match disk.remove_dir_all(&base.join(&entry.name)) {
            Ok(()) => {
                tracing::info!(gpid = %aside.gpid, name = entry.name, "removed, its time is over");
                swept.removed += 1;
            }
            Err(error) => {
                tracing::warn!(name = entry.name, %error, "cannot be removed, stays");
                swept.garbage += u64::from(!aside.damaged);
            }
        }
    }
    swept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::mem_disk::MemDisk;

    #[test]
    fn what_is_old_goes_and_what_may_be_the_only_copy_stays() {
        let disk = MemDisk::new();
        let base = Path::new("/reps");
        let day = 86_400_000_000;
        let now = 1_000 * day;
        let make = |name: String| disk.shared().create_dir_all(&base.join(name)).unwrap();
        make("1.0.pegasus".to_owned());
        for (days, suffix) in [(0, "gar"), (2, "gar"), (2, "err"), (8, "err")] {
            make(format!("1.0.pegasus.{}.{suffix}", now - days * day));
            make(format!("1.1.pegasus.{}.{suffix}", now - days * day));
        }
        make(format!("1.2.pegasus.{}.gar", now + 5 * day));
        make("1.3.pegasus.yesterday.gar".to_owned());
        let held = BTreeSet::from([Gpid::new(1, 0)]);
        let options = GarbageOptions::default();
        let swept = sweep(&*disk.shared(), base, "pegasus", &options, &held, now);
        assert_eq!(swept, Swept { removed: 3, garbage: 3 });
        let mut left: Vec<_> = disk.shared().list(base).unwrap();
        left.retain(|entry| entry.name.contains("8.err") || entry.name.len() > 11);
        let names: BTreeSet<String> = left.into_iter().map(|entry| entry.name).collect();
        let expected = [
            format!("1.0.pegasus.{now}.gar"),
            format!("1.0.pegasus.{}.err", now - 2 * day),
            format!("1.1.pegasus.{now}.gar"),
            format!("1.1.pegasus.{}.err", now - 2 * day),
            format!("1.1.pegasus.{}.err", now - 8 * day),
            format!("1.2.pegasus.{}.gar", now + 5 * day),
            "1.3.pegasus.yesterday.gar".to_owned(),
        ];
        assert_eq!(names, BTreeSet::from(expected));
    }
}
