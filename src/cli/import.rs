//! `import`: blocks from a file into the store, in one transaction: all of them or none. The transaction begins with the
//! first block, since other writers wait for its end.

use std::{io, path::Path};

use tokio::io::{AsyncBufRead, BufReader};

use super::{
    common::open_options,
    lines::{LineError, Lines, Record, without_line},
    progress::Progress,
};
use crate::{
    chain::{ChainEnd, Level, MinerBlock, PowError, Verifier, verify, verify::VerifyError},
    config::Config,
    source::job::Genesis,
    store::{self, BlockStore, ChainWriter, StoreError},
    telemetry::notice,
};

mod problem;
mod stored;
mod summary;

pub(super) use problem::ImportError;
use problem::Problem;
use stored::Stored;
use summary::Summary;

/// Blocks verified and written at once.
const BATCH: usize = 1000;

/// The same at [`Level::Pow`], where a block takes some 40 ms of a core: so that progress is seen.
const POW_BATCH: usize = 100;

/// Imports `file` (`-`: stdin) and says on stderr what came of it. A file from `export` must be whole, unless it is
/// `partial`.
pub(super) async fn run(config: &Config, file: &Path, partial: bool) -> Result<(), ImportError> {
    // Before the store is opened: a mistyped name shall not leave an empty database behind.
    let (name, reader, size) = open(file).await?;
    let store = store::open(config.database_url.as_str(), &open_options(config)).await?;
    let outcome = import(&*store, config, Lines::new(reader), &name, size, partial).await;
    store.close().await;
    notice(outcome?);
    Ok(())
}

type Reader = Box<dyn AsyncBufRead + Send + Unpin>;

async fn open(file: &Path) -> Result<(String, Reader, Option<u64>), ImportError> {
    const BUFFER: usize = 256 * 1024;
    if file == Path::new("-") {
        return Ok(("stdin".into(), Box::new(BufReader::with_capacity(BUFFER, tokio::io::stdin())), None));
    }
    let name = file.display().to_string();
    let opened = async {
        let file = tokio::fs::File::open(file).await?;
        let metadata = file.metadata().await?;
        match metadata.is_dir() {
            true => Err(io::ErrorKind::IsADirectory.into()),
            false => Ok((file, Some(metadata.len()).filter(|_| metadata.is_file()))),
        }
    };
    match opened.await {
        Ok((file, size)) => Ok((name, Box::new(BufReader::with_capacity(BUFFER, file)), size)),
        Err(error) => Err(ImportError::Read(name, error)),
    }
}

async fn import(
    store: &dyn BlockStore,
    config: &Config,
    mut lines: Lines<Reader>,
    file: &str,
    size: Option<u64>,
    partial: bool,
) -> Result<Summary, ImportError> {
    tracing::debug!(file, "the store is open");
    let mut importer: Option<Importer<'_>> = None;
    let mut progress = Progress::new("import", size);
    let (mut count, mut ended, mut cut, mut ours) = (0, false, false, None);
    loop {
        let outcome = lines.next().await.map(|line| line.map(|line| parse(line, &mut ours)));
        let line = lines.number;
        let at = |problem| at_line(file, line, problem);
        let entry = match outcome {
            Ok(None) => break,
            // The beginning of a line, where the file was cut off.
            Ok(Some(Err(_))) if count > 0 && !ended && lines.is_unterminated() => {
                cut = true;
                break;
            }
            Ok(Some(entry)) => entry.map_err(at)?,
            Err(LineError::TooLong) => return Err(at(Problem::TooLong)),
            Err(LineError::Io(error)) => return Err(ImportError::Read(file.into(), error)),
        };
        match entry {
            Entry::Blank => continue,
            _ if ended => return Err(at(Problem::AfterRecord)),
            Entry::Block(block) => {
                count += 1;
                let importer = match &mut importer {
                    Some(importer) => importer,
                    None => importer.insert(Importer::begin(store, config, file).await?),
                };
                importer.take(line, *block).await?;
                progress.set(lines.bytes, count);
            }
            Entry::Record(record) => {
                check_record(&record, count, lines.sha256_before()).map_err(at)?;
                ended = true;
            }
        }
    }
    if (cut || (ours == Some(true) && !ended)) && !partial {
        return Err(ImportError::CutOff(file.into()));
    }
    let importer = match importer {
        Some(importer) => importer,
        // Without a block too the summary has the chain, and a store that can't be written fails.
        None => Importer::begin(store, config, file).await?,
    };
    importer.finish().await
}

fn at_line(file: &str, line: u64, problem: Problem) -> ImportError {
    ImportError::Line { file: file.into(), line, problem }
}

enum Entry {
    Blank,
    Block(Box<MinerBlock>),
    Record(Record),
}

/// Reads a line. `ours` becomes whether the first block has the form that this program writes, as nobody else does.
fn parse(line: &[u8], ours: &mut Option<bool>) -> Result<Entry, Problem> {
    if line.is_empty() {
        return Ok(Entry::Blank);
    }
    let text = std::str::from_utf8(line).map_err(|_| Problem::Utf8)?;
    if text.starts_with('\u{feff}') {
        return Err(Problem::ByteOrderMark);
    }
    let block = serde_json::from_str::<MinerBlock>(text).inspect(|block| {
        ours.get_or_insert_with(|| block.to_json() == text);
    });
    block.map(|block| Entry::Block(Box::new(block))).or_else(|error| {
        // Few lines get here: a record, or the one that ends the import.
        serde_json::from_str(text).map(Entry::Record).map_err(|_| Problem::Json(without_line(&error)))
    })
}

fn check_record(record: &Record, counted: u64, found: String) -> Result<(), Problem> {
    if record.count != counted {
        return Err(Problem::Count { said: record.count, counted });
    }
    match record.sha256.eq_ignore_ascii_case(&found) {
        true => Ok(()),
        false => Err(Problem::Hash { said: record.sha256.clone(), found }),
    }
}

/// Puts blocks into the transaction, batch by batch.
struct Importer<'a> {
    writer: Box<dyn ChainWriter>,
    stored: Stored<'a>,
    config: &'a Config,
    file: &'a str,
    /// What the store has settled for.
    genesis: Option<Genesis>,
    /// Made with the first batch: a file without news needs none.
    verifier: Option<Verifier>,
    /// The end of the chain that the writer has so far.
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
    async fn begin(store: &'a dyn BlockStore, config: &'a Config, file: &'a str) -> Result<Self, StoreError> {
        let genesis = Genesis::read(store, config.network.genesis_hash.as_deref()).await?;
        let writer = store.write().await?;
        tracing::debug!(file, "transaction begun");
        let (state, level) = (writer.state().clone(), config.verify);
        let end = match &state.tip {
            Some(tip) => store.chain_end(tip.index, config.network.epoch_numbering).await?,
            None => None,
        };
        let summary = Summary { imported: 0, already_there: 0, orphans: 0, duplicates: 0, level, state };
        let (pending, pending_lines, orphans) = (Vec::new(), Vec::new(), Vec::new());
        let (stored, verifier, seen) = (Stored::new(store, summary.state.length), None, None);
        Ok(Self {
            writer,
            stored,
            config,
            file,
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
        at_line(self.file, line, problem.into())
    }

    /// Takes the next line's block.
    async fn take(&mut self, line: u64, block: MinerBlock) -> Result<(), ImportError> {
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
                self.pending.push(block);
                self.pending_lines.push(line);
                if self.pending.len() >= if self.config.verify == Level::Pow { POW_BATCH } else { BATCH } {
                    self.write_pending().await?;
                }
            }
        }
        Ok(())
    }

    /// The index after the chain's last, what is pending included.
    fn next_index(&self) -> u64 {
        let last = self.pending.last().map(|block| block.index);
        let last = last.or_else(|| self.writer.state().tip.as_ref().map(|tip| tip.index));
        last.map_or(0, |last| last.saturating_add(1))
    }

    /// Hash of the canonical block at `index`, what is pending included.
    async fn known_hash(&mut self, index: u64) -> Result<Option<String>, StoreError> {
        if index >= self.next_index() {
            return Ok(None);
        }
        let pending = self.pending.first().and_then(|first| index.checked_sub(first.index));
        match pending.and_then(|offset| self.pending.get(usize::try_from(offset).ok()?)) {
            Some(block) => Ok(Some(block.hash.clone())),
            None => match self.stored.hash(index).await? {
                Some(hash) => Ok(Some(hash)),
                // Written in this transaction.
                None => Ok(self.writer.canonical_at(index).await?.map(|(hash, _)| hash)),
            },
        }
    }

    async fn write_pending(&mut self) -> Result<(), ImportError> {
        let (blocks, lines) = (std::mem::take(&mut self.pending), std::mem::take(&mut self.pending_lines));
        let (Some(first), Some(&first_line), Some(&last_line)) = (blocks.first(), lines.first(), lines.last()) else {
            return Ok(());
        };
        let (first_index, count) = (first.index, blocks.len() as u64);
        let (verifier, parent) = (self.verifier()?, self.end.clone());
        let verify = move || {
            let mut blocks = blocks;
            verifier.derive(&mut blocks);
            verifier.verify(parent.as_ref(), blocks)
        };
        let verified = match tokio::task::spawn_blocking(verify).await? {
            Ok(verified) => verified,
            Err(VerifyError::Pow(error)) => return Err(error.into()),
            Err(VerifyError::Violation(violation)) => {
                // Pending blocks are contiguous.
                let offset = usize::try_from(violation.index.saturating_sub(first_index)).unwrap_or(usize::MAX);
                return Err(self.error(lines.get(offset).copied().unwrap_or(first_line), violation));
            }
        };
        self.end = verified.end().cloned();
        match self.writer.append(verified).await {
            Ok(()) => self.summary.imported += count,
            Err(StoreError::Conflict(problem)) => {
                let file = self.file.into();
                return Err(ImportError::Conflict { file, first: first_line, last: last_line, problem });
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn verifier(&mut self) -> Result<Verifier, PowError> {
        if let Some(verifier) = &self.verifier {
            return Ok(verifier.clone());
        }
        let verifier = Verifier::new(&self.config.network, self.config.verify, self.config.pow())?;
        let verifier = self.genesis.as_ref().map_or(verifier.clone(), |genesis| verifier.with_genesis(&genesis.hash));
        Ok(self.verifier.insert(verifier).clone())
    }

    async fn write_orphans(&mut self) -> Result<(), ImportError> {
        let mut orphans = std::mem::take(&mut self.orphans);
        if !orphans.is_empty() {
            self.verifier()?.derive(&mut orphans);
        }
        let new = self.writer.add_orphans(&orphans, Level::None).await?;
        self.summary.orphans += new;
        self.summary.already_there += (orphans.len() as u64).saturating_sub(new);
        Ok(())
    }

    async fn finish(mut self) -> Result<Summary, ImportError> {
        self.write_pending().await?;
        self.write_orphans().await?;
        if self.summary.imported + self.summary.orphans > 0 {
            self.summary.state = self.writer.commit().await?;
        }
        Ok(self.summary)
    }
}
