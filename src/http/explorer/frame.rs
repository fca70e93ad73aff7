//! What every page says around its content: its source, the tip that it was made at and how old that is, whether that
//! is live, and where else to go.

use serde::Deserialize;

use super::{
    assets::Assets,
    parts::{BlockLink, Links, Mark, Moment},
    text::{self, Shown},
};
use crate::{
    chain::Position,
    http::gateway::Gateway,
    protocol::{Code, Failure, Query},
    source::{
        Cursor, Origin, Source,
        job::{SyncState, SyncStatus},
    },
    store::Snapshot,
};

/// Block times without a block after which a chain is no longer called live.
const LIVE_BLOCK_TIMES: u64 = 5;

/// The explorer's pages that are always linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Home,
    Blocks,
    Epochs,
    Nominees,
    Network,
    Forks,
    Reorganisations,
    Other,
}

/// A link to one of them.
pub(super) struct NavigationLink {
    pub href: String,
    pub text: &'static str,
    pub is_current: bool,
}

/// What is around a page.
pub(super) struct Frame {
    pub title: String,
    pub root: String,
    pub network: String,
    pub navigation: Vec<NavigationLink>,
    pub assets: Assets,
    /// What the page knows of the chain; `None` on error pages.
    pub state: Option<State>,
    /// Seconds after which the page loads itself again.
    pub refresh: Option<u64>,
    /// The same page, loading itself again or not, whichever this one doesn't do.
    pub other_refresh: String,
}

/// The chain that a page was made of.
pub(super) struct State {
    /// The tip; `None` for an empty chain.
    pub tip: Option<BlockLink>,
    pub tip_time: Option<Moment>,
    /// How far the blocks of the page are verified, where that was read.
    pub level: Option<Mark>,
    /// Why the page is not live; `None` if it is.
    pub not_live: Option<String>,
    pub sync: String,
    /// When the page was made, to the minute.
    pub made: String,
    /// The id of the last event that the page has in it.
    pub cursor: String,
    pub tip_header: Option<String>,
}

impl Frame {
    /// What is around a page that was made of `snapshot` at `now`.
    ///
    /// # Errors
    /// Those of the source.
    pub(super) async fn new(
        gateway: &Gateway,
        links: &Links,
        now: i64,
        section: Section,
        title: String,
        snapshot: &Snapshot,
    ) -> Result<Self, Failure> {
        let (source, network) = (&gateway.source, &gateway.settings.network);
        let tip = snapshot.tip.as_ref().map(Position::from);
        let tip_time = match &tip {
            Some(tip) => time_of(source, tip).await?,
            None => None,
        };
        let state = State {
            tip: tip.as_ref().map(|tip| BlockLink::new(links, tip)),
            tip_time: tip_time.map(|at| Moment::new(at, now)),
            level: snapshot.level.map(Mark::level),
            not_live: not_live(tip_time, network.target_block_time, now),
            sync: sync_words(&source.sync_status().await?),
            made: made(now),
            cursor: Cursor::from(snapshot).to_string(),
            tip_header: tip.map(|tip| format!("{}:{}", tip.index, tip.hash)),
        };
        let frame = Self::around(section, title, network.name.clone(), links.root.clone());
        Ok(Self { state: Some(state), ..frame })
    }

    /// What is around a page that knows nothing of the chain: those of errors, which may come from the store.
    pub(super) fn without_state(title: String, network: String, root: String) -> Self {
        Self::around(Section::Other, title, network, root)
    }

    fn around(section: Section, title: String, network: String, root: String) -> Self {
        let link = |path: &str, text, this| NavigationLink {
            href: format!("{root}{path}"),
            text,
            is_current: this == section,
        };
        let navigation = vec![
            link("", "Home", Section::Home),
            link("blocks", "Blocks", Section::Blocks),
            link("epochs", "Epochs", Section::Epochs),
            link("nominees", "Nominees", Section::Nominees),
            link("network", "Network", Section::Network),
            link("forks", "Forks", Section::Forks),
            link("reorganisations", "Reorganisations", Section::Reorganisations),
        ];
        let network = Shown::listed(&network).text;
        Self {
            title,
            root,
            network,
            navigation,
            assets: Assets::current(),
            state: None,
            refresh: None,
            other_refresh: String::new(),
        }
    }
}

/// The timestamp of a block, as the source keeps it for as long as the chain stays; `None` where the chain has just
/// changed.
async fn time_of(source: &Source, block: &Position) -> Result<Option<i64>, Failure> {
    #[derive(Deserialize)]
    struct Timed {
        timestamp: i64,
    }
    match source.answer(Query::Get { hash: block.hash.clone() }, &Origin::Local, 0).await {
        Ok(answer) => {
            let block: Timed = serde_json::from_slice(answer.data()).map_err(|_| Failure::new(Code::Internal))?;
            Ok(Some(block.timestamp))
        }
        Err(error) if error.failure.code == Code::BlockNotFound => Ok(None),
        Err(error) => Err(error.failure),
    }
}

/// Why a page with this tip is not live: in words.
fn not_live(tip_time: Option<i64>, block_time: u64, now: i64) -> Option<String> {
    let Some(at) = tip_time else {
        return Some("this store has no block yet".into());
    };
    let old = now.saturating_sub(at);
    let most = i64::try_from(block_time.saturating_mul(LIVE_BLOCK_TIMES)).unwrap_or(i64::MAX);
    (old > most).then(|| {
        let age = text::age(at, now);
        format!("mining of the last block began {age}, and a block should take {} s", text::grouped(block_time))
    })
}

/// The sync's state as a sentence's end.
pub(super) fn sync_words(sync: &SyncStatus) -> String {
    let peers = if sync.useful_peers == 1 { "peer" } else { "peers" };
    match sync.state {
        SyncState::Synced => format!("in sync with {} {peers}", text::grouped(sync.useful_peers)),
        SyncState::Syncing => "blocks are being fetched".into(),
        SyncState::Off => "off: this gateway doesn't follow the network".into(),
        SyncState::Stalled => {
            let reason = sync.reason.as_deref().map(|reason| Shown::listed(reason).text);
            format!("stalled{}", reason.map(|reason| format!(": {reason}")).unwrap_or_default())
        }
    }
}

/// A time to the minute.
fn made(now: i64) -> String {
    let utc = text::utc(now - now.rem_euclid(60)).unwrap_or_default();
    utc.replace(":00 UTC", " UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_whose_tip_is_older_than_a_few_block_times_is_not_live() {
        assert_eq!(not_live(Some(1000), 60, 1300), None);
        let reason = not_live(Some(1000), 60, 1301).unwrap();
        assert_eq!(reason, "mining of the last block began 5 minutes ago, and a block should take 60 s");
        assert!(not_live(None, 60, 0).is_some());
    }

    #[test]
    fn the_time_of_a_page_has_minutes() {
        assert_eq!(made(1_795_390_861), "2026-11-22 23:41 UTC");
    }

    #[test]
    fn the_sync_is_told_in_words() {
        let synced = SyncStatus { state: SyncState::Synced, useful_peers: 1, ..SyncStatus::default() };
        assert_eq!(sync_words(&synced), "in sync with 1 peer");
        assert_eq!(sync_words(&SyncStatus::stalled("no peer")), "stalled: no peer");
    }
}
