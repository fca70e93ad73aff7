//! The HTTP API: routes that mirror the protocol's paths, and routes about the gateway itself.
//!
//! A request passes, from the outside in: `server` (connection, TLS, timeouts), `middleware` (client, limits,
//! deadline), a handler of `routes`, which reads it by `extract` and answers by `respond`.
//!
//! * [`server`]: listener and connections: TLS, timeouts, connection limits
//! * `limits`: client keys, the rate limit, permits for what is in flight
//! * [`counters`]: counters of listeners and answers
//! * `gateway`: the settings and the state that all handlers share
//! * [`envelope`]: the envelope of every answer; the only table from error code to status
//! * [`Numbers`]: whether miner numbers are JSON numbers or strings
//! * `extract`: a request becomes a typed query
//! * `views`: parameters of the routes under `/chain`
//! * `negotiation`: the formats and content codings that the client accepts; conditional requests
//! * `representations`: what is made of an answer: NDJSON, CSV, compressed bodies; each made once
//! * `timing`: the header `server-timing`
//! * `respond`: an answer becomes a response: body, provenance, caching
//! * `middleware`: the client's limits, the deadline; compression of streams and pages; security headers; access to the
//!   admin listener
//! * `openapi`: the OpenAPI document and Swagger UI
//! * `cors`: what pages of other origins may read and send
//! * `explorer`: pages for people, at `/`
//! * `routes`: every route of both listeners, and the handlers, one file per route family

pub use self::{
    gateway::{Gateway, Settings},
    limits::client::AddressRules,
    middleware::access::Access,
    numbers::Numbers,
    routes::{PublicRoutes, admin_routes, openapi_json, public_routes},
    server::serve,
};

mod cors;
pub mod counters;
pub mod envelope;
mod explorer;
mod extract;
mod gateway;
mod limits;
mod middleware;
mod negotiation;
mod numbers;
mod openapi;
mod representations;
mod respond;
mod routes;
pub mod server;
mod timing;
mod views;
