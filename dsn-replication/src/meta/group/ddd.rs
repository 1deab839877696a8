//! Everybody in the last group is gone: which former member may go on with its data?
//!
//! Where the last member says that the end of its log may be missing, [`tails`](super::tails) chooses. Here it has, as
//! far as anybody knows, what it acknowledged; where there were two or more, the one before it serves as a
//! cross-check. Nobody is chosen on guesses: a former member that is not alive, or has not reported what it holds, is
//! waited for, and one that provably lacks what was committed is not taken.

use std::cmp::Ordering;

use dsn_rpc::address::RpcAddress;

use crate::wire::config::ReplicaInfo;

/// What is known about a former member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Former {
    /// The server.
    pub node: RpcAddress,
    /// Whether it is alive.
    pub alive: bool,
    /// Whether it has reported everything it holds since it was found alive.
    pub collected: bool,
    /// It has a replica that it cannot serve at present: its disk refuses it.
    pub refused: bool,
    /// It may have one in a data directory that cannot be used at present.
    pub incomplete: bool,
    /// Ballot, committed decree and prepared decree of its replica; `None` when it holds none.
    pub replica: Option<(i64, i64, i64)>,
    /// The end of the replica's log may be missing, says the server.
    pub uncertain: bool,
}

impl Former {
    /// From a server's report.
    #[must_use]
    pub fn reported(info: &ReplicaInfo) -> (i64, i64, i64) {
        (info.ballot, info.last_committed_decree, info.last_prepared_decree)
    }
}

/// Why a server that is there has no numbers to tell.
pub(super) const REFUSES: &str = "whose disk refuses its replica at present";

/// The former member that may become primary. `former` is in the order in which they left, the last one last;
/// `committed` is the highest commit point that anybody ever reported.
///
/// # Errors
/// A sentence for the operator: who is waited for, or why nobody fits.
pub fn choose(former: &[Former], committed: i64) -> Result<RpcAddress, String> {
    let pair = &former[former.len().saturating_sub(2)..];
    if let Some(away) = pair.iter().find(|one| !one.alive) {
        return Err(format!("waits for {}, which is not alive", away.node));
    }
    if let Some(silent) = pair.iter().find(|one| !one.collected) {
        return Err(format!("waits for the report of {}", silent.node));
    }
    let numbers = |one: &Former| one.replica.unwrap_or((-1, -1, -1));
    let chosen = match pair {
        [] => return Err("no former member is known".to_owned()),
        [only] => return alone(only, committed),
        [first, last, ..] => {
            let (ballot_a, committed_a, prepared_a) = numbers(first);
            let (ballot_b, committed_b, prepared_b) = numbers(last);
            if last.may_hold() {
                return Err(format!("waits for {}, {REFUSES}", last.node));
            }
            if last.replica.is_none() {
                // It may have acknowledged alone what the one before it never saw.
                return Err(format!("{}, the last member, holds no replica any more", last.node));
            }
            // Who left last under a later ballot need not know what was committed before: it has it, or it has lost
            // something. The one before it has a later ballot only if the last one invited it under that and never
            // wrote it down, or has lost it.
            let opposed = (ballot_a > ballot_b && committed_a < committed_b)
                || (ballot_a < ballot_b && committed_a > prepared_b);
            if opposed {
                return Err(format!(
                    "{} has ballot {ballot_a}, committed {committed_a} and prepared {prepared_a}, {} has ballot \
                     {ballot_b}, committed {committed_b} and prepared {prepared_b}",
                    first.node, last.node
                ));
            }
            // A log knows late what is committed, and most of all that of a primary which went on alone: under one
            // ballot, who knows more need not have more.
            let newer = match ballot_a.cmp(&ballot_b) {
                Ordering::Less => false,
                Ordering::Equal => prepared_a > prepared_b && committed_a >= committed_b,
                // It was invited under a ballot that the last one had no time to write down, and did nothing under.
                Ordering::Greater => prepared_a >= prepared_b,
            };
            if newer { first } else { last }
        }
    };
    if chosen.replica.is_none() {
        return Err(format!("{} holds no replica any more", chosen.node));
    }
    let (_, _, prepared) = numbers(chosen);
    if prepared < committed {
        return Err(format!(
            "{} has prepared up to {prepared}, but {committed} was committed",
            chosen.node
        ));
    }
    Ok(chosen.node)
}

/// Nobody else ever had the data: whatever the server still has is all there is.
fn alone(only: &Former, committed: i64) -> Result<RpcAddress, String> {
    let Some((_, _, prepared)) = only.replica else {
        if only.may_hold() {
            return Err(format!("waits for {}, {REFUSES}", only.node));
        }
        return Err(format!("{} holds no replica any more", only.node));
    };
    if prepared < committed {
        tracing::error!(
            node = %only.node,
            prepared,
            committed,
            "the only replica has lost committed mutations; going on with what it has"
        );
    }
    Ok(only.node)
}
