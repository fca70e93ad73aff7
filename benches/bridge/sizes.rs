//! What the chain takes on disk: the table of blocks and each of its indexes, by the length of the chain, and reckoned
//! to 100,000,000 blocks.

use sqlx::{Connection, PgConnection, SqliteConnection};

use crate::{
    chain::{Kind, Stores},
    measure::{Outcome, Table, thousands},
};

/// Length to which the sizes are reckoned.
const RECKONED: f64 = 1e8;

/// Bytes of the table `block` and of its indexes. Postgres keeps long documents beside the table; these are short.
const POSTGRES: &str = "SELECT relname::text AS name, pg_relation_size(oid) AS bytes FROM pg_class \
     WHERE oid = 'block'::regclass OR oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = 'block'::regclass) \
     UNION ALL SELECT 'other tables and their indexes', pg_database_size(current_database()) - pg_total_relation_size('block') \
     ORDER BY bytes DESC, name";

/// Bytes of the whole file.
const SQLITE: &str =
    "SELECT 'the file' AS name, page_count * page_size AS bytes FROM pragma_page_count(), pragma_page_size()";

/// Bytes a block, of each part, at each length.
pub async fn run(stores: &Stores, lengths: &[usize]) -> Outcome<String> {
    let heads: Vec<String> = lengths.iter().map(|length| thousands(*length as f64)).collect();
    let mut columns = vec!["store", "what"];
    columns.extend(heads.iter().map(String::as_str));
    columns.push("at 100,000,000 blocks, GB");
    let mut table = Table::new(2, &columns);
    let mut row = |store: &str, what: &str, bytes: &[f64]| {
        let each = bytes.iter().zip(lengths).map(|(bytes, length)| bytes / *length as f64);
        let each: Vec<f64> = each.collect();
        let reckoned = each.last().map(|each| each * RECKONED / 1e9).unwrap_or_default();
        let cells = each.iter().map(|each| format!("{each:.1}")).chain([format!("{reckoned:.1}")]);
        table.row([store.to_owned(), what.to_owned()].into_iter().chain(cells).collect());
    };

    for (kind, store) in &stores.kinds {
        // Of the longest chain's parts, their sizes at each length.
        let mut parts: Vec<(String, Vec<f64>)> = Vec::new();
        for length in lengths.iter().rev() {
            for (name, bytes) in parts_of(*kind, &stores.url(*kind, *length)?).await? {
                match parts.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, sizes)) => sizes.insert(0, bytes as f64),
                    None => parts.push((name, vec![bytes as f64])),
                }
            }
        }
        for (name, sizes) in &parts {
            row(store, name, sizes);
        }
    }
    Ok(format!(
        "#### On disk, by blocks in the chain: bytes a block\n\n{table}\n\
         The last column is the longest chain's bytes a block, times 100,000,000.\n"
    ))
}

/// What a database consists of, and the bytes of each.
async fn parts_of(kind: Kind, url: &str) -> Outcome<Vec<(String, i64)>> {
    Ok(match kind {
        Kind::Sqlite => {
            let mut connection = SqliteConnection::connect(url).await?;
            let parts = sqlx::query_as(SQLITE).fetch_all(&mut connection).await?;
            connection.close().await?;
            parts
        }
        Kind::Postgres => {
            let mut connection = PgConnection::connect(url).await?;
            let parts = sqlx::query_as(POSTGRES).fetch_all(&mut connection).await?;
            connection.close().await?;
            parts
        }
    })
}
