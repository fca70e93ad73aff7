//! A request for a page.

use std::sync::Arc;

use axum::{
    extract::FromRequestParts,
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use percent_encoding::percent_decode_str;

use super::{
    frame::{Frame, Section},
    parts::Links,
};
use crate::{
    chain::unix_now,
    http::{envelope::Rejection, gateway::Gateway, negotiation::Conditions},
    protocol::{Code, Failure, query::pairs},
    store::Snapshot,
};

/// The parameter that makes a page load itself again.
const REFRESH: &str = "refresh";
/// Seconds after which a page that is to load itself again does so, where the reader follows our link.
const REFRESH_AGAIN: u64 = 10;
/// Seconds that a reader may ask for.
const REFRESH_SECONDS: std::ops::RangeInclusive<u64> = 5..=3600;

/// Slashes at the end of a path that the router has left out. To a browser they are part of it: its relative links
/// would lead elsewhere.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct Trimmed(pub usize);

/// A request for a page.
pub(super) struct Visit {
    pub gateway: Arc<Gateway>,
    pub links: Links,
    /// The last part of the path, decoded.
    pub name: String,
    /// The time of the request, unix seconds.
    pub now: i64,
    /// Seconds after which the page loads itself again, if the reader wants that.
    pub refresh: Option<u64>,
    pub conditions: Conditions,
    pairs: Vec<(String, String)>,
    /// The query string without `refresh`.
    query: String,
}

impl FromRequestParts<Arc<Gateway>> for Visit {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, gateway: &Arc<Gateway>) -> Result<Self, Response> {
        if let Some(Trimmed(count)) = parts.extensions.get() {
            return Err(without_slash(parts, *count));
        }
        Self::read(parts, gateway).map_err(|failure| Rejection::from(failure).into_response())
    }
}

impl Visit {
    fn read(parts: &Parts, gateway: &Arc<Gateway>) -> Result<Self, Failure> {
        let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
        let name = path.rsplit('/').next().unwrap_or_default();
        let name = percent_decode_str(name).decode_utf8().map_err(|_| Failure::new(Code::UnknownPath))?;
        let is_kept = |pair: &&str| pair.split('=').next() != Some(REFRESH) && !pair.is_empty();
        let kept: Vec<_> = query.split('&').filter(is_kept).collect();
        let mut visit = Self {
            gateway: gateway.clone(),
            links: Links { root: root(path, 0) },
            name: name.into_owned(),
            now: unix_now(),
            refresh: None,
            conditions: Conditions::of(&parts.method, &parts.headers),
            pairs: pairs(query)?.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
            query: kept.join("&"),
        };
        visit.refresh = visit.number(REFRESH)?;
        match visit.refresh {
            Some(seconds) if !REFRESH_SECONDS.contains(&seconds) => Err(invalid(REFRESH, "expected 5 to 3600 seconds")),
            _ => Ok(visit),
        }
    }

    /// The first value of a parameter. Unknown parameters are left alone, as other sites add some of theirs to links.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find_map(|(known, value)| (known == name).then_some(value.as_str()))
    }

    /// A parameter that is an integer; an empty one is not there, as in a form that was not filled in.
    ///
    /// # Errors
    /// [`Code::InvalidParameter`].
    pub(super) fn number(&self, name: &'static str) -> Result<Option<u64>, Failure> {
        match self.parameter(name) {
            None | Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| invalid(name, "expected an integer from 0")),
        }
    }

    /// The page's own address with or without `refresh`, from itself.
    fn refreshed(&self, seconds: Option<u64>) -> String {
        let refresh = seconds.map(|seconds| format!("{REFRESH}={seconds}")).unwrap_or_default();
        let separator = if refresh.is_empty() || self.query.is_empty() { "" } else { "&" };
        format!("?{}{separator}{refresh}", self.query)
    }

    /// What is around a page that was made of `snapshot`.
    ///
    /// # Errors
    /// Those of the source.
    pub(super) async fn frame(
        &self,
        section: Section,
        title: impl Into<String>,
        snapshot: &Snapshot,
    ) -> Result<Frame, Failure> {
        let frame = Frame::new(&self.gateway, &self.links, self.now, section, title.into(), snapshot).await?;
        let other_refresh = self.refreshed(self.refresh.is_none().then_some(REFRESH_AGAIN));
        Ok(Frame { refresh: self.refresh, other_refresh, ..frame })
    }
}

/// The failure of a parameter that has a value it can't have.
pub(super) fn invalid(name: &str, expected: &str) -> Failure {
    Failure::with_detail(Code::InvalidParameter, format!("{name}: {expected}"))
}

/// From a page to the explorer's first page, where the router has left out so many slashes at the end.
pub(super) fn root(path: &str, trimmed: usize) -> String {
    match path.bytes().filter(|byte| *byte == b'/').count().saturating_sub(1) + trimmed {
        0 => "./".into(),
        folders => "../".repeat(folders),
    }
}

/// Sends the reader to the same page without slashes at the end.
fn without_slash(parts: &Parts, trimmed: usize) -> Response {
    let name = parts.uri.path().rsplit('/').next().unwrap_or_default();
    let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let location = HeaderValue::try_from(format!("{}{name}{query}", "../".repeat(trimmed)));
    // A path and a query that came in a request are a header's value.
    let location = location.unwrap_or(HeaderValue::from_static("../"));
    (StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, location)]).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_as_many_folders_up() {
        assert_eq!([root("/", 0), root("/epochs", 0), root("/block/a", 0)], ["./", "./", "../"]);
        assert_eq!([root("/a/b/c", 0), root("/nowhere", 1)], ["../../", "../"]);
    }
}
