//! Claims of peers: role and status page in the agent string (`modal-node/0.1.0;status_url=…;role=Miner`), and the
//! chain.

use serde::Serialize;
use url::Url;

use crate::chain::words;
use crate::protocol::Ancestor;

/// Longest role kept, in characters.
const MAX_ROLE_CHARS: usize = 32;
/// Longest address of a status page kept, in characters.
const MAX_URL_CHARS: usize = 512;

/// Longest hash kept, in characters: those of the network have at most 64.
const MAX_HASH_CHARS: usize = 128;
/// Longest problem kept, in characters.
const MAX_PROBLEM_CHARS: usize = 256;
/// Longest decimal number kept, in characters: 2^128 has 39 digits.
const MAX_NUMBER_CHARS: usize = 64;

/// Reads the role, such as `Miner` or `Observer`: printable text of at most 32 characters.
pub(super) fn role(agent: &str) -> Option<String> {
    let role = field(agent, "role")?;
    let printable = |c: char| !c.is_control() && !is_invisible(c);
    let plain = !role.is_empty() && role.chars().count() <= MAX_ROLE_CHARS && role.chars().all(printable);
    plain.then(|| role.to_owned())
}

/// Reads the URL of the status page: http or https, at most 512 characters.
pub(super) fn status_url(agent: &str) -> Option<String> {
    let url = field(agent, "status_url")?;
    if url.len() > MAX_URL_CHARS {
        return None;
    }
    let parsed = Url::parse(url).ok()?;
    let web = matches!(parsed.scheme(), "http" | "https") && parsed.has_host();
    // Text before `@` could be mistaken for the host.
    let no_userinfo = parsed.username().is_empty() && parsed.password().is_none();
    let plain = url.chars().all(|c| c.is_ascii_graphic() && !"\"'<>\\`".contains(c));
    (web && no_userinfo && plain).then(|| url.to_owned())
}

fn field<'a>(agent: &'a str, name: &str) -> Option<&'a str> {
    agent.split(';').skip(1).find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('=')).map(str::trim)
}

/// Whether a character is invisible or changes the direction of text.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Relation of a peer's chain to the local one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Both have the same tip.
    Same,
    /// The local chain contains its tip.
    Behind,
    /// Its chain extends the local one.
    Ahead,
    /// The chains fork at the common ancestor.
    Forked,
    /// Its genesis differs.
    OtherGenesis,
    /// Not known yet.
    Unknown,
}

words!(Standing {
    Same = "same",
    Behind = "behind",
    Ahead = "ahead",
    Forked = "forked",
    OtherGenesis = "other_genesis",
    Unknown = "unknown",
});

/// Claims of a peer about its chain, as of the latest sync. They are unverified, and nothing depends on them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct PeerChain {
    /// Hash of its tip.
    pub tip_hash: String,
    /// Index of that block, once it is verified; the peer's claim is `claimed_height`.
    #[schema(required)]
    pub tip_index: Option<u64>,
    /// Claimed height.
    pub claimed_height: u64,
    /// Claimed number of blocks.
    pub claimed_length: u64,
    /// Claimed work: a decimal number; null where the peer sends none.
    #[schema(required)]
    pub claimed_work: Option<String>,
    /// Time of the claims, in unix seconds.
    pub at: i64,
    /// Relation of its chain to the local one.
    pub standing: Standing,
    /// Last common block, as far as it is known.
    #[schema(required)]
    pub common_ancestor: Option<Ancestor>,
    /// Reason why its chain could not be synced.
    #[schema(required)]
    pub problem: Option<String>,
}

impl PeerChain {
    /// Returns the claims with bounded texts and without control characters: peers write them.
    pub(crate) fn bounded(self) -> Self {
        Self {
            tip_hash: bounded(&self.tip_hash, MAX_HASH_CHARS),
            claimed_work: self.claimed_work.map(|work| bounded(&work, MAX_NUMBER_CHARS)),
            common_ancestor: self
                .common_ancestor
                .map(|Ancestor { index, hash }| Ancestor { index, hash: bounded(&hash, MAX_HASH_CHARS) }),
            problem: self.problem.map(|problem| bounded(&problem, MAX_PROBLEM_CHARS)),
            ..self
        }
    }
}

fn bounded(text: &str, chars: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(chars).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(
        "modal-node/0.1.0;status_url=http://192.0.2.1:8080/;role=Miner",
        Some("Miner"),
        Some("http://192.0.2.1:8080/")
    )]
    #[case("modal-node/0.1.0;role=Observer", Some("Observer"), None)]
    #[case(
        "modal-node/0.1.0; status_url=https://node.example/status?x=1 ",
        None,
        Some("https://node.example/status?x=1")
    )]
    #[case("modal-node/0.1.0;status_url=;role=", None, None)]
    #[case("modal-gateway/0.1.0", None, None)]
    #[case("role=Miner", None, None)]
    #[case::control("x;role=Mi\u{1b}[2Jner", None, None)]
    #[case::override_of_direction("x;role=\u{202e}reniM", None, None)]
    #[case::script("x;status_url=javascript:alert(1)", None, None)]
    #[case::quote("x;status_url=http://a/\"onclick=", None, None)]
    #[case::no_host("x;status_url=/status", None, None)]
    #[case::other_host("x;status_url=http://good.example@evil.example/", None, None)]
    #[case::file("x;status_url=file:///etc/passwd", None, None)]
    fn role_and_status_page_are_read_from_the_agent(
        #[case] agent: &str,
        #[case] expected_role: Option<&str>,
        #[case] expected_url: Option<&str>,
    ) {
        assert_eq!(role(agent).as_deref(), expected_role);
        assert_eq!(status_url(agent).as_deref(), expected_url);
    }

    #[test]
    fn long_values_are_ignored() {
        let agent = |role: usize, url: usize| {
            format!("x;role={};status_url=http://{}", "m".repeat(role), "h".repeat(url - "http://".len()))
        };
        let (fits, long) = (agent(32, 512), agent(33, 513));
        assert_eq!((role(&fits).map(|r| r.len()), status_url(&fits).map(|u| u.len())), (Some(32), Some(512)));
        assert_eq!((role(&long), status_url(&long)), (None, None));
    }

    #[test]
    fn texts_of_peers_are_bounded_and_plain() {
        let long = "\u{1b}[2Jx\n".repeat(1000);
        let chain = PeerChain {
            tip_hash: long.clone(),
            tip_index: None,
            claimed_height: 48,
            claimed_length: 49,
            claimed_work: Some(long.clone()),
            at: 1,
            standing: Standing::OtherGenesis,
            common_ancestor: Some(Ancestor { index: 3, hash: long.clone() }),
            problem: Some(long),
        };
        let json = serde_json::to_value(chain.bounded()).unwrap();
        assert_eq!(json["standing"], "other_genesis");
        for (text, most) in
            [("/tip_hash", 128), ("/claimed_work", 64), ("/common_ancestor/hash", 128), ("/problem", 256)]
        {
            let text = json.pointer(text).unwrap().as_str().unwrap();
            assert_eq!(text.chars().count(), most);
            assert!(!text.contains(['\u{1b}', '\n']), "{text:?}");
        }
    }
}
