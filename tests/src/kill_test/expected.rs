//! The expected state: files in which every call is put down before it is sent and again when it was answered.
//!
//! Each client has a file of its own. A line is written with one `write`, so it is there whatever becomes of this
//! process. The judgement rests on the files alone.
//!
//! ```text
//! s SEQUENCE KEY TIME OPERATION...    sent; times in nanoseconds of one clock
//! a SEQUENCE TIME ANSWER              answered
//! n SEQUENCE                          certainly not carried out
//! ```

use crate::linearizable::{Call, Op};
use dsn_core::hash::DetHashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

/// Number of a key.
pub type Key = u64;

/// What one client writes down.
#[derive(Debug)]
pub struct Record {
    file: File,
    next: u64,
}

fn words(op: &Op) -> String {
    match op {
        Op::Put(value) => format!("put {value}"),
        Op::Remove => "remove".to_owned(),
        Op::Incr(by, _) => format!("incr {by}"),
        Op::Get(_) => "get".to_owned(),
        Op::CheckAndSet(value, expected, _) => format!("cas {value} {}", optional(*expected)),
    }
}

fn answer(op: &Op) -> String {
    match op {
        Op::Put(_) | Op::Remove => "done".to_owned(),
        Op::Incr(_, sum) => optional(*sum),
        Op::Get(value) => optional(*value),
        Op::CheckAndSet(_, _, done) => optional(done.map(u64::from)),
    }
}

fn optional(value: Option<u64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

impl Record {
    /// Client `number`'s file in `dir`, which goes on where it ends.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(dir: &Path, number: u32) -> io::Result<Self> {
        let path = dir.join(format!("client{number}"));
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { file, next: 0 })
    }

    fn line(&mut self, line: &str) {
        self.file.write_all(line.as_bytes()).expect("the expected state can be written");
    }

    /// A call is about to be sent; its number.
    pub fn sent(&mut self, key: Key, at: u64, op: &Op) -> u64 {
        self.next += 1;
        self.line(&format!("s {} {key} {at} {}\n", self.next, words(op)));
        self.next
    }

    /// It was answered; `op` is the call with its answer.
    pub fn answered(&mut self, call: u64, at: u64, op: &Op) {
        self.line(&format!("a {call} {at} {}\n", answer(op)));
    }

    /// It was certainly not carried out.
    pub fn void(&mut self, call: u64) {
        self.line(&format!("n {call}\n"));
    }
}

/// All calls of all clients, by key. Reads without an answer say nothing and are left out.
///
/// # Errors
/// Files that cannot be read or understood.
pub fn load(dir: &Path) -> io::Result<DetHashMap<Key, Vec<Call>>> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(dir)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.sort();
    let mut keys: DetHashMap<Key, Vec<Call>> = DetHashMap::default();
    for (client, path) in files.iter().enumerate() {
        for (key, call) in calls(path, client as u32)? {
            if call.returned.is_some() || !matches!(call.op, Op::Get(_)) {
                keys.entry(key).or_default().push(call);
            }
        }
    }
    Ok(keys)
}

#[expect(clippy::disallowed_methods, reason = "a test harness lives outside the runtime")]
fn calls(path: &Path, client: u32) -> io::Result<Vec<(Key, Call)>> {
    let mut open: DetHashMap<u64, (Key, Call)> = DetHashMap::default();
    let mut order = Vec::new();
    for line in BufReader::new(File::open(path)?).lines() {
        let line = line?;
        let parsed = parse(&line, client, &mut open, &mut order);
        parsed.ok_or_else(|| io::Error::other(format!("{path:?}: {line}")))?;
    }
    Ok(order.into_iter().filter_map(|call| open.remove(&call)).collect())
}

fn parse(
    line: &str,
    client: u32,
    open: &mut DetHashMap<u64, (Key, Call)>,
    order: &mut Vec<u64>,
) -> Option<()> {
    let mut words = line.split(' ');
    let kind = words.next()?;
    let number: u64 = words.next()?.parse().ok()?;
    match kind {
        "s" => {
            let key = words.next()?.parse().ok()?;
            let invoked = words.next()?.parse().ok()?;
            let op = match words.next()? {
                "put" => Op::Put(words.next()?.parse().ok()?),
                "remove" => Op::Remove,
                "incr" => Op::Incr(words.next()?.parse().ok()?, None),
                "get" => Op::Get(None),
                "cas" => Op::CheckAndSet(words.next()?.parse().ok()?, value(words.next()?)?, None),
                _ => return None,
            };
            open.insert(number, (key, Call { client, op, invoked, returned: None }));
            order.push(number);
        }
        "a" => {
            let call = &mut open.get_mut(&number)?.1;
            call.returned = Some(words.next()?.parse().ok()?);
            let said = words.next()?;
            match &mut call.op {
                Op::Put(_) | Op::Remove => {}
                Op::Incr(_, answer) | Op::Get(answer) => *answer = value(said)?,
                Op::CheckAndSet(_, _, answer) => *answer = value(said)?.map(|done| done == 1),
            }
        }
        "n" => {
            open.remove(&number)?;
        }
        _ => return None,
    }
    Some(())
}

/// A number or none; the outer `None` is neither.
fn value(word: &str) -> Option<Option<u64>> {
    if word == "-" { Some(None) } else { word.parse().ok().map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linearizable::check;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test of files")]
    fn what_is_written_down_is_what_is_judged() {
        let dir = crate::onebox::scratch("expected");
        let mut first = Record::open(&dir, 1).unwrap();
        let call = first.sent(7, 10, &Op::Put(1));
        first.answered(call, 20, &Op::Put(1));
        let call = first.sent(7, 30, &Op::CheckAndSet(2, Some(1), None));
        first.answered(call, 40, &Op::CheckAndSet(2, Some(1), Some(true)));
        first.sent(7, 50, &Op::Put(3));
        let call = first.sent(7, 60, &Op::Put(4));
        first.void(call);
        let mut second = Record::open(&dir, 2).unwrap();
        second.sent(7, 45, &Op::Get(None));
        let call = second.sent(8, 45, &Op::Incr(1, None));
        second.answered(call, 46, &Op::Incr(1, Some(1)));
        let call = second.sent(7, 70, &Op::Get(None));
        second.answered(call, 80, &Op::Get(Some(3)));

        let keys = load(&dir).unwrap();
        let ops: Vec<Op> = keys[&7].iter().map(|call| call.op.clone()).collect();
        let cas = Op::CheckAndSet(2, Some(1), Some(true));
        assert_eq!(ops, [Op::Put(1), cas, Op::Put(3), Op::Get(Some(3))]);
        assert_eq!(keys[&7][2].returned, None);
        assert_eq!(keys[&8].len(), 1);
        assert_eq!(check(&keys[&7]), Ok(()));

        // What was certainly not carried out must not be seen.
        let call = second.sent(7, 90, &Op::Get(None));
        second.answered(call, 95, &Op::Get(Some(4)));
        assert!(check(&load(&dir).unwrap()[&7]).is_err());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
