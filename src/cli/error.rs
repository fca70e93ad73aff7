//! How a command fails, and what that is to the shell.

use std::{error::Error, fmt::Write as _, io, process::ExitCode};

use super::{health::HealthError, peer::PeerError};
use crate::{
    app::AppError,
    config::ConfigError,
    store::StoreError,
    telemetry::{TelemetryError, error_notice},
};

/// Exit code of a command whose usage or settings are wrong.
pub(super) const EXIT_USAGE: u8 = 2;

/// Why a command failed.
pub(super) enum CliError {
    /// The command's own error: exit code 2 where it is about the settings or the usage, else 1.
    Failed(Box<dyn Error>),
    /// Data could not be written to stdout. A reader that closed the pipe has seen enough: exit code 0.
    Stdout(io::Error),
    /// The runtime, or the handling of signals, did not start.
    Runtime(io::Error),
    /// Ctrl-C or SIGTERM.
    Interrupted,
    /// The peer's answer, which is on stdout, is not ok.
    NotOk,
}

impl<E: Error + 'static> From<E> for CliError {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl CliError {
    /// Reports the error on stderr; returns the exit code.
    pub(super) fn report(&self) -> ExitCode {
        let text = match self {
            Self::Stdout(error) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
            Self::NotOk => return ExitCode::FAILURE,
            Self::Failed(error) => with_causes(&**error),
            Self::Stdout(error) => format!("stdout: {}", with_causes(error)),
            Self::Runtime(error) => format!("the runtime can't be started: {}", with_causes(error)),
            Self::Interrupted => "interrupted".into(),
        };
        error_notice(text);
        ExitCode::from(if matches!(self, Self::Failed(error) if is_about_settings(&**error)) { EXIT_USAGE } else { 1 })
    }
}

/// Whether the error, or a cause of it, is about what the user set or asked for. An error that is transparent hides the
/// one in it.
fn is_about_settings(error: &(dyn Error + 'static)) -> bool {
    let itself = error.is::<ConfigError>()
        || error.is::<PeerError>()
        || matches!(
            error.downcast_ref(),
            Some(HealthError::NoPort(_) | HealthError::UserInfo | HealthError::NotReadiness(_))
        )
        || matches!(error.downcast_ref(), Some(TelemetryError::Filter(_) | TelemetryError::Variable { .. }))
        || matches!(error.downcast_ref(), Some(StoreError::Url(_)))
        || matches!(
            error.downcast_ref(),
            Some(
                AppError::AdminNotLoopback(_) | AppError::AdminToken { .. } | AppError::Tls(_) | AppError::Identity(_)
            )
        );
    itself || error.source().is_some_and(is_about_settings)
}

/// The error and its causes on one line; a cause that the text before it already contains is not repeated.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            let _ = write!(text, ": {cause_text}");
        }
        next = cause.source();
    }
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Outer {
        text: &'static str,
        source: io::Error,
    }

    #[test]
    fn causes_are_joined_once() {
        let outer = |text| Outer { text, source: io::Error::other("disk on fire") };
        assert_eq!(with_causes(&outer("stdout")), "stdout: disk on fire");
        assert_eq!(with_causes(&outer("it failed: disk on fire")), "it failed: disk on fire");
    }
}
