//! `COPY` of blocks: the server neither plans a statement nor looks for conflicts in advance, and writes several rows
//! of a page at once.

use sqlx::PgConnection;

use crate::store::backend::{insert::COLUMNS, rows::BlockRow};

/// What begins the binary form: its signature, no flags, nothing more in the header.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// What ends it, in place of a number of columns.
const TRAILER: i16 = -1;

/// NULL, in place of a value's length.
const NULL: i32 = -1;

/// Bytes that are sent at once: the server works on them while the next are put together.
const PIECE: usize = 64 << 10;

/// Copies canonical rows into the table, none of which may be there. Not to be cut off: the connection would be left in
/// the middle of it.
pub async fn copy(connection: &mut PgConnection, rows: &[BlockRow]) -> sqlx::Result<()> {
    let mut copy = connection.copy_in_raw(&format!("COPY block ({COLUMNS}) FROM STDIN (FORMAT binary)")).await?;
    // Another number of values in a row is an error of the server's.
    let columns = COLUMNS.split(',').count() as i16;
    let mut data = HEADER.to_vec();
    for row in rows {
        data.extend(columns.to_be_bytes());
        push(&mut data, row.block.hash.as_bytes());
        push(&mut data, &row.block.index.to_be_bytes());
        push(&mut data, &row.block.epoch.to_be_bytes());
        push(&mut data, row.block.previous_hash.as_bytes());
        push(&mut data, &[u8::from(true)]);
        // A canonical block has no orphan reason.
        data.extend(NULL.to_be_bytes());
        push(&mut data, row.cumulative_difficulty.unwrap_or_default().to_string().as_bytes());
        push(&mut data, &row.level.code().to_be_bytes());
        push(&mut data, row.document.as_bytes());
        if data.len() >= PIECE {
            copy.send(&*data).await?;
            data.clear();
        }
    }
    data.extend(TRAILER.to_be_bytes());
    copy.send(data).await?;
    copy.finish().await?;
    Ok(())
}

/// Adds a column: its length and its value.
fn push(data: &mut Vec<u8>, value: &[u8]) {
    // A block is much shorter than 2 GiB.
    data.extend((value.len() as i32).to_be_bytes());
    data.extend(value);
}
