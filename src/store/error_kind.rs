//! Kinds of failures of a store.

use crate::chain::words;

/// Kinds of failures, as the statistics count them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The database, or the SQLite file, is not there.
    Unreachable,
    /// A lock, a connection or memory was not free in time.
    Busy,
    /// The disk is full.
    Full,
    /// The database takes no writes.
    ReadOnly,
    /// The database denies access.
    Denied,
    /// What is stored can't be read.
    Damaged,
    /// The disk fails.
    Io,
    /// Any other.
    Other,
}

words!(ErrorKind {
    Unreachable = "unreachable",
    Busy = "busy",
    Full = "full",
    ReadOnly = "read_only",
    Denied = "denied",
    Damaged = "damaged",
    Io = "io",
    Other = "other",
});
