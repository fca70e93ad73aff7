//! Syncing with proof of work against the hash rate of the machine, and the memory that a sync takes.

use std::{process::Stdio, time::Instant};

use libp2p::Multiaddr;
use modal_gateway::{
    app::BUNDLED_CHAIN,
    chain::{Level, MinerBlock, Network, PowMemory, PowOptions, Verifier},
    store::{self, OpenOptions},
};
use tokio::process::Command;

use crate::{
    chain::Stores,
    machine::field,
    measure::{Outcome, Table, Target, median},
    plain::serving,
    sync::Link,
};

/// MiB of RandomX's own cache in light mode.
const RANDOMX_CACHE: f64 = 256.0;

const LIGHT: PowOptions = PowOptions { threads: 0, memory: PowMemory::Light };

/// Blocks a second of a sync that computes every hash, against the hashes a second of one thread.
pub async fn run(rounds: usize) -> Outcome<String> {
    let blocks: Vec<MinerBlock> = BUNDLED_CHAIN.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let (network, count) = (Network::devnet(), blocks.len() as f64);
    let threads = std::thread::available_parallelism()?.get();
    let single = Verifier::new(&network, Level::Pow, PowOptions { threads: 1, ..LIGHT })?;
    // Makes the cache, which the whole process shares from here on.
    let chain = single.verify(None, blocks.clone())?;

    let folder = tempfile::tempdir()?;
    let open = |name: String| {
        let url = format!("sqlite://{}/{name}.db", folder.path().display());
        async move { Outcome::Ok(store::open(&url, &OpenOptions::default()).await?) }
    };
    let full = open("peer".into()).await?;
    let mut writer = full.write().await?;
    writer.append(chain).await?;
    writer.commit().await?;
    let node = serving(full).await?;
    let link = Link::to(node.addresses().remove(0)).await?;
    let (mut hashes, mut synced, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let (single, blocks) = (single.clone(), blocks.clone());
        let start = Instant::now();
        tokio::task::spawn_blocking(move || single.verify(None, blocks)).await??;
        let rate = count / start.elapsed().as_secs_f64();
        let store = open(round.to_string()).await?;
        let (seconds, _) = link.sync(store, network.clone(), Level::Pow, LIGHT).await?;
        hashes.push(rate);
        synced.push(count / seconds);
        ratios.push(count / seconds / (threads as f64 * rate));
    }
    node.stop().await;
    let mut target = Target::at_least(0.9);
    let mut table = Table::new(0, &["threads", "hashes/s of one", "blocks/s synced", ": threads × hashes/s"]);
    let (hashes, synced) = (median(hashes), median(synced));
    let ratio = target.check(median(ratios));
    table.row(vec![threads.to_string(), format!("{hashes:.1}"), format!("{synced:.1}"), ratio]);
    Ok(format!(
        "#### Syncing at level `pow`: RandomX in light mode\n\n{table}\n\
         The 61 blocks of the bundled chain, from one of our nodes into SQLite; the cache is there before. Medians over \
         {rounds} rounds. {target}\n"
    ))
}

/// Peak resident memory of `modal-gateway sync`.
pub async fn memory(stores: &Stores) -> Outcome<String> {
    let mut table = Table::new(1, &["level", "blocks", "peak", "beside RandomX's cache"]);
    let mut target = Target::at_most(300.0);
    for length in [10_000, 100_000] {
        let node = serving(store::open(&stores.sqlite_url(length), &OpenOptions::default()).await?).await?;
        let peak = peak(node.addresses().remove(0), "linked", crate::chain::NETWORK_FILE).await?;
        node.stop().await;
        table.row(vec!["`linked`".into(), length.to_string(), format!("{peak:.0}"), target.check(peak)]);
    }
    let folder = tempfile::tempdir()?;
    let url = format!("sqlite://{}/peer.db", folder.path().display());
    let full = store::open(&url, &OpenOptions::default()).await?;
    let blocks: Vec<MinerBlock> = BUNDLED_CHAIN.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let verifier = Verifier::new(&Network::devnet(), Level::Linked, LIGHT)?;
    let mut writer = full.write().await?;
    writer.append(verifier.verify(None, blocks)?).await?;
    writer.commit().await?;
    let node = serving(full).await?;
    let peak = peak(node.addresses().remove(0), "pow", "devnet").await?;
    node.stop().await;
    let beside = target.check(peak - RANDOMX_CACHE);
    table.row(vec!["`pow`".into(), "61".into(), format!("{peak:.0}"), beside]);
    Ok(format!("#### Peak resident memory of `modal-gateway sync` into SQLite: MiB\n\n{table}\n{target}\n"))
}

/// Syncs in a process of its own; its peak in MiB. `network` is a name, or what a settings file says.
async fn peak(peer: Multiaddr, level: &str, network: &str) -> Outcome<f64> {
    let folder = tempfile::tempdir()?;
    let network = match network.contains('=') {
        true => {
            std::fs::write(folder.path().join("network.toml"), network)?;
            "network.toml"
        }
        false => network,
    };
    let said = folder.path().join("stderr");
    let mut process = Command::new(env!("CARGO_BIN_EXE_modal-gateway"))
        .args(["sync", &peer.to_string(), "--verify", level, "--network", network, "--pow-memory", "light"])
        .args(["--database-url", "sqlite://store.db"])
        .current_dir(folder.path())
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&said)?)
        .kill_on_drop(true)
        .spawn()?;
    let status = format!("/proc/{}/status", process.id().ok_or("the sync has ended")?);
    let mut peak: f64 = 0.0;
    // The mark is gone with the process, so it is read until then.
    let ended = loop {
        tokio::select! {
            ended = process.wait() => break ended?,
            () = tokio::time::sleep(std::time::Duration::from_millis(5)) => {
                if let Ok(mark) = field(&status, "VmHWM") {
                    peak = peak.max(mark.trim_end_matches(" kB").parse::<f64>()? / 1024.0);
                }
            }
        }
    };
    if ended.success() { Ok(peak) } else { Err(std::fs::read_to_string(&said)?.into()) }
}
