//! A key that is only counted up and read. Increments whose outcome is unknown are all alike: how many of them have
//! taken effect is all that matters, and each is only made to when an answer asks for it.

use super::search::{Model, State};
use super::{Call, Op};

/// See the module's header.
pub struct Counter {
    /// When the increments of unknown outcome were sent, in order.
    open: Vec<u64>,
}

impl Counter {
    /// The counter that these calls are about.
    pub fn of(calls: &[Call]) -> Self {
        let is_open = |call: &&Call| call.returned.is_none() && matches!(call.op, Op::Incr(..));
        let mut open: Vec<u64> = calls.iter().filter(is_open).map(|call| call.invoked).collect();
        open.sort_unstable();
        Self { open }
    }
}

impl Model for Counter {
    fn initial(&self) -> State {
        (None, vec![0])
    }

    /// Places as many of the open increments before it as the answer needs.
    fn place(&self, (value, used): &State, call: &Call, now: u64) -> Option<State> {
        let value = value.unwrap_or(0);
        let (before, after) = match &call.op {
            Op::Get(answer) => (answer.unwrap_or(0), answer.unwrap_or(0)),
            Op::Incr(_, Some(sum)) => (sum.checked_sub(1)?, *sum),
            _ => (value, value + 1),
        };
        let more = usize::try_from(before.checked_sub(value)?).ok()?;
        let used = usize::from(used[0]) + more;
        let sent = self.open.partition_point(|invoked| *invoked <= now);
        let number = (after > 0).then_some(after);
        (used <= sent).then(|| (number, vec![used as u16]))
    }

    fn open(&self, _: &State, _: u64) -> Vec<(State, bool)> {
        Vec::new()
    }

    fn settle<'a>(
        &self,
        _: &State,
        state: State,
        mut waiting: impl Iterator<Item = &'a Call> + Clone,
        _: u64,
    ) -> Option<State> {
        // Numbers only grow.
        let value = state.0.unwrap_or(0);
        let passed = |call: &Call| match &call.op {
            Op::Get(answer) => answer.unwrap_or(0) < value,
            Op::Incr(_, Some(sum)) => *sum <= value,
            _ => false,
        };
        (!waiting.any(passed)).then_some(state)
    }
}
