//! `config`: the settings in effect, and where each comes from.

use serde_json::json;

use super::{common::print_line, error::CliError};
use crate::{
    chain::words,
    config::{
        Sources,
        effective::{Setting, settings},
    },
};

/// How the settings are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Format {
    /// A settings file.
    #[default]
    Toml,
    /// One JSON object a line.
    Json,
}

words!(Format { Toml = "toml", Json = "json" });

/// Prints every setting.
pub(super) fn run(sources: Sources, format: Format) -> Result<(), CliError> {
    let line = match format {
        Format::Toml => toml,
        Format::Json => json,
    };
    print_line(&settings(sources)?.iter().map(line).collect::<Vec<_>>().join("\n"))
}

/// A line of a settings file; a comment where the file can't have the value.
fn toml(Setting { key, value, origin, note }: &Setting) -> String {
    // The texts and lists of JSON are also those of TOML, which escapes one character more.
    let value = if value.is_null() { "not set".into() } else { value.to_string().replace('\x7f', "\\u007f") };
    let comment = if value == "not set" || note.is_some() { "# " } else { "" };
    let note = note.map(|note| format!("; {note}")).unwrap_or_default();
    format!("{comment}{key} = {value}  # {origin}{note}")
}

fn json(Setting { key, value, origin, note }: &Setting) -> String {
    json!({ "key": key, "value": value, "source": origin.kind(), "name": origin.name(), "note": note }).to_string()
}
