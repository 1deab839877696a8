//! A storage app to test with: over either engine, in a directory that goes away with it.
#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use dsn_core::code::Code;
use dsn_core::disk::Disk;
use dsn_core::driver::native::OsDisk;
use dsn_core::metrics::Registry;
use dsn_core::time::{Mono, Wall};
use dsn_replication::ids::{Ballot, Decree};
use dsn_replication::mutation::{ClientRequest, Mutation};
use dsn_replication::state_machine::{
    ApplyError, ApplyMode, ReadEnv, ReadMode, ReadOutcome, ReadRequest, Replies, ReplyView,
    StateMachine,
};
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::gpid::Gpid;
use dsn_rpc::thrift::{ARGUMENT_ID, Decode, Encode, decode_wrapped, encode_wrapped};
use pegasus_client::schema::time;
use pegasus_server::app::{AppParts, StorageApp};
use pegasus_server::engine::mem::MemEngine;
use pegasus_server::engine::rocks::{RocksEngine, RocksShared};
use pegasus_server::engine::{Direction, Scope, StorageEngine};
use pegasus_server::identity::Identity;
use pegasus_server::metrics::StorageMetrics;
use pegasus_server::options::StorageOptions;

pub const GPID: Gpid = Gpid { app_id: 3, partition_index: 1 };
pub const SERVER: &str = "127.0.0.1:34801";
/// Pegasus time at which tests begin.
pub const BEGIN: u32 = 300_000_000;

/// Which engine to test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Memory,
    Rocks,
}

pub const KINDS: [Kind; 2] = [Kind::Memory, Kind::Rocks];

/// A directory that is removed with the value.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("pegasus-test-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        OsDisk.create_dir_all(&dir).unwrap();
        Self(dir)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = OsDisk.remove_dir_all(&self.0);
    }
}

/// Makes a directory below a scratch one.
pub fn make_dir(dir: &Path) {
    OsDisk.create_dir_all(dir).unwrap();
}

/// Opens an engine of `kind` in `dir/rdb`.
pub fn open_engine(kind: Kind, dir: &Path) -> Arc<dyn StorageEngine> {
    let options = StorageOptions::quiet();
    let place = dir.join("rdb");
    match kind {
        Kind::Memory => Arc::new(MemEngine::open(&place, Arc::new(OsDisk)).unwrap()),
        Kind::Rocks => {
            let shared = RocksShared::new(&options).unwrap();
            Arc::new(RocksEngine::open(&place, &options, &shared, &OsDisk).unwrap())
        }
    }
}

/// A storage app and the world around it.
pub struct Store {
    pub app: StorageApp,
    /// Pegasus time of the next mutation and the next read.
    pub now: u32,
    /// Monotonic time of the next read.
    pub mono: Mono,
    /// What the clock advances by at every look, in nanoseconds.
    pub tick: u64,
    pub replies: Replies,
}

impl Store {
    /// Opens what is in `dir`.
    pub fn open(kind: Kind, dir: &Path) -> Self {
        Self::over(open_engine(kind, dir), dir)
    }

    /// An app over an engine that is open already.
    pub fn over(engine: Arc<dyn StorageEngine>, dir: &Path) -> Self {
        Self::with(engine, dir, StorageOptions::quiet())
    }

    /// An app with options of its own.
    pub fn with(engine: Arc<dyn StorageEngine>, dir: &Path, options: StorageOptions) -> Self {
        let parts = AppParts {
            engine,
            identity: Identity {
                app_id: GPID.app_id,
                partition_index: GPID.partition_index,
                server: SERVER.into(),
            },
            metrics: StorageMetrics::new(&Registry::default(), "replica@3.1", []),
            options: Arc::new(options),
            cluster_id: 0,
            scan_base: 17,
        };
        let app = StorageApp::new(parts, Arc::new(OsDisk), dir, Mono::ZERO).unwrap();
        let replies = Replies::new(true);
        Self { app, now: BEGIN, mono: Mono::from_nanos(1), tick: 0, replies }
    }

    /// The next mutation, holding these requests.
    pub fn mutation(&self, requests: Vec<ClientRequest>) -> Mutation {
        let decree = self.app.last_applied().next();
        Mutation {
            gpid: GPID,
            ballot: Ballot(1),
            decree,
            last_committed: decree.prev(),
            timestamp_us: time::to_unix(self.now) * 1_000_000 + decree.0 as u64 % 1_000_000,
            stamp: self.app.stamp(),
            requests,
        }
    }

    /// Consecutive mutations, each given by its requests.
    pub fn mutations(&self, run: Vec<Vec<ClientRequest>>) -> Vec<Mutation> {
        let numbered = run.into_iter().enumerate().map(|(at, requests)| {
            let mut mutation = self.mutation(requests);
            mutation.decree = mutation.decree.plus(at);
            mutation.timestamp_us += at as u64;
            mutation
        });
        numbered.collect()
    }

    /// Applies consecutive mutations, each given by its requests, as one run. Returns every reply.
    pub fn apply(&mut self, run: Vec<Vec<ClientRequest>>) -> Vec<Result<Bytes, ErrorCode>> {
        self.try_apply(run, ApplyMode::Blocking).unwrap()
    }

    pub fn try_apply(
        &mut self,
        run: Vec<Vec<ClientRequest>>,
        mode: ApplyMode,
    ) -> Result<Vec<Result<Bytes, ErrorCode>>, ApplyError> {
        let mutations = self.mutations(run);
        let count: usize = mutations.iter().map(|mutation| mutation.requests.len()).sum();
        self.replies.clear(true);
        self.app.apply(&mutations, mode, &mut self.replies)?;
        assert_eq!(self.replies.len(), count, "one reply per request");
        let reply = |at| match self.replies.get(at).unwrap() {
            ReplyView::Value(value) => Ok(Bytes::copy_from_slice(value)),
            ReplyView::Error(error) => Err(error),
            ReplyView::Silence => panic!("a request without an answer"),
        };
        Ok((0..count).map(reply).collect())
    }

    /// Applies one request as a mutation of its own.
    pub fn write<R: Decode>(&mut self, code: Code, request: &impl Encode) -> R {
        let replies = self.apply(vec![vec![request_of(code, request)]]);
        let [Ok(reply)] = &replies[..] else { panic!("{replies:?}") };
        decode_wrapped(reply).unwrap()
    }

    /// The environment of one read; the clock goes on with every look.
    pub fn read_body(&self, code: Code, body: Bytes, mode: ReadMode) -> (ReadOutcome, Bytes) {
        let request = ReadRequest { code, gpid: GPID, body, partition_hash: 0, is_backup: false };
        let looks = Cell::new(0);
        let clock = || {
            looks.set(looks.get() + 1);
            Mono::from_nanos(self.mono.nanos() + looks.get() * self.tick)
        };
        let wall = Wall::from_unix_seconds(time::to_unix(self.now));
        let env = ReadEnv { wall, clock: &clock, deadline: None };
        let mut out = BytesMut::from(&b"head"[..]);
        let outcome = self.app.read(&request, mode, &env, &mut out);
        assert_eq!(out.split_to(4), &b"head"[..], "what was there before a response stays");
        assert!(outcome == ReadOutcome::Reply || out.is_empty(), "no reply, no bytes");
        (outcome, out.freeze())
    }

    /// Answers one read where blocking is allowed.
    pub fn read<R: Decode>(&self, code: Code, request: &impl Encode) -> R {
        let (outcome, body) = self.read_body(code, wrapped(request), ReadMode::Blocking);
        assert_eq!(outcome, ReadOutcome::Reply);
        decode_wrapped(&body).unwrap()
    }

    pub fn last_applied(&self) -> i64 {
        let Decree(decree) = self.app.last_applied();
        decree
    }

    /// Every record that is stored, expired ones included.
    pub fn content(&self) -> Vec<(Bytes, Bytes)> {
        let mut iter = self.app.engine().iter(b"", Direction::Forward, Scope::All);
        let mut content = Vec::new();
        while let Some((key, value)) = iter.entry() {
            content.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            iter.advance();
        }
        iter.status().unwrap();
        content
    }
}

pub fn wrapped(value: &impl Encode) -> Bytes {
    let mut out = BytesMut::new();
    encode_wrapped(value, ARGUMENT_ID, &mut out);
    out.freeze()
}

pub fn request_of(code: Code, request: &impl Encode) -> ClientRequest {
    ClientRequest { code, body: wrapped(request) }
}
