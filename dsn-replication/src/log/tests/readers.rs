//! Segments are given back while somebody reads them.

use super::*;
use crate::ids::Decree;
use crate::learn::stream::read_decided;
use crate::mutation::{CodeTable, decode_body};
use bytes::Bytes;

/// A log of many small segments of which recovery needs nothing, and that keeps nothing for its age.
fn unneeded() -> (MemDisk, Arc<SharedLog>) {
    let disk = MemDisk::new();
    let options = LogOptions { segment_bytes: 500, reserve_bytes: 0, ..options(Durability::Os) };
    let starts: Vec<_> = (0..3).map(start).collect();
    let (opened, _) = open_with(&disk, &options, &starts).unwrap();
    fill(&opened.log);
    opened.log.sync_now(SyncScope::Sealed).unwrap();
    (0..3).for_each(|n| opened.log.set_durable(gpid(n), Decree(20)));
    assert!(opened.log.size().segments > 8, "{:?}", opened.log.size());
    (disk, opened.log)
}

/// The decrees of the next mutation or two for a learner that has everything up to `after`, and where to go on.
fn next_of(log: &SharedLog, after: i64, position: u64) -> (Vec<i64>, u64) {
    let range = (Decree(after), Decree(20));
    let chunk = read_decided(log, gpid(1), range, None, position, 1).unwrap();
    let codes = CodeTable::new(&[]);
    let stamp = |(n, body): (usize, &Bytes)| {
        let decree = Decree(after).plus(n + 1);
        let mutation = decode_body(gpid(1), Ballot(1), decree, body, &codes).unwrap();
        (mutation.timestamp_us as i64 - 1) / 1000
    };
    (chunk.bodies.iter().enumerate().map(stamp).collect(), chunk.position)
}

/// Bug 20, scenario 15: log files are collected while a learner is being fed from them.
#[test]
fn what_a_learner_has_yet_to_read_is_not_collected() {
    let (_disk, log) = unneeded();
    log.keep_for_reader(gpid(1), Decree(5));
    log.keep_for_reader(gpid(1), Decree(9));
    assert!(log.collect(u64::MAX).unwrap().removed > 0, "what it does not need is given back");
    let (mut after, mut position, mut sizes) = (4, 0, Vec::new());
    while after < 20 {
        let (decrees, next) = next_of(&log, after, position);
        assert_eq!(decrees.first(), Some(&(after + 1)), "what follows is there");
        (after, position) = (*decrees.last().unwrap(), next);
        log.set_reader(gpid(1), Some(Decree(after).next()));
        log.collect(u64::MAX).unwrap();
        sizes.push(log.size().segments);
    }
    assert!(sizes[0] > 5 && sizes.is_sorted_by(|a, b| a >= b), "it gets less: {sizes:?}");
    log.keep_for_reader(gpid(1), Decree(20));
    log.set_reader(gpid(1), None);
    log.collect(u64::MAX).unwrap();
    assert_eq!(log.size().segments, 1, "nobody reads any more");
}

/// Bug 20: a file is removed in the middle of a read, for whoever reads has been given up meanwhile.
#[test]
fn a_read_that_is_under_way_outlives_its_files() {
    let (disk, log) = unneeded();
    log.set_reader(gpid(1), Some(Decree(1)));
    assert_eq!(log.collect(u64::MAX).unwrap().removed, 0, "all of it is read");
    let files = disk.list(Path::new(DIR)).unwrap().len();
    let mut read = Vec::new();
    let visit = |record: Option<Record>| {
        if read.is_empty() {
            log.set_reader(gpid(1), None);
            log.collect(u64::MAX).unwrap();
        }
        read.push(record.expect("nothing is missing").key.decree.0);
        ControlFlow::Continue(())
    };
    log.walk(gpid(1), Decree(1), 0, visit).unwrap();
    assert_eq!(read, (1..=20).collect::<Vec<_>>());
    assert!(disk.list(Path::new(DIR)).unwrap().len() + 8 < files, "they are gone");
}
