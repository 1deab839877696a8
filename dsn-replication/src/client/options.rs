//! How a client behaves.

use dsn_rpc::host_port::HostPort;
use std::time::Duration;

/// Settings of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// Meta servers, by name or address, any order.
    pub metas: Vec<HostPort>,
    /// How long an operation may take when nothing else is said.
    pub timeout: Duration,
    /// How long the first attempt of a read may wait for an answer before another server is looked for. Each that is
    /// not answered in time doubles it: what is slow may only need longer.
    pub read_attempt: Duration,
    /// How long a question to a meta server may take before the next one is asked.
    pub meta_timeout: Duration,
    /// Whether writes whose outcome is unknown are tried again. They may then be carried out twice.
    pub retry_ambiguous_writes: bool,
}

impl ClientOptions {
    /// Defaults for a cluster with these meta servers.
    pub fn new(metas: impl IntoIterator<Item = impl Into<HostPort>>) -> Self {
        Self {
            metas: metas.into_iter().map(Into::into).collect(),
            timeout: Duration::from_secs(5),
            read_attempt: Duration::from_secs(2),
            meta_timeout: Duration::from_secs(1),
            retry_ambiguous_writes: false,
        }
    }
}
