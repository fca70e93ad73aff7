//! What an import did.

use std::fmt;

use crate::{chain::Level, store::ChainState};

fn blocks(count: u64) -> &'static str {
    if count == 1 { "block" } else { "blocks" }
}

/// What an import did.
#[derive(Debug)]
pub(super) struct Summary {
    pub(super) imported: u64,
    /// Those of them that are verified to `linked` for now, since they are assumed valid.
    pub(super) assumed: u64,
    pub(super) already_there: u64,
    pub(super) orphans: u64,
    pub(super) duplicates: u64,
    /// The level that the imported blocks were verified to.
    pub(super) level: Level,
    /// The chain after the import.
    pub(super) state: ChainState,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { imported, assumed, already_there, orphans, .. } = self;
        write!(f, "imported {imported} {} ({already_there} already there, {orphans} orphans", blocks(*imported))?;
        if self.duplicates > 0 {
            write!(f, ", {} duplicates", self.duplicates)?;
        }
        match (&self.state.tip, self.state.level) {
            (Some(tip), Some(level)) => {
                write!(f, "), tip {} {}, verified to ", tip.index, tip.hash)?;
                match self.imported > 0 && level != self.level {
                    _ if *assumed > 0 => write!(
                        f,
                        "{}, {assumed} {} to {} for now (see `assume_valid`)",
                        self.level,
                        if *assumed == 1 { "assumed block" } else { "assumed blocks" },
                        Level::Linked
                    ),
                    true => write!(f, "{}, older blocks to {level}", self.level),
                    false => write!(f, "{level}"),
                }
            }
            _ => f.write_str("), the chain is empty"),
        }
    }
}
