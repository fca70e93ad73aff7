//! What makes one network differ from another.

use serde::{Deserialize, Deserializer, de::Error};

use super::{block::EpochNumbering, position::Position, pow::PowAlgorithm};

/// A network's rules: one section of the settings. Every field has the public network's value as its default, so that a
/// settings file names only what differs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(remote = "Self", default, deny_unknown_fields)]
pub struct Network {
    /// Name for people; nothing depends on it. Default: `modality`.
    pub name: String,
    /// How a header becomes a hash. Default: RandomX with the network's key.
    pub pow: PowAlgorithm,
    /// How epochs are numbered. Default: genesis first.
    pub epoch_numbering: EpochNumbering,
    /// Hash of the only genesis that is accepted. Without it, any genesis is whose previous hash is `0`. Default: the
    /// public network's, but none in a settings file with another `pow` or `initial_difficulty`, which change it.
    #[serde(default)]
    pub genesis_hash: Option<String>,
    /// Whether target difficulties must follow the schedule of [`next_difficulty`](Self::next_difficulty). Default:
    /// true.
    pub difficulty_schedule: bool,
    /// Target difficulty of genesis and of the first epoch, above zero; a number or a decimal string. Default: 1000.
    #[serde(deserialize_with = "difficulty")]
    pub initial_difficulty: u128,
    /// How long a block shall take, seconds, above zero. Default: 60.
    pub target_block_time: u64,
    /// Blocks that any chain of the network must contain. Default: none.
    pub checkpoints: Vec<Position>,
    /// How far ahead of this machine's clock a block's timestamp may be, seconds. Default: 7200. The network itself has
    /// no rule about timestamps.
    pub max_seconds_ahead: u64,
    /// Whether its nodes meet on the internet, so that nobody on it has business with private addresses. Default: true.
    pub public: bool,
}

/// Hash of the public network's genesis: a test computes it from what genesis is made of.
const MODALITY_GENESIS: &str = "1138a591e9aea737ab04eafd00b2057f4891ec7977c525cec410023a51a08d7e";

/// Block 0 of the bundled chain.
const DEVNET_GENESIS: &str = "63dc2d1c29cfed7824b8696e63e2105d6929aff382e7e03c738989d170087e60";

impl Network {
    /// Names of the built-in networks.
    pub const NAMES: [&str; 2] = ["modality", "devnet"];

    /// The built-in network of this name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "modality" => Some(Self::modality()),
            "devnet" => Some(Self::devnet()),
            _ => None,
        }
    }

    /// The public network.
    pub fn modality() -> Self {
        Self {
            name: "modality".into(),
            pow: PowAlgorithm::default(),
            epoch_numbering: EpochNumbering::default(),
            genesis_hash: Some(MODALITY_GENESIS.into()),
            difficulty_schedule: true,
            initial_difficulty: 1000,
            target_block_time: 60,
            checkpoints: Vec::new(),
            max_seconds_ahead: 7200,
            public: true,
        }
    }

    /// A network for trying things out, whose blocks one core mines in some ten seconds: that of the bundled chain.
    pub fn devnet() -> Self {
        Self {
            name: "devnet".into(),
            genesis_hash: Some(DEVNET_GENESIS.into()),
            initial_difficulty: 1,
            target_block_time: 10,
            public: false,
            ..Self::modality()
        }
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::modality()
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Not this function again, but the one that the derive made of the fields.
        let mut network = Self::deserialize(deserializer)?;
        if network.initial_difficulty == 0 {
            return Err(D::Error::custom("initial_difficulty: must be above zero"));
        }
        if network.target_block_time == 0 {
            return Err(D::Error::custom("target_block_time: must be above zero"));
        }
        let public = Self::modality();
        if (&network.pow, network.initial_difficulty) == (&public.pow, public.initial_difficulty) {
            network.genesis_hash = network.genesis_hash.or(public.genesis_hash);
        }
        Ok(network)
    }
}

/// Settings files can't hold numbers of 128 bits, so that a string is taken too.
fn difficulty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a difficulty: a whole number, or a string of decimal digits below 2^128")]
    enum Written {
        Number(u64),
        Text(super::block::Decimal),
    }
    Ok(match Written::deserialize(deserializer)? {
        Written::Number(number) => number.into(),
        Written::Text(decimal) => decimal.0,
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn parse(settings: &str) -> Result<Network, String> {
        toml::from_str(settings).map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_names_only_what_differs() {
        assert_eq!(parse(""), Ok(Network::modality()));
        let named = |name: &str| Network { name: name.into(), ..Network::modality() };
        assert_eq!(parse("name = 'mine'"), Ok(named("mine")), "the genesis stays");
        let own = parse("initial_difficulty = '340282366920938463463374607431768211455'").unwrap();
        assert_eq!(
            (own.initial_difficulty, own.genesis_hash),
            (u128::MAX, None),
            "another difficulty, another genesis"
        );
        assert_eq!(parse("pow = { algorithm = 'sha256' }").unwrap().genesis_hash, None);
        assert_eq!(parse("genesis_hash = 'ab'\ninitial_difficulty = 1").unwrap().genesis_hash.unwrap(), "ab");
        let genesis = Network::devnet().genesis_hash.unwrap();
        let devnet =
            format!("name = 'devnet'\ngenesis_hash = '{genesis}'\ninitial_difficulty = 1\ntarget_block_time = 10");
        let devnet = devnet + "\npublic = false";
        assert_eq!(parse(&devnet), Ok(Network::devnet()));
        let checked = parse("[[checkpoints]]\nindex = 7\nhash = 'ab'").unwrap();
        assert_eq!(checked.checkpoints, [Position { index: 7, hash: "ab".into() }]);
    }

    #[rstest]
    #[case("initial_difficulty = 0", "initial_difficulty: must be above zero")]
    #[case("initial_difficulty = -1", "expected a difficulty: a whole number, or a string")]
    #[case("initial_difficulty = '1e3'", "expected a difficulty")]
    #[case("target_block_time = 0", "target_block_time: must be above zero")]
    #[case("checkpoints = [{ index = 1 }]", "missing field `hash`")]
    #[case("checkpoint = []", "unknown field `checkpoint`")]
    fn a_value_that_cannot_work_is_refused(#[case] settings: &str, #[case] problem: &str) {
        let error = parse(settings).unwrap_err();
        assert!(error.contains(problem), "{error}");
    }
}
