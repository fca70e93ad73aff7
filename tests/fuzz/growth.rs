//! Long inputs: eight times as much takes about eight times as long. What takes the square takes 64 times.

use std::{fs, hint::black_box, time::Duration};

use rstest::rstest;

use crate::checks;

/// Length of the longer inputs: what a request may have.
const LONG: usize = 1 << 20;
/// How much shorter the others are.
const TIMES: usize = 8;
/// Between linear and quadratic.
const MOST: u32 = 24;
/// The best of so many counts.
const ROUNDS: usize = 5;

/// Time that this thread had a core: what other programs take doesn't count.
fn worked() -> Duration {
    // Brings the account up to date.
    std::thread::yield_now();
    let account = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(account.split(' ').next().unwrap().parse().unwrap())
}

/// A JSON list of one item, again and again.
fn list(item: &str, length: usize) -> String {
    format!("[{}]", vec![item; length / (item.len() + 1)].join(","))
}

fn nested(length: usize) -> String {
    format!("{}{}", "[".repeat(length / 2), "]".repeat(length / 2))
}

/// A block with a member that is that long.
fn block(name: &str, value: &str) -> Vec<u8> {
    let mut block = include_str!("../fixtures/randomx-chain-61.ndjson").lines().nth(1).unwrap().to_owned();
    match block.find(&format!("\"{name}\":")) {
        None => block.insert_str(1, &format!("\"{name}\":{value},")),
        Some(at) => {
            let from = at + name.len() + 3;
            let to = from + block[from..].find([',', '}']).unwrap();
            block.replace_range(from..to, value);
        }
    }
    block.into_bytes()
}

fn ask(path: &str, data: &str) -> Vec<u8> {
    format!(r#"{{"path":"{path}","data":{data}}}"#).into_bytes()
}

fn tell(data: &str) -> Vec<u8> {
    format!(r#"{{"ok":true,"data":{data},"errors":null}}"#).into_bytes()
}

fn body(path: usize, data: &str) -> Vec<u8> {
    [&[path as u8], data.as_bytes()].concat()
}

/// Different names, so that nobody can stop at the first that comes twice.
fn members(length: usize) -> String {
    let members: Vec<String> = (0..length / 12).map(|number| format!("\"{number:07}\":0")).collect();
    format!("{{{}}}", members.join(","))
}

fn text(piece: &str, length: usize) -> String {
    format!("\"{}\"", piece.repeat(length / piece.len()))
}

#[rstest]
#[case::members_of_a_block(checks::block_json, |n| block("other", &members(n)))]
#[case::deviations(checks::block_json, |n| block("deviations", &list("{\"\":0}", n)))]
#[case::a_nested_member(checks::block_json, |n| block("other", &nested(n)))]
#[case::a_long_hash(checks::block_json, |n| block("hash", &text("f", n)))]
#[case::a_hash_of_zeros(checks::block_json, |n| block("hash", &text("0", n)))]
#[case::a_hash_of_escapes(checks::gossip, |n| block("hash", &text("\\u0041", n)))]
#[case::a_long_nonce(checks::block_json, |n| block("nonce", &text("0", n)))]
#[case::a_long_number(checks::block_json, |n| block("index", &"9".repeat(n)))]
#[case::a_nested_request(checks::request, |n| ask("/ping", &nested(n)))]
#[case::members_of_a_request(checks::request, |n| ask("/data/miner_block/epoch", &members(n)))]
#[case::hashes(checks::request, |n| ask("/data/miner_block/chain_info", &format!(r#"{{"local_block_hashes":{}}}"#, list("\"\"", n))))]
#[case::check_points(checks::request, |n| ask("/data/miner_block/find_ancestor", &format!(r#"{{"check_points":{}}}"#, list(r#"{"index":1,"hash":""}"#, n))))]
#[case::no_check_points(checks::query, |n| body(7, &format!(r#"{{"check_points":{}}}"#, list("0", n))))]
#[case::a_body_of_many_members(checks::query, |n| body(4, &members(n)))]
#[case::a_nested_body(checks::query, |n| body(0, &nested(n)))]
#[case::pairs(checks::query, |n| body(0, &(0..n / 1000).map(|number| format!("{number:x}=%41+%41&")).collect::<String>()))]
#[case::matches(checks::answer, |n| tell(&format!(r#"{{"chain_length":1,"matches":{},"highest_match":1,"cumulative_difficulty":"1"}}"#, list(r#"{"index":1,"hash":"","matches":true}"#, n))))]
#[case::work(checks::answer, |n| tell(&format!(r#"{{"cumulative_difficulty":{},"chain_length":1,"chain_height":0}}"#, text("0", n))))]
#[case::an_error_of_a_peer(checks::answer, |n| format!(r#"{{"ok":false,"data":null,"errors":{{"error":{}}}}}"#, text("\\u0007ü", n)).into_bytes())]
#[case::empty_frames(checks::frames, |n| [&[1, 255][..], &[0x28, 0xb5, 0x2f, 0xfd, 0x20, 0, 1, 0, 0].repeat(n / 9)].concat())]
#[case::skipped_frames(checks::frames, |n| [&[1, 255][..], &[0x28, 0xb5, 0x2f, 0xfd, 0x20, 0, 1, 0, 0], &[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0].repeat(n / 8)].concat())]
#[case::pieces(checks::frames, |n| [&[0, 0][..], &vec![b' '; n - 2]].concat())]
fn time_grows_with_the_input(#[case] check: fn(&[u8]), #[case] make: fn(usize) -> Vec<u8>) {
    let (short, long) = (make(LONG / TIMES), make(LONG));
    let time = |input: &[u8]| {
        let start = worked();
        check(black_box(input));
        worked() - start
    };
    let (mut quick, mut slow) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        (quick, slow) = (quick.min(time(&short)), slow.min(time(&long)));
    }
    eprintln!("{} bytes in {quick:?}, {} in {slow:?}", short.len(), long.len());
    // What is refused at its first byte takes no time to speak of.
    assert!(slow < MOST * quick.max(Duration::from_micros(200)), "{slow:?} is more than {MOST} times {quick:?}");
}
