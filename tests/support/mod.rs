//! What several test programs share.

#![allow(dead_code, reason = "each test program uses its own part of this")]

pub mod bytes_codec;
pub mod chain;
pub mod clock;
pub mod cluster;
pub mod disk;
pub mod follower;
pub mod gateway;
pub mod hole;
pub mod html;
pub mod linked;
pub mod listeners;
pub mod peer;
pub mod pgbouncer;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod python;
pub mod relay;
pub mod serving;
pub mod simulator;
pub mod until;
