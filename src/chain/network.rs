//! What makes one network differ from another.

use std::collections::HashMap;

use serde::{Deserialize, Deserializer, Serialize, de::Error};

use super::{
    encoding::{Decimal, has_hash_form, words},
    epoch::EpochNumbering,
    position::Position,
    pow::PowAlgorithm,
};

pub(super) mod assume_valid;
pub(super) mod description;

pub use assume_valid::AssumeValid;

/// What becomes of a rule that a network may or may not enforce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Enforcement {
    /// A block that breaks the rule is refused.
    Enforce,
    /// A block that breaks the rule is accepted, and carries the deviation.
    Report,
    /// The rule is not looked at.
    Off,
}

// Earlier releases had truth values.
words!(Enforcement { Enforce = "enforce" | "true", Report = "report", Off = "off" | "false" });

/// A network's rules and where its nodes meet. Built in by [name](Self::named), or described by a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Name for people; nothing depends on it.
    pub name: String,
    /// How a header becomes a hash.
    pub pow: PowAlgorithm,
    /// How epochs are numbered.
    pub epoch_numbering: EpochNumbering,
    /// Hash of the only genesis that is accepted. `None`: the first sync takes that of the operator's own or the
    /// network's bootstrap peers, and keeps it.
    pub genesis_hash: Option<String>,
    /// How a target difficulty is handled that isn't that of [`next_difficulty`](Self::next_difficulty). The network's
    /// own nodes don't check it.
    pub difficulty_schedule: Enforcement,
    /// Target difficulty of genesis and of the first epoch, above zero.
    pub initial_difficulty: u128,
    /// How long a block should take, seconds, above zero.
    pub target_block_time: u64,
    /// Blocks that any chain of the network must contain.
    pub checkpoints: Vec<Position>,
    /// The block up to which blocks are stored before their proof of work is verified; `None`: none.
    pub assume_valid: Option<AssumeValid>,
    /// How far ahead of this machine's clock a block's timestamp should be at most, seconds; see
    /// [`timestamps`](Self::timestamps).
    pub max_seconds_ahead: u64,
    /// Earliest timestamp of a block other than genesis, unix seconds; `None`: any.
    pub minimum_block_timestamp: Option<i64>,
    /// Multiaddrs of the nodes that newcomers meet first.
    pub bootstrap: Vec<String>,
    /// Whether its nodes meet on the internet, so that no private address is of use on it.
    pub public: bool,
}

/// Block 0 of the bundled chain.
const DEVNET_GENESIS: &str = "63dc2d1c29cfed7824b8696e63e2105d6929aff382e7e03c738989d170087e60";

/// Bootstrap nodes of the public test network: the network's own list (`networks/testnet/info.json` of its repository),
/// and the name under which it publishes the same.
const TESTNET_BOOTSTRAP: [&str; 4] = [
    "/ip4/3.125.46.158/tcp/4040/ws/p2p/12D3KooWBGR3m1JmVFm2aZYR7TZXicjA7HSVSWi2fama5cPpgQiX",
    "/ip4/18.217.58.253/tcp/4040/ws/p2p/12D3KooWEA6dRWvK1vutRDxKfdPZZr7ycHvQNWrDGZZQbiE6YibZ",
    "/ip4/43.207.233.31/tcp/4040/ws/p2p/12D3KooWDGLGJhoUfkjG4P5MBaoRFVLMLRu4bEHQb9yy1XtHsH5h",
    "/dnsaddr/testnet.modality.network",
];

/// The nodes of the network's development networks, in their order. Their keys are public.
const DEVNET_NODES: [&str; 5] = [
    "12D3KooW9pte76rpnggcLYkFaawuTEs5DC5axHkg3cK3cewGxxHd",
    "12D3KooW9pypLnRn67EFjiWgEiDdqo8YizaPn8yKe5cNJd3PGnMB",
    "12D3KooW9qGaMuW7k2a5iEQ37gWgtjfFC4B3j5R1kKJPZofS62Se",
    "12D3KooW9qNFNGM5KJauVtyrCxnqPuvCF14zPE7gDTg1hamswzry",
    "12D3KooW9qnrANTWdi8VwL3zfSFSvdSQvKk5AtRE3nuEdinmbR1H",
];

impl Network {
    /// Names of the built-in networks.
    pub const NAMES: [&str; 7] = ["testnet", "mainnet", "devnet", "devnet1", "devnet2", "devnet3", "devnet5"];

    /// The built-in network of this name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "testnet" => Some(Self { initial_difficulty: 1, ..Self::public(name, &TESTNET_BOOTSTRAP) }),
            // Nothing is published there yet.
            "mainnet" => Some(Self::public(name, &["/dnsaddr/mainnet.modality.network"])),
            "devnet" => Some(Self::devnet()),
            "devnet1" => Some(Self::local(name, 1)),
            "devnet2" => Some(Self::local(name, 2)),
            "devnet3" => Some(Self::local(name, 3)),
            "devnet5" => Some(Self::local(name, 5)),
            _ => None,
        }
    }

    /// The end of an error about another network's genesis: the name of the built-in network whose genesis has this
    /// hash, or nothing.
    pub fn owner_of(genesis: &str) -> String {
        let networks = Self::NAMES.iter().filter_map(|name| Self::named(name));
        let owner = networks.into_iter().find(|network| network.genesis_hash.as_deref() == Some(genesis));
        owner.map_or_else(String::new, |network| format!("; this one is the genesis of the network `{}`", network.name))
    }

    /// A network of the usual kind on the internet: what a file that names nothing else describes. Initial difficulty
    /// and block time are those that the network's nodes assume.
    fn public(name: &str, bootstrap: &[&str]) -> Self {
        Self {
            name: name.into(),
            pow: PowAlgorithm::default(),
            epoch_numbering: EpochNumbering::default(),
            genesis_hash: None,
            difficulty_schedule: Enforcement::Report,
            initial_difficulty: 10,
            target_block_time: 60,
            checkpoints: Vec::new(),
            assume_valid: None,
            max_seconds_ahead: 7200,
            minimum_block_timestamp: None,
            bootstrap: bootstrap.iter().map(ToString::to_string).collect(),
            public: true,
        }
    }

    /// One of the network's own development networks: so many nodes on this machine.
    fn local(name: &str, nodes: usize) -> Self {
        let port = |number: usize| 10_000 + 100 * nodes + number;
        let address = |(number, id): (usize, &&str)| format!("/ip4/127.0.0.1/tcp/{}/ws/p2p/{id}", port(number + 1));
        let bootstrap = DEVNET_NODES.iter().take(nodes).enumerate().map(address).collect();
        Self { bootstrap, public: false, ..Self::public(name, &[]) }
    }

    /// A network for trying things out, whose blocks one core mines in some ten seconds: that of the bundled chain.
    pub fn devnet() -> Self {
        Self {
            genesis_hash: Some(DEVNET_GENESIS.into()),
            difficulty_schedule: Enforcement::Enforce,
            initial_difficulty: 1,
            target_block_time: 10,
            public: false,
            ..Self::public("devnet", &[])
        }
    }

    /// What becomes of a timestamp too far ahead. The network's own nodes don't check timestamps either, so that it is
    /// only reported where they meet.
    pub fn timestamps(&self) -> Enforcement {
        let theirs = self.public || self.difficulty_schedule == Enforcement::Report;
        if theirs { Enforcement::Report } else { Enforcement::Enforce }
    }
}

impl Default for Network {
    /// The network of the bundled chain, which dials no peer.
    fn default() -> Self {
        Self::devnet()
    }
}

/// The fields of a settings file, which names only what differs from a public network of the usual kind.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    name: Option<String>,
    pow: Option<PowAlgorithm>,
    epoch_numbering: Option<EpochNumbering>,
    genesis_hash: Option<String>,
    #[serde(default, deserialize_with = "enforcement")]
    difficulty_schedule: Option<Enforcement>,
    #[serde(default, deserialize_with = "difficulty")]
    initial_difficulty: Option<u128>,
    target_block_time: Option<u64>,
    #[serde(default)]
    checkpoints: Vec<Position>,
    assume_valid: Option<AssumeValid>,
    max_seconds_ahead: Option<u64>,
    minimum_block_timestamp: Option<i64>,
    #[serde(default)]
    bootstrap: Vec<String>,
    public: Option<bool>,
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let settings = Settings::deserialize(deserializer)?;
        let usual = Self::public("custom", &[]);
        let public = settings.public.unwrap_or(usual.public);
        let schedule = if public { Enforcement::Report } else { Enforcement::Enforce };
        let network = Self {
            name: settings.name.unwrap_or(usual.name),
            pow: settings.pow.unwrap_or(usual.pow),
            epoch_numbering: settings.epoch_numbering.unwrap_or_default(),
            genesis_hash: settings.genesis_hash.filter(|hash| hash != ANY_GENESIS),
            difficulty_schedule: settings.difficulty_schedule.unwrap_or(schedule),
            initial_difficulty: settings.initial_difficulty.unwrap_or(usual.initial_difficulty),
            target_block_time: settings.target_block_time.unwrap_or(usual.target_block_time),
            checkpoints: settings.checkpoints,
            assume_valid: settings.assume_valid,
            max_seconds_ahead: settings.max_seconds_ahead.unwrap_or(usual.max_seconds_ahead),
            minimum_block_timestamp: settings.minimum_block_timestamp,
            bootstrap: settings.bootstrap,
            public,
        };
        if network.initial_difficulty == 0 {
            return Err(D::Error::custom("initial_difficulty: must be above zero"));
        }
        if network.target_block_time == 0 {
            return Err(D::Error::custom("target_block_time: must be above zero"));
        }
        if let Some(hash) = network.genesis_hash.as_ref().filter(|hash| !has_hash_form(hash)) {
            let expected = "expected any, or a hash of 64 lower-case hex digits";
            return Err(D::Error::custom(format!("genesis_hash: `{hash}`: {expected}")));
        }
        check_points(&network.checkpoints, |_| "checkpoints").map_err(D::Error::custom)?;
        Ok(network)
    }
}

/// What stands for no genesis in particular.
pub const ANY_GENESIS: &str = "any";

/// Refuses a checkpoint that no block can have, and two blocks at one index: a store would be rewound below them, and
/// no chain would ever be accepted again. `field` names the member that a point, by its place in the list, comes from.
fn check_points(points: &[Position], field: impl Fn(usize) -> &'static str) -> Result<(), String> {
    let mut known = HashMap::new();
    for (i, Position { index, hash }) in points.iter().enumerate() {
        let problem = |text: String| Err(format!("{}: index {index}: `{hash}`: {text}", field(i)));
        if !has_hash_form(hash) {
            return problem("expected a hash of 64 lower-case hex digits".into());
        }
        let other = known.insert(index, hash).filter(|other| *other != hash);
        if let Some(other) = other {
            return problem(format!("another block is named there as well, `{other}`"));
        }
    }
    Ok(())
}

/// A word, or a truth value as earlier releases had it.
fn enforcement<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Enforcement>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected \"enforce\", \"report\" or \"off\"")]
    enum Written {
        Switch(bool),
        Word(Enforcement),
    }
    Ok(Some(match Written::deserialize(deserializer)? {
        Written::Switch(true) => Enforcement::Enforce,
        Written::Switch(false) => Enforcement::Off,
        Written::Word(word) => word,
    }))
}

/// Settings files can't hold numbers of 128 bits, so that a string is taken too.
fn difficulty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u128>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a difficulty: a whole number, or a string of decimal digits below 2^128")]
    enum Written {
        Number(u64),
        Text(Decimal),
    }
    Ok(Some(match Written::deserialize(deserializer)? {
        Written::Number(number) => number.into(),
        Written::Text(decimal) => decimal.0,
    }))
}

#[cfg(test)]
mod tests;
