//! What a user of the framework writes: a [`ReplicatedApp`].
//!
//! An app is the state of one partition, in memory, and the methods by which it is written and read. Its methods are
//! plain functions: replication orders the writes, logs them, carries them to all members of the partition's group and
//! calls them everywhere in the same order, one after the other, with the state to themselves. Now and then the state
//! is written out as a checkpoint, so that the log can be cut; after a restart the last checkpoint is installed and the
//! rest of the log applied again. There is no thread, lock, socket, retry or membership in an app.
//!
//! What an app promises in return: a write depends on nothing but the state, its argument and the [`Moment`]. No
//! clocks, no random numbers, no maps whose order differs from run to run, no files.
//!
//! A state too large for memory keeps what a checkpoint holds in the checkpoint's files: they do not change, and stay
//! as long as somebody holds them ([`Files`]). A state with a storage engine of its own implements
//! [`StateMachine`](crate::state_machine::StateMachine) instead, which this module does over a [`ReplicatedApp`].

mod checkpoints;
mod files;
mod machine;
mod methods;
#[cfg(test)]
mod tests;

pub use files::{Files, NewFiles};
pub use machine::{AppFactory, AppMachine};
pub use methods::{Methods, Moment};

use crate::state_machine::AppError;
use crate::wire::config::AppInfo;
use dsn_core::code::Code;
use dsn_core::config::{ConfigSchema, Section};
use dsn_core::exec::BlockingCtx;
use dsn_core::metrics::Entity;
use dsn_core::node::Node;
use dsn_rpc::gpid::Gpid;
use std::sync::Arc;

/// The state of one partition. See the module's header.
pub trait ReplicatedApp: Sized + Send + Sync + 'static {
    /// The app type: what a table of it is created with, and the end of the names of replica directories. Lower case
    /// letters, digits and `_`.
    const APP_TYPE: &'static str;

    /// A picture of the state that later writes do not change. Scans and checkpoints work on one while writes go on,
    /// so it should cost little to make: a reference counted part, a copy of what is small.
    type View: Send + Sync + 'static;

    /// Says how each method is carried out.
    fn methods(methods: &mut Methods<Self>);

    /// The state of a new partition.
    ///
    /// # Errors
    /// The replica is not made.
    fn open(opening: &Opening<'_>) -> Result<Self, AppError>;

    /// The state as it is now.
    fn view(&self) -> Self::View;

    /// Writes a checkpoint: everything that [`ReplicatedApp::install`] needs to make the state of `view`.
    ///
    /// # Errors
    /// Those of `files`; there is no checkpoint then, and another is tried later.
    fn checkpoint(view: &Self::View, files: &mut NewFiles) -> Result<(), AppError>;

    /// The state of a checkpoint.
    ///
    /// # Errors
    /// [`AppError::Corrupt`] puts the replica aside; others leave it as it is, to be opened at the next start.
    fn install(opening: &Opening<'_>, files: &Arc<Files>) -> Result<Self, AppError>;

    /// The checkpoint of `view` is complete: the state may drop what it can read from `files` from now on. Must not
    /// change what any method answers.
    fn checkpointed(&mut self, view: &Self::View, files: &Arc<Files>) {
        let _ = (view, files);
    }

    /// A replica server starts: the moment to add operator commands.
    fn at_start(node: &Arc<Node>) {
        let _ = node;
    }

    /// Sections of the configuration that are the app's own.
    fn sections() -> ConfigSchema {
        ConfigSchema::new()
    }
}

/// What a state is opened with.
#[derive(Debug)]
pub struct Opening<'a> {
    gpid: Gpid,
    info: &'a AppInfo,
    job: &'a BlockingCtx<'a>,
}

impl Opening<'_> {
    /// The partition.
    #[must_use]
    pub fn gpid(&self) -> Gpid {
        self.gpid
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> &AppInfo {
        self.info
    }

    /// A section of the server's configuration; its defaults where there is none.
    ///
    /// # Errors
    /// A section that [`ReplicatedApp::sections`] does not name.
    pub fn options<T: Section + Default>(&self) -> Result<T, AppError> {
        match self.job.node().config() {
            Some(config) => config.section().map_err(|error| AppError::Failed(error.to_string())),
            None => Ok(T::default()),
        }
    }

    /// The entity that metrics of this replica belong to, of type `replica`.
    #[must_use]
    pub fn entity(&self) -> Arc<Entity> {
        let (table, partition) =
            (self.gpid.app_id.to_string(), self.gpid.partition_index.to_string());
        let labels = [("table_id", table.as_str()), ("partition_id", partition.as_str())];
        let id = format!("replica@{table}.{partition}");
        self.job.node().metrics().entity("replica", &id, labels)
    }
}

/// The codes of an app's methods.
#[must_use]
pub fn codes_of<A: ReplicatedApp>() -> Vec<Code> {
    Methods::<A>::collect().codes().iter().map(|storage| storage.code).collect()
}
