//! Tests of the log: what is written comes back, whatever happens in between.

use super::*;
use crate::ids::{Ballot, Decree};
use crate::mutation::Mutation;
use crate::testing::mem_disk::{Crash, MemDisk};
use dsn_core::disk::Disk;
use dsn_core::rng::Rng;
use dsn_core::time::Mono;
use dsn_rpc::gpid::Gpid;
use std::ops::ControlFlow;
use std::path::Path;

mod lengths;
mod mends;
mod readers;
mod syncs;

const DIR: &str = "/data/log";

fn gpid(n: i32) -> Gpid {
    Gpid::new(1, n)
}

/// A mutation whose content follows from its ids.
fn mutation(n: i32, ballot: i64, decree: i64) -> Mutation {
    Mutation {
        gpid: gpid(n),
        ballot: Ballot(ballot),
        decree: Decree(decree),
        last_committed: Decree(decree - 1),
        timestamp_us: (1000 * decree + i64::from(n)) as u64,
        stamp: 0,
        requests: Vec::new(),
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    Record(i32, i64),
    Truncate(i32, i64),
    Lost(i32, i64),
    Gap,
}

#[derive(Default)]
struct Ear(Vec<Told>);

impl ReplaySink for Ear {
    fn record(&mut self, record: Record) {
        let key = record.key;
        let n = key.gpid.partition_index;
        let mut written = LogBatch::new();
        written.mutation(&mutation(n, key.ballot.0, key.decree.0));
        assert_eq!(written.data[record::HEADER..], record.payload, "content of {key:?}");
        self.0.push(Told::Record(n, key.decree.0));
    }

    fn ballot(&mut self, _: Gpid, _: Ballot) {}

    fn truncate(&mut self, gpid: Gpid, from: Decree) {
        self.0.push(Told::Truncate(gpid.partition_index, from.0));
    }

    fn lost(&mut self, gpid: Gpid, decree: Decree, _: u64) {
        self.0.push(Told::Lost(gpid.partition_index, decree.0));
    }

    fn gap(&mut self, _: std::ops::Range<u64>) {
        self.0.push(Told::Gap);
    }

    fn summary(&mut self, _: Gpid, max: Decree, _: u64) {
        assert!(max > Decree(0));
    }
}

fn start(n: i32) -> ReplicaStart {
    ReplicaStart {
        gpid: gpid(n),
        applied: Decree(0),
        durable: Decree(0),
        floor: 0,
        ballot: Ballot(1),
    }
}

fn options(durability: Durability) -> LogOptions {
    LogOptions { segment_bytes: 2000, durability, ..LogOptions::default() }
}

fn open_with(
    disk: &MemDisk,
    options: &LogOptions,
    starts: &[ReplicaStart],
) -> Result<(Opened, Vec<Told>), LogError> {
    let mut ear = Ear::default();
    let opened =
        SharedLog::open(&disk.shared(), Path::new(DIR), options, (7, 1), starts, &mut ear)?;
    Ok((opened, ear.0))
}

fn open(disk: &MemDisk) -> (Opened, Vec<Told>) {
    let starts: Vec<_> = (0..4).map(start).collect();
    open_with(disk, &options(Durability::Os), &starts).unwrap()
}

fn append(log: &SharedLog, records: &[(i32, i64)]) -> Result<Pending, LogError> {
    let mut batch = LogBatch::new();
    for (n, decree) in records {
        batch.mutation(&mutation(*n, 1, *decree));
    }
    log.append(&mut batch)
}

fn spare(log: &SharedLog) {
    if log.claim_spare() {
        log.make_spare(1).unwrap();
    }
}

/// Sixty records of three partitions in several segments.
fn fill(log: &SharedLog) -> Vec<Told> {
    let mut told = Vec::new();
    for decree in 1..=20 {
        spare(log);
        let _ = append(log, &[(0, decree), (1, decree), (2, decree)]).unwrap();
        told.extend((0..3).map(|n| Told::Record(n, decree)));
    }
    assert!(log.size().segments > 2, "{:?}", log.size());
    told
}

/// File, offset and length of each record of the log.
fn places(disk: &MemDisk) -> Vec<(PathBuf, usize, usize, Told)> {
    let mut places = Vec::new();
    for index in 1..100 {
        let path = Path::new(DIR).join(segment::file_name(index));
        if !disk.exists(&path) {
            continue;
        }
        let file = disk.open(&path, dsn_core::disk::OpenMode::Read).unwrap();
        let len = file.len().unwrap();
        let Some(head) = segment::Head::decode(&file.read_at(0, segment::HEAD).unwrap()) else {
            continue;
        };
        let mut scan = scan::Scan::new(file, &head, len);
        let mut at = scan.offset();
        while let Some(item) = scan.advance().unwrap() {
            if let scan::Item::Record(header, _) = item
                && header.key.kind == RecordKind::Mutation
            {
                let told = Told::Record(header.key.gpid.partition_index, header.key.decree.0);
                places.push((path.clone(), at as usize, record::HEADER + header.len, told));
            }
            at = scan.offset();
        }
    }
    places
}

#[test]
fn what_is_written_comes_back_in_order_over_many_restarts() {
    let mut disk = MemDisk::new();
    let (opened, told) = open(&disk);
    assert_eq!(told, []);
    let written = fill(&opened.log);
    for _ in 0..3 {
        disk = disk.restart(Crash::Kill);
        let (opened, told) = open(&disk);
        assert_eq!(told, written);
        assert_eq!(opened.torn, 0);
    }
    let (opened, _) = open(&disk);
    let _ = append(&opened.log, &[(3, 1)]).unwrap();
    let (_, told) = open(&disk.restart(Crash::Kill));
    assert_eq!(told.len(), 61);
    assert_eq!(told.last(), Some(&Told::Record(3, 1)));
}

/// Bug 14: what is told to be logged never reaches over a decree that is not.
#[test]
fn tokens_cover_runs_of_one_partition() {
    let disk = MemDisk::new();
    let (opened, _) = open(&disk);
    let pending = append(&opened.log, &[(0, 1), (0, 2), (1, 1), (0, 3), (0, 5)]).unwrap();
    let Redeemed::Now(runs) = opened.log.redeem(pending).unwrap() else { panic!("os") };
    let runs: Vec<_> =
        runs.iter().map(|run| (run.gpid().partition_index, run.first().0, run.last().0)).collect();
    assert_eq!(runs, [(0, 1, 2), (1, 1, 1), (0, 3, 3), (0, 5, 5)]);
}

/// Bug 7: where a replica's own records begin is misunderstood when it was replaced, and the replay has a hole.
#[test]
fn only_what_is_not_applied_and_not_of_a_former_replica_is_fed() {
    let disk = MemDisk::new();
    let (opened, _) = open(&disk);
    fill(&opened.log);
    let floor = opened.log.end();
    let _ = append(&opened.log, &[(1, 1), (0, 21)]).unwrap();
    let starts =
        [ReplicaStart { applied: Decree(18), ..start(0) }, ReplicaStart { floor, ..start(1) }];
    let disk = disk.restart(Crash::Kill);
    let (opened, told) = open_with(&disk, &options(Durability::Os), &starts).unwrap();
    let expected =
        [Told::Record(0, 19), Told::Record(0, 20), Told::Record(1, 1), Told::Record(0, 21)];
    assert_eq!(told, expected);
    assert!(opened.log.end() > floor, "positions never go back");
}

/// How far the log says that replicas had come.
#[derive(Default)]
struct Sums(Vec<i64>);

impl ReplaySink for Sums {
    fn record(&mut self, _: Record) {}
    fn ballot(&mut self, _: Gpid, _: Ballot) {}
    fn truncate(&mut self, _: Gpid, _: Decree) {}
    fn lost(&mut self, _: Gpid, _: Decree, _: u64) {}
    fn gap(&mut self, _: std::ops::Range<u64>) {}
    fn summary(&mut self, _: Gpid, max: Decree, _: u64) {
        self.0.push(max.0);
    }
}

/// A replica is replaced by one that has less; the segment that has the records of both is sealed in use, or by a
/// restart.
#[test]
fn what_a_former_replica_wrote_is_not_summed_up() {
    for seals in [true, false] {
        let disk = MemDisk::new();
        let (opened, _) = open_with(&disk, &options(Durability::Os), &[start(0)]).unwrap();
        let log = opened.log;
        let _ = append(&log, &[(0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (0, 6), (0, 7)]).unwrap();
        let floor = log.end();
        log.register(gpid(0), Decree(2), floor, Ballot(1));
        let _ = append(&log, &[(0, 3)]).unwrap();
        for decree in (1..20).take_while(|_| seals && log.size().segments == 1) {
            spare(&log);
            let _ = append(&log, &[(1, decree)]).unwrap();
        }
        assert_eq!(log.size().segments, 1 + usize::from(seals));
        drop(log);
        let start = ReplicaStart { applied: Decree(2), durable: Decree(2), floor, ..start(0) };
        let mut sums = Sums::default();
        for _ in 0..2 {
            let options = options(Durability::Os);
            let disk = disk.shared();
            SharedLog::open(&disk, Path::new(DIR), &options, (7, 1), &[start], &mut sums).unwrap();
        }
        assert!(!sums.0.is_empty() && sums.0.iter().all(|max| *max == 3), "{:?}", sums.0);
    }
}

#[test]
fn a_torn_end_is_cut_wherever_it_is_torn() {
    let disk = MemDisk::new();
    let (opened, _) = open(&disk);
    let written = fill(&opened.log);
    let (path, offset, len, last) = places(&disk).pop().unwrap();
    assert_eq!(Some(&last), written.last());
    for kept in 0..len {
        let disk = disk.restart(Crash::Kill);
        disk.corrupt(&path, |bytes| bytes.truncate(offset + kept));
        let (opened, told) = open(&disk);
        assert_eq!(told, written[..59], "{kept} bytes left");
        assert_eq!(opened.torn, kept as u64);
        let _ = append(&opened.log, &[(2, 20)]).unwrap();
        assert_eq!(open(&disk).1, written, "written again after {kept} bytes");
    }
}

#[test]
fn a_broken_record_in_the_middle_is_named_and_the_others_are_read() {
    let disk = MemDisk::new();
    let (opened, _) = open(&disk);
    let written = fill(&opened.log);
    drop(opened);
    let places = places(&disk);
    for (n, (path, offset, len, told)) in places[..59].iter().enumerate() {
        let Told::Record(victim, decree) = *told else { panic!() };
        let mut expected = written.clone();
        expected[n] = Told::Lost(victim, decree);
        for at in (0..*len).step_by(5) {
            let disk = disk.restart(Crash::Kill);
            disk.corrupt(path, |bytes| bytes[offset + at] ^= 0x10);
            assert_eq!(open(&disk).1, expected, "byte {at} of record {n}");
            assert_eq!(open(&disk).1, expected, "and at the next restart");
        }
    }
}

/// Bug 36: a gap in the log ends the process.
#[test]
fn several_broken_records_leave_a_gap() {
    let disk = MemDisk::new();
    let (opened, _) = open(&disk);
    let written = fill(&opened.log);
    let places = places(&disk);
    let (path, from, ..) = &places[4];
    let (_, at, len, _) = &places[6];
    disk.corrupt(path, |bytes| bytes[*from..at + len].fill(0));
    let mut expected = written[..4].to_vec();
    expected.extend([Told::Gap, Told::Lost(0, 3)]);
    expected.extend_from_slice(&written[7..]);
    assert_eq!(open(&disk).1, expected);
}

#[test]
fn a_lost_head_leaves_a_gap_and_the_rest_is_read() {
    let disk = MemDisk::new();
    let (opened, _) = open(&disk);
    let written = fill(&opened.log);
    let places = places(&disk);
    let path = places[30].0.clone();
    let first = places.iter().position(|place| place.0 == path).unwrap();
    let after = places.iter().rposition(|place| place.0 == path).unwrap() + 1;
    disk.corrupt(&path, |bytes| bytes[..segment::HEAD].fill(0xff));
    let told = open(&disk).1;
    let records: Vec<_> = told.iter().filter(|t| matches!(t, Told::Record(..))).cloned().collect();
    assert_eq!(records, [&written[..first], &written[after..]].concat());
    assert!(told.contains(&Told::Gap), "{told:?}");
}

#[test]
fn arbitrary_damage_invents_nothing() {
    let seed = 0x64_616d_6167;
    println!("seed {seed:#x}");
    let mut rng = Rng::new(seed);
    let disk = MemDisk::new();
    let (opened, _) = open(&disk);
    let written = fill(&opened.log);
    drop(opened);
    let paths: Vec<_> = places(&disk).into_iter().map(|place| place.0).collect();
    for _ in 0..2_000 {
        let disk = disk.restart(Crash::Kill);
        for _ in 0..1 + rng.below(4) {
            let path = rng.pick(&paths).unwrap();
            disk.corrupt(path, |bytes| {
                if bytes.is_empty() {
                    return;
                }
                let at = rng.index(bytes.len());
                match rng.below(4) {
                    0 => bytes.truncate(at),
                    1 => bytes[at] ^= 1 << rng.below(8),
                    2 => {
                        let end = (at + 1 + rng.index(600)).min(bytes.len());
                        bytes[at..end].fill(0);
                    }
                    _ => {
                        let end = (at + 1 + rng.index(600)).min(bytes.len());
                        rng.fill(&mut bytes[at..end]);
                    }
                }
            });
        }
        let (_, told) = open(&disk);
        let mut rest = written.iter();
        for each in &told {
            if matches!(each, Told::Record(..)) {
                assert!(rest.any(|w| w == each), "{each:?} out of order or invented");
            }
        }
    }
}

/// Bug 10: after an error of the file, appending goes on, and is acknowledged.
#[test]
fn a_failed_write_ends_the_log() {
    let disk = MemDisk::new();
    let (opened, _) = open(&disk);
    let _ = append(&opened.log, &[(0, 1)]).unwrap();
    disk.fail_writes(true);
    assert!(append(&opened.log, &[(0, 2)]).is_err());
    disk.fail_writes(false);
    assert!(matches!(append(&opened.log, &[(0, 2)]), Err(LogError::Failed { .. })));
    assert!(
        opened.log.failure().is_some()
            && opened.log.begin_sync(SyncScope::All, Mono::ZERO).is_none()
    );
    let (opened, told) = open(&disk);
    assert_eq!(told, [Told::Record(0, 1)]);
    assert!(opened.torn > 0);
    let _ = append(&opened.log, &[(0, 2)]).unwrap();
}

#[test]
fn a_failed_log_tells_whether_a_file_of_it_is_being_made() {
    let disk = MemDisk::new();
    let (opened, _) = open(&disk);
    let log = opened.log;
    for decree in 1..10 {
        let _ = append(&log, &[(0, decree)]).unwrap();
    }
    assert!(log.claim_spare());
    disk.fail_writes(true);
    assert!(append(&log, &[(0, 10)]).is_err() && log.is_making_spare());
    assert!(log.make_spare(1).is_err() && !log.is_making_spare());
}

/// A batch goes from log to log: what one has refused must not reach another.
#[test]
fn what_a_failed_log_has_refused_is_not_left_in_the_batch() {
    let disk = MemDisk::new();
    let (opened, _) = open(&disk);
    disk.fail_writes(true);
    for _ in 0..2 {
        let mut batch = LogBatch::new();
        batch.mutation(&mutation(0, 1, 1));
        assert!(opened.log.append(&mut batch).is_err());
        assert!(batch.is_empty());
    }
}

#[test]
fn segments_are_given_back_oldest_first_when_nobody_needs_them() {
    let disk = MemDisk::new();
    let mut options = options(Durability::Os);
    (options.reserve_bytes, options.count_limit) = (0, 2);
    let starts: Vec<_> = (0..3).map(start).collect();
    let (opened, _) = open_with(&disk, &options, &starts).unwrap();
    let log = opened.log;
    fill(&log);
    let before = log.size();
    log.sync_now(SyncScope::Sealed).unwrap();
    assert!(log.synced() < log.end());
    let collected = log.collect(1).unwrap();
    assert_eq!(collected.removed, 0);
    assert_eq!(collected.laggards, [gpid(0), gpid(1), gpid(2)]);
    for n in 0..3 {
        log.set_durable(gpid(n), Decree(if n == 1 { 9 } else { 20 }));
    }
    let collected = log.collect(1).unwrap();
    assert!(collected.removed > 0);
    assert!(collected.laggards.iter().all(|laggard| *laggard == gpid(1)));
    assert_eq!(log.size().segments, before.segments - collected.removed);
    let (min, max) = log.decrees(gpid(1)).unwrap();
    assert!(min <= Decree(10) && max == Decree(20), "{min:?}");
    log.forget(gpid(1));
    log.collect(1).unwrap();
    assert_eq!(log.size().segments, 1);
    let starts = [ReplicaStart { applied: Decree(20), ..start(0) }];
    assert_eq!(open_with(&disk, &options, &starts).unwrap().1, []);
}

#[test]
fn a_ballot_that_is_on_record_nowhere_else_is_kept() {
    let disk = MemDisk::new();
    let mut options = options(Durability::Os);
    options.reserve_bytes = 0;
    let unsaved = ReplicaStart { ballot: Ballot::ZERO, ..start(0) };
    let (opened, _) = open_with(&disk, &options, &[unsaved]).unwrap();
    let log = opened.log;
    fill(&log);
    log.sync_now(SyncScope::Sealed).unwrap();
    log.set_durable(gpid(0), Decree(20));
    assert_eq!(log.collect(1).unwrap().removed, 0, "its ballots are nowhere else");
    log.set_ballot(gpid(0), Ballot(1));
    assert!(log.collect(1).unwrap().removed > 0);
}

#[test]
fn reserved_segments_stay_for_learners() {
    let disk = MemDisk::new();
    let (opened, _) = open_with(&disk, &options(Durability::Os), &[start(0)]).unwrap();
    let log = opened.log;
    fill(&log);
    log.sync_now(SyncScope::Sealed).unwrap();
    log.set_durable(gpid(0), Decree(20));
    assert_eq!(log.collect(1).unwrap().removed, 0, "young and small");
    let late = log.options().reserve_age.as_micros() as u64 + 2;
    assert!(log.collect(late).unwrap().removed > 0);
}

#[test]
fn one_replica_is_read_while_the_log_is_in_use() {
    let disk = MemDisk::new();
    let (opened, _) = open(&disk);
    let log = opened.log;
    fill(&log);
    let decrees = |from, max| -> Vec<i64> {
        let mut records = Vec::new();
        let visit = |record: Option<Record>| {
            records.push(record.expect("nothing is missing"));
            if records.len() < max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        log.walk(gpid(1), Decree(from), 0, visit).unwrap();
        assert!(records.iter().all(|record| record.key.gpid == gpid(1)));
        let decrees = records.iter().map(|record| record.key.decree.0);
        decrees.filter(|decree| *decree >= from).collect()
    };
    assert_eq!(decrees(7, usize::MAX), (7..=20).collect::<Vec<_>>());
    assert_eq!(decrees(1, 1), [1]);
    assert!(decrees(21, 1).is_empty());
    assert_eq!(log.decrees(gpid(1)), Some((Decree(1), Decree(20))));
    assert_eq!(log.decrees(gpid(3)), None);
}

/// Bug 14: writes of the log complete out of order, and what is acknowledged stands behind a hole. A workload under
/// group commit, stopped before each of its steps in turn.
#[test]
fn acknowledged_records_survive_a_power_loss_at_any_step() {
    let seed = 0x0070_6f77_6572;
    println!("seed {seed:#x}");
    let run = |disk: &MemDisk, acked: &mut Vec<(i32, i64)>| -> Result<(), LogError> {
        let starts: Vec<_> = (0..3).map(start).collect();
        let (opened, _) = open_with(disk, &options(Durability::GroupSync), &starts)?;
        let log = opened.log;
        for decree in 1..=12 {
            if log.claim_spare() {
                log.make_spare(1)?;
            }
            let pending = append(&log, &[(0, decree), (1, decree), (2, decree)])?;
            if decree % 3 != 0 {
                continue;
            }
            log.sync_now(SyncScope::All)?;
            match log.redeem(pending)? {
                Redeemed::Now(_) => {
                    acked.extend((decree - 2..=decree).flat_map(|d| (0..3).map(move |n| (n, d))));
                }
                Redeemed::Later(_) => panic!("synced"),
            }
        }
        Ok(())
    };
    let disk = MemDisk::new();
    run(&disk, &mut Vec::new()).unwrap();
    let steps = disk.steps();
    assert!(steps > 30, "{steps}");
    for step in 0..steps {
        for round in 0..8 {
            let disk = MemDisk::new();
            disk.stop_at(step);
            let mut acked = Vec::new();
            run(&disk, &mut acked).unwrap_err();
            let disk = disk.restart(Crash::PowerLoss(seed ^ (step << 8) ^ round));
            let starts: Vec<_> = (0..3).map(start).collect();
            let options = options(Durability::GroupSync);
            let (opened, told) = open_with(&disk, &options, &starts).unwrap();
            for (n, decree) in &acked {
                assert!(
                    told.contains(&Told::Record(*n, *decree)),
                    "step {step} round {round}: {n}.{decree} was acknowledged: {told:?}"
                );
            }
            let tail = opened.tail.unwrap();
            assert!(tail.start <= tail.end && tail.end <= opened.log.end());
            let _ = append(&opened.log, &[(0, 100)]).unwrap();
        }
    }
}

#[test]
fn a_lost_last_segment_leaves_a_gap_behind_everything_and_is_remembered() {
    let disk = MemDisk::new();
    let (opened, _) = open(&disk);
    let written = fill(&opened.log);
    let path = places(&disk).last().unwrap().0.clone();
    let kept = places(&disk).iter().filter(|place| place.0 != path).count();
    disk.corrupt(&path, |bytes| bytes[..segment::HEAD].fill(0xff));
    let mut expected = written[..kept].to_vec();
    expected.push(Told::Gap);
    assert_eq!(open(&disk).1, expected);
    let (opened, told) = open(&disk);
    assert_eq!(told, expected, "at the next start as well");
    let _ = append(&opened.log, &[(0, 20)]).unwrap();
    let mut ear = Ear::default();
    opened.log.replay(start(0), &mut ear).unwrap();
    expected.retain(|told| matches!(told, Told::Gap | Told::Record(0, _)));
    expected.push(Told::Record(0, 20));
    assert_eq!(ear.0, expected, "and in the log in use");
}

#[test]
fn a_log_in_use_tells_of_one_replica_what_opening_it_told() {
    let disk = MemDisk::new();
    let (opened, _) = open(&disk);
    fill(&opened.log);
    let places = places(&disk);
    for victim in [10, 31, 58] {
        let disk = disk.restart(Crash::Kill);
        let (path, offset, ..) = &places[victim];
        disk.corrupt(path, |bytes| bytes[offset + record::HEADER] ^= 1);
        let (opened, told) = open(&disk);
        let _ = append(&opened.log, &[(1, 21)]).unwrap();
        for n in 0..3 {
            let mut ear = Ear::default();
            opened.log.replay(start(n), &mut ear).unwrap();
            let mine = |told: &&Told| match told {
                Told::Record(m, _) | Told::Truncate(m, _) => *m == n,
                Told::Lost(..) | Told::Gap => true,
            };
            let mut expected: Vec<_> = told.iter().filter(mine).cloned().collect();
            if n == 1 {
                expected.push(Told::Record(1, 21));
            }
            assert_eq!(ear.0, expected, "replica {n}, record {victim}");
        }
    }
}
