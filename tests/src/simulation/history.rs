//! What clients saw, and whether it can be explained.
//!
//! Three kinds of keys. *Registers and counters* are judged for linearizability, each by itself: that includes every
//! acknowledged write, for one that is lost would have to be explained away. *Pairs* are two records that are always
//! written together: a reader that sees them differ has seen half a write. *Leases* are records with a time to live:
//! long before its end they must be there, long after it they must not.
//!
//! Time stamps of the histories are the order in which the single simulation thread did things, which is finer than any
//! clock in it.

use crate::linearizable::{CONFIGURATIONS_MAX, Call, Op, check_within};
use pegasus_client::ClientError;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Keys that hold one value.
pub const REGISTERS: usize = 6;
/// Keys that hold a number.
pub const COUNTERS: usize = 2;
/// Keys with a history.
pub const KEYS: usize = REGISTERS + COUNTERS;

/// What the sessions of a run share with whoever judges it.
pub struct History {
    order: AtomicU64,
    keys: Vec<Mutex<Vec<Call>>>,
    /// The table is there.
    pub ready: AtomicBool,
    /// Sessions are to read everything once more and then rest.
    pub stopping: AtomicBool,
    acked: AtomicU64,
    checked: AtomicU64,
    /// Keys that each session has read after the faults.
    read: Mutex<Vec<[bool; KEYS]>>,
    /// Changes of `read`.
    reads: AtomicU64,
    /// `reads` when somebody last looked whether all was read, and what was excused then.
    looked: Mutex<(u64, Vec<usize>)>,
    wrong: Mutex<Option<(&'static str, String)>>,
    /// How often each error was met.
    errors: Mutex<BTreeMap<String, u64>>,
}

impl History {
    /// An empty history of so many sessions.
    pub fn new(sessions: usize) -> Self {
        Self {
            order: AtomicU64::new(0),
            keys: (0..KEYS).map(|_| Mutex::default()).collect(),
            ready: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            acked: AtomicU64::new(0),
            checked: AtomicU64::new(0),
            read: Mutex::new(vec![[false; KEYS]; sessions]),
            reads: AtomicU64::new(0),
            looked: Mutex::new((u64::MAX, Vec::new())),
            wrong: Mutex::new(None),
            errors: Mutex::default(),
        }
    }

    fn tick(&self) -> u64 {
        self.order.fetch_add(1, Ordering::Relaxed)
    }

    /// A call begins; its number.
    pub fn begin(&self, key: usize, client: u32, op: Op) -> usize {
        let invoked = self.tick();
        let mut calls = self.keys[key].lock().expect("one thread");
        calls.push(Call { client, op, invoked, returned: None });
        calls.len() - 1
    }

    /// The call was answered, with an answer that completes it.
    pub fn end(&self, key: usize, call: usize, op: Op) {
        let returned = self.tick();
        let mut calls = self.keys[key].lock().expect("one thread");
        calls[call].op = op;
        calls[call].returned = Some(returned);
        self.acked.fetch_add(1, Ordering::Relaxed);
    }

    /// The call did certainly nothing.
    pub fn void(&self, key: usize, call: usize) {
        let mut calls = self.keys[key].lock().expect("one thread");
        calls[call].op = Op::Get(None);
    }

    /// A call failed.
    pub fn failed(&self, error: &ClientError) {
        let text = error.to_string();
        let name = text.split(|c: char| !c.is_ascii_uppercase() && c != '_');
        let name = name.into_iter().find(|word| word.starts_with("ERR_")).unwrap_or("other");
        *self.errors.lock().expect("one thread").entry(name.to_owned()).or_default() += 1;
    }

    /// How often calls failed with each error.
    pub fn errors(&self) -> BTreeMap<String, u64> {
        self.errors.lock().expect("one thread").clone()
    }

    /// Something that must never be seen was seen; the first is kept.
    pub fn wrong(&self, by: &'static str, text: String) {
        self.wrong.lock().expect("one thread").get_or_insert((by, text));
    }

    /// A pair or a lease was as it should be.
    pub fn right(&self) {
        self.checked.fetch_add(1, Ordering::Relaxed);
    }

    /// A session has read a key after the faults.
    pub fn has_read(&self, session: usize, key: usize) {
        self.read.lock().expect("one thread")[session][key] = true;
        self.reads.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether every session has read every key that `excused` does not name. Cheap while nothing changes.
    pub fn all_read(&self, excused: &[usize]) -> bool {
        let reads = self.reads.load(Ordering::Relaxed);
        let mut looked = self.looked.lock().expect("one thread");
        if looked.0 == reads && looked.1 == excused {
            return false;
        }
        *looked = (reads, excused.to_vec());
        self.unread(excused).is_empty()
    }

    /// Whether a session has read a key after the faults.
    pub fn session_has_read(&self, session: usize, key: usize) -> bool {
        self.read.lock().expect("one thread")[session][key]
    }

    /// Keys that some session has not read after the faults, and `excused` does not name.
    pub fn unread(&self, excused: &[usize]) -> Vec<usize> {
        let read = self.read.lock().expect("one thread");
        let missing = |key: &usize| read.iter().any(|session| !session[*key]);
        (0..KEYS).filter(|key| !excused.contains(key)).filter(missing).collect()
    }

    /// Calls answered.
    pub fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    /// Pairs and leases that were as they should be.
    pub fn checked(&self) -> u64 {
        self.checked.load(Ordering::Relaxed)
    }

    /// The first thing that no correct cluster could have answered: who says so, and what.
    pub fn judge(&self) -> Option<(&'static str, String)> {
        if let Some(wrong) = self.wrong.lock().expect("one thread").take() {
            return Some(wrong);
        }
        let mut left = CONFIGURATIONS_MAX;
        for (key, calls) in self.keys.iter().enumerate() {
            let calls = calls.lock().expect("one thread");
            // Reads without an answer say nothing.
            let told: Vec<Call> = calls
                .iter()
                .filter(|call| call.returned.is_some() || !matches!(call.op, Op::Get(_)))
                .cloned()
                .collect();
            if let Err(error) = check_within(&told, &mut left) {
                return Some(("linearizability", format!("key{key}: {error}")));
            }
        }
        None
    }
}

/// The hash key of a key with a history.
pub fn hash_key(key: usize) -> Vec<u8> {
    format!("key{key}").into_bytes()
}
