//! What is on the disks and not served, and the way back without a restart of the process.
//!
//! * The disk refuses a replica, when it is opened or later: it is opened again after pauses that double. When a minute
//!   has not helped and its group wants to feed it, it is put aside and learned anew, in another data directory if
//!   there is one. Nobody feeds the last replica of a group, which is waited for.
//! * A data directory cannot be opened, or its log has failed: the same, with all that is in it. A failed log is not
//!   written to again; a new one is begun behind it, and its replicas write out what they have in memory, because what
//!   the failed log holds on the disk is unknown. One that stays shut is given up after a while: what was in it is
//!   learned anew into another directory, and its older copies are put aside when it returns.
//! * The files of a replica contradict themselves: it is put aside and stays out with all its data. A group of one has
//!   nobody to learn from, so nothing takes its place here. People are told: metric, log, command, HTTP.

use super::garbage::Swept;
use super::open::{Opened, OpenedDir, Problem, close, open_dir, put_damaged_aside, reopen};
use super::{Held, LPC_OPEN_REPLICA, LPC_STUB_OPEN, ReplicaStub, layout};
use crate::host::LPC_REPLICA_EVENT;
use crate::log::{LogError, SharedLog, Tails};
use crate::replica::LocalError;
use crate::state_machine::{CheckpointKind, StateMachine};
use crate::wire::config::PartitionStatus;
use dsn_core::disk::Space;
use dsn_core::exec::{BlockingCtx, Ctx};
use dsn_core::time::Mono;
use dsn_rpc::ServiceTable;
use dsn_rpc::gpid::Gpid;
use dsn_rpc::http::HttpReply;
use parking_lot::Mutex;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Between a refusal of the disk and the first new attempt, and between two looks at what is due.
pub const PAUSE_FIRST: Duration = Duration::from_secs(1);

/// Longest pause between two attempts.
pub const PAUSE_MAX: Duration = Duration::from_secs(60);

dsn_core::metrics! {
    /// The replicas of a server.
    pub struct StubMetrics on "server" {
        /// Replicas held.
        total_replicas: Gauge, Replicas;
        /// Replicas being made, opened or closed.
        opening_replicas: Gauge, Replicas;
        /// Replicas that lead their group.
        primary_replicas: Gauge, Replicas;
        /// Replicas that belong to no group at present.
        inactive_replicas: Gauge, Replicas;
        /// Replicas that are broken, or wait for their disk.
        error_replicas: Gauge, Replicas;
        /// Directories of replicas that were put aside as damaged.
        replica_error_dirs: Gauge, Dirs;
        /// Directories of replicas that were replaced or are no longer wanted, and wait to be removed.
        replica_garbage_dirs: Gauge, Dirs;
        /// Directories that were put aside and have been removed since.
        replica_removed_dirs: Counter, Dirs;
        /// Size of all disks.
        disk_capacity_total_mb: Gauge, MegaBytes;
        /// What is free of them.
        disk_available_total_mb: Gauge, MegaBytes;
        /// Disks that are nearly full.
        full_data_dirs: Gauge, Dirs;
        /// Data directories that cannot be used.
        broken_data_dirs: Gauge, Dirs;
    }
}

/// When to try again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pause {
    length: Duration,
    due: Mono,
}

impl Pause {
    pub(super) fn first(now: Mono) -> Self {
        Self { length: PAUSE_FIRST, due: now + PAUSE_FIRST }
    }

    fn next(self, now: Mono) -> Self {
        let length = (self.length * 2).min(PAUSE_MAX);
        Self { length, due: now + length }
    }

    /// Of what is opened and has to be opened again: it grows when that was soon.
    fn after(self, opened_at: Mono, now: Mono) -> Self {
        let was_calm = now.saturating_since(opened_at) >= PAUSE_MAX;
        if was_calm { Self::first(now) } else { self.next(now) }
    }

    /// Whether what waits for it may well come back soon.
    fn is_short(&self) -> bool {
        self.length < PAUSE_MAX
    }
}

/// A replica that is on a disk and not served.
#[derive(Clone, Debug)]
pub(super) struct Unserved {
    data_dir: usize,
    dir: PathBuf,
    reason: String,
    /// `None` for a damaged one, which is not tried again.
    pause: Option<Pause>,
    /// What served it before; must be gone before its files are opened again.
    former: Option<Weak<dyn StateMachine>>,
}

/// All of them, for whoever asks.
pub(super) type UnservedMap = Arc<Mutex<BTreeMap<Gpid, Unserved>>>;

/// A data directory.
pub(super) struct DataDir {
    pub(super) path: PathBuf,
    /// `None` while the directory cannot be used.
    pub(super) log: Option<Arc<SharedLog>>,
    /// What is known about the end of the log that was opened last.
    pub(super) tails: Option<Arc<Tails>>,
    /// Grows as well when the directory fails again soon after it was opened.
    pause: Pause,
    opened_at: Mono,
    shut_at: Mono,
    opening: bool,
    /// The log before, which has failed; none of its files may be being made when the directory is opened again.
    former_log: Option<Arc<SharedLog>>,
    /// What served its replicas before; must be gone before their files are opened again.
    former: Vec<Weak<dyn StateMachine>>,
    /// What was found when its disk was last looked at, and whether it counts as full.
    pub(super) space: Option<(Space, bool)>,
}

impl DataDir {
    pub(super) fn new(path: PathBuf, now: Mono) -> Self {
        Self {
            path,
            log: None,
            tails: None,
            pause: Pause::first(now),
            opened_at: now,
            shut_at: now,
            opening: false,
            former_log: None,
            former: Vec::new(),
            space: None,
        }
    }

    /// Whether its disk has no room for more.
    pub(super) fn is_full(&self) -> bool {
        self.space.is_some_and(|(_, full)| full)
    }

    /// Whether it is shut, and may well be open again before what is in it would be copied from elsewhere. A disk that
    /// hangs may neither let it be closed nor opened.
    fn may_return(&self, now: Mono) -> bool {
        let patient = self.pause.is_short() && !(self.shut_at + PAUSE_MAX).is_past(now);
        self.log.is_none() && patient
    }

    /// The log, if it takes anything.
    pub(super) fn usable(&self) -> Option<&Arc<SharedLog>> {
        self.log.as_ref().filter(|log| log.failure().is_none())
    }
}

/// Lets people ask what is not served.
pub(super) fn register(ctx: &Ctx<'_>, table: &mut ServiceTable, unserved: &UnservedMap) {
    let told = unserved.clone();
    let help = "Lists replicas that are on the disks and not served, and why.";
    ctx.node().commands().add("replica.query-unserved", "", help, move |_| {
        dsn_core::command::CommandReply::done(describe(&told).to_string())
    });
    let told = unserved.clone();
    let help = "replicas that are on the disks and not served, and why";
    table.http("/replica/unserved", help, move |_, _| HttpReply::json(&describe(&told)));
}

fn describe(unserved: &UnservedMap) -> serde_json::Value {
    let unserved = unserved.lock();
    let each = unserved.iter().map(|(gpid, each)| {
        let state = if each.pause.is_some() { "waits to be opened again" } else { "damaged" };
        json!({ "gpid": gpid.to_string(), "state": state, "dir": each.dir, "reason": each.reason })
    });
    each.collect()
}

/// Replicas that wait for their disk.
pub(super) fn refused(unserved: &UnservedMap) -> Vec<Gpid> {
    let unserved = unserved.lock();
    unserved.iter().filter(|(_, each)| each.pause.is_some()).map(|(gpid, _)| *gpid).collect()
}

fn are_gone(former: &[Weak<dyn StateMachine>]) -> bool {
    former.iter().all(|machine| machine.strong_count() == 0)
}

/// Puts the directory of a replica that is not wanted, and not open, where it is kept for a while. Returns whether
/// it is there.
pub(super) fn put_unwanted_aside(
    job: &BlockingCtx<'_>,
    gpid: Gpid,
    log: Option<&SharedLog>,
    dir: &Path,
) -> bool {
    let aside = layout::put_aside(&**job.disk(), dir, job.wall().unix_micros(), "gar");
    match (&aside, log) {
        (Ok(_), Some(log)) => log.forget(gpid),
        (Ok(_), None) => {}
        // It may be opened again, and needs what the log has of it.
        (Err(error), _) => {
            tracing::error!(%gpid, %error, dir = %dir.display(), "a replica that is not wanted stays");
        }
    }
    aside.is_ok()
}

impl ReplicaStub {
    /// Whether a replica is on a disk that refuses it at present, and may well be open again before what is in it
    /// would be copied from elsewhere. A damaged one does not count: a group of several makes another in its place.
    pub(super) fn is_waiting(&self, gpid: Gpid) -> bool {
        let unserved = self.board.unserved.lock();
        let Some(each) = unserved.get(&gpid) else { return false };
        let in_use = each.former.as_ref().is_some_and(|former| former.strong_count() > 0);
        each.pause.is_some_and(|pause| pause.is_short() || in_use)
    }

    /// Gives up a replica that its disk refuses, if there is one: its directory is put aside, if the disk takes that.
    /// `then` goes on, with the data directory that is to be avoided.
    pub(super) fn give_up_refused(
        &mut self,
        ctx: &mut Ctx<'_>,
        gpid: Gpid,
        then: impl FnOnce(&mut Self, &mut Ctx<'_>, Option<usize>) + Send + 'static,
    ) {
        let unserved = self.board.unserved.lock().get(&gpid).cloned();
        let refused = unserved.filter(|each| each.pause.is_some());
        let Some(Unserved { data_dir, dir, reason, .. }) = refused else {
            return then(self, ctx, None);
        };
        tracing::error!(%gpid, dir = %dir.display(), reason, "a replica that its disk refuses is given up");
        let log = self.dirs[data_dir].log.clone();
        self.opening.insert(gpid, data_dir);
        ctx.offload(
            &LPC_OPEN_REPLICA,
            move |job| put_unwanted_aside(job, gpid, log.as_deref(), &dir),
            self.me,
            move |stub, is_aside, ctx| {
                stub.opening.remove(&gpid);
                if is_aside {
                    stub.superseded(gpid);
                }
                then(stub, ctx, Some(data_dir));
            },
        );
    }

    /// Whether a data directory is shut that will soon show what it holds. One that stays shut for longer than
    /// [`PAUSE_MAX`] is not waited for: what was in it is learned anew, into another one.
    pub(super) fn waits_for_a_dir(&self, now: Mono) -> bool {
        self.dirs.iter().any(|dir| dir.may_return(now))
    }

    /// Another replica has taken the place of one that is not served.
    pub(super) fn superseded(&self, gpid: Gpid) {
        self.board.unserved.lock().remove(&gpid);
    }

    /// Of two replicas of a partition in two data directories, one of which was away while the other was made, the one
    /// that has more is kept, or the one that is in use; the other's directory is put aside.
    pub(super) fn keep_better(
        &mut self,
        ctx: &mut Ctx<'_>,
        opened: Opened,
        data_dir: usize,
    ) -> Option<Opened> {
        let gpid = opened.gpid;
        let held = self.held.get(&gpid).map(|held| held.data_dir);
        let other = held.or_else(|| self.opening.get(&gpid).copied());
        if other.is_none_or(|other| other == data_dir) {
            return Some(opened);
        }
        let has = opened.machine.last_applied().max(opened.recovered.prepared());
        let better = self.board.placement.get(ctx, gpid).is_some_and(|placed| {
            let gate = &placed.gate;
            let idle = gate.status() == PartitionStatus::Inactive;
            idle && (opened.recovered.ballot, has) > (gate.ballot(), gate.prepared())
        });
        if better && let Some((held, machine)) = self.let_go(ctx, gpid) {
            self.put_copy_aside(ctx, gpid, machine, (held.data_dir, held.dir));
            return Some(opened);
        }
        self.put_copy_aside(ctx, gpid, opened.machine, (data_dir, opened.dir));
        None
    }

    fn put_copy_aside(
        &mut self,
        ctx: &mut Ctx<'_>,
        gpid: Gpid,
        machine: Arc<dyn StateMachine>,
        (data_dir, dir): (usize, PathBuf),
    ) {
        tracing::warn!(%gpid, dir = %dir.display(), "a replica of which another data directory has more");
        let log = self.dirs[data_dir].log.clone();
        let aside = move |job: &BlockingCtx<'_>| {
            put_unwanted_aside(job, gpid, log.as_deref(), &dir);
        };
        self.close_machines(ctx, vec![machine], aside, |_, (), _| {});
    }

    /// Tries again whatever is due.
    pub(super) fn repair(&mut self, ctx: &mut Ctx<'_>) {
        if self.closing {
            return;
        }
        for index in 0..self.dirs.len() {
            self.repair_dir(ctx, index);
        }
        let now = ctx.clock();
        let due: Vec<(Gpid, Unserved)> = {
            let unserved = self.board.unserved.lock();
            let is_due = |each: &Unserved| {
                let due = each.pause.is_some_and(|pause| pause.due.is_past(now));
                due && each.former.as_ref().is_none_or(|former| former.strong_count() == 0)
            };
            let due = unserved.iter().filter(|(_, each)| is_due(each));
            due.map(|(gpid, each)| (*gpid, each.clone())).collect()
        };
        for (gpid, each) in due {
            if !self.opening.contains_key(&gpid) {
                self.reopen(ctx, gpid, each);
            }
        }
        self.count();
    }

    /// Tells the link how many data directories cannot be used.
    fn note_shut_dirs(&self) {
        let shut = self.dirs.iter().filter(|dir| dir.log.is_none()).count();
        self.board.shut_dirs.store(shut, Ordering::Relaxed);
    }

    fn count(&self) {
        let (mut primary, mut inactive, mut error) = (0, 0, 0);
        self.board.placement.for_each(|_, placed| match placed.gate.status() {
            PartitionStatus::Primary => primary += 1,
            PartitionStatus::Error => error += 1,
            _ => inactive += 1,
        });
        let (waiting, damaged) = {
            let unserved = self.board.unserved.lock();
            let waiting = unserved.values().filter(|each| each.pause.is_some()).count();
            (waiting, unserved.len() - waiting)
        };
        let broken = self.dirs.iter().filter(|dir| dir.usable().is_none()).count();
        let metrics = &self.metrics;
        metrics.total_replicas.set_u64(self.held.len() as u64);
        metrics.opening_replicas.set_u64(self.opening.len() as u64);
        metrics.primary_replicas.set_u64(primary);
        metrics.inactive_replicas.set_u64(inactive);
        metrics.error_replicas.set_u64(error + waiting as u64);
        metrics.replica_error_dirs.set_u64(damaged as u64);
        metrics.broken_data_dirs.set_u64(broken as u64);
    }

    pub(super) fn count_space(&self) {
        let known: Vec<&Space> =
            self.dirs.iter().filter_map(|dir| dir.space.as_ref().map(|(space, _)| space)).collect();
        let sum = |of: fn(&Space) -> u64| known.iter().map(|space| of(space) >> 20).sum();
        self.metrics.disk_capacity_total_mb.set_u64(sum(|space| space.total));
        self.metrics.disk_available_total_mb.set_u64(sum(|space| space.available));
        let full = self.dirs.iter().filter(|dir| dir.is_full()).count();
        self.metrics.full_data_dirs.set_u64(full as u64);
    }

    pub(super) fn count_garbage(&self, swept: Swept) {
        self.metrics.replica_garbage_dirs.set_u64(swept.garbage);
        self.metrics.replica_removed_dirs.add(swept.removed);
    }

    fn repair_dir(&mut self, ctx: &mut Ctx<'_>, index: usize) {
        let dir = &mut self.dirs[index];
        if dir.opening {
            return;
        }
        if dir.log.as_ref().is_some_and(|log| log.fail_if_hung(ctx.clock())) {
            self.worker_logs.look(ctx, None);
        }
        match dir.log.as_ref().map(|log| log.failure()) {
            Some(None) => {}
            Some(Some(error)) => self.shut_dir(ctx, index, &error),
            None => {
                // What is being made, opened or closed in it belongs to its former life.
                let busy = self.opening.values().any(|other| *other == index)
                    || dir.former_log.as_ref().is_some_and(|log| log.is_making_spare());
                if !busy && dir.pause.due.is_past(ctx.clock()) && are_gone(&dir.former) {
                    dir.former.clear();
                    dir.former_log = None;
                    dir.opening = true;
                    self.open_dir_again(ctx, index);
                }
            }
        }
    }

    /// Closes everything in a directory whose log has failed.
    fn shut_dir(&mut self, ctx: &mut Ctx<'_>, index: usize, error: &LogError) {
        let dir = &mut self.dirs[index];
        tracing::error!(dir = %dir.path.display(), %error, "data directory shut, to be opened again");
        dir.former_log = dir.log.take();
        dir.tails.take().inspect(|tails| tails.retire());
        let now = ctx.clock();
        dir.shut_at = now;
        dir.pause = dir.pause.after(dir.opened_at, now);
        self.note_shut_dirs();
        let here = |held: &&Held| held.data_dir == index;
        let gpids: Vec<Gpid> =
            self.held.iter().filter(|(_, held)| here(held)).map(|(gpid, _)| *gpid).collect();
        let machines: Vec<_> =
            gpids.into_iter().filter_map(|gpid| Some(self.let_go(ctx, gpid)?.1)).collect();
        let mut former: Vec<_> = machines.iter().map(Arc::downgrade).collect();
        self.board.unserved.lock().retain(|_, each| {
            let waits = each.data_dir == index && each.pause.is_some();
            if waits {
                former.extend(each.former.take());
            }
            !waits
        });
        self.dirs[index].former.extend(former);
        self.close_machines(ctx, machines, |_| {}, |_, (), _| {});
        // Their groups must do without them.
        self.sync_now(ctx);
    }

    fn open_dir_again(&mut self, ctx: &mut Ctx<'_>, index: usize) {
        let (factory, log) = (self.factory.clone(), self.log_options(ctx, index));
        let path = self.dirs[index].path.clone();
        ctx.offload(
            &LPC_STUB_OPEN,
            move |job| open_dir(job, &*factory, &path, &log),
            self.me,
            move |stub, outcome, ctx| {
                if stub.dir_opened(ctx, index, outcome).is_ok() {
                    stub.flush_dir(ctx, index);
                    stub.sync_now(ctx);
                }
            },
        );
    }

    /// Takes over what a data directory holds.
    pub(super) fn dir_opened(
        &mut self,
        ctx: &mut Ctx<'_>,
        index: usize,
        outcome: Result<OpenedDir, String>,
    ) -> Result<(), String> {
        let now = ctx.clock();
        let dir = &mut self.dirs[index];
        dir.opening = false;
        let opened = match outcome {
            Ok(opened) => opened,
            Err(reason) => {
                dir.pause = dir.pause.next(now);
                let (path, pause) = (dir.path.display(), dir.pause.length);
                tracing::error!(dir = %path, reason, ?pause, "data directory cannot be used");
                return Err(format!("{path}: {reason}"));
            }
        };
        (dir.log, dir.tails) = (Some(opened.log), Some(opened.tails));
        dir.opened_at = now;
        {
            let elsewhere =
                |gpid: &Gpid| self.held.contains_key(gpid) || self.opening.contains_key(gpid);
            let mut unserved = self.board.unserved.lock();
            let mut add = |gpid, dir, reason, pause| {
                let former = None;
                unserved.insert(gpid, Unserved { data_dir: index, dir, reason, pause, former });
            };
            for (gpid, dir, reason) in opened.put_aside.into_iter().filter(|it| !elsewhere(&it.0)) {
                add(gpid, dir, reason, None);
            }
            for (gpid, dir, reason) in opened.left.into_iter().filter(|it| !elsewhere(&it.0)) {
                add(gpid, dir, reason, Some(Pause::first(now)));
            }
        }
        for replica in opened.replicas {
            self.hold(ctx, replica, index);
        }
        self.note_shut_dirs();
        Ok(())
    }

    fn flush_dir(&mut self, ctx: &mut Ctx<'_>, index: usize) {
        for held in self.held.values().filter(|held| held.data_dir == index) {
            ctx.post(held.host, &LPC_REPLICA_EVENT, |host, ctx| {
                host.checkpoint(ctx, CheckpointKind::Flush);
            });
        }
    }

    /// A replica broke while it was served.
    pub(super) fn replica_failed(&mut self, ctx: &mut Ctx<'_>, gpid: Gpid, error: &LocalError) {
        match error {
            LocalError::Corrupt(_) => self.take_out(ctx, gpid, error.to_string(), true),
            // The files of one that is behind are in order: it is opened again, out of its group by then, and learns.
            LocalError::Disk(_) | LocalError::Panic(_) | LocalError::Behind(_) => {
                self.take_out(ctx, gpid, error.to_string(), false);
            }
            // With the directory, or when it is learned anew.
            LocalError::Log(_) | LocalError::App(_) | LocalError::Invariant(_) => {}
        }
        self.sync_now(ctx);
    }

    /// A replica's directory is there and could not be opened: it is tried again, when `former` is gone; by itself, or
    /// with all that its data directory holds if that is shut.
    pub(super) fn wait_for_disk(
        &mut self,
        ctx: &mut Ctx<'_>,
        gpid: Gpid,
        (data_dir, dir): (usize, PathBuf),
        reason: String,
        former: Option<Weak<dyn StateMachine>>,
    ) {
        if self.dirs[data_dir].log.is_none() {
            self.dirs[data_dir].former.extend(former);
            return;
        }
        let pause = Some(Pause::first(ctx.clock()));
        let unserved = Unserved { data_dir, dir, reason, pause, former };
        self.board.unserved.lock().insert(gpid, unserved);
    }

    /// A replica was opened while its data directory was shut: it is closed, and comes back with the others.
    pub(super) fn opened_too_late(
        &mut self,
        ctx: &mut Ctx<'_>,
        machine: Arc<dyn StateMachine>,
        data_dir: usize,
    ) {
        self.dirs[data_dir].former.push(Arc::downgrade(&machine));
        let close = move |job: &BlockingCtx<'_>| close(job, &*machine);
        ctx.offload(&LPC_OPEN_REPLICA, close, self.me, |_, (), _| {});
    }

    fn take_out(&mut self, ctx: &mut Ctx<'_>, gpid: Gpid, reason: String, damaged: bool) {
        let Some((held, machine)) = self.let_go(ctx, gpid) else { return };
        let Held { dir, data_dir, refused, .. } = held;
        let now = ctx.clock();
        let next = refused.map_or(Pause::first(now), |(pause, until)| pause.after(until, now));
        let pause = (!damaged).then_some(next);
        let former = Some(Arc::downgrade(&machine));
        let unserved =
            Unserved { data_dir, dir: dir.clone(), reason: reason.clone(), pause, former };
        self.board.unserved.lock().insert(gpid, unserved);
        self.opening.insert(gpid, data_dir);
        self.close_machines(
            ctx,
            vec![machine],
            move |job| damaged.then(|| put_damaged_aside(job, gpid, dir, &reason)),
            move |stub, aside, _| {
                stub.opening.remove(&gpid);
                if let Some(aside) = aside
                    && let Some(each) = stub.board.unserved.lock().get_mut(&gpid)
                {
                    each.dir = aside;
                }
            },
        );
    }

    /// Takes a replica away from its clients and its host, and ends what it was learning.
    pub(super) fn let_go(
        &mut self,
        ctx: &mut Ctx<'_>,
        gpid: Gpid,
    ) -> Option<(Held, Arc<dyn StateMachine>)> {
        let held = self.held.remove(&gpid)?;
        self.stop_learning(ctx, gpid);
        let placed = self.board.placement.get(ctx, gpid)?;
        self.board.placement.remove(gpid);
        ctx.close(held.host);
        self.forget_former_table(ctx, gpid);
        Some((held, placed.gate.machine().clone()))
    }

    fn reopen(&mut self, ctx: &mut Ctx<'_>, gpid: Gpid, unserved: Unserved) {
        let index = unserved.data_dir;
        let dir = &self.dirs[index];
        let (Some(log), Some(tails)) = (dir.usable().cloned(), dir.tails.clone()) else { return };
        let factory = self.factory.clone();
        let pause = unserved.pause;
        self.opening.insert(gpid, index);
        ctx.offload(
            &LPC_OPEN_REPLICA,
            move |job| {
                let dir = unserved.dir.clone();
                match reopen(job, &*factory, (&log, &tails), gpid, &dir) {
                    Ok(opened) => Ok(opened),
                    Err(Problem::Unreachable(reason)) => Err(Unserved { reason, ..unserved }),
                    Err(Problem::Damaged(reason)) => {
                        let dir = put_damaged_aside(job, gpid, dir, &reason);
                        Err(Unserved { dir, reason, pause: None, ..unserved })
                    }
                }
            },
            self.me,
            move |stub, outcome, ctx| {
                stub.opening.remove(&gpid);
                match outcome {
                    Ok(opened) => {
                        tracing::info!(%gpid, "replica opened at last");
                        stub.board.unserved.lock().remove(&gpid);
                        stub.hold(ctx, opened, index);
                        let refused = pause.map(|pause| (pause, ctx.clock()));
                        if let Some(held) = stub.held.get_mut(&gpid) {
                            held.refused = refused;
                        }
                        stub.sync_now(ctx);
                    }
                    Err(unserved) => {
                        let pause = unserved.pause.map(|pause| pause.next(ctx.clock()));
                        tracing::error!(%gpid, reason = unserved.reason, ?pause, "still not opened");
                        let unserved = Unserved { pause, ..unserved };
                        stub.board.unserved.lock().insert(gpid, unserved);
                        if stub.dirs[index].usable().is_none() {
                            // It was given up, to be opened with everything in it.
                            stub.worker_logs.look(ctx, None);
                            stub.repair_dir(ctx, index);
                        }
                    }
                }
            },
        );
    }
}
