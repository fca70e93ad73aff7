//! The verify stage: verifies downloaded blocks in batches, and attributes violations.

use libp2p::PeerId;
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinHandle},
};

use super::{download::Window, plan::Plan};
use crate::{
    chain::{
        AssumeValid, Differences, Header, Level, MinerBlock, Position, PowError, Rule, VerifiedBlocks, Verifier,
        VerifyError, Violation, Weight,
    },
    store::ChainState,
    sync::{failure::SyncFailure, local_chain::weight},
    telemetry::Durations,
};

/// Blocks per batch where only cheap rules apply, and most of a transaction.
pub const BATCH: usize = 1000;

/// Blocks per batch where each takes a proof-of-work hash: little work is lost with an invalid one.
const POW_BATCH: usize = 64;

/// The failure of a thread that has panicked.
pub fn stopped(error: &JoinError) -> SyncFailure {
    tracing::error!(%error, "a stage of the sync has stopped");
    SyncFailure::Stopped
}

/// Computes the hashes of single blocks, on a thread for that; a violation if one is not that of its header.
pub fn verify_hashes(verifier: &Verifier, blocks: Vec<MinerBlock>) -> JoinHandle<Result<(), VerifyError>> {
    let verifier = verifier.clone();
    tokio::task::spawn_blocking(move || blocks.into_iter().try_for_each(|block| verify_hash(&verifier, block)))
}

fn verify_hash(verifier: &Verifier, mut block: MinerBlock) -> Result<(), VerifyError> {
    verifier.derive(std::slice::from_mut(&mut block));
    verifier.verify_hash(&block)
}

/// What the blocks of a plan are verified with, and what they follow.
#[derive(Clone)]
pub struct Rules {
    verifier: Verifier,
    /// The rest of the plan: its parent and work are those of the last verified block.
    rest: Plan,
    /// The peer of the plan.
    lead: PeerId,
    /// The weight of the store's chain.
    ours: Weight,
    /// The weakest level of the blocks before the plan's.
    below: Level,
    /// What may be assumed of the chain.
    assumption: Option<Assumption>,
}

/// The assume-valid block that a chain is said to contain.
#[derive(Clone)]
struct Assumption {
    pin: AssumeValid,
    /// Verifies the blocks up to it.
    verifier: Verifier,
}

impl Rules {
    /// The rules of a plan.
    ///
    /// # Errors
    /// [`PowError`] for settings that can't work.
    pub fn new(verifier: &Verifier, plan: &Plan, lead: PeerId, state: &ChainState) -> Result<Self, PowError> {
        let linked = verifier.at(Level::Linked)?;
        let assumption = plan.assumed.clone().map(|pin| Assumption { pin, verifier: linked });
        let (ours, below) = (weight(state), plan.level_below(state));
        Ok(Self { verifier: verifier.clone(), rest: plan.clone(), lead, ours, below, assumption })
    }

    /// Whether hashes are computed of a branch that may lose.
    fn is_contest(&self) -> bool {
        self.rest.is_branch && self.assumption.is_none() && self.verifier.level() == Level::Pow
    }

    /// Looks at a window of a branch before its hashes are computed. A chain that is worse than its peer claims shows
    /// that without a hash where the window is the last; work that is made up mostly shows in the hash that claims the
    /// most. Blocking.
    fn examine(&self, window: &Window) -> Result<(), Box<SyncFailure>> {
        // Little is lost with fewer. And once their hashes are known, the tip is settled for all peers that have it.
        if window.blocks.len() <= POW_BATCH {
            return Ok(());
        }
        let headers: Vec<_> = window.blocks.iter().map(Header::from).collect();
        // Another peer could make a better chain lose with blocks that are not of it. A violation is found in its
        // place.
        if window.peer == self.lead
            && let Ok((Some(end), work)) = self.verifier.verify_headers(self.rest.parent.as_ref(), &headers)
        {
            let claimed =
                Weight { work: self.rest.work + work, length: end.index.saturating_add(1), tip_hash: end.hash };
            if self.rest.loses(&claimed, &self.ours) {
                return Err(SyncFailure::Lighter(claimed).into());
            }
        }
        let heaviest = window.blocks.iter().zip(&headers).max_by_key(|(_, header)| header.actualized());
        match heaviest.map(|(block, _)| verify_hash(&self.verifier, block.clone())) {
            Some(Err(VerifyError::Violation(violation))) => Err(SyncFailure::Invalid(window.peer, violation).into()),
            Some(Err(VerifyError::Pow(error))) => Err(SyncFailure::from(error).into()),
            Some(Ok(())) | None => Ok(()),
        }
    }

    /// The verifier of the next blocks, and most of them at once.
    fn next(&self) -> (&Verifier, usize) {
        let next = self.rest.parent.as_ref().map_or(0, |parent| parent.index.saturating_add(1));
        match &self.assumption {
            Some(Assumption { pin, verifier, .. }) if next <= pin.index => {
                // A batch ends with the assume-valid block.
                let most = usize::try_from((pin.index - next).saturating_add(1)).unwrap_or(BATCH);
                (verifier, most.min(BATCH))
            }
            _ if self.verifier.level() == Level::Pow => (&self.verifier, POW_BATCH),
            _ => (&self.verifier, BATCH),
        }
    }

    /// Goes on to the end of a verified batch; returns the failure if that is where the assume-valid block should be.
    fn follow(&mut self, batch: &VerifiedBlocks) -> Option<SyncFailure> {
        self.rest.parent = batch.end().cloned();
        self.rest.work = batch.blocks().iter().fold(self.rest.work, |work, block| work + block.actualized_difficulty);
        let (Assumption { pin, .. }, last) = self.assumption.as_ref().zip(batch.blocks().last())?;
        if last.index > pin.index {
            return None;
        }
        let is_followed = last.index < pin.index || pin.is(&Position::from(last), self.rest.work);
        (!is_followed).then_some(SyncFailure::NotAssumed(pin.index))
    }

    /// Number of the hashes that are still to be computed.
    fn hashes_left(&self) -> u64 {
        let assumed = self.assumption.as_ref().map_or(0, |assumption| assumption.pin.index);
        self.rest.parent.as_ref().map_or(0, |parent| self.rest.to.saturating_sub(parent.index.max(assumed)))
    }
}

/// Verifies windows as they come.
pub async fn verify(
    mut rules: Rules,
    mut fetched: mpsc::Receiver<Result<Window, SyncFailure>>,
    differ: impl Fn(Differences),
    durations: &Durations,
    verified: &mpsc::Sender<Result<VerifiedBlocks, SyncFailure>>,
) -> Result<(), SyncFailure> {
    let mut before: Option<PeerId> = None;
    while let Some(window) = fetched.recv().await {
        let mut window = window?;
        if rules.is_contest() {
            let rules = rules.clone();
            let examined = tokio::task::spawn_blocking(move || rules.examine(&window).map(|()| window)).await;
            window = examined.map_err(|error| stopped(&error))?.map_err(|failure| *failure)?;
        }
        let Window { peer, blocks: mut rest } = window;
        let first = rest.first().map(|block| block.index);
        while !rest.is_empty() {
            let (verifier, size) = rules.next();
            let later = rest.split_off(rest.len().min(size));
            let mut batch = std::mem::replace(&mut rest, later);
            let (level, shared, after) = (verifier.level(), verifier.clone(), rules.rest.parent.clone());
            let verify = move || {
                batch.iter_mut().for_each(MinerBlock::clear_sender_view);
                shared.derive_and_verify(after.as_ref(), batch)
            };
            let verify = durations.measure(tokio::task::spawn_blocking(verify)).await;
            let (differences, outcome) = verify.map_err(|error| stopped(&error))?;
            differ(differences);
            let batch = match outcome {
                Ok(batch) => batch,
                Err(VerifyError::Pow(error)) => return Err(error.into()),
                Err(VerifyError::Violation(violation)) => {
                    return Err(attribute(level.min(rules.below), peer, before, first, violation));
                }
            };
            if let Some(failure) = rules.follow(&batch) {
                return Err(failure);
            }
            // Only after a verified batch: the claimed length may be false.
            rules.verifier.expect(rules.hashes_left());
            if verified.send(Ok(batch)).await.is_err() {
                return Ok(());
            }
        }
        before = Some(peer);
    }
    Ok(())
}

/// The failure for a violation. A window that does not link to the one before proves nothing against either peer: one
/// may have reorganised meanwhile.
pub fn attribute(
    level: Level,
    peer: PeerId,
    before: Option<PeerId>,
    first: Option<u64>,
    violation: Violation,
) -> SyncFailure {
    let at_window_start = matches!(violation.rule, Rule::Link | Rule::Index) && first == Some(violation.index);
    match at_window_start || is_unproven(level, &violation) {
        true => SyncFailure::Mismatch { peer, before },
        false => SyncFailure::Invalid(peer, violation),
    }
}

/// Whether earlier blocks may cause a violation: where hashes are not computed, their timestamps may be forged, and the
/// difficulty follows from those.
pub fn is_unproven(level: Level, violation: &Violation) -> bool {
    violation.rule == Rule::Schedule && level < Level::Pow
}
