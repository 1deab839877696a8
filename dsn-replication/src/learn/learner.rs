//! The learner's side: asks its primary what to begin with, and copies a checkpoint if it must.
//!
//! One resident for each attempt, on the stub's worker. It copies into a directory of its own, block by block, verifies
//! every file, and hands the directory to the stub; it ends with the first thing that goes wrong, for the primary will
//! ask again.

use super::rate::SharedRate;
use super::source::{checksum, decree_of};
use crate::codes::{RPC_LEARN, RPC_NFS_COPY};
use crate::dirs::sync_parent;
use crate::group_link::{options_for, wire};
use crate::ids::{Ballot, Decree};
use crate::replica::{Node, Position};
use crate::stub::{LPC_STUB_EVENT, ReplicaStub};
use crate::wire::replica::{
    CopyRequest, CopyResponse, LearnRequest, LearnResponse, LearnState, LearnType,
};
use bytes::Bytes;
use dsn_core::disk::{Disk, OpenMode, SyncMode};
use dsn_core::exec::{Addr, Ctx, Resident};
use dsn_core::planted;
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::gpid::Gpid;
use dsn_rpc::{CallError, CallOptions, Lane, call};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

dsn_core::task_codes! {
    /// Codes of this file.
    pub CODES;
    /// A block of a copied checkpoint is written, or all of it is verified.
    pub LPC_LEARN_WRITE: Blocking, Low, "THREAD_POOL_REPLICATION_LONG";
    /// The next step of a learner.
    pub LPC_LEARN_STEP: Compute, Common, "THREAD_POOL_DEFAULT";
}

/// Bytes asked for at a time.
const BLOCK: usize = 1 << 20;

/// Bytes of a file after which what was copied of it is synced.
const SYNC_EVERY: u64 = 4 << 20;

/// How long an answer of the primary is waited for before it is asked again. A large checkpoint takes longer to
/// describe: all of it is read.
const ASK_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a primary is asked at most: for hours.
const ASKS_MAX: u32 = 1000;

/// How long one block may take, and how often it is asked for.
const BLOCK_TIMEOUT: Duration = Duration::from_secs(5);
const BLOCK_TRIES: u32 = 3;

/// While it waits for its turn, or looks at what it has copied, a learner says so often that it is still there.
const WAITING_SIGN: Duration = Duration::from_secs(10);

/// Pause before a block is asked for again that the primary's disk had no time for.
const BUSY_PAUSE: Duration = Duration::from_millis(500);

/// Most files of a checkpoint.
const FILES_MAX: usize = 100_000;

/// Who learns what from whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lesson {
    /// The partition.
    pub gpid: Gpid,
    /// The primary, and its ballot.
    pub primary: Node,
    /// Its ballot.
    pub ballot: Ballot,
    /// Which attempt.
    pub attempt: i64,
}

/// How a learner's work ended.
#[derive(Debug)]
pub enum Learned {
    /// What is lacking is being sent.
    Stream,
    /// A checkpoint is complete, in this directory's home.
    Checkpoint {
        /// The new replica directory.
        dir: PathBuf,
        /// What it has.
        decree: Decree,
    },
    /// It broke off.
    Failed(String),
}

/// A file to copy.
#[derive(Clone, Debug)]
struct Wanted {
    name: String,
    len: u64,
    sum: u32,
}

/// See the module's header.
pub struct Learner {
    me: Addr<Self>,
    stub: Addr<ReplicaStub>,
    node: Node,
    lesson: Lesson,
    /// The new replica directory, and where in it the files go.
    dir: PathBuf,
    home: PathBuf,
    decree: Decree,
    files: Vec<Wanted>,
    /// The file being copied, how far, and how often the next block was asked for.
    file: usize,
    offset: u64,
    tries: u32,
    /// How often the primary was asked, and whether the last question was not answered in time.
    asks: u32,
    unheard: bool,
    /// It says now and then that it is still there.
    waiting: bool,
    /// How fast may be written to the disk.
    rate: SharedRate,
}

impl Resident for Learner {}

impl std::fmt::Debug for Learner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Learner").field("lesson", &self.lesson).finish_non_exhaustive()
    }
}

impl Learner {
    /// Begins to learn; `position` is what the replica has. `dir` is where a new replica directory may be made, `home`
    /// where in it the files of a checkpoint go.
    pub fn start(
        ctx: &mut Ctx<'_>,
        (stub, node): (Addr<ReplicaStub>, Node),
        lesson: Lesson,
        position: Position,
        (dir, home): (PathBuf, PathBuf),
        rate: SharedRate,
    ) -> Addr<Self> {
        let me = ctx.spawn_here(|_, me| Self {
            me,
            stub,
            node,
            lesson,
            home: dir.join(home),
            dir,
            decree: Decree::ZERO,
            files: Vec::new(),
            file: 0,
            offset: 0,
            tries: 0,
            asks: 0,
            unheard: false,
            waiting: false,
            rate,
        });
        ctx.post(me, &LPC_LEARN_STEP, move |learner, ctx| learner.ask(ctx, position));
        me
    }

    fn ask(&mut self, ctx: &mut Ctx<'_>, position: Position) {
        self.asks += 1;
        let request = LearnRequest {
            pid: self.lesson.gpid,
            learner: wire(self.node),
            signature: self.lesson.attempt,
            last_committed_decree_in_app: position.decree.0,
            last_committed_decree_in_prepare_list: position.decree.0,
            fingerprint: position.fingerprint.map(|which| which as i64),
            ..LearnRequest::default()
        };
        let options = CallOptions { timeout: Some(ASK_TIMEOUT), ..options_for(self.lesson.gpid) };
        let done = move |learner: &mut Self, ctx: &mut Ctx<'_>, outcome| {
            learner.on_answer(ctx, position, outcome);
        };
        call(ctx, self.lesson.primary, &RPC_LEARN, &request, options, self.me, done);
    }

    fn on_answer(
        &mut self,
        ctx: &mut Ctx<'_>,
        position: Position,
        outcome: Result<LearnResponse, CallError>,
    ) {
        let answer = match outcome {
            Ok(answer) => answer,
            // It may be at it: then it says so when it is asked again.
            Err(CallError::Timeout { .. }) if !self.unheard => {
                self.unheard = true;
                return self.ask(ctx, position);
            }
            Err(CallError::Remote { error: ErrorCode::Busy, .. }) if self.asks < ASKS_MAX => {
                self.unheard = false;
                ctx.after(self.me, &LPC_LEARN_STEP, WAITING_SIGN, move |learner, ctx| {
                    learner.ask(ctx, position);
                });
                return;
            }
            Err(error) => return self.end(ctx, Learned::Failed(error.to_string())),
        };
        if !answer.err.is_ok() {
            return self.end(ctx, Learned::Failed(format!("the primary says {}", answer.err)));
        }
        match answer.learn_type {
            LearnType::Log => self.end(ctx, Learned::Stream),
            LearnType::App => match wanted(&answer.state) {
                Some(files) => {
                    self.decree = decree_of(&answer.state);
                    self.files = files;
                    let (gpid, attempt) = (self.lesson.gpid, self.lesson.attempt);
                    ctx.post(self.stub, &LPC_STUB_EVENT, move |stub, ctx| {
                        stub.wants_to_copy(ctx, gpid, attempt);
                    });
                    self.waiting = true;
                    self.wait(ctx);
                }
                None => self.end(ctx, Learned::Failed("a strange checkpoint".to_owned())),
            },
            other => self.end(ctx, Learned::Failed(format!("told to use {other}"))),
        }
    }

    /// Until it is this learner's turn, and while it reads what it has copied, the primary hears from it, and goes on
    /// holding what is copied.
    fn wait(&mut self, ctx: &mut Ctx<'_>) {
        ctx.after(self.me, &LPC_LEARN_STEP, WAITING_SIGN, |learner, ctx| {
            if learner.waiting {
                learner.request(ctx, 0, false, |_, _, _| {});
                learner.wait(ctx);
            }
        });
    }

    /// It is this learner's turn: empties the directory, then copies.
    pub fn begin_to_copy(&mut self, ctx: &mut Ctx<'_>) {
        self.waiting = false;
        let (gpid, files) = (self.lesson.gpid, self.files.len());
        tracing::info!(%gpid, decree = %self.decree, files, "copies a checkpoint");
        let (dir, home) = (self.dir.clone(), self.home.clone());
        ctx.offload(
            &LPC_LEARN_WRITE,
            move |job| {
                let disk = job.disk();
                if disk.exists(&dir) {
                    disk.remove_dir_all(&dir)?;
                }
                disk.create_dir_all(&home)
            },
            self.me,
            |learner, outcome: io::Result<()>, ctx| match outcome {
                Ok(()) => learner.copy(ctx),
                Err(error) => learner.end(ctx, Learned::Failed(error.to_string())),
            },
        );
    }

    /// Asks for the next block, when the disk may take it.
    fn copy(&mut self, ctx: &mut Ctx<'_>) {
        while self.files.get(self.file).is_some_and(|f| self.offset >= f.len && self.offset > 0) {
            (self.file, self.offset) = (self.file + 1, 0);
        }
        let Some(file) = self.files.get(self.file) else { return self.verify(ctx) };
        let size = block_of(file, self.offset);
        let booked = self.rate.lock().book(size as u64, ctx.now(), Duration::MAX);
        match booked.unwrap_or_default() {
            Duration::ZERO => self.ask_for_block(ctx),
            pause => drop(ctx.after(self.me, &LPC_LEARN_STEP, pause, Self::ask_for_block)),
        }
    }

    fn ask_for_block(&mut self, ctx: &mut Ctx<'_>) {
        let Some(file) = self.files.get(self.file) else { return };
        let size = block_of(file, self.offset);
        let is_last = self.offset + size as u64 == file.len;
        self.tries += 1;
        self.request(ctx, size, is_last, move |learner, ctx, outcome| {
            learner.on_block(ctx, size, outcome);
        });
    }

    /// Asks for `size` bytes from where it is.
    fn request(
        &mut self,
        ctx: &mut Ctx<'_>,
        size: usize,
        is_last: bool,
        f: impl FnOnce(&mut Self, &mut Ctx<'_>, Result<CopyResponse, CallError>) + Send + 'static,
    ) {
        let Some(file) = self.files.get(self.file) else { return };
        let request = CopyRequest {
            source: wire(self.lesson.primary),
            file_name: file.name.clone(),
            offset: self.offset as i64,
            size: size as i32,
            is_last,
            overwrite: true,
            pid: Some(self.lesson.gpid),
            ..CopyRequest::default()
        };
        let options = CallOptions {
            timeout: Some(BLOCK_TIMEOUT),
            lane: Lane::Bulk,
            ..options_for(self.lesson.gpid)
        };
        call(ctx, self.lesson.primary, &RPC_NFS_COPY, &request, options, self.me, f);
    }

    fn on_block(
        &mut self,
        ctx: &mut Ctx<'_>,
        size: usize,
        outcome: Result<CopyResponse, CallError>,
    ) {
        let content = match outcome {
            Ok(answer) if answer.error == ErrorCode::Ok && answer.file_content.len() == size => {
                answer.file_content
            }
            Ok(answer) => {
                let reason = format!("{} bytes, {}", answer.file_content.len(), answer.error);
                return self.end(ctx, Learned::Failed(reason));
            }
            // Others copy from that disk as well.
            Err(CallError::Remote { error: ErrorCode::Busy, .. }) => {
                self.tries = 0;
                ctx.after(self.me, &LPC_LEARN_STEP, BUSY_PAUSE, Self::ask_for_block);
                return;
            }
            Err(_) if self.tries < BLOCK_TRIES => return self.ask_for_block(ctx),
            Err(error) => return self.end(ctx, Learned::Failed(error.to_string())),
        };
        self.tries = 0;
        let path = self.home.join(&self.files[self.file].name);
        let offset = self.offset;
        ctx.offload(
            &LPC_LEARN_WRITE,
            move |job| write_block(&**job.disk(), &path, offset, content),
            self.me,
            move |learner, outcome: io::Result<()>, ctx| match outcome {
                Ok(()) => {
                    learner.offset = offset + size as u64;
                    if size == 0 {
                        (learner.file, learner.offset) = (learner.file + 1, 0);
                    }
                    learner.copy(ctx);
                }
                Err(error) => learner.end(ctx, Learned::Failed(error.to_string())),
            },
        );
    }

    /// Everything is here: is it what it should be?
    fn verify(&mut self, ctx: &mut Ctx<'_>) {
        let (files, home) = (self.files.clone(), self.home.clone());
        // Signs of life are requests for nothing of the first file.
        (self.file, self.offset, self.waiting) = (0, 0, true);
        self.wait(ctx);
        ctx.offload(
            &LPC_LEARN_WRITE,
            move |job| verify(&**job.disk(), &home, &files),
            self.me,
            |learner, outcome: io::Result<()>, ctx| {
                let learned = match outcome {
                    Ok(()) => {
                        Learned::Checkpoint { dir: learner.dir.clone(), decree: learner.decree }
                    }
                    Err(error) => Learned::Failed(error.to_string()),
                };
                learner.end(ctx, learned);
            },
        );
    }

    fn end(&mut self, ctx: &mut Ctx<'_>, learned: Learned) {
        let lesson = self.lesson.clone();
        ctx.post(self.stub, &LPC_STUB_EVENT, move |stub, ctx| stub.learned(ctx, &lesson, learned));
        ctx.close(self.me);
    }
}

/// Bytes of the next block of a file.
fn block_of(file: &Wanted, offset: u64) -> usize {
    usize::try_from(file.len - offset).unwrap_or(BLOCK).min(BLOCK)
}

/// The files of a description; `None` when it makes no sense.
fn wanted(state: &LearnState) -> Option<Vec<Wanted>> {
    let (sizes, sums) = (state.file_sizes.as_ref()?, state.file_checksums.as_ref()?);
    let fits = state.files.len() == sizes.len() && sizes.len() == sums.len();
    if !fits || sizes.len() > FILES_MAX || state.to_decree_included < 0 {
        return None;
    }
    let files = state.files.iter().zip(sizes).zip(sums.iter()).map(|((name, len), sum)| {
        let is_plain =
            !name.is_empty() && !name.contains(['/', '\\', '\0']) && !name.starts_with('.');
        let len = u64::try_from(*len).ok()?;
        is_plain.then_some(Wanted { name, len, sum: sum.parse().ok()? })
    });
    files.collect()
}

fn write_block(disk: &dyn Disk, path: &Path, offset: u64, content: Bytes) -> io::Result<()> {
    let content = match planted::has("partial_copy_accepted") {
        true => content.slice(..content.len() / 2),
        false => content,
    };
    let file = disk.open(path, OpenMode::ReadWrite)?;
    if offset == 0 {
        file.truncate(0)?;
    }
    let end = offset + content.len() as u64;
    file.write_at(offset, &[content])?;
    // A little at a time: all of it at the end would hold up whoever writes to the disk meanwhile.
    if offset / SYNC_EVERY != end / SYNC_EVERY {
        file.sync(SyncMode::Data)?;
    }
    Ok(())
}

fn verify(disk: &dyn Disk, home: &Path, files: &[Wanted]) -> io::Result<()> {
    for wanted in files {
        let path = home.join(&wanted.name);
        let file = disk.open(&path, OpenMode::ReadWrite)?;
        if planted::has("partial_copy_accepted") {
            continue;
        }
        let sum = checksum(disk, &path, wanted.len)?;
        if file.len()? != wanted.len || sum != wanted.sum {
            let reason = format!("{}: not what was sent", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        file.sync(SyncMode::All)?;
    }
    disk.sync_dir(home)?;
    sync_parent(disk, home)
}
