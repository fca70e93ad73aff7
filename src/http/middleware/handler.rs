//! A route's handler: its deadline, its panics, and whether it is asked at all.

use std::panic::AssertUnwindSafe;

use axum::{
    extract::Request,
    response::{IntoResponse, Response},
    routing::Route,
};
use futures::FutureExt;
use tokio::time::{Instant, timeout_at};
use tower::Service;

use super::{head, seen_tip};
use crate::{
    http::{counters::Counters, envelope::Rejection, gateway::Gateway, negotiation::Accepted},
    protocol::{Code, Failure},
};

/// Runs the handler, if the request is well formed, until the deadline.
pub(super) async fn run(gateway: &Gateway, deadline: Instant, request: Request, route: Route) -> Response {
    let answer = async {
        if let Err(failure) = head::check(&request) {
            return Rejection::from(failure).into_response();
        }
        match seen_tip::of(&request) {
            Ok(None) => {}
            Ok(Some(tip)) => {
                if let Err(failure) = Box::pin(gateway.source.reach(&tip)).await {
                    return Rejection::from(failure).into_response();
                }
            }
            Err(failure) => return Rejection::from(failure).into_response(),
        }
        handle(gateway, request, route).await
    };
    timeout_at(deadline, answer).await.unwrap_or_else(|_| {
        gateway.counters.timed_out.add();
        Rejection::from(late(Code::Busy, gateway)).into_response()
    })
}

/// The failure of a request that takes too long.
pub(super) fn late(code: Code, gateway: &Gateway) -> Failure {
    Failure::with_detail(code, format!("not within {} s", gateway.settings.request_timeout.as_secs_f64()))
}

/// Runs the handler; its answer, if the client accepts that.
async fn handle(gateway: &Gateway, request: Request, mut route: Route) -> Response {
    let accepted = Accepted::of(&request);
    let answer = route.call(request).map(|Ok(response)| response);
    let response = contain_panics(&gateway.counters, answer).await;
    match accepted {
        Some(accepted) => accepted.check(response),
        None => response,
    }
}

/// The answer of a handler; where it panics, an error, and the panic is counted.
pub(in crate::http) async fn contain_panics(counters: &Counters, answer: impl Future<Output = Response>) -> Response {
    AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!("a handler panicked");
        counters.panics.add();
        Rejection::from(Failure::new(Code::Internal)).into_response()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_answered_and_counted() {
        let counters = Counters::default();
        for count in 1..=2 {
            let response = contain_panics(&counters, async { panic!("on purpose") }).await;
            assert_eq!((response.status().as_u16(), counters.panics.get()), (500, count));
        }
    }
}
