//! The header `Host`, which a request has exactly once (RFC 9112, section 3.2).

use axum::{
    extract::Request,
    http::{HeaderMap, Version, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::{
    http::envelope::Rejection,
    protocol::{Code, Failure},
};

/// Refuses requests whose `Host` is missing, malformed, or there twice: proxies and caches may have read another one.
pub(in crate::http) async fn require(request: Request, next: Next) -> Response {
    match check(request.version(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => Rejection::from(Failure::with_detail(Code::InvalidHost, problem)).into_response(),
    }
}

/// Before HTTP/1.1 the header is optional; HTTP/2 has a pseudo-header instead, which hyper requires.
fn check(version: Version, headers: &HeaderMap) -> Result<(), &'static str> {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if version == Version::HTTP_11 => Err("the header is missing"),
        (None, _) => Ok(()),
        (_, Some(_)) => Err("the header is there twice"),
        (Some(host), None) if host.is_empty() => Ok(()),
        (Some(host), None) => match Authority::try_from(host.as_bytes()) {
            Ok(host) if is_host(host.as_str()) => Ok(()),
            _ => Err("expected a name or an address, and perhaps a port"),
        },
    }
}

/// Whether an authority has no user, and a port that there is.
fn is_host(authority: &str) -> bool {
    let after_address = authority.rsplit_once(']').map_or(authority, |(_, rest)| rest);
    let port = after_address.rsplit_once(':').map_or("", |(_, port)| port);
    !authority.contains('@') && (port.is_empty() || port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(&["localhost"], true)]
    #[case(&["127.0.0.1:8080"], true)]
    #[case(&["[::1]:8080"], true)]
    #[case(&["[::1]"], true)]
    #[case(&["gateway.example.org:"], true)]
    #[case(&[""], true)]
    #[case(&[], false)]
    #[case(&["a", "a"], false)]
    #[case(&["a b"], false)]
    #[case(&["a/b"], false)]
    #[case(&["user@a"], false)]
    #[case(&["a:99999"], false)]
    #[case(&["a:b"], false)]
    #[case(&["a, b"], false)]
    fn a_request_has_one_valid_host(#[case] hosts: &[&'static str], #[case] valid: bool) {
        let lines = hosts.iter().map(|host| (header::HOST, HeaderValue::from_static(host)));
        let headers: HeaderMap = lines.collect();
        assert_eq!(check(Version::HTTP_11, &headers).is_ok(), valid);
        assert!(check(Version::HTTP_10, &HeaderMap::new()).is_ok());
    }
}
