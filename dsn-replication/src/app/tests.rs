//! An app as a state machine: what its errors, panics and damaged files do.

use super::*;
use crate::ids::{Ballot, Decree};
use crate::method::{Read, Scan, Write};
use crate::mutation::{ClientRequest, Mutation};
use crate::state_machine::{
    ApplyError, ApplyMode, CheckpointKind, OpenArgs, ReadEnv, ReadMode, ReadOutcome, ReadRequest,
    Replies, ReplyView, StateMachine, StateMachineFactory,
};
use crate::testing::mem_disk::MemDisk;
use bytes::{Bytes, BytesMut};
use dsn_core::disk::{Disk, OpenMode};
use dsn_core::node::{Node, NodeParts};
use dsn_core::stage::StagePlan;
use dsn_core::time::{Mono, Wall};
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::thrift::{ARGUMENT_ID, Encode, decode_wrapped, encode_wrapped};
use std::path::Path;

dsn_core::task_codes! {
    CODES;
    RPC_TEXT_PUSH: Rpc, Low, "THREAD_POOL_REPLICATION";
    RPC_TEXT_GET: Rpc, Common, "THREAD_POOL_LOCAL_APP";
    RPC_TEXT_SCAN: Rpc, Common, "THREAD_POOL_SCAN";
    RPC_TEXT_UNKNOWN: Rpc, Common, "THREAD_POOL_SCAN";
}

const PUSH: Write<String, String> = Write::new(&RPC_TEXT_PUSH);
const GET: Read<String, String> = Read::new(&RPC_TEXT_GET);
const SCAN: Scan<String, String> = Scan::new(&RPC_TEXT_SCAN);

/// A text that grows; words in capitals ask for trouble.
struct Words(String);

impl ReplicatedApp for Words {
    const APP_TYPE: &'static str = "words";
    type View = String;

    fn methods(methods: &mut Methods<Self>) {
        methods.write(&PUSH, |text, word, moment| {
            text.0 += &word;
            assert_ne!(word, "PANIC", "as asked");
            format!("{}@{}", text.0, moment.decree.0)
        });
        methods.read(&GET, |text, word, _| {
            assert_ne!(word, "PANIC", "as asked");
            text.0.clone()
        });
        methods.scan(&SCAN, |text, word, _| match word.as_str() {
            "CORRUPT" => Err(AppError::Corrupt("as asked".to_owned())),
            _ => Ok(text.clone()),
        });
    }

    fn open(_: &Opening<'_>) -> Result<Self, AppError> {
        Ok(Self(String::new()))
    }

    fn view(&self) -> String {
        self.0.clone()
    }

    fn checkpoint(view: &String, files: &mut NewFiles) -> Result<(), AppError> {
        if view.ends_with("FULL") {
            return Err(AppError::Disk("as asked".to_owned()));
        }
        files.encode("text", view)
    }

    fn install(_: &Opening<'_>, files: &Arc<Files>) -> Result<Self, AppError> {
        Ok(Self(files.decode("text")?))
    }
}

struct Bench {
    disk: MemDisk,
    node: Arc<Node>,
}

impl Bench {
    fn new() -> Self {
        dsn_core::code::register(CODES);
        let disk = MemDisk::new();
        let parts = NodeParts {
            name: "t".to_owned(),
            role: "t".to_owned(),
            config: None,
            plan: StagePlan::auto(1),
            worker: Default::default(),
            codes: Vec::new(),
            disk: Arc::new(disk.clone()),
            seed: 1,
        };
        Self { disk, node: Node::new(parts).unwrap() }
    }

    fn job<R>(&self, f: impl FnOnce(&BlockingCtx<'_>) -> R) -> R {
        let resolve = |_: &str| Ok(Vec::new());
        f(&BlockingCtx::new(&self.node, &|| Mono::ZERO, &|| Wall::UNIX_EPOCH, &resolve))
    }

    fn open(&self) -> Result<Arc<dyn StateMachine>, AppError> {
        let info = AppInfo::default();
        let gpid = Gpid::new(1, 0);
        let args = OpenArgs { dir: Path::new("/r"), gpid, info: &info };
        self.job(|job| AppFactory::<Words>::default().open(job, &args))
    }

    fn checkpoint(&self, machine: &Arc<dyn StateMachine>) -> Result<Decree, AppError> {
        self.job(|job| machine.checkpoint(job, CheckpointKind::NoFlush))
    }
}

fn body<T: Encode>(value: &T) -> Bytes {
    let mut out = BytesMut::new();
    encode_wrapped(value, ARGUMENT_ID, &mut out);
    out.freeze()
}

fn push(machine: &Arc<dyn StateMachine>, words: &[&str]) -> Result<Vec<String>, ApplyError> {
    let decree = Decree(machine.last_applied().0 + 1);
    let requests = words
        .iter()
        .map(|word| ClientRequest { code: &RPC_TEXT_PUSH, body: body(&(*word).to_owned()) });
    let mutation = Mutation {
        gpid: Gpid::new(1, 0),
        ballot: Ballot(1),
        decree,
        last_committed: Decree(decree.0 - 1),
        timestamp_us: decree.0 as u64,
        stamp: 0,
        requests: requests.collect(),
    };
    let mut replies = Replies::new(true);
    machine.apply(&[mutation], ApplyMode::Worker, &mut replies)?;
    let texts = (0..replies.len()).map(|index| match replies.get(index) {
        Some(ReplyView::Value(value)) => decode_wrapped(&Bytes::copy_from_slice(value)).unwrap(),
        other => panic!("{other:?}"),
    });
    Ok(texts.collect())
}

fn read(
    machine: &Arc<dyn StateMachine>,
    code: Code,
    body: Bytes,
    mode: ReadMode,
) -> Result<String, ReadOutcome> {
    let gpid = Gpid::new(1, 0);
    let request = ReadRequest { code, gpid, body, partition_hash: 0, is_backup: false };
    let env = ReadEnv { wall: Wall::UNIX_EPOCH, clock: &|| Mono::ZERO, deadline: None };
    let mut out = BytesMut::new();
    match machine.read(&request, mode, &env, &mut out) {
        ReadOutcome::Reply => Ok(decode_wrapped(&out.freeze()).unwrap()),
        other => {
            assert!(out.is_empty(), "nothing is appended");
            Err(other)
        }
    }
}

fn get(machine: &Arc<dyn StateMachine>, word: &str) -> Result<String, ReadOutcome> {
    read(machine, &RPC_TEXT_GET, body(&word.to_owned()), ReadMode::Inline)
}

#[test]
fn checkpoints_are_found_again_and_old_ones_go() {
    let bench = Bench::new();
    let machine = bench.open().unwrap();
    assert_eq!(bench.checkpoint(&machine), Ok(Decree::ZERO), "nothing to do");
    assert_eq!(push(&machine, &["a", "b"]).unwrap(), ["a@1", "ab@1"]);
    assert_eq!(bench.checkpoint(&machine), Ok(Decree(1)));
    push(&machine, &["c"]).unwrap();
    assert_eq!((machine.last_applied(), machine.last_durable()), (Decree(2), Decree(1)));
    assert_eq!(bench.checkpoint(&machine), Ok(Decree(2)));
    push(&machine, &["lost"]).unwrap();
    let entries = bench.disk.list(Path::new("/r/data")).unwrap();
    let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["checkpoint.2"]);

    let again = bench.open().unwrap();
    assert_eq!((again.last_applied(), again.last_durable()), (Decree(2), Decree(2)));
    assert_eq!(get(&again, "").unwrap(), "abc");
    push(&again, &["d"]).unwrap();
    bench.job(|job| again.close(job));
    assert_eq!(get(&bench.open().unwrap(), "").unwrap(), "abcd", "closing writes out");
}

#[test]
fn a_received_checkpoint_is_opened() {
    let bench = Bench::new();
    let machine = bench.open().unwrap();
    push(&machine, &["a"]).unwrap();
    bench.checkpoint(&machine).unwrap();
    let to = Path::new("/r/data").join(checkpoints::RECEIVED);
    bench.disk.rename(Path::new("/r/data/checkpoint.1"), &to).unwrap();
    let learner = bench.open().unwrap();
    assert_eq!((learner.last_durable(), get(&learner, "").unwrap()), (Decree(1), "a".to_owned()));
    assert!(!bench.disk.exists(&to));
}

/// Bug 25: a checkpoint that was not completed is used.
#[test]
fn a_checkpoint_that_fails_changes_nothing() {
    let bench = Bench::new();
    let machine = bench.open().unwrap();
    push(&machine, &["a"]).unwrap();
    bench.checkpoint(&machine).unwrap();
    push(&machine, &["FULL"]).unwrap();
    assert!(matches!(bench.checkpoint(&machine), Err(AppError::Disk(_))));
    assert_eq!(machine.last_durable(), Decree(1));
    assert_eq!(get(&bench.open().unwrap(), "").unwrap(), "a");
    push(&machine, &["b"]).unwrap();
    assert_eq!(bench.checkpoint(&machine), Ok(Decree(3)), "the next one is made");
    assert_eq!(get(&bench.open().unwrap(), "").unwrap(), "aFULLb");
}

#[test]
fn a_damaged_checkpoint_is_corrupt() {
    for name in ["text", "MANIFEST"] {
        let bench = Bench::new();
        let machine = bench.open().unwrap();
        push(&machine, &["a word"]).unwrap();
        bench.checkpoint(&machine).unwrap();
        let path = Path::new("/r/data/checkpoint.1").join(name);
        let file = bench.disk.open(&path, OpenMode::ReadWrite).unwrap();
        let at = file.len().unwrap() - 3;
        let byte = file.read_at(at, 1).unwrap()[0] ^ 1;
        file.write_at(at, &[Bytes::from(vec![byte])]).unwrap();
        assert!(matches!(bench.open(), Err(AppError::Corrupt(_))), "{name}: a flipped bit");
        file.truncate(at).unwrap();
        assert!(matches!(bench.open(), Err(AppError::Corrupt(_))), "{name}: cut off");
        bench.disk.unlink(&path).unwrap();
        assert!(matches!(bench.open(), Err(AppError::Corrupt(_))), "{name}: gone");
    }
}

#[test]
fn what_is_no_request_is_refused() {
    let bench = Bench::new();
    let machine = bench.open().unwrap();
    let refused = |code, body| read(&machine, code, body, ReadMode::Blocking);
    let data = ReadOutcome::Error(ErrorCode::InvalidData);
    let handler = ReadOutcome::Error(ErrorCode::HandlerNotFound);
    assert_eq!(refused(&RPC_TEXT_GET, Bytes::from_static(b"rubbish")), Err(data));
    assert_eq!(refused(&RPC_TEXT_UNKNOWN, body(&String::new())), Err(handler));
    assert_eq!(refused(&RPC_TEXT_PUSH, body(&String::new())), Err(handler), "a write is no read");
    let corrupt = ReadOutcome::Error(ErrorCode::RdbCorruption);
    assert_eq!(refused(&RPC_TEXT_SCAN, body(&"CORRUPT".to_owned())), Err(corrupt));
}

#[test]
fn scans_leave_the_worker() {
    let bench = Bench::new();
    let machine = bench.open().unwrap();
    push(&machine, &["a"]).unwrap();
    let scan = |mode| read(&machine, &RPC_TEXT_SCAN, body(&String::new()), mode);
    assert_eq!(scan(ReadMode::Inline), Err(ReadOutcome::WouldBlock));
    assert_eq!(scan(ReadMode::Blocking).unwrap(), "a");
}

#[test]
fn a_panic_breaks_the_replica_alone_and_leaves_nothing_half_done() {
    let bench = Bench::new();
    let machine = bench.open().unwrap();
    push(&machine, &["a"]).unwrap();
    let local = Err(ReadOutcome::Error(ErrorCode::LocalAppFailure));
    assert_eq!(get(&machine, "PANIC"), local, "a read that panics is refused");
    assert_eq!(get(&machine, "").unwrap(), "a", "and harms nobody else");

    let error = push(&machine, &["b", "PANIC", "c"]).unwrap_err();
    assert!(error.to_string().contains("as asked"), "{error}");
    assert_eq!(machine.last_applied(), Decree(1));
    assert_eq!(get(&machine, ""), local, "the half done state is not shown");
    assert!(matches!(bench.checkpoint(&machine), Err(AppError::Failed(_))), "nor written out");
    assert!(matches!(push(&machine, &["d"]), Err(ApplyError::Failed(_))));
    assert_eq!(get(&bench.open().unwrap(), "").unwrap(), "", "the files are untouched");
}
