//! Asks the meta servers where the partitions of a table are.
//!
//! One question at a time, to one meta server after the other, over a connection of its own per
//! question: this is rare. A meta server that is not the leader names it; the leader is asked next,
//! for one round.

use crate::engine::{Engine, LPC_BENCH_LOCATE};
use crate::routes::Routes;
use bytes::{Buf, BytesMut};
use dsn_core::driver::{IoEvent, Sock};
use dsn_core::exec::{Addr, Ctx, Resident, TimerId};
use dsn_replication::wire::codes::QUERY_CONFIG;
use dsn_replication::wire::config::{QueryCfgRequest, QueryCfgResponse};
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::frame::{
    Frame, Parsed, Parser, Protocol, RequestHead, ResponseFrame, RpcName, write_request,
};
use dsn_rpc::thrift::{ARGUMENT_ID, decode_wrapped};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::time::Duration;

/// Longest wait for one meta server.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest configuration: about 100,000 partitions.
const MAX_ANSWER: usize = 16 << 20;
/// Most partitions of a table.
const MAX_PARTITIONS: usize = 1 << 20;
/// Bytes read at a time.
const READ_BYTES: usize = 16 * 1024;

/// Why a meta server's answer is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocateError {
    /// It could not be asked.
    #[error("meta server {meta}: {why}")]
    Unreachable {
        /// Which.
        meta: SocketAddr,
        /// Why.
        why: String,
    },
    /// It refused.
    #[error("meta server {meta} answers {error}{}", explain(*.error))]
    Refused {
        /// Which.
        meta: SocketAddr,
        /// Its error.
        error: ErrorCode,
    },
}

fn explain(error: ErrorCode) -> &'static str {
    match error {
        ErrorCode::ObjectNotFound | ErrorCode::AppNotExist => ": there is no such table",
        _ => "",
    }
}

impl LocateError {
    /// Whether asking again is of no use.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Unreachable { .. } => false,
            Self::Refused { error, .. } => matches!(
                error,
                ErrorCode::ObjectNotFound
                    | ErrorCode::AppNotExist
                    | ErrorCode::AppDropped
                    | ErrorCode::AclDeny
                    | ErrorCode::HandlerNotFound
            ),
        }
    }

    /// Who was asked.
    pub fn from(&self) -> String {
        match self {
            Self::Unreachable { meta, .. } | Self::Refused { meta, .. } => meta.to_string(),
        }
    }
}

/// A question under way.
struct Question {
    meta: SocketAddr,
    sock: Sock,
    timer: TimerId,
    connected: bool,
    out: BytesMut,
    input: BytesMut,
    parser: Parser,
}

/// See the module's header.
pub struct Locator {
    metas: Vec<SocketAddr>,
    table: String,
    me: Addr<Self>,
    engine: Addr<Engine>,
    next: usize,
    leader: Option<SocketAddr>,
    question: Option<Question>,
}

impl Resident for Locator {
    fn on_io(&mut self, ctx: &mut Ctx<'_>, event: IoEvent, _: u64) {
        let Some(question) = self.question.as_mut().filter(|q| q.sock == event.sock) else {
            return;
        };
        match question.progress(ctx, event) {
            Ok(None) => {}
            Ok(Some(response)) => self.answered(ctx, &response),
            Err(error) => self.unreachable(ctx, &error.to_string()),
        }
    }

    fn on_close(&mut self, ctx: &mut Ctx<'_>) {
        self.hang_up(ctx);
    }
}

impl Question {
    fn progress(&mut self, ctx: &mut Ctx<'_>, event: IoEvent) -> io::Result<Option<ResponseFrame>> {
        if !self.connected {
            match ctx.connect_result(self.sock) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                other => other?,
            }
            self.connected = true;
        }
        while !self.out.is_empty() {
            match ctx.writev(self.sock, &[IoSlice::new(&self.out)]) {
                Ok(sent) => self.out.advance(sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if !event.readable {
            return Ok(None);
        }
        let mut piece = [0; READ_BYTES];
        loop {
            match ctx.read(self.sock, &mut piece) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.input.extend_from_slice(&piece[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        match self.parser.next(&mut self.input) {
            Ok(Parsed::Frame(Frame::Response(response))) => Ok(Some(response)),
            Ok(_) => Ok(None),
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }
}

impl Locator {
    /// Somebody who can be asked where the partitions of `table` are, and tells `engine`.
    pub fn new(
        metas: Vec<SocketAddr>,
        table: String,
        me: Addr<Self>,
        engine: Addr<Engine>,
    ) -> Self {
        Self { metas, table, me, engine, next: 0, leader: None, question: None }
    }

    /// Asks the next meta server, unless a question is under way.
    pub fn ask(&mut self, ctx: &mut Ctx<'_>) {
        if self.question.is_some() || self.metas.is_empty() {
            return;
        }
        let meta = self.leader.take().unwrap_or_else(|| {
            let meta = self.metas[self.next % self.metas.len()];
            self.next += 1;
            meta
        });
        let sock = match ctx.connect(meta) {
            Ok(sock) => sock,
            Err(error) => {
                let why = error.to_string();
                return self.tell(ctx, Err(LocateError::Unreachable { meta, why }));
            }
        };
        ctx.attach(sock, self.me, 0);
        let timer = ctx.after(self.me, &LPC_BENCH_LOCATE, ANSWER_TIMEOUT, |locator, ctx| {
            locator.unreachable(ctx, "no answer in time");
        });
        let mut head = RequestHead::new(Protocol::Thft, RpcName::from(QUERY_CONFIG), 1);
        head.timeout_ms = ANSWER_TIMEOUT.as_millis() as u32;
        let request = QueryCfgRequest { app_name: self.table.clone(), partition_indices: vec![] };
        let mut out = BytesMut::new();
        write_request(&mut out, &head, |w| w.wrapped(ARGUMENT_ID, &request));
        self.question = Some(Question {
            meta,
            sock,
            timer,
            connected: false,
            out,
            input: BytesMut::new(),
            parser: Parser::client(Protocol::Thft, MAX_ANSWER),
        });
    }

    fn hang_up(&mut self, ctx: &mut Ctx<'_>) -> Option<SocketAddr> {
        let question = self.question.take()?;
        ctx.close_socket(question.sock);
        ctx.cancel(question.timer);
        Some(question.meta)
    }

    fn unreachable(&mut self, ctx: &mut Ctx<'_>, why: &str) {
        if let Some(meta) = self.hang_up(ctx) {
            self.tell(ctx, Err(LocateError::Unreachable { meta, why: why.to_owned() }));
        }
    }

    fn answered(&mut self, ctx: &mut Ctx<'_>, response: &ResponseFrame) {
        let Some(meta) = self.hang_up(ctx) else { return };
        let refused = |error| LocateError::Refused { meta, error };
        if !response.error.is_ok() {
            return self.tell(ctx, Err(refused(response.error)));
        }
        let answer: QueryCfgResponse = match decode_wrapped(&response.body) {
            Ok(answer) => answer,
            Err(error) => {
                let why = format!("unintelligible answer: {error}");
                return self.tell(ctx, Err(LocateError::Unreachable { meta, why }));
            }
        };
        match answer.err {
            ErrorCode::Ok => {
                // The one that knew is asked first next time.
                self.leader = Some(meta);
                let routes = routes_of(&answer);
                self.tell(ctx, Ok(routes));
            }
            ErrorCode::ForwardToOthers => {
                let leader = answer.partitions.first().and_then(|p| p.primary.socket_addr());
                self.leader = leader.map(SocketAddr::V4);
                self.tell(ctx, Err(refused(ErrorCode::ForwardToOthers)));
            }
            error => self.tell(ctx, Err(refused(error))),
        }
    }

    fn tell(&mut self, ctx: &mut Ctx<'_>, answer: Result<Routes, LocateError>) {
        ctx.post(self.engine, &LPC_BENCH_LOCATE, move |engine, ctx| engine.located(ctx, answer));
    }
}

/// The placement in an answer. A partition that is being split off is served by its parent until it
/// is ready.
fn routes_of(answer: &QueryCfgResponse) -> Routes {
    let count = usize::try_from(answer.partition_count).unwrap_or(0).min(MAX_PARTITIONS);
    let mut primaries: Vec<Option<SocketAddr>> = vec![None; count];
    let mut young = Vec::new();
    for partition in answer.partitions.iter() {
        let Ok(index) = usize::try_from(partition.pid.partition_index) else { continue };
        if index < count {
            primaries[index] = partition.primary.socket_addr().map(SocketAddr::V4);
            if partition.ballot < 0 {
                young.push(index);
            }
        }
    }
    Routes::of(answer.app_id, &primaries, &young)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dsn_replication::wire::config::PartitionConfiguration;
    use dsn_rpc::address::RpcAddress;
    use dsn_rpc::gpid::Gpid;
    use std::net::Ipv4Addr;

    fn partition(index: i32, port: u16, ballot: i64) -> PartitionConfiguration {
        let primary = match port {
            0 => RpcAddress::INVALID,
            port => RpcAddress::new(Ipv4Addr::LOCALHOST, port),
        };
        PartitionConfiguration { pid: Gpid::new(3, index), ballot, primary, ..Default::default() }
    }

    fn answer(count: i32, partitions: &[PartitionConfiguration]) -> QueryCfgResponse {
        let mut answer =
            QueryCfgResponse { app_id: 3, partition_count: count, ..Default::default() };
        partitions.iter().for_each(|p| answer.partitions.push(p.clone()));
        answer
    }

    #[test]
    fn primaries_are_placed_by_index() {
        let routes = routes_of(&answer(
            4,
            &[
                partition(2, 34802, 1),
                partition(0, 34801, 1),
                partition(1, 0, 1),
                partition(9, 34809, 1),
                partition(-1, 34809, 1),
            ],
        ));
        assert_eq!(routes.app_id, 3);
        assert_eq!(routes.primaries, [Some(0), None, Some(1), None]);
        assert_eq!(routes_of(&answer(-5, &[])).primaries, []);
    }

    #[test]
    fn a_child_that_is_not_ready_is_served_by_its_parent() {
        let routes = routes_of(&answer(
            4,
            &[
                partition(0, 34801, 5),
                partition(1, 34802, 5),
                partition(2, 0, -1),
                partition(3, 34801, 5),
            ],
        ));
        assert_eq!(routes.serving, [0, 1, 0, 3]);
    }

    #[test]
    fn a_missing_table_is_final_and_said_in_words() {
        let meta = "127.0.0.1:34601".parse().unwrap();
        let error = LocateError::Refused { meta, error: ErrorCode::ObjectNotFound };
        assert!(error.is_final());
        assert!(error.to_string().ends_with("ERR_OBJECT_NOT_FOUND: there is no such table"));
        assert!(!LocateError::Refused { meta, error: ErrorCode::ForwardToOthers }.is_final());
    }
}
