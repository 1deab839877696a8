//! RESP, the protocol of Redis, as far as a load generator needs it.
//!
//! Requests are arrays of bulk strings; replies are read in place. A reply may arrive in any number
//! of pieces: [`next`] says nothing until it is complete.

use crate::records::{Checker, Records, Tally};
use crate::wire::{BadReply, MAX_REPLY, Reply, Verdict};
use crate::workload::{Kind, Op};
use bytes::BytesMut;

/// Longest line (a length, a number, a status or an error).
const MAX_LINE: usize = 4096;
/// Most elements of an array.
const MAX_ELEMENTS: i64 = 1 << 20;
/// Bytes of an error that name its kind in reports.
const MAX_ERROR_NAME: usize = 80;

/// Writer of requests.
#[derive(Debug, Default)]
pub struct Resp {
    key: Vec<u8>,
    /// Replicas that must have a write before it counts as done: `WAIT` follows each.
    wait: usize,
}

impl Resp {
    /// A writer whose writes are done when so many replicas have them.
    pub fn new(wait: usize) -> Self {
        Self { key: Vec::new(), wait }
    }

    /// Appends the commands of an operation.
    #[inline]
    pub fn encode(&mut self, records: &Records, op: &Op, out: &mut BytesMut) {
        self.encode_one(records, op, out);
        if self.wait > 0 && matches!(op.kind, Kind::Set | Kind::MultiSet) {
            // Without a time limit.
            out.extend_from_slice(b"*3\r\n$4\r\nWAIT\r\n");
            let digits = self.wait.to_string();
            bulk(digits.as_bytes(), out);
            bulk(b"0", out);
        }
    }

    #[inline]
    fn encode_one(&mut self, records: &Records, op: &Op, out: &mut BytesMut) {
        match op.kind {
            Kind::Set => {
                out.extend_from_slice(b"*3\r\n$3\r\nSET\r\n");
                self.put_key(records, op.record, out);
                bulk(records.value(op.record), out);
            }
            Kind::Get => {
                out.extend_from_slice(b"*2\r\n$3\r\nGET\r\n");
                self.put_key(records, op.record, out);
            }
            Kind::MultiSet => {
                head(b'*', 1 + 2 * op.count as usize, out);
                out.extend_from_slice(b"$4\r\nMSET\r\n");
                for record in op.record..op.record + u64::from(op.count) {
                    self.put_key(records, record, out);
                    bulk(records.value(record), out);
                }
            }
            Kind::MultiGet | Kind::Scan => {
                head(b'*', 1 + op.count as usize, out);
                out.extend_from_slice(b"$4\r\nMGET\r\n");
                for record in op.record..op.record + u64::from(op.count) {
                    self.put_key(records, record, out);
                }
            }
        }
    }

    #[inline]
    fn put_key(&mut self, records: &Records, record: u64, out: &mut BytesMut) {
        self.key.clear();
        records.hash_key(record, &mut self.key);
        records.sort_key(record, &mut self.key);
        bulk(&self.key, out);
    }
}

/// Appends a bulk string.
#[inline]
pub fn bulk(bytes: &[u8], out: &mut BytesMut) {
    head(b'$', bytes.len(), out);
    out.reserve(bytes.len() + 2);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Appends `kind`, a number, and the end of the line.
#[inline]
pub fn head(kind: u8, number: usize, out: &mut BytesMut) {
    let mut line = [0u8; 23];
    let mut at = line.len() - 2;
    line[at..].copy_from_slice(b"\r\n");
    let mut rest = number;
    loop {
        at -= 1;
        line[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    line[at - 1] = kind;
    out.extend_from_slice(&line[at - 1..]);
}

/// One item of a reply, or of a request.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Item<'a> {
    /// `+OK`
    Simple(&'a [u8]),
    /// `-ERR what`
    Error(&'a [u8]),
    /// `:1`
    Integer(i64),
    /// `$3 abc`, or nothing.
    Bulk(Option<&'a [u8]>),
    /// `*2`, or nothing; the elements follow.
    Array(Option<usize>),
}

/// The item at the beginning of `input` and the bytes it takes, if it is complete.
///
/// # Errors
/// [`BadReply`].
#[inline]
pub fn item(input: &[u8]) -> Result<Option<(Item<'_>, usize)>, BadReply> {
    let Some((&kind, rest)) = input.split_first() else { return Ok(None) };
    if !matches!(kind, b'+' | b'-' | b':' | b'$' | b'*') {
        return Err(BadReply("unknown type"));
    }
    let Some(end) = rest.iter().take(MAX_LINE).position(|&byte| byte == b'\n') else {
        return if rest.len() >= MAX_LINE { Err(BadReply("a line without end")) } else { Ok(None) };
    };
    let Some(line) = rest[..end].strip_suffix(b"\r") else {
        return Err(BadReply("a line that ends without CR"));
    };
    let used = end + 2;
    let found = match kind {
        b'+' => Item::Simple(line),
        b'-' => Item::Error(line),
        b':' => Item::Integer(integer(line)?),
        b'$' => match length(line, MAX_REPLY as i64)? {
            None => Item::Bulk(None),
            Some(length) => {
                let Some(tail) = input.get(used..used + length + 2) else { return Ok(None) };
                let Some(bytes) = tail.strip_suffix(b"\r\n") else {
                    return Err(BadReply("a string without its end"));
                };
                return Ok(Some((Item::Bulk(Some(bytes)), used + length + 2)));
            }
        },
        _ => Item::Array(length(line, MAX_ELEMENTS)?),
    };
    Ok(Some((found, used)))
}

fn length(line: &[u8], most: i64) -> Result<Option<usize>, BadReply> {
    match integer(line)? {
        -1 => Ok(None),
        length if (0..=most).contains(&length) => Ok(Some(length as usize)),
        _ => Err(BadReply("a length out of range")),
    }
}

#[inline]
fn integer(line: &[u8]) -> Result<i64, BadReply> {
    let (negative, digits) = match line {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > 18 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(BadReply("not a number"));
    }
    let value = digits.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
    Ok(if negative { -value } else { value })
}

impl Resp {
    /// The first complete reply. That to a write is two, if it waits for replicas.
    ///
    /// # Errors
    /// [`BadReply`].
    #[inline]
    pub fn next<'a>(&self, input: &'a [u8]) -> Result<Option<Reply<'a>>, BadReply> {
        let Some(reply) = next(input)? else { return Ok(None) };
        if self.wait == 0 || !matches!(input[0], b'+' | b'-') {
            return Ok(Some(reply));
        }
        let Some((_, more)) = item(&input[reply.len..])? else { return Ok(None) };
        let len = reply.len + more;
        Ok(Some(Reply { body: &input[..len], len, ..reply }))
    }

    /// What a complete reply says about its operation.
    ///
    /// # Errors
    /// [`BadReply`].
    #[inline]
    pub fn judge(&self, op: &Op, body: &[u8], check: &Checker<'_>) -> Result<Verdict, BadReply> {
        let verdict = judge(op, body, check)?;
        if self.wait == 0 || !matches!(verdict, Verdict::Done(_)) || body[0] != b'+' {
            return Ok(verdict);
        }
        let (_, used) = item(body)?.ok_or(BadReply("an empty reply"))?;
        match item(&body[used..])? {
            Some((Item::Integer(copies), _)) if copies >= self.wait as i64 => Ok(verdict),
            Some((Item::Integer(copies), _)) => {
                Ok(Verdict::Failed(format!("WAIT: {copies} replicas")))
            }
            Some((Item::Error(text), _)) => Ok(Verdict::Failed(error_name(text))),
            _ => Err(BadReply("a reply of another type")),
        }
    }
}

/// The first complete reply; arrays hold no arrays in the replies that we ask for.
#[inline]
fn next(input: &[u8]) -> Result<Option<Reply<'_>>, BadReply> {
    let Some((first, mut used)) = item(input)? else { return Ok(None) };
    if let Item::Array(Some(count)) = first {
        for _ in 0..count {
            match item(&input[used..])? {
                None => return Ok(None),
                Some((Item::Array(_), _)) => return Err(BadReply("an array in an array")),
                Some((_, length)) => used += length,
            }
        }
    }
    Ok(Some(Reply { token: None, error: None, body: &input[..used], len: used }))
}

/// What the first item of a reply says about its operation.
#[inline]
fn judge(op: &Op, body: &[u8], check: &Checker<'_>) -> Result<Verdict, BadReply> {
    let Some((first, mut used)) = item(body)? else { return Err(BadReply("an empty reply")) };
    let mut tally = Tally::default();
    match (op.kind, first) {
        (_, Item::Error(text)) => return Ok(Verdict::Failed(error_name(text))),
        (Kind::Set | Kind::MultiSet, Item::Simple(b"OK")) => tally.found = u64::from(op.count),
        (Kind::Get, Item::Bulk(value)) => check.value(op.record, value, &mut tally),
        (Kind::MultiGet, Item::Array(Some(count))) if count == op.count as usize => {
            for record in op.record..op.record + count as u64 {
                let Some((Item::Bulk(value), length)) = item(&body[used..])? else {
                    return Err(BadReply("an element of another type"));
                };
                used += length;
                check.value(record, value, &mut tally);
            }
        }
        _ => return Err(BadReply("a reply of another type")),
    }
    Ok(Verdict::Done(tally))
}

fn error_name(text: &[u8]) -> String {
    String::from_utf8_lossy(&text[..text.len().min(MAX_ERROR_NAME)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::tests::records_of;
    use dsn_core::rng::Rng;

    fn op(kind: Kind, record: u64, count: u32) -> Op {
        Op { kind, record, count }
    }

    #[test]
    fn commands_are_arrays_of_strings() {
        let records = records_of("--key-size 6 --keys 100 --value-size 5");
        let value = String::from_utf8(records.value(42).to_vec()).unwrap();
        let mut out = BytesMut::new();
        let mut resp = Resp::default();
        resp.encode(&records, &op(Kind::Set, 42, 1), &mut out);
        assert_eq!(out, format!("*3\r\n$3\r\nSET\r\n$6\r\nk00042\r\n$5\r\n{value}\r\n"));
        out.clear();
        resp.encode(&records, &op(Kind::Get, 7, 1), &mut out);
        assert_eq!(out, "*2\r\n$3\r\nGET\r\n$6\r\nk00007\r\n");
        let records = records_of("-o multi_get --batch 2 --key-size 12 --keys 100");
        out.clear();
        resp.encode(&records, &op(Kind::MultiGet, 8, 2), &mut out);
        let keys = "$12\r\nk004s0000000\r\n$12\r\nk004s0000001\r\n";
        assert_eq!(out, format!("*3\r\n$4\r\nMGET\r\n{keys}"));
    }

    #[test]
    fn a_write_that_waits_for_replicas_is_two_commands_with_two_replies() {
        let records = records_of("--key-size 6 --keys 100 --value-size 1");
        let (mut waiting, mut plain) = (Resp::new(2), Resp::default());
        let (mut out, mut alone) = (BytesMut::new(), BytesMut::new());
        let (set, get) = (op(Kind::Set, 42, 1), op(Kind::Get, 7, 1));
        waiting.encode(&records, &set, &mut out);
        plain.encode(&records, &set, &mut alone);
        assert_eq!(
            out.strip_prefix(&alone[..]),
            Some(&b"*3\r\n$4\r\nWAIT\r\n$1\r\n2\r\n$1\r\n0\r\n"[..])
        );
        out.clear();
        waiting.encode(&records, &get, &mut out);
        assert_eq!(out, "*2\r\n$3\r\nGET\r\n$6\r\nk00007\r\n");

        let check = Checker { records: &records, content: false };
        for cut in 0..9 {
            assert_eq!(waiting.next(&b"+OK\r\n:2\r\n"[..cut]), Ok(None), "cut at {cut}");
        }
        let judged = |reply: &[u8]| {
            let found = waiting.next(reply).unwrap().expect("complete");
            assert_eq!(found.len, reply.len());
            waiting.judge(&set, found.body, &check).unwrap()
        };
        assert_eq!(
            judged(b"+OK\r\n:2\r\n"),
            Verdict::Done(Tally { found: 1, missing: 0, wrong: 0 })
        );
        assert_eq!(judged(b"+OK\r\n:1\r\n"), Verdict::Failed("WAIT: 1 replicas".into()));
        assert_eq!(judged(b"-OOM x\r\n:2\r\n"), Verdict::Failed("OOM x".into()));
        assert_eq!(judged(b"+OK\r\n-ERR no\r\n"), Verdict::Failed("ERR no".into()));
        let value = waiting.next(b"$1\r\nv\r\n+OK\r\n").unwrap().expect("complete");
        assert_eq!(value.len, 7, "a read is one");
    }

    #[test]
    fn numbers_in_heads() {
        for number in [0, 9, 10, 12345, usize::MAX] {
            let mut out = BytesMut::new();
            head(b'$', number, &mut out);
            assert_eq!(out, format!("${number}\r\n"));
        }
    }

    #[test]
    fn replies_are_complete_or_awaited_at_every_cut() {
        let stream =
            b"+OK\r\n$5\r\nab\r\nc\r\n$-1\r\n*3\r\n$1\r\nx\r\n$-1\r\n$0\r\n\r\n-ERR no\r\n:-12\r\n";
        let ends = [5, 16, 21, 43, 52, 58];
        for cut in 0..=stream.len() {
            let (mut at, mut replies) = (0, Vec::new());
            while let Some(reply) = next(&stream[at..cut]).unwrap() {
                at += reply.len;
                replies.push(at);
            }
            let whole: Vec<usize> = ends.iter().copied().filter(|&end| end <= cut).collect();
            assert_eq!(replies, whole, "cut at {cut}");
        }
    }

    #[test]
    fn broken_replies_are_errors() {
        let long = vec![b'+'; MAX_LINE + 1];
        for bad in [
            &b"hello\r\n"[..],
            b"$x\r\n",
            b"$-2\r\n",
            b"$99999999999\r\n",
            b"$9999999999999999999999\r\n",
            b"$1\r\nabc\r\n",
            b"+OK\n",
            b"*2\r\n*0\r\n",
            &long,
        ] {
            assert!(next(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn random_bytes_never_panic() {
        let seed = 99;
        println!("seed {seed}");
        let mut rng = Rng::new(seed);
        let alphabet = b"+-:$*\r\n0123456789OKx";
        for _ in 0..100_000 {
            let input: Vec<u8> =
                (0..rng.below(40)).map(|_| alphabet[rng.index(alphabet.len())]).collect();
            if let Ok(Some(reply)) = next(&input) {
                assert!(reply.len <= input.len());
            }
        }
    }

    #[test]
    fn verdicts() {
        let records = records_of("--value-size 3 --keys 10 --sort-keys 2 --key-size 12");
        let check = Checker { records: &records, content: true };
        let value = String::from_utf8(records.value(4).to_vec()).unwrap();
        let done = |found, missing, wrong| Ok(Verdict::Done(Tally { found, missing, wrong }));
        let get = op(Kind::Get, 4, 1);
        assert_eq!(judge(&get, format!("$3\r\n{value}\r\n").as_bytes(), &check), done(1, 0, 0));
        assert_eq!(judge(&get, b"$3\r\n???\r\n", &check), done(1, 0, 1));
        assert_eq!(judge(&get, b"$-1\r\n", &check), done(0, 1, 0));
        assert!(judge(&get, b"+OK\r\n", &check).is_err());
        assert_eq!(judge(&op(Kind::Set, 4, 1), b"+OK\r\n", &check), done(1, 0, 0));
        let failed = judge(&op(Kind::Set, 4, 1), b"-LOADING wait\r\n", &check);
        assert_eq!(failed, Ok(Verdict::Failed("LOADING wait".into())));
        let two = format!("*2\r\n$3\r\n{value}\r\n$-1\r\n");
        assert_eq!(judge(&op(Kind::MultiGet, 4, 2), two.as_bytes(), &check), done(1, 1, 0));
        assert!(judge(&op(Kind::MultiGet, 4, 3), two.as_bytes(), &check).is_err());
    }
}
