//! A key that is put, removed, read, and set if it has some value.
//!
//! Four things keep calls of unknown outcome from doubling the configurations. Those that are alike are a class, of
//! which only the number that has taken effect matters. One is placed only right before a call that sees what it did.
//! Values that no answer depends on, or none that is still to come, are all the same value. And what was written once
//! is not written over while an answer still asks for it.

use super::search::{Model, State};
use super::{Call, Op, step};
use dsn_core::hash::DetHashMap;

/// A value and who asks for it.
#[derive(Default)]
struct Value {
    /// When the last call was sent whose answer says that the value was there.
    last_needed: Option<u64>,
    /// When the last call was sent whose answer depends on whether it was there.
    last_named: Option<u64>,
    /// A call of unknown outcome depends on it.
    named_by_open: bool,
    /// Calls that write it.
    writers: u32,
}

/// Calls of unknown outcome that do the same.
struct Class {
    op: Op,
    /// When they were sent, in order.
    sent: Vec<u64>,
}

/// See the module's header.
pub struct Register {
    values: DetHashMap<u64, Value>,
    classes: Vec<Class>,
    /// Stands for every value that no answer depends on.
    any: u64,
    /// Sums depend on every value.
    counts: bool,
}

impl Register {
    /// The register that these calls are about.
    pub fn of(calls: &[Call]) -> Self {
        let counts = calls.iter().any(|call| matches!(call.op, Op::Incr(..)));
        let mut values: DetHashMap<u64, Value> = DetHashMap::default();
        // Reads without an answer say nothing.
        let tells = |call: &&Call| call.returned.is_some() || !matches!(call.op, Op::Get(_));
        for call in calls.iter().filter(tells) {
            if let Some(named) = named(&call.op) {
                let value = values.entry(named).or_default();
                value.last_named = value.last_named.max(Some(call.invoked));
                value.named_by_open |= call.returned.is_none();
                if needs(&call.op, named) {
                    value.last_needed = value.last_needed.max(Some(call.invoked));
                }
            }
            if let Op::Put(value) | Op::CheckAndSet(value, ..) = &call.op {
                values.entry(*value).or_default().writers += 1;
            }
        }
        let any = (0..).find(|value| !values.contains_key(value)).expect("there are fewer calls");
        let mut register = Self { values, classes: Vec::new(), any, counts };
        let mut open: Vec<&Call> =
            calls.iter().filter(|call| call.returned.is_none()).filter(tells).collect();
        open.sort_by_key(|call| call.invoked);
        for call in open {
            let op = register.plain(&call.op);
            match register.classes.iter_mut().find(|class| class.op == op) {
                Some(class) => class.sent.push(call.invoked),
                None => register.classes.push(Class { op, sent: vec![call.invoked] }),
            }
        }
        register
    }

    /// The operation without a value that no answer depends on.
    fn plain(&self, op: &Op) -> Op {
        let named = |value: &u64| self.values.get(value).is_some_and(|it| it.last_named.is_some());
        let plain = |value: &u64| if self.counts || named(value) { *value } else { self.any };
        match op {
            Op::Put(value) => Op::Put(plain(value)),
            Op::CheckAndSet(value, expected, answer) => {
                Op::CheckAndSet(plain(value), *expected, *answer)
            }
            other => other.clone(),
        }
    }
}

impl Model for Register {
    fn initial(&self) -> State {
        (None, vec![0; self.classes.len()])
    }

    fn place(&self, (value, used): &State, call: &Call, _: u64) -> Option<State> {
        step(*value, &call.op, true).map(|value| (value, used.clone()))
    }

    fn open(&self, (value, used): &State, now: u64) -> Vec<(State, bool)> {
        let mut all = Vec::new();
        for (number, class) in self.classes.iter().enumerate() {
            let left = class.sent.get(usize::from(used[number]));
            let new = step(*value, &class.op, false);
            let changed = new.filter(|new| new != value && left.is_some_and(|sent| *sent <= now));
            if let Some(new) = changed {
                let mut used = used.clone();
                used[number] += 1;
                all.push(((new, used), !matches!(class.op, Op::Put(_) | Op::Remove)));
            }
        }
        all
    }

    fn settle<'a>(
        &self,
        before: &State,
        (value, used): State,
        mut waiting: impl Iterator<Item = &'a Call> + Clone,
        now: u64,
    ) -> Option<State> {
        if self.counts {
            return Some((value, used));
        }
        let later = |time: Option<u64>| time.is_some_and(|time| time > now);
        if let Some((gone, it)) = before.0.and_then(|gone| Some((gone, self.values.get(&gone)?)))
            && value != Some(gone)
            && it.writers == 1
            && (later(it.last_needed) || waiting.clone().any(|call| needs(&call.op, gone)))
        {
            return None;
        }
        let Some(number) = value else { return Some((value, used)) };
        let it = self.values.get(&number);
        let matters = it.is_some_and(|it| it.named_by_open || later(it.last_named))
            || waiting.any(|call| named(&call.op) == value);
        Some((Some(if matters { number } else { self.any }), used))
    }
}

/// The value that the operation looks for.
fn named(op: &Op) -> Option<u64> {
    match op {
        Op::Get(value) | Op::CheckAndSet(_, value, _) => *value,
        Op::Put(_) | Op::Remove | Op::Incr(..) => None,
    }
}

/// Whether the answer says that the value was there.
fn needs(op: &Op, value: u64) -> bool {
    match op {
        Op::Get(found) | Op::CheckAndSet(_, found, Some(true)) => *found == Some(value),
        _ => false,
    }
}
