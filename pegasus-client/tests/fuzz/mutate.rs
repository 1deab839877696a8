//! Turning valid encodings into likely and unlikely broken ones, the same way for the same seed.

/// A small generator (SplitMix64).
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`; 0 if there is none.
    pub fn below(&mut self, limit: usize) -> usize {
        if limit == 0 { 0 } else { (self.next() % limit as u64) as usize }
    }
}

/// A valid encoding, and where in it 32-bit numbers stand that look like lengths or counts.
pub struct Sample {
    pub bytes: Vec<u8>,
    lengths: Vec<usize>,
}

impl Sample {
    pub fn new(bytes: &[u8]) -> Self {
        let windows = bytes.windows(4).enumerate();
        let lengths = windows.filter(|(at, window)| {
            let rest = bytes.len() - at - 4;
            let big = u32::from_be_bytes([window[0], window[1], window[2], window[3]]) as usize;
            let little = u32::from_le_bytes([window[0], window[1], window[2], window[3]]) as usize;
            big <= rest || (little > 0 && little <= rest)
        });
        let lengths = lengths.map(|(at, _)| at).collect();
        Self { bytes: bytes.to_vec(), lengths }
    }
}

const ODD_NUMBERS: [i32; 12] =
    [-1, i32::MIN, i32::MAX, 0, 1, 2, 255, 4096, 65535, 65536, 1 << 24, -65536];

/// Openings of structures, lists and maps that nest, in thrift and in JSON.
const NESTING: [&[u8]; 6] = [
    b"\x0c\0\x01",
    b"\x0f\0\x02\x0c\0\0\0\x01",
    b"\x0f\0\0\0\x01",
    b"\x0d\0\x06\x0b\x0d\0\0\0\x01\0\0\0\0",
    br#"{"1":{"rec":"#,
    b"[",
];

/// One to four changes to one of the samples.
pub fn mutate(rng: &mut Rng, samples: &[Sample]) -> Vec<u8> {
    let sample = &samples[rng.below(samples.len())];
    let mut bytes = sample.bytes.clone();
    for _ in 0..=rng.below(4) {
        change(rng, samples, sample, &mut bytes);
    }
    bytes
}

fn change(rng: &mut Rng, samples: &[Sample], sample: &Sample, bytes: &mut Vec<u8>) {
    let at = rng.below(bytes.len());
    match rng.below(16) {
        0 => bytes.truncate(at),
        1 | 2 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
        3 | 4 if at < bytes.len() => bytes[at] = rng.next() as u8,
        5..=8 if !sample.lengths.is_empty() => {
            let at = sample.lengths[rng.below(sample.lengths.len())];
            let number = match rng.below(3) {
                0 => ODD_NUMBERS[rng.below(ODD_NUMBERS.len())],
                1 => rng.below(16) as i32,
                _ => bytes.len() as i32 - at as i32 - 8 + rng.below(8) as i32,
            };
            if let Some(place) = bytes.get_mut(at..at + 4) {
                let little = rng.below(4) == 0;
                let number = if little { number.to_le_bytes() } else { number.to_be_bytes() };
                place.copy_from_slice(&number);
            }
        }
        9 | 10 => {
            let other = &samples[rng.below(samples.len())].bytes;
            let from = rng.below(other.len());
            let to = (from + 1 + rng.below(64)).min(other.len());
            let over = if rng.below(2) == 0 { at } else { (at + to - from).min(bytes.len()) };
            bytes.splice(at..over, other[from..to].iter().copied());
        }
        11 => {
            let to = (at + 1 + rng.below(64)).min(bytes.len());
            bytes.drain(at..to);
        }
        12 => {
            let to = (at + 1 + rng.below(64)).min(bytes.len());
            let copy = bytes[at..to].repeat(1 + rng.below(8));
            bytes.splice(at..at, copy);
        }
        13 if rng.below(8) == 0 => {
            let bomb = NESTING[rng.below(NESTING.len())].repeat(1 + rng.below(400));
            bytes.splice(at..at, bomb);
        }
        14 if rng.below(16) == 0 => crowd(rng, at, bytes),
        _ => bytes.push(rng.next() as u8),
    }
}

/// Inserts a container with more elements than is polite, all of them there.
fn crowd(rng: &mut Rng, at: usize, bytes: &mut Vec<u8>) {
    let count = rng.below(20_000);
    let id = 1 + rng.below(8) as u8;
    let (mut crowd, element) = match rng.below(4) {
        0 => (vec![0x0f, 0, id, 0x0c], 1),
        1 => (vec![0x0f, 0, id, 0x0b], 4),
        2 => (vec![0x0f, 0, id, 0x0c], 4),
        _ => (vec![0x0d, 0, id, 0x0b, 0x0b], 8),
    };
    crowd.extend((count as u32).to_be_bytes());
    crowd.resize(crowd.len() + count * element, 0);
    bytes.splice(at..at, crowd);
}
