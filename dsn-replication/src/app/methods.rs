//! The methods of an app, by code, with bytes on the outside and types on the inside.

use super::ReplicatedApp;
use crate::ids::Decree;
use crate::method::{Read, Scan, Write};
use crate::mutation::ClientRequest;
use crate::state_machine::{
    AppError, ReadEnv, ReadMode, ReadOutcome, ReadRequest, Replies, StorageCode,
};
use bytes::{Bytes, BytesMut};
use dsn_core::code::Code;
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::thrift::{Decode, Encode, RESULT_ID, decode_wrapped, encode_wrapped};
use std::fmt;

/// When a write takes place, the same on every member and at every replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Its number within the partition; writes that arrived together share one.
    pub decree: Decree,
    /// Microseconds since the Unix epoch by the primary's clock; grows with the decree. The only clock of a write.
    pub timestamp_us: u64,
}

type OnWrite<A> = Box<dyn Fn(&mut A, &Bytes, &Moment, &mut Replies) + Send + Sync>;
type OnRead<S> = Box<dyn Fn(&S, &Bytes, &ReadEnv<'_>, &mut BytesMut) -> ReadOutcome + Send + Sync>;

enum Handler<A: ReplicatedApp> {
    Write(OnWrite<A>),
    Read(OnRead<A>),
    Scan(OnRead<A::View>),
}

/// How each method of an app is carried out.
pub struct Methods<A: ReplicatedApp> {
    codes: Vec<StorageCode>,
    handlers: Vec<Handler<A>>,
}

impl<A: ReplicatedApp> fmt::Debug for Methods<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.codes.iter().map(|storage| storage.code)).finish()
    }
}

impl<A: ReplicatedApp> Methods<A> {
    /// Those of the app.
    pub(super) fn collect() -> Self {
        let mut methods = Self { codes: Vec::new(), handlers: Vec::new() };
        A::methods(&mut methods);
        methods
    }

    pub(super) fn codes(&self) -> &[StorageCode] {
        &self.codes
    }

    fn add(&mut self, storage: StorageCode, handler: Handler<A>) {
        let code = storage.code;
        assert!(self.find(code).is_none(), "{code} is carried out in two ways");
        self.codes.push(storage);
        self.handlers.push(handler);
    }

    /// A write, which has the state to itself. A request that makes no sense is answered so and changes nothing.
    pub fn write<Q: Decode + 'static, R: Encode + 'static>(
        &mut self,
        method: &Write<Q, R>,
        f: impl Fn(&mut A, Q, &Moment) -> R + Send + Sync + 'static,
    ) {
        let handler: OnWrite<A> =
            Box::new(move |app, body, moment, replies| match decode_wrapped::<Q>(body) {
                Ok(argument) => {
                    let answer = f(app, argument, moment);
                    replies.push(|out| encode_wrapped(&answer, RESULT_ID, out));
                }
                Err(_) => replies.error(ErrorCode::InvalidData),
            });
        self.add(method.storage(), Handler::Write(handler));
    }

    /// A read of the state, between two writes.
    pub fn read<Q: Decode + 'static, R: Encode + 'static>(
        &mut self,
        method: &Read<Q, R>,
        f: impl Fn(&A, Q, &ReadEnv<'_>) -> R + Send + Sync + 'static,
    ) {
        let handler = on_read(move |app, argument, env| Ok(f(app, argument, env)));
        self.add(method.storage(), Handler::Read(handler));
    }

    /// A read of a view of the state, while writes go on.
    pub fn scan<Q: Decode + 'static, R: Encode + 'static>(
        &mut self,
        method: &Scan<Q, R>,
        f: impl Fn(&A::View, Q, &ReadEnv<'_>) -> Result<R, AppError> + Send + Sync + 'static,
    ) {
        self.add(method.storage(), Handler::Scan(on_read(f)));
    }

    fn find(&self, code: Code) -> Option<&Handler<A>> {
        let index = self.codes.iter().position(|storage| storage.code == code)?;
        Some(&self.handlers[index])
    }

    pub(super) fn apply(
        &self,
        app: &mut A,
        request: &ClientRequest,
        moment: &Moment,
        replies: &mut Replies,
    ) {
        match self.find(request.code) {
            Some(Handler::Write(f)) => f(app, &request.body, moment, replies),
            _ => replies.error(ErrorCode::HandlerNotFound),
        }
    }

    /// Reads with what `app` or `view` give; `None` of `app` is a state that is being written.
    pub(super) fn answer<'s, S: std::ops::Deref<Target = A> + 's>(
        &self,
        request: &ReadRequest,
        mode: ReadMode,
        env: &ReadEnv<'_>,
        out: &mut BytesMut,
        app: impl FnOnce() -> Option<S>,
    ) -> ReadOutcome {
        match self.find(request.code) {
            Some(Handler::Read(f)) => match app() {
                Some(app) => f(&app, &request.body, env, out),
                None => ReadOutcome::WouldBlock,
            },
            Some(Handler::Scan(_)) if mode == ReadMode::Inline => ReadOutcome::WouldBlock,
            Some(Handler::Scan(f)) => {
                let view = app().map(|app| app.view());
                match view {
                    Some(view) => f(&view, &request.body, env, out),
                    None => ReadOutcome::WouldBlock,
                }
            }
            Some(Handler::Write(_)) | None => ReadOutcome::Error(ErrorCode::HandlerNotFound),
        }
    }
}

fn on_read<S, Q: Decode + 'static, R: Encode + 'static>(
    f: impl Fn(&S, Q, &ReadEnv<'_>) -> Result<R, AppError> + Send + Sync + 'static,
) -> OnRead<S> {
    Box::new(move |state, body, env, out| {
        let Ok(argument) = decode_wrapped::<Q>(body) else {
            return ReadOutcome::Error(ErrorCode::InvalidData);
        };
        match f(state, argument, env) {
            Ok(answer) => {
                encode_wrapped(&answer, RESULT_ID, out);
                ReadOutcome::Reply
            }
            Err(error) => {
                tracing::error!(%error, "a scan failed");
                ReadOutcome::Error(error.code())
            }
        }
    })
}
