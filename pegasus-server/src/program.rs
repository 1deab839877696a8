//! The program: its roles, its sections of the configuration, its codes.

use crate::options::StorageOptions;
use crate::replica_app::replica_app;
use crate::{scenario, settings};
use dsn_core::boot::Program;
use dsn_core::config::ConfigSchema;
use dsn_replication::meta::envs::EnvRules;
use dsn_replication::meta::meta_app;
use dsn_replication::server;
use std::sync::Arc;

/// Every section that may stand in a configuration of pegasus-server.
pub fn schema() -> ConfigSchema {
    server::schema().section::<StorageOptions>()
}

/// The commit that this was built from; run.sh says so.
const COMMIT: Option<&str> = option_env!("PEGASUS_COMMIT");

/// The envs that a table may have.
pub fn env_rules() -> EnvRules {
    EnvRules::new().with(settings::ENV_RULES).with(scenario::ENV_RULES)
}

/// pegasus-server.
pub fn program() -> Program {
    let mut codes = server::codes();
    codes.push(pegasus_client::schema::codes::CODES);
    Program {
        name: "pegasus-server",
        version: format!("{}+{}", env!("CARGO_PKG_VERSION"), COMMIT.unwrap_or("unknown")),
        schema: schema(),
        codes,
        apps: vec![
            ("meta", Arc::new(|instance| meta_app(instance, env_rules()))),
            ("replica", Arc::new(replica_app)),
        ],
    }
}
