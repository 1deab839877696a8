//! The role `replica`: a replica server whose state machines are storage apps.

use crate::app::StorageAppFactory;
use crate::options::StorageOptions;
use dsn_core::app::{AppError, AppFactory};
use dsn_core::boot::AppInstance;
use dsn_replication::replica_app::MakeFactory;
use dsn_replication::state_machine::StateMachineFactory;
use std::sync::Arc;

/// Makes storage apps with these options.
pub fn storage_apps(storage: StorageOptions) -> MakeFactory {
    Box::new(move |ctx, listen| {
        let registry = ctx.node().metrics().clone();
        let factory = StorageAppFactory::new(storage, registry, &listen.to_string(), 0)
            .map_err(|error| AppError(error.to_string()))?;
        let factory: Arc<dyn StateMachineFactory> = Arc::new(factory);
        Ok(factory)
    })
}

/// The factory of a replica server for an instance of the configuration.
///
/// # Errors
/// A section that cannot be read, a missing port, or meta servers that cannot be resolved.
pub fn replica_app(instance: &AppInstance) -> Result<AppFactory, AppError> {
    let storage = instance.config.section().map_err(|error| AppError(error.to_string()))?;
    dsn_replication::replica_app::replica_app(instance, storage_apps(storage))
}
