//! The clients of a kill test: threads that write, read, count and compare-and-set few keys at a time, and put down
//! every call in the expected state.

use super::expected::{Key, Record};
use crate::linearizable::Op;
use bytes::Bytes;
use dsn_core::rng::Rng;
use pegasus_client::schema::rrdb::CasCheckType;
use pegasus_client::{Check, ClientError, Table, Ttl};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const SORT_KEY: &[u8] = b"s";
/// Keys that are worked on at a time.
pub const HOT: u64 = 24;
/// Of these, the last ones are counters.
const COUNTERS: u64 = 6;
/// Calls after which other keys are taken, so that histories stay short enough to be judged.
const CALLS_PER_SET: u64 = 6_000;
/// One call in so many goes to a key of an earlier set.
const OLD: u64 = 8;
/// How long a call may take.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes that a value of a register has, some more and some less.
const VALUE_BYTES: usize = 300;

/// What the clients of a run share.
#[derive(Debug)]
pub struct Traffic {
    /// The clock of all records.
    begun: Instant,
    /// Clients are to stop.
    pub stop: AtomicBool,
    /// Calls sent, which also says which keys are hot.
    pub sent: AtomicU64,
    /// Calls answered.
    pub answered: AtomicU64,
    /// Writes of unknown outcome.
    pub unknown: AtomicU64,
}

impl Traffic {
    /// None yet. The clock starts.
    #[expect(clippy::disallowed_methods, reason = "a test harness lives outside the runtime")]
    pub fn new() -> Self {
        Self {
            begun: Instant::now(),
            stop: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
        }
    }

    /// Nanoseconds since the beginning.
    pub fn now(&self) -> u64 {
        self.begun.elapsed().as_nanos() as u64
    }

    /// Keys that may have been used so far.
    pub fn keys(&self) -> u64 {
        (self.sent.load(Ordering::Relaxed) / CALLS_PER_SET + 1) * HOT
    }
}

impl Default for Traffic {
    fn default() -> Self {
        Self::new()
    }
}

/// The hash key of a key.
pub fn hash_key(key: Key) -> Vec<u8> {
    format!("key{key}").into_bytes()
}

fn is_counter(key: Key) -> bool {
    key % HOT >= HOT - COUNTERS
}

/// Values say which they are, and are long, so that files have something in them.
fn text(value: u64) -> Bytes {
    let mut text = value.to_string().into_bytes();
    text.resize(VALUE_BYTES + (value % 97) as usize, b'.');
    text.into()
}

/// What a stored value says; something that nobody wrote shows as such.
fn number(stored: &Bytes) -> u64 {
    let text = std::str::from_utf8(stored).unwrap_or_default();
    let digits = text.trim_end_matches('.');
    let value: u64 = digits.parse().unwrap_or(u64::MAX);
    // Counters are plain numbers.
    if digits.len() == text.len() || *stored == self::text(value) { value } else { u64::MAX }
}

/// One thread's client.
pub struct Client<'a> {
    table: Table,
    traffic: &'a Traffic,
    record: Record,
    rng: Rng,
    number: u32,
    values: u64,
}

impl<'a> Client<'a> {
    /// Number `number`; each must have another one.
    pub fn new(
        table: &Table,
        traffic: &'a Traffic,
        record: Record,
        seed: u64,
        number: u32,
    ) -> Self {
        let rng = Rng::stream(seed, "kill test", "client", u64::from(number));
        let table = table.with_timeout(CALL_TIMEOUT);
        Self { table, traffic, record, rng, number, values: 0 }
    }

    /// The same with another patience.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.table = self.table.with_timeout(timeout);
        self
    }

    /// Calls until all are told to stop.
    pub fn run(mut self) {
        while !self.traffic.stop.load(Ordering::Relaxed) {
            self.step();
        }
    }

    /// One call.
    pub fn step(&mut self) {
        let sets = self.traffic.sent.fetch_add(1, Ordering::Relaxed) / CALLS_PER_SET;
        let set = match sets > 0 && self.rng.below(OLD) == 0 {
            true => self.rng.below(sets),
            false => sets,
        };
        let key = set * HOT + self.rng.below(HOT);
        match (is_counter(key), self.rng.below(10)) {
            (_, 0..=4) => drop(self.get(key)),
            (true, _) => self.count(key),
            (false, 5..=7) => self.put(key),
            (false, 8) => self.check_and_set(key),
            (false, _) => self.remove(key),
        }
    }

    /// A value that nobody else writes.
    fn value(&mut self) -> u64 {
        self.values += 1;
        u64::from(self.number + 1) << 40 | self.values
    }

    fn call<T>(
        &mut self,
        key: Key,
        op: &Op,
        send: impl FnOnce(&Table) -> Result<T, ClientError>,
        answer: impl FnOnce(&T) -> Op,
    ) -> Option<T> {
        let call = self.record.sent(key, self.traffic.now(), op);
        match send(&self.table) {
            Ok(found) => {
                self.record.answered(call, self.traffic.now(), &answer(&found));
                self.traffic.answered.fetch_add(1, Ordering::Relaxed);
                Some(found)
            }
            Err(error) => {
                if !error.is_ambiguous() {
                    self.record.void(call);
                } else if !matches!(op, Op::Get(_)) {
                    self.traffic.unknown.fetch_add(1, Ordering::Relaxed);
                }
                None
            }
        }
    }

    /// Reads a key; `None` when there was no answer.
    pub fn get(&mut self, key: Key) -> Option<Option<u64>> {
        let value = |found: &Option<Bytes>| found.as_ref().map(number);
        let send = |table: &Table| table.get(&hash_key(key), SORT_KEY);
        let found = self.call(key, &Op::Get(None), send, |found| Op::Get(value(found)))?;
        Some(value(&found))
    }

    fn put(&mut self, key: Key) {
        let op = Op::Put(self.value());
        let Op::Put(value) = op else { return };
        self.call(
            key,
            &op,
            |table| table.set(&hash_key(key), SORT_KEY, text(value)),
            |_| op.clone(),
        );
    }

    fn remove(&mut self, key: Key) {
        let send = |table: &Table| table.remove(&hash_key(key), SORT_KEY);
        self.call(key, &Op::Remove, send, |()| Op::Remove);
    }

    fn count(&mut self, key: Key) {
        let send = |table: &Table| table.incr(&hash_key(key), SORT_KEY, 1);
        let answer = |sum: &i64| Op::Incr(1, Some(*sum as u64));
        self.call(key, &Op::Incr(1, None), send, answer);
    }

    /// Sets a value where there is none.
    fn check_and_set(&mut self, key: Key) {
        let value = self.value();
        let sort_key = Bytes::from_static(SORT_KEY);
        let kind = CasCheckType::ValueNotExist;
        let check = Check { sort_key: sort_key.clone(), kind, operand: Bytes::new() };
        let send = |table: &Table| {
            table.check_and_set(&hash_key(key), &check, &sort_key, text(value), Ttl::Forever)
        };
        let op = Op::CheckAndSet(value, None, None);
        self.call(key, &op, send, |checked| Op::CheckAndSet(value, None, Some(checked.done)));
    }
}
