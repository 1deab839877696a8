//! RocksDB's errors as the engine's.

use rocksdb::ErrorKind;

use crate::engine::EngineError;

/// Translates by RocksDB's status kind. `Incomplete` is what it answers when a read limited to memory
/// would touch a file and when a write that must not wait would.
pub fn engine_error(error: rocksdb::Error) -> EngineError {
    match error.kind() {
        ErrorKind::Incomplete => EngineError::WouldBlock,
        ErrorKind::Corruption => EngineError::Corruption(error.into_string()),
        ErrorKind::IOError => EngineError::Io(error.into_string()),
        ErrorKind::InvalidArgument | ErrorKind::NotSupported => {
            EngineError::InvalidArgument(error.into_string())
        }
        ErrorKind::Busy | ErrorKind::ShutdownInProgress => EngineError::Busy(error.into_string()),
        _ => EngineError::Other(error.into_string()),
    }
}
