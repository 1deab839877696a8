//! Learning: how a replica that lacks much, or everything, becomes a member.
//!
//! One protocol, off the path of every write. A primary invites a server as attempt so and so; the server asks whether
//! that is still meant before it changes anything, makes a replica if it has none, and says how far it is; and from
//! there on it is sent mutations exactly as a member is, first from the log, then live, and acknowledges them exactly
//! as a member does. When it has caught up, the primary asks the meta server to make it one
//! ([`crate::replica::reconfigure`]). Only where the log does not reach back far enough does it begin with a
//! checkpoint: files of the primary's newest one, pinned while they are copied, each checked by length and checksum,
//! put together as a replica directory of their own that replaces the old one in one step.
//!
//! Everything the learner logs is logged before it is acknowledged, so it can break off anywhere and go on later.
//!
//! [`stream`] reads the log for a learner, [`source`] serves checkpoints, [`learner`] is the learner's side,
//! [`rate`] limits how fast is copied.

pub mod learner;
pub mod rate;
pub mod source;
pub mod stream;
