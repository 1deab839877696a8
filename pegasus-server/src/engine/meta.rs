//! The meta column family: names of its keys and the text form of its values.
//!
//! All values are ASCII text, numbers in decimal, as the original writes them, so that either server
//! can open the other's directory.

use pegasus_client::schema::value::DataVersion;

use super::EngineError;

/// Name of the meta column family. The data family is RocksDB's default one; there is no other.
pub const META_FAMILY: &str = "pegasus_meta_cf";

/// Decree of the last mutation in the database; part of every batch.
pub const LAST_FLUSHED_DECREE: &str = "pegasus_last_flushed_decree";
/// Version of the value schema, 0 or 1; written once, at creation.
pub const DATA_VERSION: &str = "pegasus_data_version";
/// When the last manual compaction ended, Unix milliseconds; 0 means never.
pub const LAST_MANUAL_COMPACT_FINISH_TIME: &str = "pegasus_last_manual_compact_finish_time";
/// The usage scenario last set; absent means normal.
pub const USAGE_SCENARIO: &str = "rocksdb.usage_scenario";

/// Reads a number stored under `key`.
pub fn parse_number(key: &str, text: &str) -> Result<i64, EngineError> {
    text.parse().map_err(|_| {
        EngineError::Corruption(format!("meta value of {key} is not a number: {text:?}"))
    })
}

/// Checks a data version read from a database.
pub fn parse_data_version(text: &str) -> Result<DataVersion, EngineError> {
    let number = parse_number(DATA_VERSION, text)?;
    DataVersion::from_number(u64::try_from(number).unwrap_or(u64::MAX))
        .map_err(|error| EngineError::InvalidArgument(error.to_string()))
}

/// A decimal number on the stack, for the decree that goes into every batch.
pub struct Decimal {
    bytes: [u8; 20],
    start: usize,
}

impl Decimal {
    /// The text of `number`; negative numbers are written as zero, decrees are never negative.
    pub fn of(number: i64) -> Self {
        let mut rest = u64::try_from(number).unwrap_or(0);
        let mut bytes = [0; 20];
        let mut start = bytes.len();
        loop {
            start -= 1;
            bytes[start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                return Self { bytes, start };
            }
        }
    }

    /// The digits.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_what_format_prints() {
        for number in [0, 7, 10, 99, 100, 1_234_567, i64::MAX] {
            assert_eq!(Decimal::of(number).as_bytes(), number.to_string().as_bytes());
        }
    }

    #[test]
    fn versions_above_the_known_ones_are_refused() {
        assert_eq!(parse_data_version("0"), Ok(DataVersion::V0));
        assert_eq!(parse_data_version("1"), Ok(DataVersion::V1));
        assert!(parse_data_version("2").is_err());
        assert!(parse_data_version("-1").is_err());
        assert!(parse_data_version("").is_err());
    }
}
