//! The clients: sessions with one call under way at a time, which write down what they see.

use super::history::{COUNTERS, History, KEYS, REGISTERS, hash_key};
use crate::linearizable::Op;
use bytes::Bytes;
use dsn_core::app::{AppError, AppHost, ServiceApp};
use dsn_core::exec::{Addr, Ctx, Resident};
use dsn_core::time::Wall;
use dsn_replication::client::Request;
use dsn_replication::codes::{RPC_CM_CREATE_APP, RPC_CM_DROP_APP};
use dsn_replication::wire::admin::{
    CreateAppOptions, CreateAppRequest, CreateAppResponse, DropAppOptions, DropAppRequest,
    DropAppResponse,
};
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::{Rpc, RpcOptions, ServiceTable};
use pegasus_client::ops::{Checked, Found, MultiGet, Ttl};
use pegasus_client::schema::rrdb::CasCheckType;
use pegasus_client::{Check, ClientCore, ClientError, ClientOptions, Kind, ops};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

dsn_core::task_codes! {
    /// Codes of the workload.
    pub CODES;
    /// A client's next step.
    pub LPC_WORKLOAD: Compute, Common, "THREAD_POOL_DEFAULT";
}

/// The table of the workload.
pub const TABLE: &str = "temp";
/// Made and dropped, again and again.
const OTHER_TABLE: &str = "other";
const SORT_KEY: &[u8] = b"s";
/// Hash keys of the pairs.
const PAIRS: u64 = 3;
/// Time to live of a lease, in seconds.
const LEASE: u32 = 4;
/// How far from its end a lease is not judged: clocks of clients and servers agree, but requests take time.
const LEASE_MARGIN: Duration = Duration::from_secs(2);
/// How long a read after the faults may take: a slow network with a narrow window needs seconds for a large value, and
/// the answers to reads that were given up are in the way of the next.
const LAST_READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two attempts to read a key after the faults.
const LAST_READ_PAUSE: Duration = Duration::from_millis(200);

type Answer<T> = Result<T, ClientError>;
type Next = fn(&mut Session, &mut Ctx<'_>);

/// How the sessions of a client behave.
#[derive(Clone, Debug)]
pub struct Habits {
    /// Mean pause between two calls.
    pub think: Duration,
    /// Bytes that values are made longer by.
    pub padding: usize,
    /// Whether leases can be judged: not when wall clocks jump.
    pub leases: bool,
    /// Of the calls of keys with a history, those that only look, in percent.
    pub reads_percent: u64,
    /// Whether the first session makes another table and drops it, again and again.
    pub makes_tables: bool,
    /// Partitions and copies of the table.
    pub table: (i32, i32),
}

/// One session.
struct Session {
    me: Addr<Self>,
    core: Addr<ClientCore>,
    history: Arc<History>,
    habits: Habits,
    /// From 0, among all sessions of the cluster.
    number: usize,
    values: u64,
    /// The other table was made, as far as is known.
    other_table: bool,
}

impl Resident for Session {}

impl Session {
    fn client(&self) -> u32 {
        self.number as u32 + 1
    }

    /// Makes the table, again and again until it is there.
    fn make_table(&mut self, ctx: &mut Ctx<'_>) {
        let (partition_count, replica_count) = self.habits.table;
        let request = create_request(TABLE, partition_count, replica_count);
        let (me, history) = (self.me, self.history.clone());
        let _ = ctx.with(self.core, move |core, ctx| {
            let done = Box::new(move |ctx: &mut Ctx<'_>, answer: Answer<CreateAppResponse>| {
                let made = answer.is_ok_and(|a| a.err == ErrorCode::Ok);
                ctx.post(me, &LPC_WORKLOAD, move |this, ctx| match made {
                    true => history.ready.store(true, Ordering::Relaxed),
                    false => this.later(ctx, Duration::from_millis(500), Self::make_table),
                });
            });
            core.ask_meta(ctx, &RPC_CM_CREATE_APP, &request, Kind::Read, None, done);
        });
    }

    /// Makes the other table, or drops it if it was made.
    fn turn_table(&mut self, ctx: &mut Ctx<'_>) {
        let (me, drops) = (self.me, self.other_table);
        let ended = move |ctx: &mut Ctx<'_>, turned: bool| {
            ctx.post(me, &LPC_WORKLOAD, move |this, ctx| {
                this.other_table ^= turned;
                this.think_on(ctx);
            });
        };
        let (_, replica_count) = self.habits.table;
        let _ = ctx.with(self.core, move |core, ctx| match drops {
            true => {
                let options = DropAppOptions { success_if_not_exist: true, reserve_seconds: None };
                let request = DropAppRequest { app_name: OTHER_TABLE.to_owned(), options };
                let done = Box::new(move |ctx: &mut Ctx<'_>, answer: Answer<DropAppResponse>| {
                    ended(ctx, answer.is_ok_and(|answer| answer.err == ErrorCode::Ok));
                });
                core.ask_meta(ctx, &RPC_CM_DROP_APP, &request, Kind::Read, None, done);
            }
            false => {
                let request = create_request(OTHER_TABLE, 2, replica_count);
                let done = Box::new(move |ctx: &mut Ctx<'_>, answer: Answer<CreateAppResponse>| {
                    ended(ctx, answer.is_ok_and(|answer| answer.err == ErrorCode::Ok));
                });
                core.ask_meta(ctx, &RPC_CM_CREATE_APP, &request, Kind::Read, None, done);
            }
        });
    }

    fn later(&mut self, ctx: &mut Ctx<'_>, delay: Duration, f: Next) {
        ctx.after(self.me, &LPC_WORKLOAD, delay, f);
    }

    fn step(&mut self, ctx: &mut Ctx<'_>) {
        if !self.history.ready.load(Ordering::Relaxed) {
            return self.later(ctx, Duration::from_millis(200), Self::step);
        }
        if self.history.stopping.load(Ordering::Relaxed) {
            return self.last_read(ctx, 0);
        }
        match ctx.rng().below(40) {
            0 if self.habits.leases => return self.put_lease(ctx),
            1 => return self.put_pair(ctx),
            2 => return self.get_pair(ctx),
            3 | 4 if self.habits.makes_tables && self.number == 0 => return self.turn_table(ctx),
            _ => {}
        }
        let counter = ctx.rng().ratio(1, 5);
        let key = match counter {
            true => REGISTERS + ctx.rng().index(COUNTERS),
            false => ctx.rng().index(REGISTERS),
        };
        if ctx.rng().below(100) < self.habits.reads_percent {
            return self.get(ctx, key);
        }
        match (counter, ctx.rng().below(6)) {
            (true, _) => self.incr(ctx, key),
            (false, 0..=3) => self.put(ctx, key),
            (false, 4) => self.remove(ctx, key),
            (false, _) => self.check_and_set(ctx, key),
        }
    }

    fn think_on(&mut self, ctx: &mut Ctx<'_>) {
        let think = ctx.rng().duration(Duration::ZERO, self.habits.think * 2);
        self.later(ctx, think, Self::step);
    }

    /// A value that nobody else writes.
    fn value(&mut self) -> u64 {
        self.values += 1;
        u64::from(self.client()) << 32 | self.values
    }

    /// Sends a request on behalf of a key with a history; `answered` makes the completed operation of its answer.
    fn call<T: Send + 'static>(
        &mut self,
        ctx: &mut Ctx<'_>,
        key: usize,
        op: Op,
        request: Request<T>,
        answered: impl FnOnce(T) -> Op + Send + 'static,
    ) {
        let call = self.history.begin(key, self.client(), op);
        let history = self.history.clone();
        self.send(ctx, request, move |_, outcome| match outcome {
            Ok(answer) => history.end(key, call, answered(answer)),
            Err(error) => {
                history.failed(&error);
                if !error.is_ambiguous() {
                    history.void(key, call);
                }
            }
        });
    }

    /// Sends a request, and goes on with the next step after its answer.
    fn send<T: Send + 'static>(
        &mut self,
        ctx: &mut Ctx<'_>,
        request: Request<T>,
        ended: impl FnOnce(&mut Ctx<'_>, Answer<T>) + Send + 'static,
    ) {
        let me = self.me;
        let _ = ctx.with(self.core, move |core, ctx| {
            let done = Box::new(move |ctx: &mut Ctx<'_>, outcome: Answer<T>| {
                ended(ctx, outcome);
                ctx.post(me, &LPC_WORKLOAD, Self::think_on);
            });
            core.submit(ctx, TABLE, request, None, done);
        });
    }

    fn get(&mut self, ctx: &mut Ctx<'_>, key: usize) {
        let request = ops::get(&hash_key(key), SORT_KEY).expect("a key");
        let padding = self.padding_of(key);
        let answered = move |value: Option<Bytes>| Op::Get(value.map(|v| number(&v, padding)));
        self.call(ctx, key, Op::Get(None), request, answered);
    }

    /// Counters are plain numbers.
    fn padding_of(&self, key: usize) -> usize {
        if key < REGISTERS { self.habits.padding } else { 0 }
    }

    fn put(&mut self, ctx: &mut Ctx<'_>, key: usize) {
        let value = self.value();
        let bytes = text(value, self.habits.padding);
        let request = ops::put(&hash_key(key), SORT_KEY, bytes, 0).expect("a key");
        self.call(ctx, key, Op::Put(value), request, move |()| Op::Put(value));
    }

    fn remove(&mut self, ctx: &mut Ctx<'_>, key: usize) {
        let request = ops::remove(&hash_key(key), SORT_KEY).expect("a key");
        self.call(ctx, key, Op::Remove, request, |()| Op::Remove);
    }

    fn incr(&mut self, ctx: &mut Ctx<'_>, key: usize) {
        let request = ops::incr(&hash_key(key), SORT_KEY, 1, 0).expect("a key");
        let answered = |sum: i64| Op::Incr(1, Some(sum as u64));
        self.call(ctx, key, Op::Incr(1, None), request, answered);
    }

    /// Sets a value where there is none.
    fn check_and_set(&mut self, ctx: &mut Ctx<'_>, key: usize) {
        let value = self.value();
        let sort_key = Bytes::from_static(SORT_KEY);
        let check = Check {
            sort_key: sort_key.clone(),
            kind: CasCheckType::ValueNotExist,
            operand: Bytes::new(),
        };
        let bytes = text(value, self.habits.padding);
        let request =
            ops::check_and_set(&hash_key(key), &check, &sort_key, bytes, 0).expect("a key");
        let op = Op::CheckAndSet(value, None, None);
        let answered = move |c: Checked| Op::CheckAndSet(value, None, Some(c.done));
        self.call(ctx, key, op, request, answered);
    }

    fn put_pair(&mut self, ctx: &mut Ctx<'_>) {
        let value = text(self.value(), 0);
        let records = [Bytes::from_static(b"a"), Bytes::from_static(b"b")];
        let records = records.map(|sort_key| (sort_key, value.clone()));
        let hash_key = pair(ctx);
        let request = ops::multi_put(&hash_key, records, 0).expect("a key");
        self.send(ctx, request, |_, _| {});
    }

    fn get_pair(&mut self, ctx: &mut Ctx<'_>) {
        let hash_key = pair(ctx);
        let request = ops::multi_get(&hash_key, &MultiGet::default()).expect("a key");
        let history = self.history.clone();
        self.send(ctx, request, move |_, outcome: Answer<Found>| {
            let Ok(found) = outcome else { return };
            let values: Vec<&Bytes> = found.records.iter().map(|record| &record.1).collect();
            match values[..] {
                [] => {}
                [a, b] if a == b => history.right(),
                _ => history.wrong("atomicity", format!("half a pair: {values:?}")),
            }
        });
    }

    /// Puts a record that will expire, and looks at it before and after.
    fn put_lease(&mut self, ctx: &mut Ctx<'_>) {
        let key = format!("lease{}", self.value()).into_bytes();
        let begun = ctx.wall();
        let expire = Ttl::Seconds(LEASE).expire_ts(begun.unix_seconds());
        let request = ops::put(&key, SORT_KEY, text(1, 0), expire).expect("a key");
        let me = self.me;
        self.send(ctx, request, move |ctx, outcome| {
            if outcome.is_ok() {
                for after in
                    [Duration::from_millis(500), Duration::from_secs(LEASE.into()) + LEASE_MARGIN]
                {
                    let key = key.clone();
                    ctx.after(me, &LPC_WORKLOAD, after, move |this, ctx| {
                        this.look_at_lease(ctx, key, begun);
                    });
                }
            }
        });
    }

    fn look_at_lease(&mut self, ctx: &mut Ctx<'_>, key: Vec<u8>, begun: Wall) {
        let history = self.history.clone();
        let request = ops::get(&key, SORT_KEY).expect("a key");
        let asked = since(begun, ctx.wall());
        let _ = ctx.with(self.core, move |core, ctx| {
            let done = Box::new(move |ctx: &mut Ctx<'_>, outcome: Answer<Option<Bytes>>| {
                let Ok(value) = outcome else { return };
                let (answered, end) = (since(begun, ctx.wall()), Duration::from_secs(LEASE.into()));
                if asked >= end + LEASE_MARGIN && value.is_some() {
                    history.wrong("expiry", format!("{asked:?} after it was put with {end:?}"));
                } else if answered + LEASE_MARGIN <= end && value.is_none() {
                    history.wrong(
                        "expiry",
                        format!("gone {answered:?} after it was put with {end:?}"),
                    );
                } else {
                    history.right();
                }
            });
            core.submit(ctx, TABLE, request, None, done);
        });
    }

    /// After the faults: every key is read until it is answered.
    fn last_read(&mut self, ctx: &mut Ctx<'_>, key: usize) {
        let request = ops::get(&hash_key(key), SORT_KEY).expect("a key");
        let call = self.history.begin(key, self.client(), Op::Get(None));
        let (me, history, padding) = (self.me, self.history.clone(), self.padding_of(key));
        let session = self.number;
        let _ = ctx.with(self.core, move |core, ctx| {
            let done = Box::new(move |ctx: &mut Ctx<'_>, outcome: Answer<Option<Bytes>>| {
                if let Ok(value) = outcome {
                    let value = value.map(|value| number(&value, padding));
                    history.end(key, call, Op::Get(value));
                    history.has_read(session, key);
                }
                ctx.post(me, &LPC_WORKLOAD, move |this, ctx| this.read_next(ctx, key));
            });
            core.submit(ctx, TABLE, request, Some(LAST_READ_TIMEOUT), done);
        });
    }

    /// Goes on with the next key that this session has not read yet.
    fn read_next(&mut self, ctx: &mut Ctx<'_>, last: usize) {
        let round = (1..=KEYS).map(|step| (last + step) % KEYS);
        let Some(next) =
            round.into_iter().find(|key| !self.history.session_has_read(self.number, *key))
        else {
            return;
        };
        if next > last {
            return self.last_read(ctx, next);
        }
        ctx.after(self.me, &LPC_WORKLOAD, LAST_READ_PAUSE, move |this, ctx| {
            this.last_read(ctx, next);
        });
    }
}

fn since(begun: Wall, now: Wall) -> Duration {
    Duration::from_nanos(now.unix_nanos().saturating_sub(begun.unix_nanos()))
}

fn pair(ctx: &mut Ctx<'_>) -> Vec<u8> {
    format!("pair{}", ctx.rng().below(PAIRS)).into_bytes()
}

/// A value as it is stored.
pub fn text(value: u64, padding: usize) -> Bytes {
    let mut text = value.to_string().into_bytes();
    text.resize(text.len() + padding, b'.');
    text.into()
}

/// A stored value; something that no client wrote shows as one that none wrote.
pub fn number(stored: &[u8], padding: usize) -> u64 {
    let digits = stored.len().saturating_sub(padding);
    let (digits, rest) = stored.split_at(digits);
    let parsed = std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok());
    match parsed {
        Some(value) if rest.iter().all(|byte| *byte == b'.') => value,
        _ => u64::MAX,
    }
}

/// The request that makes a table unless it is there.
pub fn create_request(table: &str, partitions: i32, copies: i32) -> CreateAppRequest {
    CreateAppRequest {
        app_name: table.to_owned(),
        options: CreateAppOptions {
            partition_count: partitions,
            replica_count: copies,
            success_if_exist: true,
            app_type: "pegasus".to_owned(),
            is_stateful: true,
            ..CreateAppOptions::default()
        },
    }
}

/// A client process.
pub struct ClientApp {
    /// From 0.
    pub number: usize,
    /// Sessions in it.
    pub sessions: usize,
    /// Where the meta servers are.
    pub metas: Vec<SocketAddr>,
    /// Shared with all others.
    pub history: Arc<History>,
    /// How they behave.
    pub habits: Habits,
}

impl ServiceApp for ClientApp {
    fn start(&mut self, ctx: &mut Ctx<'_>, _: Addr<AppHost>) -> Result<(), AppError> {
        Rpc::start(ctx, RpcOptions::default(), ServiceTable::new());
        let options = ClientOptions::new(self.metas.clone());
        let core = ctx.spawn_here(|_, me| ClientCore::new(me, options));
        for session in 0..self.sessions {
            let number = self.number * self.sessions + session;
            let (history, habits) = (self.history.clone(), self.habits.clone());
            let me = ctx.spawn_here(|_, me| Session {
                me,
                core,
                history,
                habits,
                number,
                values: 0,
                other_table: false,
            });
            ctx.post(me, &LPC_WORKLOAD, |this, ctx| {
                if this.number == 0 {
                    this.make_table(ctx);
                }
                this.step(ctx);
            });
        }
        Ok(())
    }
}
