//! What servers keep on disk: records and segments of the mutation log, mutations, the meta server's store, the small
//! files of a replica. Checksums are made to fit again in half of the inputs, or nothing behind them would be tried.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use dsn_core::disk::{Disk, OpenMode};
use dsn_replication::ids::{Ballot, Decree};
use dsn_replication::log::record::{
    HEADER, Header, Place, RecordKind, Seal, encode_record, parse_header, place_record,
};
use dsn_replication::log::scan::{Item, Scan};
use dsn_replication::log::segment::{self, Head, Span, Spans};
use dsn_replication::log::{Durability, RecordKey};
use dsn_replication::meta::store::log::{Image, any_frame, frame, parse};
use dsn_replication::meta::store::{Change, Expect};
use dsn_replication::mutation::{ClientRequest, CodeTable, Mutation, decode_body, encode_body};
use dsn_replication::state_machine::{Access, StorageCode};
use dsn_replication::stub::layout::{self, InitInfo};
use dsn_replication::testing::mem_disk::MemDisk;
use dsn_replication::wire::app_info_file;
use dsn_rpc::gpid::Gpid;
use pegasus_client::schema::codes;

use crate::mutate::Sample;
use crate::{bounded, fuzz, table};

const SEAL: Seal = Seal { tag: 0x1234_5678, nonce: 0x9abc_def0 };
const POSITION: u64 = 10_000;

fn known_codes() -> CodeTable {
    let access = Access::Write { batchable: true, idempotent: true };
    let known = codes::CODES.iter().map(|&code| StorageCode { code, access });
    CodeTable::new(&known.collect::<Vec<_>>())
}

fn mutation(requests: usize) -> Mutation {
    let request = |n: usize| ClientRequest {
        code: codes::CODES[n % 3],
        body: Bytes::from(vec![n as u8; 3 * n]),
    };
    Mutation {
        gpid: Gpid::new(2, 3),
        ballot: Ballot(4),
        decree: Decree(17),
        last_committed: Decree(15),
        timestamp_us: 1_700_000_000_000_001,
        stamp: 7,
        requests: (0..requests).map(request).collect(),
    }
}

fn body_of(mutation: &Mutation) -> BytesMut {
    let mut out = BytesMut::new();
    encode_body(mutation, &mut out);
    out
}

#[test]
fn mutations() {
    let samples = [0, 1, 5].map(|requests| Sample::new(&body_of(&mutation(requests))));
    let known = known_codes();
    fuzz("mutation", &samples, |input, _| {
        let decode = || decode_body(Gpid::new(2, 3), Ballot(4), Decree(17), input, &known);
        let Ok(mutation) = bounded(input, decode) else { return false };
        let again = body_of(&mutation).freeze();
        let back = decode_body(mutation.gpid, mutation.ballot, mutation.decree, &again, &known);
        assert_eq!(back, Ok(mutation));
        true
    });
}

fn key(kind: RecordKind) -> RecordKey {
    RecordKey { gpid: Gpid::new(2, 7), ballot: Ballot(3), decree: Decree(99), kind }
}

/// A record with its place at `position` of the log.
fn record(kind: RecordKind, position: u64, payload: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    encode_record(&mut out, &key(kind), |out| out.extend_from_slice(payload));
    seal(&mut out, position);
    out
}

fn seal(header: &mut [u8], position: u64) {
    let place = Place { position, synced: position / 2, durability: Durability::Os, before: None };
    place_record(&mut header[..HEADER], SEAL, &place);
}

/// Makes the checksum of a payload fit what is there, where the header's length leads to an end.
fn settle(record: &mut [u8]) {
    let len = u32::from_le_bytes([record[4], record[5], record[6], record[7]]) as usize;
    if let Some(payload) = record.get(HEADER..).and_then(|rest| rest.get(..len)) {
        let crc = crc32c::crc32c(payload);
        record[68..72].copy_from_slice(&crc.to_le_bytes());
    }
}

#[test]
fn record_headers() {
    let samples = [&b"payload"[..], b""]
        .map(|payload| Sample::new(&record(RecordKind::Mutation, POSITION, payload)));
    fuzz("record header", &samples, |input, rng| {
        let mut bytes = input.to_vec();
        if bytes.len() >= HEADER && rng.below(2) == 0 {
            seal(&mut bytes, POSITION);
        }
        let Some(header) = bounded(input, || parse_header(&bytes, SEAL, POSITION)) else {
            return false;
        };
        let payload = bytes.get(HEADER..HEADER + header.len);
        let _ = bounded(input, || payload.is_some_and(|payload| header.matches(payload)));
        true
    });
}

#[test]
fn segment_heads_and_footers() {
    let head = Head { index: 3, base: 512, created_us: 7, seal: SEAL };
    fuzz("segment head", &[Sample::new(&head.encode())], |input, _| {
        bounded(input, || Head::decode(input)).is_some()
    });
    let mut trailer = BytesMut::new();
    segment::encode_trailer(800, SEAL, &mut trailer);
    fuzz("segment trailer", &[Sample::new(&trailer)], |input, _| {
        bounded(input, || segment::decode_trailer(input, SEAL)).is_some()
    });
    let mut spans = Spans::default();
    let samples = [0, 1, 2].map(|n| {
        let span = Span {
            min: Decree(n),
            max: Decree(9),
            void_from: Decree(4),
            ballot: Ballot(1),
            first: 0,
            last: 5,
            records: 2,
        };
        let mut out = BytesMut::new();
        segment::encode_spans(&spans, &mut out);
        spans.insert(Gpid::new(1, n as i32), span);
        Sample::new(&out)
    });
    fuzz("segment footer", &samples, |input, _| {
        bounded(input, || segment::decode_spans(input)).is_some()
    });
    let names = [&b"log.1"[..], b"log.18446744073709551615"].map(Sample::new);
    fuzz("segment file name", &names, |input, _| {
        let name = String::from_utf8_lossy(input);
        let index = segment::parse_file_name(&name);
        assert!(index.is_none_or(|index| segment::file_name(index) == name));
        index.is_some()
    });
}

/// A whole segment of three records, and where each begins.
fn whole_segment(head: &Head) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = head.encode().to_vec();
    let mut starts = Vec::new();
    for n in 0..3 {
        starts.push(bytes.len());
        let position = head.base + bytes.len() as u64;
        bytes.extend(record(RecordKind::Mutation, position, &body_of(&mutation(n))));
    }
    (bytes, starts)
}

#[test]
fn whole_segments() {
    let head = Head { index: 1, base: 4096, created_us: 7, seal: SEAL };
    let (whole, starts) = whole_segment(&head);
    let disk = MemDisk::new().shared();
    disk.create_dir_all(Path::new("/log")).unwrap();
    let known = known_codes();
    fuzz("segment", &[Sample::new(&whole)], |input, rng| {
        let mut bytes = input.to_vec();
        if rng.below(2) == 0 {
            for &start in &starts {
                if bytes.len() >= start + HEADER {
                    settle(&mut bytes[start..]);
                    seal(&mut bytes[start..], head.base + start as u64);
                }
            }
        }
        scan(&disk, &head, Bytes::from(bytes), &known) == starts.len()
    });
}

/// Reads a segment through; the number of good records.
fn scan(disk: &Arc<dyn Disk>, head: &Head, bytes: Bytes, known: &CodeTable) -> usize {
    let path = Path::new("/log/log.1");
    let end = bytes.len() as u64;
    let file = disk.open(path, OpenMode::ReadWrite).unwrap();
    file.truncate(0).unwrap();
    file.write_at(0, &[bytes]).unwrap();
    let mut scan = Scan::new(file, head, end);
    let (mut good, mut seen, mut last) = (0, BTreeSet::new(), 0);
    while let Some(item) = scan.advance().unwrap() {
        assert!(scan.offset() > last, "reading goes on");
        last = scan.offset();
        if let Item::Record(Header { len, position, .. }, record) = item {
            assert_eq!((record.payload.len(), record.position), (len, position));
            assert!(seen.insert(position), "no record twice");
            let payload = &record.payload;
            let _ = bounded(payload, || {
                decode_body(record.key.gpid, record.key.ballot, record.key.decree, payload, known)
            });
            good += 1;
        }
    }
    good
}

/// Bodies of the meta server's store: changes of three commits.
fn store_bodies() -> Vec<Bytes> {
    let mut image = Image::default();
    let change = |key: &str, expect, value: Option<&'static [u8]>| Change {
        key: key.to_owned(),
        expect,
        value: value.map(Bytes::from_static),
    };
    let commits = [
        vec![change("/apps", Expect::Absent, Some(b"1")), change("/a", Expect::Absent, Some(b""))],
        vec![change("/apps", Expect::At(0), Some(b"22"))],
        vec![change("/a", Expect::At(0), None)],
    ];
    let mut bodies = Vec::new();
    for commit in commits {
        let mut body = BytesMut::new();
        for change in &commit {
            image.apply(change, &mut body).unwrap();
        }
        bodies.push(body.freeze());
    }
    bodies.push(image.body().freeze());
    bodies
}

#[test]
fn meta_store() {
    let bodies = store_bodies();
    let samples: Vec<Sample> = [0, 3].iter().map(|&at| Sample::new(&bodies[at])).collect();
    fuzz("meta store body", &samples, |input, _| {
        let mut image = Image::default();
        if bounded(input, || image.replay(input.clone())).is_none() {
            return false;
        }
        let mut again = Image::default();
        assert_eq!(again.replay(image.body().freeze()), Some(()));
        assert_eq!(again, image);
        true
    });
    let framed: Vec<Sample> =
        bodies.iter().zip(1..).map(|(body, n)| Sample::new(&frame(n, body))).collect();
    fuzz("meta store frame", &framed, |input, _| {
        let _ = bounded(input, || any_frame(input, 2));
        let Some((number, body, taken)) = bounded(input, || parse(input)) else { return false };
        assert_eq!(frame(number, &body), input.slice(..taken));
        true
    });
}

#[test]
fn small_files_of_a_replica() {
    let content = app_info_file::encode(&table()).unwrap();
    fuzz(".app-info", &[Sample::new(&content)], |input, _| {
        let Ok(info) = bounded(input, || app_info_file::decode(input)) else { return false };
        assert!(app_info_file::encode(&info).is_ok());
        true
    });
    let init = serde_json::to_vec(&InitInfo::new(1, 2, 3)).unwrap();
    fuzz(".init-info", &[Sample::new(&init)], |input, _| {
        bounded(input, || InitInfo::decode(input)).is_ok()
    });
    fuzz("replica directory", &[Sample::new(b"12.7.pegasus")], |input, _| {
        let name = String::from_utf8_lossy(input);
        let gpid = layout::parse_name(&name, "pegasus");
        assert!(gpid.is_none_or(|gpid| gpid.app_id > 0 && gpid.partition_index >= 0));
        gpid.is_some()
    });
}
