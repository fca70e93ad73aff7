//! The verification of what was downloaded, batch by batch, and whose fault a violation is.

use libp2p::PeerId;
use tokio::sync::mpsc;

use super::download::Window;
use crate::{
    chain::{ChainEnd, Differences, Level, MinerBlock, Rule, VerifiedBlocks, Verifier, VerifyError, Violation},
    sync::failure::Setback,
};

/// Blocks verified at once where only cheap rules are applied, and committed in one transaction.
pub const BATCH: usize = 1000;

/// Blocks verified at once where each takes a proof-of-work hash: little is lost when one of them is wrong.
const POW_BATCH: usize = 64;

/// A thread that verifies has panicked.
pub fn stopped(error: &tokio::task::JoinError) -> Setback {
    tracing::error!(%error, "a stage of the sync has stopped");
    Setback::Stopped
}

/// Verifies windows as they come, batch by batch. `end` is the last index that will come.
pub async fn verify(
    verifier: &Verifier,
    mut parent: Option<ChainEnd>,
    end: u64,
    mut fetched: mpsc::Receiver<Result<Window, Setback>>,
    differ: impl Fn(Differences),
    verified: &mpsc::Sender<Result<VerifiedBlocks, Setback>>,
) -> Result<(), Setback> {
    let level = verifier.level();
    let size = if level == Level::Pow { POW_BATCH } else { BATCH };
    let mut before: Option<PeerId> = None;
    while let Some(window) = fetched.recv().await {
        let Window { peer, blocks } = window?;
        let first = blocks.first().map(|block| block.index);
        let mut rest = blocks;
        while !rest.is_empty() {
            let later = rest.split_off(rest.len().min(size));
            let batch = std::mem::replace(&mut rest, later);
            let (verifier, after) = (verifier.clone(), parent.clone());
            let pool = verifier.clone();
            let verify = move || {
                let mut batch = batch;
                batch.iter_mut().for_each(MinerBlock::forget_teller);
                let differences = verifier.derive(&mut batch);
                (differences, verifier.verify(after.as_ref(), batch))
            };
            let (differences, outcome) = tokio::task::spawn_blocking(verify).await.map_err(|error| stopped(&error))?;
            differ(differences);
            let batch = match outcome {
                Ok(batch) => batch,
                Err(VerifyError::Pow(error)) => return Err(error.into()),
                Err(VerifyError::Violation(violation)) => {
                    return Err(blame(level, peer, before, first, violation));
                }
            };
            parent = batch.end().cloned();
            // Known once some of it has proven to be real.
            pool.expect(parent.as_ref().map_or(0, |parent| end.saturating_sub(parent.index)));
            if verified.send(Ok(batch)).await.is_err() {
                return Ok(());
            }
        }
        before = Some(peer);
    }
    Ok(())
}

/// Whose fault a violation is. A window that does not link to the one before it proves nothing against either peer: one
/// of them may have reorganised meanwhile.
pub fn blame(level: Level, peer: PeerId, before: Option<PeerId>, first: Option<u64>, violation: Violation) -> Setback {
    let at_seam = matches!(violation.rule, Rule::Link | Rule::Index) && first == Some(violation.index);
    match at_seam || is_unproven(level, &violation) {
        true => Setback::Seam { peer, before },
        false => Setback::Invalid(peer, violation),
    }
}

/// Whether a violation may be the fault of blocks before: where hashes are not computed their timestamps may be forged, and
/// the difficulty follows from those.
pub fn is_unproven(level: Level, violation: &Violation) -> bool {
    violation.rule == Rule::Schedule && level < Level::Pow
}
