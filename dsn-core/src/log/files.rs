//! Log files: `log.1.txt`, `log.2.txt` and so on, each up to a size, the oldest deleted.
//!
//! Besides the native driver this is the one place that touches the file system: the log must work before
//! there is a driver, after it has ended, and when it is the driver that fails. It is no part of what the
//! simulator models.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Names tried for a new file before giving up: another process may be making files in the directory.
const NAMES_TRIED: u64 = 1_000;

pub(super) struct RotatingFile {
    dir: PathBuf,
    file: File,
    /// The number of the present file.
    number: u64,
    written: u64,
    max_bytes: u64,
    max_files: u32,
}

impl RotatingFile {
    /// Begins a new file in `dir`, which is made if it does not exist.
    #[expect(clippy::disallowed_methods, reason = "see the header")]
    pub(super) fn open(dir: &Path, max_bytes: u64, max_files: u32) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let last = numbers(dir)?.into_iter().max().unwrap_or(0);
        let (number, file) = create_after(dir, last)?;
        let this = Self { dir: dir.to_owned(), file, number, written: 0, max_bytes, max_files };
        this.delete_oldest();
        Ok(this)
    }

    /// Writes a line, to the next file if it does not fit.
    pub(super) fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let length = line.len() as u64;
        if self.written > 0 && self.written + length > self.max_bytes {
            // When no new file can be made, the old one grows for another while.
            if let Ok((number, file)) = create_after(&self.dir, self.number) {
                (self.number, self.file) = (number, file);
                self.delete_oldest();
            }
            self.written = 0;
        }
        self.file.write_all(line)?;
        self.written += length;
        Ok(())
    }

    /// Keeps the newest files up to the limit. What cannot be deleted stays.
    #[expect(clippy::disallowed_methods, reason = "see the header")]
    fn delete_oldest(&self) {
        let Ok(mut numbers) = numbers(&self.dir) else { return };
        numbers.sort_unstable();
        let surplus = numbers.len().saturating_sub(self.max_files as usize);
        for number in numbers.drain(..surplus).filter(|&number| number != self.number) {
            let _ = fs::remove_file(path_of(&self.dir, number));
        }
    }
}

/// Creates the first file after `last` that does not exist.
fn create_after(dir: &Path, last: u64) -> io::Result<(u64, File)> {
    for number in last + 1..=last + NAMES_TRIED {
        match OpenOptions::new().append(true).create_new(true).open(path_of(dir, number)) {
            Ok(file) => return Ok((number, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("log.{number}.txt"))
}

/// The numbers of the log files in a directory.
fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number: Option<u64> = name
            .to_str()
            .and_then(|name| name.strip_prefix("log.")?.strip_suffix(".txt")?.parse().ok());
        numbers.extend(number);
    }
    Ok(numbers)
}
