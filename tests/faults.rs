//! Databases that fail, for real, under a gateway that is asked, followed and fed all the while: no answer is a 500,
//! none takes long, it comes back by itself, no event is lost or told twice, and nothing is written twice.

mod support;

#[path = "faults/calls.rs"]
mod calls;
#[path = "faults/load.rs"]
mod load;
#[path = "faults/mining.rs"]
mod mining;
#[path = "faults/postgres.rs"]
mod postgres;
#[path = "faults/program.rs"]
mod program;
#[path = "faults/sqlite.rs"]
mod sqlite;
#[path = "faults/stream.rs"]
mod stream;
#[path = "faults/world.rs"]
mod world;
