//! A hole in what was not synced yet is mended when the log is opened, whatever interrupts that.

use super::*;
use crate::mutation::CodeTable;
use crate::replica::recovery::{Recovered, Recovery, Untrusted};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Two replicas on their way back.
struct Back {
    recoveries: BTreeMap<Gpid, Recovery>,
    recovered: BTreeMap<Gpid, Result<Recovered, Untrusted>>,
}

impl ReplaySink for Back {
    fn record(&mut self, record: Record) {
        self.recoveries.get_mut(&record.key.gpid).unwrap().record(&record);
    }

    fn truncate(&mut self, gpid: Gpid, from: Decree) {
        self.recoveries.get_mut(&gpid).unwrap().truncate(from);
    }

    fn ballot(&mut self, gpid: Gpid, ballot: Ballot) {
        self.recoveries.get_mut(&gpid).unwrap().ballot(ballot);
    }

    fn lost(&mut self, gpid: Gpid, decree: Decree, position: u64) {
        // A third one's are nobody's business.
        if let Some(recovery) = self.recoveries.get_mut(&gpid) {
            recovery.lost(decree, position);
        }
    }

    fn gap(&mut self, range: std::ops::Range<u64>) {
        self.recoveries.values_mut().for_each(|each| each.gap(range.clone()));
    }

    fn summary(&mut self, gpid: Gpid, max: Decree, position: u64) {
        self.recoveries.get_mut(&gpid).unwrap().summary(max, position);
    }

    fn ended(&mut self, tail: Option<std::ops::Range<u64>>, _: u64) -> Result<LogBatch, LogError> {
        let mut mend = LogBatch::new();
        for (gpid, recovery) in std::mem::take(&mut self.recoveries) {
            let recovered = recovery.finish(tail.as_slice());
            if let Ok(recovered) = &recovered {
                recovered.mend(gpid, &mut mend);
            }
            self.recovered.insert(gpid, recovered);
        }
        Ok(mend)
    }
}

/// Ballot and decree of what a replica is brought back with.
type Ids = Result<Vec<(i64, i64)>, Untrusted>;

/// What each of the two is brought back with; the error of a disk that has stopped.
fn come_back(disk: &MemDisk) -> Result<Vec<Ids>, LogError> {
    open_back(disk).map(|(_, ids)| ids)
}

fn open_back(disk: &MemDisk) -> Result<(Opened, Vec<Ids>), LogError> {
    let codes = Arc::new(CodeTable::default());
    let recovery = |n| Recovery::new(gpid(n), Decree(0), (0, Ballot::ZERO), codes.clone());
    let recoveries = (0..2).map(|n| (gpid(n), recovery(n))).collect();
    let mut back = Back { recoveries, recovered: BTreeMap::new() };
    let options = options(Durability::GroupSync);
    let starts = [start(0), start(1)];
    let opened =
        SharedLog::open(&disk.shared(), Path::new(DIR), &options, (7, 1), &starts, &mut back)?;
    let ids = |recovered: Recovered| {
        recovered.undecided.iter().map(|mutation| (mutation.ballot.0, mutation.decree.0)).collect()
    };
    Ok((opened, back.recovered.into_values().map(|recovered| recovered.map(ids)).collect()))
}

fn append_undecided(log: &SharedLog, ids: &[(i32, i64, i64)]) {
    let mut batch = LogBatch::new();
    for (n, ballot, decree) in ids {
        batch.mutation(&Mutation { last_committed: Decree(0), ..mutation(*n, *ballot, *decree) });
    }
    let _ = log.append(&mut batch).unwrap();
}

/// A disk on which two replicas have three durable mutations each, and behind those a later primary's, of which the
/// power loss has left the first ones, and what a third replica has written behind them all, in the same file or
/// `in_another`.
fn with_a_hole(in_another: bool) -> MemDisk {
    let disk = MemDisk::new();
    let (opened, _) = open_with(&disk, &options(Durability::GroupSync), &[]).unwrap();
    for n in 0..2 {
        append_undecided(&opened.log, &[(n, 1, 1), (n, 1, 2), (n, 1, 3)]);
    }
    opened.log.sync_now(SyncScope::All).unwrap();
    for decree in [2, 3] {
        append_undecided(&opened.log, &[(0, 2, decree), (1, 2, decree)]);
    }
    let mut decree = 1;
    append_undecided(&opened.log, &[(2, 1, decree)]);
    while in_another && opened.log.size().segments < 2 {
        decree += 1;
        spare(&opened.log);
        append_undecided(&opened.log, &[(2, 1, decree)]);
    }
    drop(opened);
    let places = places(&disk);
    for (path, at, len, _) in [8, 9].map(|lost| &places[lost]) {
        disk.corrupt(path, |bytes| bytes[*at..at + len].fill(0));
    }
    disk
}

#[test]
fn what_is_left_behind_a_hole_comes_back_whatever_interrupts_its_mending() {
    [false, true].map(with_a_hole).iter().for_each(mended_at_last);
}

fn mended_at_last(disk: &MemDisk) {
    let whole = come_back(&disk.restart(Crash::Kill)).unwrap();
    let left = vec![(1, 1), (2, 2), (1, 3)];
    assert_eq!(whole, [Ok(left.clone()), Ok(left)], "nothing that was durable is missing");
    let mut steps = 0;
    loop {
        let stopping = disk.restart(Crash::Kill);
        stopping.stop_at(steps);
        let outcome = come_back(&stopping);
        for crash in [Crash::Kill].into_iter().chain((0..32).map(Crash::PowerLoss)) {
            let again = come_back(&stopping.restart(crash)).unwrap();
            assert_eq!(again, whole, "stopped at step {steps}, {crash:?}");
            let after = stopping.restart(crash);
            come_back(&after).unwrap();
            let later = come_back(&after.restart(Crash::PowerLoss(7))).unwrap();
            assert_eq!(later, whole, "stopped at step {steps}, {crash:?}, and a restart later");
        }
        if outcome.is_ok() {
            break;
        }
        steps += 1;
    }
    assert!(steps > 5, "{steps} steps");
}

/// The hole is of others, and what stands before it is told to be decided by a later primary, long after the restart.
#[test]
fn what_a_hole_of_others_puts_in_doubt_is_told_anew() {
    let disk = MemDisk::new();
    let (opened, _) = open_with(&disk, &options(Durability::GroupSync), &[]).unwrap();
    append_undecided(&opened.log, &[(0, 1, 1), (0, 1, 2), (1, 1, 1)]);
    opened.log.sync_now(SyncScope::All).unwrap();
    append_undecided(&opened.log, &[(2, 1, 1), (2, 1, 2)]);
    append_undecided(&opened.log, &[(0, 1, 3), (1, 1, 2)]);
    drop(opened);
    let places = places(&disk);
    for (path, at, len, _) in [3, 4].map(|lost| &places[lost]) {
        disk.corrupt(path, |bytes| bytes[*at..at + len].fill(0));
    }
    let (opened, ids) = open_back(&disk).unwrap();
    assert_eq!(ids, [Ok(vec![(1, 1), (1, 2), (1, 3)]), Ok(vec![(1, 1), (1, 2)])]);
    let mut batch = LogBatch::new();
    batch.mutation(&Mutation { last_committed: Decree(2), ..mutation(0, 2, 3) });
    let _ = opened.log.append(&mut batch).unwrap();
    drop(opened);
    let ids = come_back(&disk.restart(Crash::Kill)).unwrap();
    assert_eq!(ids, [Ok(vec![(2, 3)]), Ok(vec![(1, 1), (1, 2)])], "1 and 2 are applied");
}
