//! Reading a log after a restart: what is there, what is torn, what is lost, and whose it was.
//!
//! Reading goes through the segments in order and past everything broken. Each record names its predecessor, so one
//! whose predecessor was not seen tells that something is missing, and mostly what: the partition and decree of the
//! last missing record, and whether it was the only one. The sink is told in log order: `record`, `truncate`, `lost`
//! (this one is missing), `ballot`, `gap` (others may be missing, nobody knows whose), `summary` (how far each
//! replica has come, at the end of a sealed segment). Judging is left to the replicas; their decrees are dense, so
//! most of what is missing names its owner by itself.
//!
//! Broken bytes at the very end with nothing good behind them are a torn tail and are cut off. A new segment is
//! begun; an old one is never written to again but for its footer.
//!
//! A replica that could not be opened with the others is fed the same way later, from the log in use
//! ([`SharedLog::replay`]).

use super::files::{Files, Found, with_footer};
use super::record::{Durability, HEADER, Header, Link, Record, RecordKind};
use super::scan::{Item, Scan};
use super::segment::{HEAD, Spans, UNUSED, note};
use super::shared::{Needs, Segment, SharedLog, create, seal};
use super::{LogBatch, LogError, LogOptions, SyncScope};
use crate::dirs::create_dir_durable;
use crate::ids::{Ballot, Decree};
use dsn_core::disk::{Disk, File, SyncMode};
use dsn_core::hash::{DetHashMap, mix64};
use dsn_core::planted;
use dsn_rpc::gpid::Gpid;
use std::collections::VecDeque;
use std::ops::Range;
use std::path::Path;
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
    /// The highest ballot that is on record elsewhere; the log keeps what has a higher one.
    pub ballot: Ballot,
}

/// Receives what a log says, in log order.
pub trait ReplaySink {
    /// A mutation of one of the replicas.
    fn record(&mut self, record: Record);
    /// All mutations of the replica so far with this decree or a higher one are void.
    fn truncate(&mut self, gpid: Gpid, from: Decree);
    /// The log knows a ballot of the replica; told of marks, and of what need not be read, as well.
    fn ballot(&mut self, gpid: Gpid, ballot: Ballot);
    /// The record of this decree is missing here.
    fn lost(&mut self, gpid: Gpid, decree: Decree, position: u64);
    /// Records of anybody that began somewhere in this range may be missing.
    fn gap(&mut self, range: Range<u64>);
    /// Up to here, nothing of the replica was written beyond decree `max`; `position` is where that is written.
    fn summary(&mut self, gpid: Gpid, max: Decree, position: u64);
    /// A log that is opened has been read; `tail` is [`Opened::tail`], and nothing that is left begins at position
    /// `end` or behind it. What is returned stands in the log before anything else, all of it or, after a failure,
    /// nothing.
    ///
    /// # Errors
    /// Nothing may be written to the log.
    fn ended(&mut self, tail: Option<Range<u64>>, end: u64) -> Result<LogBatch, LogError> {
        let _ = (tail, end);
        Ok(LogBatch::new())
    }
}

/// A log ready for use.
#[derive(Debug)]
pub struct Opened {
    /// The log.
    pub log: Arc<SharedLog>,
    /// Where a power loss under [`Durability::GroupSync`] may have left anything, and nothing was acknowledged:
    /// everything before was certainly durable when it was written. `None` when records there may have been
    /// acknowledged all the same (another durability).
    pub tail: Option<Range<u64>>,
    /// Bytes cut off the end.
    pub torn: u64,
}

/// Bytes that are looked at, or written again, at a time.
const READ_AT_ONCE: usize = 1 << 20;

/// Follows the chain of records through the segments.
struct Chain {
    last: Option<Link>,
    /// Where the next record begins if nothing is missing.
    next: Option<u64>,
    synced: u64,
    durability: Durability,
    /// Something was missing.
    damaged: bool,
    /// The last segment was read to its end: nothing is missing between it and the next.
    sealed: bool,
}

impl Chain {
    fn new(durability: Durability) -> Self {
        Self { last: None, next: None, synced: 0, durability, damaged: false, sealed: false }
    }

    /// A header has been read: reports what is missing before it.
    fn step(&mut self, header: &Header, first: u64, sink: &mut dyn ReplaySink) {
        if let (Some(next), Some(before)) = (self.next, header.before)
            && self.last != Some(before)
            && before.position >= next
        {
            if before.position != next && before.position != first {
                sink.gap(next..before.position);
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
        self.sealed = key.kind == RecordKind::Footer;
        self.next = Some(header.position + (HEADER + header.len) as u64);
    }

    /// Reading goes on at the beginning of the next segment: `first` is where its first record is.
    fn enter(&mut self, first: u64) {
        if std::mem::take(&mut self.sealed) {
            self.next = Some(first);
        }
    }
}

struct Opening {
    wanted: DetHashMap<Gpid, ReplicaStart>,
    chain: Chain,
    /// Where whole segments are missing, in order.
    gaps: Vec<u64>,
    /// Others write to the log: its end is as good as any place in it.
    in_use: bool,
    torn: u64,
    /// No record may be written before, or it would be taken for that of a former replica.
    floor: u64,
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
        let chain = Chain::new(options.durability);
        let wanted = starts.iter().map(|start| (start.gpid, *start)).collect();
        let floor = starts.iter().map(|start| start.floor).max().unwrap_or(0);
        let Files { mut found, gaps, base, next_index } = Files::find(&**disk, dir, floor)?;
        let in_use = false;
        let mut opening = Opening { wanted, chain, gaps, in_use, torn: 0, floor, base, next_index };
        opening.read_all(&mut found, sink)?;
        let group_sync = opening.chain.durability == Durability::GroupSync;
        let synced = opening.chain.synced;
        let tail = group_sync.then_some(synced..opening.base);
        let mut mend = sink.ended(tail, opening.base)?;
        let sealed = opening.seal_all(found, mend.is_empty())?;
        let Opening { chain, gaps, torn, base, next_index, .. } = opening;
        let tail = group_sync.then_some(synced..base);
        // A file that is not put to use yet is void if anything fails.
        let written_base = if mend.is_empty() { base } else { UNUSED };
        let mut current =
            create(&**disk, dir, options, mix64(seed), next_index, written_base, now_us)?;
        current.head.base = base;
        let (disk, dir, options) = (disk.clone(), dir.to_owned(), options.clone());
        let log = Self::new(disk, dir, options, seed, sealed, current, chain.last, gaps);
        if !mend.is_empty() {
            // Nobody waits for these.
            let _ = log.append(&mut mend)?;
            log.sync_now(SyncScope::All)?;
            log.put_to_use()?;
        }
        for start in starts {
            let ReplicaStart { durable, floor, ballot, .. } = *start;
            let needs = Needs { durable, floor, ballot, reader: None };
            log.state.lock().replicas.insert(start.gpid, needs);
        }
        Ok(Opened { log: Arc::new(log), tail, torn })
    }

    /// Feeds `sink` what the log has of one replica, which must not write to it meanwhile; others may. Blocks.
    ///
    /// # Errors
    /// Of the file system. Nothing that is merely broken is an error.
    pub fn replay(&self, start: ReplicaStart, sink: &mut dyn ReplaySink) -> Result<(), LogError> {
        let mut found = Vec::new();
        {
            let state = self.state.lock();
            self.check(&state)?;
            for segment in state.sealed.iter().chain([&state.current]) {
                let (file, path) = (segment.file.clone(), segment.path.clone());
                let Segment { head, len, size, .. } = *segment;
                let spans = Spans::default();
                found.push(Segment { file, path, head, len, size, spans, dirty: false });
            }
        }
        let mut with_footers = Vec::new();
        for segment in found {
            let path = segment.path.clone();
            let found = with_footer(segment).map_err(|error| LogError::io(path, error))?;
            with_footers.push(found);
        }
        let mut reading = Opening {
            wanted: [(start.gpid, start)].into_iter().collect(),
            chain: Chain::new(self.options.durability),
            gaps: self.gaps.clone(),
            in_use: true,
            torn: 0,
            floor: 0,
            base: 0,
            next_index: 0,
        };
        reading.read_all(&mut with_footers, sink)
    }
}

impl Opening {
    fn read_all(&mut self, found: &mut [Found], sink: &mut dyn ReplaySink) -> Result<(), LogError> {
        let count = found.len();
        self.chain.next = found.first().map(|first| first.segment.head.base + HEAD as u64);
        let gaps = self.gaps.clone();
        let mut gaps = gaps.into_iter().peekable();
        for (n, each) in found.iter_mut().enumerate() {
            while let Some(gap) = gaps.next_if(|gap| *gap <= each.segment.head.base) {
                sink.gap(gap..each.segment.head.base);
            }
            if let Some(footer) = &each.footer
                && !self.is_wanted(&each.segment.spans)
            {
                self.chain.synced = self.chain.synced.max(footer.synced);
                self.chain.last = footer.before;
                self.chain.sealed = true;
                self.sum_up(&each.segment.spans, footer.position, sink);
                continue;
            }
            if n + 1 == count && planted::has("replay_skips_last_segment") {
                continue;
            }
            let path = each.segment.path.clone();
            self.read_one(each, n + 1 == count, sink).map_err(|e| LogError::io(path, e))?;
        }
        gaps.for_each(|gap| sink.gap(gap..u64::MAX));
        Ok(())
    }

    /// Makes everything durable and the last segment a sealed one, which says so if the log `is_whole`. Otherwise it
    /// must be known until it is mended that nobody lost anything in a hole that is there.
    fn seal_all(
        &mut self,
        found: Vec<Found>,
        is_whole: bool,
    ) -> Result<VecDeque<Segment>, LogError> {
        let mut sealed = VecDeque::new();
        let count = found.len();
        let known = self.chain.synced;
        for (n, mut each) in found.into_iter().enumerate() {
            let is_last = n + 1 == count;
            let segment = &mut each.segment;
            if is_last && each.empty {
                self.next_index = segment.head.index;
                continue;
            }
            let written = end_where_written(segment).and_then(|()| write_again(segment, known));
            let synced = written.and_then(|()| segment.file.sync(SyncMode::Data)).and_then(|()| {
                if !is_last || each.footer.is_some() || each.damaged {
                    return Ok(());
                }
                let synced = if is_whole { segment.end() } else { known };
                seal(segment, self.chain.last, synced, self.chain.durability)?;
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
            // A segment that voids what an earlier one has must be read with it.
            let voids = span.void_from != Decree::NONE;
            start.is_some_and(|start| {
                (span.max > start.applied || voids) && span.last >= start.floor
            })
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
        self.chain.enter(first);
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
                    if each.footer.is_none() && !self.is_of_a_former_replica(&record) {
                        note(&mut segment.spans, &record.key, record.position);
                    }
                    self.deliver(record, sink);
                }
            }
        }
        each.empty = good_end == HEAD as u64;
        each.damaged = self.chain.damaged;
        if each.footer.is_none() && is_last && !self.in_use {
            self.cut(segment, good_end)?;
        } else {
            for broken in doubtful {
                self.broken(&broken, first, sink);
            }
        }
        if let Some(footer) = &each.footer {
            self.sum_up(&each.segment.spans, footer.position, sink);
        }
        Ok(())
    }

    fn is_of_a_former_replica(&self, record: &Record) -> bool {
        let start = self.wanted.get(&record.key.gpid);
        start.is_some_and(|start| record.position < start.floor)
    }

    fn sum_up(&self, spans: &Spans, position: u64, sink: &mut dyn ReplaySink) {
        for (gpid, span) in spans {
            if self.wanted.get(gpid).is_some_and(|start| span.last >= start.floor) {
                sink.summary(*gpid, span.max, position);
                sink.ballot(*gpid, span.ballot);
            }
        }
    }

    /// Cuts what follows the last good record of the log.
    fn cut(&mut self, segment: &mut Segment, good_end: u64) -> std::io::Result<()> {
        if segment.size == good_end {
            return Ok(());
        }
        if zeros_from(&*segment.file, good_end)? {
            if self.base == segment.end() {
                // Nothing that is left has these positions.
                self.base = self.floor.max(segment.head.base + good_end);
            }
        } else {
            self.torn = segment.size - good_end;
            let path = segment.path.display();
            tracing::warn!(%path, bytes = self.torn, "torn end of the mutation log cut off");
        }
        segment.file.truncate(good_end)?;
        segment.file.sync(SyncMode::All)?;
        (segment.len, segment.size) = (good_end, good_end);
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
        if self.is_of_a_former_replica(&record) {
            return;
        }
        let after = start.applied.next();
        // A mark may be all that tells of a ballot, or what is applied.
        sink.ballot(record.key.gpid, record.key.ballot);
        match record.key.kind {
            RecordKind::Mutation if record.key.decree >= after => sink.record(record),
            // What is applied has been written again since, if it was declared void at all.
            RecordKind::Truncate => sink.truncate(record.key.gpid, record.key.decree.max(after)),
            RecordKind::Mutation | RecordKind::Footer => {}
        }
    }
}

/// The file was not cut to its length when it was full, or that was lost.
fn end_where_written(segment: &mut Segment) -> std::io::Result<()> {
    if segment.size > segment.len {
        segment.file.truncate(segment.len)?;
        segment.size = segment.len;
    }
    Ok(())
}

/// Writes again what is not known to be durable, from position `known` on. After a sync that failed, the page cache may
/// hold it as clean although no disk has it, and a sync alone would report success.
fn write_again(segment: &Segment, known: u64) -> std::io::Result<()> {
    let mut at = known.saturating_sub(segment.head.base);
    while at < segment.len {
        let data = segment.file.read_at(at, READ_AT_ONCE.min((segment.len - at) as usize))?;
        if data.is_empty() {
            break;
        }
        let len = data.len() as u64;
        segment.file.write_at(at, &[data])?;
        at += len;
    }
    Ok(())
}

/// Whether nothing has been written to a file from offset `at` on.
fn zeros_from(file: &dyn File, mut at: u64) -> std::io::Result<bool> {
    loop {
        let data = file.read_at(at, READ_AT_ONCE)?;
        if data.is_empty() {
            return Ok(true);
        }
        if data.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        at += data.len() as u64;
    }
}
