//! The primary's side of a copied checkpoint: which files there are, and their content, block by block.
//!
//! What a learner may read is what was pinned for it, by name; there is no path in a request that could lead anywhere
//! else. A pin that nobody reads from for [`PIN_IDLE`] is let go.

use crate::ids::Decree;
use crate::replica::Node;
use crate::state_machine::PinnedCheckpoint;
use crate::wire::replica::{CopyRequest, CopyResponse, LearnState};
use bytes::Bytes;
use dsn_core::disk::{Disk, OpenMode};
use dsn_core::time::Mono;
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::gpid::Gpid;
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

/// A pin that was not read from for this long is let go.
pub const PIN_IDLE: Duration = Duration::from_secs(120);

/// Most bytes in one answer.
pub const BLOCK_MAX: usize = 4 << 20;

/// Most checkpoints that are pinned at a time.
pub const PINS_MAX: usize = 64;

/// A checkpoint that is being copied.
#[derive(Debug)]
pub struct Pin {
    /// By which attempt.
    pub attempt: i64,
    checkpoint: PinnedCheckpoint,
    /// What the learner is told of it.
    description: LearnState,
    used: Mono,
}

/// The checkpoints of a server that learners copy.
#[derive(Debug, Default)]
pub struct Source {
    pins: BTreeMap<(Gpid, Node), Pin>,
    /// Checkpoints that are being described, and for which attempt.
    describing: BTreeMap<(Gpid, Node), i64>,
}

impl Source {
    /// Pins a checkpoint for a learner, in the place of what it copied before.
    ///
    /// # Errors
    /// [`ErrorCode::Busy`] when too many are pinned.
    pub fn pin(
        &mut self,
        learner: (Gpid, Node),
        attempt: i64,
        checkpoint: PinnedCheckpoint,
        description: LearnState,
        now: Mono,
    ) -> Result<(), ErrorCode> {
        if self.pins.len() >= PINS_MAX && !self.pins.contains_key(&learner) {
            return Err(ErrorCode::Busy);
        }
        self.pins.insert(learner, Pin { attempt, checkpoint, description, used: now });
        Ok(())
    }

    /// The description of what is pinned for a learner.
    pub fn pinned(
        &mut self,
        learner: (Gpid, Node),
        attempt: i64,
        now: Mono,
    ) -> Option<&LearnState> {
        let pin = self.pins.get_mut(&learner).filter(|pin| pin.attempt == attempt)?;
        pin.used = now;
        Some(&pin.description)
    }

    /// A checkpoint is going to be described for a learner. Returns whether nobody does so already.
    pub fn begin_describing(&mut self, learner: (Gpid, Node), attempt: i64) -> bool {
        self.describing.insert(learner, attempt) != Some(attempt)
    }

    /// That has ended, one way or another.
    pub fn end_describing(&mut self, learner: (Gpid, Node), attempt: i64) {
        if self.describing.get(&learner) == Some(&attempt) {
            self.describing.remove(&learner);
        }
    }

    /// Lets go what is not being read.
    pub fn expire(&mut self, now: Mono) {
        self.pins.retain(|_, pin| now.saturating_since(pin.used) < PIN_IDLE);
    }

    /// The attempt of a learner and a job that reads what it asks for.
    ///
    /// # Errors
    /// [`ErrorCode::ObjectNotFound`] for what is not pinned, [`ErrorCode::InvalidParameters`] for a strange range.
    pub fn open(
        &mut self,
        learner: Node,
        request: &CopyRequest,
        now: Mono,
    ) -> Result<(i64, ReadBlock), ErrorCode> {
        let gpid = request.pid.ok_or(ErrorCode::InvalidParameters)?;
        let pin = self.pins.get_mut(&(gpid, learner)).ok_or(ErrorCode::ObjectNotFound)?;
        let known = pin.checkpoint.files.iter().find(|file| file.name == request.file_name);
        let file = known.ok_or(ErrorCode::ObjectNotFound)?;
        let offset = u64::try_from(request.offset).map_err(|_| ErrorCode::InvalidParameters)?;
        let size = usize::try_from(request.size).map_err(|_| ErrorCode::InvalidParameters)?;
        if size > BLOCK_MAX || offset > file.len {
            return Err(ErrorCode::InvalidParameters);
        }
        pin.used = now;
        let path = pin.checkpoint.dir.join(&file.name);
        // The job holds the files as well.
        Ok((pin.attempt, ReadBlock { path, offset, size, _checkpoint: pin.checkpoint.clone() }))
    }
}

/// A block to be read where waiting is allowed.
#[derive(Debug)]
pub struct ReadBlock {
    path: std::path::PathBuf,
    offset: u64,
    size: usize,
    _checkpoint: PinnedCheckpoint,
}

impl ReadBlock {
    /// Bytes asked for.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.size as u64
    }

    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// Reads it.
    ///
    /// # Errors
    /// Of the file system.
    pub fn run(&self, disk: &dyn Disk) -> io::Result<CopyResponse> {
        let content = disk.open(&self.path, OpenMode::Read)?.read_at(self.offset, self.size)?;
        Ok(CopyResponse {
            error: ErrorCode::Ok,
            offset: self.offset as i64,
            size: content.len() as i32,
            file_content: content,
        })
    }
}

/// Describes a checkpoint to a learner: names, lengths and checksums, in the order of the files. Reads all of it.
///
/// # Errors
/// Of the file system.
pub fn describe(disk: &dyn Disk, checkpoint: &PinnedCheckpoint) -> io::Result<LearnState> {
    let mut state = LearnState {
        from_decree_excluded: 0,
        to_decree_included: checkpoint.decree.0,
        ..LearnState::default()
    };
    let (mut names, mut sizes, mut sums) = (Vec::new(), Vec::new(), Vec::new());
    for file in &checkpoint.files {
        names.push(file.name.clone());
        sizes.push(file.len as i64);
        sums.push(checksum(disk, &checkpoint.dir.join(&file.name), file.len)?.to_string());
    }
    state.files = names.into();
    state.file_sizes = Some(sizes);
    state.file_checksums = Some(sums.into());
    Ok(state)
}

/// CRC-32C of the first `len` bytes of a file.
///
/// # Errors
/// Of the file system; `UnexpectedEof` when it is shorter.
pub fn checksum(disk: &dyn Disk, path: &std::path::Path, len: u64) -> io::Result<u32> {
    let file = disk.open(path, OpenMode::Read)?;
    let (mut at, mut sum) = (0, 0);
    while at < len {
        let want = usize::try_from(len - at).unwrap_or(BLOCK_MAX).min(BLOCK_MAX);
        let block: Bytes = file.read_at(at, want)?;
        if block.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        sum = crc32c::crc32c_append(sum, &block);
        at += block.len() as u64;
    }
    Ok(sum)
}

/// The checkpoint's decree, of a description.
#[must_use]
pub fn decree_of(state: &LearnState) -> Decree {
    Decree(state.to_decree_included)
}
