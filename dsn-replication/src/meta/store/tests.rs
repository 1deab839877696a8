//! The embedded store on a disk that loses power: after every single durable step, three ways.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::crash_disk::{Crash, CrashDisk};
use super::local::LocalStore;
use super::{Change, Epoch, MetaStore, StoreError, Transaction};

type Model = BTreeMap<String, (u64, Bytes)>;

fn value(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn store(disk: &CrashDisk) -> LocalStore {
    LocalStore::new(Arc::new(disk.clone()), "/meta").rolling_at(150)
}

fn content(store: &mut LocalStore) -> Model {
    let mut all = Model::new();
    let mut queue = vec!["/".to_owned()];
    while let Some(key) = queue.pop() {
        for (name, stored) in store.children(&key).unwrap() {
            let path = if key == "/" { format!("/{name}") } else { format!("{key}/{name}") };
            all.insert(path.clone(), (stored.version, stored.value));
            queue.push(path);
        }
    }
    all
}

fn apply(model: &mut Model, transactions: &[Transaction]) {
    for change in transactions.iter().flatten() {
        match &change.value {
            Some(value) => {
                let version = model.get(&change.key).map_or(0, |(version, _)| version + 1);
                model.insert(change.key.clone(), (version, value.clone()));
            }
            None => drop(model.remove(&change.key)),
        }
    }
}

/// Commits of a small history; long enough to start new generations.
fn history() -> Vec<Vec<Transaction>> {
    let mut commits = vec![vec![vec![
        Change::create("/apps", value("1")),
        Change::create("/apps/1", value("creating")),
    ]]];
    for n in 0..6u64 {
        commits.push(vec![
            vec![Change::create(format!("/apps/1/{n}"), value("partition"))],
            vec![Change::set("/apps/1", n, value(&format!("{n} created")))],
        ]);
    }
    commits.push(vec![vec![Change::remove("/apps/1/3", 0), Change::set("/apps/1", 6, value("x"))]]);
    commits
}

struct Outcome {
    acknowledged: Model,
    /// With the commit whose outcome is unknown.
    attempted: Model,
    epoch: Epoch,
}

/// Opens, commits the history, opens again, commits a little more; stops at the first error.
fn run(disk: &CrashDisk) -> Outcome {
    let mut outcome =
        Outcome { acknowledged: Model::new(), attempted: Model::new(), epoch: Epoch(0) };
    let mut extra = Vec::new();
    for commits in [history(), vec![vec![vec![Change::create("/again", value("1"))]]]] {
        let mut store = store(disk);
        let Ok(epoch) = store.acquire() else { return outcome };
        assert!(epoch > outcome.epoch);
        outcome.epoch = epoch;
        extra.extend(commits.clone());
        for transactions in &commits {
            apply(&mut outcome.attempted, transactions);
            if store.commit(epoch, transactions).is_err() {
                assert!(store.commit(epoch, transactions).is_err(), "a failed store stays failed");
                return outcome;
            }
            apply(&mut outcome.acknowledged, transactions);
        }
    }
    outcome
}

#[test]
fn acknowledged_changes_survive_a_crash_after_every_step() {
    let whole = CrashDisk::default();
    let expected = run(&whole).acknowledged;
    assert_eq!(expected.len(), 8);
    let steps = whole.0.lock().steps;
    assert!(steps > 40, "{steps} steps: new generations were to be part of it");
    for cut in 0..=steps {
        for how in [Crash::Kill, Crash::PowerLoss, Crash::Torn] {
            let disk = CrashDisk::default();
            disk.0.lock().cut_at = Some(cut);
            let outcome = run(&disk);
            let after = CrashDisk::of(disk.0.lock().crash(how));
            let mut store = store(&after);
            let epoch = store.acquire().unwrap_or_else(|e| panic!("cut {cut} {how:?}: {e}"));
            assert!(epoch > outcome.epoch, "cut {cut} {how:?}");
            let found = content(&mut store);
            assert!(
                found == outcome.acknowledged || found == outcome.attempted,
                "cut {cut} {how:?}: {found:?}"
            );
            // And it goes on working.
            store.commit(epoch, &[vec![Change::create("/after", value("1"))]]).unwrap();
            assert_eq!(after.names().len(), 2, "older files are removed: {:?}", after.names());
        }
    }
}

#[test]
fn a_failed_sync_ends_the_store_and_loses_nothing_acknowledged() {
    let whole = CrashDisk::default();
    run(&whole);
    let steps = whole.0.lock().steps;
    for at in 1..=steps {
        let disk = CrashDisk::default();
        disk.0.lock().fail_sync_at = Some(at);
        let outcome = run(&disk);
        // The process is restarted, opens what the page cache shows, and then the power goes.
        disk.0.lock().fail_sync_at = None;
        let mut again = store(&disk);
        again.acquire().unwrap();
        let served = content(&mut again);
        let after = CrashDisk::of(disk.0.lock().crash(Crash::PowerLoss));
        let mut store = store(&after);
        store.acquire().unwrap();
        let found = content(&mut store);
        assert_eq!(found, served, "step {at}: what was served once is durable");
        assert!(found == outcome.acknowledged || found == outcome.attempted, "step {at}");
    }
}

#[test]
fn a_log_that_the_disk_does_not_tell_of_is_read() {
    let disk = CrashDisk::default();
    let acknowledged = run(&disk).acknowledged;
    disk.0.lock().is_blind = true;
    let mut again = store(&disk);
    again.acquire().unwrap();
    assert_eq!(content(&mut again), acknowledged);
}

#[test]
fn conflicts_and_old_epochs_change_nothing() {
    let disk = CrashDisk::default();
    let mut first = store(&disk);
    let epoch = first.acquire().unwrap();
    first.commit(epoch, &[vec![Change::create("/a", value("1"))]]).unwrap();
    let refused = [
        vec![Change::create("/a", value("2"))],
        vec![Change::set("/a", 1, value("2"))],
        vec![Change::remove("/b", 0)],
        vec![Change::create("/b", value("1")), Change::set("/a", 9, value("2"))],
    ];
    for transaction in refused {
        let outcome = first.commit(epoch, &[transaction]);
        assert!(matches!(outcome, Err(StoreError::Conflict { .. })), "{outcome:?}");
    }
    let kept = vec![Change::set("/a", 0, value("2"))];
    let outcome = first.commit(epoch, &[kept, vec![Change::create("/a", value("3"))]]);
    assert!(matches!(outcome, Err(StoreError::Conflict { .. })));
    assert_eq!(first.get("/a").unwrap().unwrap().value, "2", "the transaction before it is made");
    assert_eq!(first.get("/b").unwrap(), None);

    let newer = first.acquire().unwrap();
    let outcome = first.commit(epoch, &[vec![Change::create("/c", value("1"))]]);
    assert_eq!(outcome, Err(StoreError::Fenced { held: epoch, current: newer }));
    assert_eq!(first.get("/c").unwrap(), None);
}

#[test]
fn limits_are_refused() {
    let mut store = store(&CrashDisk::default());
    let epoch = store.acquire().unwrap();
    let long = Bytes::from(vec![0; super::MAX_VALUE_LEN + 1]);
    let many = (0..=super::MAX_CHANGES).map(|n| Change::create(format!("/{n}"), Bytes::new()));
    for transaction in [
        vec![Change::create("/a", long)],
        vec![Change::create("a", Bytes::new())],
        vec![Change::create(format!("/{}", "k".repeat(super::MAX_KEY_LEN)), Bytes::new())],
        many.collect(),
    ] {
        assert!(matches!(store.commit(epoch, &[transaction]), Err(StoreError::Limit(_))));
    }
    assert_eq!(store.children("/").unwrap(), vec![]);
}

#[test]
fn children_are_one_level_and_in_order() {
    let mut store = store(&CrashDisk::default());
    let epoch = store.acquire().unwrap();
    let keys = ["/apps", "/apps/2", "/apps/2/0", "/apps/10", "/apps/2/1", "/appsx"];
    store.commit(epoch, &[keys.map(|key| Change::create(key, value(key))).to_vec()]).unwrap();
    let names = |children: Vec<(String, super::Stored)>| {
        children.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(names(store.children("/apps").unwrap()), ["10", "2"]);
    assert_eq!(names(store.children("/apps/2").unwrap()), ["0", "1"]);
    assert_eq!(names(store.children("/").unwrap()), ["apps", "appsx"]);
    assert_eq!(names(store.children("/apps/3").unwrap()), Vec::<String>::new());
}

#[test]
fn damage_in_the_middle_is_reported_and_never_served() {
    let disk = CrashDisk::default();
    {
        let mut store = LocalStore::new(Arc::new(disk.clone()), "/meta");
        let epoch = store.acquire().unwrap();
        for n in 0..3 {
            store.commit(epoch, &[vec![Change::create(format!("/{n}"), value("v"))]]).unwrap();
        }
    }
    let intact = disk.0.lock().clone();
    let flip = |name: &str, at: usize| {
        let disk = CrashDisk::of(intact.clone());
        disk.edit(name, |content| content[at] ^= 1);
        store(&disk).acquire()
    };
    let Err(StoreError::Damaged { file, offset: 0, .. }) = flip("/meta/log.1", 25) else {
        panic!("the first commit is damaged, later ones are there");
    };
    assert_eq!(file, "/meta/log.1");
    assert!(matches!(flip("/meta/snapshot.1", 25), Err(StoreError::Damaged { .. })));
    let disk = CrashDisk::of(intact.clone());
    disk.0.lock().live.remove(Path::new("/meta/snapshot.1"));
    assert!(matches!(store(&disk).acquire(), Err(StoreError::Damaged { .. })));
}
