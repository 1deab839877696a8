//! Thrift's JSON protocol, for the few files on disk that use it (`.app-info`).
//!
//! Both forms of thrift describe themselves, so this is a converter between binary and JSON and
//! needs no help from the message types. A structure is `{"<id>":{"<type>":<value>}, ...}`, a list
//! `["<type>",<count>,<elements>...]`, a map `["<key type>","<value
//! type>",<count>,{<key>:<value>,...}]`, a bool 0 or 1. Not covered: doubles, and the types with
//! raw content (addresses, gpid, codes, blobs), whose JSON form differs from their binary form.

use std::fmt;

use bytes::Bytes;
use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};

use super::{ALLOWANCE, Decode, Encode, MAX_DEPTH, Reader, WireError, ttype};

/// Longest JSON text in bytes that [`decode_json`] accepts.
pub const MAX_JSON_BYTES: usize = 16 * 1024;

/// Room in bytes that the binary form may take beyond the length of its JSON text.
const GROWTH: usize = ALLOWANCE / 2;

/// Why a conversion failed.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The binary side is broken, or does not fit the message type.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The text is not JSON, or not thrift's kind of it.
    #[error("not thrift JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The text is longer than [`MAX_JSON_BYTES`].
    #[error("JSON text of {0} bytes, at most {MAX_JSON_BYTES} are accepted")]
    TooLong(usize),
    /// A type that the converter does not cover.
    #[error("type byte {0:#04x} has no JSON form here")]
    Unsupported(u8),
}

/// The JSON text of a message.
///
/// # Errors
/// [`JsonError::Unsupported`]; [`JsonError::Wire`] for messages that hold types with raw content.
pub fn encode_json<T: Encode>(message: &T) -> Result<String, JsonError> {
    let mut binary = bytes::BytesMut::new();
    super::encode(message, &mut binary);
    let binary = binary.freeze();
    let mut r = Reader::new(&binary);
    let mut out = String::new();
    write_value(&mut r, T::TTYPE, &mut out)?;
    r.finish()?;
    Ok(out)
}

/// Reads a message from its JSON text.
///
/// # Errors
/// Any [`JsonError`].
pub fn decode_json<T: Decode>(text: &[u8]) -> Result<T, JsonError> {
    if text.len() > MAX_JSON_BYTES {
        return Err(JsonError::TooLong(text.len()));
    }
    let mut out = Sink { binary: Vec::with_capacity(text.len()), limit: text.len() + GROWTH };
    let mut json = serde_json::Deserializer::from_slice(text);
    StructSeed { out: &mut out, depth: MAX_DEPTH }.deserialize(&mut json)?;
    json.end()?;
    Ok(super::decode(&Bytes::from(out.binary))?)
}

const fn type_name(t: u8) -> Option<&'static str> {
    Some(match t {
        ttype::BOOL => "tf",
        ttype::BYTE => "i8",
        ttype::I16 => "i16",
        ttype::I32 => "i32",
        ttype::I64 => "i64",
        ttype::STRING => "str",
        ttype::STRUCT => "rec",
        ttype::MAP => "map",
        ttype::SET => "set",
        ttype::LIST => "lst",
        _ => return None,
    })
}

fn type_byte(name: &str) -> Option<u8> {
    (0..=ttype::LIST).find(|&t| type_name(t) == Some(name))
}

// --- binary to JSON
// ------------------------------------------------------------------------------------------------

fn push_type(t: u8, out: &mut String) -> Result<(), JsonError> {
    out.push('"');
    out.push_str(type_name(t).ok_or(JsonError::Unsupported(t))?);
    out.push('"');
    Ok(())
}

fn write_value(r: &mut Reader<'_>, t: u8, out: &mut String) -> Result<(), JsonError> {
    match t {
        ttype::BOOL => out.push_str(if r.array()? == [0u8] { "0" } else { "1" }),
        ttype::BYTE => push_number(i8::from_be_bytes(r.array()?).into(), out),
        ttype::I16 => push_number(r.i16()?.into(), out),
        ttype::I32 => push_number(r.i32()?.into(), out),
        ttype::I64 => push_number(r.i64()?, out),
        ttype::STRING => out.push_str(&serde_json::to_string(r.str()?)?),
        ttype::STRUCT => write_struct(r, out)?,
        ttype::LIST | ttype::SET => write_list(r, out)?,
        ttype::MAP => write_map(r, out)?,
        other => return Err(JsonError::Unsupported(other)),
    }
    Ok(())
}

fn push_number(number: i64, out: &mut String) {
    out.push_str(&number.to_string());
}

fn write_struct(r: &mut Reader<'_>, out: &mut String) -> Result<(), JsonError> {
    r.enter()?;
    let mut opening = '{';
    while let Some((t, id)) = r.field()? {
        out.push(opening);
        out.push('"');
        push_number(id.into(), out);
        out.push_str("\":{");
        push_type(t, out)?;
        out.push(':');
        write_value(r, t, out)?;
        out.push('}');
        opening = ',';
    }
    if opening == '{' {
        out.push('{');
    }
    out.push('}');
    r.leave();
    Ok(())
}

fn write_list(r: &mut Reader<'_>, out: &mut String) -> Result<(), JsonError> {
    let element = r.rest().first().copied().unwrap_or_default();
    let count = r.list_head(element, 1)?;
    r.enter()?;
    out.push('[');
    push_type(element, out)?;
    out.push(',');
    push_number(count as i64, out);
    for _ in 0..count {
        out.push(',');
        write_value(r, element, out)?;
    }
    out.push(']');
    r.leave();
    Ok(())
}

fn write_map(r: &mut Reader<'_>, out: &mut String) -> Result<(), JsonError> {
    let (key, value) = match *r.rest() {
        [key, value, ..] => (key, value),
        _ => (ttype::STOP, ttype::STOP),
    };
    let count = r.map_head(key, value, 2)?;
    r.enter()?;
    out.push('[');
    push_type(key, out)?;
    out.push(',');
    push_type(value, out)?;
    out.push(',');
    push_number(count as i64, out);
    out.push_str(",{");
    for i in 0..count {
        if i > 0 {
            out.push(',');
        }
        write_key(r, key, out)?;
        out.push(':');
        write_value(r, value, out)?;
    }
    out.push_str("}]");
    r.leave();
    Ok(())
}

/// Keys are always JSON strings, also those that are numbers.
fn write_key(r: &mut Reader<'_>, t: u8, out: &mut String) -> Result<(), JsonError> {
    match t {
        ttype::STRING => write_value(r, t, out),
        ttype::BYTE | ttype::I16 | ttype::I32 | ttype::I64 => {
            out.push('"');
            write_value(r, t, out)?;
            out.push('"');
            Ok(())
        }
        other => Err(JsonError::Unsupported(other)),
    }
}

// --- JSON to binary
// ------------------------------------------------------------------------------------------------

/// The growing binary form; refuses to grow beyond its limit.
struct Sink {
    binary: Vec<u8>,
    limit: usize,
}

impl Sink {
    fn put<E: de::Error>(&mut self, bytes: &[u8]) -> Result<(), E> {
        let needed = self.binary.len() + bytes.len();
        if needed > self.limit {
            return Err(E::custom("the binary form is too large"));
        }
        if needed > self.binary.capacity() {
            self.binary.reserve_exact(self.limit - self.binary.len());
        }
        self.binary.extend_from_slice(bytes);
        Ok(())
    }

    fn put_number<E: de::Error>(&mut self, t: u8, number: i64) -> Result<(), E> {
        let size = match t {
            ttype::BOOL | ttype::BYTE => 1,
            ttype::I16 => 2,
            ttype::I32 => 4,
            ttype::I64 => 8,
            _ => return Err(E::custom("a number where another type is announced")),
        };
        let spare = 64 - 8 * size as u32;
        if (number << spare) >> spare != number {
            return Err(E::custom(format_args!("{number} does not fit into {size} bytes")));
        }
        self.put(&number.to_be_bytes()[8 - size..])
    }

    fn put_text<E: de::Error>(&mut self, text: &str) -> Result<(), E> {
        self.put(&(text.len() as i32).to_be_bytes())?;
        self.put(text.as_bytes())
    }
}

fn deeper<E: de::Error>(depth: u32) -> Result<u32, E> {
    depth.checked_sub(1).ok_or_else(|| E::custom("nested too deep"))
}

/// `{"<id>":{...}, ...}`
struct StructSeed<'a> {
    out: &'a mut Sink,
    depth: u32,
}

impl<'de> DeserializeSeed<'de> for StructSeed<'_> {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for StructSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of fields")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let depth = deeper(self.depth)?;
        while let Some(id) = map.next_key_seed(NameSeed(|text: &str| text.parse::<i16>().ok()))? {
            map.next_value_seed(FieldSeed { out: &mut *self.out, id, depth })?;
        }
        self.out.put(&[ttype::STOP])
    }
}

/// `{"<type>":<value>}`
struct FieldSeed<'a> {
    out: &'a mut Sink,
    id: i16,
    depth: u32,
}

impl<'de> DeserializeSeed<'de> for FieldSeed<'_> {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FieldSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of one typed value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some(t) = map.next_key_seed(NameSeed(type_byte))? else {
            return Err(de::Error::custom("a field without value"));
        };
        let [a, b] = self.id.to_be_bytes();
        self.out.put(&[t, a, b])?;
        map.next_value_seed(ValueSeed { out: self.out, t, depth: self.depth })?;
        match map.next_key::<de::IgnoredAny>()? {
            None => Ok(()),
            Some(_) => Err(de::Error::custom("a field with two values")),
        }
    }
}

/// A string that a function turns into something.
struct NameSeed<F>(F);

impl<'de, T, F: Fn(&str) -> Option<T>> DeserializeSeed<'de> for NameSeed<F> {
    type Value = T;

    fn deserialize<D: de::Deserializer<'de>>(self, d: D) -> Result<T, D::Error> {
        d.deserialize_str(self)
    }
}

impl<T, F: Fn(&str) -> Option<T>> Visitor<'_> for NameSeed<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field id or a type name")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

/// A value of a known type.
struct ValueSeed<'a> {
    out: &'a mut Sink,
    t: u8,
    depth: u32,
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        match self.t {
            ttype::STRUCT => StructSeed { out: self.out, depth: self.depth }.deserialize(d),
            ttype::STRING => d.deserialize_str(self),
            ttype::LIST | ttype::SET | ttype::MAP => d.deserialize_seq(self),
            _ => d.deserialize_i64(self),
        }
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value of type {}", type_name(self.t).unwrap_or("unknown"))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<(), E> {
        self.out.put_number(self.t, number)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<(), E> {
        let number = i64::try_from(number).map_err(E::custom)?;
        self.out.put_number(self.t, number)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        self.out.put_text(text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let depth = deeper(self.depth)?;
        let short = || de::Error::custom("a container without its header");
        let first = seq.next_element_seed(NameSeed(type_byte))?.ok_or_else(short)?;
        if self.t == ttype::MAP {
            let second = seq.next_element_seed(NameSeed(type_byte))?.ok_or_else(short)?;
            let count: u32 = seq.next_element()?.ok_or_else(short)?;
            self.out.put(&[first, second])?;
            self.out.put(&(count as i32).to_be_bytes())?;
            let pairs = PairsSeed { out: self.out, key: first, value: second, count, depth };
            return seq.next_element_seed(pairs)?.ok_or_else(short);
        }
        let count: u32 = seq.next_element()?.ok_or_else(short)?;
        self.out.put(&[first])?;
        self.out.put(&(count as i32).to_be_bytes())?;
        for _ in 0..count {
            let element = ValueSeed { out: &mut *self.out, t: first, depth };
            seq.next_element_seed(element)?.ok_or_else(short)?;
        }
        Ok(())
    }
}

/// `{<key>:<value>, ...}`
struct PairsSeed<'a> {
    out: &'a mut Sink,
    key: u8,
    value: u8,
    count: u32,
    depth: u32,
}

impl<'de> DeserializeSeed<'de> for PairsSeed<'_> {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for PairsSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of map entries")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = 0u32;
        while map.next_key_seed(KeySeed { out: &mut *self.out, t: self.key })?.is_some() {
            seen += 1;
            map.next_value_seed(ValueSeed {
                out: &mut *self.out,
                t: self.value,
                depth: self.depth,
            })?;
        }
        if seen == self.count {
            Ok(())
        } else {
            Err(de::Error::custom(format_args!("{seen} map entries, {} announced", self.count)))
        }
    }
}

/// A map key: a JSON string whatever its type.
struct KeySeed<'a> {
    out: &'a mut Sink,
    t: u8,
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map key")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        if self.t == ttype::STRING {
            return self.out.put_text(text);
        }
        self.out.put_number(self.t, text.parse().map_err(E::custom)?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    crate::message! {
        /// Everything the converter covers.
        pub struct Everything {
            1: flag: bool,
            2: small: i8,
            3: short: i16,
            4: int: i32,
            5: long: i64,
            6: text: String,
            7: list: Vec<i32>,
            8: map: BTreeMap<String, String>,
            9: numbers: BTreeMap<i32, Vec<i64>>,
            10: inner: Option<Inner>,
        }

        /// A nested message.
        pub struct Inner { 1: text: String }
    }

    fn sample() -> Everything {
        Everything {
            flag: true,
            small: -1,
            short: 2,
            int: -3,
            long: i64::MIN,
            text: "a\"b\\\n\u{1}é".into(),
            list: vec![1, -2],
            map: BTreeMap::from([("k".into(), "v".into())]),
            numbers: BTreeMap::from([(-7, vec![8])]),
            inner: Some(Inner { text: "x".into() }),
        }
    }

    #[test]
    fn the_text_is_thrifts() {
        let text = encode_json(&sample()).unwrap();
        let expected = concat!(
            r#"{"1":{"tf":1},"2":{"i8":-1},"3":{"i16":2},"4":{"i32":-3},"#,
            r#""5":{"i64":-9223372036854775808},"6":{"str":"a\"b\\\n\u0001é"},"#,
            r#""7":{"lst":["i32",2,1,-2]},"8":{"map":["str","str",1,{"k":"v"}]},"#,
            r#""9":{"map":["i32","lst",1,{"-7":["i64",1,8]}]},"10":{"rec":{"1":{"str":"x"}}}}"#,
        );
        assert_eq!(text, expected);
        assert_eq!(decode_json::<Everything>(text.as_bytes()).unwrap(), sample());
    }

    #[test]
    fn order_spaces_and_unknown_fields_do_not_matter() {
        let text = br#" { "99" : {"rec":{}}, "4":{"i32": 5 }, "1":{"tf":0} } "#;
        let expected = Everything { int: 5, ..Everything::default() };
        assert_eq!(decode_json::<Everything>(text).unwrap(), expected);
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "",
            "[]",
            "{",
            "{}x",
            r#"{"x":{"i32":1}}"#,
            r#"{"1":{}}"#,
            r#"{"1":{"i32":1,"i32":2}}"#,
            r#"{"1":{"i31":1}}"#,
            r#"{"4":{"i32":4294967296}}"#,
            r#"{"2":{"i8":128}}"#,
            r#"{"7":{"lst":["i32",3,1]}}"#,
            r#"{"7":{"lst":["i32",1,1,2]}}"#,
            r#"{"8":{"map":["str","str",2,{"a":"b"}]}}"#,
            r#"{"8":{"map":["tf","str",1,{"a":"b"}]}}"#,
        ] {
            assert!(decode_json::<Everything>(bad.as_bytes()).is_err(), "{bad}");
        }
        let bomb = r#"{"1":{"rec":"#.repeat(1000);
        assert!(decode_json::<Everything>(bomb.as_bytes()).is_err());
        let long = vec![b' '; MAX_JSON_BYTES + 1];
        assert!(matches!(decode_json::<Everything>(&long), Err(JsonError::TooLong(_))));
    }
}
