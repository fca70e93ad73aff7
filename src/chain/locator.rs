//! The search for the last block that two chains share.

/// Indexes asked for at once while the search narrows down.
const POINTS: u64 = 64;

/// What a [`Locator`] wants next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask the peer which of these indexes, descending and at most 66, it has the same block at as we.
    Ask(Vec<u64>),
    /// The highest index at which both chains have the same block; `None`: not even genesis.
    Found(Option<u64>),
}

/// A search for the highest index at which a peer has the same block as we. It does no I/O: its owner asks the peer.
///
/// Chains that share a block share all before it, so that an honest peer's answers are those of a threshold. The first
/// request goes back from our tip in strides that double, which finds recent forks at once; each further one divides
/// the gap that is left by 65. A chain of 100,000 blocks takes at most four. Each answer shrinks the gap, also a
/// false one: the search ends.
#[derive(Debug, Clone)]
pub struct Locator {
    /// All indexes below this one are shared.
    shared: u64,
    /// Neither this index nor any above it is shared.
    unshared: u64,
    /// Whether nothing was asked yet.
    first: bool,
}

impl Locator {
    /// A search on a chain of ours that ends at the index `tip`.
    pub fn new(tip: u64) -> Self {
        Self { shared: 0, unshared: tip.saturating_add(1), first: true }
    }

    /// What to do now. The same until [`answer`](Self::answer) is called.
    pub fn next(&self) -> Step {
        let gap = self.unshared - self.shared;
        if gap == 0 {
            return Step::Found(self.shared.checked_sub(1));
        }
        Step::Ask(if self.first {
            let back = (0..u64::BITS).map_while(|doublings| self.unshared.checked_sub(1 << doublings));
            back.filter(|index| *index > 0).chain([0]).collect()
        } else if gap <= POINTS {
            (self.shared..self.unshared).rev().collect()
        } else {
            let part = |number| u128::from(gap) * u128::from(number) / u128::from(POINTS + 1);
            (1..=POINTS).rev().map(|number| self.shared + part(number) as u64).collect()
        })
    }

    /// Takes the peer's answer to what [`next`](Self::next) asks: the highest of the indexes at which it has the same
    /// block. An index that was not asked counts as the next lower one that was.
    pub fn answer(&mut self, highest_match: Option<u64>) {
        let Step::Ask(asked) = self.next() else { return };
        let matches = |index: &&u64| highest_match.is_some_and(|highest| **index <= highest);
        if let Some(lowest) = asked.iter().rev().find(|index| !matches(index)) {
            self.unshared = *lowest;
        }
        if let Some(highest) = asked.iter().find(matches) {
            self.shared = highest + 1;
        }
        self.first = false;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Runs a search to its end; the peer's answers are `say`'s. What was found, and the number of requests.
    fn search(tip: u64, mut say: impl FnMut(&[u64]) -> Option<u64>) -> (Option<u64>, u32) {
        let (mut locator, mut requests) = (Locator::new(tip), 0);
        loop {
            match locator.next() {
                Step::Found(found) => return (found, requests),
                Step::Ask(asked) => {
                    assert!(asked.len() <= 66 && asked.is_sorted_by(|a, b| a > b) && asked[0] <= tip, "{asked:?}");
                    locator.answer(say(&asked));
                    requests += 1;
                }
            }
        }
    }

    /// A peer that shares the blocks up to `shared`.
    fn honest(shared: Option<u64>) -> impl Fn(&[u64]) -> Option<u64> {
        move |asked| asked.iter().copied().find(|index| shared.is_some_and(|shared| *index <= shared))
    }

    #[test]
    fn the_first_request_reaches_back_in_doubling_strides() {
        assert_eq!(Locator::new(0).next(), Step::Ask(vec![0]));
        assert_eq!(Locator::new(1).next(), Step::Ask(vec![1, 0]));
        assert_eq!(Locator::new(100).next(), Step::Ask(vec![100, 99, 97, 93, 85, 69, 37, 0]));
    }

    #[test]
    fn few_requests_do() {
        assert_eq!(search(100_000, honest(Some(100_000))), (Some(100_000), 1));
        assert_eq!(search(100_000, honest(None)), (None, 1));
        for shared in (0..=100_000).step_by(7) {
            let (found, requests) = search(100_000, honest(Some(shared)));
            assert!(found == Some(shared) && requests <= 4, "{shared}: {found:?}, {requests} requests");
            assert!(requests <= 2 || shared < 100_000 - 64, "{shared}: {requests} requests for a recent fork");
        }
    }

    #[test]
    fn any_chain_that_can_be_is_searched() {
        for shared in [None, Some(0), Some(1), Some(u64::MAX / 3), Some(u64::MAX - 1)] {
            assert_eq!(search(u64::MAX, honest(shared)).0, shared);
        }
    }

    proptest! {
        #[test]
        fn it_finds_what_a_scan_finds(tip in 0..3000_u64, shared in proptest::option::of(0..3000_u64)) {
            let scan = (0..=tip).rev().find(|index| shared.is_some_and(|shared| *index <= shared));
            prop_assert_eq!(search(tip, honest(shared)).0, scan);
        }

        #[test]
        fn liars_end_it_too(tip: u64, lies in proptest::collection::vec(any::<Option<u64>>(), 1..50)) {
            let mut lies = lies.into_iter().cycle();
            let (found, requests) = search(tip, |_| lies.next().unwrap());
            prop_assert!(requests <= 12 && found <= Some(tip), "{found:?} after {requests} requests");
        }
    }
}
