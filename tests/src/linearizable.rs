//! Is a history of one key linearizable?
//!
//! Just-in-time linearization (Lowe, "Testing for linearizability", 2017): a walk through the events of the history in
//! order of time that carries along every configuration the key may be in. A call is placed when it must be, at its
//! answer, with whatever has to come before it. Linearizability is local, so each key is checked alone.
//!
//! An operation whose outcome is unknown (timeout, broken connection) may take effect at any later time or never. Those
//! are what makes histories hard; see [`register`] for how they are kept from doubling the configurations.

mod counter;
mod register;
mod search;

use counter::Counter;
use register::Register;
use search::search;

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
/// Most configurations searched before giving up, for one key or for all keys of a run.
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
    /// More calls at the same time than the search has room for.
    #[error("more than {} calls at the same time", search::PENDING_MAX)]
    TooMany,
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

/// Checks the history of one key that starts absent.
///
/// # Errors
/// See [`NotLinearizable`].
pub fn check(calls: &[Call]) -> Result<(), NotLinearizable> {
    check_within(calls, &mut { CONFIGURATIONS_MAX })
}

/// Like [`check`], for several keys of one run: searches at most `left` configurations, and takes what it has searched
/// off that.
///
/// # Errors
/// See [`NotLinearizable`].
pub fn check_within(calls: &[Call], left: &mut usize) -> Result<(), NotLinearizable> {
    if calls.len() > CALLS_MAX {
        return Err(NotLinearizable::TooLong(calls.len()));
    }
    if calls.iter().all(|call| matches!(call.op, Op::Get(_) | Op::Incr(1, _))) {
        return search(&Counter::of(calls), calls, left);
    }
    search(&Register::of(calls), calls, left)
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
            let expected =
                search(&Register::of(&calls), &calls, &mut { CONFIGURATIONS_MAX }).is_ok();
            assert_eq!(check(&calls).is_ok(), expected, "{calls:?}");
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

    /// The same for histories as the simulator makes them: each value written once, set where there is none, and read
    /// more often than by chance.
    #[test]
    fn nor_where_each_value_is_written_once() {
        let seed = 0x6f6e_6c79_6f6e_6365;
        println!("seed {seed:#x}");
        let mut rng = Rng::new(seed);
        let (mut fine, mut wrong) = (0, 0);
        for _ in 0..40_000 {
            let mut written = 0;
            let mut calls: Vec<Call> = Vec::new();
            for client in 0..4 + rng.below(5) as u32 {
                let invoked = rng.below(60);
                let open = rng.below(2) == 0;
                let op = match rng.below(8) {
                    0 | 1 => {
                        written += 1;
                        Op::Put(written)
                    }
                    2 => Op::Remove,
                    3 | 4 => {
                        written += 1;
                        Op::CheckAndSet(written, None, (!open).then(|| rng.below(2) == 0))
                    }
                    _ => {
                        let value = rng.below(written + 1);
                        let op = Op::Get((value > 0).then_some(value));
                        calls.push(call(client, op, invoked, invoked + 1 + rng.below(30)));
                        continue;
                    }
                };
                let returned = (!open).then(|| invoked + 1 + rng.below(30));
                calls.push(Call { client, op, invoked, returned });
            }
            let expected = any_order(&calls, 0, None);
            assert_eq!(check(&calls).is_ok(), expected, "{calls:?}");
            if expected { fine += 1 } else { wrong += 1 }
        }
        assert!(fine > 1_000 && wrong > 1_000, "{fine} fine, {wrong} wrong");
    }

    /// A cluster that was cut off for long: dozens of calls of unknown outcome of every kind, of which some were
    /// carried out much later, and others never.
    #[test]
    fn many_calls_of_unknown_outcome_can_be_decided() {
        let mut calls = Vec::new();
        for n in 0..40 {
            calls.push(lost(1, Op::Put(1_000 + n), n));
            calls.push(lost(2, Op::Remove, n));
            calls.push(lost(3, Op::CheckAndSet(2_000 + n, None, None), n));
        }
        let mut now = 100;
        let mut answered = |op, long| {
            now += 10;
            calls.push(call(4, op, now, now + long));
        };
        for n in 0..20 {
            answered(Op::Put(3_000 + n), 35);
            answered(Op::Get(Some(1_000 + 2 * n)), 15);
            answered(Op::Get(Some(2_000 + 2 * n)), 15);
            answered(Op::CheckAndSet(4_000 + n, None, Some(n % 2 == 0)), 25);
            answered(Op::Get(None), 5);
        }
        assert_eq!(check(&calls), Ok(()));
        calls.push(call(4, Op::Get(Some(1_000)), 10_000, 10_010));
        let refused = check(&calls);
        assert!(matches!(refused, Err(NotLinearizable::Violation(_))), "{refused:?}");
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
