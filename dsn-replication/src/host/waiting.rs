//! Clients that wait for the outcome of their writes.

use crate::mutation::Ticket;
use dsn_core::exec::Ctx;
use dsn_rpc::Replier;
use dsn_rpc::error_code::ErrorCode;
use slab::Slab;

/// Those who wait, by ticket.
#[derive(Default)]
pub(super) struct Waiting {
    clients: Slab<Client>,
}

struct Client {
    replier: Replier,
    /// Whether its write may be done twice.
    idempotent: bool,
}

impl Client {
    /// Its write may be in the logs of the group, and be done yet, or be done already. Most clients repeat a write
    /// after any error that could be given here, so that only one that may be done twice gets one; the others run
    /// into their time limit.
    fn leave_in_doubt(self, ctx: &mut Ctx<'_>) {
        match self.idempotent {
            true => self.replier.error(ctx, ErrorCode::NotEnoughMember),
            false => self.replier.forget(ctx),
        }
    }
}

impl Waiting {
    /// One more.
    pub fn insert(&mut self, replier: Replier, idempotent: bool) -> Ticket {
        Ticket(self.clients.insert(Client { replier, idempotent }) as u32)
    }

    /// Its outcome is known: whoever waits for it, if anybody does.
    pub fn take(&mut self, ticket: Ticket) -> Option<Replier> {
        self.clients.try_remove(ticket.0 as usize).map(|client| client.replier)
    }

    /// The write was not done and will not be.
    pub fn refuse(&mut self, ctx: &mut Ctx<'_>, ticket: Ticket, error: ErrorCode) {
        if let Some(replier) = self.take(ticket) {
            replier.error(ctx, error);
        }
    }

    /// The outcome is not known, or not to be told.
    pub fn leave_in_doubt(&mut self, ctx: &mut Ctx<'_>, ticket: Ticket) {
        if let Some(client) = self.clients.try_remove(ticket.0 as usize) {
            client.leave_in_doubt(ctx);
        }
    }

    /// Nobody will ever tell them.
    pub fn leave_all_in_doubt(&mut self, ctx: &mut Ctx<'_>) {
        for client in self.clients.drain() {
            client.leave_in_doubt(ctx);
        }
    }
}
