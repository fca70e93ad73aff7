//! The documentation: its examples are run, and what it names is there.

mod support;

#[path = "docs/commands.rs"]
mod commands;
#[path = "docs/demo.rs"]
mod demo;
#[path = "docs/examples.rs"]
mod examples;
#[path = "docs/names.rs"]
mod names;
#[path = "docs/pages.rs"]
mod pages;
#[path = "docs/pattern.rs"]
mod pattern;
