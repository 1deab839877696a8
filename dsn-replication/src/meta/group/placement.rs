//! Which server is to have a replica. Pure functions of a view; ties are broken by address, so that the same view gives
//! the same answer.

use dsn_rpc::address::RpcAddress;

use crate::meta::state::node::Load;

/// A server as placement sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The server.
    pub node: RpcAddress,
    /// What it has to do already.
    pub load: Load,
    /// It starts again and again, or did not act when it was asked: only if there is nobody else.
    pub doubtful: bool,
    /// It is being looked at whether its process has ended.
    pub may_be_gone: bool,
    /// Its last report names no replica of the partition.
    pub lacks: bool,
    /// It is asked to lead already.
    pub asked: bool,
}

/// Who becomes the first primary of a partition: fewest primaries of the table, then of all tables, then fewest
/// replicas.
#[must_use]
pub fn first_primary(candidates: &[Candidate]) -> Option<RpcAddress> {
    let rank = |candidate: &&Candidate| {
        let Load { app_primaries, app_replicas, primaries, replicas } = candidate.load;
        (candidate.doubtful, app_primaries, primaries, app_replicas, replicas, candidate.node)
    };
    candidates.iter().min_by_key(rank).map(|candidate| candidate.node)
}

/// Which of the living secondaries takes over: the one with fewest primaries, among those that still hold the
/// partition's data; but nobody is asked in the place of another because loads have changed.
#[must_use]
pub fn next_primary(secondaries: &[Candidate]) -> Option<RpcAddress> {
    let rank = |candidate: &&Candidate| {
        let Load { app_primaries, primaries, .. } = candidate.load;
        let Candidate { lacks, doubtful, asked, node, .. } = **candidate;
        (lacks, doubtful, !asked, app_primaries, primaries, node)
    };
    secondaries.iter().min_by_key(rank).map(|candidate| candidate.node)
}

/// Who gets a further copy: fewest replicas of the table, then of all tables.
#[must_use]
pub fn new_secondary(candidates: &[Candidate]) -> Option<RpcAddress> {
    let rank = |candidate: &&Candidate| {
        let Load { app_replicas, replicas, .. } = candidate.load;
        (candidate.doubtful, app_replicas, replicas, candidate.node)
    };
    candidates.iter().min_by_key(rank).map(|candidate| candidate.node)
}

/// Which secondary is one too many: the one with most replicas.
#[must_use]
pub fn redundant_secondary(secondaries: &[Candidate]) -> Option<RpcAddress> {
    let rank = |candidate: &&Candidate| {
        let Load { app_replicas, replicas, .. } = candidate.load;
        (candidate.doubtful, app_replicas, replicas, candidate.node)
    };
    secondaries.iter().max_by_key(rank).map(|candidate| candidate.node)
}
