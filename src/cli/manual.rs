//! `completions` and `man`: what a shell and `man` want to know of the command line.

use clap::CommandFactory as _;
use clap_complete::Shell;
use clap_mangen::Man;

use super::{args::Cli, common::print, error::CliError};

/// Prints the script that completes commands and flags in `shell`.
pub(super) fn completions(shell: Shell) -> Result<(), CliError> {
    let (mut command, mut script) = (Cli::command(), Vec::new());
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, &mut command, name, &mut script);
    // clap_complete's script for bash takes the hyphen in the program's name for the start of a command, in one of the
    // two places where it names a command.
    print(String::from_utf8_lossy(&script).replace("modal__subcmd__gateway", "modal__gateway").as_bytes())
}

/// Prints the manual page of a command, or that of the program.
pub(super) fn page(name: Option<&str>) -> Result<(), CliError> {
    let mut program = Cli::command().disable_help_subcommand(true);
    // Passes the shared options on to the commands.
    program.build();
    let command = name.and_then(|name| program.find_subcommand(name)).unwrap_or(&program).clone();
    let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let source = concat!("modal-gateway ", env!("CARGO_PKG_VERSION"));
    let mut page = Vec::new();
    Man::new(command.after_help(None)).source(source).render(&mut page).map_err(CliError::Stdout)?;
    page.extend(section(&examples).into_bytes());
    print(&page)
}

/// What stands below the help, with its line breaks, which the page would fill up otherwise.
fn section(text: &str) -> String {
    let (title, text) = match text.strip_prefix("Examples:\n") {
        Some(examples) => ("EXAMPLES", examples),
        None => ("NOTES", text),
    };
    // `\&` is nothing, and keeps a line from being a command of roff.
    let lines = text.lines().map(|line| format!("\\&{}\n", line.replace('\\', "\\e").replace('-', "\\-")));
    match text.is_empty() {
        true => String::new(),
        false => format!(".SH {title}\n.nf\n{}.fi\n", lines.collect::<String>()),
    }
}
