//! `?numbers=`: whether the miner numbers of an answer are JSON numbers or strings. They may be any u64, which many
//! languages can't read from a JSON number.

use crate::{
    chain::words,
    protocol::{Code, Failure},
};

/// The parameter's name.
pub(super) const NAME: &str = "numbers";

/// What stands before a miner number. An unescaped quote before this word and one with a colon behind it make it a
/// member's name, whatever texts the blocks hold; the gateway writes its answers without spaces.
const KEY: &str = r#","miner_number":"#;

/// How miner numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Numbers {
    /// As JSON numbers, like the network.
    #[default]
    Number,
    /// As JSON strings of decimal digits.
    String,
}

words!(Numbers { Number = "number", String = "string" });

impl Numbers {
    /// What a request with this value of the parameter asks for.
    ///
    /// # Errors
    /// [`Code::InvalidParameter`].
    pub(super) fn asked(value: Option<&str>) -> Result<Self, Failure> {
        let invalid = |error: String| Failure::with_detail(Code::InvalidParameter, format!("{NAME}: {error}"));
        value.map_or(Ok(Self::default()), |value| value.parse::<Self>().map_err(invalid))
    }

    /// Writes the miner numbers of an answer, or of the blocks in one, as JSON strings.
    pub(super) fn quoted(json: &str) -> String {
        let mut parts = json.split(KEY);
        let mut out = String::with_capacity(json.len() + json.len() / 256);
        out.push_str(parts.next().unwrap_or_default());
        for part in parts {
            let digits = part.bytes().take_while(u8::is_ascii_digit).count();
            let (number, rest) = part.split_at(digits);
            out.extend([KEY, "\"", number, "\"", rest]);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{chain::MinerBlock, protocol::BlockList};

    #[test]
    fn miner_numbers_become_strings_and_nothing_else_changes() {
        let numbers = [0, 7, (1 << 53) + 1, u64::MAX];
        let misleading = [r#"x,"miner_number":5,"#, ",", r#"\","miner_number":6"#, "miner_number"];
        let blocks: Vec<_> = numbers
            .into_iter()
            .zip(misleading)
            .map(|(miner_number, text)| MinerBlock {
                miner_number,
                nominated_peer_id: text.into(),
                orphan_reason: Some(text.into()),
                ..MinerBlock::default()
            })
            .collect();
        let list = BlockList::of(&blocks).json;
        let quoted: Vec<Value> = serde_json::from_str(&format!("[{}]", Numbers::quoted(&list))).unwrap();
        let mut expected: Vec<Value> = serde_json::from_str(&format!("[{list}]")).unwrap();
        for (block, number) in expected.iter_mut().zip(numbers) {
            block["miner_number"] = json!(number.to_string());
        }
        assert_eq!(quoted, expected);
        assert_eq!(Numbers::quoted(""), "");
    }

    #[test]
    fn other_values_are_refused() {
        assert_eq!("string".parse(), Ok(Numbers::String));
        assert_eq!("number".parse(), Ok(Numbers::Number));
        assert_eq!(Numbers::asked(Some("text")).unwrap_err().code, Code::InvalidParameter);
    }
}
