//! Which partition a record belongs to: CRC-64 of its hash key.
//!
//! The function is CRC-64/NVME: reflected polynomial `0x9A6C9329AC4BC9B5`, register preset to ones,
//! result inverted; `"123456789"` gives `0xAE8B14860A799888`, nothing gives 0. Eight bytes are
//! folded per step with eight tables ("slicing by eight"); keys are short, so the rest bytes matter
//! as much as the steps.

pub use dsn_replication::client::partition_index;

use super::key;

/// The polynomial, reflected.
const POLYNOMIAL: u64 = 0x9A6C_9329_AC4B_C9B5;

static TABLES: [[u64; 256]; 8] = tables();

const fn tables() -> [[u64; 256]; 8] {
    let mut tables = [[0u64; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut n = 1;
    while n < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[n - 1][byte];
            tables[n][byte] = before >> 8 ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        n += 1;
    }
    tables
}

/// CRC-64/NVME of `bytes`.
#[must_use]
pub fn crc64(bytes: &[u8]) -> u64 {
    let mut crc = !0u64;
    let (steps, rest) = bytes.as_chunks::<8>();
    for step in steps {
        let [a, b, c, d, e, f, g, h] = (crc ^ u64::from_le_bytes(*step)).to_le_bytes();
        crc = TABLES[7][usize::from(a)]
            ^ TABLES[6][usize::from(b)]
            ^ TABLES[5][usize::from(c)]
            ^ TABLES[4][usize::from(d)]
            ^ TABLES[3][usize::from(e)]
            ^ TABLES[2][usize::from(f)]
            ^ TABLES[1][usize::from(g)]
            ^ TABLES[0][usize::from(h)];
    }
    for byte in rest {
        crc = crc >> 8 ^ TABLES[0][usize::from(crc as u8 ^ byte)];
    }
    !crc
}

/// The hash of a record: of its hash key, or of its sort key when the hash key is empty.
#[inline]
#[must_use]
pub fn of_record(hash_key: &[u8], sort_key: &[u8]) -> u64 {
    crc64(if hash_key.is_empty() { sort_key } else { hash_key })
}

/// The hash of a full key; `None` when `raw_key` is not one.
#[inline]
#[must_use]
pub fn of_raw_key(raw_key: &[u8]) -> Option<u64> {
    key::split_key(raw_key).ok().map(|(hash_key, sort_key)| of_record(hash_key, sort_key))
}

/// Whether a partition holds `hash`, in a table whose count is a power of two and
/// `partition_version` is the count less one.
#[inline]
#[must_use]
pub const fn is_owner(hash: u64, partition_version: i32, partition_index: i32) -> bool {
    hash & partition_version as u64 == partition_index as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bit_by_bit(bytes: &[u8]) -> u64 {
        let mut crc = !0u64;
        for &byte in bytes {
            crc ^= u64::from(byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
            }
        }
        !crc
    }

    #[test]
    fn the_check_value_is_that_of_nvme() {
        assert_eq!(crc64(b"123456789"), 0xAE8B_1486_0A79_9888);
        assert_eq!(crc64(b""), 0);
        assert_eq!(crc64(b"hk_1"), 0xf4c9_750a_8a18_6fd3);
    }

    #[test]
    fn every_length_agrees_with_the_plain_definition() {
        let bytes: Vec<u8> = (0..200u32).map(|i| ((i * 7919) >> 3) as u8).collect();
        for end in 0..bytes.len() {
            for start in 0..end.min(9) {
                assert_eq!(crc64(&bytes[start..end]), bit_by_bit(&bytes[start..end]));
            }
        }
    }

    #[test]
    fn an_empty_hash_key_hashes_the_sort_key() {
        assert_eq!(of_record(b"", b"s"), crc64(b"s"));
        assert_eq!(of_record(b"h", b"s"), crc64(b"h"));
        assert_eq!(of_raw_key(b"\0\x04hk_1sk_1"), Some(crc64(b"hk_1")));
        assert_eq!(of_raw_key(b"\0\x04hk"), None);
    }

    #[test]
    fn partitions_and_owners() {
        let hash = crc64(b"hk_1");
        assert_eq!(partition_index(hash, 8), 3);
        assert_eq!(partition_index(hash, 64), 19);
        assert!(is_owner(hash, 7, 3));
        assert!(!is_owner(hash, 7, 2));
        assert!(!is_owner(hash, -1, 3));
    }
}
