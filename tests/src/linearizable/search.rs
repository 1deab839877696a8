//! The walk: every configuration that explains the answers so far, from event to event.
//!
//! The model of the key says what one call makes of a configuration; what is the same for all models is here. A read
//! that fits is placed at once: it changes nothing, so nothing is lost by that. Of two configurations that differ only
//! in how many calls of unknown outcome they have used up, the one with fewer can do whatever the other can.

use super::{Call, NotLinearizable, Op};
use dsn_core::hash::DetHashMap;

/// Most calls that are under way at the same time and are answered later.
pub const PENDING_MAX: usize = 128;

/// What the key is in, and how many calls of unknown outcome were used up for that, by class of calls that are alike.
pub type State = (Option<u64>, Vec<u16>);

/// What a kind of key does.
pub trait Model {
    /// The state of an absent key.
    fn initial(&self) -> State;

    /// The state after a call with a known answer; `None` when the answer does not fit. `now` is when it is placed.
    fn place(&self, state: &State, call: &Call, now: u64) -> Option<State>;

    /// The states after one call of unknown outcome, and whether what that call does depends on the state before it.
    fn open(&self, state: &State, now: u64) -> Vec<(State, bool)>;

    /// Looks at a change of state from `before`: `None` when some answer can never be explained after it. Values that
    /// nobody will ask for any more may be made the same. `waiting` are the calls that are under way and not placed.
    fn settle<'a>(
        &self,
        before: &State,
        state: State,
        waiting: impl Iterator<Item = &'a Call> + Clone,
        now: u64,
    ) -> Option<State>;
}

#[derive(Clone, PartialEq, Eq)]
struct Configuration {
    /// Calls under way that have been placed, by slot.
    placed: u128,
    state: State,
    /// The last call placed is one of unknown outcome, and nothing has seen what it did.
    unseen: bool,
}

/// Configurations none of which covers another.
#[derive(Default)]
struct Front(DetHashMap<(u128, Option<u64>, bool), Vec<Vec<u16>>>);

impl Front {
    /// Whether it is a new one that no other covers.
    fn insert(&mut self, new: &Configuration) -> bool {
        let (value, used) = &new.state;
        let others = self.0.entry((new.placed, *value, new.unseen)).or_default();
        let covers = |a: &[u16], b: &[u16]| a.iter().zip(b).all(|(a, b)| a <= b);
        if others.iter().any(|other| covers(other, used)) {
            return false;
        }
        others.retain(|other| !covers(used, other));
        others.push(used.clone());
        true
    }

    fn take(&mut self) -> Vec<Configuration> {
        let mut all = Vec::new();
        for ((placed, value, unseen), useds) in self.0.drain() {
            let of = |used| Configuration { placed, state: (value, used), unseen };
            all.extend(useds.into_iter().map(of));
        }
        all
    }
}

struct Search<'a, M> {
    model: &'a M,
    calls: &'a [Call],
    /// Calls under way, by slot.
    slots: Vec<Option<usize>>,
    front: Front,
    /// Configurations that may still be searched.
    left: &'a mut usize,
}

/// Whether some order of the calls explains all answers. Takes the configurations that it searches off `left`.
///
/// # Errors
/// See [`NotLinearizable`].
pub fn search(model: &impl Model, calls: &[Call], left: &mut usize) -> Result<(), NotLinearizable> {
    let mut events: Vec<(u64, bool, usize)> = Vec::with_capacity(calls.len() * 2);
    for (index, call) in calls.iter().enumerate() {
        let Some(returned) = call.returned else { continue };
        events.extend([(call.invoked, false, index), (returned, true, index)]);
    }
    // At equal times invocations come first: the calls overlap.
    events.sort_unstable();
    let first = Configuration { placed: 0, state: model.initial(), unseen: false };
    let mut search = Search { model, calls, slots: Vec::new(), front: Front::default(), left };
    search.front.insert(&first);
    let mut answered = 0;
    for (now, is_return, index) in events {
        if !is_return {
            search.begin(index, now)?;
            continue;
        }
        search.end(index, now)?;
        if search.front.0.is_empty() {
            let what = format!("{:?} ({answered} calls answered before)", calls[index]);
            return Err(NotLinearizable::Violation(what));
        }
        answered += 1;
    }
    Ok(())
}

impl<M: Model> Search<'_, M> {
    /// A call begins.
    fn begin(&mut self, index: usize, now: u64) -> Result<(), NotLinearizable> {
        let free = self.slots.iter().position(Option::is_none);
        let slot = free.unwrap_or(self.slots.len());
        if slot == PENDING_MAX {
            return Err(NotLinearizable::TooMany);
        }
        self.slots.resize(self.slots.len().max(slot + 1), None);
        self.slots[slot] = Some(index);
        if reads(&self.calls[index].op) {
            for mut configuration in self.front.take() {
                self.place_reads(&mut configuration, now);
                self.front.insert(&configuration);
            }
        }
        Ok(())
    }

    /// A call is answered: it must be placed by now.
    fn end(&mut self, index: usize, now: u64) -> Result<(), NotLinearizable> {
        let slot = self.slots.iter().position(|slot| *slot == Some(index)).expect("it began");
        let mut seen = Front::default();
        let mut next = Front::default();
        let mut work = self.front.take();
        while let Some(configuration) = work.pop() {
            if configuration.placed >> slot & 1 == 1 {
                let (placed, state) = (configuration.placed, configuration.state.clone());
                let settled = self.settled(&configuration, placed, state, false, now);
                if let Some(settled) = settled {
                    next.insert(&Configuration { placed: placed & !(1 << slot), ..settled });
                }
                continue;
            }
            for after in self.after(&configuration, now) {
                if seen.insert(&after) {
                    *self.left = self.left.checked_sub(1).ok_or(NotLinearizable::Undecided)?;
                    work.push(after);
                }
            }
        }
        self.slots[slot] = None;
        self.front = next;
        Ok(())
    }

    /// The configurations after one more call.
    fn after(&self, from: &Configuration, now: u64) -> Vec<Configuration> {
        let mut all = Vec::new();
        for (slot, call) in self.waiting(from.placed) {
            // What nobody has seen and is written over need not have happened.
            if from.unseen && is_blind(&call.op) {
                continue;
            }
            if let Some(state) = self.model.place(&from.state, call, now) {
                all.extend(self.settled(from, from.placed | 1 << slot, state, false, now));
            }
        }
        for (state, depends) in self.model.open(&from.state, now) {
            if !from.unseen || depends {
                all.extend(self.settled(from, from.placed, state, true, now));
            }
        }
        all
    }

    fn settled(
        &self,
        from: &Configuration,
        placed: u128,
        state: State,
        unseen: bool,
        now: u64,
    ) -> Option<Configuration> {
        let mut to = Configuration { placed, state, unseen };
        self.place_reads(&mut to, now);
        let waiting = self.waiting(to.placed).map(|(_, call)| call);
        to.state = self.model.settle(&from.state, to.state, waiting, now)?;
        Some(to)
    }

    /// Places what fits and changes nothing.
    fn place_reads(&self, configuration: &mut Configuration, now: u64) {
        let mut placed = configuration.placed;
        for (slot, call) in self.waiting(configuration.placed) {
            let fits = |after: State| after == configuration.state;
            if reads(&call.op)
                && self.model.place(&configuration.state, call, now).is_some_and(fits)
            {
                placed |= 1 << slot;
            }
        }
        configuration.unseen &= placed == configuration.placed;
        configuration.placed = placed;
    }

    /// Calls under way that are not among those placed.
    fn waiting(&self, placed: u128) -> impl Iterator<Item = (usize, &Call)> + Clone {
        let calls = self.calls;
        let slots = self.slots.iter().enumerate();
        slots.filter_map(move |(slot, index)| {
            index.filter(|_| placed >> slot & 1 == 0).map(|index| (slot, &calls[index]))
        })
    }
}

/// An answered call that may leave everything as it is, and then might as well come at once.
fn reads(op: &Op) -> bool {
    matches!(op, Op::Get(_) | Op::CheckAndSet(_, _, Some(false)))
}

/// A call that does the same whatever was there.
fn is_blind(op: &Op) -> bool {
    matches!(op, Op::Put(_) | Op::Remove)
}
