//! Is a history of one key linearizable?
//!
//! Wing & Gong's search with Lowe's memory of visited states ("Testing for linearizability", 2017), as Porcupine
//! does it: entries in order of time, try every operation that may come first, remember (set of done operations,
//! state) so that no configuration is searched twice. Linearizability is local, so each key is checked alone.
//!
//! An operation whose outcome is unknown (timeout, broken connection) may take effect at any later time or never.

use dsn_core::hash::DetHashSet;

/// What a client asked of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Put a value. Values are unique within a history, which makes failures readable.
    Put(u64),
    /// Remove.
    Remove,
    /// Add to the number stored (absent counts as 0); `Some` is the sum that was answered.
    Incr(i64, Option<u64>),
    /// Read; the answer.
    Get(Option<u64>),
    /// Put the first value if the current one is the second; whether it was said to be done.
    CheckAndSet(u64, Option<u64>, Option<bool>),
}

/// One operation of a history, with times in nanoseconds. `returned` is `None` when the outcome is unknown.
#[derive(Clone, Debug)]
pub struct Call {
    /// Which client.
    pub client: u32,
    /// What.
    pub op: Op,
    /// When it was sent.
    pub invoked: u64,
    /// When it was answered.
    pub returned: Option<u64>,
}

/// Longest history of one key that is checked, in calls.
pub const CALLS_MAX: usize = 20_000;
/// Most configurations searched for one key before giving up.
pub const CONFIGURATIONS_MAX: usize = 5_000_000;

/// Why a history was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotLinearizable {
    /// No order explains it.
    #[error(
        "no order of these calls explains their answers; the longest that was explained ends before {0}"
    )]
    Violation(String),
    /// The search was given up.
    #[error("undecided after {CONFIGURATIONS_MAX} configurations")]
    Undecided,
    /// More than [`CALLS_MAX`] calls.
    #[error("a history of {0} calls is too long")]
    TooLong(usize),
}

/// Runs one operation on the state: the new state, or `None` when the answer does not fit.
fn step(state: Option<u64>, op: &Op, known: bool) -> Option<Option<u64>> {
    match op {
        Op::Put(value) => Some(Some(*value)),
        Op::Remove => Some(None),
        Op::Get(value) => (!known || *value == state).then_some(state),
        Op::Incr(by, answer) => {
            let sum = (state.unwrap_or(0) as i64).wrapping_add(*by) as u64;
            (answer.is_none() || *answer == Some(sum)).then_some(Some(sum))
        }
        Op::CheckAndSet(value, expected, answer) => {
            let fits = state == *expected;
            let new = if fits { Some(*value) } else { state };
            (answer.is_none() || *answer == Some(fits)).then_some(new)
        }
    }
}

#[derive(Clone, Copy)]
struct Entry {
    call: usize,
    is_return: bool,
    prev: usize,
    next: usize,
}

/// The entries as a doubly linked list with a head sentinel at 0.
struct Entries {
    list: Vec<Entry>,
    /// Index of the return entry of each call.
    returns: Vec<usize>,
}

impl Entries {
    fn new(calls: &[Call]) -> Self {
        let mut events: Vec<(u64, bool, usize)> = Vec::with_capacity(calls.len() * 2);
        for (index, call) in calls.iter().enumerate() {
            events.push((call.invoked, false, index));
            events.push((call.returned.unwrap_or(u64::MAX), true, index));
        }
        // At equal times invocations come first: the calls overlap.
        events.sort();
        let mut list = vec![Entry { call: usize::MAX, is_return: false, prev: 0, next: 0 }];
        let mut returns = vec![0; calls.len()];
        for (_, is_return, call) in events {
            let index = list.len();
            list[index - 1].next = index;
            list.push(Entry { call, is_return, prev: index - 1, next: 0 });
            if is_return {
                returns[call] = index;
            }
        }
        Self { list, returns }
    }

    /// When the first call answers, looking from an entry that no return comes before.
    fn first_return(&self, mut at: usize, calls: &[Call]) -> u64 {
        while at != 0 {
            let entry = self.list[at];
            if entry.is_return {
                return calls[entry.call].returned.unwrap_or(u64::MAX);
            }
            at = entry.next;
        }
        u64::MAX
    }

    fn unlink(&mut self, index: usize) {
        let Entry { prev, next, .. } = self.list[index];
        self.list[prev].next = next;
        if next != 0 {
            self.list[next].prev = prev;
        }
    }

    fn relink(&mut self, index: usize) {
        let Entry { prev, next, .. } = self.list[index];
        self.list[prev].next = index;
        if next != 0 {
            self.list[next].prev = index;
        }
    }

    /// Takes a call out of the list, invocation and return.
    fn lift(&mut self, invocation: usize) {
        self.unlink(invocation);
        let ret = self.returns[self.list[invocation].call];
        self.unlink(ret);
    }

    fn unlift(&mut self, invocation: usize) {
        let ret = self.returns[self.list[invocation].call];
        self.relink(ret);
        self.relink(invocation);
    }
}

/// Checks the history of one key that starts absent.
///
/// # Errors
/// See [`NotLinearizable`].
pub fn check(calls: &[Call]) -> Result<(), NotLinearizable> {
    if calls.len() > CALLS_MAX {
        return Err(NotLinearizable::TooLong(calls.len()));
    }
    if calls.iter().all(|call| matches!(call.op, Op::Get(_) | Op::Incr(1, _))) {
        return check_counter(calls);
    }
    // A write whose outcome is unknown and whose value nobody read mostly never happened; without those there is much
    // less to search. An order without them is an order.
    let read = |value: &u64| calls.iter().any(|call| call.op == Op::Get(Some(*value)));
    let matters = |call: &&Call| match &call.op {
        Op::Put(value) | Op::CheckAndSet(value, ..) => call.returned.is_some() || read(value),
        _ => true,
    };
    let fewer: Vec<Call> = calls.iter().filter(matters).cloned().collect();
    if fewer.len() < calls.len() && search(&fewer).is_ok() {
        return Ok(());
    }
    search(calls)
}

/// For each removal whose outcome is unknown, the one before it. They are all alike: an order that uses a later one and
/// not an earlier one can use the earlier one in its place.
fn open_removals(calls: &[Call]) -> Vec<Option<usize>> {
    let mut open: Vec<usize> = (0..calls.len())
        .filter(|at| calls[*at].returned.is_none() && calls[*at].op == Op::Remove)
        .collect();
    open.sort_by_key(|at| calls[*at].invoked);
    let mut before = vec![None; calls.len()];
    for pair in open.windows(2) {
        before[pair[1]] = Some(pair[0]);
    }
    before
}

/// Any history.
fn search(calls: &[Call]) -> Result<(), NotLinearizable> {
    let mut entries = Entries::new(calls);
    let before = open_removals(calls);
    let mut done = vec![0u64; calls.len().div_ceil(64)];
    let mut state = None;
    let mut stack: Vec<(usize, Option<u64>)> = Vec::new();
    let mut seen: DetHashSet<(Vec<u64>, Option<u64>)> = DetHashSet::default();
    let mut furthest = 0;
    let mut at = entries.list[0].next;
    let mut known_left = calls.iter().filter(|call| call.returned.is_some()).count();
    while known_left > 0 {
        let entry = entries.list[at];
        if at != 0 && !entry.is_return {
            let call = &calls[entry.call];
            let known = call.returned.is_some();
            // A call of unknown outcome that would change nothing, or whose like comes before it, need not be tried.
            let first = before[entry.call].is_none_or(|at| done[at / 64] >> (at % 64) & 1 == 1);
            let new = step(state, &call.op, known).filter(|new| known || (first && *new != state));
            if let Some(new) = new {
                done[entry.call / 64] |= 1 << (entry.call % 64);
                if seen.insert((done.clone(), new)) {
                    if seen.len() > CONFIGURATIONS_MAX {
                        return Err(NotLinearizable::Undecided);
                    }
                    stack.push((at, state));
                    state = new;
                    known_left -= usize::from(known);
                    entries.lift(at);
                    furthest = furthest.max(stack.len());
                    at = entries.list[0].next;
                    continue;
                }
                done[entry.call / 64] &= !(1 << (entry.call % 64));
            }
            at = entry.next;
            continue;
        }
        // A return was reached whose call has not been placed: undo the last choice.
        let Some((invocation, before)) = stack.pop() else {
            let what = format!("{:?}", calls.get(entry.call));
            return Err(NotLinearizable::Violation(format!("{what} ({furthest} calls placed)")));
        };
        let call = entries.list[invocation].call;
        state = before;
        done[call / 64] &= !(1 << (call % 64));
        known_left += usize::from(calls[call].returned.is_some());
        entries.unlift(invocation);
        at = entries.list[invocation].next;
    }
    Ok(())
}

/// Like [`check`] for a key that is only counted up and read. Increments whose outcome is unknown are all alike: how
/// many of them have taken effect is all that matters, and each is only made to when an answer asks for it.
fn check_counter(calls: &[Call]) -> Result<(), NotLinearizable> {
    let known: Vec<Call> = calls.iter().filter(|call| call.returned.is_some()).cloned().collect();
    let is_open = |call: &&Call| call.returned.is_none() && matches!(call.op, Op::Incr(..));
    let mut open: Vec<u64> = calls.iter().filter(is_open).map(|call| call.invoked).collect();
    open.sort_unstable();
    let mut entries = Entries::new(&known);
    let mut done = vec![0u64; known.len().div_ceil(64)];
    // The number, and how many of the open increments it contains.
    let (mut value, mut used) = (0u64, 0usize);
    let mut stack: Vec<(usize, u64, usize)> = Vec::new();
    let mut seen: DetHashSet<(Vec<u64>, usize)> = DetHashSet::default();
    let mut furthest = 0;
    let mut at = entries.list[0].next;
    while stack.len() < known.len() {
        let entry = entries.list[at];
        if at != 0 && !entry.is_return {
            // Whatever comes next comes before the first answer that is still to be explained.
            let first_return = entries.first_return(at, &known);
            let available = open.partition_point(|invoked| *invoked <= first_return) - used;
            if let Some((new, more)) = count(value, available, &known[entry.call].op) {
                done[entry.call / 64] |= 1 << (entry.call % 64);
                if seen.insert((done.clone(), used + more)) {
                    if seen.len() > CONFIGURATIONS_MAX {
                        return Err(NotLinearizable::Undecided);
                    }
                    stack.push((at, value, used));
                    (value, used) = (new, used + more);
                    entries.lift(at);
                    furthest = furthest.max(stack.len());
                    at = entries.list[0].next;
                    continue;
                }
                done[entry.call / 64] &= !(1 << (entry.call % 64));
            }
            at = entry.next;
            continue;
        }
        let Some((invocation, value_before, used_before)) = stack.pop() else {
            let what = format!("{:?}", known.get(entry.call));
            return Err(NotLinearizable::Violation(format!("{what} ({furthest} calls placed)")));
        };
        let call = entries.list[invocation].call;
        (value, used) = (value_before, used_before);
        done[call / 64] &= !(1 << (call % 64));
        entries.unlift(invocation);
        at = entries.list[invocation].next;
    }
    Ok(())
}

/// The number after an answered call, and how many open increments must have come before it; `None` when no number of
/// those that are `available` explains the answer.
fn count(value: u64, available: usize, op: &Op) -> Option<(u64, usize)> {
    let (before, after) = match op {
        Op::Get(answer) => (answer.unwrap_or(0), answer.unwrap_or(0)),
        Op::Incr(_, Some(sum)) => (sum.checked_sub(1)?, *sum),
        _ => (value, value + 1),
    };
    let more = usize::try_from(before.checked_sub(value)?).ok()?;
    (more <= available).then_some((after, more))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dsn_core::rng::Rng;

    fn call(client: u32, op: Op, invoked: u64, returned: u64) -> Call {
        Call { client, op, invoked, returned: Some(returned) }
    }

    fn lost(client: u32, op: Op, invoked: u64) -> Call {
        Call { client, op, invoked, returned: None }
    }

    #[test]
    fn a_sequential_history_is_fine_and_a_stale_read_is_not() {
        let mut calls = vec![
            call(1, Op::Put(1), 0, 10),
            call(1, Op::Get(Some(1)), 20, 30),
            call(2, Op::Put(2), 40, 50),
        ];
        calls.push(call(1, Op::Get(Some(2)), 60, 70));
        assert_eq!(check(&calls), Ok(()));
        calls.push(call(1, Op::Get(Some(1)), 80, 90));
        assert!(matches!(check(&calls), Err(NotLinearizable::Violation(_))));
    }

    #[test]
    fn overlapping_writes_may_go_either_way_but_only_one_way() {
        let base = [call(1, Op::Put(1), 0, 100), call(2, Op::Put(2), 0, 100)];
        for seen in [1, 2] {
            let mut calls = base.to_vec();
            calls.push(call(3, Op::Get(Some(seen)), 200, 210));
            assert_eq!(check(&calls), Ok(()));
            calls.push(call(3, Op::Get(Some(3 - seen)), 220, 230));
            assert!(check(&calls).is_err());
        }
    }

    #[test]
    fn an_unknown_write_may_happen_late_or_never_but_not_twice() {
        let calls = vec![
            call(1, Op::Put(1), 0, 10),
            lost(2, Op::Put(2), 20),
            call(1, Op::Get(Some(1)), 30, 40),
            call(1, Op::Get(Some(2)), 50, 60),
        ];
        assert_eq!(check(&calls), Ok(()));
        let mut again = calls;
        again.push(call(1, Op::Put(3), 70, 80));
        again.push(call(1, Op::Get(Some(2)), 90, 100));
        assert!(check(&again).is_err());
    }

    #[test]
    fn a_lost_acknowledged_write_is_seen() {
        let calls = vec![call(1, Op::Put(1), 0, 10), call(1, Op::Get(None), 20, 30)];
        assert!(check(&calls).is_err());
    }

    #[test]
    fn counting_agrees_with_searching() {
        let seed = 0x006f_756e_7472;
        println!("seed {seed:#x}");
        let mut rng = Rng::new(seed);
        let (mut fine, mut wrong) = (0, 0);
        for _ in 0..20_000 {
            let mut calls = Vec::new();
            for client in 0..2 + rng.below(5) as u32 {
                let invoked = rng.below(50);
                let answer = rng.below(4);
                calls.push(match rng.below(3) {
                    0 => lost(client, Op::Incr(1, None), invoked),
                    1 => call(
                        client,
                        Op::Incr(1, Some(answer + 1)),
                        invoked,
                        invoked + 1 + rng.below(30),
                    ),
                    _ => {
                        let answer = (answer > 0).then_some(answer);
                        call(client, Op::Get(answer), invoked, invoked + 1 + rng.below(30))
                    }
                });
            }
            let expected = search(&calls).is_ok();
            assert_eq!(check_counter(&calls).is_ok(), expected, "{calls:?}");
            if expected { fine += 1 } else { wrong += 1 }
        }
        assert!(fine > 1_000 && wrong > 1_000, "{fine} fine, {wrong} wrong");
    }

    /// Every order there is.
    fn any_order(calls: &[Call], done: u32, state: Option<u64>) -> bool {
        let left = |at: &usize| done >> at & 1 == 0;
        let returns = (0..calls.len()).filter(left).filter_map(|at| calls[at].returned).min();
        let Some(first) = returns else { return true };
        (0..calls.len()).filter(left).any(|at| {
            let call = &calls[at];
            let new = step(state, &call.op, call.returned.is_some());
            call.invoked <= first && new.is_some_and(|new| any_order(calls, done | 1 << at, new))
        })
    }

    #[test]
    fn the_search_passes_over_no_order_that_explains() {
        let seed = 0x6f72_6465_7273;
        println!("seed {seed:#x}");
        let mut rng = Rng::new(seed);
        let (mut fine, mut wrong) = (0, 0);
        for _ in 0..20_000 {
            let calls: Vec<Call> = (0..3 + rng.below(4) as u32)
                .map(|client| {
                    let invoked = rng.below(60);
                    let value = |n: u64| (n > 0).then_some(n);
                    let open = rng.below(2) == 0;
                    let op = match rng.below(5) {
                        0 => Op::Put(1 + rng.below(3)),
                        1 | 2 => Op::Remove,
                        3 => {
                            let (new, old) = (1 + rng.below(3), value(rng.below(4)));
                            Op::CheckAndSet(new, old, (!open).then(|| rng.below(2) == 0))
                        }
                        _ => {
                            return call(
                                client,
                                Op::Get(value(rng.below(4))),
                                invoked,
                                invoked + 20,
                            );
                        }
                    };
                    Call {
                        client,
                        op,
                        invoked,
                        returned: (!open).then(|| invoked + 1 + rng.below(30)),
                    }
                })
                .collect();
            let expected = any_order(&calls, 0, None);
            assert_eq!(check(&calls).is_ok(), expected, "{calls:?}");
            if expected { fine += 1 } else { wrong += 1 }
        }
        assert!(fine > 1_000 && wrong > 1_000, "{fine} fine, {wrong} wrong");
    }

    #[test]
    fn counters_count_each_acknowledged_step_once() {
        let ok = vec![
            call(1, Op::Incr(1, Some(1)), 0, 10),
            lost(2, Op::Incr(1, None), 5),
            call(1, Op::Incr(1, Some(3)), 20, 30),
        ];
        assert_eq!(check(&ok), Ok(()));
        let twice =
            vec![call(1, Op::Incr(1, Some(1)), 0, 10), call(1, Op::Incr(1, Some(3)), 20, 30)];
        assert!(check(&twice).is_err());
    }

    /// Histories made by a real register with random overlaps are accepted; with one answer changed, most are not.
    #[test]
    fn random_histories() {
        let mut refused = 0;
        for seed in 0..200 {
            println!("seed {seed}");
            let mut rng = Rng::stream(seed, "test", "linearizable", 0);
            let mut state = None;
            let mut calls = Vec::new();
            for n in 0..60u64 {
                let at = n * 100;
                let invoked = at - rng.below(250).min(at);
                let returned = (rng.below(10) > 0).then(|| at + 1 + rng.below(250));
                let op = match rng.below(3) {
                    0 => {
                        state = Some(n + 1);
                        Op::Put(n + 1)
                    }
                    1 if rng.below(3) == 0 => {
                        state = None;
                        Op::Remove
                    }
                    _ => Op::Get(state),
                };
                calls.push(Call { client: n as u32, op, invoked, returned });
            }
            assert_eq!(check(&calls), Ok(()));
            let reads: Vec<usize> = (0..calls.len())
                .filter(|i| matches!(calls[*i].op, Op::Get(_)) && calls[*i].returned.is_some())
                .collect();
            let victim = reads[rng.index(reads.len())];
            calls[victim].op = Op::Get(Some(9999));
            refused += usize::from(check(&calls).is_err());
        }
        assert_eq!(refused, 200, "a value that nobody wrote is always seen");
    }
}
