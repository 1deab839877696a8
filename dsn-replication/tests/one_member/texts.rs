//! A small state machine: texts by name, in memory, with one file per checkpoint.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use dsn_core::disk::{Disk, read_file, write_file_durable};
use dsn_core::exec::BlockingCtx;
use dsn_replication::ids::Decree;
use dsn_replication::mutation::Mutation;
use dsn_replication::state_machine::{
    Access, AppError, ApplyError, ApplyMode, CheckpointKind, OpenArgs, ReadEnv, ReadMode,
    ReadOutcome, ReadRequest, ReadStage, Replies, StateMachine, StateMachineFactory, StorageCode,
};
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::thrift::{RESULT_ID, decode_wrapped, encode_wrapped};

dsn_core::task_codes! {
    /// What the state machine serves.
    pub CODES;
    /// Sets `name=text`; answers with the decree.
    pub RPC_TEXTS_SET: Rpc, Low, "THREAD_POOL_REPLICATION";
    /// The text of a name, empty when there is none.
    pub RPC_TEXTS_GET: Rpc, Common, "THREAD_POOL_LOCAL_APP";
}

static STORAGE_CODES: [StorageCode; 2] = [
    StorageCode {
        code: &RPC_TEXTS_SET,
        access: Access::Write { batchable: true, idempotent: true },
    },
    StorageCode { code: &RPC_TEXTS_GET, access: Access::Read(ReadStage::Inline) },
];

#[derive(Default)]
struct State {
    texts: BTreeMap<String, String>,
    applied: i64,
    durable: i64,
}

pub struct Texts {
    dir: PathBuf,
    state: Mutex<State>,
}

fn disk_error(error: std::io::Error) -> AppError {
    AppError::Disk(error.to_string())
}

impl Texts {
    fn open(disk: &dyn Disk, dir: &Path) -> Result<Self, AppError> {
        let dir = dir.join("data");
        disk.create_dir_all(&dir).map_err(disk_error)?;
        disk.sync_dir(dir.parent().unwrap()).map_err(disk_error)?;
        let entries = disk.list(&dir).map_err(disk_error)?;
        let decree = |name: &str| name.strip_prefix("checkpoint.")?.parse::<i64>().ok();
        let newest = entries.iter().filter_map(|entry| decree(&entry.name)).max();
        let mut state = State::default();
        if let Some(decree) = newest {
            let content = read_file(disk, &dir.join(format!("checkpoint.{decree}")));
            let content = content.map_err(disk_error)?;
            let texts = serde_json::from_slice(&content);
            state.texts = texts.map_err(|error| AppError::Corrupt(error.to_string()))?;
            (state.applied, state.durable) = (decree, decree);
        }
        Ok(Self { dir, state: Mutex::new(state) })
    }
}

impl StateMachine for Texts {
    fn apply(
        &self,
        run: &[Mutation],
        _: ApplyMode,
        replies: &mut Replies,
    ) -> Result<(), ApplyError> {
        let mut state = self.state.lock().unwrap();
        for mutation in run {
            assert_eq!(mutation.decree.0, state.applied + 1);
            state.applied += 1;
            for request in &mutation.requests {
                let Ok(text) = decode_wrapped::<String>(&request.body) else {
                    replies.error(ErrorCode::InvalidData);
                    continue;
                };
                let (name, text) = text.split_once('=').unwrap_or((&text, ""));
                state.texts.insert(name.to_owned(), text.to_owned());
                replies.push(|out| encode_wrapped(&mutation.decree.0, RESULT_ID, out));
            }
        }
        Ok(())
    }

    fn last_applied(&self) -> Decree {
        Decree(self.state.lock().unwrap().applied)
    }

    fn last_durable(&self) -> Decree {
        Decree(self.state.lock().unwrap().durable)
    }

    fn read(
        &self,
        request: &ReadRequest,
        _: ReadMode,
        _: &ReadEnv<'_>,
        out: &mut BytesMut,
    ) -> ReadOutcome {
        let Ok(name) = decode_wrapped::<String>(&request.body) else {
            return ReadOutcome::Error(ErrorCode::InvalidData);
        };
        if name == "a broken block" {
            return ReadOutcome::Error(ErrorCode::RdbCorruption);
        }
        if name == "a refusing disk" {
            return ReadOutcome::Error(ErrorCode::DiskIoError);
        }
        let text = self.state.lock().unwrap().texts.get(&name).cloned().unwrap_or_default();
        encode_wrapped(&text, RESULT_ID, out);
        ReadOutcome::Reply
    }

    fn checkpoint(&self, job: &BlockingCtx<'_>, _: CheckpointKind) -> Result<Decree, AppError> {
        let (content, applied) = {
            let state = self.state.lock().unwrap();
            (serde_json::to_vec(&state.texts).unwrap(), state.applied)
        };
        let path = self.dir.join(format!("checkpoint.{applied}"));
        let disk = job.disk();
        write_file_durable(&**disk, &path, Bytes::from(content)).map_err(disk_error)?;
        self.state.lock().unwrap().durable = applied;
        Ok(Decree(applied))
    }

    fn close(&self, _: &BlockingCtx<'_>) {}
}

pub struct TextsFactory;

impl StateMachineFactory for TextsFactory {
    fn app_type(&self) -> &str {
        "texts"
    }

    fn open(
        &self,
        job: &BlockingCtx<'_>,
        args: &OpenArgs<'_>,
    ) -> Result<Arc<dyn StateMachine>, AppError> {
        Ok(Arc::new(Texts::open(&**job.disk(), args.dir)?))
    }

    fn codes(&self) -> &'static [StorageCode] {
        &STORAGE_CODES
    }
}
