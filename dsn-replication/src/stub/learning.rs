//! Both ends of learning, as far as they concern a whole server: replicas that are made or replaced to learn, and
//! checkpoints that others copy.

use super::create::open_learned;
use super::open::panicked;
use super::{Held, LPC_OPEN_REPLICA, LPC_STUB_EVENT, ReplicaStub, layout};
use crate::codes::RPC_LEARN;
use crate::group_link::{node, options_for, wire};
use crate::host::LPC_REPLICA_EVENT;
use crate::ids::{Ballot, Decree};
use crate::learn::learner::{Learned, Learner, Lesson};
use crate::learn::source::describe;
use crate::replica::{LearnAnswer, Node, Position};
use crate::state_machine::{CheckpointKind, PinnedCheckpoint, StateMachine};
use crate::wire::config::{AppInfo, PartitionStatus};
use crate::wire::replica::{GroupCheckRequest, LearnRequest, LearnResponse, LearnState, LearnType};
use dsn_core::exec::Ctx;
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::gpid::Gpid;
use dsn_rpc::{CallOptions, Replier, Request, call};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Most replicas of a server that ask, copy or wait for their turn to copy; the others are invited again later.
pub const LEARNERS_MAX: usize = 64;

/// How long a primary is waited for that is asked whether it still means its invitation; it invites again by itself.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);

/// How often it is looked whether a replaced replica is gone before its files are left to the repair, and the pause
/// between two looks: 10 s in all.
const LOOKS_MAX: u32 = 500;
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// A replica that takes the place of another one.
struct Swap {
    lesson: Lesson,
    /// What was there.
    held: Held,
    /// What comes: the files of a checkpoint up to a decree, or nothing.
    learned: Option<(PathBuf, Decree)>,
    former: Weak<dyn StateMachine>,
}

/// The learner.
impl ReplicaStub {
    /// A primary asks this server to learn.
    pub(super) fn on_invitation(&mut self, ctx: &mut Ctx<'_>, request: Request, replier: Replier) {
        replier.forget(ctx);
        let invitation = match request.decode::<GroupCheckRequest>() {
            Ok(invitation) => invitation,
            Err(error) => {
                tracing::warn!(peer = %request.peer, %error, "unreadable invitation to learn");
                return;
            }
        };
        let config = &invitation.config;
        let Some(primary) = node(config.primary) else { return };
        let (ballot, attempt) = (Ballot(config.ballot), config.learner_signature);
        self.invited(ctx, invitation.app, Lesson { gpid: config.pid, primary, ballot, attempt });
    }

    /// Asks the primary whether it still means what it said. An invitation may be old: whoever made a replica for it in
    /// the place of one that is gone, but is a member by now, would be taken for that member.
    fn invited(&mut self, ctx: &mut Ctx<'_>, info: AppInfo, lesson: Lesson) {
        let gpid = lesson.gpid;
        let asked = self.invitations.get(&gpid).copied();
        if asked.is_some_and(|attempt| attempt >= lesson.attempt)
            || asked.is_none() && self.invitations.len() >= LEARNERS_MAX
            || !self.may_learn(ctx, &lesson)
        {
            return;
        }
        let was_sound = self.is_sound(ctx, gpid);
        self.invitations.insert(gpid, lesson.attempt);
        let question = LearnRequest {
            pid: gpid,
            learner: wire(self.options.link.me),
            signature: lesson.attempt,
            only_confirms: Some(true),
            ..LearnRequest::default()
        };
        let options = CallOptions { timeout: Some(CONFIRM_TIMEOUT), ..options_for(gpid) };
        let (primary, attempt) = (lesson.primary, lesson.attempt);
        let done = move |stub: &mut Self, ctx: &mut Ctx<'_>, outcome: Result<LearnResponse, _>| {
            // A later one is being asked for by now.
            if stub.invitations.get(&gpid) != Some(&attempt) {
                return;
            }
            stub.invitations.remove(&gpid);
            match outcome {
                // What is gone or broken since may have become a member meanwhile: the next invitation is for the one
                // that takes its place.
                Ok(_) if was_sound && !stub.is_sound(ctx, gpid) => {}
                Ok(LearnResponse {
                    err: ErrorCode::Ok, learn_type: LearnType::Invalid, ..
                }) => {
                    stub.accept(ctx, info, lesson);
                }
                Ok(LearnResponse { err, .. }) => {
                    tracing::info!(%gpid, attempt, %err, "an invitation to learn that is no longer meant");
                }
                Err(error) => {
                    tracing::info!(%gpid, attempt, %error, "an invitation to learn is not confirmed");
                }
            }
        };
        call(ctx, primary, &RPC_LEARN, &question, options, self.me, done);
    }

    /// Whether this server may learn now, and does not yet.
    fn may_learn(&self, ctx: &Ctx<'_>, lesson: &Lesson) -> bool {
        let gpid = lesson.gpid;
        // A server that stops has let go of what it holds: it would make another one beside it.
        let busy = self.closing
            || self.opening.contains_key(&gpid)
            || self.is_waiting(gpid)
            || self.waits_for_a_dir(ctx.clock())
            // Comes back with its directory, whole: it is not to be replaced as one that is broken.
            || self.held(gpid).is_some_and(|held| self.dirs[held.data_dir].usable().is_none());
        let running = self.learners.get(&gpid).map(|(attempt, _)| *attempt);
        let is_new =
            running.map_or(self.learners.len() < LEARNERS_MAX, |attempt| attempt < lesson.attempt);
        !busy && is_new
    }

    /// Whether a replica is held that is not broken.
    fn is_sound(&self, ctx: &mut Ctx<'_>, gpid: Gpid) -> bool {
        let placed = self.board.placement.get(ctx, gpid);
        placed.is_some_and(|placed| placed.gate.status() != PartitionStatus::Error)
    }

    fn accept(&mut self, ctx: &mut Ctx<'_>, info: AppInfo, lesson: Lesson) {
        let gpid = lesson.gpid;
        if !self.may_learn(ctx, &lesson) {
            return;
        }
        self.stop_learning(ctx, gpid);
        if self.held(gpid).is_none() {
            return self.give_up_refused(ctx, gpid, move |stub, ctx, avoid| {
                let then = move |stub: &mut Self, ctx: &mut Ctx<'_>| stub.learn(ctx, lesson);
                // Its ballot is the primary's only when it has taken something from it.
                stub.create(ctx, (gpid, info, Ballot::ZERO), avoid, then);
            });
        }
        self.learn(ctx, lesson);
    }

    /// Makes a replica a learner, then asks the primary.
    fn learn(&mut self, ctx: &mut Ctx<'_>, lesson: Lesson) {
        let Some(held) = self.held(lesson.gpid) else { return };
        let host = held.host;
        if !self.is_sound(ctx, lesson.gpid) {
            // Nothing of it is worth anything: begin anew.
            return self.replace_broken(ctx, lesson);
        }
        let board = self.board.clone();
        ctx.post(host, &LPC_REPLICA_EVENT, move |host, ctx| {
            let begun = host.begin_learning(ctx, lesson.primary, lesson.ballot, lesson.attempt);
            match begun {
                Ok(position) => board.with(ctx, move |stub, ctx| stub.ask(ctx, lesson, position)),
                Err(verdict) => {
                    tracing::info!(gpid = %lesson.gpid, ?verdict, "not a learner");
                }
            }
        });
    }

    fn ask(&mut self, ctx: &mut Ctx<'_>, lesson: Lesson, position: Position) {
        let gpid = lesson.gpid;
        let running = self.learners.get(&gpid).map(|(attempt, _)| *attempt);
        if running.is_some_and(|attempt| attempt >= lesson.attempt) {
            return;
        }
        let Some(held) = self.held(gpid) else { return };
        let dir = layout::learn_dir(&held.dir);
        let home = self.factory.checkpoint_home().to_owned();
        let attempt = lesson.attempt;
        let (me, at) = ((self.me, self.options.link.me), (dir, home));
        let rate = self.copies.receive_rate(held.data_dir);
        let learner = Learner::start(ctx, me, lesson, position, at, rate);
        self.learners.insert(gpid, (attempt, learner));
    }

    /// Gives up what a replica was being learned by, if it was.
    pub(super) fn stop_learning(&mut self, ctx: &mut Ctx<'_>, gpid: Gpid) {
        if let Some((_, learner)) = self.learners.remove(&gpid) {
            ctx.close(learner);
            self.end_copy(ctx, gpid);
        }
    }

    /// A learner has done what it could.
    pub fn learned(&mut self, ctx: &mut Ctx<'_>, lesson: &Lesson, learned: Learned) {
        let gpid = lesson.gpid;
        if self.learners.get(&gpid).is_none_or(|(attempt, _)| *attempt != lesson.attempt) {
            return;
        }
        self.learners.remove(&gpid);
        self.end_copy(ctx, gpid);
        match learned {
            Learned::Stream => {}
            Learned::Failed(reason) => tracing::warn!(%gpid, reason, "learning broke off"),
            Learned::Checkpoint { dir, decree } => {
                self.replace(ctx, lesson.clone(), Some((dir, decree)));
            }
        }
    }

    fn replace_broken(&mut self, ctx: &mut Ctx<'_>, lesson: Lesson) {
        self.replace(ctx, lesson, None);
    }

    /// Closes a replica and opens another in its place, with the files of `learned`, or none; it learns on.
    fn replace(&mut self, ctx: &mut Ctx<'_>, lesson: Lesson, learned: Option<(PathBuf, Decree)>) {
        let Some((held, machine)) = self.let_go(ctx, lesson.gpid) else { return };
        self.opening.insert(lesson.gpid, held.data_dir);
        let former = Arc::downgrade(&machine);
        let swap = Swap { lesson, held, learned, former };
        let then = move |stub: &mut Self, (), ctx: &mut Ctx<'_>| stub.put_in_place(ctx, swap, 0);
        self.close_machines(ctx, vec![machine], |_| {}, then);
    }

    /// Opens the new replica once nobody holds on to the old one, whose files have the same names: a read that is under
    /// way, a worker that has not looked at the table of replicas since.
    fn put_in_place(&mut self, ctx: &mut Ctx<'_>, swap: Swap, looks: u32) {
        let gpid = swap.lesson.gpid;
        let is_open = self.dirs[swap.held.data_dir].usable().is_some();
        if is_open && swap.former.strong_count() > 0 && looks < LOOKS_MAX {
            ctx.after(self.me, &LPC_STUB_EVENT, LOOK_PAUSE, move |stub, ctx| {
                stub.put_in_place(ctx, swap, looks + 1);
            });
            return;
        }
        let Swap { lesson, held, learned, former } = swap;
        let (info, dir, index) = (held.info, held.dir, held.data_dir);
        let log = self.dirs[index].usable().cloned().filter(|_| former.strong_count() == 0);
        let Some(log) = log else {
            self.opening.remove(&gpid);
            let reason =
                "what was learned cannot take the place of what is still in use".to_owned();
            return self.wait_for_disk(ctx, gpid, (index, dir), reason, Some(former));
        };
        let (factory, ballot, place) = (self.factory.clone(), lesson.ballot, dir.clone());
        ctx.offload(
            &LPC_OPEN_REPLICA,
            move |job| {
                let learned = learned.as_ref().map(|(dir, decree)| (dir.as_path(), *decree));
                open_learned(job, &*factory, &log, &dir, learned, (gpid, &info, ballot))
                    .map_err(|reason| (reason, job.disk().exists(&dir)))
            },
            self.me,
            move |stub, opened, ctx| {
                stub.opening.remove(&gpid);
                match opened {
                    Ok(opened) => {
                        stub.hold(ctx, opened, index);
                        stub.learn(ctx, lesson);
                    }
                    Err((reason, is_there)) => {
                        tracing::error!(%gpid, reason, "what was learned cannot be opened");
                        if is_there {
                            stub.wait_for_disk(ctx, gpid, (index, place), reason, None);
                        }
                    }
                }
            },
        );
    }
}

/// The primary.
impl ReplicaStub {
    /// A learner says what it has, and asks what to do.
    pub(super) fn on_learn(&mut self, ctx: &mut Ctx<'_>, request: Request, replier: Replier) {
        let ask = match request.decode::<LearnRequest>() {
            Ok(ask) => ask,
            Err(error) => {
                tracing::warn!(peer = %request.peer, %error, "unreadable question of a learner");
                return replier.error(ctx, ErrorCode::InvalidParameters);
            }
        };
        let (Some(held), Some(learner)) = (self.held(ask.pid), node(ask.learner)) else {
            return replier.error(ctx, ErrorCode::ObjectNotFound);
        };
        if ask.only_confirms == Some(true) {
            ctx.post(held.host, &LPC_REPLICA_EVENT, move |host, ctx| {
                let state = LearnState::default();
                let mut answer = answer(ask.pid, LearnType::Invalid, state);
                if !host.invites(ctx, learner, ask.signature) {
                    answer.err = ErrorCode::ObjectNotFound;
                }
                replier.reply(ctx, &answer);
            });
            return;
        }
        let board = self.board.clone();
        let position = Position {
            decree: Decree(ask.last_committed_decree_in_app),
            fingerprint: ask.fingerprint.map(|which| which as u64),
        };
        ctx.post(held.host, &LPC_REPLICA_EVENT, move |host, ctx| {
            match host.on_learn(ctx, learner, ask.signature, position) {
                LearnAnswer::Stream => {
                    replier.reply(ctx, &answer(ask.pid, LearnType::Log, LearnState::default()));
                }
                LearnAnswer::Unknown => {
                    let state = LearnState::default();
                    let mut answer = answer(ask.pid, LearnType::Invalid, state);
                    answer.err = ErrorCode::ObjectNotFound;
                    replier.reply(ctx, &answer);
                }
                LearnAnswer::Checkpoint { fresh } => board.with(ctx, move |stub, ctx| {
                    stub.offer_checkpoint(ctx, ask.pid, (learner, ask.signature), fresh, replier);
                }),
            }
        });
    }

    /// Describes a checkpoint that is kept for a learner: the newest, or one that is made for it because the log does
    /// not go on after the newest (`fresh`). All of it is read for that, which may take longer than the learner waits:
    /// it asks again, and is told to wait.
    fn offer_checkpoint(
        &mut self,
        ctx: &mut Ctx<'_>,
        gpid: Gpid,
        (learner, attempt): (Node, i64),
        fresh: bool,
        replier: Replier,
    ) {
        let Some(placed) = self.board.placement.get(ctx, gpid) else {
            return replier.error(ctx, ErrorCode::ObjectNotFound);
        };
        let Some(held) = self.held(gpid) else {
            return replier.error(ctx, ErrorCode::ObjectNotFound);
        };
        let Some(log) = self.dirs[held.data_dir].log.clone() else {
            return replier.error(ctx, ErrorCode::ObjectNotFound);
        };
        let whom = (gpid, learner);
        if !fresh && let Some(state) = self.source.pinned(whom, attempt, ctx.now()) {
            return replier.reply(ctx, &answer(gpid, LearnType::App, state.clone()));
        }
        if !self.source.begin_describing(whom, attempt) {
            return replier.error(ctx, ErrorCode::Busy);
        }
        ctx.offload(
            &LPC_OPEN_REPLICA,
            move |job| -> Result<(PinnedCheckpoint, LearnState), String> {
                let machine = placed.gate.machine();
                let pin = || {
                    if fresh {
                        machine.checkpoint(job, CheckpointKind::Flush)?;
                    }
                    machine.pin_checkpoint(job)
                };
                let pinned = job.contain(pin).unwrap_or_else(|text| Err(panicked(&text)));
                let pinned = pinned.map_err(|error| error.to_string())?;
                // What comes after it must still be there when it is copied.
                log.keep_for_reader(gpid, pinned.decree.next());
                let state = describe(&**job.disk(), &pinned).map_err(|error| error.to_string())?;
                Ok((pinned, state))
            },
            self.me,
            move |stub, outcome, ctx| {
                stub.source.end_describing(whom, attempt);
                let described = outcome.map_err(|reason| {
                    tracing::warn!(%gpid, reason, "no checkpoint for a learner yet");
                    ErrorCode::GetLearnStateFailed
                });
                let pinned = described.and_then(|(pinned, state)| {
                    let from = pinned.decree.next();
                    stub.source.pin(whom, attempt, pinned, state.clone(), ctx.now())?;
                    stub.tell_pinned(ctx, gpid, learner, attempt, from);
                    Ok(state)
                });
                match pinned {
                    Ok(state) => replier.reply(ctx, &answer(gpid, LearnType::App, state)),
                    Err(error) => replier.error(ctx, error),
                }
            },
        );
    }
}

impl ReplicaStub {
    /// The log must keep what comes after a checkpoint for as long as its learner needs it.
    fn tell_pinned(
        &self,
        ctx: &mut Ctx<'_>,
        gpid: Gpid,
        learner: Node,
        attempt: i64,
        from: Decree,
    ) {
        if let Some(held) = self.held(gpid) {
            ctx.post(held.host, &LPC_REPLICA_EVENT, move |host, ctx| {
                host.on_learner_pinned(ctx, learner, attempt, from);
            });
        }
    }
}

dsn_core::task_codes! {
    /// Codes of this file.
    pub CODES;
    /// A block of a checkpoint is read for a learner.
    pub LPC_NFS_READ: Blocking, Low, "THREAD_POOL_REPLICATION_LONG";
}

fn answer(gpid: Gpid, learn_type: LearnType, state: LearnState) -> LearnResponse {
    let mut response =
        LearnResponse { err: ErrorCode::Ok, learn_type, state, ..LearnResponse::default() };
    response.config.pid = gpid;
    response
}
