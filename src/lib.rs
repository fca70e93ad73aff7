//! modal-gateway: an HTTP/JSON gateway to the Modality network's miner blocks. (map written by the integrator)
#![deny(missing_docs)]
#![forbid(unsafe_code)]

pub mod chain;
pub mod store;
