//! The `.app-info` file of a replica directory: the table that the replica belongs to.
//!
//! Content: `i32be 0xdeadbeef`, then the table as thrift JSON. Of the table's envs only those that
//! the engine needs before it can be opened are kept; the rest comes from the meta server.

use bytes::Bytes;
use dsn_rpc::thrift::json::{self, JsonError};

use super::config::AppInfo;

/// First four bytes of the file.
const MAGIC: [u8; 4] = 0xdead_beefu32.to_be_bytes();

/// The only env that is kept in the file.
pub const KEPT_ENV: &str = "rocksdb.allow_ingest_behind";

/// Why the content of an `.app-info` file cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum AppInfoFileError {
    /// It does not begin with the magic number.
    #[error("not an .app-info file: wrong magic number")]
    Magic,
    /// What follows is not a table.
    #[error(transparent)]
    Json(#[from] JsonError),
}

/// The content of the file for a table.
///
/// # Errors
/// [`AppInfoFileError::Json`], which a table cannot cause in practice.
pub fn encode(info: &AppInfo) -> Result<Bytes, AppInfoFileError> {
    let mut kept = info.clone();
    kept.envs.retain(|name, _| name == KEPT_ENV);
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(json::encode_json(&kept)?.as_bytes());
    Ok(Bytes::from(out))
}

/// The table in the content of a file.
///
/// # Errors
/// Any [`AppInfoFileError`].
pub fn decode(content: &[u8]) -> Result<AppInfo, AppInfoFileError> {
    let text = content.strip_prefix(&MAGIC).ok_or(AppInfoFileError::Magic)?;
    Ok(json::decode_json(text)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::wire::config::AppStatus;

    fn table() -> AppInfo {
        AppInfo {
            status: AppStatus::Available,
            app_type: "pegasus".into(),
            app_name: "temp".into(),
            app_id: 2,
            partition_count: 8,
            envs: BTreeMap::from([(KEPT_ENV.into(), "true".into())]),
            is_stateful: true,
            max_replica_count: 3,
            create_second: 1_700_000_000,
            init_partition_count: 8,
            ..AppInfo::default()
        }
    }

    #[test]
    fn the_content_is_magic_and_json() {
        let content = encode(&table()).unwrap();
        let expected = concat!(
            r#"{"1":{"i32":1},"2":{"str":"pegasus"},"3":{"str":"temp"},"4":{"i32":2},"#,
            r#""5":{"i32":8},"6":{"map":["str","str",1,"#,
            r#"{"rocksdb.allow_ingest_behind":"true"}]},"7":{"tf":1},"8":{"i32":3},"#,
            r#""9":{"i64":0},"10":{"i64":1700000000},"11":{"i64":0},"12":{"tf":0},"#,
            r#""13":{"i32":8},"14":{"tf":0},"15":{"tf":0}}"#,
        );
        assert_eq!(content[..4], [0xde, 0xad, 0xbe, 0xef]);
        assert_eq!(std::str::from_utf8(&content[4..]).unwrap(), expected);
        assert_eq!(decode(&content).unwrap(), table());
    }

    #[test]
    fn other_envs_are_left_out() {
        let mut info = table();
        info.envs.insert("default_ttl".into(), "1".into());
        assert_eq!(decode(&encode(&info).unwrap()).unwrap(), table());
    }

    #[test]
    fn other_files_are_refused() {
        assert!(matches!(decode(b""), Err(AppInfoFileError::Magic)));
        assert!(matches!(decode(b"{}"), Err(AppInfoFileError::Magic)));
        assert!(matches!(decode(b"\xde\xad\xbe\xef{"), Err(AppInfoFileError::Json(_))));
    }
}
