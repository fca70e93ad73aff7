//! Blocks as CSV (RFC 4180): a line of names, then one line a block.

use csv::{Terminator, Writer, WriterBuilder};

use super::MinerBlock;

/// The names of the columns: the members of a block's JSON, in the same order.
const COLUMNS: [&str; 20] = [
    "hash",
    "index",
    "epoch",
    "timestamp",
    "previous_hash",
    "data_hash",
    "nonce",
    "difficulty",
    "target_difficulty",
    "actualized_difficulty",
    "nominated_peer_id",
    "miner_number",
    "is_canonical",
    "is_orphaned",
    "seen_at",
    "orphaned_at",
    "orphan_reason",
    "height_at_time",
    "competing_hash",
    "deviations",
];

impl MinerBlock {
    /// The line of names, with its end.
    pub fn csv_header() -> String {
        written(|writer| writer.write_record(COLUMNS))
    }

    /// One line for each block, with its end. Numbers are in decimal and exact, an absent value is empty, as is an
    /// empty text, and deviations are separated by spaces. Texts are as they are: a program that takes a cell for a
    /// formula may be misled by them.
    pub fn csv_lines<'a>(blocks: impl IntoIterator<Item = &'a Self>) -> String {
        written(|writer| blocks.into_iter().try_for_each(|block| writer.write_record(block.csv_fields())))
    }

    fn csv_fields(&self) -> [String; COLUMNS.len()] {
        fn optional(value: Option<impl ToString>) -> String {
            value.map(|value| value.to_string()).unwrap_or_default()
        }
        let deviations: Vec<&str> = self.deviations.iter().map(|deviation| deviation.as_str()).collect();
        [
            self.hash.clone(),
            self.index.to_string(),
            self.epoch.to_string(),
            self.timestamp.to_string(),
            self.previous_hash.clone(),
            self.data_hash.clone(),
            self.nonce.to_string(),
            self.target_difficulty.to_string(),
            self.target_difficulty.to_string(),
            self.actualized_difficulty.to_string(),
            self.nominated_peer_id.clone(),
            self.miner_number.to_string(),
            self.is_canonical.to_string(),
            self.is_orphaned.to_string(),
            optional(self.seen_at),
            optional(self.orphaned_at),
            optional(self.orphan_reason.as_ref()),
            optional(self.height_at_time),
            optional(self.competing_hash.as_ref()),
            deviations.join(" "),
        ]
    }
}

fn written(write: impl FnOnce(&mut Writer<Vec<u8>>) -> csv::Result<()>) -> String {
    let mut writer = WriterBuilder::new().terminator(Terminator::CRLF).from_writer(Vec::new());
    // Writing to memory can't fail, records all have as many fields, and text stays text.
    let _ = write(&mut writer);
    String::from_utf8(writer.into_inner().unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Deviation;

    fn extreme() -> MinerBlock {
        MinerBlock {
            hash: "a,b".into(),
            index: u64::MAX,
            timestamp: i64::MIN,
            previous_hash: "two\r\nlines".into(),
            data_hash: "a \"quote\"".into(),
            nonce: u128::MAX,
            target_difficulty: 7,
            actualized_difficulty: u128::MAX,
            nominated_peer_id: "=1+1 \u{1F980}".into(),
            miner_number: u64::MAX,
            is_orphaned: true,
            seen_at: Some(i64::MAX),
            orphan_reason: Some("slower".into()),
            height_at_time: Some(0),
            deviations: vec![Deviation::Schedule, Deviation::Timestamp],
            ..MinerBlock::default()
        }
    }

    #[test]
    fn a_block_is_a_line_of_rfc_4180() {
        let expected = "\"a,b\",18446744073709551615,0,-9223372036854775808,\"two\r\nlines\",\"a \"\"quote\"\"\",\
                        340282366920938463463374607431768211455,7,7,340282366920938463463374607431768211455,\
                        =1+1 \u{1F980},18446744073709551615,false,true,9223372036854775807,,slower,0,,\
                        schedule timestamp\r\n";
        assert_eq!(MinerBlock::csv_lines([&extreme()]), expected);
        assert_eq!(MinerBlock::csv_lines([]), "");
    }

    #[test]
    fn the_columns_are_the_members_in_their_order() {
        let json = extreme().to_json();
        let places: Vec<_> = COLUMNS.iter().map(|name| json.find(&format!("\"{name}\":"))).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?}");
        let members: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&json).unwrap();
        assert_eq!(members.len(), COLUMNS.len());
        assert_eq!(MinerBlock::csv_header(), COLUMNS.join(",") + "\r\n");
    }

    #[test]
    fn every_field_comes_back() {
        let block = extreme();
        let text = MinerBlock::csv_header() + &MinerBlock::csv_lines([&block, &MinerBlock::default()]);
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let records: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
        assert_eq!(records.len(), 2);
        assert!(records[0].iter().eq(block.csv_fields().iter().map(String::as_str)));
    }
}
