//! The blocks of a file on their way into the transaction of an import.

use futures::{FutureExt, future::BoxFuture};
use tokio_util::task::AbortOnDropHandle;

use super::{
    problem::{ImportError, Problem},
    stored::Stored,
    summary::Summary,
};
use crate::{
    chain::{AssumeValid, ChainEnd, Level, MinerBlock, PowError, Verifier, verify, verify::VerifyError},
    config::Config,
    source::job::Genesis,
    store::{BlockStore, ChainWriter, StoreError},
};

/// Blocks verified and written at once.
const BATCH: usize = 1000;

/// The same at [`Level::Pow`], where a block takes some 40 ms of a core: so that progress is seen.
const POW_BATCH: usize = 100;

/// The transaction, when what it is doing is done.
type Writing = BoxFuture<'static, Result<Box<dyn ChainWriter>, ImportError>>;

/// Puts blocks into the transaction, batch by batch: one is written while the next is read and verified.
pub(super) struct Importer<'a> {
    writing: Writing,
    stored: Stored<'a>,
    config: &'a Config,
    file: &'a str,
    /// The block up to which the chain is verified to `linked` only.
    pin: Option<&'a AssumeValid>,
    /// What the store has settled for.
    genesis: Option<Genesis>,
    /// Made with the first batch: a file without news needs none.
    verifier: Option<Verifier>,
    /// The end of the chain that the writer has so far, or will have.
    end: Option<ChainEnd>,
    /// Canonical blocks not yet written, which follow the writer's tip, and their lines.
    pending: Vec<MinerBlock>,
    pending_lines: Vec<u64>,
    orphans: Vec<MinerBlock>,
    /// First and last index of the file's canonical blocks so far.
    seen: Option<(u64, u64)>,
    summary: Summary,
}

impl<'a> Importer<'a> {
    /// Begins the transaction.
    pub(super) async fn begin(
        store: &'a dyn BlockStore,
        config: &'a Config,
        file: &'a str,
        pin: Option<&'a AssumeValid>,
    ) -> Result<Self, StoreError> {
        let genesis = Genesis::read(store, config.network.genesis_hash.as_deref()).await?;
        let writer = store.write().await?;
        tracing::debug!(file, "transaction begun");
        let (state, level) = (writer.state().clone(), config.verify);
        let end = match &state.tip {
            Some(tip) => store.chain_end(tip.index, config.network.epoch_numbering).await?,
            None => None,
        };
        let summary = Summary { imported: 0, assumed: 0, already_there: 0, orphans: 0, duplicates: 0, level, state };
        let (pending, pending_lines, orphans) = (Vec::new(), Vec::new(), Vec::new());
        let (stored, verifier, seen) = (Stored::new(store, summary.state.length), None, None);
        Ok(Self {
            writing: idle(writer),
            stored,
            config,
            file,
            pin,
            genesis,
            verifier,
            end,
            pending,
            pending_lines,
            orphans,
            seen,
            summary,
        })
    }

    fn error(&self, line: u64, problem: impl Into<Problem>) -> ImportError {
        problem.into().at(self.file, line)
    }

    /// Takes the next line's block.
    pub(super) async fn take(&mut self, line: u64, block: MinerBlock) -> Result<(), ImportError> {
        if block.is_orphaned || !block.is_canonical {
            verify::check_storable(&block).map_err(|violation| self.error(line, violation))?;
            self.orphans.push(block);
            return if self.orphans.len() >= BATCH { self.write_orphans().await } else { Ok(()) };
        }
        let index = block.index;
        let repeated = match self.seen {
            None => {
                let next = self.next_index();
                if index > next {
                    return Err(self.error(line, Problem::Gap { next, found: index }));
                }
                self.seen = Some((index, index));
                false
            }
            Some((first, last)) => {
                let expected = last.saturating_add(1);
                if index < first || index > expected {
                    return Err(self.error(line, Problem::Order { expected, found: index }));
                }
                self.seen = Some((first, last.max(index)));
                index <= last
            }
        };
        match self.known_hash(index).await? {
            Some(known) if known != block.hash => {
                let problem = Problem::TwoCanonical { index, in_file: repeated, known, found: block.hash };
                return Err(self.error(line, problem));
            }
            Some(_) if repeated => self.summary.duplicates += 1,
            Some(_) => self.summary.already_there += 1,
            None => {
                let most = match self.config.verify {
                    Level::Pow if self.assumed(index).is_none() => POW_BATCH,
                    _ => BATCH,
                };
                // A batch ends with the assume-valid block.
                let is_last = self.pin.is_some_and(|pin| pin.index == index);
                self.pending.push(block);
                self.pending_lines.push(line);
                if is_last || self.pending.len() >= most {
                    self.write_pending().await?;
                }
            }
        }
        Ok(())
    }

    /// The index after the chain's last, what is pending included.
    fn next_index(&self) -> u64 {
        let last = self.pending.last().map(|block| block.index);
        let last = last.or_else(|| self.end.as_ref().map(|end| end.index));
        last.map_or(0, |last| last.saturating_add(1))
    }

    /// Hash of the canonical block at `index`, what is pending included.
    async fn known_hash(&mut self, index: u64) -> Result<Option<String>, ImportError> {
        if index >= self.next_index() {
            return Ok(None);
        }
        let pending = self.pending.first().and_then(|first| index.checked_sub(first.index));
        match pending.and_then(|offset| self.pending.get(usize::try_from(offset).ok()?)) {
            Some(block) => Ok(Some(block.hash.clone())),
            None => match self.stored.hash(index).await? {
                Some(hash) => Ok(Some(hash)),
                // Written in this transaction.
                None => {
                    let mut writer = (&mut self.writing).await?;
                    let found = writer.canonical_at(index).await?;
                    self.writing = idle(writer);
                    Ok(found.map(|(hash, _)| hash))
                }
            },
        }
    }

    async fn write_pending(&mut self) -> Result<(), ImportError> {
        let (blocks, lines) = (std::mem::take(&mut self.pending), std::mem::take(&mut self.pending_lines));
        let (Some(first), Some(&first_line), Some(&last_line)) = (blocks.first(), lines.first(), lines.last()) else {
            return Ok(());
        };
        let (first_index, count) = (first.index, blocks.len() as u64);
        let (assumed, parent) = (self.assumed(first_index).cloned(), self.end.clone());
        let verifier = match assumed {
            Some(_) => self.verifier()?.at(Level::Linked)?,
            None => self.verifier()?,
        };
        let verify = move || verifier.derive_and_verify(parent.as_ref(), blocks);
        let (_, verified) = tokio::task::spawn_blocking(verify).await?;
        let verified = match verified {
            Ok(verified) => verified,
            Err(VerifyError::Pow(error)) => return Err(error.into()),
            Err(VerifyError::Violation(violation)) => {
                // Pending blocks are contiguous.
                let offset = usize::try_from(violation.index.saturating_sub(first_index)).unwrap_or(usize::MAX);
                return Err(self.error(lines.get(offset).copied().unwrap_or(first_line), violation));
            }
        };
        self.end = verified.end().cloned();
        self.summary.imported += count;
        self.summary.assumed += assumed.as_ref().map_or(0, |_| count);
        let file = self.file.to_owned();
        let mut writer = (&mut self.writing).await?;
        let append = AbortOnDropHandle::new(tokio::spawn(async move {
            match writer.append(verified).await {
                Ok(()) => Ok(writer),
                Err(StoreError::Conflict(problem)) => {
                    Err(ImportError::Conflict { file, first: first_line, last: last_line, problem })
                }
                Err(error) => Err(error.into()),
            }
        }));
        self.writing = async { append.await? }.boxed();
        if let (Some(pin), Some(end)) = (assumed, &self.end)
            && end.index == pin.index
        {
            let writer = (&mut self.writing).await?;
            let work = writer.state().cumulative_difficulty;
            self.writing = idle(writer);
            if !pin.is(&end.into(), work) {
                return Err(ImportError::NotAssumed);
            }
        }
        Ok(())
    }

    /// The assume-valid block, if the block at `index` is not after it.
    fn assumed(&self, index: u64) -> Option<&AssumeValid> {
        self.pin.filter(|pin| index <= pin.index)
    }

    fn verifier(&mut self) -> Result<Verifier, PowError> {
        if let Some(verifier) = &self.verifier {
            return Ok(verifier.clone());
        }
        let verifier = Verifier::new(&self.config.network, self.config.verify, self.config.pow())?;
        let verifier = self.genesis.as_ref().map_or(verifier.clone(), |genesis| verifier.with_genesis(&genesis.hash));
        Ok(self.verifier.insert(verifier).clone())
    }

    /// The first error: of what is being written, which is of earlier lines, or else this one.
    pub(super) async fn first_error(self, error: ImportError) -> ImportError {
        match error {
            // Of the file: what is being written has not been waited for.
            ImportError::Line { .. } | ImportError::Read(..) | ImportError::CutOff(_) => {
                self.writing.await.err().unwrap_or(error)
            }
            // Perhaps that of what was being written, which is over then.
            error => error,
        }
    }

    /// Writes the blocks before them first: the work of an orphan is known where its parent's is.
    async fn write_orphans(&mut self) -> Result<(), ImportError> {
        self.write_pending().await?;
        let mut orphans = std::mem::take(&mut self.orphans);
        if !orphans.is_empty() {
            self.verifier()?.derive(&mut orphans);
        }
        let mut writer = (&mut self.writing).await?;
        let new = writer.add_orphans(&orphans, Level::None).await?;
        self.writing = idle(writer);
        self.summary.orphans += new;
        self.summary.already_there += (orphans.len() as u64).saturating_sub(new);
        Ok(())
    }

    pub(super) async fn finish(mut self) -> Result<Summary, ImportError> {
        self.write_orphans().await?;
        let writer = self.writing.await?;
        let ends_before = |pin: &AssumeValid| self.end.as_ref().is_none_or(|end| end.index < pin.index);
        if self.summary.assumed > 0 && self.pin.is_some_and(ends_before) {
            return Err(ImportError::NotAssumed);
        }
        if self.summary.imported + self.summary.orphans > 0 {
            self.summary.state = writer.commit().await?;
        }
        Ok(self.summary)
    }
}

fn idle(writer: Box<dyn ChainWriter>) -> Writing {
    std::future::ready(Ok(writer)).boxed()
}
