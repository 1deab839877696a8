//! Syncs: when records may be acknowledged, and what becomes of them when a sync fails, hangs or is the last.

use super::*;

#[test]
fn group_sync_gives_tokens_after_the_sync_and_never_after_a_failed_one() {
    let disk = MemDisk::new();
    let starts = [start(0)];
    let (opened, _) = open_with(&disk, &options(Durability::GroupSync), &starts).unwrap();
    let log = opened.log;
    let first = append(&log, &[(0, 1)]).unwrap();
    let Redeemed::Later(first) = log.redeem(first).unwrap() else { panic!("not synced") };
    let job = log.begin_sync(SyncScope::All, Mono::ZERO).unwrap();
    assert!(
        log.begin_sync(SyncScope::All, Mono::ZERO).is_none(),
        "the one that waits will cover it"
    );
    let outcome = log.run_sync(job);
    let second = append(&log, &[(0, 2)]).unwrap();
    let Redeemed::Later(first) = log.redeem(first).unwrap() else { panic!("has not ended") };
    assert!(log.end_sync(outcome).unwrap(), "the second waits");
    assert!(matches!(log.redeem(first).unwrap(), Redeemed::Now(_)));
    let Redeemed::Later(second) = log.redeem(second).unwrap() else { panic!("not synced") };
    disk.fail_syncs(true);
    let job = log.begin_sync(SyncScope::All, Mono::ZERO).unwrap();
    let outcome = log.run_sync(job);
    assert!(log.end_sync(outcome).is_err());
    assert!(log.redeem(second).is_err());
    disk.fail_syncs(false);
    assert!(append(&log, &[(0, 3)]).is_err());
}

/// A log stage with several threads may run two syncs of a log at a time.
#[test]
fn a_sync_that_ends_before_an_earlier_one_waits_for_it() {
    for fails in [false, true] {
        let disk = MemDisk::new();
        let starts = [start(0)];
        let (opened, _) = open_with(&disk, &options(Durability::GroupSync), &starts).unwrap();
        let log = opened.log;
        let records = append(&log, &[(0, 1)]).unwrap();
        let job = log.begin_sync(SyncScope::All, Mono::ZERO).unwrap();
        disk.fail_syncs(fails);
        let earlier = log.run_sync(job);
        disk.fail_syncs(false);
        assert!(log.begin_sync(SyncScope::All, Mono::ZERO).is_none(), "covered");
        log.sync_now(SyncScope::All).unwrap();
        let Redeemed::Later(records) = log.redeem(records).unwrap() else { panic!("too early") };
        assert_eq!(log.end_sync(earlier).is_err(), fails);
        assert_eq!(log.redeem(records).is_err(), fails);
    }
}

/// Another one has begun and not ended: nobody knows whether it will.
#[test]
fn a_sync_here_and_now_relies_on_no_other() {
    let disk = MemDisk::new();
    let starts = [start(0)];
    let (opened, _) = open_with(&disk, &options(Durability::GroupSync), &starts).unwrap();
    let log = opened.log;
    let _ = append(&log, &[(0, 1)]).unwrap();
    let job = log.begin_sync(SyncScope::All, Mono::ZERO).unwrap();
    let _running = log.run_sync(job);
    disk.fail_syncs(true);
    assert!(log.sync_now(SyncScope::All).is_err(), "it has asked the disk");
}

#[test]
fn a_log_fails_when_a_sync_hangs_and_what_it_returns_in_the_end_does_not_matter() {
    let at = |seconds: u64| Mono::from_nanos(seconds * 1_000_000_000);
    for (durability, begins) in [
        (Durability::GroupSync, false),
        (Durability::GroupSync, true),
        (Durability::IntervalSync, true),
        (Durability::Os, true),
    ] {
        let disk = MemDisk::new();
        let starts = [start(0)];
        let (opened, _) = open_with(&disk, &options(durability), &starts).unwrap();
        let log = opened.log;
        assert!(!log.fail_if_hung(at(1000)), "nothing was asked for");
        // One that is done in time, and another one after it.
        let _ = append(&log, &[(0, 1)]).unwrap();
        let job = log.begin_sync(SyncScope::All, at(1000)).unwrap();
        let done = log.run_sync(job);
        assert!(!log.fail_if_hung(at(1029)));
        assert!(!log.end_sync(done).unwrap());
        assert!(!log.fail_if_hung(at(1031)), "it has ended");
        let records = append(&log, &[(0, 2)]).unwrap();
        let job = log.begin_sync(SyncScope::All, at(1040)).unwrap();
        let late = begins.then(|| log.run_sync(job));
        assert!(!log.fail_if_hung(at(1069)));
        if durability == Durability::Os {
            assert!(!log.fail_if_hung(at(9999)), "nobody waits for it");
            continue;
        }
        assert!(log.fail_if_hung(at(1070)), "for 30 s");
        assert!(!log.fail_if_hung(at(1071)), "it has failed already");
        let error = log.failure().unwrap().to_string();
        assert!(error.contains("not done within 30s"), "{error}");
        if durability == Durability::GroupSync {
            assert!(log.redeem(records).is_err());
        }
        if let Some(late) = late {
            assert!(log.end_sync(late).is_err());
        }
        assert!(append(&log, &[(0, 3)]).is_err());
        assert!(log.begin_sync(SyncScope::All, at(1100)).is_none());
    }
}

#[test]
fn a_log_that_is_closed_takes_nothing_and_has_lost_nothing_after_a_power_loss() {
    for seed in 0..20 {
        let disk = MemDisk::new();
        let (opened, _) = open(&disk);
        // Files that are full as well.
        let records: Vec<_> = (1..=60).map(|decree| (decree as i32 % 4, decree)).collect();
        for record in &records {
            let _ = append(&opened.log, &[*record]).unwrap();
        }
        opened.log.close().unwrap();
        assert!(append(&opened.log, &[(0, 99)]).is_err());
        assert!(opened.log.close().is_err(), "once");
        let disk = disk.restart(Crash::PowerLoss(seed));
        let told: Vec<Told> = records.iter().map(|(n, decree)| Told::Record(*n, *decree)).collect();
        assert_eq!(open(&disk).1, told, "seed {seed}");
    }
}

/// Nobody may say that such a log has lost nothing.
#[test]
fn a_log_is_not_closed_in_order_when_a_sync_fails_or_has_not_ended() {
    let disk = MemDisk::new();
    let (opened, _) = open(&disk);
    let _ = append(&opened.log, &[(0, 1)]).unwrap();
    disk.fail_syncs(true);
    assert!(opened.log.close().is_err());
    disk.fail_syncs(false);
    assert!(opened.log.close().is_err(), "what was lost stays lost");

    let disk = MemDisk::new();
    let (opened, _) = open(&disk);
    let _ = append(&opened.log, &[(0, 1)]).unwrap();
    let job = opened.log.begin_sync(SyncScope::All, Mono::ZERO).unwrap();
    let outcome = opened.log.run_sync(job);
    assert!(opened.log.close().is_err(), "it has not been asked what came of it");
    assert!(opened.log.end_sync(outcome).is_err(), "and nothing is acknowledged any more");
}
