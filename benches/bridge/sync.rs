//! How fast a store is filled by syncing, against the bare insertion of the same rows, and their `COPY`; and what a
//! small gap costs.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, identity::Keypair};
use modal_gateway::{
    chain::{Level, Network, PowOptions},
    p2p::{self, P2pClient, P2pConfig},
    source::{
        LocalSource, Settings as SourceSettings,
        job::{JobSpec, Progress},
    },
    store::{self, BlockStore, OpenOptions},
    sync::{Service, Settings},
};
use tokio_util::sync::CancellationToken;

use crate::{
    chain::{KINDS, Kind, Stores, network},
    cpu::Meter,
    fill::{self, Empty, LENGTH},
    measure::{Outcome, Table, Target, median, thousands},
    plain::Plain,
    program,
    spent::{Spent, Ways, Work},
    wire::Mute,
};

/// Blocks that are missing where little is.
const GAP: u64 = 10;

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

/// Seconds that a sync of the whole chain takes, and one of a small gap; and where the time goes.
pub async fn run(stores: &Stores, rounds: usize) -> Outcome<String> {
    let url = stores.sqlite_url(LENGTH);
    let full = store::open(&url, &OpenOptions::default()).await?;
    let folder = tempfile::tempdir()?;
    fill::export(&url, folder.path()).await?;
    // In a process of its own, so that its CPU time is measured apart from ours.
    let (node, address) = program::node(&url, folder.path()).await?;
    let peer = Meter::Process(node.id().ok_or("the node has ended")?);
    let ours = Link::to(address.parse()?).await?;
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
    let mut ways = Ways::default();
    for (kind, name) in KINDS {
        // Seconds: bare, ours, plain; ratios: ours, plain; milliseconds of the gap.
        let mut columns: [Vec<f64>; 6] = Default::default();
        // Seconds of `COPY`, and the ratio of ours to it; Postgres alone has it.
        let (mut copies, mut copy_ratios) = (Vec::new(), Vec::new());
        let mut requests = 0;
        let mut spent: [Vec<Spent>; 4] = Default::default();
        for _ in 0..rounds {
            let rows = fill::rows(&*full).await?;
            let bare = fill::bare_insertion(kind, &rows).await?;
            let copied = if kind == Kind::Postgres { Some(fill::copy(&rows).await?) } else { None };
            drop(rows);
            let imported = fill::import(kind, folder.path()).await?;
            let empty = Empty::create(kind).await?;
            let store = empty.open().await?;
            let work = Work::begin(kind, &empty.url, true, Some(&peer)).await?;
            ours.linked(&store).await?;
            let synced = work.end()?;
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
            let (bare_seconds, from_ours) = (bare.seconds, synced.seconds);
            let copied_seconds = copied.as_ref().map(|copied| copied.seconds);
            copies.extend(copied_seconds);
            copy_ratios.extend(copied_seconds.map(|seconds| from_ours / seconds));
            let round =
                [bare_seconds, from_ours, from_plain, from_ours / bare_seconds, from_plain / bare_seconds, 1e3 * gap];
            columns.iter_mut().zip(round).for_each(|(column, value)| column.push(value));
            let [bares, copies, syncs, imports] = &mut spent;
            bares.push(bare);
            copies.extend(copied);
            syncs.push(synced);
            imports.push(imported);
        }
        ways.add(kind, name, &spent);
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
    drop(node);
    Ok(format!(
        "#### Syncing 100,000 blocks at level `linked` over loopback, against the bare insertion of the same rows\n\n{table}\n\
         Client, peer and database share the machine; both peers read from SQLite. Bare insertion: the rows are there \
         already, and go into the same table with the same indexes, 1,000 in a transaction. `COPY` takes the same rows as one \
         text, in one transaction: the floor. Medians over {rounds} rounds. \
         {ratios}\n\n{ways}\n#### The same store {GAP} blocks behind\n\n{gaps}"
    ))
}
