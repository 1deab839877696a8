//! The two protocols behind one face: encode an operation, cut a reply out of received bytes, judge
//! it.

use crate::records::{Checker, Records, Tally};
use crate::resp::Resp;
use crate::thft::Thft;
use crate::workload::Op;
use bytes::BytesMut;

/// Longest reply; a server that announces more is not answering us.
pub const MAX_REPLY: usize = 64 << 20;

/// A reply that cannot be understood. The connection is of no use any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unintelligible reply: {0}")]
pub struct BadReply(pub &'static str);

/// One complete reply at the beginning of the received bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// Which request it answers; without one, the oldest.
    pub token: Option<u32>,
    /// Error of the call itself; there is no content then.
    pub error: Option<&'a [u8]>,
    /// The content.
    pub body: &'a [u8],
    /// Bytes of the whole reply.
    pub len: usize,
}

/// What a reply means for its operation.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is done.
    Done(Tally),
    /// A scan goes on with this context.
    More(i64, Tally),
    /// It failed; this names the error.
    Failed(String),
}

/// What the connections speak.
#[derive(Debug)]
pub enum Wire {
    /// RESP.
    Redis(Resp),
    /// THFT, header version 0.
    Pegasus(Box<Thft>),
}

impl Wire {
    /// The partition of an operation: an index into the routes.
    #[inline]
    pub fn partition(&mut self, records: &Records, op: &Op) -> usize {
        match self {
            Self::Redis(_) => 0,
            Self::Pegasus(thft) => thft.partition(records, op),
        }
    }

    /// Appends the request of an operation whose partition was just asked for.
    #[inline]
    pub fn encode(&mut self, records: &Records, op: &Op, token: u32, out: &mut BytesMut) {
        match self {
            Self::Redis(resp) => resp.encode(records, op, out),
            Self::Pegasus(thft) => thft.encode(records, op, token, out),
        }
    }

    /// Appends the request for the next rows of a scan.
    pub fn encode_more(
        &mut self,
        records: &Records,
        op: &Op,
        context: i64,
        token: u32,
        out: &mut BytesMut,
    ) {
        if let Self::Pegasus(thft) = self {
            thft.partition(records, op);
            thft.encode_more(context, token, out);
        }
    }

    /// The first reply in `input`, if it is complete.
    ///
    /// # Errors
    /// [`BadReply`].
    #[inline]
    pub fn next<'a>(&self, input: &'a [u8]) -> Result<Option<Reply<'a>>, BadReply> {
        match self {
            Self::Redis(resp) => resp.next(input),
            Self::Pegasus(_) => crate::thft::next(input),
        }
    }

    /// What a reply says about its operation.
    ///
    /// # Errors
    /// [`BadReply`].
    #[inline]
    pub fn judge(
        &self,
        op: &Op,
        reply: &Reply<'_>,
        check: &Checker<'_>,
    ) -> Result<Verdict, BadReply> {
        match self {
            Self::Redis(resp) => resp.judge(op, reply.body, check),
            Self::Pegasus(_) => crate::thft::judge(op, reply, check),
        }
    }

    /// Whether an error of that name means that the placement may have changed.
    pub fn means_moved(&self, name: &str) -> bool {
        match self {
            Self::Redis(_) => false,
            Self::Pegasus(_) => crate::thft::means_moved(name),
        }
    }

    /// Whether replies come in the order of requests.
    pub fn in_order(&self) -> bool {
        matches!(self, Self::Redis(_))
    }
}
