//! `verify`: audits the chain in the store against the network's rules, and raises its level.

use std::{collections::BTreeMap, fmt};

use serde_json::value::RawValue;

use super::{common::open_options, progress::Progress};
use crate::{
    chain::{
        ChainEnd, CumulativeDifficulty, Level, MinerBlock, PowAlgorithm, PowError, VerifiedBlocks, Verifier,
        VerifyError, Violation,
    },
    config::Config,
    source::job::AssumedBlocks,
    store::{self, BlockStore, Blocks, ChainState, EventKind, Lease, OpenOptions, StoreError, Tip},
    telemetry::notice,
};

/// Blocks audited at once, and raised in one transaction.
const BATCH: u64 = 1000;

/// The same where each takes a RandomX hash, some 40 ms of a core: so that progress is seen.
const RANDOMX_BATCH: u64 = 32;

/// Why the store isn't known to be good.
#[derive(Debug, thiserror::Error)]
pub(super) enum AuditError {
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Pow(#[from] PowError),
    #[error("another process is syncing this store: stop it, or leave the levels as they are with --no-raise")]
    Leased,
    #[error("the chain was reorganised during the audit: try again")]
    Reorganised,
    #[error(transparent)]
    Violation(#[from] Violation),
    #[error("block {0} is missing")]
    Missing(u64),
    #[error("block {index}: its text can't be read: {problem}")]
    Text { index: u64, problem: String },
    #[error("block {index}: it is listed under the hash {listed}, its text says {hash}")]
    Hash { index: u64, listed: String, hash: String },
    #[error("block {index}: the work up to it is {found}, the store says {said}")]
    Work { index: u64, found: CumulativeDifficulty, said: CumulativeDifficulty },
    #[error("the store's account of its chain is wrong: {what} is {found}, it says {said}")]
    Account { what: &'static str, found: String, said: String },
    #[error("the verification broke off")]
    Thread(#[from] tokio::task::JoinError),
}

/// What an audit found good.
#[derive(Debug)]
struct Summary {
    level: Level,
    tip: Option<Tip>,
    raised: u64,
    /// How many blocks deviate from each rule that the network doesn't enforce, and the first of them.
    deviating: Deviating,
}

/// By rule: the number of blocks that deviate from it, and the index of the first.
type Deviating = BTreeMap<&'static str, (u64, u64)>;

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(tip) = &self.tip else { return f.write_str("verified 0 blocks, the chain is empty") };
        write!(f, "verified {} blocks to {}, tip {} {}", tip.index + 1, self.level, tip.index, tip.hash)?;
        if self.raised > 0 {
            write!(f, ", raised the level of {}", self.raised)?;
        }
        for (rule, (count, first)) in &self.deviating {
            let blocks = if *count == 1 { "block is" } else { "blocks are" };
            write!(
                f,
                "\nnote: {count} {blocks} off rule `{rule}`, which this network doesn't enforce; the first is {first}"
            )?;
        }
        Ok(())
    }
}

/// Audits the store and says on stderr what came of it.
pub(super) async fn run(config: &Config, raise: bool) -> Result<(), AuditError> {
    let options = OpenOptions { create: false, migrate: false, write: raise, ..open_options(config) };
    let store = store::open(config.database_url.as_str(), &options).await?;
    let outcome = audit(config, &*store, raise).await;
    store.close().await;
    notice(outcome?);
    Ok(())
}

async fn audit(config: &Config, store: &dyn BlockStore, raise: bool) -> Result<Summary, AuditError> {
    let lease = match raise {
        true => Some(store::acquire_lease(store).await?.ok_or(AuditError::Leased)?),
        false => None,
    };
    let state = store.state().await?;
    let verifier = Verifier::new(&config.network, config.verify, config.pow())?;
    let mut audit = Audit::new(store, verifier, lease);
    let batch = match (config.verify, &config.network.pow) {
        (Level::Pow, PowAlgorithm::RandomX { .. }) => RANDOMX_BATCH,
        _ => BATCH,
    };
    match audit.chain(&state, batch).await {
        Ok(()) => {
            let Audit { raised, deviating, .. } = audit;
            if let Some(pin) = config.network.assume_valid.as_ref().filter(|_| raised > 0) {
                AssumedBlocks::count(store, pin).await?;
            }
            Ok(Summary { level: config.verify, tip: state.tip, raised, deviating })
        }
        Err(error @ (AuditError::Store(_) | AuditError::Pow(_))) => Err(error),
        // Without the lease, what was found may be two chains.
        Err(error) => match reorganised(store, state.version).await? {
            true => Err(AuditError::Reorganised),
            false => Err(error),
        },
    }
}

/// Whether blocks have left the chain since it had this version.
async fn reorganised(store: &dyn BlockStore, version: u64) -> Result<bool, StoreError> {
    let mut after = version;
    loop {
        let events = store.events(after, u64::MAX).await?;
        match events.last() {
            _ if events.iter().any(|event| event.kind == EventKind::Reorganised) => return Ok(true),
            Some(last) => after = last.id,
            None => return Ok(false),
        }
    }
}

/// A walk along the chain.
struct Audit<'a> {
    store: &'a dyn BlockStore,
    verifier: Verifier,
    /// Held where levels are raised.
    lease: Option<Box<dyn Lease>>,
    /// The chain as far as it is audited: its end, its work, its weakest level.
    end: Option<ChainEnd>,
    work: CumulativeDifficulty,
    level: Option<Level>,
    raised: u64,
    deviating: Deviating,
}

impl<'a> Audit<'a> {
    fn new(store: &'a dyn BlockStore, verifier: Verifier, lease: Option<Box<dyn Lease>>) -> Self {
        let (work, deviating) = (CumulativeDifficulty::default(), Deviating::new());
        Self { store, verifier, lease, end: None, work, level: None, raised: 0, deviating }
    }

    /// Audits the chain up to the tip that `state` names, and then its account.
    async fn chain(&mut self, state: &ChainState, batch: u64) -> Result<(), AuditError> {
        let length = state.tip.as_ref().map_or(0, |tip| tip.index.saturating_add(1));
        let mut progress = Progress::new("verify", Some(length));
        let mut done = 0;
        while done < length {
            self.verifier.expect(length - done);
            let to = (done + batch).min(length) - 1;
            self.batch(done, to).await?;
            done = to + 1;
            progress.set(done, done);
        }
        self.account(state)
    }

    /// Audits the blocks from `from` to `to`, which follow those that are audited.
    async fn batch(&mut self, from: u64, to: u64) -> Result<(), AuditError> {
        let (blocks, level) = self.read(from, to).await?;
        let mut work = self.work;
        let works: Vec<_> = blocks.iter().map(|block| (block.index, add(&mut work, block))).collect();
        let verified = self.verify(blocks).await?;
        for block in verified.blocks() {
            for deviation in &block.deviations {
                self.deviating.entry(deviation.as_str()).or_insert((0, block.index)).0 += 1;
            }
        }
        self.end = verified.end().cloned();
        if self.said_work(to).await? != work {
            for (index, found) in works {
                let said = self.said_work(index).await?;
                if said != found {
                    return Err(AuditError::Work { index, found, said });
                }
            }
        }
        if level < self.verifier.level() && self.lease.is_some() {
            self.raise(from, to).await?;
        }
        self.work = work;
        self.level = self.level.into_iter().chain([level]).min();
        Ok(())
    }

    async fn said_work(&self, index: u64) -> Result<CumulativeDifficulty, AuditError> {
        self.store.work_at(index).await?.ok_or(AuditError::Missing(index))
    }

    /// The blocks from `from` to `to`, and the weakest level among them.
    async fn read(&self, from: u64, to: u64) -> Result<(Vec<MinerBlock>, Level), AuditError> {
        let Blocks { snapshot, list: page, .. } = self.store.range(from, to).await?;
        let texts: Vec<Box<RawValue>> = match page.parse() {
            Ok(texts) => texts,
            Err(error) if from == to => return Err(AuditError::Text { index: from, problem: error.to_string() }),
            Err(_) => {
                for index in from..=to {
                    Box::pin(self.read(index, index)).await?;
                }
                return Err(AuditError::Reorganised);
            }
        };
        let indexes: Vec<_> = (from..=to).collect();
        let listed = self.store.canonical_hashes(&indexes).await?;
        let mut blocks = Vec::with_capacity(texts.len());
        for (index, text) in indexes.into_iter().zip(&texts) {
            let block = serde_json::from_str::<MinerBlock>(text.get());
            let block = block.map_err(|error| AuditError::Text { index, problem: error.to_string() })?;
            match listed.get(&index) {
                None => return Err(AuditError::Missing(index)),
                Some(listed) if *listed != block.hash => {
                    return Err(AuditError::Hash { index, listed: listed.clone(), hash: block.hash });
                }
                Some(_) => blocks.push(block),
            }
        }
        match snapshot.level {
            Some(level) if page.count == to - from + 1 => Ok((blocks, level)),
            _ => Err(AuditError::Missing(from + page.count)),
        }
    }

    /// Applies the rules.
    async fn verify(&self, blocks: Vec<MinerBlock>) -> Result<VerifiedBlocks, AuditError> {
        let (verifier, end) = (self.verifier.clone(), self.end.clone());
        let verify = move || match verifier.verify(end.as_ref(), blocks.clone()) {
            Err(VerifyError::Violation(violation)) => {
                // Cheap rules come first, so that an earlier block may have a wrong proof of work.
                let before = blocks.into_iter().take_while(|block| block.index < violation.index);
                verifier.verify(end.as_ref(), before.collect()).and(Err(violation.into()))
            }
            outcome => outcome,
        };
        match tokio::task::spawn_blocking(verify).await? {
            Ok(verified) => Ok(verified),
            Err(VerifyError::Violation(violation)) => Err(violation.into()),
            Err(VerifyError::Pow(error)) => Err(error.into()),
        }
    }

    /// Says that the blocks from `from` to `to`, the last that are audited, are verified.
    async fn raise(&mut self, from: u64, to: u64) -> Result<(), AuditError> {
        if let Some(lease) = &mut self.lease
            && !lease.held().await
        {
            return Err(AuditError::Leased);
        }
        let mut writer = self.store.write().await?;
        // Nobody else writes from here on. While that was waited for, the lease may have been lost and another chain
        // have come; as each block names its parent, the last one shows which.
        let last = writer.canonical_at(to).await?.map(|(hash, _)| hash);
        if last.as_ref() != self.end.as_ref().map(|end| &end.hash) {
            return Err(AuditError::Reorganised);
        }
        self.raised += writer.raise(from, to, self.verifier.level()).await?;
        writer.commit().await?;
        Ok(())
    }

    /// Compares what was found with what the store says of its chain.
    fn account(&self, state: &ChainState) -> Result<(), AuditError> {
        let wrong = |what, found: String, said: String| Err(AuditError::Account { what, found, said });
        let length = self.end.as_ref().map_or(0, |end| end.index + 1);
        if state.length != length {
            return wrong("the length", length.to_string(), state.length.to_string());
        }
        if state.cumulative_difficulty != self.work {
            return wrong("the work", self.work.to_string(), state.cumulative_difficulty.to_string());
        }
        if let (Some(end), Some(tip)) = (&self.end, &state.tip)
            && end.hash != tip.hash
        {
            return wrong("the tip", end.hash.clone(), tip.hash.clone());
        }
        match (self.level, state.level) {
            // More than it says is what another audit has raised meanwhile.
            (Some(found), Some(said)) if found < said => {
                wrong("the weakest level", found.to_string(), said.to_string())
            }
            _ => Ok(()),
        }
    }
}

/// Adds the work of a block; the sum.
fn add(work: &mut CumulativeDifficulty, block: &MinerBlock) -> CumulativeDifficulty {
    *work = *work + block.actualized_difficulty;
    *work
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        app::BUNDLED_CHAIN,
        chain::{Network, PowOptions},
    };

    #[tokio::test]
    async fn blocks_that_took_the_place_of_audited_ones_are_not_raised() {
        let blocks = BUNDLED_CHAIN.lines().take(3).map(|line| serde_json::from_str(line).unwrap());
        let blocks: Vec<MinerBlock> = blocks.collect();
        let verifier = |level| Verifier::new(&Network::devnet(), level, PowOptions::default()).unwrap();
        let store = store::open("sqlite::memory:", &OpenOptions::default()).await.unwrap();
        let mut writer = store.write().await.unwrap();
        writer.append(verifier(Level::None).verify(None, blocks.clone()).unwrap()).await.unwrap();
        writer.commit().await.unwrap();

        let end = ChainEnd::new(&blocks[2], &blocks[1]);
        let mut audit = Audit::new(&*store, verifier(Level::Linked), None);
        audit.end = Some(ChainEnd { hash: "another".into(), ..end.clone() });
        let error = audit.raise(0, 2).await.unwrap_err();
        assert!(matches!(error, AuditError::Reorganised), "{error:?}");
        assert_eq!(store.state().await.unwrap().level, Some(Level::None));

        audit.end = Some(end);
        audit.raise(0, 2).await.unwrap();
        assert_eq!((audit.raised, store.state().await.unwrap().level), (3, Some(Level::Linked)));
    }
}
