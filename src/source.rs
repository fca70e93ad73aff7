//! The one place where a question is answered: from the local store, from a peer, or from whichever knows.
//!
//! Both doors, HTTP and libp2p, hand the same typed query in and get the same bytes out.
//!
//! * `dispatch`: [`Source`]: who answers
//! * `local`: [`LocalSource`]: answers from the store, encoded once and cached; libp2p answers from it
//! * `store_answers`: one answer out of reads of the store
//! * `peer`: one answer out of a peer's
//! * `answer`: an encoded answer, and where it comes from
//! * `events`: what becomes of the chain
//! * `cost`: how long an answer may become
//! * [`job`]: the sync's jobs and its state, as the store keeps them

mod answer;
mod cost;
mod dispatch;
mod events;
pub mod job;
mod local;
mod peer;
mod store_answers;

pub use answer::{Answerer, Declined, Origin, Served};
pub use dispatch::{Figures, Source};
pub use events::{Cursor, MalformedCursor, News};
pub use local::{LocalSource, Settings, in_time};
pub use peer::parsed;

#[cfg(test)]
mod tests;
