//! Whole gateways: real listeners, real swarms, both stores.

mod support;

#[path = "gateway/access_log.rs"]
mod access_log;
#[path = "gateway/assumed.rs"]
mod assumed;
#[path = "gateway/bad_input.rs"]
mod bad_input;
#[path = "gateway/caching.rs"]
mod caching;
#[path = "gateway/chain.rs"]
mod chain;
#[path = "gateway/compressed.rs"]
mod compressed;
#[path = "gateway/conformance.rs"]
mod conformance;
#[path = "gateway/csv.rs"]
mod csv;
#[path = "gateway/failures.rs"]
mod failures;
#[path = "gateway/freshness.rs"]
mod freshness;
#[path = "gateway/headers.rs"]
mod headers;
#[path = "gateway/interop.rs"]
mod interop;
#[path = "gateway/long_blocks.rs"]
mod long_blocks;
#[path = "gateway/messy.rs"]
mod messy;
#[path = "gateway/metrics.rs"]
mod metrics;
#[path = "gateway/numbers.rs"]
mod numbers;
#[path = "gateway/price.rs"]
mod price;
#[path = "gateway/program.rs"]
mod program;
#[path = "gateway/reorganised.rs"]
mod reorganised;
#[path = "gateway/request_ids.rs"]
mod request_ids;
#[path = "gateway/sync_api.rs"]
mod sync_api;
