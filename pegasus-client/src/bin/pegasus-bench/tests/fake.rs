//! A Pegasus cluster in a few lines: one meta server, several replica servers, one map, on one
//! worker.
//!
//! It answers what the load generator asks, with the message types of the library, and moves
//! partitions on demand.

use crate::run::start;
use bytes::{Buf, Bytes, BytesMut};
use crossbeam::channel::{Sender, bounded};
use dsn_core::app::{AppError, AppHost, NativeNode, ServiceApp};
use dsn_core::driver::{IoEvent, Sock};
use dsn_core::exec::{Addr, Ctx, Resident};
use dsn_replication::wire::codes::QUERY_CONFIG;
use dsn_replication::wire::config::{PartitionConfiguration, QueryCfgRequest, QueryCfgResponse};
use dsn_rpc::address::RpcAddress;
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::frame::{
    DEFAULT_MAX_FRAME, Frame, Parsed, Parser, RequestFrame, write_error, write_response,
};
use dsn_rpc::gpid::Gpid;
use dsn_rpc::thrift::{Blob, Encode, RESULT_ID, decode_wrapped};
use pegasus_client::schema::rrdb::{
    GetScannerRequest, KeyValue, MultiGetRequest, MultiGetResponse, MultiPutRequest, ReadResponse,
    ScanRequest, ScanResponse, UpdateRequest, UpdateResponse,
};
use pegasus_client::schema::{codes, key, partition_hash};
use std::collections::BTreeMap;
use std::io::IoSlice;
use std::net::SocketAddr;

/// The only table.
pub const TABLE: &str = "fake";
const APP_ID: i32 = 5;

/// What the cluster is like.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Replica servers.
    pub servers: usize,
    /// Partitions of the table.
    pub partitions: usize,
    /// After this many requests for data every partition moves to the next server.
    pub move_after: Option<u64>,
    /// Every so many requests for data get no answer.
    pub swallow_every: Option<u64>,
}

/// Starts it; returns the meta server's address.
pub fn cluster(cluster: Cluster) -> (NativeNode, SocketAddr) {
    let (tell, told) = bounded(1);
    let factory = move || Box::new(FakeApp { cluster, tell }) as Box<dyn ServiceApp>;
    let node = start("fake", Box::new(factory)).unwrap();
    (node, told.recv().unwrap())
}

struct FakeApp {
    cluster: Cluster,
    tell: Sender<SocketAddr>,
}

impl ServiceApp for FakeApp {
    fn start(&mut self, ctx: &mut Ctx<'_>, _: Addr<AppHost>) -> Result<(), AppError> {
        let any = "127.0.0.1:0".parse().unwrap();
        let listeners: Vec<Sock> =
            (0..=self.cluster.servers).map(|_| ctx.listen(any).unwrap()).collect();
        let addrs: Vec<SocketAddr> =
            listeners.iter().map(|&sock| ctx.local_addr(sock).unwrap()).collect();
        let cluster = self.cluster.clone();
        let (socks, ports) = (listeners.clone(), addrs[1..].iter().map(SocketAddr::port).collect());
        let fake = ctx.spawn_here(|_, me| Fake {
            me,
            cluster,
            listeners: socks,
            ports,
            shift: 0,
            served: 0,
            data: BTreeMap::new(),
            scans: BTreeMap::new(),
            clients: Vec::new(),
        });
        for (index, sock) in listeners.into_iter().enumerate() {
            ctx.attach(sock, fake, LISTENERS + index as u64);
        }
        self.tell.send(addrs[0]).unwrap();
        Ok(())
    }
}

const LISTENERS: u64 = 1 << 32;

struct Client {
    sock: Sock,
    /// 0 for the meta server, replica servers from 1.
    server: usize,
    parser: Parser,
    input: BytesMut,
    out: BytesMut,
}

struct Fake {
    me: Addr<Self>,
    cluster: Cluster,
    listeners: Vec<Sock>,
    ports: Vec<u16>,
    /// How often the partitions have moved on.
    shift: usize,
    served: u64,
    data: BTreeMap<Bytes, Blob>,
    scans: BTreeMap<i64, Vec<KeyValue>>,
    clients: Vec<Option<Client>>,
}

impl Resident for Fake {
    fn on_io(&mut self, ctx: &mut Ctx<'_>, _: IoEvent, token: u64) {
        if token >= LISTENERS {
            let server = (token - LISTENERS) as usize;
            while let Ok(accepted) = ctx.accept(self.listeners[server]) {
                let sock = ctx.adopt(accepted).unwrap();
                ctx.attach(sock, self.me, self.clients.len() as u64);
                self.clients.push(Some(Client {
                    sock,
                    server,
                    parser: Parser::server(DEFAULT_MAX_FRAME),
                    input: BytesMut::new(),
                    out: BytesMut::new(),
                }));
            }
            return;
        }
        let Some(mut client) = self.clients[token as usize].take() else { return };
        if self.serve(ctx, &mut client) {
            self.clients[token as usize] = Some(client);
        } else {
            ctx.close_socket(client.sock);
        }
    }
}

impl Fake {
    fn serve(&mut self, ctx: &mut Ctx<'_>, client: &mut Client) -> bool {
        let mut piece = [0; 16 * 1024];
        loop {
            match ctx.read(client.sock, &mut piece) {
                Ok(0) => return false,
                Ok(read) => client.input.extend_from_slice(&piece[..read]),
                Err(_) => break,
            }
        }
        while let Parsed::Frame(frame) = client.parser.next(&mut client.input).unwrap() {
            let Frame::Request(request) = frame else { panic!("{frame:?}") };
            if client.server == 0 {
                self.place(&request, &mut client.out);
            } else {
                self.answer(client.server, &request, &mut client.out);
            }
        }
        while !client.out.is_empty() {
            match ctx.writev(client.sock, &[IoSlice::new(&client.out)]) {
                Ok(sent) => client.out.advance(sent),
                Err(_) => break,
            }
        }
        true
    }

    /// The server that is primary of a partition, from 1.
    fn primary(&self, partition: usize) -> usize {
        (partition + self.shift) % self.cluster.servers + 1
    }

    fn place(&self, request: &RequestFrame, out: &mut BytesMut) {
        assert_eq!(request.head.name.as_str(), QUERY_CONFIG);
        let query: QueryCfgRequest = decode_wrapped(&request.body).unwrap();
        let mut answer = QueryCfgResponse { is_stateful: true, ..Default::default() };
        if query.app_name == TABLE {
            answer.app_id = APP_ID;
            answer.partition_count = self.cluster.partitions as i32;
            for index in 0..self.cluster.partitions {
                let port = self.ports[self.primary(index) - 1];
                answer.partitions.push(PartitionConfiguration {
                    pid: Gpid::new(APP_ID, index as i32),
                    ballot: 3 + self.shift as i64,
                    primary: RpcAddress::new("127.0.0.1".parse().unwrap(), port),
                    ..Default::default()
                });
            }
        } else {
            answer.err = ErrorCode::ObjectNotFound;
        }
        reply(request, &answer, out);
    }

    fn answer(&mut self, server: usize, request: &RequestFrame, out: &mut BytesMut) {
        self.served += 1;
        if self.cluster.move_after == Some(self.served) {
            self.shift += 1;
        }
        if self.cluster.swallow_every.is_some_and(|every| self.served.is_multiple_of(every)) {
            return;
        }
        let head = &request.head;
        assert_eq!(head.gpid.app_id, APP_ID);
        let partition = head.gpid.partition_index as usize;
        assert_eq!(head.partition_hash % self.cluster.partitions as u64, partition as u64);
        if self.primary(partition) != server {
            return write_error(out, head, ErrorCode::InvalidState, RpcAddress::INVALID);
        }
        let own =
            |raw: &[u8]| assert_eq!(partition_hash::of_raw_key(raw), Some(head.partition_hash));
        match head.name.as_str() {
            name if name == codes::RPC_RRDB_RRDB_PUT.name() => {
                let put: UpdateRequest = decode_wrapped(&request.body).unwrap();
                own(&put.key);
                self.data.insert(put.key, put.value);
                reply(request, &UpdateResponse::default(), out);
            }
            name if name == codes::RPC_RRDB_RRDB_GET.name() => {
                let raw: Blob = decode_wrapped(&request.body).unwrap();
                own(&raw);
                let value = self.data.get(&raw).cloned();
                let error = i32::from(value.is_none());
                let value = value.unwrap_or_default();
                reply(request, &ReadResponse { error, value, ..Default::default() }, out);
            }
            _ => self.answer_many(request, out),
        }
    }

    fn answer_many(&mut self, request: &RequestFrame, out: &mut BytesMut) {
        match request.head.name.as_str() {
            name if name == codes::RPC_RRDB_RRDB_MULTI_PUT.name() => {
                let put: MultiPutRequest = decode_wrapped(&request.body).unwrap();
                for kv in put.kvs.iter() {
                    let raw = key::encode_key(&put.hash_key, &kv.key).unwrap();
                    self.data.insert(raw, kv.value);
                }
                reply(request, &UpdateResponse::default(), out);
            }
            name if name == codes::RPC_RRDB_RRDB_MULTI_GET.name() => {
                let get: MultiGetRequest = decode_wrapped(&request.body).unwrap();
                let mut answer = MultiGetResponse::default();
                for sort_key in get.sort_keys.iter() {
                    let raw = key::encode_key(&get.hash_key, &sort_key).unwrap();
                    if let Some(value) = self.data.get(&raw).cloned() {
                        answer.kvs.push(KeyValue { key: sort_key, value, expire_ts_seconds: None });
                    }
                }
                reply(request, &answer, out);
            }
            name if name == codes::RPC_RRDB_RRDB_GET_SCANNER.name() => {
                let scan: GetScannerRequest = decode_wrapped(&request.body).unwrap();
                let range = self.data.range(scan.start_key..scan.stop_key);
                let row = |(key, value): (&Bytes, &Blob)| KeyValue {
                    key: key.clone(),
                    value: value.clone(),
                    expire_ts_seconds: None,
                };
                let rows = range.map(row).collect();
                self.rows(rows, scan.batch_size as usize, request, out);
            }
            name if name == codes::RPC_RRDB_RRDB_SCAN.name() => {
                let scan: ScanRequest = decode_wrapped(&request.body).unwrap();
                let rows = self.scans.remove(&scan.context_id).unwrap();
                self.rows(rows, 3, request, out);
            }
            other => panic!("{other}"),
        }
    }

    fn rows(
        &mut self,
        mut rows: Vec<KeyValue>,
        batch: usize,
        request: &RequestFrame,
        out: &mut BytesMut,
    ) {
        let rest = rows.split_off(batch.min(rows.len()));
        let mut answer = ScanResponse { context_id: -1, ..Default::default() };
        rows.into_iter().for_each(|row| answer.kvs.push(row));
        if !rest.is_empty() {
            answer.context_id = self.served as i64;
            self.scans.insert(answer.context_id, rest);
        }
        reply(request, &answer, out);
    }
}

fn reply<T: Encode>(request: &RequestFrame, result: &T, out: &mut BytesMut) {
    write_response(out, &request.head, ErrorCode::Ok, RpcAddress::INVALID, |w| {
        w.wrapped(RESULT_ID, result);
    });
}
