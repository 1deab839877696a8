//! Client writes waiting to become mutations.
//!
//! Requests that may be batched share a mutation, up to [`BATCH_BYTES`]; every other request is one of its own. There
//! is no timer: whatever a turn brought is closed at its end, and what the window of mutations under way does not
//! take yet waits and grows into larger batches. Order among requests is kept.

use super::ClientRequest;
use std::collections::VecDeque;

/// A batch is closed when its bodies reach this many bytes.
pub const BATCH_BYTES: usize = 1 << 20;

/// Most requests in one batch, and in a mutation that is read: what a list of them costs is bounded by it.
pub const BATCH_REQUESTS: usize = 1024;

/// Names a waiting client request to whoever holds its replier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u32);

/// Requests that will share a decree.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The requests, in order.
    pub requests: Vec<ClientRequest>,
    /// Who waits for them, in the same order.
    pub tickets: Vec<Ticket>,
    bytes: usize,
}

impl Batch {
    fn one(request: ClientRequest, ticket: Ticket) -> Self {
        let bytes = request.body.len();
        Self { requests: vec![request], tickets: vec![ticket], bytes }
    }

    fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES || self.requests.len() >= BATCH_REQUESTS
    }
}

/// The queue takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many bytes of writes are waiting")]
pub struct QueueFull;

/// The writes of one partition that have no decree yet.
#[derive(Debug)]
pub struct WriteQueue {
    sealed: VecDeque<Batch>,
    open: Option<Batch>,
    bytes: usize,
    limit: usize,
    batching: bool,
}

impl WriteQueue {
    /// An empty queue for at most `limit` bytes of bodies.
    #[must_use]
    pub fn new(limit: usize, batching: bool) -> Self {
        Self { sealed: VecDeque::new(), open: None, bytes: 0, limit, batching }
    }

    /// Appends a request.
    ///
    /// # Errors
    /// [`QueueFull`]; an empty queue takes a request of any size.
    pub fn push(
        &mut self,
        request: ClientRequest,
        batchable: bool,
        ticket: Ticket,
    ) -> Result<(), QueueFull> {
        let len = request.body.len();
        if self.bytes > 0 && self.bytes + len > self.limit {
            return Err(QueueFull);
        }
        self.bytes += len;
        if !(batchable && self.batching) {
            self.sealed.extend(self.open.take());
            self.sealed.push_back(Batch::one(request, ticket));
            return Ok(());
        }
        let full = match &mut self.open {
            Some(open) => {
                open.bytes += len;
                open.requests.push(request);
                open.tickets.push(ticket);
                open.is_full()
            }
            None => self.open.insert(Batch::one(request, ticket)).is_full(),
        };
        if full {
            self.sealed.extend(self.open.take());
        }
        Ok(())
    }

    /// The batch that is next, closing it if it was still open.
    pub fn pop(&mut self) -> Option<Batch> {
        let batch = self.sealed.pop_front().or_else(|| self.open.take())?;
        self.bytes -= batch.bytes;
        Some(batch)
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sealed.is_empty() && self.open.is_none()
    }

    /// Bytes of bodies that wait.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives up everything; the tickets are to be answered.
    pub fn drain(&mut self) -> Vec<Ticket> {
        let mut tickets = Vec::new();
        while let Some(batch) = self.pop() {
            tickets.extend(batch.tickets);
        }
        tickets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use dsn_core::code::{CodeDef, CodeKind, Priority};
    use std::time::Duration;

    static CODE: CodeDef = CodeDef::new(
        "RPC_TEST_QUEUE",
        CodeKind::Rpc,
        Priority::Low,
        "THREAD_POOL_REPLICATION",
        Duration::from_secs(1),
    );

    fn request(len: usize) -> ClientRequest {
        ClientRequest { code: &CODE, body: Bytes::from(vec![0; len]) }
    }

    fn tickets(queue: &mut WriteQueue) -> Vec<Vec<u32>> {
        std::iter::from_fn(|| queue.pop())
            .map(|batch| batch.tickets.iter().map(|ticket| ticket.0).collect())
            .collect()
    }

    #[test]
    fn batchable_requests_share_and_others_stand_alone_in_order() {
        let mut queue = WriteQueue::new(1 << 20, true);
        for (n, batchable) in [true, true, false, true, false, true, true].into_iter().enumerate() {
            queue.push(request(10), batchable, Ticket(n as u32)).unwrap();
        }
        assert_eq!(queue.bytes(), 70);
        assert_eq!(tickets(&mut queue), [vec![0, 1], vec![2], vec![3], vec![4], vec![5, 6]]);
        assert!(queue.is_empty() && queue.bytes() == 0);
    }

    #[test]
    fn a_batch_ends_at_its_size() {
        let mut queue = WriteQueue::new(1 << 30, true);
        for n in 0..5 {
            queue.push(request(BATCH_BYTES / 2), true, Ticket(n)).unwrap();
        }
        assert_eq!(tickets(&mut queue), [vec![0, 1], vec![2, 3], vec![4]]);
        for n in 0..BATCH_REQUESTS as u32 + 1 {
            queue.push(request(0), true, Ticket(n)).unwrap();
        }
        let sizes: Vec<_> = tickets(&mut queue).iter().map(Vec::len).collect();
        assert_eq!(sizes, [BATCH_REQUESTS, 1]);
    }

    #[test]
    fn without_batching_each_request_stands_alone() {
        let mut queue = WriteQueue::new(1 << 20, false);
        queue.push(request(1), true, Ticket(0)).unwrap();
        queue.push(request(1), true, Ticket(1)).unwrap();
        assert_eq!(tickets(&mut queue), [vec![0], vec![1]]);
    }

    #[test]
    fn bytes_are_bounded_but_one_request_always_fits() {
        let mut queue = WriteQueue::new(100, true);
        queue.push(request(500), true, Ticket(0)).unwrap();
        assert_eq!(queue.push(request(1), true, Ticket(1)), Err(QueueFull));
        assert_eq!(queue.drain(), [Ticket(0)]);
        queue.push(request(99), true, Ticket(2)).unwrap();
        queue.push(request(1), false, Ticket(3)).unwrap();
        assert_eq!(queue.push(request(1), true, Ticket(4)), Err(QueueFull));
        assert_eq!(queue.drain(), [Ticket(2), Ticket(3)]);
    }
}
