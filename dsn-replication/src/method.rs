//! Methods: what a state machine can be asked, with its types, known to server and client alike.
//!
//! ```
//! use dsn_replication::method::{Read, Write};
//!
//! dsn_core::task_codes! {
//!     CODES;
//!     RPC_COUNTER_ADD: Rpc, Low, "THREAD_POOL_REPLICATION";
//!     RPC_COUNTER_GET: Rpc, Common, "THREAD_POOL_LOCAL_APP";
//! }
//! dsn_rpc::message! {
//!     /// Adds to a counter.
//!     pub struct Add { 1: name: String, 2: by: i64 }
//! }
//! const ADD: Write<Add, i64> = Write::new(&RPC_COUNTER_ADD);
//! const GET: Read<String, i64> = Read::new(&RPC_COUNTER_GET);
//! # assert_eq!((ADD.code().name(), GET.code().name()), ("RPC_COUNTER_ADD", "RPC_COUNTER_GET"));
//! ```
//!
//! The name of the code goes over the wire. Writes have codes of low priority in `THREAD_POOL_REPLICATION`, reads of
//! common priority in `THREAD_POOL_LOCAL_APP`, scans in `THREAD_POOL_SCAN`.

use crate::client::{Kind, Request, Target};
use crate::state_machine::{Access, ReadStage, StorageCode};
use dsn_core::code::Code;
use dsn_rpc::thrift::{Decode, Encode};
use std::fmt;
use std::marker::PhantomData;

/// Marks methods that change the state.
#[derive(Debug)]
pub enum Writes {}
/// Marks methods that look at the state in memory.
#[derive(Debug)]
pub enum Reads {}
/// Marks methods that look at a view of the state.
#[derive(Debug)]
pub enum Scans {}

/// Changes the state: takes `Q`, answers `A`.
pub type Write<Q, A> = Method<Writes, Q, A>;
/// Looks at the state in memory, where the request arrived: must be quick.
pub type Read<Q, A> = Method<Reads, Q, A>;
/// Looks at a view of the state, on a thread where it may take long and touch files.
pub type Scan<Q, A> = Method<Scans, Q, A>;

/// A request with its types: takes `Q`, answers `A`.
pub struct Method<K, Q, A> {
    code: Code,
    access: Access,
    types: PhantomData<fn(K, Q) -> A>,
}

impl<K, Q, A> fmt::Debug for Method<K, Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Method({}, {:?})", self.code, self.access)
    }
}

impl<Q, A> Write<Q, A> {
    /// Carried out twice, it may change the state twice: clients repeat it only when it certainly was not carried out.
    #[must_use]
    pub const fn new(code: Code) -> Self {
        Self::with(code, Access::Write { batchable: true, idempotent: false })
    }

    /// Twice is as good as once, also when others write between the two: clients repeat it when in doubt.
    #[must_use]
    pub const fn idempotent(code: Code) -> Self {
        Self::with(code, Access::Write { batchable: true, idempotent: true })
    }
}

impl<Q, A> Read<Q, A> {
    /// See [`Read`].
    #[must_use]
    pub const fn new(code: Code) -> Self {
        Self::with(code, Access::Read(ReadStage::Inline))
    }
}

impl<Q, A> Scan<Q, A> {
    /// See [`Scan`].
    #[must_use]
    pub const fn new(code: Code) -> Self {
        Self::with(code, Access::Read(ReadStage::Scan))
    }
}

impl<K, Q, A> Method<K, Q, A> {
    const fn with(code: Code, access: Access) -> Self {
        Self { code, access, types: PhantomData }
    }

    /// Its name.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    /// What replication has to know of it.
    #[must_use]
    pub const fn storage(&self) -> StorageCode {
        StorageCode { code: self.code, access: self.access }
    }

    /// How a client may repeat it.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self.access {
            Access::Write { idempotent: false, .. } => Kind::Write,
            Access::Write { idempotent: true, .. } | Access::Read(ReadStage::Inline) => Kind::Read,
            Access::Read(ReadStage::Read | ReadStage::Scan) => Kind::RangeRead,
        }
    }
}

impl<K, Q: Encode, A: Decode + 'static> Method<K, Q, A> {
    /// A call of it.
    pub fn request(&self, target: Target, argument: &Q) -> Request<A> {
        Request::new(target, self.code, argument, self.kind(), Ok::<A, _>)
    }
}
