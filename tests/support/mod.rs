//! What several test programs share.

pub mod postgres;
pub mod relay;
