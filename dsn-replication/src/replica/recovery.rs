//! A replica's way back from the log: which mutations its state machine still lacks, which of them are decided, and
//! whether anything is missing.
//!
//! Pure: fed by a replay in log order. A mutation is decided when a later one says so (`last_committed`); decided ones
//! are handed out in runs to be applied, the rest (at most a window's worth) is kept for whoever becomes primary.
//!
//! Decrees are dense. A hole below a decided decree is the loss of something acknowledged: the replica is put aside. A
//! hole where nothing was durable yet, left by a power loss under group sync, ends the log there instead, or brings
//! back what an earlier primary proposed for the same decree; either way the log is told so ([`Recovered::mend`]),
//! for the next restart could not tell any more what was durable when.

use crate::ids::{Ballot, Decree};
use crate::log::{LogBatch, Record, RecordKey, RecordKind};
use crate::mutation::{
    CodeTable, DecodeError, Mutation, decode_body, fingerprint, fingerprint_of_body,
};
use dsn_core::planted;
use dsn_rpc::gpid::Gpid;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// A run is handed out when it has this many mutations.
pub const RUN_MUTATIONS: usize = 256;

/// A run is handed out when its bodies have this many bytes.
pub const RUN_BYTES: usize = 1 << 20;

/// Most mutations that may be undecided. The window of a primary is much smaller.
pub const UNDECIDED_MAX: usize = 4096;

/// Why a replica cannot be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    /// A mutation is missing that others follow.
    #[error("the log has lost decree {0}")]
    Hole(Decree),
    /// Records of this replica may be missing at the end.
    #[error(
        "the log is damaged behind position {0}, and nothing tells that this replica lost nothing there"
    )]
    Gap(u64),
    /// A mutation cannot be read.
    #[error("decree {0}: {1}")]
    Undecodable(Decree, DecodeError),
    /// The log voids what was decided.
    #[error("the log voids decree {0}, which was decided")]
    Voided(Decree),
    /// More is undecided than a primary ever leaves.
    #[error("more than {UNDECIDED_MAX} mutations are undecided after {0}")]
    Undecided(Decree),
}

/// What a replica is brought back with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Highest ballot the log has of it.
    pub ballot: Ballot,
    /// Time stamp of the newest mutation.
    pub timestamp_us: u64,
    /// Mutations that follow the decided ones, without a hole: logged, and not known to be decided.
    pub undecided: Vec<Mutation>,
    /// The first decree of which something that was not durable is missing: see [`Recovered::mend`].
    pub damaged: Option<Decree>,
    /// More may be missing at the end, of which there is no sign: see [`Tails`](crate::log::Tails).
    pub uncertain: bool,
    /// The last of the decided mutations that the log has, by its fingerprint.
    pub newest_decided: Option<(Decree, u64)>,
}

impl Recovered {
    /// The highest undecided decree; [`Decree::NONE`] when there is none.
    #[must_use]
    pub fn prepared(&self) -> Decree {
        self.undecided.last().map_or(Decree::NONE, |mutation| mutation.decree)
    }

    /// Writes what is left of a damaged log's end anew. Must be durable before anything else is appended. What is whole
    /// stays where it is: a part of this may be lost.
    pub fn mend(&self, gpid: Gpid, log: &mut LogBatch) {
        if let Some(decree) = self.damaged {
            let ballot = self.ballot;
            log.truncate(RecordKey { gpid, ballot, decree, kind: RecordKind::Truncate });
            let again = self.undecided.iter().filter(|mutation| mutation.decree >= decree);
            again.for_each(|mutation| log.mutation(mutation));
        }
    }
}

/// See the module's header.
#[derive(Clone, Debug)]
pub struct Recovery {
    gpid: Gpid,
    codes: Arc<CodeTable>,
    /// Where it begins in the log.
    floor: u64,
    /// Everything up to here is in the state machine or has been handed out.
    decided: Decree,
    /// Everything up to here is decided, says the log, though something may be missing ...
    claimed: Decree,
    /// ... under this ballot.
    claimed_under: Ballot,
    /// The first place where something of the replica is missing, or may be.
    broken: Option<u64>,
    ballot: Ballot,
    timestamp_us: u64,
    /// Undecided mutations and where they are in the log.
    window: BTreeMap<Decree, (u64, Mutation)>,
    run: Vec<Mutation>,
    run_bytes: usize,
    /// Missing decrees and where they were.
    lost: BTreeMap<Decree, u64>,
    /// Those of the undecided mutations behind which something is missing, and where: a mark that voids them, or what
    /// a later primary put in their place.
    doubted: BTreeMap<Decree, u64>,
    newest_decided: Option<(Decree, u64)>,
    gap: Option<u64>,
    /// The log had the replica up to here, says this position.
    known: (Decree, u64),
    untrusted: Option<Untrusted>,
}

impl Recovery {
    /// A replica whose state machine has everything up to `applied`, and which is known to have used `ballot`. What the
    /// log has before position `floor` is a former replica's.
    #[must_use]
    pub fn new(
        gpid: Gpid,
        applied: Decree,
        (floor, ballot): (u64, Ballot),
        codes: Arc<CodeTable>,
    ) -> Self {
        Self {
            gpid,
            codes,
            floor,
            decided: applied,
            claimed: applied,
            claimed_under: Ballot::ZERO,
            broken: None,
            ballot,
            timestamp_us: 0,
            window: BTreeMap::new(),
            run: Vec::new(),
            run_bytes: 0,
            lost: BTreeMap::new(),
            doubted: BTreeMap::new(),
            newest_decided: None,
            gap: None,
            known: (applied, 0),
            untrusted: None,
        }
    }

    /// The log has a mutation.
    pub fn record(&mut self, record: &Record) {
        let key = record.key;
        self.ballot = self.ballot.max(key.ballot);
        self.gap = None;
        if self.untrusted.is_none() && key.decree == self.decided {
            // What the state machine had before; the last version of it counts.
            self.newest_decided =
                fingerprint_of_body(&record.payload).map(|which| (key.decree, which));
        }
        if self.untrusted.is_some() || key.decree <= self.decided {
            return;
        }
        let decoded = decode_body(self.gpid, key.ballot, key.decree, &record.payload, &self.codes);
        let mutation = match decoded {
            Ok(mutation) => mutation,
            Err(error) => return self.distrust(Untrusted::Undecodable(key.decree, error)),
        };
        self.timestamp_us = self.timestamp_us.max(mutation.timestamp_us);
        let decided = mutation.last_committed;
        let stale = self.window.get(&key.decree).is_some_and(|(_, old)| old.ballot > key.ballot);
        if !stale {
            // What a former primary proposed beyond this stays: it may be decided, and is proposed again, unless the
            // log voids it.
            self.lost.remove(&key.decree);
            self.doubted.remove(&key.decree);
            self.window.insert(key.decree, (record.position, mutation));
        }
        if decided > self.claimed {
            (self.claimed, self.claimed_under) = (decided, key.ballot);
        }
        self.decide();
    }

    fn decide(&mut self) {
        while self.decided < self.claimed {
            let next = self.decided.next();
            // Decided, and not there: a loss, or a learner that had it written but not synced. See `finish`.
            if self.lost.contains_key(&next) {
                break;
            }
            let Some((_, mutation)) = self.window.get(&next) else { break };
            // What is decided under the ballot that it has here is the same; under a later one it may be another.
            if let Some(position) = self.doubted.remove(&next)
                && mutation.ballot < self.claimed_under
            {
                self.lost.insert(next, position);
                break;
            }
            let Some((_, mutation)) = self.window.remove(&next) else { break };
            self.run_bytes += mutation.body_bytes();
            self.run.push(mutation);
            self.decided = next;
        }
        if self.window.len() > UNDECIDED_MAX {
            self.distrust(Untrusted::Undecided(self.decided));
        }
    }

    /// The log knows this ballot.
    pub fn ballot(&mut self, ballot: Ballot) {
        self.ballot = self.ballot.max(ballot);
    }

    /// The log voids what it has from `from` on. No mark stands behind a record of a higher ballot than its own, which
    /// it would have to spare: a replica's ballot never goes down while it writes, its marks have it, and a restart
    /// goes on from the highest that the log tells, those of marks included.
    pub fn truncate(&mut self, from: Decree) {
        if from <= self.decided {
            return self.distrust(Untrusted::Voided(from));
        }
        self.window.split_off(&from);
        self.lost.split_off(&from);
        self.doubted.split_off(&from);
        self.gap = None;
        self.claimed = self.claimed.min(from.prev());
        // Whatever else was missing before does not matter any more.
        self.broken = self.lost.values().chain(self.doubted.values()).copied().min();
        self.known.0 = self.known.0.min(from.prev());
    }

    /// The log lacks a record.
    pub fn lost(&mut self, decree: Decree, position: u64) {
        if decree > self.decided && position >= self.floor {
            self.broken = Some(self.broken.map_or(position, |first| first.min(position)));
            self.lost.insert(decree, position);
        }
    }

    /// The log may lack anything that began here.
    pub fn gap(&mut self, range: Range<u64>) {
        if range.end <= self.floor {
            return;
        }
        let position = range.start.max(self.floor);
        self.gap.get_or_insert(position);
        for decree in self.window.keys() {
            self.doubted.entry(*decree).or_insert(position);
        }
        self.broken = Some(self.broken.map_or(position, |first| first.min(position)));
    }

    /// The log says how far it had the replica.
    pub fn summary(&mut self, max: Decree, position: u64) {
        if position < self.floor {
            return;
        }
        self.gap = None;
        if max > self.known.0 {
            self.known = (max, position);
        }
    }

    /// A run that is to be applied now; `None` while it may still grow.
    pub fn full_run(&mut self) -> Option<Vec<Mutation>> {
        let full = self.run.len() >= RUN_MUTATIONS || self.run_bytes >= RUN_BYTES;
        full.then(|| self.take_run())
    }

    /// Whatever is to be applied.
    pub fn take_run(&mut self) -> Vec<Mutation> {
        self.run_bytes = 0;
        if let Some(last) = self.run.last() {
            self.newest_decided = Some((last.decree, fingerprint(last)));
        }
        std::mem::take(&mut self.run)
    }

    /// The log has ended. `tails` is where power losses may have left anything, see
    /// [`Opened::tail`](crate::log::Opened::tail).
    ///
    /// # Errors
    /// [`Untrusted`]: something acknowledged is missing, or may be.
    pub fn finish(mut self, tails: &[Range<u64>]) -> Result<Recovered, Untrusted> {
        if let Some(untrusted) = self.untrusted {
            return Err(untrusted);
        }
        let forgiven = |position: u64| tails.iter().any(|tail| tail.contains(&position));
        let mut undecided = Vec::new();
        let mut end = self.decided;
        if planted::has("undecided_dropped") {
            self.window.clear();
        }
        let first = self.decided.next();
        let mut damaged = (self.claimed > self.decided).then_some(first);
        while let Some((_, mutation)) = self.window.remove(&end.next()) {
            if let Some(position) = self.lost.get(&mutation.decree) {
                // An older version stands in for one that was not durable, and so was never acknowledged.
                if !forgiven(*position) {
                    return Err(Untrusted::Hole(mutation.decree));
                }
                damaged = damaged.or(Some(mutation.decree));
            }
            end = mutation.decree;
            undecided.push(mutation);
        }
        // A learner's log may say that something is decided which was not synced here yet; it was never acknowledged.
        if self.claimed > self.decided && !self.broken.is_some_and(forgiven) {
            return Err(Untrusted::Hole(self.decided.next()));
        }
        let beyond = self.window.values().map(|(position, _)| *position);
        let mut missing: Vec<u64> =
            self.lost.range(end.next()..).map(|(_, at)| *at).chain(beyond).collect();
        if self.known.0 > end {
            missing.push(self.known.1);
        }
        if !missing.iter().all(|position| forgiven(*position)) {
            return Err(Untrusted::Hole(end.next()));
        }
        if let Some(position) = self.gap.filter(|position| !forgiven(*position)) {
            return Err(Untrusted::Gap(position));
        }
        let ends_here = self.gap.is_some() || !missing.is_empty();
        let damaged = damaged.or(ends_here.then_some(end.next()));
        let uncertain = false;
        // Whoever is doubted is told anew, or a later restart would take it for lost when it has been decided.
        let doubted = self.doubted.range(first..).find(|(_, position)| forgiven(**position));
        let doubted = doubted.map(|(decree, _)| *decree);
        Ok(Recovered {
            uncertain,
            ballot: self.ballot,
            timestamp_us: self.timestamp_us,
            undecided,
            damaged: damaged.into_iter().chain(doubted).min(),
            newest_decided: self.newest_decided,
        })
    }

    fn distrust(&mut self, why: Untrusted) {
        self.untrusted.get_or_insert(why);
        self.window.clear();
        self.lost.clear();
        self.doubted.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutation::encode_body;
    use bytes::BytesMut;

    /// A power loss may have left anything of the log from a position on.
    fn torn_from(position: u64) -> Vec<Range<u64>> {
        std::iter::once(position..u64::MAX).collect()
    }

    fn record(ballot: i64, decree: i64, committed: i64) -> Record {
        let mutation = Mutation {
            gpid: Gpid::new(1, 1),
            ballot: Ballot(ballot),
            decree: Decree(decree),
            last_committed: Decree(committed),
            timestamp_us: (1000 * decree + ballot) as u64,
            stamp: 0,
            requests: Vec::new(),
        };
        let mut payload = BytesMut::new();
        encode_body(&mutation, &mut payload);
        let key = RecordKey {
            gpid: mutation.gpid,
            ballot: mutation.ballot,
            decree: mutation.decree,
            kind: RecordKind::Mutation,
        };
        Record { key, position: 100 * decree as u64, payload: payload.freeze() }
    }

    fn recovery(applied: i64) -> Recovery {
        let codes = Arc::new(CodeTable::default());
        Recovery::new(Gpid::new(1, 1), Decree(applied), (0, Ballot::ZERO), codes)
    }

    fn fed(applied: i64, records: &[(i64, i64, i64)]) -> Recovery {
        let mut recovery = recovery(applied);
        for (ballot, decree, committed) in records {
            recovery.record(&record(*ballot, *decree, *committed));
        }
        recovery
    }

    fn decrees(mutations: &[Mutation]) -> Vec<i64> {
        mutations.iter().map(|mutation| mutation.decree.0).collect()
    }

    #[test]
    fn decided_mutations_are_applied_and_the_rest_is_kept() {
        let mut recovery = fed(1, &[(1, 1, 0), (1, 2, 1), (1, 3, 2), (1, 4, 2), (1, 5, 3)]);
        assert_eq!(recovery.full_run(), None);
        assert_eq!(decrees(&recovery.take_run()), [2, 3]);
        let recovered = recovery.finish(&[]).unwrap();
        assert_eq!(decrees(&recovered.undecided), [4, 5]);
        assert_eq!((recovered.ballot, recovered.timestamp_us), (Ballot(1), 5001));
        assert_eq!(recovered.damaged, None);
    }

    #[test]
    fn a_later_primary_replaces_what_was_not_decided() {
        let log = [(1, 1, 0), (1, 2, 0), (1, 3, 0), (2, 2, 1), (2, 3, 1)];
        let recovered = fed(0, &log).finish(&[]).unwrap();
        let ballots: Vec<_> =
            recovered.undecided.iter().map(|m| (m.decree.0, m.ballot.0)).collect();
        assert_eq!(ballots, [(2, 2), (3, 2)]);
        let mut half = fed(0, &[(1, 1, 0), (1, 2, 0), (1, 3, 0), (2, 2, 1)]);
        let recovered = half.clone().finish(&[]).unwrap();
        assert_eq!(decrees(&recovered.undecided), [2, 3], "the old 3 may be decided");
        half.truncate(Decree(3));
        assert_eq!(decrees(&half.finish(&[]).unwrap().undecided), [2], "declared void");
    }

    /// Bug 36: a decree that is missing from the log ends the process.
    #[test]
    fn a_hole_is_a_loss() {
        let hole = Err(Untrusted::Hole(Decree(2)));
        assert_eq!(fed(0, &[(1, 1, 0), (1, 3, 1)]).finish(&[]), hole);
        assert_eq!(fed(0, &[(1, 1, 0), (1, 3, 2)]).finish(&torn_from(0)), hole, "decided");
        assert_eq!(fed(1, &[(1, 3, 1)]).finish(&[]), hole, "collected too early");
        let mut named = fed(0, &[(1, 1, 0)]);
        named.lost(Decree(2), 200);
        assert_eq!(named.finish(&[]), hole);
        let mut known = fed(0, &[(1, 1, 0)]);
        known.summary(Decree(2), 999);
        assert_eq!(known.finish(&[]), hole);
    }

    #[test]
    fn a_hole_where_nothing_was_durable_ends_the_log() {
        let mut torn = fed(0, &[(1, 1, 0)]);
        torn.lost(Decree(2), 200);
        torn.record(&record(1, 3, 0));
        let recovered = torn.finish(&torn_from(150)).unwrap();
        assert_eq!(decrees(&recovered.undecided), [1]);
        assert_eq!(recovered.damaged, Some(Decree(2)), "1 stays where it is");
        let mut durable = fed(0, &[(1, 1, 0)]);
        durable.lost(Decree(2), 200);
        assert_eq!(durable.finish(&torn_from(250)), Err(Untrusted::Hole(Decree(2))));
    }

    #[test]
    fn what_was_voided_does_not_come_back() {
        let mut recovery = fed(0, &[(1, 1, 0), (1, 2, 0)]);
        recovery.lost(Decree(3), 300);
        recovery.record(&record(1, 4, 0));
        recovery.truncate(Decree(3));
        recovery.record(&record(2, 3, 2));
        let recovered = recovery.finish(&[]).unwrap();
        assert_eq!(decrees(&recovered.undecided), [3]);
        let mut wrong = fed(0, &[(1, 1, 0), (1, 2, 1)]);
        wrong.truncate(Decree(1));
        assert_eq!(wrong.finish(&[]), Err(Untrusted::Voided(Decree(1))));
    }

    #[test]
    fn a_gap_clears_who_is_seen_behind_it() {
        let mut silent = fed(0, &[(1, 1, 0)]);
        silent.gap(150..200);
        assert_eq!(silent.finish(&[]), Err(Untrusted::Gap(150)));
        let mut seen = fed(0, &[(1, 1, 0)]);
        seen.gap(150..200);
        seen.record(&record(1, 2, 1));
        assert!(seen.finish(&[]).is_ok());
        let mut summed = fed(0, &[(1, 1, 0)]);
        summed.gap(150..200);
        summed.summary(Decree(1), 500);
        assert!(summed.finish(&[]).is_ok());
        let mut torn = fed(0, &[(1, 1, 0)]);
        torn.gap(150..200);
        let torn = torn.finish(&torn_from(150)).unwrap();
        assert_eq!(torn.damaged, Some(Decree(1)), "a later version of it may have been there");
    }

    /// A primary proposes 2 and 3, and is killed; another one proposes others, of which this log has lost the first,
    /// and the mark that voids those.
    #[test]
    fn what_stands_before_a_gap_is_not_what_a_later_primary_decided() {
        let mut log = fed(0, &[(1, 1, 0), (1, 2, 1), (1, 3, 1)]);
        log.gap(350..380);
        let mut same = log.clone();
        same.record(&record(1, 4, 2));
        assert_eq!(decrees(&same.take_run()), [1, 2], "the same primary goes on");
        assert_eq!(decrees(&same.finish(&[]).unwrap().undecided), [3, 4]);
        log.record(&record(2, 3, 2));
        assert_eq!(decrees(&log.take_run()), [1], "whose 2 was decided is not known");
        assert_eq!(log.clone().finish(&[]), Err(Untrusted::Hole(Decree(2))));
        let torn = log.clone().finish(&torn_from(340)).unwrap();
        assert_eq!(decrees(&torn.undecided), [2, 3], "it was not durable that 2 is void");
        assert_eq!(torn.damaged, Some(Decree(2)));
        let mut void = log.clone();
        void.truncate(Decree(2));
        void.record(&record(3, 2, 1));
        void.record(&record(3, 3, 2));
        assert_eq!(decrees(&void.take_run()), [2], "told anew");
        log.record(&record(3, 2, 2));
        assert_eq!(decrees(&log.take_run()), [2], "told anew");
    }

    #[test]
    fn what_is_missing_of_a_former_replica_does_not_matter() {
        let codes = Arc::new(CodeTable::default());
        let new = |range: Range<u64>| {
            let mut new =
                Recovery::new(Gpid::new(1, 1), Decree(9), (150, Ballot::ZERO), codes.clone());
            new.gap(range);
            new.finish(&[])
        };
        assert!(new(50..150).is_ok());
        assert_eq!(new(50..151), Err(Untrusted::Gap(150)), "it may have lost its first record");
        assert_eq!(new(160..u64::MAX), Err(Untrusted::Gap(160)));
        let mut former = Recovery::new(Gpid::new(1, 1), Decree(9), (150, Ballot::ZERO), codes);
        former.lost(Decree(11), 149);
        former.summary(Decree(11), 149);
        assert!(former.finish(&[]).is_ok());
    }

    #[test]
    fn a_lost_record_that_was_replaced_or_applied_does_no_harm() {
        let mut applied = recovery(5);
        applied.lost(Decree(4), 400);
        assert!(applied.finish(&[]).is_ok());
        let mut again = fed(0, &[(1, 1, 0)]);
        again.lost(Decree(2), 200);
        again.record(&record(2, 2, 1));
        assert_eq!(decrees(&again.finish(&[]).unwrap().undecided), [2]);
        let mut newer = fed(0, &[(1, 1, 0), (1, 2, 0)]);
        newer.lost(Decree(2), 300);
        assert_eq!(
            newer.clone().finish(&[]),
            Err(Untrusted::Hole(Decree(2))),
            "acknowledged, maybe"
        );
        let recovered = newer.finish(&torn_from(250)).unwrap();
        assert_eq!(decrees(&recovered.undecided), [1, 2], "what an earlier primary proposed");
        assert_eq!(recovered.damaged, Some(Decree(2)));
    }

    #[test]
    fn runs_are_bounded() {
        let mut recovery = recovery(0);
        for decree in 1..=RUN_MUTATIONS as i64 {
            recovery.record(&record(1, decree, decree - 1));
            assert_eq!(recovery.full_run(), None);
        }
        recovery.record(&record(1, RUN_MUTATIONS as i64 + 1, RUN_MUTATIONS as i64));
        assert_eq!(recovery.full_run().unwrap().len(), RUN_MUTATIONS);
    }
}
