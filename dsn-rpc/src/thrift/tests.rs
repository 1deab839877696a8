//! What the codec promises, on small messages made for the purpose.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use super::*;

crate::wire_enum! {
    /// A colour.
    pub enum Colour { Red = 0 => "RED", Blue = 2 => "BLUE" }
}

crate::message! {
    /// One field of each kind.
    pub struct Kinds {
        1: yes: bool,
        2: tiny: i8,
        3: short: i16,
        4: int: i32 = -1,
        5: long: i64,
        6: real: f64,
        7: text: String,
        8: shared: Text,
        9: blob: Blob,
        10: colour: Colour,
        11: numbers: Vec<i32>,
        12: set: SetOf<i64>,
        13: map: BTreeMap<String, Blob>,
        14: pairs: List<Pair>,
        15: maybe: Option<i32>,
        16: inner: Option<Pair>,
    }

    /// A nested message.
    pub struct Pair { 1: key: Blob, 2: value: Blob }

    /// No fields at all.
    pub struct Nothing {}

    /// Nests without end.
    pub struct Chain { 1: next: List<Chain> }
}

fn sample() -> Kinds {
    Kinds {
        yes: true,
        tiny: -2,
        short: 300,
        int: 7,
        long: i64::MIN,
        real: 1.5,
        text: "té".into(),
        shared: Text::from_static("x"),
        blob: Blob::from_static(b"\xff\0"),
        colour: Colour::Other(9),
        numbers: vec![1, -1],
        set: SetOf(vec![5]),
        map: BTreeMap::from([("k".into(), Blob::from_static(b"v"))]),
        pairs: List::from(vec![pair(b"a", b"b"), pair(b"", b"c")]),
        maybe: Some(0),
        inner: Some(pair(b"x", b"y")),
    }
}

fn pair(key: &'static [u8], value: &'static [u8]) -> Pair {
    Pair { key: Blob::from_static(key), value: Blob::from_static(value) }
}

fn bytes_of<T: Encode>(value: &T) -> Bytes {
    let mut out = BytesMut::new();
    encode(value, &mut out);
    out.freeze()
}

#[test]
fn every_kind_survives_the_trip() {
    let wire = bytes_of(&sample());
    let back: Kinds = decode(&wire).unwrap();
    assert_eq!(back, sample());
    assert_eq!(bytes_of(&back), wire);
}

#[test]
fn every_truncation_is_an_error() {
    let wire = bytes_of(&sample());
    for end in 0..wire.len() {
        assert!(decode::<Kinds>(&wire.slice(..end)).is_err(), "cut at {end}");
    }
}

#[test]
fn blobs_share_the_frame() {
    let wire = bytes_of(&pair(b"some key", b"some value"));
    let back: Pair = decode(&wire).unwrap();
    assert!(wire.as_ptr_range().contains(&back.value.as_ptr()));
}

#[test]
fn absent_fields_take_their_defaults() {
    let empty: Kinds = decode(&Bytes::from_static(&[0])).unwrap();
    assert_eq!(empty, Kinds::default());
    assert_eq!((empty.int, empty.maybe, empty.colour), (-1, None, Colour::Red));
    assert_eq!(decode::<Nothing>(&Bytes::from_static(&[0])), Ok(Nothing {}));
}

#[test]
fn unknown_and_mistyped_fields_are_skipped() {
    let plain = Kinds { blob: Blob::new(), map: BTreeMap::new(), ..Kinds::default() };
    let mut out = BytesMut::new();
    let mut w = Writer::new(&mut out);
    plain.map.write_as_field(90, &mut w);
    plain.numbers.write_as_field(91, &mut w);
    vec![String::from("a")].write_as_field(92, &mut w);
    BTreeMap::from([(1i32, vec![2i64])]).write_as_field(93, &mut w);
    Nothing {}.write_as_field(94, &mut w);
    1.5f64.write_as_field(95, &mut w);
    1i64.write_as_field(1, &mut w);
    Blob::from_static(b"v").write_as_field(2, &mut w);
    w.stop();
    assert_eq!(decode::<Pair>(&out.freeze()), Ok(pair(b"", b"v")));
}

#[test]
fn wrapped_values_ignore_outer_id_and_type() {
    for head in [[12, 0, 0], [12, 0, 1], [8, 7, 7]] {
        let wire = Bytes::from([&head[..], b"\0\0\0\x01k\0"].concat());
        assert_eq!(decode_wrapped::<Blob>(&wire), Ok(Blob::from_static(b"k")));
    }
    let mut out = BytesMut::new();
    encode_wrapped(&Blob::from_static(b"k"), ARGUMENT_ID, &mut out);
    assert_eq!(out[..], *b"\x0c\0\x01\0\0\0\x01k\0");
}

#[test]
fn wrapped_values_end_where_they_end() {
    let empty = Bytes::from_static(&[0]);
    assert_eq!(decode_wrapped::<Blob>(&empty), Err(WireError::MissingValue));
    let second = Bytes::from_static(b"\x0c\0\x01\0\0\0\0\x08\0\x02\0\0\0\0\0");
    assert!(matches!(decode_wrapped::<Blob>(&second), Err(WireError::Trailing(_))));
    let more = Bytes::from_static(b"\x0c\0\x01\0\0\0\0\0x");
    assert_eq!(decode_wrapped::<Blob>(&more), Err(WireError::Trailing(1)));
}

#[test]
fn lengths_are_bounded_by_what_arrived() {
    let negative = Bytes::from_static(b"\xff\xff\xff\xff");
    assert_eq!(decode::<Blob>(&negative), Err(WireError::NegativeLength(-1)));
    let two_to_the_31 = Bytes::from_static(b"\x80\0\0\0");
    assert_eq!(decode::<String>(&two_to_the_31), Err(WireError::NegativeLength(i32::MIN)));
    let huge = Bytes::from_static(b"\x7f\xff\xff\xffab");
    assert_eq!(decode::<Blob>(&huge), Err(WireError::Truncated { needed: 0x7fff_ffff, left: 2 }));
    let list = Bytes::from_static(b"\x08\x7f\xff\xff\xff\0\0\0\0");
    assert!(matches!(decode::<Vec<i32>>(&list), Err(WireError::Count { left: 4, .. })));
    let list = Bytes::from_static(b"\x0c\x80\0\0\0");
    assert!(matches!(decode::<List<Pair>>(&list), Err(WireError::NegativeLength(_))));
    let map = Bytes::from_static(b"\x0b\x0c\0\0\0\x02\0\0\0\0\0\0\0\0");
    assert!(matches!(decode::<BTreeMap<String, Blob>>(&map), Err(WireError::Count { .. })));
}

#[test]
fn element_types_must_agree_unless_there_are_none() {
    let wrong = Bytes::from_static(b"\x0a\0\0\0\x01\0\0\0\0\0\0\0\0");
    assert_eq!(
        decode::<Vec<i32>>(&wrong),
        Err(WireError::ElementType { expected: ttype::I32, found: ttype::I64 })
    );
    let empty = Bytes::from_static(b"\x03\0\0\0\0");
    assert_eq!(decode::<Vec<i32>>(&empty), Ok(vec![]));
}

#[test]
fn text_must_be_utf8() {
    let wire = Bytes::from_static(b"\0\0\0\x01\xff");
    assert_eq!(decode::<String>(&wire), Err(WireError::Utf8));
    assert_eq!(decode::<Text>(&wire), Err(WireError::Utf8));
}

#[test]
fn nesting_is_bounded() {
    // {1: [{1: [ ...
    let bomb = Bytes::from(b"\x0f\0\x01\x0c\0\0\0\x01".repeat(10_000));
    assert_eq!(decode::<Chain>(&bomb), Err(WireError::Depth));
    let mut unknown = vec![0x0c, 0, 9];
    unknown.extend(b"\x0c\0\x01".repeat(10_000));
    assert_eq!(decode::<Pair>(&Bytes::from(unknown)), Err(WireError::Depth));
    let mut lists = vec![0x0f, 0, 9];
    lists.extend(b"\x0f\0\0\0\x01".repeat(10_000));
    assert_eq!(decode::<Pair>(&Bytes::from(lists)), Err(WireError::Depth));
}

#[test]
fn a_list_of_a_million_empty_structures_stays_small() {
    let mut wire = vec![ttype::STRUCT];
    wire.extend(1_000_000i32.to_be_bytes());
    wire.extend(vec![0u8; 1_000_000]);
    let wire = Bytes::from(wire);
    let list: List<Pair> = decode(&wire).unwrap();
    assert_eq!(list.len(), 1_000_000);
    assert_eq!(list.iter().count(), 1_000_000);
    // The same as a vector would need 64 MB.
    assert_eq!(decode::<Vec<Pair>>(&wire), Err(WireError::Allowance));
}

#[test]
fn maps_and_strings_are_charged() {
    let mut wire = vec![ttype::STRING, ttype::STRING];
    wire.extend(20_000i32.to_be_bytes());
    wire.extend(vec![0u8; 8 * 20_000]);
    let wire = Bytes::from(wire);
    assert_eq!(decode::<BTreeMap<String, String>>(&wire), Err(WireError::Allowance));
    let texts: Vec<String> = (0..1000).map(|i| i.to_string()).collect();
    assert_eq!(decode::<Vec<String>>(&bytes_of(&texts)), Ok(texts));
}

#[test]
fn received_lists_equal_made_ones_and_can_grow() {
    let made = List::from(vec![pair(b"a", b"b"), pair(b"c", b"d")]);
    let mut received: List<Pair> = decode(&bytes_of(&made)).unwrap();
    assert_eq!(received, made);
    assert_eq!(received.first(), Some(pair(b"a", b"b")));
    received.push(pair(b"e", b"f"));
    assert_eq!(received.len(), 3);
    assert_ne!(received, made);
    assert_eq!(received.iter().len(), 3);
}

#[test]
fn counts_of_streamed_lists_are_patched() {
    let mut out = BytesMut::new();
    let mut w = Writer::new(&mut out);
    let mark = w.begin_list(1, ttype::STRUCT);
    pair(b"a", b"b").write(&mut w);
    pair(b"c", b"d").write(&mut w);
    w.end_list(mark, 2);
    w.stop();
    let mut r = Bytes::from(out);
    let expected = List::from(vec![pair(b"a", b"b"), pair(b"c", b"d")]);
    let list: List<Pair> = decode_wrapped(&r.split_to(r.len())).unwrap();
    assert_eq!(list, expected);
}

#[test]
fn optional_host_ports_can_be_left_out() {
    use crate::host_port::HostPort;
    crate::message! {
        /// Both forms of a server.
        pub struct Node {
            1: number: i32,
            2: hp_node: Option<HostPort>,
            3: hp_more: Option<Vec<HostPort>>,
        }
    }
    let host = HostPort::new("a", 1);
    let node = Node { number: 1, hp_node: Some(host.clone()), hp_more: Some(vec![host]) };
    let mut out = BytesMut::new();
    node.write(&mut Writer::new(&mut out));
    assert_eq!(decode::<Node>(&out.freeze()), Ok(node.clone()));
    let mut out = BytesMut::new();
    node.write(&mut Writer::without_host_ports(&mut out));
    assert_eq!(decode::<Node>(&out.freeze()), Ok(Node { number: 1, ..Node::default() }));

    // Also when the list came over the wire with them.
    let list: List<Node> = decode(&bytes_of(&List::from(vec![node]))).unwrap();
    let mut out = BytesMut::new();
    list.write(&mut Writer::without_host_ports(&mut out));
    let list: List<Node> = decode(&out.freeze()).unwrap();
    assert_eq!(list.first(), Some(Node { number: 1, ..Node::default() }));
}

#[test]
fn what_was_stored_may_be_large() {
    let map: BTreeMap<String, i64> = (0..100_000).map(|n| (format!("counter{n}"), n)).collect();
    let mut out = BytesMut::new();
    encode(&map, &mut out);
    let stored = out.freeze();
    assert_eq!(decode::<BTreeMap<String, i64>>(&stored), Err(WireError::Allowance));
    assert_eq!(decode_stored::<BTreeMap<String, i64>>(&stored), Ok(map));
}
