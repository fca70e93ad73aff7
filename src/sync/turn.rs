//! Whose turn it is to tell its tip: not everybody's at once, and not always the same; and how long each is waited for.

use std::time::Duration;

use libp2p::PeerId;
use tokio::time::Instant;

/// Peers that are asked for their tips.
const MAX_ASKED: usize = 16;

/// Strangers that are asked every time, because they fail least and answer fastest. The others take turns: speed is no
/// proof of anything, and a crowd of fast ones must not hide an honest one.
const FASTEST: usize = 8;

/// How long the others may take once a peer claims a better chain: there is something to do.
const GRACE: Duration = Duration::from_millis(500);

/// How long they may take once a peer has told any tip, if nobody claims a better chain; and the operator's own peers,
/// and whoever told of a block, in any case. The better chain may be a slow one's, and without it we would count as
/// level. A mute peer holds everything up for so long.
const LONG_GRACE: Duration = Duration::from_secs(3);

/// Until when peers that were asked for their tips are waited for.
pub(super) struct Wait {
    /// Those that the operator trusts, and whoever told of a block.
    favoured: Instant,
    others: Instant,
}

impl Wait {
    /// Nobody has told its tip: they have the time that any answer may take.
    pub fn new(timeout: Duration) -> Self {
        let end = Instant::now() + timeout;
        Self { favoured: end, others: end }
    }

    /// Somebody has told its tip just now. Only the first one who claims a better chain, and the first of all, make a
    /// difference.
    pub fn told(&mut self, is_better: bool) {
        let now = Instant::now();
        let grace = if is_better { GRACE } else { LONG_GRACE };
        self.favoured = self.favoured.min(now + LONG_GRACE);
        self.others = self.others.min(now + grace);
    }

    /// The end of it, with favoured ones among those who have not answered, or without.
    pub fn until(&self, favoured_left: bool) -> Instant {
        if favoured_left { self.favoured } else { self.others }
    }
}

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

    #[test]
    fn who_may_have_the_better_chain_is_waited_for() {
        let left = |wait: &Wait| [true, false].map(|favoured| wait.until(favoured) - Instant::now());
        let mut wait = Wait::new(Duration::from_secs(30));
        assert!(left(&wait).iter().all(|left| *left > Duration::from_secs(20)), "nobody has told anything");
        wait.told(false);
        assert!(left(&wait).iter().all(|left| *left > GRACE && *left <= LONG_GRACE), "a level one is no hurry");
        wait.told(true);
        let [favoured, others] = left(&wait);
        assert!(favoured > GRACE && others <= GRACE, "{favoured:?}, {others:?}");
        let before = wait.until(true);
        wait.told(true);
        assert_eq!(wait.until(true), before, "the end comes, however many there are");
        let mut wait = Wait::new(Duration::from_millis(100));
        wait.told(false);
        assert!(left(&wait).iter().all(|left| *left < GRACE), "no longer than any answer may take");
    }
}
