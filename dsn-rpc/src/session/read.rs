//! From socket to frames.
//!
//! A worker reads all its connections through one 64 KiB block: what arrives is cut off the block and handed on as
//! slices of it, and the next read goes behind. A connection between two frames therefore holds no buffer at all,
//! and one whose frame is unfinished holds a copy of what it has of it. Frames above [`SMALL_FRAME`] get a buffer
//! of their own that grows with what arrives: doubling, so never more than [`BLOCK`] beyond twice the bytes there
//! are, whatever the header declares.

use bytes::{Bytes, BytesMut};
use dsn_core::driver::Sock;
use dsn_core::exec::Ctx;
use std::io;

/// Bytes of a worker's read block.
pub(crate) const BLOCK: usize = 64 * 1024;

/// Frames up to this size are read through the shared block.
pub(crate) const SMALL_FRAME: usize = 16 * 1024;

/// Least room for a read.
const ROOM_MIN: usize = 8 * 1024;

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Filled {
    /// Bytes; 0 is the end of the stream.
    pub(crate) bytes: usize,
    /// Whether there was room for more, so that the socket is empty.
    pub(crate) drained: bool,
}

/// The block that a worker reads into. All of `free` is initialised memory.
#[derive(Debug, Default)]
pub(crate) struct ReadBlock {
    free: BytesMut,
}

impl ReadBlock {
    fn room(&mut self, at_least: usize) -> &mut BytesMut {
        if self.free.len() < at_least {
            self.free.clear();
            // The old block is taken again when nothing that was cut off it is alive.
            if self.free.try_reclaim(BLOCK) {
                self.free.resize(BLOCK, 0);
            } else {
                self.free = BytesMut::zeroed(BLOCK);
            }
        }
        &mut self.free
    }

    /// Reads once from `sock` to the end of `input`, of which the first frame needs `need` bytes.
    pub(crate) fn fill(
        &mut self,
        ctx: &mut Ctx<'_>,
        sock: Sock,
        input: &mut BytesMut,
        need: usize,
    ) -> io::Result<Filled> {
        let have = input.len();
        if need > SMALL_FRAME {
            return fill_large(ctx, sock, input, need);
        }
        let block = self.room(have + ROOM_MIN);
        let room = block.len() - have;
        let bytes = ctx.read(sock, &mut block[have..])?;
        if bytes > 0 {
            block[..have].copy_from_slice(input);
            *input = block.split_to(have + bytes);
        }
        Ok(Filled { bytes, drained: bytes < room })
    }
}

/// Reads the rest of a large frame and nothing behind it.
fn fill_large(
    ctx: &mut Ctx<'_>,
    sock: Sock,
    input: &mut BytesMut,
    need: usize,
) -> io::Result<Filled> {
    let have = input.len();
    if input.capacity() == have {
        let more = (need - have).min(have.max(BLOCK));
        let mut larger = BytesMut::with_capacity(have + more);
        larger.extend_from_slice(input);
        *input = larger;
    }
    let room = (input.capacity() - have).min(need - have).min(BLOCK);
    input.resize(have + room, 0);
    let outcome = ctx.read(sock, &mut input[have..]);
    let bytes = *outcome.as_ref().unwrap_or(&0);
    input.truncate(have + bytes);
    outcome.map(|bytes| Filled { bytes, drained: bytes < room })
}

/// What a connection keeps of its input between two turns: a copy, so that the block is free, unless it is a
/// buffer of its own already.
pub(crate) fn keep(input: BytesMut, need: usize) -> BytesMut {
    if input.is_empty() {
        BytesMut::new()
    } else if need > SMALL_FRAME {
        input
    } else {
        BytesMut::from(&*input)
    }
}

/// A copy of `bytes` that holds no more memory than it needs, if `bytes` is a small part of a block; else itself.
/// For whoever keeps a part of a request longer than a moment.
#[must_use]
pub fn detach(bytes: &Bytes) -> Bytes {
    if bytes.len() < BLOCK / 8 { Bytes::copy_from_slice(bytes) } else { bytes.clone() }
}
