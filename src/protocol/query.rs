//! One typed query per path, and the one table that joins the two.
//!
//! The [`table`] serves HTTP and libp2p alike: libp2p requests bring `data` as JSON; `GET` requests bring text, which
//! is turned into that JSON by each parameter's kind. [`written`] reads what comes in by HTTP.

mod apart;
pub mod table;
mod typed;
pub mod unique;
pub mod written;

pub use apart::parse_apart;
pub use table::{Kind, PATHS, Parameter, Path, optional, path};
pub use typed::{CheckPoint, Query};
pub use written::{MAX_QUERY_BYTES, check, data_from_text, pairs};

#[cfg(test)]
mod tests;
