//! The file of the in-memory engine: one complete image of its content at one decree.
//!
//! Layout, integers big endian: magic (8 bytes), CRC-32C of all that follows (`u32`), decree (`i64`),
//! number of meta entries (`u32`) and each as two strings, number of records
//! (`u64`) and each as two strings; a string is `u32` length and bytes. The file is replaced as a whole, so
//! a reader finds the old one or the new one; what fails its CRC was damaged later and is reported.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use dsn_core::disk::{Disk, read_file, write_file_durable};
use pegasus_client::schema::value::DataVersion;

use super::Table;
use crate::engine::{EngineError, meta};

const MAGIC: &[u8; 8] = b"PGSMEM\x00\x02";
/// Name of the image in the engine's directory.
const FILE_NAME: &str = "IMAGE";
const CRC_BYTES: usize = 4;

/// Everything the engine holds, at one decree.
pub struct Image {
    /// Decree of the content.
    pub decree: i64,
    /// The meta family, without the decree.
    pub meta: BTreeMap<String, String>,
    /// The data family.
    pub table: Arc<Table>,
}

impl Image {
    /// The image of a new engine.
    pub fn empty(data_version: DataVersion) -> Self {
        let meta = BTreeMap::from([
            (meta::DATA_VERSION.to_owned(), data_version.number().to_string()),
            (meta::LAST_MANUAL_COMPACT_FINISH_TIME.to_owned(), "0".to_owned()),
        ]);
        Self { decree: 0, meta, table: Arc::default() }
    }

    /// Replaces the image in `dir`, durably.
    pub fn store(&self, disk: &dyn Disk, dir: &Path) -> Result<(), EngineError> {
        let path = dir.join(FILE_NAME);
        write_file_durable(disk, &path, self.encode())
            .map_err(|error| EngineError::io("writing", &path, &error))
    }

    /// Reads the image in `dir`.
    pub fn load(disk: &dyn Disk, dir: &Path) -> Result<Self, EngineError> {
        let path = dir.join(FILE_NAME);
        if !disk.exists(&path) {
            return Err(EngineError::Corruption(format!("{}: no image", path.display())));
        }
        let content =
            read_file(disk, &path).map_err(|error| EngineError::io("reading", &path, &error))?;
        Self::decode(content)
            .ok_or_else(|| EngineError::Corruption(format!("{}: damaged image", path.display())))
    }

    fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_slice(MAGIC);
        out.put_u32(0);
        let body = out.len();
        out.put_i64(self.decree);
        out.put_u32(self.meta.len() as u32);
        for (key, value) in &self.meta {
            put_string(&mut out, key.as_bytes());
            put_string(&mut out, value.as_bytes());
        }
        out.put_u64(self.table.len() as u64);
        for (key, value) in &*self.table {
            put_string(&mut out, key);
            put_string(&mut out, value);
        }
        let crc = crc32c::crc32c(&out[body..]);
        out[body - CRC_BYTES..body].copy_from_slice(&crc.to_be_bytes());
        out.freeze()
    }

    fn decode(mut content: Bytes) -> Option<Self> {
        if content.get(..MAGIC.len())? != MAGIC {
            return None;
        }
        content.advance(MAGIC.len());
        let crc = content.try_get_u32().ok()?;
        if crc32c::crc32c(&content) != crc {
            return None;
        }
        let decree = content.try_get_i64().ok()?;
        let mut meta = BTreeMap::new();
        for _ in 0..content.try_get_u32().ok()? {
            let key = String::from_utf8(take_string(&mut content)?.into()).ok()?;
            let value = String::from_utf8(take_string(&mut content)?.into()).ok()?;
            meta.insert(key, value);
        }
        let mut table = Table::new();
        for _ in 0..content.try_get_u64().ok()? {
            let key = take_string(&mut content)?;
            table.insert(key, take_string(&mut content)?);
        }
        content.is_empty().then(|| Self { decree, meta, table: Arc::new(table) })
    }
}

fn put_string(out: &mut BytesMut, string: &[u8]) {
    out.put_u32(string.len() as u32);
    out.put_slice(string);
}

fn take_string(content: &mut Bytes) -> Option<Bytes> {
    let len = content.try_get_u32().ok()? as usize;
    (len <= content.len()).then(|| content.split_to(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Image {
        let table = (0..50u8).map(|n| (vec![n].into(), vec![n; n.into()].into())).collect();
        Image {
            decree: 77,
            meta: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
            table: Arc::new(table),
        }
    }

    #[test]
    fn an_image_comes_back_as_it_was() {
        let (image, back) = (sample(), Image::decode(sample().encode()));
        let back = back.expect("a whole image decodes");
        assert_eq!(back.decree, 77);
        assert_eq!(back.meta, image.meta);
        assert_eq!(back.table, image.table);
    }

    #[test]
    fn any_flipped_bit_and_any_cut_is_noticed() {
        let whole = sample().encode();
        for at in 0..whole.len() {
            let mut broken = whole.to_vec();
            broken[at] ^= 1 << (at % 8);
            assert!(Image::decode(broken.into()).is_none(), "bit flip in byte {at}");
            assert!(Image::decode(whole.slice(..at)).is_none(), "cut at {at}");
        }
    }

    #[test]
    fn what_a_fitting_checksum_lets_pass_is_read_or_refused() {
        let seed = 0x696d_6167;
        println!("seed {seed:#x}");
        let mut rng = dsn_core::rng::Rng::new(seed);
        let whole = sample().encode();
        let body = MAGIC.len() + CRC_BYTES;
        let mut read = 0;
        for round in 0..100_000 {
            let mut bytes = whole[..body + rng.index(whole.len() - body + 1)].to_vec();
            for _ in 0..1 + rng.below(4) {
                let at = body + rng.index((bytes.len() - body).max(1));
                match bytes.get_mut(at) {
                    Some(byte) if rng.chance(0.5) => *byte ^= 1 << rng.below(8),
                    Some(byte) => *byte = [0, 0x7f, 0x80, 0xff][rng.index(4)],
                    None => bytes.push(0),
                }
            }
            let crc = crc32c::crc32c(&bytes[body..]);
            bytes[body - CRC_BYTES..body].copy_from_slice(&crc.to_be_bytes());
            if let Some(image) = Image::decode(bytes.into()) {
                assert!(image.table.len() <= 50, "round {round}");
                read += 1;
            }
        }
        assert!(read > 10, "some changes touch values alone: {read}");
    }
}
