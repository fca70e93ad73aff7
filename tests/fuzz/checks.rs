//! What must hold of the parsers and of the rules whatever the input: one function for each fuzz target. It panics on a
//! broken promise. Shared by `fuzz/fuzz_targets`, which look for new inputs, and `tests/fuzz.rs`, which runs those
//! known.

mod blocks;
mod chains;
mod frames;
mod gossip;
mod input;
mod messages;
mod queries;

pub use blocks::block_json;
pub use chains::{fork_choice, locator};
pub use frames::frames;
pub use gossip::gossip;
pub use messages::{answer, request};
pub use queries::query;
