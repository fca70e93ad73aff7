//! What the settings say of the network.

use super::*;

#[test]
fn a_networks_bootstrap_genesis_and_schedule_may_be_replaced() {
    let testnet = load_env("MODAL_GATEWAY_NETWORK", "testnet").unwrap();
    assert_eq!(testnet.peers().len(), 4, "the network's own");
    let dir = tempfile::tempdir().unwrap();
    let hash = "ab".repeat(32);
    let text = format!("network = 'testnet'\nbootstrap = []\ngenesis_hash = '{hash}'\ndifficulty_schedule = 'enforce'");
    let config = Config::load(sources(dir.path(), &text)).unwrap();
    assert!(config.peers().is_empty() && config.network.bootstrap.is_empty());
    assert_eq!(config.network.genesis_hash.as_deref(), Some(&*hash));
    assert_eq!(config.network.difficulty_schedule, Enforcement::Enforce);
    let text = "peer = ['own=/ip4/127.0.0.1/tcp/1']\nbootstrap = ['/ip4/127.0.0.1/tcp/1', '/ip4/127.0.0.1/tcp/2/ws']";
    let config = Config::load(sources(dir.path(), text)).unwrap();
    let peers: Vec<_> = config.peers().iter().map(ToString::to_string).collect();
    assert_eq!(peers, ["own=/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/2/ws"], "each once");
    let mut none = sources(dir.path(), "network = 'testnet'\ngenesis_hash = 'any'");
    none.flags = flags([("bootstrap", vec![""].into())]);
    assert!(Config::load(none).unwrap().peers().is_empty());
    for (name, value, problem) in [
        ("MODAL_GATEWAY_GENESIS_HASH", "first", "genesis_hash: `first`: expected any, or a hash"),
        ("MODAL_GATEWAY_DIFFICULTY_SCHEDULE", "maybe", "difficulty_schedule: expected enforce, report or off"),
        ("MODAL_GATEWAY_BOOTSTRAP", "127.0.0.1", "bootstrap: `127.0.0.1` is not a multiaddr"),
    ] {
        let error = load_env(name, value).unwrap_err();
        assert!(error.problem.starts_with(problem), "{}", error.problem);
    }
}

#[test]
fn the_networks_own_description_is_a_network_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mine.json");
    std::fs::write(&file, r#"{"bootstrappers": ["/ip4/127.0.0.1/tcp/7/ws"], "initial_difficulty": 3}"#).unwrap();
    let network = load_env("MODAL_GATEWAY_NETWORK", file.to_str().unwrap()).unwrap().network;
    assert_eq!((network.name.as_str(), network.initial_difficulty, network.bootstrap.len()), ("mine", 3, 1));
    std::fs::write(&file, r#"{"bootstrappers": ["nowhere"]}"#).unwrap();
    let error = load_env("MODAL_GATEWAY_NETWORK", file.to_str().unwrap()).unwrap_err().to_string();
    assert!(error.contains("mine.json") && error.contains("`nowhere`"), "{error}");
}

#[test]
fn a_network_file_says_what_differs() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("private.toml");
    std::fs::write(&file, "name = 'private'\nepoch_numbering = 'plain'").unwrap();
    let name = file.to_str().unwrap();
    let network = load_env("MODAL_GATEWAY_NETWORK", name).unwrap().network;
    assert_eq!(network.name, "private");
    assert_eq!(network.pow, Network::default().pow);
    std::fs::write(&file, "nmae = 'private'").unwrap();
    let error = load_env("MODAL_GATEWAY_NETWORK", name).unwrap_err().to_string();
    assert!(error.contains("private.toml") && error.contains("nmae"), "{error}");
}

#[test]
fn multicast_dns_is_for_networks_whose_private_addresses_are_dialled() {
    let dir = tempfile::tempdir().unwrap();
    for text in [
        "mdns = true",
        "network = 'testnet'\nmdns = true\nprivate_addresses = true",
        "network = 'devnet2'\nmdns = true",
    ] {
        assert!(Config::load(sources(dir.path(), text)).unwrap().mdns, "{text}");
    }
    let mut forbidden = sources(dir.path(), "network = 'testnet'\nprivate_addresses = false");
    forbidden.flags = flags([("mdns", true.into())]);
    let error = Config::load(forbidden).unwrap_err();
    assert!(error.origin == "--mdns" && error.problem.contains("private_addresses"), "{error}");
}
