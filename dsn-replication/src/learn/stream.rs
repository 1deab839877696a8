//! What a learner lacks, read from the primary's log.
//!
//! A log has a decree again for each primary that proposed it, and voids what was never the group's; only what is
//! decided is handed out. Everything up to the primary's commit point stands in its log for the last time already, so
//! the last version read counts, as soon as a later record says that its decree was decided or the log ends.

use crate::ids::Decree;
use crate::log::{LogError, Record, RecordKind, SharedLog};
use crate::mutation::last_committed;
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
/// bytes; at least one, if there is any. `position` is where the last chunk ended, or 0. Blocks.
///
/// # Errors
/// Of the log. A log that begins later gives an empty chunk.
pub fn read_decided(
    log: &SharedLog,
    gpid: Gpid,
    (after, upto): (Decree, Decree),
    position: u64,
    bytes_max: usize,
) -> Result<Chunk, LogError> {
    let mut reading = Reading {
        next: after.next(),
        upto,
        window: BTreeMap::new(),
        chunk: Chunk { bodies: Vec::new(), position },
        bytes: 0,
    };
    log.walk(gpid, after.next(), position, |record| {
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
    Ok(reading.chunk)
}

struct Reading {
    next: Decree,
    upto: Decree,
    /// The last version of each decree, and where it stands.
    window: BTreeMap<Decree, (u64, Body)>,
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
                self.window.insert(decree, (record.position, record.payload));
                self.decide(decided);
            }
            RecordKind::Mutation | RecordKind::Footer => {}
        }
    }

    fn decide(&mut self, decided: Decree) {
        while self.next <= decided.min(self.upto)
            && let Some((position, body)) = self.window.remove(&self.next)
        {
            self.bytes += body.len();
            self.chunk.bodies.push(body);
            // What is still undecided stands before what was decided last, maybe.
            let open = self.window.values().map(|(position, _)| *position).min();
            self.chunk.position = open.unwrap_or(position).min(position);
            self.next = self.next.next();
        }
    }
}
