//! The files of a log: which of them there are, where each begins and ends, and what was lost of them as a whole.

use super::LogError;
use super::record::{HEADER, Header, RecordKind, parse_header};
use super::scan::{Item, Scan};
use super::segment::{
    HEAD, Head, Spans, TRAILER, UNUSED, decode_spans, decode_trailer, file_name, parse_file_name,
};
use super::shared::Segment;
use dsn_core::disk::{DirEntry, Disk, File, OpenMode, with_suffix};
use std::io;
use std::path::{Path, PathBuf};

/// What a footer says.
struct Footer {
    header: Header,
    spans: Spans,
}

/// One file of the log at opening.
pub(super) struct Found {
    pub(super) segment: Segment,
    /// Of a sealed segment.
    pub(super) footer: Option<Header>,
    /// Nothing good was in it.
    pub(super) empty: bool,
    /// Something of it is missing. Such a segment is never summed up: whoever lost a record must find out again.
    pub(super) damaged: bool,
}

/// What a name in the directory turned out to be.
enum Kind {
    Segment(Box<Found>),
    Unused,
    /// Beyond recognition, with this many bytes.
    Damaged(u64),
}

/// Suffix of a segment that was put aside, and remembered for as long as older ones are there.
const DAMAGED: &str = ".damaged";

/// The segments that are there, in order.
pub(super) struct Files {
    pub(super) found: Vec<Found>,
    /// Where whole segments are missing, in order.
    pub(super) gaps: Vec<u64>,
    /// The next segment begins here, or later.
    pub(super) base: u64,
    pub(super) next_index: u64,
}

impl Files {
    /// Lists the files in `dir` and reads heads and footers. Files that were never put to use are removed. The next
    /// segment begins at `base` or behind it, whatever is there.
    pub(super) fn find(disk: &dyn Disk, dir: &Path, base: u64) -> Result<Self, LogError> {
        let entries = disk.list(dir).map_err(|error| LogError::io(dir, error))?;
        let index = |name: &str| parse_file_name(name.strip_suffix(DAMAGED).unwrap_or(name));
        let damaged = |entry: &DirEntry| entry.name.ends_with(DAMAGED).then_some(entry.len);
        let mut files: Vec<(u64, Option<u64>)> = entries
            .iter()
            .filter_map(|entry| Some((index(&entry.name)?, damaged(entry))))
            .collect();
        files.sort_unstable();
        let mut all = Self { found: Vec::new(), gaps: Vec::new(), base, next_index: 1 };
        for (index, was_damaged) in files {
            if let Some(len) = was_damaged {
                // Nothing older than the first segment left is of use to anybody.
                if !all.found.is_empty() {
                    all.miss(len)?;
                }
                all.next_index = index + 1;
                continue;
            }
            let path = dir.join(file_name(index));
            match look(disk, index, &path).map_err(|error| LogError::io(&path, error))? {
                Kind::Segment(each) => {
                    if let Some(before) = all.found.last_mut() {
                        let path = before.segment.path.clone();
                        ends_at(before, each.segment.head.base)
                            .map_err(|error| LogError::io(path, error))?;
                    }
                    all.base = all.base.max(each.segment.end());
                    all.next_index = index + 1;
                    all.found.push(*each);
                }
                Kind::Unused => {
                    tracing::info!(path = %path.display(), "unused log segment removed");
                    disk.unlink(&path).map_err(|error| LogError::io(&path, error))?;
                }
                Kind::Damaged(len) => {
                    tracing::error!(path = %path.display(), "log segment without a head put aside");
                    let aside = with_suffix(&path, DAMAGED);
                    let renamed = disk.rename(&path, &aside);
                    renamed.map_err(|error| LogError::io(&path, error))?;
                    all.miss(len)?;
                    all.next_index = index + 1;
                }
            }
        }
        Ok(all)
    }

    /// A segment of `len` bytes is missing behind the last one that is there.
    fn miss(&mut self, len: u64) -> Result<(), LogError> {
        let from = match self.found.last() {
            Some(Found { segment, footer: None, .. }) => {
                let end = good_end(segment).map_err(|error| LogError::io(&segment.path, error))?;
                segment.head.base + end
            }
            _ => self.base,
        };
        self.gaps.push(from);
        self.base += len;
        Ok(())
    }
}

fn look(disk: &dyn Disk, index: u64, path: &Path) -> io::Result<Kind> {
    let file = disk.open(path, OpenMode::ReadWrite)?;
    let len = file.len()?;
    let head = match Head::decode(&file.read_at(0, HEAD)?) {
        Some(head) if head.index == index => head,
        _ if len <= HEAD as u64 => return Ok(Kind::Unused),
        _ => return Ok(Kind::Damaged(len)),
    };
    if head.base == UNUSED {
        return Ok(Kind::Unused);
    }
    let (path, spans) = (PathBuf::from(path), Spans::default());
    let segment = Segment { file, path, head, len, size: len, spans, dirty: false };
    Ok(Kind::Segment(Box::new(with_footer(segment)?)))
}

/// Where the last good record of a segment ends, as an offset in the file.
fn good_end(segment: &Segment) -> io::Result<u64> {
    let mut scan = Scan::new(segment.file.clone(), &segment.head, segment.len);
    let mut end = scan.offset();
    while let Some(item) = scan.advance()? {
        if matches!(item, Item::Record(..)) {
            end = scan.offset();
        }
    }
    Ok(end)
}

/// The next segment begins at position `next`: what is behind that in the file of this one has not been written to.
fn ends_at(found: &mut Found, next: u64) -> io::Result<()> {
    let segment = &mut found.segment;
    let written = next.saturating_sub(segment.head.base).max(HEAD as u64);
    if found.footer.is_none() && written < segment.len {
        segment.len = written;
        if let Some(footer) = read_footer(&*segment.file, &segment.head, written)? {
            found.footer = Some(footer.header);
            segment.spans = footer.spans;
        }
    }
    Ok(())
}

/// Reads the footer, if there is one.
pub(super) fn with_footer(mut segment: Segment) -> io::Result<Found> {
    let footer = read_footer(&*segment.file, &segment.head, segment.len)?;
    let footer = footer.map(|footer| {
        segment.spans = footer.spans;
        footer.header
    });
    Ok(Found { segment, footer, empty: false, damaged: false })
}

/// The footer of a sealed segment.
fn read_footer(file: &dyn File, head: &Head, len: u64) -> io::Result<Option<Footer>> {
    let Some(trailer_at) = len.checked_sub(TRAILER as u64) else { return Ok(None) };
    let trailer = file.read_at(trailer_at, TRAILER)?;
    let Some(position) = decode_trailer(&trailer, head.seal) else { return Ok(None) };
    let Some(at) = position.checked_sub(head.base).filter(|at| *at < trailer_at) else {
        return Ok(None);
    };
    let data = file.read_at(at, (trailer_at - at) as usize)?;
    let header = parse_header(&data, head.seal, position);
    let Some(header) = header.filter(|header| header.key.kind == RecordKind::Footer) else {
        return Ok(None);
    };
    let payload = data.slice(HEADER..);
    if !header.matches(&payload) {
        return Ok(None);
    }
    Ok(decode_spans(&payload).map(|spans| Footer { header, spans }))
}
