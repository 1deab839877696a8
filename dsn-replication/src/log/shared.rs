//! The log in use: append, roll over, sync, failure.
//!
//! Workers append in place, one after the other behind a short lock: a write into the page cache costs less than
//! handing it to another thread. Everything slow (syncs, creating the next file) is a job for a blocking stage.

use super::batch::LogBatch;
use super::record::{Durability, HEADER, Link, Place, RecordKey, RecordKind, Seal};
use super::record::{encode_record, place_record};
use super::segment::{HEAD, Head, Spans, UNUSED, encode_spans, encode_trailer, file_name, note};
use super::sync::Syncs;
use super::token::{Appended, Pending};
use super::{LogError, LogOptions};
use crate::ids::{Ballot, Decree};
use bytes::{Bytes, BytesMut};
use dsn_core::disk::{Disk, File, OpenMode, SyncMode};
use dsn_core::hash::{DetHashMap, mix64};
use dsn_core::planted;
use dsn_rpc::gpid::Gpid;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The next file is made when the current one is filled to one part in this many.
const SPARE_AT: u64 = 2;

/// Where each write is synced, a file in use grows by so much at a time, or by its full size where that is less: zeros
/// are written in front of the records. If each write gave the file a new length, or were the first to its blocks, each
/// sync would cost the file system a transaction of its own. Where acknowledgements rest on the page cache a file ends
/// where its records do: what a power loss takes is mostly its end then, and not something in the middle of it.
pub(super) const GROWTH: u64 = 128 << 10;
static ZEROS: [u8; GROWTH as usize] = [0; GROWTH as usize];

/// A segment file and what it has.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) file: Arc<dyn File>,
    pub(super) path: PathBuf,
    pub(super) head: Head,
    /// Length of what has been written.
    pub(super) len: u64,
    /// Length of the file.
    pub(super) size: u64,
    pub(super) spans: Spans,
    /// Records of the file have been written after its last sync.
    pub(super) dirty: bool,
}

impl Segment {
    pub(super) fn end(&self) -> u64 {
        self.head.base + self.len
    }
}

/// What the log knows about a replica, for giving segments back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Needs {
    /// Nothing up to here is needed for recovery.
    pub(super) durable: Decree,
    /// Records before this position belong to a former replica of the same partition.
    pub(super) floor: u64,
    /// The highest ballot that is on record elsewhere.
    pub(super) ballot: Ballot,
    /// Somebody reads from this decree on.
    pub(super) reader: Option<Decree>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) current: Segment,
    pub(super) sealed: VecDeque<Segment>,
    spare: Option<Segment>,
    making_spare: bool,
    pub(super) syncs: Syncs,
    failed: Option<Arc<str>>,
    last: Option<Link>,
    pub(super) replicas: DetHashMap<Gpid, Needs>,
}

impl State {
    /// Whether the log takes nothing any more.
    pub(super) fn failed(&self) -> bool {
        self.failed.is_some()
    }

    /// From now on it takes nothing any more.
    pub(super) fn close(&mut self) {
        self.failed.get_or_insert_with(|| "it is closed".into());
    }
}

/// A mutation log. Shared by the workers whose replicas write to it.
#[derive(Debug)]
pub struct SharedLog {
    pub(super) dir: PathBuf,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) options: LogOptions,
    seed: u64,
    /// Where whole segments are missing.
    pub(super) gaps: Vec<u64>,
    pub(super) state: Mutex<State>,
}

/// Whether records may be acknowledged yet.
#[derive(Debug)]
#[must_use]
pub enum Redeemed {
    /// Yes.
    Now(Vec<Appended>),
    /// Not before the log is synced up to [`Pending::end`].
    Later(Pending),
}

impl SharedLog {
    #[expect(clippy::too_many_arguments, reason = "everything that opening found")]
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        options: LogOptions,
        seed: u64,
        sealed: VecDeque<Segment>,
        current: Segment,
        last: Option<Link>,
        gaps: Vec<u64>,
    ) -> Self {
        let synced = current.head.base;
        let state = Mutex::new(State {
            current,
            sealed,
            spare: None,
            making_spare: false,
            syncs: Syncs::new(synced),
            failed: None,
            last,
            replicas: DetHashMap::default(),
        });
        Self { dir, disk, options, seed, gaps, state }
    }

    /// The log's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How it was set up.
    #[must_use]
    pub fn options(&self) -> &LogOptions {
        &self.options
    }

    /// Writes the records of `batch` with one write and empties it. Page cache only: does not wait for the disk.
    ///
    /// # Errors
    /// [`LogError::Failed`], now and from now on. Nothing of the batch may be acknowledged then.
    pub fn append(&self, batch: &mut LogBatch) -> Result<Pending, LogError> {
        let outcome = self.append_all(batch);
        // Nothing of it is for the next log that the batch goes to.
        batch.clear();
        outcome
    }

    fn append_all(&self, batch: &mut LogBatch) -> Result<Pending, LogError> {
        let mut state = self.state.lock();
        self.check(&state)?;
        if state.current.len >= self.options.segment_bytes && state.spare.is_some() {
            self.roll(&mut state)?;
        }
        let State { current, last, syncs, .. } = &mut *state;
        let start = current.end();
        let mut pending = Pending { end: start + batch.data.len() as u64, runs: Vec::new() };
        let (mut at, mut position) = (0, start);
        for (key, len) in &batch.records {
            let place = Place {
                position,
                synced: syncs.synced(),
                durability: self.options.durability,
                before: *last,
            };
            place_record(&mut batch.data[at..at + HEADER], current.head.seal, &place);
            *last = Some(Link { gpid: key.gpid, decree: key.decree, position });
            note(&mut current.spans, key, position);
            grant(&mut pending.runs, key, position);
            at += len;
            position += *len as u64;
        }
        let data = std::mem::take(&mut batch.data).freeze();
        let growth = match self.options.durability {
            Durability::GroupSync => GROWTH.min(self.options.segment_bytes),
            Durability::Os | Durability::IntervalSync => 0,
        };
        let outcome = write(current, &data, growth);
        current.dirty = true;
        if let Err(error) = outcome
            && !planted::has("append_error_ignored")
        {
            return Err(self.fail(&mut state, "writing", &error));
        }
        current.len += data.len() as u64;
        drop(state);
        batch.data = data.try_into_mut().unwrap_or_default();
        Ok(pending)
    }

    /// Exchanges written records for the right to acknowledge them, as soon as they are durable enough.
    ///
    /// # Errors
    /// [`LogError::Failed`] when they never will be.
    pub fn redeem(&self, pending: Pending) -> Result<Redeemed, LogError> {
        if self.options.durability != Durability::GroupSync || planted::has("ack_before_sync") {
            return Ok(Redeemed::Now(pending.runs));
        }
        let state = self.state.lock();
        if state.syncs.synced() >= pending.end {
            return Ok(Redeemed::Now(pending.runs));
        }
        self.check(&state)?;
        Ok(Redeemed::Later(pending))
    }

    /// Everything before this position is durable.
    #[must_use]
    pub fn synced(&self) -> u64 {
        self.state.lock().syncs.synced()
    }

    /// Where the next record will be.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.state.lock().current.end()
    }

    /// Why the log takes nothing any more, if so.
    #[must_use]
    pub fn failure(&self) -> Option<LogError> {
        self.check(&self.state.lock()).err()
    }

    /// Whether the next file is being made. A log that has failed is not opened anew before that has ended: the file
    /// would take the place of one of the new log's.
    #[must_use]
    pub fn is_making_spare(&self) -> bool {
        self.state.lock().making_spare
    }

    /// Whether the next file should be made now; claims the making of it for the caller.
    pub fn claim_spare(&self) -> bool {
        let mut state = self.state.lock();
        let wanted = state.current.len >= self.options.segment_bytes / SPARE_AT
            && state.spare.is_none()
            && !state.making_spare
            && state.failed.is_none();
        state.making_spare |= wanted;
        wanted
    }

    /// Makes the next file; blocks. Call after [`SharedLog::claim_spare`]. While there is none, the current file grows
    /// beyond its size.
    ///
    /// # Errors
    /// Of the file system; the log works on, and asks again.
    pub fn make_spare(&self, now_us: u64) -> Result<(), LogError> {
        let index = self.state.lock().current.head.index + 1;
        let made = self.create(index, UNUSED, now_us);
        let mut state = self.state.lock();
        state.making_spare = false;
        state.spare = Some(made?);
        Ok(())
    }

    /// Makes the first file one of the log, with what has been written to it.
    pub(super) fn put_to_use(&self) -> Result<(), LogError> {
        let state = self.state.lock();
        let Segment { file, path, head, .. } = &state.current;
        let written = file.write_at(0, &[head.encode()]);
        let durable = written.and_then(|()| file.sync(SyncMode::Data));
        durable.map_err(|error| LogError::io(path, error))
    }

    /// Creates a segment file, durably.
    pub(super) fn create(&self, index: u64, base: u64, now_us: u64) -> Result<Segment, LogError> {
        create(&*self.disk, &self.dir, &self.options, self.seed, index, base, now_us)
    }

    /// Seals the current file and goes on in the spare one.
    fn roll(&self, state: &mut State) -> Result<(), LogError> {
        let Some(mut next) = state.spare.take() else { return Ok(()) };
        let written =
            seal(&mut state.current, state.last, state.syncs.synced(), self.options.durability);
        let written = written.and_then(|()| {
            next.head.base = state.current.end();
            next.dirty = true;
            next.file.write_at(0, &[next.head.encode()])
        });
        if let Err(error) = written {
            return Err(self.fail(state, "changing files", &error));
        }
        let full = std::mem::replace(&mut state.current, next);
        state.sealed.push_back(full);
        Ok(())
    }

    pub(super) fn check(&self, state: &State) -> Result<(), LogError> {
        match &state.failed {
            Some(reason) => Err(LogError::Failed { dir: self.dir.clone(), reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// Fails the log on purpose: it is to be opened anew, with everything in it, because of `reason`.
    pub fn give_up(&self, reason: &str) -> LogError {
        let error = io::Error::other(reason.to_owned());
        self.fail(&mut self.state.lock(), "opening a replica in", &error)
    }

    pub(super) fn fail(&self, state: &mut State, doing: &str, error: &io::Error) -> LogError {
        let path = state.current.path.display();
        let reason: Arc<str> = format!("{doing} {path}: {error}").into();
        tracing::error!(dir = %self.dir.display(), %reason, "mutation log failed");
        state.failed.get_or_insert(reason.clone());
        LogError::Failed { dir: self.dir.clone(), reason }
    }
}

/// Appends to the current file, which has a length that is a multiple of `growth` then.
fn write(current: &mut Segment, data: &Bytes, growth: u64) -> io::Result<()> {
    let end = current.len + data.len() as u64;
    let size = current.size.max(if growth > 0 { end.next_multiple_of(growth) } else { end });
    let grows = std::mem::replace(&mut current.size, size) < end;
    if grows && size > end {
        let zeros = Bytes::from_static(&ZEROS[..(size - end) as usize]);
        return current.file.write_at(current.len, &[data.clone(), zeros]);
    }
    if planted::has("ack_before_log") {
        let (file, at, data) = (current.file.clone(), current.len, data.clone());
        planted::later(move || drop(file.write_at(at, &[data])));
        return Ok(());
    }
    current.file.write_at(current.len, std::slice::from_ref(data))
}

/// Adds a record to the runs of tokens.
fn grant(runs: &mut Vec<Appended>, key: &RecordKey, position: u64) {
    if key.kind != RecordKind::Mutation {
        return;
    }
    // A partition's records of one turn mostly stand together.
    if !runs.last_mut().is_some_and(|run| run.extend(key)) {
        runs.push(Appended::new(key, position));
    }
}

/// Appends footer and trailer to a segment, where its file ends from now on.
pub(super) fn seal(
    segment: &mut Segment,
    last: Option<Link>,
    synced: u64,
    durability: Durability,
) -> io::Result<()> {
    let position = segment.end();
    let mut out = BytesMut::new();
    let key = RecordKey {
        gpid: Gpid::default(),
        ballot: Ballot::ZERO,
        decree: Decree::ZERO,
        kind: RecordKind::Footer,
    };
    encode_record(&mut out, &key, |out| encode_spans(&segment.spans, out));
    let place = Place { position, synced, durability, before: last };
    place_record(&mut out[..HEADER], segment.head.seal, &place);
    encode_trailer(position, segment.head.seal, &mut out);
    let data: Bytes = out.freeze();
    let len = data.len() as u64;
    if segment.size > segment.len {
        segment.file.truncate(segment.len)?;
    }
    segment.file.write_at(segment.len, &[data])?;
    segment.dirty = true;
    segment.len += len;
    segment.size = segment.len;
    Ok(())
}

/// Creates a segment file, durably. Its secrets are drawn from `seed` and its index.
pub(super) fn create(
    disk: &dyn Disk,
    dir: &Path,
    options: &LogOptions,
    seed: u64,
    index: u64,
    base: u64,
    created_us: u64,
) -> Result<Segment, LogError> {
    let path = dir.join(file_name(index));
    let secret = mix64(mix64(seed) ^ mix64(index) ^ created_us.rotate_left(17));
    // A tag of zeros would be found in every hole.
    let seal = Seal { tag: (secret >> 32) as u32 | 1, nonce: secret as u32 };
    let head = Head { index, base, created_us, seal };
    let make = || {
        if disk.exists(&path) {
            disk.unlink(&path)?;
        }
        let file = disk.open(&path, OpenMode::CreateNew)?;
        file.allocate(options.segment_bytes)?;
        file.write_at(0, &[head.encode()])?;
        file.sync(SyncMode::All)?;
        disk.sync_dir(dir)?;
        Ok(file)
    };
    let file = make().map_err(|error| LogError::io(&path, error))?;
    let len = HEAD as u64;
    Ok(Segment { file, path, head, len, size: len, spans: Spans::default(), dirty: false })
}
