//! Timers of one worker: a hierarchical hashed wheel.
//!
//! Four levels of 256 slots with ticks of 1 ms: level 0 covers 256 ms, level 3 about 49 days; later times wait in
//! the last slot and are re-inserted. Insert and cancel are O(1): entries live in a slab and hang in doubly linked
//! lists. Source: Varghese & Lauck, "Hashed and Hierarchical Timing Wheels", SOSP 1987, scheme 7.
//!
//! A timer never fires early; it fires in the first turn after its tick has passed.

use crate::time::Mono;

const LEVELS: usize = 4;
const SLOTS: usize = 256;
const TICK_NS: u64 = 1_000_000;
const NIL: u32 = u32::MAX;

/// Names one armed timer. Stale ids are harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerId {
    index: u32,
    generation: u32,
}

#[derive(Debug)]
struct Entry<T> {
    value: Option<T>,
    tick: u64,
    generation: u32,
    prev: u32,
    next: u32,
    /// Index into `heads`, or `NIL` when free.
    list: u32,
}

/// The wheel, holding values of type `T` until their time.
#[derive(Debug)]
pub struct Wheel<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
    heads: Vec<u32>,
    tails: Vec<u32>,
    occupied: [[u64; SLOTS / 64]; LEVELS],
    /// The next tick to be processed.
    current: u64,
    len: usize,
}

impl<T> Wheel<T> {
    /// An empty wheel whose time starts at `now`.
    pub fn new(now: Mono) -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            heads: vec![NIL; LEVELS * SLOTS],
            tails: vec![NIL; LEVELS * SLOTS],
            occupied: [[0; SLOTS / 64]; LEVELS],
            current: now.nanos() / TICK_NS,
            len: 0,
        }
    }

    /// Armed timers.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none is armed.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Arms a timer for `at`.
    pub fn insert(&mut self, at: Mono, value: T) -> TimerId {
        let tick = at.nanos().div_ceil(TICK_NS).max(self.current);
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.entries.push(Entry {
                    value: None,
                    tick: 0,
                    generation: 0,
                    prev: NIL,
                    next: NIL,
                    list: NIL,
                });
                (self.entries.len() - 1) as u32
            }
        };
        let entry = &mut self.entries[index as usize];
        entry.value = Some(value);
        entry.tick = tick;
        let id = TimerId { index, generation: entry.generation };
        self.link(index);
        self.len += 1;
        id
    }

    /// Disarms a timer and gives its value back; `None` when it has fired or was cancelled.
    pub fn cancel(&mut self, id: TimerId) -> Option<T> {
        let entry = self.entries.get(id.index as usize)?;
        if entry.generation != id.generation || entry.list == NIL {
            return None;
        }
        self.unlink(id.index);
        Some(self.take(id.index))
    }

    /// Moves every value that is due at `now` into `due`, in order of time.
    pub fn expire(&mut self, now: Mono, due: &mut Vec<T>) {
        let target = now.nanos() / TICK_NS;
        while self.current <= target {
            if self.len == 0 {
                self.current = target + 1;
                return;
            }
            self.cascade();
            let slot = (self.current as usize) % SLOTS;
            while self.heads[slot] != NIL {
                let index = self.heads[slot];
                self.unlink(index);
                due.push(self.take(index));
            }
            self.current = self.next_stop(target);
        }
    }

    /// A lower bound for the next timer's time: nothing fires before it. `None` when nothing is armed.
    pub fn next_at(&self) -> Option<Mono> {
        if self.len == 0 {
            return None;
        }
        let mut best = u64::MAX;
        for level in 0..LEVELS {
            if let Some(tick) = self.next_in_level(level) {
                best = best.min(tick);
            }
        }
        Some(Mono::from_nanos(best.saturating_mul(TICK_NS)))
    }

    /// First tick at or after `current` at which `level` needs attention.
    fn next_in_level(&self, level: usize) -> Option<u64> {
        let shift = 8 * level as u32;
        // A slot of a level above 0 needs attention when its range starts.
        let base =
            if level == 0 { self.current } else { (self.current + (1 << shift) - 1) >> shift };
        let position = base + distance(&self.occupied[level], base as usize % SLOTS)?;
        Some(position << shift)
    }

    fn next_stop(&self, target: u64) -> u64 {
        // Skip empty ticks, but stop at each multiple of 256 to cascade.
        let tick = self.current + 1;
        let cascade = tick.next_multiple_of(SLOTS as u64);
        let occupied = distance(&self.occupied[0], tick as usize % SLOTS);
        let stop = occupied.map_or(cascade, |steps| cascade.min(tick + steps));
        stop.min(target + 1).max(tick)
    }

    /// At the start of a range of a higher level, spreads its slot over the levels below.
    fn cascade(&mut self) {
        for level in 1..LEVELS {
            let shift = 8 * level as u32;
            if self.current & ((1 << shift) - 1) != 0 {
                return;
            }
            let list = level * SLOTS + ((self.current >> shift) as usize) % SLOTS;
            let mut moved = Vec::new();
            while self.heads[list] != NIL {
                let index = self.heads[list];
                self.unlink(index);
                moved.push(index);
            }
            for index in moved {
                self.link(index);
            }
        }
    }

    fn list_of(&self, tick: u64) -> usize {
        let delta = tick.saturating_sub(self.current);
        for level in 0..LEVELS {
            let shift = 8 * level as u32;
            // Within this level the slot must not be the one being passed now.
            if delta < (SLOTS as u64) << shift {
                let slot = (tick >> shift) as usize % SLOTS;
                if level == 0 || (tick >> shift) != (self.current >> shift) {
                    return level * SLOTS + slot;
                }
            }
        }
        // Beyond the horizon: the last slot of the top level that comes round.
        let shift = 8 * (LEVELS as u32 - 1);
        let slot = ((self.current >> shift) as usize + SLOTS - 1) % SLOTS;
        (LEVELS - 1) * SLOTS + slot
    }

    fn link(&mut self, index: u32) {
        let list = self.list_of(self.entries[index as usize].tick);
        let tail = self.tails[list];
        let entry = &mut self.entries[index as usize];
        entry.list = list as u32;
        entry.prev = tail;
        entry.next = NIL;
        if tail == NIL {
            self.heads[list] = index;
        } else {
            self.entries[tail as usize].next = index;
        }
        self.tails[list] = index;
        let slot = list % SLOTS;
        self.occupied[list / SLOTS][slot / 64] |= 1 << (slot % 64);
    }

    fn unlink(&mut self, index: u32) {
        let (list, prev, next) = {
            let entry = &mut self.entries[index as usize];
            let list = entry.list as usize;
            entry.list = NIL;
            (list, entry.prev, entry.next)
        };
        if prev == NIL {
            self.heads[list] = next;
        } else {
            self.entries[prev as usize].next = next;
        }
        if next == NIL {
            self.tails[list] = prev;
        } else {
            self.entries[next as usize].prev = prev;
        }
        if self.heads[list] == NIL {
            let slot = list % SLOTS;
            self.occupied[list / SLOTS][slot / 64] &= !(1 << (slot % 64));
        }
    }

    fn take(&mut self, index: u32) -> T {
        let entry = &mut self.entries[index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(index);
        self.len -= 1;
        match entry.value.take() {
            Some(value) => value,
            None => unreachable!("a linked timer has a value"),
        }
    }
}

/// Steps from a slot to the next occupied one, going round; 0 when it is occupied itself.
fn distance(occupied: &[u64; SLOTS / 64], from: usize) -> Option<u64> {
    let (word, bit) = (from / 64, from % 64);
    let here = occupied[word] >> bit;
    if here != 0 {
        return Some(u64::from(here.trailing_zeros()));
    }
    (1..=occupied.len()).find_map(|step| {
        // What lies behind `from` in the last word has been looked at.
        let behind = if step == occupied.len() { !(u64::MAX << bit) } else { u64::MAX };
        let bits = occupied[(word + step) % occupied.len()] & behind;
        (bits != 0).then(|| (step * 64 - bit) as u64 + u64::from(bits.trailing_zeros()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use std::collections::BTreeMap;

    fn ms(n: u64) -> Mono {
        Mono::from_nanos(n * TICK_NS)
    }

    #[test]
    fn the_next_occupied_slot_is_found_all_the_way_round() {
        for slot in 0..SLOTS {
            let mut occupied = [0; SLOTS / 64];
            assert_eq!(distance(&occupied, slot), None);
            occupied[slot / 64] |= 1 << (slot % 64);
            for from in 0..SLOTS {
                let steps = (slot + SLOTS - from) % SLOTS;
                assert_eq!(distance(&occupied, from), Some(steps as u64), "{from} to {slot}");
            }
        }
    }

    #[test]
    fn agrees_with_a_sorted_map() {
        for seed in 0..20 {
            println!("seed {seed}");
            let mut rng = Rng::stream(seed, "test", "wheel", 0);
            let mut now = rng.below(1 << 40);
            let mut processed = now - 1;
            let mut wheel = Wheel::new(ms(now));
            let mut model: BTreeMap<u64, u64> = BTreeMap::new();
            let mut ids = Vec::new();
            let mut next = 0;
            for _ in 0..4000 {
                match rng.below(4) {
                    0 | 1 => {
                        let spread = 1 << rng.below(36);
                        // The current tick has been processed already, if any has.
                        let at = (now + rng.below(spread)).max(processed + 1);
                        ids.push((next, at, wheel.insert(ms(at), next)));
                        model.insert(next, at);
                        next += 1;
                    }
                    2 if !ids.is_empty() => {
                        let pick = rng.below(ids.len() as u64) as usize;
                        let (value, _, id) = ids.swap_remove(pick);
                        let armed = model.remove(&value);
                        assert_eq!(wheel.cancel(id), armed.map(|_| value));
                    }
                    _ => {
                        let step = 1 << rng.below(20);
                        if let Some(bound) = wheel.next_at() {
                            let earliest = model.values().min().copied().unwrap();
                            assert!(bound <= ms(earliest), "{bound:?} is a lower bound");
                        }
                        now += rng.below(step);
                        let mut due = Vec::new();
                        wheel.expire(ms(now), &mut due);
                        processed = now;
                        due.sort_unstable();
                        let expected: Vec<u64> =
                            model.iter().filter(|(_, at)| **at <= now).map(|(v, _)| *v).collect();
                        assert_eq!(due, expected);
                        model.retain(|_, at| *at > now);
                    }
                }
                assert_eq!(wheel.len(), model.len());
            }
        }
    }
}
