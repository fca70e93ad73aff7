//! Access to the admin listener: for clients with the token, or else for programs on this machine.
//!
//! A browser on this machine sends requests for any page that it shows. So without a token, what a page could send is
//! refused.

use std::net::{IpAddr, SocketAddr};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{
    http::envelope::Rejection,
    protocol::{Code, Failure},
};

/// What a request must prove.
#[derive(Clone)]
pub enum Access {
    /// The token, by its SHA-256: comparing digests reveals not even its length.
    Token([u8; 32]),
    /// That it comes from a program that means this listener, at this address.
    Local(IpAddr),
}

impl Access {
    /// Access to a listener at `address`, by the operator's token if there is one.
    pub fn new(token: Option<&str>, address: SocketAddr) -> Self {
        match token {
            Some(token) => Self::Token(Sha256::digest(token).into()),
            None => Self::Local(address.ip()),
        }
    }

    fn check(&self, request: &Request) -> Result<(), Failure> {
        match self {
            Self::Token(digest) => {
                let shown = bearer(request.headers()).map(Sha256::digest).unwrap_or_default();
                match bool::from(shown.as_slice().ct_eq(digest)) {
                    true => Ok(()),
                    false => Err(Failure::new(Code::Unauthorized)),
                }
            }
            Self::Local(address) => {
                let host = request.uri().authority().map(Authority::as_str);
                let host = host.or_else(|| request.headers().get(header::HOST)?.to_str().ok());
                let origin = request.headers().get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or_default());
                let origin = origin.map(|origin| origin.split_once("://").map_or("", |(_, host)| host));
                // Browsers send this with requests that have no origin: images, scripts, links.
                let site = request.headers().get("sec-fetch-site").map(|site| site.to_str().unwrap_or_default());
                match host.is_some_and(|host| is_ours(host, *address))
                    && origin.is_none_or(|origin| Some(origin) == host)
                    && site.is_none_or(|site| matches!(site, "same-origin" | "none"))
                {
                    true => Ok(()),
                    false => {
                        let detail = "without a token, only for programs on this machine, under its own name";
                        Err(Failure::with_detail(Code::Unauthorized, detail))
                    }
                }
            }
        }
    }
}

/// Passes on only requests with access.
pub(in crate::http) async fn require(State(access): State<Access>, request: Request, next: Next) -> Response {
    match access.check(&request) {
        Ok(()) => next.run(request).await,
        Err(failure) => {
            let mut response = Rejection::from(failure).into_response();
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            response
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// Whether a host, with or without port, can only mean this machine: other names may resolve to this address as well.
fn is_ours(host: &str, address: IpAddr) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    let ip = name.parse::<IpAddr>().map(|ip| ip.to_canonical());
    name.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback() || ip == address)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use rstest::rstest;

    use super::*;

    const TOKEN: &str = "correct-horse-battery";

    fn check(access: &Access, headers: &[(&str, &str)]) -> bool {
        let mut request = Request::new(Body::empty());
        for (name, value) in headers {
            let name = header::HeaderName::try_from(*name).unwrap();
            request.headers_mut().append(name, value.parse().unwrap());
        }
        access.check(&request).is_ok()
    }

    #[rstest]
    #[case::right("Bearer correct-horse-battery", true)]
    #[case::scheme_in_any_case("bEARER  correct-horse-battery ", true)]
    #[case::wrong("Bearer correct-horse-batterz", false)]
    #[case::longer("Bearer correct-horse-battery2", false)]
    #[case::shorter("Bearer correct-horse", false)]
    #[case::empty("Bearer ", false)]
    #[case::bare("correct-horse-battery", false)]
    #[case::basic("Basic correct-horse-battery", false)]
    fn only_the_token_gives_access(#[case] authorization: &str, #[case] admitted: bool) {
        let access = Access::new(Some(TOKEN), ([127, 0, 0, 1], 9090).into());
        let headers = [("host", "127.0.0.1:9090"), ("authorization", authorization)];
        assert_eq!(check(&access, &headers), admitted);
        assert!(!check(&access, &headers[..1]), "loopback alone is not enough");
    }

    #[rstest]
    #[case::address(&[("host", "127.0.0.1:9090")], true)]
    #[case::name(&[("host", "localhost:9090")], true)]
    #[case::v6(&[("host", "[::1]:9090")], true)]
    #[case::no_port(&[("host", "localhost")], true)]
    #[case::same_origin(&[("host", "localhost:9090"), ("origin", "http://localhost:9090")], true)]
    #[case::typed_by_hand(&[("host", "localhost:9090"), ("sec-fetch-site", "none")], true)]
    #[case::own_page(&[("host", "localhost:9090"), ("sec-fetch-site", "same-origin")], true)]
    #[case::image_of_a_page(&[("host", "localhost:9090"), ("sec-fetch-site", "cross-site")], false)]
    #[case::page_of_same_site(&[("host", "localhost:9090"), ("sec-fetch-site", "same-site")], false)]
    #[case::no_host(&[], false)]
    #[case::rebound(&[("host", "attacker.example:9090")], false)]
    #[case::looks_alike(&[("host", "localhost.attacker.example:9090")], false)]
    #[case::looks_alike_number(&[("host", "127.0.0.1.attacker.example")], false)]
    #[case::another_page(&[("host", "127.0.0.1:9090"), ("origin", "https://attacker.example")], false)]
    #[case::another_port(&[("host", "127.0.0.1:9090"), ("origin", "http://127.0.0.1:8080")], false)]
    #[case::a_file(&[("host", "127.0.0.1:9090"), ("origin", "null")], false)]
    fn without_a_token_no_page_has_access(#[case] headers: &[(&str, &str)], #[case] admitted: bool) {
        let access = Access::new(None, ([127, 0, 0, 1], 9090).into());
        assert_eq!(check(&access, headers), admitted);
    }
}
