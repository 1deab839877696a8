//! One operation under way: where it goes, until when, what it has met so far.

use bytes::Bytes;
use dsn_core::code::Code;
use dsn_core::exec::Ctx;
use dsn_core::time::Mono;
use dsn_rpc::gpid::Gpid;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::error::{ClientError, Place, Reason};
use super::request::{Kind, Target};

/// Which server an operation is for.
pub(crate) enum To {
    /// The leading meta server.
    Meta,
    /// This server, once.
    Server,
    /// Nobody: it only waits until the table's route is known.
    Route(Arc<str>),
    /// The primary of a partition.
    Table { table: Arc<str>, target: Target },
}

/// What became of an operation, and where.
pub(crate) struct Ended {
    pub(crate) outcome: Result<Bytes, Reason>,
    to: To,
    gpid: Option<Gpid>,
    server: Option<SocketAddr>,
}

impl Ended {
    /// The outcome read by `parse`; errors of both say where the operation was.
    pub(crate) fn read<T>(
        self,
        parse: impl FnOnce(&Bytes) -> Result<T, Reason>,
    ) -> Result<T, ClientError> {
        match self.outcome.and_then(|answer| parse(&answer)) {
            Ok(value) => Ok(value),
            Err(reason) => {
                let (table, key) = match &self.to {
                    To::Meta | To::Server => (String::new(), None),
                    To::Route(table) => (table.to_string(), None),
                    To::Table { table, target: Target::Key { key, .. } } => {
                        (table.to_string(), Some(key.to_vec()))
                    }
                    To::Table { table, .. } => (table.to_string(), None),
                };
                let place = Place { table, key, gpid: self.gpid, server: self.server };
                Err(ClientError { reason, place })
            }
        }
    }
}

/// Receives the outcome, on the client's worker.
pub(crate) type Done = Box<dyn FnOnce(&mut Ctx<'_>, Ended) + Send>;

/// An operation under way.
pub(crate) struct Operation {
    pub(crate) to: To,
    pub(crate) code: Code,
    pub(crate) body: Bytes,
    pub(crate) kind: Kind,
    pub(crate) begun: Mono,
    pub(crate) deadline: Mono,
    pub(crate) attempts: u32,
    /// Attempts that nobody answered in time.
    pub(crate) silences: u32,
    /// What the last attempt met.
    pub(crate) last: Option<String>,
    /// The server asked last.
    pub(crate) server: Option<SocketAddr>,
    pub(crate) gpid: Option<Gpid>,
    /// Stamp of the route that the last attempt used.
    pub(crate) route: u64,
    /// Only a route with a higher stamp will do.
    pub(crate) stale: u64,
    pub(crate) done: Done,
}

impl Operation {
    /// How long it was allowed to take.
    pub(crate) fn allowed(&self) -> Duration {
        self.deadline.saturating_since(self.begun)
    }

    pub(crate) fn end(self, ctx: &mut Ctx<'_>, outcome: Result<Bytes, Reason>) {
        let Self { to, gpid, server, done, .. } = self;
        done(ctx, Ended { outcome, to, gpid, server });
    }
}
