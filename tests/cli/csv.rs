//! `export --format csv`.

use std::fs;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{TIP, WorkDir, fixture, fixture_lines};

#[test]
fn a_chain_is_exported_as_csv() {
    let dir = WorkDir::new();
    dir.import(&fixture()).ok();
    let exported = dir.run(["export", "-", "--format", "csv"]).ok();
    let sha256 = hex::encode(Sha256::digest(&exported.stdout));
    assert_eq!(exported.stderr, format!("exported 61 blocks, tip 60 {TIP}, SHA-256 {sha256}\n"));
    let mut reader = csv::Reader::from_reader(&exported.stdout[..]);
    let (names, records) = (reader.headers().unwrap().clone(), reader.into_records());
    let records: Vec<csv::StringRecord> = records.map(Result::unwrap).collect();
    assert_eq!(records.len(), 61);
    let place = |name: &str| names.iter().position(|other| other == name).unwrap();
    for (record, line) in records.iter().zip(fixture_lines()) {
        let block: Value = serde_json::from_slice(&line).unwrap();
        for name in ["hash", "nonce", "nominated_peer_id", "competing_hash"] {
            assert_eq!(record[place(name)], *block[name].as_str().unwrap_or_default(), "{name}");
        }
        assert_eq!(record[place("index")], block["index"].to_string());
    }
    dir.run(["export", "chain.csv", "--format", "csv"]).ok();
    assert_eq!(fs::read(dir.path("chain.csv")).unwrap(), exported.stdout);
    assert_eq!(dir.run(["export", "-", "--format", "ndjson"]).ok().stdout, dir.run(["export", "-"]).ok().stdout);
    dir.run(["import", "chain.csv"]).fails(1, &["chain.csv: line 1: not a block"]);
    let refused = dir.run(["export", "-", "--format", "xml"]);
    assert!(refused.code == 2 && refused.stderr.contains("[possible values: ndjson, csv]"), "{}", refused.stderr);

    let empty = WorkDir::new();
    empty.run(["migrate"]).ok();
    let exported = empty.run(["export", "-", "--format", "csv"]).ok();
    assert!(exported.stdout.starts_with(b"hash,index,") && exported.stdout.ends_with(b",deviations\r\n"));
    assert!(exported.stderr.starts_with("exported 0 blocks, the chain is empty, SHA-256 "), "{}", exported.stderr);
}
