//! A replicated counter: numbers with names, to be added to and read.

use dsn_replication::app::{Files, Methods, NewFiles, Opening, ReplicatedApp};
use dsn_replication::method::{Read, Write};
use dsn_replication::state_machine::AppError;
use std::collections::BTreeMap;
use std::sync::Arc;

dsn_core::task_codes! {
    /// Codes of the counter.
    pub CODES;
    /// See [`ADD`].
    pub RPC_COUNTER_ADD: Rpc, Low, "THREAD_POOL_REPLICATION";
    /// See [`GET`].
    pub RPC_COUNTER_GET: Rpc, Common, "THREAD_POOL_LOCAL_APP";
}

dsn_rpc::message! {
    /// Adds to a counter.
    pub struct Add {
        1: name: String,
        2: by: i64 = 1,
    }
}

/// Adds to a counter; answers its value afterwards.
pub const ADD: Write<Add, i64> = Write::new(&RPC_COUNTER_ADD);
/// The value of a counter, 0 when nobody has added to it.
pub const GET: Read<String, i64> = Read::new(&RPC_COUNTER_GET);

/// The counters of one partition.
#[derive(Debug, Default)]
pub struct Counter {
    values: BTreeMap<String, i64>,
}

impl ReplicatedApp for Counter {
    const APP_TYPE: &'static str = "counter";
    type View = BTreeMap<String, i64>;

    fn methods(methods: &mut Methods<Self>) {
        methods.write(&ADD, |counter, add, _| {
            let value = counter.values.entry(add.name).or_default();
            *value = value.saturating_add(add.by);
            *value
        });
        methods.read(&GET, |counter, name, _| counter.values.get(&name).copied().unwrap_or(0));
    }

    fn open(_: &Opening<'_>) -> Result<Self, AppError> {
        Ok(Self::default())
    }

    fn view(&self) -> Self::View {
        self.values.clone()
    }

    fn checkpoint(view: &Self::View, files: &mut NewFiles) -> Result<(), AppError> {
        files.encode("values", view)
    }

    fn install(_: &Opening<'_>, files: &Arc<Files>) -> Result<Self, AppError> {
        Ok(Self { values: files.decode("values")? })
    }
}
