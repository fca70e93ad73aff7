//! How a command fails, and what that is to the shell.

use std::{error::Error, fmt::Write as _, io, process::ExitCode};

use crate::telemetry::error_notice;

/// Why a command failed.
pub(super) enum CliError {
    /// What was asked for can't be: exit code 2.
    Usage(Box<dyn Error>),
    /// The command's own error: exit code 1.
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

/// Any error of a command is a failure, unless it is said to be something else.
impl<E: Error + 'static> From<E> for CliError {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl CliError {
    /// Wrong usage or settings.
    pub(super) fn usage(error: impl Error + 'static) -> Self {
        Self::Usage(error.into())
    }

    /// Tells the user on stderr; the exit code.
    pub(super) fn report(&self) -> ExitCode {
        let text = match self {
            Self::Stdout(error) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
            Self::NotOk => return ExitCode::FAILURE,
            Self::Usage(error) | Self::Failed(error) => with_causes(&**error),
            Self::Stdout(error) => format!("stdout: {}", with_causes(error)),
            Self::Runtime(error) => format!("the runtime can't be started: {}", with_causes(error)),
            Self::Interrupted => "interrupted".into(),
        };
        error_notice(text);
        ExitCode::from(if matches!(self, Self::Usage(_)) { 2 } else { 1 })
    }
}

/// The error and its causes on one line; a cause that the text before it already tells is not repeated.
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
