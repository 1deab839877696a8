//! A cache of stored records in front of an engine, shared by the engines of a server.
//!
//! An engine of sorted files and memtables looks a record up in several places, each with its own misses of the
//! processor's caches. Here a record that was read before is found with two or three. The cache belongs to the
//! engine, below everything that knows what a record means: it answers with exactly the bytes that the engine would.
//!
//! **What keeps it true.** A record enters only after it was read, and only if its engine began no write since the
//! look-up that missed ([`Records::insert`]). A write takes its keys out before the engine shows it
//! ([`Records::begin_write`]), and until it is over nothing of that engine enters. So whatever is in the cache is
//! what the engine has. What compactions change without a write is the engine's to tell, by not accepting a record.
//!
//! Readers never wait: a part of the cache that somebody else is using counts as a miss. Memory is bounded by the
//! configured capacity, a sixth of it more for the tables that find the records, and used only as records arrive.

mod shard;

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use dsn_core::hash::DetState;
use parking_lot::Mutex;

use super::{Batch, Record};
use shard::{Place, Shard};

/// A part of the cache is about this large, so that threads seldom meet in one.
const SHARD_BYTES: usize = 1 << 20;
/// Most parts.
const SHARDS_MAX: usize = 64;

/// See the module's header.
pub struct RecordCache {
    shards: Box<[Mutex<Shard>]>,
    hasher: DetState,
    next_owner: AtomicU32,
}

impl RecordCache {
    /// A cache of up to `capacity` bytes of records; `None` when that is too little for one.
    pub fn new(capacity: usize) -> Option<Arc<Self>> {
        let wanted = (capacity / SHARD_BYTES).clamp(1, SHARDS_MAX);
        let count = 1 << wanted.ilog2();
        let shards = (0..count).map(|_| Shard::new(capacity / count).map(Mutex::new));
        let shards = shards.collect::<Option<Box<[_]>>>()?;
        Some(Arc::new(Self { shards, hasher: DetState::default(), next_owner: AtomicU32::new(0) }))
    }

    /// The part of the cache that an engine newly opened sees. What earlier engines left is not in it.
    pub fn records(self: &Arc<Self>) -> Records {
        Records {
            owner: self.next_owner.fetch_add(1, Ordering::Relaxed),
            cache: self.clone(),
            writes: AtomicU64::new(0),
            used: AtomicBool::new(false),
        }
    }

    #[inline]
    fn place(&self, owner: u32, key: &[u8]) -> Place {
        let mut hasher = self.hasher.build_hasher();
        hasher.write_u32(owner);
        hasher.write(key);
        Place(hasher.finish())
    }

    #[inline]
    fn shard(&self, place: Place) -> &Mutex<Shard> {
        &self.shards[place.shard(self.shards.len())]
    }
}

/// What one engine has in the cache.
pub struct Records {
    cache: Arc<RecordCache>,
    owner: u32,
    /// Grows when a write begins and when it ends: odd while one is going on.
    writes: AtomicU64,
    /// Whether anything ever entered; until then a write has nothing to take out.
    used: AtomicBool,
}

/// Where a record that was missed may enter, if the engine has it.
#[derive(Clone, Copy, Debug)]
pub struct Vacancy {
    place: Place,
    writes: u64,
}

/// How a look-up ended.
#[derive(Clone, Copy, Debug)]
pub enum Lookup {
    /// The record was shown and accepted.
    Hit,
    /// The engine must be asked; what it has may enter the vacancy, if there is one.
    Miss(Option<Vacancy>),
}

impl Records {
    /// Shows the record of `key` to `accept`, which may refuse it; then it counts as missed and may not enter.
    #[inline]
    pub fn get(&self, key: &[u8], accept: &mut dyn FnMut(&[u8]) -> bool) -> Lookup {
        let place = self.cache.place(self.owner, key);
        let writes = self.writes.load(Ordering::SeqCst);
        let Some(mut shard) = self.cache.shard(place).try_lock() else { return Lookup::Miss(None) };
        match shard.get(place, self.owner, key, accept) {
            Some(true) => Lookup::Hit,
            Some(false) => Lookup::Miss(None),
            None if writes % 2 == 1 => Lookup::Miss(None),
            None => Lookup::Miss(Some(Vacancy { place, writes })),
        }
    }

    /// The engine had this record, after the look-up that missed it. It enters unless a write began since, it is too
    /// large, or others are using that part of the cache.
    pub fn insert(&self, vacancy: Vacancy, key: &[u8], value: &[u8]) {
        let Some(mut shard) = self.cache.shard(vacancy.place).try_lock() else { return };
        // Before the look at `writes`: a write that this does not see begin will see that there is something to
        // take out.
        self.used.store(true, Ordering::SeqCst);
        if self.writes.load(Ordering::SeqCst) == vacancy.writes {
            shard.insert(vacancy.place, self.owner, key, value);
        }
    }

    /// The engine is about to write `batch`: its records are taken out, and nothing enters until the value returned
    /// is dropped.
    #[must_use]
    pub fn begin_write<'a>(&'a self, batch: &Batch) -> Writing<'a> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        if self.used.load(Ordering::SeqCst) {
            for record in batch.records() {
                let (Record::Put { key, .. } | Record::Delete { key }) = record;
                let place = self.cache.place(self.owner, key);
                self.cache.shard(place).lock().remove(place);
            }
        }
        Writing(self)
    }
}

/// A write that is going on.
pub struct Writing<'a>(&'a Records);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.writes.fetch_add(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(records: &Records, key: &[u8]) -> Result<Vec<u8>, Option<Vacancy>> {
        let mut value = Vec::new();
        let mut accept = |stored: &[u8]| {
            value = stored.to_vec();
            true
        };
        match records.get(key, &mut accept) {
            Lookup::Hit => Ok(value),
            Lookup::Miss(vacancy) => Err(vacancy),
        }
    }

    fn vacancy(records: &Records, key: &[u8]) -> Vacancy {
        found(records, key).expect_err("not there yet").expect("room for it")
    }

    fn fill(records: &Records, key: &[u8], value: &[u8]) {
        records.insert(vacancy(records, key), key, value);
    }

    fn batch(key: &[u8]) -> Batch {
        let mut batch = Batch::new();
        batch.put(&[key], &[b"new"]);
        batch
    }

    fn cache() -> Arc<RecordCache> {
        RecordCache::new(1 << 20).expect("large enough")
    }

    #[test]
    fn what_was_read_is_found_again_until_it_is_written() {
        let records = cache().records();
        fill(&records, b"k", b"old");
        fill(&records, b"other", b"stays");
        assert_eq!(found(&records, b"k").ok(), Some(b"old".to_vec()));
        let mut written = batch(b"k");
        written.delete(&[b"gone"]);
        drop(records.begin_write(&written));
        fill(&records, b"k", b"new");
        assert_eq!(found(&records, b"k").ok(), Some(b"new".to_vec()));
        assert_eq!(found(&records, b"other").ok(), Some(b"stays".to_vec()));
    }

    #[test]
    fn what_was_read_before_or_during_a_write_does_not_enter() {
        let records = cache().records();
        let early = vacancy(&records, b"k");
        let writing = records.begin_write(&batch(b"k"));
        records.insert(early, b"k", b"old");
        assert!(found(&records, b"k").expect_err("missing").is_none(), "no vacancy now");
        drop(writing);
        records.insert(early, b"k", b"old");
        assert!(found(&records, b"k").is_err());
    }

    #[test]
    fn engines_do_not_see_each_others_records() {
        let cache = cache();
        let (one, two) = (cache.records(), cache.records());
        fill(&one, b"k", b"1");
        assert!(found(&two, b"k").is_err());
        drop(two.begin_write(&batch(b"k")));
        assert_eq!(found(&one, b"k").ok(), Some(b"1".to_vec()));
    }

    #[test]
    fn a_record_that_is_refused_is_missed_and_leaves_no_vacancy() {
        let records = cache().records();
        fill(&records, b"k", b"v");
        assert!(matches!(records.get(b"k", &mut |_| false), Lookup::Miss(None)));
    }

    #[test]
    fn a_part_in_use_is_a_miss() {
        let cache = cache();
        let records = cache.records();
        fill(&records, b"k", b"v");
        let guards: Vec<_> = cache.shards.iter().map(|shard| shard.lock()).collect();
        assert!(found(&records, b"k").expect_err("in use").is_none());
        drop(guards);
        assert!(found(&records, b"k").is_ok());
    }

    #[test]
    fn too_small_a_capacity_is_no_cache() {
        assert!(RecordCache::new(0).is_none());
        assert!(RecordCache::new(1 << 16).is_none());
    }

    /// A writer counts a key up while readers fill and read the cache: nobody reads a number smaller than one that
    /// was visible before the read began.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test is about threads")]
    fn readers_never_go_back_in_time() {
        let records = Arc::new(cache().records());
        // The engine: one number.
        let engine = Arc::new(AtomicU64::new(0));
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let (records, engine) = (records.clone(), engine.clone());
                std::thread::spawn(move || {
                    let mut hits = 0;
                    loop {
                        let visible = engine.load(Ordering::SeqCst);
                        let mut seen = None;
                        let mut accept = |stored: &[u8]| {
                            seen = stored.try_into().ok().map(u64::from_le_bytes);
                            true
                        };
                        match records.get(b"k", &mut accept) {
                            Lookup::Hit => hits += 1,
                            Lookup::Miss(vacancy) => {
                                let value = engine.load(Ordering::SeqCst);
                                seen = Some(value);
                                if let Some(vacancy) = vacancy {
                                    records.insert(vacancy, b"k", &value.to_le_bytes());
                                }
                            }
                        }
                        let seen = seen.expect("eight bytes");
                        assert!(seen >= visible, "{seen} after {visible}");
                        if seen >= 30_000 {
                            return hits;
                        }
                    }
                })
            })
            .collect();
        for number in 1..=30_000 {
            let writing = records.begin_write(&batch(b"k"));
            engine.store(number, Ordering::SeqCst);
            drop(writing);
            for _ in 0..20 {
                std::hint::spin_loop();
            }
        }
        let hits: u64 = readers.into_iter().map(|reader| reader.join().expect("no panic")).sum();
        assert!(hits > 0, "the cache was never of use");
    }
}
