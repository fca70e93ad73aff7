//! What makes one network differ from another.

use serde::{Deserialize, Serialize};

use super::{block::EpochNumbering, pow::PowAlgorithm};

/// A network's rules. Every field has the public network's value as its default, so that a settings file names only
/// what differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// Name for people; nothing depends on it. Default: `modality`.
    pub name: String,
    /// How a header becomes a hash. Default: RandomX with the network's key.
    pub pow: PowAlgorithm,
    /// How epochs are numbered. Default: genesis first.
    pub epoch_numbering: EpochNumbering,
    /// Hash of the only genesis that is accepted. Without it, which is the default, any genesis is whose previous hash
    /// is `0`; networks whose genesis looks otherwise must give its hash.
    pub genesis_hash: Option<String>,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            name: "modality".into(),
            pow: PowAlgorithm::default(),
            epoch_numbering: EpochNumbering::default(),
            genesis_hash: None,
        }
    }
}
