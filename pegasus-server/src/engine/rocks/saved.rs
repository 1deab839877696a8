//! What an existing database's own OPTIONS file says about options that configuration cannot change.
//!
//! The number of levels is chosen when a table is created and lives with its data; opening a database
//! with fewer levels than it uses fails. The file is plain text, sections of `name=value` lines.

use std::path::Path;

use dsn_core::disk::{Disk, read_file};

use crate::engine::EngineError;

const FILE_PREFIX: &str = "OPTIONS-";
const DATA_SECTION: &str = "[CFOptions \"default\"]";

/// `num_levels` of the data family of the database in `dir`; `None` when it keeps no options.
///
/// # Errors
/// Only when the directory or the file cannot be read.
pub fn num_levels(disk: &dyn Disk, dir: &Path) -> Result<Option<i32>, EngineError> {
    let entries = disk.list(dir).map_err(|error| EngineError::io("listing", dir, &error))?;
    let newest = entries
        .into_iter()
        .filter_map(|entry| {
            let number: u64 = entry.name.strip_prefix(FILE_PREFIX)?.parse().ok()?;
            Some((number, entry.name))
        })
        .max();
    let Some((_, name)) = newest else { return Ok(None) };
    let path = dir.join(name);
    let content =
        read_file(disk, &path).map_err(|error| EngineError::io("reading", &path, &error))?;
    let text = String::from_utf8_lossy(&content);
    Ok(value_in(&text, DATA_SECTION, "num_levels").and_then(|value| value.parse().ok()))
}

fn value_in<'a>(text: &'a str, section: &str, key: &str) -> Option<&'a str> {
    text.lines()
        .map(str::trim)
        .skip_while(|line| *line != section)
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
[DBOptions]
  num_levels=1

[CFOptions \"default\"]
  num_levels_more=2
  num_levels=8
[CFOptions \"pegasus_meta_cf\"]
  num_levels=3
  only_here=4
";

    #[test]
    fn the_value_of_the_right_section_is_taken() {
        assert_eq!(value_in(TEXT, DATA_SECTION, "num_levels"), Some("8"));
        assert_eq!(value_in(TEXT, DATA_SECTION, "only_here"), None);
        assert_eq!(value_in(TEXT, "[absent]", "num_levels"), None);
    }
}
