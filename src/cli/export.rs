//! `export`: the canonical chain as lines, read page by page and checked to be one chain.

use std::{
    fs,
    io::{self, BufWriter, Write},
    path::Path,
};

use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{common::open_options, error::CliError, lines::Record, progress::Progress};
use crate::{
    config::Config,
    store::{self, BlockStore, OpenOptions, StoreError, Tip},
    telemetry::notice,
};

/// Most blocks read at once.
const PAGE: u64 = 1000;
/// Bytes that the blocks read at once may have.
const PAGE_BYTES: u64 = 8 << 20;

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

/// Exports to `file` (`-`: stdout) and says on stderr how much.
pub(super) async fn run(config: &Config, file: &Path) -> Result<(), CliError> {
    let options = OpenOptions { create: false, migrate: false, write: false, ..open_options(config) };
    let store = store::open(config.database_url.as_str(), &options).await?;
    let outcome = match fs::metadata(file) {
        _ if file == Path::new("-") => to_writer(&*store, io::stdout(), "stdout").await,
        // A device or a pipe: there is nothing to replace.
        Ok(metadata) if !metadata.is_file() => {
            let name = file.display().to_string();
            let opened = fs::OpenOptions::new().write(true).open(file);
            to_writer(&*store, opened.map_err(|error| ExportError::Write(name.clone(), error))?, &name).await
        }
        _ => to_file(&*store, file).await,
    };
    store.close().await;
    let tip = outcome.map_err(|error| match error {
        ExportError::Write(_, error) if error.kind() == io::ErrorKind::BrokenPipe => CliError::Stdout(error),
        error => error.into(),
    })?;
    match tip {
        Some(tip) => notice(format_args!("exported {} blocks, tip {} {}", tip.index + 1, tip.index, tip.hash)),
        None => notice("exported 0 blocks, the chain is empty"),
    }
    Ok(())
}

/// Writes beside `file` and renames at the end, so that a file of that name is always whole.
async fn to_file(store: &dyn BlockStore, file: &Path) -> Result<Option<Tip>, ExportError> {
    let name = file.display().to_string();
    let failed = |error| ExportError::Write(name.clone(), error);
    // Follow a link rather than replace it.
    let target = fs::canonicalize(file).unwrap_or_else(|_| file.into());
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".modal-gateway-export-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666)); // less the umask, as for any new file
    let mut temporary = builder.tempfile_in(folder).map_err(failed)?;
    if let Ok(replaced) = fs::metadata(&target) {
        temporary.as_file().set_permissions(replaced.permissions()).map_err(failed)?;
    }
    let tip = to_writer(store, &mut temporary, &name).await?;
    temporary.as_file().sync_all().map_err(failed)?;
    temporary.persist(&target).map_err(|error| failed(error.error))?;
    Ok(tip)
}

async fn to_writer<W: Write>(store: &dyn BlockStore, writer: W, name: &str) -> Result<Option<Tip>, ExportError> {
    let failed = |error| ExportError::Write(name.into(), error);
    let mut out = Hashing { writer: BufWriter::with_capacity(256 * 1024, writer), hasher: Sha256::new() };
    let state = store.state().await?;
    let mut tip: Option<Tip> = None;
    let mut count = 0;
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
            for block in blocks {
                out.line(block.get()).map_err(failed)?;
            }
            (count, last_hash) = (to + 1, page.last_hash);
            progress.set(count, count);
        }
        tip = last_hash.map(|hash| Tip { hash, ..end.clone() });
    }
    let record = Record { count, sha256: hex::encode(out.hasher.clone().finalize()) };
    out.line(&serde_json::to_string(&record)?).map_err(failed)?;
    out.writer.flush().map_err(failed)?;
    Ok(tip)
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

struct Hashing<W: Write> {
    writer: BufWriter<W>,
    hasher: Sha256,
}

impl<W: Write> Hashing<W> {
    fn line(&mut self, text: &str) -> io::Result<()> {
        for part in [text.as_bytes(), b"\n"] {
            self.hasher.update(part);
            self.writer.write_all(part)?;
        }
        Ok(())
    }
}
