//! A client's write waits, is numbered, and goes to the log.

use super::{Entry, Replica, Role};
use crate::ids::Ballot;
use crate::log::LogBatch;
use crate::mutation::{Batch, ClientRequest, Mutation, QueueFull, Ticket};

impl Replica {
    /// Queues an admitted write. It is numbered at the end of the turn, with whatever else came by then.
    ///
    /// # Errors
    /// [`QueueFull`]: too much waits already.
    pub fn enqueue(
        &mut self,
        request: ClientRequest,
        batchable: bool,
        ticket: Ticket,
    ) -> Result<(), QueueFull> {
        self.queue.push(request, batchable, ticket)
    }

    /// Gives up what waits if the group has fewer members than `min_members`, though it had enough when that came. The
    /// tickets are to be answered: nothing of it is done.
    pub fn refuse_queued(&mut self, min_members: u32) -> Vec<Ticket> {
        match &self.role {
            Role::Primary(lead) if lead.members() < min_members as usize => self.queue.drain(),
            _ => Vec::new(),
        }
    }

    /// Numbers what waits, as far as the window allows, and adds it to `log`. `wall_us` is the clock of the moment;
    /// time stamps grow even when it does not. `stamp` is the state machine's. Returns how many were numbered.
    pub fn number(&mut self, wall_us: u64, stamp: u32, log: &mut LogBatch) -> usize {
        let mut count = 0;
        while self.role.is_primary() && self.in_flight() < self.options.window {
            let Some(Batch { requests, tickets, .. }) = self.queue.pop() else { break };
            self.append((wall_us, stamp), requests, tickets, log);
            count += 1;
        }
        count
    }

    /// Numbers an empty write, which only moves the decree.
    pub fn number_empty(&mut self, wall_us: u64, stamp: u32, log: &mut LogBatch) {
        if self.role.is_primary() {
            self.append((wall_us, stamp), Vec::new(), Vec::new(), log);
        }
    }

    /// Mutations numbered and not applied.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.prepared.since(self.applied)
    }

    /// Whether writes wait that the window has room for.
    #[must_use]
    pub fn wants_turn(&self) -> bool {
        self.role.is_primary() && !self.queue.is_empty() && self.in_flight() < self.options.window
    }

    fn append(
        &mut self,
        (wall_us, stamp): (u64, u32),
        requests: Vec<ClientRequest>,
        tickets: Vec<Ticket>,
        log: &mut LogBatch,
    ) {
        assert!(self.ballot > Ballot::ZERO, "a primary has a ballot");
        self.prepared = self.prepared.next();
        self.timestamp_us = wall_us.max(self.timestamp_us + 1);
        let mutation = Mutation {
            gpid: self.gpid,
            ballot: self.ballot,
            decree: self.prepared,
            last_committed: self.committed,
            timestamp_us: self.timestamp_us,
            stamp,
            requests,
        };
        let alone = matches!(&self.role, Role::Primary(lead) if lead.peers.is_empty());
        let mut entry = Entry { mutation, tickets, body: None };
        entry.write(alone, log);
        self.held_bytes += entry.bytes();
        self.window.push_back(entry);
    }
}
