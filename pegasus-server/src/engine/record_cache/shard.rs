//! A part of the cache: records one after the other in a ring of segments, and a table that finds them.
//!
//! New records go to the ring's head, which overwrites the oldest segment; a record that is read while it is among
//! the oldest is put at the head again. The table is an array of buckets as large as a line of the processor's
//! cache, with a tag and a position per entry: a look-up touches one line of the table and those of the record. An
//! entry whose record has been overwritten is recognised by its position and counts as empty.

/// Bytes of a segment.
const SEGMENT: usize = 64 << 10;
/// Fewest segments; with fewer a new record would overwrite too much at once.
const SEGMENTS_MIN: usize = 8;
/// A larger record, key and value, does not enter.
const RECORD_MAX: usize = SEGMENT / 8;
/// Owner, length of the key, length of the value: 4 bytes each.
const HEADER: usize = 12;
/// Records begin at multiples of it.
const ALIGN: usize = 8;
/// Entries of a bucket.
const WAYS: usize = 8;
/// Bytes of records per bucket.
const BUCKET_BYTES: usize = 512;
/// Bits of an entry that hold a position.
const POSITION_BITS: u32 = 48;
/// A record is moved when more than so many of four quarters of the ring have been written since.
const OLD_QUARTERS: u64 = 3;

/// Where a key belongs: its hash.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place(pub(super) u64);

impl Place {
    /// Its part of the cache, of a power of two of them.
    #[inline]
    pub(super) fn shard(self, shards: usize) -> usize {
        self.0 as usize & (shards - 1)
    }

    #[inline]
    fn bucket(self, buckets: usize) -> usize {
        (self.0 >> 8) as usize & (buckets - 1)
    }

    #[inline]
    fn tag(self) -> u64 {
        self.0 >> POSITION_BITS
    }
}

/// Where a record is in the endless sequence of segments, in units of [`ALIGN`]. Never 0.
#[derive(Clone, Copy)]
struct Position(u64);

impl Position {
    fn segment(self) -> u64 {
        self.0 / (SEGMENT / ALIGN) as u64
    }

    fn offset(self) -> usize {
        self.0 as usize % (SEGMENT / ALIGN) * ALIGN
    }
}

/// See the module's header.
pub(super) struct Shard {
    /// A tag and a position each; 0 is empty.
    buckets: Vec<[u64; WAYS]>,
    /// Those of the ring that have been needed so far.
    segments: Vec<Box<[u8]>>,
    ring: u64,
    /// Where the next record goes.
    head: Position,
}

impl Shard {
    /// A part with room for about `capacity` bytes; `None` when that is too little.
    pub(super) fn new(capacity: usize) -> Option<Self> {
        let ring = capacity / SEGMENT;
        let buckets = (capacity / BUCKET_BYTES).next_power_of_two();
        (ring >= SEGMENTS_MIN).then(|| Self {
            buckets: vec![[0; WAYS]; buckets],
            segments: Vec::new(),
            ring: ring as u64,
            head: Position(1),
        })
    }

    /// Shows the record to `accept` and returns what that says; `None` when there is no such record.
    #[inline]
    pub(super) fn get(
        &mut self,
        place: Place,
        owner: u32,
        key: &[u8],
        accept: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Option<bool> {
        let bucket = self.buckets[place.bucket(self.buckets.len())];
        for entry in bucket {
            if entry >> POSITION_BITS != place.tag() {
                continue;
            }
            let Some(position) = self.live(entry) else { continue };
            let Some(value) = self.record(position, owner, key) else { continue };
            let accepted = accept(value);
            if accepted && self.age(position) * 4 > self.ring * OLD_QUARTERS {
                let value = value.to_vec();
                self.insert(place, owner, key, &value);
            }
            return Some(accepted);
        }
        None
    }

    /// Adds a record, or replaces it. One that is too large is left out.
    pub(super) fn insert(&mut self, place: Place, owner: u32, key: &[u8], value: &[u8]) {
        self.remove(place);
        let size = HEADER + key.len() + value.len();
        if size > RECORD_MAX {
            return;
        }
        let position = self.append(size, |room| {
            let (header, rest) = room.split_at_mut(HEADER);
            for (at, number) in [owner, key.len() as u32, value.len() as u32].iter().enumerate() {
                header[at * 4..][..4].copy_from_slice(&number.to_le_bytes());
            }
            rest[..key.len()].copy_from_slice(key);
            rest[key.len()..].copy_from_slice(value);
        });
        let entry = place.tag() << POSITION_BITS | position.0;
        let at = place.bucket(self.buckets.len());
        // The oldest of a full bucket; what is empty or overwritten is older than all.
        let age = |entry: &u64| self.live(*entry).map_or(0, |position| position.0);
        let victim = (0..WAYS).min_by_key(|way| age(&self.buckets[at][*way])).unwrap_or(0);
        self.buckets[at][victim] = entry;
    }

    /// Takes the record out. Another one may go with it, if their hashes agree in what an entry keeps of them.
    #[inline]
    pub(super) fn remove(&mut self, place: Place) {
        let at = place.bucket(self.buckets.len());
        for entry in &mut self.buckets[at] {
            if *entry >> POSITION_BITS == place.tag() {
                *entry = 0;
            }
        }
    }

    /// Takes `size` bytes at the head.
    fn append(&mut self, size: usize, write: impl FnOnce(&mut [u8])) -> Position {
        let per_segment = (SEGMENT / ALIGN) as u64;
        if self.head.offset() + size > SEGMENT {
            self.head = Position((self.head.segment() + 1) * per_segment);
        }
        let position = self.head;
        let index = (position.segment() % self.ring) as usize;
        if index == self.segments.len() {
            self.segments.push(vec![0; SEGMENT].into_boxed_slice());
        }
        write(&mut self.segments[index][position.offset()..][..size]);
        self.head = Position(position.0 + size.div_ceil(ALIGN) as u64);
        position
    }

    /// Segments begun since that of `position`.
    #[inline]
    fn age(&self, position: Position) -> u64 {
        self.head.segment() - position.segment()
    }

    /// The position in an entry, unless it is empty or what it points to has been overwritten.
    #[inline]
    fn live(&self, entry: u64) -> Option<Position> {
        let position = Position(entry & ((1 << POSITION_BITS) - 1));
        (position.0 != 0 && self.age(position) < self.ring).then_some(position)
    }

    /// The value of the record at a live position, if it is that of `key`.
    #[inline]
    fn record(&self, position: Position, owner: u32, key: &[u8]) -> Option<&[u8]> {
        let segment = &self.segments[(position.segment() % self.ring) as usize];
        let (header, rest) = segment[position.offset()..].split_first_chunk::<HEADER>()?;
        let (numbers, _) = header.as_chunks::<4>();
        let [of, key_len, value_len] = [0, 1, 2].map(|at: usize| u32::from_le_bytes(numbers[at]));
        if of != owner || key_len as usize != key.len() {
            return None;
        }
        let (stored, rest) = rest.split_at(key.len());
        (stored == key).then(|| &rest[..value_len as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dsn_core::hash::mix64;
    use dsn_core::rng::Rng;
    use std::collections::BTreeMap;

    fn get(shard: &mut Shard, place: u64, key: &[u8]) -> Option<Vec<u8>> {
        let mut found = None;
        let mut accept = |value: &[u8]| {
            found = Some(value.to_vec());
            true
        };
        shard.get(Place(place), 1, key, &mut accept)?;
        found
    }

    #[test]
    fn keys_of_one_hash_do_not_take_each_others_values() {
        let mut shard = Shard::new(1 << 20).unwrap();
        shard.insert(Place(7), 1, b"a", b"1");
        assert_eq!(get(&mut shard, 7, b"b"), None);
        assert_eq!(get(&mut shard, 7, b"ab"), None);
        assert_eq!(get(&mut shard, 7, b"a"), Some(b"1".to_vec()));
        assert_eq!(shard.get(Place(7), 2, b"a", &mut |_| true), None, "another owner's");
        shard.insert(Place(7), 1, b"b", b"2");
        assert_eq!(get(&mut shard, 7, b"b"), Some(b"2".to_vec()));
        shard.remove(Place(7));
        assert_eq!(get(&mut shard, 7, b"b"), None);
    }

    #[test]
    fn records_at_the_limit_enter_and_larger_ones_do_not() {
        let mut shard = Shard::new(1 << 20).unwrap();
        let value = vec![9; RECORD_MAX];
        let fits = RECORD_MAX - HEADER - 1;
        shard.insert(Place(1), 1, b"k", &value[..fits]);
        assert_eq!(get(&mut shard, 1, b"k").map(|value| value.len()), Some(fits));
        shard.insert(Place(1), 1, b"k", &value[..fits + 1]);
        assert_eq!(get(&mut shard, 1, b"k"), None, "nor does what stood there before stay");
        shard.insert(Place(1), 1, b"", b"");
        assert_eq!(get(&mut shard, 1, b""), Some(Vec::new()));
        assert!(Shard::new(SEGMENT * SEGMENTS_MIN - 1).is_none());
    }

    #[test]
    fn what_is_read_stays_while_the_ring_turns() {
        let mut shard = Shard::new(1 << 20).unwrap();
        shard.insert(Place(mix64(2)), 1, b"cold", b"c");
        let mut misses = 0;
        for n in 0..100_000u64 {
            shard.insert(Place(mix64(n + 10)), 1, &n.to_le_bytes(), &[0; 100]);
            if n % 100 == 0 && get(&mut shard, mix64(1), b"hot").is_none() {
                shard.insert(Place(mix64(1)), 1, b"hot", b"h");
                misses += 1;
            }
        }
        // The ring turns a dozen times; it is missed at first, and when its bucket is full.
        assert!(misses <= 5, "missed {misses} times");
        assert_eq!(get(&mut shard, mix64(2), b"cold"), None);
        assert_eq!(shard.segments.len() as u64, shard.ring);
    }

    /// Whatever is found is what was put last, through many turns of the ring.
    #[test]
    fn it_never_answers_with_anything_else() {
        for seed in 0..4 {
            let mut rng = Rng::new(seed);
            let mut shard = Shard::new(SEGMENT * SEGMENTS_MIN).unwrap();
            let mut model: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
            let mut hits = 0;
            for _ in 0..60_000 {
                let key = rng.below(2000);
                // Few hashes: tags and buckets collide.
                let place = mix64(key % 500);
                match rng.below(10) {
                    0 => {
                        shard.remove(Place(place));
                        model.remove(&key);
                    }
                    1..4 => {
                        let value = vec![rng.below(256) as u8; rng.below(2000) as usize];
                        shard.insert(Place(place), 1, &key.to_le_bytes(), &value);
                        model.insert(key, value);
                    }
                    _ => {
                        if let Some(value) = get(&mut shard, place, &key.to_le_bytes()) {
                            assert_eq!(Some(&value), model.get(&key), "seed {seed}");
                            hits += 1;
                        }
                    }
                }
            }
            assert!(hits > 1000, "seed {seed}: {hits} hits");
        }
    }
}
