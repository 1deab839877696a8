//! Why a call has no answer.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::error_code::ErrorCode;
use crate::thrift::WireError;

/// What became of a connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// It could not be established.
    #[error("cannot connect: {0}")]
    Connect(io::ErrorKind),
    /// It was not established in time.
    #[error("no connection within {0:?}")]
    ConnectTimeout(Duration),
    /// It was established and has failed.
    #[error("connection failed: {0}")]
    Lost(io::ErrorKind),
    /// The peer has closed it.
    #[error("connection closed by the peer")]
    Closed,
    /// What arrived on it was no answer.
    #[error("the peer sent something that is no answer")]
    Garbage,
    /// Calls timed out and nothing arrived any more.
    #[error("the peer has fallen silent")]
    Silent,
    /// The peer takes nothing.
    #[error("the peer takes nothing")]
    Stuck,
    /// The RPC layer does not run on this worker.
    #[error("the RPC layer is not running")]
    NotStarted,
    /// A fault injected by the operator or a test.
    #[error("injected fault")]
    Injected,
}

/// Why a call has no answer. Only [`CallError::Remote`] and [`CallError::Decode`] say that the peer has seen the
/// request; after the others it may have been carried out or not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No answer in time.
    #[error("no answer from {peer} within {after:?}")]
    Timeout {
        /// Who was called.
        peer: SocketAddr,
        /// The timeout of the call.
        after: Duration,
    },
    /// No connection, or it failed before the answer came.
    #[error("{peer}: {error}")]
    Network {
        /// Who was called.
        peer: SocketAddr,
        /// What became of the connection.
        error: NetworkError,
    },
    /// The peer refused.
    #[error("{peer} answered {error}")]
    Remote {
        /// Who was called.
        peer: SocketAddr,
        /// What it said.
        error: ErrorCode,
        /// The wrapped result that came with the error; mostly empty.
        body: Bytes,
    },
    /// The answer cannot be read.
    #[error("cannot read the answer of {peer}: {error}")]
    Decode {
        /// Who was called.
        peer: SocketAddr,
        /// What is wrong with it.
        error: WireError,
    },
    /// Too many calls to this peer are unanswered; nothing was sent.
    #[error("too many unanswered calls to {peer}")]
    Overloaded {
        /// Who was to be called.
        peer: SocketAddr,
    },
}

impl CallError {
    /// Who was called.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        match self {
            Self::Timeout { peer, .. }
            | Self::Network { peer, .. }
            | Self::Remote { peer, .. }
            | Self::Decode { peer, .. }
            | Self::Overloaded { peer } => *peer,
        }
    }

    /// The error code that stands for it.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Timeout { .. } => ErrorCode::Timeout,
            Self::Network { .. } => ErrorCode::NetworkFailure,
            Self::Remote { error, .. } => *error,
            Self::Decode { .. } => ErrorCode::InvalidData,
            Self::Overloaded { .. } => ErrorCode::Busy,
        }
    }
}
