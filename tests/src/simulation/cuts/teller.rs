//! The client that tells a story: one call at a time, each made again until it is acknowledged; it knows what every key
//! must hold.

use super::story::{BURST, Do, Story, TABLE};
use crate::simulation::workload::{create_request, text};
use bytes::Bytes;
use dsn_core::app::{AppError, AppHost, ServiceApp};
use dsn_core::exec::{Addr, Ctx, Resident};
use dsn_replication::codes::{
    RPC_CM_CREATE_APP, RPC_CM_DROP_APP, RPC_CM_QUERY_PARTITION_CONFIG_BY_INDEX,
};
use dsn_replication::wire::admin::{
    CreateAppResponse, DropAppOptions, DropAppRequest, DropAppResponse,
};
use dsn_replication::wire::config::{QueryCfgRequest, QueryCfgResponse};
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::{Rpc, RpcOptions, ServiceTable};
use pegasus_client::{ClientCore, ClientError, ClientOptions, Kind, ops};
use pegasus_server::settings::{RESERVE_MIN_COUNT, RESERVE_TIME_SECONDS};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

dsn_core::task_codes! {
    /// Codes of the story.
    pub CODES;
    /// Its next step.
    pub LPC_STORY: Compute, Common, "THREAD_POOL_DEFAULT";
}

const SORT_KEY: &[u8] = b"s";
const RETRY: Duration = Duration::from_millis(200);
/// Most acts are done at once. Less than it takes to write anything.
const SOON: Duration = Duration::from_micros(100);

/// What a key must hold.
#[derive(Clone, Copy, Debug)]
enum Held {
    Value(u64, usize),
    /// At least, at most.
    Count(u64, u64),
}

/// What the story shares with its driver.
#[derive(Default)]
pub(super) struct Told {
    /// Acts asked for, and done.
    pub asked: AtomicUsize,
    pub done: AtomicUsize,
    pub finished: AtomicBool,
    pub acked: AtomicUsize,
    pub wrong: Mutex<Option<String>>,
}

struct Teller {
    me: Addr<Self>,
    core: Addr<ClientCore>,
    told: Arc<Told>,
    story: Vec<Do>,
    /// Partitions and copies of the table.
    shape: (i32, i32),
    at: usize,
    values: u64,
    held: BTreeMap<(&'static str, &'static str), Held>,
}

impl Resident for Teller {}

type Answer<T> = Result<T, ClientError>;

impl Teller {
    fn step(&mut self, ctx: &mut Ctx<'_>) {
        let Some(step) = self.story.get(self.at).copied() else {
            self.told.finished.store(true, Ordering::Relaxed);
            return;
        };
        match step {
            Do::Make(table) => self.make(ctx, table),
            Do::Drop(table) => self.drop_table(ctx, table),
            Do::Missing(table) => self.missing(ctx, table),
            Do::Put(table, key, len) => self.put(ctx, (table, key), len),
            Do::Incr(key) => self.incr(ctx, key),
            Do::Wait(ms) => {
                self.at += 1;
                ctx.after(self.me, &LPC_STORY, Duration::from_millis(ms), Self::step);
            }
            Do::Burst(count) => self.burst(ctx, count),
            Do::Act(_) => {
                self.told.asked.fetch_add(1, Ordering::Relaxed);
                self.at += 1;
                self.wait_for_act(ctx, SOON);
            }
            Do::Read => self.read(ctx, 0),
        }
    }

    fn wait_for_act(&mut self, ctx: &mut Ctx<'_>, pause: Duration) {
        let asked = self.told.asked.load(Ordering::Relaxed);
        if self.told.done.load(Ordering::Relaxed) == asked {
            return self.step(ctx);
        }
        ctx.after(self.me, &LPC_STORY, pause, |this, ctx| this.wait_for_act(ctx, RETRY));
    }

    /// After a call: on with the story, or the same again.
    fn went(&mut self, ctx: &mut Ctx<'_>, done: bool) {
        if done {
            self.at += 1;
            self.told.acked.fetch_add(1, Ordering::Relaxed);
            return self.step(ctx);
        }
        ctx.after(self.me, &LPC_STORY, RETRY, Self::step);
    }

    fn wrong(&self, text: String) {
        self.told.wrong.lock().expect("one thread").get_or_insert(text);
    }

    fn make(&mut self, ctx: &mut Ctx<'_>, table: &'static str) {
        let (partitions, copies) = self.shape;
        let partitions = if table == TABLE { partitions } else { 1 };
        let mut request = create_request(table, partitions, copies);
        // The second checkpoint of a replica removes the first.
        let envs = [(RESERVE_MIN_COUNT, "1"), (RESERVE_TIME_SECONDS, "0")];
        request.options.envs = envs.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let me = self.me;
        let _ = ctx.with(self.core, move |core, ctx| {
            let done = Box::new(move |ctx: &mut Ctx<'_>, answer: Answer<CreateAppResponse>| {
                let made = answer.is_ok_and(|a| a.err == ErrorCode::Ok);
                ctx.post(me, &LPC_STORY, move |this, ctx| this.went(ctx, made));
            });
            core.ask_meta(ctx, &RPC_CM_CREATE_APP, &request, Kind::Read, None, done);
        });
    }

    fn drop_table(&mut self, ctx: &mut Ctx<'_>, table: &'static str) {
        let options = DropAppOptions { success_if_not_exist: true, reserve_seconds: Some(0) };
        let request = DropAppRequest { app_name: table.to_owned(), options };
        self.held.retain(|(of, _), _| *of != table);
        let me = self.me;
        let _ = ctx.with(self.core, move |core, ctx| {
            let done = Box::new(move |ctx: &mut Ctx<'_>, answer: Answer<DropAppResponse>| {
                let dropped = answer.is_ok_and(|a| a.err == ErrorCode::Ok);
                ctx.post(me, &LPC_STORY, move |this, ctx| this.went(ctx, dropped));
            });
            core.ask_meta(ctx, &RPC_CM_DROP_APP, &request, Kind::Read, None, done);
        });
    }

    fn missing(&mut self, ctx: &mut Ctx<'_>, table: &'static str) {
        let request = QueryCfgRequest { app_name: table.to_owned(), partition_indices: Vec::new() };
        let code = &RPC_CM_QUERY_PARTITION_CONFIG_BY_INDEX;
        let me = self.me;
        let _ = ctx.with(self.core, move |core, ctx| {
            let done = Box::new(move |ctx: &mut Ctx<'_>, answer: Answer<QueryCfgResponse>| {
                let told = answer.as_ref().is_ok_and(|answer| answer.err != ErrorCode::Busy);
                let there = answer.is_ok_and(|answer| answer.err == ErrorCode::Ok);
                ctx.post(me, &LPC_STORY, move |this, ctx| {
                    if there {
                        this.wrong(format!("table {table} was dropped, and is there"));
                    }
                    this.went(ctx, told);
                });
            });
            core.ask_meta(ctx, code, &request, Kind::Read, None, done);
        });
    }

    fn put(&mut self, ctx: &mut Ctx<'_>, key: (&'static str, &'static str), padding: usize) {
        self.values += 1;
        let value = self.values;
        let request = ops::put(key.1.as_bytes(), SORT_KEY, text(value, padding), 0).expect("a key");
        let me = self.me;
        let _ = ctx.with(self.core, move |core, ctx| {
            let done = Box::new(move |ctx: &mut Ctx<'_>, answer: Answer<()>| {
                ctx.post(me, &LPC_STORY, move |this, ctx| {
                    if answer.is_ok() {
                        this.held.insert(key, Held::Value(value, padding));
                    }
                    this.went(ctx, answer.is_ok());
                });
            });
            core.submit(ctx, key.0, request, None, done);
        });
    }

    fn incr(&mut self, ctx: &mut Ctx<'_>, key: &'static str) {
        let held = self.held.entry((TABLE, key)).or_insert(Held::Count(0, 0));
        let Held::Count(_, most) = held else { return };
        *most += 1;
        let request = ops::incr(key.as_bytes(), SORT_KEY, 1, 0).expect("a key");
        let me = self.me;
        let _ = ctx.with(self.core, move |core, ctx| {
            let done = Box::new(move |ctx: &mut Ctx<'_>, answer: Answer<i64>| {
                ctx.post(me, &LPC_STORY, move |this, ctx| this.counted(ctx, key, answer));
            });
            core.submit(ctx, TABLE, request, None, done);
        });
    }

    /// Increments whose outcome nobody waits for: some are under way when something happens to the servers.
    fn burst(&mut self, ctx: &mut Ctx<'_>, count: u64) {
        let held = self.held.entry((TABLE, BURST)).or_insert(Held::Count(0, 0));
        let Held::Count(_, most) = held else { return };
        *most += count;
        let me = self.me;
        for _ in 0..count {
            let request = ops::incr(BURST.as_bytes(), SORT_KEY, 1, 0).expect("a key");
            let _ = ctx.with(self.core, move |core, ctx| {
                let done = Box::new(move |ctx: &mut Ctx<'_>, answer: Answer<i64>| {
                    ctx.post(me, &LPC_STORY, move |this, _| this.burst_counted(answer));
                });
                core.submit(ctx, TABLE, request, None, done);
            });
        }
        self.at += 1;
        ctx.after(self.me, &LPC_STORY, SOON, Self::step);
    }

    /// Their answers come in any order.
    fn burst_counted(&mut self, answer: Answer<i64>) {
        let (Ok(sum), Some(Held::Count(least, most))) =
            (answer, self.held.get_mut(&(TABLE, BURST)))
        else {
            return;
        };
        let (sum, most) = (sum as u64, *most);
        *least = (*least).max(sum);
        if sum > most {
            self.wrong(format!("{BURST} is {sum} after {most} increments"));
        }
    }

    fn counted(&mut self, ctx: &mut Ctx<'_>, key: &'static str, answer: Answer<i64>) {
        let went = answer.is_ok();
        if let Some(Held::Count(least, most)) = self.held.get_mut(&(TABLE, key)) {
            *least += u64::from(went);
            match answer {
                Ok(sum) if (*least..=*most).contains(&(sum as u64)) => *least = sum as u64,
                Ok(sum) => {
                    let text = format!("{key} is {sum} after {least} to {most} increments");
                    self.wrong(text);
                }
                // It may have been carried out, or be carried out yet.
                Err(_) => {}
            }
        }
        self.went(ctx, went);
    }

    /// Reads the keys one after the other, each until it is answered.
    fn read(&mut self, ctx: &mut Ctx<'_>, index: usize) {
        let Some((&key, &held)) = self.held.iter().nth(index) else { return self.went(ctx, true) };
        let request = ops::get(key.1.as_bytes(), SORT_KEY).expect("a key");
        let me = self.me;
        let _ = ctx.with(self.core, move |core, ctx| {
            let done = Box::new(move |ctx: &mut Ctx<'_>, answer: Answer<Option<Bytes>>| {
                ctx.post(me, &LPC_STORY, move |this, ctx| match answer {
                    Ok(value) => {
                        if let Some(wrong) = unlike(held, value.as_deref()) {
                            this.wrong(format!("{}/{}: {wrong}", key.0, key.1));
                        }
                        this.read(ctx, index + 1);
                    }
                    Err(_) => this.read_again(ctx, index),
                });
            });
            core.submit(ctx, key.0, request, None, done);
        });
    }

    fn read_again(&mut self, ctx: &mut Ctx<'_>, index: usize) {
        ctx.after(self.me, &LPC_STORY, RETRY, move |this, ctx| this.read(ctx, index));
    }
}

/// Why a value is not what the key must hold.
fn unlike(held: Held, found: Option<&[u8]>) -> Option<String> {
    let shown =
        found.map(|found| String::from_utf8_lossy(&found[..found.len().min(20)]).into_owned());
    match held {
        Held::Value(value, padding) => {
            let same = found.is_some_and(|found| *found == text(value, padding)[..]);
            (!same).then(|| format!("{shown:?} instead of {value}"))
        }
        Held::Count(least, most) => {
            let count = shown.as_deref().map_or(Some(0), |text| text.parse::<u64>().ok());
            let fits = count.is_some_and(|count| (least..=most).contains(&count));
            (!fits).then(|| format!("{shown:?} instead of {least} to {most}"))
        }
    }
}

pub(super) struct TellerApp {
    pub metas: Vec<SocketAddr>,
    pub told: Arc<Told>,
    pub story: Story,
    /// Partitions and copies of the table.
    pub shape: (i32, i32),
}

impl ServiceApp for TellerApp {
    fn start(&mut self, ctx: &mut Ctx<'_>, _: Addr<AppHost>) -> Result<(), AppError> {
        Rpc::start(ctx, RpcOptions::default(), ServiceTable::new());
        let mut options = ClientOptions::new(self.metas.clone());
        options.timeout = Duration::from_secs(2);
        let core = ctx.spawn_here(|_, me| ClientCore::new(me, options));
        let (told, story, shape) = (self.told.clone(), self.story.steps(), self.shape);
        let me = ctx.spawn_here(|_, me| Teller {
            me,
            core,
            told,
            story,
            shape,
            at: 0,
            values: 0,
            held: BTreeMap::new(),
        });
        ctx.post(me, &LPC_STORY, Teller::step);
        Ok(())
    }
}
