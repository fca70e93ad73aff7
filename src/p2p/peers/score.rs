//! Offences of peers, and scores that decay with time.

use std::time::{Duration, Instant};

use crate::chain::words;

/// Time after which an offence counts half.
pub(super) const OFFENCE_HALF_LIFE: Duration = Duration::from_secs(10 * 60);
/// Score from which a peer is shunned.
pub(super) const SHUNNED_FROM: f64 = 50.0;
/// Score from which a provable offence bans a peer until it is no longer shunned.
pub(super) const BANNED_FROM: f64 = 200.0;

/// Offence of a peer. It adds to the peer's score, which halves every ten minutes; from 50 on the peer is shunned. A
/// peer that reaches 200 by an invalid block or a broken answer is banned (disconnected, and refused until the score is
/// below 50), unless the operator trusts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offence {
    /// A block that breaks a rule. Adds 200: banned for 20 minutes.
    InvalidBlock,
    /// An answer that can't be parsed or does not match the request. Adds 100: shunned for 10 minutes.
    BrokenAnswer,
    /// No answer in time. Adds 5: only more than ten in a row shun the peer, since a slow peer is not malicious.
    Unreliable,
}

words!(Offence { InvalidBlock = "invalid_block", BrokenAnswer = "broken_answer", Unreliable = "unreliable" });

impl Offence {
    /// Whether it proves misbehaviour of the peer, rather than a fault on the way.
    fn is_provable(self) -> bool {
        matches!(self, Self::InvalidBlock | Self::BrokenAnswer)
    }

    fn weight(self) -> f64 {
        match self {
            Self::InvalidBlock => 200.0,
            Self::BrokenAnswer => 100.0,
            Self::Unreliable => 5.0,
        }
    }
}

/// Sum that halves with time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct DecayingSum(Option<(f64, Instant)>);

impl DecayingSum {
    pub fn at(&self, now: Instant, half_life: Duration) -> f64 {
        let Some((sum, since)) = self.0 else { return 0.0 };
        sum * 0.5f64.powf(now.saturating_duration_since(since).as_secs_f64() / half_life.as_secs_f64())
    }

    pub fn add(&mut self, more: f64, now: Instant, half_life: Duration) {
        self.0 = Some((self.at(now, half_life) + more, now));
    }
}

/// The offences of one peer.
#[derive(Debug, Default)]
pub(super) struct Offences {
    sum: DecayingSum,
    banned_until: Option<Instant>,
    pub count: u64,
    pub latest: Option<Offence>,
}

impl Offences {
    /// Adds an offence. Returns whether it leads to a ban.
    pub fn add(&mut self, offence: Offence, now: Instant) -> bool {
        self.sum.add(offence.weight(), now, OFFENCE_HALF_LIFE);
        self.count += 1;
        self.latest = Some(offence);
        let score = self.score(now);
        if score < BANNED_FROM || !offence.is_provable() {
            return false;
        }
        let duration = OFFENCE_HALF_LIFE.mul_f64((score / SHUNNED_FROM).log2());
        self.ban(now + duration, now);
        true
    }

    /// Refusal until then at least.
    pub fn ban(&mut self, until: Instant, now: Instant) {
        self.banned_until = Some(self.banned_until(now).map_or(until, |before| before.max(until)));
    }

    /// Adds the score, number and name of offences of an earlier run.
    pub fn restore(&mut self, score: f64, count: u64, latest: Option<Offence>, now: Instant) {
        self.sum.add(score, now, OFFENCE_HALF_LIFE);
        self.count += count;
        self.latest = self.latest.or(latest);
    }

    pub fn banned_until(&self, now: Instant) -> Option<Instant> {
        self.banned_until.filter(|until| *until > now)
    }

    pub fn banned(&self, now: Instant) -> bool {
        self.banned_until(now).is_some()
    }

    pub fn score(&self, now: Instant) -> f64 {
        self.sum.at(now, OFFENCE_HALF_LIFE)
    }

    pub fn shunned(&self, now: Instant) -> bool {
        self.score(now) >= SHUNNED_FROM
    }
}
