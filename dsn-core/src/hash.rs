//! Maps and hashes that give the same result in every run.
//!
//! The maps of `std` draw a random seed per process, so their iteration order differs from run to run
//! and with it everything that happens while iterating: a simulation could not be replayed. These
//! aliases use one fixed seed. The price: whoever knows it can construct keys that collide. Maps keyed
//! by bytes a client chose freely must therefore be bounded, as every queue and table here is anyway,
//! or be ordered maps.
//!
//! [`TraceHash`] is the rolling hash by which two runs are compared; [`mix64`] and [`fnv1a64`] are its
//! parts and also derive seeds (see [`crate::rng`]). None of them resists an adversary.

/// The hasher of all maps here: foldhash with a fixed seed.
pub type DetState = foldhash::fast::FixedState;
/// A hash map whose iteration order is the same in every run. Create with `DetHashMap::default()`.
pub type DetHashMap<K, V> = hashbrown::HashMap<K, V, DetState>;
/// A hash set whose iteration order is the same in every run. Create with `DetHashSet::default()`.
pub type DetHashSet<T> = hashbrown::HashSet<T, DetState>;

/// A bijection on 64 bits in which every input bit reaches every output bit (SplitMix64's finaliser).
#[inline]
pub const fn mix64(value: u64) -> u64 {
    let mut z = value;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// FNV-1a over `bytes`: for short names, where simplicity counts more than speed.
pub const fn fnv1a64(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        i += 1;
    }
    hash
}

/// A rolling 64-bit hash of a sequence of events: equal sequences give equal values, and the order of
/// the pushes matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceHash(u64);

impl Default for TraceHash {
    fn default() -> Self {
        Self::new()
    }
}

impl TraceHash {
    /// The hash of the empty sequence.
    pub const fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    /// Appends a number.
    #[inline]
    pub const fn push(&mut self, value: u64) {
        self.0 = mix64(self.0.rotate_left(23) ^ value).wrapping_add(0x9e37_79b9_7f4a_7c15);
    }

    /// Appends a byte string; its length takes part, so `"ab", "c"` differs from `"a", "bc"`.
    pub fn push_bytes(&mut self, bytes: &[u8]) {
        self.push(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0u8; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.push(u64::from_le_bytes(word));
        }
    }

    /// The hash of everything pushed so far.
    pub const fn value(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_iterate_in_the_same_order_whenever_built_alike() {
        let build = || (0..1000u64).map(|n| (n * 7919, n)).collect::<DetHashMap<_, _>>();
        assert!(build().into_iter().eq(build()));
    }

    #[test]
    fn fnv_agrees_with_published_vectors() {
        assert_eq!(fnv1a64(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a64(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a64(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn trace_hash_sees_order_boundaries_and_zeros() {
        let of = |parts: &[&[u8]]| {
            let mut hash = TraceHash::new();
            parts.iter().for_each(|part| hash.push_bytes(part));
            hash.value()
        };
        assert_eq!(of(&[b"ab", b"c"]), of(&[b"ab", b"c"]));
        assert_ne!(of(&[b"ab", b"c"]), of(&[b"a", b"bc"]));
        assert_ne!(of(&[b"ab", b"c"]), of(&[b"c", b"ab"]));
        assert_ne!(of(&[b"a"]), of(&[b"a\0"]));
        let (mut once, mut twice) = (TraceHash::new(), TraceHash::new());
        once.push(0);
        twice.push(0);
        twice.push(0);
        assert_ne!(once, twice);
    }
}
