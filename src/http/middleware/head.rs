//! What the head of each request must have: `Host` exactly once (RFC 9112, section 3.2), and no transfer coding but
//! `chunked` (section 6.1).

use std::net::Ipv6Addr;

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

/// Refuses requests whose `Host` is missing, malformed, or there twice, and bodies in any transfer coding but
/// `chunked`: proxies and caches may have read another host, or another body.
///
/// # Errors
/// [`Code::InvalidHost`], [`Code::UnsupportedTransferCoding`].
pub(in crate::http) fn check(request: &Request) -> Result<(), Failure> {
    let mut codings = request.headers().get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => {}
        (Some(coding), None) if coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") => {}
        _ => return Err(Failure::with_detail(Code::UnsupportedTransferCoding, "a body is sent as it is or `chunked`")),
    }
    let problem = problem(request.version(), request.uri().authority(), request.headers());
    problem.map_err(|problem| Failure::with_detail(Code::InvalidHost, problem))
}

/// The check as a layer.
pub(in crate::http) async fn require(request: Request, next: Next) -> Response {
    match check(&request) {
        Ok(()) => next.run(request).await,
        Err(failure) => Rejection::from(failure).into_response(),
    }
}

/// Checks the header, and the authority of the request's target if it has one. Before HTTP/1.1 the header is optional;
/// in HTTP/2 the authority stands for it, and both are the same (RFC 9113, section 8.3.1).
fn problem(version: Version, authority: Option<&Authority>, headers: &HeaderMap) -> Result<(), &'static str> {
    const MALFORMED: &str = "expected a name or an address, and perhaps a port";
    let mut hosts = headers.get_all(header::HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err("the header is there twice");
    }
    let is_required = match version {
        Version::HTTP_11 => true,
        Version::HTTP_2 => authority.is_none(),
        _ => false,
    };
    if host.is_none() && is_required {
        return Err("the header is missing");
    }
    let host = host.map(|host| host.to_str().map_err(|_| MALFORMED)).transpose()?;
    if version == Version::HTTP_2 && host.is_some_and(|host| authority.is_some_and(|authority| authority != host)) {
        return Err("the header is not the authority of the request");
    }
    match host.into_iter().chain(authority.map(Authority::as_str)).all(|host| host.is_empty() || is_host(host)) {
        true => Ok(()),
        false => Err(MALFORMED),
    }
}

/// Whether a text is a host and perhaps a port (RFC 3986, section 3.2), without a user.
fn is_host(text: &str) -> bool {
    let (is_name, rest) = match text.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        Some((address, rest)) => (address.parse::<Ipv6Addr>().is_ok(), rest),
        None => {
            let (name, rest) = text.find(':').map_or((text, ""), |colon| text.split_at(colon));
            (!name.contains(['@', '[']) && Authority::try_from(name).is_ok(), rest)
        }
    };
    let port = rest.strip_prefix(':').unwrap_or_default();
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit()) && (port.is_empty() || port.parse::<u16>().is_ok());
    is_name && is_port && (rest.is_empty() || rest.starts_with(':'))
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
    #[case(&["a:+80"], false)]
    #[case(&[":80"], false)]
    #[case(&["[::1]x"], false)]
    #[case(&["[a]"], false)]
    fn a_request_has_one_valid_host(#[case] hosts: &[&'static str], #[case] valid: bool) {
        let lines = hosts.iter().map(|host| (header::HOST, HeaderValue::from_static(host)));
        let headers: HeaderMap = lines.collect();
        assert_eq!(problem(Version::HTTP_11, None, &headers).is_ok(), valid);
        assert!(problem(Version::HTTP_10, None, &HeaderMap::new()).is_ok());
    }

    #[rstest]
    #[case(Some("a:1"), None, true)]
    #[case(Some("a:1"), Some("a:1"), true)]
    #[case(None, Some("a"), true)]
    #[case(None, None, false)]
    #[case(Some("a"), Some("b"), false)]
    #[case(Some("u@a"), None, false)]
    fn over_http_2_the_authority_is_the_host(
        #[case] authority: Option<&str>,
        #[case] host: Option<&'static str>,
        #[case] valid: bool,
    ) {
        let authority = authority.map(|authority| authority.parse::<Authority>().unwrap());
        let lines = host.map(|host| (header::HOST, HeaderValue::from_static(host)));
        let headers: HeaderMap = lines.into_iter().collect();
        assert_eq!(problem(Version::HTTP_2, authority.as_ref(), &headers).is_ok(), valid);
    }
}
