//! The rules about chains against slow, obvious models of them.

use std::cmp::Ordering;

use modal_gateway::chain::{
    CumulativeDifficulty, Locator, Step, Weight,
    difficulty::{actualized, meets},
    schedule::next_difficulty,
};
use ruint::aliases::U512;

use super::input::Input;

/// Two chains that share some blocks: the search finds what a scan finds. And a peer that answers anything.
pub fn locator(data: &[u8]) {
    let mut input = Input(data);
    let (ours, theirs, shared) = (1 + input.u16() % 4096, input.u16() % 4096, input.u16() % 4096);
    let chain = |length: u16, name: u64| -> Vec<u64> {
        (0..length).map(|index| if index < shared { u64::from(index) } else { name + u64::from(index) }).collect()
    };
    let (ours, theirs) = (chain(ours, 1 << 32), chain(theirs, 1 << 33));
    let same = |index: u64| theirs.get(index as usize) == Some(&ours[index as usize]);
    let scan = (0..ours.len() as u64).rev().find(|index| same(*index));
    let found = search(ours.len() as u64 - 1, |asked| asked.iter().copied().find(|index| same(*index)));
    assert_eq!(found, scan);

    let tip = input.u64();
    let mut lies = input;
    let found = search(tip, |asked| match lies.u8() {
        0..64 => None,
        64..192 => Some(asked[usize::from(lies.u8()) % asked.len()]),
        192.. => Some(lies.u64()),
    });
    assert!(found <= Some(tip));
}

/// What a search finds, which ends after few requests.
fn search(tip: u64, mut answer: impl FnMut(&[u64]) -> Option<u64>) -> Option<u64> {
    let (mut locator, mut requests) = (Locator::new(tip), 0);
    loop {
        match locator.next() {
            Step::Found(found) => return found,
            Step::Ask(asked) => {
                assert!((1..=66).contains(&asked.len()) && asked[0] <= tip);
                assert!(asked.is_sorted_by(|a, b| a > b), "{asked:?}");
                locator.answer(answer(&asked));
                requests += 1;
                assert!(requests <= 12, "it has no end");
            }
        }
    }
}

/// Two chains are compared, hashes weighed and difficulties adjusted as the network's description says, in integers of
/// 512 bits.
pub fn fork_choice(data: &[u8]) {
    let mut input = Input(data);
    let (a, b) = (candidate(&mut input), candidate(&mut input));
    // More work, then more blocks, then the lower hash, as a number.
    let number = |candidate: &Candidate| U512::from_str_radix(&candidate.tip_hash, 16).unwrap();
    let model = a.work.cmp(&b.work).then(a.length.cmp(&b.length)).then(number(&b).cmp(&number(&a)));
    let (a_weighs, b_weighs) = (a.weight(), b.weight());
    assert_eq!(a_weighs.cmp(&b_weighs), model);
    assert_eq!(b_weighs.cmp(&a_weighs), model.reverse());
    assert_eq!(a_weighs == b_weighs, model == Ordering::Equal);

    let (hash, difficulty) = (number(&a), input.u128());
    weighed(&a.tip_hash, hash, difficulty);
    let few = hash >> usize::from(input.u16() % 256);
    weighed(&format!("{few:064x}"), few, difficulty >> (input.u8() % 128));

    let (current, first, last) = (input.u128().max(1), input.u64() as i64, input.u64() as i64);
    for (last, time) in [(last, input.u64()), (first.saturating_add((last % 10_000).abs()), 1 + input.u64() % 300)] {
        assert_eq!(next_difficulty(current, first, last, time), adjusted(current, first, last, time));
    }
}

struct Candidate {
    difficulties: Vec<u128>,
    work: U512,
    length: u64,
    tip_hash: String,
}

impl Candidate {
    fn weight(&self) -> Weight {
        let work: CumulativeDifficulty = self.difficulties.iter().copied().sum();
        assert_eq!(work.to_string(), self.work.to_string());
        assert_eq!(work.to_string().parse(), Ok(work));
        Weight { work, length: self.length, tip_hash: self.tip_hash.clone() }
    }
}

fn candidate(input: &mut Input<'_>) -> Candidate {
    // Few and small numbers as often as large ones, for ties.
    let small = input.u8();
    let count = usize::from(input.u8() % 8);
    let difficulties: Vec<u128> =
        (0..count).map(|_| if small & 1 == 0 { input.u8() as u128 % 4 } else { input.u128() }).collect();
    let work = difficulties.iter().fold(U512::ZERO, |sum, difficulty| sum + U512::from(*difficulty));
    let length = if small & 2 == 0 { input.u8() as u64 % 3 } else { input.u64() };
    let hash: [u8; 32] = if small & 4 == 0 { [input.u8() % 3; 32] } else { input.bytes() };
    Candidate { difficulties, work, length, tip_hash: hex::encode(hash) }
}

/// A hash is worth the largest difficulty that it would have met or equalled, at most 2^128 - 1, and meets those whose
/// target is above it.
fn weighed(text: &str, hash: U512, difficulty: u128) {
    let max_target = U512::from(0xffff) << 232;
    let worth = U512::from(actualized(text, 1));
    let most = U512::from(u128::MAX);
    assert!(worth == most || (worth + U512::ONE) * hash > max_target, "{text}: not the largest");
    assert!(worth * hash <= max_target, "{text}: too large");
    let target = if difficulty == 0 { U512::ZERO } else { max_target / U512::from(difficulty) };
    assert_eq!(meets(text, difficulty), hash < target, "{text} at {difficulty}");
}

/// The table of the network's description, line by line.
fn adjusted(current: u128, first: i64, last: i64, block_time: u64) -> u128 {
    let actual = U512::from((i128::from(last) - i128::from(first)).max(1) as u128);
    let expected = U512::from(40) * U512::from(block_time);
    let n = |number: u64| U512::from(number);
    let current = n(1) * U512::from(current);
    let next = if actual * n(1000) < expected * n(125) {
        current * n(8)
    } else if actual * n(100) < expected * n(25) {
        current * n(4)
    } else if actual * n(10) < expected * n(5) {
        current * n(2)
    } else if actual * n(100) < expected * n(75) {
        current * n(3) / n(2)
    } else if actual * n(10) < expected * n(9) {
        current * n(11) / n(10)
    } else if actual > expected * n(2) {
        current / n(2)
    } else if actual * n(10) > expected * n(15) {
        current * n(2) / n(3)
    } else if actual * n(10) > expected * n(11) {
        current * n(9) / n(10)
    } else {
        current
    };
    next.min(U512::from(u128::MAX)).max(n(1)).to::<u128>()
}
