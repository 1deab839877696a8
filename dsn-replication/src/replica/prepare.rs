//! A prepare arrives: a member or learner takes what the primary orders.
//!
//! Order is everything: a mutation is taken only when it follows what was taken before, so the log of a member has no
//! holes and one number acknowledges all. What does not follow is answered with where to go on. A mutation that was
//! taken under an older ballot is taken again under the new one; until then it stays, since it may be decided.

use super::message::{Ack, Effect, Effects, Prepare, Verdict};
use super::state::{Follow, GivenUp, Role};
use super::{Entry, Node, Replica};
use crate::ids::{Ballot, Decree};
use crate::log::LogBatch;
use crate::mutation::{Mutation, decode_body};
use dsn_core::planted;

/// Most mutations that a member takes and has not applied; the primary sends the rest again later.
pub const BACKLOG_MAX: usize = 4096;

/// Bytes of mutations taken and not applied after which a member takes no more.
pub const BACKLOG_BYTES: usize = 64 << 20;

impl Replica {
    /// The primary at `from` has sent something. What was given up is returned: a deposed primary may hear of its
    /// successor this way.
    pub fn on_prepare(
        &mut self,
        from: Node,
        prepare: &Prepare,
        log: &mut LogBatch,
        out: &mut Effects,
    ) -> GivenUp {
        let mut given_up = GivenUp::default();
        let verdict = match self.admit_prepare(from, prepare) {
            Ok(adopt) => {
                if adopt {
                    given_up = self.give_up();
                    self.adopt(from, prepare, log);
                }
                self.take(prepare, log)
            }
            Err(verdict) => verdict,
        };
        if verdict == Verdict::Outdated {
            // The sender will learn from the answer; there may be something to learn for this one as well.
            tracing::debug!(gpid = %self.gpid, %from, "a prepare of an old ballot");
        }
        if let Role::Secondary(follow) | Role::Learner(follow) = &mut self.role
            && verdict == Verdict::Taken
        {
            // Mutations are acknowledged when they are logged.
            let early = planted::has("member_acks_before_log");
            follow.owes |= prepare.bodies.is_empty() || follow.taken <= self.logged || early;
            return given_up;
        }
        let ack = self.ack(verdict, prepare.attempt, prepare.seq);
        out.push(Effect::Ack(from, ack));
        given_up
    }

    /// Whether a prepare concerns this replica; whether it must adopt ballot or primary first.
    fn admit_prepare(&self, from: Node, prepare: &Prepare) -> Result<bool, Verdict> {
        if prepare.ballot < self.ballot && !planted::has("ballot_ignored") {
            return Err(Verdict::Outdated);
        }
        let same_ballot = prepare.ballot == self.ballot;
        match &self.role {
            Role::Failed(_) => Err(Verdict::Refused),
            Role::Primary(_) if same_ballot => Err(Verdict::Refused),
            Role::Learner(follow) if prepare.attempt != 0 => {
                let expected = follow.attempt == prepare.attempt && follow.primary == from;
                if expected { Ok(!same_ballot) } else { Err(Verdict::Refused) }
            }
            _ if prepare.attempt != 0 => Err(Verdict::Refused),
            Role::Secondary(follow) if same_ballot => {
                if follow.primary == from {
                    Ok(false)
                } else {
                    Err(Verdict::Refused)
                }
            }
            // A learner becomes a member under a higher ballot only.
            Role::Learner(_) if same_ballot => Err(Verdict::Refused),
            // A primary has whatever is decided, or it has lost something since.
            _ if !same_ballot && prepare.takeover < self.known_decided() => Err(Verdict::Ahead),
            // What it acknowledged before may be gone: it has to learn first, all that is there. That it was invited by
            // somebody says nothing: a former primary may have sent that, or it may be a copy of an old invitation. The
            // same holds for one that was made anew for such an invitation, in the place of a member that is gone.
            // (Of a replica that was made anew nothing is uncertain, but no member has less than what is decided.)
            Role::Inactive
                if self.uncertain || prepare.reach(self.prepared) < prepare.committed =>
            {
                Err(Verdict::Refused)
            }
            Role::Learner(_) if !self.is_completed_by(prepare) => Err(Verdict::Refused),
            _ => Ok(true),
        }
    }

    /// Whether a learner has all that is, or may be, decided once it has taken `prepare`, which makes it a member.
    fn is_completed_by(&self, prepare: &Prepare) -> bool {
        let inherits = match &self.role {
            Role::Learner(follow) => follow.inherits.min(self.prepared),
            _ => Decree::ZERO,
        };
        // What is beyond the takeover is void.
        let taken = self.taken_so_far().max(inherits).min(prepare.takeover.max(self.committed));
        let needed = prepare.committed.max(prepare.takeover);
        prepare.first <= taken.next() && prepare.reach(taken) >= needed
    }

    /// Everything up to here is decided, whether it has arrived or not.
    fn known_decided(&self) -> Decree {
        self.committed.max(self.decided)
    }

    fn adopt(&mut self, from: Node, prepare: &Prepare, log: &mut LogBatch) {
        let inherits = match &self.role {
            Role::Learner(follow) if prepare.attempt != 0 => follow.inherits.max(follow.taken),
            // A member has acknowledged it.
            _ => Decree::MAX,
        };
        let follow = Follow {
            primary: from,
            attempt: prepare.attempt,
            taken: Decree::ZERO,
            inherits,
            seq: 0,
            owes: false,
        };
        // Under the same ballot, what is beyond the takeover came after it.
        let newer = prepare.ballot > self.ballot;
        let keep = if newer { prepare.takeover } else { self.prepared };
        self.follow(prepare.ballot, keep, follow, log);
    }

    /// An invitation to learn, as `attempt`, from the primary at `from`. What is not decided here is not this
    /// replica's to keep.
    ///
    /// # Errors
    /// The verdict to answer with: an old ballot or attempt, a member that knows better, a broken replica.
    pub fn begin_learning(
        &mut self,
        from: Node,
        ballot: Ballot,
        attempt: i64,
        log: &mut LogBatch,
    ) -> Result<GivenUp, Verdict> {
        if ballot < self.ballot {
            return Err(Verdict::Outdated);
        }
        match &self.role {
            Role::Failed(_) => return Err(Verdict::Refused),
            Role::Learner(follow) if follow.attempt >= attempt && follow.primary == from => {
                return if follow.attempt == attempt {
                    Ok(GivenUp::default())
                } else {
                    Err(Verdict::Outdated)
                };
            }
            Role::Primary(_) | Role::Secondary(_) if ballot == self.ballot => {
                return Err(Verdict::Refused);
            }
            _ => {}
        }
        let given_up = self.give_up();
        let same_ballot = ballot == self.ballot;
        let mine = match same_ballot {
            true => self.find_taken(),
            false if planted::has("learner_keeps_undecided") => self.prepared,
            false => self.committed,
        };
        let inherits = mine.max(self.decided.min(self.prepared));
        // What came from this very primary stays, though what is before it stands under an older ballot: it was decided
        // once, and the log need not tell. The invitation may be a copy that comes after a restart, and all of it may
        // have been acknowledged. (It also keeps the log's word good: a record that is on its way there must not be
        // taken for a later one of the same ballot and decree.)
        let keep = if same_ballot { inherits.max(self.newest_of_ballot()) } else { inherits };
        let taken = Decree::ZERO;
        let follow = Follow { primary: from, attempt, taken, inherits, seq: 0, owes: false };
        self.follow(ballot, keep, follow, log);
        Ok(given_up)
    }

    /// Takes what follows.
    fn take(&mut self, prepare: &Prepare, log: &mut LogBatch) -> Verdict {
        let (Role::Secondary(follow) | Role::Learner(follow)) = &mut self.role else {
            return Verdict::Refused;
        };
        follow.seq = follow.seq.max(prepare.seq);
        self.decided = self.decided.max(prepare.committed);
        self.commit_following();
        let mut taken = self.taken_so_far();
        if prepare.first > taken.next() {
            return Verdict::Gap;
        }
        let mut decree = prepare.first;
        for body in &prepare.bodies {
            if decree > taken {
                if decree.since(self.applied) > BACKLOG_MAX || self.held_bytes >= BACKLOG_BYTES {
                    break;
                }
                let decoded = decode_body(self.gpid, self.ballot, decree, body, &self.codes);
                let mutation = match decoded {
                    Ok(mutation) => mutation,
                    Err(error) => {
                        tracing::error!(gpid = %self.gpid, %decree, %error, "a mutation cannot be read");
                        return Verdict::Refused;
                    }
                };
                self.put(mutation, body.clone(), log);
                taken = decree;
            }
            decree = decree.next();
        }
        if let Role::Secondary(follow) | Role::Learner(follow) = &mut self.role {
            follow.taken = taken;
        }
        Verdict::Taken
    }

    /// Puts a mutation into the window, where an older version of it may stand, and into the log.
    fn put(&mut self, mutation: Mutation, body: bytes::Bytes, log: &mut LogBatch) {
        log.body(&mutation, &body);
        self.timestamp_us = self.timestamp_us.max(mutation.timestamp_us);
        let entry = Entry { mutation, tickets: Vec::new(), body: Some(body) };
        match self.place(entry.mutation.decree) {
            Some(index) if index < self.window.len() => {
                self.held_bytes += entry.bytes();
                let former = std::mem::replace(&mut self.window[index], entry);
                self.held_bytes -= former.bytes();
            }
            _ => {
                self.prepared = entry.mutation.decree;
                self.held_bytes += entry.bytes();
                self.window.push_back(entry);
            }
        }
    }

    fn taken_so_far(&self) -> Decree {
        match &self.role {
            Role::Secondary(follow) | Role::Learner(follow) => follow.taken.max(self.committed),
            _ => self.committed,
        }
    }

    /// Everything up to here was taken under the ballot in force, or is decided; found by looking.
    pub(super) fn find_taken(&self) -> Decree {
        let mut taken = self.committed;
        let from = self.place(taken.next()).unwrap_or(self.window.len());
        for entry in self.window.iter().skip(from) {
            if entry.mutation.ballot != self.ballot {
                break;
            }
            taken = entry.mutation.decree;
        }
        taken
    }

    /// The highest decree that is held under the ballot in force, whatever is before it.
    fn newest_of_ballot(&self) -> Decree {
        let newest = self.window.iter().rev().find(|entry| entry.mutation.ballot == self.ballot);
        newest.map_or(Decree::NONE, |entry| entry.mutation.decree)
    }

    /// Decides what the primary says is decided, as far as it is logged here. What stands under an older ballot was
    /// logged then, and is what was decided, as far as [`Follow::inherits`] goes.
    pub(super) fn commit_following(&mut self) {
        let (Role::Secondary(follow) | Role::Learner(follow)) = &self.role else { return };
        let inherits = follow.inherits;
        while self.committed < self.decided {
            let next = self.committed.next();
            let entry = self.place(next).and_then(|index| self.window.get(index));
            let Some(entry) = entry else { break };
            let counts = match entry.mutation.ballot == self.ballot {
                true => next <= self.logged,
                false => next <= inherits,
            };
            if !counts {
                break;
            }
            self.committed = next;
        }
        self.logged = self.logged.max(self.committed);
    }

    /// The acknowledgement that is due, if any.
    pub fn due_ack(&mut self, out: &mut Effects) {
        let (Role::Secondary(follow) | Role::Learner(follow)) = &mut self.role else { return };
        if std::mem::take(&mut follow.owes) {
            let (primary, attempt, seq) = (follow.primary, follow.attempt, follow.seq);
            out.push(Effect::Ack(primary, self.ack(Verdict::Taken, attempt, seq)));
        }
    }

    fn ack(&self, verdict: Verdict, attempt: i64, seq: u64) -> Ack {
        let early = planted::has("member_acks_before_log");
        let logged = match verdict {
            Verdict::Ahead => self.known_decided(),
            Verdict::Gap => self.taken_so_far(),
            _ if early => self.taken_so_far(),
            _ => self.logged,
        };
        Ack {
            gpid: self.gpid,
            ballot: self.ballot,
            attempt,
            seq,
            verdict,
            logged,
            applied: self.applied,
            // The host knows.
            disk_is_full: false,
        }
    }
}
