//! `sync`: syncs the store with peers once, from a node that lives only for it.

use std::{
    cell::RefCell,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use libp2p::{Multiaddr, PeerId};
use tokio_util::sync::CancellationToken;

use super::{
    common::open_options,
    error::CliError,
    peer::{self, resolve},
    progress,
};
use crate::{
    app::{sync_settings, warn_of_other_network},
    chain::Level,
    config::Config,
    p2p::{self, P2pClient, P2pError},
    source::job::{JobSpec, Mode, Phase, Progress},
    store::{self, BlockStore, Tip},
    sync::{Service, SyncError},
    telemetry::notice,
};

/// Why a sync failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SyncCommandError {
    #[error("{peer}")]
    Connect { peer: String, source: P2pError },
    #[error(transparent)]
    P2p(#[from] P2pError),
    #[error(transparent)]
    Sync(#[from] SyncError),
}

/// What a sync did.
struct Summary {
    progress: Progress,
    tip: Option<Tip>,
    took: Duration,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Progress { blocks, assumed, bytes, retries, verification, .. } = &self.progress;
        write!(f, "synced {blocks} {}", if *blocks == 1 { "block" } else { "blocks" })?;
        if let Some(level) = verification {
            write!(f, ", verified to {level}")?;
        }
        if *assumed > 0 {
            write!(f, ", {assumed} of them to {} for now (see `assume_valid`)", Level::Linked)?;
        }
        match &self.tip {
            Some(tip) => write!(f, ", tip {} {}", tip.index, tip.hash)?,
            None => f.write_str(", the chain is empty")?,
        }
        write!(f, ", {bytes} bytes in {:.1} s, {retries} retries", self.took.as_secs_f64())
    }
}

/// Syncs from these peers and says on stderr what came of it.
pub(super) async fn run(
    config: &Config,
    peers: &[String],
    mode: Mode,
    shutdown: &CancellationToken,
) -> Result<(), CliError> {
    let addresses: Vec<_> = peers.iter().map(|peer| resolve(&config.peers(), peer)).collect::<Result<_, _>>()?;
    let store = store::open(config.database_url.as_str(), &open_options(config)).await?;
    warn_of_other_network(&*store, &config.network).await;
    let outcome = match sync(config, store.clone(), addresses, mode, shutdown).await {
        Err(_) if shutdown.is_cancelled() => Err(CliError::Interrupted),
        outcome => outcome.map_err(CliError::from),
    };
    store.close().await;
    notice(outcome?);
    Ok(())
}

async fn sync(
    config: &Config,
    store: Arc<dyn BlockStore>,
    addresses: Vec<Multiaddr>,
    mode: Mode,
    shutdown: &CancellationToken,
) -> Result<Summary, SyncCommandError> {
    let started = Instant::now();
    let stop = CancellationToken::new();
    let (client, swarm) = p2p::start(peer::config(), Arc::new(peer::NoPaths), stop.clone()).await?;
    let work = async {
        let connected = tokio::select! {
            connected = connect(&client, &addresses, config.peer_timeout) => connected?,
            () = shutdown.cancelled() => return Err(SyncError::Cancelled.into()),
        };
        let peer = match &connected[..] {
            [only] if addresses.len() == 1 => Some(only.to_string()),
            _ => None,
        };
        let service = Service::new(store.clone(), client.clone(), &sync_settings(config)).map_err(SyncError::from)?;
        let bar = RefCell::new(Bar::default());
        let spec = JobSpec { mode, peer, verify: None };
        let progress = service.sync_once(&spec, shutdown, |progress| bar.borrow_mut().show(progress)).await?;
        let tip = store.state().await.map_err(SyncError::from)?.tip;
        Ok(Summary { progress, tip, took: started.elapsed() })
    };
    let outcome = work.await;
    stop.cancel();
    // It waits for the answers that are on their way, 10 s at most: a peer may not bear its connection to close before.
    // A swarm that panicked has nothing to add to the outcome.
    let _ = swarm.await;
    outcome
}

/// Connects to the peers, and waits until they have said what they speak. One of them is enough.
async fn connect(
    client: &P2pClient,
    addresses: &[Multiaddr],
    limit: Duration,
) -> Result<Vec<PeerId>, SyncCommandError> {
    let attempts = addresses.iter().map(async |address| {
        let peer = client.dial(address.clone()).await?;
        client.wait_connected(&peer.to_string(), limit).await
    });
    let (mut connected, mut failed) = (Vec::new(), None);
    for (address, outcome) in addresses.iter().zip(join_all(attempts).await) {
        match outcome {
            Ok(peer) => connected.push(peer),
            Err(source) => {
                tracing::debug!(%address, error = %source, "no connection");
                failed.get_or_insert(SyncCommandError::Connect { peer: address.to_string(), source });
            }
        }
    }
    match failed {
        Some(error) if connected.is_empty() => Err(error),
        _ => Ok(connected),
    }
}

/// The progress that is shown: of headers, then of blocks.
#[derive(Default)]
struct Bar(Option<(&'static str, progress::Progress)>);

impl Bar {
    fn show(&mut self, job: &Progress) {
        let (things, done) = match job.phase {
            Phase::Headers => ("headers", job.headers),
            Phase::Blocks => ("blocks", job.blocks),
            _ => return,
        };
        let (Some(from), Some(to)) = (job.from_index, job.to_index) else { return };
        let total = to.saturating_sub(from).saturating_add(1);
        if self.0.as_ref().is_none_or(|(shown, _)| *shown != things) {
            self.0 = Some((things, progress::Progress::new("sync", Some(total)).counting(things, done)));
        }
        if let Some((_, bar)) = &mut self.0 {
            bar.set_total(total);
            bar.set(done, done);
        }
    }
}
