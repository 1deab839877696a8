//! The server program of a replicated app: the roles `meta` and `replica`, configured by a TOML file.
//!
//! ```no_run
//! # use dsn_replication::app::*; use dsn_replication::state_machine::AppError; use std::sync::Arc;
//! # struct Nothing;
//! # impl ReplicatedApp for Nothing {
//! #     const APP_TYPE: &'static str = "nothing";
//! #     type View = ();
//! #     fn methods(_: &mut Methods<Self>) {}
//! #     fn open(_: &Opening<'_>) -> Result<Self, AppError> { Ok(Self) }
//! #     fn view(&self) {}
//! #     fn checkpoint(_: &(), _: &mut NewFiles) -> Result<(), AppError> { Ok(()) }
//! #     fn install(_: &Opening<'_>, _: &Arc<Files>) -> Result<Self, AppError> { Ok(Self) }
//! # }
//! fn main() -> std::process::ExitCode {
//!     dsn_replication::server::program::<Nothing>("nothing", "1.0").main()
//! }
//! ```

use crate::app::{AppFactory, ReplicatedApp};
use crate::meta::envs::EnvRules;
use crate::meta::meta_app;
use crate::replica_app::{MakeFactory, replica_app};
use crate::state_machine::StateMachineFactory;
use dsn_core::boot::Program;
use dsn_core::code::{Code, register};
use dsn_core::config::{ConfigSchema, core_schema};
use dsn_rpc::RpcOptions;
use std::sync::Arc;

/// Every section that may stand in the configuration of a server; an app adds its own.
#[must_use]
pub fn schema() -> ConfigSchema {
    core_schema().section::<RpcOptions>().merge(&crate::options::schema())
}

/// Every code of the framework that a configuration may name; an app adds its own.
#[must_use]
pub fn codes() -> Vec<&'static [Code]> {
    vec![
        dsn_rpc::CODES,
        crate::codes::CODES,
        crate::host::CODES,
        crate::reads::CODES,
        crate::stub::CODES,
        crate::worker_log::CODES,
        crate::meta_link::CODES,
        crate::meta::server::CODES,
    ]
}

/// State machines of one app.
#[must_use]
pub fn machines_of<A: ReplicatedApp>() -> MakeFactory {
    Box::new(|ctx, _| {
        A::at_start(ctx.node());
        let factory: Arc<dyn StateMachineFactory> = Arc::new(AppFactory::<A>::default());
        Ok(factory)
    })
}

/// The program of one app. Codes that it has beside those of its methods go into [`Program::codes`].
#[must_use]
pub fn program<A: ReplicatedApp>(name: &'static str, version: &str) -> Program {
    register(&crate::app::codes_of::<A>());
    Program {
        name,
        version: version.to_owned(),
        schema: schema().merge(&A::sections()),
        codes: codes(),
        apps: vec![
            ("meta", Arc::new(|instance| meta_app(instance, EnvRules::new()))),
            ("replica", Arc::new(|instance| replica_app(instance, machines_of::<A>()))),
        ],
    }
}
