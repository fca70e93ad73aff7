//! What a peer says of its chain, and how that stands to ours.

use serde::Serialize;

use crate::protocol::Ancestor;

/// Longest hash kept of a peer, in characters: the longest that the network's own have is 64.
const MAX_HASH_CHARS: usize = 128;
/// Longest problem kept, in characters.
const MAX_PROBLEM_CHARS: usize = 256;
/// Longest number kept that a peer wrote as text: 2^128 has 39 digits.
const MAX_NUMBER_CHARS: usize = 64;

/// How a peer's chain stands to ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Its tip is ours.
    Same,
    /// Our chain holds its tip.
    Behind,
    /// Its chain extends ours.
    Ahead,
    /// The two part at the common ancestor.
    Forked,
    /// Its genesis is another one.
    OtherGenesis,
    /// Not known yet.
    Unknown,
}

/// What a peer said of its chain when the sync asked last. Claims are the peer's word, and nothing follows from them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct PeerChain {
    /// Hash of its tip.
    pub tip_hash: String,
    /// Index of that block, once it is known; what the peer claims is `claimed_height`.
    #[schema(required)]
    pub tip_index: Option<u64>,
    /// The height that it claims.
    pub claimed_height: u64,
    /// The number of blocks that it claims.
    pub claimed_length: u64,
    /// The work that it claims: a decimal number; null where it does not tell.
    #[schema(required)]
    pub claimed_work: Option<String>,
    /// When it said so, in unix seconds.
    pub at: i64,
    /// How its chain stands to ours.
    pub standing: Standing,
    /// The last block that both chains have, as far as it is known.
    #[schema(required)]
    pub common_ancestor: Option<Ancestor>,
    /// Why its chain could not be put together.
    #[schema(required)]
    pub problem: Option<String>,
}

impl PeerChain {
    /// The same, with texts that are no longer than needed and without control characters: some are a peer's.
    pub(crate) fn bounded(self) -> Self {
        Self {
            tip_hash: bounded(&self.tip_hash, MAX_HASH_CHARS),
            claimed_work: self.claimed_work.map(|work| bounded(&work, MAX_NUMBER_CHARS)),
            common_ancestor: self
                .common_ancestor
                .map(|Ancestor { index, hash }| Ancestor { index, hash: bounded(&hash, MAX_HASH_CHARS) }),
            problem: self.problem.map(|problem| bounded(&problem, MAX_PROBLEM_CHARS)),
            ..self
        }
    }
}

fn bounded(text: &str, chars: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(chars).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_wrote_is_short_and_plain() {
        let long = "\u{1b}[2Jx\n".repeat(1000);
        let chain = PeerChain {
            tip_hash: long.clone(),
            tip_index: None,
            claimed_height: 48,
            claimed_length: 49,
            claimed_work: Some(long.clone()),
            at: 1,
            standing: Standing::OtherGenesis,
            common_ancestor: Some(Ancestor { index: 3, hash: long.clone() }),
            problem: Some(long),
        };
        let json = serde_json::to_value(chain.bounded()).unwrap();
        assert_eq!(json["standing"], "other_genesis");
        for (text, most) in
            [("/tip_hash", 128), ("/claimed_work", 64), ("/common_ancestor/hash", 128), ("/problem", 256)]
        {
            let text = json.pointer(text).unwrap().as_str().unwrap();
            assert_eq!(text.chars().count(), most);
            assert!(!text.contains(['\u{1b}', '\n']), "{text:?}");
        }
    }
}
