//! What a learner lacks, read from the primary's log.
//!
//! A log has a decree again for each primary that proposed it, and voids what was never the group's; only what is
//! decided is handed out. Everything up to the primary's commit point stands in its log for the last time already, so
//! the version of the highest ballot counts, as soon as a later record says that its decree was decided or the log
//! ends. (The last one need not be it: after a failed sync a log may have a record of an old ballot again, behind newer
//! ones.)

use crate::ids::{Ballot, Decree};
use crate::log::{LogError, Record, RecordKind, SharedLog};
use crate::mutation::{fingerprint_of_body, last_committed};
use crate::replica::message::Body;
use dsn_rpc::gpid::Gpid;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// Decided mutations that follow each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Their bodies.
    pub bodies: Vec<Body>,
    /// Where in the log to go on reading.
    pub position: u64,
}

/// Reads the mutations after `after`, none beyond `upto` (the primary's commit point), until they have `bytes_max`
/// bytes; at least one, if there is any. `position` is where the last chunk ended, or 0. With `proof`, nothing is
/// handed out unless the mutation `after` itself is there and has this fingerprint. Blocks.
///
/// # Errors
/// Of the log. A log that begins later, or has another history, gives an empty chunk.
pub fn read_decided(
    log: &SharedLog,
    gpid: Gpid,
    (after, upto): (Decree, Decree),
    proof: Option<u64>,
    position: u64,
    bytes_max: usize,
) -> Result<Chunk, LogError> {
    let from = if proof.is_some() { after } else { after.next() };
    // What proves the history is not handed out, and does not count.
    let mut reading = Reading {
        next: from,
        after,
        upto,
        window: BTreeMap::new(),
        chunk: Chunk { bodies: Vec::new(), position },
        bytes: 0,
    };
    log.walk(gpid, from, position, |record| {
        match record {
            Some(record) => reading.record(record),
            None => reading.window.clear(),
        }
        if reading.bytes < bytes_max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    if reading.bytes < bytes_max {
        // The log ends here: what it has up to the commit point is final.
        reading.decide(upto);
    }
    let mut chunk = reading.chunk;
    if let Some(proof) = proof {
        let same = chunk.bodies.first().and_then(|body| fingerprint_of_body(body)) == Some(proof);
        chunk.bodies.drain(..if same { 1 } else { chunk.bodies.len() });
    }
    Ok(chunk)
}

struct Reading {
    next: Decree,
    after: Decree,
    upto: Decree,
    /// The version of the highest ballot of each decree, and where it stands.
    window: BTreeMap<Decree, (Ballot, u64, Body)>,
    chunk: Chunk,
    bytes: usize,
}

impl Reading {
    fn record(&mut self, record: Record) {
        let decree = record.key.decree;
        match record.key.kind {
            RecordKind::Truncate => drop(self.window.split_off(&decree)),
            RecordKind::Mutation if decree >= self.next => {
                let decided = last_committed(&record.payload);
                let ballot = record.key.ballot;
                if self.window.get(&decree).is_none_or(|(newest, ..)| *newest <= ballot) {
                    self.window.insert(decree, (ballot, record.position, record.payload));
                }
                self.decide(decided);
            }
            RecordKind::Mutation | RecordKind::Footer => {}
        }
    }

    fn decide(&mut self, decided: Decree) {
        while self.next <= decided.min(self.upto)
            && let Some((_, position, body)) = self.window.remove(&self.next)
        {
            if self.next > self.after {
                self.bytes += body.len();
            }
            self.chunk.bodies.push(body);
            // What is still undecided stands before what was decided last, maybe.
            let open = self.window.values().map(|(_, position, _)| *position).min();
            self.chunk.position = open.unwrap_or(position).min(position);
            self.next = self.next.next();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::RecordKey;
    use crate::mutation::{Mutation, encode_body};
    use bytes::BytesMut;

    fn record(ballot: i64, decree: i64, position: u64) -> Record {
        let mutation = Mutation {
            gpid: Gpid::new(1, 1),
            ballot: Ballot(ballot),
            decree: Decree(decree),
            last_committed: Decree(decree - 1),
            timestamp_us: position,
            stamp: 0,
            requests: Vec::new(),
        };
        let mut payload = BytesMut::new();
        encode_body(&mutation, &mut payload);
        let (gpid, kind) = (mutation.gpid, RecordKind::Mutation);
        let key = RecordKey { gpid, ballot: mutation.ballot, decree: mutation.decree, kind };
        Record { key, position, payload: payload.freeze() }
    }

    /// A log whose sync failed is opened again, and has a record twice: where it was, and behind what came after.
    #[test]
    fn a_record_of_an_old_ballot_behind_newer_ones_is_not_handed_out() {
        let chunk = Chunk { bodies: Vec::new(), position: 0 };
        let (next, upto) = (Decree(23), Decree(24));
        let after = next.prev();
        let mut reading = Reading { next, after, upto, window: BTreeMap::new(), chunk, bytes: 0 };
        let newest = record(10, 23, 200);
        for record in [record(9, 23, 100), newest.clone(), record(9, 23, 300), record(10, 24, 400)]
        {
            reading.record(record);
        }
        assert_eq!(reading.chunk.bodies, [newest.payload]);
    }
    /// A large one would leave no room for what is asked for, and the log would seem to lack that.
    #[test]
    fn what_proves_the_history_takes_no_room() {
        let chunk = Chunk { bodies: Vec::new(), position: 0 };
        let (next, upto) = (Decree(23), Decree(24));
        let (after, window) = (next, BTreeMap::new());
        let mut reading = Reading { next, after, upto, window, chunk, bytes: 0 };
        for decree in [23, 24] {
            reading.record(record(9, decree, 10 * decree as u64));
        }
        assert_eq!((reading.chunk.bodies.len(), reading.bytes), (1, 0));
        reading.decide(upto);
        assert_eq!(reading.bytes, reading.chunk.bodies[1].len());
    }
}
