use rstest::rstest;

use super::*;
use crate::chain::CumulativeDifficulty;

fn parse(settings: &str) -> Result<Network, String> {
    toml::from_str(settings).map_err(|error| error.to_string())
}

#[test]
fn a_file_names_only_what_differs() {
    let usual = Network::public("custom", &[]);
    assert_eq!(parse(""), Ok(usual.clone()));
    assert_eq!(parse("name = 'mine'"), Ok(Network { name: "mine".into(), ..usual.clone() }));
    let own = parse("initial_difficulty = '340282366920938463463374607431768211455'").unwrap();
    assert_eq!((own.initial_difficulty, own.genesis_hash), (u128::MAX, None));
    let hash = "ab".repeat(32);
    assert_eq!(parse(&format!("genesis_hash = '{hash}'")).unwrap().genesis_hash, Some(hash.clone()));
    assert_eq!(parse("genesis_hash = 'any'"), Ok(usual));
    let genesis = Network::devnet().genesis_hash.unwrap();
    let devnet = format!(
        "name = 'devnet'\ngenesis_hash = '{genesis}'\ninitial_difficulty = 1\ntarget_block_time = 10\npublic = false"
    );
    assert_eq!(parse(&devnet), Ok(Network::devnet()), "a private network enforces its schedule");
    let point = Position { index: 7, hash: hash.clone() };
    let written = format!("{{ index = 7, hash = '{hash}' }}");
    let checked = parse(&format!("checkpoints = [{written}, {written}]")).unwrap();
    assert_eq!(checked.checkpoints, [point.clone(), point], "the same twice does no harm");
    for work in ["809", "'809'"] {
        let assumed = parse(&format!("[assume_valid]\nindex = 7\nhash = '{hash}'\nwork = {work}"));
        let expected = AssumeValid { index: 7, hash: hash.clone(), work: CumulativeDifficulty::default() + 809 };
        assert_eq!(assumed.unwrap().assume_valid, Some(expected));
    }
}

#[rstest]
#[case("'enforce'", Enforcement::Enforce)]
#[case("'report'", Enforcement::Report)]
#[case("'off'", Enforcement::Off)]
#[case("true", Enforcement::Enforce)]
#[case("false", Enforcement::Off)]
fn the_schedule_is_enforced_reported_or_off(#[case] written: &str, #[case] meant: Enforcement) {
    let network = parse(&format!("difficulty_schedule = {written}")).unwrap();
    assert_eq!(network.difficulty_schedule, meant);
}

#[rstest]
#[case("initial_difficulty = 0", "initial_difficulty: must be above zero")]
#[case("initial_difficulty = -1", "expected a difficulty: a whole number, or a string")]
#[case("initial_difficulty = '1e3'", "expected a difficulty")]
#[case("target_block_time = 0", "target_block_time: must be above zero")]
#[case("checkpoints = [{ index = 1 }]", "missing field `hash`")]
#[case("checkpoints = [{ index = 5, hash = 'zz' }]", "checkpoints: index 5: `zz`: expected a hash of 64 lower-case")]
#[case("checkpoint = []", "unknown field `checkpoint`")]
#[case("genesis_hash = 'ab'", "genesis_hash: `ab`: expected any, or a hash of 64 lower-case hex digits")]
#[case("assume_valid = { index = 1, hash = 'AB', work = 7 }", "assume_valid: hash: expected 64 lower-case hex digits")]
#[case("assume_valid = { index = 1, hash = 'ab', work = -7 }", "work: expected a whole number")]
#[case("assume_valid = { index = 1, hash = 'ab' }", "missing field `work`")]
#[case("difficulty_schedule = 'maybe'", "expected \"enforce\", \"report\" or \"off\"")]
fn a_value_that_cannot_work_is_refused(#[case] settings: &str, #[case] problem: &str) {
    let error = parse(settings).unwrap_err();
    assert!(error.contains(problem), "{error}");
}

#[test]
fn a_checkpoint_has_one_hash_of_the_right_form() {
    let (small, other) = ("ab".repeat(32), "cd".repeat(32));
    let capital = small.to_uppercase();
    let error = parse(&format!("checkpoints = [{{ index = 5, hash = '{capital}' }}]")).unwrap_err();
    assert!(error.contains(&format!("checkpoints: index 5: `{capital}`: expected")), "{error}");
    let error = parse(&format!("genesis_hash = '{capital}'")).unwrap_err();
    assert!(error.contains(&format!("genesis_hash: `{capital}`: expected")), "{error}");
    let two = format!("checkpoints = [{{ index = 5, hash = '{small}' }}, {{ index = 5, hash = '{other}' }}]");
    let error = parse(&two).unwrap_err();
    assert!(error.contains(&format!("checkpoints: index 5: `{other}`: another block is named there")), "{error}");
    for (text, problem) in [
        (format!(r#"{{"checkpoints": [{{"index": 5, "hash": "{capital}"}}]}}"#), "checkpoints: index 5: `ABAB"),
        (r#"{"forced_blocks": {"40": "zz"}}"#.into(), "forced_blocks: index 40: `zz`: expected a hash"),
        (
            format!(r#"{{"checkpoints": [{{"index": 5, "hash": "{small}"}}], "forced_blocks": {{"5": "{other}"}}}}"#),
            "forced_blocks: index 5: `cdcd",
        ),
    ] {
        let error = Network::described(&text, "x").unwrap_err().to_string();
        assert!(error.contains(problem), "{text}: {error}");
    }
}

#[test]
fn the_built_in_networks_are_the_networks_own() {
    for name in Network::NAMES {
        assert_eq!(Network::named(name).unwrap().name, name);
    }
    let testnet = Network::named("testnet").unwrap();
    assert_eq!((testnet.initial_difficulty, testnet.target_block_time, testnet.public), (1, 60, true));
    assert_eq!((testnet.genesis_hash, testnet.difficulty_schedule), (None, Enforcement::Report));
    assert_eq!(
        testnet.bootstrap,
        [
            "/ip4/3.125.46.158/tcp/4040/ws/p2p/12D3KooWBGR3m1JmVFm2aZYR7TZXicjA7HSVSWi2fama5cPpgQiX",
            "/ip4/18.217.58.253/tcp/4040/ws/p2p/12D3KooWEA6dRWvK1vutRDxKfdPZZr7ycHvQNWrDGZZQbiE6YibZ",
            "/ip4/43.207.233.31/tcp/4040/ws/p2p/12D3KooWDGLGJhoUfkjG4P5MBaoRFVLMLRu4bEHQb9yy1XtHsH5h",
            "/dnsaddr/testnet.modality.network",
        ]
    );
    let mainnet = Network::named("mainnet").unwrap();
    assert_eq!((mainnet.initial_difficulty, mainnet.public, mainnet.genesis_hash), (10, true, None));
    let three = Network::named("devnet3").unwrap();
    assert_eq!((three.initial_difficulty, three.public, three.bootstrap.len()), (10, false, 3));
    assert_eq!(
        three.bootstrap[2],
        "/ip4/127.0.0.1/tcp/10303/ws/p2p/12D3KooW9qGaMuW7k2a5iEQ37gWgtjfFC4B3j5R1kKJPZofS62Se"
    );
    assert!(Network::devnet().bootstrap.is_empty(), "nothing is dialled unasked");
    assert_eq!(Network::named("modality"), None);
}

#[test]
fn the_networks_own_descriptions_are_read() {
    let (marked, forced) = ("ab".repeat(32), "cd".repeat(32));
    let text = r#"{"name": "mine", "description": "a network", "validators": ["12D3KooWx"],
        "bootstrappers": ["/ip4/192.0.2.1/tcp/4040/ws/p2p/12D3KooW9pte76rpnggcLYkFaawuTEs5DC5axHkg3cK3cewGxxHd"],
        "initial_difficulty": 7, "minimum_block_timestamp": 1761609600, "checkpoint_mode": "manual",
        "checkpoints": [{"block_index": 5, "block_hash": "ab"}, {"block_index": 9, "description": "no hash"}],
        "forced_blocks": {"40": "cd"}}"#;
    let text = text.replace(r#""ab""#, &format!("\"{marked}\"")).replace(r#""cd""#, &format!("\"{forced}\""));
    let network = Network::described(&text, "file").unwrap();
    assert_eq!((network.name.as_str(), network.initial_difficulty, network.public), ("mine", 7, true));
    assert_eq!(network.minimum_block_timestamp, Some(1_761_609_600));
    let expected = [Position { index: 5, hash: marked }, Position { index: 40, hash: forced }];
    assert_eq!(network.checkpoints, expected);
    assert_eq!((network.bootstrap.len(), network.difficulty_schedule), (1, Enforcement::Report));

    let node = r#"{"listeners": ["/ip4/0.0.0.0/tcp/1/ws"], "bootstrappers": ["/ip4/127.0.0.1/tcp/10101/ws"],
        "miner_hash_func": "sha256", "miner_nominees": ["x"], "status_port": 1}"#;
    let network = Network::described(node, "node1").unwrap();
    assert_eq!((network.name.as_str(), network.pow, network.initial_difficulty), ("node1", PowAlgorithm::Sha256, 10));
    assert!(!network.public, "all of it is on this machine");
    assert_eq!(Network::described(r#"{"name": "testnet"}"#, "x").unwrap().initial_difficulty, 1);

    for (text, problem) in [
        (r#"{"initial_difficulty": 0}"#, "above zero"),
        (r#"{"bootstrappers": 7}"#, "line 1"),
        (r#"{"miner_hash_func": "scrypt"}"#, "`scrypt`"),
        ("{", "line 1"),
    ] {
        let error = Network::described(text, "x").unwrap_err().to_string();
        assert!(error.contains(problem), "{text}: {error}");
    }
}
