//! What the fuzz targets check, over the inputs that are kept in `fuzz/corpus`, over mutations of these, and over
//! inputs as long as the protocol allows, whose time must grow as they do.

use std::{collections::BTreeSet, fs, path::PathBuf, time::Instant};

use proptest::{prelude::*, sample::Index, test_runner::TestRunner};
use rstest::rstest;

#[path = "fuzz/checks.rs"]
mod checks;
#[path = "fuzz/growth.rs"]
mod growth;

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
}

/// Names of the files in a folder, without what follows the dot.
fn names(folder: PathBuf) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

/// The inputs that are kept for a target, by name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = folder("corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.display().to_string(), fs::read(&path).unwrap())).collect()
}

#[rstest]
#[case::answer("answer", checks::answer, 10_000)]
#[case::block_json("block_json", checks::block_json, 10_000)]
#[case::fork_choice("fork_choice", checks::fork_choice, 10_000)]
#[case::frames("frames", checks::frames, 1000)]
#[case::gossip("gossip", checks::gossip, 10_000)]
#[case::locator("locator", checks::locator, 10_000)]
#[case::query("query", checks::query, 10_000)]
#[case::request("request", checks::request, 10_000)]
fn promises_hold(#[case] target: &str, #[case] check: fn(&[u8]), #[case] mutated: u32) {
    let start = Instant::now();
    let corpus = corpus(target);
    assert!(corpus.len() >= 10, "{} inputs are no corpus", corpus.len());
    for (name, input) in &corpus {
        // A panic in here names no file.
        let held = std::panic::catch_unwind(|| check(input));
        assert!(held.is_ok(), "a promise is broken by {name}");
    }
    let (known, inputs): (_, Vec<_>) = (start.elapsed(), corpus.into_iter().map(|(_, input)| input).collect());
    let config = ProptestConfig { cases: mutated, failure_persistence: None, ..ProptestConfig::default() };
    let strategy = (any::<Index>(), prop::collection::vec(mutation(), 1..6)).prop_map({
        let inputs = inputs.clone();
        move |(first, mutations)| mutations.iter().fold(first.get(&inputs).clone(), |bytes, m| m.apply(bytes, &inputs))
    });
    let holds = |input: Vec<u8>| {
        check(&input);
        Ok(())
    };
    TestRunner::new(config).run(&strategy, holds).unwrap_or_else(|broken| panic!("{broken}"));
    eprintln!(
        "{target}: {} inputs in {known:?}, {mutated} mutated ones in {:?}",
        inputs.len(),
        start.elapsed() - known
    );
}

#[test]
fn each_target_has_its_corpus_and_its_program() {
    let corpora = names(folder("corpus"));
    assert_eq!(names(folder("fuzz_targets")), corpora);
    let manifest: toml::Table = fs::read_to_string(folder("Cargo.toml")).unwrap().parse().unwrap();
    let bins = manifest["bin"].as_array().unwrap().iter().map(|bin| bin["name"].as_str().unwrap().to_owned());
    assert_eq!(bins.collect::<BTreeSet<_>>(), corpora);
}

/// One change of an input.
#[derive(Debug, Clone)]
enum Mutation {
    Flip(Index, u8),
    Cut(Index),
    Remove(Index, u8),
    Repeat(Index, u8, u8),
    Insert(Index, &'static [u8]),
    /// A piece of another input.
    Splice(Index, Index, Index, u16),
}

/// What is worth a try anywhere.
const WORDS: [&[u8]; 22] = [
    b"null",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b",",
    b":",
    b"\\",
    b"\\ud800",
    b"\\u0000",
    b"\xff",
    b"\xef\xbb\xbf",
    b"-1",
    b"1e999",
    b"0",
    b"18446744073709551615",
    b"18446744073709551616",
    b"340282366920938463463374607431768211456",
    b"&",
    b"%",
    b"\x28\xb5\x2f\xfd",
];

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        any::<Index>().prop_map(Mutation::Cut),
        (any::<Index>(), any::<u8>()).prop_map(|(at, count)| Mutation::Remove(at, count)),
        (any::<Index>(), any::<u8>(), any::<u8>()).prop_map(|(at, count, times)| Mutation::Repeat(at, count, times)),
        (any::<Index>(), prop::sample::select(&WORDS[..])).prop_map(|(at, word)| Mutation::Insert(at, word)),
        (any::<Index>(), any::<Index>(), any::<Index>(), any::<u16>())
            .prop_map(|(at, other, from, count)| Mutation::Splice(at, other, from, count)),
    ]
}

impl Mutation {
    fn apply(&self, mut bytes: Vec<u8>, others: &[Vec<u8>]) -> Vec<u8> {
        let place = |at: &Index, bytes: &[u8]| at.index(bytes.len() + 1);
        let span = |at: &Index, count: usize, bytes: &[u8]| {
            let from = place(at, bytes);
            from..bytes.len().min(from + count)
        };
        match self {
            Self::Flip(at, bit) if !bytes.is_empty() => *at.get_mut(&mut bytes) ^= 1 << (bit % 8),
            Self::Flip(..) => {}
            Self::Cut(at) => bytes.truncate(place(at, &bytes)),
            Self::Remove(at, count) => drop(bytes.drain(span(at, (*count).into(), &bytes))),
            Self::Repeat(at, count, times) => {
                let span = span(at, (*count).into(), &bytes);
                let repeated = bytes[span.clone()].repeat((*times).into());
                bytes.splice(span.end..span.end, repeated);
            }
            Self::Insert(at, word) => drop(bytes.splice(span(at, 0, &bytes), word.iter().copied())),
            Self::Splice(at, other, from, count) => {
                let other = other.get(others);
                let piece = other[span(from, (*count).into(), other)].to_vec();
                bytes.splice(span(at, 0, &bytes), piece);
            }
        }
        bytes
    }
}
