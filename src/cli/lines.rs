//! The file format of `import` and `export`: one block a line, and a record of count and hash at the end.

use std::io;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

/// Longest line that is read, in bytes without the line's end. A block has at most
/// [`MAX_BLOCK_BYTES`](crate::chain::MAX_BLOCK_BYTES) as we write it, but others may write more spaces and fields, and
/// each character as an escape of six.
pub(super) const MAX_LINE_BYTES: usize = 512 * 1024;

/// The last line of an export.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// How many lines with blocks precede it.
    pub(super) count: u64,
    /// Hex SHA-256 of all bytes before the record's line.
    pub(super) sha256: String,
}

/// What is wrong with a file's lines.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    #[error("longer than {MAX_LINE_BYTES} bytes")]
    TooLong,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads lines of bounded length and keeps count of them.
pub(super) struct Lines<R> {
    reader: R,
    line: Vec<u8>,
    /// SHA-256 of the lines before the current one.
    hasher: Sha256,
    /// Number of the current line, the first is 1.
    pub(super) number: u64,
    /// Bytes read so far.
    pub(super) bytes: u64,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, line: Vec::new(), hasher: Sha256::new(), number: 0, bytes: 0 }
    }

    /// The next line without white space around it; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<&[u8]>, LineError> {
        self.hasher.update(&self.line);
        self.line.clear();
        // Room for CR LF.
        let mut bounded = (&mut self.reader).take(MAX_LINE_BYTES as u64 + 2);
        let read = bounded.read_until(b'\n', &mut self.line).await?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        self.bytes += read as u64;
        let line = self.line.trim_ascii();
        match line.len() > MAX_LINE_BYTES || (read > MAX_LINE_BYTES + 1 && !self.line.ends_with(b"\n")) {
            true => Err(LineError::TooLong),
            false => Ok(Some(line)),
        }
    }

    /// The current line without white space around it. It is there even if it is too long: as far as it was read.
    pub(super) fn current(&self) -> &[u8] {
        self.line.trim_ascii()
    }

    /// Whether the current line lacks a line's end, as only the last one can.
    pub(super) fn is_unterminated(&self) -> bool {
        !self.line.ends_with(b"\n")
    }

    /// Hex SHA-256 of all lines before the current one.
    pub(super) fn sha256_before(&self) -> String {
        hex::encode(self.hasher.clone().finalize())
    }
}

/// The JSON error's message with the column alone: its line is always 1, which is not the file's.
pub(super) fn without_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((message, _)) => format!("{message} (column {})", error.column()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_counted_hashed_and_trimmed() {
        let mut lines = Lines::new(&b"a\r\n\n  b"[..]);
        assert_eq!(lines.next().await.unwrap(), Some(&b"a"[..]));
        assert_eq!(lines.next().await.unwrap(), Some(&b""[..]));
        assert_eq!(lines.next().await.unwrap(), Some(&b"b"[..]));
        assert_eq!((lines.number, lines.bytes), (3, 7));
        assert_eq!(lines.sha256_before(), hex::encode(Sha256::digest(b"a\r\n\n")));
        assert_eq!(lines.next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_line_is_bounded() {
        for end in ["", "\n", "\r\n"] {
            let fits = "x".repeat(MAX_LINE_BYTES) + end;
            assert_eq!(Lines::new(fits.as_bytes()).next().await.unwrap().unwrap().len(), MAX_LINE_BYTES);
            let long = "x".repeat(MAX_LINE_BYTES + 1) + end;
            assert!(matches!(Lines::new(long.as_bytes()).next().await, Err(LineError::TooLong)), "{end:?}");
        }
        let endless = tokio::io::BufReader::new(tokio::io::repeat(b'x'));
        assert!(matches!(Lines::new(endless).next().await, Err(LineError::TooLong)));
    }
}
