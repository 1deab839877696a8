//! Opening everything that a data directory holds after a restart: state machines, then the log, which feeds them.
//!
//! Mutations come in log order and are applied as they come, in runs. Decrees are dense, so a missing one shows by
//! itself: its replica is put aside, the others serve. What is missing in the unsynced tail of a log under group sync
//! was never acknowledged; there the replica simply ends before it. The log keeps what it has of a replica that was put
//! aside: it may be the only copy.

use super::layout;
use crate::dirs::{create_root_durable, sync_parent};
use crate::ids::{Ballot, Decree};
use crate::log::{
    LogBatch, LogError, LogOptions, Record, ReplaySink, ReplicaStart, SharedLog, SyncScope, Tails,
};
use crate::mutation::{CodeTable, Mutation};
use crate::replica::recovery::{Recovered, Recovery};
use crate::state_machine::{
    AppError, ApplyError, ApplyMode, OpenArgs, Replies, StateMachine, StateMachineFactory,
};
use crate::wire::config::AppInfo;
use dsn_core::disk::{DirEntry, Disk};
use dsn_core::exec::BlockingCtx;
use dsn_core::hash::mix64;
use dsn_rpc::gpid::Gpid;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A replica whose state machine has everything its log has.
pub struct Opened {
    /// The partition.
    pub gpid: Gpid,
    /// The table.
    pub info: AppInfo,
    /// Its directory.
    pub dir: PathBuf,
    /// Its state.
    pub machine: Arc<dyn StateMachine>,
    /// What its log has beyond that.
    pub recovered: Recovered,
}

/// What a data directory holds.
pub struct OpenedDir {
    /// Its log.
    pub log: Arc<SharedLog>,
    /// Whose end may be missing from it.
    pub tails: Arc<Tails>,
    /// Its replicas.
    pub replicas: Vec<Opened>,
    /// Replicas put aside as damaged, now or at an earlier start: where they are, and why.
    pub put_aside: Vec<(Gpid, PathBuf, String)>,
    /// Replicas left where they are because the disk refused, and why: to be opened later.
    pub left: Vec<(Gpid, PathBuf, String)>,
}

/// Why a replica cannot be opened.
#[derive(Debug)]
pub enum Problem {
    /// Its files contradict themselves: it is put aside, to be looked at.
    Damaged(String),
    /// The disk refuses; nothing is known to be wrong with the data, which may be the only copy.
    Unreachable(String),
}

impl From<AppError> for Problem {
    fn from(error: AppError) -> Self {
        match error {
            AppError::Corrupt(_) => Self::Damaged(error.to_string()),
            _ => Self::Unreachable(error.to_string()),
        }
    }
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::NotFound => {
                Self::Damaged(error.to_string())
            }
            _ => Self::Unreachable(error.to_string()),
        }
    }
}

/// One replica being fed.
struct Feed {
    gpid: Gpid,
    info: AppInfo,
    dir: PathBuf,
    machine: Arc<dyn StateMachine>,
    floor: u64,
    init_ballot: Ballot,
    recovery: Recovery,
    broken: Option<Problem>,
}

impl Feed {
    fn apply(&mut self, job: &BlockingCtx<'_>, run: &[Mutation]) {
        if run.is_empty() || self.broken.is_some() {
            return;
        }
        let mut replies = Replies::new(false);
        let machine = &self.machine;
        let outcome = job.contain(|| machine.apply(run, ApplyMode::Blocking, &mut replies));
        match outcome.unwrap_or_else(|text| Err(ApplyError::Failed(panicked(&text)))) {
            Ok(()) => {}
            Err(ApplyError::Failed(error)) => self.broken = Some(error.into()),
            Err(error @ ApplyError::WouldBlock) => {
                self.broken = Some(Problem::Unreachable(error.to_string()));
            }
        }
    }
}

impl Feed {
    /// Judges what the log has brought.
    fn finish(
        mut self,
        job: &BlockingCtx<'_>,
        forgiven: &[Range<u64>],
        void: &mut LogBatch,
    ) -> Result<Opened, Problem> {
        let run = self.recovery.take_run();
        self.apply(job, &run);
        let Self { gpid, info, dir, machine, recovery, broken, .. } = self;
        let recovered = recovery.finish(forgiven);
        let recovered = recovered.map_err(|error| Problem::Damaged(error.to_string()));
        match broken.map_or(recovered, Err) {
            Ok(recovered) => {
                if let Some(from) = recovered.damaged {
                    tracing::warn!(%gpid, %from, "the end of its log was not durable and is written anew");
                }
                recovered.mend(gpid, void);
                Ok(Opened { gpid, info, dir, machine, recovered })
            }
            Err(problem) => {
                close(job, &*machine);
                Err(problem)
            }
        }
    }
}

struct Feeds<'a> {
    job: &'a BlockingCtx<'a>,
    tails: &'a Tails,
    feeds: BTreeMap<Gpid, Feed>,
    /// What they have become.
    replicas: Vec<Opened>,
    problems: Vec<(Gpid, PathBuf, Problem)>,
}

impl<'a> Feeds<'a> {
    fn new(job: &'a BlockingCtx<'a>, tails: &'a Tails, feeds: BTreeMap<Gpid, Feed>) -> Self {
        Self { job, tails, feeds, replicas: Vec::new(), problems: Vec::new() }
    }
}

impl Feeds<'_> {
    fn with(&mut self, gpid: Gpid, f: impl FnOnce(&mut Recovery)) {
        if let Some(feed) = self.feeds.get_mut(&gpid) {
            f(&mut feed.recovery);
        }
    }
}

impl ReplaySink for Feeds<'_> {
    fn record(&mut self, record: Record) {
        let Some(feed) = self.feeds.get_mut(&record.key.gpid) else { return };
        feed.recovery.record(&record);
        if let Some(run) = feed.recovery.full_run() {
            feed.apply(self.job, &run);
        }
    }

    fn truncate(&mut self, gpid: Gpid, from: Decree) {
        self.with(gpid, |recovery| recovery.truncate(from));
    }

    fn ballot(&mut self, gpid: Gpid, ballot: Ballot) {
        self.with(gpid, |recovery| recovery.ballot(ballot));
    }

    fn lost(&mut self, gpid: Gpid, decree: Decree, position: u64) {
        self.with(gpid, |recovery| recovery.lost(decree, position));
    }

    fn gap(&mut self, range: Range<u64>) {
        tracing::error!(position = range.start, "records of the mutation log may be missing");
        for feed in self.feeds.values_mut() {
            feed.recovery.gap(range.clone());
        }
    }

    fn summary(&mut self, gpid: Gpid, max: Decree, position: u64) {
        self.with(gpid, |recovery| recovery.summary(max, position));
    }

    fn ended(&mut self, tail: Option<Range<u64>>, end: u64) -> Result<LogBatch, LogError> {
        self.tails.read(tail, end);
        let mut void = LogBatch::new();
        for (gpid, feed) in std::mem::take(&mut self.feeds) {
            let dir = feed.dir.clone();
            match feed.finish(self.job, &self.tails.torn(gpid), &mut void) {
                Ok(replica) => self.replicas.push(replica),
                Err(problem) => self.problems.push((gpid, dir, problem)),
            }
        }
        let left = self.problems.iter().filter_map(|(gpid, _, problem)| match problem {
            Problem::Unreachable(_) => Some(*gpid),
            Problem::Damaged(_) => None,
        });
        let kept = self.tails.keep_for(&left.collect());
        kept.map_err(|error| LogError::io(self.tails.path(), error))?;
        Ok(void)
    }
}

/// Opens the log and every replica below `data_dir`. A replica that cannot be opened is put aside.
///
/// # Errors
/// When the directory or its log cannot be used at all.
pub fn open_dir(
    job: &BlockingCtx<'_>,
    factory: &dyn StateMachineFactory,
    data_dir: &Path,
    options: &LogOptions,
) -> Result<OpenedDir, String> {
    let disk = job.disk();
    let now_us = job.wall().unix_micros();
    let (base, log_dir) = (layout::replicas_dir(data_dir), layout::log_dir(data_dir));
    for dir in [&base, &log_dir] {
        // What is found in it is durable before it is trusted.
        create_root_durable(&**disk, dir)
            .and_then(|()| disk.sync_dir(dir))
            .map_err(|error| format!("{}: {error}", dir.display()))?;
    }
    let codes = Arc::new(CodeTable::new(factory.codes()));
    let (mut problems, mut put_aside) = (Vec::new(), Vec::new());
    let (mut feeds, mut starts) = (BTreeMap::new(), Vec::new());
    let entries = disk.list(&base).map_err(|error| format!("{}: {error}", base.display()))?;
    let tails = open_tails(disk, data_dir, options, factory.app_type(), &entries)
        .map_err(|error| format!("{}: {error}", layout::log_info(data_dir).display()))?;
    for entry in entries.into_iter().filter(|entry| entry.is_dir) {
        if layout::is_incomplete(&entry.name) || layout::is_learn_dir(&entry.name) {
            if let Err(error) = disk.remove_dir_all(&base.join(&entry.name)) {
                tracing::warn!(name = entry.name, %error, "a replica that was never completed stays");
            }
            continue;
        }
        let dir = base.join(&entry.name);
        let aside = layout::parse_aside(&entry.name, factory.app_type());
        if let Some(aside) = aside.filter(|aside| aside.damaged) {
            put_aside.push((aside.gpid, dir, "put aside at an earlier start".to_owned()));
            continue;
        }
        let Some(gpid) = layout::parse_name(&entry.name, factory.app_type()) else { continue };
        match open_one(job, factory, gpid, &dir, &codes) {
            Ok(feed) => {
                starts.push(start_of(&feed));
                feeds.insert(gpid, feed);
            }
            Err(problem) => {
                starts.extend(start_of_unopened(job, gpid, &dir));
                problems.push((gpid, dir, problem));
            }
        }
    }
    let mut sink = Feeds { problems, ..Feeds::new(job, &tails, feeds) };
    let seed = mix64(now_us) ^ job.node().seed();
    let opened = SharedLog::open(disk, &log_dir, options, (seed, now_us), &starts, &mut sink)
        .map_err(|error| error.to_string())?;
    tails.opened().map_err(|error| format!("{}: {error}", layout::log_info(data_dir).display()))?;
    let Feeds { replicas, problems, .. } = sink;
    // What another replica of the same partition has replaced is nobody's concern any more.
    put_aside.retain(|(gpid, ..)| replicas.iter().all(|replica| replica.gpid != *gpid));
    let mut left = Vec::new();
    for (gpid, dir, problem) in problems {
        match problem {
            Problem::Damaged(reason) => {
                put_aside.push((gpid, put_damaged_aside(job, gpid, dir, &reason), reason));
            }
            Problem::Unreachable(reason) => {
                tracing::error!(%gpid, dir = %dir.display(), reason, "replica not opened");
                left.push((gpid, dir, reason));
            }
        }
    }
    for gpid in put_aside.iter().map(|(gpid, ..)| gpid).chain(left.iter().map(|(gpid, ..)| gpid)) {
        opened.log.register(*gpid, Decree::ZERO, 0, Ballot::ZERO);
    }
    Ok(OpenedDir { log: opened.log, tails: Arc::new(tails), replicas, put_aside, left })
}

/// Finds out whose end may be missing from the log: of all replicas that a directory holds, put aside or not.
fn open_tails(
    disk: &Arc<dyn Disk>,
    data_dir: &Path,
    options: &LogOptions,
    app_type: &str,
    entries: &[DirEntry],
) -> io::Result<Tails> {
    let gpid = |name: &str| {
        let aside = layout::parse_aside(name, app_type).map(|aside| aside.gpid);
        aside.or_else(|| layout::parse_name(name, app_type))
    };
    let replicas = entries.iter().filter_map(|entry| gpid(&entry.name)).collect();
    Tails::open(disk, &layout::log_info(data_dir), options.durability, &replicas)
}

/// Renames the directory of a replica that cannot be trusted; returns where it is then.
pub fn put_damaged_aside(job: &BlockingCtx<'_>, gpid: Gpid, dir: PathBuf, reason: &str) -> PathBuf {
    tracing::error!(%gpid, dir = %dir.display(), reason, "replica put aside");
    let now_us = job.wall().unix_micros();
    match layout::put_aside(&**job.disk(), &dir, now_us, "err") {
        Ok(aside) => aside,
        Err(error) => {
            tracing::error!(%gpid, %error, "its directory cannot be renamed");
            dir
        }
    }
}

/// Opens one replica that could not be opened with the others, from the log in use.
///
/// # Errors
/// The [`Problem`]; nothing is left open.
pub fn reopen(
    job: &BlockingCtx<'_>,
    factory: &dyn StateMachineFactory,
    (log, tails): (&SharedLog, &Tails),
    gpid: Gpid,
    dir: &Path,
) -> Result<Opened, Problem> {
    let refused = |error: LogError| Problem::Unreachable(error.to_string());
    // Whatever becomes of what is not the replica's own says nothing against it.
    let elsewhere = |error: io::Error| Problem::Unreachable(error.to_string());
    // What the disk refused may have been the sync after it was put in place.
    sync_parent(&**job.disk(), dir).map_err(elsewhere)?;
    let codes = Arc::new(CodeTable::new(factory.codes()));
    let feed = open_one(job, factory, gpid, dir, &codes)?;
    let start = start_of(&feed);
    if start.floor > log.end() {
        close(job, &*feed.machine);
        let reason = "the end of the log is lost, and nobody knew where this replica begins when \
            a new one was begun: it can be opened when the server is started anew";
        return Err(Problem::Unreachable(reason.to_owned()));
    }
    let mut sink = Feeds::new(job, tails, BTreeMap::from([(gpid, feed)]));
    // What is found there counts as logged from now on.
    let replayed =
        log.replay(start, &mut sink).and_then(|()| log.sync_now(SyncScope::All)).map_err(refused);
    let Some(mut feed) = sink.feeds.remove(&gpid) else {
        return Err(Problem::Unreachable("it is gone".to_owned()));
    };
    if let Err(problem) = replayed {
        feed.broken.get_or_insert(problem);
    }
    let mut void = LogBatch::new();
    let opened = feed.finish(job, tails.forgiven(gpid).as_slice(), &mut void)?;
    let usable = match void.is_empty() {
        true => tails.found_whole(gpid).map_err(elsewhere),
        // What is written to a log in use may be lost in part: a hole is mended all at once or not at all.
        false => Err(refused(log.give_up("what its disk refused before has to be mended"))),
    };
    if let Err(problem) = usable {
        close(job, &*opened.machine);
        return Err(problem);
    }
    log.register(gpid, start.durable, start.floor, start.ballot);
    Ok(opened)
}

/// Of a replica that may be opened later: the log must not end before it begins.
fn start_of_unopened(job: &BlockingCtx<'_>, gpid: Gpid, dir: &Path) -> Option<ReplicaStart> {
    let (_, init) = layout::load(&**job.disk(), dir).ok()?;
    let (applied, ballot) = (Decree::ZERO, Ballot(init.init_ballot));
    let floor = init.init_offset_in_private_log;
    Some(ReplicaStart { gpid, applied, durable: applied, floor, ballot })
}

fn start_of(feed: &Feed) -> ReplicaStart {
    ReplicaStart {
        gpid: feed.gpid,
        applied: feed.machine.last_applied(),
        durable: feed.machine.last_durable(),
        floor: feed.floor,
        ballot: feed.init_ballot,
    }
}

/// A panic in a state machine, as an error of its replica.
pub(super) fn panicked(text: &str) -> AppError {
    AppError::Failed(format!("panic: {text}"))
}

pub(super) fn open_machine(
    job: &BlockingCtx<'_>,
    factory: &dyn StateMachineFactory,
    args: &OpenArgs<'_>,
) -> Result<Arc<dyn StateMachine>, AppError> {
    job.contain(|| factory.open(job, args)).unwrap_or_else(|text| Err(panicked(&text)))
}

/// Closes a state machine. A panic is its own end, and nobody else's.
pub(super) fn close(job: &BlockingCtx<'_>, machine: &dyn StateMachine) {
    if let Err(text) = job.contain(|| machine.close(job)) {
        tracing::error!(text, "panic in a state machine that is being closed");
    }
}

/// Closes a log that nobody writes to any more.
pub(super) fn close_log(log: &SharedLog, tails: &Tails) {
    let dir = log.dir().display();
    let closed = log.close().map_err(|error| error.to_string());
    match closed.and_then(|()| tails.closed().map_err(|error| error.to_string())) {
        Ok(()) => tracing::info!(%dir, "mutation log closed"),
        Err(error) => tracing::warn!(
            %dir, error,
            "the mutation log is not closed in order: if the machine is started anew now, what was not synced may be \
             missing"
        ),
    }
}

fn open_one(
    job: &BlockingCtx<'_>,
    factory: &dyn StateMachineFactory,
    gpid: Gpid,
    dir: &Path,
    codes: &Arc<CodeTable>,
) -> Result<Feed, Problem> {
    let (info, init) = layout::load(&**job.disk(), dir)?;
    let args = OpenArgs { dir, gpid, info: &info };
    let machine = open_machine(job, factory, &args)?;
    let (applied, learned) = (machine.last_applied(), Decree(init.init_durable_decree));
    if applied < learned {
        close(job, &*machine);
        let reason = format!("it has everything up to {applied}, and began with {learned}");
        return Err(Problem::Damaged(reason));
    }
    Ok(Feed {
        gpid,
        info,
        dir: dir.to_owned(),
        floor: init.init_offset_in_private_log,
        init_ballot: Ballot(init.init_ballot),
        recovery: Recovery::new(
            gpid,
            machine.last_applied(),
            (init.init_offset_in_private_log, Ballot(init.init_ballot)),
            codes.clone(),
        ),
        machine,
        broken: None,
    })
}
