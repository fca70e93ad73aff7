//! `export`: the canonical chain as NDJSON or CSV, read page by page and checked to be one chain.

use std::{
    fs, io,
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, PermissionsExt, fchown},
    },
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tokio::{
    fs::File,
    io::{AsyncWriteExt, BufWriter},
};

use super::{common::open_options, error::CliError, lines::Record, progress::Progress};
use crate::{
    chain::{MinerBlock, words},
    config::Config,
    store::{self, BlockStore, OpenOptions, StoreError, Tip},
    telemetry::notice,
};

/// Most blocks read at once.
const PAGE: u64 = 1000;
/// Bytes that the blocks read at once may have.
const PAGE_BYTES: u64 = 8 << 20;

/// Format of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum ExportFormat {
    /// One JSON block a line, and a record of count and SHA-256: what `import` reads.
    #[default]
    Ndjson,
    /// A line of names, and one line a block.
    Csv,
}

words!(ExportFormat { Ndjson = "ndjson", Csv = "csv" });

/// Why there is no export.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExportError {
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("the chain was reorganised below index {0} during the export: try again")]
    Changed(u64),
    #[error("the store's block text can't be read")]
    Text(#[from] serde_json::Error),
    #[error("{0}")]
    Write(String, #[source] io::Error),
}

/// What was exported.
struct Exported {
    /// The last block.
    tip: Option<Tip>,
    count: u64,
    /// Hex SHA-256 of the lines of names and blocks.
    sha256: String,
}

/// Exports to `file` (`-`: stdout) and says on stderr how much.
pub(super) async fn run(config: &Config, file: &Path, format: ExportFormat) -> Result<(), CliError> {
    let options = OpenOptions { create: false, migrate: false, write: false, ..open_options(config) };
    let store = store::open(config.database_url.as_str(), &options).await?;
    tracing::debug!(file = %file.display(), "the store is open");
    // By its name a stdout that is a file would be replaced, and what the shell writes after us lost.
    let is_stdout = ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"].iter().any(|name| file == Path::new(name));
    let outcome = if is_stdout {
        to_stdout(&*store, format).await
    } else if fs::metadata(file).is_ok_and(|metadata| !metadata.is_file()) {
        to_stream(&*store, format, file).await
    } else {
        to_file(&*store, format, file).await
    };
    store.close().await;
    let Exported { tip, count, sha256 } = outcome.map_err(|error| match error {
        ExportError::Write(_, error) if error.kind() == io::ErrorKind::BrokenPipe => CliError::Stdout(error),
        error => error.into(),
    })?;
    let tip = tip.map_or("the chain is empty".into(), |tip| format!("tip {} {}", tip.index, tip.hash));
    // CSV has no place for the record.
    let record = if format == ExportFormat::Csv { format!(", SHA-256 {sha256}") } else { String::new() };
    notice(format_args!("exported {count} blocks, {tip}{record}"));
    Ok(())
}

async fn to_stdout(store: &dyn BlockStore, format: ExportFormat) -> Result<Exported, ExportError> {
    let stdout = io::stdout().as_fd().try_clone_to_owned();
    let stdout = stdout.map_err(|error| ExportError::Write("stdout".into(), error))?;
    to_writer(store, format, File::from_std(stdout.into()), "stdout").await
}

/// Writes to a device or a pipe: there is nothing to replace.
async fn to_stream(store: &dyn BlockStore, format: ExportFormat, file: &Path) -> Result<Exported, ExportError> {
    let name = file.display().to_string();
    let opened = File::options().write(true).open(file).await;
    to_writer(store, format, opened.map_err(|error| ExportError::Write(name.clone(), error))?, &name).await
}

/// The file that `file` names. A link is followed rather than replaced, also to a file that is not there yet.
fn target_of(file: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(file) {
        // The links to no file end somewhere: what goes in a circle is another error.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut target = file.to_owned();
            while let Ok(link) = fs::read_link(&target) {
                target.pop();
                target.push(link);
            }
            Ok(target)
        }
        outcome => outcome,
    }
}

/// Writes beside `file` and renames at the end, so that a file of that name is always whole.
async fn to_file(store: &dyn BlockStore, format: ExportFormat, file: &Path) -> Result<Exported, ExportError> {
    let named = |name: String| move |error| ExportError::Write(name.clone(), error);
    let mut name = file.display().to_string();
    let target = target_of(file).map_err(named(name.clone()))?;
    if file.is_symlink() {
        name = format!("{name} -> {}", target.display());
    }
    let failed = named(name.clone());
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".modal-gateway-export-");
    builder.permissions(PermissionsExt::from_mode(0o666)); // less the umask, as for any new file
    let temporary = builder.tempfile_in(folder).map_err(&failed)?;
    let new = temporary.as_file();
    if let Ok(replaced) = fs::metadata(&target) {
        // Only root may give a file away, but others may have a group in common: what is not allowed is left out.
        let _ = fchown(new, None, Some(replaced.gid()));
        let _ = fchown(new, Some(replaced.uid()), None);
        // After the owner, whose change clears bits of the mode.
        new.set_permissions(replaced.permissions()).map_err(&failed)?;
    }
    let writer = File::from_std(new.try_clone().map_err(&failed)?);
    let exported = to_writer(store, format, writer, &name).await?;
    new.sync_all().map_err(&failed)?;
    temporary.persist(&target).map_err(|error| failed(error.error))?;
    Ok(exported)
}

/// Writes to an opened file. A pipe may never be read: `file` writes in a thread of its own, so that the command can be
/// dropped all the same.
async fn to_writer(
    store: &dyn BlockStore,
    format: ExportFormat,
    file: File,
    name: &str,
) -> Result<Exported, ExportError> {
    let failed = |error| ExportError::Write(name.into(), error);
    let mut out = Hashing { writer: BufWriter::with_capacity(256 * 1024, file), hasher: Sha256::new() };
    let state = store.state().await?;
    let mut tip: Option<Tip> = None;
    let mut count = 0;
    if format == ExportFormat::Csv {
        out.write(&MinerBlock::csv_header()).await.map_err(failed)?;
    }
    if let Some(end) = &state.tip {
        let total = end.index.saturating_add(1);
        let mut progress = Progress::new("export", Some(total));
        let mut last_hash = None;
        let most = state.blocks_within(PAGE_BYTES).min(PAGE);
        while count < total {
            let to = (count + most - 1).min(end.index);
            let page = store.range(count, to).await?;
            let blocks: Vec<Box<RawValue>> = page.list.parse()?;
            // What replaces a block replaces all above it, so links show whether the pages are of one chain.
            if page.list.count != to - count + 1 || !follow(&blocks, last_hash.as_deref())? {
                return Err(ExportError::Changed(to));
            }
            match format {
                ExportFormat::Ndjson => {
                    for block in blocks {
                        out.write_line(block.get()).await.map_err(failed)?;
                    }
                }
                ExportFormat::Csv => {
                    let blocks: Vec<MinerBlock> = page.list.parse()?;
                    out.write(&MinerBlock::csv_lines(&blocks)).await.map_err(failed)?;
                }
            }
            (count, last_hash) = (to + 1, page.last_hash);
            progress.set(count, count);
        }
        tip = last_hash.map(|hash| Tip { hash, ..end.clone() });
    }
    let record = Record { count, sha256: hex::encode(out.hasher.clone().finalize()) };
    if format == ExportFormat::Ndjson {
        out.write_line(&serde_json::to_string(&record)?).await.map_err(failed)?;
    }
    out.writer.flush().await.map_err(failed)?;
    Ok(Exported { tip, count, sha256: record.sha256 })
}

/// Whether the first of these blocks has `previous` as its parent.
fn follow(blocks: &[Box<RawValue>], previous: Option<&str>) -> Result<bool, serde_json::Error> {
    #[derive(Deserialize)]
    struct Link {
        previous_hash: String,
    }
    let (Some(previous), Some(first)) = (previous, blocks.first()) else { return Ok(previous.is_none()) };
    Ok(serde_json::from_str::<Link>(first.get())?.previous_hash == previous)
}

struct Hashing {
    writer: BufWriter<File>,
    hasher: Sha256,
}

impl Hashing {
    async fn write(&mut self, text: &str) -> io::Result<()> {
        self.hasher.update(text);
        self.writer.write_all(text.as_bytes()).await
    }

    async fn write_line(&mut self, text: &str) -> io::Result<()> {
        self.write(text).await?;
        self.write("\n").await
    }
}
