//! The gateway on a network of real nodes, as far as a simulator of them goes: what they tell, how messy their stores are,
//! and how little it takes to knock one of them off the network.

mod support;

#[path = "network/simulated.rs"]
mod simulated;
