//! Filling an empty store in the other ways: bare insertion of the rows, their `COPY`, and `import` of the blocks.

use std::{fmt::Write as _, path::Path, process::Stdio, sync::Arc};

use modal_gateway::{
    chain::MinerBlock,
    store::{self, BlockStore, OpenOptions},
};
use sqlx::{Connection, PgConnection, QueryBuilder, SqliteConnection};
use tokio::process::Command;

use crate::{
    chain::{Kind, NETWORK_FILE},
    measure::Outcome,
    postgres,
    spent::{Spent, Work},
};

/// Blocks that fill a store.
pub const LENGTH: usize = 100_000;
/// Rows of an INSERT, and of a transaction, where nothing but insertion is measured.
const ROWS_PER_STATEMENT: usize = 250;
const ROWS_PER_TRANSACTION: usize = 1_000;

/// An empty store of either kind.
pub struct Empty {
    /// Where it is.
    pub url: String,
    _folder: tempfile::TempDir,
    _database: Option<postgres::Database>,
}

impl Empty {
    /// Creates one.
    pub async fn create(kind: Kind) -> Outcome<Self> {
        let folder = tempfile::tempdir()?;
        let database = match kind {
            Kind::Sqlite => None,
            Kind::Postgres => Some(postgres::Database::create().await),
        };
        let url = match &database {
            Some(database) => database.url.clone(),
            None => format!("sqlite://{}/store.db", folder.path().display()),
        };
        Ok(Self { url, _folder: folder, _database: database })
    }

    /// Opens it, which makes its tables.
    pub async fn open(&self) -> Outcome<Arc<dyn BlockStore>> {
        Ok(store::open(&self.url, &OpenOptions::default()).await?)
    }
}

/// A row of `block`: its document, and the block in it.
pub type Row = (String, MinerBlock);

/// The rows of `full`.
pub async fn rows(full: &dyn BlockStore) -> Outcome<Vec<Row>> {
    let mut rows = Vec::with_capacity(LENGTH);
    let mut next = 0;
    while next < LENGTH as u64 {
        let page = full.range(next, next + 999).await?;
        for block in page.list.parse::<MinerBlock>()? {
            rows.push((block.to_json(), block));
        }
        next += page.list.count;
    }
    Ok(rows)
}

/// What Postgres takes to `COPY` the rows into the same table, the writing of their text included.
pub async fn copy(rows: &[Row]) -> Outcome<Spent> {
    let empty = Empty::create(Kind::Postgres).await?;
    empty.open().await?.close().await;
    let mut connection = PgConnection::connect(&empty.url).await?;
    let work = Work::begin(Kind::Postgres, &empty.url, true, None).await?;
    let statement = "COPY block (hash, idx, epoch, previous_hash, canonical, orphan_reason, cumulative_difficulty, level, \
                     document) FROM STDIN";
    let mut copy = connection.copy_in_raw(statement).await?;
    for rows in rows.chunks(ROWS_PER_TRANSACTION) {
        let mut text = String::new();
        for (document, block) in rows {
            let MinerBlock { hash, index, epoch, previous_hash, .. } = block;
            // In this form of text a backslash begins an escape.
            let document = document.replace('\\', "\\\\");
            writeln!(text, "{hash}\t{index}\t{epoch}\t{previous_hash}\tt\t\\N\t{index}\t1\t{document}")?;
        }
        copy.send(text.into_bytes()).await?;
    }
    copy.finish().await?;
    let spent = work.end()?;
    let (count,): (i64,) = sqlx::query_as("SELECT count(*) FROM block").fetch_one(&mut connection).await?;
    connection.close().await?;
    if count == rows.len() as i64 { Ok(spent) } else { Err(format!("{count} rows copied").into()) }
}

/// What the insertion of the rows takes, and nothing else.
pub async fn bare_insertion(kind: Kind, rows: &[Row]) -> Outcome<Spent> {
    let empty = Empty::create(kind).await?;
    // Makes the tables.
    empty.open().await?.close().await;
    macro_rules! insert {
        ($connection:ident) => {{
            let work = Work::begin(kind, &empty.url, true, None).await?;
            for rows in rows.chunks(ROWS_PER_TRANSACTION) {
                let mut transaction = $connection.begin().await?;
                for rows in rows.chunks(ROWS_PER_STATEMENT) {
                    let mut insert = QueryBuilder::new(
                        "INSERT INTO block (hash, idx, epoch, previous_hash, canonical, orphan_reason, \
                         cumulative_difficulty, level, document) ",
                    );
                    insert.push_values(rows, |mut values, (document, block)| {
                        values.push_bind(&block.hash).push_bind(block.index as i64).push_bind(block.epoch as i64);
                        values.push_bind(&block.previous_hash).push_bind(true).push_bind(None::<String>);
                        values.push_bind(block.index.to_string()).push_bind(1_i64).push_bind(document);
                    });
                    insert.build().execute(&mut *transaction).await?;
                }
                transaction.commit().await?;
            }
            // Before the thread of the connection is gone.
            let spent = work.end()?;
            $connection.close().await?;
            Ok(spent)
        }};
    }
    match kind {
        Kind::Sqlite => {
            let options: sqlx::sqlite::SqliteConnectOptions = empty.url.parse()?;
            // As the store has it.
            let options = options
                .synchronous(sqlx::sqlite::SqliteSynchronous::Full)
                .pragma("cache_size", "-16384")
                .pragma("wal_autocheckpoint", "4096");
            let mut connection = SqliteConnection::connect_with(&options).await?;
            insert!(connection)
        }
        Kind::Postgres => {
            let mut connection = PgConnection::connect(&empty.url).await?;
            insert!(connection)
        }
    }
}

/// Writes the blocks of the store at `url` to a file in `folder`, and a settings file of their network.
pub async fn export(url: &str, folder: &Path) -> Outcome<()> {
    std::fs::write(folder.join("network.toml"), NETWORK_FILE)?;
    program(folder, &["export", "blocks", "--database-url", url]).await
}

/// What `import` of that file takes, the start of the program included.
pub async fn import(kind: Kind, folder: &Path) -> Outcome<Spent> {
    let empty = Empty::create(kind).await?;
    empty.open().await?.close().await;
    let work = Work::begin(kind, &empty.url, false, None).await?;
    let arguments =
        ["import", "blocks", "--verify", "linked", "--network", "network.toml", "--database-url", &empty.url];
    program(folder, &arguments).await?;
    let spent = work.end()?;
    let store = empty.open().await?;
    let length = store.state().await?.length;
    store.close().await;
    if length == LENGTH as u64 { Ok(spent) } else { Err(format!("{length} blocks imported").into()) }
}

async fn program(folder: &Path, arguments: &[&str]) -> Outcome<()> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_modal-gateway"));
    command.args(arguments).current_dir(folder).env_clear().stdin(Stdio::null()).stdout(Stdio::null());
    let output = command.output().await?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into()) }
}
