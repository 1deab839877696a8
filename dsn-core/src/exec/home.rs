//! Residents: state owned by exactly one worker, addressed by slot and generation.
//!
//! Ownership replaces locks: every handler of a resident gets `&mut self`. Closing a resident makes everything
//! still aimed at it (tasks, timers, completions, calls) vanish, because its generation no longer matches.

use super::ctx::Ctx;
use super::task::WorkerId;
use crate::driver::IoEvent;
use std::any::Any;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

/// State that lives on one worker.
pub trait Resident: Any {
    /// A socket attached with [`Ctx::attach`] changed its readiness. `token` is the one given there.
    fn on_io(&mut self, ctx: &mut Ctx<'_>, event: IoEvent, token: u64) {
        let _ = (ctx, event, token);
    }

    /// The resident is being closed; the last moment to close sockets or reply.
    fn on_close(&mut self, ctx: &mut Ctx<'_>) {
        let _ = ctx;
    }

    /// A handler of the resident has panicked with `text`: whatever it holds may be half done, and it is dropped after
    /// this, without [`Self::on_close`]. The last moment to shut what others see of it, and to tell those who wait. One
    /// without which its node cannot work ends it: [`crate::node::Node::fail`].
    fn on_lost(&mut self, ctx: &mut Ctx<'_>, text: &str) {
        let _ = (ctx, text);
    }
}

/// Where a resident lives, without its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RawAddr {
    /// Owning worker.
    pub worker: WorkerId,
    /// Slot on that worker.
    pub slot: u32,
    /// Distinguishes successive users of the slot.
    pub generation: u32,
}

/// Address of a resident of type `T`. Copy, comparable, may travel between threads.
pub struct Addr<T> {
    raw: RawAddr,
    marker: PhantomData<fn(T)>,
}

impl<T> Addr<T> {
    pub(crate) fn new(raw: RawAddr) -> Self {
        Self { raw, marker: PhantomData }
    }

    /// Without the type.
    pub fn raw(&self) -> RawAddr {
        self.raw
    }

    /// The worker it lives on.
    pub fn worker(&self) -> WorkerId {
        self.raw.worker
    }
}

impl<T> Clone for Addr<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Addr<T> {}

impl<T> PartialEq for Addr<T> {
    fn eq(&self, other: &Self) -> bool {
        self.raw == other.raw
    }
}

impl<T> Eq for Addr<T> {}

impl<T> Hash for Addr<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.raw.hash(state);
    }
}

impl<T> fmt::Debug for Addr<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "w{}/{}.{}", self.raw.worker.0, self.raw.slot, self.raw.generation)
    }
}

enum State {
    Empty,
    Here(Box<dyn Resident>),
    /// Its handler is running.
    Out,
    /// Its handler is running and has closed it.
    Closing,
}

struct Slot {
    generation: u32,
    state: State,
}

/// The residents of one worker.
#[derive(Default)]
pub(crate) struct Home {
    slots: Vec<Slot>,
}

/// What to do with a resident after its handler.
pub(crate) enum PutBack {
    Kept,
    Close(Box<dyn Resident>),
}

impl Home {
    /// Puts a new resident into its allocated slot.
    pub(crate) fn insert(&mut self, addr: RawAddr, resident: Box<dyn Resident>) {
        let index = addr.slot as usize;
        while self.slots.len() <= index {
            self.slots.push(Slot { generation: 0, state: State::Empty });
        }
        let slot = &mut self.slots[index];
        slot.generation = addr.generation;
        slot.state = State::Here(resident);
    }

    /// Takes a resident out to run a handler on it.
    pub(crate) fn take(&mut self, addr: RawAddr) -> Option<Box<dyn Resident>> {
        let slot = self.slots.get_mut(addr.slot as usize)?;
        if slot.generation != addr.generation || !matches!(slot.state, State::Here(_)) {
            return None;
        }
        match std::mem::replace(&mut slot.state, State::Out) {
            State::Here(resident) => Some(resident),
            _ => None,
        }
    }

    /// Looks at an idle resident.
    pub(crate) fn peek(&self, addr: RawAddr) -> Option<&dyn Resident> {
        let slot = self.slots.get(addr.slot as usize)?;
        match &slot.state {
            State::Here(resident) if slot.generation == addr.generation => Some(&**resident),
            _ => None,
        }
    }

    /// Puts it back after the handler.
    pub(crate) fn put_back(&mut self, addr: RawAddr, resident: Box<dyn Resident>) -> PutBack {
        let slot = &mut self.slots[addr.slot as usize];
        if matches!(slot.state, State::Closing) {
            slot.state = State::Empty;
            return PutBack::Close(resident);
        }
        slot.state = State::Here(resident);
        PutBack::Kept
    }

    /// Forgets a resident whose handler panicked.
    pub(crate) fn abandon(&mut self, addr: RawAddr) {
        self.slots[addr.slot as usize].state = State::Empty;
    }

    /// Marks for closing, or takes it when it is idle. `Err` when it is not here at all.
    pub(crate) fn close(&mut self, addr: RawAddr) -> Result<Option<Box<dyn Resident>>, ()> {
        let Some(slot) = self.slots.get_mut(addr.slot as usize) else { return Err(()) };
        if slot.generation != addr.generation {
            return Err(());
        }
        match std::mem::replace(&mut slot.state, State::Empty) {
            State::Here(resident) => Ok(Some(resident)),
            State::Out => {
                slot.state = State::Closing;
                Ok(None)
            }
            State::Closing => {
                slot.state = State::Closing;
                Err(())
            }
            State::Empty => Err(()),
        }
    }

    /// Whether the resident is alive (running or idle).
    pub(crate) fn contains(&self, addr: RawAddr) -> bool {
        self.slots.get(addr.slot as usize).is_some_and(|slot| {
            slot.generation == addr.generation && matches!(slot.state, State::Here(_) | State::Out)
        })
    }

    /// Addresses of all residents, for shutdown.
    pub(crate) fn all(&self, worker: WorkerId) -> Vec<RawAddr> {
        self.slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| matches!(slot.state, State::Here(_)))
            .map(|(index, slot)| RawAddr {
                worker,
                slot: index as u32,
                generation: slot.generation,
            })
            .collect()
    }
}
