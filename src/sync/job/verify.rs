//! The verify stage: verifies downloaded blocks in batches, and attributes violations.

use libp2p::PeerId;
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinHandle},
};

use super::download::Window;
use crate::{
    chain::{ChainEnd, Differences, Level, MinerBlock, Rule, VerifiedBlocks, Verifier, VerifyError, Violation},
    sync::failure::SyncFailure,
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
pub fn verify_hashes(verifier: &Verifier, mut blocks: Vec<MinerBlock>) -> JoinHandle<Result<(), VerifyError>> {
    let verifier = verifier.clone();
    tokio::task::spawn_blocking(move || {
        verifier.derive(&mut blocks);
        blocks.iter().try_for_each(|block| verifier.verify_hash(block))
    })
}

/// Verifies windows as they come. `end` is the last index of the plan.
pub async fn verify(
    verifier: &Verifier,
    mut parent: Option<ChainEnd>,
    end: u64,
    mut fetched: mpsc::Receiver<Result<Window, SyncFailure>>,
    differ: impl Fn(Differences),
    durations: &Durations,
    verified: &mpsc::Sender<Result<VerifiedBlocks, SyncFailure>>,
) -> Result<(), SyncFailure> {
    let level = verifier.level();
    let size = if level == Level::Pow { POW_BATCH } else { BATCH };
    let mut before: Option<PeerId> = None;
    while let Some(window) = fetched.recv().await {
        let Window { peer, blocks: mut rest } = window?;
        let first = rest.first().map(|block| block.index);
        while !rest.is_empty() {
            let later = rest.split_off(rest.len().min(size));
            let mut batch = std::mem::replace(&mut rest, later);
            let (shared, after) = (verifier.clone(), parent.clone());
            let verify = move || {
                batch.iter_mut().for_each(MinerBlock::clear_sender_view);
                let differences = shared.derive(&mut batch);
                (differences, shared.verify(after.as_ref(), batch))
            };
            let verify = durations.measure(tokio::task::spawn_blocking(verify)).await;
            let (differences, outcome) = verify.map_err(|error| stopped(&error))?;
            differ(differences);
            let batch = match outcome {
                Ok(batch) => batch,
                Err(VerifyError::Pow(error)) => return Err(error.into()),
                Err(VerifyError::Violation(violation)) => {
                    return Err(attribute(level, peer, before, first, violation));
                }
            };
            parent = batch.end().cloned();
            // Only after a verified batch: the claimed length may be false.
            verifier.expect(parent.as_ref().map_or(0, |parent| end.saturating_sub(parent.index)));
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
