//! `/events`: the log of the chain, blocks in it, other topics, and those who follow.

mod support;

#[path = "events/blocks.rs"]
mod blocks;
#[path = "events/browser.rs"]
mod browser;
#[path = "events/followers.rs"]
mod followers;
#[path = "events/log.rs"]
mod log;
#[path = "events/schemas.rs"]
mod schemas;
#[path = "events/slow.rs"]
mod slow;
#[path = "events/stream.rs"]
mod stream;
#[path = "events/subscribers.rs"]
mod subscribers;
#[path = "events/topics.rs"]
mod topics;
