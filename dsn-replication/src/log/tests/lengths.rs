//! A file in use is longer than what has been written to it, and nothing but that may follow from it.

use super::*;
use crate::log::record::RecordKey;
use dsn_core::disk::OpenMode;

fn file_len(disk: &MemDisk, index: u64) -> u64 {
    let path = Path::new(DIR).join(segment::file_name(index));
    disk.open(&path, OpenMode::Read).unwrap().len().unwrap()
}

fn large() -> LogOptions {
    LogOptions { durability: Durability::GroupSync, ..LogOptions::default() }
}

fn open_synced(disk: &MemDisk) -> (Opened, Vec<Told>) {
    let starts: Vec<_> = (0..4).map(start).collect();
    open_with(disk, &options(Durability::GroupSync), &starts).unwrap()
}

#[test]
fn a_file_grows_in_steps_and_ends_where_its_trailer_does() {
    let disk = MemDisk::new();
    let (opened, _) = open_with(&disk, &large(), &[start(0)]).unwrap();
    let mut lens = Vec::new();
    let mut decree = 0;
    while opened.log.size().bytes < 2 * shared::GROWTH + 1000 {
        decree += 1;
        let _ = append(&opened.log, &[(0, decree)]).unwrap();
        lens.push(file_len(&disk, 1));
    }
    lens.dedup();
    assert_eq!(lens, [1, 2, 3].map(|step| step * shared::GROWTH));
    drop(opened);
    let (opened, told) = open_with(&disk, &large(), &[start(0)]).unwrap();
    assert_eq!((opened.torn, told.len() as i64), (0, decree));
    let len = file_len(&disk, 1);
    assert!(len > 2 * shared::GROWTH && len < 2 * shared::GROWTH + 2000, "{len} bytes");

    let disk = MemDisk::new();
    let (opened, _) = open_synced(&disk);
    fill(&opened.log);
    for index in 1..3 {
        assert_eq!(opened.log.state.lock().sealed[index - 1].len, file_len(&disk, index as u64));
    }
}

/// Where nothing is synced, a power loss is to take the end of the log and nothing in the middle of it.
#[test]
fn without_syncs_a_file_ends_where_its_records_do() {
    for durability in [Durability::Os, Durability::IntervalSync] {
        let disk = MemDisk::new();
        let options = LogOptions { durability, ..LogOptions::default() };
        let (opened, _) = open_with(&disk, &options, &[start(0)]).unwrap();
        let _ = append(&opened.log, &[(0, 1), (0, 2)]).unwrap();
        assert_eq!(opened.log.state.lock().current.len, file_len(&disk, 1));
    }
}

/// Zeros have no positions: they would be a gap before the next file, in which anything may have been.
#[test]
fn positions_go_on_where_records_ended_and_never_back() {
    let disk = MemDisk::new();
    let (opened, _) = open_with(&disk, &large(), &[start(0)]).unwrap();
    let _ = append(&opened.log, &[(0, 1), (1, 1)]).unwrap();
    let end = opened.log.end();
    let disk = disk.restart(Crash::Kill);
    let (opened, _) = open_with(&disk, &large(), &[start(0)]).unwrap();
    let floor = opened.log.end();
    assert!(floor < end + 1000, "{floor} after {end}");
    for step in 0..20 {
        let disk = disk.restart(Crash::Kill);
        disk.stop_at(step);
        let _ = open_with(&disk, &large(), &[]);
        let disk = disk.restart(Crash::Kill);
        let (opened, _) = open_with(&disk, &large(), &[]).unwrap();
        assert!(opened.log.end() >= floor, "step {step}: {} after {floor}", opened.log.end());
    }
}

/// A power loss leaves the length of a file and none of its records; a replica was made at its end.
#[test]
fn no_record_is_taken_for_one_of_a_former_replica_after_a_power_loss() {
    for durability in [Durability::Os, Durability::GroupSync] {
        let disk = MemDisk::new();
        let (opened, _) = open_with(&disk, &options(durability), &[start(0)]).unwrap();
        let _ = append(&opened.log, &[(0, 1), (0, 2)]).unwrap();
        let made_there = ReplicaStart { floor: opened.log.end(), ..start(1) };
        drop(opened);
        let path = Path::new(DIR).join(segment::file_name(1));
        disk.corrupt(&path, |bytes| bytes[segment::HEAD..].fill(0));
        let (opened, _) = open_with(&disk, &options(durability), &[made_there]).unwrap();
        let _ = append(&opened.log, &[(1, 1)]).unwrap();
        drop(opened);
        let (_, told) = open_with(&disk, &options(durability), &[made_there]).unwrap();
        assert_eq!(told, [Told::Record(1, 1)], "{durability:?}");
    }
}

/// The server ends while a full file is exchanged for the next.
#[test]
fn a_kill_while_files_are_changed_tears_nothing() {
    for step in 0..8 {
        let disk = MemDisk::new();
        let (opened, _) = open_synced(&disk);
        let mut decree = 0;
        while opened.log.size().bytes < 2000 {
            decree += 1;
            let _ = append(&opened.log, &[(0, decree)]).unwrap();
        }
        spare(&opened.log);
        disk.stop_at(disk.steps() + step);
        let cut_off = append(&opened.log, &[(0, decree + 1)]).is_err();
        let (opened, told) = open_synced(&disk.restart(Crash::Kill));
        assert_eq!(opened.torn, 0, "step {step}");
        assert!(told.len() as i64 == decree + 1 || (cut_off && told.len() as i64 == decree));
    }
}

/// The zeros of a value are not those of a file.
#[test]
fn a_last_record_that_ends_in_zeros_is_whole() {
    let disk = MemDisk::new();
    let (opened, _) = open_with(&disk, &large(), &[start(0)]).unwrap();
    let kind = RecordKind::Truncate;
    let mut batch = LogBatch::new();
    batch.mutation(&mutation(0, 1, 1));
    batch.truncate(RecordKey { gpid: gpid(0), ballot: Ballot(1), decree: Decree(1), kind });
    batch.mutation(&mutation(0, 1, 1));
    assert_eq!(batch.data.last(), Some(&0));
    let _ = opened.log.append(&mut batch).unwrap();
    let (opened, told) = open_with(&disk.restart(Crash::Kill), &large(), &[start(0)]).unwrap();
    assert_eq!(told, [Told::Record(0, 1), Told::Truncate(0, 1), Told::Record(0, 1)]);
    assert_eq!(opened.torn, 0);
}

/// The cut of a full file to its length may be lost with the power while the next file is there, and so may the trailer
/// in front of the zeros.
#[test]
fn a_full_file_that_was_not_cut_says_the_same() {
    for trailer_is_lost in [false, true] {
        let disk = MemDisk::new();
        let (opened, _) = open_synced(&disk);
        let written = fill(&opened.log);
        let (end, segments) = (opened.log.end(), opened.log.size().segments);
        drop(opened);
        for index in 1..segments as u64 {
            let path = Path::new(DIR).join(segment::file_name(index));
            disk.corrupt(&path, |bytes| {
                if trailer_is_lost {
                    bytes.truncate(bytes.len() - segment::TRAILER);
                }
                bytes.resize(bytes.len() + 5000, 0);
            });
        }
        for _ in 0..2 {
            let (opened, told) = open_synced(&disk);
            assert_eq!((told, opened.torn), (written.clone(), 0));
            assert!(opened.log.end() > end, "positions never go back");
        }
        assert!(file_len(&disk, 1) < 5000, "cut when the log is opened");
    }
}

/// What is missing behind a file begins where its records end and not where its zeros do.
#[test]
fn a_gap_behind_zeros_begins_at_the_last_record() {
    struct Gaps(Vec<std::ops::Range<u64>>);
    impl ReplaySink for Gaps {
        fn record(&mut self, _: Record) {}
        fn ballot(&mut self, _: Gpid, _: Ballot) {}
        fn truncate(&mut self, _: Gpid, _: Decree) {}
        fn lost(&mut self, _: Gpid, _: Decree, _: u64) {}
        fn gap(&mut self, range: std::ops::Range<u64>) {
            self.0.push(range);
        }
        fn summary(&mut self, _: Gpid, _: Decree, _: u64) {}
    }
    let disk = MemDisk::new();
    let (opened, _) = open(&disk);
    fill(&opened.log);
    let (first, second) = {
        let state = opened.log.state.lock();
        (state.sealed[0].end(), state.sealed[1].path.clone())
    };
    drop(opened);
    let path = Path::new(DIR).join(segment::file_name(1));
    disk.corrupt(&path, |bytes| {
        bytes.truncate(bytes.len() - segment::TRAILER);
        bytes.resize(bytes.len() + 5000, 0);
    });
    disk.corrupt(&second, |bytes| bytes[..segment::HEAD].fill(0xff));
    let mut gaps = Gaps(Vec::new());
    let options = options(Durability::Os);
    SharedLog::open(&disk.shared(), Path::new(DIR), &options, (7, 1), &[start(0)], &mut gaps)
        .unwrap();
    let gap = gaps.0.first().expect("a gap");
    assert_eq!(gap.start, first - segment::TRAILER as u64);
    assert!(gap.end > gap.start, "{gap:?}");
}
