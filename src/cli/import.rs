//! `import`: blocks from a file into the store, in one transaction: all of them or none. The transaction begins with
//! the first block, since other writers wait for its end.

use std::{io, path::Path};

use tokio::io::{AsyncBufRead, BufReader};

use super::{
    common::open_options,
    lines::{LineError, Lines, Record, without_line},
    progress::Progress,
};
use crate::{
    chain::{AssumeValid, Level, MinerBlock},
    config::Config,
    source::job::AssumedBlocks,
    store::{self, BlockStore},
    telemetry::notice,
};

mod importer;
mod problem;
mod stored;
mod summary;

use importer::Importer;
pub(super) use problem::ImportError;
use problem::Problem;
use summary::Summary;

/// Imports `file` (`-`: stdin) and says on stderr what came of it. A file from `export` must be whole, unless it is
/// `partial`.
pub(super) async fn run(config: &Config, file: &Path, partial: bool) -> Result<(), ImportError> {
    // Before the store is opened: a mistyped name shall not leave an empty database behind.
    let opened = open(file).await?;
    let store = store::open(config.database_url.as_str(), &open_options(config)).await?;
    let outcome = assume_or_import(&*store, config, file, opened, partial).await;
    store.close().await;
    notice(outcome?);
    Ok(())
}

/// Imports an opened file: as if its chain contained the assume-valid block, and again in full if it does not. A pipe,
/// which can't be read twice, in full at once.
async fn assume_or_import(
    store: &dyn BlockStore,
    config: &Config,
    file: &Path,
    (name, reader, size): (String, Reader, Option<u64>),
    partial: bool,
) -> Result<Summary, ImportError> {
    let pin = config.network.assume_valid.as_ref();
    let Some(pin) = pin.filter(|_| config.verify == Level::Pow && size.is_some()) else {
        return import(store, config, Lines::new(reader), &name, size, partial, None).await;
    };
    match import(store, config, Lines::new(reader), &name, size, partial, Some(pin)).await {
        Err(ImportError::NotAssumed) => {}
        outcome => {
            let summary = outcome?;
            // No failed import: all is in the store, and the background verification counts these blocks again.
            if summary.assumed > 0
                && let Err(error) = AssumedBlocks::count(store, pin).await
            {
                tracing::warn!(%error, "the blocks that are assumed valid could not be counted");
            }
            return Ok(summary);
        }
    }
    tracing::debug!(file = name, "its chain does not contain the assume-valid block: it is verified in full");
    let (_, again, size) = open(file).await?;
    import(store, config, Lines::new(again), &name, size, partial, None).await
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
    pin: Option<&AssumeValid>,
) -> Result<Summary, ImportError> {
    tracing::debug!(file, "the store is open");
    let mut importer: Option<Importer<'_>> = None;
    let mut progress = Progress::new("import", size);
    let (mut count, mut ended, mut cut, mut ours) = (0, false, false, None);
    let read = async {
        loop {
            let outcome = lines.next().await.map(|line| line.map(|line| parse(line, &mut ours)));
            let line = lines.number;
            let at = |problem: Problem| problem::other_format(lines.current()).unwrap_or(problem).at(file, line);
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
                        None => importer.insert(Importer::begin(store, config, file, pin).await?),
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
        match (cut || (ours == Some(true) && !ended), count == 0 && !ended) {
            _ if partial => Ok(()),
            (true, _) => Err(ImportError::CutOff(file.into())),
            (_, true) => Err(ImportError::Empty(file.into())),
            _ => Ok(()),
        }
    };
    if let Err(error) = read.await {
        return Err(match importer {
            Some(importer) => importer.first_error(error).await,
            None => error,
        });
    }
    let importer = match importer {
        Some(importer) => importer,
        // Without a block too the summary has the chain, and a store that can't be written fails.
        None => Importer::begin(store, config, file, pin).await?,
    };
    importer.finish().await
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
