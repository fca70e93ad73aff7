//! What a peer did wrong, and how long that counts.

use std::time::{Duration, Instant};

/// After this time an offence counts half.
pub(super) const OFFENCE_HALF_LIFE: Duration = Duration::from_secs(10 * 60);
/// A peer with this score or more is shunned.
pub(super) const SHUNNED_FROM: f64 = 50.0;

/// Something that a peer did wrong. Each adds to its score, which halves every ten minutes; from 50 on it is shunned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offence {
    /// It sent a block that breaks a rule. Adds 200: shunned for 20 minutes.
    InvalidBlock,
    /// Its answer is none, or not to what was asked. Adds 100: shunned for 10 minutes.
    BrokenAnswer,
    /// Its chain is not what it said: less work, or no such block. Adds 30: the second one soon after shuns it.
    FalseClaim,
    /// It did not answer, or too late. Adds 5: it takes more than ten in a row, for a slow peer means no harm.
    Unreliable,
}

impl Offence {
    /// Its name in snake case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidBlock => "invalid_block",
            Self::BrokenAnswer => "broken_answer",
            Self::FalseClaim => "false_claim",
            Self::Unreliable => "unreliable",
        }
    }

    fn weight(self) -> f64 {
        match self {
            Self::InvalidBlock => 200.0,
            Self::BrokenAnswer => 100.0,
            Self::FalseClaim => 30.0,
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
    pub count: u64,
    pub latest: Option<Offence>,
}

impl Offences {
    pub fn add(&mut self, offence: Offence, now: Instant) {
        self.sum.add(offence.weight(), now, OFFENCE_HALF_LIFE);
        self.count += 1;
        self.latest = Some(offence);
    }

    pub fn score(&self, now: Instant) -> f64 {
        self.sum.at(now, OFFENCE_HALF_LIFE)
    }

    pub fn shunned(&self, now: Instant) -> bool {
        self.score(now) >= SHUNNED_FROM
    }
}
