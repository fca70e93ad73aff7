//! The stylesheet, the script and the icon. Their names hold a digest of their content, so that browsers may keep them
//! for ever.

use std::sync::LazyLock;

use axum::{
    extract::{Path, rejection::PathRejection},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};

use crate::{
    http::{
        envelope::Rejection,
        negotiation::{Conditions, Outcome},
    },
    protocol::{Code, Failure},
};

/// The route of all assets.
pub(super) const ROUTE: &str = "/assets/{name}";

/// A year, the longest time that caches count with.
const FOREVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// A file that pages load.
struct Asset {
    name: String,
    media_type: &'static str,
    content: &'static [u8],
    tag: HeaderValue,
}

impl Asset {
    fn new(stem: &str, ending: &str, media_type: &'static str, content: &'static [u8]) -> Self {
        let digest = hex::encode(&Sha256::digest(content)[..8]);
        let tag = HeaderValue::try_from(format!("\"{digest}\"")).unwrap_or(HeaderValue::from_static("\"\""));
        Self { name: format!("{stem}-{digest}.{ending}"), media_type, content, tag }
    }
}

static ASSETS: LazyLock<[Asset; 3]> = LazyLock::new(|| {
    [
        Asset::new("style", "css", "text/css; charset=utf-8", include_bytes!("assets/style.css")),
        Asset::new("script", "js", "text/javascript; charset=utf-8", include_bytes!("assets/script.js")),
        Asset::new("icon", "svg", "image/svg+xml", include_bytes!("assets/icon.svg")),
    ]
});

/// The paths of the assets from the explorer's first page.
#[derive(Debug, Clone, Copy)]
pub(super) struct Assets {
    /// The stylesheet.
    pub style: &'static str,
    /// The script.
    pub script: &'static str,
    /// The icon.
    pub icon: &'static str,
}

impl Assets {
    /// The names of this build.
    pub(super) fn current() -> Self {
        let [style, script, icon] = &*ASSETS;
        Self { style: &style.name, script: &script.name, icon: &icon.name }
    }
}

/// Answers with an asset.
pub(super) async fn serve(
    name: Result<Path<String>, PathRejection>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Rejection> {
    let asset = name.ok().and_then(|Path(name)| ASSETS.iter().find(|asset| asset.name == name));
    let asset = asset.ok_or_else(|| Failure::new(Code::UnknownPath))?;
    let kept = [(header::CACHE_CONTROL, FOREVER), (header::ETAG, asset.tag.clone())];
    Ok(match Conditions::of(&method, &headers).evaluate(Some(&asset.tag)) {
        Outcome::Answer => (kept, [(header::CONTENT_TYPE, asset.media_type)], asset.content).into_response(),
        Outcome::NotModified => (StatusCode::NOT_MODIFIED, kept).into_response(),
        Outcome::Failed => Rejection::from(Failure::new(Code::PreconditionFailed)).into_response(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_change_with_the_content() {
        let [one, other] = [b"a", b"b"].map(|content| Asset::new("style", "css", "text/css", content).name);
        assert_ne!(one, other);
        assert_eq!(one, Asset::new("style", "css", "text/css", b"a").name);
    }
}
