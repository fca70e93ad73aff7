//! The public listener's routes as one service.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    Router,
    extract::Request,
    http::{Method, Uri},
    response::Response,
    routing::{Route, future::RouteFuture},
};
use futures::future::{BoxFuture, Either};
use tower::{Service, layer::layer_fn};

use crate::http::{
    explorer::Trimmed,
    gateway::Gateway,
    middleware::{self, browser},
};

/// The public listener's routes, for requests whose path has any form.
#[derive(Clone)]
pub struct PublicRoutes {
    routes: Router,
    gateway: Arc<Gateway>,
}

impl PublicRoutes {
    pub(super) fn new(gateway: Arc<Gateway>, routes: Router) -> Self {
        let around = gateway.clone();
        let routes = routes.layer(layer_fn(move |route| Answer { gateway: around.clone(), route }));
        Self { routes, gateway }
    }
}

impl Service<Request> for PublicRoutes {
    type Response = Response;
    type Error = Infallible;
    type Future = Either<RouteFuture<Infallible>, BoxFuture<'static, Result<Response, Infallible>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let request = normalised(request);
        match *request.method() == Method::OPTIONS && browser::is_preflight(&request) {
            true => Either::Right(Box::pin(browser::preflight(self.gateway.clone(), request))),
            false => Either::Left(self.routes.call(request)),
        }
    }
}

/// A route, and what is done around its handler. One service rather than a layer for each step: a layer costs several
/// allocations, and a copy of all that is inside of it, for each request.
#[derive(Clone)]
struct Answer {
    gateway: Arc<Gateway>,
    route: Route,
}

impl Service<Request> for Answer {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        Box::pin(middleware::answer(self.gateway.clone(), request, self.route.clone()))
    }
}

/// The request with its path in the form that routes have: percent-encoded letters, digits and `-._~` decoded, which
/// RFC 3986 (6.2.2.2) takes for the same, without `.` segments, and without a slash
/// at the end. The pages under `/docs/` keep theirs.
pub(super) fn normalised(mut request: Request) -> Request {
    let path = request.uri().path();
    let is_normal = !path.contains('%') && !path.contains("/./") && (path.len() == 1 || !path.ends_with('/'));
    if is_normal {
        return request;
    }
    let (mut plain, mut rest) = (String::with_capacity(path.len()), path);
    while let Some((before, encoded)) = rest.split_once('%') {
        plain.push_str(before);
        let byte = encoded.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte.filter(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(byte)) {
            Some(byte) => {
                plain.push(byte.into());
                rest = &encoded[2..];
            }
            None => {
                plain.push('%');
                rest = encoded;
            }
        }
    }
    plain.push_str(rest);
    // Clients that take the document's server, `.`, for the beginning of an address ask so.
    if plain.contains("/./") {
        plain = plain.replace("/./", "/");
    }
    let whole = plain.len();
    if !plain.starts_with("/docs/") && plain.len() > 1 {
        plain.truncate(plain.trim_end_matches('/').len().max(1));
    }
    let trimmed = whole - plain.len();
    if plain != path {
        let target = request.uri().query().map_or(plain.clone(), |query| format!("{plain}?{query}"));
        let mut parts = request.uri().clone().into_parts();
        // Whatever is no path and query is answered as it came.
        if let Ok(target) = target.parse() {
            parts.path_and_query = Some(target);
            if let Ok(uri) = Uri::from_parts(parts) {
                *request.uri_mut() = uri;
            }
        }
    }
    if trimmed > 0 {
        request.extensions_mut().insert(Trimmed(trimmed));
    }
    request
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("/", "/")]
    #[case("//", "/")]
    #[case("/status/", "/status")]
    #[case("/data/miner%5Fblock/%65poch/?epoch=0", "/data/miner_block/epoch?epoch=0")]
    #[case("/docs/", "/docs/")]
    #[case("/./status?a=/./", "/status?a=/./")]
    #[case("/data%2Fminer_block/get?hash=%5F/", "/data%2Fminer_block/get?hash=%5F/")]
    #[case("/%", "/%")]
    #[case("/%zz/%f", "/%zz/%f")]
    fn paths_are_normalised(#[case] target: &str, #[case] expected: &str) {
        let request = Request::builder().uri(target).body(Body::empty()).unwrap();
        assert_eq!(normalised(request).uri(), expected);
    }
}
