//! Checkpoints that are copied, from here and to here: how many at a time, and how fast.

use super::ReplicaStub;
use super::learning::LPC_NFS_READ;
use crate::group_link::node;
use crate::host::LPC_REPLICA_EVENT;
use crate::learn::learner::LPC_LEARN_STEP;
use crate::learn::rate::{Rate, SharedRate};
use crate::learn::source::ReadBlock;
use crate::wire::replica::CopyRequest;
use dsn_core::exec::Ctx;
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::gpid::Gpid;
use dsn_rpc::{Replier, Request};
use parking_lot::Mutex;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// How much is copied.
#[derive(Clone, Copy, Debug)]
pub struct CopyOptions {
    /// Replicas of a server that copy a checkpoint at a time; the others wait for their turn.
    pub concurrent: usize,
    /// MiB per second written to a disk, 0 for no limit.
    pub receive_mib: u32,
    /// MiB per second read from a disk, 0 for no limit.
    pub send_mib: u32,
}

impl Default for CopyOptions {
    fn default() -> Self {
        Self { concurrent: 5, receive_mib: 0, send_mib: 0 }
    }
}

/// Longest that a block waits here for its turn; whoever would wait longer is to ask again.
const SEND_WAIT_MAX: Duration = Duration::from_secs(2);

/// The copies of a server.
#[derive(Debug)]
pub(super) struct Copies {
    concurrent: usize,
    /// Those that copy to here.
    running: BTreeSet<Gpid>,
    /// Those that wait, and by which attempt.
    waiting: VecDeque<(Gpid, i64)>,
    /// By data directory.
    receive: Vec<SharedRate>,
    send: Vec<Rate>,
}

impl Copies {
    pub(super) fn new(options: &CopyOptions, data_dirs: usize) -> Self {
        let receive = || Arc::new(Mutex::new(Rate::mib(options.receive_mib)));
        Self {
            concurrent: options.concurrent.max(1),
            running: BTreeSet::new(),
            waiting: VecDeque::new(),
            receive: (0..data_dirs).map(|_| receive()).collect(),
            send: vec![Rate::mib(options.send_mib); data_dirs],
        }
    }

    /// How fast may be written to a data directory.
    pub(super) fn receive_rate(&self, data_dir: usize) -> SharedRate {
        self.receive[data_dir].clone()
    }
}

/// The learner.
impl ReplicaStub {
    /// A learner has been told to copy a checkpoint: it begins when it is its turn. Those who wait are learners, of
    /// which there is a limited number.
    pub fn wants_to_copy(&mut self, ctx: &mut Ctx<'_>, gpid: Gpid, attempt: i64) {
        self.copies.waiting.push_back((gpid, attempt));
        self.begin_copies(ctx);
    }

    /// A learner has ended, one way or another.
    pub(super) fn end_copy(&mut self, ctx: &mut Ctx<'_>, gpid: Gpid) {
        self.copies.running.remove(&gpid);
        self.copies.waiting.retain(|(waiting, _)| *waiting != gpid);
        self.begin_copies(ctx);
    }

    fn begin_copies(&mut self, ctx: &mut Ctx<'_>) {
        while self.copies.running.len() < self.copies.concurrent
            && let Some((gpid, attempt)) = self.copies.waiting.pop_front()
        {
            let current = self.learners.get(&gpid).filter(|(current, _)| *current == attempt);
            let Some((_, learner)) = current else { continue };
            self.copies.running.insert(gpid);
            ctx.post(*learner, &LPC_LEARN_STEP, |learner, ctx| learner.begin_to_copy(ctx));
        }
    }
}

/// The primary.
impl ReplicaStub {
    /// A learner wants a block of a checkpoint.
    pub(super) fn on_copy(&mut self, ctx: &mut Ctx<'_>, request: Request, replier: Replier) {
        let opened = request
            .decode::<CopyRequest>()
            .map_err(|_| ErrorCode::InvalidParameters)
            .and_then(|copy| {
                let learner = node(request.from_address).ok_or(ErrorCode::InvalidParameters)?;
                let (attempt, block) = self.source.open(learner, &copy, ctx.now())?;
                Ok((copy.pid.unwrap_or_default(), learner, attempt, block))
            });
        let (gpid, learner, attempt, block) = match opened {
            Ok(opened) => opened,
            Err(error) => return replier.error(ctx, error),
        };
        let Some(held) = self.held(gpid) else {
            return replier.error(ctx, ErrorCode::ObjectNotFound);
        };
        let data_dir = held.data_dir;
        ctx.post(held.host, &LPC_REPLICA_EVENT, move |host, ctx| {
            host.on_learner_progress(ctx, learner, attempt);
        });
        let now = ctx.now();
        match self.copies.send[data_dir].book(block.len(), now, SEND_WAIT_MAX) {
            Some(Duration::ZERO) => self.send_block(ctx, gpid, block, replier),
            Some(pause) => drop(ctx.after(self.me, &LPC_NFS_READ, pause, move |stub, ctx| {
                stub.send_block(ctx, gpid, block, replier);
            })),
            None => replier.error(ctx, ErrorCode::Busy),
        }
    }

    fn send_block(&mut self, ctx: &mut Ctx<'_>, gpid: Gpid, block: ReadBlock, replier: Replier) {
        ctx.offload(
            &LPC_NFS_READ,
            move |job| block.run(&**job.disk()),
            self.me,
            move |_, outcome, ctx| match outcome {
                Ok(response) => replier.reply(ctx, &response),
                Err(error) => {
                    tracing::warn!(%gpid, %error, "a block of a checkpoint cannot be read");
                    replier.error(ctx, ErrorCode::FileOperationFailed);
                }
            },
        );
    }
}
