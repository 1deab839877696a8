//! Opening a log after a restart: what is there, what is torn, what is lost, and whose it was.
//!
//! Reading goes through the segments in order and past everything broken. Each record names its predecessor, so one
//! whose predecessor was not seen tells that something is missing, and mostly what: the partition and decree of the
//! last missing record, and whether it was the only one. The sink is told in log order: `record`, `truncate`, `lost`
//! (this one is missing), `gap` (others may be missing, nobody knows whose), `summary` (how far each replica has come,
//! at the end of a sealed segment). Judging is left to the replicas; their decrees are dense, so most of what is
//! missing names its owner by itself.
//!
//! Broken bytes at the very end with nothing good behind them are a torn tail and are cut off. A new segment is
//! begun; an old one is never written to again but for its footer.

use super::record::{Durability, HEADER, Header, Link, Record, RecordKind, parse_header};
use super::scan::{Item, Scan};
use super::segment::{
    HEAD, Head, Spans, TRAILER, UNUSED, decode_spans, decode_trailer, file_name, note,
    parse_file_name,
};
use super::shared::{Needs, Segment, SharedLog, create, seal};
use super::{LogError, LogOptions};
use crate::dirs::create_dir_durable;
use crate::ids::Decree;
use dsn_core::disk::{Disk, File, OpenMode, SyncMode, with_suffix};
use dsn_core::hash::{DetHashMap, mix64};
use dsn_rpc::gpid::Gpid;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A replica that is to be fed from the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaStart {
    /// The partition.
    pub gpid: Gpid,
    /// Its state machine has everything up to here.
    pub applied: Decree,
    /// A checkpoint has everything up to here.
    pub durable: Decree,
    /// Records before this position belong to a former replica of the same partition.
    pub floor: u64,
}

/// Receives what a log says, in log order.
pub trait ReplaySink {
    /// A mutation of one of the replicas.
    fn record(&mut self, record: Record);
    /// All mutations of the replica so far with this decree or a higher one are void.
    fn truncate(&mut self, gpid: Gpid, from: Decree);
    /// The record of this decree is missing here.
    fn lost(&mut self, gpid: Gpid, decree: Decree, position: u64);
    /// Records of anybody may be missing somewhere behind this position.
    fn gap(&mut self, position: u64);
    /// Up to here, nothing of the replica was written beyond decree `max`; `position` is where that is written.
    fn summary(&mut self, gpid: Gpid, max: Decree, position: u64);
}

/// A log ready for use.
#[derive(Debug)]
pub struct Opened {
    /// The log.
    pub log: Arc<SharedLog>,
    /// Everything before this position was certainly durable when it was written; behind it, a power loss under
    /// [`Durability::GroupSync`] may have left anything, and nothing was acknowledged. `None` when records behind it
    /// may have been acknowledged all the same (another durability).
    pub tail: Option<u64>,
    /// Bytes cut off the end.
    pub torn: u64,
}

/// What a footer says.
struct Footer {
    header: Header,
    spans: Spans,
}

/// One file of the log at opening.
struct Found {
    segment: Segment,
    /// Of a sealed segment.
    footer: Option<Header>,
    /// Nothing good was in it.
    empty: bool,
    /// Something of it is missing. Such a segment is never summed up: whoever lost a record must find out again.
    damaged: bool,
}

/// What a name in the directory turned out to be.
enum Kind {
    Segment(Box<Found>),
    Unused,
    /// Beyond recognition, with this many bytes.
    Damaged(u64),
}

/// Follows the chain of records through the segments.
struct Chain {
    last: Option<Link>,
    /// Where the next record begins if nothing is missing.
    next: Option<u64>,
    synced: u64,
    durability: Durability,
    /// Something was missing.
    damaged: bool,
}

impl Chain {
    /// A header has been read: reports what is missing before it.
    fn step(&mut self, header: &Header, first: u64, sink: &mut dyn ReplaySink) {
        if let (Some(next), Some(before)) = (self.next, header.before)
            && self.last != Some(before)
            && before.position >= next
        {
            if before.position != next && before.position != first {
                sink.gap(next);
            }
            sink.lost(before.gpid, before.decree, before.position);
            self.damaged = true;
        }
        self.synced = self.synced.max(header.synced);
        self.durability = header.durability;
        let key = &header.key;
        self.last = match key.kind {
            RecordKind::Footer => header.before,
            _ => Some(Link { gpid: key.gpid, decree: key.decree, position: header.position }),
        };
        self.next = Some(header.position + (HEADER + header.len) as u64);
    }
}

struct Opening<'a> {
    disk: &'a Arc<dyn Disk>,
    dir: &'a Path,
    wanted: DetHashMap<Gpid, ReplicaStart>,
    chain: Chain,
    torn: u64,
    /// The next segment begins here, or later.
    base: u64,
    next_index: u64,
}

impl SharedLog {
    /// Opens the log in `dir`, creating it when there is none, and feeds `sink` what the replicas of `starts` have not
    /// applied yet. Blocks. `seed` must differ from run to run.
    ///
    /// # Errors
    /// Of the file system. Nothing that is merely broken is an error.
    pub fn open(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        options: &LogOptions,
        (seed, now_us): (u64, u64),
        starts: &[ReplicaStart],
        sink: &mut dyn ReplaySink,
    ) -> Result<Opened, LogError> {
        create_dir_durable(&**disk, dir).map_err(|error| LogError::io(dir, error))?;
        let chain = Chain {
            last: None,
            next: None,
            synced: 0,
            durability: options.durability,
            damaged: false,
        };
        let wanted = starts.iter().map(|start| (start.gpid, *start)).collect();
        // Positions never go back, or records would be taken for those of a former replica.
        let base = starts.iter().map(|start| start.floor).max().unwrap_or(0);
        let mut opening = Opening { disk, dir, wanted, chain, torn: 0, base, next_index: 1 };
        let mut found = opening.find(sink)?;
        opening.read_all(&mut found, sink)?;
        let sealed = opening.seal_all(found)?;
        let Opening { chain, torn, base, next_index, .. } = opening;
        let tail = (chain.durability == Durability::GroupSync).then_some(chain.synced);
        let current = create(&**disk, dir, options, mix64(seed), next_index, base, now_us)?;
        let (disk, dir, options) = (disk.clone(), dir.to_owned(), options.clone());
        let log = Self::new(disk, dir, options, seed, sealed, current, chain.last);
        for start in starts {
            let needs = Needs { durable: start.durable, floor: start.floor };
            log.state.lock().replicas.insert(start.gpid, needs);
        }
        Ok(Opened { log: Arc::new(log), tail, torn })
    }
}

impl Opening<'_> {
    /// Lists the files and reads heads and footers. Files that were never put to use are removed.
    fn find(&mut self, sink: &mut dyn ReplaySink) -> Result<Vec<Found>, LogError> {
        let entries = self.disk.list(self.dir).map_err(|error| LogError::io(self.dir, error))?;
        let mut indices: Vec<u64> =
            entries.iter().filter_map(|entry| parse_file_name(&entry.name)).collect();
        indices.sort_unstable();
        let mut found: Vec<Found> = Vec::new();
        for index in indices {
            let path = self.dir.join(file_name(index));
            match self.look(index, &path).map_err(|error| LogError::io(&path, error))? {
                Kind::Segment(each) => {
                    self.base = self.base.max(each.segment.end());
                    self.next_index = index + 1;
                    found.push(*each);
                }
                Kind::Unused => {
                    tracing::info!(path = %path.display(), "unused log segment removed");
                    self.disk.unlink(&path).map_err(|error| LogError::io(&path, error))?;
                }
                Kind::Damaged(len) => {
                    tracing::error!(path = %path.display(), "log segment without a head put aside");
                    let aside = with_suffix(&path, ".damaged");
                    let renamed = self.disk.rename(&path, &aside);
                    renamed.map_err(|error| LogError::io(&path, error))?;
                    sink.gap(self.base);
                    self.base += len;
                }
            }
        }
        Ok(found)
    }

    fn look(&self, index: u64, path: &Path) -> std::io::Result<Kind> {
        let file = self.disk.open(path, OpenMode::ReadWrite)?;
        let len = file.len()?;
        let head = match Head::decode(&file.read_at(0, HEAD)?) {
            Some(head) if head.index == index => head,
            _ if len <= HEAD as u64 => return Ok(Kind::Unused),
            _ => return Ok(Kind::Damaged(len)),
        };
        if head.base == UNUSED {
            return Ok(Kind::Unused);
        }
        let (footer, spans) = match read_footer(&*file, &head, len)? {
            Some(footer) => (Some(footer.header), footer.spans),
            None => (None, Spans::default()),
        };
        let path = PathBuf::from(path);
        let segment = Segment { file, path, head, len, spans, dirty: false };
        Ok(Kind::Segment(Box::new(Found { segment, footer, empty: false, damaged: false })))
    }

    fn read_all(&mut self, found: &mut [Found], sink: &mut dyn ReplaySink) -> Result<(), LogError> {
        let count = found.len();
        self.chain.next = found.first().map(|first| first.segment.head.base + HEAD as u64);
        for (n, each) in found.iter_mut().enumerate() {
            if let Some(footer) = &each.footer
                && !self.is_wanted(&each.segment.spans)
            {
                self.chain.synced = self.chain.synced.max(footer.synced);
                self.chain.last = footer.before;
                self.chain.next = Some(footer.position);
                continue;
            }
            let path = each.segment.path.clone();
            self.read_one(each, n + 1 == count, sink).map_err(|e| LogError::io(path, e))?;
        }
        Ok(())
    }

    /// Makes everything durable and the last segment a sealed one.
    fn seal_all(&mut self, found: Vec<Found>) -> Result<VecDeque<Segment>, LogError> {
        let mut sealed = VecDeque::new();
        let count = found.len();
        for (n, mut each) in found.into_iter().enumerate() {
            let is_last = n + 1 == count;
            let segment = &mut each.segment;
            if is_last && each.empty {
                self.next_index = segment.head.index;
                continue;
            }
            let synced = segment.file.sync(SyncMode::Data).and_then(|()| {
                let end = segment.end();
                if is_last {
                    self.chain.synced = end;
                }
                if !is_last || each.footer.is_some() || each.damaged {
                    return Ok(());
                }
                seal(segment, self.chain.last, end, self.chain.durability)?;
                segment.file.sync(SyncMode::Data)
            });
            synced.map_err(|error| LogError::io(&segment.path, error))?;
            segment.dirty = false;
            self.base = self.base.max(segment.end());
            sealed.push_back(each.segment);
        }
        Ok(sealed)
    }

    fn is_wanted(&self, spans: &Spans) -> bool {
        spans.iter().any(|(gpid, span)| {
            let start = self.wanted.get(gpid);
            start.is_some_and(|start| span.max > start.applied && span.last >= start.floor)
        })
    }

    fn read_one(
        &mut self,
        each: &mut Found,
        is_last: bool,
        sink: &mut dyn ReplaySink,
    ) -> std::io::Result<()> {
        let segment = &mut each.segment;
        self.chain.damaged = false;
        let mut scan = Scan::new(segment.file.clone(), &segment.head, segment.len);
        let first = segment.head.base + HEAD as u64;
        let mut good_end = HEAD as u64;
        // Headers behind which nothing good has been seen yet.
        let mut doubtful: Vec<Header> = Vec::new();
        while let Some(item) = scan.advance()? {
            match item {
                Item::Junk(_) => {}
                Item::BrokenPayload(header) => doubtful.push(header),
                Item::Record(header, record) => {
                    for broken in doubtful.drain(..) {
                        self.broken(&broken, first, sink);
                    }
                    self.chain.step(&header, first, sink);
                    good_end = scan.offset();
                    if each.footer.is_none() {
                        note_record(&mut segment.spans, &record);
                    }
                    self.deliver(record, sink);
                }
            }
        }
        each.empty = good_end == HEAD as u64;
        each.damaged = self.chain.damaged;
        if each.footer.is_none() && is_last {
            self.cut(segment, good_end)?;
        } else {
            for broken in doubtful {
                self.broken(&broken, first, sink);
            }
        }
        if let Some(footer) = &each.footer {
            for (gpid, span) in &segment.spans {
                if self.wanted.get(gpid).is_some_and(|start| span.last >= start.floor) {
                    sink.summary(*gpid, span.max, footer.position);
                }
            }
        }
        Ok(())
    }

    /// Cuts what follows the last good record of the log.
    fn cut(&mut self, segment: &mut Segment, good_end: u64) -> std::io::Result<()> {
        self.torn = segment.len - good_end;
        if self.torn > 0 {
            let path = segment.path.display();
            tracing::warn!(%path, bytes = self.torn, "torn end of the mutation log cut off");
            segment.file.truncate(good_end)?;
            segment.file.sync(SyncMode::All)?;
            segment.len = good_end;
        }
        Ok(())
    }

    /// A record whose header is good and whose payload is not.
    fn broken(&mut self, header: &Header, first: u64, sink: &mut dyn ReplaySink) {
        self.chain.step(header, first, sink);
        if header.key.kind != RecordKind::Footer {
            sink.lost(header.key.gpid, header.key.decree, header.position);
            self.chain.damaged = true;
        }
    }

    fn deliver(&self, record: Record, sink: &mut dyn ReplaySink) {
        let Some(start) = self.wanted.get(&record.key.gpid) else { return };
        if record.position < start.floor || record.key.decree <= start.applied {
            return;
        }
        match record.key.kind {
            RecordKind::Mutation => sink.record(record),
            RecordKind::Truncate => sink.truncate(record.key.gpid, record.key.decree),
            RecordKind::Footer => {}
        }
    }
}

fn note_record(spans: &mut Spans, record: &Record) {
    let key = &record.key;
    if key.kind != RecordKind::Footer {
        note(spans, key.gpid, key.ballot, key.decree, record.position);
    }
}

/// The footer of a sealed segment.
fn read_footer(file: &dyn File, head: &Head, len: u64) -> std::io::Result<Option<Footer>> {
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
