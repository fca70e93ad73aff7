//! What several commands need.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use super::error::CliError;
use crate::{config::Config, store::OpenOptions};

/// Longest that a command waits for what it reads from the store.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// How the settings say to open the store.
pub(super) fn open_options(config: &Config) -> OpenOptions {
    // Nobody else waits for what a command reads.
    OpenOptions { connections: config.store_connections, read_timeout: READ_TIMEOUT, ..OpenOptions::default() }
}

/// Prints one line of data.
pub(super) fn print_line(line: &str) -> Result<(), CliError> {
    print(format!("{}\n", line.trim_end()).as_bytes())
}

/// Prints data as it is.
pub(super) fn print(data: &[u8]) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(data).and_then(|()| stdout.flush()).map_err(CliError::Stdout)
}
