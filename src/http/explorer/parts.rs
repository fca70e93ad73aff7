//! Parts of pages, each with a small template of its own: links, times, marks. Templates show them as they are, since
//! each has escaped what it holds.

use askama::{Template, filters::HtmlSafe};

use super::text::{self, Shown};
use crate::{
    chain::{Level, MinerBlock, Position},
    source::view::model::{BlockStatus, Neighbour},
};

/// An index or an epoch with its digits in groups, and a link to its page if there is one.
#[derive(Debug, Clone, Template)]
#[template(
    ext = "html",
    source = r#"{% if let Some(href) = href %}<a href="{{ href }}">{{ number }}</a>{% else %}{{ number }}{% endif %}"#
)]
pub(super) struct Numbered {
    href: Option<String>,
    number: String,
}

impl HtmlSafe for Numbered {}

/// A hash or a peer id, whole unless it is too long for a list, with a link to its page if it has one.
#[derive(Debug, Clone, Template)]
#[template(
    ext = "html",
    source = r#"{% if let Some(href) = href %}<a href="{{ href }}"><code class="id">{{ shown.text }}</code></a>{% else %}<code class="id">{{ shown.text }}</code>{% endif %}{% if shown.is_cut %} <span class="note">(cut)</span>{% endif %}"#
)]
pub(super) struct Id {
    href: Option<String>,
    shown: Shown,
}

impl HtmlSafe for Id {}

impl Id {
    /// A text without a link.
    pub(super) fn plain(text: &str) -> Self {
        Self { href: None, shown: Shown::listed(text) }
    }

    /// A text without a link, longer than in a list.
    pub(super) fn whole(text: &str) -> Self {
        Self { href: None, shown: Shown::whole(text) }
    }

    /// The same without its link.
    pub(super) fn unlinked(self) -> Self {
        Self { href: None, ..self }
    }

    /// Whether the end of the text is left out.
    pub(super) fn is_cut(&self) -> bool {
        self.shown.is_cut
    }
}

/// A time with its age.
#[derive(Debug, Clone, Template)]
#[template(
    ext = "html",
    source = r#"{% if let Some(iso) = iso %}<time datetime="{{ iso }}">{{ utc }}</time> <span class="age">{{ age }}</span>{% else %}<span>{{ utc }}</span>{% endif %}"#
)]
pub(super) struct Moment {
    iso: Option<String>,
    utc: String,
    age: String,
}

impl HtmlSafe for Moment {}

impl Moment {
    /// The time `at`, seen from `now`.
    pub(super) fn new(at: i64, now: i64) -> Self {
        let utc = text::utc(at).unwrap_or_else(|| format!("unix time {at}"));
        Self { iso: text::iso(at), utc, age: text::age(at, now) }
    }
}

/// A word on the state of something, with a sign and a border of its own: never by colour alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Template)]
#[template(
    ext = "html",
    source = r#"<span class="mark {{ self.class() }}"><span aria-hidden="true">{{ self.sign() }}</span> {{ self.word() }}</span>"#
)]
pub(super) enum Mark {
    /// On the chain.
    Canonical,
    /// On the chain, and too deep to change.
    Final,
    /// On the chain, and a reorganisation may still replace it.
    NotFinal,
    /// On a branch beside the chain.
    Orphaned,
    /// Verified with its proof of work.
    Proven,
    /// Verified but for its proof of work.
    LinksOnly,
    /// Not verified.
    NotVerified,
    /// Follows from blocks that may still change.
    Provisional,
    /// Follows from final blocks.
    Settled,
    /// Blocks are missing yet.
    Incomplete,
    /// Another chain than ours.
    NotOurs,
    /// Our chain, or a part of it.
    Ours,
    /// Not known.
    Unknown,
}

impl HtmlSafe for Mark {}

impl Mark {
    /// The mark of a block on the chain.
    pub(super) fn finality(is_final: bool) -> Self {
        if is_final { Self::Final } else { Self::NotFinal }
    }

    /// The mark of a verification level.
    pub(super) fn level(level: Level) -> Self {
        match level {
            Level::Pow => Self::Proven,
            Level::Linked => Self::LinksOnly,
            Level::None => Self::NotVerified,
        }
    }

    /// The mark of a verification level by its name.
    pub(super) fn named(level: &str) -> Self {
        level.parse().map_or(Self::NotVerified, Self::level)
    }

    /// The word.
    fn word(self) -> &'static str {
        match self {
            Self::Canonical => "canonical",
            Self::Final => "final",
            Self::NotFinal => "not final",
            Self::Orphaned => "orphaned",
            Self::Proven => "proof of work verified",
            Self::LinksOnly => "links verified, proof of work not",
            Self::NotVerified => "not verified",
            Self::Provisional => "provisional",
            Self::Settled => "settled",
            Self::Incomplete => "incomplete",
            Self::NotOurs => "not our chain",
            Self::Ours => "our chain",
            Self::Unknown => "not known",
        }
    }

    fn sign(self) -> &'static str {
        match self {
            Self::Canonical | Self::Ours => "●",
            Self::Final | Self::Settled => "■",
            Self::NotFinal | Self::Provisional | Self::Incomplete => "□",
            Self::Orphaned | Self::NotOurs => "✕",
            Self::Proven => "✓",
            Self::LinksOnly => "◇",
            Self::NotVerified | Self::Unknown => "?",
        }
    }

    /// The class in the stylesheet.
    fn class(self) -> &'static str {
        match self {
            Self::Canonical | Self::Ours | Self::Final | Self::Settled | Self::Proven => "good",
            Self::NotFinal | Self::Provisional | Self::Incomplete => "open",
            Self::Orphaned | Self::NotOurs => "gone",
            Self::LinksOnly | Self::NotVerified | Self::Unknown => "unsure",
        }
    }
}

/// Makes links: all are relative, so that pages work under any path.
#[derive(Debug, Clone)]
pub(super) struct Links {
    /// From the page to the explorer's first page: `./`, or `../` for each folder.
    pub root: String,
}

impl Links {
    /// The canonical block at an index.
    pub(super) fn index(&self, index: u64) -> Numbered {
        Numbered { href: Some(format!("{}block/{index}", self.root)), number: text::grouped(index) }
    }

    /// An epoch.
    pub(super) fn epoch(&self, epoch: u64) -> Numbered {
        Numbered { href: Some(format!("{}epoch/{epoch}", self.root)), number: text::grouped(epoch) }
    }

    /// An epoch that may not have begun, and then has no page, on a chain whose tip is in the epoch `newest`.
    pub(super) fn epoch_until(&self, epoch: u64, newest: Option<u64>) -> Numbered {
        match newest.is_some_and(|newest| epoch <= newest) {
            true => self.epoch(epoch),
            false => Numbered { href: None, number: text::grouped(epoch) },
        }
    }

    /// Exactly the block with this hash.
    pub(super) fn block(&self, hash: &str) -> Id {
        let href = if text::is_index(hash) { None } else { self.page("block", hash) };
        Id { href, shown: Shown::listed(hash) }
    }

    /// Exactly the block with this hash, however long that is.
    pub(super) fn own(&self, hash: &str) -> Id {
        let href = text::block_segment(hash).map(|name| format!("{}block/{name}", self.root));
        Id { href, shown: Shown::listed(hash) }
    }

    /// A nominee; genesis nominates nobody.
    pub(super) fn nominee(&self, peer: &str) -> Id {
        match peer {
            "" => Id { href: None, shown: Shown { text: "nobody".into(), is_cut: false } },
            peer => Id { href: self.page("nominee", peer), shown: Shown::listed(peer) },
        }
    }

    /// The nominee of a block. That of an orphaned one has no link: unless canonical blocks nominate the peer too, there
    /// is no page of it.
    pub(super) fn nominee_of(&self, block: &MinerBlock) -> Id {
        let nominee = self.nominee(&block.nominated_peer_id);
        if block.is_canonical { nominee } else { nominee.unlinked() }
    }

    fn page(&self, family: &str, name: &str) -> Option<String> {
        Some(format!("{}{family}/{}", self.root, text::segment(name)?))
    }
}

/// A link to a block: its index and its hash.
pub(super) struct BlockLink {
    pub index: Numbered,
    pub hash: Id,
}

impl BlockLink {
    pub(super) fn new(links: &Links, position: &Position) -> Self {
        Self { index: links.index(position.index), hash: links.block(&position.hash) }
    }
}

/// A block beside another one.
pub(super) struct Related {
    pub index: Numbered,
    pub hash: Id,
    pub mark: Mark,
    /// Why it was orphaned; may be empty.
    pub reason: String,
}

impl Related {
    pub(super) fn new(links: &Links, block: &Neighbour) -> Self {
        let mark = match block.status {
            BlockStatus::Canonical => Mark::Canonical,
            BlockStatus::Orphaned => Mark::Orphaned,
        };
        let reason = block.orphan_reason.as_deref().map(|reason| Shown::listed(reason).text);
        Self {
            index: links.index(block.index),
            hash: links.block(&block.hash),
            mark,
            reason: reason.unwrap_or_default(),
        }
    }
}

/// A block in a list.
pub(super) struct BlockRow {
    pub index: Numbered,
    pub hash: Id,
    pub time: Moment,
    pub nominee: Id,
    pub difficulty: String,
    pub mark: Mark,
    pub is_orphaned: bool,
    /// Why it was orphaned; may be empty.
    pub reason: String,
}

impl BlockRow {
    /// A block of the chain, or an orphaned one; `is_final` counts for the first only.
    pub(super) fn new(links: &Links, block: &MinerBlock, is_final: bool, now: i64) -> Self {
        let is_orphaned = !block.is_canonical;
        let reason = block.orphan_reason.as_deref().map(|reason| Shown::listed(reason).text);
        Self {
            index: links.index(block.index),
            hash: links.block(&block.hash),
            time: Moment::new(block.timestamp, now),
            nominee: links.nominee_of(block),
            difficulty: text::grouped(block.target_difficulty),
            mark: if is_orphaned { Mark::Orphaned } else { Mark::finality(is_final) },
            is_orphaned,
            reason: reason.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_escape_what_they_hold() {
        let links = Links { root: "../".into() };
        let hostile = r#""><script>alert('x')</script>&"#;
        for part in
            [links.block(hostile).to_string(), links.nominee(hostile).to_string(), Id::plain(hostile).to_string()]
        {
            assert!(!part.contains("<script"), "{part}");
            assert!(part.contains("&#60;script&#62;"), "{part}");
        }
    }

    #[test]
    fn a_hash_is_shown_whole_and_linked() {
        let (links, hash) = (Links { root: "./".into() }, "00ab".repeat(16));
        let expected = format!(r#"<a href="./block/{hash}"><code class="id">{hash}</code></a>"#);
        assert_eq!(links.block(&hash).to_string(), expected);
        assert!(links.block(&"é".repeat(500)).to_string().ends_with("(cut)</span>"));
    }

    #[test]
    fn a_hash_that_reads_as_an_index_is_no_link() {
        let links = Links { root: "./".into() };
        for hash in ["5", "0005", "9999999999999999999"] {
            for id in [links.block(hash), links.own(hash)] {
                assert_eq!(id.to_string(), format!(r#"<code class="id">{hash}</code>"#));
            }
        }
        assert!(links.block("99999999999999999999").to_string().starts_with("<a "), "20 digits are a hash");
    }

    #[test]
    fn a_time_has_its_age() {
        let moment = Moment::new(1_795_390_861, 1_795_390_861 + 180).to_string();
        let expected = "<time datetime=\"2026-11-22T23:41:01Z\">2026-11-22 23:41:01 UTC</time> \
                        <span class=\"age\">3 minutes ago</span>";
        assert_eq!(moment, expected);
        assert_eq!(Moment::new(i64::MAX, 0).to_string(), format!("<span>unix time {}</span>", i64::MAX));
    }
}
