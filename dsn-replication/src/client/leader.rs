//! Meta servers that do not serve: how they say so, and who does.
//!
//! The verdict is in the answer's field 1, or in the header when the server could have passed the request on.

use bytes::Bytes;
use dsn_core::code::Code;
use dsn_rpc::CallError;
use dsn_rpc::address::RpcAddress;
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::message;
use dsn_rpc::thrift::decode_wrapped;
use std::net::SocketAddr;

use crate::codes::RPC_CM_QUERY_PARTITION_CONFIG_BY_INDEX;
use crate::wire::config::QueryCfgResponse;

message! {
    /// What all answers of meta servers begin with.
    pub struct Verdict { 1: err: ErrorCode }
}

/// A meta server that does not serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotLeading {
    /// `ERR_FORWARD_TO_OTHERS`, or one of those that mean "not yet".
    pub(crate) error: ErrorCode,
    /// Who leads, if it said.
    pub(crate) leader: Option<SocketAddr>,
}

/// Whether an answer means that another meta server, or this one a little later, is to be asked.
pub(crate) fn not_leading(code: Code, answer: &Bytes) -> Option<NotLeading> {
    let error = decode_wrapped::<Verdict>(answer).ok()?.err;
    if error == ErrorCode::ForwardToOthers && code == &RPC_CM_QUERY_PARTITION_CONFIG_BY_INDEX {
        return not_leading_in(&decode_wrapped(answer).ok()?);
    }
    is_elsewhere(error).then_some(NotLeading { error, leader: None })
}

/// The same of a configuration, which names the leader.
pub(crate) fn not_leading_in(answer: &QueryCfgResponse) -> Option<NotLeading> {
    let leader = answer.partitions.first().and_then(|p| p.primary.socket_addr());
    is_elsewhere(answer.err)
        .then_some(NotLeading { error: answer.err, leader: leader.map(SocketAddr::from) })
}

/// The same of a refusal in the header.
pub(crate) fn turned_away(error: &CallError) -> Option<NotLeading> {
    let CallError::Remote { error, body, .. } = error else { return None };
    let leader = decode_wrapped::<RpcAddress>(body).ok().and_then(RpcAddress::socket_addr);
    is_elsewhere(*error)
        .then_some(NotLeading { error: *error, leader: leader.map(SocketAddr::from) })
}

fn is_elsewhere(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::ForwardToOthers | ErrorCode::ServiceNotActive | ErrorCode::UnderRecovery
    )
}
