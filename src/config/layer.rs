//! Where settings come from, and how an error says so.

use std::{borrow::Cow, ffi::OsString, path::PathBuf};

use figment::{
    Figment, Metadata, Profile, Provider,
    error::Kind,
    value::{Dict, Map, Value},
};

/// The file that is read when none is named; it may be missing.
pub const DEFAULT_FILE: &str = "modal-gateway.toml";

/// What the names of the environment variables begin with.
pub const ENV_PREFIX: &str = "MODAL_GATEWAY_";

/// A setting that can't be used. The text never holds the value of `database_url`, which may carry a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {problem}")]
pub struct ConfigError {
    /// The file, environment variable or flag.
    pub origin: String,
    /// The key and what is wrong with its value.
    pub problem: String,
}

impl ConfigError {
    fn new(origin: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { origin: origin.into(), problem: problem.into() }
    }

    /// What is wrong with a setting that is well-formed, and comes from somewhere or is a default.
    pub(super) fn of_key(key: &str, problem: &str, figment: &Figment) -> Self {
        let origin = figment.find_metadata(key).map_or_else(|| "settings".into(), |metadata| metadata.name.to_string());
        Self::new(origin, format!("{key}: {problem}"))
    }

    pub(super) fn from_figment(error: figment::Error, figment: &Figment) -> Self {
        let key = error.path.join(".");
        let origin = error.metadata.as_ref().or_else(|| figment.find_metadata(&key));
        let origin = origin.map_or_else(|| "settings".into(), |metadata| metadata.name.to_string());
        // A flag names its key.
        let prefix = if origin.starts_with("--") { String::new() } else { format!("{key}: ") };
        let problem = match error.kind {
            Kind::UnknownField(name, known) => format!("unknown setting `{name}`; known are {}", known.join(", ")),
            // The actual value is left out: it could be a secret.
            Kind::InvalidType(_, expected) => format!("{prefix}expected {expected}"),
            kind => format!("{prefix}{kind}"),
        };
        Self { origin, problem }
    }
}

/// What [`Config::load`](super::Config::load) reads, as parameters so that tests need no process environment.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file that `--config` names; it must exist.
    pub file: Option<PathBuf>,
    /// Environment variables; those that don't concern us are ignored.
    pub env: Vec<(OsString, OsString)>,
    /// The flags given, by key: a text, or an array for a flag that may be repeated, since commas separate nothing
    /// there.
    pub flags: Dict,
}

impl Sources {
    /// The layers, lowest first.
    pub(super) fn layers(&self) -> Result<Vec<Layer>, ConfigError> {
        let (mut database_url, mut variables, mut file) = (None, Vec::new(), self.file.clone());
        for (name, value) in &self.env {
            let Some(name) = name.to_str() else { continue };
            let key = name.strip_prefix(ENV_PREFIX);
            if value.is_empty() || (key.is_none() && name != "DATABASE_URL") {
                continue;
            }
            let Some(value) = value.to_str() else {
                return Err(ConfigError::new(Source::Variables.origin(name), "the value is not UTF-8"));
            };
            match key.map(str::to_ascii_lowercase).as_deref() {
                None => {
                    database_url = Some(Layer::one(Source::DatabaseUrl, name, "database_url", value.into()));
                }
                Some("config") => file = file.or_else(|| Some(value.into())),
                Some(key) => variables.push(Layer::one(Source::Variables, name, key, value.into())),
            }
        }
        let flag = |(key, value): (&String, &Value)| {
            Layer::one(Source::Flags, &format!("--{}", key.replace('_', "-")), key, value.clone())
        };
        let flags = self.flags.iter().map(flag);
        Ok(read_file(file)?.into_iter().chain(database_url).chain(variables).chain(flags).collect())
    }
}

fn read_file(named: Option<PathBuf>) -> Result<Option<Layer>, ConfigError> {
    let path = named.clone().unwrap_or_else(|| DEFAULT_FILE.into());
    let origin = path.display().to_string();
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => return Ok(None),
        Err(error) => return Err(ConfigError::new(origin, format!("can't read the configuration file: {error}"))),
    };
    let values = toml::from_str::<Dict>(&text)
        .map_err(|error| ConfigError::new(origin.clone(), where_and_why(&text, &error)))?;
    Ok(Some(Layer { source: Source::File, name: origin, values }))
}

/// Line and message of what is wrong with a TOML file: the error's own text quotes the line, and with it perhaps a
/// password.
pub(super) fn where_and_why(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
    format!("line {line}: {}", error.message().replace('\n', ", "))
}

/// Takes `key` and `other`, two forms of one setting, from the layers below the highest source that has either.
///
/// # Errors
/// One source has both.
pub(super) fn settle(layers: &mut [Layer], key: &str, other: &str) -> Result<(), ConfigError> {
    let holders = |name: &str| layers.iter().filter(|layer| layer.values.contains_key(name)).collect::<Vec<_>>();
    let highest = |layers: &[&Layer]| layers.iter().map(|layer| layer.source).max();
    let (with_key, with_other) = (holders(key), holders(other));
    let (Some(first), Some(second)) = (highest(&with_key), highest(&with_other)) else { return Ok(()) };
    if first == second {
        let origin = with_other.last().map(|layer| layer.source.origin(&layer.name)).unwrap_or_default();
        return Err(ConfigError::new(origin, format!("{other}: {key} is set as well")));
    }
    let winner = first.max(second);
    for layer in layers.iter_mut().filter(|layer| layer.source < winner) {
        layer.values.remove(key);
        layer.values.remove(other);
    }
    Ok(())
}

/// What a layer is of, lowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    File,
    /// The variable without our prefix.
    DatabaseUrl,
    Variables,
    Flags,
}

impl Source {
    /// What errors call a layer of this name.
    fn origin(self, name: &str) -> String {
        match self {
            Self::File | Self::Flags => name.to_owned(),
            Self::DatabaseUrl | Self::Variables => format!("environment variable {name}"),
        }
    }
}

/// Settings of one origin.
pub(super) struct Layer {
    pub(super) source: Source,
    /// The path of a file, the name of a variable, or a flag with its hyphens.
    pub(super) name: String,
    pub(super) values: Dict,
}

impl Layer {
    fn one(source: Source, name: &str, key: &str, value: Value) -> Self {
        Self { source, name: name.to_owned(), values: Dict::from([(key.to_owned(), value)]) }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(Cow::Owned(self.source.origin(&self.name)))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}
