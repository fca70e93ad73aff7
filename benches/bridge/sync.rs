//! How fast a store is filled by syncing, against the bare insertion of the same rows, and their `COPY`; and what a small gap
//! costs.

use std::{
    fmt::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, identity::Keypair};
use modal_gateway::{
    chain::{Level, MinerBlock, Network, PowOptions},
    p2p::{self, P2pClient, P2pConfig},
    source::{
        LocalSource, Settings as SourceSettings,
        job::{JobSpec, Progress},
    },
    store::{self, BlockStore, OpenOptions},
    sync::{Service, Settings},
};
use sqlx::{Connection, PgConnection, QueryBuilder, SqliteConnection};
use tokio_util::sync::CancellationToken;

use crate::{
    chain::{KINDS, Kind, Stores, network},
    measure::{Outcome, Table, Target, median, thousands},
    plain::{Plain, serving},
    postgres,
    wire::Mute,
};

/// Blocks that are synced.
const LENGTH: usize = 100_000;
/// Blocks that are missing where little is.
const GAP: u64 = 10;
/// Rows of an INSERT, and of a transaction, where nothing but insertion is measured: as the store has them.
const ROWS_PER_STATEMENT: usize = 250;
const ROWS_PER_TRANSACTION: usize = 1_000;

/// An empty store of either kind.
struct Empty {
    url: String,
    _folder: tempfile::TempDir,
    _database: Option<postgres::Database>,
}

impl Empty {
    async fn create(kind: Kind) -> Outcome<Self> {
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

    async fn open(&self) -> Outcome<Arc<dyn BlockStore>> {
        Ok(store::open(&self.url, &OpenOptions::default()).await?)
    }
}

/// A peer to sync from, and our end of the connection.
pub struct Link {
    p2p: P2pClient,
    shutdown: CancellationToken,
}

impl Link {
    /// Connects with the peer at `address`.
    pub async fn to(address: Multiaddr) -> Outcome<Self> {
        let shutdown = CancellationToken::new();
        let config = P2pConfig::new(Keypair::generate_ed25519());
        let (p2p, _) = p2p::start(config, Arc::new(Mute), shutdown.clone()).await?;
        let peer = p2p.dial(address).await?;
        p2p.wait_connected(&peer.to_string(), Duration::from_secs(20)).await?;
        Ok(Self { p2p, shutdown })
    }

    /// Syncs into `store`; seconds, and what was done.
    pub async fn sync(
        &self,
        store: Arc<dyn BlockStore>,
        network: Network,
        level: Level,
        pow: PowOptions,
    ) -> Outcome<(f64, Progress)> {
        let (interval, peer_timeout) = (Duration::from_secs(10), Duration::from_secs(30));
        let settings = Settings { network, level, pow, interval, peer_timeout };
        let service = Service::new(store, self.p2p.clone(), &settings)?;
        let start = Instant::now();
        let progress = service.sync_once(&JobSpec::default(), &self.shutdown, |_| {}).await?;
        Ok((start.elapsed().as_secs_f64(), progress))
    }

    /// The same at level `linked`, to the end of the longest chain.
    async fn linked(&self, store: &Arc<dyn BlockStore>) -> Outcome<(f64, Progress)> {
        let done = self.sync(store.clone(), network(), Level::Linked, PowOptions::default()).await?;
        match store.state().await?.length {
            length if length == LENGTH as u64 => Ok(done),
            length => Err(format!("{length} blocks instead of {LENGTH}").into()),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Seconds that a sync of the whole chain takes, and one of a small gap.
pub async fn run(stores: &Stores, rounds: usize) -> Outcome<String> {
    let full = store::open(&stores.sqlite_url(LENGTH), &OpenOptions::default()).await?;
    let node = serving(full.clone()).await?;
    let ours = Link::to(node.addresses().remove(0)).await?;
    let source = SourceSettings {
        finality_depth: 40,
        peer_timeout: Duration::from_secs(10),
        cache_bytes: 32 << 20,
        sync: false,
        network: Arc::default(),
    };
    let plain = Plain::start(Arc::new(LocalSource::new(full.clone(), PeerId::random(), source))).await?;
    let plain = (Link::to(plain.address.clone()).await?, plain);

    let columns = [
        "store",
        "`COPY`",
        "bare insertion",
        "from our node",
        "blocks/s",
        ": bare",
        ": `COPY`",
        "from a plain peer",
        "blocks/s",
        ": bare",
    ];
    let mut table = Table::new(1, &columns);
    let mut ratios = Target::at_most(2.0);
    let mut gaps = Table::new(1, &["store", "ms", "requests"]);
    for (kind, name) in KINDS {
        // Seconds: bare, ours, plain; ratios: ours, plain; milliseconds of the gap.
        let mut columns: [Vec<f64>; 6] = Default::default();
        // Seconds of `COPY`, and the ratio of ours to it; Postgres alone has it.
        let (mut copies, mut copy_ratios) = (Vec::new(), Vec::new());
        let mut requests = 0;
        for _ in 0..rounds {
            let rows = rows(&*full).await?;
            let bare = bare_insertion(kind, &rows).await?;
            let copied = if kind == Kind::Postgres { Some(copy(&rows).await?) } else { None };
            let empty = Empty::create(kind).await?;
            let store = empty.open().await?;
            let (from_ours, _) = ours.linked(&store).await?;
            let mut writer = store.write().await?;
            writer.rewind(Some(LENGTH as u64 - 1 - GAP), "to be synced again", None, 0).await?;
            writer.commit().await?;
            let (gap, progress) = ours.linked(&store).await?;
            requests = progress.peers.iter().map(|peer| peer.requests).sum();
            store.close().await;
            let empty = Empty::create(kind).await?;
            let store = empty.open().await?;
            let (from_plain, _) = plain.0.linked(&store).await?;
            store.close().await;
            copies.extend(copied);
            copy_ratios.extend(copied.map(|seconds| from_ours / seconds));
            let round = [bare, from_ours, from_plain, from_ours / bare, from_plain / bare, 1e3 * gap];
            columns.iter_mut().zip(round).for_each(|(column, value)| column.push(value));
        }
        let [bare, from_ours, from_plain, ours_ratio, plain_ratio, gap] = columns.map(median);
        let rate = |seconds: f64| thousands(LENGTH as f64 / seconds);
        let shown = |values: Vec<f64>, unit| {
            if values.is_empty() { String::new() } else { format!("{:.2}{unit}", median(values)) }
        };
        table.row(vec![
            name.to_owned(),
            shown(copies, " s"),
            format!("{bare:.2} s"),
            format!("{from_ours:.2} s"),
            rate(from_ours),
            ratios.check(ours_ratio),
            shown(copy_ratios, ""),
            format!("{from_plain:.2} s"),
            rate(from_plain),
            ratios.check(plain_ratio),
        ]);
        gaps.row(vec![name.to_owned(), format!("{gap:.0}"), requests.to_string()]);
    }
    node.stop().await;
    Ok(format!(
        "#### Syncing 100,000 blocks at level `linked` over loopback, against the bare insertion of the same rows\n\n{table}\n\
         Client, peer and database share the machine; both peers read from SQLite. Bare insertion: the rows are there \
         already, and go into the same table with the same indexes, 1,000 in a transaction. `COPY` takes the same rows as one \
         text, in one transaction: the floor. Medians over {rounds} rounds. \
         {ratios}\n\n#### The same store {GAP} blocks behind\n\n{gaps}"
    ))
}

/// A row of `block`: its document, and the block in it.
type Row = (String, MinerBlock);

/// The rows of `full`.
async fn rows(full: &dyn BlockStore) -> Outcome<Vec<Row>> {
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

/// Seconds that Postgres takes to `COPY` the rows into the same table, the writing of their text included.
async fn copy(rows: &[Row]) -> Outcome<f64> {
    let empty = Empty::create(Kind::Postgres).await?;
    empty.open().await?.close().await;
    let mut connection = PgConnection::connect(&empty.url).await?;
    let start = Instant::now();
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
    let seconds = start.elapsed().as_secs_f64();
    let (count,): (i64,) = sqlx::query_as("SELECT count(*) FROM block").fetch_one(&mut connection).await?;
    connection.close().await?;
    if count == rows.len() as i64 { Ok(seconds) } else { Err(format!("{count} rows copied").into()) }
}

/// Seconds that the insertion of the rows takes, and nothing else.
async fn bare_insertion(kind: Kind, rows: &[Row]) -> Outcome<f64> {
    let empty = Empty::create(kind).await?;
    // Makes the tables.
    empty.open().await?.close().await;
    macro_rules! insert {
        ($connection:ident) => {{
            let start = Instant::now();
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
            let seconds = start.elapsed().as_secs_f64();
            $connection.close().await?;
            Ok(seconds)
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
