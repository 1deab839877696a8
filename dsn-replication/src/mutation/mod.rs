//! Mutations: what one decree does.
//!
//! A mutation is a batch of one or more client requests that travel through log and replication as one and are
//! applied as one. Its decree, timestamp and requests never change once numbered; its ballot grows when a later
//! primary proposes it again.

mod codec;
mod queue;

use crate::ids::{Ballot, Decree};
use bytes::Bytes;
use dsn_core::code::Code;
use dsn_rpc::gpid::Gpid;

pub use codec::{
    CODES_MAX, CodeTable, DecodeError, decode_body, encode_body, fingerprint, fingerprint_of_body,
    last_committed,
};
pub use queue::{BATCH_BYTES, BATCH_REQUESTS, Batch, QueueFull, Ticket, WriteQueue};

/// One client request inside a mutation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRequest {
    /// What to do.
    pub code: Code,
    /// The request as the client sent it (the wrapped thrift value).
    pub body: Bytes,
}

/// One decree's worth of work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutation {
    /// The partition.
    pub gpid: Gpid,
    /// The configuration under which it was proposed last.
    pub ballot: Ballot,
    /// Its number.
    pub decree: Decree,
    /// The proposer's commit point when it was proposed; always below `decree`.
    pub last_committed: Decree,
    /// Microseconds since the Unix epoch; unique and growing within the partition. The only clock `apply` may use.
    pub timestamp_us: u64,
    /// What the proposer's [`StateMachine::stamp`](crate::state_machine::StateMachine::stamp) was. With the time stamp,
    /// all that `apply` may know of the world.
    pub stamp: u32,
    /// The requests, in order. None at all makes an empty write, which only advances the decree.
    pub requests: Vec<ClientRequest>,
}

impl Mutation {
    /// Bytes of all bodies.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        self.requests.iter().map(|request| request.body.len()).sum()
    }
}
