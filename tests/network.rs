//! The gateway on a network of real nodes, as far as a simulator of them goes: what they tell, how messy their stores
//! are, and how little it takes to knock one of them off the network.

mod support;

#[path = "network/genesis.rs"]
mod genesis;
#[path = "network/harm.rs"]
mod harm;
#[path = "network/inputs.rs"]
mod inputs;
#[path = "sync/node.rs"]
mod node;
#[path = "network/one_network.rs"]
mod one_network;
#[path = "network/recordings.rs"]
mod recordings;
#[path = "network/simulated.rs"]
mod simulated;
#[path = "network/testnet.rs"]
mod testnet;
#[path = "network/world.rs"]
mod world;
