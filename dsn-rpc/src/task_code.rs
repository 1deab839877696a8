//! The name of an RPC where it travels inside a message, for example beside a replicated write.
//!
//! On the wire a string that announces itself as a structure. Names are not checked against any
//! registry here.

use std::fmt;

use crate::thrift::{Decode, Encode, Reader, Text, WireError, Writer, ttype};

/// Name of an RPC or of an internal event, such as `RPC_RRDB_RRDB_PUT`.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskCode(Text);

impl TaskCode {
    /// A name known at compile time.
    #[must_use]
    pub const fn from_static(name: &'static str) -> Self {
        Self(Text::from_static(name))
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.as_str()
    }

    /// The name's bytes.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Display for TaskCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for TaskCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Encode for TaskCode {
    const TTYPE: u8 = ttype::STRUCT;

    #[inline]
    fn write(&self, w: &mut Writer<'_>) {
        self.0.write(w);
    }
}

impl Decode for TaskCode {
    const MIN_SIZE: usize = 4;

    #[inline]
    fn read(r: &mut Reader<'_>) -> Result<Self, WireError> {
        r.text().map(Self)
    }
}
