//! `import` on a network with an assume-valid block.

use std::io::Write;

use crate::{Outcome, TIP, WorkDir, edit, fixture, fixture_lines, joined, process::program};

/// The network of the fixtures, whose chain has this work at block 50.
fn network(work: u64) -> String {
    format!(
        "name = 'devnet'\ninitial_difficulty = 1\ntarget_block_time = 10\npublic = false\n\
         genesis_hash = '63dc2d1c29cfed7824b8696e63e2105d6929aff382e7e03c738989d170087e60'\n[assume_valid]\n\
         index = 50\nhash = '00d68d3d92e99250f77620ff979bbf68050fb713d27ad8bcfe1af03d79713ea5'\nwork = {work}\n"
    )
}

fn import(dir: &WorkDir, more: &[&str]) -> Outcome {
    dir.run([&["import", "chain.ndjson", "--network", "assumed.toml"], more].concat())
}

/// What is left to be verified, as the store has it for `/status`.
async fn left(dir: &WorkDir) -> serde_json::Value {
    let note = sqlx::query_scalar::<_, String>("SELECT value FROM note WHERE key = 'assume_valid'");
    let note = note.fetch_one(&mut dir.database().await).await.unwrap();
    serde_json::from_str::<serde_json::Value>(&note).unwrap()["blocks_left"].clone()
}

#[tokio::test]
async fn an_export_is_there_at_once_and_raised_by_verify() {
    let dir = WorkDir::new();
    dir.import(&fixture()).ok();
    dir.run(["export", "chain.ndjson"]).ok();
    let dir = {
        let other = WorkDir::new();
        other.write("chain.ndjson", std::fs::read(dir.path("chain.ndjson")).unwrap());
        other
    };
    dir.write("assumed.toml", network(761));
    let done = import(&dir, &[]).ok().stderr;
    let expected = "verified to pow, 51 assumed blocks to linked for now (see `assume_valid`)\n";
    assert_eq!(done, format!("imported 61 blocks (0 already there, 0 orphans), tip 60 {TIP}, {expected}"));
    assert_eq!(left(&dir).await, 51);
    let said = dir.run(["verify", "--network", "assumed.toml"]).ok().stderr;
    assert_eq!(said, format!("verified 61 blocks to pow, tip 60 {TIP}, raised the level of 51\n"));
    assert_eq!(left(&dir).await, 0);
}

#[test]
fn a_file_without_the_block_is_verified_in_full() {
    // The nonce of block 3 is forged: only the proof of work shows that.
    let mut lines = fixture_lines();
    lines[3] = edit(&lines[3], "nonce", "1".into());
    let dir = WorkDir::new();
    dir.write("chain.ndjson", joined(&lines));
    dir.write("assumed.toml", network(762));
    import(&dir, &[]).fails(1, &["chain.ndjson: line 4: ", "rule `hash`"]);
    dir.write("assumed.toml", network(761));
    import(&dir, &["--assume-valid", "false"]).fails(1, &["chain.ndjson: line 4: ", "rule `hash`"]);
    assert!(import(&dir, &[]).ok().stderr.contains("51 assumed blocks to linked"));

    // It ends before the block, or can't be read twice.
    let dir = WorkDir::new();
    dir.write("assumed.toml", network(761));
    dir.write("chain.ndjson", joined(&lines[..20]));
    import(&dir, &[]).fails(1, &["chain.ndjson: line 4: ", "rule `hash`"]);
    let mut piped = program(dir.0.path(), ["import", "-", "--network", "assumed.toml"]);
    let piped = piped.stdin(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut piped = piped.spawn().unwrap();
    // It may stop reading early.
    let _ = piped.stdin.take().unwrap().write_all(&joined(&lines));
    Outcome::from(piped.wait_with_output().unwrap()).fails(1, &["stdin: line 4: ", "rule `hash`"]);
    dir.write("chain.ndjson", joined(&fixture_lines()[..3]));
    let done = import(&dir, &[]).ok().stderr;
    assert!(done.contains("imported 3 blocks") && done.ends_with("verified to pow\n"), "{done}");
}
