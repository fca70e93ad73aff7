//! What can be wrong with a file, with its line.

use std::io;

use crate::{
    chain::{MinerBlock, Network, pow::PowError, verify},
    cli::lines::MAX_LINE_BYTES,
    store::StoreError,
};

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum ImportError {
    #[error("{0}")]
    Read(String, #[source] io::Error),
    #[error("{file}: line {line}: {problem}")]
    Line { file: String, line: u64, problem: Problem },
    #[error("{file}: lines {first} to {last}: {problem}")]
    Conflict { file: String, first: u64, last: u64, problem: String },
    #[error("{0} ends without the record that closes an export: it is cut off, or --partial imports it as it is")]
    CutOff(String),
    #[error(
        "{0} is empty: it is cut off, since even the export of an empty store has a closing record; --partial takes it"
    )]
    Empty(String),
    /// The file is imported again, in full.
    #[error("its chain does not contain the network's assume-valid block")]
    NotAssumed,
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Pow(#[from] PowError),
    #[error("the verification broke off")]
    Thread(#[from] tokio::task::JoinError),
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum Problem {
    #[error("not UTF-8")]
    Utf8,
    #[error("it begins with a byte order mark: save the file as UTF-8 without one")]
    ByteOrderMark,
    #[error("longer than {} bytes", MAX_LINE_BYTES)]
    TooLong,
    #[error("{0}")]
    OtherFormat(&'static str),
    #[error("not a block: {0}")]
    Json(String),
    #[error(transparent)]
    Violation(#[from] verify::Violation),
    #[error("canonical blocks must ascend by index: expected {expected}, found {found}")]
    Order { expected: u64, found: u64 },
    #[error("the chain in the store ends before index {next}: the file can't go on at {found}")]
    Gap { next: u64, found: u64 },
    #[error(
        "two canonical blocks at index {index}: {} has {known}, this line has {found}{}",
        place(*.in_file),
        Network::owner_of(.found)
    )]
    TwoCanonical { index: u64, in_file: bool, known: String, found: String },
    #[error("the export's record counts {said} blocks, but {counted} precede it")]
    Count { said: u64, counted: u64 },
    #[error("the export's record has the SHA-256 {said}, but the lines before it have {found}: the file was changed")]
    Hash { said: String, found: String },
    #[error("more after the export's record, which is the last line")]
    AfterRecord,
}

impl Problem {
    /// The error of an import whose file has this problem in a line.
    pub(super) fn at(self, file: &str, line: u64) -> ImportError {
        ImportError::Line { file: file.into(), line, problem: self }
    }
}

/// Names the format of a file that is no NDJSON, from the beginning of a line that can't be imported.
pub(super) fn other_format(line: &[u8]) -> Option<Problem> {
    Some(Problem::OtherFormat(match line {
        [0x1f, 0x8b, ..] => {
            "compressed with gzip: decompress it first, or pipe: gzip -dc FILE | modal-gateway import -"
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            "compressed with zstd: decompress it first, or pipe: zstd -dc FILE | modal-gateway import -"
        }
        [b'[', ..] => {
            "a JSON array, but each block must be a line of its own: jq -c '.[]' FILE | modal-gateway import - --partial"
        }
        _ if line.starts_with(br#"{"ok""#) => {
            "an answer of the API as JSON, but each block must be a line of its own: \
             ask with `accept: application/x-ndjson`, and import with --partial"
        }
        _ if line == MinerBlock::csv_header().trim_ascii().as_bytes() => {
            "not a block but CSV, which can't be imported: export the chain as NDJSON, without --format csv"
        }
        _ => return None,
    }))
}

fn place(in_file: bool) -> &'static str {
    if in_file { "an earlier line" } else { "the store" }
}
