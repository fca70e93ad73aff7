//! `migrate`: the store's schema, brought up to date without starting anything else.

use super::common::open_options;
use crate::{
    config::Config,
    store::{self, StoreError},
    telemetry::notice,
};

/// Migrates and says on stderr from which version to which.
pub(super) async fn run(config: &Config) -> Result<(), StoreError> {
    let (before, after) = store::migrate(config.database_url.as_str(), &open_options(config)).await?;
    match (before, after) {
        (0, after) => notice(format_args!("{}: created, schema {after}", config.database_url)),
        (before, after) if before == after => {
            notice(format_args!("{}: schema {after} is up to date", config.database_url))
        }
        (before, after) => notice(format_args!("{}: migrated from schema {before} to {after}", config.database_url)),
    }
    Ok(())
}
