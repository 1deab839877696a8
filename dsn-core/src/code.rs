//! Task codes: the names of the kinds of events.
//!
//! Priority, stage, timeout, tracing and fault policy hang off a code. The declaration gives defaults; a node's
//! configuration (`[task.<CODE>]`) may change them, so the effective values live in the node's
//! [`CodeSpec`](crate::node::CodeSpec) table and one process can host nodes that differ.

use crate::hash::fnv1a64;
use parking_lot::Mutex;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// What an event of a code is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeKind {
    /// A request from the network.
    Rpc,
    /// An answer to a call of ours.
    RpcReply,
    /// A step of local work, or a timer.
    Compute,
    /// A job on a blocking pool, or its completion.
    Blocking,
}

/// Which of a worker's run queues an event joins. Weighted, never strict: LOW always progresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Client writes.
    Low,
    /// Client reads and everyday work.
    Common,
    /// Replication and failure detection.
    High,
}

impl Priority {
    /// Number of priorities.
    pub const COUNT: usize = 3;

    /// 0 for LOW, 1 for COMMON, 2 for HIGH.
    #[inline]
    pub fn index(self) -> usize {
        self as usize
    }
}

/// A declared code. Make them with [`task_codes!`](crate::task_codes).
pub struct CodeDef {
    name: &'static str,
    kind: CodeKind,
    priority: Priority,
    stage: &'static str,
    timeout: Duration,
    name_hash: u64,
    index: AtomicU32,
}

/// A code is a reference to its declaration: compared by identity, printed by name.
pub type Code = &'static CodeDef;

/// Longest allowed code name, in bytes (the RDSN header has 48 with the closing zero).
pub const CODE_NAME_MAX: usize = 47;

const UNREGISTERED: u32 = u32::MAX;

/// Every code seen in this process, by index. Identity only: nothing here changes behaviour.
static REGISTRY: Mutex<Vec<Code>> = Mutex::new(Vec::new());

impl CodeDef {
    /// Declares a code; prefer [`task_codes!`](crate::task_codes).
    ///
    /// # Panics
    /// At compile time, when the name is longer than [`CODE_NAME_MAX`].
    pub const fn new(
        name: &'static str,
        kind: CodeKind,
        priority: Priority,
        stage: &'static str,
        timeout: Duration,
    ) -> Self {
        assert!(name.len() <= CODE_NAME_MAX, "task code name too long");
        let name_hash = fnv1a64(name.as_bytes());
        Self {
            name,
            kind,
            priority,
            stage,
            timeout,
            name_hash,
            index: AtomicU32::new(UNREGISTERED),
        }
    }

    /// The name, as on the wire and in the configuration.
    #[inline]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What its events are.
    #[inline]
    pub fn kind(&self) -> CodeKind {
        self.kind
    }

    /// Declared priority.
    #[inline]
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// Declared stage.
    #[inline]
    pub fn stage(&self) -> &'static str {
        self.stage
    }

    /// Hash of the name: equal in every process, unlike the index.
    #[inline]
    pub fn name_hash(&self) -> u64 {
        self.name_hash
    }

    /// Declared timeout (of a call of this code).
    #[inline]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Dense index of this code in this process; registers it on first use.
    #[inline]
    pub fn index(&'static self) -> usize {
        let index = self.index.load(Ordering::Acquire);
        if index != UNREGISTERED { index as usize } else { self.enter_registry() }
    }

    #[cold]
    fn enter_registry(&'static self) -> usize {
        let mut registry = REGISTRY.lock();
        let index = self.index.load(Ordering::Acquire);
        if index != UNREGISTERED {
            return index as usize;
        }
        let index = registry.len() as u32;
        registry.push(self);
        self.index.store(index, Ordering::Release);
        index as usize
    }
}

/// The registered code of a name.
pub fn find(name: &str) -> Option<Code> {
    REGISTRY.lock().iter().copied().find(|code| code.name == name)
}

/// The code of an index, if there is one.
pub(crate) fn at(index: usize) -> Option<Code> {
    REGISTRY.lock().get(index).copied()
}

/// All codes registered so far, in registration order.
pub fn registered() -> Vec<Code> {
    REGISTRY.lock().clone()
}

/// Registers a list, so that configuration may name its codes.
pub fn register(codes: &[Code]) {
    for code in codes {
        code.index();
    }
}

impl fmt::Debug for CodeDef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl fmt::Display for CodeDef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for CodeDef {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for CodeDef {}

/// Declares task codes and, under the given name, the list of them.
///
/// ```
/// dsn_core::task_codes! {
///     /// Codes of the example.
///     pub CODES;
///     /// A periodic look around.
///     pub LPC_LOOK_AROUND: Compute, Common, "THREAD_POOL_DEFAULT";
///     /// A question from the network.
///     pub RPC_QUESTION: Rpc, High, "THREAD_POOL_DEFAULT", timeout_ms = 3000;
/// }
/// assert_eq!(LPC_LOOK_AROUND.name(), "LPC_LOOK_AROUND");
/// assert_eq!(CODES.len(), 2);
/// ```
#[macro_export]
macro_rules! task_codes {
    (
        $(#[$list_meta:meta])* $list_vis:vis $list:ident;
        $( $(#[$meta:meta])* $vis:vis $name:ident : $kind:ident, $prio:ident, $stage:expr
           $(, timeout_ms = $timeout:expr)? ; )*
    ) => {
        $( $(#[$meta])* $vis static $name: $crate::code::CodeDef = $crate::code::CodeDef::new(
            stringify!($name),
            $crate::code::CodeKind::$kind,
            $crate::code::Priority::$prio,
            $stage,
            ::std::time::Duration::from_millis($crate::task_codes!(@timeout $($timeout)?)),
        ); )*
        $(#[$list_meta])* $list_vis static $list: &[$crate::code::Code] = &[$(&$name),*];
    };
    (@timeout) => { 5000 };
    (@timeout $t:expr) => { $t };
}
