//! Whose turn it is to tell its tip: not everybody's at once, and not always the same.

use libp2p::PeerId;

/// Peers that are asked for their tips.
const MAX_ASKED: usize = 16;

/// Strangers that are asked every time, because they fail least and answer fastest. The others take turns: speed is no
/// proof of anything, and a crowd of fast ones must not hide an honest one.
const FASTEST: usize = 8;

/// Those of the candidates, best first, whom to ask: `first` first, then whom the operator trusts, then strangers.
pub(super) fn asked(candidates: Vec<PeerId>, first: Option<PeerId>, trusted: impl Fn(&PeerId) -> bool) -> Vec<PeerId> {
    let mut peers = candidates;
    let is_stranger = |peer: &PeerId| first != Some(*peer) && !trusted(peer);
    // The sort keeps the order of the candidates otherwise.
    peers.sort_by_cached_key(|peer| (first != Some(*peer), is_stranger(peer)));
    let known = peers.iter().take_while(|peer| !is_stranger(peer)).count();
    if let Some(others) = peers.get_mut(known + FASTEST..) {
        fastrand::shuffle(others);
    }
    peers.truncate(MAX_ASKED);
    peers
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn trusted_peers_come_first_and_of_the_strangers_everybody_has_a_turn() {
        let strangers: Vec<_> = (0..40).map(|_| PeerId::random()).collect();
        let own: Vec<_> = (0..2).map(|_| PeerId::random()).collect();
        let candidates = [&strangers[..], &own[..]].concat();
        let ask = |first| asked(candidates.clone(), first, |peer| own.contains(peer));
        let mut seen = HashSet::new();
        for _ in 0..1000 {
            let asked = ask(None);
            assert_eq!(asked.len(), MAX_ASKED);
            assert_eq!((&asked[..2], &asked[2..10]), (&own[..], &strangers[..FASTEST]));
            seen.extend(asked);
        }
        // That one of 32 is never among the 6 of a round is as good as impossible.
        assert_eq!(seen.len(), candidates.len());
        let teller = strangers[39];
        assert_eq!(ask(Some(teller))[..4], [teller, own[0], own[1], strangers[0]]);
        assert_eq!(asked(strangers[..3].to_vec(), None, |_| false), strangers[..3]);
        assert_eq!(asked(own.clone(), None, |_| true), own);
    }
}
