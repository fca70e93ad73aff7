//! What a peer did wrong, and how long that counts.

use std::time::{Duration, Instant};

/// After this time an offence counts half.
pub(super) const OFFENCE_HALF_LIFE: Duration = Duration::from_secs(10 * 60);
/// A peer with this score or more is shunned.
pub(super) const SHUNNED_FROM: f64 = 50.0;
/// A peer that reaches this score by something provable is refused until it is no longer shunned.
pub(super) const BANNED_FROM: f64 = 200.0;

/// Something that a peer did wrong. Each adds to its score, which halves every ten minutes; from 50 on it is shunned.
/// Who reaches 200 by an invalid block or a broken answer is banned: disconnected, and refused until the score is below 50
/// again, unless the operator trusts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offence {
    /// It sent a block that breaks a rule. Adds 200: banned for 20 minutes.
    InvalidBlock,
    /// Its answer is none, or not to what was asked. Adds 100: shunned for 10 minutes.
    BrokenAnswer,
    /// It did not answer, or too late. Adds 5: it takes more than ten in a row, for a slow peer means no harm.
    Unreliable,
}

impl Offence {
    /// Its name in snake case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidBlock => "invalid_block",
            Self::BrokenAnswer => "broken_answer",
            Self::Unreliable => "unreliable",
        }
    }

    /// The offence of this name; `None` for what is none any more, such as the `false_claim` of earlier releases.
    pub(super) fn named(name: &str) -> Option<Self> {
        const ALL: [Offence; 3] = [Offence::InvalidBlock, Offence::BrokenAnswer, Offence::Unreliable];
        ALL.into_iter().find(|offence| offence.as_str() == name)
    }

    /// Whether it can be nobody else's fault, nor chance.
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

/// A sum that halves with time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fading(Option<(f64, Instant)>);

impl Fading {
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
    sum: Fading,
    banned_until: Option<Instant>,
    pub count: u64,
    pub latest: Option<Offence>,
}

impl Offences {
    /// Returns whether this is the one too many.
    pub fn add(&mut self, offence: Offence, now: Instant) -> bool {
        self.sum.add(offence.weight(), now, OFFENCE_HALF_LIFE);
        self.count += 1;
        self.latest = Some(offence);
        let score = self.score(now);
        if score < BANNED_FROM || !offence.is_provable() {
            return false;
        }
        let fades = OFFENCE_HALF_LIFE.mul_f64((score / SHUNNED_FROM).log2());
        self.ban(now + fades, now);
        true
    }

    /// Refused until then at least.
    pub fn ban(&mut self, until: Instant, now: Instant) {
        self.banned_until = Some(self.banned_until(now).map_or(until, |before| before.max(until)));
    }

    /// A score and more, remembered from an earlier run.
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
