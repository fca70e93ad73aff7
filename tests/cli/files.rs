//! `import` and `export`.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::Path,
    process::{Command, Stdio},
};

use modal_gateway::chain::MinerBlock;
use rstest::rstest;
use serde_json::{Value, json};

use crate::{
    Lines, OTHER_NETWORK, Outcome, TIP, WorkDir, edit, fixture, fixture_lines, joined, support::cluster::Cluster,
};

#[test]
fn import_is_idempotent_and_export_gives_it_back() {
    let dir = WorkDir::new();
    let first = dir.import(&fixture()).ok();
    let expected = format!("imported 61 blocks (0 already there, 0 orphans), tip 60 {TIP}, verified to linked\n");
    assert_eq!((first.stderr, first.stdout), (expected, vec![]));
    let again = dir.import(&fixture()).ok().stderr;
    assert!(again.starts_with("imported 0 blocks (61 already there, 0 orphans), tip 60"), "{again}");

    let exported = dir.run(["export", "-"]).ok();
    assert_eq!(exported.stderr, format!("exported 61 blocks, tip 60 {TIP}\n"));
    assert!(exported.stdout.split(|byte| *byte == b'\n').count() == 63, "61 blocks, the record, the end");
    dir.run(["export", "chain.ndjson"]).ok();
    assert_eq!(fs::read(dir.path("chain.ndjson")).unwrap(), exported.stdout);

    let other = WorkDir::new();
    other.import(&dir.path("chain.ndjson")).ok();
    assert_eq!(other.run(["export", "-"]).ok().stdout, exported.stdout);
}

#[test]
fn blocks_as_long_as_gossip_carries_come_back_from_a_file() {
    let mut lines = fixture_lines();
    for (line, nominee) in [(3, "n".repeat(60_000)), (4, "\0".repeat(10_000)), (5, "a\0b".into())] {
        lines[line] = edit(&lines[line], "nominated_peer_id", nominee.into());
    }
    let dir = WorkDir::new();
    let file = dir.write("long.ndjson", joined(&lines));
    dir.import_to("none", &file).ok();
    let exported = dir.run(["export", "-"]).ok().stdout;
    assert!(exported.windows(6).any(|text| text == b"\\u0000"));
    let file = dir.write("again.ndjson", &exported);
    let other = WorkDir::new();
    other.import_to("none", &file).ok();
    assert!(other.run(["export", "-"]).ok().stdout == exported);
}

#[test]
fn proof_of_work_is_the_default() {
    let dir = WorkDir::new();
    let lines = fixture_lines();
    let file = dir.write("three.ndjson", joined(&lines[..3]));
    let import = |dir: &WorkDir, file: &Path| dir.run(["import", file.to_str().unwrap(), "--network", "devnet"]);
    let done = import(&dir, &file).ok().stderr;
    assert!(done.contains("imported 3 blocks") && done.contains("verified to pow"), "{done}");
    let other = WorkDir::new();
    let file = other.write("forged.ndjson", joined(&[lines[0].clone(), edit(&lines[1], "nonce", "1".into())]));
    import(&other, &file).fails(1, &["forged.ndjson: line 2: ", "rule `hash`"]);
}

#[test]
fn another_networks_chain_is_refused() {
    for level in ["none", "linked", "pow"] {
        let dir = WorkDir::new();
        dir.write("other.toml", OTHER_NETWORK);
        let outcome = dir.run(["import", fixture().to_str().unwrap(), "--network", "other.toml", "--verify", level]);
        outcome.fails(1, &["line 1: ", "rule `genesis`: the network's genesis has the hash 1138a591"]);
    }
}

#[test]
fn levels_are_reported_as_stored() {
    let dir = WorkDir::new();
    let lines = fixture_lines();
    let file = dir.write("part.ndjson", joined(&lines[..10]));
    let done = dir.import_to("none", &file).ok().stderr;
    assert!(done.ends_with("verified to none\n"), "{done}");
    let done = dir.import_to("linked", &fixture()).ok().stderr;
    assert!(done.starts_with("imported 51 blocks (10 already there"), "{done}");
    assert!(done.ends_with("verified to linked, older blocks to none\n"), "{done}");
}

#[rstest]
#[case::not_json(|l: &mut Lines| l[16] = b"{\"hash\": oops}".to_vec(), &["not a block: hash: expected value (column"])]
#[case::another_object(|l: &mut Lines| l[16] = b"{}".to_vec(), &["not a block: missing field"])]
#[case::truncated(|l: &mut Lines| { let half = l[16].len() / 2; l[16].truncate(half) }, &["not a block: nonce: EOF"])]
#[case::byte_order_mark(|l: &mut Lines| { l[16].splice(0..0, *b"\xef\xbb\xbf"); }, &["byte order mark"])]
#[case::not_utf8(|l: &mut Lines| l[16][20] = 0xff, &["not UTF-8"])]
#[case::too_long(|l: &mut Lines| { let wide = vec![b' '; 600_000]; l[16].splice(1..1, wide); }, &["longer than 524288 bytes"])]
#[case::too_big(|l: &mut Lines| l[16] = edit(&l[16], "orphan_reason", "x".repeat(9000).into()), &["rule `size`"])]
#[case::wrong_link(|l: &mut Lines| l[16] = edit(&l[16], "previous_hash", "00".repeat(32).into()), &["rule `link`"])]
#[case::missing_block(|l: &mut Lines| { l.remove(16); }, &["must ascend by index: expected 16, found 17"])]
#[case::swapped(|l: &mut Lines| l.swap(16, 17), &["must ascend by index: expected 16, found 17"])]
#[case::two_canonical(
    |l: &mut Lines| l[16] = edit(&l[15], "hash", "ab".repeat(32).into()),
    &["two canonical blocks at index 15: an earlier line has 0", "this line has abab"]
)]
#[case::wrong_count(|l: &mut Lines| l[16] = br#"{"count":15,"sha256":"00"}"#.to_vec(), &["record counts 15 blocks, but 16 precede"])]
#[case::wrong_hash(|l: &mut Lines| l[16] = br#"{"count":16,"sha256":"00"}"#.to_vec(), &["has the SHA-256 00, but", "changed"])]
#[case::disagreeing(|l: &mut Lines| l[16] = edit(&l[16], "difficulty", "77".into()), &["difficulty 77 and target_difficulty", "disagree"])]
#[case::gzip(|l: &mut Lines| l[16] = b"\x1f\x8b\x08\0".to_vec(), &["compressed with gzip", "gzip -dc FILE |"])]
#[case::zstd(|l: &mut Lines| l[16] = b"\x28\xb5\x2f\xfd".to_vec(), &["compressed with zstd", "zstd -dc FILE |"])]
#[case::csv(|l: &mut Lines| l[16] = MinerBlock::csv_header().into(), &["CSV, which can't be imported"])]
#[case::array(|l: &mut Lines| l[16] = [vec![b'['], vec![b' '; 600_000], vec![b']']].concat(), &["a JSON array", "jq"])]
#[case::answer(|l: &mut Lines| l[16] = br#"{"ok":true}"#.to_vec(), &["an answer of the API as JSON", "--partial"])]
fn a_broken_line_is_named_and_nothing_is_imported(#[case] spoil: fn(&mut Lines), #[case] texts: &[&str]) {
    let dir = WorkDir::new();
    let mut lines = fixture_lines();
    spoil(&mut lines);
    let file = dir.write("broken.ndjson", joined(&lines));
    dir.import(&file).fails(1, &[&["broken.ndjson: line 17: "], texts].concat());
    assert_eq!(dir.count(), 0);
    dir.import(&fixture()).ok();
}

#[rstest]
#[case("data_hash", json!("00".repeat(32)))]
#[case("data_hash", json!(""))]
#[case("epoch", json!(7))]
#[case("actualized_difficulty", json!("7"))]
fn what_follows_from_other_members_is_computed(#[case] member: &str, #[case] value: Value) {
    let dir = WorkDir::new();
    dir.import(&fixture()).ok();
    let expected = dir.run(["export", "-"]).ok().stdout;
    let other = WorkDir::new();
    let mut lines = fixture_lines();
    lines[16] = edit(&lines[16], member, value);
    other.import(&other.write("other.ndjson", joined(&lines))).ok();
    assert!(other.run(["export", "-"]).ok().stdout == expected);
}

#[test]
fn the_record_is_the_last_line() {
    let dir = WorkDir::new();
    dir.import(&fixture()).ok();
    let mut export = dir.run(["export", "-"]).ok().stdout;
    export.extend_from_slice(b"\n  \n");
    WorkDir::new().import_stdin(&export).ok();
    export.extend_from_slice(&fixture_lines()[0]);
    WorkDir::new().import_stdin(&export).fails(1, &["stdin: line 65: more after the export's record"]);
}

#[test]
fn an_export_that_is_cut_off_is_noticed() {
    let dir = WorkDir::new();
    dir.import(&fixture()).ok();
    let export = dir.run(["export", "-"]).ok().stdout;
    let lines: Lines = export.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    for kept in [1, 30, 61] {
        let other = WorkDir::new();
        let file = other.write("cut.ndjson", joined(&lines[..kept]));
        other.import(&file).fails(1, &["cut.ndjson ends without the record", "--partial"]);
        assert_eq!(other.count(), 0);
        let partial = ["import", "cut.ndjson", "--partial", "--network", "devnet", "--verify", "linked"];
        let done = other.run(partial).ok().stderr;
        assert!(done.starts_with(&format!("imported {kept} block")), "{done}");
    }
}

#[test]
fn an_export_that_is_cut_off_within_a_line_is_noticed() {
    let dir = WorkDir::new();
    dir.import(&fixture()).ok();
    let export = dir.run(["export", "-"]).ok().stdout;
    let ends: Vec<usize> = (0..export.len()).filter(|at| export[*at] == b'\n').map(|at| at + 1).collect();
    for (kept, more) in [(1, 1), (30, 100), (61, 20)] {
        let other = WorkDir::new();
        let file = other.write("cut.ndjson", &export[..ends[kept - 1] + more]);
        other.import(&file).fails(1, &["cut.ndjson ends without the record", "--partial"]);
        assert_eq!(other.count(), 0);
        let partial = ["import", "cut.ndjson", "--partial", "--network", "devnet", "--verify", "linked"];
        let done = other.run(partial).ok().stderr;
        assert!(done.starts_with(&format!("imported {kept} block")), "{done}");
    }
    let other = WorkDir::new();
    other.write("cut.ndjson", &export[..100]);
    other.run(["import", "cut.ndjson", "--partial"]).fails(1, &["cut.ndjson: line 1: not a block"]);
}

#[test]
fn an_export_keeps_mode_and_owner_of_the_file_that_it_replaces() {
    let dir = WorkDir::new();
    dir.import(&fixture()).ok();
    let of = |file: &fs::Metadata| (format!("{:o}", file.mode() & 0o7777), file.uid(), file.gid());
    for old in [0o600, 0o664] {
        let file = dir.write("out.ndjson", "old");
        // Root alone may give a file away: other users see that their own files remain so.
        let _ = chown(&file, Some(65534), Some(65533));
        fs::set_permissions(&file, fs::Permissions::from_mode(old)).unwrap();
        let before = of(&fs::metadata(&file).unwrap());
        dir.run(["export", "out.ndjson"]).ok();
        assert_eq!(of(&fs::metadata(&file).unwrap()), before);
        assert_eq!(before.0, format!("{old:o}"));
    }
}

/// Reads of the store for each of them took longer than to import them anew.
#[tokio::test(flavor = "multi_thread")]
async fn blocks_that_are_there_cost_no_round_trip_each() {
    let (dir, cluster, file) = (WorkDir::new(), Cluster::start(), fixture());
    let url = cluster.url(cluster.address, "postgres") + "?options[log_statement]=all";
    let import = || {
        let before = cluster.log().len();
        let args = ["import", file.to_str().unwrap(), "--network", "devnet", "--verify", "linked"];
        let done = dir.run(args.iter().chain(&["--database-url", &url])).ok().stderr;
        (done, cluster.log()[before..].matches(" execute ").count())
    };
    import();
    let (done, statements) = import();
    assert!(done.starts_with("imported 0 blocks (61 already there"), "{done}");
    assert!((1..30).contains(&statements), "{statements} statements");
}

#[test]
fn a_block_given_twice_is_counted() {
    let dir = WorkDir::new();
    let mut lines = fixture_lines();
    lines.insert(17, lines[16].clone());
    lines.insert(0, b"".to_vec());
    lines.extend(fixture_lines());
    let done = dir.import_stdin(&joined(&lines)).ok().stderr;
    assert!(done.starts_with("imported 61 blocks (0 already there, 0 orphans, 62 duplicates), tip 60"), "{done}");
    assert_eq!(dir.count(), 61);
}

#[test]
fn another_chain_is_refused() {
    let dir = WorkDir::new();
    let lines = fixture_lines();
    dir.import_stdin(&joined(&lines[..30])).ok();
    let other = joined(&[edit(&lines[20], "hash", "ab".repeat(32).into())]);
    let texts = ["stdin: line 1: two canonical blocks at index 20: the store has 0", "this line has abab"];
    dir.import_stdin(&other).fails(1, &texts);
    dir.import_stdin(&joined(&lines[40..])).fails(1, &["line 1: ", "ends before index 30", "can't go on at 40"]);
    dir.import_stdin(&joined(&lines[30..])).ok();
    assert_eq!(dir.count(), 61);
}

#[test]
fn orphans_are_kept_beside_the_chain() {
    let dir = WorkDir::new();
    let mut lines = fixture_lines();
    let orphan = edit(&lines[20], "hash", "ab".repeat(32).into());
    let orphan = edit(&edit(&orphan, "is_canonical", false.into()), "is_orphaned", true.into());
    lines.insert(21, orphan);
    let done = dir.import_stdin(&joined(&lines)).ok().stderr;
    assert!(done.starts_with("imported 61 blocks (0 already there, 1 orphans), tip 60"), "{done}");
    let again = dir.import_stdin(&joined(&lines)).ok().stderr;
    assert!(again.starts_with("imported 0 blocks (62 already there, 0 orphans), tip 60"), "{again}");
    assert_eq!(dir.count(), 61);
}

#[test]
fn an_empty_file_is_refused_and_the_export_of_an_empty_store_is_not() {
    let dir = WorkDir::new();
    for nothing in [&b""[..], b"\n \r\n"] {
        dir.import_stdin(nothing).fails(1, &["stdin is empty", "closing record", "--partial"]);
    }
    let file = dir.write("empty", "");
    dir.import(&file).fails(1, &["empty is empty"]);
    let done = dir.run(["import", "--partial", "--verify", "linked", file.to_str().unwrap()]).ok().stderr;
    assert_eq!(done, "imported 0 blocks (0 already there, 0 orphans), the chain is empty\n");
    let export = dir.run(["export", "-"]).ok().stdout;
    let empty = r#"{"count":0,"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}"#;
    assert_eq!(String::from_utf8(export.clone()).unwrap(), format!("{empty}\n"));
    dir.import_stdin(&export).ok();
}

#[test]
fn an_interrupted_import_imports_nothing() {
    let dir = WorkDir::new();
    let mut command = dir.command(["import", "-", "--network", "devnet", "--verify", "linked"]);
    command.env("RUST_LOG", "modal_gateway=debug").stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&fs::read(fixture()).unwrap()).unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(stderr.any(|line| line.contains("transaction begun")));
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(stderr.last().as_deref(), Some("error: interrupted"));
    drop(stdin);
    assert_eq!(dir.count(), 0);
}

#[test]
fn an_import_without_blocks_does_not_block_other_writers() {
    let dir = WorkDir::new();
    let mut command = dir.command(["import", "-", "--network", "devnet", "--verify", "linked"]);
    command.env("RUST_LOG", "modal_gateway=debug").stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"\n").unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(stderr.any(|line| line.contains("the store is open")));
    dir.import(&fixture()).ok();
    stdin.write_all(&fs::read(fixture()).unwrap()).unwrap();
    drop(stdin);
    let said = stderr.last().unwrap();
    assert!(said.starts_with("imported 0 blocks (61 already there, 0 orphans), tip 60"), "{said}");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn an_export_is_whole_or_not_there() {
    let dir = WorkDir::new();
    dir.run(["export", "out.ndjson"]).fails(1, &["the store does not exist", "modal-gateway.db"]);
    assert_eq!(fs::read_dir(dir.0.path()).unwrap().count(), 0, "neither a store nor an output");
    dir.import(&fixture()).ok();
    dir.run(["export", "nowhere/out.ndjson"]).fails(1, &["nowhere/out.ndjson: ", "No such file"]);
    dir.run(["export", "/dev/null"]).ok();
    let old = dir.write("out.ndjson", "old");
    dir.run(["export", "out.ndjson"]).ok();
    assert!(fs::read(old).unwrap().starts_with(b"{\"hash\""));
    let left = fs::read_dir(dir.0.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(".modal-gateway-export"));
    assert_eq!(left.count(), 0);
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let dir = WorkDir::new();
    dir.import(&fixture()).ok();
    for args in [&["export", "-"][..], &["openapi"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let outcome = Outcome::from(dir.command(args).stdout(writer).output().unwrap()).ok();
        assert_eq!(outcome.stderr, "");
    }
}

#[test]
fn a_file_of_another_network_names_the_network() {
    let dir = WorkDir::new();
    dir.write("other.toml", OTHER_NETWORK);
    let file = fixture();
    let import = ["import", file.to_str().unwrap(), "--network", "other.toml", "--verify", "linked"];
    dir.run(import).fails(1, &["rule `genesis`", "this one is the genesis of the network `devnet`"]);
}
