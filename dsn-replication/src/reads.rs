//! Reads: from the connection's worker to the state machine and back, past the owner.
//!
//! A point read is tried where it arrived; when the state machine says that it would have to touch files, it moves to
//! its stage's threads. Range reads go there at once. Requests that find their stage overloaded have been refused by
//! the RPC layer before they come here.

use crate::gate::ReadGate;
use crate::placement::Placement;
use crate::state_machine::{
    Access, ReadEnv, ReadMode, ReadOutcome, ReadRequest, ReadStage, StorageCode,
};
use crate::throttle::Verdict;
use bytes::{Bytes, BytesMut};
use dsn_core::exec::{Addr, Ctx, Resident};
use dsn_core::time::Mono;
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::{Replier, Request, ServiceTable};
use std::sync::Arc;
use std::time::Duration;

/// A reply buffer that grew beyond this many bytes is given back.
const SCRATCH_KEEP: usize = 256 << 10;

/// Most reads of a worker that wait because they are throttled; further ones are refused as busy.
pub const THROTTLED_MAX: usize = 10_000;

dsn_core::task_codes! {
    /// Codes of this file.
    pub CODES;
    /// A throttled read goes on.
    pub LPC_READ_THROTTLED: Compute, Low, "THREAD_POOL_DEFAULT";
}

/// Brings reads back from the blocking stages; one per worker.
struct Reader;

impl Resident for Reader {}

/// What this worker keeps for reads.
#[derive(Default)]
struct ReadLocal {
    reader: Option<Addr<Reader>>,
    scratch: BytesMut,
    /// Reads that wait because they are throttled.
    throttled: usize,
}

/// Registers the read requests of `codes`.
pub fn register<H: Resident>(
    table: &mut ServiceTable,
    codes: &[StorageCode],
    placement: &Placement<H>,
) {
    for storage in codes {
        let Access::Read(stage) = storage.access else { continue };
        let placement = placement.clone();
        table.on(storage.code, move |ctx, request, replier| {
            on_read(ctx, &placement, stage, request, replier);
        });
    }
}

fn on_read<H: Resident>(
    ctx: &mut Ctx<'_>,
    placement: &Placement<H>,
    stage: ReadStage,
    request: Request,
    replier: Replier,
) {
    if placement.denies_clients() {
        return replier.forget(ctx);
    }
    let Some(placed) = placement.get(ctx, request.gpid) else {
        return replier.error(ctx, ErrorCode::ObjectNotFound);
    };
    let gate = placed.gate;
    if gate.is_silent() {
        return replier.forget(ctx);
    }
    match gate.throttle(ctx.clock(), request.is_backup).within(request.timeout) {
        Verdict::Pass => admit(ctx, gate, stage, request, replier),
        verdict => later(ctx, gate, stage, request, replier, verdict),
    }
}

/// A throttled read waits, or is refused; a refused one for secondaries is left without an answer.
fn later(
    ctx: &mut Ctx<'_>,
    gate: Arc<ReadGate>,
    stage: ReadStage,
    mut request: Request,
    replier: Replier,
    verdict: Verdict,
) {
    let (pause, refused) = match verdict {
        Verdict::Pass => (Duration::ZERO, false),
        Verdict::Delay(pause) => (pause, false),
        Verdict::Reject(pause) => (pause, true),
    };
    let local = ctx.local::<ReadLocal>();
    let full = local.throttled >= THROTTLED_MAX;
    let refuse = move |ctx: &mut Ctx<'_>, is_backup, replier: Replier| match is_backup {
        true => replier.forget(ctx),
        false => replier.error(ctx, ErrorCode::Busy),
    };
    gate.count_throttled(request.is_backup, refused || full);
    if full || (refused && pause.is_zero()) {
        return refuse(ctx, request.is_backup, replier);
    }
    local.throttled += 1;
    request.body = request.keep_body();
    let reader = reader(ctx);
    ctx.after(reader, &LPC_READ_THROTTLED, pause, move |_, ctx| {
        ctx.local::<ReadLocal>().throttled -= 1;
        match refused {
            true => refuse(ctx, request.is_backup, replier),
            false => admit(ctx, gate, stage, request, replier),
        }
    });
}

/// Answers a read, here or in its stage, if the replica may serve it.
#[inline]
fn admit(
    ctx: &mut Ctx<'_>,
    gate: Arc<ReadGate>,
    stage: ReadStage,
    request: Request,
    replier: Replier,
) {
    let hash = request.partition_hash;
    // The time of the event will do here: what counts is the look at the gate when the answer is there.
    if let Err(error) = gate.admit(ctx.now(), request.is_backup, hash) {
        return replier.error(ctx, error);
    }
    let read = ReadRequest {
        code: request.code,
        gpid: request.gpid,
        body: request.body,
        partition_hash: hash,
        is_backup: request.is_backup,
    };
    if stage == ReadStage::Inline {
        let mut scratch = std::mem::take(&mut ctx.local::<ReadLocal>().scratch);
        scratch.clear();
        let outcome = {
            let clock = || ctx.clock();
            let env = ReadEnv { wall: ctx.wall(), clock: &clock, deadline: request.deadline };
            gate.machine().read(&read, ReadMode::Inline, &env, &mut scratch)
        };
        let answered = outcome != ReadOutcome::WouldBlock;
        if !answered {
            ctx.local::<ReadLocal>().scratch = scratch;
            return offload(ctx, gate, read, request.deadline, replier);
        }
        // The gate was passed in this very event; only time can have run on since.
        answer(ctx, &gate, &read, outcome, &scratch, replier);
        if scratch.capacity() <= SCRATCH_KEEP {
            ctx.local::<ReadLocal>().scratch = scratch;
        }
        return;
    }
    offload(ctx, gate, read, request.deadline, replier);
}

/// This worker's reader.
fn reader(ctx: &mut Ctx<'_>) -> Addr<Reader> {
    // One that a panicking read has taken with it is replaced.
    let known = ctx.local::<ReadLocal>().reader;
    if let Some(reader) = known.filter(|reader| ctx.is_here(*reader)) {
        return reader;
    }
    let reader = ctx.spawn_here(|_, _| Reader);
    ctx.local::<ReadLocal>().reader = Some(reader);
    reader
}

/// Moves a read to the threads of its code's stage.
fn offload(
    ctx: &mut Ctx<'_>,
    gate: Arc<ReadGate>,
    mut read: ReadRequest,
    deadline: Option<Mono>,
    replier: Replier,
) {
    // It may wait long: it must not hold the buffer it arrived in.
    read.body = dsn_rpc::detach(&read.body);
    let reader = reader(ctx);
    let code = read.code;
    ctx.offload(
        code,
        move |job| {
            let late = deadline.is_some_and(|deadline| deadline.is_past(job.now()));
            if late {
                return (None, gate, read, replier);
            }
            let mut out = BytesMut::new();
            let clock = || job.now();
            let env = ReadEnv { wall: job.wall(), clock: &clock, deadline };
            let outcome = gate.machine().read(&read, ReadMode::Blocking, &env, &mut out);
            (Some((outcome, out.freeze())), gate, read, replier)
        },
        reader,
        |_, (done, gate, read, replier): (Option<(ReadOutcome, Bytes)>, _, ReadRequest, _), ctx| {
            match done {
                Some((outcome, out)) => answer(ctx, &gate, &read, outcome, &out, replier),
                // Nobody waits for it any more.
                None => replier.forget(ctx),
            }
        },
    );
}

/// Answers, if the replica may still serve now.
fn answer(
    ctx: &mut Ctx<'_>,
    gate: &Arc<ReadGate>,
    read: &ReadRequest,
    outcome: ReadOutcome,
    out: &[u8],
    replier: Replier,
) {
    match outcome {
        ReadOutcome::Reply => match gate.admit(ctx.clock(), read.is_backup, read.partition_hash) {
            Ok(()) => {
                gate.answered(out.len());
                replier.reply_encoded(ctx, out);
            }
            Err(error) => replier.error(ctx, error),
        },
        ReadOutcome::NoReply => replier.forget(ctx),
        ReadOutcome::Error(error) => {
            if matches!(error, ErrorCode::RdbCorruption | ErrorCode::DiskIoError) {
                gate.broken(ctx, error);
                // Clients of all ages know this one; the reason is in the log and the replica's state.
                return replier.error(ctx, ErrorCode::InvalidState);
            }
            replier.error(ctx, error);
        }
        ReadOutcome::WouldBlock => {
            tracing::error!(gpid = %read.gpid, code = read.code.name(), "a blocking read would block");
            replier.error(ctx, ErrorCode::InvalidState);
        }
    }
}
