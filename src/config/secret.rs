//! Settings that may hold a secret: neither `Debug` nor `Display` shows it.

use std::{fmt, str::FromStr};

/// A word that only its holder may know, such as a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// Shortest token that is accepted, in bytes.
const MIN_SECRET_BYTES: usize = 16;

impl Secret {
    /// The secret itself: for comparing, never for printing.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        match text.len() >= MIN_SECRET_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => Ok(Self(text.into())),
            false => Err("expected at least 16 visible ASCII characters without spaces"),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"***\"")
    }
}

/// A database URL. `Display` and `Debug` hide its password; [`as_str`](Self::as_str) doesn't.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// The whole URL, password included: for opening the store, never for printing.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is of Postgres, not of SQLite.
    pub fn is_postgres(&self) -> bool {
        !self.0.starts_with("sqlite:")
    }
}

impl Default for DatabaseUrl {
    fn default() -> Self {
        Self("sqlite://modal-gateway.db".into())
    }
}

impl FromStr for DatabaseUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected sqlite://PATH or postgres://USER:PASSWORD@HOST/DATABASE";
        if text.contains(char::is_control) {
            return Err("expected one URL without a line break or another control character");
        }
        match text.split_once(':') {
            Some(("sqlite", ":memory:" | "//:memory:")) => {
                Err("a store in memory ends with the program: expected sqlite://PATH")
            }
            Some(("sqlite", rest)) if !rest.is_empty() => Ok(Self(text.into())),
            Some(("postgres" | "postgresql", rest)) if rest.starts_with("//") => match url::Url::parse(text) {
                // A password with a `/` or `#` in it ends the host for the parser, and the rest would be shown.
                Ok(url) if url.fragment().is_none() && !url.path().contains('@') => Ok(Self(text.into())),
                Err(url::ParseError::EmptyHost) => {
                    Err("malformed URL: no host behind the user; a socket is written as \
                     postgres:///DATABASE?host=FOLDER&user=USER&password=PASSWORD")
                }
                Err(url::ParseError::InvalidPort) => {
                    Err("malformed URL: expected a port up to 65535 after the host; special \
                     characters in the password must be percent-encoded")
                }
                _ => Err("malformed URL; special characters in the password must be percent-encoded"),
            },
            _ => Err(EXPECTED),
        }
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_postgres() {
            return f.write_str(&self.0);
        }
        // The parameters go too: drivers take `?password=` there.
        let Ok(mut url) = url::Url::parse(&self.0) else { return f.write_str("postgres://***") };
        url.set_query(None);
        if url.password().is_some() && url.set_password(Some("***")).is_err() {
            return f.write_str("postgres://***");
        }
        f.write_str(url.as_str())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}
