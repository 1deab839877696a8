//! Room on the disks: a data directory that is nearly full takes no new replicas, and its replicas no writes of
//! clients, so that what is there goes on being read, checkpointed and learned from. It recovers by itself.

use super::{LPC_DISK_STAT, LPC_STUB_EVENT, LPC_STUB_TICK, ReplicaStub};
use crate::host::LPC_REPLICA_EVENT;
use dsn_core::disk::Space;
use dsn_core::exec::Ctx;
use std::io;
use std::time::Duration;

/// When a disk counts as full.
#[derive(Clone, Copy, Debug)]
pub struct SpaceOptions {
    /// Between two looks.
    pub interval: Duration,
    /// Percent of a disk that must be free.
    pub min_free_percent: u32,
    /// Whether clients' writes are refused below that.
    pub reject_writes: bool,
}

impl Default for SpaceOptions {
    fn default() -> Self {
        Self { interval: Duration::from_secs(10), min_free_percent: 10, reject_writes: true }
    }
}

/// Percent by which more must be free before a full disk takes writes again.
const RECOVERED_PERCENT: u64 = 1;

/// Whether a disk is full, after it was or was not.
fn is_full(space: &Space, was_full: bool, min_free_percent: u32) -> bool {
    let wanted = u64::from(min_free_percent) + if was_full { RECOVERED_PERCENT } else { 0 };
    min_free_percent > 0
        && u128::from(space.available) * 100 < u128::from(space.total) * u128::from(wanted)
}

impl ReplicaStub {
    /// Looks at all disks, now and every interval.
    pub(super) fn watch_space(&mut self, ctx: &mut Ctx<'_>) {
        ctx.every(self.me, &LPC_STUB_TICK, self.options.space.interval, Self::look_at_space);
        self.look_at_space(ctx);
    }

    fn look_at_space(&mut self, ctx: &mut Ctx<'_>) {
        let paths = self.options.data_dirs.clone();
        ctx.offload(
            &LPC_DISK_STAT,
            move |job| paths.iter().map(|path| job.disk().space(path)).collect(),
            self.me,
            |stub, found: Vec<io::Result<Space>>, ctx| {
                for (index, space) in found.into_iter().enumerate() {
                    match space {
                        Ok(space) => stub.has_space(ctx, index, space),
                        Err(error) => {
                            let path = stub.dirs[index].path.display();
                            tracing::warn!(dir = %path, %error, "cannot tell how full the disk is");
                        }
                    }
                }
                stub.count_space();
            },
        );
    }

    fn has_space(&mut self, ctx: &mut Ctx<'_>, index: usize, space: Space) {
        let dir = &mut self.dirs[index];
        let full = is_full(&space, dir.is_full(), self.options.space.min_free_percent);
        let was_full = dir.is_full();
        dir.space = Some((space, full));
        if full == was_full {
            return;
        }
        let (path, free_mib) = (dir.path.display(), space.available >> 20);
        match full {
            true => {
                tracing::error!(dir = %path, free_mib, "the disk is nearly full: no writes of clients")
            }
            false => tracing::info!(dir = %path, free_mib, "the disk has room again"),
        }
        let refuse = full && self.options.space.reject_writes;
        for held in self.held.values().filter(|held| held.data_dir == index) {
            ctx.post(held.host, &LPC_REPLICA_EVENT, move |host, _| host.set_disk_is_full(refuse));
        }
        // Whoever waits for room for a new replica is told by the meta server's next proposal.
        ctx.post(self.me, &LPC_STUB_EVENT, |stub, ctx| stub.sync_now(ctx));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_full_below_the_limit_and_recovers_a_little_above_it() {
        let free = |available| Space { total: 1000, available };
        assert!(!is_full(&free(100), false, 10));
        assert!(is_full(&free(99), false, 10));
        assert!(is_full(&free(105), true, 10), "not back and forth");
        assert!(!is_full(&free(110), true, 10));
        assert!(!is_full(&free(0), false, 0), "turned off");
        let large = Space { total: u64::MAX, available: u64::MAX / 20 };
        assert!(is_full(&large, false, 10));
    }
}
