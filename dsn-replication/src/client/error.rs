//! What can go wrong with an operation, and for which table, key, partition and server.

use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::gpid::Gpid;
use dsn_rpc::thrift::WireError;
use dsn_rpc::{CallError, NetworkError};
use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// Where an operation was when it failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The table; empty for questions that concern none.
    pub table: String,
    /// The key that decided the partition, where there was one.
    pub key: Option<Vec<u8>>,
    /// The partition, once known.
    pub gpid: Option<Gpid>,
    /// The server asked last.
    pub server: Option<SocketAddr>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        let mut part = |f: &mut fmt::Formatter<'_>, part: fmt::Arguments<'_>| {
            write!(f, "{separator}{part}")?;
            separator = ", ";
            Ok(())
        };
        if !self.table.is_empty() {
            part(f, format_args!("table {}", self.table))?;
        }
        if let Some(key) = &self.key {
            part(f, format_args!("key \"{}\"", key.escape_ascii()))?;
        }
        if let Some(gpid) = self.gpid {
            part(f, format_args!("partition {gpid}"))?;
        }
        if let Some(server) = self.server {
            part(f, format_args!("server {server}"))?;
        }
        Ok(())
    }
}

impl Place {
    /// A table, and nothing more.
    #[must_use]
    pub fn of_table(table: &str) -> Self {
        Self { table: table.to_owned(), ..Self::default() }
    }

    fn is_nowhere(&self) -> bool {
        *self == Self::default()
    }
}

/// Why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// There is no such table.
    #[error("there is no such table")]
    NoSuchTable,
    /// No answer in time. A write may have been carried out.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The connection failed while a write was under way: it may have been carried out.
    #[error("the connection failed with the request under way: {0}")]
    Ambiguous(String),
    /// Nothing reached a server that could do it, within the time that the operation was allowed to take.
    #[error("not done within {after:?}: {last}")]
    Unavailable {
        /// The operation's timeout.
        after: Duration,
        /// What the last attempt met.
        last: String,
    },
    /// There is no connection; nothing was sent.
    #[error("{0}")]
    NotSent(String),
    /// The server refused.
    #[error("refused with {0}")]
    Refused(ErrorCode),
    /// The meta server refused, and said why.
    #[error("refused with {0}: {1}")]
    Hinted(ErrorCode, String),
    /// The state machine answered with a status that stands for a failure.
    #[error("status {code} ({name})")]
    Status {
        /// Its number, the state machine's own.
        code: i32,
        /// Its name.
        name: &'static str,
    },
    /// The answer cannot be read.
    #[error("unreadable answer: {0}")]
    Decode(WireError),
    /// More operations wait than the client holds ([`MAX_PENDING`](super::MAX_PENDING)).
    #[error("too many operations are waiting")]
    Overloaded,
    /// The client has been closed.
    #[error("the client is closed")]
    Closed,
    /// The arguments make no sense.
    #[error("{0}")]
    Invalid(Cow<'static, str>),
}

/// A failed operation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}{}", Bracketed(place))]
pub struct ClientError {
    /// Why.
    pub reason: Reason,
    /// Where.
    pub place: Place,
}

/// A place in brackets, or nothing.
struct Bracketed<'a>(&'a Place);

impl fmt::Display for Bracketed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_nowhere() { Ok(()) } else { write!(f, " ({})", self.0) }
    }
}

impl Reason {
    /// Of an operation that ends with a failed call; it was allowed to take `allowed`.
    pub(crate) fn of_call(error: CallError, allowed: Duration) -> Self {
        match error {
            CallError::Remote { error, .. } => Self::Refused(error),
            CallError::Decode { error, .. } => Self::Decode(error),
            CallError::Timeout { .. } => Self::Timeout(allowed),
            CallError::Network { ref error, .. } if never_sent(error) => {
                Self::NotSent(error.to_string())
            }
            other => Self::Ambiguous(other.to_string()),
        }
    }
}

impl ClientError {
    /// An error that has not been anywhere.
    #[must_use]
    pub fn new(reason: Reason) -> Self {
        Self { reason, place: Place::default() }
    }

    /// Arguments that make no sense.
    pub fn invalid(why: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Reason::Invalid(why.into()))
    }

    /// Whether a write that failed like this may have been carried out all the same.
    pub fn is_ambiguous(&self) -> bool {
        match &self.reason {
            Reason::Timeout(_) | Reason::Ambiguous(_) | Reason::Decode(_) | Reason::Closed => true,
            Reason::Refused(code) => {
                matches!(code, ErrorCode::NotEnoughMember | ErrorCode::Timeout | ErrorCode::Unknown)
            }
            Reason::NoSuchTable
            | Reason::NotSent(_)
            | Reason::Hinted(..)
            | Reason::Unavailable { .. }
            | Reason::Status { .. }
            | Reason::Overloaded
            | Reason::Invalid(_) => false,
        }
    }
}

/// What to do after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Tell the caller.
    Fail,
    /// Ask the meta server where the partition is, then try again.
    Refresh,
    /// Try again where we were.
    Again,
}

/// The retry rule. `is_write` tells whether doing it twice could be seen: such operations are tried again only
/// when the last attempt certainly did nothing.
pub(crate) fn after(error: &CallError, is_write: bool) -> Next {
    match error {
        CallError::Timeout { .. } if is_write => Next::Fail,
        CallError::Timeout { .. } => Next::Refresh,
        CallError::Network { error, .. } if never_sent(error) || !is_write => Next::Refresh,
        CallError::Network { .. } | CallError::Decode { .. } => Next::Fail,
        CallError::Overloaded { .. } => Next::Again,
        CallError::Remote { error, .. } => after_refusal(*error, is_write),
    }
}

/// Whether the connection failed before anything could have been sent on it.
fn never_sent(error: &NetworkError) -> bool {
    matches!(
        error,
        NetworkError::Connect(_) | NetworkError::ConnectTimeout(_) | NetworkError::NotStarted
    )
}

fn after_refusal(error: ErrorCode, is_write: bool) -> Next {
    match error {
        ErrorCode::ObjectNotFound
        | ErrorCode::InvalidState
        | ErrorCode::InactiveState
        | ErrorCode::ChildNotReady
        | ErrorCode::ParentPartitionMisused => Next::Refresh,
        // Nothing was done; the pause between attempts grows.
        ErrorCode::CapacityExceeded | ErrorCode::Busy | ErrorCode::Splitting => Next::Again,
        // A write may be in the log of a member already.
        ErrorCode::NotEnoughMember if !is_write => Next::Refresh,
        _ => Next::Fail,
    }
}
